//! The agent may die (promise 3): connections lose nothing, new ones between existing pods work, and
//! what is denied never gets through, while the agent is dead, starts, or is stopped. `lab_upgrade.rs` replaces it.

#[path = "lab_restart/ground.rs"]
mod ground;

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use ground::{EVERY, Ground, SERVES, TCP};
use sinew_tests::lab::process::{pause, wait_until};
use sinew_tests::lab::{CLIENT_MAY, Family, Lab, Node, ROUTINGS, Routing, Topology};
use sinew_tests::probe::Transport;

fn kill_both(ground: &Ground) -> Result<()> {
    ground.lab.nodes().try_for_each(|node| node.kill_agent())
}

fn start_both(ground: &Ground) -> Result<()> {
    ground.lab.nodes().try_for_each(|node| node.start_agent())?;
    ground.lab.nodes().try_for_each(|node| node.wait_ready(SERVES))
}

#[test]
#[ignore = "cargo xtask test lab"]
fn traffic_goes_on_while_agents_are_dead_and_come_back() -> Result<()> {
    for routing in ROUTINGS {
        let ground = Ground::new(routing)?;
        let traffic = ground.traffic()?;
        kill_both(&ground)?;
        pause(Duration::from_secs(2))?;
        // A connection that starts while nobody is there.
        let late = ground.traffic()?;
        start_both(&ground)?;
        pause(Duration::from_secs(1))?;
        traffic.finish("before, during and after")?;
        late.finish("begun without an agent")?;
        // And the agent that came back governs: what it allowed is taken away.
        ground.lab.withdraw("client-may")?;
        ground.nobody_may()?;
        for server in &ground.servers {
            assert!(!ground.client.tcp(server.address(Family::V4), TCP)?.answered(), "{routing:?}");
        }
    }
    Ok(())
}

#[test]
#[ignore = "cargo xtask test lab"]
fn a_policy_that_changes_without_an_agent_holds_when_it_is_back() -> Result<()> {
    let ground = Ground::new(sinew_tests::lab::Routing::Native)?;
    let to = ground.servers[1].address(Family::V4);
    let held = ground.client.watch("hold", Transport::Tcp, to, TCP, EVERY, &["--timeout", "400"])?;
    kill_both(&ground)?;
    ground.lab.store().write("client-may", &CLIENT_MAY.replace("app: client", "app: stranger"))?;
    pause(Duration::from_millis(500))?;
    assert!(ground.client.tcp(to, TCP)?.answered(), "the last tables hold without an agent");
    assert!(!ground.stranger.tcp(to, TCP)?.answered());
    start_both(&ground)?;
    ground.lab.wait_enforced()?;
    assert!(ground.stranger.tcp(to, TCP)?.answered());
    assert!(!ground.client.tcp(to, TCP)?.answered());
    pause(Duration::from_millis(500))?;
    assert!(!held.finish()?.failed.is_empty(), "the connection that is not allowed any more");
    Ok(())
}

/// CVE-2023-27595: an agent that started took the programs away for a moment. Whoever is refused knocks all the while, and
/// none of fifteen starts lets one packet of it through.
#[test]
#[ignore = "cargo xtask test lab"]
fn cve_2023_27595_no_start_of_an_agent_leaves_a_gap() -> Result<()> {
    let ground = Ground::new(sinew_tests::lab::Routing::Native)?;
    let traffic = ground.traffic()?;
    // At every moment of its start: before the programs are looked at, while links are updated, after the first list.
    for round in 0..15 {
        kill_both(&ground)?;
        ground.lab.nodes().try_for_each(|node| node.start_agent())?;
        pause(Duration::from_millis(round * 20))?;
    }
    ground.lab.nodes().try_for_each(|node| node.wait_ready(SERVES))?;
    traffic.finish("through fifteen starts")
}

