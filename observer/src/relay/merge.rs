//! Merges several streams by time, without a clock of its own: `now` is an argument.
//!
//! The oldest waiting answer goes out when every open node has one waiting (then nothing older can come), or when it has
//! waited for the window, or when too many wait. So a silent node delays the others by the window at most. Answers of a node
//! whose clock is known to be wrong, and any answer from the future, are ordered by arrival.

use std::cmp::Reverse;
use std::collections::binary_heap::{BinaryHeap, PeekMut};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use prost_types::Timestamp;

use super::clock::TOLERANCE;

/// Answers waiting, of all nodes together.
const MOST_WAITING: usize = 4096;
/// Bytes of them as they came.
const MOST_BYTES: usize = 16 << 20;

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) monotonic: Instant,
    pub(super) wall: SystemTime,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<T> {
    /// Hand this out.
    Give(T),
    /// Wait for an answer, at most until then.
    Wait(Option<Instant>),
}

/// An answer that came.
#[derive(Debug)]
pub(super) struct Arrival<T> {
    pub(super) answer: T,
    /// How many it took on the wire.
    pub(super) bytes: usize,
    /// When it was seen, as it says.
    pub(super) time: Option<Timestamp>,
}

/// Answers of open nodes.
#[derive(Debug)]
pub(super) struct Merger<T> {
    window: Duration,
    /// Open nodes, and closed ones of which answers wait, with the places of their lanes.
    nodes: BTreeMap<Arc<str>, usize>,
    lanes: Vec<Lane<T>>,
    /// Places of lanes that no node has.
    free: Vec<usize>,
    /// The first answer of each node of which any wait, the oldest on top, with the place of its lane.
    heads: BinaryHeap<Reverse<(Key, Instant, usize)>>,
    /// Open nodes of which none waits.
    silent: usize,
    waiting: usize,
    bytes: usize,
}

/// Seconds and nanoseconds that an answer is ordered by.
type Key = (i64, i32);

#[derive(Debug)]
struct Lane<T> {
    node: Arc<str>,
    open: bool,
    /// Whether its times say nothing.
    distrusted: bool,
    answers: VecDeque<Waiting<T>>,
}

#[derive(Debug)]
struct Waiting<T> {
    key: Key,
    since: Instant,
    bytes: usize,
    answer: T,
}

impl<T> Merger<T> {
    pub(super) fn new(window: Duration) -> Self {
        let (nodes, heads) = (BTreeMap::new(), BinaryHeap::new());
        let (lanes, free) = (Vec::new(), Vec::new());
        Self { window, nodes, lanes, free, heads, silent: 0, waiting: 0, bytes: 0 }
    }

    /// A node from which answers may come.
    pub(super) fn open(&mut self, node: &str) {
        self.lane(node);
    }

    /// The place of a node's lane, which is open from now on.
    fn lane(&mut self, node: &str) -> usize {
        if let Some(place) = self.nodes.get(node) {
            self.lanes[*place].open = true;
            return *place;
        }
        let node: Arc<str> = node.into();
        let lane = Lane { node: Arc::clone(&node), open: true, distrusted: false, answers: VecDeque::new() };
        let place = match self.free.pop() {
            Some(place) => {
                self.lanes[place] = lane;
                place
            }
            None => {
                self.lanes.push(lane);
                self.lanes.len() - 1
            }
        };
        self.nodes.insert(node, place);
        self.silent += 1;
        place
    }

    /// Nothing more comes from a node; what it said already is still handed out.
    pub(super) fn close(&mut self, node: &str) {
        let Some(place) = self.nodes.get(node).copied() else { return };
        self.lanes[place].open = false;
        if self.lanes[place].answers.is_empty() {
            self.nodes.remove(node);
            self.free.push(place);
            self.silent -= 1;
        }
    }

    /// Whether a node's clock is wrong, so that its answers are ordered by when they come.
    pub(super) fn distrust(&mut self, node: &str, wrong: bool) {
        if let Some(place) = self.nodes.get(node) {
            self.lanes[*place].distrusted = wrong;
        }
    }

