//! `explain` on destinations that are decided before any rule is asked (those to which no pod may send, the overlay's port
//! of a node), and on the gateway. Neighbour: `explained.rs`, on rules.

use sinew_api::identity::Identity;
use sinew_bpf::drop::DropReason;
use sinew_engine::explain::{Explanation, Family, Party, Query, Verdict};
use sinew_engine::{Config, Event};

use crate::explained::{explain, shop};
use crate::node::{Node, TCP, UDP};

#[test]
fn what_no_pod_may_send_is_dropped_before_any_rule() {
    let mut node = shop();
    node.yaml(
        "
apiVersion: sinew.io/v1
kind: SinewNetworkPolicy
metadata: {name: out, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: client}}
  egress: [{toEntities: [world]}]
",
    );
    for (to, reason) in [
        ("239.1.1.1", DropReason::MulticastDestination),
        ("ff02::1", DropReason::MulticastDestination),
        ("255.255.255.255", DropReason::BroadcastDestination),
        ("127.0.0.1", DropReason::LinkLocalDestination),
        ("fe80::99", DropReason::LinkLocalDestination),
    ] {
        for (from, port) in [("shop/client", 80), ("shop/web", 0)] {
            let answer = explain(&node, from, to, port);
            assert_eq!(answer.verdict, Verdict::Drop(reason), "{from} -> {to}");
            assert_eq!((answer.exceptions.as_slice(), answer.suggestion.as_str()), (&[][..], ""), "{to}");
            let egress = &answer.directions[0];
            assert_eq!(
                egress.summary,
                format!("egress of {from} is dropped before any rule is asked: {}", reason.words())
            );
        }
    }
    assert_eq!(explain(&node, "shop/client", "169.254.169.254", 80).verdict, Verdict::Allow);
    // It says what leaves a pod; who is judged as a receiver is asked.
    assert_eq!(explain(&node, "127.0.0.1", "shop/web", 80).verdict, Verdict::DefaultDeny);
}

/// The port of the overlay in these tests: the first of eight that are one entry of a table.
const OVERLAY: u16 = 4792;

/// A node, and another one of which one address is the API server's too. The API server has others, which are no node's.
fn overlay() -> Node {
    let mut config = Config::new("node", "default");
    config.cluster_cidrs = ["10.0.0.0/16", "fd00::/48"].map(|range| range.parse().unwrap()).into();
    config.tunnel_port = OVERLAY;
    let apiserver = ["192.168.0.2", "192.168.9.9", "2001:db8:9::9"];
    config.kube_apiserver = Some(apiserver.map(|text| text.parse().unwrap()).into());
    let mut node = Node::unsynced(config);
    node.apply([Event::Synced]);
    node.pod("shop/web", "app=web");
    node.pod("shop/db", "app=db");
    node.yaml(
        "
apiVersion: sinew.io/v1
kind: SinewNode
metadata: {name: other}
spec: {cluster: default, id: 7, addresses: [192.168.0.2, 192.168.0.3, '2001:db8:1::3'], podCIDRs: []}
---
apiVersion: v1
kind: Pod
metadata: {name: far, namespace: shop, labels: {app: far}}
spec: {nodeName: other}
---
apiVersion: v1
kind: Pod
metadata: {name: agent, namespace: shop}
spec: {nodeName: other, hostNetwork: true}
status: {podIPs: [{ip: 192.168.0.3}]}
",
    );
    node
}

fn ask(node: &Node, from: &str, to: &str, protocol: Option<u8>, port: Option<u16>) -> Explanation {
    let (from, to) = (Party::parse(from), Party::parse(to));
    node.engine.explain(&Query { from, to, protocol, port, family: None }).unwrap()
}

