//! Numbers for label sets, given out by many agents without one that leads (policy.md 18).
//!
//! One file a number, made by whoever is first; the loser reads the winner's. The search begins at a number that follows
//! from the labels, so agents that need one for the same labels at the same time meet at the same file. If there are two
//! numbers for one label set nevertheless, which takes a race with a number that was just given back, the lower one is
//! everybody's.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sinew_api::identity::Identity;
use sinew_api::labels::Labels;
use sinew_api::object::{AllocatedIdentity, Object, Origin, decode_bytes};

use super::area;
use super::write::Folders;
use crate::netlink::address::digest;

/// One behind the last number of a cluster: 16 bits, cluster 0.
const END: u32 = 1 << 16;

/// Why no number could be given.
#[derive(Debug, thiserror::Error)]
pub(super) enum IdentityError {
    /// A file could not be written.
    #[error("identity file {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// All numbers are taken.
    #[error(
        "all {count} identity numbers are in use: find the label key that multiplies them with `sinew identity list --by-key`"
    )]
    Exhausted {
        /// How many there are.
        count: u32,
    },
}

/// Finds or makes the number for these labels. `known` are those already in the folder.
pub(super) fn allocate(
    folders: &Folders,
    known: &BTreeMap<Labels, Identity>,
    labels: &Labels,
) -> Result<AllocatedIdentity, IdentityError> {
    if let Some(identity) = known.get(labels) {
        return Ok(allocated(*identity, labels));
    }
    let first = Identity::FIRST_ALLOCATED.0;
    let count = END - first;
    let hash = digest(&[&labels.to_string()]);
    let start = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]) % count;
    for step in 0..count {
        let identity = Identity(first + (start + step) % count);
        let candidate = allocated(identity, labels);
        let path = folders.root().join(path(identity));
        let made = folders
            .create_first(&path, candidate.to_yaml().as_bytes())
            .map_err(|source| IdentityError::File { path: path.clone(), source })?;
        if made || stands_for(&path, labels) {
            return Ok(candidate);
        }
    }
    Err(IdentityError::Exhausted { count })
}

/// Gives a number back.
pub(super) fn release(root: &Path, identity: Identity) -> io::Result<()> {
    match fs::remove_file(root.join(path(identity))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// The file of a number, relative to the folder.
pub(super) fn path(identity: Identity) -> String {
    format!("{}/{identity}.yaml", area::IDENTITIES)
}

fn allocated(identity: Identity, labels: &Labels) -> AllocatedIdentity {
    AllocatedIdentity { identity, labels: labels.clone(), origin: Origin::default() }
}

/// Whether the file of a number that somebody else made has these labels.
fn stands_for(path: &Path, labels: &Labels) -> bool {
    let bytes = fs::read(path).unwrap_or_default();
    decode_bytes("", &bytes)
        .into_iter()
        .any(|document| matches!(document, Ok(Object::Identity(present)) if present.labels == *labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(app: &str) -> Labels {
        let mut labels = Labels::new();
        labels.insert("k8s", "app", app);
        labels
    }

    #[test]
    fn the_loser_adopts_the_winners_number() {
        let folder = tempfile::tempdir().unwrap();
        let folders = Folders::make(folder.path(), "a").unwrap();
        let nothing = BTreeMap::new();
        let one = allocate(&folders, &nothing, &labels("web")).unwrap();
        let other = allocate(&folders, &nothing, &labels("web")).unwrap();
        assert_eq!(one.identity, other.identity);
        assert_eq!(
            fs::read_dir(folder.path().join(area::IDENTITIES)).unwrap().count(),
            1,
            "no temporary file stays"
        );
    }

    #[test]
    fn a_number_that_stands_for_others_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let folders = Folders::make(folder.path(), "a").unwrap();
        let nothing = BTreeMap::new();
        let web = allocate(&folders, &nothing, &labels("web")).unwrap();
        // Somebody else's labels stand where the search for `web` begins.
        let path = folder.path().join(path(web.identity));
        fs::write(&path, allocated(web.identity, &labels("db")).to_yaml()).unwrap();
        let again = allocate(&folders, &nothing, &labels("web")).unwrap();
        let next = if web.identity.0 + 1 == END { Identity::FIRST_ALLOCATED.0 } else { web.identity.0 + 1 };
        assert_eq!(again.identity, Identity(next));
    }

    #[test]
    fn eight_agents_agree() {
        let folder = tempfile::tempdir().unwrap();
        let folders = Folders::make(folder.path(), "a").unwrap();
        let numbers: Vec<Vec<u32>> = std::thread::scope(|scope| {
            let agents: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        (0..50)
                            .map(|app| {
                                allocate(&folders, &BTreeMap::new(), &labels(&app.to_string()))
                                    .unwrap()
                                    .identity
                                    .0
                            })
                            .collect()
                    })
                })
                .collect();
            agents.into_iter().map(|agent| agent.join().unwrap()).collect()
        });
        assert!(numbers.windows(2).all(|pair| pair[0] == pair[1]), "{numbers:?}");
        let mut distinct = numbers[0].clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 50);
    }
}
