//! What each metric counts, flow by flow, as Hubble 1.19 does.
//!
//! | metric | counts | labels of its own |
//! | --- | --- | --- |
//! | `flow` | every flow | protocol, type, subtype, verdict |
//! | `drop` | verdict DROPPED: of a denial both the verdict and the drop | reason, protocol |
//! | `tcp` | FIN, SYN, SYN-ACK and RST of flows forwarded or redirected, one for each flag | flag, family |
//! | `icmp` | every ICMP flow | family, type |
//! | `port-distribution` | flows forwarded or redirected that are known not to be replies | protocol, port |
//! | `flows-to-world` | flows to the world; drops by policy only, forwarded ones that are no replies | protocol, verdict, port |
//! | `policy` | policy verdicts, those of the node's own traffic left out | direction, match, action |

use std::borrow::Cow;
use std::time::Instant;

use sinew_api::proto::flow::layer4::Protocol;
use sinew_api::proto::flow::{DropReason, Flow, IpVersion, TraceObservationPoint, Verdict};

use super::super::{Description, Family};
use super::icmp;
use super::series::{Key, Living, Ports, SeriesSet, Subject};
use super::settings::{Metric, MetricSettings};

pub(super) const FLOW: Description = Description::counter(
    "hubble_flows_processed_total",
    &["protocol", "type", "subtype", "verdict"],
    "Total number of flows processed.",
);
pub(super) const DROP: Description =
    Description::counter("hubble_drop_total", &["reason", "protocol"], "Number of drops.");
pub(super) const TCP: Description =
    Description::counter("hubble_tcp_flags_total", &["flag", "family"], "TCP flag occurrences.");
pub(super) const ICMP: Description =
    Description::counter("hubble_icmp_total", &["family", "type"], "Number of ICMP messages.");
pub(super) const PORT_DISTRIBUTION: Description = Description::counter(
    "hubble_port_distribution_total",
    &["protocol", "port"],
    "Numbers of packets distributed by destination port.",
);
pub(super) const FLOWS_TO_WORLD: Description = Description::counter(
    "hubble_flows_to_world_total",
    &["protocol", "verdict"],
    "Total number of flows to reserved:world.",
);
pub(super) const POLICY: Description = Description::counter(
    "hubble_policy_verdicts_total",
    &["direction", "match", "action"],
    "Total number of network policy verdicts.",
);

/// Hubble's event types.
const DROP_EVENT: i32 = 1;
const CAPTURE_EVENT: i32 = 3;
const TRACE_EVENT: i32 = 4;
const POLICY_VERDICT_EVENT: i32 = 5;
const L7_EVENT: i32 = 129;
/// Identity of the node itself, which may reach its own pods whatever policy says.
const HOST: u32 = 1;
/// Labels of addresses outside the cluster.
const WORLD: [&str; 3] = ["reserved:world", "reserved:world-ipv4", "reserved:world-ipv6"];
/// How a policy matched, by `policy_match_type`.
const MATCHES: [&str; 7] = ["none", "l3-only", "l3-l4", "l4-only", "all", "l3-proto", "proto-only"];

/// One metric that counts.
#[derive(Debug)]
pub(super) struct Handler {
    settings: MetricSettings,
    series: SeriesSet,
    ports: Ports,
    key: Key,
}

impl Handler {
    pub(super) fn new(settings: MetricSettings) -> Self {
        let description = match settings.metric {
            Metric::Flow => &FLOW,
            Metric::Drop => &DROP,
            Metric::Tcp => &TCP,
            Metric::Icmp => &ICMP,
            Metric::PortDistribution => &PORT_DISTRIBUTION,
            Metric::FlowsToWorld { .. } => &FLOWS_TO_WORLD,
            Metric::Policy => &POLICY,
        };
        let mut labels: Vec<(&str, Vec<Subject>)> =
            description.labels.iter().map(|name| (*name, Vec::new())).collect();
        if let Metric::FlowsToWorld { port: true, .. } = settings.metric {
            labels.push(("port", Vec::new()));
        }
        labels.extend(settings.contexts.names());
        let series = SeriesSet::new(description, labels);
        Self { settings, series, ports: Ports::default(), key: Key::default() }
    }

