//! `explain` on small clusters, by hand. Neighbour: `destinations.rs`, on where no pod may send.

use sinew_api::identity::Identity;
use sinew_api::object::decode_text;
use sinew_bpf::drop::DropReason;
use sinew_engine::Direction;
use sinew_engine::Event;
use sinew_engine::explain::{Explanation, Party, Query, Verdict};

use crate::node::{Node, TCP};

pub(crate) fn explain(node: &Node, from: &str, to: &str, port: u16) -> Explanation {
    let query = Query {
        from: Party::parse(from),
        to: Party::parse(to),
        protocol: Some(TCP),
        port: (port != 0).then_some(port),
        family: None,
    };
    node.engine.explain(&query).unwrap()
}

pub(crate) fn shop() -> Node {
    let mut node = Node::new();
    node.pod("shop/web", "app=web");
    node.pod("shop/client", "app=client");
    node.pod("blog/db", "app=db, tier=back");
    node.yaml(
        "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress:
  - fromEndpoints:
    - matchLabels: {app: client}
    toPorts: [{ports: [{port: '80', protocol: TCP}]}]
",
    );
    node
}

#[test]
fn an_allow_names_its_rule_and_line() {
    let answer = explain(&shop(), "shop/client", "web", 80);
    assert_eq!(answer.verdict, Verdict::Allow);
    assert_eq!(answer.suggestion, "");
    let [egress, ingress] = answer.directions.as_slice() else { panic!("{answer:?}") };
    assert_eq!(egress.summary, "no policy enforces egress of shop/client");
    assert_eq!(ingress.summary, "ingress of shop/web is allowed by cnp/shop/web spec.ingress[0]");
    let rule = ingress.rule.as_ref().unwrap();
    assert_eq!(rule.origin.to_string(), "test.yaml:8");
    assert!(!rule.deny);
}

