//! The demo: two nodes on this machine, pods, policies and real packets, with every verdict as a flow line.
//!
//! It is a scenario of the lab and a test at once: each probe says what it expects, and any other result ends the demo with
//! an error. Every scene prints the commands that reproduce it in another terminal. Neighbours: [`stage`] prints, `lab`
//! acts; the policies are files under `demo/policies`.

mod stage;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::lab::process::{interrupted, pause};
use crate::lab::{Family, Lab, Pod, Routing, Topology};
use crate::probe::Transport;
use stage::{Expect, Stage};

/// The lab's id: one demo at a time.
const LAB: &str = "demo";
const TCP: u16 = 80;
const UDP: u16 = 53;

const API_ACCEPTS_WEB: &str = include_str!("demo/policies/api-accepts-web.yaml");
const DB_ACCEPTS_API: &str = include_str!("demo/policies/db-accepts-api.yaml");
const API_ACCEPTS_GUEST: &str = include_str!("demo/policies/api-accepts-guest.yaml");

/// How the demo goes.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArguments {
    /// Go from scene to scene without waiting for Enter; so it is when the output is no terminal.
    #[arg(long)]
    no_wait: bool,
    /// How packets get from node to node.
    #[arg(long, value_enum, default_value = "native")]
    routing: Routing,
}

/// The cast.
struct Pods {
    web: Arc<Pod>,
    guest: Arc<Pod>,
    api: Arc<Pod>,
    db: Arc<Pod>,
}

/// Plays all scenes.
///
/// # Errors
/// Something is not as it should be; Ctrl-C.
pub fn run(arguments: &DemoArguments) -> Result<()> {
    let waits = !arguments.no_wait && io::IsTerminal::is_terminal(&io::stdin());
    let mut stage = Stage::new(waits);
    let (lab, pods) = nodes_and_pods(&mut stage, arguments.routing)?;
    no_policy(&mut stage, &lab, &pods)?;
    a_policy(&mut stage, &lab, &pods)?;
    same_node(&mut stage, &lab, &pods)?;
    why(&mut stage, &lab)?;
    change_under_traffic(&mut stage, &lab, &pods)?;
    without_agent(&mut stage, &lab, &pods)?;
    drop(lab);
    stage.say("Everything is removed: namespaces, interfaces, programs and files.")
}

fn nodes_and_pods(stage: &mut Stage, routing: Routing) -> Result<(Lab, Pods)> {
    stage.scene(
        "Two nodes, four pods",
        "Nodes are network namespaces on one wire; pods are put on them by the CNI plugin.",
    )?;
    ensure!(!crate::lab::is_alive(LAB), "another demo runs on this machine; there can be one");
    let start = Instant::now();
    let lab = Lab::build(Topology::Wire(2)).id(LAB).routing(routing).start()?;
    stage.progress("two nodes, an agent on each", start)?;
    let start = Instant::now();
    let (a, b) = (lab.node("a"), lab.node("b"));
    let pods = Pods {
        web: a.pod("web", &[("app", "web")])?,
        guest: a.pod("guest", &[("app", "guest")])?,
        api: b.pod("api", &[("app", "api")])?,
        db: b.pod("db", &[("app", "db")])?,
    };
    for pod in [&pods.web, &pods.guest, &pods.api, &pods.db] {
        pod.serve(&[TCP], &[UDP])?;
    }
    stage.progress("four pods by sinew-cni, a server in each", start)?;
    stage.blank()?;
    for pod in lab.pods() {
        stage.pod(&pod)?;
    }
    stage.setup(&lab)?;
    stage.curtain()?;
    Ok((lab, pods))
}

