//! Nothing is lost in silence: where a ring is too small for what comes while nobody reads, what was emitted is
//! what was received and what is counted as lost, by cause, to the last one. The kernel's ring before an agent that stands
//! still, and the agent's ring before a client that does.
//!
//! Neighbours: `lab_flows.rs` for what flows say; `observer/src/ring.rs` and `observer/src/journal.rs` have the agent's
//! ring, `agent/src/datapath/events.rs` the kernel's.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::mem;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use sinew_tests::lab::process::{Running, run, wait_stopped, wait_until};
use sinew_tests::lab::{Family, Lab, Node, Place, Pod, Topology};
use sinew_tests::probe::Transport;

const UDP: u16 = 53;
const KERNEL: &str = "PERF_EVENT_RING_BUFFER";
const RING: &str = "HUBBLE_RING_BUFFER";
const SOON: Duration = Duration::from_secs(30);

/// What a client was told.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    /// Flows, verdicts too.
    flows: u64,
    /// Flows that are a record's end: one for each record.
    outcomes: u64,
    /// Those of them that have this port.
    of_port: u64,
    /// Events lost, by cause.
    lost: BTreeMap<String, u64>,
}

impl Told {
    /// From what `sinew observe -o json` has printed; `port` is the one to count.
    fn read(text: &str, port: u16) -> Result<Self> {
        let mut told = Self::default();
        // A line that is being written is not one yet.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in whole.lines() {
            let answer: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
            if let Some(flow) = answer.get("flow") {
                told.flows += 1;
                // A verdict is told beside the outcome of its packet.
                if flow.pointer("/event_type/type").and_then(Value::as_u64) != Some(5) {
                    told.outcomes += 1;
                    told.of_port += u64::from(has_port(flow, port));
                }
            }
            if let Some(lost) = answer.get("lost_events") {
                let source = lost.get("source").and_then(Value::as_str).context("a loss has a cause")?;
                *told.lost.entry(source.to_owned()).or_default() += number(&lost["num_events_lost"])?;
            }
        }
        Ok(told)
    }

    fn lost(&self, cause: &str) -> u64 {
        self.lost.get(cause).copied().unwrap_or_default()
    }
}

fn has_port(flow: &Value, port: u16) -> bool {
    let layers = flow.get("l4").and_then(Value::as_object).into_iter().flat_map(|l4| l4.values());
    let ports = layers.flat_map(|l4| ["source_port", "destination_port"].map(|key| l4.get(key)?.as_u64()));
    ports.flatten().any(|found| found == u64::from(port))
}

/// A number of protobuf's JSON, where 64 bits are text.
fn number(value: &Value) -> Result<u64> {
    let read = value.as_u64().or_else(|| value.as_str()?.parse().ok());
    read.with_context(|| format!("{value} is no number"))
}

/// A client that follows from now on and writes to a file, so that it waits for nobody.
struct Follower {
    client: Running,
    file: PathBuf,
}

impl Follower {
    fn new(node: &Node, folder: &Path) -> Result<Self> {
        let file = folder.join("told");
        let mut command = node.sinew_command(&["observe", "--follow", "-o", "json"])?;
        let output = File::create(&file).context("a file for a client")?;
        command.stdin(Stdio::null()).stdout(output);
        Ok(Self { client: Running::start_as_given(&mut command)?, file })
    }

    fn told(&self, port: u16) -> Result<Told> {
        Told::read(&fs::read_to_string(&self.file).context("what a client wrote")?, port)
    }
}

/// What `sinew observe --all` is told.
fn history(node: &Node, port: u16) -> Result<Told> {
    let output = node.sinew(&["observe", "--all", "-o", "json"])?;
    ensure!(output.status.success(), "sinew observe: {}", String::from_utf8_lossy(&output.stderr));
    Told::read(&String::from_utf8_lossy(&output.stdout), port)
}

