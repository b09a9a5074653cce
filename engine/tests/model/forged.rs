//! What a pod says of itself gives it nothing that only its namespace, its node or the cluster may give.

use std::net::IpAddr;

use sinew_engine::{EndpointId, Event, LocalEndpoint};

use crate::node::Node;

const DENIED: &str = "ingress: default deny by netpol/shop/from-sales";

/// A namespace of team sales and one of no team, each with a pod, and a policy for pods of sales alone.
fn node() -> Node {
    let mut node = Node::new();
    node.yaml("apiVersion: v1\nkind: Namespace\nmetadata: {name: sales, labels: {team: sales}}\n");
    node.yaml("apiVersion: v1\nkind: Namespace\nmetadata: {name: evil}\n");
    node.pod("shop/web", "app=web");
    node.pod("sales/clerk", "app=clerk");
    node.yaml(
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: from-sales, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
  - from: [{namespaceSelector: {matchLabels: {team: sales}}}]
",
    );
    node
}

/// CVE-2023-39347 of Cilium: whoever may label a pod forged the labels of its namespace.
#[test]
fn cve_2023_39347_a_pod_has_no_say_in_its_namespaces_labels() {
    let mut node = node();
    assert_eq!(node.connect("sales/clerk", "shop/web", 80), "allowed");
    node.pod("evil/pod", "app=clerk");
    assert_eq!(node.connect("evil/pod", "shop/web", 80), DENIED);
    let honest = node.engine.snapshot().endpoints[&EndpointId(3)].labels.clone();
    for forged in [
        "io.cilium.k8s.namespace.labels.team=sales",
        "io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=sales",
        "io.kubernetes.pod.namespace=sales",
        "io.cilium.k8s.policy.cluster=other",
        "io.cilium.k8s.policy.serviceaccount=root",
        "io.cilium.k8s.policy.name=from-sales",
    ] {
        node.label("evil/pod", &format!("app=clerk, {forged}"));
        node.finish_relabels();
        assert_eq!(node.connect("evil/pod", "shop/web", 80), DENIED, "{forged}");
        assert_eq!(node.engine.snapshot().endpoints[&EndpointId(3)].labels, honest, "{forged}");
    }
    // What the namespace's owner says holds, whatever the pod says.
    node.label("sales/clerk", "io.cilium.k8s.namespace.labels.team=other");
    node.finish_relabels();
    assert_eq!(node.connect("sales/clerk", "shop/web", 80), "allowed");
}

/// A namespace whose object can't be understood is not one without labels: a rule for everybody but sales would let its
/// pods in.
#[test]
fn a_namespace_that_was_never_valid_is_not_one_without_labels() {
    let mut node = node();
    node.yaml(
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: not-from-sales, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
  - from: [{namespaceSelector: {matchExpressions: [{key: team, operator: NotIn, values: [sales]}]}}]
",
    );
    let refused =
        |names: &[&str]| Event::NamespacesRefused(names.iter().map(|name| (*name).into()).collect());
    let labels = |node: &mut Node| node.engine.snapshot().endpoints[&EndpointId(3)].labels.to_strings();
    node.apply([refused(&["broken"])]);
    node.pod("broken/pod", "app=clerk");
    assert_eq!(labels(&mut node), ["reserved:init"]);
    assert_ne!(node.connect("broken/pod", "shop/web", 80), "allowed");
    // It is taken away: now there is none, and a pod's word that it is there is enough.
    node.apply([refused(&[])]);
    assert_eq!(node.connect("broken/pod", "shop/web", 80), "allowed");
    // It comes back, and the pod keeps what it is until its namespace can be read.
    node.apply([refused(&["broken"])]);
    let before = labels(&mut node);
    assert!(before.contains(&"k8s:app=clerk".to_owned()), "{before:?}");
    node.label("broken/pod", "app=other");
    node.finish_relabels();
    assert_eq!(labels(&mut node), before);
    // A refused edit of one that was valid changes nothing for its pods.
    node.apply([refused(&["broken", "sales"])]);
    node.label("sales/clerk", "app=other");
    node.finish_relabels();
    assert_eq!(node.connect("sales/clerk", "shop/web", 80), "allowed");
    // It is mended, and says what was feared.
    node.yaml("apiVersion: v1\nkind: Namespace\nmetadata: {name: broken, labels: {team: sales}}\n");
    node.finish_relabels();
    assert!(labels(&mut node).contains(&"k8s:app=other".to_owned()));
}

/// A plain key in the Cilium schema is of any source, that of `args.cni.labels` too.
#[test]
fn a_cni_configuration_has_no_say_in_namespaces() {
    let mut node = node();
    node.yaml(
        "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: by-any, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress:
  - fromEndpoints:
    - matchLabels: {io.cilium.k8s.namespace.labels.team: sales}
    - matchLabels: {io.kubernetes.pod.namespace: sales}
",
    );
    assert_eq!(node.connect("sales/clerk", "shop/web", 80), "allowed");
    let address: IpAddr = "10.0.0.200".parse().unwrap();
    let labels = [("io.cilium.k8s.namespace.labels.team", "sales"), ("io.kubernetes.pod.namespace", "sales")];
    node.apply([Event::EndpointCreated(LocalEndpoint {
        id: EndpointId(200),
        container_id: "podless".to_owned(),
        ifname: "eth0".to_owned(),
        pod_namespace: String::new(),
        pod_name: String::new(),
        pod_uid: String::new(),
        labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        addresses: vec![address],
        found: None,
    })]);
    let closed = "ingress: default deny by cnp/shop/by-any, netpol/shop/from-sales";
    assert_eq!(node.connect("10.0.0.200", "shop/web", 80), closed);
    let unmanaged = node.engine.snapshot().endpoints[&EndpointId(200)].labels.to_strings();
    assert_eq!(unmanaged, ["reserved:unmanaged"], "nothing is left of what it says");
}
