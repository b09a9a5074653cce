//! The folder of objects that all agents of a lab share; the lab writes it as a person or a tool would.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The folder store of a lab.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    pub(super) fn make(&self) -> Result<()> {
        fs::create_dir_all(&self.folder).with_context(|| format!("making {}", self.folder.display()))
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file of objects of this name.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.yaml"))
    }

    /// Puts objects into the file `<name>.yaml`, whole or not at all. Does not wait for anything.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, name: &str, yaml: &str) -> Result<()> {
        let file = self.file(name);
        let folder = file.parent().expect("a file of the store lies in a folder");
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let beside = file.with_extension("tmp");
        fs::write(&beside, yaml).with_context(|| format!("writing {}", beside.display()))?;
        fs::rename(&beside, &file).with_context(|| format!("putting {} in place", file.display()))
    }

    /// Removes the file `<name>.yaml`.
    ///
    /// # Errors
    /// There is none.
    pub fn remove(&self, name: &str) -> Result<()> {
        let file = self.file(name);
        fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))
    }

    /// Writes a pod's object, as the API server would hold it once the scheduler has chosen the node.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_pod(&self, pod: &PodObject) -> Result<()> {
        self.write(&pod_file(&pod.namespace, &pod.name), &pod.yaml()?)
    }

    /// Removes a pod's object.
    ///
    /// # Errors
    /// There is none.
    pub fn remove_pod(&self, namespace: &str, name: &str) -> Result<()> {
        self.remove(&pod_file(namespace, name))
    }
}

/// What the lab says of a pod in the store.
#[derive(Clone, Debug)]
pub struct PodObject {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The node that it runs on.
    pub node: String,
    /// Ports with a name: name, number, protocol.
    pub ports: Vec<(String, u16, String)>,
}

impl PodObject {
    fn yaml(&self) -> Result<String> {
        // A JSON string is a YAML string, quoted whatever it holds.
        let quoted = |text: &str| serde_json::to_string(text).context("a string as JSON");
        let mut yaml = format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {}\n  namespace: {}\n  uid: {}\n",
            quoted(&self.name)?,
            quoted(&self.namespace)?,
            quoted(&self.uid)?
        );
        if !self.labels.is_empty() {
            yaml.push_str("  labels:\n");
            for (key, value) in &self.labels {
                writeln!(yaml, "    {}: {}", quoted(key)?, quoted(value)?)?;
            }
        }
        write!(yaml, "spec:\n  nodeName: {}\n", quoted(&self.node)?)?;
        if !self.ports.is_empty() {
            yaml.push_str("  containers:\n  - name: main\n    ports:\n");
            for (name, number, protocol) in &self.ports {
                writeln!(yaml, "    - {{name: {name}, containerPort: {number}, protocol: {protocol}}}")?;
            }
        }
        Ok(yaml)
    }
}

fn pod_file(namespace: &str, name: &str) -> String {
    format!("pods/{namespace}_{name}")
}
