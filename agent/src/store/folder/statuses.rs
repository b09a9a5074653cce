//! Statuses that are taken back: of a file that every node writes its part of, a node removes no other's.
//!
//! Neighbour: [`mod@super::write`] writes the parts.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;
use sinew_api::object::ObjectName;
use sinew_api::yaml;

use super::area;
use super::write::{Folders, STATUS_DEPTH, UNREADABLE, gone};

impl Folders {
    /// Takes back what this node says of an object.
    pub(super) fn remove_status(&self, name: &ObjectName) -> io::Result<()> {
        self.take_back(&self.status_path(name))
    }

    /// Takes back what an earlier run said of objects that are not among these. What fails keeps no other.
    pub(super) fn keep_statuses(&self, names: &BTreeSet<ObjectName>) -> io::Result<()> {
        let kept: HashSet<PathBuf> = names.iter().map(|name| self.status_path(name)).collect();
        let mut outcome = Ok(());
        for path in files_below(&self.root().join(area::STATUS), STATUS_DEPTH) {
            // Most are others'; the lock is for those that may be ours.
            let may_be_own = || fs::read_to_string(&path).is_ok_and(|text| text.contains(self.node()));
            if !kept.contains(&path) && may_be_own() {
                outcome = outcome.and(self.take_back(&path));
            }
        }
        outcome
    }

    /// Removes this node's part of a status, and the file if no node that lives says anything else there.
    fn take_back(&self, path: &Path) -> io::Result<()> {
        let _lock = self.lock_statuses()?;
        let mut nodes = self.nodes_of_status(path);
        nodes.remove(self.node());
        if nodes.is_empty() {
            return gone(fs::remove_file(path));
        }
        let present = fs::read_to_string(path)?;
        let object = present.find("\nstatus:").map_or("", |at| &present[..=at]);
        let text = format!("{object}{}", yaml::write(&json!({ "status": { "nodes": nodes } })));
        if text == present { Ok(()) } else { self.replace(path, &text) }
    }
}

/// The files of statuses in a folder and in so many levels of folders below it.
fn files_below(folder: &Path, depth: usize) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with('.') || (depth == STATUS_DEPTH && name == UNREADABLE) {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth > 0 => files.extend(files_below(&entry.path(), depth - 1)),
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    files
}