#[test]
#[ignore = "cargo xtask test lab"]
fn an_agent_that_is_stopped_leaves_the_kernel_alone() -> Result<()> {
    let ground = Ground::new(sinew_tests::lab::Routing::Vxlan)?;
    let traffic = ground.traffic()?;
    ground.lab.nodes().try_for_each(|node| node.stop_agent())?;
    pause(Duration::from_millis(500))?;
    start_both(&ground)?;
    traffic.finish("through a stop and a start")
}

#[test]
#[ignore = "cargo xtask test lab"]
fn pins_of_another_layout_are_refused_with_what_to_do() -> Result<()> {
    let lab = Lab::build(Topology::Wire(1)).start()?;
    let node = lab.node("a");
    let pod = node.pod("pod", &[])?;
    pod.serve(&[TCP], &[])?;
    node.kill_agent()?;
    let versions = node.pinned_layouts()?;
    assert_eq!(versions.len(), 1, "{versions:?}");
    let other = versions[0].with_file_name("v999");
    fs::rename(&versions[0], &other)
        .or_else(|_| fs::create_dir(&other))
        .context("another layout's folder")?;
    node.start_agent()?;
    let refused = node.wait_ready(Duration::from_secs(5)).expect_err("the agent must refuse");
    let text = format!("{refused:#}");
    assert!(text.contains("maps of layout 999") && text.contains("run `sinew-agent cleanup`"), "{text}");
    // What runs in the kernel goes on.
    assert!(lab.outside().tcp(pod.address(Family::V4), TCP)?.answered());
    Ok(())
}

#[test]
#[ignore = "cargo xtask test lab"]
fn a_pinned_map_of_another_capacity_is_refused() -> Result<()> {
    let lab = Lab::build(Topology::Wire(1)).start()?;
    let node = lab.node("a");
    let pod = node.pod("pod", &[])?;
    pod.serve(&[TCP], &[])?;
    node.kill_agent()?;
    let layouts = node.pinned_layouts()?;
    let maps = layouts.first().context("a pinned layout")?.join("maps");
    // Keys and values of both are the same.
    fs::remove_file(maps.join("CT_TCP"))?;
    fs::rename(maps.join("CT_ANY"), maps.join("CT_TCP"))?;
    node.start_agent()?;
    let refused = node.wait_ready(Duration::from_secs(5)).expect_err("the agent must refuse");
    let text = format!("{refused:#}");
    assert!(text.contains("capacity: 131072 instead of 262144"), "{text}");
    assert!(text.contains("run `sinew-agent cleanup`"), "{text}");
    assert!(lab.outside().tcp(pod.address(Family::V4), TCP)?.answered());
    Ok(())
}

/// The routes that the agent wrote.
fn routes(node: &Node) -> Result<Vec<String>> {
    let mut routes = Vec::new();
    for family in ["-4", "-6"] {
        let text = node.netns().ip_output(&[family, "route", "show", "proto", "83"])?;
        routes.extend(text.lines().map(|line| line.trim().to_owned()));
    }
    routes.sort();
    Ok(routes)
}

#[test]
#[ignore = "cargo xtask test lab"]
fn what_somebody_takes_from_a_node_comes_back() -> Result<()> {
    for routing in ROUTINGS {
        let lab = Lab::build(Topology::Wire(2)).routing(routing).start()?;
        let (client, server) = (lab.node("a").pod("client", &[])?, lab.node("b").pod("server", &[])?);
        server.serve(&[80], &[])?;
        let node = lab.node("a");
        let takes: &[&str] = match routing {
            Routing::Native => &["route flush proto 83"],
            Routing::Vxlan => {
                &["route flush proto 83", "link set dev sinew_vxlan down", "link del dev sinew_vxlan"]
            }
        };
        for take in takes {
            let before = routes(node)?;
            node.netns().ip(take)?;
            wait_until("the routes to be back", Duration::from_secs(10), || Ok(routes(node)? == before))
                .with_context(|| format!("{take}: {:?} instead of {before:?}", routes(node)))?;
            for family in Family::BOTH {
                let attempt = client.tcp(server.address(family), 80)?;
                assert!(attempt.answered(), "{routing:?}, {take}, {family:?}: {attempt:?}");
            }
        }
    }
    Ok(())
}
