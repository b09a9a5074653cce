//! What is valid but probably not meant: warnings of `policy validate` and `policy get` that need to know the cluster. What
//! an object shows by itself (a section that only denies, an entity that nobody is) its decoder says.
//!
//! Neighbours: `state/views.rs` puts these beside the decoder's; policy.md 5, 6 and 10 ask for them.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use sinew_api::identity::Identity;
use sinew_api::labels::{Labels, NAMESPACE};
use sinew_api::object::{Origin, PolicyKind, Problem};
use sinew_api::policy::{
    CidrGroupMatch, CidrReach, Entity, MATCH_MODE_ANNOTATION, Peer, PeerMatch, Peers, Policy, PolicySpec,
    PortMatch, PortMatchKind, Protocol, Rule, RuleAction,
};
use sinew_api::selector::{Operator, Selector};
use sinew_bpf::abi::policy::verdict;

use crate::numbers::Direction;
use crate::policy::l4::L4Prefix;
use crate::policy::load::{prefixes_of, written_rules};
use crate::state::Engine;
use crate::table::PolicyTable;

/// The port of DNS.
const DNS: u16 = 53;

/// Where pods and nodes are.
pub(crate) struct Places {
    /// Ranges of pods, and the addresses of pods that are in none.
    pub(crate) pods: BTreeSet<IpNet>,
    pub(crate) nodes: BTreeSet<IpAddr>,
    /// Those of the nodes' addresses that the store names: what people know the nodes by.
    pub(crate) published: BTreeSet<IpAddr>,
    /// Pods on the host's network, with the labels that they would have as endpoints.
    pub(crate) on_host: Vec<(String, Labels)>,
    /// Identities that look like resolvers, found when the first rule asks: there may be ten thousand to look at.
    pub(crate) resolvers: OnceCell<BTreeMap<Identity, Arc<Labels>>>,
}

impl Places {
    fn resolvers(&self, engine: &Engine) -> &BTreeMap<Identity, Arc<Labels>> {
        self.resolvers.get_or_init(|| {
            let known = engine.identities().iter().filter(|(_, labels)| is_resolver(labels));
            known.map(|(number, labels)| (*number, Arc::clone(labels))).collect()
        })
    }
}

/// What to tell the author of a policy. `tables` are those of the endpoints here that it selects, by the spec that does.
pub(crate) fn warnings(
    engine: &Engine,
    policy: &Policy,
    places: &Places,
    tables: &[(usize, &PolicyTable)],
) -> Vec<Problem> {
    let mut warnings = Vec::new();
    let populated = engine.has_pods();
    for (index, spec) in policy.specs.iter().enumerate() {
        let subjects: Vec<&PolicyTable> =
            tables.iter().filter(|(spec, _)| *spec == index).map(|(_, table)| *table).collect();
        let mut warn = |path: &str, line: u32, message: String| {
            warnings.push(Problem { path: path.to_owned(), message, origin: at_line(policy, line) });
        };
        if populated && !engine.anybody_matches(&spec.subject) {
            warn(&subject_path(spec, policy), spec.subject_line, "selects no pod that exists".to_owned());
        }
        if let Some(message) = on_host(&spec.subject, places) {
            warn(&subject_path(spec, policy), spec.subject_line, message);
        }
        if let Some(rule) = no_way_to_dns(engine, places, spec, &subjects) {
            let message =
                "default deny for egress leaves no way to DNS: no rule allows UDP port 53 to a resolver";
            warn(&rule.path, rule.origin.line, message.to_owned());
        }
        for direction in Direction::BOTH {
            for rule in written_rules(spec, direction) {
                if let Peers::OneOf(peers) = &rule.peers {
                    for peer in peers {
                        if let Some(message) = of_peer(engine, places, (policy, rule), peer, populated) {
                            warn(&peer.path, peer.line, message);
                        }
                    }
                }
                // Ports that come in are those of pods that it selects here.
                let ports_known = populated && (direction == Direction::Egress || !subjects.is_empty());
                for (port, name) in nobodys_ports(engine, direction, rule).into_iter().filter(|_| ports_known)
                {
                    let verb = if rule.action == RuleAction::Deny { "denies" } else { "allows" };
                    warn(
                        &port.path,
                        port.line,
                        format!("nobody has a port named {name:?}, so this {verb} nothing"),
                    );
                }
            }
        }
    }
    warnings
}

