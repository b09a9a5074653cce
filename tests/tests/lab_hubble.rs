//! The unmodified `hubble` client and `sinew observe` on a node's own socket, over what real packets left in its ring:
//! every filter shows the flows that the test finds by itself in the whole history, and no other.
//!
//! Neighbours: `hubble.rs` has every flag over flows that were written for it, `lab_relay.rs` the client before a relay,
//! `lab_flows.rs` which flows packets leave.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Output};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sinew_tests::lab::process::{Running, wait_until};
use sinew_tests::lab::store::PodObject;
use sinew_tests::lab::{Family, Lab, Node, Pod, Topology, binaries};
use sinew_tests::probe::Transport;
use sinew_tests::probe::report::Outcome;

const TCP: u16 = 80;
const UDP: u16 = 53;
const CLOSED: u16 = 81;
const LAST: u16 = 9;
const SOON: Duration = Duration::from_secs(30);

const POLICIES: &str = "
apiVersion: sinew.io/v1
kind: SinewNetworkPolicy
metadata: {name: server-accepts, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: server}}
  ingress: [{fromEndpoints: [{matchLabels: {app: client}}]}]
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: no-outside, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: client}}
  egress: [{toEntities: [cluster]}]
  egressDeny: [{toEntities: [world]}]
";

/// A node whose ring holds what its pods did, and when that was.
struct Ground {
    lab: Lab,
    client: Arc<Pod>,
    guest: Arc<Pod>,
    near: Arc<Pod>,
    period: [String; 2],
    far: String,
}

impl Ground {
    /// Every kind of traffic once, allowed and refused, by both families.
    fn new() -> Result<Self> {
        let lab = Lab::build(Topology::Wire(2)).start()?;
        let (a, b) = (lab.node("a"), lab.node("b"));
        let client = a.pod("client", &[("app", "client")])?;
        let near = a.pod("near", &[("app", "server")])?;
        let far = b.pod("far", &[("app", "server")])?;
        let guest = a.pod_of(&PodObject {
            namespace: "visitors".to_owned(),
            name: "guest".to_owned(),
            uid: "guest".to_owned(),
            labels: [("app".to_owned(), "guest".to_owned())].into(),
            node: "a".to_owned(),
            ports: Vec::new(),
        })?;
        for pod in [&near, &far] {
            pod.serve(&[TCP], &[UDP, LAST])?;
        }
        lab.outside().serve(&[TCP], &[])?;
        lab.apply("policies", POLICIES)?;
        lab.wait_enforced()?;
        let since = now();

        let slow = &["--timeout", "10000"][..];
        let quick = &["--timeout", "300"][..];
        for (from, to, transport, port, words, outcome) in [
            (&client, far.address(Family::V4), Transport::Tcp, TCP, slow, Outcome::Answered),
            (&client, far.address(Family::V6), Transport::Tcp, TCP, slow, Outcome::Answered),
            (&client, near.address(Family::V6), Transport::Udp, UDP, slow, Outcome::Answered),
            (&client, near.address(Family::V4), Transport::Tcp, CLOSED, slow, Outcome::Refused),
            (&client, far.address(Family::V4), Transport::Icmp, 0, slow, Outcome::Answered),
            (&client, far.address(Family::V6), Transport::Icmp, 0, slow, Outcome::Answered),
            (&client, lab.outside().address(Family::V4), Transport::Tcp, TCP, quick, Outcome::TimedOut),
            (&guest, near.address(Family::V4), Transport::Tcp, TCP, quick, Outcome::TimedOut),
            (&guest, near.address(Family::V6), Transport::Udp, UDP, quick, Outcome::TimedOut),
            (&guest, lab.outside().address(Family::V6), Transport::Tcp, TCP, slow, Outcome::Answered),
            (&client, near.address(Family::V4), Transport::Udp, LAST, slow, Outcome::Answered),
        ] {
            let attempt = from.dial(transport, to, port, words)?;
            ensure!(attempt.outcome == outcome, "{} to {to} {transport:?} {port}: {attempt:?}", from.name());
        }
        let mut ground = Self {
            period: [since, now()],
            far: far.address(Family::V4).to_string(),
            lab,
            client,
            guest,
            near,
        };
        wait_until("the last flow", SOON, || {
            Ok(ground.all()?.iter().any(|flow| text(flow, "/l4/UDP/destination_port") == LAST.to_string()))
        })?;
        // What the other processor's ring holds of the last moments.
        let mut seen = 0;
        wait_until("no more flows", SOON, || {
            thread::sleep(Duration::from_millis(300));
            let before = std::mem::replace(&mut seen, ground.all()?.len());
            Ok(before == seen)
        })?;
        ground.period[1] = now();
        Ok(ground)
    }

