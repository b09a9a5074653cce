//! The flags and variables that say whom to ask for flows: those of Hubble's client, and the node's socket.
//!
//! Neighbour: `super` connects to what they mean.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, Command};

/// Whom to ask.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Server")]
pub(crate) struct ServerArgs {
    /// Address: host:port, tls://host:port or unix:///path. Without it: $SINEW_SERVER, $HUBBLE_SERVER, the node's
    /// socket, localhost:4245
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) server: Option<String>,
    /// Socket of the node's agent
    #[arg(long, env = "SINEW_AGENT_SOCKET", default_value = "/run/sinew/agent.sock", value_name = "PATH")]
    pub(crate) socket: PathBuf,
    /// How long connecting may take
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub(crate) timeout: Duration,
    /// How long an answer may take that is no stream: status, lists
    #[arg(long, default_value = "12s", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub(crate) request_timeout: Duration,
    /// Speak TLS to a host:port, as tls:// before it says too
    #[arg(long, env = "HUBBLE_TLS")]
    pub(crate) tls: bool,
    /// Believe whatever certificate the server shows: who is in between reads everything
    #[arg(long, env = "HUBBLE_TLS_ALLOW_INSECURE")]
    pub(crate) tls_allow_insecure: bool,
    /// Authorities of the server's certificate, PEM; without it those that this machine trusts
    #[arg(long, env = "HUBBLE_TLS_CA_CERT_FILES", value_name = "FILE", value_delimiter = ',')]
    pub(crate) tls_ca_cert_files: Vec<PathBuf>,
    /// Certificate to show, PEM; implies --tls
    #[arg(long, env = "HUBBLE_TLS_CLIENT_CERT_FILE", value_name = "FILE", requires = "tls_client_key_file")]
    pub(crate) tls_client_cert_file: Option<PathBuf>,
    /// Its private key, PEM; implies --tls
    #[arg(long, env = "HUBBLE_TLS_CLIENT_KEY_FILE", value_name = "FILE", requires = "tls_client_cert_file")]
    pub(crate) tls_client_key_file: Option<PathBuf>,
    /// Name that the server's certificate must have, if it is not the host
    #[arg(long, env = "HUBBLE_TLS_SERVER_NAME", value_name = "NAME")]
    pub(crate) tls_server_name: Option<String>,
    /// User for a proxy before the server; sent over TLS only
    #[arg(long, env = "HUBBLE_BASIC_AUTH_USERNAME", value_name = "NAME", requires = "basic_auth_password")]
    pub(crate) basic_auth_username: Option<String>,
    /// Password of that user
    #[arg(
        long,
        env = "HUBBLE_BASIC_AUTH_PASSWORD",
        hide_env_values = true,
        value_name = "PASSWORD",
        requires = "basic_auth_username"
    )]
    pub(crate) basic_auth_password: Option<String>,
    /// Read flags that are not given from this file (YAML, the keys of Hubble's)
    #[arg(long, env = "HUBBLE_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Tell on stderr who is asked and for what
    #[arg(short = 'D', long, env = "HUBBLE_DEBUG")]
    pub(crate) debug: bool,
    #[command(flatten)]
    pub(crate) forward: ForwardArgs,
}

/// Flags as Hubble's client reads them: without a value it is true, `--flag=false` takes that back, and of several the last
/// one counts.
pub(crate) fn like_hubbles(command: Command) -> Command {
    let command = command.args_override_self(true).mut_args(|arg| {
        if !matches!(arg.get_action(), ArgAction::SetTrue) {
            return arg;
        }
        arg.action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_value("false")
            .default_missing_value("true")
            .hide_default_value(true)
            .hide_possible_values(true)
            .value_name("BOOL")
            .value_parser(BoolishValueParser::new())
    });
    command.mut_subcommands(like_hubbles)
}

/// What needs Kubernetes. It is known, so that whoever comes from Hubble reads why it is refused.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ForwardArgs {
    /// Refused: needs Kubernetes, which this version does not speak
    #[arg(short = 'P', long)]
    port_forward: bool,
    /// Refused, as --port-forward
    #[arg(long, value_name = "PORT")]
    port_forward_port: Option<u16>,
    /// Refused, as --port-forward
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Refused, as --port-forward
    #[arg(long, value_name = "NAME")]
    kube_context: Option<String>,
    /// Refused, as --port-forward
    #[arg(long, value_name = "NAMESPACE")]
    kube_namespace: Option<String>,
}

impl ForwardArgs {
    /// The first flag that was given.
    pub(super) fn given(&self) -> Option<&'static str> {
        let flags = [
            (self.port_forward, "--port-forward"),
            (self.port_forward_port.is_some(), "--port-forward-port"),
            (self.kubeconfig.is_some(), "--kubeconfig"),
            (self.kube_context.is_some(), "--kube-context"),
            (self.kube_namespace.is_some(), "--kube-namespace"),
        ];
        flags.into_iter().find_map(|(given, flag)| given.then_some(flag))
    }
}
