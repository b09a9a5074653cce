//! What fields ask for and what connections have, in the words that policies are written in.
//!
//! Neighbours: `near.rs` and `explain.rs` put them together, `suggest.rs` names the same things as YAML.

use sinew_api::object::PolicyKind;
use sinew_api::policy::{
    CidrGroupMatch, CidrReach, Entity, PeerMatch, Peers, Policy, PortMatchKind, Protocol, Rule,
};
use sinew_api::selector::{Operator, Selector};

use super::party::{End, Standing};
use super::{DirectionExplanation, RuleRef, Traffic, Verdict};
use crate::numbers::{Cause, Direction, Place};

/// A rule in one line: `from {app=web}, 10.0.0.0/8 on 8080/TCP`. A selector stands in braces, since it may have commas.
#[must_use]
pub fn rule_text(rule: &Rule, direction: Direction) -> String {
    let one_peer = |matches: &PeerMatch| match matches {
        PeerMatch::Labels(labels) => format!("{{{}}}", selector(labels)),
        other => peer(other),
    };
    let peers = match &rule.peers {
        Peers::Any => "anybody".to_owned(),
        Peers::OneOf(peers) if peers.is_empty() => "nobody".to_owned(),
        Peers::OneOf(peers) => {
            peers.iter().map(|peer| one_peer(&peer.matches)).collect::<Vec<_>>().join(", ")
        }
    };
    let ports = match rule.ports.as_slice() {
        [] => "any port".to_owned(),
        ports => ports.iter().map(|port| self::port(&port.matches)).collect::<Vec<_>>().join(", "),
    };
    let preposition = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    format!("{preposition} {peers} on {ports}")
}

/// One sentence on a direction.
pub(super) fn summary(explanation: &DirectionExplanation) -> String {
    let direction = match explanation.direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    };
    let name = &explanation.endpoint;
    match (&explanation.verdict, &explanation.rule) {
        (Verdict::Drop(reason), _) => {
            format!("{direction} of {name} is dropped before any rule is asked: {}", reason.words())
        }
        (_, None) => format!("no policy enforces {direction} of {name}"),
        (Verdict::Allow, Some(rule)) => format!("{direction} of {name} is allowed by {}", cause(rule)),
        (Verdict::Deny, Some(rule)) => format!("{direction} of {name} is denied by {}", cause(rule)),
        (Verdict::DefaultDeny, Some(rule)) => {
            let refused = explanation.denied_by.iter().filter_map(|policy| {
                policy.refused.as_ref().map(|field| format!("; {} is refused: {field}", policy.policy))
            });
            format!(
                "no rule allows it: {direction} of {name} is under {}{}",
                cause(rule),
                refused.collect::<String>()
            )
        }
    }
}

fn cause(rule: &RuleRef) -> String {
    match &rule.cause {
        Cause::Rule { policy, path } => format!("{policy} {path}"),
        Cause::DefaultDeny { policies, .. } => {
            let names: Vec<String> = policies.iter().map(ToString::to_string).collect();
            format!("default deny by {}", names.join(", "))
        }
        Cause::Init => "default deny, as its labels are not known yet (reserved:init)".to_owned(),
        Cause::LocalHost => "the rule that a node reaches its own pods".to_owned(),
        Cause::Overflow { policy } => format!("{policy}, which does not fit into the policy table"),
    }
}

/// Path of the field that makes a policy audit only.
pub(super) fn enforcement_field(kind: PolicyKind) -> &'static str {
    match kind {
        PolicyKind::SinewNetworkPolicy | PolicyKind::SinewClusterwideNetworkPolicy => "spec.enforcement",
        PolicyKind::CiliumNetworkPolicy
        | PolicyKind::CiliumClusterwideNetworkPolicy
        | PolicyKind::NetworkPolicy => "metadata.annotations[sinew.io/enforcement]",
    }
}

/// Path of the field that selects, in a policy's spec of this index.
pub(super) fn subject_field(policy: &Policy, index: usize) -> String {
    let selector =
        if policy.name.kind == PolicyKind::NetworkPolicy { "podSelector" } else { "endpointSelector" };
    // A rule's path begins with that of its spec.
    let spec = policy.specs.get(index);
    let rule = spec.and_then(|spec| spec.ingress.iter().chain(&spec.egress).next());
    let of_rule = rule.and_then(|rule| rule.path.split('.').next());
    format!("{}.{selector}", of_rule.unwrap_or("spec"))
}

