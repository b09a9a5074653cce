//! A rule in one line: `from app=web, 10.0.0.0/8 to 8080/TCP`.

use sinew_api::policy::{
    CidrGroupMatch, Entity, Peer, PeerMatch, Peers, PortMatch, PortMatchKind, Protocol, Rule,
};
use sinew_api::proto::flow::TrafficDirection;
use sinew_api::selector::{Operator, Requirement, Selector};

/// The line.
pub(super) fn rule_text(rule: &Rule, direction: TrafficDirection) -> String {
    let peers = match &rule.peers {
        Peers::Any => "anybody".to_owned(),
        Peers::OneOf(peers) if peers.is_empty() => "nobody".to_owned(),
        Peers::OneOf(peers) => list(peers, peer),
    };
    let ports = if rule.ports.is_empty() { "any port".to_owned() } else { list(&rule.ports, port) };
    let preposition = if direction == TrafficDirection::Ingress { "from" } else { "to" };
    format!("{preposition} {peers} on {ports}")
}

fn list<T>(items: &[T], text: impl Fn(&T) -> String) -> String {
    items.iter().map(text).collect::<Vec<_>>().join(", ")
}

fn peer(peer: &Peer) -> String {
    match &peer.matches {
        PeerMatch::Labels(labels) => selector(labels),
        PeerMatch::Entity(named) => entity(*named).to_owned(),
        PeerMatch::Cidr { prefix, except, .. } => without(prefix.to_string(), except),
        PeerMatch::CidrGroup { group: CidrGroupMatch::Name(name), except, .. } => {
            without(format!("CIDR group {name}"), except)
        }
        PeerMatch::CidrGroup { group: CidrGroupMatch::Labels(labels), except, .. } => {
            without(format!("CIDR groups {}", selector(labels)), except)
        }
    }
}

fn without(text: String, except: &[ipnet::IpNet]) -> String {
    if except.is_empty() { text } else { format!("{text} but not {}", list(except, ToString::to_string)) }
}

fn selector(selector: &Selector) -> String {
    if selector.requirements.is_empty() {
        return "every pod".to_owned();
    }
    format!("{{{}}}", list(&selector.requirements, requirement))
}

fn requirement(requirement: &Requirement) -> String {
    let Requirement { source, key, operator } = requirement;
    let key = if source == "any" { key.clone() } else { format!("{source}:{key}") };
    match operator {
        Operator::In(values) if values.len() == 1 => format!("{key}={}", values[0]),
        Operator::In(values) => format!("{key} in ({})", values.join(" ")),
        Operator::NotIn(values) => format!("{key} not in ({})", values.join(" ")),
        Operator::Exists => key,
        Operator::DoesNotExist => format!("no {key}"),
    }
}

fn entity(entity: Entity) -> &'static str {
    match entity {
        Entity::All => "all",
        Entity::World => "world",
        Entity::WorldIpv4 => "world-ipv4",
        Entity::WorldIpv6 => "world-ipv6",
        Entity::Cluster => "cluster",
        Entity::ClusterMesh => "cluster-mesh",
        Entity::Host => "host",
        Entity::Init => "init",
        Entity::Ingress => "ingress",
        Entity::Unmanaged => "unmanaged",
        Entity::RemoteNode => "remote-node",
        Entity::Health => "health",
        Entity::None => "none",
        Entity::KubeApiserver => "kube-apiserver",
    }
}

fn port(port: &PortMatch) -> String {
    match &port.matches {
        PortMatchKind::Protocol(transport) => protocol(*transport).to_owned(),
        PortMatchKind::Range { protocol: transport, first, last } if first == last => {
            format!("{first}/{}", protocol(*transport))
        }
        PortMatchKind::Range { protocol: transport, first, last } => {
            format!("{first}-{last}/{}", protocol(*transport))
        }
        PortMatchKind::Named { protocol: transport, name } => format!("{name}/{}", protocol(*transport)),
        PortMatchKind::IcmpType { protocol: transport, icmp_type } => {
            format!("type {icmp_type}/{}", protocol(*transport))
        }
    }
}

fn protocol(protocol: Protocol) -> &'static str {
    super::endpoints::protocol_name(protocol as u8)
}
