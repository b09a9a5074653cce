//! The loop that owns everything a node decides with: engine, datapath, leases, and what it says in the store.
//!
//! One task, on the control thread, hears events one at a time: batches of the store, steps of CNI commands, links that
//! appear, questions of the services, and a tick. Each becomes engine events; the changes that come out are carried out
//! in order, and what is so then is published as one [`View`]. Calls into the kernel's maps are synchronous: they take
//! microseconds, a grace period some milliseconds. Dropping the task between two events leaves nothing half done; a kill
//! anywhere leaves what [`mod@start`] finds.
//!
//! Everything is level-triggered: what fails is kept and tried again by the tick, and is in the view's failures until it
//! has worked.
//!
//! Neighbours: [`mod@start`] brings the loop up from what an earlier agent left, [`backlog`] carries changes out, [`steps`]
//! answers CNI, [`network`] attaches devices, [`underlay`] judges them, [`routes`] writes routes, [`nodes`] knows the other
//! nodes, [`publish`] and [`report`] say what is so; `crate::server` reads the view.

mod backlog;
mod files;
mod looks;
mod network;
mod nodes;
mod publish;
mod report;
mod routes;
mod start;
mod steps;
mod underlay;
mod usage;

#[cfg(test)]
pub(crate) use report::statuses;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use sinew_api::identity::Identity;
use sinew_api::object::{Node, Object, ObjectKind, ObjectName, PolicyName, Refused};
use sinew_engine::snapshot::PolicyView;
use sinew_engine::{Change, EndpointId, Engine, Event, Record};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::cni::ledger::Ledger;
use crate::cni::step::Step;
use crate::config::Config;
use crate::datapath::Datapath;
use crate::metrics::Counted;
use crate::netlink::watch::{LinkEvent, LinkWatch};
use crate::netlink::{Link, Netlink};
use crate::server::Ask;
use crate::store::{Batch, Store, StoreChange, StoreWrite};
use crate::view::{Part, View};
use backlog::{Backlog, Done};
use files::NodeFiles;
use looks::Looks;
use nodes::{HEARTBEAT, Nodes};
use report::Told;
use usage::Usage;

pub(crate) use files::{NUMBERS, OBJECTS, POLICIES};

pub use files::FileError;
pub use start::{StartError, Started, start};

/// Steps of CNI commands that wait for the loop: each of the 128 connections waits for one answer at a time.
const STEPS: usize = 128;
/// Questions of the services that wait for the loop; a client's next question comes after its answer.
const ASKS: usize = 32;
/// Time between two tries of what failed, and between two looks at addresses and waiting relabels.
const TICK: Duration = Duration::from_millis(200);
/// Time between two looks at pods' queues, for what no event tells of.
const QUEUES_LOOK: Duration = Duration::from_secs(30);
/// Revisions whose way into the kernel is timed; with more of them waiting, the kernel refuses something.
const ASKED: usize = 1024;
/// A relabel waits for other nodes no longer than this (policy.md 17).
const RELABEL_WITHIN: Duration = Duration::from_secs(5);
/// How long a node goes on saying that its tables hold an identity that it learnt: longer than anybody waits for it.
const RECENT: Duration = Duration::from_secs(60);

/// What another node's endpoint is about to be.
struct Moving {
    to: Identity,
    pod: String,
    node: String,
}