fn no_policy(stage: &mut Stage, lab: &Lab, pods: &Pods) -> Result<()> {
    stage.scene("No policy", "Nothing selects a pod, so everything may talk.")?;
    let flows = stage.flows_of(lab)?;
    for family in Family::BOTH {
        stage.probe(&pods.web, Transport::Tcp, &pods.api, TCP, family, Expect::Answer)?;
        stage.probe(&pods.guest, Transport::Udp, &pods.db, UDP, family, Expect::Answer)?;
        stage.probe(&pods.guest, Transport::Icmp, &pods.web, 0, family, Expect::Answer)?;
    }
    stage.show_flows(lab, flows, &["--type", "policy-verdict"])?;
    stage.curtain()
}

fn a_policy(stage: &mut Stage, lab: &Lab, pods: &Pods) -> Result<()> {
    stage.scene(
        "A policy, between nodes",
        "api accepts web: TCP 80 and echo requests. The rest is refused in the kernel.",
    )?;
    stage.apply(lab, "policies/api-accepts-web", API_ACCEPTS_WEB)?;
    let flows = stage.flows_of(lab)?;
    for family in Family::BOTH {
        stage.probe(&pods.web, Transport::Tcp, &pods.api, TCP, family, Expect::Answer)?;
        stage.probe(&pods.web, Transport::Icmp, &pods.api, 0, family, Expect::Answer)?;
        stage.probe(&pods.web, Transport::Udp, &pods.api, UDP, family, Expect::Nothing)?;
        stage.probe(&pods.guest, Transport::Tcp, &pods.api, TCP, family, Expect::Nothing)?;
        stage.probe(&pods.guest, Transport::Icmp, &pods.api, 0, family, Expect::Nothing)?;
    }
    stage.show_flows(
        lab,
        flows,
        &["--type", "policy-verdict", "--type", "drop", "--to-pod", "default/api"],
    )?;
    stage.curtain()
}

fn same_node(stage: &mut Stage, lab: &Lab, pods: &Pods) -> Result<()> {
    stage.scene(
        "A Kubernetes NetworkPolicy, on one node",
        "api and db are neighbours on node b: their packets never leave it, and are judged all the same.",
    )?;
    stage.apply(lab, "policies/db-accepts-api", DB_ACCEPTS_API)?;
    let flows = stage.flows_of(lab)?;
    for family in Family::BOTH {
        stage.probe(&pods.api, Transport::Udp, &pods.db, UDP, family, Expect::Answer)?;
        stage.probe(&pods.api, Transport::Tcp, &pods.db, TCP, family, Expect::Nothing)?;
        stage.probe(&pods.db, Transport::Tcp, &pods.api, TCP, family, Expect::Nothing)?;
    }
    stage.show_flows(lab, flows, &["--type", "policy-verdict", "--type", "drop"])?;
    stage.curtain()
}

fn why(stage: &mut Stage, lab: &Lab) -> Result<()> {
    stage.scene(
        "Why?",
        "The command runs the verdict code of the kernel and says what would have to change.",
    )?;
    stage.sinew(lab.node("b"), &["policy", "explain", "guest", "api", "80/TCP"])?;
    stage.sinew(lab.node("b"), &["policy", "explain", "web", "api", "80/TCP"])?;
    stage.curtain()
}

