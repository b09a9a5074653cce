//! Where metrics are served, in the words of Cilium's agent.

use std::net::SocketAddr;

use sinew_observer::metrics::http::parse_address;
use sinew_observer::metrics::hubble::{self, MetricSettings};

use super::{ConfigError, wrong};

/// Arguments of the metrics port.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Metrics")]
pub struct MetricsArguments {
    /// Address to serve metrics at, such as :9965; without it no port is open. There is no TLS and no password: whoever
    /// reaches the port reads names of pods and policies.
    #[arg(long, env = "SINEW_HUBBLE_METRICS_SERVER", value_name = "[ADDRESS]:PORT", value_parser = parse_address)]
    pub hubble_metrics_server: Option<SocketAddr>,
    /// Metrics that count flows, with their options, separated by blanks, as Hubble takes them: "drop
    /// flow:sourceContext=workload|reserved-identity;destinationContext=workload|reserved-identity". There are drop, flow,
    /// flows-to-world, icmp, policy, port-distribution and tcp; docs/metrics.md has the options.
    #[arg(
        long,
        env = "SINEW_HUBBLE_METRICS",
        value_name = "METRICS",
        default_value = "",
        hide_default_value = true
    )]
    pub hubble_metrics: String,
}

/// Metrics, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricsPort {
    /// Where they are served; `None`: nowhere.
    pub address: Option<SocketAddr>,
    /// Those that count flows.
    pub hubble: Vec<MetricSettings>,
}

impl MetricsArguments {
    /// What is to be served.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn port(&self) -> Result<MetricsPort, ConfigError> {
        let hubble = hubble::settings::parse(&self.hubble_metrics)
            .map_err(|error| wrong("--hubble-metrics", error.to_string()))?;
        if self.hubble_metrics_server.is_none() && !hubble.is_empty() {
            return Err(wrong(
                "--hubble-metrics",
                "nobody could read them: --hubble-metrics-server is not set",
            ));
        }
        Ok(MetricsPort { address: self.hubble_metrics_server, hubble })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(server: Option<&str>, metrics: &str) -> Result<MetricsPort, ConfigError> {
        let hubble_metrics_server = server.map(|address| parse_address(address).expect("an address"));
        MetricsArguments { hubble_metrics_server, hubble_metrics: metrics.to_owned() }.port()
    }

    #[test]
    fn metrics_need_a_port_and_must_exist() {
        assert_eq!(port(None, ""), Ok(MetricsPort::default()));
        let both = port(Some(":9965"), "drop flow").expect("both");
        assert_eq!((both.address.map(|it| it.port()), both.hubble.len()), (Some(9965), 2));
        for (server, metrics, message) in [
            (None, "drop", "nobody could read them: --hubble-metrics-server is not set"),
            (Some(":9965"), "dns", "dns: there are no DNS flows yet"),
            (
                Some(":9965"),
                "drop:sourceContext=dns",
                "drop: sourceContext=dns: no flow carries DNS names yet",
            ),
        ] {
            let error = port(server, metrics).expect_err(metrics);
            assert_eq!(error.flag, "--hubble-metrics");
            assert!(error.message.starts_with(message), "{error}");
        }
    }
}
