//! The parts of a flow's line: its two ends, the verdict, the summary, and their colours.

use sinew_api::proto::flow::{AuthType, Flow, Policy, TrafficDirection, Verdict, layer4};

use super::words;

/// How the parts are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// ANSI colours.
    pub(super) colours: bool,
    /// Names of pods and services in place of addresses.
    pub(super) names: bool,
    /// Names of policies behind policy verdicts.
    pub(super) policies: bool,
}

/// Colours, with their ANSI numbers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Hue {
    Red = 31,
    Green = 32,
    Yellow = 33,
    Magenta = 35,
    Cyan = 36,
}

/// Every sequence that [`Style::paint`] writes.
const OWN_SEQUENCES: [&str; 6] =
    ["\u{1b}[31m", "\u{1b}[32m", "\u{1b}[33m", "\u{1b}[35m", "\u{1b}[36m", "\u{1b}[0m"];

impl Style {
    /// Text in a colour.
    pub(super) fn paint(self, hue: Hue, text: &str) -> String {
        if self.colours { format!("\u{1b}[{}m{text}\u{1b}[0m", hue as u8) } else { text.to_owned() }
    }

    /// Text whose control characters can be seen, but for our own colours.
    pub(super) fn visible(self, text: &str) -> String {
        let mut made = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(place) = rest.find(['\u{1b}', '\r']) {
            made.push_str(&rest[..place]);
            rest = &rest[place..];
            let own = OWN_SEQUENCES.iter().find(|sequence| self.colours && rest.starts_with(**sequence));
            if let Some(sequence) = own {
                made.push_str(sequence);
                rest = &rest[sequence.len()..];
            } else {
                made.push_str(if rest.starts_with('\r') { "\\r" } else { "^[" });
                rest = &rest[1..];
            }
        }
        made.push_str(rest);
        made
    }

    /// Source and destination, as `namespace/pod:port` or what is known in its place.
    pub(super) fn hosts(self, flow: &Flow) -> (String, String) {
        let Some(ip) = &flow.ip else {
            let (source, destination) = flow
                .ethernet
                .as_ref()
                .map(|it| (it.source.as_str(), it.destination.as_str()))
                .unwrap_or_default();
            return (self.host(source), self.host(destination));
        };
        let end = |endpoint: Option<&sinew_api::proto::flow::Endpoint>,
                   service: Option<&sinew_api::proto::flow::Service>,
                   names: &[String],
                   address: &str,
                   port: Option<u32>| {
            let pod = endpoint.map(|it| it.pod_name.as_str()).unwrap_or_default();
            // The service's namespace stands for both, as in Hubble's client.
            let namespace = service
                .map(|it| it.namespace.as_str())
                .or(endpoint.map(|it| it.namespace.as_str()))
                .unwrap_or_default();
            let name = if !self.names {
                address.to_owned()
            } else if !pod.is_empty() {
                in_namespace(namespace, pod)
            } else if let Some(service) = service.filter(|it| !it.name.is_empty()) {
                in_namespace(namespace, &service.name)
            } else if names.is_empty() {
                address.to_owned()
            } else {
                names.join(",")
            };
            match port {
                Some(port) if port != 0 => {
                    let name = if name.contains(':') { format!("[{name}]") } else { name };
                    if self.colours {
                        self.host(&format!("{name}:{}", self.paint(Hue::Yellow, &port.to_string())))
                    } else {
                        format!("{name}:{port}")
                    }
                }
                _ => self.host(&name),
            }
        };
        let (source_port, destination_port) = ports(flow).unzip();
        (
            end(
                flow.source.as_ref(),
                flow.source_service.as_ref(),
                &flow.source_names,
                &ip.source,
                source_port,
            ),
            end(
                flow.destination.as_ref(),
                flow.destination_service.as_ref(),
                &flow.destination_names,
                &ip.destination,
                destination_port,
            ),
        )
    }

    /// The verdict; for a policy verdict in policy's words, with its policies if asked for.
    pub(super) fn verdict(self, flow: &Flow) -> String {
        let by_policy =
            flow.event_type.as_ref().is_some_and(|event| event.r#type == words::TYPE_POLICY_VERDICT);
        let policies = |egress: &[Policy], ingress: &[Policy]| match flow.traffic_direction() {
            TrafficDirection::Egress if self.policies => named(egress),
            TrafficDirection::Ingress if self.policies => named(ingress),
            _ => String::new(),
        };
        let verdict = flow.verdict();
        let plain = verdict.as_str_name();
        match verdict {
            Verdict::Forwarded | Verdict::Redirected if by_policy => {
                let by = policies(&flow.egress_allowed_by, &flow.ingress_allowed_by);
                self.paint(Hue::Green, &format!("ALLOWED{by}"))
            }
            Verdict::Forwarded | Verdict::Redirected => self.paint(Hue::Green, plain),
            Verdict::Dropped | Verdict::Error if by_policy => {
                let by = policies(&flow.egress_denied_by, &flow.ingress_denied_by);
                self.paint(Hue::Red, &format!("DENIED{by}"))
            }
            Verdict::Dropped | Verdict::Error => self.paint(Hue::Red, plain),
            // Hubble's client names no policies here; ours does if asked to.
            Verdict::Audit if by_policy => {
                let by = policies(&flow.egress_denied_by, &flow.ingress_denied_by);
                self.paint(Hue::Yellow, &format!("AUDITED{by}"))
            }
            Verdict::Audit | Verdict::Traced | Verdict::Translated => self.paint(Hue::Yellow, plain),
            Verdict::Unknown => plain.to_owned(),
        }
    }

    /// What the packet is.
    pub(super) fn summary(self, flow: &Flow) -> String {
        let mut text = String::new();
        if let Some(trace) = flow.ip_trace_id.as_ref().filter(|trace| trace.trace_id > 0) {
            text.push_str(&format!("IP Trace ID: {}; ", trace.trace_id));
        }
        text.push_str(&flow.summary);
        let auth = flow.auth_type();
        let hue = match auth {
            AuthType::Disabled => return text,
            AuthType::Spire => Hue::Green,
            AuthType::TestAlwaysFail => Hue::Red,
        };
        text.push_str(&format!("; Auth: {}", self.paint(hue, auth.as_str_name())));
        text
    }

    fn host(self, text: &str) -> String {
        if text.is_empty() { String::new() } else { self.paint(Hue::Cyan, text) }
    }
}

fn in_namespace(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}

fn ports(flow: &Flow) -> Option<(u32, u32)> {
    match flow.l4.as_ref()?.protocol.as_ref()? {
        layer4::Protocol::Tcp(it) => Some((it.source_port, it.destination_port)),
        layer4::Protocol::Udp(it) => Some((it.source_port, it.destination_port)),
        layer4::Protocol::Sctp(it) => Some((it.source_port, it.destination_port)),
        layer4::Protocol::IcmPv4(_)
        | layer4::Protocol::IcmPv6(_)
        | layer4::Protocol::Vrrp(_)
        | layer4::Protocol::Igmp(_) => None,
    }
}

/// ` BY web (CiliumNetworkPolicy), db (NetworkPolicy)`.
fn named(policies: &[Policy]) -> String {
    let whole = policies.iter().filter(|policy| !policy.kind.is_empty() && !policy.name.is_empty());
    let names: Vec<String> = whole.map(|policy| format!("{} ({})", policy.name, policy.kind)).collect();
    if names.is_empty() { String::new() } else { format!(" BY {}", names.join(", ")) }
}