fn change_under_traffic(stage: &mut Stage, lab: &Lab, pods: &Pods) -> Result<()> {
    stage.scene(
        "A policy changes while traffic runs",
        "web asks api over one connection 100 times a second; guest keeps trying new ones.",
    )?;
    let every = Duration::from_millis(10);
    let to = pods.api.address(Family::V4);
    let held = pods.web.hold(Transport::Tcp, to, TCP, every)?;
    let refused = pods.guest.watch("redial", Transport::Tcp, to, TCP, every, &["--timeout", "100"])?;
    pause(Duration::from_secs(1))?;
    let refused = refused.finish()?;
    stage.say(&format!("before: guest was answered {} of {} times", refused.answered, refused.attempts))?;
    ensure!(refused.answered == 0, "guest got through before it was allowed");

    stage.apply(lab, "policies/api-accepts-guest", API_ACCEPTS_GUEST)?;
    // Shorter than a SYN's first retransmission, so that one lost SYN fails; long enough for a busy machine.
    let allowed = pods.guest.watch("redial", Transport::Tcp, to, TCP, every, &["--timeout", "900"])?;
    let connection = pods.guest.watch("hold", Transport::Tcp, to, TCP, every, &["--timeout", "300"])?;
    pause(Duration::from_secs(1))?;
    let allowed = allowed.finish()?;
    stage.say(&format!("after:  guest was answered {} of {} times", allowed.answered, allowed.attempts))?;
    ensure!(allowed.answered == allowed.attempts, "guest was refused after it was allowed");

    stage.withdraw(lab, "policies/api-accepts-guest")?;
    let cut = connection.finish()?;
    stage.say(&format!(
        "guest's open connection: {} answers, then it failed ({}): a change ends what stands",
        cut.answered,
        cut.failures()
    ))?;
    ensure!(!cut.failed.is_empty(), "guest's connection outlived its permission");
    let held = held.finish()?;
    stage.say(&format!(
        "web's connection meanwhile: {} of {} answered, longest gap {} ms",
        held.answered,
        held.attempts,
        held.longest_gap_micros / 1000
    ))?;
    ensure!(held.failed.is_empty(), "web's connection was disturbed: {}", held.failures());
    stage.curtain()
}

fn without_agent(stage: &mut Stage, lab: &Lab, pods: &Pods) -> Result<()> {
    stage.scene(
        "The agent may die",
        "Programs and tables live in the kernel. What was allowed goes on, what was refused stays refused.",
    )?;
    let node = lab.node("b");
    let every = Duration::from_millis(10);
    let to = pods.api.address(Family::V6);
    let mut held = pods.web.watch("hold", Transport::Tcp, to, TCP, every, &["--tell-every", "500"])?;
    let mut fresh = pods.web.watch("redial", Transport::Tcp, to, TCP, every, &["--tell-every", "500"])?;
    let denied = ["--tell-every", "500", "--timeout", "100"];
    let mut denied = pods.guest.watch("redial", Transport::Tcp, to, TCP, every, &denied)?;
    let pid = node.agent_pid().context("the agent of node b runs")?;
    if stage.waits() {
        stage.say(&format!("Kill it in another terminal and watch:   kill -9 {pid}"))?;
        stage.say("Ctrl-C ends the demo and removes everything.\n")?;
    }
    let start = Instant::now();
    let mut killed = false;
    while stage.waits() || start.elapsed() < Duration::from_secs(6) {
        if !stage.waits() && !killed && start.elapsed() > Duration::from_secs(2) {
            stage.say(&format!("kill -9 {pid}"))?;
            node.kill_agent()?;
            killed = true;
        }
        let (held, fresh, denied) = (held.so_far()?, fresh.so_far()?, denied.so_far()?);
        let alive = std::path::Path::new(&format!("/proc/{pid}")).exists() && !is_zombie(pid);
        stage.status(&format!(
            "agent {}   one connection: {}/{}   new ones: {}/{}   denied ones: {}/{}",
            if alive { "runs" } else { "is dead" },
            held.answered,
            held.attempts,
            fresh.answered,
            fresh.attempts,
            denied.answered,
            denied.attempts
        ))?;
        if interrupted() {
            return Ok(());
        }
    }
    for (what, watch, all) in
        [("one connection", held, true), ("new ones", fresh, true), ("denied ones", denied, false)]
    {
        let watched = watch.finish()?;
        let right = if all { watched.failed.is_empty() } else { watched.answered == 0 };
        ensure!(right, "{what} without an agent: {watched:?}");
    }
    node.start_agent()?;
    node.wait_ready(Duration::from_secs(20))?;
    stage.say("the agent is back; nothing was lost and nothing got through")
}

/// A killed child stays in /proc until its parent asks for it.
fn is_zombie(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" Z")))
}
