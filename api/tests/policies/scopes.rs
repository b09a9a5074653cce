//! The scope of selectors, policy.md 3: which namespace a selector means when it names none.

use super::brief;
use sinew_api::object::decode_text;

/// The selector of a policy's subject and of its one peer.
fn subject_and_peer(kind: &str, subject: &str, peer: &str) -> (String, String) {
    let text = format!(
        "apiVersion: cilium.io/v2\nkind: {kind}\nmetadata: {{name: p{}}}\nspec:\n  endpointSelector: {{{subject}}}\n  ingress: [{{fromEndpoints: [{{{peer}}}]}}]\n",
        if kind == "CiliumNetworkPolicy" { ", namespace: shop" } else { "" }
    );
    let lines = brief::object(&decode_text("p.yaml", &text).remove(0));
    let subject = lines[1].strip_prefix("select ").and_then(|line| line.strip_suffix(", deny ingress"));
    let peer =
        lines[2].strip_prefix("allow spec.ingress[0] from ").and_then(|line| line.strip_suffix(" on all"));
    (
        subject.unwrap_or_else(|| panic!("{lines:?}")).to_owned(),
        peer.unwrap_or_else(|| panic!("{lines:?}")).to_owned(),
    )
}

fn namespaced_peer(labels: &str) -> String {
    subject_and_peer("CiliumNetworkPolicy", "", &format!("matchLabels: {{{labels}}}")).1
}

fn clusterwide_peer(labels: &str) -> String {
    subject_and_peer("CiliumClusterwideNetworkPolicy", "", &format!("matchLabels: {{{labels}}}")).1
}

#[test]
fn a_peer_is_in_the_namespace_of_its_policy() {
    assert_eq!(namespaced_peer("app: a"), "app=a & ns=shop");
    assert_eq!(namespaced_peer("\"k8s:app\": a"), "k8s:app=a & ns=shop");
    assert_eq!(namespaced_peer("\"any:app\": a"), "app=a & ns=shop");
    assert_eq!(namespaced_peer("\"cni:app\": a"), "cni:app=a & ns=shop");
}

#[test]
fn a_peer_that_names_a_namespace_is_there() {
    assert_eq!(namespaced_peer("\"k8s:io.kubernetes.pod.namespace\": other, app: a"), "app=a & ns=other");
    assert_eq!(
        namespaced_peer("io.kubernetes.pod.namespace: other"),
        "io.kubernetes.pod.namespace=other",
        "without a source it is of any"
    );
    assert_eq!(
        namespaced_peer("\"k8s:io.cilium.k8s.namespace.labels.team\": red"),
        "k8s:io.cilium.k8s.namespace.labels.team=red"
    );
    let expression = "matchExpressions: [{key: \"k8s:io.kubernetes.pod.namespace\", operator: Exists}]";
    assert_eq!(subject_and_peer("CiliumNetworkPolicy", "", expression).1, "ns");
}

#[test]
fn a_peer_that_is_not_in_some_namespace_is_in_another() {
    for kind in ["CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"] {
        let peer = |key: &str, operator: &str| {
            subject_and_peer(kind, "", &format!("matchExpressions: [{{key: \"{key}\", {operator}}}]")).1
        };
        let (name, label) = ("io.kubernetes.pod.namespace", "io.cilium.k8s.namespace.labels.team");
        let not = "operator: NotIn, values: [x]";
        for key in [name.to_owned(), format!("k8s:{name}"), label.to_owned(), format!("k8s:{label}")] {
            assert!(peer(&key, not).split(" & ").any(|it| it == "ns"), "{kind} {key}: {}", peer(&key, not));
        }
        let none = peer(label, "operator: DoesNotExist");
        assert!(none.split(" & ").any(|it| it == "ns"), "{kind}: {none}");
        // Who asks for what has no namespace gets it.
        assert!(!peer(name, "operator: DoesNotExist").contains(" & "), "{kind}");
        assert!(!peer(name, "operator: In, values: [x]").contains(" & "), "{kind}");
    }
}

