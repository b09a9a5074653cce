//! The names behind a record's numbers, shared by all flows that have them.
//!
//! Neighbours: [`super::seen`] asks for them when a record is read, [`super::memory`] remembers the answers.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message;
use prost_types::Timestamp;
use sinew_api::extensions::DecidingRule;
use sinew_api::identity::Identity;
use sinew_api::labels::Labels;
use sinew_api::object::PolicyName;
use sinew_api::policy::PolicySpec;
use sinew_api::proto::flow::{Endpoint, Policy, TrafficDirection, Workload};
use sinew_bpf::abi::Address;
use sinew_engine::Cause;
use sinew_engine::snapshot::{PolicyView, Snapshot};

use super::FlowSettings;
use super::memory::Memory;
use super::seen::Side;
use crate::clock::monotonic;

/// In front of the name of a pod's cluster.
const CLUSTER_LABEL: &str = "k8s:io.cilium.k8s.policy.cluster=";
/// Ends remembered: the pods that a node's pods talk with, and some thousand addresses of the world.
const ENDS: usize = 4096;
/// Reasons remembered: a node's rules.
const REASONS: usize = 4096;
/// Names of interfaces remembered. A node has some hundred at a time; those of pods that are gone are forgotten with the
/// rest.
const INTERFACES: usize = 4096;

/// How far two readings of one clock may lie apart. Both clocks are slewed alike, so that what is more is a step of the
/// wall clock, or a time in which the node was suspended and the monotonic clock stood.
const READING: Duration = Duration::from_millis(1);

/// The wall clock at the monotonic clock's zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    boot: SystemTime,
}

impl Clock {
    /// Reads both clocks.
    #[must_use]
    pub fn now() -> Self {
        Self::read(monotonic, SystemTime::now)
    }

    /// Reads the one between two readings of the other. A task that is taken off its processor in between reads again.
    fn read(mut monotonic: impl FnMut() -> Duration, mut wall: impl FnMut() -> SystemTime) -> Self {
        let (mut before, mut left) = (monotonic(), 4);
        loop {
            let (boot, after) = (wall() - before, monotonic());
            left -= 1;
            if left == 0 || after.saturating_sub(before) < READING / 2 {
                return Self { boot };
            }
            before = after;
        }
    }

    /// Whether another reading shows that the wall clock went elsewhere in between.
    fn is_stepped_by(self, now: Self) -> bool {
        let apart = now.boot.duration_since(self.boot).unwrap_or_else(|earlier| earlier.duration());
        apart > READING
    }

    /// A monotonic time in nanoseconds as a time of day.
    #[must_use]
    pub fn timestamp(self, nanoseconds: u64) -> Timestamp {
        let time = self.boot + Duration::from_nanos(nanoseconds);
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp { seconds: since.as_secs() as i64, nanos: since.subsec_nanos() as i32 }
    }
}

/// What is the same in all flows of an agent between two steps of its clock.
#[derive(Clone, Debug)]
pub(super) struct NodeNames {
    /// `cluster/node`.
    pub(super) name: String,
    /// Times of day.
    pub(super) clock: Clock,
    /// Makes numbers of flows unlike those of any other agent.
    key: RandomState,
}

impl NodeNames {
    /// The uuid of a flow (RFC 9562, version 4): 128 bits that are random for whoever does not know the key.
    pub(super) fn uuid(&self, number: u64) -> String {
        let halves = [self.key.hash_one((number, 0_u8)), self.key.hash_one((number, 1_u8))];
        let bits = u128::from(halves[0]) << 64 | u128::from(halves[1]);
        uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid().to_string()
    }
}

/// An end of a flow.
#[derive(Debug, PartialEq)]
pub(super) struct End {
    pub(super) said: Endpoint,
    /// The endpoint of this node that has the address now, whatever its identity; 0 for none.
    pub(super) endpoint: u32,
    /// Bytes of memory, roughly.
    pub(super) bytes: usize,
}

/// Why a verdict is what it is, in the terms of a flow.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Reason {
    /// The policies to name, without the revision.
    pub(super) policies: Vec<Policy>,
    /// The rules to name.
    pub(super) rules: Vec<DecidingRule>,
    /// What the policies log.
    pub(super) log: Vec<String>,
    /// Nothing matched.
    pub(super) by_default: bool,
    /// Bytes of memory, roughly.
    pub(super) bytes: usize,
}

/// Names as of one snapshot.
#[derive(Debug)]
pub struct Names {
    pub(super) node: Arc<NodeNames>,
    snapshot: Arc<Snapshot>,
    ends: Memory<(IpAddr, u32), End>,
    reasons: Memory<(u32, Side), Reason>,
    /// The kernel gives an index once, so that a name that is known stays right.
    interfaces: HashMap<u32, Arc<str>>,
    flows: u64,
}

