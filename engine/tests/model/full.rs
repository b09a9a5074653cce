//! What doesn't fit is refused with the numbers, and comes back when there is room.

use sinew_engine::snapshot::PolicyState;
use sinew_engine::{Change, Config, Event};

use crate::node::{Node, TCP};

/// A node whose tables take 12 entries.
fn small() -> Node {
    let mut config = Config::new("node", "default");
    config.cluster_cidrs = ["10.0.0.0/16", "fd00::/48"].map(|range| range.parse().unwrap()).into();
    config.table_capacity = 12;
    config.class_capacity = 6;
    let mut node = Node::unsynced(config);
    node.apply([Event::Synced]);
    node.pod("shop/web", "app=web");
    node.pod("shop/client", "app=client");
    node
}

/// Allows the client, on this many ports; an entry each.
fn ports(name: &str, ports: std::ops::Range<u16>) -> String {
    let ports: Vec<String> =
        ports.map(|port| format!("{{port: '{}', protocol: TCP}}", 2 * port + 1)).collect();
    format!(
        "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {{name: {name}, namespace: shop}}
spec:
  endpointSelector: {{matchLabels: {{app: web}}}}
  ingress:
  - fromEndpoints: [{{matchLabels: {{app: client}}}}]
    toPorts: [{{ports: [{}]}}]
  ingressDeny:
  - fromEndpoints: [{{matchLabels: {{app: client}}}}]
    toPorts: [{{ports: [{{port: '9', protocol: SCTP}}]}}]
",
        ports.join(", ")
    )
}

fn state(node: &mut Node, name: &str) -> (PolicyState, Vec<String>) {
    let snapshot = node.engine.snapshot();
    let view = snapshot.policies.values().find(|view| view.policy.name.name == name).unwrap();
    (view.state, view.problems.iter().map(ToString::to_string).collect())
}

#[test]
fn a_policy_that_does_not_fit_is_refused_before_an_entry_is_written() {
    let mut node = small();
    node.yaml(&ports("a", 0..5));
    assert_eq!(state(&mut node, "a"), (PolicyState::Enforced, vec![]));
    let changes = node.yaml(&ports("b", 5..12));
    // Two default entries, the host's, five and seven ports, one deny rule.
    let said =
        "spec: does not fit: the policy table of shop/web would have 16 entries, and 12 fit".to_owned();
    assert_eq!(state(&mut node, "b"), (PolicyState::Refused, vec![said]));
    assert_eq!(state(&mut node, "a").0, PolicyState::Enforced);
    let largest = changes.iter().filter_map(|change| match change {
        Change::Endpoint { table, .. } => Some(table.entries.len()),
        _ => None,
    });
    assert!(largest.max().unwrap_or(0) <= 12);
    // It contributes its default deny and deny rule, and none of its allows.
    assert_eq!(node.connect("shop/client", "shop/web", 1), "allowed");
    assert_eq!(
        node.connect("shop/client", "shop/web", 11),
        "ingress: default deny by cnp/shop/a, cnp/shop/b"
    );
    // With the other gone there is room.
    let first = node.engine.snapshot().policies.keys().next().unwrap().clone();
    node.apply([Event::PolicyRemoved(first)]);
    assert_eq!(state(&mut node, "b").0, PolicyState::Enforced);
    assert_eq!(node.connect("shop/client", "shop/web", 11), "allowed");
}

#[test]
fn an_edit_that_does_not_fit_keeps_the_version_before() {
    let mut node = small();
    node.yaml(&ports("a", 0..5));
    let changes = node.yaml(&ports("a", 3..20));
    assert!(!changes.iter().any(|change| matches!(change, Change::PolicyValid(_))));
    let (state_now, problems) = state(&mut node, "a");
    assert_eq!((state_now, problems.len()), (PolicyState::Refused, 1));
    assert_eq!(node.connect("shop/client", "shop/web", 1), "allowed");
    assert_eq!(node.connect("shop/client", "shop/web", 31), "ingress: default deny by cnp/shop/a");
    node.yaml(&ports("a", 3..6));
    assert_eq!(state(&mut node, "a").0, PolicyState::Enforced);
    assert_eq!(node.connect("shop/client", "shop/web", 1), "ingress: default deny by cnp/shop/a");
}

#[test]
fn deny_rules_that_do_not_fit_deny_everything() {
    let mut node = small();
    node.yaml(
        &ports("deny", 0..20)
            .replace("ingress:", "ingressX:")
            .replace("ingressDeny:", "ingress:")
            .replace("ingressX:", "ingressDeny:"),
    );
    assert_eq!(state(&mut node, "deny").0, PolicyState::Refused);
    assert_eq!(node.connect("shop/client", "shop/web", 2), "ingress: overflow of cnp/shop/deny");
    assert_eq!(node.send("8.8.8.8", "shop/web", TCP, 2), "ingress: overflow of cnp/shop/deny");
}

