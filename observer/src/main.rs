//! `sinew-relay`: the flows of many nodes at one address, for Hubble's clients and `sinew observe`.

use std::io::{ErrorKind, IsTerminal};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use clap::Parser;
use sinew_observer::command::{Arguments, Command};
use sinew_observer::listen::{self, Limits};
use sinew_observer::metrics::http;
use sinew_observer::peer::Peers;
use sinew_observer::relay::{Relay, follow_peers};
use sinew_observer::server;
use sinew_observer::tls::ServerTls;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::server::HealthReporter;
use tracing_subscriber::EnvFilter;

/// Time between two looks whether any node answers, which is what health says.
const LOOK: Duration = Duration::from_secs(5);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    // SINEW_LOG takes the usual directives, such as `info,sinew_observer::listen=debug`.
    let filter = EnvFilter::try_from_env("SINEW_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match relay(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn relay(arguments: Arguments) -> Result<()> {
    let command = Command::try_from(arguments)?;
    let (sender, peers) = watch::channel(command.nodes);
    let version = env!("CARGO_PKG_VERSION");
    let relay =
        Arc::new(Relay::new(command.settings, version, peers.clone(), command.node_tls, SystemTime::now()));
    let (routes, health) = server::routes(Arc::clone(&relay) as _, peers.clone()).await;
    server::set_serving(&health, false).await;
    let metrics = async {
        match command.metrics {
            Some(address) => serve_metrics(address, Arc::clone(&relay)).await,
            None => std::future::pending().await,
        }
    };
    tokio::spawn(tell_health(Arc::clone(&relay), peers, health));
    match command.peer_service {
        Some(way) => {
            let patience = command.settings.patience;
            drop(tokio::spawn(async move { follow_peers(&way, sender, patience).await }));
        }
        // The list holds as long as the process.
        None => drop(tokio::spawn(async move { sender.closed().await })),
    }
    let routes = routes.routes();
    let socket = async {
        match &command.socket {
            Some(path) => serve_socket(path, routes.clone()).await,
            None => std::future::pending().await,
        }
    };
    let port = async {
        match command.port {
            Some((address, tls)) => serve_port(address, tls, routes.clone()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        outcome = socket => outcome,
        outcome = port => outcome,
        outcome = metrics => outcome,
    }
}

async fn serve_metrics(address: std::net::SocketAddr, relay: Arc<Relay>) -> Result<()> {
    let listener = http::bind(address).await.with_context(|| format!("listen at {address} for metrics"))?;
    match http::serve(listener, relay).await {}
}

async fn serve_socket(path: &Path, routes: Routes) -> Result<()> {
    let incoming = UnixListenerStream::new(bind(path)?);
    tracing::info!(path = %path.display(), "flows are served");
    Server::builder().add_routes(routes).serve_with_incoming(incoming).await.context("serve the socket")
}

async fn serve_port(address: std::net::SocketAddr, tls: Option<ServerTls>, routes: Routes) -> Result<()> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("listen at {address}"))?;
    let address = listener.local_addr().context("ask for the port's address")?;
    tracing::info!(%address, tls = tls.is_some(), "flows are served");
    listen::serve(listener, tls, routes, Limits::default()).await.context("serve the port")
}

/// The relay is healthy while any node answers. It looks from time to time, and when it hears of other nodes.
async fn tell_health(relay: Arc<Relay>, mut peers: watch::Receiver<Peers>, health: HealthReporter) {
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            _ = look.tick() => {}
            Ok(()) = peers.changed() => {}
        }
        server::set_serving(&health, relay.reaches_a_node().await).await;
    }
}

/// A socket for its owner only, replacing one that a dead process left.
fn bind(path: &Path) -> Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        bail!("{} is served already", path.display());
    }
    // Made under another name and moved into place when its mode is right: it is never there for others.
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let made = Path::new(&name);
    match std::fs::remove_file(made) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove what is left of {}", made.display()));
        }
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(made).with_context(|| format!("listen at {}", made.display()))?;
    std::fs::set_permissions(made, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("close {} to others", made.display()))?;
    std::fs::rename(made, path).with_context(|| format!("listen at {}", path.display()))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_its_owners_alone_and_replaces_a_dead_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("relay.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket that nobody serves any more"));
        std::fs::write(folder.path().join("relay.sock.new"), "").expect("what a killed relay left");
        let listener = bind(&path).expect("a socket");
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!folder.path().join("relay.sock.new").exists());
        assert!(bind(&path).is_err_and(|error| error.to_string().contains("is served already")));
        drop(listener);
    }
}