/// Counters of the node's metrics port.
fn counter(node: &Node, series: &str) -> Result<u64> {
    let text = run(node.netns().command("curl").args(["-fsS", "http://127.0.0.1:9965/metrics"]))?;
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.with_context(|| format!("{series} is not in {text}"))?.parse().context("a whole number")
}

/// Records that the programs made, and those of them that found no room.
fn records(node: &Node) -> Result<(u64, u64)> {
    Ok((counter(node, "sinew_event_records_total")?, counter(node, "sinew_event_records_lost_total")?))
}

/// The agent's own numbers: flows seen, and events lost by cause.
fn status(node: &Node) -> Result<(u64, BTreeMap<String, u64>)> {
    let output = node.sinew(&["status", "-o", "json"])?;
    let status: Value = serde_json::from_slice(&output.stdout).context("status -o json")?;
    let flows = status.pointer("/flows").or_else(|| status.pointer("/status/flows"));
    let flows = flows.with_context(|| format!("no flows in {status}"))?;
    let mut lost = BTreeMap::new();
    for loss in flows.get("losses").and_then(Value::as_array).into_iter().flatten() {
        let source = loss.get("source").and_then(Value::as_str).context("a loss has a cause")?;
        lost.insert(source.to_owned(), loss.get("events").map_or(Ok(0), number)?);
    }
    Ok((flows.get("seen").map_or(Ok(0), number)?, lost))
}

/// Two pods whose every packet the test knows: IPv6 would add the kernel's own, router solicitations and reports of groups,
/// which come when they like and are dropped with a record. What came before IPv6 was off has been seen on return.
fn quiet_pods(node: &Node) -> Result<[Arc<Pod>; 2]> {
    for link in ["default", "all"] {
        node.netns().sysctl(&format!("net/ipv6/conf/{link}/disable_ipv6"), "1")?;
    }
    let pods = [node.pod("client", &[])?, node.pod("server", &[])?];
    for pod in &pods {
        pod.netns().sysctl("net/ipv6/conf/all/disable_ipv6", "1")?;
    }
    // Nothing adds to the kernel's rings now, and the agent reads what is there in far less than half a second.
    let mut seen = status(node)?.0;
    wait_until("nothing more to see", SOON, || {
        thread::sleep(Duration::from_millis(500));
        let before = mem::replace(&mut seen, status(node)?.0);
        Ok(before == seen)
    })?;
    Ok(pods)
}

/// Requests that are all answered, over one connection; returns its packets.
fn exchange(from: &Place, to: &Place, port: u16, least: u64) -> Result<u64> {
    let (own_port, every) = (port.to_string(), Duration::from_millis(2));
    let more = ["--source-port", &own_port, "--timeout", "5000", "--tell-every", "10"];
    let mut held = from.watch("hold", Transport::Udp, to.address(Family::V4), UDP, every, &more)?;
    while held.so_far()?.attempts < least {}
    let watched = held.finish()?;
    ensure!(watched.failed.is_empty() && watched.answered == watched.attempts, "{watched:?}");
    Ok(2 * watched.answered)
}

