//! Ways to other nodes. The API server's address may be that of a node: it keeps the way there, and is both (policy.md 6);
//! outside the cluster it is of the world. Who is behind a node is behind the overlay, whether or not a tunnel leads there.

use std::net::IpAddr;

use sinew_api::identity::Identity;
use sinew_api::labels::Labels;
use sinew_api::object::{Endpoint, Node as NodeObject, NodeStatus, Origin, Routing};
use sinew_bpf::abi::{Address, IpcacheEntry, ipcache::flag};
use sinew_engine::{Config, Event};

use crate::explained::explain;
use crate::node::Node;

const OWN: &str = "192.168.0.1";
const OTHER: &str = "192.168.0.2";
const OUTSIDE: &str = "203.0.113.6";

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A node in VXLAN, whose API server has these addresses, with a pod `shop/web`.
fn node(apiserver: &str) -> Node {
    let mut config = Config::new("node", "default");
    config.cluster_cidrs = ["10.0.0.0/16", "fd00::/48"].map(|range| range.parse().unwrap()).into();
    config.routing = Routing::Vxlan;
    config.kube_apiserver = Some(apiserver.split(' ').map(address).collect());
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

/// A pod of the other node, of an identity of its own.
fn pod_of_other(node: &mut Node) -> IpAddr {
    let mut labels = Labels::new();
    labels.insert("k8s", "io.kubernetes.pod.namespace", "shop");
    let endpoint = Endpoint {
        name: "other-1".to_owned(),
        pod_namespace: "shop".to_owned(),
        pod_name: "far".to_owned(),
        pod_uid: String::new(),
        container_id: String::new(),
        ifname: String::new(),
        node: "other".to_owned(),
        addresses: vec![address("10.0.2.9")],
        identity: Identity(700),
        previous_identity: None,
        labels: labels.clone(),
        ports: Vec::new(),
        phase: None,
        workload: None,
        origin: Origin::default(),
    };
    node.apply([Event::IdentityApplied(Identity(700), labels), Event::RemoteEndpointApplied(endpoint)]);
    address("10.0.2.9")
}

/// Lets `shop/web` go to this entity and nowhere else.
fn only_to(node: &mut Node, entity: &str) {
    node.yaml(&format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p, namespace: shop}}\n\
         spec: {{endpointSelector: {{}}, egress: [{{toEntities: [{entity}]}}]}}\n"
    ));
}

/// Lets `shop/web` go anywhere but to this entity.
fn never_to(node: &mut Node, entity: &str) {
    node.yaml(&format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p, namespace: shop}}\n\
         spec: {{endpointSelector: {{}}, enableDefaultDeny: {{egress: false}}, egressDeny: [{{toEntities: [{entity}]}}]}}\n"
    ));
}

fn reaches(node: &Node, to: &str) -> bool {
    node.connect("shop/web", to, 6443) == "allowed"
}

