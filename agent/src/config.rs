//! What a node's agent is told: arguments, parsed once into typed values and checked against each other.
//!
//! Neighbours: `main.rs` parses, everything else gets values. A flag is here only if somebody must turn it; each says who.

mod metrics;
mod observer;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use sinew_api::labels::LabelFilter;
use sinew_api::object::Routing;
use sinew_bpf::settings::TUNNEL_PORT;
use sinew_observer::ring::Capacity;

pub use metrics::{MetricsArguments, MetricsPort};
pub use observer::{ObserverArguments, ObserverPort, PortFiles};

/// The command line of `sinew-agent`. Each flag can be given as an environment variable too, `SINEW_` before its name.
#[derive(Clone, Debug, Parser)]
#[command(name = "sinew-agent", version, about = "Sinew's agent: one on each node")]
pub struct Arguments {
    /// What to do; without a command: be the node's agent.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// What both commands need.
    #[command(flatten)]
    pub place: Place,
    /// What the agent needs.
    #[command(flatten)]
    pub node: NodeArguments,
    /// Where flows are served.
    #[command(flatten)]
    pub observer: ObserverArguments,
    /// Where metrics are served.
    #[command(flatten)]
    pub metrics: MetricsArguments,
}

/// Commands beside being the agent.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Command {
    /// Take everything of this node away: pods' interfaces, programs, maps, routes, state. The agent must not run.
    Cleanup,
}

/// Where a node's things are.
#[derive(Clone, Debug, clap::Args)]
pub struct Place {
    /// Name of this node; the same after every restart.
    #[arg(long, env = "SINEW_NODE_NAME", global = true, default_value = "")]
    pub node_name: String,
    /// Where objects are kept: folder:DIR.
    #[arg(long, env = "SINEW_STORE", global = true)]
    pub store: Option<StoreArgument>,
    /// What must outlast a restart: leases, numbers, last valid policies.
    #[arg(long, env = "SINEW_STATE_DIR", global = true, default_value = "/var/lib/sinew")]
    pub state_dir: PathBuf,
    /// Sockets.
    #[arg(long, env = "SINEW_RUN_DIR", global = true, default_value = "/run/sinew")]
    pub run_dir: PathBuf,
    /// Folder on a bpf file system; programs and maps are pinned in its folder of this node's name.
    #[arg(long, env = "SINEW_BPF_ROOT", global = true, default_value = "/sys/fs/bpf/sinew")]
    pub bpf_root: PathBuf,
}

/// How a node is set up.
#[derive(Clone, Debug, clap::Args)]
pub struct NodeArguments {
    /// Name of the cluster; part of every identity's labels.
    #[arg(long, env = "SINEW_CLUSTER_NAME", default_value = "default")]
    pub cluster_name: String,
    /// This node's pool of pod addresses; once for each family.
    #[arg(long = "pod-cidr", env = "SINEW_POD_CIDR", value_delimiter = ',')]
    pub pod_cidrs: Vec<IpNet>,
    /// Range of all pods of the cluster; an address in it that nobody has is unknown, never the world.
    #[arg(long = "cluster-cidr", env = "SINEW_CLUSTER_CIDR", value_delimiter = ',')]
    pub cluster_cidrs: Vec<IpNet>,
    /// Address of this node on the underlay; once for each family.
    #[arg(long = "node-ip", env = "SINEW_NODE_IP", value_delimiter = ',')]
    pub node_ips: Vec<IpAddr>,
    /// Device that leads to other nodes; of a bond, the bond. May appear after the agent.
    #[arg(long = "underlay", env = "SINEW_UNDERLAY", value_delimiter = ',')]
    pub underlay: Vec<String>,
    /// How other nodes' pods are reached: by routes of the underlay, or in VXLAN.
    #[arg(long, env = "SINEW_ROUTING", value_enum, default_value_t = RoutingArgument::Native)]
    pub routing: RoutingArgument,
    /// UDP port of VXLAN, the same on all nodes.
    #[arg(long, env = "SINEW_TUNNEL_PORT", default_value_t = TUNNEL_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub tunnel_port: u16,
    /// What a pod gets whose packet policy refuses: nothing, or an answer that it can fail on at once.
    #[arg(long, env = "SINEW_POLICY_DENY_RESPONSE", value_enum, default_value_t = DenyResponse::Drop)]
    pub policy_deny_response: DenyResponse,
    /// Address of the API server, for the entity kube-apiserver.
    #[arg(long = "kube-apiserver", env = "SINEW_KUBE_APISERVER", value_delimiter = ',')]
    pub kube_apiserver: Vec<IpAddr>,
    /// Labels that make identities, beside Cilium's defaults, for clusters where others multiply them: patterns separated by
    /// commas or spaces, each a regular expression at the beginning of a key, with an optional source and `:` before it
    /// and `!` for "leave out". With one to keep, only what such a pattern keeps is kept. The same on all nodes.
    #[arg(long, env = "SINEW_LABELS", default_value = "", value_parser = parse_labels)]
    pub labels: LabelFilter,
    /// Bits of skb->mark that belong to Sinew, two or more; for nodes where another program uses those of 0x03000000.
    #[arg(long, env = "SINEW_MARK", default_value = "0x03000000", value_parser = parse_mark)]
    pub mark: u32,
    /// How much of a connection's traffic becomes events: none, lowest and low report every packet; medium reports
    /// beginning, first answer, end, and a sign of life each interval; maximum leaves out the signs of life.
    #[arg(long, env = "SINEW_MONITOR_AGGREGATION", value_enum, default_value_t = Aggregation::Medium)]
    pub monitor_aggregation: Aggregation,
    /// Time between two signs of life of one direction of a connection, such as 5s or 1m.
    #[arg(long, env = "SINEW_MONITOR_AGGREGATION_INTERVAL", default_value = "5s", value_parser = humantime::parse_duration)]
    pub monitor_aggregation_interval: Duration,
    /// Drops that each CPU reports a second, so that a flood of refused packets leaves the processor and the kept flows to
    /// others; what is beyond is counted, by reason and as suppressed. 0: every one is reported.
    #[arg(long, env = "SINEW_MONITOR_DROP_LIMIT", default_value_t = 500, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    pub monitor_drop_limit: u32,
    /// Bytes of each CPU's ring of events; a node with bursts of many new connections may want more than 1 MiB.
    #[arg(long, env = "SINEW_EVENT_RING_BYTES", default_value_t = 1 << 20)]
    pub event_ring_bytes: u32,
}

