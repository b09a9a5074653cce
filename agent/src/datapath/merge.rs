//! Records of several rings in the order of their time (datapath.md 33).
//!
//! Each ring is in order, but the rings are read one after the other, and a program writes its record a moment after it has
//! read the clock. So a record is given out only once no older one can come; the rest waits for the next reading. The
//! reader bounds that wait in time, this module in number. Neighbours: `events.rs` reads the rings.

use sinew_bpf::abi::EventRecord;

/// Nanoseconds after which a record that was begun is in its ring: a program needs less than one microsecond, but a virtual
/// machine may lose its processor for a while.
const SETTLED: u64 = 2_000_000;

/// Records that wait for older ones. If one ring is so far behind that more than this wait, order gives way to memory.
const WAITING: usize = 65_536;

/// Records on their way from the rings to their reader.
#[derive(Default)]
pub(super) struct Merge {
    waiting: Vec<EventRecord>,
}

/// One reading of all rings.
pub(super) struct Reading<'a> {
    merge: &'a mut Merge,
    /// Nothing older than this can come any more, nanoseconds of `CLOCK_MONOTONIC`.
    bound: u64,
}

impl Merge {
    /// Begins a reading at `now`, nanoseconds of `CLOCK_MONOTONIC`.
    pub(super) fn begin(&mut self, now: u64) -> Reading<'_> {
        Reading { merge: self, bound: now.saturating_sub(SETTLED) }
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl Reading<'_> {
    /// A record of a ring.
    pub(super) fn take(&mut self, record: EventRecord) {
        self.merge.waiting.push(record);
    }

    /// The ring whose record was taken last may have more: nothing newer than that record may be given out before them.
    pub(super) fn has_more(&mut self) {
        if let Some(last) = self.merge.waiting.last() {
            self.bound = self.bound.min(last.time);
        }
    }

    /// Ends the reading: gives out, oldest first, what nothing older can come before.
    pub(super) fn end(self, into: &mut Vec<EventRecord>) {
        let waiting = &mut self.merge.waiting;
        // Stable: records of one ring and one time stay as they came.
        waiting.sort_by_key(|record| record.time);
        let due = waiting.partition_point(|record| record.time <= self.bound);
        into.extend(waiting.drain(..due.max(waiting.len().saturating_sub(WAITING))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn record(time: u64, sequence: u32) -> EventRecord {
        EventRecord { time, sequence, ..EventRecord::default() }
    }

    fn read(merge: &mut Merge, now: u64, rings: &[(&[EventRecord], bool)]) -> Vec<(u64, u32)> {
        let mut reading = merge.begin(now);
        for (records, more) in rings {
            records.iter().for_each(|record| reading.take(*record));
            if *more {
                reading.has_more();
            }
        }
        let mut given = Vec::new();
        reading.end(&mut given);
        given.iter().map(|record| (record.time, record.sequence)).collect()
    }

    #[test]
    fn two_rings_come_out_by_time() {
        let mut merge = Merge::default();
        let rings: [(&[_], _); 2] =
            [(&[record(10, 1), record(30, 2)], false), (&[record(20, 1), record(40, 2)], false)];
        assert_eq!(read(&mut merge, 10 * MS, &rings), [(10, 1), (20, 1), (30, 2), (40, 2)]);
        assert!(merge.is_empty());
    }

    /// The second ring was read after the first, whose record of 9.5 ms came too late for that.
    #[test]
    fn a_fresh_record_waits_for_an_older_one_of_another_ring() {
        let mut merge = Merge::default();
        let first: [(&[_], _); 2] = [(&[], false), (&[record(5 * MS, 1), record(9_600_000, 2)], false)];
        assert_eq!(read(&mut merge, 10 * MS, &first), [(5 * MS, 1)]);
        assert!(!merge.is_empty());
        let second: [(&[_], _); 2] = [(&[record(9_500_000, 1)], false), (&[], false)];
        assert_eq!(read(&mut merge, 20 * MS, &second), [(9_500_000, 1), (9_600_000, 2)]);
    }

    #[test]
    fn a_ring_that_has_more_holds_the_others_back() {
        let mut merge = Merge::default();
        let first: [(&[_], _); 2] = [(&[record(1, 1), record(2, 2)], true), (&[record(3, 1)], false)];
        assert_eq!(read(&mut merge, 10 * MS, &first), [(1, 1), (2, 2)]);
        let second: [(&[_], _); 2] = [(&[record(2, 3), record(4, 4)], false), (&[], false)];
        assert_eq!(read(&mut merge, 10 * MS, &second), [(2, 3), (3, 1), (4, 4)]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut merge = Merge::default();
        let many: Vec<_> = (0..70_000).map(|at| record(MS + at, 0)).collect();
        let rings: [(&[_], _); 2] = [(&many, false), (&[record(1, 1)], true)];
        let given = read(&mut merge, 10 * MS, &rings);
        assert_eq!(given.len(), 70_001 - WAITING);
        assert_eq!(given[..2], [(1, 1), (MS, 0)]);
    }
}
