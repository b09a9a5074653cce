use std::sync::Arc;

use sinew_api::object::{Node, NodeStatus, Origin, Problem, Refused, Routing};
use sinew_engine::snapshot::Snapshot;
use sinew_observer::metrics::{Format, text};

use super::*;
use crate::view::{Part, PoolFill};

fn node(name: &str, heartbeat_ms: u64, digest: &str) -> (String, Node) {
    let status = NodeStatus { heartbeat_ms, policy_digest: digest.into(), ..NodeStatus::default() };
    let node = Node {
        name: name.into(),
        cluster: "default".into(),
        id: 1,
        addresses: Vec::new(),
        pod_cidrs: Vec::new(),
        routing: Routing::Native,
        status,
        origin: Origin::default(),
    };
    (name.into(), node)
}

#[test]
fn a_node_of_which_not_everything_is_well() {
    let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000);
    let constants = Constants {
        node: "a".into(),
        cluster: "lab".into(),
        addresses: Vec::new(),
        routing: "vxlan".into(),
        mtu: 1450,
        store: "folder:/objects".into(),
        started: now,
        kernel: "6.12.41".into(),
    };
    let view = View {
        snapshot: Arc::new(Snapshot { revision: 9, synced: true, ..Snapshot::default() }),
        ahead: Arc::default(),
        enforced: 7,
        // Silent for 100 s; the other two live, one of them with other policies.
        nodes: Arc::new([node("a", 999_000, "x"), node("b", 998_000, "y"), node("c", 900_000, "x")].into()),
        store_digest: "x".into(),
        unreadable: Arc::new(vec![Problem {
            path: String::new(),
            message: "no name".into(),
            origin: Origin::default(),
        }]),
        refused: Arc::new(vec![Refused::new(None, Origin::default(), Vec::new())]),
        moving: Arc::default(),
        foreign: 2,
        wires: Arc::default(),
        pools: vec![PoolFill { range: "10.1.0.0/29".parse().unwrap(), capacity: 5, leased: 3, resting: 1 }],
        failures: [(Part::Routes, "no route".to_owned())].into(),
        store_warning: None,
        checksums_off: None,
    };
    let text = text(families(&constants, &view, now), Format::OpenMetrics);
    for line in [
        "sinew_node_info{node=\"a\",cluster=\"lab\",routing=\"vxlan\",store=\"folder:/objects\"} 1",
        "sinew_condition{condition=\"datapath\",state=\"ok\"} 1",
        "sinew_condition{condition=\"routes\",state=\"ok\"} 0",
        "sinew_condition{condition=\"routes\",state=\"warning\"} 1",
        "sinew_condition{condition=\"policies\",state=\"failure\"} 1",
        "sinew_store_synced 1",
        "sinew_store_unreadable_documents 1",
        "sinew_store_refused_documents 1",
        "sinew_store_foreign_documents 2",
        "sinew_endpoints{state=\"ready\"} 0",
        "sinew_policies{state=\"refused\"} 0",
        "sinew_policy_revision{of=\"desired\"} 9",
        "sinew_policy_revision{of=\"enforced\"} 7",
        "sinew_nodes{state=\"alive\"} 2",
        "sinew_nodes{state=\"silent\"} 1",
        "sinew_nodes_agreeing 1",
        "sinew_pool_addresses{pool=\"10.1.0.0/29\",state=\"leased\"} 3",
        "sinew_pool_addresses{pool=\"10.1.0.0/29\",state=\"resting\"} 1",
        "sinew_pool_addresses{pool=\"10.1.0.0/29\",state=\"free\"} 1",
    ] {
        assert!(text.lines().any(|it| it == line), "{line} is not in {text}");
    }
}