/// Fields of a rule that name a port which nobody has, each once: a field without a protocol asks for three.
fn nobodys_ports<'a>(engine: &Engine, direction: Direction, rule: &'a Rule) -> Vec<(&'a PortMatch, &'a str)> {
    let mut fields: Vec<(&PortMatch, &str, bool)> = Vec::new();
    for port in &rule.ports {
        let PortMatchKind::Named { protocol, name } = &port.matches else { continue };
        let had = engine.somebody_has_port(direction, name, *protocol);
        match fields.iter_mut().find(|(field, known, _)| field.path == port.path && known == name) {
            Some((.., any)) => *any |= had,
            None => fields.push((port, name, had)),
        }
    }
    fields.into_iter().filter(|(.., any)| !any).map(|(port, name, _)| (port, name)).collect()
}

/// The field that selects the endpoints of a spec.
pub(crate) fn subject_path(spec: &PolicySpec, policy: &Policy) -> String {
    let field = match policy.name.kind {
        PolicyKind::NetworkPolicy => "podSelector",
        _ => "endpointSelector",
    };
    let rule = spec.ingress.iter().chain(&spec.egress).next();
    let of_rule = rule.and_then(|rule| rule.path.split('.').next()).unwrap_or("spec");
    format!("{of_rule}.{field}")
}

/// policy.md 7: pods on the host's network look as if they were selected.
fn on_host(subject: &Selector, places: &Places) -> Option<String> {
    // Selecting everybody is no sign that somebody means these.
    let mut named = subject.requirements.iter().filter(|requirement| requirement.key != NAMESPACE);
    named.next()?;
    let mut matching = places.on_host.iter().filter(|(_, labels)| subject.matches(labels));
    let (first, _) = matching.next()?;
    let more = match matching.count() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!(
        "does not select {first}{more}: pods on the host's network share the identity of their node"
    ))
}

/// The first allow rule of a spec after which its endpoints can reach something, but no DNS server. A policy that only
/// switches default deny on leaves that to others.
fn no_way_to_dns<'a>(
    engine: &Engine,
    places: &Places,
    spec: &'a PolicySpec,
    subjects: &[&PolicyTable],
) -> Option<&'a Rule> {
    let allows = || spec.egress.iter().filter(|rule| rule.action == RuleAction::Allow);
    let first = allows().next().filter(|_| spec.default_deny_egress)?;
    // Another policy may open it: then every endpoint that this one selects has an entry for it.
    let by_all = || !subjects.is_empty() && subjects.iter().all(|table| opens_dns(engine, places, table));
    (!allows().any(|rule| allows_dns(engine, places, rule)) && !by_all()).then_some(first)
}

/// Whether a rule names the port of DNS, whoever its peers are, or lets everything through to somebody who may be a
/// resolver.
fn allows_dns(engine: &Engine, places: &Places, rule: &Rule) -> bool {
    let named = |kind: &PortMatchKind| match kind {
        PortMatchKind::Range { protocol, first, last } => {
            *protocol == Protocol::Udp && *first == DNS && *last == DNS
        }
        PortMatchKind::Named { protocol, .. } => *protocol == Protocol::Udp,
        PortMatchKind::Protocol(_) | PortMatchKind::IcmpType { .. } => false,
    };
    let holds = |kind: &PortMatchKind| match kind {
        PortMatchKind::Protocol(protocol) => *protocol == Protocol::Udp,
        PortMatchKind::Range { protocol, first, last } => {
            *protocol == Protocol::Udp && (*first..=*last).contains(&DNS)
        }
        PortMatchKind::Named { .. } | PortMatchKind::IcmpType { .. } => false,
    };
    let resolver = || match &rule.peers {
        Peers::Any => true,
        Peers::OneOf(peers) => peers.iter().any(|peer| may_resolve(engine, places, &peer.matches)),
    };
    rule.ports.iter().any(|port| named(&port.matches))
        || ((rule.ports.is_empty() || rule.ports.iter().any(|port| holds(&port.matches))) && resolver())
}

