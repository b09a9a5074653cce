//! An underlay that is no good for pods: the agent says so and takes no new ones, whether it starts over it or it came to be
//! so under way, and the pods that are there run on.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use sinew_tests::lab::cni::{Call, host_interfaces};
use sinew_tests::lab::process::wait_until;
use sinew_tests::lab::topology::UNDERLAY;
use sinew_tests::lab::{Family, Lab, Node, ROUTINGS, Topology};
use sinew_tests::probe::Transport;
use sinew_tests::probe::raw::{self, Tuple};

const TCP: u16 = 80;
const EVERY: Duration = Duration::from_millis(5);
const SETTLE: Duration = Duration::from_secs(60);
/// CNI's number for a plugin that can't serve an ADD.
const NOT_AVAILABLE: Option<u64> = Some(50);

/// The world may use the one port, and nobody the other.
const WORLD_MAY: &str = "
apiVersion: sinew.io/v1
kind: SinewNetworkPolicy
metadata: {name: p, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: server}}
  ingress:
  - fromEntities: [world]
    toPorts: [{ports: [{port: '80', protocol: TCP}]}]
";

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

/// datapath.md 30: a device of the underlay that appears after the agent's start is guarded like one that was there.
#[test]
#[ignore = "cargo xtask test lab"]
fn an_underlay_device_that_appears_later_is_guarded_too() -> Result<()> {
    const LATE: &str = "late0";
    const OUTSIDE: [(Family, &str, &str); 2] =
        [(Family::V4, "172.30.0.1/24", "172.30.0.2/24"), (Family::V6, "fd30::1/64", "fd30::2/64")];
    for routing in ROUTINGS {
        let lab = Lab::build(Topology::Wire(2))
            .routing(routing)
            .agent_argument("--underlay")
            .agent_argument(LATE)
            .start()?;
        let node = lab.node("a");
        let server = node.pod("server", &[("app", "server")])?;
        let neighbour = node.pod("neighbour", &[("app", "neighbour")])?;
        server.serve(&[TCP, TCP + 1], &[])?;
        lab.apply("p", WORLD_MAY)?;
        let programs = |device: &str| -> Result<Vec<String>> {
            let attached = node.attached()?.into_keys();
            let of = attached.filter_map(|name| name.strip_suffix(&format!("-{device}")).map(str::to_owned));
            Ok(of.collect())
        };
        let there = programs(UNDERLAY)?;
        assert!(!there.is_empty() && programs(LATE)?.is_empty(), "{there:?}");
        let outside = lab.outside();
        let peer = outside.netns().path();
        let peer = peer.file_name().context("a namespace has a name")?.to_string_lossy().into_owned();
        node.netns().ip(&format!("link add {LATE} type veth peer name {LATE} netns {peer}"))?;
        for (family, own, theirs) in OUTSIDE {
            let flags = if family == Family::V6 { "nodad" } else { "" };
            node.netns().ip(&format!("addr add {own} dev {LATE} {flags}"))?;
            outside.netns().ip(&format!("addr add {theirs} dev {LATE} {flags}"))?;
        }
        node.netns().ip(&format!("link set {LATE} up"))?;
        outside.netns().ip(&format!("link set {LATE} up"))?;
        wait_until("programs on the late device", SETTLE, || Ok(programs(LATE)? == there))
            .with_context(|| format!("{routing:?}: {:?} instead of {there:?}", programs(LATE)))?;
        for (family, own, theirs) in OUTSIDE {
            let what = format!("{routing:?} {family:?}");
            // From now on the outside reaches the pod by the late device only, and is answered by it.
            let bits = if family == Family::V4 { 32 } else { 128 };
            let (gateway, to) = (address_of(own), server.address(family));
            outside
                .netns()
                .ip(&format!("route add {to}/{bits} via {gateway} dev {LATE} src {}", address_of(theirs)))?;
            let attempt = outside.tcp(to, TCP)?;
            assert!(attempt.answered(), "{what}: {attempt:?}");
            let since = SystemTime::now();
            let attempt = outside.dial(Transport::Tcp, to, TCP + 1, &["--timeout", "300"])?;
            assert!(attempt.dropped(), "{what}: {attempt:?}");
            let flow = node.flow(since, "of a refused connection by the late device", |flow| {
                flow.verdict() == "DROPPED" && flow.destination() == "server" && flow.is_v6() == to.is_ipv6()
            })?;
            assert_eq!(flow.drop_reason(), "POLICY_DENIED", "{what}: {}", flow.raw());
            // Somebody on that wire who says to be a pod of this node, to another of its pods.
            let (stolen, neighbour) = (to, neighbour.address(family));
            outside.netns().ip(&format!("route add {neighbour}/{bits} via {gateway} dev {LATE}"))?;
            let stolen = Tuple { from: (stolen, 4000).into(), to: (neighbour, TCP).into() };
            let since = SystemTime::now();
            outside.send_raw(neighbour, &raw::tcp(stolen, raw::flag::SYN, 1, 0, b""))?;
            let flow = node.flow(since, "of a stolen source", |flow| {
                flow.verdict() == "DROPPED" && flow.source() == "server" && flow.is_v6() == to.is_ipv6()
            })?;
            assert_eq!(flow.own_reason(), "source is local to this node", "{what}: {}", flow.raw());
        }
    }
    Ok(())
}

fn address_of(prefix: &str) -> &str {
    prefix.split('/').next().unwrap_or(prefix)
}
