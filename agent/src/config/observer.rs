//! Where the Observer is served beside the agent's socket, in the words of Cilium's agent.
//!
//! Neighbours: `super` checks it with everything else, `crate::server::port` serves it.

use std::net::SocketAddr;
use std::path::PathBuf;

use sinew_observer::journal::{DEFAULT_BYTES, DEFAULT_FLOWS};
use sinew_observer::ring::Capacity;
use sinew_observer::tls::Identity;

use super::{ConfigError, wrong};

/// Port of a node's Observer, on every node of a cluster the same.
const LISTEN: &str = "--hubble-listen-address";

/// Most flows in the ring: a request without a filter that matches walks all of them.
const MOST_FLOWS: usize = 1 << 20;
/// Least memory of the ring: some flows.
const LEAST_BYTES: usize = 64 << 10;

/// Arguments of the Observer.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Observer")]
pub struct ObserverArguments {
    /// Whether the kernel reports events and their flows are kept and served; without them the node only counts.
    #[arg(long, env = "SINEW_ENABLE_HUBBLE", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub enable_hubble: bool,
    /// Flows that the node keeps for whoever asks.
    #[arg(long, env = "SINEW_HUBBLE_EVENT_BUFFER_CAPACITY", value_name = "FLOWS", default_value_t = DEFAULT_FLOWS)]
    pub hubble_event_buffer_capacity: usize,
    /// Memory that they may take; whichever limit is reached first holds. A flow takes from 0.2 to 2 KiB.
    #[arg(long, env = "SINEW_HUBBLE_EVENT_BUFFER_BYTES", value_name = "BYTES", default_value_t = DEFAULT_BYTES)]
    pub hubble_event_buffer_bytes: usize,
    /// Address to serve flows at for relays and clients, such as :4244; without it only the agent's socket has them.
    #[arg(long, env = "SINEW_HUBBLE_LISTEN_ADDRESS", value_name = "[ADDRESS]:PORT", value_parser = parse_listen)]
    pub hubble_listen_address: Option<SocketAddr>,
    /// Certificate of this node and those up to its authority, PEM; read again when it changes.
    #[arg(long, env = "SINEW_HUBBLE_TLS_CERT_FILE", value_name = "FILE")]
    pub hubble_tls_cert_file: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, env = "SINEW_HUBBLE_TLS_KEY_FILE", value_name = "FILE")]
    pub hubble_tls_key_file: Option<PathBuf>,
    /// Authorities of clients, PEM: who shows no certificate of one of them is refused.
    #[arg(long, env = "SINEW_HUBBLE_TLS_CLIENT_CA_FILES", value_name = "FILE", value_delimiter = ',')]
    pub hubble_tls_client_ca_files: Vec<PathBuf>,
    /// Serve the address without TLS: everybody who reaches it reads all flows.
    #[arg(long, env = "SINEW_HUBBLE_DISABLE_TLS")]
    pub hubble_disable_tls: bool,
}

/// A port, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObserverPort {
    /// Where it listens.
    pub address: SocketAddr,
    /// Files of its TLS; `None` where plain TCP was asked for in words.
    pub tls: Option<PortFiles>,
}

/// Files of mutual TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortFiles {
    /// Who this node is.
    pub identity: Identity,
    /// Whose clients are let in; not empty.
    pub client_ca: Vec<PathBuf>,
}

impl ObserverArguments {
    /// What the ring of flows may hold.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn capacity(&self) -> Result<Capacity, ConfigError> {
        let (entries, bytes) = (self.hubble_event_buffer_capacity, self.hubble_event_buffer_bytes);
        if !(1..=MOST_FLOWS).contains(&entries) {
            return Err(wrong("--hubble-event-buffer-capacity", format!("from 1 to {MOST_FLOWS} flows")));
        }
        if bytes < LEAST_BYTES {
            return Err(wrong("--hubble-event-buffer-bytes", format!("at least {LEAST_BYTES} bytes")));
        }
        Ok(Capacity { entries, bytes })
    }

    /// The port, if there is to be one. What is in the files is looked at when they are used: pods must not wait for
    /// certificates.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn port(&self) -> Result<Option<ObserverPort>, ConfigError> {
        let files =
            (&self.hubble_tls_cert_file, &self.hubble_tls_key_file, &*self.hubble_tls_client_ca_files);
        let Some(address) = self.hubble_listen_address else {
            return match files {
                (None, None, []) if !self.hubble_disable_tls => Ok(None),
                _ => Err(wrong(LISTEN, "TLS of the observer is set and the address to serve is not")),
            };
        };
        let tls = match files {
            (None, None, []) if self.hubble_disable_tls => None,
            _ if self.hubble_disable_tls => {
                return Err(wrong("--hubble-disable-tls", "TLS files are given as well; decide for one"));
            }
            (Some(certificate), Some(key), client_ca @ [_, ..]) => {
                let identity = Identity { certificate: certificate.clone(), key: key.clone() };
                Some(PortFiles { identity, client_ca: client_ca.to_vec() })
            }
            (certificate, key, client_ca) => {
                let missing = [
                    (certificate.is_none(), "--hubble-tls-cert-file"),
                    (key.is_none(), "--hubble-tls-key-file"),
                    (client_ca.is_empty(), "--hubble-tls-client-ca-files"),
                ];
                let missing: Vec<_> = missing.iter().filter_map(|(is, flag)| is.then_some(*flag)).collect();
                return Err(wrong(
                    LISTEN,
                    format!(
                        "mutual TLS lacks {}; without TLS everybody who reaches the address reads all flows, which \
                         --hubble-disable-tls asks for",
                        missing.join(", ")
                    ),
                ));
            }
        };
        Ok(Some(ObserverPort { address, tls }))
    }
}