/// The smallest ring has room for 34 records; an agent that stands still reads none of them.
#[test]
#[ignore = "cargo xtask test lab"]
fn what_the_kernels_ring_has_no_room_for_is_counted_to_the_record() -> Result<()> {
    const ROOM: u64 = 4096 / 120;
    let lab = Lab::build(Topology::Wire(1))
        .only(Family::V4)
        .agent_argument("--monitor-aggregation=none")
        .agent_argument("--event-ring-bytes=4096")
        .agent_argument("--hubble-metrics-server=127.0.0.1:9965")
        .start()?;
    let node = lab.node("a");
    let [client, server] = quiet_pods(node)?;
    server.serve(&[], &[UDP])?;
    lab.wait_enforced()?;
    let folder = tempfile::tempdir().context("a folder")?;
    let follower = Follower::new(node, folder.path())?;

    // Every packet is a record. While the agent reads, all of them become flows: the client below counts, too.
    wait_until("a client that follows", SOON, || {
        client.udp(server.address(Family::V4), UDP)?;
        Ok(follower.told(0)?.flows > 0)
    })?;
    let mut sent = 0;
    for _ in 0..20 {
        client.dial(Transport::Udp, server.address(Family::V4), UDP, &["--source-port", "61001"])?;
        sent += 2;
    }
    wait_until("all flows of an agent that reads", SOON, || {
        Ok(history(node, 61_001)?.of_port == sent && follower.told(61_001)?.of_port == sent)
    })?;
    let (made, lost) = records(node)?;
    ensure!(lost == 0, "{lost} records were lost while the agent read");
    let before = history(node, 0)?;
    ensure!(before.outcomes == made && before.lost.is_empty(), "{made} records became {before:?}");

    node.signal_agent(Signal::SIGSTOP)?;
    wait_stopped(node.agent_pid().context("the agent runs")?)?;
    let packets = exchange(&client, &server, 61_002, 300)?;
    node.signal_agent(Signal::SIGCONT)?;

    wait_until("word of the loss", SOON, || {
        let (_, lost) = records(node)?;
        Ok(lost > 0 && history(node, 0)?.lost(KERNEL) == lost && follower.told(0)?.lost(KERNEL) == lost)
    })?;
    let (now_made, lost) = records(node)?;
    ensure!(now_made - made == packets, "{packets} packets left {} records", now_made - made);
    for told in [history(node, 61_002)?, follower.told(61_002)?] {
        ensure!(told.of_port + lost == packets, "of {packets} packets {lost} are lost and told: {told:?}");
        ensure!(told.lost == BTreeMap::from([(KERNEL.to_owned(), lost)]), "{lost} are lost: {told:?}");
        let cpus = u64::try_from(std::thread::available_parallelism()?.get())?;
        ensure!((1..=ROOM * cpus).contains(&told.of_port), "more than the rings hold came through: {told:?}");
    }
    let whole = history(node, 0)?;
    ensure!(whole.outcomes + lost == now_made, "{now_made} records since the start, {lost} lost: {whole:?}");
    ensure!(
        status(node)?.1 == BTreeMap::from([(KERNEL.to_owned(), lost)]),
        "the agent says {:?}",
        status(node)?
    );
    ensure!(counter(node, "hubble_lost_events_total{source=\"perf_event_ring_buffer\"}")? == lost);
    let screen = node.sinew(&["status"])?;
    let screen = String::from_utf8_lossy(&screen.stdout).into_owned();
    ensure!(screen.contains(&format!("{lost} between kernel and agent")), "{screen}");

    // An agent that reads again loses no more.
    let packets = {
        client.dial(Transport::Udp, server.address(Family::V4), UDP, &["--source-port", "61003"])?;
        2
    };
    wait_until("flows after the loss", SOON, || Ok(follower.told(61_003)?.of_port == packets))?;
    ensure!(records(node)?.1 == lost && history(node, 61_003)?.of_port == packets, "lost after the loss");
    Ok(())
}

