//! Files that are whole or not there, for readers and over a power cut: what must outlast the machine is written this way.
//!
//! Attachments (`cni/ledger.rs`) and what is said in a folder store (`store/folder/write.rs`) need the first half only,
//! and would wait for the disk for nothing. Neighbours: `control/files.rs` and `plugin/queue.rs` write with this.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::process;

use crate::file_name::fitting;

/// Replaces a file's content. The file as it was written, opened for appending; after an error either the old content
/// stands there or the new one.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<File> {
    // Readers take *.json only; the process id keeps two processes from writing one temporary file.
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(fitting(&stem, &format!(".{}.tmp", process::id())));
    let written = write(&temporary, content).and_then(|file| fs::rename(&temporary, path).map(|()| file));
    let file = written.inspect_err(|_| {
        // What is left of it takes room on a disk that may be full; the first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    })?;
    // The rename itself must outlive a power cut too.
    sync_folder(path)?;
    Ok(file)
}

/// Removes a file; none is fine.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_folder(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn write(path: &Path, content: &[u8]) -> io::Result<File> {
    // What an earlier process of this number left is written over.
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new().append(true).create_new(true).open(path)?;
    file.write_all(content)?;
    file.sync_data()?;
    Ok(file)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_a_failure_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        replace(&path, b"old").unwrap();
        replace(&path, b"new").unwrap().write_all(b"er").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"newer", "what is returned is the file that stands there");
        let taken = folder.path().join("b.json");
        fs::create_dir(&taken).unwrap();
        assert!(replace(&taken, b"x").is_err(), "a folder is not replaced");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary file stays");
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
    }
}
