//! A relay's own metrics: its nodes, its clients' requests, and what it forwarded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sinew_api::proto::relay::NodeState;

use super::Relay;
use crate::metrics::http::Exposed;
use crate::metrics::{Description, Family, Value, process};

/// Every metric here.
pub const METRICS: &[&Description] = &[&BUILD, &NODES, &STREAMS, &ANSWERS, &REPORTS, &CLOCKS];

const BUILD: Description =
    Description::gauge("sinew_relay_build_info", &["version"], "1; its label says what runs.");
const NODES: Description = Description::gauge(
    "sinew_relay_nodes",
    &["state"],
    "Nodes that the relay knows, by whether they answered when they were last asked, which is every 5 s.",
);
const STREAMS: Description =
    Description::gauge("sinew_relay_streams", &[], "Requests of clients for flows and events that are open.");
const ANSWERS: Description = Description::counter(
    "sinew_relay_answers_total",
    &[],
    "Flows, events and words of losses that were handed to clients.",
);
const REPORTS: Description = Description::counter(
    "sinew_relay_node_reports_total",
    &["state"],
    "Times that a client was told of a node's state: connected, unavailable, gone, error.",
);
const CLOCKS: Description = Description::counter(
    "sinew_relay_wrong_clocks_total",
    &[],
    "Times that a node's clock was found to be off by more than a second.",
);

/// States in the order of their numbers; the first is never sent.
const STATES: [(NodeState, &str); 4] = [
    (NodeState::NodeConnected, "connected"),
    (NodeState::NodeUnavailable, "unavailable"),
    (NodeState::NodeGone, "gone"),
    (NodeState::NodeError, "error"),
];

/// The numbers. Everybody who serves a request writes them.
#[derive(Debug, Default)]
pub(super) struct Counted {
    answering: AtomicU64,
    silent: AtomicU64,
    streams: AtomicU64,
    answers: AtomicU64,
    reports: [AtomicU64; STATES.len()],
    clocks: AtomicU64,
}

impl Counted {
    /// So many nodes answered, and so many did not.
    pub(super) fn asked(&self, answering: usize, silent: usize) {
        self.answering.store(answering as u64, Ordering::Relaxed);
        self.silent.store(silent as u64, Ordering::Relaxed);
    }

    /// A client is handed so many answers.
    pub(super) fn handed(&self, answers: usize) {
        self.answers.fetch_add(answers as u64, Ordering::Relaxed);
    }

    /// A client is told of a node.
    pub(super) fn reported(&self, state: NodeState) {
        if let Some(at) = STATES.iter().position(|(known, _)| *known == state) {
            self.reports[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A clock is wrong.
    pub(super) fn clock(&self) {
        self.clocks.fetch_add(1, Ordering::Relaxed);
    }
}

/// A client's request, open until this is dropped.
#[derive(Debug)]
pub(super) struct Stream(Arc<Counted>);

impl Stream {
    /// One that begins.
    pub(super) fn begin(counted: &Arc<Counted>) -> Self {
        counted.streams.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counted))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Exposed for Relay {
    async fn families(&self) -> Vec<Family> {
        let counted = &self.counted;
        let load = |number: &AtomicU64| Value::Count(number.load(Ordering::Relaxed));
        let mut reports = Family::new(&REPORTS);
        for ((_, state), count) in STATES.iter().zip(&counted.reports) {
            reports.add([state], load(count));
        }
        let mut families = vec![
            Family::new(&BUILD).with([&self.version], Value::Count(1)),
            Family::new(&NODES)
                .with(["answering"], load(&counted.answering))
                .with(["silent"], load(&counted.silent)),
            Family::single(&STREAMS, load(&counted.streams)),
            Family::single(&ANSWERS, load(&counted.answers)),
            reports,
            Family::single(&CLOCKS, load(&counted.clocks)),
        ];
        families.extend(process::families(self.started));
        families
    }
}
