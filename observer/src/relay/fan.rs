//! One request to every node, their answers as one stream.
//!
//! For each node one task asks and forwards what has come, some answers at a time, through a bounded channel; it ends with the
//! stream that it serves. A node that fails is asked again, with growing pauses, if the request follows, from where its
//! answers broke off. Tasks are owned by the stream: dropping it ends them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::{StreamExt, stream};
use prost::Message;
use prost_types::Timestamp;
use sinew_api::proto::flow::{LostEvent, LostEventSource};
use sinew_api::proto::observer::get_flows_response::ResponseTypes;
use sinew_api::proto::observer::{
    GetAgentEventsRequest, GetAgentEventsResponse, GetDebugEventsRequest, GetDebugEventsResponse,
    GetFlowsRequest, GetFlowsResponse,
};
use sinew_api::proto::relay::{NodeState, NodeStatusEvent};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tonic::{Code, Response, Status, Streaming};

use super::RelaySettings;
use super::clock::Off;
use super::counted::{Counted, Stream};
use super::merge::{Merger, Next, Now};
use super::node::{Client, FIRST_PAUSE, LONGEST_PAUSE, Nodes, Purpose};
use super::resume::{Heard, Resume};
use crate::dial;
use crate::peer::{PeerAddress, Peers};
use crate::source::Answers;

/// How long word of a node's state waits for others that are the same: fifty nodes behind a switch that fails are one line.
const GROUPING: Duration = Duration::from_millis(100);
/// Answers that one node's task hands over at a time: handing them over costs as much for one as for all of them.
const BUNCH: usize = 32;
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

/// A streaming request of the Observer.
pub(super) trait Question: Clone + Send + Sync + 'static {
    /// What comes back.
    type Answer: Message + 'static;
    /// Asks a node.
    fn ask(
        &self,
        client: Client,
    ) -> impl Future<Output = Result<Response<Streaming<Self::Answer>>, Status>> + Send;
    /// Whether the answer has no end.
    fn follows(&self) -> bool;
    /// The same question from there on.
    fn since(&self, time: Timestamp) -> Self;
    /// The same question for what is yet to come, by no clock.
    fn only_new(&self) -> Self;
    /// When an answer was seen.
    fn time(answer: &Self::Answer) -> Option<&Timestamp>;
    /// What makes an answer unlike all others; empty where it has nothing of that kind.
    fn id(answer: &Self::Answer) -> &str;
    /// Word of a loss, if the answer is one.
    fn loss(answer: &Self::Answer) -> Option<&LostEvent>;
    /// Word of a gap as an answer, where the answer has a place for it.
    fn gap(node: &str, lost: LostEvent) -> Option<Self::Answer>;
    /// A node's state as an answer, where the answer has a place for it.
    fn status(relay: &str, event: NodeStatusEvent, time: Timestamp) -> Option<Self::Answer>;
}

macro_rules! question {
    ($request:ty, $answer:ty, $call:ident, $id:expr, $loss:expr, $gap:expr, $status:expr) => {
        impl Question for $request {
            type Answer = $answer;

            async fn ask(&self, mut client: Client) -> Result<Response<Streaming<$answer>>, Status> {
                client.$call(self.clone()).await
            }

            fn follows(&self) -> bool {
                self.follow
            }

            fn since(&self, time: Timestamp) -> Self {
                Self { since: Some(time), number: 0, first: false, ..self.clone() }
            }

            fn only_new(&self) -> Self {
                Self { since: None, number: 0, first: false, ..self.clone() }
            }

            fn time(answer: &$answer) -> Option<&Timestamp> {
                answer.time.as_ref()
            }

            fn id(answer: &$answer) -> &str {
                let id: fn(&$answer) -> &str = $id;
                id(answer)
            }

            fn loss(answer: &$answer) -> Option<&LostEvent> {
                let loss: fn(&$answer) -> Option<&LostEvent> = $loss;
                loss(answer)
            }

            fn gap(node: &str, lost: LostEvent) -> Option<$answer> {
                let gap: fn(&str, LostEvent) -> Option<$answer> = $gap;
                gap(node, lost)
            }

            fn status(relay: &str, event: NodeStatusEvent, time: Timestamp) -> Option<$answer> {
                let make: fn(&str, NodeStatusEvent, Timestamp) -> Option<$answer> = $status;
                make(relay, event, time)
            }
        }
    };
}

