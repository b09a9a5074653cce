//! A recording of three connections, and what a new policy would make of them.

use std::fs;

use super::*;

/// As `hubble observe -o jsonpb` prints it, cut to the fields that matter here.
fn flow(from: &str, to: &str, port: u16, direction: &str, verdict: &str, kind: u8) -> String {
    let end = |name: &str, address: &str| {
        format!(
            r#"{{"identity":300,"namespace":"default","labels":["k8s:app={name}","k8s:io.kubernetes.pod.namespace=default",
"k8s:io.cilium.k8s.policy.cluster=default","k8s:io.cilium.k8s.policy.serviceaccount=default",
"k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=default"],"pod_name":"{name}-{address}"}}"#
        )
        .replace('\n', "")
    };
    let (source, destination) = (end(from, "1"), end(to, "1"));
    let drop = if verdict == "DROPPED" { r#","drop_reason_desc":"POLICY_DENIED""# } else { "" };
    format!(
        r#"{{"flow":{{"verdict":"{verdict}"{drop},"IP":{{"source":"10.0.0.5","destination":"10.0.0.7","ipVersion":"IPv4"}},
"l4":{{"TCP":{{"source_port":40000,"destination_port":{port},"flags":{{"SYN":true}}}}}},"source":{source},
"destination":{destination},"Type":"L3_L4","node_name":"default/a","event_type":{{"type":{kind}}},
"traffic_direction":"{direction}"}},"node_name":"default/a","time":"2026-11-21T03:22:22Z"}}"#
    )
    .replace('\n', "")
}

const NEW_POLICY: &str = "\
apiVersion: sinew.io/v1
kind: SinewNetworkPolicy
metadata:
  name: web
spec:
  endpointSelector:
    matchLabels:
      app: web
  ingress:
    - fromEndpoints:
        - matchLabels:
            app: client
";

/// Closes what `client` sends; the section is to be added.
const OUT: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: out
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Egress]
";

const CILIUM_OUT: &str = "\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata:
  name: out
spec:
  endpointSelector: {matchLabels: {app: client}}
";

fn replayed(lines: &[String]) -> Replay {
    replayed_with(NEW_POLICY, lines)
}

fn replayed_with(policy: &str, lines: &[String]) -> Replay {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("new.yaml"), policy).unwrap();
    let flows = folder.path().join("flows.jsonl");
    fs::write(&flows, lines.join("\n")).unwrap();
    let recording = Recording::read(&flows).unwrap();
    let mut policies = Folder::read(folder.path()).unwrap();
    // The folder of a test has a name that differs from run to run.
    for object in &mut policies.objects {
        if let sinew_api::object::Object::Policy(policy) = object {
            policy.origin.file = "new.yaml".into();
            policy.specs.iter_mut().flat_map(|spec| &mut spec.ingress).for_each(|rule| {
                rule.origin.file = "new.yaml".into();
            });
        }
    }
    replay(&recording, recording.folder().overlaid_by(&policies)).unwrap()
}

#[test]
fn what_would_change_is_listed_with_who_decides() {
    let lines = [
        // Was open, and the new policy allows it.
        flow("client", "web", 80, "INGRESS", "FORWARDED", 5),
        // Was open, and the new policy closes it; seen twice.
        flow("guest", "web", 80, "INGRESS", "FORWARDED", 5),
        flow("guest", "web", 80, "INGRESS", "FORWARDED", 5),
        // Was denied by a policy that is gone; told by a verdict and by a drop, which is one question.
        flow("client", "db", 80, "INGRESS", "DROPPED", 5),
        flow("client", "db", 80, "INGRESS", "DROPPED", 1),
        // A trace judges nothing.
        flow("guest", "db", 80, "INGRESS", "FORWARDED", 4),
    ];
    let expected = "\
2 of 3 verdicts would change (4 flows replayed)

FLOWS  FROM              TO             FAMILY  TRAFFIC  DIRECTION  WAS    BECOMES  BY                               PLACE
1      default/client-1  default/db-1   IPv4    80/TCP   ingress    deny   allow    -                                -
2      default/guest-1   default/web-1  IPv4    80/TCP   ingress    allow  deny     default deny by snp/default/web  new.yaml:1
";
    let shown = text(&replayed(&lines), Paint::Plain);
    // Where in the object default deny is switched on is the engine's to say.
    let shown =
        shown.lines().map(|line| line.split("new.yaml:").next().unwrap().to_owned()).collect::<Vec<_>>();
    let expected = expected.lines().map(|line| line.split("new.yaml:").next().unwrap().to_owned());
    assert_eq!(shown, expected.collect::<Vec<_>>());
}

