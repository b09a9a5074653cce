//! The unmodified `hubble` client against our Observer service, and `sinew observe` beside it.
//!
//! One journal with the flows of `hubble/flows.rs` is served on a Unix socket. Every case of `hubble/cases.rs` runs
//! through both clients and must show the flows that it names and no other; every form of output must be the same,
//! byte for byte, from both. `cargo xtask setup test` builds the client; this file only runs it.

mod hubble {
    pub(crate) mod cases;
    pub(crate) mod flows;
    mod help;
    mod print;
    mod tls;
}

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use hubble::cases::{CASES, Case, REFUSED};
use hubble::flows;
use prost_types::Timestamp;
use serde_json::Value;
use sinew_api::proto::flow::agent_event::Notification;
use sinew_api::proto::flow::{
    AgentEvent, AgentEventType, Flow, LostEvent, LostEventSource, PolicyUpdateNotification,
};
use sinew_observer::peer::{PeerAddress, Peers};
use sinew_observer::relay::{NodeTls, Relay, RelaySettings};
use sinew_observer::{Journal, JournalSettings, Source, server};
use sinew_tests::lab::binaries;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

/// A served journal; ends with the value.
struct Node {
    journal: Arc<Journal>,
    served: Served,
}

/// A service on a socket of its own.
struct Served {
    address: String,
    _folder: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl Served {
    fn start<S: Source>(make: impl FnOnce(watch::Receiver<Peers>) -> Arc<S>, peers: Peers) -> Result<Self> {
        let folder = tempfile::tempdir().context("a folder for the socket")?;
        let path = folder.path().join("observer.sock");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (sender, receiver) = watch::channel(peers);
        let entered = runtime.enter();
        let listener = UnixListener::bind(&path).context("bind the socket")?;
        let source = make(receiver.clone());
        drop(entered);
        runtime.spawn(async move {
            let _sender = sender;
            let (routes, _health) = server::routes(source, receiver).await;
            let incoming = UnixListenerStream::new(listener);
            Server::builder().add_routes(routes.routes()).serve_with_incoming(incoming).await
        });
        Ok(Self { address: format!("unix://{}", path.display()), _folder: folder, _runtime: runtime })
    }

    fn hubble(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(binaries::hubble()?);
        command.arg("--config").arg("/dev/null").args(arguments).args(["--server", &self.address]);
        // The client's default mask leaves out directions, match types and policies, so that its own lines lack them.
        // 1.19.3 reads no variable for this flag.
        if arguments.first() == Some(&"observe") && !arguments.iter().any(|it| it.ends_with("-events")) {
            command.arg("--use-default-field-masks=false");
        }
        command.output().context("run hubble")
    }

    fn sinew(&self, arguments: &[&str]) -> Result<Output> {
        Command::new(sinew_binary()?)
            .args(arguments)
            .args(["--server", &self.address])
            .output()
            .context("run sinew")
    }
}

impl std::ops::Deref for Node {
    type Target = Served;

    fn deref(&self) -> &Served {
        &self.served
    }
}

impl Node {
    fn start() -> Result<Self> {
        Self::named("default/node-a")
    }

    fn named(name: &str) -> Result<Self> {
        let journal = Arc::new(Journal::new(JournalSettings::new(name, "0.1.0"), SystemTime::now()));
        let peers = ["a", "b"].map(|name| {
            let address = format!("192.0.2.{}:4244", name.len());
            (format!("default/node-{name}"), PeerAddress { address, tls: None })
        });
        let served = Served::start(|_| journal.clone(), BTreeMap::from(peers))?;
        Ok(Self { journal, served })
    }