#[test]
fn a_reserved_peer_is_in_no_namespace() {
    assert_eq!(namespaced_peer("\"reserved:host\": \"\""), "reserved:host");
    assert_eq!(namespaced_peer("reserved.host: \"\""), "reserved:host");
    assert_eq!(clusterwide_peer("\"reserved:remote-node\": \"\""), "reserved:remote-node");
}

#[test]
fn a_clusterwide_peer_has_some_namespace() {
    assert_eq!(clusterwide_peer("app: a"), "app=a & ns");
    assert_eq!(clusterwide_peer("\"k8s:io.kubernetes.pod.namespace\": other"), "ns=other");
    assert_eq!(
        clusterwide_peer("\"k8s:io.cilium.k8s.namespace.labels.team\": red"),
        "k8s:io.cilium.k8s.namespace.labels.team=red & ns"
    );
}

#[test]
fn peers_of_endpoints_without_labels_need_no_namespace() {
    let (subject, peer) = subject_and_peer(
        "CiliumClusterwideNetworkPolicy",
        "matchLabels: {\"reserved:init\": \"\"}",
        "matchLabels: {app: a}",
    );
    assert_eq!((subject.as_str(), peer.as_str()), ("reserved:init", "app=a"));
}

#[test]
fn a_subject_never_leaves_its_namespace() {
    let subject = |labels: &str| subject_and_peer("CiliumNetworkPolicy", labels, "").0;
    assert_eq!(subject(""), "ns=shop");
    assert_eq!(
        subject("matchLabels: {\"k8s:io.kubernetes.pod.namespace\": shop, app: a}"),
        "app=a & ns=shop"
    );
    assert_eq!(
        subject("matchLabels: {\"k8s:io.kubernetes.pod.namespace\": other, app: a}"),
        "app=a & ns=shop"
    );
    assert_eq!(
        subject("matchExpressions: [{key: \"k8s:io.kubernetes.pod.namespace\", operator: Exists}]"),
        "ns & ns=shop"
    );
    assert_eq!(subject("matchLabels: {\"reserved:init\": \"\"}"), "reserved:init & ns=shop");
    let clusterwide = |labels: &str| subject_and_peer("CiliumClusterwideNetworkPolicy", labels, "").0;
    assert_eq!(clusterwide(""), "*");
    assert_eq!(clusterwide("matchLabels: {app: a}"), "app=a");
}

#[test]
fn a_subject_that_cannot_be_as_written_is_warned_of() {
    let warnings = |labels: &str| {
        let text = format!(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p}}\nspec:\n  endpointSelector: {{matchLabels: {{{labels}}}}}\n  ingress: [{{}}]\n"
        );
        let lines = brief::object(&decode_text("p.yaml", &text).remove(0));
        lines.into_iter().filter(|line| line.starts_with("warning")).collect::<Vec<_>>()
    };
    assert_eq!(
        warnings("\"k8s:io.kubernetes.pod.namespace\": other"),
        [
            "warning spec.endpointSelector: names another namespace; the policy selects in its own, \"default\""
        ]
    );
    assert_eq!(warnings("\"k8s:io.kubernetes.pod.namespace\": default"), [""; 0]);
    // A plain key is of any source, that one too.
    assert!(warnings("io.kubernetes.pod.namespace: other")[0].contains("names another namespace"));
    assert_eq!(warnings("io.kubernetes.pod.namespace: default"), [""; 0]);
    assert!(
        warnings("\"reserved:init\": \"\"")[0].starts_with("warning spec.endpointSelector: selects nothing")
    );
    assert!(warnings("\"container:app\": a")[0].contains("no label has source \"container\""));
    assert!(warnings("\"reserved:host\": x")[0].contains("reserved labels have an empty value"));
}
