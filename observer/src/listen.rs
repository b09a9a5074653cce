//! A TCP port that anybody can reach, where a client that misbehaves harms only itself.
//!
//! Connections are counted by client address, from the first packet on; the handshake and the first bytes of HTTP/2 have a
//! deadline; a connection that stops answering pings is closed; requests on one connection are limited. A connection
//! beyond a limit is closed at once. Neighbours: [`crate::tls`] has the handshake, [`crate::server`] what is served.

mod connection;
pub(crate) mod slots;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::transport::Server;

use crate::tls::ServerTls;
use connection::Connection;
use slots::Slots;

/// Connections at a time.
const CONNECTIONS: usize = 1024;
/// Of those, connections of one address.
const CONNECTIONS_EACH: usize = 64;
/// Requests at a time on one connection.
const REQUESTS_EACH: u32 = 128;

/// Limits of a port.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once, including those in their handshake.
    pub connections: usize,
    /// Of these from one address; from one /64 for IPv6.
    pub connections_per_address: usize,
    /// Requests at once on one connection. A relay puts all its clients' requests on one.
    pub requests_per_connection: u32,
    /// How long a client may take for its handshake, and again for its first bytes of HTTP/2.
    pub handshake: Duration,
    /// Silence after which a client is pinged, and how long it may take to answer.
    pub silence: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: CONNECTIONS,
            connections_per_address: CONNECTIONS_EACH,
            requests_per_connection: REQUESTS_EACH,
            handshake: Duration::from_secs(5),
            silence: Duration::from_secs(20),
        }
    }
}

/// Pause after a connection could not be accepted, as when this process has too many files open.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a refused client may take to read why.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes of it that are read and thrown away in this time.
const MOST_UNREAD: usize = 64 << 10;
/// Bytes of one request's headers.
const LARGEST_HEADERS: u32 = 16 << 10;

/// Serves `routes` at a port until the task is dropped; without `tls`, in the clear.
///
/// # Errors
/// HTTP/2 can't be served, which no client can bring about.
pub async fn serve(
    listener: TcpListener,
    tls: Option<ServerTls>,
    routes: Routes,
    limits: Limits,
) -> Result<(), tonic::transport::Error> {
    let (sender, ready) = mpsc::channel(1);
    let mut tasks = JoinSet::new();
    tasks.spawn(accept(listener, tls.map(Arc::new), limits, sender));
    Server::builder()
        .max_concurrent_streams(limits.requests_per_connection)
        .http2_max_header_list_size(LARGEST_HEADERS)
        .http2_keepalive_interval(Some(limits.silence))
        .http2_keepalive_timeout(Some(limits.silence))
        .add_routes(routes)
        .serve_with_incoming(ReceiverStream::new(ready))
        .await
}

/// Accepts connections and hands over those that have completed their handshake. Ends with the receiver.
async fn accept(
    listener: TcpListener,
    tls: Option<Arc<ServerTls>>,
    limits: Limits,
    ready: mpsc::Sender<std::io::Result<Connection>>,
) {
    let slots = Slots::new(limits.connections, limits.connections_per_address);
    let mut handshakes = JoinSet::new();
    loop {
        let (connection, address) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection can't be taken");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
            Some(_done) = handshakes.join_next() => continue,
            () = ready.closed() => return,
        };
        let Some(slot) = slots.take(Some(address.ip())) else {
            tracing::debug!(%address, "too many connections: closed");
            continue;
        };
        let (tls, ready) = (tls.clone(), ready.clone());
        handshakes.spawn(async move {
            match shake_hands(connection, tls.as_deref(), limits.handshake).await {
                Ok(stream) => {
                    let connection = Connection::new(stream, address.ip(), slot, limits.handshake);
                    // The server has ended if nobody takes it.
                    let _ended = ready.send(Ok(connection)).await;
                }
                Err(error) => refused(address, &error),
            }
        });
    }
}

async fn shake_hands(
    connection: TcpStream,
    tls: Option<&ServerTls>,
    limit: Duration,
) -> std::io::Result<connection::Stream> {
    connection.set_nodelay(true)?;
    match tls {
        None => Ok(connection::Stream::Plain(connection)),
        Some(tls) => match tokio::time::timeout(limit, tls.accept(connection)).await? {
            Ok(stream) => Ok(connection::Stream::Tls(Box::new(stream))),
            Err((error, connection)) => {
                // Whether it heard or not, the connection ends.
                let _ended = tokio::time::timeout(LINGER, linger(connection)).await;
                Err(error)
            }
        },
    }
}

/// Lets the other side read the alert before the connection is closed. If data that it has sent were still unread, closing
/// would send a reset, which discards the alert on its way (RFC 1122 section 4.2.2.13).
async fn linger(mut connection: TcpStream) -> std::io::Result<()> {
    connection.shutdown().await?;
    let mut unread = [0; 4096];
    let mut left = MOST_UNREAD;
    while left > 0 {
        match connection.read(&mut unread).await? {
            0 => break,
            read => left = left.saturating_sub(read),
        }
    }
    Ok(())
}

fn refused(address: SocketAddr, error: &std::io::Error) {
    tracing::info!(%address, %error, "a client is refused");
}

#[cfg(test)]
mod tests;
