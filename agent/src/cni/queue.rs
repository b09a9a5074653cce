//! DELs that the plugin wrote down while the agent was away (`crate::plugin::queue` says how): carried out at start,
//! before the first ADD, and looked for again from time to time, since a plugin may find a stopped agent.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sinew_api::cni::Request;

use super::AttachmentKey;
use crate::plugin::queue::FOLDER;

/// DELs of one look at most; more come with the next look.
const AT_ONCE: usize = 1024;
/// A queued request is one line of a few hundred bytes.
const MAX_BYTES: u64 = 64 << 10;

/// A queued DEL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedDel {
    /// What it is to remove.
    pub key: AttachmentKey,
    /// Its file, to be removed when that is done.
    pub path: PathBuf,
}

/// The DELs that wait. Files that hold none are removed; they are not the plugin's.
///
/// # Errors
/// The folder can't be listed; one that is not there is empty.
pub fn read(state_dir: &Path) -> io::Result<Vec<QueuedDel>> {
    let entries = match fs::read_dir(state_dir.join(FOLDER)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut queued = Vec::new();
    for entry in entries.take(AT_ONCE) {
        let path = entry?.path();
        // Others are the plugin's, not yet complete.
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        match parse(&path) {
            Ok(Request::Del { container_id, ifname }) => {
                queued.push(QueuedDel { key: AttachmentKey { container_id, ifname }, path });
            }
            Ok(other) => drop_foreign(&path, &format!("it holds {other:?}")),
            Err(error) => drop_foreign(&path, &error.to_string()),
        }
    }
    Ok(queued)
}

/// Forgets a DEL that is done.
///
/// # Errors
/// The file can't be removed.
pub fn done(queued: &QueuedDel) -> io::Result<()> {
    match fs::remove_file(&queued.path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

fn parse(path: &Path) -> io::Result<Request> {
    if fs::symlink_metadata(path)?.len() > MAX_BYTES {
        return Err(io::Error::other("it is too long for a request"));
    }
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

fn drop_foreign(path: &Path, reason: &str) {
    tracing::warn!(path = %path.display(), reason, "a file in the queue of DELs is no DEL and is removed");
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "it cannot be removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_plugin_queues_is_read_and_forgotten() {
        let state = tempfile::tempdir().unwrap();
        assert_eq!(read(state.path()).unwrap(), []);
        crate::plugin::queue::put(state.path(), "c1", "eth0").unwrap();
        fs::write(state.path().join(FOLDER).join("c2:eth0.json"), "{}").unwrap();
        fs::write(state.path().join(FOLDER).join("c3:eth0.17.tmp"), "{").unwrap();
        let queued = read(state.path()).unwrap();
        assert_eq!(queued.len(), 1);
        assert_eq!(queued[0].key, AttachmentKey { container_id: "c1".into(), ifname: "eth0".into() });
        done(&queued[0]).unwrap();
        done(&queued[0]).unwrap();
        assert_eq!(read(state.path()).unwrap(), []);
        assert_eq!(
            fs::read_dir(state.path().join(FOLDER)).unwrap().count(),
            1,
            "an incomplete file is not ours"
        );
    }
}
