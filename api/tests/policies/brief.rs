//! Objects in the notation of the case files.

use sinew_api::labels::NAMESPACE;
use sinew_api::object::{CidrGroupKind, Object, Problem, Refused};
use sinew_api::policy::{
    CidrGroup, CidrGroupMatch, CidrReach, Enforcement, Entity, Peer, PeerMatch, Peers, Policy, PolicySpec,
    PortMatch, PortMatchKind, Protocol, Rule, RuleAction,
};
use sinew_api::selector::{Operator, Requirement, Selector};

/// The lines of an object, or of what is none.
pub(crate) fn object(read: &Result<Object, Refused>) -> Vec<String> {
    match read {
        Ok(Object::Policy(policy)) => self::policy(policy),
        Ok(Object::CidrGroup(group)) => vec![self::group(group)],
        Ok(other) => vec![other.name().to_string()],
        Err(refused) => problems("refused", &refused.problems),
    }
}

/// The lines of a policy.
pub(crate) fn policy(policy: &Policy) -> Vec<String> {
    let audit = if policy.enforcement == Enforcement::Audit { " audit" } else { "" };
    let mut lines = vec![format!("{}{audit}", policy.name)];
    for spec in &policy.specs {
        lines.extend(self::spec(spec));
    }
    lines.extend(problems("refused", &policy.problems));
    lines.extend(problems("warning", &policy.warnings));
    lines
}

fn spec(spec: &PolicySpec) -> Vec<String> {
    let denied = match (spec.default_deny_ingress, spec.default_deny_egress) {
        (true, true) => "ingress egress",
        (true, false) => "ingress",
        (false, true) => "egress",
        (false, false) => "nothing",
    };
    let mut lines = vec![format!("select {}, deny {denied}", selector(&spec.subject))];
    lines.extend(spec.ingress.iter().map(|rule| self::rule(rule, "from")));
    lines.extend(spec.egress.iter().map(|rule| self::rule(rule, "to")));
    if !spec.labels.is_empty() {
        lines.push(format!("labels {}", spec.labels.join(", ")));
    }
    lines.extend(spec.log.as_ref().map(|log| format!("log {log}")));
    lines
}

fn rule(rule: &Rule, word: &str) -> String {
    let action = match rule.action {
        RuleAction::Allow => "allow",
        RuleAction::Deny => "deny",
    };
    format!("{action} {} {word} {} on {}", rule.path, peers(&rule.peers), ports(&rule.ports))
}

/// The peers of a rule.
pub(crate) fn peers(peers: &Peers) -> String {
    match peers {
        Peers::Any => "any".to_owned(),
        Peers::OneOf(peers) if peers.is_empty() => "nobody".to_owned(),
        Peers::OneOf(peers) => peers.iter().map(peer).collect::<Vec<_>>().join(" | "),
    }
}

fn peer(peer: &Peer) -> String {
    let excepted = |except: &[ipnet::IpNet]| match except {
        [] => String::new(),
        nets => format!(" except {}", nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")),
    };
    match &peer.matches {
        PeerMatch::Labels(selector) => self::selector(selector),
        PeerMatch::Entity(entity) => format!("entity:{}", self::entity(*entity)),
        PeerMatch::Cidr { prefix, except, reach } => {
            format!("{prefix}{}{}", excepted(except), self::reach(*reach))
        }
        PeerMatch::CidrGroup { group, except, reach } => {
            let group = match group {
                CidrGroupMatch::Name(name) => format!("group:{name}"),
                CidrGroupMatch::Labels(selector) => format!("group{{{}}}", self::selector(selector)),
            };
            format!("{group}{}{}", excepted(except), self::reach(*reach))
        }
    }
}

fn reach(reach: CidrReach) -> String {
    let pods = if reach.pods { " +pods" } else { "" };
    let nodes = if reach.nodes { " +nodes" } else { "" };
    format!("{pods}{nodes}")
}

/// The ports of a rule.
pub(crate) fn ports(ports: &[PortMatch]) -> String {
    if ports.is_empty() { "all".to_owned() } else { ports.iter().map(port).collect::<Vec<_>>().join(", ") }
}

fn port(port: &PortMatch) -> String {
    match &port.matches {
        PortMatchKind::Protocol(protocol) => protocol_name(*protocol).to_owned(),
        PortMatchKind::Range { protocol, first, last } if first == last => {
            format!("{}/{first}", protocol_name(*protocol))
        }
        PortMatchKind::Range { protocol, first, last } => {
            format!("{}/{first}-{last}", protocol_name(*protocol))
        }
        PortMatchKind::Named { protocol, name } => format!("{}/{name}", protocol_name(*protocol)),
        PortMatchKind::IcmpType { protocol, icmp_type } => {
            format!("{}/{icmp_type}", protocol_name(*protocol))
        }
    }
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Icmp => "icmp",
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Icmpv6 => "icmpv6",
        Protocol::Sctp => "sctp",
    }
}

/// A selector: its requirements sorted, that on the namespace last.
pub(crate) fn selector(selector: &Selector) -> String {
    let (mut namespace, mut others): (Vec<_>, Vec<_>) = selector
        .requirements
        .iter()
        .map(requirement)
        .partition(|text| text == "ns" || text.starts_with("ns=") || text.starts_with("ns "));
    others.sort();
    namespace.sort();
    others.append(&mut namespace);
    if others.is_empty() { "*".to_owned() } else { others.join(" & ") }
}

fn requirement(requirement: &Requirement) -> String {
    let key = match (requirement.source.as_str(), requirement.key.as_str()) {
        ("k8s", NAMESPACE) => "ns".to_owned(),
        ("any", key) => key.to_owned(),
        (source, key) => format!("{source}:{key}"),
    };
    match &requirement.operator {
        Operator::In(values) => match values.as_slice() {
            [value] if value.is_empty() => key,
            [value] => format!("{key}={value}"),
            values => format!("{key} in ({})", values.join(",")),
        },
        Operator::NotIn(values) => format!("{key} notin ({})", values.join(",")),
        Operator::Exists => key,
        Operator::DoesNotExist => format!("!{key}"),
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

fn group(group: &CidrGroup) -> String {
    let kind = match group.kind {
        CidrGroupKind::Sinew => "SinewCIDRGroup",
        CidrGroupKind::Cilium => "CiliumCIDRGroup",
    };
    let prefixes: Vec<_> = group.prefixes.iter().map(ToString::to_string).collect();
    let labels: Vec<_> = group.labels.iter().map(|(key, value)| format!("; {key}={value}")).collect();
    format!("{kind}/{}: {}{}", group.name, prefixes.join(", "), labels.concat())
}

fn problems(word: &str, problems: &[Problem]) -> Vec<String> {
    problems.iter().map(|problem| format!("{word} {problem}")).collect()
}
