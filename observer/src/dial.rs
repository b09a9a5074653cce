//! How a server is reached: a socket of this machine, a port, or a port with TLS.
//!
//! Users: the relay's nodes ([`crate::relay`]) and the `sinew` command. A failure says what the kernel, TLS or HTTP/2
//! said, which tonic hides behind "transport error".

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tower::service_fn;

use crate::tls::ClientTls;

/// Where a server is, and how to connect to it.
#[derive(Clone, Debug)]
pub enum Way {
    /// A socket of this machine: its path.
    Socket(String),
    /// `host:port`, in the clear.
    Plain(String),
    /// `host:port` with TLS.
    Tls {
        /// `host:port`.
        address: String,
        /// The name that its certificate must have; without one, the host.
        name: Option<String>,
        /// Which authorities to trust and which certificate to present.
        tls: Arc<ClientTls>,
    },
}

/// An invalid address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {what}")]
pub struct AddressError {
    /// The text given.
    pub text: String,
    /// What was expected.
    pub what: &'static str,
}

/// How long connecting may take, and how long silence may last before the other side is pinged.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For connecting, TLS included.
    pub connect: Duration,
    /// Between two pings, and for the answer to one; `None` never asks.
    pub ping: Option<(Duration, Duration)>,
}

/// How many bytes of answers the other side may send ahead of who reads them.
#[derive(Clone, Copy, Debug)]
pub struct Windows {
    /// Of one answer.
    pub stream: u32,
    /// Of all answers on one connection.
    pub connection: u32,
}

impl Way {
    /// A channel that connects when it is used, and again after it broke.
    ///
    /// # Errors
    /// The address or the name is none.
    pub fn channel(&self, patience: Patience, windows: Windows) -> Result<Channel, AddressError> {
        let endpoint = self
            .endpoint(patience)?
            .initial_stream_window_size(windows.stream)
            .initial_connection_window_size(windows.connection);
        Ok(match self.connector()? {
            Some((name, address, tls)) => endpoint.connect_with_connector_lazy(connector(name, address, tls)),
            None => endpoint.connect_lazy(),
        })
    }

    /// A channel that is connected.
    ///
    /// # Errors
    /// What stands in the way, in a sentence.
    pub async fn connect(&self, patience: Patience) -> Result<Channel, String> {
        let endpoint = self.endpoint(patience).map_err(|error| error.to_string())?;
        if let Self::Socket(path) = self {
            // tonic does not say why it failed; a plain connection, tried first, does.
            std::os::unix::net::UnixStream::connect(path).map_err(|error| error.to_string())?;
        }
        let connected = match self.connector().map_err(|error| error.to_string())? {
            Some((name, address, tls)) => {
                endpoint.connect_with_connector(connector(name, address, tls)).await
            }
            None => endpoint.connect().await,
        };
        connected.map_err(|error| root_cause(&error))
    }

    fn endpoint(&self, patience: Patience) -> Result<Endpoint, AddressError> {
        let (uri, text) = match self {
            Self::Socket(path) => (format!("unix:{path}"), path),
            Self::Plain(address) => (format!("http://{address}"), address),
            Self::Tls { address, .. } => (format!("https://{address}"), address),
        };
        let endpoint = Endpoint::from_shared(uri)
            .map_err(|_| AddressError { text: text.clone(), what: "address" })?
            .connect_timeout(patience.connect);
        Ok(match patience.ping {
            Some((interval, answer)) => endpoint
                .http2_keep_alive_interval(interval)
                .keep_alive_timeout(answer)
                .keep_alive_while_idle(true),
            None => endpoint,
        })
    }

    fn connector(&self) -> Result<Option<(ServerName<'static>, String, Arc<ClientTls>)>, AddressError> {
        let Self::Tls { address, name, tls } = self else { return Ok(None) };
        let name = name.clone().unwrap_or_else(|| host(address).to_owned());
        let checked = ServerName::try_from(name.clone())
            .map_err(|_| AddressError { text: name, what: "name of a server" })?;
        Ok(Some((checked, address.clone(), Arc::clone(tls))))
    }
}

/// The host of `host:port`, without the brackets of an IPv6 address.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

type Connecting = std::pin::Pin<Box<dyn Future<Output = io::Result<Tunnel>> + Send>>;
type Tunnel = TokioIo<tokio_rustls::client::TlsStream<TcpStream>>;

fn connector(
    name: ServerName<'static>,
    address: String,
    tls: Arc<ClientTls>,
) -> impl tower::Service<tonic::codegen::http::Uri, Response = Tunnel, Error = io::Error, Future = Connecting> + Send
{
    service_fn(move |_| {
        let (name, address, tls) = (name.clone(), address.clone(), Arc::clone(&tls));
        let connecting: Connecting = Box::pin(async move {
            let connection = TcpStream::connect(&address).await?;
            connection.set_nodelay(true)?;
            tls.connect(name, connection).await.map(TokioIo::new)
        });
        connecting
    })
}

/// The innermost error: what the kernel, TLS or HTTP/2 said.
#[must_use]
pub fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// What a status says, and why a connection broke if it is about that.
#[must_use]
pub fn reason(status: &Status) -> String {
    match (status.code(), status.source()) {
        (Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled, Some(source)) => {
            root_cause(source)
        }
        _ => status.message().to_owned(),
    }
}

/// Whether a status is about a connection that broke, as when the other side died.
#[must_use]
pub fn is_broken(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<io::Error>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_an_address() {
        assert_eq!(host("node.example:4244"), "node.example");
        assert_eq!(host("192.0.2.1:4244"), "192.0.2.1");
        assert_eq!(host("[2001:db8::1]:4244"), "2001:db8::1");
    }
}
