//! Explanations without an agent, end to end: what is suggested helps, and what is expected is enforced.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Two namespaces, four pods, both families, and policies that close everything.
const OBJECTS: &str = "\
apiVersion: sinew.io/v1
kind: SinewNode
metadata: {name: a}
spec:
  cluster: default
  id: 1
  addresses: [192.168.0.1, 'fd00:1::1']
  podCIDRs: [10.0.0.0/24, 'fd00::/64']
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: default, labels: {app: client, tier: front}}
status: {podIPs: [{ip: 10.0.0.5}, {ip: 'fd00::5'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: default, labels: {app: web}}
status: {podIPs: [{ip: 10.0.0.7}, {ip: 'fd00::7'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: cart, namespace: shop, labels: {app: cart}}
status: {podIPs: [{ip: 10.0.0.9}, {ip: 'fd00::9'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: plain, namespace: shop}
status: {podIPs: [{ip: 10.0.0.10}]}
---
apiVersion: sinew.io/v1
kind: SinewClusterwideNetworkPolicy
metadata: {name: closed}
spec:
  endpointSelector: {}
  ingress: [{}]
  egress: [{}]
";

/// Exit code and answer.
fn explain(folder: &Path, words: &[&str]) -> (i32, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sinew"));
    command.args(["policy", "explain", "-o", "json", "--from-folder"]).arg(folder).args(words);
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    let answer = serde_json::from_slice(&output.stdout).unwrap_or(Value::String(error));
    (output.status.code().unwrap(), answer)
}

#[test]
fn what_is_suggested_allows_it_and_nothing_else() {
    for (from, to, traffic, other) in [
        ("default/client", "default/web", "8080/TCP", "8081/TCP"),
        ("default/client", "default/web", "53/UDP", "53/TCP"),
        ("default/client", "shop/cart", "8080/TCP", "8080/UDP"),
        ("shop/plain", "default/web", "8080/TCP", "22/TCP"),
        ("default/client", "default/web", "8/ICMP", "13/ICMP"),
        ("fd00::5", "fd00::7", "128/ICMPv6", "129/ICMPv6"),
        ("203.0.113.9", "default/web", "443/TCP", "80/TCP"),
        ("default/web", "2001:db8::9", "443/TCP", "80/TCP"),
        ("remote-node", "default/web", "443/TCP", "80/TCP"),
        ("default/web", "host", "443/TCP", "80/TCP"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("objects.yaml"), OBJECTS).unwrap();
        let case = format!("{from} -> {to} {traffic}");
        let (code, answer) = explain(folder.path(), &[from, to, traffic, "--expect", "denied"]);
        assert_eq!(code, 0, "{case}: {answer}");
        let suggestion = answer["suggestion"].as_str().unwrap();
        assert!(!suggestion.is_empty(), "{case}: nothing is suggested");
        fs::write(folder.path().join("suggested.yaml"), suggestion).unwrap();
        let (code, answer) = explain(folder.path(), &[from, to, traffic, "--expect", "allowed"]);
        assert_eq!(code, 0, "{case}: still denied with\n{suggestion}\n{answer}");
        let (code, answer) = explain(folder.path(), &[from, to, other, "--expect", "denied"]);
        assert_eq!(code, 0, "{case}: the suggestion allows {other} too\n{suggestion}\n{answer}");
        // A pod without labels can be named by its namespace only.
        let stranger = if from == "shop/plain" { "default/client" } else { "shop/plain" };
        let (code, answer) = explain(folder.path(), &[stranger, to, traffic, "--expect", "denied"]);
        assert_eq!(code, 0, "{case}: the suggestion allows {stranger} too\n{suggestion}\n{answer}");
    }
}

#[test]
fn an_expectation_that_fails_is_told_by_the_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("objects.yaml"), OBJECTS).unwrap();
    let (code, answer) = explain(folder.path(), &["client", "web", "80/TCP", "--expect", "allowed"]);
    assert_eq!((code, &answer["verdict"]), (1, &"DROPPED".into()));
    assert_eq!(answer["directions"].as_array().unwrap().len(), 2);
    let (code, _) = explain(folder.path(), &["nobody", "web", "80/TCP"]);
    assert_eq!(code, 3);
    let (code, _) = explain(&folder.path().join("nowhere"), &["client", "web", "80/TCP"]);
    assert_eq!(code, 1);
}

/// A folder without nodes can't tell a node from the world: it says so, and it is silent where it need not.
#[test]
fn without_a_node_an_address_is_judged_as_world_and_that_is_said() {
    let said = |objects: &str, from: &str| {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("objects.yaml"), objects).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sinew"));
        command.args(["policy", "explain", "-o", "json", "--from-folder"]).arg(folder.path());
        let output = command.args([from, "default/web", "80/TCP"]).output().unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (answer["from"]["labels"][0].clone(), String::from_utf8(output.stderr).unwrap())
    };
    let (_, without_node) = OBJECTS.split_once("---\n").unwrap();
    for address in ["192.168.0.1", "10.0.0.200"] {
        let (label, told) = said(without_node, address);
        assert_eq!(label, "reserved:world-ipv4", "{address}");
        let expected = format!("no node is known, so {address} is judged as an address of the world");
        assert!(told.contains(&expected), "{told}");
    }
    for end in ["default/client", "10.0.0.5", "world-ipv4"] {
        assert_eq!(said(without_node, end).1, "", "{end} is no address that could be a node's");
    }
    // With the node both are what the kernel takes them for.
    assert_eq!(said(OBJECTS, "192.168.0.1"), ("reserved:remote-node".into(), String::new()));
    let (label, told) = said(OBJECTS, "10.0.0.200");
    assert!(label.is_null() && told.contains("nobody is known there"), "{label} {told}");
    assert_eq!(said(OBJECTS, "203.0.113.9"), ("reserved:world-ipv4".into(), String::new()));
}

#[test]
fn an_address_of_the_cluster_that_nobody_has_is_no_world() {
    let folder = tempfile::tempdir().unwrap();
    let open = "apiVersion: sinew.io/v1\nkind: SinewNetworkPolicy\nmetadata: {name: open}\n\
                spec: {endpointSelector: {}, ingress: [{fromEntities: [all]}]}\n";
    fs::write(folder.path().join("objects.yaml"), OBJECTS).unwrap();
    fs::write(folder.path().join("open.yaml"), open).unwrap();
    let (code, answer) = explain(folder.path(), &["10.0.0.200", "default/web", "80/TCP"]);
    // Either it is named as unknown, or it is judged and dropped by name; never allowed as world.
    assert!(code == 3 || answer["verdict"] == "DROPPED", "{code} {answer}");
    let (code, answer) = explain(folder.path(), &["203.0.113.9", "default/web", "80/TCP"]);
    assert_eq!((code, &answer["verdict"]), (0, &"FORWARDED".into()), "{answer}");
}

#[test]
fn a_document_that_does_not_count_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let pods = OBJECTS.split("---\n").take(5).collect::<Vec<_>>().join("---\n");
    fs::write(folder.path().join("objects.yaml"), pods).unwrap();
    let ask = ["client", "web", "80/TCP"];
    let (code, answer) = explain(folder.path(), &ask);
    assert_eq!(
        (code, &answer["verdict"], &answer["unread"]),
        (0, &"FORWARDED".into(), &Value::Array(vec![]))
    );
    // The policy that would close it has a mistake in it.
    fs::write(folder.path().join("closed.yaml"), "kind: SinewNetworkPolicy\nspec: [\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sinew"));
    let output = command.args(["policy", "explain", "--from-folder"]).arg(folder.path()).args(ask).output();
    let output = output.unwrap();
    assert!(output.status.success());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.starts_with("sinew: warning: a document at ") && told.contains("closed.yaml:"), "{told}");
    let (code, answer) = explain(folder.path(), &[&ask[..], &["--expect", "allowed"]].concat());
    assert_eq!((code, answer["unread"].as_array().map(Vec::len)), (1, Some(1)), "{answer}");
}