/// A client that stands still while the agent's ring goes round learns how many flows it missed.
#[test]
#[ignore = "cargo xtask test lab"]
fn what_a_client_misses_of_the_agents_ring_is_counted_to_the_flow() -> Result<()> {
    /// Each is a connection, so a record of three flows.
    const SPRAYED: u64 = 12_000;
    let lab = Lab::build(Topology::Wire(1)).only(Family::V4).start()?;
    let node = lab.node("a");
    let [client, server] = quiet_pods(node)?;
    lab.wait_enforced()?;
    let to = server.address(Family::V4);
    let folder = tempfile::tempdir().context("a folder")?;
    let follower = Follower::new(node, folder.path())?;
    // What is seen before the first datagram that the client is told of is none of the client's.
    let mut seen_before = 0;
    for port in 20_000.. {
        seen_before = status(node)?.0;
        client.udp(to, port)?;
        wait_until("the datagram's flows", SOON, || Ok(status(node)?.0 >= seen_before + 3))?;
        let told = || Ok(follower.told(port)?.of_port > 0);
        if wait_until("a client that follows", Duration::from_secs(1), told).is_ok() {
            break;
        }
        ensure!(port < 20_030, "the client never followed");
    }
    let follows = follower.told(0)?;
    ensure!(follows.flows == 3 && follows.lost.is_empty(), "a datagram is three flows: {follows:?}");

    follower.client.signal(Signal::SIGSTOP)?;
    wait_stopped(follower.client.pid())?;
    client.spray(to, SPRAYED)?;
    wait_until("the agent's flows", SOON, || Ok(status(node)?.0 >= seen_before + 3 + 3 * SPRAYED))?;
    follower.client.signal(Signal::SIGCONT)?;
    // The last one that it is told.
    client.udp(to, 19_999)?;
    wait_until("the client's last flow", SOON, || Ok(follower.told(19_999)?.of_port == 1))?;

    let told = follower.told(0)?;
    let (seen, lost) = status(node)?;
    ensure!(seen - seen_before == 3 + 3 * SPRAYED + 3, "three flows a datagram: {}", seen - seen_before);
    ensure!(told.flows + told.lost(RING) == seen - seen_before, "of {} flows: {told:?}", seen - seen_before);
    ensure!(told.lost(RING) > 0, "nothing was lost, so nothing was tried: {told:?}");
    ensure!(told.lost.len() == 1 && told.lost == lost, "the client says {told:?}, the agent {lost:?}");

    // A client that reads again misses no more.
    client.spray(to, 300)?;
    wait_until("flows after the loss", SOON, || Ok(follower.told(0)?.flows == told.flows + 900))?;
    ensure!(follower.told(0)?.lost == told.lost && status(node)?.1 == lost, "lost after the loss");
    Ok(())
}

/// Traces leave a quarter of each ring to drops: a burst of what is allowed hides nothing of what is refused.
#[test]
#[ignore = "cargo xtask test lab"]
fn drops_are_not_crowded_out_by_traces() -> Result<()> {
    const REFUSED: u16 = 54;
    // A quarter of a ring of 4096 bytes has room for eight records, whichever CPU they come by.
    const DROPS: u64 = 5;
    let lab = Lab::build(Topology::Wire(1))
        .only(Family::V4)
        .agent_argument("--monitor-aggregation=none")
        .agent_argument("--event-ring-bytes=4096")
        .agent_argument("--hubble-metrics-server=127.0.0.1:9965")
        .start()?;
    let node = lab.node("a");
    let [client, server] = quiet_pods(node)?;
    server.serve(&[], &[UDP])?;
    let refused = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: refused, namespace: default}
spec:
  endpointSelector: {}
  egress:
  - toEntities: [all]
  egressDeny:
  - toEntities: [all]
    toPorts: [{ports: [{port: '54', protocol: UDP}]}]
";
    lab.apply("refused", refused)?;
    lab.wait_enforced()?;
    let folder = tempfile::tempdir().context("a folder")?;
    let follower = Follower::new(node, folder.path())?;
    wait_until("a client that follows", SOON, || {
        client.udp(server.address(Family::V4), UDP)?;
        Ok(follower.told(0)?.flows > 0)
    })?;
    let (made, lost) = records(node)?;
    ensure!(lost == 0, "{lost} records were lost while the agent read");

    node.signal_agent(Signal::SIGSTOP)?;
    wait_stopped(node.agent_pid().context("the agent runs")?)?;
    let packets = exchange(&client, &server, 61_002, 300)?;
    for _ in 0..DROPS {
        let attempt =
            client.dial(Transport::Udp, server.address(Family::V4), REFUSED, &["--timeout", "50"])?;
        ensure!(attempt.dropped(), "{attempt:?}");
    }
    node.signal_agent(Signal::SIGCONT)?;

    wait_until("word of the loss", SOON, || {
        let (_, lost) = records(node)?;
        Ok(lost > 0 && follower.told(0)?.lost(KERNEL) == lost)
    })?;
    let (now_made, lost) = records(node)?;
    ensure!(now_made - made == packets + DROPS, "{packets} packets and {DROPS} drops: {}", now_made - made);
    let told = follower.told(REFUSED)?;
    ensure!(told.of_port == DROPS, "of {DROPS} drops {} came through: {told:?}", told.of_port);
    let traces = follower.told(61_002)?.of_port;
    ensure!(traces + lost == packets, "of {packets} traces {traces} came through and {lost} are lost");
    Ok(())
}

