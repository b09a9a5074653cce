//! What the kernel drops after our verdict is counted by the kernel's own reason, and nothing else is (datapath.md 32):
//! packets that arrive, packets that our programs drop, the host's own, and other nodes' packets leave the count as it is.
//! All nodes of a lab are on one kernel, so that each node's program meets the drops of every other.
//!
//! Neighbours: `agent/src/datapath/kernel_drops.rs`; `bpf/src/kernel_drop.rs` with the rules one by one; `lab_metrics.rs`
//! for the drops of our programs.

use std::collections::BTreeMap;
use std::fs;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sinew_tests::lab::process::{run, wait_until};
use sinew_tests::lab::{Family, Lab, Node, Routing, Topology, binaries};

const PORT: u16 = 53;
const TCP: u16 = 80;
const SOON: Duration = Duration::from_secs(30);

const POLICY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: guarded, namespace: default}
spec:
  podSelector: {matchLabels: {app: guarded}}
  policyTypes: [Ingress]
";

/// Packets by reason, as the agent tells them.
type Drops = BTreeMap<String, u64>;

fn told(node: &Node) -> Result<Value> {
    let output = node.sinew(&["status", "-o", "json"])?;
    let status: Value = serde_json::from_slice(&output.stdout).context("status -o json")?;
    status.get("kernelDrops").cloned().with_context(|| format!("no count of the kernel's drops in {status}"))
}

fn drops(node: &Node) -> Result<Drops> {
    let counted = told(node)?;
    ensure!(counted.get("off").is_none_or(|off| off == ""), "not counted: {counted}");
    let mut drops = Drops::new();
    for drop in counted.get("reasons").and_then(Value::as_array).into_iter().flatten() {
        let packets = &drop["packets"];
        let packets = packets.as_u64().or_else(|| packets.as_str()?.parse().ok());
        let reason = drop["reason"].as_str().context("a reason has a name")?;
        drops.insert(reason.to_owned(), packets.with_context(|| format!("{drop} has no number"))?);
    }
    Ok(drops)
}

/// What came to a count.
fn since(before: &Drops, now: &Drops) -> Drops {
    let added = now.iter().map(|(reason, count)| (reason.clone(), count - before.get(reason).unwrap_or(&0)));
    added.filter(|(_, count)| *count > 0).collect()
}

fn only(reason: &str, packets: u64) -> Drops {
    Drops::from([(reason.to_owned(), packets)])
}

#[test]
#[ignore = "cargo xtask test lab"]
fn what_the_kernel_drops_after_a_redirect_is_counted_by_its_reason() -> Result<()> {
    let lab =
        Lab::build(Topology::Wire(2)).agent_argument("--hubble-metrics-server=127.0.0.1:9965").start()?;
    let (a, b) = (lab.node("a"), lab.node("b"));
    let client = a.pod("client", &[])?;
    let near = a.pod("near", &[])?;
    let guarded = a.pod("guarded", &[("app", "guarded")])?;
    let far = b.pod("far", &[])?;
    for server in [&near, &far] {
        server.serve(&[TCP], &[PORT])?;
    }
    lab.apply("policy", POLICY)?;
    lab.wait_enforced()?;

    // What is allowed and arrives is dropped by nobody, and what our programs drop has a reason of ours.
    let (of_a, of_b) = (drops(a)?, drops(b)?);
    for family in Family::BOTH {
        for server in [&near, &far] {
            ensure!(client.tcp(server.address(family), TCP)?.answered(), "{} by TCP", server.name());
            ensure!(client.udp(server.address(family), PORT)?.answered(), "{} by UDP", server.name());
            ensure!(client.ping(server.address(family))?.answered(), "{} by echo", server.name());
            // It arrives; that nobody listens is the pod's own affair.
            client.udp(server.address(family), PORT + 1)?;
        }
        ensure!(far.ping(near.address(family))?.answered(), "from the other node");
        for sender in [&client, &far] {
            ensure!(sender.udp(guarded.address(family), PORT)?.dropped(), "a policy forbids it");
        }
    }
    for (node, before) in [(a, &of_a), (b, &of_b)] {
        let added = since(before, &drops(node)?);
        ensure!(added.is_empty(), "on node {} the kernel dropped {added:?}", node.name());
    }

    // A device that takes nothing, from both nodes; on the sender's node all is well.
    let (of_a, of_b) = (drops(a)?, drops(b)?);
    near.netns().ip("link set eth0 down")?;
    for family in Family::BOTH {
        for sender in [&client, &far] {
            for _ in 0..3 {
                ensure!(sender.udp(near.address(family), PORT)?.dropped(), "its device is down");
            }
        }
    }
    let added = since(&of_a, &drops(a)?);
    ensure!(added == only("NOT_SPECIFIED", 12), "a device that is down: {added:?}");
    let added = since(&of_b, &drops(b)?);
    ensure!(added.is_empty(), "another node's drops: {added:?}");

    // While no agent runs, and with the programs of the next one.
    a.kill_agent()?;
    ensure!(client.udp(near.address(Family::V4), PORT)?.dropped(), "its device is down");
    a.start_agent()?;
    a.wait_ready(SOON)?;
    ensure!(client.udp(near.address(Family::V4), PORT)?.dropped(), "its device is down");
    let added = since(&of_a, &drops(a)?);
    ensure!(added == only("NOT_SPECIFIED", 14), "one without an agent, one with the next: {added:?}");

    let total = drops(a)?["NOT_SPECIFIED"];
    let series = format!("sinew_kernel_drops_total{{reason=\"NOT_SPECIFIED\"}} {total}");
    wait_until("the metric", SOON, || {
        let text = run(a.netns().command("curl").args(["-fsS", "http://127.0.0.1:9965/metrics"]))?;
        Ok(text.lines().any(|line| line == series))
    })?;
    let screen = a.sinew(&["status"])?;
    let screen = String::from_utf8_lossy(&screen.stdout).into_owned();
    ensure!(
        screen.contains(" after our verdict: ") && screen.contains(&format!("{total} NOT_SPECIFIED")),
        "{screen}"
    );
    Ok(())
}

