//! The server side: presents its certificate and, with authorities for clients, accepts only clients with one of theirs.
//!
//! Neighbour: [`crate::listen`] accepts with it, and bounds how long and how many.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::SingleCertAndKey;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::files::{Contents, Identity, Reloading, TlsError};

/// TLS of a port.
pub struct ServerTls {
    config: Reloading<ServerConfig>,
}

impl ServerTls {
    /// TLS with an identity. Clients have to show a certificate of one of the authorities in `client_ca`; with none,
    /// everybody may connect.
    ///
    /// # Errors
    /// A file is missing or holds something else.
    pub fn new(identity: Identity, client_ca: Vec<PathBuf>) -> Result<Self, TlsError> {
        let files = identity.files().into_iter().chain(client_ca.iter().cloned()).collect();
        let config = Reloading::new(files, move |contents| config(contents, &identity, &client_ca))?;
        Ok(Self { config })
    }

    /// Shakes hands on a connection, with the files as they are now.
    ///
    /// # Errors
    /// The other side speaks no TLS, shows no certificate that holds, or leaves. The connection comes back: closed at
    /// once it would take the alert with it that tells the other side why.
    pub async fn accept<IO: AsyncRead + AsyncWrite + Unpin>(
        &self,
        connection: IO,
    ) -> Result<TlsStream<IO>, (io::Error, IO)> {
        TlsAcceptor::from(self.config.current()).accept(connection).into_fallible().await
    }
}

fn config(contents: &Contents, identity: &Identity, client_ca: &[PathBuf]) -> Result<ServerConfig, TlsError> {
    let provider = super::provider();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("ring has suites of TLS 1.2 and 1.3");
    let builder = if client_ca.is_empty() {
        builder.with_no_client_auth()
    } else {
        let roots = Arc::new(contents.authorities(client_ca)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
            .build()
            .expect("there is an authority, and no list of revoked certificates");
        builder.with_client_cert_verifier(verifier)
    };
    let pair = contents.certified_key(identity)?;
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    config.alpn_protocols = vec![super::ALPN_H2.to_vec()];
    // A session that was begun with an authority or a certificate that is gone must not be taken up again.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(config)
}
