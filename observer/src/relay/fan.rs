//! One request to every node, their answers as one stream.
//!
//! For each node one task asks and forwards what has arrived, in batches, through a bounded channel ([`task`]); all answers
//! that are due go out together. A node that moves keeps its task; that of one that goes ends by itself, so that nothing the
//! node said is lost. Tasks are owned by the stream: dropping it ends them. Neighbours: [`super::question`] has
//! the requests, [`super::merge`] the order.

mod task;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::{FutureExt, StreamExt, stream};
use sinew_api::proto::relay::{NodeState, NodeStatusEvent};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tonic::Status;
use tonic::transport::Channel;

use super::RelaySettings;
use super::clock::Off;
use super::counted::{Counted, Stream};
use super::merge::{Arrival, Merger, Next, Now};
use super::node::Nodes;
use super::question::Question;
use super::resume::Resume;
use crate::peer::{PeerAddress, Peers};
use crate::source::Answers;
use task::{NodeTask, Told};

/// How long a report of a node's state waits for others that say the same: fifty nodes behind a failed switch are one line.
const GROUPING: Duration = Duration::from_millis(100);
/// Answers that go out at a time, at most.
const MOST_GIVEN: usize = 128;
/// Bunches on their way from one node's task.
const CHANNEL: usize = 2;

/// What a fan-in needs.
pub(super) struct FanIn {
    /// Who says what is said of nodes.
    pub(super) name: Arc<str>,
    pub(super) settings: RelaySettings,
    pub(super) nodes: Arc<Nodes>,
    pub(super) peers: watch::Receiver<Peers>,
    pub(super) counted: Arc<Counted>,
}

/// The answers of all nodes, in order.
pub(super) fn answers<Q: Question>(fan: FanIn, question: Q) -> Answers<Q::Given> {
    let open = Stream::begin(&fan.counted);
    let gathering = Gathering::new(fan, question);
    let bunches = stream::unfold((gathering, open), |(mut gathering, open)| async move {
        let bunch = gathering.next().await?;
        gathering.fan.counted.handed(bunch.len());
        Some((bunch, (gathering, open)))
    });
    Box::pin(bunches.flat_map(|bunch| stream::iter(bunch.into_iter().map(Ok))))
}

/// Nodes of which the same is to be told.
struct Report {
    state: NodeState,
    message: String,
    nodes: Vec<String>,
    /// When the first of them was heard of.
    since: Instant,
}

/// What one node's task tells, with the node's name.
type NodeStream<A> = stream::BoxStream<'static, (Arc<str>, Told<A>)>;

/// A node that is asked.
struct Asked {
    peer: PeerAddress,
    /// Tells its task how it is reached; nothing once it is gone.
    channel: Option<watch::Sender<Result<Channel, Status>>>,
    task: AbortHandle,
}

struct Gathering<Q: Question> {
    fan: FanIn,
    question: Q,
    merger: Merger<Q::Given>,
    /// What is asked, and what is gone and has not ended yet.
    tasks: BTreeMap<String, Asked>,
    streams: stream::SelectAll<NodeStream<Q::Answer>>,
    reports: VecDeque<Report>,
    /// Nodes whose clock has been reported.
    wrong_clocks: BTreeSet<String>,
    /// Nodes whose answer has come to its end.
    answered: BTreeSet<String>,
    started: bool,
    /// Whether any node has been asked: those that join later say only what is new.
    has_asked: bool,
}

impl<Q: Question> Gathering<Q> {
    fn new(fan: FanIn, question: Q) -> Self {
        Self {
            merger: Merger::new(fan.settings.window),
            fan,
            question,
            tasks: BTreeMap::new(),
            streams: stream::SelectAll::new(),
            reports: VecDeque::new(),
            wrong_clocks: BTreeSet::new(),
            answered: BTreeSet::new(),
            started: false,
            has_asked: false,
        }
    }

    /// What goes out next: as many answers as are due. Nothing at the end.
    async fn next(&mut self) -> Option<Vec<Q::Given>> {
        if !self.started {
            self.started = true;
            self.take_over();
        }
        loop {
            let now = Instant::now();
            let ends = self.merger.is_done() && self.tasks.is_empty() && self.has_end();
            if let Some(state) = self.due_report(now, ends) {
                return Some(vec![state]);
            }
            let mut due = Vec::new();
            let until = loop {
                match self.merger.next(now) {
                    Next::Give(answer) if due.len() + 1 < MOST_GIVEN => due.push(answer),
                    Next::Give(answer) => {
                        due.push(answer);
                        return Some(due);
                    }
                    Next::Wait(until) => break until,
                }
            };
            if !due.is_empty() {
                return Some(due);
            }
            if ends {
                return None;
            }
            let told = self.reports.front().map(|report| report.since + GROUPING);
            let until = [until, told].into_iter().flatten().min();
            let due = until.map_or_else(
                || tokio::time::Instant::now() + self.fan.settings.window,
                tokio::time::Instant::from_std,
            );
            // In this order: nodes that always have answers don't keep others from being added and removed, and the clock is
            // only looked at when nothing else is ready.
            tokio::select! {
                biased;
                changed = self.fan.peers.changed(), if self.question.follows() => match changed {
                    Ok(()) => self.take_over(),
                    Err(_) => return None,
                },
                told = self.streams.next(), if !self.streams.is_empty() => {
                    if let Some((node, told)) = told {
                        self.hear(&node, told);
                    }
                }
                () = tokio::time::sleep_until(due) => {}
            }
            // What others have said meanwhile is heard before the next look at all of them.
            while self.merger.has_room()
                && let Some(Some((node, told))) = self.streams.next().now_or_never()
            {
                self.hear(&node, told);
            }
        }
    }