    fn with_flows() -> Result<Self> {
        let node = Self::start()?;
        node.journal.record_flows(flows::all());
        Ok(node)
    }
}

/// `$SINEW_CLI`, or what was built beside this test.
fn sinew_binary() -> Result<PathBuf> {
    // target/<profile>/deps/hubble-<hash>
    let program = std::env::current_exe()?;
    let profile = program.parent().and_then(Path::parent).context("a test lies in target/<profile>/deps")?;
    let path = std::env::var_os("SINEW_CLI").map_or_else(|| profile.join("sinew"), PathBuf::from);
    ensure!(path.is_file(), "{} is not there: cargo build -p sinew-cli", path.display());
    Ok(path)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn success(output: &Output) -> Result<String> {
    ensure!(output.status.success(), "{}: {}{}", output.status, text(&output.stdout), text(&output.stderr));
    Ok(text(&output.stdout))
}

fn json_lines(output: &str) -> Result<Vec<Value>> {
    output
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}")))
        .collect()
}

fn uuids(output: &str) -> Result<Vec<String>> {
    let lines = json_lines(output)?;
    Ok(lines.iter().map(|line| line["flow"]["uuid"].as_str().unwrap_or("?").to_owned()).collect())
}

/// Which flows a command line shows.
fn shown(run: impl Fn(&[&str]) -> Result<Output>, arguments: &[&str]) -> Result<Vec<String>> {
    let all: Vec<&str> = ["observe", "-o", "json"].into_iter().chain(arguments.iter().copied()).collect();
    uuids(&success(&run(&all)?)?).with_context(|| format!("observe {arguments:?}"))
}

#[test]
#[ignore = "cargo xtask test hubble"]
fn every_flag_shows_what_it_must_and_nothing_else() -> Result<()> {
    let node = Node::with_flows()?;
    let mut wrong = Vec::new();
    for Case(arguments, expected) in CASES {
        for (client, seen) in [
            ("hubble", shown(|all| node.hubble(all), arguments)),
            ("sinew", shown(|all| node.sinew(all), arguments)),
        ] {
            match seen {
                Ok(seen) if seen == *expected => {}
                Ok(seen) => {
                    wrong.push(format!("{client} {arguments:?}\n  shows {seen:?}\n  not   {expected:?}"))
                }
                Err(error) => wrong.push(format!("{client} {arguments:?}: {error:#}")),
            }
        }
    }
    ensure!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), 2 * CASES.len(), wrong.join("\n"));
    Ok(())
}

/// The same cases through a relay over a node with the flows, one without any, and one that is not there.
#[test]
#[ignore = "cargo xtask test hubble"]
fn a_relay_shows_what_its_nodes_have() -> Result<()> {
    let (full, empty) = (Node::with_flows()?, Node::named("default/node-b")?);
    let peer = |address: &str| PeerAddress { address: address.to_owned(), tls: None };
    let peers = Peers::from([
        ("default/node-a".to_owned(), peer(&full.address)),
        ("default/node-b".to_owned(), peer(&empty.address)),
        ("default/node-c".to_owned(), peer("unix:/nowhere/observer.sock")),
    ]);
    let settings = RelaySettings { window: Duration::from_millis(200), ..RelaySettings::default() };
    let relay = Served::start(
        |peers| Arc::new(Relay::new(settings, "0.1.0", peers, NodeTls::Undecided, SystemTime::now())),
        peers,
    )?;
    for Case(arguments, expected) in CASES {
        let all: Vec<&str> = ["observe", "-o", "json"].into_iter().chain(arguments.iter().copied()).collect();
        let output = relay.hubble(&all)?;
        let flows = success(&output)?
            .lines()
            .filter(|line| line.starts_with("{\"flow\""))
            .collect::<Vec<_>>()
            .join("\n");
        let seen = uuids(&flows)?;
        ensure!(seen == *expected, "{arguments:?} shows {seen:?}, not {expected:?}");
        let told = text(&output.stderr);
        ensure!(told.contains("NODE_UNAVAILABLE") && told.contains("default/node-c"), "{told}");
    }
    let status = success(&relay.hubble(&["status"])?)?;
    ensure!(status.contains("Connected Nodes: 2/3") && status.contains("- default/node-c"), "{status}");
    let nodes = same_list(&relay, &["list", "nodes", "-o", "wide"])?;
    ensure!(nodes.contains("default/node-b") && nodes.contains("Unavailable"), "{nodes}");
    let dead = nodes.lines().find(|line| line.contains("default/node-c")).unwrap_or_default();
    ensure!(dead.split_whitespace().filter(|word| *word == "N/A").count() >= 4, "{nodes}");
    Ok(())
}

#[test]
#[ignore = "cargo xtask test hubble"]
fn what_has_no_meaning_is_refused_by_field() -> Result<()> {
    let node = Node::with_flows()?;
    for (arguments, field) in REFUSED {
        let all: Vec<&str> = ["observe"].into_iter().chain(arguments.iter().copied()).collect();
        for (client, output) in [("hubble", node.hubble(&all)?), ("sinew", node.sinew(&all)?)] {
            let told = text(&output.stderr);
            ensure!(
                !output.status.success() && told.contains(field),
                "{client} {arguments:?} does not name {field}: {told}"
            );
        }
    }
    Ok(())
}