impl Names {
    /// Names from a snapshot.
    #[must_use]
    pub fn new(settings: &FlowSettings, clock: Clock, snapshot: Arc<Snapshot>) -> Self {
        let name = format!("{}/{}", settings.cluster, settings.node);
        Self {
            node: Arc::new(NodeNames { name, clock, key: RandomState::new() }),
            snapshot,
            ends: Memory::new(ENDS),
            reasons: Memory::new(REASONS),
            interfaces: HashMap::new(),
            flows: 0,
        }
    }

    /// Takes a newer snapshot.
    pub fn update(&mut self, snapshot: Arc<Snapshot>) {
        let before = std::mem::replace(&mut self.snapshot, snapshot);
        let now = &self.snapshot;
        if !Arc::ptr_eq(&before.addresses, &now.addresses)
            || !Arc::ptr_eq(&before.identities, &now.identities)
        {
            self.ends.doubt();
        }
        if !Arc::ptr_eq(&before.causes, &now.causes) || !Arc::ptr_eq(&before.policies, &now.policies) {
            self.reasons.doubt();
        }
    }

    /// Takes a newer reading of the clocks. What was seen before a step of the wall clock keeps the time that it was told
    /// with.
    pub fn look_at(&mut self, clock: Clock) {
        if self.node.clock.is_stepped_by(clock) {
            self.node = Arc::new(NodeNames { clock, ..NodeNames::clone(&self.node) });
        }
    }

    /// The number of the next flow.
    pub(super) fn number(&mut self) -> u64 {
        self.flows += 1;
        self.flows
    }

    /// The name of an interface of the node; empty for one that is gone before it was asked for.
    pub(super) fn interface(&mut self, index: u32) -> Arc<str> {
        if let Some(name) = self.interfaces.get(&index) {
            return Arc::clone(name);
        }
        let Ok(name) = nix::net::if_::if_indextoname(index) else { return Arc::default() };
        if self.interfaces.len() >= INTERFACES {
            self.interfaces.clear();
        }
        let name: Arc<str> = name.to_string_lossy().into();
        self.interfaces.insert(index, Arc::clone(&name));
        name
    }

    /// An end of a flow. `identity` is what the packet was judged with, 0 where it was not judged that far.
    pub(super) fn end(&mut self, address: Address, identity: u32) -> Arc<End> {
        let snapshot = &self.snapshot;
        self.ends.get((IpAddr::from(address), identity), |(address, identity)| {
            let said = endpoint(snapshot, *address, *identity);
            // The encoded length stands for what the strings take on the heap.
            let bytes = size_of::<End>() + said.encoded_len();
            let holder = snapshot.addresses.get(address).and_then(|view| view.endpoint);
            End { said, endpoint: holder.map_or(0, |id| u32::from(id.0)), bytes }
        })
    }

    /// What stands behind a cookie.
    pub(super) fn reason(&mut self, cookie: u32, side: Side) -> Arc<Reason> {
        let snapshot = &self.snapshot;
        self.reasons.get((cookie, side), |(cookie, side)| reason(snapshot, *cookie, side.direction()))
    }
}

fn endpoint(snapshot: &Snapshot, address: IpAddr, identity: u32) -> Endpoint {
    let view = snapshot.addresses.get(&address);
    let identity = match identity {
        0 => view.map_or(0, |view| view.entry.identity),
        judged => judged,
    };
    let mut end = Endpoint { identity, labels: labels(snapshot, Identity(identity)), ..Endpoint::default() };
    // The world has no cluster; what is known by its labels says its own.
    let cluster = end.labels.iter().find_map(|label| label.strip_prefix(CLUSTER_LABEL));
    end.cluster_name = cluster.unwrap_or_default().to_owned();
    // An address that has changed hands since the packet is not given the new holder's name.
    if let Some(view) = view.filter(|view| view.entry.identity == identity) {
        end.id = view.endpoint.map_or(0, |id| u32::from(id.0));
        end.namespace = view.pod_namespace.to_string();
        end.pod_name = view.pod_name.to_string();
        end.workloads = view
            .workload
            .iter()
            .map(|workload| Workload { name: workload.name.clone(), kind: workload.kind.clone() })
            .collect();
    }
    end
}

fn labels(snapshot: &Snapshot, identity: Identity) -> Vec<String> {
    match snapshot.identities.get(&identity) {
        Some(view) => view.labels.to_strings(),
        None => identity.reserved_name().map(|name| Labels::reserved(name).to_strings()).unwrap_or_default(),
    }
}