    /// Whether nothing more comes once all tasks have ended. What follows waits for the first node.
    fn has_end(&self) -> bool {
        self.question.has_end() && !(self.question.follows() && self.answered.is_empty())
    }

    fn hear(&mut self, node: &str, told: Told<Q::Answer>) {
        match told {
            Told::Answers(answers) => {
                let now = Now { monotonic: Instant::now(), wall: SystemTime::now() };
                let arrivals = answers.into_iter().map(|answer| {
                    let time = Q::time(&answer).copied();
                    let (answer, bytes) = Q::give(answer);
                    Arrival { answer, bytes, time }
                });
                if let Some(ahead) = self.merger.push(node, arrivals, now) {
                    self.report_clock(node, Off::Ahead(ahead));
                }
            }
            Told::Clock(off) => {
                self.merger.distrust(node, off.is_some());
                if let Some(off) = off {
                    self.report_clock(node, off);
                }
            }
            Told::State(state, message) => {
                match state {
                    NodeState::NodeConnected => self.merger.open(node),
                    _ => self.merger.close(node),
                }
                self.report(state, node, message);
            }
            Told::End => {
                self.merger.close(node);
                let gone = self.tasks.remove(node).is_some_and(|asked| asked.channel.is_none());
                if gone {
                    self.report(NodeState::NodeGone, node, String::new());
                    // It may have come back meanwhile.
                    self.take_over();
                } else {
                    self.answered.insert(node.to_owned());
                }
            }
        }
    }

    /// Starts and ends tasks, so that there is one for each node that there is, and tells them where their nodes are.
    fn take_over(&mut self) {
        let peers = self.fan.peers.borrow_and_update().clone();
        self.fan.nodes.keep(&peers);
        for (name, asked) in &mut self.tasks {
            match (peers.get(name), &asked.channel) {
                (None, _) => asked.channel = None,
                (Some(peer), Some(channel)) if *peer != asked.peer => {
                    drop(channel.send_replace(self.fan.nodes.streams(name, peer)));
                    asked.peer = peer.clone();
                }
                (Some(_), _) => {}
            }
        }
        let joined_late = self.has_asked;
        for (name, peer) in peers {
            if self.tasks.contains_key(&name) || self.answered.contains(&name) {
                continue;
            }
            self.has_asked = true;
            let question = if joined_late { self.question.only_new() } else { self.question.clone() };
            let (sender, receiver) = mpsc::channel(CHANNEL);
            let (reached, channel) = watch::channel(self.fan.nodes.streams(&name, &peer));
            let task = NodeTask {
                channel,
                node: name.clone(),
                question,
                sender,
                settings: self.fan.settings,
                resume: Resume::default(),
                began: None,
            };
            let task = tokio::spawn(task.run()).abort_handle();
            self.merger.open(&name);
            self.tasks.insert(name.clone(), Asked { peer, channel: Some(reached), task });
            let told = stream::unfold(receiver, |mut receiver| async move {
                receiver.recv().await.map(|told| (told, receiver))
            });
            let name: Arc<str> = name.into();
            self.streams.push(told.map(move |told| (Arc::clone(&name), told)).boxed());
        }
    }

    /// Says once that a node's clock is wrong.
    fn report_clock(&mut self, node: &str, off: Off) {
        if self.wrong_clocks.insert(node.to_owned()) {
            self.fan.counted.clock();
            let message = format!("its clock is {off}; its flows are ordered by when they came");
            self.report(NodeState::NodeError, node, message);
        }
    }

    fn report(&mut self, state: NodeState, node: &str, message: String) {
        self.fan.counted.reported(state);
        // Only the last report is looked at: what a node goes through stays in order.
        match self.reports.back_mut() {
            Some(last) if (last.state, &last.message) == (state, &message) => {
                last.nodes.push(node.to_owned())
            }
            _ => {
                let nodes = vec![node.to_owned()];
                self.reports.push_back(Report { state, message, nodes, since: Instant::now() });
            }
        }
    }

    /// The next report that has waited long enough, or that waits for nothing because the answer ends.
    fn due_report(&mut self, now: Instant, ends: bool) -> Option<Q::Given> {
        while self.reports.front().is_some_and(|report| ends || report.since + GROUPING <= now) {
            let Report { state, message, nodes, .. } = self.reports.pop_front()?;
            let event = NodeStatusEvent { state_change: state.into(), node_names: nodes, message };
            if let Some(answer) = Q::status(&self.fan.name, event, SystemTime::now().into()) {
                return Some(answer);
            }
        }
        None
    }
}

impl<Q: Question> Drop for Gathering<Q> {
    fn drop(&mut self) {
        for asked in self.tasks.values() {
            asked.task.abort();
        }
    }
}
