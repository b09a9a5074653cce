//! What a request asks of a ring: which entries, from where, until when.
//!
//! The three streaming calls of the Observer share these rules, which are Hubble's: `since` takes precedence over `number`
//! for the start; `number` counts from the end unless `first` is set, and ends the answer unless it follows; losses are
//! reported and never counted. Neighbours: [`crate::ring`] below, [`crate::journal`] above.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost_types::Timestamp;
use sinew_api::proto::observer::{GetAgentEventsRequest, GetDebugEventsRequest, GetFlowsRequest};
use thiserror::Error;

use crate::ring::Ring;

/// Entries that are copied out of the ring under one lock. At ≈ 30 ns for an entry that is 8 µs for the writer.
const BATCH: usize = 256;

/// How long entries are matched without a break: others run on the same thread, and a filter may be slow.
const TURN: Duration = Duration::from_millis(1);

/// Which entries a request wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// How many; 0 for as many as the other fields allow.
    pub number: u64,
    /// `number` counts from the oldest.
    pub first: bool,
    /// Continue with new entries.
    pub follow: bool,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Not after.
    pub until: Option<Timestamp>,
}

/// A selection that can't be answered.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SelectionError {
    /// The first of a stream that has no end.
    #[error("first: cannot be used with follow")]
    FirstAndFollow,
    /// A time outside what a Timestamp may hold.
    #[error("{field}: {seconds} s {nanos} ns is no time between the years 1 and 9999")]
    Time {
        /// `since` or `until`.
        field: &'static str,
        /// Seconds as sent.
        seconds: i64,
        /// Nanoseconds as sent.
        nanos: i32,
    },
}

impl Selection {
    /// Refuses what has no answer.
    ///
    /// # Errors
    /// `first` with `follow`, or a time that is none.
    pub fn check(self) -> Result<Self, SelectionError> {
        if self.first && self.follow {
            return Err(SelectionError::FirstAndFollow);
        }
        for (field, time) in [("since", &self.since), ("until", &self.until)] {
            if let Some(Timestamp { seconds, nanos }) = *time {
                // 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z, the bounds of google.protobuf.Timestamp.
                let sound = (-62_135_596_800..=253_402_300_799).contains(&seconds)
                    && (0..1_000_000_000).contains(&nanos);
                if !sound {
                    return Err(SelectionError::Time { field, seconds, nanos });
                }
            }
        }
        Ok(self)
    }
}

macro_rules! selection_of {
    ($($request:ty),*) => {$(
        impl From<&$request> for Selection {
            fn from(request: &$request) -> Self {
                Self {
                    number: request.number,
                    first: request.first,
                    follow: request.follow,
                    since: request.since,
                    until: request.until,
                }
            }
        }
    )*};
}

selection_of!(GetFlowsRequest, GetAgentEventsRequest, GetDebugEventsRequest);

/// An entry of a ring of events: something that was seen, or a notice that something was lost.
pub trait Entry: Clone + Send + Sync + 'static {
    /// When it was seen.
    fn time(&self) -> Option<Timestamp>;
    /// A loss notice: sent to everybody, matched by no filter, never counted.
    fn is_loss(&self) -> bool;
}

/// One step of an answer.
#[derive(Debug)]
pub enum Step<U> {
    /// What the client gets of the next entry.
    Entry(U),
    /// The reader was too slow: so many entries, matching or not, are gone.
    Missed {
        /// How many, including earlier losses whose notice is among the entries that are gone.
        entries: u64,
        /// Time of the last entry before the gap, if there was one.
        after: Option<Timestamp>,
        /// Time of the first entry behind the gap.
        before: Option<Timestamp>,
    },
}

/// A walk through a ring for one request.
pub struct Walk<T, F> {
    ring: Arc<Ring<T>>,
    selection: Selection,
    take: F,
    position: u64,
    batch: std::vec::IntoIter<T>,
    given: u64,
    last_time: Option<Timestamp>,
    started: bool,
    turn: Turn,
}

/// The thread's time for one walk.
struct Turn(Instant);

impl Turn {
    /// Lets others run, if it is over.
    async fn end(&mut self) {
        if self.0.elapsed() >= TURN {
            tokio::task::yield_now().await;
            self.0 = Instant::now();
        }
    }
}