/// Whether a resolver may be among those whom a peer matches.
fn may_resolve(engine: &Engine, places: &Places, peer: &PeerMatch) -> bool {
    match peer {
        PeerMatch::Labels(selector) => {
            let says_so = selector.requirements.iter().any(|requirement| match &requirement.operator {
                Operator::In(values) => values.iter().any(|value| value.contains("dns")),
                Operator::NotIn(_) | Operator::Exists | Operator::DoesNotExist => false,
            });
            says_so
                || selector.matches(&kube_dns())
                || places.resolvers(engine).values().any(|labels| selector.matches(labels))
        }
        PeerMatch::Entity(entity) => match entity {
            Entity::All
            | Entity::World
            | Entity::WorldIpv4
            | Entity::WorldIpv6
            | Entity::Cluster
            | Entity::ClusterMesh
            // A cache on the node (node-local DNS) is one.
            | Entity::Host
            | Entity::RemoteNode => true,
            Entity::Init
            | Entity::Ingress
            | Entity::Unmanaged
            | Entity::Health
            | Entity::None
            | Entity::KubeApiserver => false,
        },
        PeerMatch::Cidr { prefix, .. } => prefix_may_resolve(prefix),
        PeerMatch::CidrGroup { group, .. } => prefixes_of(engine.cidr_groups(), group, RuleAction::Allow)
            .any(|prefix| prefix_may_resolve(&prefix)),
    }
}

/// A cluster's resolver where nobody has written one down.
fn kube_dns() -> Labels {
    let mut labels = Labels::new();
    for (key, value) in [
        (NAMESPACE, "kube-system"),
        ("io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name", "kube-system"),
        ("k8s-app", "kube-dns"),
    ] {
        labels.insert("k8s", key, value);
    }
    labels
}

fn is_resolver(labels: &Labels) -> bool {
    labels.iter().any(|(label, value)| label.key != NAMESPACE && value.contains("dns"))
}

/// A prefix of a few hosts is somebody else; a wide one may hold a resolver outside, and link-local addresses are where
/// caches on the node listen.
fn prefix_may_resolve(prefix: &IpNet) -> bool {
    let wide = match prefix {
        IpNet::V4(_) => 8,
        IpNet::V6(_) => 32,
    };
    let on_node = IpAddr::from([169, 254, 20, 10]);
    prefix.prefix_len() <= wide || prefix.contains(&on_node)
}

fn opens_dns(engine: &Engine, places: &Places, table: &PolicyTable) -> bool {
    let dns = L4Prefix::port(Protocol::Udp, DNS);
    table.entries.iter().any(|(key, entry)| {
        let l4 = L4Prefix::of_key(key);
        key.key.direction == Direction::Egress.number()
            && entry.verdict == verdict::ALLOW
            && dns.widened(l4.bits) == l4
            && (l4 == dns || number_may_resolve(engine, places, Identity(key.key.peer)))
    })
}

/// The same for a number of a table: 0 is anybody.
fn number_may_resolve(engine: &Engine, places: &Places, number: Identity) -> bool {
    if let Some(prefix) = engine.prefix_of(number) {
        return prefix_may_resolve(&prefix);
    }
    match number {
        Identity(0)
        | Identity::HOST
        | Identity::REMOTE_NODE
        | Identity::WORLD
        | Identity::WORLD_IPV4
        | Identity::WORLD_IPV6 => true,
        number => places.resolvers(engine).contains_key(&number),
    }
}

fn of_peer(
    engine: &Engine,
    places: &Places,
    (policy, rule): (&Policy, &Rule),
    peer: &Peer,
    populated: bool,
) -> Option<String> {
    let beyond_reach = |prefix: &IpNet, except: &[IpNet], reach: CidrReach| {
        beyond_reach(places, (policy.name.kind, rule.action), prefix, except, reach)
    };
    match &peer.matches {
        PeerMatch::Labels(selector) => {
            (populated && !engine.anybody_matches(selector)).then(|| "matches nobody that exists".to_owned())
        }
        PeerMatch::Entity(_) => None,
        PeerMatch::Cidr { prefix, except, reach } => beyond_reach(prefix, except, *reach),
        PeerMatch::CidrGroup { group, except, reach } => {
            let mut prefixes = prefixes_of(engine.cidr_groups(), group, rule.action).peekable();
            if prefixes.peek().is_none() {
                return Some(match group {
                    CidrGroupMatch::Name(name) => {
                        format!("there is no CIDR group {name:?} with prefixes, so this matches nobody")
                    }
                    CidrGroupMatch::Labels(_) => {
                        "no CIDR group has these labels, so this matches nobody".to_owned()
                    }
                });
            }
            prefixes.find_map(|prefix| {
                let message = beyond_reach(&prefix, except, *reach)?;
                Some(format!("{prefix} of the group {message}"))
            })
        }
    }
}

