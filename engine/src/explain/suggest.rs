//! The smallest policy that would allow a connection: it selects the judged end, switches no default deny on, and names
//! the peer and the port. Applying it changes nothing else for whom it selects.
//!
//! Labels that Deployments and the like put on their pods are enough to name a pod; all of its labels are named only where
//! it has none of those.
//!
//! Neighbours: `explain.rs` asks after a default deny.

use std::net::IpAddr;

use sinew_api::identity::Identity;
use sinew_api::labels::{Labels, NAMESPACE, NAMESPACE_LABELS_PREFIX};

use super::Traffic;
use super::party::{End, Standing};
use crate::numbers::Direction;

/// Labels that name what a pod is.
const NAMING: [&str; 3] = ["app.kubernetes.io/name", "k8s-app", "app"];

/// A policy object as YAML; empty for traffic or a peer that the schema has no word for.
pub(super) fn policy(direction: Direction, judged: &End, peer: &End, traffic: &Traffic) -> String {
    let namespace = judged.labels.get("k8s", NAMESPACE);
    let mut lines = vec!["apiVersion: sinew.io/v1".to_owned()];
    let name = name(direction, judged, peer, traffic);
    match namespace {
        Some(namespace) => {
            lines.push("kind: SinewNetworkPolicy".to_owned());
            lines.push(format!("metadata: {{name: {name}, namespace: {}}}", quoted(namespace)));
        }
        None => {
            lines.push("kind: SinewClusterwideNetworkPolicy".to_owned());
            lines.push(format!("metadata: {{name: {name}}}"));
        }
    }
    let (section, word) = match direction {
        Direction::Ingress => ("ingress", "from"),
        Direction::Egress => ("egress", "to"),
    };
    // An address that was made up to be judged by names nobody.
    let Some(peers) = peers(peer, namespace) else { return String::new() };
    lines.push("spec:".to_owned());
    if peers.needs_pods {
        lines.push("  policyCIDRMatchMode: [pods]".to_owned());
    }
    lines.push(format!("  endpointSelector: {}", selector(&judged.labels, namespace)));
    lines.push(format!("  enableDefaultDeny: {{{section}: false}}"));
    lines.push(format!("  {section}:"));
    lines.push(format!("  - {word}{}", peers.field));
    let Ok(ports) = ports(traffic) else { return String::new() };
    lines.extend(ports.map(|ports| format!("    {ports}")));
    lines.push(String::new());
    lines.join("\n")
}

/// A name of the two ends and the traffic, so that a second suggestion is a second object.
fn name(direction: Direction, judged: &End, peer: &End, traffic: &Traffic) -> String {
    let namespace = |end: &End| end.labels.get("k8s", NAMESPACE).unwrap_or_default().to_owned();
    let mut other = called(peer);
    if namespace(peer) != namespace(judged) {
        other = format!("{} {other}", namespace(peer));
    }
    let word = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    let protocol = match traffic.protocol {
        None => String::new(),
        Some(1) => "icmp".to_owned(),
        Some(6) => "tcp".to_owned(),
        Some(17) => "udp".to_owned(),
        Some(58) => "icmpv6".to_owned(),
        Some(132) => "sctp".to_owned(),
        Some(other) => format!("protocol {other}"),
    };
    let port = traffic.port.map(|port| port.to_string()).unwrap_or_default();
    let text = format!("{} {word} {other} {protocol} {port}", called(judged)).to_ascii_lowercase();
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-")
}

/// What an end is called in a name: at most as long as leaves room for the rest (an object's name has 253 characters).
fn called(end: &End) -> String {
    let outside = matches!(end.identity, Identity::WORLD | Identity::WORLD_IPV4 | Identity::WORLD_IPV6);
    let mut text = match end.identity.reserved_name() {
        Some(_) if outside && !end.addresses.is_empty() => end.address.to_string(),
        Some(reserved) => reserved.to_owned(),
        None => match own_labels(&end.labels).as_slice() {
            [] if end.labels.get("k8s", NAMESPACE).is_some() => "pods".to_owned(),
            [] if end.standing == Standing::Own => end.address.to_string(),
            [] => "pods".to_owned(),
            chosen => chosen.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(" "),
        },
    };
    text.truncate(text.floor_char_boundary(64));
    text
}

/// The field of a rule that names a peer, without `from` or `to`.
struct PeerField {
    field: String,
    /// It is a CIDR that must reach pods.
    needs_pods: bool,
}

