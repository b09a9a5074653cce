//! What is valid but probably not meant: warnings of `policy validate` and `policy get` that need to know the cluster. What
//! an object shows by itself (a section that only denies, an entity that nobody is) its decoder says.
//!
//! Neighbours: `state/views.rs` puts these beside the decoder's; policy.md 5, 6 and 10 ask for them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use sinew_api::labels::{Labels, NAMESPACE};
use sinew_api::object::Problem;
use sinew_api::policy::{
    CidrGroupMatch, Peer, PeerMatch, Peers, Policy, PolicySpec, PortMatchKind, Protocol, Rule, RuleAction,
};
use sinew_api::selector::Selector;
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
    pub(crate) pods: BTreeSet<IpNet>,
    pub(crate) nodes: BTreeSet<IpAddr>,
    /// Pods on the host's network, with the labels that they would have as endpoints.
    pub(crate) on_host: Vec<(String, Labels)>,
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
        let mut warn = |path: &str, rule: Option<&Rule>, message: String| {
            let origin = rule.map_or_else(|| policy.origin.clone(), |rule| rule.origin.clone());
            warnings.push(Problem { path: path.to_owned(), message, origin });
        };
        if populated && !engine.anybody_matches(&spec.subject) {
            warn(&subject_path(spec, policy), None, "selects no pod that exists".to_owned());
        }
        if let Some(message) = on_host(&spec.subject, places) {
            warn(&subject_path(spec, policy), None, message);
        }
        if let Some(rule) = no_way_to_dns(spec, &subjects) {
            let message = "default deny for egress leaves no way to DNS: no rule allows UDP port 53";
            warn(&rule.path, Some(rule), message.to_owned());
        }
        for direction in Direction::BOTH {
            for rule in written_rules(spec, direction) {
                if let Peers::OneOf(peers) = &rule.peers {
                    for peer in peers {
                        if let Some(message) = of_peer(engine, places, rule, peer, populated) {
                            warn(&peer.path, Some(rule), message);
                        }
                    }
                }
                for port in &rule.ports {
                    if let PortMatchKind::Named { protocol, name } = &port.matches
                        && rule.action == RuleAction::Deny
                        && populated
                        && !engine.somebody_has_port(direction, name, *protocol)
                    {
                        let message = format!("nobody has a port named {name:?}, so this denies nothing");
                        warn(&port.path, Some(rule), message);
                    }
                }
            }
        }
    }
    warnings
}

fn subject_path(spec: &PolicySpec, policy: &Policy) -> String {
    let field = match policy.name.kind {
        sinew_api::object::PolicyKind::NetworkPolicy => "podSelector",
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
fn no_way_to_dns<'a>(spec: &'a PolicySpec, subjects: &[&PolicyTable]) -> Option<&'a Rule> {
    let allows = || spec.egress.iter().filter(|rule| rule.action == RuleAction::Allow);
    let first = allows().next().filter(|_| spec.default_deny_egress)?;
    let own = allows().any(|rule| {
        rule.ports.is_empty()
            || rule.ports.iter().any(|port| match &port.matches {
                PortMatchKind::Protocol(protocol) => *protocol == Protocol::Udp,
                PortMatchKind::Range { protocol, first, last } => {
                    *protocol == Protocol::Udp && (*first..=*last).contains(&DNS)
                }
                PortMatchKind::Named { protocol, .. } => *protocol == Protocol::Udp,
                PortMatchKind::IcmpType { .. } => false,
            })
    });
    // Another policy may open it: then every endpoint that this one selects has an entry for it.
    let by_all = !subjects.is_empty() && subjects.iter().all(|table| opens_dns(table));
    (!own && !by_all).then_some(first)
}

fn opens_dns(table: &PolicyTable) -> bool {
    let dns = L4Prefix::port(Protocol::Udp, DNS);
    table.entries.iter().any(|(key, entry)| {
        let l4 = L4Prefix::of_key(key);
        key.key.direction == Direction::Egress.number()
            && entry.verdict == verdict::ALLOW
            && dns.widened(l4.bits) == l4
    })
}

fn of_peer(engine: &Engine, places: &Places, rule: &Rule, peer: &Peer, populated: bool) -> Option<String> {
    match &peer.matches {
        PeerMatch::Labels(selector) => {
            (populated && !engine.anybody_matches(selector)).then(|| "matches nobody that exists".to_owned())
        }
        PeerMatch::Entity(_) => None,
        PeerMatch::Cidr { prefix, reach, .. } => {
            let pods = places.pods.iter().find(|range| overlap(range, prefix)).map(ToString::to_string);
            let nodes = places.nodes.iter().find(|node| prefix.contains(*node)).map(ToString::to_string);
            let covered: Vec<(&str, String)> = [("pods", reach.pods, pods), ("nodes", reach.nodes, nodes)]
                .into_iter()
                .filter_map(|(who, reached, found)| Some((who, found.filter(|_| !reached)?)))
                .collect();
            // Allowing everything outside is what `0.0.0.0/0` is written for.
            if covered.is_empty() || (rule.action == RuleAction::Allow && prefix.prefix_len() == 0) {
                return None;
            }
            let whom: BTreeSet<&str> = covered.iter().map(|(who, _)| *who).collect();
            let whom: Vec<&str> = whom.into_iter().collect();
            let what: Vec<&str> = covered.iter().map(|(_, what)| what.as_str()).collect();
            let verb = if rule.action == RuleAction::Deny { "denies" } else { "allows" };
            Some(format!(
                "holds {} ({}), but {verb} only what is outside the cluster; policyCIDRMatchMode: [{}] would change that",
                whom.join(" and "),
                what.join(", "),
                whom.join(", ")
            ))
        }
        PeerMatch::CidrGroup { group, .. } => {
            prefixes_of(engine.cidr_groups(), group).next().is_none().then(|| match group {
                CidrGroupMatch::Name(name) => {
                    format!("there is no CIDR group {name:?} with prefixes, so this matches nobody")
                }
                CidrGroupMatch::Labels(_) => {
                    "no CIDR group has these labels, so this matches nobody".to_owned()
                }
            })
        }
    }
}

fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}
