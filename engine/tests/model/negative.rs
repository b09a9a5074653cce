//! Whom selectors without a demanded value mean (`NotIn`, `DoesNotExist`, `Exists`), worked out by hand from policy.md 3:
//! the naive evaluator reads selectors as the decoder scoped them, so it can't tell that a scope is missing.

use std::collections::BTreeSet;

use sinew_engine::{EndpointId, Event, LocalEndpoint};

use crate::node::Node;
use crate::recipes::{cast, outcome};

/// Namespace prod is labelled `purpose: production`; dev and default have no such label.
const PODS: &[(&str, &str)] =
    &[("web", "app=web"), ("a", "app=a"), ("b", "app=b"), ("e", ""), ("prod/c", "app=a"), ("dev/d", "app=d")];
const WORLD: [&str; 2] = ["8.8.8.8", "2001:db8::1"];
const HOST: &str = "192.168.0.1";
const REMOTE_NODE: &str = "192.168.0.2";
const UNMANAGED: &str = "10.0.0.99";
/// Everybody who is no pod.
const NO_PODS: &str = "8.8.8.8 2001:db8::1 192.168.0.1 192.168.0.2 10.0.0.99";

/// Kind, the peer, and who matches.
const FORMS: &[(&str, &str, &str)] = &[
    ("NetworkPolicy", "{namespaceSelector: {}}", "a b e prod/c dev/d"),
    ("NetworkPolicy", "{namespaceSelector: {matchLabels: {purpose: production}}}", "prod/c"),
    ("NetworkPolicy", "{namespaceSelector: [purpose Exists]}", "prod/c"),
    ("NetworkPolicy", "{namespaceSelector: [purpose DoesNotExist]}", "a b e dev/d"),
    ("NetworkPolicy", "{namespaceSelector: [purpose NotIn production]}", "a b e dev/d"),
    ("NetworkPolicy", "{namespaceSelector: [kubernetes.io/metadata.name NotIn default]}", "prod/c dev/d"),
    ("NetworkPolicy", "{podSelector: [app Exists]}", "a b"),
    ("NetworkPolicy", "{podSelector: [app DoesNotExist]}", "e"),
    ("NetworkPolicy", "{podSelector: [app NotIn a]}", "b e"),
    (
        "NetworkPolicy",
        "{namespaceSelector: [purpose NotIn production], podSelector: [app NotIn a]}",
        "b e dev/d",
    ),
    ("NetworkPolicy", "{namespaceSelector: {}, podSelector: [app DoesNotExist]}", "e"),
    ("CiliumNetworkPolicy", "[app Exists]", "a b"),
    ("CiliumNetworkPolicy", "[app DoesNotExist]", "e"),
    ("CiliumNetworkPolicy", "[app NotIn a]", "b e"),
    ("CiliumNetworkPolicy", "['k8s:io.kubernetes.pod.namespace' NotIn prod]", "a b e dev/d"),
    ("CiliumNetworkPolicy", "[io.kubernetes.pod.namespace NotIn prod]", "a b e dev/d"),
    ("CiliumNetworkPolicy", "[io.kubernetes.pod.namespace Exists]", "a b e prod/c dev/d"),
    ("CiliumNetworkPolicy", "[io.kubernetes.pod.namespace DoesNotExist]", NO_PODS),
    ("CiliumNetworkPolicy", "[io.cilium.k8s.namespace.labels.purpose NotIn production]", "a b e dev/d"),
    ("CiliumNetworkPolicy", "['k8s:io.cilium.k8s.namespace.labels.purpose' DoesNotExist]", "a b e dev/d"),
    ("CiliumNetworkPolicy", "[io.cilium.k8s.namespace.labels.purpose Exists]", "prod/c"),
    ("CiliumNetworkPolicy", "['reserved:world-ipv4' Exists]", "8.8.8.8"),
    // A selector with a reserved key is not scoped.
    (
        "CiliumNetworkPolicy",
        "['reserved:host' DoesNotExist]",
        "a b e prod/c dev/d 8.8.8.8 2001:db8::1 192.168.0.2 10.0.0.99",
    ),
    ("CiliumClusterwideNetworkPolicy", "{}", "a b e prod/c dev/d"),
    ("CiliumClusterwideNetworkPolicy", "[app Exists]", "a b prod/c dev/d"),
    ("CiliumClusterwideNetworkPolicy", "[app DoesNotExist]", "e"),
    ("CiliumClusterwideNetworkPolicy", "[app NotIn a]", "b e dev/d"),
    ("CiliumClusterwideNetworkPolicy", "['k8s:io.kubernetes.pod.namespace' NotIn prod]", "a b e dev/d"),
    (
        "CiliumClusterwideNetworkPolicy",
        "[io.cilium.k8s.namespace.labels.purpose NotIn production]",
        "a b e dev/d",
    ),
    ("CiliumClusterwideNetworkPolicy", "[io.kubernetes.pod.namespace DoesNotExist]", NO_PODS),
];