/// A flow of the pod `client-1` to an identity that is no pod's, at an address.
fn flow_to(identity: u32, labels: &str, address: &str, port: u16) -> String {
    let flow = flow("client", "web", port, "EGRESS", "FORWARDED", 5).replace("10.0.0.7", address);
    let (before, after) = flow.split_once(r#""destination":{"identity""#).unwrap();
    let (_, after) = after.split_once("},").unwrap();
    format!(r#"{before}"destination":{{"identity":{identity},"labels":[{labels}]}},{after}"#)
}

/// A node has its identity, and CIDRs go by its address: `ipBlock` reaches nodes, `toCIDR` only what is outside.
#[test]
fn an_address_of_a_node_is_judged_by_cidrs() {
    let policy = |to: &str| format!("{OUT}  egress:\n    - to: [{{ipBlock: {{cidr: {to}}}}}]\n");
    let of_host = flow_to(1, r#""reserved:host""#, "169.254.20.10", 53);
    let of_node = flow_to(6, r#""reserved:remote-node""#, "192.168.0.2", 53);
    let of_apiserver = flow_to(7, r#""reserved:kube-apiserver""#, "203.0.113.6", 53);
    let on_node = flow_to(7, r#""reserved:kube-apiserver","reserved:remote-node""#, "192.168.0.3", 53);
    let flows = [of_host, of_node, of_apiserver, on_node];
    let closed = |policy: &str| {
        let replay = replayed_with(policy, &flows);
        assert_eq!((replay.unknown.len(), replay.notes.len(), replay.questions), (0, 0, 4), "{policy}");
        replay.differences.iter().map(|one| one.question.to.to_string()).collect::<Vec<_>>()
    };
    let [host, node, apiserver, on_node] = [
        "host (169.254.20.10)",
        "remote-node (192.168.0.2)",
        "kube-apiserver (203.0.113.6)",
        "kube-apiserver (192.168.0.3)",
    ];
    assert_eq!(closed(&policy("169.254.20.10/32")), [on_node, apiserver, node]);
    assert_eq!(closed(&policy("192.168.0.0/24")), [host, apiserver]);
    assert_eq!(closed(&policy("0.0.0.0/0")), [""; 0]);
    let cilium = |to: &str| format!("{CILIUM_OUT}  egress: [{{{to}}}]\n");
    assert_eq!(closed(&cilium("toCIDR: [0.0.0.0/0]")), [host, on_node, node]);
    assert_eq!(closed(&cilium("toEntities: [world]")), [host, on_node, node]);
    assert_eq!(closed(&cilium("toEntities: [remote-node]")), [host, apiserver]);
}

/// Without a rule that would close it the reason stands for it: no pod sends to a node's overlay port.
#[test]
fn what_no_rule_closes_is_listed_with_its_reason() {
    let tcp = flow_to(6, r#""reserved:remote-node""#, "192.168.0.2", 8472);
    let udp = tcp.replace(r#""TCP""#, r#""UDP""#).replace(r#","flags":{"SYN":true}"#, "");
    assert_ne!(udp, tcp);
    let shown = text(&replayed(&[tcp, udp]), Paint::Plain);
    let expected = "\
1 of 2 verdicts would change (2 flows replayed)

FLOWS  FROM              TO                         FAMILY  TRAFFIC   DIRECTION  WAS    BECOMES  BY                                   PLACE
1      default/client-1  remote-node (192.168.0.2)  IPv4    8472/UDP  egress     allow  deny     ENCAPSULATION_TRAFFIC_IS_PROHIBITED  -
";
    assert_eq!(shown, expected);
}

/// Policies changed while flows were recorded, and pods have two families: each verdict keeps its own count.
#[test]
fn each_recorded_verdict_has_its_own_row() {
    let allowed = flow("guest", "web", 80, "INGRESS", "FORWARDED", 5);
    let denied = flow("guest", "web", 80, "INGRESS", "DROPPED", 5);
    let of_v6 = allowed.replace("10.0.0.5", "fd00::5").replace("10.0.0.7", "fd00::7");
    let opened = flow("client", "web", 80, "INGRESS", "DROPPED", 5);
    let still = flow("client", "web", 80, "INGRESS", "FORWARDED", 5);
    let lines = [&allowed, &allowed, &allowed, &of_v6, &denied, &still, &opened].map(String::clone);
    let replay = replayed(&lines);
    let rows = replay
        .differences
        .iter()
        .map(|one| (one.question.to_string(), one.flows, words::verdict(one.was).1))
        .collect::<Vec<_>>();
    let row = |from: &str, family: &str, flows, was| {
        (format!("default/{from}-1 -> default/web-1 80/TCP over {family}"), flows, was)
    };
    assert_eq!(
        rows,
        [
            row("client", "IPv4", 1, "deny"),
            row("guest", "IPv4", 3, "allow"),
            row("guest", "IPv6", 1, "allow")
        ]
    );
    assert_eq!((replay.flows, replay.questions), (7, 5));
    let told = value(&replay);
    let families = told["changes"].as_array().unwrap().iter().map(|one| one["family"].clone());
    assert_eq!(families.collect::<Vec<_>>(), ["IPv4", "IPv4", "IPv6"]);
}

/// A change cut the connection, and the server's answer was refused with it: nobody asked for a way from web to client.
#[test]
fn a_refused_answer_is_no_question() {
    let asked = flow("client", "web", 80, "INGRESS", "FORWARDED", 5);
    let answer = flow("web", "client", 40_000, "EGRESS", "DROPPED", 5);
    let answer = answer.replace(r#""Type":"L3_L4""#, r#""Type":"L3_L4","is_reply":true"#);
    let shown = text(&replayed(&[asked, answer]), Paint::Plain);
    assert_eq!(shown, "0 of 1 verdict would change (1 flow replayed)\n");
}

#[test]
fn the_same_policies_change_nothing() {
    let lines = [
        flow("client", "web", 80, "INGRESS", "FORWARDED", 5),
        flow("client", "web", 80, "EGRESS", "FORWARDED", 5),
        flow("guest", "web", 80, "INGRESS", "DROPPED", 5),
    ];
    let shown = text(&replayed(&lines), Paint::Plain);
    assert_eq!(shown, "0 of 3 verdicts would change (3 flows replayed)\n");
    let shown = text(&replayed(&lines[..1]), Paint::Plain);
    assert_eq!(shown, "0 of 1 verdict would change (1 flow replayed)\n");
}

#[test]
fn a_recording_without_flows_is_no_success() {
    let folder = tempfile::tempdir().unwrap();
    let flows = folder.path().join("flows.jsonl");
    let lost = r#"{"lost_events":{"source":"HUBBLE_RING_BUFFER","num_events_lost":"3"}}"#;
    for (text, part) in [
        ("", "no flow could be read from "),
        (lost, "no flow could be read from "),
        ("no json\n", "no line of "),
    ] {
        fs::write(&flows, text).unwrap();
        let error = Recording::read(&flows).unwrap_err();
        assert!(error.to_string().starts_with(part), "{text:?}: {error}");
    }
}
