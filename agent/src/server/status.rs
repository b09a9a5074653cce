//! The node's state in one answer.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use prost_types::Timestamp;
use sinew_api::object::Node;
use sinew_api::proto::agent::condition::State;
use sinew_api::proto::agent::{
    AddressPool, Condition, EndpointCount, FlowStatus, GetStatusResponse, GetVersionResponse, Loss, PeerNode,
    PolicyCount,
};
use sinew_bpf::abi::VERSION as MAP_LAYOUT;
use tonic::Status;

use super::{AgentService, endpoints, policies};
use crate::view::{Constants, NODE_SILENCE, View};

/// Parts that are checked, in the order in which they are shown.
const PARTS: [(&str, &str); 7] = [
    ("datapath", "programs and maps are in place"),
    ("store", "every first list is complete"),
    ("policies", "every policy is in force"),
    ("cni", "CNI ADD is served"),
    ("addresses", "every pool has free addresses"),
    ("devices", "the underlay's devices have their programs"),
    ("routes", "other nodes' pods are reached"),
];

impl AgentService {
    /// The whole of it.
    pub(super) async fn status(&self) -> Result<GetStatusResponse, Status> {
        let (view, constants) = (self.view(), &self.sources.constants);
        let conditions = conditions(&view);
        let mut states: BTreeMap<i32, u32> = BTreeMap::new();
        for id in view.snapshot.endpoints.keys() {
            *states.entry(endpoints::state(&view, *id).into()).or_default() += 1;
        }
        let mut standing: BTreeMap<i32, u32> = BTreeMap::new();
        for policy in view.snapshot.policies.values() {
            *standing.entry(policies::state(policy).into()).or_default() += 1;
        }
        let mut maps = self.maps().await?.maps;
        maps.sort_by(|a, b| b.pressure.total_cmp(&a.pressure).then_with(|| a.name.cmp(&b.name)));
        Ok(GetStatusResponse {
            node: constants.node.clone(),
            cluster: constants.cluster.clone(),
            node_addresses: constants.addresses.iter().map(ToString::to_string).collect(),
            ready: conditions.iter().all(|condition| condition.state() != State::Failure),
            conditions,
            revision: view.enforced,
            desired_revision: view.snapshot.revision,
            endpoints: states.into_iter().map(|(state, count)| EndpointCount { state, count }).collect(),
            policies: standing.into_iter().map(|(state, count)| PolicyCount { state, count }).collect(),
            identities: view.snapshot.identities.len() as u32,
            pools: view
                .pools
                .iter()
                .map(|pool| AddressPool {
                    cidr: pool.range.to_string(),
                    capacity: pool.capacity,
                    leased: pool.leased,
                    resting: pool.resting,
                })
                .collect(),
            flows: Some(self.flow_status()),
            maps,
            routing: constants.routing.clone(),
            mtu: constants.mtu,
            started: Some(timestamp(constants.started)),
            version: Some(version(constants)),
            nodes: view
                .nodes
                .values()
                .filter(|node| node.name != constants.node)
                .map(|node| peer_node(node, SystemTime::now()))
                .collect(),
            store: constants.store.clone(),
        })
    }

    fn flow_status(&self) -> FlowStatus {
        let numbers = self.sources.journal.numbers(SystemTime::now());
        FlowStatus {
            held: numbers.fill.entries as u64,
            capacity: numbers.fill.capacity.entries as u64,
            seen: numbers.seen,
            rate: numbers.rate,
            losses: numbers
                .losses
                .iter()
                .map(|(source, events)| Loss { source: (*source).into(), events: *events })
                .collect(),
            suppressed: numbers.suppressed,
            off: self.sources.journal.off().unwrap_or_default().to_owned(),
        }
    }
}

/// The parts of the node and how they are.
pub(crate) fn conditions(view: &View) -> Vec<Condition> {
    let refused = view.snapshot.policies.values().filter(|policy| !policy.problems.is_empty()).count();
    let unreadable = view.unreadable.len();
    PARTS
        .iter()
        .map(|(part, good)| {
            let (state, message) = match (*part, view.failures.get(part)) {
                // This node's pods reach each other all the same.
                ("devices" | "routes", Some(failure)) => (State::Warning, failure.clone()),
                (_, Some(failure)) => (State::Failure, failure.clone()),
                ("store", None) if !view.snapshot.synced => {
                    (State::Failure, "the first list of objects is not complete yet".to_owned())
                }
                ("policies", None) if unreadable > 0 => (
                    State::Failure,
                    format!(
                        "{unreadable} documents can't be read and enforce nothing: see `sinew policy list`"
                    ),
                ),
                ("policies", None) if refused > 0 => {
                    (State::Warning, format!("{refused} policies are refused: see `sinew policy list`"))
                }
                ("addresses", None) => match view.pools.iter().find(|pool| pool.leased >= pool.capacity) {
                    // No ADD can be served: that is what `ready` is about.
                    Some(pool) => (
                        State::Failure,
                        format!("no address is free in {}: delete pods, or enlarge --pod-cidr", pool.range),
                    ),
                    None => (State::Ok, (*good).to_owned()),
                },
                _ => (State::Ok, (*good).to_owned()),
            };
            Condition { name: (*part).to_owned(), state: state.into(), message }
        })
        .collect()
}

/// A node as the others see it.
pub(crate) fn is_alive(node: &Node, now: SystemTime) -> bool {
    let heartbeat = SystemTime::UNIX_EPOCH + Duration::from_millis(node.status.heartbeat_ms);
    now.duration_since(heartbeat).is_ok_and(|silence| silence < NODE_SILENCE) || heartbeat >= now
}

fn peer_node(node: &Node, now: SystemTime) -> PeerNode {
    PeerNode {
        name: node.name.clone(),
        addresses: node.addresses.iter().map(ToString::to_string).collect(),
        pod_cidrs: node.pod_cidrs.iter().map(ToString::to_string).collect(),
        last_seen: Some(last_seen(node)),
        alive: is_alive(node, now),
    }
}

/// When a node last said something.
pub(super) fn last_seen(node: &Node) -> Timestamp {
    timestamp(SystemTime::UNIX_EPOCH + Duration::from_millis(node.status.heartbeat_ms))
}

/// A time of day on the wire.
pub(super) fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::from(time)
}

/// What is running.
pub(super) fn version(constants: &Constants) -> GetVersionResponse {
    GetVersionResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: option_env!("SINEW_COMMIT").unwrap_or_default().to_owned(),
        map_layout: MAP_LAYOUT,
        kernel: constants.kernel.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_node_is_dead_and_one_ahead_of_us_is_alive() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let node = |heartbeat_ms| {
            let mut node = Node {
                name: "b".into(),
                cluster: "default".into(),
                id: 2,
                addresses: Vec::new(),
                pod_cidrs: Vec::new(),
                routing: sinew_api::object::Routing::Native,
                status: sinew_api::object::NodeStatus::default(),
                origin: sinew_api::object::Origin::default(),
            };
            node.status.heartbeat_ms = heartbeat_ms;
            node
        };
        assert!(is_alive(&node(990_000), now));
        assert!(is_alive(&node(1_005_000), now), "clocks differ by some seconds");
        assert!(!is_alive(&node(960_000), now));
        assert!(!is_alive(&node(0), now), "never heard of");
    }
}