impl<T, F, U> Walk<T, F>
where
    T: Entry,
    F: Fn(&T) -> Option<U> + Send + 'static,
{
    /// A walk that has not begun. `take` makes what the client gets of an entry, or nothing if the client does not want it.
    /// For a loss notice it always makes something.
    pub fn new(ring: Arc<Ring<T>>, selection: Selection, take: F) -> Self {
        let batch = Vec::new().into_iter();
        Self {
            ring,
            selection,
            take,
            position: 0,
            batch,
            given: 0,
            last_time: None,
            started: false,
            turn: Turn(Instant::now()),
        }
    }

    /// The next step; `None` at the end. Cancel-safe: state changes only between awaits.
    pub async fn next(&mut self) -> Option<Step<U>> {
        if !self.started {
            self.position = self.start().await;
            self.started = true;
        }
        let mut watch = self.ring.watch();
        loop {
            while !self.has_enough()
                && let Some(entry) = self.batch.next()
            {
                match self.judge(&entry) {
                    Judged::Give(taken) => return Some(Step::Entry(taken)),
                    Judged::Skip => self.turn.end().await,
                    Judged::End => return None,
                }
            }
            if self.has_enough() {
                return None;
            }
            watch.borrow_and_update();
            let batch = self.ring.read(self.position, BATCH);
            self.position = batch.next;
            let missed = batch.missed;
            if missed > 0 {
                let before = batch.entries.first().and_then(Entry::time);
                self.batch = batch.entries.into_iter();
                return Some(Step::Missed { entries: missed, after: self.last_time, before });
            }
            if batch.entries.is_empty() {
                if !self.selection.follow || watch.changed().await.is_err() {
                    return None;
                }
                continue;
            }
            self.batch = batch.entries.into_iter();
        }
    }

    fn has_enough(&self) -> bool {
        !self.selection.follow && self.selection.number > 0 && self.given >= self.selection.number
    }

    fn judge(&mut self, entry: &T) -> Judged<U> {
        let time = entry.time();
        self.last_time = time.or(self.last_time);
        if !entry.is_loss() {
            if after(time.as_ref(), self.selection.until.as_ref()) {
                return Judged::End;
            }
            if before(time.as_ref(), self.selection.since.as_ref()) {
                return Judged::Skip;
            }
        }
        let Some(taken) = (self.take)(entry) else { return Judged::Skip };
        self.given += u64::from(!entry.is_loss());
        Judged::Give(taken)
    }

    /// Position of the first entry that the answer may hold.
    async fn start(&self) -> u64 {
        let held = self.ring.bounds();
        let Selection { number, first, follow, since, .. } = &self.selection;
        if *first && since.is_none() {
            return held.start;
        }
        if *follow && *number == 0 && since.is_none() {
            return held.end;
        }
        // Backwards in batches, until enough entries match or one is too old.
        let mut turn = Turn(Instant::now());
        let mut matched = 0;
        let mut end = held.end;
        while end > held.start {
            let batch = self.ring.read_back(end, BATCH);
            let Some((first, _)) = batch.first() else { break };
            end = *first;
            for (position, entry) in batch.iter().rev() {
                turn.end().await;
                if entry.is_loss() {
                    continue;
                }
                if since.is_some() {
                    if before(entry.time().as_ref(), since.as_ref()) {
                        return position + 1;
                    }
                } else if (self.take)(entry).is_some() {
                    matched += 1;
                    if matched == *number {
                        return *position;
                    }
                }
            }
        }
        held.start
    }
}

enum Judged<U> {
    Give(U),
    Skip,
    End,
}

fn before(time: Option<&Timestamp>, limit: Option<&Timestamp>) -> bool {
    matches!((time, limit), (Some(time), Some(limit)) if compare(time, limit) == Ordering::Less)
}

fn after(time: Option<&Timestamp>, limit: Option<&Timestamp>) -> bool {
    matches!((time, limit), (Some(time), Some(limit)) if compare(time, limit) == Ordering::Greater)
}

/// Order of two times.
#[must_use]
pub fn compare(left: &Timestamp, right: &Timestamp) -> Ordering {
    (left.seconds, left.nanos).cmp(&(right.seconds, right.nanos))
}

#[cfg(test)]
mod tests;