fn reason(snapshot: &Snapshot, cookie: u32, direction: TrafficDirection) -> Reason {
    let mut reason = Reason::default();
    match snapshot.causes.get(&cookie) {
        None | Some(Cause::Init | Cause::LocalHost) => {}
        Some(Cause::Rule { policy, path }) => reason.add(snapshot, policy, Some(path), direction),
        Some(Cause::Overflow { policy }) => reason.add(snapshot, policy, None, direction),
        Some(Cause::DefaultDeny { policies, .. }) => {
            reason.by_default = true;
            for policy in policies {
                reason.add(snapshot, policy, None, direction);
            }
        }
    }
    let policies = reason.policies.iter().map(|policy| size_of::<Policy>() + policy.encoded_len());
    let rules =
        reason.rules.iter().map(|rule| size_of::<DecidingRule>() + rule.policy.len() + rule.path.len());
    reason.bytes = size_of::<Reason>() + policies.chain(rules).sum::<usize>();
    reason
}

impl Reason {
    fn add(
        &mut self,
        snapshot: &Snapshot,
        name: &PolicyName,
        path: Option<&String>,
        direction: TrafficDirection,
    ) {
        let view = snapshot.policies.get(name);
        self.policies.push(flow_policy(name, view));
        let mut rule = DecidingRule {
            direction,
            policy: name.to_string(),
            path: path.cloned().unwrap_or_default(),
            ..DecidingRule::default()
        };
        if let Some(view) = view {
            rule.refused = view.generation_in_force().is_none();
            if let Some(problem) = view.problems.first().filter(|_| path.is_none() && rule.refused) {
                rule.path.clone_from(&problem.path);
            }
            rule.file.clone_from(&view.running.origin.file);
            rule.line = view.running.origin.line;
            for spec in &view.running.specs {
                let found = spec.ingress.iter().chain(&spec.egress).find(|rule| Some(&rule.path) == path);
                if let Some(found) = found {
                    rule.file.clone_from(&found.origin.file);
                    rule.line = found.origin.line;
                    rule.deny = found.action == sinew_api::policy::RuleAction::Deny;
                    self.log.extend(spec.log.clone());
                }
            }
        }
        self.rules.push(rule);
    }
}

/// The labels of a policy (policy.md 19): those that its author gave its specs, as in Cilium, and ours.
pub(super) fn policy_labels(name: &PolicyName, uid: &str, specs: &[PolicySpec]) -> Vec<String> {
    let given: BTreeSet<&String> = specs.iter().flat_map(|spec| &spec.labels).collect();
    // No policy gives itself another one's name; the decoder warns of it.
    let given = given.into_iter().filter(|label| !label.starts_with("k8s:io.cilium.k8s.policy."));
    let mut labels: Vec<String> = given.cloned().collect();
    labels.push(format!("k8s:io.cilium.k8s.policy.derived-from={}", name.kind.kind()));
    labels.push(format!("k8s:io.cilium.k8s.policy.name={}", name.name));
    if !name.namespace.is_empty() {
        labels.push(format!("k8s:io.cilium.k8s.policy.namespace={}", name.namespace));
    }
    if !uid.is_empty() {
        labels.push(format!("k8s:io.cilium.k8s.policy.uid={uid}"));
    }
    labels
}

/// A policy as flows name it, but for the revision.
fn flow_policy(name: &PolicyName, view: Option<&PolicyView>) -> Policy {
    Policy {
        name: name.name.clone(),
        namespace: name.namespace.clone(),
        labels: match view.map(|view| &view.running) {
            Some(policy) => policy_labels(name, &policy.uid, &policy.specs),
            None => policy_labels(name, "", &[]),
        },
        revision: 0,
        kind: name.kind.kind().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_reading_that_was_interrupted_is_taken_again() {
        // The second reading of the monotonic clock comes 3 s after the first: the wall clock's is of any moment.
        let mut monotonic = [100, 103, 103].into_iter().map(Duration::from_secs);
        let mut wall = [1102, 1103].into_iter().map(at);
        let read = Clock::read(|| monotonic.next().expect("three"), || wall.next().expect("two"));
        assert_eq!(read.boot, at(1000));
        let mut second = 0;
        let always = || {
            second += 1;
            Duration::from_secs(second)
        };
        assert_eq!(Clock::read(always, || at(1004)).boot, at(1000), "it does not try for ever");
    }

    #[test]
    fn a_step_of_the_wall_clock_moves_the_flows_behind_it() {
        let clock = |seconds| Clock { boot: at(seconds) };
        let settings = FlowSettings { cluster: "default".into(), node: "a".into() };
        let mut names = Names::new(&settings, clock(1000), Arc::default());
        let before = Arc::clone(&names.node);
        names.look_at(Clock { boot: at(1000) + READING });
        assert!(Arc::ptr_eq(&before, &names.node), "two readings are never quite alike");
        for (boot, second) in [(4600, 4605), (1000, 1005)] {
            names.look_at(clock(boot));
            assert_eq!(names.node.clock.timestamp(5_000_000_000).seconds, second);
        }
        assert_eq!(before.clock.timestamp(5_000_000_000).seconds, 1005, "what was told stays told");
        assert_eq!(before.uuid(7), names.node.uuid(7), "numbers go on, and so do uuids");
    }
}
