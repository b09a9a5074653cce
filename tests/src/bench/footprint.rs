//! What an agent needs: resident memory on a node full of pods in a large cluster, and the time from its start until it
//! serves CNI, on an empty node and on the full one.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::report::{Aim, Row};
use super::spread::Spread;
use super::{Options, cluster};
use crate::lab::process::{pause, wait_until};
use crate::lab::{Lab, Node, Topology};

/// Pods of a node, as Kubernetes limits them by default.
const ENDPOINTS: usize = 110;
const IDENTITIES: usize = 10_000;
const POLICIES: usize = 100;
/// Memory settles: the agent gives back what lies free, every 10 s.
const SETTLE: Duration = Duration::from_secs(12);

/// Measures memory and starts.
pub(super) fn run(options: &Options) -> Result<Vec<Row>> {
    let rounds = if options.quick { 2 } else { 5 };
    let lab = super::lab(Topology::Wire(1)).start()?;
    let node = lab.node("a");
    let mut rows =
        vec![memory(node, "agent memory, empty node")?, starts(node, "start to ready, empty node", rounds)?];
    cluster::write_identities(lab.store(), IDENTITIES)?;
    lab.apply("policies", &cluster::policies(POLICIES))?;
    for number in 0..ENDPOINTS {
        let app = if number % 2 == 0 { "server" } else { "client" };
        node.pod(&format!("pod-{number}"), &[("app", app), ("number", &number.to_string())])?;
    }
    wait_until("every identity in the agent", Duration::from_secs(60), || knows(&lab, IDENTITIES))?;
    lab.wait_enforced()?;
    let what = format!("{ENDPOINTS} endpoints, {IDENTITIES} identities, {POLICIES} policies");
    rows.push(memory(node, &format!("agent memory, {what}"))?.aim(Aim::AtMost(60.0)));
    rows.push(starts(node, &format!("start to ready, {what}"), rounds)?);
    rows.push(memory(node, &format!("agent memory after a restart, {what}"))?.aim(Aim::AtMost(60.0)));
    Ok(rows)
}

/// Whether the agent lists at least so many identities.
pub(super) fn knows(lab: &Lab, identities: usize) -> Result<bool> {
    let output = lab.node("a").sinew(&["status", "-o", "json"])?;
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).context("the status is JSON")?;
    let known = status.pointer("/status/identities").or_else(|| status.get("identities"));
    let known = known.and_then(|count| count.as_u64().or_else(|| count.as_str()?.parse().ok()));
    Ok(known.context("the status counts identities")? >= identities as u64)
}

fn memory(node: &Node, name: &str) -> Result<Row> {
    let (resident, note) = resident(node)?;
    let spread = Spread::of(vec![resident]).context("one number")?;
    Ok(Row::new("agent", name, "MB", spread).note(note))
}

/// Megabytes that a node's agent has in memory now, and what they are made of.
pub(super) fn resident(node: &Node) -> Result<(f64, String)> {
    pause(SETTLE)?;
    let pid = node.agent_pid().context("the agent runs")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the agent's memory")?;
    let megabytes = |field: &str| -> Result<f64> {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field))
            .with_context(|| format!("no {field}"))?;
        let kibibytes =
            line.trim().trim_end_matches(" kB").parse::<f64>().with_context(|| format!("{field}{line}"))?;
        Ok(kibibytes * 1024.0 / 1e6)
    };
    let note = format!(
        "own {:.1} MB, of files (the program) {:.1} MB, shared (rings) {:.1} MB, peak {:.1} MB",
        megabytes("RssAnon:")?,
        megabytes("RssFile:")?,
        megabytes("RssShmem:")?,
        megabytes("VmHWM:")?
    );
    Ok((megabytes("VmRSS:")?, note))
}

fn starts(node: &Node, name: &str, rounds: usize) -> Result<Row> {
    let mut times = Vec::new();
    for _ in 0..rounds {
        node.kill_agent()?;
        let start = Instant::now();
        node.start_agent()?;
        node.wait_ready(Duration::from_secs(60))?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let spread = Spread::of(times).context("at least one round")?;
    Ok(Row::new("agent", name, "ms", spread).note("until CNI STATUS succeeds, asked every 10 ms"))
}
