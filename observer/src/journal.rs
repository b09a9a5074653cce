//! The journal: what one node saw, as the [`Source`] of its own Observer service.
//!
//! The agent's flow pipeline writes it, from one task; everybody else reads. It has two rings, so that a storm of flows
//! does not push out the agent's own events. Counters of losses are kept apart from the rings: they are right even when a
//! loss notice has left the ring. Neighbours: [`crate::ring`], [`crate::query`], [`rate`], [`namespaces`];
//! [`sighting`] is what it holds of a flow.

mod namespaces;
mod rate;
mod sighting;

pub use sighting::Sighting;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::stream;
use prost::Message;
use prost_types::Timestamp;
use sinew_api::proto::flow::agent_event::Notification;
use sinew_api::proto::flow::{
    AgentEvent, AgentEventType, AgentEventUnknown, Flow, LostEvent, LostEventSource,
};
use sinew_api::proto::observer::get_flows_response::ResponseTypes;
use sinew_api::proto::observer::{
    GetAgentEventsResponse, GetDebugEventsResponse, GetFlowsResponse, Namespace, Node, ServerStatusResponse,
    Tls,
};
use sinew_api::proto::relay::NodeState;
use tonic::Status;

use crate::encoded::EncodedAnswer;
use crate::query::{Entry, Selection, Step, Walk};
use crate::ring::{Capacity, Fill, Ring, Weigh};
use crate::source::{Answers, FlowQuery, Source};
use namespaces::Namespaces;
use rate::Rate;

/// Flows that a journal holds unless it is told otherwise: Hubble's default.
pub const DEFAULT_FLOWS: usize = 4095;
/// Bytes of flows that a journal holds unless it is told otherwise. A flow with every field weighs ≈ 2 KiB.
pub const DEFAULT_BYTES: usize = 16 << 20;

/// How a journal is made.
#[derive(Clone, Debug)]
pub struct JournalSettings {
    /// `cluster/node`.
    pub node_name: String,
    /// Where the node's Observer answers, for `GetNodes`.
    pub address: String,
    /// Whether it answers with TLS there, and under which name.
    pub tls: Option<String>,
    /// Version of the program.
    pub version: String,
    /// Why there are no flows, where the node was told not to make them.
    pub off: Option<&'static str>,
    /// Limits of the ring of flows.
    pub flows: Capacity,
    /// Limits of the ring of agent events.
    pub events: Capacity,
}

impl JournalSettings {
    /// The default limits for a node, without an address.
    #[must_use]
    pub fn new(node_name: &str, version: &str) -> Self {
        Self {
            node_name: node_name.to_owned(),
            address: String::new(),
            tls: None,
            version: version.to_owned(),
            off: None,
            flows: Capacity { entries: DEFAULT_FLOWS, bytes: DEFAULT_BYTES },
            events: Capacity { entries: 1024, bytes: 1 << 20 },
        }
    }
}

/// What one node saw, flow by flow as an `S`.
#[derive(Debug)]
pub struct Journal<S = Arc<Flow>> {
    settings: JournalSettings,
    started: SystemTime,
    flows: Arc<Ring<Record<S>>>,
    events: Arc<Ring<Arc<Happening>>>,
    seen: AtomicU64,
    losses: Arc<[AtomicU64; 4]>,
    suppressed: AtomicU64,
    rate: Rate,
    namespaces: Namespaces,
}

/// An entry of the ring of flows.
#[derive(Clone, Debug)]
enum Record<S> {
    /// A flow.
    Flow(S),
    /// Word of events that were lost before they were flows.
    Lost(LostEvent, Timestamp),
}

/// An entry of the ring of agent events.
#[derive(Debug)]
struct Happening {
    event: AgentEvent,
    time: Timestamp,
}

/// Numbers of a journal, for status screens and metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct JournalStatus {
    /// The ring of flows.
    pub fill: Fill,
    /// Flows seen since the start.
    pub seen: u64,
    /// Flows a second over the last minute, or since the start.
    pub rate: f64,
    /// Events lost since the start, by cause; causes without a loss are left out. What a client that lagged did not
    /// get is among them.
    pub losses: Vec<(LostEventSource, u64)>,
    /// Drops since the start that the kernel counted and did not report. They are among the losses between kernel and
    /// agent.
    pub suppressed: u64,
}

impl<S: Sighting> Journal<S> {
    /// An empty journal that starts now.
    #[must_use]
    pub fn new(settings: JournalSettings, now: SystemTime) -> Self {
        Self {
            flows: Arc::new(Ring::new(settings.flows)),
            events: Arc::new(Ring::new(settings.events)),
            settings,
            started: now,
            seen: AtomicU64::new(0),
            losses: Default::default(),
            suppressed: AtomicU64::new(0),
            rate: Rate::since(Timestamp::from(now).seconds),
            namespaces: Namespaces::default(),
        }
    }

