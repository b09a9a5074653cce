//! Metrics out of the control loop's last view: the node's condition, endpoints, policies, nodes, addresses.

use std::collections::BTreeMap;
use std::time::SystemTime;

use sinew_api::proto::agent::condition::State;
use sinew_api::proto::agent::{EndpointState, PolicyState};
use sinew_bpf::abi::VERSION as MAP_LAYOUT;
use sinew_observer::metrics::{Description, Family, Value};

use crate::server::{conditions, endpoint_state, policy_state};
use crate::view::{Constants, View, is_alive};

/// Every metric here.
pub(super) const METRICS: &[&Description] = &[
    &BUILD,
    &NODE,
    &CONDITION,
    &SYNCED,
    &UNREADABLE,
    &REFUSED,
    &FOREIGN,
    &ENDPOINTS,
    &IDENTITIES,
    &POLICIES,
    &REVISION,
    &NODES,
    &AGREEING,
    &POOL,
];

const BUILD: Description = Description::gauge(
    "sinew_build_info",
    &["version", "commit", "map_layout", "kernel"],
    "1; its labels say what runs and on which kernel.",
);
const NODE: Description = Description::gauge(
    "sinew_node_info",
    &["node", "cluster", "routing", "store"],
    "1; its labels say which node this is.",
);
const CONDITION: Description = Description::gauge(
    "sinew_condition",
    &["condition", "state"],
    "1 for the state in which a part of the node is (ok, warning, failure), 0 for the others; the conditions of `sinew \
     status`.",
);
const SYNCED: Description =
    Description::gauge("sinew_store_synced", &[], "1 when the first list of objects is complete.");
const UNREADABLE: Description = Description::gauge(
    "sinew_store_unreadable_documents",
    &[],
    "Documents of the store that have no readable name and enforce nothing.",
);
const REFUSED: Description = Description::gauge(
    "sinew_store_refused_documents",
    &[],
    "Documents of the store that have a name and are refused: objects other than policies, and duplicates.",
);
const FOREIGN: Description = Description::gauge(
    "sinew_store_foreign_documents",
    &[],
    "Documents of the store that are of kinds which are not read here, such as a Deployment; they are passed over.",
);
const ENDPOINTS: Description =
    Description::gauge("sinew_endpoints", &["state"], "Endpoints of this node, by state.");
const IDENTITIES: Description =
    Description::gauge("sinew_identities", &[], "Identities known, reserved ones and address classes too.");
const POLICIES: Description = Description::gauge("sinew_policies", &["state"], "Policies, by state.");
const REVISION: Description = Description::gauge(
    "sinew_policy_revision",
    &["of"],
    "Revision of the policy set that is asked for (desired), and that the kernel has (enforced).",
);
const NODES: Description = Description::gauge(
    "sinew_nodes",
    &["state"],
    "Nodes of the cluster, this one too: heard of within 30 s (alive), or not (silent).",
);
const AGREEING: Description = Description::gauge(
    "sinew_nodes_agreeing",
    &[],
    "Living nodes that enforce the same policies as this node's store holds.",
);
const POOL: Description = Description::gauge(
    "sinew_pool_addresses",
    &["pool", "state"],
    "Addresses of the node's pools: leased, resting after their release, free.",
);

/// The node as its view has it.
pub(super) fn families(constants: &Constants, view: &View, now: SystemTime) -> Vec<Family> {
    let commit = option_env!("SINEW_COMMIT").unwrap_or_default();
    let build = [env!("CARGO_PKG_VERSION"), commit, &MAP_LAYOUT.to_string(), &constants.kernel];
    let node = [&*constants.node, &constants.cluster, &constants.routing, &constants.store];
    let single = |description, count: usize| Family::single(description, Value::Count(count as u64));
    vec![
        Family::new(&BUILD).with(build, Value::Count(1)),
        Family::new(&NODE).with(node, Value::Count(1)),
        condition(view),
        single(&SYNCED, usize::from(view.snapshot.synced)),
        single(&UNREADABLE, view.unreadable.len()),
        single(&REFUSED, view.refused.len()),
        single(&FOREIGN, view.foreign),
        endpoints(view),
        single(&IDENTITIES, view.snapshot.identities.len()),
        policies(view),
        Family::new(&REVISION)
            .with(["desired"], Value::Count(view.snapshot.revision))
            .with(["enforced"], Value::Count(view.enforced)),
        nodes(view, now),
        single(&AGREEING, agreeing(view, now)),
        pools(view),
    ]
}

fn condition(view: &View) -> Family {
    let mut family = Family::new(&CONDITION);
    for condition in conditions(view) {
        for (state, word) in [(State::Ok, "ok"), (State::Warning, "warning"), (State::Failure, "failure")] {
            family.add([&condition.name, word], Value::Count(u64::from(condition.state() == state)));
        }
    }
    family
}

fn endpoints(view: &View) -> Family {
    let states = [
        (EndpointState::WaitingForLabels, "waiting_for_labels"),
        (EndpointState::WaitingForIdentity, "waiting_for_identity"),
        (EndpointState::WaitingForTable, "waiting_for_table"),
        (EndpointState::Ready, "ready"),
        (EndpointState::Restored, "restored"),
        (EndpointState::Terminating, "terminating"),
    ];
    let now: Vec<EndpointState> =
        view.snapshot.endpoints.keys().map(|id| endpoint_state(view, *id)).collect();
    counted(&ENDPOINTS, &states, &now)
}

fn policies(view: &View) -> Family {
    let states = [
        (PolicyState::Enforced, "enforced"),
        (PolicyState::Audited, "audited"),
        (PolicyState::Refused, "refused"),
        (PolicyState::Pending, "pending"),
    ];
    let now: Vec<PolicyState> = view.snapshot.policies.values().map(policy_state).collect();
    counted(&POLICIES, &states, &now)
}

/// How many are in each state; states that nobody is in say 0.
fn counted<S: Copy + PartialEq>(
    description: &'static Description,
    states: &[(S, &'static str)],
    now: &[S],
) -> Family {
    let mut family = Family::new(description);
    for (state, word) in states {
        let count = now.iter().filter(|other| *other == state).count();
        family.add([word], Value::Count(count as u64));
    }
    family
}

fn nodes(view: &View, now: SystemTime) -> Family {
    let alive = view.nodes.values().filter(|node| is_alive(node, now)).count();
    Family::new(&NODES)
        .with(["alive"], Value::Count(alive as u64))
        .with(["silent"], Value::Count((view.nodes.len() - alive) as u64))
}

fn agreeing(view: &View, now: SystemTime) -> usize {
    let alive = view.nodes.values().filter(|node| is_alive(node, now));
    alive.filter(|node| node.status.policy_digest == view.store_digest).count()
}

fn pools(view: &View) -> Family {
    let mut family = Family::new(&POOL);
    for pool in &view.pools {
        let states: BTreeMap<&str, u64> =
            [("leased", pool.leased), ("resting", pool.resting), ("free", pool.free())].into();
        for (state, count) in states {
            family.add([&pool.range.to_string(), state], Value::Count(count));
        }
    }
    family
}

#[cfg(test)]
mod tests;
