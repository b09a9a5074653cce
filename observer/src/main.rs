//! `sinew-relay`: the flows of many nodes at one address, for Hubble's clients and `sinew observe`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use clap::Parser;
use sinew_observer::peer::{PeerAddress, Peers};
use sinew_observer::relay::{Relay, RelaySettings, follow_peers};
use sinew_observer::server;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::transport::Server;

#[derive(Parser)]
#[command(name = "sinew-relay", version, about = "The flows of many nodes at one address")]
struct Arguments {
    /// Peer service that tells the nodes: host:port or unix:PATH
    #[arg(long, env = "SINEW_PEER_SERVICE", value_name = "ADDRESS", conflicts_with = "node")]
    peer_service: Option<String>,
    /// A node, as CLUSTER/NAME=ADDRESS; repeatable
    #[arg(long, value_name = "NAME=ADDRESS", value_parser = node)]
    node: Vec<(String, String)>,
    /// Socket to serve, readable by its owner only
    #[arg(long, env = "SINEW_RELAY_SOCKET", value_name = "PATH", conflicts_with = "plain_tcp")]
    socket: Option<PathBuf>,
    /// Address to serve without TLS: everybody who reaches it reads all flows
    #[arg(long, value_name = "ADDRESS:PORT")]
    plain_tcp: Option<SocketAddr>,
    /// How long a flow may wait for a slower node
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration, value_name = "TIME")]
    window: Duration,
    /// How long a node may take to answer
    #[arg(long, default_value = "3s", value_parser = humantime::parse_duration, value_name = "TIME")]
    patience: Duration,
}

/// `cluster/name=address`.
fn node(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, address)) if name.contains('/') && !address.is_empty() => {
            Ok((name.to_owned(), address.to_owned()))
        }
        _ => Err(format!("{text:?} is not CLUSTER/NAME=ADDRESS")),
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let fixed = arguments.node.into_iter().map(|(name, address)| (name, PeerAddress { address, tls: None }));
    let (sender, peers) = watch::channel(fixed.collect::<Peers>());
    let settings = RelaySettings { window: arguments.window, patience: arguments.patience };
    let relay = Relay::new(settings, env!("CARGO_PKG_VERSION"), peers.clone(), SystemTime::now());
    let (routes, _health) = server::routes(Arc::new(relay), peers.clone()).await;
    match arguments.peer_service {
        Some(address) => {
            drop(tokio::spawn(async move { follow_peers(&address, sender, settings.patience).await }))
        }
        None if peers.borrow().is_empty() => {
            bail!("no nodes: name them with --node, or who knows them with --peer-service")
        }
        // The list holds as long as the process.
        None => drop(tokio::spawn(async move { sender.closed().await })),
    }
    let server = Server::builder().add_routes(routes.routes());
    match (arguments.socket, arguments.plain_tcp) {
        (Some(path), _) => {
            let listener = bind(&path)?;
            server.serve_with_incoming(UnixListenerStream::new(listener)).await.context("serve the socket")
        }
        (None, Some(address)) => {
            let listener =
                TcpListener::bind(address).await.with_context(|| format!("listen at {address}"))?;
            server.serve_with_incoming(TcpListenerStream::new(listener)).await.context("serve")
        }
        (None, None) => {
            bail!("nowhere to serve: --socket PATH, or --plain-tcp ADDRESS:PORT for a port without TLS")
        }
    }
}

/// A socket for its owner only, in place of one that a dead process left.
fn bind(path: &std::path::Path) -> Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        bail!("{} is served already", path.display());
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove what is left of {}", path.display()));
        }
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path).with_context(|| format!("listen at {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("close {} to others", path.display()))?;
    Ok(listener)
}
