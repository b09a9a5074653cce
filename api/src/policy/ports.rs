//! `toPorts` of the Cilium schema and `ports` of NetworkPolicy.

use super::{PortMatch, PortMatchKind, Protocol, RuleAction};
use crate::fields::{Field, Fields, Report};
use crate::names;
use crate::yaml::Value;

/// Most ports in one element of `toPorts`, as in Cilium's schema.
const MAX_PORTS: usize = 40;

/// What `ANY` stands for where there is a port (policy.md 10).
const ANY: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// Reads an element of `toPorts`.
pub(super) fn to_ports(field: &Field<'_>, action: RuleAction, report: &mut Report) -> Vec<PortMatch> {
    let Some(mut fields) = field.fields(report) else { return Vec::new() };
    let list = fields.take("ports");
    if action == RuleAction::Allow {
        refuse_layer_7(&mut fields, report);
    }
    let mut matches = Vec::new();
    let ports = list.as_ref().and_then(|list| list.list(report));
    match (&list, ports) {
        (Some(list), Some(ports)) if ports.len() > MAX_PORTS => {
            list.refuse(report, format!("has {} ports, at most {MAX_PORTS} are allowed", ports.len()));
        }
        (_, Some(ports)) if !ports.is_empty() => {
            for port in ports {
                matches.extend(port_protocol(&port, report));
            }
        }
        (Some(_), None) => {}
        _ => {
            let message =
                "names no port, so the element would match nothing; leave toPorts away to mean every port";
            report.refuse(&fields.path_of("ports"), fields.line(), message);
        }
    }
    fields.finish(report);
    matches
}

/// The fields that need the HTTP or DNS proxy.
fn refuse_layer_7(fields: &mut Fields<'_>, report: &mut Report) {
    fields.not_enforced("terminatingTLS", "TLS termination is", report);
    fields.not_enforced("originatingTLS", "TLS origination is", report);
    fields.not_enforced("serverNames", "TLS server names are", report);
    fields.not_enforced("listener", "redirection to a listener is", report);
    let Some(rules) = fields.take("rules").and_then(|rules| rules.fields(report)) else { return };
    let mut rules = rules;
    for (name, what) in [
        ("http", "HTTP rules are"),
        ("dns", "DNS rules are"),
        ("kafka", "Kafka rules are"),
        ("l7proto", "rules of other layer-7 protocols are"),
        ("l7", "rules of other layer-7 protocols are"),
    ] {
        // An empty list still asks for the proxy in Cilium: it lets no request through.
        if let Some(field) = rules.take(name) {
            field.refuse(report, format!("{what} not enforced by this version"));
        }
    }
    rules.finish(report);
}

/// Reads `{port, endPort, protocol}` of the Cilium schema.
fn port_protocol(field: &Field<'_>, report: &mut Report) -> Vec<PortMatch> {
    let before = report.count();
    let Some(mut fields) = field.fields(report) else { return Vec::new() };
    let port = fields.take("port");
    let end = fields.take("endPort");
    let protocol = fields.take("protocol");
    let protocols = protocol.map_or(Some(ANY.to_vec()), |protocol| self::protocol(&protocol, report));
    // Of the protocols that are refused, some have no ports.
    if port.is_none() && protocols.is_some() {
        report.refuse(&fields.path_of("port"), fields.line(), "is missing");
    }
    fields.finish(report);
    let text = port.as_ref().and_then(|port| port.text(report));
    let (Some(port), Some(text), Some(protocols)) = (port, text, protocols) else { return Vec::new() };

    let kind: Box<dyn Fn(Protocol) -> PortMatchKind> = if is_name(text) {
        if let Err(wrong) = names::port_name(text) {
            port.refuse(report, wrong);
        }
        // Zero is how Cilium's schema says that there is none.
        if let Some(end) = end.filter(|end| end.node.value != Value::Integer(0)) {
            end.refuse(report, "cannot stand beside a named port");
        }
        // Port names are compared without regard to case; Kubernetes allows lower case only in containers.
        let name = text.to_ascii_lowercase();
        Box::new(move |protocol| PortMatchKind::Named { protocol, name: name.clone() })
    } else {
        let Some(first) = number(text) else {
            let text = names::shown(text);
            port.refuse(
                report,
                format!("{text:?} is not a port: 0 (every port) to 65535, without leading zeros, or a name"),
            );
            return Vec::new();
        };
        let last = match &end {
            Some(end) => match end.integer(0..=65535, report) {
                Some(0) => first,
                Some(last) => u16::try_from(last).unwrap_or(u16::MAX),
                None => return Vec::new(),
            },
            None => first,
        };
        match &end {
            Some(end) if first == 0 && last != 0 => {
                end.refuse(report, "a range cannot begin at port 0, which means every port")
            }
            Some(end) if last < first => end.refuse(report, format!("{last} is below port {first}")),
            _ => {}
        }
        if first == 0 {
            Box::new(PortMatchKind::Protocol)
        } else {
            Box::new(move |protocol| PortMatchKind::Range { protocol, first, last })
        }
    };
    if report.count() != before {
        return Vec::new();
    }
    protocols
        .into_iter()
        .map(|protocol| PortMatch { matches: kind(protocol), path: field.path.clone(), line: field.line })
        .collect()
}

