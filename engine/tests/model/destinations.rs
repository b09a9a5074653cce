//! `explain` on destinations that are decided before any rule is asked (those to which no pod may send, the overlay's port
//! of a node), and on the gateway. Neighbour: `explained.rs`, on rules.

use sinew_api::identity::Identity;
use sinew_bpf::drop::DropReason;
use sinew_engine::explain::{Party, Query, Verdict};
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

#[test]
fn no_pod_sends_to_the_overlays_port_of_a_node() {
    let mut config = Config::new("node", "default");
    config.tunnel_port = 4789;
    config.kube_apiserver = Some(["192.168.0.2", "192.168.9.9"].map(|text| text.parse().unwrap()).into());
    let mut node = Node::unsynced(config);
    node.apply([Event::Synced]);
    node.pod("shop/web", "app=web");
    node.yaml(
        "
apiVersion: sinew.io/v1
kind: SinewNode
metadata: {name: other}
spec: {cluster: default, id: 7, addresses: [192.168.0.2, 192.168.0.3], podCIDRs: []}
",
    );
    let ask = |from: &str, to: &str, protocol: Option<u8>, port: Option<u16>| {
        let (from, to) = (Party::parse(from), Party::parse(to));
        node.engine.explain(&Query { from, to, protocol, port, family: None }).unwrap()
    };
    let dropped = Verdict::Drop(DropReason::EncapProhibited);
    let note =
        "UDP port 4789 of a node is the overlay's: what a pod sends there is dropped, whatever policies say";
    // A node that is the API server too, one that is not, and those of which no address is known.
    for to in ["192.168.0.2", "192.168.0.3", "169.254.1.1", "host", "remote-node"] {
        let answer = ask("shop/web", to, Some(UDP), Some(4789));
        assert_eq!(answer.verdict, dropped, "{to}");
        let egress =
            "egress of shop/web is dropped before any rule is asked: encapsulation traffic is prohibited";
        assert_eq!(answer.directions[0].summary, egress);
        for other in [(UDP, 4788), (UDP, 8472), (TCP, 4789)] {
            assert_eq!(
                ask("shop/web", to, Some(other.0), Some(other.1)).verdict,
                Verdict::Allow,
                "{to} {other:?}"
            );
        }
        for (protocol, noted) in [(None, true), (Some(UDP), true), (Some(TCP), false)] {
            let answer = ask("shop/web", to, protocol, None);
            assert_eq!(answer.verdict, Verdict::Allow, "{to} {protocol:?}");
            assert_eq!(answer.notes.iter().any(|told| told == note), noted, "{to} {protocol:?}");
        }
    }
    // Nobody else's, nor what a node sends. The API server's other address is no node's.
    for (from, to) in [("shop/web", "192.0.2.1"), ("shop/web", "192.168.9.9"), ("192.168.0.3", "shop/web")] {
        assert_eq!(ask(from, to, Some(UDP), Some(4789)).verdict, Verdict::Allow, "{from} -> {to}");
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
