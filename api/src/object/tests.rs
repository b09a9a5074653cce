//! Objects of every kind but policies, which `api/tests/policies` has.

use std::net::IpAddr;

use super::{
    AllocatedIdentity, Endpoint, NamedPort, Namespace, Node, NodeStatus, Object, ObjectKind, Origin, Pod,
    PodPhase, PolicyKind, PolicyName, Refused, Routing, Workload, decode_bytes, decode_text, policy_digest,
};
use crate::identity::Identity;
use crate::labels::Labels;
use crate::policy::Protocol;

#[allow(clippy::result_large_err, reason = "as in decode.rs")]
fn one(text: &str) -> Result<Object, Refused> {
    let mut read = decode_text("a.yaml", text);
    assert_eq!(read.len(), 1, "{text}");
    read.remove(0)
}

fn pod(text: &str) -> Pod {
    match one(text) {
        Ok(Object::Pod(pod)) => pod,
        other => panic!("{other:?}"),
    }
}

fn problems(text: &str) -> Vec<String> {
    one(text).unwrap_err().problems.iter().map(ToString::to_string).collect()
}

#[test]
fn a_pod_as_an_api_server_writes_it() {
    let pod = pod("\
apiVersion: v1
kind: Pod
metadata:
  name: web-6b7f675ff8-x2x4z
  generateName: web-6b7f675ff8-
  namespace: shop
  uid: 0d9cd8c4-0f5e-4f34-8b4e-9c3f0a2d1e5f
  resourceVersion: \"1\"
  labels: {app: web, pod-template-hash: 6b7f675ff8}
  ownerReferences:
    - {apiVersion: apps/v1, kind: ReplicaSet, name: web-6b7f675ff8, uid: u, controller: true, blockOwnerDeletion: true}
  someFutureField: {a: 1}
spec:
  serviceAccountName: shopkeeper
  serviceAccount: shopkeeper
  nodeName: n1
  hostNetwork: false
  tolerations: [{key: x, operator: Exists}]
  initContainers:
    - {name: setup, image: i, ports: [{name: once, containerPort: 1}]}
    - {name: mesh, image: i, restartPolicy: Always, ports: [{name: admin, containerPort: 15000}]}
  containers:
    - name: web
      image: i
      ports:
        - {name: http, containerPort: 8080, protocol: TCP}
        - {name: dns, containerPort: 53, protocol: UDP}
        - {containerPort: 9000}
status:
  phase: Running
  podIP: 10.1.0.7
  podIPs: [{ip: 10.1.0.7}, {ip: \"fd00:1::7\"}]
  conditions: [{type: Ready, status: \"True\"}]
");
    let port = |name: &str, protocol, port| NamedPort { name: name.to_owned(), protocol, port };
    assert_eq!(
        pod.ports,
        [
            port("http", Protocol::Tcp, 8080),
            port("dns", Protocol::Udp, 53),
            port("admin", Protocol::Tcp, 15000)
        ],
        "an init container that ends has no port to reach, a sidecar has"
    );
    let addresses: [IpAddr; 2] = ["10.1.0.7".parse().unwrap(), "fd00:1::7".parse().unwrap()];
    assert_eq!(pod.addresses, addresses);
    assert_eq!(pod.workload, Some(Workload { kind: "Deployment".into(), name: "web".into() }));
    assert_eq!(
        (pod.namespace.as_str(), pod.service_account.as_str(), pod.node.as_str()),
        ("shop", "shopkeeper", "n1")
    );
    assert_eq!((pod.phase, pod.terminating, pod.host_network), (Some(PodPhase::Running), false, false));
    assert_eq!(pod.uid, "0d9cd8c4-0f5e-4f34-8b4e-9c3f0a2d1e5f");
}

#[test]
fn a_static_pod_has_the_uid_that_its_kubelet_gives_it() {
    let mirror = |annotations: &str| {
        let metadata = format!("{{name: proxy-n1, uid: of-the-object, annotations: {annotations}}}");
        pod(&format!("apiVersion: v1\nkind: Pod\nmetadata: {metadata}\n")).uid
    };
    assert_eq!(mirror("{kubernetes.io/config.mirror: 1f6c0ad5}"), "1f6c0ad5");
    assert_eq!(mirror("{kubernetes.io/config.hash: 1f6c0ad5}"), "of-the-object");
}

#[test]
fn a_pod_as_a_person_writes_it_gets_what_an_api_server_would_add() {
    let pod = pod("{apiVersion: v1, kind: Pod, metadata: {name: web}}");
    assert_eq!((pod.namespace.as_str(), pod.service_account.as_str()), ("default", "default"));
    assert_eq!((pod.phase, pod.workload, pod.addresses), (None, None, vec![]));
    assert_eq!(pod.origin, Origin { file: "a.yaml".into(), line: 1 });
}

#[test]
fn a_pod_that_ends_is_seen() {
    let ended = |rest: &str| pod(&format!("{{apiVersion: v1, kind: Pod, metadata: {{name: web{rest}"));
    assert!(ended(", deletionTimestamp: \"2026-01-02T03:04:05Z\"}}").terminating);
    for (phase, over) in
        [("Pending", false), ("Running", false), ("Succeeded", true), ("Failed", true), ("Unknown", false)]
    {
        let pod = ended(&format!("}}, status: {{phase: {phase}}}}}"));
        assert_eq!(pod.phase.unwrap().is_over(), over, "{phase}");
    }
}

#[test]
fn workloads_are_what_people_call_them() {
    let workload = |labels: &str, owner: &str| {
        pod(&format!("{{apiVersion: v1, kind: Pod, metadata: {{name: p, labels: {{{labels}}}, ownerReferences: [{{{owner}}}]}}}}"))
            .workload
            .map(|workload| format!("{}/{}", workload.kind, workload.name))
    };
    let hash = "pod-template-hash: abc";
    assert_eq!(
        workload(hash, "kind: ReplicaSet, name: web-abc, controller: true").unwrap(),
        "Deployment/web"
    );
    assert_eq!(
        workload("", "kind: ReplicaSet, name: web-abc, controller: true").unwrap(),
        "ReplicaSet/web-abc"
    );
    assert_eq!(
        workload(hash, "kind: ReplicaSet, name: webabc, controller: true").unwrap(),
        "ReplicaSet/webabc"
    );
    assert_eq!(workload("", "kind: StatefulSet, name: db, controller: true").unwrap(), "StatefulSet/db");
    assert_eq!(workload("", "kind: Job, name: backup-28912345, controller: true").unwrap(), "CronJob/backup");
    assert_eq!(workload("", "kind: Job, name: migrate, controller: true").unwrap(), "Job/migrate");
    assert_eq!(workload("", "kind: DaemonSet, name: d"), None, "an owner that does not control");
}

#[test]
fn a_bad_pod_is_refused_by_its_fields() {
    let text = "{apiVersion: v1, kind: Pod, metadata: {name: web, labels: {\"a b\": c}}, \
                spec: {containers: [{ports: [{name: Web_Port, containerPort: 80}, {name: x, containerPort: 0}]}]}, \
                status: {phase: Dead, podIPs: [{ip: 10.0.0}]}}";
    let found = problems(text);
    let begins = [
        "metadata.labels[a b]: \"a b\" is not a label key",
        "spec.containers[0].ports[0].name: \"Web_Port\" is neither",
        "spec.containers[0].ports[1].containerPort: 0 is not between 1 and 65535",
        "status.phase: \"Dead\" is no pod phase",
        "status.podIPs[0].ip: \"10.0.0\" is not an IP address",
    ];
    assert_eq!(found.len(), begins.len(), "{found:?}");
    for (found, begin) in found.iter().zip(begins) {
        assert!(found.starts_with(begin), "{found} should begin {begin}");
    }
    let name = one(text).unwrap_err().name.unwrap();
    assert_eq!((name.kind, name.to_string().as_str()), (ObjectKind::Pod, "Pod/default/web"));
}

#[test]
fn a_namespace_has_its_name_as_a_label_and_cannot_take_another() {
    let text = "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: a, kubernetes.io/metadata.name: kube-system}}}";
    let Ok(Object::Namespace(namespace)) = one(text) else { panic!("a namespace") };
    assert_eq!(namespace.labels["kubernetes.io/metadata.name"], "shop");
    assert_eq!(namespace.labels["team"], "a");
    assert_eq!(Namespace::bare("x").labels["kubernetes.io/metadata.name"], "x");
}

#[test]
fn kinds_that_are_not_ours_are_named_with_those_that_are() {
    assert_eq!(
        problems("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n"),
        ["kind: \"Deployment\" of \"apps/v1\" is not read here"]
    );
    let found = problems("apiVersion: cilium.io/v2\nkind: CiliumNetworkPolcy\nmetadata: {name: web}\n");
    assert!(
        found[0].starts_with(
            "kind: \"CiliumNetworkPolcy\" of \"cilium.io/v2\" is not read here (known: SinewNetworkPolicy, "
        ),
        "{found:?}"
    );
    assert_eq!(
        problems("apiVersion: networking.k8s.io/v1beta1\nkind: NetworkPolicy\nmetadata: {name: web}\n"),
        ["apiVersion: NetworkPolicy is of networking.k8s.io/v1, not of \"networking.k8s.io/v1beta1\""]
    );
    assert_eq!(
        problems("apiVersion: cilium.io/v1\nkind: CiliumCIDRGroup\nmetadata: {name: web}\n"),
        ["apiVersion: CiliumCIDRGroup is of cilium.io/v2 or cilium.io/v2alpha1, not of \"cilium.io/v1\""]
    );
    assert_eq!(problems("a: 1\n"), ["apiVersion: is missing", "kind: is missing"]);
    assert_eq!(problems("just text\n"), ["document: must be a mapping, not text"]);
    assert_eq!(problems("- a\n- b\n"), ["document: must be a mapping, not a list"]);
    assert!(problems("a: [\n")[0].starts_with("document: column "));
}

#[test]
fn a_kind_of_somebody_else_is_foreign_and_a_slip_is_not() {
    let foreign = |version: &str, kind: &str| {
        let refused =
            one(&format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: web}}\n")).unwrap_err();
        assert!(!refused.problems.is_empty());
        assert_eq!(refused.is_unreadable(), !refused.foreign, "{version} {kind}");
        refused.foreign
    };
    for (version, kind) in [
        ("apps/v1", "Deployment"),
        ("v1", "Service"),
        ("v1", "Node"),
        ("batch/v1", "Job"),
        ("kustomize.config.k8s.io/v1beta1", "Kustomization"),
        ("networking.k8s.io/v1", "Ingress"),
        ("cilium.io/v2", "CiliumEnvoyConfig"),
        ("crd.projectcalico.org/v1", "NetworkPolicy"),
        ("projectcalico.org/v3", "NetworkPolicy"),
        ("crd.antrea.io/v1beta1", "NetworkPolicy"),
        ("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy"),
    ] {
        assert!(foreign(version, kind), "{version} {kind}");
    }
    for (version, kind) in [
        ("networking.k8s.io/v1", "NetworkPolcy"),
        ("networking.k8s.io/v1", "networkpolicy"),
        ("networking.k8s.io/v2", "NetworkPolicy"),
        ("networking.k8s.o/v1", "NetworkPolicy"),
        ("cilium.io/v2", "CiliumNetworkPolicies"),
        ("cilium.io/v2", "CiliumNetworkPolicyy"),
        ("cilium.io/v2", "SinewNetworkPolicy"),
        ("v1", "NetworkPolicy"),
        ("extensions/v1beta1", "NetworkPolicy"),
        ("apps/v1", "NetworkPolicy"),
        ("networking.istio.io/v1", "NetworkPolicy"),
        ("crd.projectcalico.org/v1", "CiliumNetworkPolicy"),
        ("isovalent.com/v1", "CiliumCIDRGroup"),
        ("sinew.io/v1", "SinewPolicy"),
    ] {
        assert!(!foreign(version, kind), "{version} {kind}");
    }
    let text = "apiVersion: extensions/v1beta1\nkind: NetworkPolicy\nmetadata: {name: web}\n";
    let told = &one(text).unwrap_err().problems[0];
    assert_eq!(told.message, "NetworkPolicy is of networking.k8s.io/v1, not of \"extensions/v1beta1\"");
    let text = "apiVersion: apps/v1\n";
    assert!(one(text).unwrap_err().is_unreadable(), "half a document may be anything");
}

#[test]
fn what_can_be_read_of_a_refused_group_remains() {
    let text = "apiVersion: sinew.io/v1\nkind: SinewCIDRGroup\nmetadata: {name: bad}\n\
                spec: {externalCIDRs: [203.0.113.0/24, 10.0.0.0/33]}\n";
    let refused = one(text).unwrap_err();
    let remains = refused.remains.unwrap();
    assert_eq!(remains.prefixes, ["203.0.113.0/24".parse().unwrap()]);
    assert!(!remains.whole);
    let Ok(Object::CidrGroup(whole)) = one(&text.replace("/33", "/32")) else { panic!("it is valid now") };
    assert!(whole.whole);
}

#[test]
fn bytes_that_are_no_text_are_refused_where_they_stand() {
    let refused = decode_bytes("a.yaml", b"a: 1\nb: \xff\n").remove(0).unwrap_err();
    assert_eq!(
        (refused.problems[0].to_string().as_str(), refused.problems[0].origin.line),
        ("document: is not UTF-8", 2)
    );
}

fn node() -> Node {
    Node {
        name: "n1".into(),
        cluster: "default".into(),
        id: 1,
        addresses: vec!["192.168.7.1".parse().unwrap(), "fd07::1".parse().unwrap()],
        pod_cidrs: vec!["10.1.0.0/24".parse().unwrap(), "fd00:1::/64".parse().unwrap()],
        routing: Routing::Vxlan,
        status: NodeStatus {
            heartbeat_ms: 1_795_234_567_890,
            revision: 7,
            policy_digest: "0123456789abcdef0123456789abcdef".into(),
            enforced_at_ms: 1_795_234_567_000,
            recent_identities: vec![Identity(65_793)],
        },
        origin: Origin { file: "a.yaml".into(), line: 1 },
    }
}

fn endpoint() -> Endpoint {
    let mut labels = Labels::new();
    labels.insert("k8s", "app", "web");
    labels.insert("k8s", "io.kubernetes.pod.namespace", "shop");
    Endpoint {
        name: "shop-web-0123456789ab".into(),
        pod_namespace: "shop".into(),
        pod_name: "web".into(),
        pod_uid: "u-1".into(),
        container_id: "0123456789abcdef".into(),
        ifname: "eth0".into(),
        node: "n1".into(),
        addresses: vec!["10.1.0.7".parse().unwrap(), "fd00:1::7".parse().unwrap()],
        identity: Identity(65_793),
        previous_identity: Some(Identity(65_792)),
        labels,
        ports: vec![NamedPort { name: "http".into(), protocol: Protocol::Tcp, port: 8080 }],
        phase: Some(PodPhase::Running),
        workload: Some(Workload { kind: "Deployment".into(), name: "web".into() }),
        origin: Origin { file: "a.yaml".into(), line: 1 },
    }
}

#[test]
fn what_agents_write_for_each_other_is_read_again() {
    assert_eq!(one(&node().to_yaml()).unwrap(), Object::Node(node()));
    assert_eq!(one(&endpoint().to_yaml()).unwrap(), Object::Endpoint(Box::new(endpoint())));
    let bare = Endpoint {
        pod_namespace: String::new(),
        pod_name: String::new(),
        pod_uid: String::new(),
        previous_identity: None,
        ports: vec![],
        phase: None,
        workload: None,
        labels: Labels::reserved("unmanaged"),
        ..endpoint()
    };
    assert_eq!(one(&bare.to_yaml()).unwrap(), Object::Endpoint(Box::new(bare)));
    let allocated = AllocatedIdentity {
        identity: Identity(65_793),
        labels: endpoint().labels,
        origin: Origin { file: "a.yaml".into(), line: 1 },
    };
    assert_eq!(one(&allocated.to_yaml()).unwrap(), Object::Identity(allocated));
}

#[test]
fn what_agents_write_is_readable() {
    assert_eq!(
        node().to_yaml(),
        "\
apiVersion: sinew.io/v1
kind: SinewNode
metadata:
  name: n1
spec:
  addresses:
  - 192.168.7.1
  - fd07::1
  cluster: default
  id: 1
  podCIDRs:
  - 10.1.0.0/24
  - fd00:1::/64
  routing: vxlan
status:
  enforcedAtMs: 1795234567000
  heartbeatMs: 1795234567890
  policyDigest: 0123456789abcdef0123456789abcdef
  recentIdentities:
  - 65793
  revision: 7
"
    );
}

#[test]
fn objects_of_agents_that_are_broken_say_how() {
    let broken = node().to_yaml().replace("id: 1", "id: 70000");
    assert!(
        problems(&broken)[0].starts_with("spec: invalid value: integer `70000`, expected u16"),
        "{:?}",
        problems(&broken)
    );
    let broken = node().to_yaml().replace("routing", "rooting");
    assert!(problems(&broken)[0].starts_with("spec: unknown field `rooting`"), "{:?}", problems(&broken));
    for name in ["x", "007", "-1", "4294967296"] {
        let text = format!(
            "{{apiVersion: sinew.io/v1, kind: SinewIdentity, metadata: {{name: \"{name}\"}}, spec: {{labels: []}}}}"
        );
        assert!(
            problems(&text).iter().any(|problem| problem.contains("is not")),
            "{name}: {:?}",
            problems(&text)
        );
    }
}

#[test]
fn a_digest_is_of_objects_and_generations_in_any_order() {
    let name = |name: &str| PolicyName {
        kind: PolicyKind::NetworkPolicy,
        namespace: "shop".into(),
        name: name.into(),
    };
    let (a, b) = (name("a"), name("b"));
    let digest = policy_digest([(&a, 1), (&b, 2)]);
    assert_eq!(digest.len(), 32);
    assert_eq!(digest, policy_digest([(&b, 2), (&a, 1)]));
    assert_ne!(digest, policy_digest([(&a, 1), (&b, 3)]));
    assert_ne!(digest, policy_digest([(&a, 1)]));
    // printf 'netpol/shop/a 1\nnetpol/shop/b 2\n' | sha256sum
    assert_eq!(digest, "ba4ee7838a23ea23219630cb677c835a");
}

fn generation(text: &str) -> u64 {
    match one(text) {
        Ok(Object::Policy(policy)) => policy.generation,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_generation_follows_the_content_and_not_the_layout() {
    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec: {podSelector: {}, ingress: []}\n";
    let laid_out = "# a comment\nkind: \"NetworkPolicy\"\napiVersion: networking.k8s.io/v1\nspec:\n  ingress: []\n  podSelector: {}\nmetadata:\n  name: p\n";
    assert_eq!(generation(policy), generation(laid_out));
    let by_server = policy.replace("name: p", "name: p, generation: 4, resourceVersion: \"9\", uid: u");
    assert_eq!(generation(policy), generation(&format!("{by_server}status: {{conditions: []}}\n")));
    assert_ne!(generation(policy), generation(&policy.replace("ingress: []", "ingress: [{}]")));
    assert_ne!(generation(policy), generation(&policy.replace("name: p", "name: p, annotations: {a: b}")));
    assert!(generation(policy) < 1 << 53, "every reader of JSON holds it exactly");
}