    /// Writes flows, in the order of their times. One lock of each kind and one wake-up for all of them.
    pub fn record_flows(&self, flows: impl IntoIterator<Item = impl Into<S>>) {
        let mut count = 0;
        let mut rate = self.rate.counting();
        let mut namespaces = self.namespaces.seeing();
        let records = flows.into_iter().map(|flow| {
            let flow = flow.into();
            count += 1;
            if let Some(time) = flow.time() {
                rate.count(time.seconds);
                for (cluster, namespace) in flow.namespaces() {
                    namespaces.seen(cluster, namespace, time.seconds);
                }
            }
            Record::Flow(flow)
        });
        self.flows.write(records);
        self.seen.fetch_add(count, Ordering::Relaxed);
    }

    /// Writes a loss notice and counts it by its source.
    pub fn record_lost(&self, lost: LostEvent, now: SystemTime) {
        let index = usize::try_from(lost.source).unwrap_or(0).min(self.losses.len() - 1);
        self.losses[index].fetch_add(lost.num_events_lost, Ordering::Relaxed);
        self.flows.write([Record::Lost(lost, now.into())]);
    }

    /// Writes a notice of drops that the kernel counted and did not report, because there were too many. For readers of
    /// flows they are lost between kernel and agent, for which Hubble has one number; they are also counted separately.
    pub fn record_suppressed(&self, drops: u64, now: SystemTime) {
        self.suppressed.fetch_add(drops, Ordering::Relaxed);
        let source = LostEventSource::PerfEventRingBuffer.into();
        self.record_lost(LostEvent { source, num_events_lost: drops, ..LostEvent::default() }, now);
    }

    /// Writes an event of the agent.
    pub fn record_event(&self, event: AgentEvent, now: SystemTime) {
        self.events.write([Arc::new(Happening { event, time: now.into() })]);
    }

    /// `cluster/node`.
    #[must_use]
    pub fn node_name(&self) -> &str {
        &self.settings.node_name
    }

    /// Why it holds no flows, if it holds none.
    #[must_use]
    pub fn off(&self) -> Option<&'static str> {
        self.settings.off
    }

    /// Its numbers.
    #[must_use]
    pub fn numbers(&self, now: SystemTime) -> JournalStatus {
        let sources = [
            LostEventSource::UnknownLostEventSource,
            LostEventSource::PerfEventRingBuffer,
            LostEventSource::ObserverEventsQueue,
            LostEventSource::HubbleRingBuffer,
        ];
        let losses = sources
            .into_iter()
            .zip(self.losses.iter())
            .map(|(source, count)| (source, count.load(Ordering::Relaxed)));
        JournalStatus {
            fill: self.flows.fill(),
            seen: self.seen.load(Ordering::Relaxed),
            rate: self.rate.per_second(Timestamp::from(now).seconds),
            losses: losses.filter(|(_, count)| *count > 0).collect(),
            suppressed: self.suppressed.load(Ordering::Relaxed),
        }
    }

    fn uptime(&self, now: SystemTime) -> Duration {
        now.duration_since(self.started).unwrap_or_default()
    }
}

#[tonic::async_trait]
impl<S: Sighting> Source for Journal<S> {
    async fn flows(&self, query: FlowQuery) -> Result<Answers<EncodedAnswer>, Status> {
        if let Some(why) = self.settings.off {
            return Err(Status::failed_precondition(why));
        }
        let filters = query.filters;
        let take = move |record: &Record<S>| match record {
            Record::Flow(flow) => {
                let flow = flow.flow();
                let time = flow.time;
                filters.matches(&flow).then_some((ResponseTypes::Flow(flow), time))
            }
            Record::Lost(lost, time) => Some((ResponseTypes::LostEvents(*lost), Some(*time))),
        };
        let walk = Walk::new(self.flows.clone(), query.selection, take);
        let node_name = self.settings.node_name.clone();
        let losses = Arc::clone(&self.losses);
        Ok(Box::pin(stream::unfold(walk, move |mut walk| {
            let (node_name, losses) = (node_name.clone(), Arc::clone(&losses));
            async move {
                let step = walk.next().await?;
                if let Step::Missed { entries, .. } = &step {
                    losses[LostEventSource::HubbleRingBuffer as usize].fetch_add(*entries, Ordering::Relaxed);
                }
                Some((Ok(EncodedAnswer::of(&flow_answer(step, node_name))), walk))
            }
        })))
    }

