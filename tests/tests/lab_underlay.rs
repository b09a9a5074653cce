//! An underlay that is no good for pods: the agent says so and takes no new ones, whether it starts over it or it came to be
//! so under way, and the pods that are there run on.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sinew_tests::lab::cni::{Call, host_interfaces};
use sinew_tests::lab::process::wait_until;
use sinew_tests::lab::topology::UNDERLAY;
use sinew_tests::lab::{Family, Lab, Node, ROUTINGS, Topology};
use sinew_tests::probe::Transport;

const TCP: u16 = 80;
const EVERY: Duration = Duration::from_millis(5);
const SETTLE: Duration = Duration::from_secs(60);
/// CNI's number for a plugin that can't serve an ADD.
const NOT_AVAILABLE: Option<u64> = Some(50);

fn set_mtu(node: &Node, mtu: u32) -> Result<()> {
    node.netns().ip(&format!("link set dev {UNDERLAY} mtu {mtu}"))
}

/// Waits until the node says that its underlay is unfit, and tries it.
fn refuses_pods(lab: &Lab, node: &Node, when: &str) -> Result<()> {
    let said =
        |object: &serde_json::Value| object.to_string().contains("underlay: interface eth0 has the MTU 1200");
    wait_until(&format!("STATUS to say so, {when}"), SETTLE, || {
        let answer = node.cni(&Call::new("STATUS", "", node.netns()))?;
        Ok(answer.code() == NOT_AVAILABLE && said(&answer.object))
    })?;
    let before = host_interfaces(node.netns())?;
    let netns = lab.scratch(&format!("refused-{}", when.replace(' ', "-")));
    netns.make()?;
    let answer = node.cni(&Call::new("ADD", "refused-1", &netns))?;
    ensure!(answer.code() == NOT_AVAILABLE && said(&answer.object), "ADD, {when}: {answer:?}");
    assert_eq!(host_interfaces(node.netns())?, before, "{when}");
    let status = node.sinew(&["status"])?;
    let text = String::from_utf8_lossy(&status.stdout);
    assert_eq!(status.status.code(), Some(1), "{when}: {text}");
    assert!(text.contains("interface eth0 has the MTU 1200, and pods need"), "{when}: {text}");
    Ok(())
}

/// Mends the underlay, and makes a pod.
fn serves_again(node: &Node) -> Result<()> {
    set_mtu(node, 1500)?;
    node.wait_ready(SETTLE)?;
    let (one, other) = (node.pod("late", &[])?, node.pod("later", &[])?);
    other.serve(&[TCP], &[])?;
    let attempt = one.tcp(other.address(Family::V4), TCP)?;
    ensure!(attempt.answered(), "{attempt:?}");
    Ok(())
}

#[test]
#[ignore = "cargo xtask test lab"]
fn an_unfit_underlay_takes_no_new_pods_and_a_restart_changes_nothing() -> Result<()> {
    for routing in ROUTINGS {
        let lab = Lab::build(Topology::Wire(1)).routing(routing).start()?;
        let node = lab.node("a");
        let (client, server) = (node.pod("client", &[])?, node.pod("server", &[])?);
        server.serve(&[TCP], &[])?;
        let mut traffic = Vec::new();
        for family in Family::BOTH {
            traffic.push(client.hold(Transport::Tcp, server.address(family), TCP, EVERY)?);
            traffic.push(client.redial(Transport::Tcp, server.address(family), TCP, EVERY)?);
        }
        set_mtu(node, 1200)?;
        refuses_pods(&lab, node, "under way")?;
        node.kill_agent()?;
        node.start_agent()?;
        refuses_pods(&lab, node, "after a restart")?;
        serves_again(node).with_context(|| format!("{routing:?}"))?;
        for watch in traffic {
            let watched = watch.finish()?;
            assert!(watched.answered > 20 && watched.failed.is_empty(), "{routing:?}: {watched:?}");
        }
    }
    Ok(())
}

#[test]
#[ignore = "cargo xtask test lab"]
fn an_agent_that_starts_over_an_unfit_underlay_says_so() -> Result<()> {
    for routing in ROUTINGS {
        let lab = Lab::build(Topology::Wire(1)).routing(routing).without_agents().start()?;
        let node = lab.node("a");
        set_mtu(node, 1200)?;
        node.start_agent()?;
        refuses_pods(&lab, node, "at the first start")?;
        serves_again(node).with_context(|| format!("{routing:?}"))?;
    }
    Ok(())
}
