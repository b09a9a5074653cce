//! Certificates of every kind, and what is said of files that hold something else. Handshakes are tried in
//! `crate::listen`.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

use super::*;

/// A certificate authority that tests make.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Writes its certificate to a file.
    pub(crate) fn write(&self, path: &Path) -> PathBuf {
        fs::write(path, &self.pem).expect("written");
        path.to_owned()
    }

    /// Writes a certificate for that name and its key to files that begin with `stem`.
    pub(crate) fn issue(&self, stem: &Path, name: &str) -> Identity {
        self.issue_with(stem, name, |_| {})
    }

    /// One that ended in 2001.
    pub(crate) fn issue_expired(&self, stem: &Path, name: &str) -> Identity {
        self.issue_with(stem, name, |params| {
            params.not_before = date_time_ymd(2000, 1, 1);
            params.not_after = date_time_ymd(2001, 1, 1);
        })
    }

    fn issue_with(&self, stem: &Path, name: &str, change: impl Fn(&mut CertificateParams)) -> Identity {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let identity = Identity { certificate: stem.with_extension("crt"), key: stem.with_extension("key") };
        fs::write(&identity.certificate, certificate.pem()).expect("written");
        fs::write(&identity.key, key.serialize_pem()).expect("written");
        identity
    }
}

struct Ground {
    folder: tempfile::TempDir,
    identity: Identity,
    authority: PathBuf,
}

impl Ground {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let issuer = Authority::new("ours");
        let identity = issuer.issue(&folder.path().join("node"), "node.example");
        let authority = issuer.write(&folder.path().join("ca.crt"));
        Self { folder, identity, authority }
    }

    fn server(&self) -> Result<ServerTls, TlsError> {
        ServerTls::new(self.identity.clone(), vec![self.authority.clone()])
    }

    fn refusal(&self) -> String {
        let text = self.server().err().expect("refused").to_string();
        text.replace(&format!("{}/", self.folder.path().display()), "")
    }
}

#[test]
fn each_file_that_cannot_be_used_is_named_with_its_reason() {
    let ground = Ground::new();
    assert!(ground.server().is_ok(), "what the others are a change of");
    let key = fs::read(&ground.identity.key).expect("a key");
    let certificate = fs::read(&ground.identity.certificate).expect("a certificate");
    let garbage = "-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n";

    fs::write(&ground.identity.key, "").expect("written");
    assert!(
        ground.refusal().starts_with("node.key: no private key in PEM form is in it"),
        "{}",
        ground.refusal()
    );
    let other = KeyPair::generate().expect("a key").serialize_pem();
    fs::write(&ground.identity.key, other).expect("written");
    let refusal = ground.refusal();
    assert!(
        refusal.starts_with("node.key: not the key of the certificate in ") && refusal.ends_with("node.crt")
    );
    fs::write(&ground.identity.key, &key).expect("written");

    fs::write(&ground.identity.certificate, &key).expect("written");
    assert_eq!(ground.refusal(), "node.crt: no certificate in PEM form is in it");
    fs::write(&ground.identity.certificate, garbage).expect("written");
    assert!(ground.refusal().starts_with("node.crt: not a certificate: "), "{}", ground.refusal());
    fs::write(&ground.identity.certificate, certificate).expect("written");

    fs::write(&ground.authority, garbage).expect("written");
    assert!(ground.refusal().starts_with("ca.crt: not a certificate authority: "), "{}", ground.refusal());
    fs::remove_file(&ground.authority).expect("removed");
    assert_eq!(ground.refusal(), "ca.crt: No such file or directory (os error 2)");
}

#[test]
fn a_client_names_its_files_too() {
    let ground = Ground::new();
    let good = Trust::Files(vec![ground.authority.clone()]);
    assert!(ClientTls::new(Some(ground.identity.clone()), good.clone()).is_ok());
    let missing = ground.folder.path().join("missing.crt");
    let error = ClientTls::new(None, Trust::Files(vec![missing.clone()])).expect_err("refused");
    assert!(error.to_string().starts_with(&missing.display().to_string()), "{error}");
    let swapped =
        Identity { certificate: ground.identity.key.clone(), key: ground.identity.certificate.clone() };
    let error = ClientTls::new(Some(swapped), good).expect_err("refused");
    assert!(error.to_string().contains("node.key: no certificate"), "{error}");
}
