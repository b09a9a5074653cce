//! The command line of `sinew-relay`, checked: which nodes, in what manner, and where to serve.
//!
//! TLS is named as for Hubble's relay. Neighbours: `main.rs` does what it says.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;

use crate::dial::Way;
use crate::metrics::http::parse_address;
use crate::peer::{PeerAddress, Peers, tls_server_name};
use crate::relay::{NodeTls, RelaySettings};
use crate::tls::{ClientTls, Identity, ServerTls, TlsError, Trust};

/// The flows of many nodes at one address.
#[derive(Debug, Parser)]
#[command(name = "sinew-relay", version, about = "The flows of many nodes at one address")]
pub struct Arguments {
    /// Peer service that tells the nodes, as every agent does: host:port or unix:PATH
    #[arg(long, env = "SINEW_PEER_SERVICE", value_name = "ADDRESS", conflicts_with = "node")]
    peer_service: Option<String>,
    /// Name on the Peer service's certificate, if it is not its host
    #[arg(long, env = "SINEW_PEER_SERVER_NAME", value_name = "NAME", requires = "peer_service")]
    peer_server_name: Option<String>,
    /// A node, as CLUSTER/NAME=ADDRESS; repeatable
    #[arg(long, value_name = "NAME=ADDRESS", value_parser = node)]
    node: Vec<(String, String)>,
    /// Authorities of the nodes' certificates, PEM
    #[arg(long, env = "SINEW_TLS_HUBBLE_SERVER_CA_FILES", value_name = "FILE", value_delimiter = ',')]
    tls_hubble_server_ca_files: Vec<PathBuf>,
    /// Certificate that the relay shows to nodes, PEM; read again when it changes, as all of these files
    #[arg(long, env = "SINEW_TLS_HUBBLE_CLIENT_CERT_FILE", value_name = "FILE")]
    tls_hubble_client_cert_file: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, env = "SINEW_TLS_HUBBLE_CLIENT_KEY_FILE", value_name = "FILE")]
    tls_hubble_client_key_file: Option<PathBuf>,
    /// Speak to nodes without TLS
    #[arg(long, env = "SINEW_DISABLE_CLIENT_TLS")]
    disable_client_tls: bool,
    /// Socket to serve, for its owner only
    #[arg(long, env = "SINEW_RELAY_SOCKET", value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Address to serve, such as :4245
    #[arg(long, env = "SINEW_LISTEN_ADDRESS", value_name = "[ADDRESS]:PORT", value_parser = listen_address)]
    listen_address: Option<SocketAddr>,
    /// Certificate that the relay shows to clients, PEM
    #[arg(long, env = "SINEW_TLS_RELAY_SERVER_CERT_FILE", value_name = "FILE")]
    tls_relay_server_cert_file: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, env = "SINEW_TLS_RELAY_SERVER_KEY_FILE", value_name = "FILE")]
    tls_relay_server_key_file: Option<PathBuf>,
    /// Authorities of clients, PEM: who shows no certificate of one of them is refused. Without it everybody who
    /// reaches the address reads all flows
    #[arg(long, env = "SINEW_TLS_RELAY_CLIENT_CA_FILES", value_name = "FILE", value_delimiter = ',')]
    tls_relay_client_ca_files: Vec<PathBuf>,
    /// Serve the address without TLS: everybody who reaches it reads all flows
    #[arg(long, env = "SINEW_DISABLE_SERVER_TLS")]
    disable_server_tls: bool,
    /// Address to serve metrics of the relay itself at, such as :9966; without it no port is open. There is no TLS and no
    /// password
    #[arg(long, env = "SINEW_METRICS_LISTEN_ADDRESS", value_name = "[ADDRESS]:PORT", value_parser = parse_address)]
    metrics_listen_address: Option<SocketAddr>,
    /// How long a flow may wait for a slower node
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration, value_name = "TIME")]
    window: Duration,
    /// How long a node may take to answer
    #[arg(long, default_value = "3s", value_parser = humantime::parse_duration, value_name = "TIME")]
    patience: Duration,
}

/// A command line that can't be done. The message names the flag or the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Flags that are missing, or don't fit together.
    #[error("{0}")]
    Flags(String),
    /// A file that can't be used.
    #[error(transparent)]
    Files(#[from] TlsError),
}

