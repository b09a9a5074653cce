//! Is `CNI_NETNS` a network namespace that can be a pod's? Asked before the agent is, so that a namespace that is gone
//! costs nothing and leaves nothing.
//!
//! Neighbours: the agent enters the namespace and finds out the rest (a namespace of another type, for instance).

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;

use super::PluginError;

/// Refuses a path that is gone, is no namespace file, or is the runtime's own namespace (unless `skip_own_test`, which
/// is `CNI_NETNS_OVERRIDE`).
pub(super) fn must_be_a_pods(path: &str, skip_own_test: bool) -> Result<(), PluginError> {
    let invalid = |reason| PluginError::NetnsInvalid { path: path.to_owned(), reason };
    let found = fs::metadata(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => PluginError::NetnsGone { path: path.to_owned() },
        _ => invalid("the file cannot be read"),
    })?;
    let own = fs::metadata("/proc/self/ns/net").map_err(|_| invalid("/proc is not mounted"))?;
    // Every namespace file is an inode of the one nsfs; a file left under a bind mount that is gone is not.
    if found.dev() != own.dev() {
        return Err(invalid("the file is not a namespace"));
    }
    if found.ino() == own.ino() && !skip_own_test {
        return Err(invalid("this is the node's own network namespace, not a pod's"));
    }
    Ok(())
}