    pub(super) fn count(&mut self, flow: &Flow) {
        match self.settings.metric {
            Metric::Flow => self.flow(flow),
            Metric::Drop => self.drop(flow),
            Metric::Tcp => self.tcp(flow),
            Metric::Icmp => self.icmp(flow),
            Metric::PortDistribution => self.port_distribution(flow),
            Metric::FlowsToWorld { any_drop, port, syn_only } => {
                self.flows_to_world(flow, any_drop, port, syn_only);
            }
            Metric::Policy => self.policy(flow),
        }
    }

    pub(super) fn names_somebody(&self) -> bool {
        self.series.names_somebody()
    }

    pub(super) fn forget(&mut self, now: Instant, living: &Living<'_>) {
        self.series.forget(now, living);
    }

    pub(super) fn family(&self) -> Family {
        self.series.family()
    }

    pub(super) fn uncounted(&self) -> u64 {
        self.series.uncounted()
    }

    /// Counts one in the series of these values and of the flow's contexts.
    fn add(&mut self, own: &[&str], flow: &Flow) {
        self.key.clear();
        for value in own {
            self.key.push(value);
        }
        self.settings.contexts.push(flow, &mut self.key);
        self.series.count(&self.key);
    }

    fn flow(&mut self, flow: &Flow) {
        let event = flow.event_type.unwrap_or_default();
        let (kind, sub_kind): (_, Cow<'_, str>) = match event.r#type {
            DROP_EVENT => ("Drop", "".into()),
            CAPTURE_EVENT => ("Capture", "".into()),
            TRACE_EVENT => ("Trace", trace_point(event.sub_type).into()),
            POLICY_VERDICT_EVENT => ("PolicyVerdict", "".into()),
            L7_EVENT => ("L7", "".into()),
            other => ("Unknown", other.to_string().into()),
        };
        self.add(&[protocol(flow), kind, &sub_kind, &verdict(flow)], flow);
    }

    fn drop(&mut self, flow: &Flow) {
        if flow.verdict() == Verdict::Dropped {
            let reason = DropReason::try_from(flow.drop_reason_desc)
                .map_or_else(|_| flow.drop_reason_desc.to_string().into(), |it| Cow::from(it.as_str_name()));
            self.add(&[&reason, protocol(flow)], flow);
        }
    }

    fn tcp(&mut self, flow: &Flow) {
        let (Some(Protocol::Tcp(tcp)), Some(ip)) = (l4(flow), &flow.ip) else { return };
        let Some(flags) = &tcp.flags else { return };
        if !is_forwarded(flow) {
            return;
        }
        let family = IpVersion::try_from(ip.ip_version).unwrap_or_default().as_str_name();
        for (is_set, flag) in [
            (flags.fin, "FIN"),
            (flags.syn && flags.ack, "SYN-ACK"),
            (flags.syn && !flags.ack, "SYN"),
            (flags.rst, "RST"),
        ] {
            if is_set {
                self.add(&[flag, family], flow);
            }
        }
    }

