//! Says which paths of the folder may have changed: one inotify watch for each folder that is read.
//!
//! An event is a hint to look, never the truth. A file whose writer has closed it, or that was moved into place, is ripe
//! at once; one that is only being written is ripe after a short quiet, so that its first half is not taken for the whole.
//! One that disappears counts as gone after a while: editors and git save a file by taking it away and making it anew.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::{FutureExt as _, StreamExt as _};
use inotify::{EventMask, EventStream, Inotify, WatchDescriptor, WatchMask};

use super::files;

/// How long a file that is still open for writing must be left alone before it is read. Changes are to be seen within
/// 100 ms; a writer that takes longer between two writes has its unfinished text refused and the last good version kept.
const QUIET: Duration = Duration::from_millis(40);
/// How long a file must be missing before it is gone. A removal is to be in force within 100 ms too.
const GONE: Duration = Duration::from_millis(50);
/// Room for about 60 events with names of usual length.
const BUFFER_BYTES: usize = 4096;
/// Events that are noted before the files are looked at; a folder that never comes to rest must not keep the store busy
/// with its events alone.
const AT_ONCE: usize = 4096;

/// The watches. Opened outside a runtime, so that a failure is the opener's to tell; waited for inside one.
#[derive(Debug)]
pub(super) struct Watch {
    inotify: Inotify,
}

/// The watches inside the store's runtime.
pub(super) struct Watching {
    events: EventStream<[u8; BUFFER_BYTES]>,
    folders: HashMap<WatchDescriptor, String>,
}

/// Paths to look at.
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// Files whose content is complete, as far as their writers say.
    ripe: BTreeSet<String>,
    /// Files that are being written, and since when they have been quiet.
    unripe: HashMap<String, Instant>,
    /// Files that have disappeared, and when.
    missing: HashMap<String, Instant>,
    /// Folders that appeared: to be watched and listed.
    pub(super) folders: BTreeSet<String>,
    /// Events were lost, or a watched folder is gone: look at everything.
    pub(super) everything: bool,
}

impl Watch {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { inotify: Inotify::init()? })
    }

    pub(super) fn begin(self) -> io::Result<Watching> {
        let events = self.inotify.into_event_stream([0; BUFFER_BYTES])?;
        Ok(Watching { events, folders: HashMap::new() })
    }
}

impl Watching {
    /// Watches a folder. Watching it again is the same watch.
    pub(super) fn add(&mut self, root: &Path, folder: &str) -> io::Result<()> {
        let mask = WatchMask::CREATE
            | WatchMask::MODIFY
            | WatchMask::CLOSE_WRITE
            | WatchMask::ATTRIB
            | WatchMask::MOVED_FROM
            | WatchMask::MOVED_TO
            | WatchMask::DELETE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        let descriptor = self.events.watches().add(root.join(folder), mask)?;
        self.folders.insert(descriptor, folder.to_owned());
        Ok(())
    }

    /// Watches a folder, or says why it can't be; one that is gone needs no watch.
    pub(super) fn add_or_say(&mut self, root: &Path, folder: &str) -> Option<String> {
        match self.add(root, folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Some(format!(
                "folder {folder:?} cannot be watched ({error}), so files are looked at every second"
            )),
            _ => None,
        }
    }

    /// Waits for an event and adds what it and those behind it say to the hints. Cancel-safe: an event is taken from
    /// the stream and noted in one step.
    pub(super) async fn wait(&mut self, hints: &mut Hints) -> io::Result<()> {
        let mut event = self.events.next().await;
        for _ in 0..AT_ONCE {
            let Some(present) = event else { return Err(io::Error::other("the kernel ended the watch")) };
            let present = present?;
            hints.add(
                self.folders.get(&present.wd).map(String::as_str),
                present.mask,
                present.name.as_deref(),
                Instant::now(),
            );
            if present.mask.contains(EventMask::IGNORED) {
                self.folders.remove(&present.wd);
            }
            event = match self.events.next().now_or_never() {
                Some(next) => next,
                None => return Ok(()),
            };
        }
        // The event behind the last one is still to be noted; look at everything rather than lose it.
        hints.everything = true;
        Ok(())
    }
}

