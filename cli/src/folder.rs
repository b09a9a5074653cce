//! A folder of objects, read once and without an agent: what `explain --from-folder`, `simulate` and `validate` know.
//!
//! Read are `DIR/**/*.{yaml,yml,json}` (names that begin with a dot apart) and what agents write beside them: `.nodes`,
//! `.endpoints` and `.identities`. The rules are the store's: links to files are followed and links to folders are not, no
//! more than 16 levels and 100,000 files are read, and of a file that can't be read, or holds nothing, nothing is taken;
//! one object of a kind, namespace and name; of two the one whose path comes first in byte order wins, and the other is
//! refused (policy.md 4). Neighbours: `agent/src/store` watches such a folder; `sinew_api` decodes what stands in it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sinew_api::object::folder::{MAX_DEPTH, MAX_FILES, is_hidden, is_object_file};
use sinew_api::object::{Object, ObjectName, Origin, Problem, Refused, decode_bytes};
use sinew_api::yaml;

/// What stands in the folder.
#[derive(Debug, Default)]
pub(crate) struct Folder {
    /// Objects by the order of their paths and places; no name twice.
    pub(crate) objects: Vec<Object>,
    /// Documents that are no objects, and objects whose name is taken.
    pub(crate) refused: Vec<Refused>,
}

/// Folders that agents write, inside the folder of the objects.
const OF_AGENTS: [&str; 3] = [".nodes", ".endpoints", ".identities"];

impl Folder {
    /// Reads the folder. What can't be read as a file is an error; what is no object is told in `refused`.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let mut files = Vec::new();
        collect(folder, 0, &mut files)?;
        // Whole paths, since `a-b.yaml` comes before `a/x.yaml` although `a` comes before `a-b.yaml`.
        files.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
        for name in OF_AGENTS {
            let own = folder.join(name);
            if own.is_dir() {
                collect(&own, 1, &mut files)?;
            }
        }
        let mut read = Self::default();
        for file in files {
            // `.` as a folder should not show in every place.
            let shown = file.strip_prefix(".").unwrap_or(&file).display().to_string();
            match content(&file) {
                Ok(Some(bytes)) => read.add(&shown, &bytes),
                // A link to a folder.
                Ok(None) => {}
                Err(message) => {
                    let origin = Origin { file: shown, line: 0 };
                    let problem = Problem { path: String::new(), message, origin: origin.clone() };
                    read.refused.push(Refused::new(None, origin, vec![problem]));
                }
            }
        }
        Ok(read.without_duplicates())
    }

    /// Reads one file, or stdin where `path` is `-`, or a folder.
    pub(crate) fn read_any(path: &Path) -> Result<Self> {
        let mut read = Self::default();
        if path == Path::new("-") {
            let mut bytes = Vec::new();
            std::io::stdin().lock().read_to_end(&mut bytes).context("read stdin")?;
            read.add("<stdin>", &bytes);
        } else if path.is_dir() {
            return Self::read(path);
        } else {
            let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
            read.add(&path.display().to_string(), &bytes);
        }
        Ok(read.without_duplicates())
    }

    /// Puts the objects of `other` beside those of this folder; where both have a name, `other` has the last word.
    pub(crate) fn overlaid_by(mut self, other: &Self) -> Self {
        let names = other.objects.iter().map(Object::name).collect::<Vec<_>>();
        self.objects.retain(|object| !names.contains(&object.name()));
        self.objects.extend(other.objects.iter().cloned());
        self
    }

    fn add(&mut self, file: &str, bytes: &[u8]) {
        for decoded in decode_bytes(file, bytes) {
            match decoded {
                Ok(object) => self.objects.push(object),
                Err(refused) => {
                    // A deny rule reaches what can be read of a group (policy.md 14).
                    self.objects
                        .extend(refused.remains.iter().map(|group| Object::CidrGroup((**group).clone())));
                    self.refused.push(refused);
                }
            }
        }
    }

    /// The objects came in the order of their paths: the first of a name stays.
    fn without_duplicates(mut self) -> Self {
        let mut places: BTreeMap<ObjectName, Origin> = BTreeMap::new();
        let mut kept = Vec::with_capacity(self.objects.len());
        for object in std::mem::take(&mut self.objects) {
            let (name, place) = (object.name(), origin(&object));
            match places.get(&name) {
                None => {
                    places.insert(name, place);
                    kept.push(object);
                }
                Some(first) => {
                    let message = format!(
                        "{name} stands in {first} already, and that one counts: its path comes first"
                    );
                    let problem = Problem { path: "metadata.name".into(), message, origin: place.clone() };
                    self.refused.push(Refused::new(Some(name), place, vec![problem]));
                }
            }
        }
        self.objects = kept;
        self
    }
}

/// Where an object stands.
pub(crate) fn origin(object: &Object) -> Origin {
    match object {
        Object::Policy(policy) => policy.origin.clone(),
        Object::CidrGroup(group) => group.origin.clone(),
        Object::Pod(pod) => pod.origin.clone(),
        Object::Namespace(namespace) => namespace.origin.clone(),
        Object::Node(node) => node.origin.clone(),
        Object::Endpoint(endpoint) => endpoint.origin.clone(),
        Object::Identity(identity) => identity.origin.clone(),
    }
}