/// A selector as its author would say it.
pub(super) fn selector(selector: &Selector) -> String {
    if selector.requirements.is_empty() {
        return "everybody".to_owned();
    }
    let one = |requirement: &sinew_api::selector::Requirement| {
        let key = match requirement.source.as_str() {
            "any" | "k8s" => requirement.key.clone(),
            source => format!("{source}:{}", requirement.key),
        };
        match &requirement.operator {
            Operator::In(values) if values.len() == 1 && values[0].is_empty() => key,
            Operator::In(values) if values.len() == 1 => format!("{key}={}", values[0]),
            Operator::In(values) => format!("{key} in ({})", values.join(", ")),
            Operator::NotIn(values) => format!("{key} not in ({})", values.join(", ")),
            Operator::Exists => format!("{key} is there"),
            Operator::DoesNotExist => format!("{key} is not there"),
        }
    };
    selector.requirements.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// A peer.
pub(super) fn peer(matches: &PeerMatch) -> String {
    let cut = |except: &[ipnet::IpNet]| match except {
        [] => String::new(),
        except => {
            format!(" except {}", except.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
        }
    };
    match matches {
        PeerMatch::Labels(labels) => selector(labels),
        PeerMatch::Entity(entity) => format!("entity {}", self::entity(*entity)),
        PeerMatch::Cidr { prefix, except, .. } => format!("{prefix}{}", cut(except)),
        PeerMatch::CidrGroup { group, except, .. } => match group {
            CidrGroupMatch::Name(name) => format!("CIDR group {name}{}", cut(except)),
            CidrGroupMatch::Labels(labels) => format!("CIDR groups with {}{}", selector(labels), cut(except)),
        },
    }
}

/// An entity as it is written.
pub(super) fn entity(entity: Entity) -> &'static str {
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

/// Who an end is.
pub(super) fn who(end: &End) -> String {
    match end.identity.reserved_name() {
        Some(name) if name != end.name => format!("{} ({name})", end.name),
        _ => end.name.clone(),
    }
}

/// The address that is judged, where it is the end's own; none that was made up is told.
pub(super) fn address(end: &End) -> String {
    match end.standing {
        Standing::Own => end.address.to_string(),
        Standing::Lent => format!("{}, whose address is not known yet", end.name),
        Standing::General => format!("{}, no address of it in particular", end.name),
        Standing::Unknown => format!("{}, of which no address is known here", end.name),
    }
}

/// Why an address is not what a CIDR matches, which holds it or not.
pub(super) fn address_for_cidr(end: &End, place: Place, reach: CidrReach, holds: bool) -> String {
    let address = address(end);
    match place {
        _ if !holds => address,
        Place::Pods if !reach.pods => format!("{address}, a pod, which this CIDR does not reach"),
        Place::Nodes if !reach.nodes => format!("{address}, a node, which this CIDR does not reach"),
        Place::World | Place::Pods | Place::Nodes => address,
    }
}

/// IANA number of a port field's protocol.
pub(super) fn protocol_of(kind: &PortMatchKind) -> Option<u8> {
    Some(match kind {
        PortMatchKind::Protocol(protocol)
        | PortMatchKind::Range { protocol, .. }
        | PortMatchKind::Named { protocol, .. }
        | PortMatchKind::IcmpType { protocol, .. } => *protocol as u8,
    })
}

/// A port field.
pub(super) fn port(kind: &PortMatchKind) -> String {
    match kind {
        PortMatchKind::Protocol(protocol) => format!("all {}", name_of(*protocol as u8)),
        PortMatchKind::Range { protocol, first, last } if first == last => {
            format!("{first}/{}", name_of(*protocol as u8))
        }
        PortMatchKind::Range { protocol, first, last } => {
            format!("{first}-{last}/{}", name_of(*protocol as u8))
        }
        PortMatchKind::Named { protocol, name } => format!("{name}/{}", name_of(*protocol as u8)),
        PortMatchKind::IcmpType { protocol, icmp_type } => {
            format!("{} type {icmp_type}", name_of(*protocol as u8))
        }
    }
}

/// What is sent.
pub(super) fn traffic(traffic: &Traffic) -> String {
    match (traffic.protocol, traffic.port) {
        (None, _) => "no port".to_owned(),
        (Some(protocol), None) => format!("{} without a port", name_of(protocol)),
        (Some(protocol @ (1 | 58)), Some(kind)) => format!("{} type {kind}", name_of(protocol)),
        (Some(protocol), Some(port)) => format!("{port}/{}", name_of(protocol)),
    }
}

/// A protocol's name, or its number.
pub(super) fn name_of(protocol: u8) -> String {
    let named = [Protocol::Icmp, Protocol::Tcp, Protocol::Udp, Protocol::Icmpv6, Protocol::Sctp];
    match named.into_iter().find(|named| *named as u8 == protocol) {
        Some(Protocol::Icmp) => "ICMP".to_owned(),
        Some(Protocol::Tcp) => "TCP".to_owned(),
        Some(Protocol::Udp) => "UDP".to_owned(),
        Some(Protocol::Icmpv6) => "ICMPv6".to_owned(),
        Some(Protocol::Sctp) => "SCTP".to_owned(),
        None => format!("protocol {protocol}"),
    }
}

#[cfg(test)]
mod tests {
    use sinew_api::object::{Object, decode_text};

    use super::*;

    #[test]
    fn a_rule_is_one_line() {
        let text = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p}\nspec:\n  endpointSelector: {}\n  \
                    ingress:\n  - fromEndpoints: [{matchLabels: {app: web, tier: front}}]\n    \
                    toPorts: [{ports: [{port: \"8080\", protocol: TCP}]}]\n  - fromEntities: [world]\n  - {}\n  egress:\n  \
                    - toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}]\n";
        let Ok(Object::Policy(policy)) = decode_text("p.yaml", text).remove(0) else { panic!("no policy") };
        assert_eq!(policy.problems, []);
        let spec = &policy.specs[0];
        let ingress: Vec<_> = spec.ingress.iter().map(|rule| rule_text(rule, Direction::Ingress)).collect();
        assert!(ingress[0].starts_with("from {app=web, tier=front"), "{}", ingress[0]);
        assert!(ingress[0].ends_with("} on 8080/TCP"), "{}", ingress[0]);
        assert_eq!(ingress[1], "from entity world on any port");
        assert_eq!(
            rule_text(&spec.egress[0], Direction::Egress),
            "to 10.0.0.0/8 except 10.1.0.0/16 on any port"
        );
    }
}