/// What to do.
pub struct Command {
    /// Who tells the nodes; `None` for those of the command line.
    pub peer_service: Option<Way>,
    /// The nodes of the command line.
    pub nodes: Peers,
    /// How nodes are spoken to.
    pub node_tls: NodeTls,
    /// A socket to serve.
    pub socket: Option<PathBuf>,
    /// A port to serve, and its TLS.
    pub port: Option<(SocketAddr, Option<ServerTls>)>,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// How the relay waits.
    pub settings: RelaySettings,
}

impl TryFrom<Arguments> for Command {
    type Error = CommandError;

    fn try_from(given: Arguments) -> Result<Self, CommandError> {
        let node_tls = given.node_tls()?;
        let port = given.port()?;
        if port.is_none() && given.socket.is_none() {
            return Err(flags("nowhere to serve: --listen-address [ADDRESS]:PORT or --socket PATH"));
        }
        if given.peer_service.is_none() && given.node.is_empty() {
            return Err(flags("no nodes: name them with --node, or who knows them with --peer-service"));
        }
        let peer_service = given
            .peer_service
            .map(|address| peer_service(address, given.peer_server_name, &node_tls))
            .transpose()?;
        let with_tls = matches!(node_tls, NodeTls::With(_));
        let nodes = given.node.into_iter().map(|(name, address)| {
            let is_port = with_tls && !address.starts_with("unix:");
            let tls = name
                .split_once('/')
                .filter(|_| is_port)
                .map(|(cluster, node)| tls_server_name(cluster, node));
            (name, PeerAddress { address, tls })
        });
        let settings = RelaySettings { window: given.window, patience: given.patience };
        let (socket, metrics) = (given.socket, given.metrics_listen_address);
        Ok(Self { peer_service, nodes: nodes.collect(), node_tls, socket, port, metrics, settings })
    }
}

impl Arguments {
    fn node_tls(&self) -> Result<NodeTls, CommandError> {
        let identity = identity(
            (&self.tls_hubble_client_cert_file, "--tls-hubble-client-cert-file"),
            (&self.tls_hubble_client_key_file, "--tls-hubble-client-key-file"),
        )?;
        match (&*self.tls_hubble_server_ca_files, identity) {
            ([], None) if self.disable_client_tls => Ok(NodeTls::Disabled),
            ([], None) => Ok(NodeTls::Undecided),
            _ if self.disable_client_tls => {
                Err(flags("--disable-client-tls: TLS files for nodes are given as well; decide for one"))
            }
            ([], Some(_)) => Err(flags("--tls-hubble-server-ca-files is missing: whose nodes are believed?")),
            (authorities, identity) => {
                let trust = Trust::Files(authorities.to_vec());
                Ok(NodeTls::With(Arc::new(ClientTls::new(identity, trust)?)))
            }
        }
    }

    fn port(&self) -> Result<Option<(SocketAddr, Option<ServerTls>)>, CommandError> {
        let identity = identity(
            (&self.tls_relay_server_cert_file, "--tls-relay-server-cert-file"),
            (&self.tls_relay_server_key_file, "--tls-relay-server-key-file"),
        )?;
        let authorities = self.tls_relay_client_ca_files.clone();
        let any = identity.is_some() || !authorities.is_empty() || self.disable_server_tls;
        match (self.listen_address, identity) {
            (None, _) if any => Err(flags("TLS of the relay is set and --listen-address is not")),
            (None, _) => Ok(None),
            (Some(address), None) if self.disable_server_tls && authorities.is_empty() => {
                Ok(Some((address, None)))
            }
            (Some(_), _) if self.disable_server_tls => {
                Err(flags("--disable-server-tls: TLS files for clients are given as well; decide for one"))
            }
            (Some(_), None) => Err(flags(
                "--listen-address needs --tls-relay-server-cert-file and --tls-relay-server-key-file; without TLS \
                 everybody who reaches the address reads all flows, which --disable-server-tls asks for",
            )),
            (Some(address), Some(identity)) => {
                Ok(Some((address, Some(ServerTls::new(identity, authorities)?))))
            }
        }
    }
}