/// `--store`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreArgument {
    /// `folder:DIR`.
    Folder(PathBuf),
}

impl std::str::FromStr for StoreArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("folder", path)) if !path.is_empty() => Ok(Self::Folder(path.into())),
            _ => Err("a store is folder:DIR".into()),
        }
    }
}

impl std::fmt::Display for StoreArgument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self::Folder(path) = self;
        write!(f, "folder:{}", path.display())
    }
}

/// `--routing`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RoutingArgument {
    /// Routed, as they are.
    Native,
    /// In VXLAN.
    Vxlan,
}

/// `--policy-deny-response`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DenyResponse {
    /// Silence.
    Drop,
    /// A TCP RST or an ICMP error.
    Reject,
}

/// `--monitor-aggregation`, with Cilium's names. Its lowest levels differ in what is reported on receipt alone, which
/// Sinew doesn't report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Aggregation {
    /// Every packet.
    None,
    /// Every packet.
    Lowest,
    /// Every packet.
    Low,
    /// Beginning, first answer, end, and signs of life.
    Medium,
    /// Beginning, first answer and end.
    Maximum,
}

/// Arguments that don't fit together. The message names the flag.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{flag}: {message}")]
pub struct ConfigError {
    /// The flag.
    pub flag: &'static str,
    /// What is wrong, in one sentence.
    pub message: String,
}

/// A node's settings, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where things are.
    pub place: Place,
    /// Where objects are kept.
    pub store: StoreArgument,
    /// How the node is set up.
    pub node: NodeArguments,
    /// Whether the programs report and flows are kept.
    pub flows: bool,
    /// How much of them.
    pub flow_capacity: Capacity,
    /// Where flows are served besides the agent's socket.
    pub observer: Option<ObserverPort>,
    /// Metrics, and where they are served.
    pub metrics: MetricsPort,
}

impl Config {
    /// Whether other nodes' pods are reached in VXLAN.
    #[must_use]
    pub fn overlay(&self) -> bool {
        self.node.routing == RoutingArgument::Vxlan
    }

    /// The same as objects say it.
    #[must_use]
    pub fn routing(&self) -> Routing {
        match self.node.routing {
            RoutingArgument::Native => Routing::Native,
            RoutingArgument::Vxlan => Routing::Vxlan,
        }
    }

    /// Nanoseconds between two reports of a connection that lives ([`sinew_bpf::settings::Settings::report_interval`]).
    #[must_use]
    pub fn report_interval(&self) -> u64 {
        match self.node.monitor_aggregation {
            Aggregation::None | Aggregation::Lowest | Aggregation::Low => 0,
            Aggregation::Medium => {
                u64::try_from(self.node.monitor_aggregation_interval.as_nanos()).unwrap_or(u64::MAX)
            }
            Aggregation::Maximum => u64::MAX,
        }
    }

