//! The API server's address may be that of a node: it keeps the way there, and is both (policy.md 6).

use std::net::IpAddr;

use sinew_api::identity::Identity;
use sinew_api::object::{Node as NodeObject, NodeStatus, Origin, Routing};
use sinew_bpf::abi::{Address, IpcacheEntry, ipcache::flag};
use sinew_engine::{Config, Event};

use crate::node::Node;

const OWN: &str = "192.168.0.1";
const OTHER: &str = "192.168.0.2";
const OUTSIDE: &str = "203.0.113.6";

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A node in VXLAN, whose API server has this address, with a pod `shop/web`.
fn node(apiserver: &str) -> Node {
    let mut config = Config::new("node", "default");
    config.cluster_cidrs = ["10.0.0.0/16", "fd00::/48"].map(|range| range.parse().unwrap()).into();
    config.routing = Routing::Vxlan;
    config.kube_apiserver = Some(vec![address(apiserver)]);
    let mut node = Node::unsynced(config);
    node.apply([Event::Synced, Event::NodeAddresses(vec![address(OWN)])]);
    node.pod("shop/web", "app=web");
    node
}

fn other() -> Event {
    Event::NodeApplied(NodeObject {
        name: "other".to_owned(),
        cluster: "default".to_owned(),
        id: 2,
        addresses: vec![address(OTHER)],
        pod_cidrs: vec!["10.0.2.0/24".parse().unwrap()],
        routing: Routing::Vxlan,
        status: NodeStatus::default(),
        origin: Origin::default(),
    })
}

/// Lets `shop/web` go to this entity and nowhere else.
fn only_to(node: &mut Node, entity: &str) {
    node.yaml(&format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p, namespace: shop}}\n\
         spec: {{endpointSelector: {{}}, egress: [{{toEntities: [{entity}]}}]}}\n"
    ));
}

fn reaches(node: &Node, to: &str) -> bool {
    node.connect("shop/web", to, 6443) == "allowed"
}

#[test]
fn on_another_node_it_keeps_the_way_to_that_node() {
    let mut node = node(OTHER);
    let plain = IpcacheEntry { identity: Identity::KUBE_APISERVER.0, ..IpcacheEntry::default() };
    assert_eq!(node.kernel.addresses[&address(OTHER)], plain);
    node.apply([other()]);
    let entry = node.kernel.addresses[&address(OTHER)];
    assert_eq!(
        (entry.identity, entry.node_id, entry.flags, entry.tunnel),
        (7, 2, flag::TUNNEL | flag::REMOTE_NODE, Address::from(address(OTHER)))
    );
    for (entity, expected) in
        [("kube-apiserver", true), ("remote-node", true), ("host", false), ("world", false)]
    {
        only_to(&mut node, entity);
        assert_eq!(reaches(&node, OTHER), expected, "{entity}");
        assert_eq!(reaches(&node, OWN), entity == "host", "{entity}");
    }
    let both = node.engine.snapshot().identities[&Identity::KUBE_APISERVER].labels.to_strings();
    assert_eq!(both, ["reserved:kube-apiserver", "reserved:remote-node"]);
    // When the node is gone the API server is no node any more.
    only_to(&mut node, "remote-node");
    node.apply([Event::NodeRemoved("other".to_owned())]);
    assert_eq!(node.kernel.addresses[&address(OTHER)], plain);
    assert!(!reaches(&node, OTHER));
}

#[test]
fn outside_the_cluster_it_is_no_node() {
    let mut node = node(OUTSIDE);
    node.apply([other()]);
    for (entity, apiserver, node_too) in
        [("kube-apiserver", true, false), ("remote-node", false, true), ("world", false, false)]
    {
        only_to(&mut node, entity);
        assert_eq!((reaches(&node, OUTSIDE), reaches(&node, OTHER)), (apiserver, node_too), "{entity}");
    }
}

#[test]
fn on_this_node_it_is_the_host() {
    let mut node = node(OWN);
    node.apply([other()]);
    let entry = node.kernel.addresses[&address(OWN)];
    assert_eq!((entry.identity, entry.flags), (Identity::HOST.0, flag::LOCAL_NODE));
    for (entity, expected) in [("kube-apiserver", true), ("host", true), ("remote-node", false)] {
        only_to(&mut node, entity);
        assert_eq!(reaches(&node, OWN), expected, "{entity}");
        assert_eq!(reaches(&node, OTHER), entity == "remote-node", "{entity}");
    }
    only_to(&mut node, "kube-apiserver");
    node.apply([Event::NodeAddresses(vec![address("192.168.0.77")])]);
    assert!(!reaches(&node, "192.168.0.77"), "the host is the API server no more");
    assert!(reaches(&node, OWN), "which is at the address that the agent was given");
}
