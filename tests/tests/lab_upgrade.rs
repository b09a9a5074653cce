//! Upgrade to changed programs of the same layout (datapath.md 31): links are moved one by one, so for
//! a while old and new programs judge the same connections, on one node and between nodes.
//!
//! The agent is killed before each link that it would move. That holds every mixture that an upgrade goes through still
//! for as long as the test wants, under load and without an agent.

#[path = "lab_restart/ground.rs"]
mod ground;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use ground::{Ground, SERVES, TCP};
use nix::libc;
use sinew_tests::lab::attached::Attached;
use sinew_tests::lab::process::pause;
use sinew_tests::lab::tripwire::{SystemCall, Tripwire};
use sinew_tests::lab::{Family, Node, ROUTINGS, binaries};

/// `BPF_LINK_UPDATE` of enum bpf_cmd (include/uapi/linux/bpf.h).
const LINK_UPDATE: u64 = 29;
/// Long enough for a few requests of every probe.
const SEVERAL: Duration = Duration::from_millis(150);

/// Digests of a node's attached programs, by link.
type Tags = BTreeMap<String, u64>;

fn tags(node: &Node) -> Result<Tags> {
    Ok(node.attached()?.into_iter().map(|(link, attached)| (link, attached.tag)).collect())
}

fn is_link_update(call: &SystemCall) -> bool {
    call.number == libc::SYS_bpf && call.arguments[0] == LINK_UPDATE
}

/// Starts an agent of these programs and kills it when it has moved `moved` links.
fn move_links(node: &Node, program: &Path, moved: usize) -> Result<()> {
    node.start_agent_held(program)?;
    let pid = node.agent_pid().context("a held agent")?;
    let steps = Tripwire::set(pid, moved, is_link_update)?.wait()?;
    node.kill_agent()?;
    assert!(steps.killed_before.is_some() && steps.begun == moved, "{moved} links: {steps:?}");
    Ok(())
}

/// Replaces a node's programs, with the agent dead and traffic going on when these numbers of links are moved, and then
/// starts the new agent.
fn upgrade(
    node: &Node,
    program: &Path,
    old: &Tags,
    mixtures: impl IntoIterator<Item = usize>,
) -> Result<Tags> {
    node.kill_agent()?;
    for moved in mixtures {
        move_links(node, program, moved)?;
        pause(SEVERAL)?;
        let now = tags(node)?;
        let unmoved = old.iter().filter(|(link, tag)| now.get(*link) == Some(tag)).count();
        assert_eq!(unmoved, old.len() - moved, "after {moved} links of node {}: {now:?}", node.name());
    }
    node.start_agent_from(program)?;
    node.wait_ready(SERVES)?;
    tags(node)
}

#[test]
#[ignore = "cargo xtask test lab"]
fn an_upgrade_to_changed_programs_disturbs_nothing_link_by_link() -> Result<()> {
    let changed = binaries::find("sinew-agent-changed")?;
    for routing in ROUTINGS {
        let ground = Ground::new(routing)?;
        let (a, b) = (ground.lab.node("a"), ground.lab.node("b"));
        let old = [tags(a)?, tags(b)?];
        // Both sides of three pods and of the wire on the one node, of one pod and the wire on the other.
        assert!(old[0].len() >= 8 && old[1].len() >= 4, "{old:?}");
        let traffic = ground.traffic()?;
        let new = upgrade(a, &changed, &old[0], 1..old[0].len())?;
        for (link, tag) in &old[0] {
            assert_ne!(new.get(link), Some(tag), "{link} runs what it ran before: {new:?}");
        }
        assert_eq!(new.keys().collect::<BTreeSet<_>>(), old[0].keys().collect());
        // New programs on one node, old ones on the other: what begins now goes through both.
        assert_eq!(tags(b)?, old[1], "node b was not touched");
        let mixed = ground.traffic()?;
        pause(Duration::from_secs(1))?;
        let new_b = upgrade(b, &changed, &old[1], 1..old[1].len())?;
        assert!(old[1].iter().all(|(link, tag)| new_b.get(link).is_some_and(|new| new != tag)), "{new_b:?}");
        // And one node goes back to what it had, by way of half of its links.
        let back = upgrade(a, &binaries::find("sinew-agent")?, &new, [new.len() / 2])?;
        assert_eq!(back, old[0], "the first programs again");
        traffic.finish("begun before the upgrade")?;
        mixed.finish("begun between the nodes' upgrades")?;
        // The new agents govern.
        ground.lab.withdraw("client-may")?;
        ground.nobody_may()?;
        for server in &ground.servers {
            assert!(!ground.client.tcp(server.address(Family::V4), TCP)?.answered(), "{routing:?}");
        }
    }
    Ok(())
}

/// That tags tell programs apart, and that a start really puts new programs into the links: the same binary again gives
/// other numbers and the same tags.
#[test]
#[ignore = "cargo xtask test lab"]
fn a_restart_of_the_same_agent_attaches_the_same_programs_anew() -> Result<()> {
    let ground = Ground::new(sinew_tests::lab::Routing::Native)?;
    let node = ground.lab.node("a");
    let before = node.attached()?;
    node.restart_agent()?;
    let after = node.attached()?;
    let part = |of: fn(&Attached) -> u64, all: &BTreeMap<String, Attached>| -> BTreeMap<String, u64> {
        all.iter().map(|(link, attached)| (link.clone(), of(attached))).collect()
    };
    assert_eq!(part(|link| link.tag, &before), part(|link| link.tag, &after));
    for (link, attached) in &before {
        assert_ne!(attached.program_id, after[link].program_id, "{link} was not moved");
    }
    Ok(())
}
