//! Real agents at their ports with mutual TLS, a relay that finds them by the Peer service of one, and the stock client
//! before it: nodes that come, go, die and freeze under way.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use sinew_tests::lab::process::{Running, wait_until};
use sinew_tests::lab::relay::{RELAY_NAME, Relay, make_certificates};
use sinew_tests::lab::{Family, Lab, Topology, binaries};

const SOON: Duration = Duration::from_secs(60);
const PORT: u16 = 80;

/// A lab whose agents serve their ports with the certificates of a folder.
fn lab(nodes: u8, certificates: &Path) -> Result<Lab> {
    let mut builder = Lab::build(Topology::Wire(nodes)).agent_argument("--hubble-listen-address=:4244");
    for (flag, file) in [
        ("--hubble-tls-cert-file", "node.crt"),
        ("--hubble-tls-key-file", "node.key"),
        ("--hubble-tls-client-ca-files", "ca.crt"),
    ] {
        builder = builder.agent_argument(&format!("{flag}={}", certificates.join(file).display()));
    }
    builder.start()
}

/// Three nodes, and a relay on the host outside that asks node a which there are.
struct Ground {
    lab: Lab,
    relay: Relay,
    certificates: tempfile::TempDir,
}

impl Ground {
    fn new() -> Result<Self> {
        let certificates = tempfile::tempdir().context("a folder")?;
        make_certificates(certificates.path(), "lab")?;
        let lab = lab(3, certificates.path())?;
        let command = lab.outside().netns().command(binaries::find("sinew-relay")?);
        let peer_service = format!("{}:4244", lab.node("a").address(Family::V4));
        let relay = Relay::start(command, certificates.path(), &peer_service, "a.lab.hubble-grpc.cilium.io")?;
        let ground = Self { lab, relay, certificates };
        ground.wait_states(&[("a", "Connected"), ("b", "Connected"), ("c", "Connected")])?;
        Ok(ground)
    }

    /// The stock client on the host outside, asking the relay.
    fn hubble(&self, words: &[&str]) -> Result<Command> {
        self.hubble_of(words, &self.relay.address, RELAY_NAME)
    }

    fn hubble_of(&self, words: &[&str], server: &str, name: &str) -> Result<Command> {
        let mut command = self.lab.outside().netns().command(binaries::hubble()?);
        command.args(["--config", "/dev/null"]).args(words).args(["--tls", "--server", server]);
        command.args(["--tls-server-name", name]);
        for (flag, file) in [
            ("--tls-ca-cert-files", "ca.crt"),
            ("--tls-client-cert-file", "client.crt"),
            ("--tls-client-key-file", "client.key"),
        ] {
            command.arg(flag).arg(self.certificates.path().join(file));
        }
        Ok(command)
    }

