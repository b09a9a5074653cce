//! Metrics of live agents: the port, the numbers, the series of pods that are gone, and a real
//! Prometheus with the boards and alert rules of `docs/observability`.

#[path = "lab_metrics/prometheus.rs"]
mod prometheus;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sinew_tests::lab::cni::Call;
use sinew_tests::lab::process::{Running, output_with, run, wait_until};
use sinew_tests::lab::{Family, Lab, Node, Topology, binaries};

const TCP: u16 = 80;

const POLICY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: server-accepts, namespace: default}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: client}}}]
    ports: [{port: 80, protocol: TCP}]
";

/// What a node's metrics port answers.
fn scrape(node: &Node) -> Result<String> {
    run(node.netns().command("curl").args(["-fsS", "http://127.0.0.1:9965/metrics"]))
}

/// The number of a series.
fn number(text: &str, series: &str) -> Result<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.with_context(|| format!("{series} is not in {text}"))?.parse().context("a number")
}

#[test]
#[ignore = "cargo xtask test lab"]
fn the_kernel_counts_every_packet_and_the_port_tells_it() -> Result<()> {
    let lab =
        Lab::build(Topology::Wire(1)).agent_argument("--hubble-metrics-server=127.0.0.1:9965").start()?;
    let node = lab.node("a");
    let client = node.pod("client", &[("app", "client")])?;
    let other = node.pod("other", &[("app", "other")])?;
    let server = node.pod("server", &[("app", "server")])?;
    server.serve(&[TCP], &[])?;
    lab.apply("policy", POLICY)?;
    let denied =
        "sinew_drop_packets_total{reason=\"policy denied by default\",hubble_reason=\"POLICY_DENIED\"}";
    let policy =
        "sinew_policy_judgements_total{policy=\"netpol/default/server-accepts\",by=\"default_deny\"}";
    let before = scrape(node)?;
    for family in Family::BOTH {
        ensure!(client.tcp(server.address(family), TCP)?.answered(), "the client is allowed");
    }
    // Five datagrams without an answer are five drops.
    for _ in 0..5 {
        ensure!(other.udp(server.address(Family::V4), 53)?.dropped(), "the other one is not");
    }
    let text = scrape(node)?;
    ensure!(number(&text, denied)? - number(&before, denied)? == 5.0, "five drops: {text}");
    for (series, expected) in [
        (policy, 5.0),
        ("sinew_policy_judgements_total{policy=\"netpol/default/server-accepts\",by=\"rule\"}", 2.0),
        ("sinew_endpoints{state=\"ready\"}", 3.0),
        ("sinew_map_entries{map=\"INTERFACES\"}", 3.0),
        ("sinew_map_capacity{map=\"CT_TCP\"}", 262_144.0),
        ("sinew_policies{state=\"enforced\"}", 1.0),
        ("sinew_cni_requests_total{command=\"ADD\",result=\"ok\",code=\"0\"}", 3.0),
        ("sinew_cni_request_seconds_count{command=\"ADD\"}", 3.0),
        ("sinew_nodes{state=\"alive\"}", 1.0),
        ("sinew_condition{condition=\"datapath\",state=\"ok\"}", 1.0),
        ("sinew_event_records_lost_total", 0.0),
        ("hubble_lost_events_total{source=\"perf_event_ring_buffer\"}", 0.0),
    ] {
        ensure!(number(&text, series)? == expected, "{series} is not {expected}: {text}");
    }
    ensure!(number(&text, "sinew_conntrack_entries{table=\"tcp\"}")? >= 2.0, "two connections: {text}");
    ensure!(
        number(&text, "sinew_policy_revision{of=\"enforced\"}")?
            == number(&text, "sinew_policy_revision{of=\"desired\"}")?,
        "what is asked for is enforced: {text}"
    );
    ensure!(
        number(&text, "sinew_policy_enforcement_delay_seconds_count")? >= 4.0,
        "three pods, a policy: {text}"
    );
    // Prometheus' own judge of the text: names, units, help.
    let judged = output_with(node.netns().command("promtool").args(["check", "metrics"]), text.as_bytes())?;
    ensure!(judged.status.success(), "promtool: {}", String::from_utf8_lossy(&judged.stderr));
    Ok(())
}