    /// Nanoseconds between two records of drops on a CPU ([`sinew_bpf::settings::Settings::drop_interval`]).
    #[must_use]
    pub fn drop_interval(&self) -> u32 {
        1_000_000_000_u32.checked_div(self.node.monitor_drop_limit).unwrap_or(0)
    }

    /// Whether pods have IPv4 addresses.
    #[must_use]
    pub fn v4(&self) -> bool {
        self.node.pod_cidrs.iter().any(|cidr| cidr.addr().is_ipv4())
    }

    /// Whether pods have IPv6 addresses.
    #[must_use]
    pub fn v6(&self) -> bool {
        self.node.pod_cidrs.iter().any(|cidr| cidr.addr().is_ipv6())
    }
}

impl Place {
    /// Checks the node's name, which becomes the name of files and folders.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.node_name.is_empty() {
            return Err(wrong("--node-name", "a node needs a name that stays the same after a restart"));
        }
        sinew_api::names::subdomain(&self.node_name).map_err(|message| wrong("--node-name", message))
    }
}

impl TryFrom<Arguments> for Config {
    type Error = ConfigError;

    fn try_from(arguments: Arguments) -> Result<Self, ConfigError> {
        let Arguments { place, mut node, observer, metrics, .. } = arguments;
        place.check()?;
        let store =
            place.store.clone().ok_or_else(|| wrong("--store", "say where objects are kept: folder:DIR"))?;
        for (flag, ranges) in
            [("--pod-cidr", &mut node.pod_cidrs), ("--cluster-cidr", &mut node.cluster_cidrs)]
        {
            for range in ranges {
                let network = range.trunc();
                if network != *range {
                    return Err(wrong(flag, format!("{range} has host bits set; the range is {network}")));
                }
            }
        }
        one_a_family("--pod-cidr", node.pod_cidrs.iter().map(|range| range.addr()))?;
        one_a_family("--node-ip", node.node_ips.iter().copied())?;
        for pool in &node.pod_cidrs {
            if !node.cluster_cidrs.iter().any(|range| range.contains(pool)) {
                return Err(wrong(
                    "--cluster-cidr",
                    format!("no range of the cluster holds the pool {pool}"),
                ));
            }
            let family = |address: &&IpAddr| address.is_ipv4() == pool.addr().is_ipv4();
            if !node.node_ips.iter().any(|address| family(&address)) {
                return Err(wrong(
                    "--node-ip",
                    format!("the node has pods in {pool} and no address of that family"),
                ));
            }
        }
        for address in &node.node_ips {
            if node.cluster_cidrs.iter().any(|range| range.contains(address)) {
                return Err(wrong("--node-ip", format!("{address} lies in a range of pods")));
            }
        }
        if node.underlay.is_empty() {
            return Err(wrong("--underlay", "name the device that leads to other nodes"));
        }
        let page = 4096;
        if !node.event_ring_bytes.is_power_of_two() || node.event_ring_bytes < page {
            return Err(wrong("--event-ring-bytes", format!("a power of two, {page} or more")));
        }
        if node.monitor_aggregation_interval < Duration::from_secs(1) {
            let message = "at least 1s; for every packet there is --monitor-aggregation none";
            return Err(wrong("--monitor-aggregation-interval", message));
        }
        // kube-proxy marks packets with these (datapath.md 30).
        if node.mark.count_ones() < 2 || node.mark & 0xc000 != 0 {
            return Err(wrong("--mark", "at least two bits, and neither 0x4000 nor 0x8000"));
        }
        let (flows, flow_capacity) = (observer.enable_hubble, observer.capacity()?);
        let observer = observer.port()?;
        let metrics = metrics.port()?;
        if !flows && (observer.is_some() || !metrics.hubble.is_empty()) {
            let message =
                "no flows are made then, and --hubble-listen-address or --hubble-metrics asks for them";
            return Err(wrong("--enable-hubble", message));
        }
        Ok(Self { place, store, node, flows, flow_capacity, observer, metrics })
    }
}

fn one_a_family(
    flag: &'static str,
    addresses: impl Iterator<Item = IpAddr> + Clone,
) -> Result<(), ConfigError> {
    let count = |v4: bool| addresses.clone().filter(|address| address.is_ipv4() == v4).count();
    match (count(true), count(false)) {
        (0, 0) => Err(wrong(flag, "give one for IPv4, one for IPv6, or both")),
        (0 | 1, 0 | 1) => Ok(()),
        _ => Err(wrong(flag, "more than one of a family")),
    }
}

fn wrong(flag: &'static str, message: impl Into<String>) -> ConfigError {
    ConfigError { flag, message: message.into() }
}