#[test]
fn an_identity_that_no_table_can_take_drops_by_name() {
    let mut node = small();
    node.yaml(
        "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: all, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress:
  - fromEndpoints: [{matchExpressions: [{key: app, operator: Exists}]}]
    toPorts: [{ports: [{port: '80', protocol: TCP}, {port: '443', protocol: TCP}]}]
",
    );
    // Three entries of its own and two an identity: web, client and two more fit.
    for name in ["c", "d"] {
        node.pod(&format!("shop/{name}"), &format!("app={name}"));
    }
    assert_eq!(node.connect("shop/d", "shop/web", 80), "allowed");
    node.kernel.holds_back = true;
    let last = node.pod("shop/e", "app=e");
    assert_eq!(node.connect("shop/e", "shop/web", 80), "ingress: invalid identity");
    assert_eq!(state(&mut node, "all").0, PolicyState::Enforced);
    let snapshot = node.engine.snapshot();
    let warned = snapshot.policies.values().next().unwrap().warnings[0].to_string();
    assert_eq!(
        warned,
        "spec: 1 identities don't fit into the policy tables here (12 entries each); their packets drop"
    );
    assert!(node.kernel.endpoints.contains_key(&last));
    // Room is made by a smaller policy.
    node.yaml(
        "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: all, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress: [{fromEndpoints: [{matchExpressions: [{key: app, operator: Exists}]}]}]
",
    );
    assert_eq!(node.connect("shop/e", "shop/web", 80), "allowed");
}

#[test]
fn more_classes_than_the_trie_has_room_for() {
    let mut node = small();
    let cidrs = |name: &str, numbers: std::ops::Range<u8>| {
        let cidrs: Vec<String> = numbers.map(|number| format!("203.0.113.{number}/32")).collect();
        format!(
            "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {{name: {name}, namespace: shop}}
spec:
  endpointSelector: {{matchLabels: {{app: web}}}}
  egress: [{{toCIDR: [{}]}}]
",
            cidrs.join(", ")
        )
    };
    node.yaml(&cidrs("a", 0..4));
    node.yaml(&cidrs("b", 4..9));
    let said = "spec: does not fit: the CIDRs of all policies would cut addresses into 9 classes, and 6 fit";
    assert_eq!(state(&mut node, "b"), (PolicyState::Refused, vec![said.to_owned()]));
    assert_eq!(node.connect("shop/web", "203.0.113.3", 80), "allowed");
    assert_eq!(node.connect("shop/web", "203.0.113.7", 80), "egress: default deny by cnp/shop/a, cnp/shop/b");
    assert_eq!(node.kernel.classes.len(), 4);
}

/// policy.md 14, datapath.md 1: on the way from one cut of addresses to the next there must be room too.
#[test]
fn a_change_that_has_no_room_on_its_way_is_refused_before_it_begins() {
    let mut node = small();
    let policy = |ports: &[u16], denied: std::ops::Range<u8>| {
        let ports: Vec<String> =
            ports.iter().map(|port| format!("{{port: '{port}', protocol: TCP}}")).collect();
        let denied: Vec<String> = denied.map(|number| format!("203.0.113.{number}/32")).collect();
        format!(
            "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {{name: a, namespace: shop}}
spec:
  endpointSelector: {{matchLabels: {{app: web}}}}
  egress: [{{toCIDR: [203.0.113.0/24], toPorts: [{{ports: [{}]}}]}}]
  egressDeny: [{{toCIDR: [{}]}}]
",
            ports.join(", "),
            denied.join(", ")
        )
    };
    // Three default entries and four ports; each of three pieces needs the four ports on its way to be denied.
    node.yaml(&policy(&[81, 83, 85, 87], 0..0));
    assert_eq!(state(&mut node, "a"), (PolicyState::Enforced, vec![]));
    let changes = node.yaml(&policy(&[81, 83, 85, 87], 1..4));
    let (refused, said) = state(&mut node, "a");
    assert_eq!(refused, PolicyState::Refused);
    assert_eq!(
        said,
        [
            "spec: does not fit: the change from what is in force would need 19 entries in the policy table of shop/web, \
          and 16 fit; make it in steps"
        ]
    );
    assert!(!changes.iter().any(|change| matches!(change, Change::ClassSet(..) | Change::Endpoint { .. })));
    // The version before goes on.
    assert_eq!(node.connect("shop/web", "203.0.113.2", 83), "allowed");
    // In steps it is taken.
    for last in [2, 3, 4] {
        node.yaml(&policy(&[81], 1..last));
        assert_eq!(state(&mut node, "a"), (PolicyState::Enforced, vec![]), "{last}");
    }
    assert_eq!(node.connect("shop/web", "203.0.113.2", 81), "egress: cnp/shop/a spec.egressDeny[0]");
    assert_eq!(node.connect("shop/web", "203.0.113.9", 81), "allowed");
}

#[test]
fn a_trie_that_has_no_room_on_its_way_is_refused_before_it_begins() {
    let mut node = small();
    let policy = |from: u8| {
        let cidrs: Vec<String> = (from..from + 5).map(|number| format!("203.0.113.{number}/32")).collect();
        format!(
            "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {{name: a, namespace: shop}}
spec:
  endpointSelector: {{matchLabels: {{app: web}}}}
  egress: [{{toCIDR: [{}]}}]
",
            cidrs.join(", ")
        )
    };
    node.yaml(&policy(0));
    let changes = node.yaml(&policy(100));
    let said = "spec: does not fit: the change from what is in force would need 10 address classes, and 8 fit; make it in \
                steps";
    assert_eq!(state(&mut node, "a"), (PolicyState::Refused, vec![said.to_owned()]));
    assert!(!changes.iter().any(|change| matches!(change, Change::ClassSet(..))));
    assert_eq!(node.connect("shop/web", "203.0.113.3", 80), "allowed");
    assert_eq!(node.connect("shop/web", "203.0.113.103", 80), "egress: default deny by cnp/shop/a");
    // One that keeps most of them fits.
    node.yaml(&policy(2));
    assert_eq!(state(&mut node, "a"), (PolicyState::Enforced, vec![]));
    assert_eq!(node.connect("shop/web", "203.0.113.6", 80), "allowed");
    assert_eq!(node.kernel.classes.len(), 5);
}