/// A neighbour that is given up at once, and one that is waited for and given up by a timer.
#[test]
#[ignore = "cargo xtask test lab"]
fn packets_for_a_neighbour_that_is_given_up_are_counted_and_the_hosts_own_are_not() -> Result<()> {
    let lab = Lab::build(Topology::Wire(2)).start()?;
    let (a, b) = (lab.node("a"), lab.node("b"));
    let client = a.pod("client", &[])?;
    let far = b.pod("far", &[])?;
    far.serve(&[], &[PORT])?;
    lab.wait_enforced()?;
    for family in Family::BOTH {
        wait_until("an answer, for nothing is in the way", SOON, || {
            Ok(client.udp(far.address(family), PORT)?.answered())
        })?;
    }
    let (of_a, of_b) = (drops(a)?, drops(b)?);
    for (version, family) in [("ipv4", Family::V4), ("ipv6", Family::V6)] {
        a.netns().sysctl(&format!("net/{version}/neigh/eth0/mcast_solicit"), "0")?;
        let neighbour = b.address(family);
        a.netns().ip(&format!("neigh replace {neighbour} dev eth0 nud failed"))?;
        ensure!(client.udp(far.address(family), PORT)?.dropped(), "nobody asks where it is");
    }
    let added = since(&of_a, &drops(a)?);
    ensure!(added == only("NEIGH_FAILED", 2), "{added:?}");

    // The host's own packets to the same neighbour meet the same end, and are no business of this count: neither without
    // a mark nor with one of its bits.
    let neighbour = b.address(Family::V4);
    let before = drops(a)?;
    for mark in ["", "-m 16777216 "] {
        a.netns().ip(&format!("neigh replace {neighbour} dev eth0 nud failed"))?;
        let words = format!("-c 1 -W 1 {mark}{neighbour}");
        run(a.netns().command("ping").args(words.split_whitespace())).expect_err("nobody asks where it is");
    }
    let added = since(&before, &drops(a)?);
    ensure!(added.is_empty(), "the host's own: {added:?}");

    // Nobody answers, and what has waited is dropped by a timer.
    b.netns().ip("link set eth0 arp off")?;
    a.netns().sysctl("net/ipv4/neigh/eth0/mcast_solicit", "1")?;
    a.netns().ip(&format!("neigh del {neighbour} dev eth0"))?;
    client.udp(far.address(Family::V4), PORT)?;
    wait_until("the kernel to give the neighbour up", SOON, || {
        Ok(since(&before, &drops(a)?) == only("NEIGH_FAILED", 1))
    })?;
    let added = since(&of_b, &drops(b)?);
    ensure!(added.is_empty(), "another node's drops: {added:?}");
    Ok(())
}

/// The overlay's packet is dropped by the host's own rules: it still is the one that our program sent off.
#[test]
#[ignore = "cargo xtask test lab"]
fn what_the_hosts_firewall_drops_of_the_overlay_is_counted() -> Result<()> {
    let lab = Lab::build(Topology::Wire(2)).routing(Routing::Vxlan).start()?;
    let (a, b) = (lab.node("a"), lab.node("b"));
    let client = a.pod("client", &[])?;
    let far = b.pod("far", &[])?;
    far.serve(&[], &[PORT])?;
    lab.wait_enforced()?;
    ensure!(client.udp(far.address(Family::V4), PORT)?.answered(), "nothing is in the way yet");
    let (of_a, of_b) = (drops(a)?, drops(b)?);
    let rule = "-A OUTPUT -p udp --dport 8472 -j DROP";
    run(a.netns().command("iptables").args(rule.split(' ')))?;
    ensure!(client.udp(far.address(Family::V4), PORT)?.dropped(), "a rule of the host's");
    let added = since(&of_a, &drops(a)?);
    ensure!(added == only("NETFILTER_DROP", 1), "{added:?}");
    let added = since(&of_b, &drops(b)?);
    ensure!(added.is_empty(), "another node's drops: {added:?}");
    Ok(())
}

