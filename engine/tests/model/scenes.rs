//! Small stories with hand-worked ends.

use sinew_api::identity::Identity;
use sinew_engine::{Change, EndpointId, Event};

use crate::node::{Node, UDP};

const ALLOW_CLIENT: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts: [{ports: [{port: '80', protocol: TCP}]}]
";

#[test]
fn a_policy_closes_what_it_selects_and_opens_what_it_names() {
    let mut node = Node::new();
    node.pod("shop/web", "app=web");
    node.pod("shop/client", "app=client");
    node.pod("shop/other", "app=other");
    assert_eq!(node.connect("shop/other", "shop/web", 80), "allowed");
    node.yaml(ALLOW_CLIENT);
    assert_eq!(node.connect("shop/client", "shop/web", 80), "allowed");
    assert_eq!(node.connect("shop/client", "shop/web", 81), "ingress: default deny by cnp/shop/web");
    assert_eq!(node.send("shop/client", "shop/web", UDP, 80), "ingress: default deny by cnp/shop/web");
    assert_eq!(node.connect("shop/other", "shop/web", 80), "ingress: default deny by cnp/shop/web");
    assert_eq!(node.connect("8.8.8.8", "shop/web", 80), "ingress: default deny by cnp/shop/web");
    assert_eq!(node.connect("shop/web", "shop/other", 80), "allowed");
}

#[test]
fn a_deny_rule_outranks_every_allow() {
    let mut node = Node::new();
    node.pod("shop/web", "app=web");
    node.pod("shop/client", "app=client");
    node.yaml(ALLOW_CLIENT);
    node.yaml(
        "
apiVersion: sinew.io/v1
kind: SinewNetworkPolicy
metadata: {name: never, namespace: shop}
spec:
  endpointSelector: {}
  ingressDeny: [{fromEntities: [cluster], toPorts: [{ports: [{port: '64', endPort: 127, protocol: TCP}]}]}]
",
    );
    assert_eq!(node.connect("shop/client", "shop/web", 80), "ingress: snp/shop/never spec.ingressDeny[0]");
}

#[test]
fn networkpolicy_knows_addresses_of_pods_and_cilium_does_not() {
    let mut node = Node::new();
    node.pod("shop/web", "app=web");
    node.pod("shop/client", "app=client");
    let policy = |kind: &str, field: &str| {
        let (version, selector) = match kind {
            "NetworkPolicy" => ("networking.k8s.io/v1", "podSelector"),
            _ => ("cilium.io/v2", "endpointSelector"),
        };
        format!(
            "
apiVersion: {version}
kind: {kind}
metadata: {{name: out, namespace: shop}}
spec:
  {selector}: {{matchLabels: {{app: client}}}}
  egress: [{field}]
"
        )
    };
    node.yaml(&policy("CiliumNetworkPolicy", "{toCIDRSet: [{cidr: 0.0.0.0/0, except: [192.0.2.0/24]}]}"));
    assert_eq!(node.connect("shop/client", "8.8.8.8", 443), "allowed");
    assert_eq!(node.connect("shop/client", "192.0.2.7", 443), "egress: default deny by cnp/shop/out");
    assert_eq!(node.connect("shop/client", "shop/web", 443), "egress: default deny by cnp/shop/out");
    assert_eq!(node.connect("shop/client", "2001:db8::1", 443), "egress: default deny by cnp/shop/out");
    node.yaml(
        &(policy("NetworkPolicy", "{to: [{ipBlock: {cidr: 10.0.0.0/8}}]}") + "  policyTypes: [Egress]\n"),
    );
    assert_eq!(node.connect("shop/client", "shop/web", 443), "allowed");
}

#[test]
fn an_endpoint_without_labels_may_do_nothing() {
    let mut node = Node::new();
    node.pod("shop/web", "app=web");
    node.apply([Event::EndpointCreated(sinew_engine::LocalEndpoint {
        id: EndpointId(9),
        container_id: "late".to_owned(),
        ifname: "eth0".to_owned(),
        pod_namespace: "shop".to_owned(),
        pod_name: "late".to_owned(),
        pod_uid: String::new(),
        labels: [].into(),
        addresses: vec!["10.0.0.9".parse().unwrap()],
        found: None,
    })]);
    let late = node.kernel.endpoints[&EndpointId(9)].1.clone();
    assert_eq!(late.entries.len(), 2);
    assert_eq!(node.connect("10.0.0.9", "shop/web", 80), "allowed");
    node.label("shop/late", "app=late");
    assert_ne!(node.kernel.endpoints[&EndpointId(9)].1, late);
}

