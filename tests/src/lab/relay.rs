//! `sinew-relay` as a process, and certificates for it and for nodes, made by the lines of `docs/observability.md`.
//!
//! Neighbours: `tests/hubble` serves nodes of its own behind it, `tests/lab_relay.rs` real agents.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::process::{self, Running, wait_until};

/// Name on the relay's certificate.
pub const RELAY_NAME: &str = "relay.hubble-relay.cilium.io";

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/observability.md");

/// Runs the document's lines: an authority, and certificates `node`, `relay` and `client` with their keys.
///
/// # Errors
/// The document has no such lines, or they fail.
pub fn make_certificates(folder: &Path, cluster: &str) -> Result<()> {
    let document = fs::read_to_string(DOCUMENT).context("reading the document")?;
    let blocks = document.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let lines: Vec<&str> = blocks.filter(|block| block.contains("openssl req")).collect();
    ensure!(lines.len() == 1, "the document has one block that makes certificates, not {}", lines.len());
    ensure!(lines[0].contains("*.default.hubble-grpc.cilium.io"), "it is for the cluster default");
    let lines = lines[0].replace("*.default.", &format!("*.{cluster}."));
    process::run(Command::new("sh").args(["-e", "-c", &lines]).current_dir(folder)).map(drop)
}

/// A relay that runs until this value is dropped.
#[derive(Debug)]
pub struct Relay {
    /// Where it serves.
    pub address: String,
    log: PathBuf,
    _process: Running,
}

impl Relay {
    /// Starts a relay with the certificates of a folder, which asks that Peer service, and waits until it serves.
    /// `command` runs the program where it is to run.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start(
        mut command: Command,
        certificates: &Path,
        peer_service: &str,
        peer_name: &str,
    ) -> Result<Self> {
        command.args(["--listen-address", "127.0.0.1:0", "--peer-service", peer_service]);
        command.args(["--peer-server-name", peer_name]);
        for (flag, file) in [
            ("--tls-hubble-server-ca-files", "ca.crt"),
            ("--tls-hubble-client-cert-file", "relay.crt"),
            ("--tls-hubble-client-key-file", "relay.key"),
            ("--tls-relay-server-cert-file", "relay.crt"),
            ("--tls-relay-server-key-file", "relay.key"),
            ("--tls-relay-client-ca-files", "ca.crt"),
        ] {
            command.arg(flag).arg(certificates.join(file));
        }
        let log = certificates.join("relay.log");
        let process = Running::start(&mut command, &log)?;
        let mut address = None;
        wait_until("the relay serves", Duration::from_secs(20), || {
            address = served_at(&fs::read_to_string(&log).context("reading the relay's log")?);
            Ok(address.is_some())
        })
        .with_context(|| process::tail(&log, 10))?;
        Ok(Self { address: address.context("the relay's address")?, log, _process: process })
    }

    /// What it has said.
    ///
    /// # Errors
    /// Its log can't be read.
    pub fn said(&self) -> Result<String> {
        fs::read_to_string(&self.log).context("reading the relay's log")
    }
}

/// The address in `… flows are served address=127.0.0.1:40123 …`, of a line that is whole.
fn served_at(log: &str) -> Option<String> {
    let (_, rest) = log.split_once("flows are served address=")?;
    let (line, _) = rest.split_once('\n')?;
    line.split_whitespace().next().map(str::to_owned)
}