/// A flood of refused packets is told up to the limit, and the rest as lost: to a client, by the metrics and on the screen
/// the same number, of which none is in two counts.
#[test]
#[ignore = "cargo xtask test lab"]
fn what_the_limit_of_drops_suppresses_is_lost_to_every_viewer_once() -> Result<()> {
    const SPRAYED: u64 = 3_000;
    let lab = Lab::build(Topology::Wire(1))
        .only(Family::V4)
        .agent_argument("--monitor-drop-limit=20")
        .agent_argument("--hubble-metrics-server=127.0.0.1:9965")
        .start()?;
    let node = lab.node("a");
    let [client, server] = quiet_pods(node)?;
    let closed = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: closed, namespace: default}
spec:
  endpointSelector: {}
  ingress:
  - fromEntities: [remote-node]
";
    lab.apply("closed", closed)?;
    lab.wait_enforced()?;
    let folder = tempfile::tempdir().context("a folder")?;
    let follower = Follower::new(node, folder.path())?;
    let to = server.address(Family::V4);
    wait_until("a client that follows", SOON, || {
        client.dial(Transport::Udp, to, UDP, &["--timeout", "50"])?;
        Ok(follower.told(0)?.flows > 0)
    })?;
    let mut before = follower.told(0)?;
    wait_until("nothing more to tell", SOON, || {
        thread::sleep(Duration::from_secs(1));
        let earlier = mem::replace(&mut before, follower.told(0)?);
        Ok(earlier == before)
    })?;
    ensure!(before.lost.is_empty(), "lost before the flood: {before:?}");
    let exact =
        "sinew_drop_packets_total{reason=\"policy denied by default\",hubble_reason=\"POLICY_DENIED\"}";
    let dropped_before = counter(node, exact)?;

    client.spray(to, SPRAYED)?;
    wait_until("every drop as a flow or as lost", SOON, || {
        let told = follower.told(0)?;
        Ok(told.outcomes - before.outcomes + told.lost(KERNEL) == SPRAYED)
    })
    .with_context(|| format!("{before:?} before, now {:?}", follower.told(0)))?;
    let told = follower.told(0)?;
    let lost = told.lost(KERNEL);
    ensure!(lost > SPRAYED / 2 && told.lost.len() == 1, "nothing was tried: {told:?}");
    for series in [
        "sinew_event_records_suppressed_total",
        "hubble_lost_events_total{source=\"perf_event_ring_buffer\"}",
    ] {
        // A scrape may be told what the last one was: the tables are not read more often than may cost (`Paced`).
        wait_until(series, SOON, || Ok(counter(node, series)? == lost)).with_context(|| {
            format!("the client was told of {lost}, a scrape of {:?}", counter(node, series))
        })?;
    }
    ensure!(records(node)?.1 == 0, "a ring was full, which is another loss");
    let dropped = counter(node, exact)? - dropped_before;
    ensure!(dropped == SPRAYED, "{dropped} of {SPRAYED} drops are counted");
    ensure!(status(node)?.1 == BTreeMap::from([(KERNEL.to_owned(), lost)]), "{:?}", status(node)?);
    let screen = node.sinew(&["status"])?;
    let screen = String::from_utf8_lossy(&screen.stdout).into_owned();
    let line = format!("{lost} between kernel and agent ({lost} of them drops beyond --monitor-drop-limit)");
    ensure!(screen.contains(&line), "{screen}");
    Ok(())
}