#[test]
fn a_default_deny_names_who_switched_it_on_and_what_came_near() {
    let node = shop();
    let answer = explain(&node, "shop/client", "shop/web", 443);
    assert_eq!(answer.verdict, Verdict::DefaultDeny);
    let ingress = &answer.directions[1];
    assert_eq!(ingress.denied_by[0].policy.to_string(), "cnp/shop/web");
    assert_eq!(ingress.denied_by[0].origin.to_string(), "test.yaml:2");
    let near = &ingress.near[0];
    assert_eq!(near.field, "spec.ingress[0].toPorts[0].ports[0]");
    assert_eq!((near.wanted.as_str(), near.found.as_str()), ("80/TCP", "443/TCP"));

    let answer = explain(&node, "blog/db", "shop/web", 80);
    let near = &answer.directions[1].near[0];
    assert_eq!(near.field, "spec.ingress[0].fromEndpoints[0]");
    assert_eq!(near.wanted, "app=client, io.kubernetes.pod.namespace=shop");
    assert_eq!(near.found, "app=db");
    assert_eq!(near.failed, 1);
    assert_eq!(
        answer.suggestion,
        "\
apiVersion: sinew.io/v1
kind: SinewNetworkPolicy
metadata: {name: web-from-blog-db-tcp-80, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: web}}
  enableDefaultDeny: {ingress: false}
  ingress:
  - fromEndpoints: [{matchLabels: {\"k8s:io.kubernetes.pod.namespace\": blog, app: db}}]
    toPorts: [{ports: [{port: \"80\", protocol: TCP}]}]
"
    );
}

#[test]
fn a_deny_rule_is_named_and_nothing_is_suggested() {
    let mut node = shop();
    node.yaml(
        "
apiVersion: sinew.io/v1
kind: SinewClusterwideNetworkPolicy
metadata: {name: never}
spec:
  endpointSelector: {}
  egressDeny: [{toEntities: [world]}]
",
    );
    let answer = explain(&node, "shop/client", "8.8.8.8", 53);
    assert_eq!(answer.verdict, Verdict::Deny);
    assert_eq!(answer.directions.len(), 1);
    assert_eq!(answer.directions[0].direction, Direction::Egress);
    assert_eq!(
        answer.directions[0].summary,
        "egress of shop/client is denied by sccnp/never spec.egressDeny[0]"
    );
    assert!(answer.directions[0].rule.as_ref().unwrap().deny);
    assert_eq!(answer.suggestion, "");
}

#[test]
fn a_refused_policy_says_why_it_opens_nothing() {
    let mut node = shop();
    node.yaml(
        "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: names, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: client}}
  egress:
  - toFQDNs: [{matchName: example.org}]
",
    );
    let answer = explain(&node, "shop/client", "world", 443);
    let egress = &answer.directions[0];
    assert_eq!(egress.denied_by[0].refused.as_deref(), Some("spec.egress[0].toFQDNs"));
    assert_eq!(
        egress.summary,
        "no rule allows it: egress of shop/client is under default deny by cnp/shop/names; \
         cnp/shop/names is refused: spec.egress[0].toFQDNs"
    );
}

#[test]
fn audit_is_a_second_verdict() {
    let mut node = shop();
    node.yaml(
        "
apiVersion: sinew.io/v1
kind: SinewNetworkPolicy
metadata: {name: later, namespace: shop}
spec:
  enforcement: audit
  endpointSelector: {matchLabels: {app: client}}
  egress: [{}]
",
    );
    let answer = explain(&node, "shop/client", "shop/web", 80);
    assert_eq!(answer.verdict, Verdict::Allow);
    let (shadow, rule) = answer.directions[0].shadow.as_ref().unwrap();
    assert_eq!(*shadow, Verdict::DefaultDeny);
    assert!(format!("{:?}", rule.as_ref().unwrap().cause).contains("later"));
    assert_eq!(answer.directions[0].enforcement.audited_by[0].to_string(), "snp/shop/later");
}

#[test]
fn pods_of_other_nodes_labels_and_entities_are_judged_as_well() {
    let mut node = shop();
    node.yaml(
        "
apiVersion: v1
kind: Pod
metadata: {name: planned, namespace: shop, labels: {app: client}}
spec: {nodeName: elsewhere}
",
    );
    assert_eq!(explain(&node, "shop/planned", "shop/web", 80).verdict, Verdict::Allow);
    let labels = "app=client,io.kubernetes.pod.namespace=shop";
    assert_eq!(explain(&node, labels, "shop/web", 80).verdict, Verdict::Allow);
    assert_eq!(explain(&node, "app=client", "shop/web", 80).verdict, Verdict::DefaultDeny);
    assert_eq!(explain(&node, "host", "shop/web", 81).verdict, Verdict::Allow);
    assert_eq!(explain(&node, "world", "shop/web", 80).verdict, Verdict::DefaultDeny);
    // Asked without a port: what holds for ports that no rule names.
    assert_eq!(explain(&node, "shop/client", "shop/web", 0).verdict, Verdict::DefaultDeny);
}

#[test]
fn labels_are_completed_with_what_every_pod_of_their_namespace_has() {
    let mut node = shop();
    node.yaml(
        "
apiVersion: v1
kind: Namespace
metadata: {name: blog, labels: {team: red}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: red, namespace: shop}
spec:
  podSelector: {matchLabels: {app: client}}
  ingress: [{from: [{namespaceSelector: {matchLabels: {team: red}}}]}]
---
apiVersion: sinew.io/v1
kind: SinewNetworkPolicy
metadata: {name: account, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress: [{fromEndpoints: [{matchLabels: {
    'k8s:io.cilium.k8s.policy.serviceaccount': default,
    'k8s:io.cilium.k8s.policy.cluster': default,
    'k8s:io.kubernetes.pod.namespace': blog}}]}]
",
    );
    let labels = "app=writer,io.kubernetes.pod.namespace=blog";
    let answer = explain(&node, labels, "shop/client", 80);
    assert_eq!(answer.verdict, Verdict::Allow);
    assert_eq!(answer.from.name, "k8s:app=writer,k8s:io.kubernetes.pod.namespace=blog");
    let team = "io.cilium.k8s.namespace.labels.team";
    assert_eq!(answer.from.labels.get("k8s", team), Some("red"));
    assert_eq!(explain(&node, labels, "shop/web", 80).verdict, Verdict::Allow);
    // What is given stands.
    let other = format!("{labels},io.cilium.k8s.policy.serviceaccount=writer");
    assert_eq!(explain(&node, &other, "shop/web", 80).verdict, Verdict::DefaultDeny);
    let green = format!("{labels},{team}=green");
    assert_eq!(explain(&node, &green, "shop/client", 80).verdict, Verdict::DefaultDeny);
}

#[test]
fn a_node_is_host_to_its_own_pods_only() {
    let mut node = shop();
    node.yaml(
        "
apiVersion: v1
kind: Pod
metadata: {name: proxy, namespace: shop}
spec: {hostNetwork: true, nodeName: far}
---
apiVersion: v1
kind: Pod
metadata: {name: there, namespace: shop, labels: {app: web}}
spec: {nodeName: far}
",
    );
    let answer = explain(&node, "shop/proxy", "shop/there", 81);
    assert_eq!((answer.from.identity, answer.verdict), (Some(Identity::HOST), Verdict::Allow));
    let answer = explain(&node, "shop/proxy", "shop/web", 81);
    assert_eq!((answer.from.identity, answer.verdict), (Some(Identity::REMOTE_NODE), Verdict::DefaultDeny));
}

#[test]
fn an_entity_that_is_many_is_no_end() {
    let query = |name: &str| Query {
        from: Party::Entity(name.to_owned()),
        to: Party::parse("shop/web"),
        protocol: None,
        port: None,
        family: None,
    };
    let said = |name| shop().engine.explain(&query(name)).unwrap_err().to_string();
    assert_eq!(
        said("cluster"),
        "FROM cluster: that is every pod and every node: name one, by pod, address, labels, host or remote-node"
    );
    assert_eq!(said("none"), "FROM none: that is nobody");
    assert_eq!(said("moon"), "FROM moon: there is no entity of this name");
}

#[test]
fn what_does_not_exist_is_named() {
    let node = shop();
    let ask = |from: &str, to: &str| {
        let query = Query {
            from: Party::parse(from),
            to: Party::parse(to),
            protocol: None,
            port: None,
            family: None,
        };
        node.engine.explain(&query).unwrap_err().to_string()
    };
    assert_eq!(ask("shop/wbe", "shop/web"), "FROM shop/wbe: there is no such pod; did you mean shop/web?");
    assert_eq!(ask("shop/web", "4711"), "TO 4711: no identity has this number");
    assert_eq!(
        ask("10.0.3.3", "shop/web"),
        "FROM 10.0.3.3: the address is in a range of the cluster, and nobody is known there"
    );
    assert_eq!(ask("reserved:moon", "shop/web"), "FROM moon: there is no entity of this name");
}

#[test]
fn the_suggestion_of_both_directions_opens_both() {
    let mut node = shop();
    node.yaml(
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: all, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
",
    );
    let answer = explain(&node, "shop/client", "shop/web", 8080);
    assert_eq!(answer.verdict, Verdict::DefaultDeny);
    let objects = decode_text("suggested.yaml", &answer.suggestion);
    assert_eq!(objects.len(), 2);
    node.apply(objects.into_iter().map(|object| Event::from(object.unwrap())));
    assert_eq!(explain(&node, "shop/client", "shop/web", 8080).verdict, Verdict::Allow);
    assert_eq!(explain(&node, "shop/client", "shop/web", 8081).verdict, Verdict::DefaultDeny);
}

#[test]
fn an_unknown_identity_drops_by_name() {
    let mut node = shop();
    let number = node.number(&node_labels());
    node.apply([Event::IdentityApplied(number, node_labels())]);
    assert_eq!(explain(&node, &number.to_string(), "shop/web", 80).verdict, Verdict::DefaultDeny);
    node.apply([Event::IdentityRemoved(number)]);
    let web = node.kernel.endpoints.keys().next().copied().unwrap();
    let judged = node.kernel.judge(web, Direction::Ingress, number, "10.0.0.77".parse().unwrap(), TCP, 80);
    assert_eq!(judged.unwrap_err(), DropReason::InvalidIdentity);
}

fn node_labels() -> sinew_api::labels::Labels {
    let mut labels = sinew_api::labels::Labels::new();
    labels.insert("k8s", "app", "visitor");
    labels
}

#[test]
fn what_only_a_pods_own_node_knows_is_not_guessed() {
    let mut node = shop();
    let address = |text: &str| text.parse().unwrap();
    node.apply([Event::NodeAddresses(vec![address("169.254.20.10"), address("172.17.0.1")])]);
    node.yaml(
        "
apiVersion: v1
kind: Pod
metadata: {name: far, namespace: shop, labels: {app: far}}
spec: {nodeName: elsewhere}
---
apiVersion: sinew.io/v1
kind: SinewClusterwideNetworkPolicy
metadata: {name: out}
spec:
  endpointSelector: {}
  egress: [{toCIDR: [169.254.0.0/16, 172.16.0.0/12]}]
",
    );
    let unknown = |address: &str| {
        format!(
            "only node elsewhere knows whether it has {address} on a device, so its agent is the one to ask; what \
             stands here holds if it has not"
        )
    };
    for to in ["169.254.20.10", "172.17.0.1", "169.254.7.7"] {
        let answer = explain(&node, "shop/far", to, 53);
        assert_eq!(answer.to.identity, Some(Identity::WORLD_IPV4), "{to}");
        assert_eq!(answer.notes, [unknown(to)], "{to}");
        assert_eq!(answer.verdict, Verdict::Allow, "{to}");
    }
    // Here it is known.
    let answer = explain(&node, "shop/client", "169.254.20.10", 53);
    assert_eq!((answer.to.identity, answer.verdict), (Some(Identity::HOST), Verdict::DefaultDeny));
    assert_eq!(answer.notes, [""; 0]);
    // The store says what others call it.
    node.yaml(
        "
apiVersion: sinew.io/v1
kind: SinewNode
metadata: {name: node}
spec: {cluster: default, id: 7, addresses: [172.17.0.1], podCIDRs: []}
",
    );
    let answer = explain(&node, "shop/far", "172.17.0.1", 53);
    assert_eq!((answer.to.identity, answer.notes.len()), (Some(Identity::REMOTE_NODE), 0));
}

#[test]
fn every_field_that_fails_is_told_and_no_rule_that_cannot_help() {
    let mut node = shop();
    node.apply([Event::NodeAddresses(vec!["192.168.0.1".parse().unwrap()])]);
    node.yaml(
        "
apiVersion: sinew.io/v1
kind: SinewNetworkPolicy
metadata: {name: elsewhere, namespace: blog}
spec:
  endpointSelector: {}
  ingress: [{}]
---
apiVersion: sinew.io/v1
kind: SinewNetworkPolicy
metadata: {name: range, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress: [{fromCIDR: [10.0.0.0/24]}, {fromCIDR: [192.168.0.0/24]}]
",
    );
    let answer = explain(&node, "blog/db", "shop/web", 443);
    let near = &answer.directions[1].near;
    assert!(near.iter().all(|miss| !format!("{:?}", miss.rule.cause).contains("blog")), "{near:?}");
    let of_web: Vec<(&str, &str)> = near
        .iter()
        .filter(|miss| format!("{:?}", miss.rule.cause).contains("\"web\""))
        .map(|miss| (miss.field.as_str(), miss.found.as_str()))
        .collect();
    assert_eq!(
        of_web,
        [("spec.ingress[0].fromEndpoints[0]", "app=db"), ("spec.ingress[0].toPorts[0].ports[0]", "443/TCP")]
    );

    node.yaml(
        "
apiVersion: v1
kind: Pod
metadata: {name: there, namespace: shop, labels: {app: web}}
spec: {nodeName: elsewhere}
---
apiVersion: sinew.io/v1
kind: SinewNode
metadata: {name: node}
spec: {cluster: default, id: 7, addresses: [192.168.0.1], podCIDRs: []}
",
    );
    let answer = explain(&node, "192.168.0.1", "shop/there", 443);
    let near = &answer.directions[0].near;
    let said: Vec<(&str, &str)> =
        near.iter().take(2).map(|miss| (miss.wanted.as_str(), miss.found.as_str())).collect();
    assert_eq!(
        said,
        [
            ("10.0.0.0/24", "192.168.0.1"),
            ("192.168.0.0/24", "192.168.0.1, a node, which this CIDR does not reach")
        ]
    );
}

/// Of the entity and of the identity one address is judged, which is said where a CIDR tells it from the others.
#[test]
fn of_several_addresses_that_cidrs_tell_apart_one_is_judged_and_that_is_said() {
    let mut node = shop();
    node.yaml(
        "
apiVersion: sinew.io/v1
kind: SinewNode
metadata: {name: other}
spec: {cluster: default, id: 7, addresses: [192.168.0.2, 192.168.0.3, '2001:db8:1::3'], podCIDRs: []}
",
    );
    node.pod("shop/client-2", "app=client");
    let number = explain(&node, "shop/client", "shop/web", 80).from.identity.unwrap().to_string();
    let notes = |node: &Node, from: &str| explain(node, from, "shop/web", 80).notes;
    assert_eq!((notes(&node, "remote-node"), notes(&node, &number)), (vec![], vec![]));
    node.yaml(
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: one, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{ipBlock: {cidr: 192.168.0.3/32}}, {ipBlock: {cidr: 10.0.0.2/32}}]}]
",
    );
    let said = |name: &str, address: &str| {
        vec![format!(
            "{name} has several addresses, and CIDRs tell them apart: what stands here is said of {address}; ask for an \
             address to hear of another"
        )]
    };
    assert_eq!(notes(&node, "remote-node"), said("remote-node", "192.168.0.2"));
    assert_eq!(notes(&node, &number), said(&number, "10.0.0.2"));
    for one in ["192.168.0.3", "shop/client-2"] {
        assert_eq!(notes(&node, one), [""; 0], "{one}");
    }
}

/// A host or a node that is the API server too matches rules for either.
#[test]
fn what_comes_near_knows_every_label_of_an_entity() {
    let mut config = sinew_engine::Config::new("node", "default");
    config.kube_apiserver = Some(vec!["192.168.0.1".parse().unwrap()]);
    let mut node = Node::unsynced(config);
    node.apply([Event::Synced, Event::NodeAddresses(vec!["192.168.0.1".parse().unwrap()])]);
    node.pod("shop/web", "app=web");
    node.yaml(
        "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: out, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: web}}
  egress:
  - toEndpoints: [{matchExpressions: [{key: 'reserved:kube-apiserver', operator: Exists}]}]
    toPorts: [{ports: [{port: '6443', protocol: TCP}]}]
",
    );
    for host in ["host", "1", "192.168.0.1"] {
        assert_eq!(explain(&node, "shop/web", host, 6443).verdict, Verdict::Allow, "{host}");
        let answer = explain(&node, "shop/web", host, 80);
        let near: Vec<&str> = answer.directions[0].near.iter().map(|miss| miss.field.as_str()).collect();
        assert_eq!(near, ["spec.egress[0].toPorts[0].ports[0]"], "{host}");
    }
}

/// Type 0 of ICMP is an answer to an echo, and no sign of what all types may.
#[test]
fn icmp_without_a_type_is_no_type_that_a_rule_names() {
    let mut node = shop();
    node.yaml(
        "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress: [{icmps: [{fields: [{family: IPv4, type: 0}, {family: IPv6, type: 0}]}]}]
",
    );
    for protocol in [1, 58] {
        let ask = |port| {
            let (from, to) = (Party::parse("shop/client"), Party::parse("shop/web"));
            node.engine.explain(&Query { from, to, protocol: Some(protocol), port, family: None }).unwrap()
        };
        assert_eq!((ask(Some(0)).verdict, ask(Some(8)).verdict), (Verdict::Allow, Verdict::DefaultDeny));
        let answer = ask(None);
        assert_eq!(answer.verdict, Verdict::DefaultDeny, "{protocol}");
        let told = answer.exceptions.iter().map(|one| (one.protocol, one.first, one.last, one.verdict));
        assert_eq!(told.collect::<Vec<_>>(), [(protocol, 0, 0, Verdict::Allow)]);
    }
}

/// A policy for an endpoint of no namespace is clusterwide, and opens its peer's namespace only.
#[test]
fn the_suggestion_for_an_end_without_a_namespace_names_that_of_the_peer() {
    let mut node = Node::new();
    node.pod("shop/client", "app=client");
    node.pod("blog/client", "app=client");
    node.yaml(
        "
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: closed}
spec: {endpointSelector: {matchLabels: {'cni:app': bare}}, ingress: [{}]}
",
    );
    let answer = explain(&node, "shop/client", "cni:app=bare", 80);
    assert_eq!(answer.verdict, Verdict::DefaultDeny);
    assert!(answer.suggestion.contains("kind: SinewClusterwideNetworkPolicy"), "{}", answer.suggestion);
    let wanted = "fromEndpoints: [{matchLabels: {\"k8s:io.kubernetes.pod.namespace\": shop, app: client}}]";
    assert!(answer.suggestion.contains(wanted), "{}", answer.suggestion);
    let objects = decode_text("suggested.yaml", &answer.suggestion);
    node.apply(objects.into_iter().map(|object| Event::from(object.unwrap())).collect::<Vec<_>>());
    assert_eq!(explain(&node, "shop/client", "cni:app=bare", 80).verdict, Verdict::Allow);
    assert_eq!(explain(&node, "blog/client", "cni:app=bare", 80).verdict, Verdict::DefaultDeny);
}
