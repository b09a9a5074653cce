//! Order by time out of several streams, without a clock of its own: `now` is passed.
//!
//! The oldest waiting answer goes out when every open node has one waiting (then nothing older can come), or when it has
//! waited for the window, or when too many wait. So a silent node holds the others back by the window and no longer.
//! A node whose clock is known to be wrong, and any answer from the future, is ordered by when it came.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
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

/// Answers of open nodes.
#[derive(Debug)]
pub(super) struct Merger<T> {
    window: Duration,
    /// Open nodes, and closed ones of which answers wait.
    nodes: BTreeMap<Arc<str>, Lane<T>>,
    /// The first answer of each node of which any wait, the oldest on top.
    heads: BinaryHeap<Reverse<(Key, Instant, Arc<str>)>>,
    /// Open nodes of which none waits.
    silent: usize,
    waiting: usize,
    bytes: usize,
}

/// Seconds and nanoseconds that an answer is ordered by.
type Key = (i64, i32);

#[derive(Debug)]
struct Lane<T> {
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
        Self { window, nodes, heads, silent: 0, waiting: 0, bytes: 0 }
    }

    /// A node from which answers may come.
    pub(super) fn open(&mut self, node: &str) {
        if let Some(lane) = self.nodes.get_mut(node) {
            lane.open = true;
            return;
        }
        let lane = Lane { open: true, distrusted: false, answers: VecDeque::new() };
        self.nodes.insert(node.into(), lane);
        self.silent += 1;
    }

    /// Nothing more comes from a node; what it said already is still handed out.
    pub(super) fn close(&mut self, node: &str) {
        let Some(lane) = self.nodes.get_mut(node) else { return };
        lane.open = false;
        if lane.answers.is_empty() {
            self.nodes.remove(node);
            self.silent -= 1;
        }
    }

    /// Whether a node's clock is wrong, so that its answers are ordered by when they come.
    pub(super) fn distrust(&mut self, node: &str, wrong: bool) {
        if let Some(lane) = self.nodes.get_mut(node) {
            lane.distrusted = wrong;
        }
    }

    /// An answer of so many bytes that came now. Says by how much its time lies in the future, if that is a wrong clock's.
    pub(super) fn push(
        &mut self,
        node: &str,
        (answer, bytes): (T, usize),
        time: Option<&Timestamp>,
        now: Now,
    ) -> Option<Duration> {
        let arrived = Timestamp::from(now.wall);
        let ahead = time
            .and_then(|time| SystemTime::try_from(*time).ok())
            .and_then(|time| time.duration_since(now.wall).ok())
            .filter(|ahead| *ahead > TOLERANCE);
        self.open(node);
        if let Some(lane) = self.nodes.get_mut(node) {
            let says_nothing = lane.distrusted || ahead.is_some();
            let ordered_by = if says_nothing { &arrived } else { time.unwrap_or(&arrived) };
            let key = (ordered_by.seconds, ordered_by.nanos);
            if lane.answers.is_empty() {
                self.heads.push(Reverse((key, now.monotonic, node.into())));
                self.silent -= 1;
            }
            lane.answers.push_back(Waiting { key, since: now.monotonic, bytes, answer });
            self.waiting += 1;
            self.bytes += bytes;
        }
        ahead
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
        let Reverse((_, _, node)) = self.heads.pop()?;
        let lane = self.nodes.get_mut(&node)?;
        let taken = lane.answers.pop_front()?;
        self.waiting -= 1;
        self.bytes -= taken.bytes;
        match lane.answers.front() {
            Some(next) => self.heads.push(Reverse((next.key, next.since, node))),
            None if lane.open => self.silent += 1,
            None => drop(self.nodes.remove(&node)),
        }
        Some(taken.answer)
    }
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
            self.merger.push(node, (answer, 1), Some(&Timestamp { seconds: second, nanos: 0 }), now)
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
        bench.merger.push("a", ("large", MOST_BYTES), None, now);
        assert!(!bench.merger.has_room());
        assert_eq!(bench.given(0), ["large"], "few large ones are as much as many small ones");
        assert!(bench.merger.has_room());
    }
}
