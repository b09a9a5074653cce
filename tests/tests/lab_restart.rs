//! The agent may die (promise 3; issue 3, point 7): connections lose nothing, new ones between existing pods work, and
//! what is denied never gets through, while the agent is dead, starts, is stopped, or is replaced.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use sinew_tests::lab::place::Watch;
use sinew_tests::lab::process::pause;
use sinew_tests::lab::{Family, Lab, Pod, ROUTINGS, Topology};
use sinew_tests::probe::Transport;

const TCP: u16 = 80;
const UDP: u16 = 53;
const EVERY: Duration = Duration::from_millis(10);
const SERVES: Duration = Duration::from_secs(20);

const CLIENT_MAY: &str = "
apiVersion: sinew.io/v1
kind: SinewNetworkPolicy
metadata: {name: client-may, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: server}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts:
    - ports: [{port: '80', protocol: TCP}, {port: '53', protocol: UDP}]
";

/// A client, a stranger on the same node, and a server on each node.
struct Ground {
    lab: Lab,
    client: Arc<Pod>,
    stranger: Arc<Pod>,
    servers: Vec<Arc<Pod>>,
}

/// Traffic that must go on and traffic that must never start.
struct Traffic {
    must: Vec<Watch>,
    must_not: Vec<Watch>,
}

impl Ground {
    fn new(routing: sinew_tests::lab::Routing) -> Result<Self> {
        let lab = Lab::build(Topology::Wire(2)).routing(routing).start()?;
        let client = lab.node("a").pod("client", &[("app", "client")])?;
        let stranger = lab.node("a").pod("stranger", &[("app", "stranger")])?;
        let servers = vec![
            lab.node("a").pod("near", &[("app", "server")])?,
            lab.node("b").pod("far", &[("app", "server")])?,
        ];
        for server in &servers {
            server.serve(&[TCP], &[UDP])?;
        }
        lab.apply("client-may", CLIENT_MAY)?;
        Ok(Self { lab, client, stranger, servers })
    }

    fn traffic(&self) -> Result<Traffic> {
        let mut traffic = Traffic { must: Vec::new(), must_not: Vec::new() };
        for server in &self.servers {
            for family in Family::BOTH {
                let to = server.address(family);
                traffic.must.push(self.client.hold(Transport::Tcp, to, TCP, EVERY)?);
                traffic.must.push(self.client.hold(Transport::Udp, to, UDP, EVERY)?);
                traffic.must.push(self.client.redial(Transport::Tcp, to, TCP, EVERY)?);
                let short = ["--timeout", "50"];
                traffic.must_not.push(self.stranger.watch(
                    "redial",
                    Transport::Tcp,
                    to,
                    TCP,
                    EVERY,
                    &short,
                )?);
                traffic.must_not.push(self.stranger.watch(
                    "redial",
                    Transport::Icmp,
                    to,
                    0,
                    EVERY,
                    &short,
                )?);
            }
        }
        pause(Duration::from_millis(300))?;
        Ok(traffic)
    }

    fn kill_both(&self) -> Result<()> {
        self.lab.nodes().try_for_each(|node| node.kill_agent())
    }

    fn start_both(&self) -> Result<()> {
        self.lab.nodes().try_for_each(|node| node.start_agent())?;
        self.lab.nodes().try_for_each(|node| node.wait_ready(SERVES))
    }
}

impl Traffic {
    fn finish(self, when: &str) -> Result<()> {
        for watch in self.must {
            let watched = watch.finish()?;
            assert!(watched.answered > 20 && watched.failed.is_empty(), "{when}: {watched:?}");
        }
        for watch in self.must_not {
            let watched = watch.finish()?;
            assert!(watched.attempts > 3 && watched.answered == 0, "{when}: {watched:?}");
        }
        Ok(())
    }
}

#[test]
#[ignore = "cargo xtask test lab"]
fn traffic_goes_on_while_agents_are_dead_and_come_back() -> Result<()> {
    for routing in ROUTINGS {
        let ground = Ground::new(routing)?;
        let traffic = ground.traffic()?;
        ground.kill_both()?;
        pause(Duration::from_secs(2))?;
        // A connection that starts while nobody is there.
        let late = ground.traffic()?;
        ground.start_both()?;
        pause(Duration::from_secs(1))?;
        traffic.finish("before, during and after")?;
        late.finish("begun without an agent")?;
        // And the agent that came back governs: what it allowed is taken away.
        ground.lab.withdraw("client-may")?;
        ground.lab.apply(
            "nobody",
            &CLIENT_MAY.replace("app: client", "app: nobody").replace("client-may", "nobody"),
        )?;
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
    ground.kill_both()?;
    ground.lab.store().write("client-may", &CLIENT_MAY.replace("app: client", "app: stranger"))?;
    pause(Duration::from_millis(500))?;
    assert!(ground.client.tcp(to, TCP)?.answered(), "the last tables hold without an agent");
    assert!(!ground.stranger.tcp(to, TCP)?.answered());
    ground.start_both()?;
    ground.lab.wait_enforced()?;
    assert!(ground.stranger.tcp(to, TCP)?.answered());
    assert!(!ground.client.tcp(to, TCP)?.answered());
    pause(Duration::from_millis(500))?;
    assert!(!held.finish()?.failed.is_empty(), "the connection that is not allowed any more");
    Ok(())
}

#[test]
#[ignore = "cargo xtask test lab"]
fn an_agent_killed_again_and_again_disturbs_nothing() -> Result<()> {
    let ground = Ground::new(sinew_tests::lab::Routing::Native)?;
    let traffic = ground.traffic()?;
    // At every moment of its start: before the programs are looked at, while links are updated, after the first list.
    for round in 0..15 {
        ground.kill_both()?;
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
    ground.start_both()?;
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
    let versions = versions(&node.directories().bpf_root.join(node.name()))?;
    assert_eq!(versions.len(), 1, "{versions:?}");
    let other = versions[0].with_file_name("v999");
    fs::rename(&versions[0], &other)
        .or_else(|_| fs::create_dir(&other))
        .context("another layout's folder")?;
    node.start_agent()?;
    let refused = node.wait_ready(Duration::from_secs(5)).expect_err("the agent must refuse");
    let text = format!("{refused:#}");
    assert!(text.contains("v999") || text.contains("999"), "{text}");
    // What runs in the kernel goes on.
    assert!(lab.outside().tcp(pod.address(Family::V4), TCP)?.answered());
    Ok(())
}

fn versions(folder: &std::path::Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let paths = entries.flatten().map(|entry| entry.path());
    Ok(paths
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('v')))
        .collect())
}
