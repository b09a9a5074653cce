//! Both clients over mutual TLS, against a node's port and against `sinew-relay` as a process, which finds its nodes by
//! the Peer service. The certificates are made by the lines of docs/observability.md.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use sinew_observer::listen::{self, Limits};
use sinew_observer::peer::{PeerAddress, Peers, tls_server_name};
use sinew_observer::tls::{Identity, ServerTls};
use sinew_observer::{Journal, JournalSettings, server};
use sinew_tests::lab::binaries;
use sinew_tests::lab::process::{Running, wait_until};
use sinew_tests::lab::relay::{RELAY_NAME, Relay, make_certificates};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::super::{sinew_binary, success, text, uuids};
use super::cases::{CASES, Case};
use super::flows;

const SOON: Duration = Duration::from_secs(20);

/// Two nodes, one with the flows of the cases, and a relay before them.
struct Ground {
    folder: tempfile::TempDir,
    journals: Vec<Arc<Journal>>,
    nodes: Vec<String>,
    relay: Relay,
    _runtime: tokio::runtime::Runtime,
    _peers: watch::Sender<Peers>,
}

impl Ground {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir().context("a folder")?;
        make_certificates(folder.path(), "default")?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let (peers, receiver) = watch::channel(Peers::new());
        let (mut journals, mut nodes) = (Vec::new(), Vec::new());
        for name in ["node-a", "node-b"] {
            let full = format!("default/{name}");
            let journal = Arc::new(Journal::new(JournalSettings::new(&full, "0.1.0"), SystemTime::now()));
            if name == "node-a" {
                journal.record_flows(flows::all());
            }
            let address = serve(&runtime, folder.path(), Arc::clone(&journal), receiver.clone())?;
            journals.push(journal);
            let tls = Some(tls_server_name("default", name));
            peers
                .send_modify(|peers| drop(peers.insert(full, PeerAddress { address: address.clone(), tls })));
            nodes.push(address);
        }
        let command = Command::new(binaries::find("sinew-relay")?);
        let peer_name = tls_server_name("default", "node-a");
        let relay = Relay::start(command, folder.path(), &nodes[0], &peer_name)?;
        Ok(Self { folder, journals, nodes, relay, _runtime: runtime, _peers: peers })
    }

    /// Runs a client with its certificate.
    fn ask(&self, client: Client, arguments: &[&str], server: &str, name: &str) -> Result<Output> {
        let own = ["--tls-client-cert-file", "client.crt", "--tls-client-key-file", "client.key"];
        let mut command = self.command(client, arguments, server, name)?;
        command.args(own).output().context("run a client")
    }

    /// A client without a certificate, in the folder of the certificates.
    fn command(&self, client: Client, arguments: &[&str], server: &str, name: &str) -> Result<Command> {
        let mut command = match client {
            Client::Hubble => {
                let mut command = Command::new(binaries::hubble()?);
                command.args(["--config", "/dev/null"]);
                command
            }
            Client::Sinew => Command::new(sinew_binary()?),
        };
        command.current_dir(self.folder.path()).args(arguments);
        command.args([
            "--server",
            server,
            "--tls",
            "--tls-ca-cert-files",
            "ca.crt",
            "--tls-server-name",
            name,
        ]);
        Ok(command)
    }
}

#[derive(Clone, Copy, Debug)]
enum Client {
    Hubble,
    Sinew,
}

const CLIENTS: [Client; 2] = [Client::Hubble, Client::Sinew];

fn serve(
    runtime: &tokio::runtime::Runtime,
    folder: &Path,
    journal: Arc<Journal>,
    peers: watch::Receiver<Peers>,
) -> Result<String> {
    let identity = Identity { certificate: folder.join("node.crt"), key: folder.join("node.key") };
    let tls = ServerTls::new(identity, vec![folder.join("ca.crt")])?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).context("bind a port")?;
    let address = listener.local_addr()?.to_string();
    runtime.spawn(async move {
        let (routes, _health) = server::routes(journal, peers).await;
        listen::serve(listener, Some(tls), routes.routes(), Limits::default()).await
    });
    Ok(address)
}

/// Which flows a client shows; of a relay's answers only the flows.
fn shown(output: &Output) -> Result<Vec<String>> {
    let lines = success(output)?;
    uuids(&lines.lines().filter(|line| line.starts_with("{\"flow\"")).collect::<Vec<_>>().join("\n"))
}

