//! DELs that came while the agent was away: one file each under `<state-dir>/cni-queue`, holding the request line.
//!
//! A file is complete or absent (temporary name, fsync, rename). Its name is `<container id>:<ifname>.json`
//! (neither part can hold a colon, so two attachments never share a file); readers trust the content, not the name.
//! Neighbours: the plugin writes, the agent reads at start, before it serves an ADD.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sinew_api::cni::Request;

use super::PluginError;
use crate::durable;

/// The folder of queued DELs under an agent's state directory.
pub const FOLDER: &str = "cni-queue";

/// Writes a DEL down. The same attachment again replaces the file.
///
/// # Errors
/// When the file cannot be written.
pub fn put(state_dir: &Path, container_id: &str, ifname: &str) -> Result<(), PluginError> {
    let path = path(state_dir, container_id, ifname);
    write(&path, container_id, ifname).map_err(|source| PluginError::Queue { path, source })
}

/// Forgets a DEL that was done after all; none is fine.
///
/// # Errors
/// When the file is there and cannot be removed.
pub fn remove(state_dir: &Path, container_id: &str, ifname: &str) -> Result<(), PluginError> {
    let path = path(state_dir, container_id, ifname);
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(PluginError::Queue { path, source }),
        _ => Ok(()),
    }
}

/// Where the DEL of an attachment is noted.
#[must_use]
pub fn path(state_dir: &Path, container_id: &str, ifname: &str) -> PathBuf {
    state_dir.join(FOLDER).join(format!("{container_id}:{ifname}.json"))
}

fn write(path: &Path, container_id: &str, ifname: &str) -> io::Result<()> {
    let folder = path.parent().expect("the path of a queued DEL has a folder");
    fs::create_dir_all(folder)?;
    let request = Request::Del { container_id: container_id.to_owned(), ifname: ifname.to_owned() };
    let mut line = serde_json::to_vec(&request)?;
    line.push(b'\n');
    durable::replace(path, &line).map(drop)
}
