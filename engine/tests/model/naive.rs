//! What policy.md says, read off the objects one by one for one connection: no tables, no classes, no numbers, nothing
//! shared with the resolver. Slow and plain, so that it can be checked by eye against the text; the numbers in comments
//! are policy.md's.

use std::net::IpAddr;

use ipnet::IpNet;
use sinew_api::policy::{
    CidrGroup, CidrGroupMatch, CidrReach, Enforcement, Entity, PeerMatch, Peers, Policy, PortMatchKind,
    Protocol, Rule, RuleAction,
};
use sinew_api::selector::{Operator, Selector};

/// Source, key and value.
pub(crate) type Label = (String, String, String);

/// One side of a connection.
#[derive(Clone, Debug)]
pub(crate) struct End {
    /// What its identity stands for.
    pub(crate) labels: Vec<Label>,
    /// What others of the same number are: the API server's addresses have one, wherever they are (6).
    pub(crate) others: Vec<Vec<Label>>,
    pub(crate) address: IpAddr,
    /// Name, protocol and number of the ports of its identity's pods.
    pub(crate) ports: Vec<(String, Protocol, u16)>,
}

/// Who enforces.
#[derive(Clone, Debug)]
pub(crate) struct Enforcer {
    pub(crate) labels: Vec<Label>,
    /// Its own ports.
    pub(crate) ports: Vec<(String, Protocol, u16)>,
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) protocol: u8,
    /// Port, or ICMP type.
    pub(crate) port: u16,
}

/// What is in force and where things are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cluster {
    pub(crate) name: String,
    pub(crate) policies: Vec<Policy>,
    pub(crate) groups: Vec<CidrGroup>,
    pub(crate) pod_ranges: Vec<IpNet>,
    /// Addresses of pods, which count as pods also outside of the ranges.
    pub(crate) pod_addresses: Vec<IpAddr>,
    pub(crate) node_addresses: Vec<IpAddr>,
}

/// The verdict on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    Allow,
    DefaultDeny,
    Deny,
}

/// Enforced, and with audit policies (13).
pub(crate) fn judge(
    cluster: &Cluster,
    enforcer: &Enforcer,
    ingress: bool,
    peer: &End,
    traffic: Traffic,
) -> (Verdict, Verdict) {
    let judge = |with_audit| {
        let as_others = peer.others.iter().map(|labels| End { labels: labels.clone(), ..peer.clone() });
        let all = as_others.chain([peer.clone()]);
        all.map(|peer| one(cluster, enforcer, ingress, &peer, traffic, with_audit)).max().unwrap()
    };
    (judge(false), judge(true))
}

fn one(
    cluster: &Cluster,
    enforcer: &Enforcer,
    ingress: bool,
    peer: &End,
    traffic: Traffic,
    with_audit: bool,
) -> Verdict {
    let init = is(&enforcer.labels, "init");
    // 8: init always enforces.
    let (mut default_deny, mut allowed, mut denied) = (init, false, false);
    for policy in &cluster.policies {
        if policy.enforcement == Enforcement::Audit && !with_audit {
            continue;
        }
        for spec in policy.specs.iter().filter(|spec| selects(&spec.subject, &enforcer.labels)) {
            let (switch, rules) = match ingress {
                true => (spec.default_deny_ingress, &spec.ingress),
                false => (spec.default_deny_egress, &spec.egress),
            };
            default_deny |= switch;
            for rule in rules {
                if matches(cluster, enforcer, ingress, rule, peer, traffic) {
                    allowed |= rule.action == RuleAction::Allow;
                    denied |= rule.action == RuleAction::Deny;
                }
            }
        }
    }
    // 7.
    allowed |= ingress && !init && is(&peer.labels, "host");
    // 11.
    match (denied, allowed, default_deny) {
        (true, _, _) => Verdict::Deny,
        (_, true, _) => Verdict::Allow,
        (_, _, true) => Verdict::DefaultDeny,
        _ => Verdict::Allow,
    }
}

