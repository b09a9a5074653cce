//! Writes of the agent into the folder. Every file appears whole: it is written under a hidden temporary name in the same
//! folder and moved into place, or linked there where it must be the first. A temporary name names its node, so that an
//! agent that was killed while it wrote is cleared up after by the next one. What is long in a temporary name is cut, and
//! the name of a status file too, which is never read back by its name.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde_json::{Map, Value, json};
use sinew_api::object::{Endpoint, Node, ObjectName, Problem};
use sinew_api::yaml;

use super::{FolderError, area};
use crate::file_name::{cut, fitting};
use crate::netlink::address::digest;
use crate::store::ObjectStatus;

/// How names of files end that are not whole yet.
const TEMPORARY: &str = ".tmp";
/// Bytes of a temporary name that are its node's.
const NODE_BYTES: usize = 100;
/// Folders below `.status`: kind, then namespace.
pub(super) const STATUS_DEPTH: usize = 2;

/// The folder below `.status` with what has no name.
pub(super) const UNREADABLE: &str = "unreadable";

/// The folders that agents write.
#[derive(Clone, Debug)]
pub(super) struct Folders {
    root: PathBuf,
    node: String,
}

impl Folders {
    /// The folders, made or not.
    pub(super) fn at(root: &Path, node: &str) -> Self {
        Self { root: root.into(), node: node.into() }
    }

    /// Makes the folders that are missing, and removes what an earlier agent of this node was writing when it ended.
    pub(super) fn make(root: &Path, node: &str) -> Result<Self, FolderError> {
        let folders = Self::at(root, node);
        for folder in [area::NODES, area::IDENTITIES, area::STATUS] {
            folders.make_folder(&root.join(folder))?;
        }
        folders.make_folder(&folders.endpoints())?;
        for folder in [root.join(area::NODES), root.join(area::IDENTITIES), folders.endpoints()] {
            folders.discard_unfinished(&folder, 0);
        }
        folders.discard_unfinished(&root.join(area::STATUS), STATUS_DEPTH);
        Ok(folders)
    }

    /// The folder of all objects.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// This node's name.
    pub(super) fn node(&self) -> &str {
        &self.node
    }

    /// This node's number: the one it has, or a free one that it takes exclusively. The search begins where the name's
    /// hash says, so that a node that lost its file finds its number again unless another took it.
    pub(super) fn take_node_number(&self, node: &str) -> Result<u16, FolderError> {
        let hash = digest(&[node]);
        let start = u32::from(u16::from_be_bytes([hash[0], hash[1]]));
        for step in 0..u32::from(u16::MAX) {
            let number = (start + step) % u32::from(u16::MAX) + 1;
            let path = self.root.join(area::NODES).join(format!(".number-{number}"));
            let is_ours = || fs::read_to_string(&path).is_ok_and(|owner| owner == node);
            // Read first: a disk that takes nothing keeps no node from the number that it has.
            let taken = is_ours()
                || !path.exists()
                    && self
                        .create_first(&path, node.as_bytes())
                        .map_err(|source| FolderError::Unwritable { path: path.clone(), source })?
                || is_ours();
            if taken {
                return Ok(u16::try_from(number).expect("the remainder by 65535, plus one, is a u16"));
            }
        }
        Err(FolderError::NoNodeNumber(self.root.clone()))
    }

    pub(super) fn write_node(&self, node: &Node) -> io::Result<()> {
        self.replace(&self.root.join(area::NODES).join(format!("{}.yaml", node.name)), &node.to_yaml())
    }

    pub(super) fn write_endpoint(&self, endpoint: &Endpoint) -> io::Result<()> {
        let path = self.endpoints().join(format!("{}.yaml", endpoint.name));
        let text = endpoint.to_yaml();
        if fs::read_to_string(&path).is_ok_and(|present| present == text) {
            return Ok(());
        }
        self.replace(&path, &text)
    }

    pub(super) fn remove_endpoint(&self, name: &str) -> io::Result<()> {
        gone(fs::remove_file(self.endpoints().join(format!("{name}.yaml"))))
    }

