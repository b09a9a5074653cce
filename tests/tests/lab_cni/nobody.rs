//! Addresses of a node's pod range that no pod has: what is sent to them ends at the node, and what the node itself has
//! is not leased.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use sinew_tests::lab::process::wait_until;
use sinew_tests::lab::topology::UNDERLAY;
use sinew_tests::lab::{Family, Lab, Node, ROUTINGS, Topology};
use sinew_tests::probe::report::Outcome;

use super::{SETTLE, Sandbox};

/// A packet that goes round between router and node passes the wire about 60 times: 64 hops at most.
const ROUND: u64 = 40;

/// Packets that passed the node's underlay device, both ways.
fn passed(node: &Node) -> Result<u64> {
    let text = node.netns().ip_output(&["-j", "-s", "link", "show", "dev", UNDERLAY])?;
    let links: serde_json::Value = serde_json::from_str(&text)?;
    let count = |way: &str| links[0]["stats64"][way]["packets"].as_u64().context("a count of packets");
    Ok(count("rx")? + count("tx")?)
}

fn ranges(node: &Node) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for family in ["-4", "-6"] {
        let text =
            node.netns().ip_output(&[family, "route", "show", "type", "unreachable", "proto", "83"])?;
        lines.extend(text.lines().filter_map(|line| line.split_whitespace().nth(1).map(str::to_owned)));
    }
    Ok(lines)
}

#[test]
#[ignore = "cargo xtask test lab"]
fn what_is_for_nobody_does_not_go_round_between_router_and_node() -> Result<()> {
    for routing in ROUTINGS {
        let lab = Lab::build(Topology::Routed(1)).routing(routing).start()?;
        let (node, outside) = (lab.node("a"), lab.outside());
        let pod = node.pod("pod", &[])?;
        let nobody = ["10.240.0.200", "fd00:240::c8"].map(|text| text.parse::<IpAddr>().expect("an address"));
        wait_until("the routes", SETTLE, || Ok(ranges(node)? == ["10.240.0.0/24", "fd00:240::/64"]))?;
        for address in nobody {
            let before = passed(node)?;
            let attempt = outside.ping(address)?;
            assert!(!attempt.answered(), "{routing:?} {address}: {attempt:?}");
            let packets = passed(node)? - before;
            assert!(packets < ROUND / 2, "{routing:?} {address}: {packets} packets on the wire");
        }
        let told = outside.ping(nobody[0])?;
        assert_eq!(told.outcome, Outcome::Unreachable, "{routing:?}: the sender is told");
        let reached = |when: &str| -> Result<()> {
            for family in Family::BOTH {
                let attempt = outside.ping(pod.address(family))?;
                assert!(attempt.answered(), "{routing:?} {family:?} {when}: {attempt:?}");
                let attempt = node.ping(pod.address(family))?;
                assert!(attempt.answered(), "{routing:?} {family:?} {when}, from the node: {attempt:?}");
            }
            Ok(())
        };
        reached("before a restart")?;
        node.restart_agent()?;
        reached("while the agent starts")?;
        node.wait_ready(SETTLE)?;
        reached("after it")?;
        // Somebody takes a route away.
        node.netns().ip("route del unreachable 10.240.0.0/24")?;
        wait_until("the route to be back", SETTLE, || Ok(ranges(node)?.len() == 2))?;

        // Without the routes, and without an agent that writes them again, it goes round.
        node.stop_agent()?;
        node.netns().ip("route del unreachable 10.240.0.0/24\nroute del unreachable fd00:240::/64")?;
        for address in nobody {
            let before = passed(node)?;
            assert!(!outside.ping(address)?.answered());
            let packets = passed(node)? - before;
            assert!(packets >= ROUND, "{routing:?} {address}: {packets} packets on the wire");
        }
    }
    Ok(())
}

#[test]
#[ignore = "cargo xtask test lab"]
fn an_address_that_the_node_has_is_not_leased() -> Result<()> {
    let lab = Lab::build(Topology::Wire(1)).start()?;
    let node = lab.node("a");
    let leased = |id: &str| -> Result<Vec<String>> {
        let sandbox = Sandbox::new(&lab, id)?;
        let answer = node.cni(&sandbox.call("ADD", id))?;
        answer.clone().into_result()?;
        Ok(answer.addresses()?.iter().map(ToString::to_string).collect())
    };
    assert_eq!(leased("before")?, ["10.240.0.1", "fd00:240::1"]);
    // What a former network has left appears while the agent runs.
    node.netns().ip("link add cni0 type bridge\nlink set cni0 up\naddr add 10.240.0.2/24 dev cni0\n\
         addr add fd00:240::2/64 dev cni0 nodad")?;
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(leased("beside")?, ["10.240.0.3", "fd00:240::3"]);
    node.restart_agent()?;
    node.wait_ready(SETTLE)?;
    node.netns().ip("addr add 10.240.0.4/24 dev cni0")?;
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(leased("later")?, ["10.240.0.5", "fd00:240::4"]);
    Ok(())
}