#[test]
#[ignore = "cargo xtask test hubble"]
fn every_case_over_mutual_tls() -> Result<()> {
    let ground = Ground::new()?;
    wait_for_nodes(&ground)?;
    let node = tls_server_name("default", "node-a");
    for Case(arguments, expected) in CASES {
        let all: Vec<&str> = ["observe", "-o", "json"].into_iter().chain(arguments.iter().copied()).collect();
        for client in CLIENTS {
            for (server, name) in [(&ground.nodes[0], node.as_str()), (&ground.relay.address, RELAY_NAME)] {
                let seen = shown(&ground.ask(client, &all, server, name)?)
                    .with_context(|| format!("{client:?} {arguments:?} of {name}"))?;
                ensure!(seen == *expected, "{client:?} {arguments:?} of {name}: {seen:?}, not {expected:?}");
            }
        }
    }
    Ok(())
}

fn wait_for_nodes(ground: &Ground) -> Result<()> {
    wait_until("the relay reaches both nodes", SOON, || {
        let output = ground.ask(Client::Hubble, &["status"], &ground.relay.address, RELAY_NAME)?;
        Ok(text(&output.stdout).contains("Connected Nodes: 2/2"))
    })
}

#[test]
#[ignore = "cargo xtask test hubble"]
fn every_command_over_mutual_tls_through_a_relay() -> Result<()> {
    let ground = Ground::new()?;
    wait_for_nodes(&ground)?;
    let ask = |client, arguments: &[&str]| {
        success(&ground.ask(client, arguments, &ground.relay.address, RELAY_NAME)?)
    };
    let status = ask(Client::Hubble, &["status"])?;
    ensure!(status.contains("): Ok") && status.contains("Current/Max Flows: 15/8,190"), "{status}");
    // Namespaces are those of the last hour's flows.
    let mut recent = flows::all().swap_remove(0);
    recent.time = Some(SystemTime::now().into());
    ground.journals[1].record_flows([recent]);
    for client in CLIENTS {
        let nodes = ask(client, &["list", "nodes", "-o", "wide"])?;
        for (name, address) in ["default/node-a", "default/node-b"].into_iter().zip(&ground.nodes) {
            let line = nodes.lines().find(|line| line.starts_with(name)).context("a line for each node")?;
            let right = line.contains("Connected") && line.contains(address) && line.contains("Enabled");
            ensure!(right, "{client:?}: {nodes}");
        }
        let namespaces = ask(client, &["list", "namespaces"])?;
        ensure!(namespaces == "NAMESPACE\nshop\n", "{client:?}: {namespaces}");
        let mut command = ground.command(client, &["watch", "peers"], &ground.relay.address, RELAY_NAME)?;
        command.args(["--tls-client-cert-file", "client.crt", "--tls-client-key-file", "client.key"]);
        let log = ground.folder.path().join("peers.log");
        let _ = fs::remove_file(&log);
        let watching = Running::start(&mut command, &log)?;
        let expected: String = ["node-a", "node-b"]
            .into_iter()
            .zip(&ground.nodes)
            .map(|(name, address)| {
                let server_name = tls_server_name("default", name);
                format!("PEER_ADDED   {address} default/{name} (TLS.ServerName: {server_name})\n")
            })
            .collect();
        wait_until("both peers are told", SOON, || Ok(fs::read_to_string(&log)? == expected))?;
        drop(watching);
    }
    let schema = ask(Client::Hubble, &["reflect"])?;
    ensure!(schema.contains("observer/observer.proto") && schema.contains("GetFlows"), "{schema}");
    Ok(())
}

#[test]
#[ignore = "cargo xtask test hubble"]
fn who_shows_nothing_or_means_another_is_refused() -> Result<()> {
    let ground = Ground::new()?;
    let node = tls_server_name("default", "node-a");
    for client in CLIENTS {
        for (server, name) in [(&ground.nodes[0], node.as_str()), (&ground.relay.address, RELAY_NAME)] {
            let answers = success(&ground.ask(client, &["list", "nodes"], server, name)?)?;
            ensure!(answers.contains("default/node-a"), "what the others are a change of: {answers}");
            let without = ground.command(client, &["list", "nodes"], server, name)?.output()?;
            let told = text(&without.stderr).to_lowercase();
            ensure!(
                !without.status.success() && told.contains("certificate"),
                "{client:?} of {name}: {told}"
            );
            let other = ground.ask(client, &["list", "nodes"], server, "other.example")?;
            let told = text(&other.stderr);
            ensure!(
                !other.status.success() && told.contains("other.example"),
                "{client:?} of {name}: {told}"
            );
        }
    }
    // What to do is told too.
    let without = ground.command(Client::Sinew, &["list", "nodes"], &ground.nodes[0], &node)?.output()?;
    let told = text(&without.stderr);
    ensure!(told.contains("--tls-client-cert-file") && without.status.code() == Some(4), "{told}");
    let mut plain = Command::new(sinew_binary()?);
    let plain = plain.args(["list", "nodes", "--server", &ground.nodes[0]]).output()?;
    let told = text(&plain.stderr);
    ensure!(!plain.status.success() && told.contains("--tls"), "without TLS: {told}");
    Ok(())
}