    /// Removes a node and all that it had written.
    pub(super) fn forget_node(&self, node: &str) -> io::Result<()> {
        gone(fs::remove_dir_all(self.root.join(area::ENDPOINTS).join(node)))?;
        gone(fs::remove_file(self.root.join(area::NODES).join(format!("{node}.yaml"))))?;
        for entry in fs::read_dir(self.root.join(area::NODES))? {
            let path = entry?.path();
            let is_number =
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".number-"));
            if is_number && fs::read_to_string(&path).is_ok_and(|owner| owner == node) {
                gone(fs::remove_file(&path))?;
            }
        }
        Ok(())
    }

    /// Writes this node's part of an object's status. Several nodes may write into one file, so it is read and written
    /// under a lock on the status folder.
    pub(super) fn write_status(&self, status: &ObjectStatus) -> io::Result<()> {
        let path = self.status_path(&status.name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let _lock = self.lock_statuses()?;
        let mut nodes = self.nodes_of_status(&path);
        nodes.insert(self.node.clone(), node_part(status));
        let text = status_text(&status.name, &nodes);
        if fs::read_to_string(&path).is_ok_and(|present| present == text) {
            return Ok(());
        }
        self.replace(&path, &text)
    }

    /// Writes which documents this node can't read, by place, for whoever wrote them. They have no name that a status could
    /// stand under.
    pub(super) fn write_unreadable(&self, problems: &[Problem]) -> io::Result<()> {
        let folder = self.root.join(area::STATUS).join(UNREADABLE);
        let path = folder.join(format!("{}.yaml", self.node));
        if problems.is_empty() {
            return gone(fs::remove_file(path));
        }
        fs::create_dir_all(&folder)?;
        self.replace(&path, &yaml::write(&json!({ "documents": lines(problems) })))
    }

    /// The parts of all nodes, those that left dropped.
    pub(super) fn nodes_of_status(&self, path: &Path) -> Map<String, Value> {
        let text = fs::read_to_string(path).unwrap_or_default();
        let mut nodes = Map::new();
        for document in yaml::documents(&text).into_iter().flatten() {
            let parts = document.root.get("status").and_then(|status| status.get("nodes"));
            if let Some(yaml::Value::Mapping(entries)) = parts.map(|parts| &parts.value) {
                for entry in entries {
                    let lives = self.root.join(area::NODES).join(format!("{}.yaml", entry.key)).exists();
                    if lives {
                        nodes.insert(entry.key.clone(), json_of(&entry.value));
                    }
                }
            }
        }
        nodes
    }

    pub(super) fn lock_statuses(&self) -> io::Result<Flock<File>> {
        let file = File::create(self.root.join(area::STATUS).join(".lock"))?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error.into())
    }

    pub(super) fn status_path(&self, name: &ObjectName) -> PathBuf {
        let mut path = self.root.join(area::STATUS).join(name.kind.kind());
        if !name.namespace.is_empty() {
            path.push(&name.namespace);
        }
        path.join(fitting(&name.name, ".yaml"))
    }

    /// Removes this node's temporary files in a folder and in so many levels of folders below it.
    fn discard_unfinished(&self, folder: &Path, depth: usize) {
        for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if depth > 0 && path.is_dir() {
                self.discard_unfinished(&path, depth - 1);
            } else if path.file_name().is_some_and(|name| self.is_unfinished(&name.to_string_lossy())) {
                discard(&path);
            }
        }
    }

    fn is_unfinished(&self, file: &str) -> bool {
        let mut parts = file.rsplit('@');
        parts.next().is_some_and(|writer| writer.ends_with(TEMPORARY))
            && parts.next().is_some_and(|node| node == cut(&self.node, NODE_BYTES))
    }

    /// Replaces a file's content at once for every reader.
    pub(super) fn replace(&self, path: &Path, text: &str) -> io::Result<()> {
        let temporary = self.write_temporary(path, text.as_bytes())?;
        fs::rename(&temporary, path).inspect_err(|_| discard(&temporary))
    }

    /// Makes a file with this content unless there is one: true if it was made. It is never seen without its content.
    pub(super) fn create_first(&self, path: &Path, content: &[u8]) -> io::Result<bool> {
        let temporary = self.write_temporary(path, content)?;
        let outcome = fs::hard_link(&temporary, path);
        discard(&temporary);
        match outcome {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn write_temporary(&self, path: &Path, content: &[u8]) -> io::Result<PathBuf> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let (node, thread) = (cut(&self.node, NODE_BYTES), std::thread::current().id());
        // No name of an object or a node has an `@`.
        let writer = format!("@{node}@{thread:?}{TEMPORARY}");
        let temporary = path.with_file_name(fitting(&format!(".{name}"), &writer));
        let mut file = self
            .create(&temporary)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        file.write_all(content).inspect_err(|_| discard(&temporary))?;
        Ok(temporary)
    }

    /// Makes a file, and its folder where somebody took that away. The folder of all objects is others' to make.
    fn create(&self, path: &Path) -> io::Result<File> {
        match File::create(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.root.is_dir() => {
                fs::create_dir_all(path.parent().unwrap_or(&self.root))?;
                File::create(path)
            }
            outcome => outcome,
        }
    }

    fn endpoints(&self) -> PathBuf {
        self.root.join(area::ENDPOINTS).join(&self.node)
    }

    fn make_folder(&self, path: &Path) -> Result<(), FolderError> {
        fs::create_dir_all(path).map_err(|source| FolderError::Unwritable { path: path.into(), source })
    }
}