/// The loop's state.
pub struct Control<S> {
    config: Config,
    store: S,
    netlink: Arc<Netlink>,
    links: LinkWatch,
    datapath: Datapath,
    engine: Engine,
    files: NodeFiles,
    ledger: Ledger,
    backlog: Backlog,
    own: Node,
    nodes: Nodes,
    told: Told,
    refused: Vec<Refused>,
    steps: mpsc::Receiver<Step>,
    asks: mpsc::Receiver<Ask>,
    looks: Looks,
    view: watch::Sender<Arc<View>>,
    /// Indexes of the interfaces that have our programs, by name: the pods' and the underlay's.
    attached: BTreeMap<String, u32>,
    /// The underlay's interfaces with their prefixes.
    on_link: Vec<(u32, IpNet)>,
    overlay: Option<Link>,
    addresses: Vec<IpAddr>,
    mtu: Mtu,
    enforced: u64,
    /// Identities that endpoints here are about to have, and until when others are waited for.
    relabels: BTreeMap<EndpointId, (Identity, Instant)>,
    /// Identities that other nodes' endpoints are about to have, by the endpoint's object.
    moving: BTreeMap<String, Moving>,
    /// Identities learnt lately, and when.
    learnt: BTreeMap<Identity, Instant>,
    usage: Usage,
    failures: BTreeMap<Part, String>,
    /// What is not as it should be in the store, and keeps no pod from being attached.
    store_warning: Option<String>,
    /// Revisions that are asked for and not enforced yet, and when the change that led to each was heard of.
    asked: VecDeque<(u64, Instant)>,
    counted: Arc<Counted>,
    /// Label sets whose numbers have been asked for and not yet written down as asked.
    wanted_identities: Vec<sinew_api::labels::Labels>,
    /// The policies of which the digest is known, and it.
    digested: (Arc<BTreeMap<PolicyName, PolicyView>>, String),
    routes: routes::Schedule,
    /// Whether queues on pods' interfaces may have changed, and when they were looked at last.
    queues_due: bool,
    queues_looked: Instant,
    /// The underlay's MTU that the programs were loaded for.
    mtu_at_start: u32,
    /// Whether the view or what is said in the store may differ from what is so.
    stale: bool,
}

/// MTUs of the node, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mtu {
    /// Of the underlay, and of the pods' interfaces.
    pub device: u32,
    /// Of the pods' routes.
    pub path: u32,
}

/// What woke the loop.
enum Wake {
    Store(Option<Batch>),
    Step(Step),
    Link(Option<LinkEvent>),
    Ask(Ask),
    Tick,
    Heartbeat,
}