/// Forms of output that are compared byte for byte.
const FORMS: &[&[&str]] = &[
    &["-o", "compact"],
    &["-o", "dict"],
    &["-o", "table"],
    &["-o", "compact", "--print-node-name"],
    &["-o", "dict", "--print-node-name"],
    &["-o", "table", "--print-node-name"],
    &["-o", "compact", "--numeric"],
    &["-o", "compact", "--ip-translation=false"],
    &["-o", "compact", "--time-format", "YearMonthDay"],
    &["-o", "compact", "--time-format", "RFC3339Milli"],
    &["-o", "compact", "--time-format", "RFC3339Nano"],
    &["-o", "compact", "--time-format", "RFC1123Z"],
];

#[test]
#[ignore = "cargo xtask test hubble"]
fn every_form_of_output_is_the_stock_clients() -> Result<()> {
    let node = Node::with_flows()?;
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(flows::START)? + 60);
    let lost = LostEvent {
        source: LostEventSource::PerfEventRingBuffer.into(),
        num_events_lost: 17,
        cpu: Some(1),
        first: Some(Timestamp { seconds: flows::START, nanos: 0 }),
        last: Some(Timestamp { seconds: flows::START + 1, nanos: 500_000_000 }),
    };
    node.journal.record_lost(lost, now);
    for form in FORMS {
        let all: Vec<&str> = ["observe", "--last", "50"].into_iter().chain(form.iter().copied()).collect();
        let (theirs, ours) = (success(&node.hubble(&all)?)?, success(&node.sinew(&all)?)?);
        ensure!(theirs.lines().count() > 15, "{form:?} shows too little:\n{theirs}");
        for (theirs, ours) in theirs.lines().zip(ours.lines()) {
            ensure!(theirs == ours, "{form:?}\nhubble: {theirs}\nsinew:  {ours}");
        }
        ensure!(theirs == ours, "{form:?}\nhubble:\n{theirs}\nsinew:\n{ours}");
    }
    let all = ["observe", "--last", "50", "-o", "jsonpb"];
    let (theirs, ours) = (success(&node.hubble(&all)?)?, success(&node.sinew(&all)?)?);
    ensure!(json_lines(&theirs)?.len() == 16, "hubble: {theirs}");
    for (theirs, ours) in theirs.lines().zip(ours.lines()) {
        ensure!(theirs == ours, "hubble: {theirs}\nsinew:  {ours}");
    }
    ensure!(theirs == ours, "hubble:\n{theirs}\nsinew:\n{ours}");
    Ok(())
}

/// Ours names the policies of an audit verdict too, so that this form is compared without that flow.
#[test]
#[ignore = "cargo xtask test hubble"]
fn policies_are_named_as_the_stock_client_names_them() -> Result<()> {
    let node = Node::with_flows()?;
    let all = ["observe", "--print-policy-names", "--not", "--uuid", "audit"];
    let (theirs, ours) = (success(&node.hubble(&all)?)?, success(&node.sinew(&all)?)?);
    ensure!(theirs == ours, "hubble:\n{theirs}\nsinew:\n{ours}");
    let wanted =
        "policy-verdict:none INGRESS DENIED BY db-in (NetworkPolicy), db-extra (CiliumNetworkPolicy)";
    ensure!(ours.contains(wanted), "{ours}");
    ensure!(
        ours.contains("policy-verdict:L3-Only EGRESS")
            || ours.contains("policy-verdict:L3-L4 EGRESS ALLOWED BY client-out"),
        "{ours}"
    );
    let ours = success(&node.sinew(&["observe", "--print-policy-names", "--uuid", "audit"])?)?;
    ensure!(ours.contains("policy-verdict:all EGRESS AUDITED BY trial (SinewNetworkPolicy)"), "{ours}");
    Ok(())
}

/// A flag of ours.
#[test]
#[ignore = "cargo xtask test hubble"]
fn flows_are_found_by_their_policy() -> Result<()> {
    let node = Node::with_flows()?;
    for (policy, expected) in [
        ("client-out", vec!["verdict-egress"]),
        ("shop/db-in", vec!["verdict-denied"]),
        ("netpol/shop/db-in", vec!["verdict-denied"]),
        ("cnp/shop/db-in", vec![]),
        ("trial", vec!["audit"]),
    ] {
        let seen = shown(|all| node.sinew(all), &["--policy", policy])?;
        ensure!(seen == expected, "--policy {policy} shows {seen:?}, not {expected:?}");
    }
    Ok(())
}