/// `protocol` of the Cilium schema.
fn protocol(field: &Field<'_>, report: &mut Report) -> Option<Vec<Protocol>> {
    let name = field.text(report)?;
    match name {
        "TCP" => Some(vec![Protocol::Tcp]),
        "UDP" => Some(vec![Protocol::Udp]),
        "SCTP" => Some(vec![Protocol::Sctp]),
        "ANY" | "" => Some(ANY.to_vec()),
        "ICMP" | "ICMPv6" | "ICMPV6" => {
            field.refuse(report, format!("{name} has no ports; use icmps"));
            None
        }
        "VRRP" | "IGMP" | "GRE" | "IPIP" | "IPV6" | "ESP" | "AH" => {
            field.refuse(report, format!("{name} is not enforced by this version"));
            None
        }
        other => {
            let other = names::shown(other);
            field.refuse(report, format!("{other:?} is no protocol (known: TCP, UDP, SCTP, ANY)"));
            None
        }
    }
}

/// Reads an element of NetworkPolicy's `ports`.
pub(super) fn network_policy_port(field: &Field<'_>, report: &mut Report) -> Option<PortMatch> {
    let before = report.count();
    let mut fields = field.fields(report)?;
    let port = fields.take("port");
    let end = fields.take("endPort");
    let protocol = fields.take("protocol");
    fields.finish(report);
    let protocol = match protocol {
        None => Protocol::Tcp,
        Some(field) => match field.text(report)? {
            "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            "SCTP" => Protocol::Sctp,
            other => {
                let other = names::shown(other);
                field.refuse(report, format!("{other:?} is no protocol (known: TCP, UDP, SCTP)"));
                return None;
            }
        },
    };
    let matches = match (port, &end) {
        (None, None) => PortMatchKind::Protocol(protocol),
        (None, Some(end)) => {
            end.refuse(report, "needs a port to begin with");
            return None;
        }
        (Some(port), end) => match &port.node.value {
            Value::Integer(_) => {
                let first = u16::try_from(port.integer(1..=65535, report)?).ok()?;
                let last = match end {
                    Some(end) => u16::try_from(end.integer(1..=65535, report)?).ok()?,
                    None => first,
                };
                if let Some(end) = end.as_ref().filter(|_| last < first) {
                    end.refuse(report, format!("{last} is below port {first}"));
                }
                PortMatchKind::Range { protocol, first, last }
            }
            _ => {
                let name = port.text(report)?;
                if let Err(wrong) = names::port_name(name) {
                    port.refuse(report, wrong);
                } else if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
                    port.refuse(report, format!("port name {name:?} must be in lower case"));
                }
                if let Some(end) = end {
                    end.refuse(report, "cannot stand beside a named port");
                }
                PortMatchKind::Named { protocol, name: name.to_owned() }
            }
        },
    };
    (report.count() == before).then(|| PortMatch { matches, path: field.path.clone(), line: field.line })
}

/// Whether the text is meant as a name: as IANA's service names, it has a letter.
fn is_name(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_alphabetic())
}

fn number(text: &str) -> Option<u16> {
    let canonical = text == "0" || !text.starts_with('0');
    (canonical && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}