#[test]
fn what_is_no_pod_is_matched_only_where_it_is_named() {
    let mut wrong = Vec::new();
    for (kind, peer, matched) in FORMS {
        let node = node(kind, peer);
        let matched: BTreeSet<&str> = matched.split(' ').collect();
        let pods = PODS.iter().map(|(name, _)| *name).filter(|name| *name != "web");
        for other in pods.chain(WORLD).chain([HOST, REMOTE_NODE, UNMANAGED]) {
            let matches = matched.contains(other);
            // The own node reaches its pods under any policy (policy.md 7).
            let comes = if matches || other == HOST { "yes" } else { "in" };
            let goes = if matches { "yes" } else { "out" };
            let asked = [(format!("{other} web 80"), comes), (format!("web {other} 80"), goes)];
            for (asked, expected) in asked {
                let found = outcome(&node, &asked);
                if found != expected {
                    wrong.push(format!("{kind} {peer}: {asked}: expected {expected}, found {found}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// policy.md 8, as in Cilium: whom nobody knows yet is selected by what selects everybody, and by nothing of a namespace.
#[test]
fn a_clusterwide_selector_of_everybody_selects_init_too() {
    let tried = |head: &str| {
        let mut node = cast(&[("u", "?"), ("a", "app=a")]);
        node.yaml(&format!(
            "apiVersion: sinew.io/v1\nkind: {head}}}\nspec:\n  endpointSelector: {{}}\n  \
             egress: [{{toEntities: [world], toPorts: [{{ports: [{{port: '443', protocol: TCP}}]}}]}}]\n"
        ));
        ["u 8.8.8.8 443", "u 8.8.8.8 80", "u a 443", "a u 443", "a 8.8.8.8 443"].map(|it| outcome(&node, it))
    };
    let clusterwide = tried("SinewClusterwideNetworkPolicy\nmetadata: {name: p");
    assert_eq!(clusterwide, ["yes", "out", "out", "out", "yes"]);
    let namespaced = tried("SinewNetworkPolicy\nmetadata: {name: p, namespace: default");
    assert_eq!(namespaced, ["out", "out", "out", "out", "yes"]);
}

/// A node with everybody, and a policy that closes `web` to all but this peer, both ways.
fn node(kind: &str, peer: &str) -> Node {
    let mut node = cast(PODS);
    node.apply([Event::EndpointCreated(LocalEndpoint {
        id: EndpointId(99),
        container_id: "podless".to_owned(),
        ifname: "eth0".to_owned(),
        pod_namespace: String::new(),
        pod_name: String::new(),
        pod_uid: String::new(),
        labels: [].into(),
        addresses: vec![UNMANAGED.parse().unwrap()],
        found: None,
    })]);
    let [version, subject, from, to] = match kind {
        "NetworkPolicy" => ["networking.k8s.io/v1", "podSelector", "from", "to"],
        _ => ["cilium.io/v2", "endpointSelector", "fromEndpoints", "toEndpoints"],
    };
    let both = if kind == "NetworkPolicy" { "policyTypes: [Ingress, Egress]" } else { "description: both" };
    let peer = expressions(peer);
    node.yaml(&format!(
        "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: p{}}}\nspec:\n  {both}\n  \
         {subject}: {{matchLabels: {{app: web}}}}\n  ingress: [{{{from}: [{peer}]}}]\n  egress: [{{{to}: [{peer}]}}]\n",
        if kind.contains("Clusterwide") { "" } else { ", namespace: default" },
    ));
    node
}

/// `[KEY OPERATOR]` and `[KEY OPERATOR VALUE]` written out.
fn expressions(text: &str) -> String {
    let Some((before, rest)) = text.split_once('[') else { return text.to_owned() };
    let (expression, after) = rest.split_once(']').unwrap();
    let words: Vec<&str> = expression.split(' ').collect();
    let values = words.get(2).map(|value| format!(", values: [{value}]")).unwrap_or_default();
    let written = format!("{{matchExpressions: [{{key: {}, operator: {}{values}}}]}}", words[0], words[1]);
    format!("{before}{written}{}", expressions(after))
}
