//! Says that an agent runs, where whoever takes a node's things away looks: a lock on the folder of its pins and one on its
//! network namespace. Both are what `cleanup` works on, whatever other folders it was given, and both are gone with the
//! process however it ends.
//!
//! A claim that can't be had is no reason not to run: pods must not go without a network because somebody holds a lock.
//! Neighbours: `crate::run` takes it, `crate::cleanup` looks for it.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The network namespace of this process. As long as one of its openers holds it, all of them have one inode, and so one
/// lock.
const NETWORK_NAMESPACE: &str = "/proc/self/ns/net";
/// Time between two tries.
const RETRY: Duration = Duration::from_millis(20);

/// Held as long as the agent runs.
#[derive(Debug)]
pub(crate) struct Claim {
    _held: Vec<File>,
}

/// What an agent of the node claims.
pub(crate) fn places(pins: &Path) -> [PathBuf; 2] {
    [pins.to_owned(), PathBuf::from(NETWORK_NAMESPACE)]
}

impl Claim {
    /// Claims a node; `pins` is made where it isn't there. An agent that was just killed may hold it for a moment.
    pub(crate) fn take(pins: &Path, patience: Duration) -> Self {
        let start = Instant::now();
        // The datapath says what is wrong with a folder that can't be made.
        let _told_later = fs::create_dir_all(pins);
        let mut held = Vec::new();
        for place in places(pins) {
            let lock = loop {
                match try_lock(&place) {
                    Ok(None) if start.elapsed() < patience => std::thread::sleep(RETRY),
                    other => break other,
                }
            };
            match lock {
                Ok(Some(file)) => held.push(file),
                Ok(None) => tracing::warn!(
                    place = %place.display(),
                    "another process holds the lock of this node's agent; is there a second one?"
                ),
                Err(error) => tracing::warn!(place = %place.display(), %error, "cannot lock it"),
            }
        }
        Self { _held: held }
    }
}

/// The first of some places that an agent claims.
pub(crate) fn claimed(places: &[PathBuf]) -> Option<&Path> {
    places.iter().find(|place| matches!(try_lock(place), Ok(None))).map(PathBuf::as_path)
}

/// `None` where somebody has it.
fn try_lock(place: &Path) -> std::io::Result<Option<File>> {
    let file = File::open(place)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_claimed_as_long_as_the_claim_is_held() {
        let folder = tempfile::tempdir().unwrap();
        let pins = folder.path().join("bpf/a");
        let only = [pins.clone()];
        assert_eq!(claimed(&only), None, "nothing is there");
        let claim = Claim::take(&pins, Duration::ZERO);
        assert_eq!(claimed(&only), Some(pins.as_path()));
        // A second one runs without it.
        drop(Claim::take(&pins, Duration::from_millis(50)));
        assert_eq!(claimed(&only), Some(pins.as_path()));
        drop(claim);
        assert_eq!(claimed(&only), None);
    }

    #[test]
    fn a_namespace_has_one_lock_for_all_its_openers() {
        // Not that of the network: an agent may run there.
        let file = File::open("/proc/self/ns/uts").unwrap();
        file.lock_shared().unwrap();
        let again = File::open("/proc/self/ns/uts").unwrap();
        assert!(matches!(again.try_lock(), Err(TryLockError::WouldBlock)));
    }
}