#[test]
fn a_misspelt_kind_fails_a_check_and_another_kind_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let pods = OBJECTS.split("---\n").take(5).collect::<Vec<_>>().join("---\n");
    fs::write(folder.path().join("objects.yaml"), pods).unwrap();
    let ask = ["client", "web", "80/TCP", "--expect", "allowed"];
    fs::write(folder.path().join("other.yaml"), "apiVersion: apps/v1\nkind: Deployment\n").unwrap();
    let (code, answer) = explain(folder.path(), &ask);
    assert_eq!((code, answer["unread"].as_array().map(Vec::len)), (0, Some(0)), "{answer}");
    // Spelt right it would close what is asked about.
    let slip = "apiVersion: cilium.io/v2\nkind: CiliumNetworkpolicy\nmetadata: {name: web}\n\
                spec: {endpointSelector: {}, ingress: [{}]}\n";
    fs::write(folder.path().join("slip.yaml"), slip).unwrap();
    let (code, answer) = explain(folder.path(), &ask);
    assert_eq!((code, answer["unread"].as_array().map(Vec::len)), (1, Some(1)), "{answer}");
}

#[test]
fn a_pod_on_the_network_of_a_node_is_host_to_that_node() {
    let folder = tempfile::tempdir().unwrap();
    let more = "\
---
apiVersion: v1
kind: Pod
metadata: {name: proxy, namespace: default}
spec: {hostNetwork: true, nodeName: a}
---
apiVersion: v1
kind: Pod
metadata: {name: here, namespace: default}
spec: {nodeName: a}
---
apiVersion: v1
kind: Pod
metadata: {name: there, namespace: default}
spec: {nodeName: b}
";
    fs::write(folder.path().join("objects.yaml"), format!("{OBJECTS}{more}")).unwrap();
    let (code, answer) = explain(folder.path(), &["proxy", "here", "80/TCP", "--expect", "allowed"]);
    assert_eq!(code, 0, "{answer}");
    let (code, answer) = explain(folder.path(), &["proxy", "there", "80/TCP", "--expect", "denied"]);
    assert_eq!(code, 0, "{answer}");
}