    /// Answers of a node that came now. Says by how much the time of one of them lies in the future, if that is a wrong
    /// clock's.
    pub(super) fn push(
        &mut self,
        node: &str,
        arrivals: impl IntoIterator<Item = Arrival<T>>,
        now: Now,
    ) -> Option<Duration> {
        let place = self.lane(node);
        let lane = &mut self.lanes[place];
        let was_silent = lane.answers.is_empty();
        let arrived = Timestamp::from(now.wall);
        let mut furthest = None;
        for Arrival { answer, bytes, time } in arrivals {
            let ahead = time.and_then(|time| ahead(&time, &arrived, now.wall));
            furthest = furthest.max(ahead);
            let says_nothing = lane.distrusted || ahead.is_some();
            let ordered_by = if says_nothing { arrived } else { time.unwrap_or(arrived) };
            let key = (ordered_by.seconds, ordered_by.nanos);
            lane.answers.push_back(Waiting { key, since: now.monotonic, bytes, answer });
            self.waiting += 1;
            self.bytes += bytes;
        }
        if let (true, Some(first)) = (was_silent, lane.answers.front()) {
            self.heads.push(Reverse((first.key, first.since, place)));
            self.silent -= 1;
        }
        furthest
    }

    /// Whether there is room for more.
    pub(super) fn has_room(&self) -> bool {
        self.waiting < MOST_WAITING && self.bytes < MOST_BYTES
    }