/// `None` where nothing that a policy can say names the peer.
fn peers(peer: &End, namespace: Option<&str>) -> Option<PeerField> {
    let field = |field: String| Some(PeerField { field, needs_pods: false });
    let prefix = || match peer.address {
        IpAddr::V4(v4) => format!("{v4}/32"),
        IpAddr::V6(v6) => format!("{v6}/128"),
    };
    match peer.identity {
        // An address of the world is somebody, the world in general is not.
        Identity::WORLD | Identity::WORLD_IPV4 | Identity::WORLD_IPV6 if !peer.addresses.is_empty() => {
            field(format!("CIDR: [{}]", prefix()))
        }
        identity => match identity.reserved_name() {
            Some(name) => field(format!("Entities: [{name}]")),
            None if peer.labels.get("k8s", NAMESPACE).is_some() => {
                field(format!("Endpoints: [{}]", selector(&peer.labels, namespace)))
            }
            // Labels of a CNI configuration are in no namespace, and peers are always looked for in one.
            None if peer.standing != Standing::Own => None,
            None => Some(PeerField { field: format!("CIDR: [{}]", prefix()), needs_pods: true }),
        },
    }
}

/// A selector of the labels that name an end; with its namespace, where it is not that of the policy, which has none where
/// it is clusterwide.
fn selector(labels: &Labels, namespace: Option<&str>) -> String {
    let mut chosen: Vec<(String, String)> = Vec::new();
    if let Some(theirs) = labels.get("k8s", NAMESPACE)
        && namespace != Some(theirs)
    {
        chosen.push((format!("k8s:{NAMESPACE}"), theirs.to_owned()));
    }
    chosen.extend(own_labels(labels));
    debug_assert!(!chosen.iter().any(|(key, _)| key.starts_with(NAMESPACE_LABELS_PREFIX)));
    if chosen.is_empty() {
        return "{}".to_owned();
    }
    let pairs: Vec<String> =
        chosen.iter().map(|(key, value)| format!("{}: {}", quoted(key), quoted(value))).collect();
    format!("{{matchLabels: {{{}}}}}", pairs.join(", "))
}

/// The labels that name an end, with the source where that is not `k8s`.
fn own_labels(labels: &Labels) -> Vec<(String, String)> {
    let own = |source: &str, key: &str| {
        source != "k8s" || !(key.starts_with("io.kubernetes.") || key.starts_with("io.cilium.k8s."))
    };
    let all: Vec<_> = labels.iter().filter(|(label, _)| own(label.source, label.key)).collect();
    let naming = NAMING.iter().find_map(|key| all.iter().find(|(label, _)| label.key == *key));
    let named: Vec<_> = naming.map_or(all.clone(), |naming| vec![*naming]);
    let written = named.into_iter().map(|(label, value)| {
        let key = match label.source {
            "k8s" => label.key.to_owned(),
            source => format!("{source}:{}", label.key),
        };
        (key, value.to_owned())
    });
    written.collect()
}

/// The field that names the traffic; none for traffic without a port that a rule could name.
fn ports(traffic: &Traffic) -> Result<Option<String>, ()> {
    let Some(protocol) = traffic.protocol else { return Ok(None) };
    let port = traffic.port;
    let l4 =
        |name: &str| format!("toPorts: [{{ports: [{{port: \"{}\", protocol: {name}}}]}}]", port.unwrap_or(0));
    Ok(Some(match (protocol, port) {
        (6, _) => l4("TCP"),
        (17, _) => l4("UDP"),
        (132, _) => l4("SCTP"),
        (1, Some(kind)) if kind < 256 => format!("icmps: [{{fields: [{{family: IPv4, type: {kind}}}]}}]"),
        (58, Some(kind)) if kind < 256 => format!("icmps: [{{fields: [{{family: IPv6, type: {kind}}}]}}]"),
        (1 | 58, _) => return Err(()),
        // No field names other protocols: only a rule without ports holds them.
        _ => return Ok(None),
    }))
}

/// A text as a YAML scalar that stays text.
fn quoted(text: &str) -> String {
    let plain = !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && !matches!(
            text.to_ascii_lowercase().as_str(),
            "true" | "false" | "yes" | "no" | "on" | "off" | "null" | "y" | "n"
        );
    if plain { text.to_owned() } else { format!("{text:?}") }
}