    async fn agent_events(&self, selection: Selection) -> Result<Answers<GetAgentEventsResponse>, Status> {
        let take = |happening: &Arc<Happening>| Some((happening.time, happening.event.clone()));
        let walk = Walk::new(self.events.clone(), selection, take);
        let node_name = self.settings.node_name.clone();
        let losses = Arc::clone(&self.losses);
        Ok(Box::pin(stream::unfold(walk, move |mut walk| {
            let (node_name, losses) = (node_name.clone(), Arc::clone(&losses));
            async move {
                let (time, event) = match walk.next().await? {
                    Step::Entry((time, event)) => (Some(time), event),
                    Step::Missed { entries, after, before } => {
                        losses[LostEventSource::HubbleRingBuffer as usize]
                            .fetch_add(entries, Ordering::Relaxed);
                        (before.or(after), missed_events(entries))
                    }
                };
                Some((Ok(GetAgentEventsResponse { agent_event: Some(event), node_name, time }), walk))
            }
        })))
    }

    async fn debug_events(&self, selection: Selection) -> Result<Answers<GetDebugEventsResponse>, Status> {
        // The datapath sends no debug messages: an answer about the past is empty, one about the future waits.
        if selection.follow { Ok(Box::pin(stream::pending())) } else { Ok(Box::pin(stream::empty())) }
    }

    async fn nodes(&self) -> Result<Vec<Node>, Status> {
        let now = SystemTime::now();
        let numbers = self.numbers(now);
        let tls = Tls {
            enabled: self.settings.tls.is_some(),
            server_name: self.settings.tls.clone().unwrap_or_default(),
        };
        Ok(vec![Node {
            name: self.settings.node_name.clone(),
            version: self.settings.version.clone(),
            address: self.settings.address.clone(),
            state: NodeState::NodeConnected.into(),
            tls: Some(tls),
            uptime_ns: nanoseconds(self.uptime(now)),
            num_flows: numbers.fill.entries as u64,
            max_flows: numbers.fill.capacity.entries as u64,
            seen_flows: numbers.seen,
        }])
    }

    async fn namespaces(&self) -> Result<Vec<Namespace>, Status> {
        Ok(self.namespaces.list(Timestamp::from(SystemTime::now()).seconds))
    }

    async fn status(&self) -> Result<ServerStatusResponse, Status> {
        let now = SystemTime::now();
        let numbers = self.numbers(now);
        Ok(ServerStatusResponse {
            num_flows: numbers.fill.entries as u64,
            max_flows: numbers.fill.capacity.entries as u64,
            seen_flows: numbers.seen,
            uptime_ns: nanoseconds(self.uptime(now)),
            // A node has no nodes behind it; the stock client prints N/A.
            num_connected_nodes: None,
            num_unavailable_nodes: None,
            unavailable_nodes: Vec::new(),
            version: self.settings.version.clone(),
            flows_rate: numbers.rate,
        })
    }
}

fn flow_answer(step: Step<(ResponseTypes, Option<Timestamp>)>, node_name: String) -> GetFlowsResponse {
    let (response, time) = match step {
        Step::Entry(taken) => taken,
        Step::Missed { entries, after, before } => {
            let lost = LostEvent {
                source: LostEventSource::HubbleRingBuffer.into(),
                num_events_lost: entries,
                cpu: None,
                first: after.or(before),
                last: before.or(after),
            };
            (ResponseTypes::LostEvents(lost), before.or(after))
        }
    };
    GetFlowsResponse { node_name, time, response_types: Some(response) }
}

/// Agent events have no type for losses; stock clients print this one as an event that they don't know.
fn missed_events(count: u64) -> AgentEvent {
    let unknown = AgentEventUnknown {
        r#type: "lost".to_owned(),
        notification: format!("{count} events of the agent were missed: the reader was too slow"),
    };
    let r#type = AgentEventType::AgentEventUnknown.into();
    AgentEvent { r#type, notification: Some(Notification::Unknown(unknown)) }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl<S: Sighting> Entry for Record<S> {
    fn time(&self) -> Option<Timestamp> {
        match self {
            Self::Flow(flow) => flow.time(),
            Self::Lost(_, time) => Some(*time),
        }
    }

    fn is_loss(&self) -> bool {
        matches!(self, Self::Lost(..))
    }
}

impl<S: Sighting> Weigh for Record<S> {
    fn bytes(&self) -> usize {
        match self {
            Self::Flow(flow) => flow.bytes(),
            Self::Lost(..) => size_of::<Self>(),
        }
    }

    fn events(&self) -> u64 {
        match self {
            Self::Flow(_) => 1,
            Self::Lost(lost, _) => lost.num_events_lost,
        }
    }

    fn is_word(&self) -> bool {
        self.is_loss()
    }
}

impl Entry for Arc<Happening> {
    fn time(&self) -> Option<Timestamp> {
        Some(self.time)
    }

    fn is_loss(&self) -> bool {
        false
    }
}

impl Weigh for Arc<Happening> {
    fn bytes(&self) -> usize {
        size_of::<Happening>() + self.event.encoded_len()
    }
}
