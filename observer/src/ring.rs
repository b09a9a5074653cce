//! The ring: the last entries by count and by bytes, and cursors that read them at their own pace.
//!
//! One writer appends and never waits; readers copy entries out in batches under a short lock. Entries are stored in the
//! ring itself, so that writing one allocates nothing: large or shared parts are behind an `Arc` of the entry's own. An
//! entry's position grows by the number of events that it stands for, so a reader that was overtaken sees how many it
//! missed: a missed notice of a thousand losses counts as a thousand.
//! Neighbours: [`crate::query`] walks it for a request, [`crate::journal`] owns two of them.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// What a ring may hold. Whichever limit is reached first evicts the oldest entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Entries, at least one.
    pub entries: usize,
    /// Bytes, by [`Weigh::bytes`]. One entry is held even if it is heavier.
    pub bytes: usize,
}

/// What an entry weighs, asked when it is written and when it leaves.
pub trait Weigh {
    /// Bytes of memory, roughly.
    fn bytes(&self) -> usize;
    /// Events that it stands for, at least one: one that was seen, or many that were lost.
    fn events(&self) -> u64 {
        1
    }
    /// Whether it is a loss notice, which [`Fill`] does not count as an entry.
    fn is_word(&self) -> bool {
        false
    }
}

/// The last entries that were written.
#[derive(Debug)]
pub struct Ring<T> {
    capacity: Capacity,
    state: Mutex<State<T>>,
    end: watch::Sender<u64>,
}

#[derive(Debug)]
struct State<T> {
    entries: VecDeque<Held<T>>,
    /// Position that the next entry gets.
    end: u64,
    bytes: usize,
    words: usize,
}

#[derive(Debug)]
struct Held<T> {
    entry: T,
    bytes: usize,
    position: u64,
}

/// Entries from one read, in order.
#[derive(Debug)]
pub struct Batch<T> {
    /// Events between the asked position and the first entry here that are gone.
    pub missed: u64,
    /// The entries.
    pub entries: Vec<T>,
    /// Position to go on from.
    pub next: u64,
}

/// How full a ring is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Entries held, without words of losses.
    pub entries: usize,
    /// Bytes held.
    pub bytes: usize,
    /// Its limits.
    pub capacity: Capacity,
}

impl<T: Weigh> Ring<T> {
    /// An empty ring.
    #[must_use]
    pub fn new(capacity: Capacity) -> Self {
        let capacity = Capacity { entries: capacity.entries.max(1), bytes: capacity.bytes.max(1) };
        let state = State { entries: VecDeque::new(), end: 0, bytes: 0, words: 0 };
        Self { capacity, state: Mutex::new(state), end: watch::Sender::new(0) }
    }

    /// Appends entries under one lock and wakes readers once.
    pub fn write(&self, entries: impl IntoIterator<Item = T>) {
        let mut state = self.lock();
        for entry in entries {
            let (bytes, position) = (entry.bytes(), state.end);
            state.bytes += bytes;
            state.words += usize::from(entry.is_word());
            state.end += entry.events().max(1);
            state.entries.push_back(Held { entry, bytes, position });
            while state.entries.len() > self.capacity.entries
                || (state.bytes > self.capacity.bytes && state.entries.len() > 1)
            {
                if let Some(gone) = state.entries.pop_front() {
                    state.bytes -= gone.bytes;
                    state.words -= usize::from(gone.entry.is_word());
                }
            }
        }
        let end = state.end;
        drop(state);
        self.end.send_if_modified(|known| std::mem::replace(known, end) != end);
    }
}

impl<T: Clone> Ring<T> {
    /// Up to `most` entries from position `from`, or from the first one held after it.
    #[must_use]
    pub fn read(&self, from: u64, most: usize) -> Batch<T> {
        let state = self.lock();
        let start = from.clamp(state.first(), state.end);
        let offset = state.entries.partition_point(|held| held.position < start);
        let held = state.entries.range(offset..).take(most);
        let entries: Vec<_> = held.map(|held| held.entry.clone()).collect();
        let next = state.entries.get(offset + entries.len()).map_or(state.end, |held| held.position);
        Batch { missed: start.saturating_sub(from), next, entries }
    }

    /// Up to `most` entries in front of position `end`, with their positions, in order.
    #[must_use]
    pub fn read_back(&self, end: u64, most: usize) -> Vec<(u64, T)> {
        let state = self.lock();
        let end = state.entries.partition_point(|held| held.position < end);
        let held = state.entries.range(end.saturating_sub(most)..end);
        held.map(|held| (held.position, held.entry.clone())).collect()
    }
}

impl<T> Ring<T> {
    /// Positions held now: the first, and the one that the next entry gets.
    #[must_use]
    pub fn bounds(&self) -> Range<u64> {
        let state = self.lock();
        state.first()..state.end
    }