fn peer_service(address: String, name: Option<String>, tls: &NodeTls) -> Result<Way, CommandError> {
    if let Some(path) = address.strip_prefix("unix:") {
        return Ok(Way::Socket(format!("/{}", path.trim_start_matches('/'))));
    }
    match tls {
        NodeTls::With(tls) => Ok(Way::Tls { address, name, tls: Arc::clone(tls) }),
        NodeTls::Disabled => Ok(Way::Plain(address)),
        NodeTls::Undecided => Err(flags(
            "--peer-service at a port needs --tls-hubble-server-ca-files, or --disable-client-tls to speak without TLS",
        )),
    }
}

/// Both files of an identity, or neither.
fn identity(
    (certificate, certificate_flag): (&Option<PathBuf>, &str),
    (key, key_flag): (&Option<PathBuf>, &str),
) -> Result<Option<Identity>, CommandError> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => {
            Ok(Some(Identity { certificate: certificate.clone(), key: key.clone() }))
        }
        (None, None) => Ok(None),
        (Some(_), None) => Err(flags(&format!("{certificate_flag} needs {key_flag} as well"))),
        (None, Some(_)) => Err(flags(&format!("{key_flag} needs {certificate_flag} as well"))),
    }
}

fn flags(message: &str) -> CommandError {
    CommandError::Flags(message.to_owned())
}

/// `cluster/name=address`.
fn node(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, address)) if name.contains('/') && !address.is_empty() => {
            Ok((name.to_owned(), address.to_owned()))
        }
        _ => Err(format!("{text:?} is not CLUSTER/NAME=ADDRESS")),
    }
}

/// `address:port`, or `:port` for all addresses of both families.
///
/// # Errors
/// It is none, said in a sentence.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let full = if text.starts_with(':') { format!("[::]{text}") } else { text.to_owned() };
    full.parse().map_err(|_| "not an address with a port, such as :4245 or 192.0.2.1:4245".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::tests::Authority;

    fn command(line: &str) -> Result<Command, String> {
        let words = std::iter::once("sinew-relay").chain(line.split_whitespace());
        let arguments = Arguments::try_parse_from(words).map_err(|error| error.to_string())?;
        Command::try_from(arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_missing_or_does_not_fit_is_named() {
        for (line, part) in [
            ("--node default/a=unix:/a", "nowhere to serve"),
            ("--socket /r", "no nodes"),
            ("--socket /r --node a=unix:/a", "is not CLUSTER/NAME=ADDRESS"),
            ("--socket /r --peer-service h:1", "--disable-client-tls"),
            ("--socket /r --peer-service h:1 --node default/a=h:2", "cannot be used with"),
            ("--listen-address :4245 --peer-service unix:/a", "needs --tls-relay-server-cert-file"),
            ("--listen-address 4245 --peer-service unix:/a", "not an address with a port"),
            ("--socket /r --peer-service unix:/a --disable-server-tls", "--listen-address is not"),
            (
                "--listen-address :4245 --peer-service unix:/a --tls-relay-server-cert-file c",
                "needs --tls-relay-server-key-file as well",
            ),
            (
                "--listen-address :4245 --peer-service unix:/a --disable-server-tls --tls-relay-client-ca-files c",
                "decide for one",
            ),
            (
                "--socket /r --peer-service h:1 --disable-client-tls --tls-hubble-server-ca-files c",
                "decide for one",
            ),
            (
                "--socket /r --peer-service h:1 --tls-hubble-server-ca-files /nowhere/ca.crt",
                "/nowhere/ca.crt: No such file",
            ),
        ] {
            let error = command(line).err().unwrap_or_else(|| panic!("{line} is taken"));
            assert!(error.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn nodes_of_a_list_have_the_names_of_their_certificates() {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::new("ours").write(&folder.path().join("ca.crt"));
        let line = format!(
            "--socket /r --node west/a.b=192.0.2.1:4244 --node west/c=unix:/c --tls-hubble-server-ca-files {}",
            authority.display()
        );
        let nodes = command(&line).map(|command| command.nodes).expect("a command");
        assert_eq!(nodes["west/a.b"].tls.as_deref(), Some("a-b.west.hubble-grpc.cilium.io"));
        assert_eq!(nodes["west/c"].tls, None, "a socket needs none");
        let plain =
            command("--socket /r --node west/a=192.0.2.1:4244 --disable-client-tls").expect("a command");
        assert_eq!(plain.nodes["west/a"].tls, None);
    }
}