impl Hints {
    /// When the first of the files that wait is to be looked at.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let quiet = self.unripe.values().min().map(|since| *since + QUIET);
        let gone = self.missing.values().min().map(|since| *since + GONE);
        quiet.into_iter().chain(gone).min()
    }

    /// Whether any file is missing, and not yet gone.
    pub(super) fn has_missing(&self) -> bool {
        !self.missing.is_empty()
    }

    /// The files to look at now. Of those that are missing, [`Self::is_gone`] is to be asked.
    pub(super) fn take_due(&mut self, now: Instant) -> BTreeSet<String> {
        let mut due = std::mem::take(&mut self.ripe);
        due.extend(self.unripe.extract_if(|_, since| now >= *since + QUIET).map(|(path, _)| path));
        due.extend(
            self.missing.iter().filter(|(_, since)| now >= **since + GONE).map(|(path, _)| path.clone()),
        );
        due
    }

    /// Whether a file is to be looked at later, by its time.
    pub(super) fn has_waiting(&self, path: &str) -> bool {
        self.unripe.contains_key(path) || self.missing.contains_key(path)
    }

    /// Whether a file has waited since before then.
    pub(super) fn has_waiting_since(&self, then: Instant) -> bool {
        self.unripe.values().chain(self.missing.values()).any(|since| *since <= then)
    }

    /// Whether a file has disappeared and not been seen again.
    pub(super) fn is_missing(&self, path: &str) -> bool {
        self.missing.contains_key(path)
    }

    /// Whether a file that is not there is gone, rather than about to be made anew.
    pub(super) fn is_gone(&mut self, path: &str, now: Instant) -> bool {
        match self.missing.get(path) {
            Some(since) => now >= *since + GONE,
            None => {
                self.missing.insert(path.to_owned(), now);
                false
            }
        }
    }

    /// A file is there, or gone: nothing of it is awaited.
    pub(super) fn settle(&mut self, path: &str) {
        self.missing.remove(path);
    }

    fn add(&mut self, folder: Option<&str>, mask: EventMask, name: Option<&OsStr>, now: Instant) {
        if mask.contains(EventMask::Q_OVERFLOW)
            || mask.intersects(EventMask::DELETE_SELF | EventMask::MOVE_SELF)
        {
            self.everything = true;
        }
        let (Some(folder), Some(name)) = (folder, name.and_then(OsStr::to_str)) else { return };
        let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
        if mask.contains(EventMask::ISDIR) {
            if mask.intersects(EventMask::CREATE | EventMask::MOVED_TO) {
                self.folders.insert(path);
            } else if mask.contains(EventMask::MOVED_FROM) {
                self.everything = true;
            }
            return;
        }
        // The link `..data` of a mounted ConfigMap turns to another folder: every file beside it has changed.
        self.everything |= name == "..data";
        if files::reads_file(&path) {
            self.add_file(path, mask, now);
        }
    }

    fn add_file(&mut self, path: String, mask: EventMask, now: Instant) {
        if mask.contains(EventMask::ATTRIB) && self.has_waiting(&path) {
            // What is set on a file says nothing about whether it is whole.
            return;
        }
        // The latest event says what it waits for.
        self.ripe.remove(&path);
        self.unripe.remove(&path);
        self.missing.remove(&path);
        if mask.intersects(EventMask::CREATE | EventMask::MODIFY) {
            self.unripe.insert(path, now);
        } else if mask.intersects(EventMask::DELETE | EventMask::MOVED_FROM) && !files::is_agents(&path) {
            self.missing.insert(path, now);
        } else {
            self.ripe.insert(path);
        }
    }
}

#[cfg(test)]
mod tests;