/// What Hubble's metrics count is what the ring of flows holds, flow by flow.
#[test]
#[ignore = "cargo xtask test lab"]
fn flows_are_counted_one_by_one() -> Result<()> {
    let lab = Lab::build(Topology::Wire(1))
        .agent_argument("--hubble-metrics-server=127.0.0.1:9965")
        .agent_argument(
            "--hubble-metrics=flow drop:sourceContext=pod;destinationContext=pod policy tcp icmp port-distribution",
        )
        .start()?;
    let node = lab.node("a");
    let client = node.pod("client", &[("app", "client")])?;
    let other = node.pod("other", &[("app", "other")])?;
    let server = node.pod("server", &[("app", "server")])?;
    server.serve(&[TCP], &[])?;
    lab.apply("policy", POLICY)?;
    for family in Family::BOTH {
        ensure!(client.tcp(server.address(family), TCP)?.answered(), "the client is allowed");
        ensure!(other.ping(client.address(family))?.answered(), "nobody forbids it");
        ensure!(other.udp(server.address(family), 53)?.dropped(), "the other one is not");
    }
    // Both are read until they agree: a sign of life of a connection may come between two readings.
    let mut last = String::new();
    wait_until("counts that are those of the flows", Duration::from_secs(30), || {
        let counted = counts(&scrape(node)?, "hubble_flows_processed_total")?;
        let mut flows: BTreeMap<Vec<String>, u64> = BTreeMap::new();
        for flow in node.flows(None)? {
            let raw = flow.raw();
            let kind = match raw.pointer("/event_type/type").and_then(Value::as_i64) {
                Some(1) => "Drop",
                Some(4) => "Trace",
                Some(5) => "PolicyVerdict",
                other => anyhow::bail!("an event of type {other:?}"),
            };
            let point = raw.pointer("/trace_observation_point").and_then(Value::as_str).unwrap_or_default();
            let protocol = match flow.protocol() {
                "" => "Unknown L4",
                named => named,
            };
            let key = [protocol, kind, &point.to_lowercase().replace('_', "-"), flow.verdict()];
            *flows.entry(key.map(str::to_owned).to_vec()).or_default() += 1;
        }
        last = format!("{counted:?}\n{flows:?}");
        Ok(counted == flows)
    })
    .with_context(|| last.clone())?;
    let text = scrape(node)?;
    for (series, expected) in [
        // Each datagram that is denied leaves a verdict and a drop.
        (
            "hubble_drop_total{reason=\"POLICY_DENIED\",protocol=\"UDP\",source=\"default/other\",destination=\"default/server\"}",
            4.0,
        ),
        ("hubble_policy_verdicts_total{direction=\"ingress\",match=\"none\",action=\"dropped\"}", 2.0),
        ("hubble_policy_verdicts_total{direction=\"ingress\",match=\"l3-l4\",action=\"forwarded\"}", 2.0),
        ("sinew_flow_metric_uncounted_total{metric=\"hubble_drop_total\"}", 0.0),
    ] {
        ensure!(number(&text, series)? == expected, "{series} is not {expected}: {text}");
    }
    for series in [
        "hubble_tcp_flags_total{flag=\"SYN\",family=\"IPv6\"}",
        "hubble_tcp_flags_total{flag=\"SYN-ACK\",family=\"IPv4\"}",
        "hubble_icmp_total{family=\"IPv4\",type=\"EchoRequest\"}",
        "hubble_icmp_total{family=\"IPv6\",type=\"EchoReply\"}",
        "hubble_port_distribution_total{protocol=\"TCP\",port=\"80\"}",
    ] {
        ensure!(number(&text, series)? >= 1.0, "{series}: {text}");
    }
    Ok(())
}

/// What docs/observability.md tells people to run, on which the boards count.
const BOARDS_WANT: &str = "flow:sourceContext=workload|pod|reserved-identity;destinationContext=workload|pod|reserved-identity \
                           drop:sourceContext=workload|pod|reserved-identity;destinationContext=workload|pod|reserved-identity \
                           policy tcp icmp port-distribution flows-to-world";