    fn node(&self) -> &Node {
        self.lab.node("a")
    }

    /// The stock client on the node's socket.
    fn hubble(&self, words: &[&str]) -> Result<Command> {
        let mut command = Command::new(binaries::hubble()?);
        let socket = self.node().directories().run.join("agent.sock");
        command.args(["--config", "/dev/null"]).args(words);
        command.arg("--server").arg(format!("unix://{}", socket.display()));
        // Its default mask leaves out directions, match types and policies.
        if words.first() == Some(&"observe") {
            command.arg("--use-default-field-masks=false");
        }
        Ok(command)
    }

    fn observe<'a>(&'a self, words: &[&'a str]) -> Vec<&'a str> {
        ["observe", "--since", &self.period[0], "--until", &self.period[1]]
            .iter()
            .chain(words)
            .copied()
            .collect()
    }

    /// What both clients print.
    fn both(&self, words: &[&str]) -> Result<[(&'static str, String); 2]> {
        let words = self.observe(words);
        let hubble = success(self.hubble(&words)?.output().context("running hubble")?)?;
        Ok([("hubble", hubble), ("sinew", success(self.node().sinew(&words)?)?)])
    }

    fn all(&self) -> Result<Vec<Value>> {
        let words = ["observe", "--since", &self.period[0], "-o", "jsonpb"];
        flows(&success(self.hubble(&words)?.output().context("running hubble")?)?)
    }
}

/// As the clients read it.
fn now() -> String {
    jiff::Timestamp::now().to_string()
}

fn success(output: Output) -> Result<String> {
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {told}", output.status);
    String::from_utf8(output.stdout).context("what a client prints is text")
}

fn flows(printed: &str) -> Result<Vec<Value>> {
    let mut flows = Vec::new();
    for line in printed.lines() {
        let line: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
        flows.push(line["flow"].clone());
    }
    Ok(flows)
}

/// What stands at a place, numbers too; empty where there is nothing.
fn text(flow: &Value, place: &str) -> String {
    match flow.pointer(place) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

/// Whether one of the two ends has `value` at `place`.
fn either(flow: &Value, place: &str, value: &str) -> bool {
    ["source", "destination"].iter().any(|end| text(flow, &format!("/{end}/{place}")) == value)
}

fn has_label(flow: &Value, end: &str, label: &str) -> bool {
    let labels = flow.pointer(&format!("/{end}/labels")).and_then(Value::as_array);
    labels.is_some_and(|labels| labels.iter().any(|one| one == label))
}

fn port(flow: &Value, end: &str) -> String {
    let transports = ["TCP", "UDP"].map(|transport| text(flow, &format!("/l4/{transport}/{end}_port")));
    transports.concat()
}

type Shows = Box<dyn Fn(&Value) -> bool>;

/// Filters, and which flows they mean, in the words of the protocol's own comments.
fn cases(far: &str, client: &str, uuid: &str) -> Vec<(Vec<String>, Shows)> {
    fn case(words: &[&str], shows: impl Fn(&Value) -> bool + 'static) -> (Vec<String>, Shows) {
        (words.iter().map(|&word| word.to_owned()).collect(), Box::new(shows))
    }
    let [far_only, from_far, to_far] = [0; 3].map(|_| far.to_owned());
    let [either_client, from_client, to_client] = [0; 3].map(|_| client.to_owned());
    let one = uuid.to_owned();
    let expression =
        format!("_flow.destination.identity == uint({client}) || _flow.l4.UDP.destination_port == uint(53)");
    let by_expression = client.to_owned();
    vec![
        case(&["--pod", "default/far"], |flow| either(flow, "pod_name", "far")),
        case(&["--from-pod", "default/client"], |flow| text(flow, "/source/pod_name") == "client"),
        case(&["--to-pod", "default/client"], |flow| text(flow, "/destination/pod_name") == "client"),
        case(&["--namespace", "visitors"], |flow| either(flow, "namespace", "visitors")),
        case(&["--from-namespace", "default"], |flow| text(flow, "/source/namespace") == "default"),
        case(&["--to-namespace", "visitors"], |flow| text(flow, "/destination/namespace") == "visitors"),
        case(&["--label", "app=guest"], |flow| {
            ["source", "destination"].iter().any(|end| has_label(flow, end, "k8s:app=guest"))
        }),
        case(&["--from-label", "app in (client, guest)"], |flow| {
            ["client", "guest"].iter().any(|app| has_label(flow, "source", &format!("k8s:app={app}")))
        }),
        case(&["--to-label", "k8s:app=server"], |flow| has_label(flow, "destination", "k8s:app=server")),
        case(&["--identity", client], move |flow| either(flow, "identity", &either_client)),
        case(&["--from-identity", client], move |flow| text(flow, "/source/identity") == from_client),
        case(&["--to-identity", client], move |flow| text(flow, "/destination/identity") == to_client),
        case(&["--to-identity", "world-ipv4"], |flow| text(flow, "/destination/identity") == "9"),
        case(&["--ip", far], move |flow| {
            [text(flow, "/IP/source"), text(flow, "/IP/destination")].contains(&far_only)
        }),
        case(&["--from-ip", far], move |flow| text(flow, "/IP/source") == from_far),
        case(&["--to-ip", &format!("{far}/32")], move |flow| text(flow, "/IP/destination") == to_far),
        case(&["--ipv4"], |flow| text(flow, "/IP/ipVersion") == "IPv4"),
        case(&["--ipv6"], |flow| text(flow, "/IP/ipVersion") == "IPv6"),
        case(&["--port", "80"], |flow| port(flow, "source") == "80" || port(flow, "destination") == "80"),
        case(&["--from-port", "80"], |flow| port(flow, "source") == "80"),
        case(&["--to-port", "53"], |flow| port(flow, "destination") == "53"),
        case(&["--protocol", "udp"], |flow| flow.pointer("/l4/UDP").is_some()),
        case(&["--protocol", "icmp"], |flow| {
            ["/l4/ICMPv4", "/l4/ICMPv6"].iter().any(|place| flow.pointer(place).is_some())
        }),
        case(&["--protocol", "icmpv4"], |flow| flow.pointer("/l4/ICMPv4").is_some()),
        case(&["--tcp-flags", "syn,ack"], |flow| {
            text(flow, "/l4/TCP/flags/SYN") == "true" && text(flow, "/l4/TCP/flags/ACK") == "true"
        }),
        case(&["--tcp-flags", "rst"], |flow| text(flow, "/l4/TCP/flags/RST") == "true"),
        case(&["--tcp-flags", "fin"], |flow| text(flow, "/l4/TCP/flags/FIN") == "true"),
        case(&["--verdict", "DROPPED"], |flow| text(flow, "/verdict") == "DROPPED"),
        case(&["--not", "--verdict", "DROPPED"], |flow| text(flow, "/verdict") != "DROPPED"),
        case(&["--drop-reason-desc", "POLICY_DENIED"], |flow| {
            text(flow, "/drop_reason_desc") == "POLICY_DENIED"
        }),
        case(&["--drop-reason-desc", "POLICY_DENY"], |flow| text(flow, "/drop_reason_desc") == "POLICY_DENY"),
        case(&["--type", "drop"], |flow| text(flow, "/event_type/type") == "1"),
        case(&["--type", "policy-verdict"], |flow| text(flow, "/event_type/type") == "5"),
        case(&["--type", "trace:to-endpoint"], |flow| {
            text(flow, "/event_type/type") == "4" && text(flow, "/trace_observation_point") == "TO_ENDPOINT"
        }),
        case(&["--traffic-direction", "ingress"], |flow| text(flow, "/traffic_direction") == "INGRESS"),
        case(&["--traffic-direction", "egress"], |flow| text(flow, "/traffic_direction") == "EGRESS"),
        case(&["--uuid", uuid], move |flow| text(flow, "/uuid") == one),
        case(&["--cel-expression", &expression], move |flow| {
            text(flow, "/destination/identity") == by_expression
                || text(flow, "/l4/UDP/destination_port") == "53"
        }),
        case(&["--allowlist", r#"{"reply":[true]}"#], |flow| {
            flow.pointer("/is_reply") == Some(&Value::Bool(true))
        }),
        case(&["--from-pod", "default/client", "--not", "--protocol", "tcp"], |flow| {
            text(flow, "/source/pod_name") == "client" && flow.pointer("/l4/TCP").is_none()
        }),
        case(&["--first", "5", "--verdict", "FORWARDED"], |_| true),
    ]
}

#[test]
#[ignore = "cargo xtask test hubble"]
fn every_filter_finds_the_flows_of_real_packets() -> Result<()> {
    let ground = Ground::new()?;
    let [(_, all), (_, ours)] = ground.both(&["-o", "jsonpb"])?;
    let all = flows(&all)?;
    ensure!(all == flows(&ours)?, "the two clients are told different flows");
    let uuids: BTreeSet<String> = all.iter().map(|flow| text(flow, "/uuid")).collect();
    ensure!(uuids.len() == all.len(), "two flows have one UUID");
    let of_client =
        all.iter().find(|flow| text(flow, "/source/pod_name") == "client").context("the client's")?;
    let (client, uuid) = (text(of_client, "/source/identity"), text(of_client, "/uuid"));
    let mut wrong = Vec::new();
    for (words, shows) in cases(&ground.far, &client, &uuid) {
        let mut expected: Vec<_> = all.iter().filter(|flow| shows(flow)).collect();
        if words[0] == "--first" {
            expected.retain(|flow| text(flow, "/verdict") == "FORWARDED");
            expected.truncate(5);
        }
        if expected.is_empty() || expected.len() == all.len() {
            wrong.push(format!(
                "{words:?} means {} of {} flows, so that nothing is tried",
                expected.len(),
                all.len()
            ));
        }
        let mut given: Vec<&str> = words.iter().map(String::as_str).collect();
        given.extend(["-o", "jsonpb"]);
        for (client, printed) in ground.both(&given)? {
            let shown = flows(&printed)?;
            if shown.iter().ne(expected.iter().copied()) {
                let shown: Vec<_> = shown.iter().map(|flow| text(flow, "/Summary")).collect();
                let expected: Vec<_> = expected.iter().map(|flow| text(flow, "/Summary")).collect();
                wrong.push(format!("{client} {words:?}\n  shows {shown:?}\n  not   {expected:?}"));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
#[ignore = "cargo xtask test hubble"]
fn what_a_person_reads_is_the_same_from_both_and_says_why() -> Result<()> {
    let ground = Ground::new()?;
    for form in [
        &["-o", "compact"][..],
        &["-o", "compact", "--print-node-name", "--print-policy-names"],
        &["-o", "dict"],
        &["-o", "table", "--time-format", "RFC3339Nano"],
        &["--numeric"],
    ] {
        let [(_, theirs), (_, ours)] = ground.both(form)?;
        ensure!(theirs.lines().count() > 20, "{form:?} shows too little:\n{theirs}");
        ensure!(theirs == ours, "{form:?}\nhubble:\n{theirs}\nsinew:\n{ours}");
    }
    let [(_, lines), _] = ground.both(&["--print-policy-names", "--verdict", "DROPPED"])?;
    let says = |words: &[&str]| lines.lines().any(|line| words.iter().all(|word| line.contains(word)));
    for words in [
        &["visitors/guest", "default/near:80", "policy-verdict:none INGRESS DENIED BY server-accepts"][..],
        &["visitors/guest", "default/near:80", "Policy denied DROPPED (TCP Flags: SYN)"],
        &["default/client", ":80 (world", "EGRESS DENIED BY no-outside (CiliumNetworkPolicy)"],
        &["default/client", ":80 (world", "Policy denied by denylist DROPPED (TCP Flags: SYN)"],
    ] {
        ensure!(says(words), "no line with {words:?} in\n{lines}");
    }

    let told = |words: &[&str]| success(ground.hubble(words)?.output().context("running hubble")?);
    let nodes = told(&["list", "nodes"])?;
    ensure!(nodes.lines().any(|line| line.starts_with("lab/a") && line.contains("Connected")), "{nodes}");
    let namespaces = told(&["list", "namespaces"])?;
    ensure!(["default", "visitors"].iter().all(|name| namespaces.contains(name)), "{namespaces}");
    let status = told(&["status"])?;
    ensure!(status.contains("): Ok\n") && status.contains("Current/Max Flows: "), "{status}");
    let reflected = told(&["reflect"])?;
    for service in ["Observer", "Peer"] {
        ensure!(reflected.contains(&format!("\"name\":\"{service}\"")), "no {service}: {reflected}");
    }
    Ok(())
}

#[test]
#[ignore = "cargo xtask test hubble"]
fn a_client_that_follows_sees_the_next_connection_and_only_what_it_asked_for() -> Result<()> {
    let ground = Ground::new()?;
    let folder = tempfile::tempdir().context("a folder")?;
    let file = folder.path().join("followed");
    let words = ["observe", "--follow", "--to-pod", "default/near", "--verdict", "DROPPED", "-o", "jsonpb"];
    let _following = Running::start(&mut ground.hubble(&words)?, &file)?;
    let near = ground.near.address(Family::V4);
    let seen = || -> Result<Vec<Value>> {
        let text = fs::read_to_string(&file).context("what the client wrote")?;
        flows(&text[..text.rfind('\n').map_or(0, |end| end + 1)])
    };
    wait_until("a refused connection", SOON, || {
        for pod in [&ground.client, &ground.guest] {
            pod.dial(Transport::Tcp, near, TCP, &["--timeout", "200"])?;
        }
        Ok(!seen()?.is_empty())
    })?;
    let seen = seen()?;
    ensure!(
        seen.iter()
            .all(|flow| text(flow, "/source/pod_name") == "guest" && text(flow, "/verdict") == "DROPPED"),
        "{seen:#?}"
    );
    Ok(())
}