    /// Whether no node is open and nothing waits.
    pub(super) fn is_done(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The next answer, or how long to wait for it.
    pub(super) fn next(&mut self, now: Instant) -> Next<T> {
        if self.silent > 0 && self.has_room() {
            let longest = self.heads.iter().map(|Reverse((_, since, _))| *since).min();
            let due = longest.map(|since| since + self.window);
            if due.is_none_or(|due| due > now) {
                return Next::Wait(due);
            }
        }
        self.take().map_or(Next::Wait(None), Next::Give)
    }

    /// The oldest answer.
    fn take(&mut self) -> Option<T> {
        let mut oldest = self.heads.peek_mut()?;
        let Reverse((_, _, place)) = *oldest;
        let lane = &mut self.lanes[place];
        let taken = lane.answers.pop_front();
        match lane.answers.front() {
            // In the place of the one before: nothing is moved that is younger than both.
            Some(next) => *oldest = Reverse((next.key, next.since, place)),
            None => {
                PeekMut::pop(oldest);
                if lane.open {
                    self.silent += 1;
                } else {
                    self.nodes.remove(&lane.node);
                    self.free.push(place);
                }
            }
        }
        let taken = taken?;
        self.waiting -= 1;
        self.bytes -= taken.bytes;
        Some(taken.answer)
    }
}

/// How far a time lies in the future, if that is more than a right clock may be off.
fn ahead(time: &Timestamp, arrived: &Timestamp, now: SystemTime) -> Option<Duration> {
    // The nanoseconds of a time from outside may be more than two seconds. Most times are older than that.
    if time.seconds.saturating_add(3) < arrived.seconds {
        return None;
    }
    let time = SystemTime::try_from(*time).ok()?;
    time.duration_since(now).ok().filter(|ahead| *ahead > TOLERANCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        merger: Merger<&'static str>,
        start: Instant,
        wall: SystemTime,
    }

    impl Bench {
        fn new(nodes: &[&str]) -> Self {
            let mut merger = Merger::new(Duration::from_millis(1000));
            nodes.iter().for_each(|node| merger.open(node));
            Self { merger, start: Instant::now(), wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1000) }
        }

        /// `at` milliseconds after the start, of a second.
        fn push(&mut self, node: &str, answer: &'static str, second: i64, at: u64) -> Option<Duration> {
            let now = Now { monotonic: self.start + Duration::from_millis(at), wall: self.wall };
            let time = Some(Timestamp { seconds: second, nanos: 0 });
            self.merger.push(node, [Arrival { answer, bytes: 1, time }], now)
        }

        /// Everything that goes out at that moment.
        fn given(&mut self, at: u64) -> Vec<&'static str> {
            let mut given = Vec::new();
            while let Next::Give(answer) = self.merger.next(self.start + Duration::from_millis(at)) {
                given.push(answer);
            }
            given
        }
    }

    #[test]
    fn the_oldest_first_when_all_have_spoken() {
        let mut bench = Bench::new(&["a", "b"]);
        bench.push("a", "a3", 3, 0);
        bench.push("a", "a5", 5, 0);
        assert_eq!(bench.given(0), [""; 0], "b might still have something older");
        bench.push("b", "b1", 1, 10);
        bench.push("b", "b4", 4, 10);
        assert_eq!(bench.given(10), ["b1", "a3", "b4"]);
        bench.merger.close("b");
        assert_eq!(bench.given(10), ["a5"]);
    }

    #[test]
    fn a_silent_node_delays_by_the_window_and_no_longer() {
        let mut bench = Bench::new(&["a", "silent"]);
        bench.push("a", "a1", 1, 0);
        assert_eq!(bench.merger.next(bench.start), Next::Wait(Some(bench.start + Duration::from_secs(1))));
        assert_eq!(bench.given(999), [""; 0]);
        assert_eq!(bench.given(1000), ["a1"]);
        bench.push("a", "a2", 2, 1500);
        assert_eq!(bench.given(2499), [""; 0]);
        assert_eq!(bench.given(2500), ["a2"]);
    }

    #[test]
    fn a_closed_node_is_waited_for_no_more() {
        let mut bench = Bench::new(&["a", "b"]);
        bench.push("a", "a1", 1, 0);
        bench.push("b", "b9", 9, 0);
        bench.merger.close("b");
        assert_eq!(bench.given(0), ["a1"], "a may go on before b's last");
        bench.merger.close("a");
        assert_eq!(bench.given(0), ["b9"]);
        assert!(bench.merger.is_done());
    }

    #[test]
    fn what_comes_together_is_one_after_the_other_and_between_that_of_others() {
        let mut bench = Bench::new(&["a", "b"]);
        let now = Now { monotonic: bench.start, wall: bench.wall };
        let arrivals = |seconds: [(&'static str, i64); 3]| {
            seconds.map(|(answer, seconds)| Arrival {
                answer,
                bytes: 1,
                time: Some(Timestamp { seconds, nanos: 0 }),
            })
        };
        bench.merger.push("a", arrivals([("a1", 1), ("a4", 4), ("a5", 5)]), now);
        bench.merger.push("b", arrivals([("b2", 2), ("b3", 3), ("b6", 6)]), now);
        assert_eq!(bench.given(0), ["a1", "b2", "b3", "a4", "a5"]);
        let ahead = bench.merger.push("a", arrivals([("a", 7), ("b", 4600), ("c", 1010)]), now);
        assert_eq!(ahead, Some(Duration::from_secs(3600)), "the one that is furthest off");
        assert_eq!(bench.merger.push("a", [], now), None);
    }

    #[test]
    fn the_lane_of_a_node_that_is_gone_is_anothers() {
        let mut bench = Bench::new(&["a"]);
        for turn in 0..3 {
            bench.merger.open("b");
            bench.push("b", "b1", 1, 0);
            bench.merger.close("b");
            bench.push("a", "a2", 2, 0);
            assert_eq!(bench.given(0), ["b1", "a2"], "{turn}");
            bench.merger.open("c");
            bench.merger.close("c");
        }
        assert_eq!(bench.merger.lanes.len(), 2, "never more than there were nodes at a time");
    }

    #[test]
    fn a_clock_in_the_future_is_told_and_orders_nothing() {
        let mut bench = Bench::new(&["a", "ahead"]);
        assert_eq!(bench.push("ahead", "x", 1000 + 3600, 0), Some(Duration::from_secs(3600)));
        assert_eq!(bench.push("a", "a1001", 1001, 0), None, "a second is within what is tolerated");
        assert_eq!(bench.given(0), ["x"], "as if it were of the moment it came");
        bench.push("ahead", "y", 1000 + 3601, 10);
        assert_eq!(bench.given(10), ["y"]);
    }

    #[test]
    fn a_clock_in_the_past_orders_nothing_once_it_is_known() {
        let mut bench = Bench::new(&["a", "behind"]);
        bench.merger.distrust("behind", true);
        bench.push("a", "a999", 999, 0);
        bench.push("behind", "x", 1000 - 3600, 0);
        assert_eq!(bench.given(0), ["a999"], "x came at 1000");
        bench.merger.distrust("behind", false);
        bench.push("behind", "y", 998, 10);
        bench.push("a", "a1000", 1000, 10);
        assert_eq!(bench.given(10), ["x", "y"], "its times count again");
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut bench = Bench::new(&["a", "silent"]);
        for second in 0..i64::try_from(MOST_WAITING).expect("a small number") {
            assert!(bench.merger.has_room());
            bench.push("a", "n", second, 0);
        }
        assert!(!bench.merger.has_room());
        assert_eq!(bench.given(0).len(), 1, "it makes room for one");

        let mut bench = Bench::new(&["a", "silent"]);
        let now = Now { monotonic: bench.start, wall: bench.wall };
        bench.merger.push("a", [Arrival { answer: "large", bytes: MOST_BYTES, time: None }], now);
        assert!(!bench.merger.has_room());
        assert_eq!(bench.given(0), ["large"], "few large ones are as much as many small ones");
        assert!(bench.merger.has_room());
    }
}