#[test]
fn a_new_pod_takes_no_labels_of_an_older_one_of_its_name() {
    let mut node = Node::new();
    node.pod("shop/web", "app=web");
    node.yaml(ALLOW_CLIENT);
    let say = |node: &mut Node, uid: &str, app: &str| {
        node.yaml(&format!(
            "apiVersion: v1\nkind: Pod\n\
             metadata: {{namespace: shop, name: db-0, uid: {uid:?}, labels: {{app: {app}}}}}\n"
        ));
        node.finish_relabels();
    };
    let add = |node: &mut Node, number: u16, uid: &str| {
        let address = format!("10.0.0.{number}");
        node.apply([Event::EndpointCreated(sinew_engine::LocalEndpoint {
            id: EndpointId(number),
            container_id: format!("c{number}"),
            ifname: "eth0".to_owned(),
            pod_namespace: "shop".to_owned(),
            pod_name: "db-0".to_owned(),
            pod_uid: uid.to_owned(),
            labels: [].into(),
            addresses: vec![address.parse().unwrap()],
            found: None,
        })]);
        address
    };
    let denied = "ingress: default deny by cnp/shop/web";
    say(&mut node, "old", "client");
    let old = add(&mut node, 7, "old");
    let new = add(&mut node, 8, "new");
    let unnamed = add(&mut node, 9, "");
    assert_eq!(node.connect(&old, "shop/web", 80), "allowed");
    assert_eq!(node.connect(&unnamed, "shop/web", 80), "allowed", "a runtime that gives no uid");
    assert_eq!(node.connect(&new, "shop/web", 80), denied);
    assert_eq!(node.kernel.identity_of(new.parse().unwrap()), Identity::INIT);
    // Its own object labels it, and nobody who was there before it.
    say(&mut node, "new", "client");
    assert_eq!(node.connect(&new, "shop/web", 80), "allowed");
    say(&mut node, "new", "stranger");
    assert_eq!(node.connect(&new, "shop/web", 80), denied);
    assert_eq!(node.connect(&old, "shop/web", 80), "allowed", "it keeps what it had");
    assert_eq!(node.connect(&unnamed, "shop/web", 80), denied);
    // An object without a uid, as people write them, is everybody's of the name.
    say(&mut node, "", "client");
    assert_eq!(node.connect(&new, "shop/web", 80), "allowed");
    say(&mut node, "", "stranger");
    assert_eq!(node.connect(&old, "shop/web", 80), denied);
}

#[test]
fn a_relabel_keeps_the_old_identity_until_everybody_knows_the_new_one() {
    let mut node = Node::new();
    let web = node.pod("shop/web", "app=web");
    node.pod("shop/client", "app=client");
    node.yaml(ALLOW_CLIENT);
    let before = node.kernel.identity_of(node.address("shop/web"));
    node.label("shop/web", "app=free");
    assert_eq!(node.kernel.identity_of(node.address("shop/web")), before);
    // Default deny still holds, and what the old labels allow is not yet more.
    assert_eq!(node.connect("8.8.8.8", "shop/web", 80), "ingress: default deny by cnp/shop/web");
    assert_eq!(node.connect("shop/client", "shop/web", 80), "allowed");
    let (endpoint, identity) = node.announced[0];
    assert_eq!(endpoint, web);
    node.apply([Event::RelabelDone(endpoint, identity)]);
    assert_eq!(node.kernel.identity_of(node.address("shop/web")), identity);
    assert_eq!(node.connect("8.8.8.8", "shop/web", 80), "allowed");
}

#[test]
fn a_number_may_be_used_again_in_one_batch() {
    let mut node = Node::new();
    let web = node.pod("shop/web", "app=web");
    let again = sinew_engine::LocalEndpoint {
        id: web,
        container_id: "again".to_owned(),
        ifname: "eth0".to_owned(),
        pod_namespace: "shop".to_owned(),
        pod_name: "web".to_owned(),
        pod_uid: String::new(),
        labels: [].into(),
        addresses: vec!["10.0.0.77".parse().unwrap()],
        found: None,
    };
    let changes = node.apply([Event::EndpointRemoved(web), Event::EndpointCreated(again)]);
    assert_eq!(changes[0], Change::EndpointClosed(web));
    assert!(node.kernel.endpoints.contains_key(&web));
    assert!(!node.kernel.addresses.contains_key(&"10.0.0.1".parse().unwrap()));
    assert!(node.kernel.addresses.contains_key(&"10.0.0.77".parse().unwrap()));
}

#[test]
fn a_policy_knows_since_when_it_is_in_force() {
    let mut node = Node::new();
    node.pod("shop/web", "app=web");
    node.yaml(ALLOW_CLIENT);
    let since = node.engine.snapshot().policies.values().next().unwrap().revision;
    assert_eq!(since, node.kernel.revision);
    node.pod("shop/client", "app=client");
    assert!(node.kernel.revision > since);
    assert_eq!(node.engine.snapshot().policies.values().next().unwrap().revision, since);
}

#[test]
fn an_endpoint_closes_before_its_address_leaves() {
    let mut node = Node::new();
    let web = node.pod("shop/web", "app=web");
    let address = node.address("shop/web");
    let changes = node.apply([Event::EndpointRemoved(web)]);
    let at = |wanted: &Change| changes.iter().position(|change| change == wanted);
    assert_eq!(at(&Change::EndpointClosed(web)), Some(0));
    assert!(at(&Change::IpcacheDelete(address)) > at(&Change::EndpointClosed(web)));
    assert!(at(&Change::Generation) > at(&Change::IpcacheDelete(address)));
}