    /// What the client prints, whether it ends well or not.
    fn told(&self, words: &[&str]) -> Result<String> {
        let Output { stdout, stderr, .. } = self.hubble(words)?.output().context("running hubble")?;
        Ok(format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
    }

    /// Waits until the relay lists the nodes in these states and no others.
    fn wait_states(&self, states: &[(&str, &str)]) -> Result<()> {
        let mut last = String::new();
        wait_until(&format!("{states:?}"), SOON, || {
            last = self.told(&["list", "nodes"])?;
            let right = |(node, state): &(&str, &str)| {
                let name = format!("lab/{node}");
                last.lines().any(|line| {
                    let words: Vec<&str> = line.split_whitespace().collect();
                    words.first() == Some(&name.as_str()) && words.get(1) == Some(state)
                })
            };
            Ok(states.iter().all(right) && last.lines().count() == states.len() + 1)
        })
        .with_context(|| format!("last: {last}\nthe relay said: {}", self.relay.said().unwrap_or_default()))
    }

    /// A client that goes on, and where it writes.
    fn keep(&self, name: &str, words: &[&str]) -> Result<(Running, PathBuf)> {
        let log = self.certificates.path().join(name);
        Ok((Running::start(&mut self.hubble(words)?, &log)?, log))
    }
}

fn wait_log(log: &Path, what: impl Fn(&str) -> bool) -> Result<()> {
    wait_until("what a client has to be told", SOON, || Ok(what(&fs::read_to_string(log)?)))
        .with_context(|| fs::read_to_string(log).unwrap_or_default())
}

/// A line that has all the words.
fn has_line(text: &str, words: &[&str]) -> bool {
    text.lines().any(|line| words.iter().all(|word| line.contains(word)))
}

#[test]
#[ignore = "cargo xtask test hubble"]
fn a_connection_is_seen_from_both_nodes_at_one_address() -> Result<()> {
    let ground = Ground::new()?;
    let client = ground.lab.node("a").pod("client", &[("app", "client")])?;
    let server = ground.lab.node("b").pod("server", &[("app", "server")])?;
    server.serve(&[PORT], &[])?;
    let words = ["observe", "--to-pod", "default/server", "--to-port", "80", "--print-node-name"];
    wait_until("both nodes tell of the connection", SOON, || {
        // A node that has not heard of a new pod yet gives its address only.
        ensure!(client.tcp(server.address(Family::V6), PORT)?.answered(), "no policy is in force");
        let told = ground.told(&words)?;
        let seen = |node: &str, way: &str| has_line(&told, &[node, way, "default/client", "default/server"]);
        Ok(seen("[lab/a]", "policy-verdict") && seen("[lab/b]", "to-endpoint"))
    })
    .with_context(|| ground.told(&words).unwrap_or_default())?;

    // The port of an agent has no service of the agent's own.
    let node = format!("{}:4244", ground.lab.node("b").address(Family::V4));
    let name = "b.lab.hubble-grpc.cilium.io";
    let reflected = ground.hubble_of(&["reflect"], &node, name)?.output().context("running hubble")?;
    let reflected = String::from_utf8_lossy(&reflected.stdout).into_owned();
    let describes = |service: &str| reflected.contains(&format!("\"service\":[{{\"name\":\"{service}\""));
    ensure!(describes("Observer") && describes("Peer") && !describes("Agent"), "another set of services");
    Ok(())
}

#[test]
#[ignore = "cargo xtask test hubble"]
fn nodes_come_go_die_and_freeze_under_way() -> Result<()> {
    let ground = Ground::new()?;
    let lab = &ground.lab;
    let (_following, flows) =
        ground.keep("flows.log", &["observe", "--follow", "--print-node-name", "--debug"])?;
    let (_watching, peers) = ground.keep("peers.log", &["watch", "peers"])?;
    let address = |node: &str| -> IpAddr { lab.node(node).address(Family::V4) };
    for node in ["a", "b", "c"] {
        let name = format!("lab/{node} (TLS.ServerName: {node}.lab.hubble-grpc.cilium.io)");
        let wanted = format!("{}:4244 {name}", address(node));
        wait_log(&peers, |log| has_line(log, &["PEER_ADDED", &wanted]))?;
        // Nodes that come together are told of together.
        wait_log(&flows, |log| has_line(log, &["Receiving flows from ", &format!("lab/{node}")]))?;
    }

    // Dead: reported, and asked again when it is back.
    lab.node("b").kill_agent()?;
    wait_log(&flows, |log| has_line(log, &["1 nodes are unavailable: lab/b"]))?;
    ground.wait_states(&[("a", "Connected"), ("b", "Unavailable"), ("c", "Connected")])?;
    lab.node("b").start_agent()?;
    lab.node("b").wait_ready(SOON)?;
    ground.wait_states(&[("a", "Connected"), ("b", "Connected"), ("c", "Connected")])?;

    // Frozen: the others are told in the meantime.
    let client = lab.node("a").pod("client", &[("app", "client")])?;
    let server = lab.node("c").pod("server", &[("app", "server")])?;
    server.serve(&[PORT], &[])?;
    lab.node("b").signal_agent(Signal::SIGSTOP)?;
    wait_until("the other nodes tell of a connection", SOON, || {
        ensure!(client.tcp(server.address(Family::V4), PORT)?.answered(), "pods go on");
        let log = fs::read_to_string(&flows)?;
        let seen = |node| has_line(&log, &[node, "default/client", "default/server"]);
        Ok(seen("[lab/a]") && seen("[lab/c]"))
    })?;
    ground.wait_states(&[("a", "Connected"), ("b", "Unavailable"), ("c", "Connected")])?;
    lab.node("b").signal_agent(Signal::SIGCONT)?;
    ground.wait_states(&[("a", "Connected"), ("b", "Connected"), ("c", "Connected")])?;

    // The node that tells the others dies: nobody is gone.
    lab.node("a").restart_agent()?;
    ground.wait_states(&[("a", "Connected"), ("b", "Connected"), ("c", "Connected")])?;
    let told_before = fs::read_to_string(&flows)?;
    ensure!(!told_before.contains("removed from cluster"), "{told_before}");

    // Gone: its object is removed once its agent has ended.
    lab.node("b").stop_agent()?;
    lab.store().remove(".nodes/b")?;
    wait_log(&peers, |log| has_line(log, &["PEER_DELETED", "lab/b"]))?;
    wait_log(&flows, |log| has_line(log, &["1 nodes removed from cluster: lab/b"]))?;
    ground.wait_states(&[("a", "Connected"), ("c", "Connected")])?;
    lab.node("b").start_agent()?;
    lab.node("b").wait_ready(SOON)?;
    ground.wait_states(&[("a", "Connected"), ("b", "Connected"), ("c", "Connected")])
}

#[test]
#[ignore = "cargo xtask test hubble"]
fn an_agent_without_its_files_serves_its_pods_and_says_what_is_missing() -> Result<()> {
    let certificates = tempfile::tempdir().context("a folder")?;
    make_certificates(certificates.path(), "lab")?;
    let (key, hidden) = (certificates.path().join("node.key"), certificates.path().join("hidden.key"));
    fs::rename(&key, &hidden)?;
    let lab = lab(1, certificates.path())?;
    let node = lab.node("a");
    let client = node.pod("client", &[])?;
    let server = node.pod("server", &[])?;
    server.serve(&[PORT], &[])?;
    ensure!(client.tcp(server.address(Family::V4), PORT)?.answered(), "pods do not wait for certificates");
    let said = || fs::read_to_string(node.agent_log()).context("reading the agent's log");
    let missing = format!("{}: No such file or directory", key.display());
    wait_until("the file is named", SOON, || Ok(said()?.contains(&missing)))?;
    fs::rename(&hidden, &key)?;
    wait_until("the port opens", SOON, || Ok(said()?.contains("flows are served address=[::]:4244")))
}
