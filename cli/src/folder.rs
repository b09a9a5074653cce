//! A folder of objects, read once and without an agent: what `explain --from-folder`, `simulate` and `validate` know.
//!
//! Read are `DIR/**/*.{yaml,yml,json}` (names that begin with a dot apart) and what agents write beside them: `.nodes`,
//! `.endpoints` and `.identities`. The rules are the store's: one object of a kind, namespace and name; of two the one
//! whose path comes first in byte order wins, and the other is refused (policy.md 4). Neighbours: `agent/src/store`
//! watches such a folder; `sinew_api` decodes what stands in it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sinew_api::object::{Object, ObjectName, Origin, Problem, Refused, decode_bytes};

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
        collect(folder, &mut files)?;
        // Whole paths, since `a-b.yaml` comes before `a/x.yaml` although `a` comes before `a-b.yaml`.
        files.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
        for name in OF_AGENTS {
            let own = folder.join(name);
            if own.is_dir() {
                collect(&own, &mut files)?;
            }
        }
        let mut read = Self::default();
        for file in files {
            let bytes = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
            // `.` as a folder should not show in every place.
            let shown = file.strip_prefix(".").unwrap_or(&file);
            read.add(&shown.display().to_string(), &bytes);
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
                Err(refused) => self.refused.push(refused),
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
                    self.refused.push(Refused { name: Some(name), origin: place, problems: vec![problem] });
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
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry.with_context(|| format!("list {}", folder.display()))?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden {
            continue;
        }
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json") {
            files.push(path);
        }
    }
    Ok(())
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