    /// A receiver that changes when something is written; its value is the end of [`Self::bounds`].
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.end.subscribe()
    }

    /// How full it is.
    #[must_use]
    pub fn fill(&self) -> Fill {
        let state = self.lock();
        Fill { entries: state.entries.len() - state.words, bytes: state.bytes, capacity: self.capacity }
    }

    /// A panic while the lock is held can only come from an allocation; what is in the ring is still whole.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    /// Position of the first entry held.
    fn first(&self) -> u64 {
        self.entries.front().map_or(self.end, |held| held.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Stone(u64, usize);

    impl Weigh for Stone {
        fn bytes(&self) -> usize {
            self.1
        }
    }

    fn numbers(batch: &Batch<Stone>) -> Vec<u64> {
        batch.entries.iter().map(|stone| stone.0).collect()
    }

    #[test]
    fn the_oldest_leave_when_the_count_is_reached() {
        let ring = Ring::new(Capacity { entries: 3, bytes: 1000 });
        ring.write((0..5).map(|n| Stone(n, 1)));
        assert_eq!(ring.bounds(), 2..5);
        let batch = ring.read(0, 10);
        assert_eq!((batch.missed, numbers(&batch), batch.next), (2, vec![2, 3, 4], 5));
    }

    #[test]
    fn the_oldest_leave_when_the_bytes_are_reached_but_one_entry_stays() {
        let ring = Ring::new(Capacity { entries: 100, bytes: 10 });
        ring.write([Stone(0, 4), Stone(1, 4), Stone(2, 4)]);
        assert_eq!(numbers(&ring.read(0, 10)), [1, 2]);
        ring.write([Stone(3, 50)]);
        assert_eq!(numbers(&ring.read(0, 10)), [3]);
        assert_eq!(
            ring.fill(),
            Fill { entries: 1, bytes: 50, capacity: Capacity { entries: 100, bytes: 10 } }
        );
    }

    #[test]
    fn a_reader_goes_on_where_it_was_and_learns_what_it_missed() {
        let ring = Ring::new(Capacity { entries: 4, bytes: 1000 });
        ring.write((0..3).map(|n| Stone(n, 1)));
        let batch = ring.read(0, 2);
        assert_eq!((numbers(&batch), batch.next), (vec![0, 1], 2));
        ring.write((3..10).map(|n| Stone(n, 1)));
        let batch = ring.read(batch.next, 100);
        assert_eq!((batch.missed, numbers(&batch), batch.next), (4, vec![6, 7, 8, 9], 10));
        let batch = ring.read(batch.next, 100);
        assert_eq!((batch.missed, numbers(&batch), batch.next), (0, vec![], 10));
    }

    /// Word of `0` events that were lost.
    #[derive(Clone, Debug, PartialEq)]
    struct Word(u64);

    impl Weigh for Word {
        fn bytes(&self) -> usize {
            1
        }

        fn events(&self) -> u64 {
            self.0
        }

        fn is_word(&self) -> bool {
            self.0 > 1
        }
    }

    #[test]
    fn word_of_many_losses_is_missed_as_many() {
        let ring = Ring::new(Capacity { entries: 2, bytes: 1000 });
        ring.write([Word(1), Word(1000)]);
        assert_eq!((ring.fill().entries, ring.bounds()), (1, 0..1001));
        assert_eq!(ring.read(0, 1).next, 1);
        assert_eq!(ring.read_back(1001, 1), [(1, Word(1000))]);
        assert_eq!(ring.read_back(1, 9), [(0, Word(1))]);
        ring.write([Word(1), Word(1)]);
        let batch = ring.read(1, 10);
        assert_eq!((batch.missed, batch.entries.len(), batch.next), (1000, 2, 1003));
        assert_eq!(ring.fill().entries, 2);
    }

    #[test]
    fn a_position_of_the_future_is_the_end() {
        let ring = Ring::new(Capacity { entries: 4, bytes: 1000 });
        ring.write([Stone(0, 1)]);
        let batch = ring.read(99, 10);
        assert_eq!((batch.missed, batch.entries.len(), batch.next), (0, 0, 1));
    }

    #[test]
    fn writing_wakes_whoever_watches() {
        let ring = Ring::new(Capacity { entries: 4, bytes: 1000 });
        let mut watch = ring.watch();
        assert!(!watch.has_changed().expect("the ring lives"));
        ring.write([Stone(0, 1)]);
        assert!(watch.has_changed().expect("the ring lives"));
        assert_eq!(*watch.borrow_and_update(), 1);
        ring.write([]);
        assert!(!watch.has_changed().expect("the ring lives"));
    }
}