impl<S: Store> Control<S> {
    /// Runs until the task is dropped, or until the store or the kernel's link events end.
    ///
    /// # Errors
    /// What ended; the process should end too and be started again.
    pub async fn run(mut self) -> Result<(), StartError> {
        let mut tick = interval(TICK);
        let mut heartbeat = interval(HEARTBEAT);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let wake = tokio::select! {
                batch = self.store.next() => Wake::Store(batch),
                Some(step) = self.steps.recv() => Wake::Step(step),
                event = self.links.next() => Wake::Link(event),
                Some(ask) = self.asks.recv() => Wake::Ask(ask),
                _ = tick.tick() => Wake::Tick,
                _ = heartbeat.tick() => Wake::Heartbeat,
            };
            match wake {
                Wake::Store(Some(batch)) => self.hear_store(batch),
                Wake::Store(None) => return Err(StartError::Ended("the store")),
                Wake::Step(step) => self.answer(step),
                Wake::Link(Some(event)) => self.hear_link(&event).await,
                Wake::Link(None) => return Err(StartError::Ended("the kernel's link events")),
                Wake::Ask(Ask::CatchUp(reply)) => {
                    let look = self.looks.ask(reply);
                    self.store.write(StoreWrite::Look(look)).await;
                }
                Wake::Ask(ask) => ask.answer(&self.engine, &mut self.datapath),
                Wake::Tick => self.tick().await,
                Wake::Heartbeat => self.say_alive().await,
            }
            // Before the first list is complete, a route that nobody names may be a living node's.
            if self.routes.is_due(Instant::now()) && self.engine.is_synced() {
                self.sync_routes().await;
            }
            if std::mem::take(&mut self.queues_due) {
                self.sync_queues().await;
                self.keep_host().await;
            }
            if std::mem::take(&mut self.stale) {
                self.publish().await;
            }
            self.looks.answer();
        }
    }

    /// Tells the engine, and carries out what follows.
    fn hear(&mut self, events: Vec<Event>) {
        let begun = Instant::now();
        let changes: Vec<Change> = self.engine.apply(events);
        self.counted.computed(begun.elapsed());
        for change in &changes {
            if let Change::Revision(revision) = change
                && self.asked.len() < ASKED
            {
                self.asked.push_back((*revision, begun));
            }
        }
        if changes.iter().any(|change| matches!(change, Change::Remember(Record::Cookie(..)))) {
            self.name_ahead();
        }
        self.backlog.push(changes);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        let datapath = &mut self.datapath;
        let Done { allocate, announce, known, revision } =
            self.backlog.run(&mut |changes| datapath.apply(changes), &mut self.files);
        let now = Instant::now();
        self.learnt.extend(known.into_iter().map(|identity| (identity, now)));
        self.relabels
            .extend(announce.into_iter().map(|(id, identity)| (id, (identity, now + RELABEL_WITHIN))));
        self.enforced = revision.unwrap_or(self.enforced);
        while let Some((_, heard)) = self.asked.pop_front_if(|(revision, _)| *revision <= self.enforced) {
            self.counted.enforced(heard.elapsed());
        }
        self.counted.waiting(self.backlog.waiting());
        self.wanted_identities.extend(allocate);
        self.fail(Part::Datapath, self.backlog.failure().map(str::to_owned));
        self.stale = true;
    }

    fn hear_store(&mut self, batch: Batch) {
        // Parts of the first list change nothing that anybody may be told of yet.
        let told_before = (!batch.synced && !self.engine.is_synced()).then_some(self.stale);
        let mut events = Vec::new();
        // Before anybody is labelled by a namespace that is not known.
        events.extend(batch.refused.as_deref().map(refused_namespaces));
        for change in batch.changes {
            self.files.objects.note(&change);
            match change {
                StoreChange::Set(object) => self.hear_object(*object, &mut events),
                StoreChange::Removed(name) => self.hear_removed(name, &mut events),
            }
        }
        if batch.synced {
            self.files.objects.first_list_complete();
            events.push(Event::Synced);
        }
        self.keep_state();
        if let Some(refused) = batch.refused {
            for document in refused.iter().filter(|document| !self.refused.contains(document)) {
                if document.foreign {
                    tracing::info!(%document, "a document of a foreign kind is passed over");
                } else {
                    tracing::warn!(%document, "a document is refused");
                }
            }
            self.refused = refused;
        }
        if let Some(looked) = batch.looked {
            self.looks.finish(looked);
            self.stale = true;
        }
        if let Some(trouble) = batch.trouble {
            let some = |text: String| Some(text).filter(|text| !text.is_empty());
            self.fail(Part::Store, some(trouble.failure));
            self.store_warning = some(trouble.warning);
            if let Some(warning) = &self.store_warning {
                tracing::warn!(part = Part::Store.name(), warning, "something is not as it should be");
            }
            self.stale = true;
        }
        self.hear(events);
        self.stale = told_before.unwrap_or(self.stale);
    }

    /// Writes down what a restart must find again, where the disk lacks it.
    fn keep_state(&mut self) {
        if self.files.is_behind() || self.ledger.is_behind() || self.failures.contains_key(&Part::State) {
            let files = self.files.catch_up().err().map(|error| error.to_string());
            let attachments = self.ledger.catch_up().err().map(|refusal| refusal.to_string());
            self.fail(Part::State, attachments.or(files));
        }
    }

    fn hear_object(&mut self, object: Object, events: &mut Vec<Event>) {
        match object {
            Object::Node(node) => {
                self.stale = true;
                // What it says from time to time is not the engine's business.
                let told = nodes::without_status(&node);
                if self.nodes.set(node) {
                    self.routes.change();
                    events.push(Event::NodeApplied(told));
                }
            }
            Object::Endpoint(endpoint) if endpoint.node == self.own.name => {
                self.usage.set(&endpoint);
                self.told.found(*endpoint);
                self.stale = true;
            }
            Object::Endpoint(endpoint) => {
                self.usage.set(&endpoint);
                match endpoint.previous_identity {
                    Some(_) => {
                        let moving = Moving {
                            to: endpoint.identity,
                            pod: format!("{}/{}", endpoint.pod_namespace, endpoint.pod_name),
                            node: endpoint.node.clone(),
                        };
                        self.moving.insert(endpoint.name.clone(), moving);
                    }
                    None => drop(self.moving.remove(&endpoint.name)),
                }
                events.push(Event::RemoteEndpointApplied(*endpoint));
            }
            other => events.push(other.into()),
        }
    }

    fn hear_removed(&mut self, name: ObjectName, events: &mut Vec<Event>) {
        match name.kind {
            ObjectKind::Node => {
                self.nodes.remove(&name.name);
                self.routes.change();
                if name.name == self.own.name {
                    // Somebody took it away while we live: it comes back with the next sign of life.
                    return;
                }
            }
            ObjectKind::Endpoint => {
                self.moving.remove(&name.name);
                self.usage.remove(&name.name);
            }
            _ => {}
        }
        events.extend(Event::removed(name));
    }

    async fn tick(&mut self) {
        if !self.backlog.is_settled() {
            self.carry_out();
        }
        // Settled: every number of the engine's is on disk.
        if self.backlog.is_settled()
            && self.files.should_start_anew()
            && let Err(error) = self.files.start_anew(&self.engine.records())
        {
            tracing::warn!(%error, "the file of numbers keeps its old lines");
        }
        self.keep_state();
        self.finish_relabels();
        match self.netlink.node_addresses().await {
            Ok(addresses) if addresses != self.addresses => {
                self.addresses.clone_from(&addresses);
                self.reserve_own();
                self.hear(vec![Event::NodeAddresses(addresses)]);
                self.attach_devices().await;
                self.routes.suspect();
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the node's addresses cannot be read"),
        }
        if [Part::Underlay, Part::Devices].iter().any(|part| self.failures.contains_key(part)) {
            self.attach_devices().await;
        }
        // Word of a change can be lost while the loop is busy.
        self.queues_due |= self.queues_looked.elapsed() >= QUEUES_LOOK;
    }

    /// Relabels that every living node is ready for, or that have waited long enough (policy.md 17).
    fn finish_relabels(&mut self) {
        let (now, time) = (Instant::now(), since_1970());
        let mut finished = Vec::new();
        for (id, (identity, until)) in &self.relabels {
            if now >= *until || self.nodes.hold(*identity, &self.own.name, time) {
                finished.push(Event::RelabelDone(*id, *identity));
            }
        }
        if finished.is_empty() {
            return;
        }
        self.relabels.retain(|id, (identity, _)| !finished.contains(&Event::RelabelDone(*id, *identity)));
        self.hear(finished);
    }

    async fn say_alive(&mut self) {
        self.own.status.heartbeat_ms = milliseconds(since_1970());
        let now = Instant::now();
        self.learnt.retain(|_, when| now - *when < RECENT);
        self.store.write(StoreWrite::Node(self.own.clone())).await;
        self.release_identities(now).await;
    }

    /// Gives back numbers that have been nobody's for long enough, if this node does that for all.
    async fn release_identities(&mut self, now: Instant) {
        if !self.engine.is_synced() || !self.nodes.leads(&self.own.name, since_1970()) {
            self.usage.leave();
            return;
        }
        let snapshot = self.engine.snapshot();
        let allocated = snapshot
            .identities
            .keys()
            .filter(|identity| identity.scope() == 0 && **identity >= Identity::FIRST_ALLOCATED);
        for identity in self.usage.rested(allocated, now) {
            self.store.write(StoreWrite::ReleaseIdentity(identity)).await;
        }
    }

    /// Notes that something is not as it should be, or that it is again.
    fn fail(&mut self, part: Part, message: Option<String>) {
        if self.failures.get(&part) == message.as_ref() {
            return;
        }
        self.stale = true;
        match message {
            Some(message) => {
                tracing::warn!(part = part.name(), message, "something is not as it should be");
                self.failures.insert(part, message);
            }
            None => {
                tracing::info!(part = part.name(), "it is as it should be again");
                self.failures.remove(&part);
            }
        }
    }
}

fn refused_namespaces(refused: &[Refused]) -> Event {
    let names = refused.iter().filter_map(|document| document.name.as_ref());
    let namespaces = names.filter(|name| name.kind == ObjectKind::Namespace);
    Event::NamespacesRefused(namespaces.map(|name| name.name.clone()).collect())
}

/// The time of day, which signs of life are told in.
fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
