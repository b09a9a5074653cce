//! Where metrics are served, in the words of Cilium's agent.

use std::net::SocketAddr;

use sinew_observer::metrics::http::parse_address;

/// Arguments of the metrics port.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Metrics")]
pub struct MetricsArguments {
    /// Address to serve metrics at, such as :9965; without it no port is open. There is no TLS and no password: whoever
    /// reaches the port reads names of pods and policies.
    #[arg(long, env = "SINEW_HUBBLE_METRICS_SERVER", value_name = "[ADDRESS]:PORT", value_parser = parse_address)]
    pub hubble_metrics_server: Option<SocketAddr>,
}