/// A folder with the objects and one more text.
fn folder_with(more: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let pods = OBJECTS.split("---\n").take(5).collect::<Vec<_>>().join("---\n");
    fs::write(folder.path().join("objects.yaml"), pods).unwrap();
    fs::write(folder.path().join("more.yaml"), more).unwrap();
    folder
}

/// What a person reads.
fn told(folder: &Path, words: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sinew"));
    command.args(["policy", "explain", "--from-folder"]).arg(folder).args(words);
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

const ONE_FAMILY: &str = "\
apiVersion: sinew.io/v1
kind: SinewNetworkPolicy
metadata: {name: outside, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: client}}
  egress:
  - toCIDR: [0.0.0.0/0]
";

#[test]
fn both_families_are_judged_and_told_apart_where_they_differ() {
    let folder = folder_with(ONE_FAMILY);
    let ask = ["client", "world", "443/TCP"];
    let (code, answer) = explain(folder.path(), &[&ask[..], &["--expect", "allowed"]].concat());
    assert_eq!((code, &answer["verdict"]), (1, &"DROPPED".into()), "{answer}");
    let (code, _) = explain(folder.path(), &[&ask[..], &["--expect", "denied"]].concat());
    assert_eq!(code, 1, "over IPv4 it is allowed");
    let (code, _) =
        explain(folder.path(), &[&ask[..], &["--family", "ipv4", "--expect", "allowed"]].concat());
    assert_eq!(code, 0);
    let text = told(folder.path(), &ask);
    assert!(
        text.starts_with("ALLOWED over IPv4, DENIED over IPv6  default/client -> world  443/TCP\n"),
        "{text}"
    );
    assert!(text.contains("egress of default/client over IPv4: ALLOWED by a rule\n"), "{text}");
    assert!(text.contains("egress of default/client over IPv6: DENIED by default"), "{text}");
    // No address that stands for the world is one of it.
    assert!(
        text.contains("wants 0.0.0.0/0, but it is world, no address of it in particular, by IPv6\n"),
        "{text}"
    );
    assert!(text.contains("toEntities: [world-ipv6]"), "{text}");

    let (_, answer) = explain(folder.path(), &["client", "web", "80/TCP"]);
    let families = answer["families"].as_array().unwrap().iter();
    let families = families.map(|one| (one["family"].clone(), one["verdict"].clone())).collect::<Vec<_>>();
    assert_eq!(families, ["IPv4", "IPv6"].map(|family| (family.into(), "DROPPED".into())));
    assert_eq!(answer["directions"].as_array().unwrap().len(), 2, "what is the same is said once: {answer}");
    let text = told(folder.path(), &["client", "web", "80/TCP"]);
    assert!(text.contains("  over  IPv4 and IPv6, with one verdict\n"), "{text}");
    // A pod of one family is judged over that one, and ICMP is IPv4's.
    for (from, traffic) in [("shop/plain", "80/TCP"), ("client", "8/ICMP")] {
        let text = told(folder.path(), &[from, "default/web", traffic]);
        assert!(text.contains("  over  IPv4\n"), "{text}");
    }
    let text = told(folder.path(), &["shop/plain", "default/web", "128/ICMPv6"]);
    assert!(text.contains("There is no IPv6 address that both shop/plain and default/web have"), "{text}");
}