/// Commands of ours over the same service.
#[test]
#[ignore = "cargo xtask test hubble"]
fn edges_top_lists_and_explanations() -> Result<()> {
    let node = Node::with_flows()?;
    let edges = json_lines(&success(&node.sinew(&["observe", "edges", "-o", "json", "--port", "5432"])?)?)?;
    ensure!(edges.len() == 1, "a reply belongs to the opener's edge: {edges:#?}");
    ensure!(edges[0]["source"] == "shop/client" && edges[0]["destination"] == "shop/db", "{edges:#?}");
    ensure!(edges[0]["port"] == "5432/TCP" && edges[0]["forwarded"] == 2, "{edges:#?}");
    let denied = success(&node.sinew(&["observe", "edges", "--port", "22"])?)?;
    ensure!(denied.lines().count() == 2 && denied.contains("22/TCP"), "{denied}");

    let quiet = success(&node.sinew(&["observe", "top", "--interval", "200ms", "--count", "2"])?)?;
    ensure!(quiet.matches("0 flows in 0.2 s").count() == 2 && quiet.contains("No talkers."), "{quiet}");

    let nodes = same_list(&node, &["list", "nodes", "-o", "wide"])?;
    ensure!(nodes.contains("15/4095 (  0.37%)"), "{nodes}");
    same_list(&node, &["list", "nodes"])?;
    // Without a namespace of the last hour the stock client writes null.
    node.journal.record_flows([Flow { time: Some(SystemTime::now().into()), ..flows::all().swap_remove(0) }]);
    let namespaces = same_list(&node, &["list", "namespaces", "-o", "json"])?;
    ensure!(namespaces.contains("\"cluster\": \"default\""), "{namespaces}");

    let explained = success(&node.sinew(&["observe", "--explain", "verdict-denied"])?)?;
    ensure!(explained.contains("ingress default deny by netpol/shop/db-in (shop/db.yaml:1)"), "{explained}");
    ensure!(explained.contains("nearest rule unknown: "), "a journal alone has no rules: {explained}");
    Ok(())
}

/// What both clients list. Between their two questions a second may pass, which ages tell.
fn same_list(served: &Served, arguments: &[&str]) -> Result<String> {
    let mut seen = (String::new(), String::new());
    for _ in 0..10 {
        seen = (success(&served.hubble(arguments)?)?, success(&served.sinew(arguments)?)?);
        if seen.0 == seen.1 {
            return Ok(seen.0);
        }
    }
    anyhow::bail!("{arguments:?}\nhubble:\n{}\nsinew:\n{}", seen.0, seen.1)
}

/// With its default mask the stock client gets what it asked for and nothing else.
#[test]
#[ignore = "cargo xtask test hubble"]
fn a_field_mask_is_kept_to() -> Result<()> {
    let node = Node::with_flows()?;
    for run in [Served::hubble, Served::sinew] {
        let arguments = [
            "observe",
            "-o",
            "json",
            "--uuid",
            "verdict-denied",
            "--field-mask",
            "source.pod_name,l4.TCP.flags,verdict",
        ];
        let lines = json_lines(&success(&run(&node, &arguments)?)?)?;
        let expected = serde_json::json!({
            "verdict": "DROPPED", "source": {"pod_name": "client-7d9f"}, "l4": {"TCP": {"flags": {"SYN": true}}}
        });
        ensure!(lines.len() == 1 && lines[0]["flow"] == expected, "{lines:#?}");
    }
    let arguments = ["observe", "-o", "json", "--field-mask", "source.pods"];
    let output = node.sinew(&arguments)?;
    ensure!(text(&output.stderr).contains("field_mask: \"source.pods\""), "{output:?}");
    Ok(())
}

