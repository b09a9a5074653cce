//! What must be found again after a restart: numbers that the engine gave out, the last valid version of each policy, and
//! that of the objects which policies lean on.
//!
//! `numbers.jsonl` is appended to, a line a number; a last line that a power cut left incomplete is dropped, nothing had
//! used it, and so is what a write that failed left of its line. It starts anew with what the engine still remembers when
//! it has many more lines than that. `policies/` has a file a policy, synced, since a refused edit must not open anything
//! after a power cut either (policy.md 14); [`kept`] has the other objects. These files go by their content: the name of
//! one whose policy has a long name is cut.

mod kept;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sinew_api::object::{Object, PolicyName};
use sinew_api::policy::Policy;
use sinew_engine::Record;

use crate::durable;
use crate::file_name::fitting;
pub(super) use kept::KeptObjects;
pub(crate) use kept::OBJECTS;

/// Name of the file of numbers.
pub(crate) const NUMBERS: &str = "numbers.jsonl";
/// Name of the folder of policies.
pub(crate) const POLICIES: &str = "policies";

/// Lines that the file of numbers may have beyond twice as many as it began with: 5 MB.
const SPARE_LINES: usize = 32_768;
/// Time that writing what waits may take at once: each file waits for the disk.
const AT_ONCE: Duration = Duration::from_millis(50);

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
    /// Bytes of the file that are whole lines.
    whole: u64,
    /// Whether something else may stand behind them, of a write that failed.
    torn: bool,
    /// Lines of the file, and those that it started with.
    lines: usize,
    began_with: usize,
    /// Policies that the disk could not take: the version to keep, or none to forget it.
    unwritten: BTreeMap<PolicyName, Option<Arc<Policy>>>,
    /// Objects that policies lean on.
    pub(super) objects: KeptObjects,
}