/// Where a node's links to tracepoints are pinned.
fn tracepoints(node: &Node) -> Result<PathBuf> {
    let layouts = node.pinned_layouts()?;
    Ok(layouts.first().context("a pinned layout")?.join("tracepoints"))
}

fn pins(node: &Node) -> Result<Vec<String>> {
    let entries = fs::read_dir(tracepoints(node)?).context("links to tracepoints")?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

#[test]
#[ignore = "cargo xtask test lab"]
fn a_drop_is_counted_once_when_programs_change_and_by_nobody_after_cleanup() -> Result<()> {
    let lab = Lab::build(Topology::Wire(1)).start()?;
    let node = lab.node("a");
    let (client, server) = (node.pod("client", &[])?, node.pod("server", &[])?);
    server.netns().ip("link set eth0 down")?;
    let lose_one = || -> Result<Drops> {
        let before = drops(node)?;
        ensure!(client.udp(server.address(Family::V4), PORT)?.dropped(), "its device is down");
        Ok(since(&before, &drops(node)?))
    };
    lab.wait_enforced()?;
    ensure!(lose_one()? == only("NOT_SPECIFIED", 1), "with the first programs");

    // The old program stays where it is, as it does for a moment in every change.
    let folder = tracepoints(node)?;
    node.kill_agent()?;
    fs::rename(folder.join("kernel_drop"), folder.join("old")).context("holding the old link")?;
    node.start_agent_from(&binaries::find("sinew-agent-changed")?)?;
    node.wait_ready(SOON)?;
    let mut held = pins(node)?;
    held.sort();
    ensure!(held == ["kernel_drop", "old"], "both are attached: {held:?}");
    ensure!(lose_one()? == only("NOT_SPECIFIED", 1), "with two programs");
    fs::remove_file(folder.join("old")).context("letting the old link go")?;
    ensure!(lose_one()? == only("NOT_SPECIFIED", 1), "with the new programs");

    // An agent that was killed in the middle has left its own beside.
    node.kill_agent()?;
    fs::rename(folder.join("kernel_drop"), folder.join("new-kernel_drop")).context("leaving a link")?;
    node.start_agent()?;
    node.wait_ready(SOON)?;
    ensure!(pins(node)? == ["kernel_drop"], "one is left: {:?}", pins(node)?);
    ensure!(lose_one()? == only("NOT_SPECIFIED", 1), "after an agent that was killed in between");

    node.stop_agent()?;
    let mut cleanup = node.netns().command(binaries::find("sinew-agent")?);
    cleanup.args(["cleanup", "--node-name", node.name()]);
    cleanup.arg("--state-dir").arg(&node.directories().state);
    cleanup.arg("--run-dir").arg(&node.directories().run);
    cleanup.arg("--bpf-root").arg(&node.directories().bpf_root);
    run(&mut cleanup)?;
    ensure!(!folder.exists(), "{} is still there", folder.display());
    Ok(())
}

/// A kernel that does not tell its types: the node works, and says what it does not count.
#[test]
#[ignore = "cargo xtask test lab"]
fn a_node_that_cannot_count_says_so_and_goes_on() -> Result<()> {
    let lab = Lab::build(Topology::Wire(1)).start()?;
    let node = lab.node("a");
    let (client, server) = (node.pod("client", &[])?, node.pod("server", &[])?);
    server.serve(&[TCP], &[])?;
    node.kill_agent()?;
    fs::remove_dir_all(tracepoints(node)?).context("taking the earlier program away")?;
    let script = node.directories().notes.join("agent-without-types");
    let hide = "mount --bind /dev/null /sys/kernel/btf/vmlinux && exec \"$0\" \"$@\"";
    let agent = binaries::find("sinew-agent")?;
    let text = format!("#!/bin/sh\nexec unshare --mount sh -c '{hide}' '{}' \"$@\"\n", agent.display());
    fs::write(&script, text).context("writing the script that hides the types")?;
    fs::set_permissions(&script, Permissions::from_mode(0o755)).context("making the script a program")?;
    node.start_agent_from(&script)?;
    node.wait_ready(SOON)?;
    let off = told(node)?["off"].as_str().unwrap_or_default().to_owned();
    ensure!(off.contains("/sys/kernel/btf/vmlinux"), "{off}");
    let screen = node.sinew(&["status"])?;
    let screen = String::from_utf8_lossy(&screen.stdout).into_owned();
    ensure!(screen.contains("what it drops after our verdict is not counted: "), "{screen}");
    ensure!(client.tcp(server.address(Family::V4), TCP)?.answered(), "everything else goes on");
    node.restart_agent()?;
    node.wait_ready(SOON)?;
    drops(node).map(drop)
}