#[test]
#[ignore = "cargo xtask test hubble"]
fn flows_of_a_file_are_filtered_as_a_server_would() -> Result<()> {
    let node = Node::with_flows()?;
    let saved = success(&node.hubble(&["observe", "--all", "-o", "jsonpb"])?)?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("flows.json");
    std::fs::write(&file, &saved)?;
    let file = file.to_str().context("a path in UTF-8")?;
    for Case(arguments, expected) in CASES {
        let all: Vec<&str> = ["observe", "-o", "json", "--input-file", file]
            .into_iter()
            .chain(arguments.iter().copied())
            .collect();
        let output = Command::new(sinew_binary()?).args(&all).output()?;
        let seen = uuids(&success(&output)?)?;
        ensure!(seen == *expected, "{arguments:?} shows {seen:?}, not {expected:?}");
    }
    Ok(())
}

#[test]
#[ignore = "cargo xtask test hubble"]
fn the_other_commands_of_the_stock_client_work() -> Result<()> {
    let node = Node::with_flows()?;
    let change = PolicyUpdateNotification { labels: vec!["k8s:a=b".into()], revision: 7, rule_count: 2 };
    let event = AgentEvent {
        r#type: AgentEventType::PolicyUpdated.into(),
        notification: Some(Notification::PolicyUpdate(change)),
    };
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(flows::START)?);
    node.journal.record_event(event, now);

    let status = success(&node.hubble(&["status"])?)?;
    ensure!(status.contains("Healthcheck (via ") && status.contains("): Ok"), "{status}");
    ensure!(status.contains("Current/Max Flows: 15/4,095 (0.37%)"), "{status}");

    let nodes = success(&node.hubble(&["list", "nodes", "-o", "wide"])?)?;
    ensure!(
        nodes.contains("default/node-a") && nodes.contains("Connected") && nodes.contains("15/4095"),
        "{nodes}"
    );

    // Flows of 2026-11-21 are not of the last hour, so the list is asked for after one that is.
    let mut flow = flows::all().swap_remove(0);
    flow.time = Some(SystemTime::now().into());
    node.journal.record_flows([flow]);
    let namespaces = success(&node.hubble(&["list", "namespaces"])?)?;
    ensure!(namespaces == "NAMESPACE\nshop\n", "{namespaces}");

    for run in [Served::hubble, Served::sinew] {
        let events = success(&run(&node, &["observe", "agent-events"])?)?;
        let expected = "Nov 21 03:00:00.000: POLICY_UPDATED (labels: [k8s:a=b], revision: 7, count: 2)\n";
        ensure!(events == expected, "{events}");
        let debug = success(&run(&node, &["observe", "debug-events"])?)?;
        ensure!(debug.is_empty(), "{debug}");
    }

    let schema = success(&node.hubble(&["reflect"])?)?;
    for part in ["observer/observer.proto", "peer/peer.proto", "flow/flow.proto", "GetFlows", "FlowFilter"] {
        ensure!(schema.contains(part), "reflection lacks {part}");
    }
    Ok(())
}

#[test]
#[ignore = "cargo xtask test hubble"]
fn following_shows_what_comes_and_peers_are_watched() -> Result<()> {
    let node = Node::with_flows()?;
    for (binary, address) in [(binaries::hubble()?, &node.address), (sinew_binary()?, &node.address)] {
        let mut child = Command::new(binary)
            .args([
                "observe",
                "--follow",
                "--last",
                "1",
                "--verdict",
                "AUDIT",
                "-o",
                "json",
                "--server",
                address,
            ])
            .stdout(std::process::Stdio::piped())
            .spawn()?;
        let mut lines =
            std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().context("stdout")?));
        let first = lines.next().context("a line")??;
        ensure!(uuids(&first)? == ["audit"], "{first}");
        let mut later = flows::all().into_iter().filter(|flow| flow.uuid == "audit").collect::<Vec<_>>();
        later[0].uuid = "audit-later".into();
        node.journal.record_flows(flows::all().into_iter().take(2).chain(later));
        let second = lines.next().context("a second line")??;
        ensure!(uuids(&second)? == ["audit-later"], "{second}");
        child.kill()?;
        child.wait()?;
        node.journal.record_flows(flows::all());
    }
    let mut child = Command::new(binaries::hubble()?)
        .args(["watch", "peers", "--server", &node.address])
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().context("stdout")?));
    let seen = [lines.next().context("a peer")??, lines.next().context("a second peer")??];
    child.kill()?;
    child.wait()?;
    ensure!(seen[0].contains("PEER_ADDED") && seen[0].contains("default/node-a"), "{seen:?}");
    ensure!(seen[1].contains("PEER_ADDED") && seen[1].contains("default/node-b"), "{seen:?}");
    Ok(())
}
