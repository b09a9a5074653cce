//! `kill -9` of the plugin or of the agent anywhere in an ADD or a DEL leaks nothing (issue 3, point 2).
//!
//! There is no switch in the agent that makes it stop somewhere: the test measures how long a call takes and kills at
//! many points of that time, closer together than any step takes. After each, the runtime does what runtimes do (DEL
//! until it succeeds), and everything that a node holds on behalf of pods must be as before.

#[path = "lab_cni/left.rs"]
mod left;

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use left::Left;
use sinew_tests::lab::cni::Call;
use sinew_tests::lab::netns::Netns;
use sinew_tests::lab::process::wait_until;
use sinew_tests::lab::{Lab, Node, Topology};

/// Points at which a plugin is killed; a run costs a few milliseconds.
const PLUGIN_POINTS: u32 = 50;
/// Points at which an agent is killed; a run costs the agent's start.
const AGENT_POINTS: u32 = 20;
const SETTLE: Duration = Duration::from_secs(15);

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Plugin,
    Agent,
}

/// A lab with one node and one namespace, and what the node holds without it.
struct Ground {
    lab: Lab,
    netns: Netns,
    before: Left,
}

impl Ground {
    fn new() -> Result<Self> {
        let lab = Lab::build(Topology::Wire(1)).start()?;
        let netns = lab.scratch("victim");
        netns.make()?;
        let before = Left::on(lab.node("a"))?;
        Ok(Self { lab, netns, before })
    }

    fn node(&self) -> &Node {
        self.lab.node("a")
    }

    fn call<'a>(&self, command: &'a str, id: &'a str) -> Call<'a> {
        Call::new(command, id, &self.netns)
    }

    /// How long a call takes when nobody disturbs it.
    fn measure(&self, command: &str) -> Result<Duration> {
        let node = self.node();
        let id = format!("measure-{command}");
        if command == "DEL" {
            node.cni(&self.call("ADD", &id))?.into_result()?;
        }
        let start = Instant::now();
        node.cni(&self.call(command, &id))?.into_result()?;
        let took = start.elapsed();
        node.cni(&self.call("DEL", &id))?.into_result()?;
        ensure!(Left::on(node)? == self.before, "an undisturbed {command} leaves something");
        Ok(took)
    }

    /// Calls `command` and kills the victim after `delay`.
    fn disturb(&self, command: &str, victim: Victim, delay: Duration, id: &str) -> Result<()> {
        let node = self.node();
        if command == "DEL" {
            node.cni(&self.call("ADD", id))?.into_result()?;
        }
        let mut plugin = self.call(command, id).start(node.netns(), node.directories())?;
        thread::sleep(delay);
        match victim {
            Victim::Plugin => drop(plugin.kill()?),
            Victim::Agent => {
                node.kill_agent()?;
                plugin.wait(Duration::from_secs(12)).context("the plugin must end without its agent")?;
                node.start_agent()?;
                node.wait_ready(SETTLE)?;
            }
        }
        node.cni(&self.call("DEL", id))?.into_result().context("DEL after the kill")?;
        let mut left = self.before.clone();
        wait_until("the node to be as before", SETTLE, || {
            left = Left::on(node)?;
            Ok(left == self.before)
        })
        .with_context(|| {
            format!("{victim:?} killed {delay:?} into {command}: {left:?}, before: {:?}", self.before)
        })
    }
}

fn sweep(command: &str, victim: Victim, points: u32) -> Result<()> {
    let ground = Ground::new()?;
    let took = ground.measure(command)?;
    for point in 0..=points {
        // A little beyond the end, so that the last steps are met whatever the machine does meanwhile.
        let delay = took * point * 5 / (points * 4);
        ground.disturb(command, victim, delay, &format!("kill-{point}"))?;
    }
    // The node still serves.
    ground.measure("ADD").map(drop)
}

#[test]
#[ignore = "cargo xtask test lab"]
fn a_plugin_killed_anywhere_in_add_leaks_nothing() -> Result<()> {
    sweep("ADD", Victim::Plugin, PLUGIN_POINTS)
}

#[test]
#[ignore = "cargo xtask test lab"]
fn a_plugin_killed_anywhere_in_del_leaks_nothing() -> Result<()> {
    sweep("DEL", Victim::Plugin, PLUGIN_POINTS)
}

#[test]
#[ignore = "cargo xtask test lab"]
fn an_agent_killed_anywhere_in_add_leaks_nothing() -> Result<()> {
    sweep("ADD", Victim::Agent, AGENT_POINTS)
}

#[test]
#[ignore = "cargo xtask test lab"]
fn an_agent_killed_anywhere_in_del_leaks_nothing() -> Result<()> {
    sweep("DEL", Victim::Agent, AGENT_POINTS)
}