question!(
    GetFlowsRequest,
    GetFlowsResponse,
    get_flows,
    |answer| match &answer.response_types {
        Some(ResponseTypes::Flow(flow)) => &flow.uuid,
        _ => "",
    },
    |answer| match &answer.response_types {
        Some(ResponseTypes::LostEvents(lost)) => Some(lost),
        _ => None,
    },
    |node, lost| Some(GetFlowsResponse {
        node_name: node.to_owned(),
        time: lost.last,
        response_types: Some(ResponseTypes::LostEvents(lost)),
    }),
    |relay, event, time| Some(GetFlowsResponse {
        node_name: relay.to_owned(),
        time: Some(time),
        response_types: Some(ResponseTypes::NodeStatus(event)),
    })
);
question!(
    GetAgentEventsRequest,
    GetAgentEventsResponse,
    get_agent_events,
    |_| "",
    |_| None,
    |_, _| None,
    |_, _, _| None
);
question!(
    GetDebugEventsRequest,
    GetDebugEventsResponse,
    get_debug_events,
    |_| "",
    |_| None,
    |_, _| None,
    |_, _, _| None
);

/// The answers of all nodes, in order.
pub(super) fn answers<Q: Question>(fan: FanIn, question: Q) -> Answers<Q::Answer> {
    let open = Stream::begin(&fan.counted);
    let gathering = Gathering::new(fan, question);
    Box::pin(stream::unfold((gathering, open), |(mut gathering, open)| async move {
        let answer = gathering.next().await?;
        gathering.fan.counted.handed();
        Some((Ok(answer), (gathering, open)))
    }))
}

