//! A look at every file, in slices: between two of them the store hears what has changed, so that a change never waits for
//! a look at the files of ten thousand pods, which takes 100 ms and more.
//!
//! Whatever happens between two slices is heard by hints or found by the next sweep; a slice only reads what is so.
//! Neighbours: [`super::task`] calls a slice when nothing else is to be done.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::files::{self, Walk};
use super::task::Running;
use super::watch::Hints;

/// Time that a slice may take, beyond its last step: a file to read, or a folder to list (8 ms for 10,000 files).
const SLICE: Duration = Duration::from_millis(3);

/// Where a look at everything stands.
#[derive(Debug)]
pub(super) struct Sweep {
    walk: Walk,
    /// Files that were listed and are to be compared.
    files: Vec<String>,
    /// Files that were known and not listed; known once all folders are.
    unlisted: Option<Vec<Arc<str>>>,
    /// A folder that cannot be watched.
    unwatched: Option<String>,
    /// The look that it answers.
    look: Option<u64>,
    /// When all was looked at, but for files that the hints have waiting.
    ended: Option<Instant>,
}

/// Sweeps that are wanted, and how many there were.
#[derive(Debug, Default)]
pub(super) struct Sweeps {
    now: Option<Sweep>,
    /// One more when this one is done: what it has passed already may have changed.
    again: bool,
    /// The latest look that somebody waits for.
    look: Option<u64>,
    /// Number of the sweep.
    pub(super) round: u32,
}

impl Sweeps {
    /// Begins a look at everything, after the one that is under way.
    pub(super) fn want(&mut self) {
        self.again = true;
        self.begin();
    }

    /// The same, for somebody who waits for it.
    pub(super) fn want_look(&mut self, number: u64) {
        self.look = Some(number);
        self.want();
    }

    /// Whether there is a slice to do.
    pub(super) fn is_under_way(&self) -> bool {
        self.now.is_some()
    }

    /// Whether the sweep has only to wait until files have been looked at that were being written, or were missing.
    pub(super) fn wait_for(&self, hints: &Hints) -> bool {
        self.now.as_ref().is_some_and(|sweep| sweep.waits_for(hints))
    }

    fn begin(&mut self) {
        if self.now.is_some() || !std::mem::take(&mut self.again) {
            return;
        }
        self.round = self.round.wrapping_add(1);
        self.now = Some(Sweep {
            walk: Walk::of_store(),
            files: Vec::new(),
            unlisted: None,
            unwatched: None,
            look: self.look.take(),
            ended: None,
        });
    }
}

impl Sweep {
    /// Only somebody who waits for the sweep has it wait.
    fn waits_for(&self, hints: &Hints) -> bool {
        self.look.is_some() && self.ended.is_some_and(|ended| hints.has_waiting_since(ended))
    }
}

impl Running {
    /// Reads what differs from the last look, and forgets what is gone, for some milliseconds.
    pub(super) fn slice(&mut self) {
        let Some(mut sweep) = self.sweeps.now.take() else { return };
        let end = Instant::now() + SLICE;
        while self.sweep_step(&mut sweep) {
            if Instant::now() >= end {
                self.sweeps.now = Some(sweep);
                return;
            }
        }
        sweep.ended.get_or_insert_with(Instant::now);
        if sweep.waits_for(&self.hints) {
            self.sweeps.now = Some(sweep);
            return;
        }
        self.trouble.unread = sweep.walk.warning();
        self.trouble.listing = sweep.walk.failure;
        if !self.deaf {
            self.trouble.watching = sweep.unwatched;
        }
        if sweep.look.is_some() {
            self.pending.looked = sweep.look;
        }
        self.sweeps.begin();
    }

    /// One file or folder. False at the end.
    fn sweep_step(&mut self, sweep: &mut Sweep) -> bool {
        if let Some(path) = sweep.files.pop() {
            self.compare(&path);
            return true;
        }
        // Watched before it is listed: what appears in between makes an event.
        let (watch, root, unwatched) = (&mut self.watch, &self.root, &mut sweep.unwatched);
        let listed = sweep.walk.step(root, |folder| {
            if let Some(failure) = watch.add_or_say(root, folder) {
                *unwatched = Some(failure);
            }
        });
        if let Some((_, files)) = listed {
            sweep.files = files;
            return true;
        }
        let round = self.sweeps.round;
        let unlisted = sweep.unlisted.get_or_insert_with(|| {
            // A folder that can't be listed for now says nothing about what it held. What an earlier run of the agent knew
            // of it is tried by name: it is told as unreadable, and stays.
            let unlisted = self
                .fingerprints
                .iter()
                .filter(|(path, (_, seen))| *seen != round && !sweep.walk.may_have_passed(path))
                .map(|(path, _)| path);
            let unread = |path: &&Arc<str>| {
                !self.fingerprints.contains_key(&***path) && sweep.walk.may_have_passed(path)
            };
            unlisted.chain(self.index.held_files().filter(unread)).cloned().collect()
        });
        let Some(path) = unlisted.pop() else { return false };
        // It may be there all the same, behind as many others as are listed.
        self.compare(&path);
        true
    }

    /// Reads a file that is not what it was; one that waits is looked at in its time.
    fn compare(&mut self, path: &str) {
        if self.hints.has_waiting(path) {
            return;
        }
        let known = self.fingerprints.get_mut(path);
        let same = known.is_some_and(|(fingerprint, round)| {
            *round = self.sweeps.round;
            files::fingerprint(&self.root, path) == Some(*fingerprint)
        });
        if !same {
            self.look_at(path);
        }
    }
}
