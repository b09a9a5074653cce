//! PEM files: what is in them, what is wrong with them, and the last set that was good.
//!
//! Neighbours: `server.rs` and `client.rs` say what is made of the files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// Files that can't be used. Each message begins with the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// It can't be read.
    #[error("{}: {problem}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        problem: String,
    },
    /// It holds something else.
    #[error("{}: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is missing or wrong.
        problem: String,
    },
    /// Both are good and don't belong together.
    #[error("{}: not the key of the certificate in {}", key.display(), certificate.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// This machine trusts no certificate authority, so that they have to be named.
    #[error("this machine's trusted certificate authorities can't be read: {problem}")]
    NoSystemTrust {
        /// Why.
        problem: String,
    },
}

/// An identity: a certificate, with those between it and its authority, and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// PEM file of the certificates, one's own first.
    pub certificate: PathBuf,
    /// PEM file of the private key.
    pub key: PathBuf,
}

/// Something made of files, made again when they change.
pub(super) struct Reloading<T> {
    files: Vec<PathBuf>,
    make: Make<T>,
    held: Mutex<Held<T>>,
}

type Make<T> = Box<dyn Fn(&Contents) -> Result<T, TlsError> + Send + Sync>;

struct Held<T> {
    of: Contents,
    value: Arc<T>,
    /// What was logged last, so that it is logged once.
    complaint: Option<TlsError>,
}

impl<T> Reloading<T> {
    /// Reads the files for the first time.
    pub(super) fn new(
        files: Vec<PathBuf>,
        make: impl Fn(&Contents) -> Result<T, TlsError> + Send + Sync + 'static,
    ) -> Result<Self, TlsError> {
        let of = Contents::read(&files)?;
        let value = Arc::new(make(&of)?);
        let held = Mutex::new(Held { of, value, complaint: None });
        Ok(Self { files, make: Box::new(make), held })
    }

    /// What the files say now, or said when they were last good.
    pub(super) fn current(&self) -> Arc<T> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let read = Contents::read(&self.files);
        if read.as_ref().is_ok_and(|read| *read == held.of) {
            held.complaint = None;
            return Arc::clone(&held.value);
        }
        match read.and_then(|read| Ok(((self.make)(&read)?, read))) {
            Ok((value, of)) => {
                tracing::info!(file = %self.shown(), "TLS files changed; new connections use them");
                *held = Held { of, value: Arc::new(value), complaint: None };
            }
            Err(error) if held.complaint.as_ref() != Some(&error) => {
                tracing::warn!(%error, "TLS files changed and can't be used; the last good ones stay");
                held.complaint = Some(error);
            }
            Err(_) => {}
        }
        Arc::clone(&held.value)
    }

    fn shown(&self) -> String {
        self.files.first().map(|file| file.display().to_string()).unwrap_or_default()
    }
}

/// What files held at one moment.
#[derive(PartialEq, Eq)]
pub(super) struct Contents(Vec<(PathBuf, Vec<u8>)>);

impl Contents {
    fn read(files: &[PathBuf]) -> Result<Self, TlsError> {
        let one = |path: &PathBuf| match fs::read(path) {
            Ok(bytes) => Ok((path.clone(), bytes)),
            Err(error) => Err(TlsError::Unreadable { path: path.clone(), problem: error.to_string() }),
        };
        files.iter().map(one).collect::<Result<_, _>>().map(Self)
    }

    fn of(&self, path: &Path) -> &[u8] {
        self.0.iter().find(|(known, _)| known == path).map_or(&[], |(_, bytes)| bytes)
    }

    fn certificates(&self, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(self.of(path)).collect();
        match found {
            Ok(found) if !found.is_empty() => Ok(found),
            Ok(_) => Err(malformed(path, "no certificate in PEM form is in it")),
            Err(error) => Err(malformed(path, format!("not PEM: {error}"))),
        }
    }

    /// Authorities out of files, each of which must hold one.
    pub(super) fn authorities(&self, files: &[PathBuf]) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for path in files {
            for certificate in self.certificates(path)? {
                let added = roots.add(certificate);
                added.map_err(|error| malformed(path, format!("not a certificate authority: {error}")))?;
            }
        }
        Ok(roots)
    }

    /// A certificate with the key that belongs to it.
    pub(super) fn certified_key(&self, identity: &Identity) -> Result<CertifiedKey, TlsError> {
        let Identity { certificate, key } = identity;
        let chain = self.certificates(certificate)?;
        let private = PrivateKeyDer::from_pem_slice(self.of(key))
            .map_err(|error| malformed(key, format!("no private key in PEM form is in it: {error}")))?;
        let private = super::provider()
            .key_provider
            .load_private_key(private)
            .map_err(|error| malformed(key, format!("not a private key: {error}")))?;
        let pair = CertifiedKey::new(chain, private);
        match pair.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(pair),
            Err(rustls::Error::InconsistentKeys(_)) => {
                Err(TlsError::Pair { certificate: certificate.clone(), key: key.clone() })
            }
            Err(error) => Err(malformed(certificate, format!("not a certificate: {error}"))),
        }
    }
}

impl Identity {
    pub(super) fn files(&self) -> [PathBuf; 2] {
        [self.certificate.clone(), self.key.clone()]
    }
}

fn malformed(path: &Path, problem: impl Into<String>) -> TlsError {
    TlsError::Malformed { path: path.to_owned(), problem: problem.into() }
}