/// Every object file below `folder`, in no order.
fn collect(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<()> {
    if depth > MAX_DEPTH {
        bail!("{} is more than {MAX_DEPTH} folders deep, and the agent would not read it", folder.display());
    }
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let entry = entry.with_context(|| format!("list {}", folder.display()))?;
        let path = entry.path();
        // Places are printed; a name that is no text is passed over.
        let Ok(name) = entry.file_name().into_string() else { continue };
        // Of the entry itself: a link to a folder is none, so no circle of links has no end.
        let kind = entry.file_type().with_context(|| format!("look at {}", path.display()))?;
        if kind.is_dir() {
            if !is_hidden(&name) {
                collect(&path, depth + 1, files)?;
            }
        } else if is_object_file(&name) {
            if files.len() == MAX_FILES {
                bail!(
                    "the folder has more than {MAX_FILES} files, and the agent would not read {}",
                    path.display()
                );
            }
            files.push(path);
        }
    }
    Ok(())
}

/// What a file holds, or why the agent would take nothing of it; nothing for a folder.
fn content(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let failed = |error: io::Error| format!("the file cannot be read: {error}");
    let metadata = fs::metadata(path).map_err(failed)?;
    if metadata.is_dir() {
        return Ok(None);
    }
    // Opening a pipe would wait for its writer.
    if !metadata.is_file() {
        return Err("this is neither a file nor a folder".into());
    }
    let limit = yaml::MAX_BYTES as u64;
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes)).map_err(failed)?;
    match bytes.len() as u64 {
        0 => Err("the file is empty: delete it to remove what it held".into()),
        length if length > limit => Err(format!("the file is larger than {limit} bytes: split it")),
        _ => Ok(Some(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> String {
        format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: default}}\n")
    }

    #[test]
    fn the_first_path_wins_and_both_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("a")).unwrap();
        fs::write(at("a/pods.yml"), format!("{}---\n{}", pod("web"), pod("db"))).unwrap();
        fs::write(at("a-b.yaml"), pod("web")).unwrap();
        fs::write(at("notes.txt"), "not YAML: [").unwrap();
        fs::write(at(".hidden.yaml"), "not YAML: [").unwrap();
        let read = Folder::read(folder.path()).unwrap();
        let names = read.objects.iter().map(|object| object.name().to_string()).collect::<Vec<_>>();
        assert_eq!(names, ["Pod/default/web", "Pod/default/db"]);
        assert_eq!(origin(&read.objects[0]).file, at("a-b.yaml").display().to_string());
        let [refused] = read.refused.as_slice() else { panic!("{:?}", read.refused) };
        assert_eq!(refused.origin.file, at("a/pods.yml").display().to_string());
        let first = format!("Pod/default/web stands in {}:1 already", at("a-b.yaml").display());
        assert!(refused.problems[0].message.starts_with(&first), "{}", refused.problems[0].message);
    }

    #[test]
    fn nothing_that_stands_in_a_folder_keeps_it_from_being_read() {
        use std::os::unix::fs::symlink;

        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("pod.yaml"), pod("web")).unwrap();
        fs::write(at("kustomization.yaml"), "resources: [pod.yaml]\n").unwrap();
        fs::write(at("other.yaml"), "apiVersion: apps/v1\nkind: Deployment\n").unwrap();
        fs::write(at("empty.yaml"), "").unwrap();
        fs::write(at("huge.yaml"), vec![b'#'; yaml::MAX_BYTES + 1]).unwrap();
        symlink(folder.path(), at("circle")).unwrap();
        symlink(folder.path(), at("circle.yaml")).unwrap();
        symlink(at("nowhere"), at("dangling.yaml")).unwrap();
        fs::create_dir(at("mounted")).unwrap();
        fs::write(at("notes"), pod("db")).unwrap();
        symlink(at("notes"), at("mounted/db.yaml")).unwrap();
        let pipe = std::process::Command::new("mkfifo").arg(at("pipe.yaml")).status().unwrap();
        assert!(pipe.success());

        let read = Folder::read(folder.path()).unwrap();
        let names = read.objects.iter().map(|object| object.name().to_string()).collect::<Vec<_>>();
        assert_eq!(names, ["Pod/default/db", "Pod/default/web"], "a link to a file is followed");
        let file = |path: &str| Path::new(path).file_name().unwrap().to_string_lossy().into_owned();
        let refused = read.refused.iter().map(|refused| (file(&refused.origin.file), refused.foreign));
        let expected = ["dangling.yaml", "empty.yaml", "huge.yaml", "other.yaml", "pipe.yaml"];
        let expected = expected.map(|name| (name.to_owned(), name == "other.yaml"));
        assert_eq!(refused.collect::<Vec<_>>(), expected);

        let deep = (0..=MAX_DEPTH).fold(folder.path().to_owned(), |path, _| path.join("d"));
        fs::create_dir_all(deep).unwrap();
        let error = Folder::read(folder.path()).unwrap_err();
        assert!(error.to_string().contains("16 folders deep"), "{error}");
    }

    #[test]
    fn what_agents_write_is_read_too() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(".identities")).unwrap();
        let identity = "apiVersion: sinew.io/v1\nkind: SinewIdentity\nmetadata: {name: '257'}\n\
                        spec: {labels: ['k8s:app=web']}\n";
        fs::write(folder.path().join(".identities/257.yaml"), identity).unwrap();
        let read = Folder::read(folder.path()).unwrap();
        assert_eq!(read.refused, []);
        assert!(
            matches!(read.objects.as_slice(), [Object::Identity(identity)] if identity.identity.0 == 257)
        );
    }

    #[test]
    fn a_folder_that_is_not_there_says_so() {
        let error = Folder::read(Path::new("/nonexistent-folder")).unwrap_err();
        assert!(format!("{error:#}").starts_with("list /nonexistent-folder: No such file"), "{error:#}");
    }
}