/// `address:port`, or `:port` for all addresses of both families.
fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let full = if text.starts_with(':') { format!("[::]{text}") } else { text.to_owned() };
    let address: SocketAddr =
        full.parse().map_err(|_| "not an address with a port, such as :4244 or 192.0.2.1:4244".to_owned())?;
    if address.port() == 0 { Err("relays can't find a port that changes".to_owned()) } else { Ok(address) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        observer: ObserverArguments,
    }

    fn port(line: &str) -> Result<Option<ObserverPort>, ConfigError> {
        let words = std::iter::once("x").chain(line.split_whitespace());
        Line::try_parse_from(words).expect("a command line").observer.port()
    }

    #[test]
    fn a_port_has_mutual_tls_or_is_plain_in_words() {
        assert_eq!(port(""), Ok(None));
        let full = "--hubble-listen-address :4244 --hubble-tls-cert-file c --hubble-tls-key-file k \
                    --hubble-tls-client-ca-files a,b";
        let found = port(full).expect("a port").expect("there is one");
        assert_eq!(found.address.to_string(), "[::]:4244");
        assert_eq!(found.tls.expect("mutual TLS").client_ca, [PathBuf::from("a"), PathBuf::from("b")]);
        let plain = port("--hubble-listen-address 192.0.2.1:4244 --hubble-disable-tls").expect("a port");
        assert_eq!(plain.map(|port| port.tls), Some(None));

        for (line, flag, part) in [
            (
                "--hubble-listen-address :4244",
                LISTEN,
                "lacks --hubble-tls-cert-file, --hubble-tls-key-file, --hub",
            ),
            (
                "--hubble-listen-address :4244 --hubble-tls-cert-file c --hubble-tls-key-file k",
                LISTEN,
                "lacks --hubble-tls-client-ca-files;",
            ),
            (&format!("{full} --hubble-disable-tls"), "--hubble-disable-tls", "decide"),
            ("--hubble-tls-cert-file c", LISTEN, "the address to serve is not"),
            ("--hubble-disable-tls", LISTEN, "the address to serve is not"),
        ] {
            let error = port(line).expect_err(line);
            assert!(error.flag == flag && error.message.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn the_ring_has_hubbles_size_or_one_that_makes_sense() {
        let capacity = |line: &str| {
            let words = std::iter::once("x").chain(line.split_whitespace());
            Line::try_parse_from(words).expect("a command line").observer.capacity()
        };
        assert_eq!(capacity(""), Ok(Capacity { entries: 4095, bytes: 16 << 20 }));
        let set = "--hubble-event-buffer-capacity 65535 --hubble-event-buffer-bytes 134217728";
        assert_eq!(capacity(set), Ok(Capacity { entries: 65535, bytes: 128 << 20 }));
        for (line, flag) in [
            ("--hubble-event-buffer-capacity 0", "--hubble-event-buffer-capacity"),
            ("--hubble-event-buffer-capacity 9999999", "--hubble-event-buffer-capacity"),
            ("--hubble-event-buffer-bytes 10", "--hubble-event-buffer-bytes"),
        ] {
            assert_eq!(capacity(line).expect_err(line).flag, flag);
        }
    }

    #[test]
    fn what_is_no_address_to_serve_is_refused() {
        for text in ["4244", "localhost:4244", ":0", "192.0.2.1"] {
            assert!(parse_listen(text).is_err(), "{text}");
        }
    }
}
