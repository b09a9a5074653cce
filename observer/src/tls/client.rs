//! The client side: which authorities it trusts, and which certificate it presents.
//!
//! Neighbour: [`crate::dial`] connects with it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::files::{Contents, Identity, Reloading, TlsError};

/// Which certificates are trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Those of the authorities in these PEM files.
    Files(Vec<PathBuf>),
    /// Those of the authorities that this machine trusts.
    System,
    /// Any: whoever is in between can read everything. Only if explicitly asked for.
    Anything,
}

/// TLS of a client.
pub struct ClientTls {
    config: Reloading<ClientConfig>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientTls")
    }
}

impl ClientTls {
    /// TLS that believes `trust` and shows `identity`.
    ///
    /// # Errors
    /// A file is missing or holds something else.
    pub fn new(identity: Option<Identity>, trust: Trust) -> Result<Self, TlsError> {
        let own = identity.iter().flat_map(Identity::files);
        let files = match &trust {
            Trust::Files(authorities) => own.chain(authorities.iter().cloned()).collect(),
            Trust::System | Trust::Anything => own.collect(),
        };
        let config = Reloading::new(files, move |contents| config(contents, identity.as_ref(), &trust))?;
        Ok(Self { config })
    }

    /// Shakes hands with the server of that name, with the files as they are now.
    ///
    /// # Errors
    /// The other side is not who it should be, refuses, speaks no TLS, or leaves.
    pub async fn connect<IO: AsyncRead + AsyncWrite + Unpin>(
        &self,
        name: ServerName<'static>,
        connection: IO,
    ) -> io::Result<TlsStream<IO>> {
        TlsConnector::from(self.config.current()).connect(name, connection).await
    }
}

fn config(contents: &Contents, identity: Option<&Identity>, trust: &Trust) -> Result<ClientConfig, TlsError> {
    let provider = super::provider();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("ring has suites of TLS 1.2 and 1.3");
    let builder = match trust {
        Trust::Files(files) => builder.with_root_certificates(contents.authorities(files)?),
        Trust::System => builder.with_root_certificates(system_authorities()?),
        Trust::Anything => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer { provider }))
        }
    };
    let mut config = match identity {
        Some(identity) => {
            let pair = Arc::new(contents.certified_key(identity)?);
            builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(pair)))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![super::ALPN_H2.to_vec()];
    Ok(config)
}

fn system_authorities() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (good, _odd) = roots.add_parsable_certificates(found.certs);
    if good == 0 {
        let problem = found.errors.first().map_or_else(|| "there are none".to_owned(), ToString::to_string);
        return Err(TlsError::NoSystemTrust { problem });
    }
    Ok(roots)
}

/// Accepts any certificate whose key the server has.
#[derive(Debug)]
struct AnyServer {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