#[test]
fn no_pod_sends_to_the_overlays_port_of_a_node() {
    let node = overlay();
    let ask = |from: &str, to: &str, protocol, port| ask(&node, from, to, protocol, port);
    let dropped = Verdict::Drop(DropReason::EncapProhibited);
    let note = "UDP port 4792 of a node is kept for the overlay: what a pod sends there is dropped, whatever policies say";
    // Addresses of a node, of which one is the API server's too; gateways; a pod on the node's network; entities with an
    // address and without.
    let nodes = ["192.168.0.2", "192.168.0.3", "2001:db8:1::3", "169.254.1.1", "fe80::1", "shop/agent"];
    for (from, to) in nodes.map(|to| ("shop/web", to)).into_iter().chain([
        ("shop/web", "host"),
        ("shop/web", "remote-node"),
        ("shop/far", "192.168.0.3"),
        ("shop/far", "remote-node"),
    ]) {
        let answer = ask(from, to, Some(UDP), Some(OVERLAY));
        assert_eq!(answer.verdict, dropped, "{from} -> {to}");
        assert_eq!(
            answer.directions[0].summary,
            format!(
                "egress of {from} is dropped before any rule is asked: encapsulation traffic is prohibited"
            )
        );
        for other in [(UDP, OVERLAY - 1), (UDP, OVERLAY + 1), (UDP, 8472), (TCP, OVERLAY)] {
            let answer = ask(from, to, Some(other.0), Some(other.1));
            assert_eq!(answer.verdict, Verdict::Allow, "{from} -> {to} {other:?}");
        }
        for (protocol, noted) in [(None, true), (Some(UDP), true), (Some(TCP), false)] {
            let answer = ask(from, to, protocol, None);
            assert_eq!((answer.verdict, answer.exceptions.len()), (Verdict::Allow, 0), "{from} -> {to}");
            assert_eq!(answer.notes.iter().any(|told| told == note), noted, "{from} -> {to} {protocol:?}");
        }
    }
    // Nobody else's (the API server has addresses that are no node's), nor what a node sends.
    for (from, to) in [
        ("shop/web", "192.0.2.1"),
        ("shop/web", "192.168.9.9"),
        ("shop/web", "shop/db"),
        ("192.168.0.3", "shop/web"),
    ] {
        assert_eq!(ask(from, to, Some(UDP), Some(OVERLAY)).verdict, Verdict::Allow, "{from} -> {to}");
    }
    // Judged with one address of each family: here a node's, and one that is none.
    let answer = ask("shop/web", "kube-apiserver", Some(UDP), Some(OVERLAY));
    assert_eq!(answer.families, [(Family::V4, dropped), (Family::V6, Verdict::Allow)]);
}

#[test]
fn no_rule_opens_the_overlays_port_and_none_beside_it_is_closed_with_it() {
    let mut node = overlay();
    let rule = |side: &str, first: u16, last: u16| {
        format!(
            "
apiVersion: sinew.io/v1
kind: SinewNetworkPolicy
metadata: {{name: out, namespace: shop}}
spec:
  endpointSelector: {{matchLabels: {{app: web}}}}
  enableDefaultDeny: {{egress: {}}}
  {side}:
  - toEntities: [remote-node]
    toPorts: [{{ports: [{{port: '{first}', endPort: {last}, protocol: UDP}}]}}]
",
            side == "egress"
        )
    };
    let (open, closed) = (Verdict::Allow, Verdict::Deny);
    type Told = (u16, u16, Verdict);
    let cases: [(&str, [u16; 2], &[Told]); 7] = [
        // Default deny: what passes is told. One entry of a table that begins with the port, a wider one, the port alone.
        ("egress", [4792, 4799], &[(4793, 4799, open)]),
        ("egress", [4784, 4799], &[(4784, 4791, open), (4793, 4799, open)]),
        ("egress", [4792, 4792], &[]),
        // No default deny: what is closed is told, and not the port.
        ("egressDeny", [4791, 4791], &[(4791, 4791, closed)]),
        ("egressDeny", [4792, 4799], &[(4793, 4799, closed)]),
        ("egressDeny", [4784, 4799], &[(4784, 4791, closed), (4793, 4799, closed)]),
        ("egressDeny", [4793, 4793], &[(4793, 4793, closed)]),
    ];
    for (side, [first, last], wanted) in cases {
        node.yaml(&rule(side, first, last));
        let answer = ask(&node, "shop/web", "192.168.0.3", None, None);
        let rest = if side == "egress" { Verdict::DefaultDeny } else { Verdict::Allow };
        assert_eq!(answer.verdict, rest, "{side} {first}-{last}");
        let told = answer.exceptions.iter().map(|one| (one.first, one.last, one.verdict));
        assert_eq!(told.collect::<Vec<_>>(), wanted, "{side} {first}-{last}");
        let asked = ask(&node, "shop/web", "192.168.0.3", Some(UDP), Some(OVERLAY));
        assert_eq!(asked.verdict, Verdict::Drop(DropReason::EncapProhibited), "{side} {first}-{last}");
    }
}

#[test]
fn the_gateway_is_the_host_to_whoever_sends_there() {
    let mut node = shop();
    let policy = |entity: &str| {
        format!(
            "
apiVersion: sinew.io/v1
kind: SinewNetworkPolicy
metadata: {{name: out, namespace: shop}}
spec:
  endpointSelector: {{matchLabels: {{app: client}}}}
  egress: [{{toEntities: [{entity}]}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: far, namespace: shop, labels: {{app: client}}}}
spec: {{nodeName: elsewhere}}
"
        )
    };
    for (entity, verdict) in [("host", Verdict::Allow), ("world", Verdict::DefaultDeny)] {
        node.yaml(&policy(entity));
        for gateway in ["169.254.1.1", "fe80::1"] {
            for client in ["shop/client", "shop/far"] {
                let answer = explain(&node, client, gateway, 80);
                assert_eq!(
                    (answer.to.identity, answer.verdict),
                    (Some(Identity::HOST), verdict),
                    "{client} -> {gateway}, allowed: {entity}"
                );
                assert_eq!(answer.notes, [""; 0]);
            }
        }
    }
}