#[test]
fn on_another_node_it_keeps_the_way_to_that_node() {
    let mut node = node(OTHER);
    let plain = IpcacheEntry {
        identity: Identity::KUBE_APISERVER.0,
        flags: flag::OUTSIDE,
        ..IpcacheEntry::default()
    };
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

/// Whose endpoints are told of before their node, or who has lost it, is reached by no tunnel, and by no other way.
#[test]
fn a_pod_whose_node_nobody_knows_is_behind_the_overlay_all_the_same() {
    let mut node = node(OUTSIDE);
    let pod = pod_of_other(&mut node);
    let found = |node: &Node| {
        let entry = node.kernel.addresses[&pod];
        (entry.identity, entry.flags, entry.tunnel)
    };
    assert_eq!(found(&node), (700, flag::TUNNEL, Address::NONE));
    node.apply([other()]);
    assert_eq!(found(&node), (700, flag::TUNNEL, Address::from(address(OTHER))));
    node.apply([Event::NodeRemoved("other".to_owned())]);
    assert_eq!(found(&node), (700, flag::TUNNEL, Address::NONE));
}

/// As in Cilium, where its address keeps the labels of a CIDR: what is closed to the world is closed to it.
#[test]
fn outside_the_cluster_it_is_of_the_world() {
    let mut node = node(OUTSIDE);
    node.apply([other()]);
    for (entity, apiserver, node_too) in [
        ("kube-apiserver", true, false),
        ("remote-node", false, true),
        ("world", true, false),
        ("world-ipv4", true, false),
        ("world-ipv6", false, false),
        ("cluster", true, true),
    ] {
        only_to(&mut node, entity);
        assert_eq!((reaches(&node, OUTSIDE), reaches(&node, OTHER)), (apiserver, node_too), "{entity}");
    }
    for (entity, open) in
        [("world", false), ("world-ipv4", false), ("world-ipv6", true), ("remote-node", true)]
    {
        never_to(&mut node, entity);
        assert_eq!(reaches(&node, OUTSIDE), open, "{entity}");
    }
    let both = node.engine.snapshot().identities[&Identity::KUBE_APISERVER].labels.to_strings();
    assert_eq!(both, ["reserved:kube-apiserver", "reserved:world-ipv4"]);
}

/// All its addresses have one identity, so that one of another kind closes and does not open.
#[test]
fn on_a_node_and_outside_that_is_allowed_which_is_to_both() {
    let mut node = node(&format!("{OTHER} {OUTSIDE}"));
    node.apply([other()]);
    let both = |node: &Node| (reaches(node, OTHER), reaches(node, OUTSIDE));
    for (entities, open) in [
        ("kube-apiserver", true),
        ("cluster", true),
        ("world", false),
        ("remote-node", false),
        ("world, remote-node", true),
    ] {
        only_to(&mut node, entities);
        assert_eq!(both(&node), (open, open), "{entities}");
    }
    for entity in ["world", "remote-node", "kube-apiserver"] {
        never_to(&mut node, entity);
        assert_eq!(both(&node), (false, false), "{entity}");
    }
    never_to(&mut node, "host");
    assert_eq!(both(&node), (true, true));
    // Which explain says.
    let told = |node: &Node, to: &str| explain(node, "shop/web", to, 6443).notes;
    for to in [OTHER, OUTSIDE, "kube-apiserver"] {
        let notes = told(&node, to);
        assert!(
            notes.iter().any(|note| note.starts_with("all addresses of the API server have one identity")),
            "{notes:?}"
        );
    }
    assert_eq!(told(&node, OWN), [""; 0]);
    // When the node is gone, both addresses are outside.
    only_to(&mut node, "world");
    node.apply([Event::NodeRemoved("other".to_owned())]);
    assert_eq!(both(&node), (true, true));
}

/// A node whose pods of one label set reach the world without the API server, and of another the range that it is in.
fn of_two_label_sets() -> Node {
    let mut node = node(OUTSIDE);
    let policy = |name: &str, app: &str, to: &str| {
        format!(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{endpointSelector: {{matchLabels: {{app: {app}}}}}, egress: [{{{to}}}]}}\n"
        )
    };
    let world_alone = "toEndpoints: [{matchExpressions: [{key: 'reserved:world-ipv4', operator: Exists}, \
                       {key: 'reserved:kube-apiserver', operator: DoesNotExist}]}]";
    node.yaml(&policy("old", "web", world_alone));
    node.yaml(&policy("new", "api", "toCIDR: [203.0.113.0/24]"));
    node
}

/// While a pod gets other labels, what is open by address to one of its label sets is not open to the API server whom the
/// other shuts out by name.
#[test]
fn a_pod_that_moves_does_not_reach_it_by_a_range_of_the_world() {
    let mut node = of_two_label_sets();
    assert!(!reaches(&node, OUTSIDE) && reaches(&node, "198.51.100.9"));
    node.label("shop/web", "app=api");
    assert!(!node.announced.is_empty());
    assert!(!reaches(&node, OUTSIDE), "it moves");
    node.finish_relabels();
    assert!(reaches(&node, OUTSIDE) && !reaches(&node, "198.51.100.9"));
}

/// The same where it comes to be outside while the pod moves: the node that had its address is gone.
#[test]
fn a_pod_that_moves_does_not_reach_it_once_it_is_no_nodes() {
    let mut node = of_two_label_sets();
    let Event::NodeApplied(mut there) = other() else { panic!() };
    there.addresses = vec![address(OUTSIDE)];
    node.apply([Event::NodeApplied(there)]);
    node.label("shop/web", "app=api");
    node.apply([Event::NodeRemoved("other".to_owned())]);
    assert!(!reaches(&node, OUTSIDE), "it moves");
    node.finish_relabels();
    assert!(reaches(&node, OUTSIDE));
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
