//! The Observer's TCP port, with mutual TLS: Observer, Peer, health and reflection, and nothing of the agent's own.
//!
//! It runs on a thread of its own, so that what strangers send takes nothing from flows and from the agent's socket.
//! Files that are missing or a port that is taken keep no pod waiting: they are told in the log, and tried again until
//! they are there. Neighbours: `crate::config::observer` has the arguments, `sinew_observer::listen` the limits.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sinew_observer::listen::{self, Limits};
use sinew_observer::peer::Peers;
use sinew_observer::tls::{ServerTls, TlsError};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::ObserverPort;
use crate::flow::Journal;

/// Pause between two tries to serve.
const PAUSE: Duration = Duration::from_secs(2);

/// What keeps the port from being served.
#[derive(Debug, thiserror::Error)]
enum PortError {
    #[error(transparent)]
    Files(#[from] TlsError),
    #[error("listening at {address}: {error}")]
    Listen { address: SocketAddr, error: io::Error },
    #[error("serving {address}: {error}")]
    Serve { address: SocketAddr, error: tonic::transport::Error },
}

/// Starts the thread, which lives as long as the process.
///
/// # Errors
/// There can be no thread.
pub fn start(port: ObserverPort, journal: Arc<Journal>, peers: watch::Receiver<Peers>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = std::thread::Builder::new().name("observer-port".into());
    thread.spawn(move || runtime.block_on(keep_serving(&port, &journal, &peers)))?;
    Ok(())
}

async fn keep_serving(port: &ObserverPort, journal: &Arc<Journal>, peers: &watch::Receiver<Peers>) {
    let mut told = String::new();
    loop {
        if let Err(error) = serve(port, journal, peers).await {
            let problem = error.to_string();
            if problem != told {
                tracing::error!(problem, "flows are not served at {}; trying on", port.address);
                told = problem;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn serve(
    port: &ObserverPort,
    journal: &Arc<Journal>,
    peers: &watch::Receiver<Peers>,
) -> Result<(), PortError> {
    let address = port.address;
    let files = port.tls.clone();
    let tls = files.map(|files| ServerTls::new(files.identity, files.client_ca)).transpose()?;
    let listener = bind(address).await.map_err(|error| PortError::Listen { address, error })?;
    tracing::info!(%address, tls = tls.is_some(), "flows are served");
    let (routes, _health) = sinew_observer::server::routes(journal.clone(), peers.clone()).await;
    listen::serve(listener, tls, routes.routes(), Limits::default())
        .await
        .map_err(|error| PortError::Serve { address, error })
}

/// Where the kernel has no IPv6, all addresses are all of IPv4.
async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error)
            if address.ip().is_unspecified()
                && error.raw_os_error() == Some(nix::errno::Errno::EAFNOSUPPORT as i32) =>
        {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        outcome => outcome,
    }
}