    fn icmp(&mut self, flow: &Flow) {
        match l4(flow) {
            Some(Protocol::IcmPv4(icmp)) => self.add(&["IPv4", &icmp::v4(icmp.r#type, icmp.code)], flow),
            Some(Protocol::IcmPv6(icmp)) => self.add(&["IPv6", &icmp::v6(icmp.r#type, icmp.code)], flow),
            _ => {}
        }
    }

    fn port_distribution(&mut self, flow: &Flow) {
        // Of a packet that belongs to no connection it isn't known which port is the server's.
        if !is_forwarded(flow) || flow.is_reply != Some(false) {
            return;
        }
        if let Some(l4) = l4(flow) {
            let port = self.port(l4).unwrap_or_else(|| "0".to_owned());
            self.add(&[l4_name(l4), &port], flow);
        }
    }

    fn flows_to_world(&mut self, flow: &Flow, any_drop: bool, with_port: bool, syn_only: bool) {
        let is_to_world = flow
            .destination
            .as_ref()
            .is_some_and(|end| end.labels.iter().any(|label| WORLD.contains(&&**label)));
        let Some(l4) = l4(flow).filter(|_| is_to_world && flow.event_type.is_some()) else { return };
        let dropped = flow.verdict() == Verdict::Dropped;
        let is_reply = flow.is_reply == Some(true);
        if dropped && !any_drop && flow.drop_reason_desc() != DropReason::PolicyDenied {
            return;
        }
        if !dropped && is_reply {
            return;
        }
        let is_syn = matches!(l4, Protocol::Tcp(tcp) if tcp.flags.is_some_and(|flags| flags.syn));
        if syn_only && (!is_syn || is_reply) {
            return;
        }
        let port = if with_port { self.port(l4).unwrap_or_default() } else { String::new() };
        let own = [protocol(flow), &verdict(flow), &port];
        self.add(&own[..if with_port { 3 } else { 2 }], flow);
    }

    fn policy(&mut self, flow: &Flow) {
        let is_verdict = flow.event_type.is_some_and(|event| event.r#type == POLICY_VERDICT_EVENT);
        if !is_verdict || flow.source.as_ref().is_some_and(|source| source.identity == HOST) {
            return;
        }
        let direction = flow.traffic_direction().as_str_name().to_lowercase();
        let matched = usize::try_from(flow.policy_match_type).ok().and_then(|at| MATCHES.get(at));
        let action = verdict(flow).to_lowercase();
        self.add(&[&direction, matched.unwrap_or(&"unknown"), &action], flow);
    }

    /// The destination's port, where there are ports.
    fn port(&mut self, l4: &Protocol) -> Option<String> {
        let (number, port) = match l4 {
            Protocol::Tcp(tcp) => (6, tcp.destination_port),
            Protocol::Udp(udp) => (17, udp.destination_port),
            Protocol::Sctp(sctp) => (132, sctp.destination_port),
            Protocol::IcmPv4(_) | Protocol::IcmPv6(_) | Protocol::Vrrp(_) | Protocol::Igmp(_) => return None,
        };
        Some(self.ports.label(number, port))
    }
}

fn l4(flow: &Flow) -> Option<&Protocol> {
    flow.l4.as_ref()?.protocol.as_ref()
}

fn is_forwarded(flow: &Flow) -> bool {
    matches!(flow.verdict(), Verdict::Forwarded | Verdict::Redirected)
}

fn verdict(flow: &Flow) -> Cow<'static, str> {
    match Verdict::try_from(flow.verdict) {
        Ok(verdict) => verdict.as_str_name().into(),
        Err(_) => flow.verdict.to_string().into(),
    }
}

fn protocol(flow: &Flow) -> &'static str {
    match flow.event_type.map(|event| event.r#type) {
        Some(DROP_EVENT | CAPTURE_EVENT | TRACE_EVENT | POLICY_VERDICT_EVENT) => {
            l4(flow).map_or("Unknown L4", l4_name)
        }
        Some(L7_EVENT) => "Unknown L7",
        _ => "Unknown flow",
    }
}

fn l4_name(l4: &Protocol) -> &'static str {
    match l4 {
        Protocol::Tcp(_) => "TCP",
        Protocol::Udp(_) => "UDP",
        Protocol::IcmPv4(_) => "ICMPv4",
        Protocol::IcmPv6(_) => "ICMPv6",
        Protocol::Sctp(_) => "SCTP",
        Protocol::Vrrp(_) => "VRRP",
        Protocol::Igmp(_) => "IGMP",
    }
}

/// `to-endpoint` and so on. The schema's enum has 0 for unknown and so says 101 for the kernel's 0.
fn trace_point(sub_type: i32) -> String {
    let number = if sub_type == 0 { TraceObservationPoint::ToEndpoint as i32 } else { sub_type };
    TraceObservationPoint::try_from(number)
        .map(|point| point.as_str_name().to_lowercase().replace('_', "-"))
        .unwrap_or_default()
}
