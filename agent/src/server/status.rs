//! The node's state in one answer.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use prost_types::Timestamp;
use sinew_api::object::Node;
use sinew_api::proto::agent::condition::State;
use sinew_api::proto::agent::{
    AddressPool, Condition, EndpointCount, FlowStatus, GetStatusResponse, GetVersionResponse, KernelDrop,
    KernelDrops, Loss, PeerNode, PolicyCount,
};
use sinew_bpf::abi::VERSION as MAP_LAYOUT;
use tonic::Status;

use super::{AgentService, endpoints, policies};
use crate::view::{Constants, Part, View, is_alive};

/// What is so when a part is as it should be.
fn good(part: Part) -> &'static str {
    match part {
        Part::Datapath => "programs and maps are in place",
        Part::Store => "every first list is complete",
        Part::Policies => "every policy is in force",
        Part::Cni => "CNI ADD is served",
        Part::Addresses => "every pool has free addresses",
        Part::Underlay => "the underlay can serve pods",
        Part::Devices => "the underlay's devices have their programs",
        Part::Routes => "there is a way to every living node's pods",
        Part::Mtu => "the underlay's MTU is that of the agent's start",
        Part::Queues => "no limit on a pod's interface is passed by",
        Part::State => "what a restart needs is on disk",
    }
}

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
            started: Some(constants.started.into()),
            version: Some(version(constants)),
            nodes: view
                .nodes
                .values()
                .filter(|node| node.name != constants.node)
                .map(|node| peer_node(node, SystemTime::now()))
                .collect(),
            store: constants.store.clone(),
            kernel_drops: Some(self.kernel_drops().await?),
        })
    }

    async fn kernel_drops(&self) -> Result<KernelDrops, Status> {
        let readings = Arc::clone(&self.sources.readings);
        // A walk over the tables may hold the readings for half a second.
        let read = move || readings.lock().unwrap_or_else(PoisonError::into_inner).kernel_drops();
        let counted =
            tokio::task::spawn_blocking(read).await.map_err(|error| Status::internal(error.to_string()))?;
        Ok(match counted {
            Ok(drops) => {
                let reasons = drops.into_iter();
                let reasons =
                    reasons.map(|drop| KernelDrop { reason: drop.reason, packets: drop.packets }).collect();
                KernelDrops { reasons, off: String::new() }
            }
            Err(why) => KernelDrops { reasons: Vec::new(), off: why },
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
    let condition = |part: Part| {
        let (state, message) = match view.failures.get(&part) {
            // This node's pods reach each other all the same, and what runs runs on.
            Some(failure)
                if matches!(part, Part::Devices | Part::Routes | Part::Mtu | Part::Queues | Part::State) =>
            {
                (State::Warning, failure.clone())
            }
            Some(failure) => (State::Failure, failure.clone()),
            None => found(view, part).unwrap_or_else(|| (State::Ok, good(part).to_owned())),
        };
        Condition { name: part.name().to_owned(), state: state.into(), message }
    };
    Part::ALL.into_iter().map(condition).collect()
}

/// What the view says against a part of which no failure was told.
fn found(view: &View, part: Part) -> Option<(State, String)> {
    match part {
        Part::Datapath => {
            let why = view.checksums_off.as_deref()?;
            let message =
                format!("{}; forged checksum offsets in pods' packets are not caught: {why}", good(part));
            Some((State::Warning, message))
        }
        Part::Store if !view.snapshot.synced => {
            Some((State::Failure, "the first list of objects is not complete yet".into()))
        }
        Part::Store if view.store_warning.is_some() => {
            view.store_warning.clone().map(|warning| (State::Warning, warning))
        }
        Part::Store if view.foreign > 0 => {
            let documents = documents(view.foreign);
            Some((State::Ok, format!("{}; {documents} of foreign kinds passed over", good(part))))
        }
        Part::Policies => policies_found(view),
        Part::Cni => view.unavailable().map(|reason| (State::Failure, reason)),
        Part::Addresses => {
            let pool = view.pools.iter().find(|pool| pool.is_exhausted())?;
            let advice = match pool.resting {
                0 => "delete pods, or enlarge --pod-cidr".to_owned(),
                resting => format!("{resting} rest after their release and are free soon"),
            };
            Some((State::Failure, format!("no address is free in {}: {advice}", pool.range)))
        }
        _ => None,
    }
}

fn policies_found(view: &View) -> Option<(State, String)> {
    let policies = view.snapshot.policies.values().filter(|policy| !policy.problems.is_empty()).count();
    if !view.unreadable.is_empty() {
        // What each of them held before stays in force, which only the files' authors can compare with what they meant.
        let documents = documents(view.unreadable.len());
        let message = format!(
            "{documents} can't be read; what their files held before, if they did, is in force: see `sinew policy list`"
        );
        return Some((State::Failure, message));
    }
    let refused = [(policies, "policies"), (view.refused.len(), "other documents")];
    let refused: Vec<String> = refused
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    (!refused.is_empty())
        .then(|| (State::Warning, format!("refused: {}: see `sinew policy list`", refused.join(", "))))
}

fn documents(count: usize) -> String {
    if count == 1 { "1 document".into() } else { format!("{count} documents") }
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
    Timestamp::from(SystemTime::UNIX_EPOCH + Duration::from_millis(node.status.heartbeat_ms))
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
    use sinew_api::object::{Origin, Problem, Refused};
    use sinew_engine::snapshot::Snapshot;

    use super::*;
    use crate::view::PoolFill;

    /// A node with which all is well.
    fn well() -> View {
        View {
            snapshot: Arc::new(Snapshot { synced: true, ..Snapshot::default() }),
            pools: vec![PoolFill {
                range: "10.1.0.0/29".parse().unwrap(),
                capacity: 5,
                leased: 3,
                resting: 1,
            }],
            ..View::empty()
        }
    }

    /// The parts that are not well, and how they are.
    fn unwell(view: &View) -> Vec<(String, State)> {
        let all = conditions(view);
        assert_eq!(all.len(), Part::ALL.len());
        let other = all.into_iter().filter(|condition| condition.state() != State::Ok);
        other.map(|condition| (condition.name.clone(), condition.state())).collect()
    }

    #[test]
    fn resting_addresses_are_not_free_and_an_add_needs_one() {
        let mut view = well();
        assert_eq!(unwell(&view), []);
        view.pools[0].resting = 2;
        assert_eq!(unwell(&view), [("cni".into(), State::Failure), ("addresses".into(), State::Failure)]);
    }

    #[test]
    fn what_keeps_an_add_from_being_served_shows_in_cni() {
        let mut view = well();
        view.failures.insert(Part::Datapath, "no".into());
        assert_eq!(unwell(&view), [("datapath".into(), State::Failure), ("cni".into(), State::Failure)]);
        let mut view = well();
        view.failures.insert(Part::Underlay, "no".into());
        assert_eq!(unwell(&view), [("cni".into(), State::Failure), ("underlay".into(), State::Failure)]);
        let mut view = well();
        view.failures.insert(Part::State, "no".into());
        assert_eq!(unwell(&view), [("state".into(), State::Warning)]);
    }

    #[test]
    fn a_folder_that_is_not_read_keeps_no_pod_from_being_attached() {
        let mut view = well();
        view.store_warning = Some("too deep".into());
        assert_eq!(unwell(&view), [("store".into(), State::Warning)]);
        assert_eq!(view.unavailable(), None);
        view.failures.insert(Part::Store, "no".into());
        assert_eq!(unwell(&view), [("store".into(), State::Failure), ("cni".into(), State::Failure)]);
    }

    #[test]
    fn a_check_that_the_kernel_does_not_allow_shows() {
        let mut view = well();
        view.checksums_off = Some("no types".into());
        assert_eq!(unwell(&view), [("datapath".into(), State::Warning)]);
    }

    #[test]
    fn documents_that_are_refused_show_and_foreign_ones_do_no_harm() {
        let mut view = well();
        view.foreign = 3;
        assert_eq!(unwell(&view), []);
        view.refused = Arc::new(vec![Refused::new(None, Origin::default(), Vec::new())]);
        assert_eq!(unwell(&view), [("policies".into(), State::Warning)]);
        let problem = Problem { path: String::new(), message: "x".into(), origin: Origin::default() };
        view.unreadable = Arc::new(vec![problem]);
        assert_eq!(unwell(&view), [("policies".into(), State::Failure)]);
    }
}