/// What a node's task tells.
enum Told<A> {
    /// In the order in which they came.
    Answers(Vec<A>),
    State(NodeState, String),
    /// How far the clock of the node is off, if it is.
    Clock(Option<Off>),
    /// Nothing more comes.
    End,
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

struct Gathering<Q: Question> {
    fan: FanIn,
    question: Q,
    merger: Merger<Q::Answer>,
    tasks: BTreeMap<String, (PeerAddress, AbortHandle)>,
    streams: stream::SelectAll<NodeStream<Q::Answer>>,
    reports: VecDeque<Report>,
    /// Nodes whose clock has been reported.
    wrong_clocks: BTreeSet<String>,
    started: bool,
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
            started: false,
        }
    }

    async fn next(&mut self) -> Option<Q::Answer> {
        if !self.started {
            self.started = true;
            self.take_over();
        }
        loop {
            let ends = self.merger.is_done() && self.tasks.is_empty() && !self.question.follows();
            if let Some(state) = self.due_report(Instant::now(), ends) {
                return Some(state);
            }
            let until = match self.merger.next(Instant::now()) {
                Next::Give(answer) => return Some(answer),
                Next::Wait(until) => until,
            };
            if ends {
                return None;
            }
            let told = self.reports.front().map(|report| report.since + GROUPING);
            let until = [until, told].into_iter().flatten().min();
            let due = until.map_or_else(
                || tokio::time::Instant::now() + self.fan.settings.window,
                tokio::time::Instant::from_std,
            );
            tokio::select! {
                told = self.streams.next(), if !self.streams.is_empty() => {
                    if let Some((node, told)) = told {
                        self.hear(&node, told);
                    }
                }
                changed = self.fan.peers.changed(), if self.question.follows() => match changed {
                    Ok(()) => self.take_over(),
                    Err(_) => return None,
                },
                () = tokio::time::sleep_until(due) => {}
            }
        }
    }

    fn hear(&mut self, node: &str, told: Told<Q::Answer>) {
        match told {
            Told::Answers(answers) => {
                let now = Now { monotonic: Instant::now(), wall: SystemTime::now() };
                for answer in answers {
                    let (time, bytes) = (Q::time(&answer).copied(), answer.encoded_len());
                    if let Some(ahead) = self.merger.push(node, (answer, bytes), time.as_ref(), now) {
                        self.report_clock(node, Off::Ahead(ahead));
                    }
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
                self.tasks.remove(node);
            }
        }
    }

    /// Starts and ends tasks, so that there is one for each node that there is.
    fn take_over(&mut self) {
        let peers = self.fan.peers.borrow_and_update().clone();
        self.fan.nodes.keep(&peers);
        let gone: Vec<String> = self
            .tasks
            .iter()
            .filter(|(name, (peer, _))| peers.get(*name) != Some(peer))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            if let Some((_, task)) = self.tasks.remove(&name) {
                task.abort();
            }
            self.merger.close(&name);
            if !peers.contains_key(&name) {
                self.report(NodeState::NodeGone, &name, String::new());
            }
        }
        let joined_late = !self.tasks.is_empty() || !self.reports.is_empty();
        for (name, peer) in peers {
            if self.tasks.contains_key(&name) {
                continue;
            }
            let question = if joined_late { self.question.only_new() } else { self.question.clone() };
            let (sender, receiver) = mpsc::channel(CHANNEL);
            let task = NodeTask {
                client: self.fan.nodes.client(&name, &peer, Purpose::Stream),
                node: name.clone(),
                question,
                sender,
                settings: self.fan.settings,
                resume: Resume::default(),
            };
            let handle = tokio::spawn(task.run()).abort_handle();
            self.merger.open(&name);
            self.tasks.insert(name.clone(), (peer, handle));
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
    fn due_report(&mut self, now: Instant, ends: bool) -> Option<Q::Answer> {
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
        for (_, task) in self.tasks.values() {
            task.abort();
        }
    }
}

/// Asks one node until the answer ends, or for ever if it follows.
struct NodeTask<Q: Question> {
    client: Result<Client, Status>,
    node: String,
    question: Q,
    sender: mpsc::Sender<Told<Q::Answer>>,
    settings: RelaySettings,
    resume: Resume,
}

impl<Q: Question> NodeTask<Q> {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let reported = match self.once(&mut pause).await.err() {
                None => break,
                Some(status) => {
                    let state = state_of(&status);
                    self.sender.send(Told::State(state, dial::reason(&status))).await
                }
            };
            if reported.is_err() || !self.question.follows() {
                break;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        // Nobody is left to hear it only if the stream was dropped.
        let _ = self.sender.send(Told::End).await;
    }

    /// One connection's worth of answers.
    async fn once(&mut self, pause: &mut std::time::Duration) -> Result<(), Status> {
        let client = self.client.clone()?;
        let patience = self.settings.patience;
        let too_late = |_| Status::deadline_exceeded(format!("no answer in {} s", patience.as_secs()));
        // Asked again after a failure, the node begins with its last answer, which shows that it still has what follows.
        let last = self.resume.begin();
        let question = last.map_or_else(|| self.question.clone(), |last| self.question.since(last));
        let asked = SystemTime::now();
        let answer = tokio::time::timeout(patience, question.ask(client)).await.map_err(too_late)??;
        *pause = FIRST_PAUSE;
        let clock = Off::of(answer.metadata(), asked, SystemTime::now());
        for told in [Told::State(NodeState::NodeConnected, String::new()), Told::Clock(clock)] {
            if self.sender.send(told).await.is_err() {
                return Ok(());
            }
        }
        let mut bunches = pin!(answer.into_inner().ready_chunks(BUNCH));
        loop {
            // An answer with an end must go on; one that follows may be quiet, and keep-alive finds a dead node.
            let bunch = if self.question.follows() {
                bunches.next().await
            } else {
                tokio::time::timeout(patience, bunches.next()).await.map_err(too_late)?
            };
            match bunch {
                Some(bunch) => {
                    let (answers, failure) = self.hear(bunch);
                    if !answers.is_empty() && self.sender.send(Told::Answers(answers)).await.is_err() {
                        return Ok(());
                    }
                    failure.map_or(Ok(()), Err)?;
                }
                None if self.question.follows() => return Err(Status::unavailable("it ended its answer")),
                None => return Ok(()),
            }
        }
    }

    /// What is new of answers that came together, gaps included, up to a failure.
    fn hear(&mut self, bunch: Vec<Result<Q::Answer, Status>>) -> (Vec<Q::Answer>, Option<Status>) {
        let mut answers = Vec::with_capacity(bunch.len());
        for answer in bunch {
            let answer = match answer {
                Ok(answer) => answer,
                Err(status) => return (answers, Some(status)),
            };
            match self.resume.hear(Q::id(&answer), Q::time(&answer), Q::loss(&answer)) {
                Heard::Again => continue,
                Heard::BehindGap { first } => {
                    answers.extend(Q::gap(&self.node, gap(first, Q::time(&answer).copied())));
                }
                Heard::New => {}
            }
            answers.push(answer);
        }
        (answers, None)
    }
}

/// What a failure says of a node: nobody is there, or somebody who does not answer as an Observer does.
fn state_of(status: &Status) -> NodeState {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => NodeState::NodeUnavailable,
        // A connection that breaks under way has another code, and the kernel's word for it behind it.
        _ if dial::is_broken(status) => NodeState::NodeUnavailable,
        _ => NodeState::NodeError,
    }
}

/// Word of answers that the node had and has no longer. Nobody knows how many they were.
fn gap(first: Timestamp, last: Option<Timestamp>) -> LostEvent {
    let source = LostEventSource::HubbleRingBuffer.into();
    LostEvent { source, num_events_lost: 0, cpu: None, first: Some(first), last: last.or(Some(first)) }
}