fn discard(temporary: &Path) {
    if let Err(error) = fs::remove_file(temporary) {
        tracing::debug!(path = %temporary.display(), %error, "a temporary file stays behind");
    }
}

/// What is gone already is as good as removed.
pub(super) fn gone(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

fn status_text(name: &ObjectName, nodes: &Map<String, Value>) -> String {
    let mut metadata = Map::from_iter([("name".to_owned(), json!(name.name))]);
    if !name.namespace.is_empty() {
        metadata.insert("namespace".into(), json!(name.namespace));
    }
    let version = name.kind.api_versions().first().copied().unwrap_or_default();
    let mut text = yaml::write(&json!({ "apiVersion": version }));
    text.push_str(&yaml::write(&json!({ "kind": name.kind.kind() })));
    text.push_str(&yaml::write(&json!({ "metadata": metadata })));
    text.push_str(&yaml::write(&json!({ "status": { "nodes": nodes } })));
    text
}

fn node_part(status: &ObjectStatus) -> Value {
    let mut part = Map::from_iter([("state".to_owned(), json!(status.state.word()))]);
    if !status.message.is_empty() {
        part.insert("message".into(), json!(status.message));
    }
    if status.generation != 0 {
        part.insert("generation".into(), json!(status.generation));
        part.insert("runningGeneration".into(), json!(status.running_generation));
    }
    if !status.problems.is_empty() {
        part.insert("problems".into(), json!(lines(&status.problems)));
    }
    if !status.warnings.is_empty() {
        part.insert("warnings".into(), json!(lines(&status.warnings)));
    }
    if let Some(first) = status.addresses.first() {
        // As the API server has them, so that a reader of pods finds them where they are in Kubernetes.
        part.insert("podIP".into(), json!(first));
        let all: Vec<Value> = status.addresses.iter().map(|address| json!({ "ip": address })).collect();
        part.insert("podIPs".into(), json!(all));
    }
    Value::Object(part)
}

/// Each problem with its place in front.
fn lines(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(|problem| format!("{}: {problem}", problem.origin)).collect()
}

fn json_of(node: &yaml::Node) -> Value {
    match &node.value {
        yaml::Value::Null => Value::Null,
        yaml::Value::Bool(value) => json!(value),
        yaml::Value::Integer(value) => json!(value),
        yaml::Value::Number(text) | yaml::Value::Text(text) => json!(text),
        yaml::Value::Sequence(items) => Value::Array(items.iter().map(json_of).collect()),
        yaml::Value::Mapping(entries) => {
            Value::Object(entries.iter().map(|entry| (entry.key.clone(), json_of(&entry.value))).collect())
        }
    }
}