fn parse_labels(text: &str) -> Result<LabelFilter, String> {
    let patterns = text.split(|it: char| it == ',' || it.is_whitespace()).filter(|it| !it.is_empty());
    LabelFilter::with_patterns(&patterns.collect::<Vec<_>>()).map_err(|error| error.to_string())
}

fn parse_mark(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Config, ConfigError> {
        Config::try_from(Arguments::try_parse_from(line.split_whitespace()).unwrap())
    }

    const GOOD: &str = "sinew-agent --node-name a --store folder:/x --pod-cidr 10.1.0.0/24 --pod-cidr fd00:1::/64 \
                        --cluster-cidr 10.0.0.0/8 --cluster-cidr fd00::/16 --node-ip 192.0.2.1 --node-ip 2001:db8::1 \
                        --underlay eth0";

    #[test]
    fn a_dual_stack_node() {
        let config = parse(GOOD).unwrap();
        assert!(config.v4() && config.v6() && !config.overlay());
        assert_eq!(config.node.tunnel_port, 8472);
        assert_eq!(config.node.mark, 0x0300_0000);
    }

    #[test]
    fn labels_that_make_identities() {
        assert_eq!(parse(GOOD).unwrap().node.labels, LabelFilter::default());
        let labels = parse(&format!("{GOOD} --labels k8s:!build-id,!job")).unwrap().node.labels;
        assert_eq!(["app", "build-id", "job"].map(|key| labels.keeps("k8s", key)), [true, false, false]);
        assert!(labels.keeps("cni", "build-id"));
        let labels = parse_labels("k8s:app$  any:tier").unwrap();
        assert_eq!(["app", "tier", "job"].map(|key| labels.keeps("k8s", key)), [true, true, false]);
        let wrong = Arguments::try_parse_from(format!("{GOOD} --labels app,k8s:!").split_whitespace());
        let message = wrong.unwrap_err().to_string();
        assert!(message.contains("--labels") && message.contains("\"k8s:!\": is empty"), "{message}");
    }

    #[test]
    fn levels_of_aggregation() {
        for (flags, interval) in [
            ("", 5_000_000_000),
            ("--monitor-aggregation-interval 1m", 60_000_000_000),
            ("--monitor-aggregation none --monitor-aggregation-interval 1m", 0),
            ("--monitor-aggregation maximum", u64::MAX),
        ] {
            assert_eq!(parse(&format!("{GOOD} {flags}")).unwrap().report_interval(), interval, "{flags}");
        }
    }

    #[test]
    fn limits_of_reported_drops() {
        for (flags, interval) in [
            ("", 2_000_000),
            ("--monitor-drop-limit 1", 1_000_000_000),
            ("--monitor-drop-limit 1000000", 1_000),
            ("--monitor-drop-limit 0", 0),
        ] {
            assert_eq!(parse(&format!("{GOOD} {flags}")).unwrap().drop_interval(), interval, "{flags}");
        }
        let line = format!("{GOOD} --monitor-drop-limit 1000001");
        assert!(Arguments::try_parse_from(line.split_whitespace()).is_err());
    }

    #[test]
    fn what_does_not_fit_names_its_flag() {
        for (change, flag) in [
            ("--node-name a=--node-name A_b", "--node-name"),
            ("--store folder:/x=", "--store"),
            ("--pod-cidr 10.1.0.0/24=--pod-cidr 10.1.0.7/24", "--pod-cidr"),
            ("--pod-cidr fd00:1::/64=--pod-cidr 10.2.0.0/24", "--pod-cidr"),
            ("--cluster-cidr fd00::/16=", "--cluster-cidr"),
            ("--node-ip 2001:db8::1=", "--node-ip"),
            ("--node-ip 192.0.2.1=--node-ip 10.9.9.9", "--node-ip"),
            ("--underlay eth0=", "--underlay"),
            ("--underlay eth0=--underlay eth0 --event-ring-bytes 5000", "--event-ring-bytes"),
            ("--underlay eth0=--underlay eth0 --mark 0x4000", "--mark"),
            ("--underlay eth0=--underlay eth0 --mark 0x01000000", "--mark"),
            (
                "--underlay eth0=--underlay eth0 --enable-hubble false --hubble-listen-address :1 --hubble-disable-tls",
                "--enable-hubble",
            ),
            ("--underlay eth0=--underlay eth0 --hubble-listen-address :4244", "--hubble-listen-address"),
            (
                "--underlay eth0=--underlay eth0 --monitor-aggregation-interval 0s",
                "--monitor-aggregation-interval",
            ),
        ] {
            let (from, to) = change.split_once('=').unwrap();
            let error = parse(&GOOD.replace(from, to)).unwrap_err();
            assert_eq!(error.flag, flag, "{change}: {error}");
        }
    }
}