#[test]
fn an_address_that_nobody_knows_is_not_made_up() {
    let folder = folder_with(ONE_FAMILY);
    let text = told(folder.path(), &["client", "kube-apiserver", "443/TCP"]);
    assert!(text.starts_with("DENIED  default/client -> kube-apiserver"), "{text}");
    assert!(
        text.contains("\nNo address of kube-apiserver is known here, so it is judged by its identity alone"),
        "{text}"
    );
    assert!(text.contains("but it is kube-apiserver, of which no address is known here\n"), "{text}");
    for made_up in ["192.0.2.1", "0.0.0.0,", "2001:db8"] {
        assert!(!text.contains(made_up), "{text}");
    }
    let by_name = ONE_FAMILY.replace("toCIDR: [0.0.0.0/0]", "toEntities: [kube-apiserver]");
    let folder = folder_with(&by_name);
    let (code, answer) =
        explain(folder.path(), &["client", "kube-apiserver", "443/TCP", "--expect", "allowed"]);
    assert_eq!(code, 0, "{answer}");
}

#[test]
fn a_question_without_a_port_is_answered_for_the_ports_that_rules_name() {
    let folder = folder_with(
        "\
apiVersion: sinew.io/v1
kind: SinewNetworkPolicy
metadata: {name: web, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts: [{ports: [{port: '8080', endPort: 8091, protocol: TCP}, {port: '53', protocol: UDP}]}]
  - fromEndpoints: [{matchLabels: {app: client}}]
    icmps: [{fields: [{family: IPv4, type: 8}]}]
  ingressDeny:
  - toPorts: [{ports: [{port: '8085', protocol: TCP}]}]
",
    );
    let text = told(folder.path(), &["client", "web"]);
    let expected = "\
ALLOWED: 8080-8084/TCP
ALLOWED: 8086-8091/TCP
ALLOWED: 53/UDP
ALLOWED: type 8/ICMP over IPv4
Everything else, which no rule names by port:
";
    assert!(text.starts_with("DENIED BUT FOR SOME PORTS  default/client -> default/web  any\n"), "{text}");
    assert!(text.contains(expected), "{text}");
    for expected in ["allowed", "denied"] {
        let (code, answer) = explain(folder.path(), &["client", "web", "--expect", expected]);
        assert_eq!(code, 1, "{answer}");
    }
    // Of one protocol only its ports; of one that rules say nothing of, none.
    assert!(told(folder.path(), &["client", "web", "UDP"]).contains("\nALLOWED: 53/UDP\nEverything"));
    assert!(told(folder.path(), &["client", "web", "SCTP"]).starts_with("DENIED  "));
    let (code, _) = explain(folder.path(), &["client", "web", "SCTP", "--expect", "denied"]);
    assert_eq!(code, 0);
    // The other way round: all is open but one port.
    let folder = folder_with(
        "\
apiVersion: sinew.io/v1
kind: SinewNetworkPolicy
metadata: {name: web, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: web}}
  enableDefaultDeny: {ingress: false}
  ingressDeny:
  - toPorts: [{ports: [{port: '22', protocol: TCP}]}]
",
    );
    let text = told(folder.path(), &["client", "web"]);
    assert!(text.starts_with("ALLOWED BUT FOR SOME PORTS") && text.contains("\nDENIED: 22/TCP\n"), "{text}");
}

#[test]
fn what_a_pod_sends_to_itself_is_judged_by_nobody() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("objects.yaml"), OBJECTS).unwrap();
    for to in ["web", "10.0.0.7", "fd00::7"] {
        let text = told(folder.path(), &["web", to, "80/TCP"]);
        assert!(text.starts_with("ALLOWED  default/web -> default/web  80/TCP\n"), "{text}");
        assert!(text.contains("\nWhat default/web sends to its own address stays inside the pod"), "{text}");
        assert!(!text.contains("ingress of"), "{text}");
    }
}