/// A real Prometheus scrapes a live agent and a live relay under traffic of every kind. Every query of every board has an
/// answer, or stands in the document's table of those that are empty here; the same for what the alerts watch. The rules
/// are evaluated without an error, and none of the alerts that wake somebody fires. Then a pod goes, and its series go.
#[test]
#[ignore = "cargo xtask test lab"]
fn prometheus_answers_every_query_of_the_boards_and_rules() -> Result<()> {
    let document = fs::read_to_string(prometheus::file("docs/observability.md"))?;
    ensure!(document.contains(BOARDS_WANT), "the document says what the boards want: {BOARDS_WANT}");
    let lab = Lab::build(Topology::Wire(1))
        .agent_argument("--hubble-metrics-server=127.0.0.1:9965")
        .agent_argument(&format!("--hubble-metrics={BOARDS_WANT}"))
        .start()?;
    let node = lab.node("a");
    let client = node.pod("client", &[("app", "client")])?;
    let other = node.pod("other", &[("app", "other")])?;
    let server = node.pod("server", &[("app", "server")])?;
    server.serve(&[TCP], &[])?;
    let mut relay = node.netns().command(binaries::find("sinew-relay")?);
    relay.arg(format!("--node=lab/a=unix:{}", node.directories().run.join("agent.sock").display()));
    relay.arg(format!("--socket={}", node.directories().notes.join("relay.sock").display()));
    relay.arg("--metrics-listen-address=127.0.0.1:9966");
    let relay = Running::start(&mut relay, &node.directories().notes.join("relay.log"))?;
    let prometheus = prometheus::Prometheus::start(node).with_context(|| relay.log_tail(10))?;

    let known_empty = known_empty(&document)?;
    let queries = prometheus::board_queries()?;
    let subjects = prometheus::alert_subjects()?;
    let mut empty = BTreeSet::new();
    let mut round = 0;
    wait_until("an answer to every query", Duration::from_secs(120), || {
        round += 1;
        // A change that is enforced, an ADD that is refused, connections, denials, pings, and the world.
        lab.apply("policy", &POLICY.replace("port: 80,", &format!("port: {},", 80 + round % 2)))?;
        lab.apply("policy", POLICY)?;
        let again = Call::new("ADD", &client.record().container_id, client.netns());
        ensure!(node.cni(&again)?.code() == Some(101), "the client's container is attached already");
        for family in Family::BOTH {
            ensure!(client.tcp(server.address(family), TCP)?.answered(), "the client is allowed");
            ensure!(other.ping(client.address(family))?.answered(), "nobody forbids it");
            ensure!(other.udp(server.address(family), 53)?.dropped(), "the other one is not");
            client.udp(lab.outside().address(family), 9)?;
        }
        empty.clear();
        for query in &queries {
            if prometheus.query(&query.expression).with_context(|| query.panel.clone())?.is_empty() {
                empty.insert(query.panel.clone());
            }
        }
        for (alert, subject) in &subjects {
            if prometheus.query(subject).with_context(|| alert.clone())?.is_empty() {
                empty.insert(format!("rules: {alert}"));
            }
        }
        Ok(empty == known_empty)
    })
    .with_context(|| format!("empty: {empty:#?}; the document says: {known_empty:#?}"))?;

    for (rule, (health, error)) in prometheus.rules()? {
        ensure!(health == "ok", "{rule}: {health}: {error}");
    }
    let firing: BTreeSet<String> = prometheus
        .query("ALERTS{alertstate=\"firing\"}")?
        .iter()
        .map(|(labels, _)| labels["alertname"].to_string())
        .collect();
    ensure!(firing.is_empty(), "nothing is broken for as long as an alert waits: {firing:?}");
    for words in [["check", "rules", "rules.yaml"], ["test", "rules", "rules_test.yaml"]] {
        let file = prometheus::file("docs/observability").join(words[2]);
        run(node.netns().command("promtool").args(&words[..2]).arg(file))?;
    }

    let of_the_gone = "source=\"default/other\"";
    ensure!(scrape(node)?.contains(of_the_gone), "it has series while it is there");
    node.remove_pod("other")?;
    // 60 s after it went, at the next look.
    wait_until("the series of a pod that is gone to leave", Duration::from_secs(180), || {
        Ok(!scrape(node)?.contains(of_the_gone))
    })?;
    ensure!(scrape(node)?.contains("source=\"default/client\""), "those of the others stay");
    Ok(())
}

/// The panels and alerts that the document lists as empty in the lab.
fn known_empty(document: &str) -> Result<BTreeSet<String>> {
    let (_, table) =
        document.split_once("<!-- empty in the lab -->\n").context("no table of what is empty")?;
    let (table, _) = table.split_once("<!-- end -->").context("no end of the table")?;
    let rows = table.lines().skip(2).filter_map(|row| row.strip_prefix("| ")?.split(" | ").next());
    Ok(rows.map(str::to_owned).collect())
}

/// Values of a metric's series by the values of its labels.
fn counts(text: &str, metric: &str) -> Result<BTreeMap<Vec<String>, u64>> {
    let mut counts = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix(metric)?.strip_prefix('{')) {
        let (labels, value) = line.rsplit_once("} ").context("a series")?;
        let values = labels.split("\",").filter_map(|label| label.split_once("=\""));
        let key = values.map(|(_, value)| value.trim_end_matches('"').to_owned()).collect();
        counts.insert(key, value.parse().context("a count")?);
    }
    Ok(counts)
}

/// The port is closed unless it is asked for.
#[test]
#[ignore = "cargo xtask test lab"]
fn nothing_listens_unless_it_is_asked_to() -> Result<()> {
    let lab = Lab::build(Topology::Wire(1)).start()?;
    let node = lab.node("a");
    node.wait_ready(Duration::from_secs(30))?;
    let sockets = run(node.netns().command("ss").args(["-Htln"]))?;
    ensure!(sockets.trim().is_empty(), "somebody listens: {sockets}");
    Ok(())
}
