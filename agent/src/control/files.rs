//! What the engine must find again after a restart: numbers that it gave out, and the last valid version of each policy.
//!
//! `numbers.jsonl` is appended to, a line a number; a last line that a power cut left incomplete is dropped, nothing had
//! used it. `policies/` has a file a policy, synced, since a refused edit must not open anything after a power cut either
//! (policy.md 14).

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use sinew_api::object::PolicyName;
use sinew_api::policy::Policy;
use sinew_engine::Record;

/// Name of the file of numbers.
pub(crate) const NUMBERS: &str = "numbers.jsonl";
/// Name of the folder of policies.
pub(crate) const POLICIES: &str = "policies";

/// A file that can't be read or written.
#[derive(Debug, thiserror::Error)]
#[error("state file {path}: {source}")]
pub struct FileError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The files of one node.
#[derive(Debug)]
pub(super) struct NodeFiles {
    state_dir: PathBuf,
    numbers: File,
}

/// What they held at start.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    /// Numbers, in the order in which they were given.
    pub(super) numbers: Vec<Record>,
    /// Last valid policies.
    pub(super) policies: Vec<Policy>,
}

impl NodeFiles {
    /// Opens the files and reads what they hold.
    ///
    /// # Errors
    /// [`FileError`]: without them a number could get a second meaning.
    pub(super) fn open(state_dir: &Path) -> Result<(Self, Remembered), FileError> {
        let path = state_dir.join(NUMBERS);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| FileError { path, source }
        };
        fs::create_dir_all(state_dir.join(POLICIES)).map_err(failed(&state_dir.join(POLICIES)))?;
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            text => text.map_err(failed(&path))?,
        };
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let mut numbers = Vec::new();
        for line in text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            numbers.push(serde_json::from_slice(line).map_err(io::Error::from).map_err(failed(&path))?);
        }
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(failed(&path))?;
        file.set_len(whole as u64).map_err(failed(&path))?;
        let policies = read_policies(&state_dir.join(POLICIES))
            .map_err(failed(&state_dir.join(POLICIES)))?
            .into_values()
            .collect();
        Ok((Self { state_dir: state_dir.into(), numbers: file }, Remembered { numbers, policies }))
    }

    /// Appends a number.
    ///
    /// # Errors
    /// [`FileError`]; the number must not be used then.
    pub(super) fn remember(&mut self, record: &Record) -> Result<(), FileError> {
        let mut line = serde_json::to_vec(record).expect("a number and its meaning are plain JSON");
        line.push(b'\n');
        self.numbers
            .write_all(&line)
            .map_err(|source| FileError { path: self.state_dir.join(NUMBERS), source })
    }

    /// Keeps a valid version of a policy.
    ///
    /// # Errors
    /// [`FileError`].
    pub(super) fn keep_policy(&self, policy: &Policy) -> Result<(), FileError> {
        let path = self.policy_path(&policy.name);
        let text = serde_json::to_vec(policy).expect("a policy is plain JSON");
        write_synced(&path, &text).map_err(|source| FileError { path, source })
    }

    /// Forgets a policy.
    ///
    /// # Errors
    /// [`FileError`].
    pub(super) fn forget_policy(&self, name: &PolicyName) -> Result<(), FileError> {
        let path = self.policy_path(name);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(FileError { path, source }),
            _ => Ok(()),
        }
    }

    fn policy_path(&self, name: &PolicyName) -> PathBuf {
        // Names of objects hold neither colons nor slashes.
        let file = format!("{}:{}:{}.json", name.kind.short(), name.namespace, name.name);
        self.state_dir.join(POLICIES).join(file)
    }
}

fn read_policies(folder: &Path) -> io::Result<BTreeMap<PathBuf, Policy>> {
    let mut policies = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            fs::remove_file(&path)?;
            continue;
        }
        match serde_json::from_slice(&fs::read(&path)?) {
            Ok(policy) => {
                policies.insert(path, policy);
            }
            // Written by a version with another idea of a policy: the store's text is read anew anyway.
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a kept policy is unreadable and is not used")
            }
        }
    }
    Ok(policies)
}

fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_data()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use sinew_api::object::{Object, decode_text};
    use sinew_engine::Cause;

    use super::*;

    #[test]
    fn numbers_come_back_and_half_a_line_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let (mut files, remembered) = NodeFiles::open(folder.path()).unwrap();
        assert!(remembered.numbers.is_empty());
        files.remember(&Record::Cookie(1, Cause::LocalHost)).unwrap();
        let path = folder.path().join(NUMBERS);
        let mut text = fs::read(&path).unwrap();
        text.extend(b"{\"cookie\":[2");
        fs::write(&path, text).unwrap();
        let (mut files, remembered) = NodeFiles::open(folder.path()).unwrap();
        assert_eq!(remembered.numbers, [Record::Cookie(1, Cause::LocalHost)]);
        files.remember(&Record::Cookie(2, Cause::Init)).unwrap();
        let (_, remembered) = NodeFiles::open(folder.path()).unwrap();
        assert_eq!(remembered.numbers.len(), 2);
    }

    #[test]
    fn a_number_that_cannot_be_read_stops_the_agent() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(NUMBERS), "nonsense\n").unwrap();
        let error = NodeFiles::open(folder.path()).unwrap_err();
        assert!(error.to_string().contains(NUMBERS), "{error}");
    }

    #[test]
    fn policies_come_back_until_they_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: team}\n\
                    spec: {podSelector: {}, policyTypes: [Ingress]}\n";
        let Ok(Object::Policy(policy)) = decode_text("x.yaml", text).remove(0) else { panic!() };
        let (files, _) = NodeFiles::open(folder.path()).unwrap();
        files.keep_policy(&policy).unwrap();
        let (files, remembered) = NodeFiles::open(folder.path()).unwrap();
        assert_eq!(remembered.policies, std::slice::from_ref(&policy));
        files.forget_policy(&policy.name).unwrap();
        files.forget_policy(&policy.name).unwrap();
        let (_, remembered) = NodeFiles::open(folder.path()).unwrap();
        assert!(remembered.policies.is_empty());
    }
}