/// What they held at start.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    /// Numbers, in the order in which they were given.
    pub(super) numbers: Vec<Record>,
    /// Last valid policies.
    pub(super) policies: Vec<Policy>,
    /// Last valid objects of other kinds.
    pub(super) objects: Vec<Object>,
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
        let (lines, began_with) = (numbers.len(), numbers.len());
        let (kept, objects) = KeptObjects::open(state_dir)?;
        let files = Self {
            state_dir: state_dir.into(),
            numbers: file,
            whole: whole as u64,
            torn: false,
            lines,
            began_with,
            unwritten: BTreeMap::new(),
            objects: kept,
        };
        Ok((files, Remembered { numbers, policies, objects }))
    }

    /// Appends a number.
    ///
    /// # Errors
    /// [`FileError`]; the number must not be used then.
    pub(super) fn remember(&mut self, record: &Record) -> Result<(), FileError> {
        let mut line = serde_json::to_vec(record).expect("a number and its meaning are plain JSON");
        line.push(b'\n');
        let outcome = self.mend().and_then(|()| self.numbers.write_all(&line));
        match outcome {
            Ok(()) => {
                self.whole += line.len() as u64;
                self.lines += 1;
                Ok(())
            }
            Err(source) => {
                // Half a line with another one behind it would keep every later agent from starting.
                self.torn = true;
                if let Err(error) = self.mend() {
                    tracing::warn!(%error, "half a number stays behind, and is cut off before the next one");
                }
                Err(FileError { path: self.state_dir.join(NUMBERS), source })
            }
        }
    }

    /// Cuts off what a write that failed left.
    fn mend(&mut self) -> io::Result<()> {
        if self.torn {
            self.numbers.set_len(self.whole)?;
            self.torn = false;
        }
        Ok(())
    }

    /// Whether the file of numbers may have many lines that mean nothing any more.
    pub(super) fn should_start_anew(&self) -> bool {
        self.lines > 2 * self.began_with + SPARE_LINES
    }

    /// Replaces the file of numbers by one with these; nothing, if it has no more lines than that. The old one stands
    /// until the new one is on disk.
    ///
    /// # Errors
    /// [`FileError`]; whichever of the two files stands there is appended to.
    pub(super) fn start_anew(&mut self, records: &[Record]) -> Result<(), FileError> {
        // Not at once again, whatever comes of it.
        self.began_with = self.lines;
        if self.lines <= records.len() {
            return Ok(());
        }
        let path = self.state_dir.join(NUMBERS);
        let mut text = Vec::new();
        for record in records {
            serde_json::to_writer(&mut text, record).expect("a number and its meaning are plain JSON");
            text.push(b'\n');
        }
        match durable::replace(&path, &text) {
            Ok(file) => {
                (self.numbers, self.whole, self.torn) = (file, text.len() as u64, false);
                (self.lines, self.began_with) = (records.len(), records.len());
                Ok(())
            }
            Err(source) => {
                // When all that failed is to make sure of the new name, the new file stands there.
                let inode = |file: &File| file.metadata().map(|metadata| metadata.ino()).ok();
                let there = OpenOptions::new().append(true).open(&path).ok();
                if let Some(file) = there.filter(|file| inode(file) != inode(&self.numbers)) {
                    (self.numbers, self.whole, self.torn) = (file, text.len() as u64, false);
                    self.lines = records.len();
                }
                Err(FileError { path, source })
            }
        }
    }

    /// Keeps a valid version of a policy, at once or as soon as the disk takes it. Nobody waits for that: the programs have
    /// the new version then, and only a restart with a refused edit would find an older one.
    pub(super) fn keep_policy(&mut self, policy: &Arc<Policy>) {
        self.settle_policy(&policy.name, Some(policy));
    }

    /// Forgets a policy, at once or as soon as the disk does. One that comes back with a restart is gone again with the
    /// store's first list.
    pub(super) fn forget_policy(&mut self, name: &PolicyName) {
        self.settle_policy(name, None);
    }

    /// Whether the disk lacks something of policies and of the objects that they lean on.
    pub(super) fn is_behind(&self) -> bool {
        !self.unwritten.is_empty() || self.objects.is_behind()
    }

    /// Writes what there is time for; the rest, and what fails, waits for the next call.
    ///
    /// # Errors
    /// The first [`FileError`].
    pub(super) fn catch_up(&mut self) -> Result<(), FileError> {
        let policies = self.catch_up_policies();
        self.objects.write().and(policies)
    }

    fn catch_up_policies(&mut self) -> Result<(), FileError> {
        let begun = Instant::now();
        while let Some((name, version)) = self.unwritten.first_key_value() {
            self.write_policy(name, version.as_deref())?;
            self.unwritten.pop_first();
            if begun.elapsed() > AT_ONCE {
                break;
            }
        }
        Ok(())
    }

    fn settle_policy(&mut self, name: &PolicyName, version: Option<&Arc<Policy>>) {
        match self.write_policy(name, version.map(AsRef::as_ref)) {
            Ok(()) => drop(self.unwritten.remove(name)),
            Err(error) => {
                tracing::warn!(%error, "a policy is written down later");
                self.unwritten.insert(name.clone(), version.cloned());
            }
        }
    }

    fn write_policy(&self, name: &PolicyName, version: Option<&Policy>) -> Result<(), FileError> {
        let path = self.policy_path(name);
        let outcome = match version {
            Some(policy) => {
                let text = serde_json::to_vec(policy).expect("a policy is plain JSON");
                durable::replace(&path, &text).map(drop)
            }
            None => durable::remove(&path),
        };
        outcome.map_err(|source| FileError { path, source })
    }

    fn policy_path(&self, name: &PolicyName) -> PathBuf {
        // Names of objects hold neither colons nor slashes.
        let whole = format!("{}:{}:{}", name.kind.short(), name.namespace, name.name);
        self.state_dir.join(POLICIES).join(fitting(&whole, ".json"))
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
    fn a_number_that_was_written_by_half_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let (mut files, _) = NodeFiles::open(folder.path()).unwrap();
        let path = folder.path().join(NUMBERS);
        files.remember(&Record::Cookie(1, Cause::LocalHost)).unwrap();
        // As a full disk leaves it: half of the line, and an error. Nothing can be written through this handle.
        let writable = std::mem::replace(&mut files.numbers, File::open(&path).unwrap());
        let mut text = fs::read(&path).unwrap();
        text.extend(b"{\"cookie\":[2");
        fs::write(&path, &text).unwrap();
        files.remember(&Record::Cookie(2, Cause::Init)).unwrap_err();
        files.numbers = writable;
        files.remember(&Record::Cookie(2, Cause::Init)).unwrap();
        let (_, remembered) = NodeFiles::open(folder.path()).unwrap();
        assert_eq!(remembered.numbers, [Record::Cookie(1, Cause::LocalHost), Record::Cookie(2, Cause::Init)]);
    }

    #[test]
    fn the_file_of_numbers_starts_anew_with_what_is_still_known() {
        let folder = tempfile::tempdir().unwrap();
        let (mut files, _) = NodeFiles::open(folder.path()).unwrap();
        let size = || fs::metadata(folder.path().join(NUMBERS)).unwrap().len();
        assert!(!files.should_start_anew());
        for cookie in 1..=SPARE_LINES as u32 + 1 {
            files.remember(&Record::Cookie(cookie, Cause::LocalHost)).unwrap();
        }
        assert!(files.should_start_anew());
        let long = size();
        let known = [Record::Cookie(7, Cause::LocalHost), Record::Cookie(40_000, Cause::Init)];
        files.start_anew(&known).unwrap();
        assert!(size() < long / 1000 && !files.should_start_anew());
        // What is given out from now on goes into the new file.
        let next = Record::Cookie(40_001, Cause::LocalHost);
        files.remember(&next).unwrap();
        let (_, remembered) = NodeFiles::open(folder.path()).unwrap();
        assert_eq!(remembered.numbers, [known[0].clone(), known[1].clone(), next]);
        // One that has no line too many stays as it is.
        let (mut files, _) = NodeFiles::open(folder.path()).unwrap();
        let before = size();
        files.start_anew(&remembered.numbers).unwrap();
        assert_eq!(size(), before);
    }

    #[test]
    fn a_number_that_cannot_be_read_stops_the_agent() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(NUMBERS), "nonsense\n").unwrap();
        let error = NodeFiles::open(folder.path()).unwrap_err();
        assert!(error.to_string().contains(NUMBERS), "{error}");
    }

    fn policy(namespace: &str, name: &str) -> Arc<Policy> {
        let text = format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             spec: {{podSelector: {{}}, policyTypes: [Ingress]}}\n"
        );
        let Ok(Object::Policy(policy)) = decode_text("x.yaml", &text).remove(0) else { panic!("{text}") };
        Arc::new(policy)
    }

    fn found(folder: &Path) -> Vec<Policy> {
        NodeFiles::open(folder).unwrap().1.policies
    }

    #[test]
    fn policies_come_back_until_they_are_forgotten() {
        // The second one's name has as many characters as an object's may have.
        for policy in [policy("team", "p"), policy(&"n".repeat(63), &"p".repeat(253))] {
            let folder = tempfile::tempdir().unwrap();
            let (mut files, _) = NodeFiles::open(folder.path()).unwrap();
            files.keep_policy(&policy);
            assert!(!files.is_behind());
            let (mut files, remembered) = NodeFiles::open(folder.path()).unwrap();
            assert_eq!(remembered.policies, std::slice::from_ref(&*policy));
            files.forget_policy(&policy.name);
            files.forget_policy(&policy.name);
            assert_eq!((files.is_behind(), found(folder.path())), (false, Vec::new()));
        }
    }

    #[test]
    fn a_policy_that_the_disk_refuses_is_written_later() {
        let folder = tempfile::tempdir().unwrap();
        let (mut files, _) = NodeFiles::open(folder.path()).unwrap();
        let (kept, gone) = (policy("team", "kept"), policy("team", "gone"));
        files.keep_policy(&gone);
        let policies = folder.path().join(POLICIES);
        fs::rename(&policies, folder.path().join("away")).unwrap();
        fs::write(&policies, "").unwrap();
        files.keep_policy(&kept);
        files.forget_policy(&gone.name);
        assert!(files.is_behind());
        files.catch_up().unwrap_err();

        fs::remove_file(&policies).unwrap();
        fs::rename(folder.path().join("away"), &policies).unwrap();
        while files.is_behind() {
            files.catch_up().unwrap();
        }
        assert_eq!(found(folder.path()), std::slice::from_ref(&*kept));
    }
}
