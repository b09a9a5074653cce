//! Which labels a pod's identity has.

use std::collections::BTreeMap;

use super::{LabelFilter, Labels};
use crate::object::{Namespace, Object, Pod, decode_text};

fn pod(labels: &str) -> Pod {
    let text =
        format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: p, namespace: shop, labels: {{{labels}}}}}\n");
    match decode_text("pod.yaml", &text).remove(0).unwrap() {
        Object::Pod(pod) => pod,
        other => panic!("{other:?}"),
    }
}

fn namespace(labels: &[(&str, &str)]) -> Namespace {
    let mut namespace = Namespace::bare("shop");
    namespace.labels.extend(labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    namespace
}

fn of(labels: &str) -> Vec<String> {
    Labels::of_pod(&pod(labels), &namespace(&[("team", "a")]), "default", &LabelFilter::default())
        .to_strings()
}

#[test]
fn a_pod_without_labels_has_namespace_account_and_cluster() {
    assert_eq!(
        of(""),
        [
            "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=shop",
            "k8s:io.cilium.k8s.namespace.labels.team=a",
            "k8s:io.cilium.k8s.policy.cluster=default",
            "k8s:io.cilium.k8s.policy.serviceaccount=default",
            "k8s:io.kubernetes.pod.namespace=shop",
        ]
    );
}

#[test]
fn labels_that_differ_from_pod_to_pod_are_left_out() {
    let all = "app: web, app.kubernetes.io/name: web, kubernetes.io/x: z, pod-template-hash: abc, \
               controller-revision-hash: abc, statefulset.kubernetes.io/pod-name: web-0, topology.kubernetes.io/zone: z, \
               batch.kubernetes.io/controller-uid: u, node.beta.kubernetes.io/x: z, k8s.io/x: z, etcd_node: z, io.kubernetes.x: z";
    let own: Vec<_> = of(all).into_iter().filter(|label| !label.starts_with("k8s:io.")).collect();
    assert_eq!(own, ["k8s:app=web", "k8s:app.kubernetes.io/name=web"]);
}

#[test]
fn a_pod_cannot_give_itself_the_labels_of_another_namespace() {
    let forged = "io.kubernetes.pod.namespace: kube-system, io.cilium.k8s.namespace.labels.team: b, \
                  io.cilium.k8s.namespace.labels.admin: \"true\", io.cilium.k8s.policy.cluster: other, \
                  io.cilium.k8s.policy.serviceaccount: root, io.cilium.k8s.policy.name: p, \
                  io.kubernetes.pod.namespaces: kube-system";
    assert_eq!(of(forged), of(""));
}

#[test]
fn a_pattern_to_keep_leaves_out_whatever_none_keeps() {
    let filter = LabelFilter::with_patterns(&["k8s:app$"]).unwrap();
    assert!(filter.keeps("k8s", "app"));
    assert!(!filter.keeps("k8s", "tier"));
    assert!(!filter.keeps("cni", "app"));
    assert!(filter.keeps("reserved", "host"));
    assert!(filter.keeps("k8s", "io.cilium.k8s.namespace.labels.team"));
}

#[test]
fn the_longer_match_decides() {
    let filter = LabelFilter::with_patterns(&["!foo", r"foo\.bar"]).unwrap();
    assert!(filter.keeps("k8s", "foo.bar"));
    assert!(!filter.keeps("k8s", "foo.baz"));
    let filter = LabelFilter::with_patterns(&["any:!build-id"]).unwrap();
    assert!(!filter.keeps("k8s", "build-id"));
    assert!(filter.keeps("k8s", "app"), "a pattern to leave out says nothing of others");
}

#[test]
fn a_pattern_that_is_none_is_named() {
    let wrong = LabelFilter::with_patterns(&["k8s:!"]).unwrap_err();
    assert_eq!(wrong.to_string(), "label pattern \"k8s:!\": is empty");
    assert!(LabelFilter::with_patterns(&["("]).is_err());
}

#[test]
fn labels_of_the_cni_configuration_have_their_own_source() {
    let given = BTreeMap::from([
        ("app".to_owned(), "vm".to_owned()),
        ("pod-template-hash".to_owned(), "x".to_owned()),
    ]);
    assert_eq!(Labels::of_cni(&given, &LabelFilter::default()).to_strings(), ["cni:app=vm"]);
}

#[test]
fn the_cni_configuration_cannot_name_a_namespace() {
    let forged = [
        "io.kubernetes.pod.namespace",
        "io.kubernetes.pod.namespace=kube-system",
        "io.cilium.k8s.namespace.labels.team",
        "io.cilium.k8s.policy.cluster",
        "io.cilium.k8s.policy.serviceaccount",
    ];
    let given = forged.map(|key| (key.to_owned(), "kube-system".to_owned())).into();
    assert_eq!(Labels::of_cni(&given, &LabelFilter::default()), Labels::new());
    // A source is no part of a key: this is a label of source `cni` with an odd name.
    let given = BTreeMap::from([("reserved:host".to_owned(), String::new())]);
    let odd = Labels::of_cni(&given, &LabelFilter::default());
    assert_eq!(odd.get("reserved", "host"), None);
    let read: Labels = serde_json::from_str(&serde_json::to_string(&odd).unwrap()).unwrap();
    assert_eq!(read, odd);
}

#[test]
fn labels_are_written_as_strings_and_read_again() {
    let labels = Labels::of_pod(&pod("app: web, empty: \"\""), &namespace(&[]), "c", &LabelFilter::default());
    let json = serde_json::to_string(&labels).unwrap();
    assert_eq!(serde_json::from_str::<Labels>(&json).unwrap(), labels);
    for wrong in ["[\"app=web\"]", "[\":a=b\"]", "[\"k8s:=b\"]", "{}"] {
        assert!(serde_json::from_str::<Labels>(wrong).is_err(), "{wrong}");
    }
}
