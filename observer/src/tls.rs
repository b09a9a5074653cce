//! TLS for the Observer's TCP ports and their clients, from PEM files that may change at any time.
//!
//! Files are read again at each handshake, so that a renewed certificate is used for the next connection and open ones stay;
//! while the files don't match each other, as in the middle of a renewal, the last good set stays in use.
//! `files.rs` reads and keeps them, `server.rs` and `client.rs` make rustls' configurations. Neighbours:
//! [`crate::listen`] accepts with a [`ServerTls`], [`crate::dial`] connects with a [`ClientTls`].

mod client;
mod files;
mod server;

use std::sync::Arc;

pub use client::{ClientTls, Trust};
pub use files::{Identity, TlsError};
pub use server::ServerTls;

/// gRPC is HTTP/2, and Go's client insists on hearing so (RFC 9113 section 3.2).
const ALPN_H2: &[u8] = b"h2";

/// The cryptography in use, whatever the process may have set as its default.
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

#[cfg(test)]
pub(crate) mod tests;