/// What to say of a prefix that holds pods or nodes which its rule does not reach (policy.md 5).
fn beyond_reach(
    places: &Places,
    (kind, action): (PolicyKind, RuleAction),
    prefix: &IpNet,
    except: &[IpNet],
    reach: CidrReach,
) -> Option<String> {
    // Allowing everything outside is what `0.0.0.0/0` is written for.
    if action == RuleAction::Allow && prefix.prefix_len() == 0 {
        return None;
    }
    let cut_out = |range: &IpNet| except.iter().any(|except| except.contains(range));
    let pods = places.pods.iter().find(|range| overlap(range, prefix) && !cut_out(range));
    let nodes = places.nodes.iter().filter(|node| prefix.contains(*node) && !cut_out(&IpNet::from(**node)));
    // A node takes the shared addresses of its subnets too, by which nobody would know it.
    let nodes = nodes.min_by_key(|node| (!places.published.contains(node), is_of_routers(node)));
    let shown = |range: &IpNet| match range.prefix_len() == range.max_prefix_len() {
        true => range.addr().to_string(),
        false => range.to_string(),
    };
    let pods = pods.filter(|_| !reach.pods);
    // A part of the pods' range does not hold it.
    let (within, held) = match pods {
        Some(range) if range != prefix && range.contains(prefix) => (Some(range), None),
        pods => (None, pods),
    };
    let nodes = nodes.filter(|_| !reach.nodes).map(ToString::to_string);
    let held: Vec<(&str, String)> = [("nodes", nodes), ("pods", held.map(shown))]
        .into_iter()
        .filter_map(|(who, what)| Some((who, what?)))
        .collect();
    let mut clauses = Vec::new();
    if !held.is_empty() {
        let who: Vec<&str> = held.iter().map(|(who, _)| *who).collect();
        let what: Vec<&str> = held.iter().map(|(_, what)| what.as_str()).collect();
        clauses.push(format!("holds {} ({})", who.join(" and "), what.join(", ")));
    }
    clauses.extend(within.map(|range| format!("is a part of the pods' range {range}")));
    if clauses.is_empty() {
        return None;
    }
    let mut whom: Vec<&str> = held.iter().map(|(who, _)| *who).collect();
    whom.extend(within.map(|_| "pods"));
    let verb = if action == RuleAction::Deny { "denies" } else { "allows" };
    let remedy = match kind {
        PolicyKind::SinewNetworkPolicy | PolicyKind::SinewClusterwideNetworkPolicy => {
            format!("policyCIDRMatchMode: [{}]", whom.join(", "))
        }
        // An `ipBlock` reaches everybody; the schema of the others is not ours.
        PolicyKind::NetworkPolicy
        | PolicyKind::CiliumNetworkPolicy
        | PolicyKind::CiliumClusterwideNetworkPolicy => {
            format!("the annotation {MATCH_MODE_ANNOTATION}: {}", whom.join(","))
        }
    };
    Some(format!(
        "{}, but {verb} only what is outside the cluster; {remedy} would change that",
        clauses.join(" and ")
    ))
}

/// Whether it is like the anycast address of a subnet's routers (RFC 4291 §2.6.1), which all of them have.
fn is_of_routers(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.segments()[4..] == [0; 4])
}

/// A line of a policy, or where it begins.
pub(crate) fn at_line(policy: &Policy, line: u32) -> Origin {
    let line = if line == 0 { policy.origin.line } else { line };
    Origin { line, ..policy.origin.clone() }
}

fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}