fn matches(
    cluster: &Cluster,
    enforcer: &Enforcer,
    ingress: bool,
    rule: &Rule,
    peer: &End,
    traffic: Traffic,
) -> bool {
    // How the peer is found: by who he is, or only by his address.
    let (by_identity, by_address) = match &rule.peers {
        Peers::Any => (true, false),
        Peers::OneOf(peers) => {
            let identity = peers.iter().any(|p| match &p.matches {
                PeerMatch::Labels(selector) => selects(selector, &peer.labels),
                PeerMatch::Entity(entity) => is_entity(cluster, *entity, &peer.labels),
                _ => false,
            });
            let address = peers.iter().any(|p| match &p.matches {
                PeerMatch::Cidr { prefix, except, reach } => {
                    within(cluster, &[*prefix], except, *reach, peer.address)
                }
                PeerMatch::CidrGroup { group, except, reach } => {
                    within(cluster, &prefixes(cluster, group, rule.action), except, *reach, peer.address)
                }
                _ => false,
            });
            (identity, address)
        }
    };
    if !by_identity && !by_address {
        return false;
    }
    rule.ports.is_empty()
        || rule.ports.iter().any(|port| match &port.matches {
            PortMatchKind::Protocol(protocol) => traffic.protocol == *protocol as u8,
            PortMatchKind::Range { protocol, first, last } => {
                traffic.protocol == *protocol as u8 && (*first..=*last).contains(&traffic.port)
            }
            PortMatchKind::IcmpType { protocol, icmp_type } => {
                traffic.protocol == *protocol as u8 && traffic.port == u16::from(*icmp_type)
            }
            // 10.
            PortMatchKind::Named { protocol, name } => {
                let ports = if ingress { &enforcer.ports } else { &peer.ports };
                (ingress || by_identity)
                    && traffic.protocol == *protocol as u8
                    && ports.contains(&(name.clone(), *protocol, traffic.port))
            }
        })
}

/// 5.
fn within(
    cluster: &Cluster,
    prefixes: &[IpNet],
    except: &[IpNet],
    reach: CidrReach,
    address: IpAddr,
) -> bool {
    let in_any = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&address));
    let reached = if cluster.node_addresses.contains(&address) {
        reach.nodes
    } else if in_any(&cluster.pod_ranges) || cluster.pod_addresses.contains(&address) {
        reach.pods
    } else {
        true
    };
    reached && in_any(prefixes) && !in_any(except)
}

fn prefixes(cluster: &Cluster, wanted: &CidrGroupMatch, action: RuleAction) -> Vec<IpNet> {
    let named = cluster.groups.iter().filter(|group| match wanted {
        CidrGroupMatch::Name(name) => group.name == *name,
        CidrGroupMatch::Labels(selector) => {
            let labels: Vec<Label> =
                group.labels.iter().map(|(k, v)| ("k8s".to_owned(), k.clone(), v.clone())).collect();
            selects(selector, &labels)
        }
    });
    // What can be read of a refused group closes, and opens nothing.
    let counts = named.filter(|group| group.whole || action == RuleAction::Deny);
    counts.flat_map(|group| group.prefixes.clone()).collect()
}

/// 6.
fn is_entity(cluster: &Cluster, entity: Entity, labels: &[Label]) -> bool {
    let world = is(labels, "world") || is(labels, "world-ipv4") || is(labels, "world-ipv6");
    let elsewhere =
        labels.iter().any(|(_, key, value)| key == "io.cilium.k8s.policy.cluster" && *value != cluster.name);
    match entity {
        Entity::All => true,
        Entity::None => false,
        Entity::World => world,
        Entity::WorldIpv4 => is(labels, "world-ipv4"),
        Entity::WorldIpv6 => is(labels, "world-ipv6"),
        Entity::Cluster => (!world || is(labels, "kube-apiserver")) && !elsewhere,
        Entity::ClusterMesh => !world || is(labels, "kube-apiserver"),
        Entity::Host => is(labels, "host"),
        Entity::Init => is(labels, "init"),
        Entity::Ingress => is(labels, "ingress"),
        Entity::Unmanaged => is(labels, "unmanaged"),
        Entity::RemoteNode => is(labels, "remote-node"),
        Entity::Health => is(labels, "health"),
        Entity::KubeApiserver => is(labels, "kube-apiserver"),
    }
}

fn is(labels: &[Label], name: &str) -> bool {
    labels.iter().any(|(source, key, _)| source == "reserved" && key == name)
}

/// Kubernetes' selectors: all requirements hold; `NotIn` holds where the key is absent.
fn selects(selector: &Selector, labels: &[Label]) -> bool {
    for requirement in &selector.requirements {
        let mut values = Vec::new();
        for (source, key, value) in labels {
            if *key == requirement.key && (requirement.source == "any" || requirement.source == *source) {
                values.push(value);
            }
        }
        let holds = match &requirement.operator {
            Operator::In(wanted) => values.iter().any(|value| wanted.contains(value)),
            Operator::NotIn(unwanted) => values.iter().all(|value| !unwanted.contains(value)),
            Operator::Exists => !values.is_empty(),
            Operator::DoesNotExist => values.is_empty(),
        };
        if !holds {
            return false;
        }
    }
    true
}
