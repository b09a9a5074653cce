//! Rules that would have allowed a connection but for a field or two, nearest first. Each field is compared as the
//! resolver compares it, but with words for what failed.
//!
//! Neighbours: `explain.rs` asks after a default deny; `words.rs` says what fields ask for.

use ipnet::IpNet;
use sinew_api::labels::NAMESPACE;
use sinew_api::policy::{
    CidrReach, Enforcement, Peer, PeerMatch, Peers, Policy, PolicySpec, PortMatch, PortMatchKind, Rule,
    RuleAction,
};
use sinew_api::selector::Selector;

use super::bench::Bench;
use super::party::{End, Standing};
use super::{Family, NearMiss, RuleRef, Traffic, words};
use crate::numbers::{Cause, Direction, Place};
use crate::policy::load::{prefixes_of, written_rules};

/// How many rules are told.
const AT_MOST: usize = 5;

/// In how many fields a rule may fail and still be near.
const MOST_FIELDS: usize = 2;

/// One field that failed.
struct Failure {
    field: String,
    wanted: String,
    found: String,
    /// Whether a CIDR of the other family was compared, which nothing in this one can match.
    other_family: bool,
}

impl Bench {
    pub(super) fn near(
        &self,
        direction: Direction,
        judged: &End,
        peer: &End,
        traffic: &Traffic,
    ) -> Vec<NearMiss> {
        let mut near = Vec::new();
        let namespace = judged.labels.get("k8s", NAMESPACE).unwrap_or_default();
        for policy in self.engine.running_policies() {
            for (index, spec) in policy.specs.iter().enumerate() {
                // What selects pods of another namespace only can't be made to select this one.
                let elsewhere = !policy.name.namespace.is_empty() && policy.name.namespace != namespace;
                if elsewhere && !spec.subject.matches(&judged.labels) {
                    continue;
                }
                for rule in written_rules(spec, direction) {
                    if rule.action == RuleAction::Allow {
                        let failures =
                            self.failures(direction, policy, (index, spec), rule, judged, peer, traffic);
                        let other_family = failures.iter().any(|failure| failure.other_family);
                        if (1..=MOST_FIELDS).contains(&failures.len()) {
                            near.push((other_family, near_misses(policy, rule, failures)));
                        }
                    }
                }
            }
        }
        // Of rules that fail in as many fields, those that are of the other family are farthest, and those of policies
        // that select the endpoint are nearer.
        near.sort_by_key(|(other_family, misses): &(bool, Vec<NearMiss>)| {
            let selects = misses.iter().all(|miss| !miss.field.contains("endpointSelector"));
            (misses.len(), *other_family, !selects)
        });
        near.into_iter().take(AT_MOST).flat_map(|(_, misses)| misses).collect()
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "a rule, whose it is, and the connection that it is compared with"
    )]
    fn failures(
        &self,
        direction: Direction,
        policy: &Policy,
        (index, spec): (usize, &PolicySpec),
        rule: &Rule,
        judged: &End,
        peer: &End,
        traffic: &Traffic,
    ) -> Vec<Failure> {
        let mut failures = Vec::new();
        if policy.enforcement == Enforcement::Audit {
            failures.push(Failure {
                field: words::enforcement_field(policy.name.kind).to_owned(),
                wanted: "enforcement".to_owned(),
                found: "audit, which opens nothing".to_owned(),
                other_family: false,
            });
        }
        if !spec.subject.matches(&judged.labels) {
            failures.push(Failure {
                field: words::subject_field(policy, index),
                wanted: words::selector(&spec.subject),
                found: failing_label(&spec.subject, judged),
                other_family: false,
            });
        }
        failures.extend(self.peer_failure(rule, peer));
        failures.extend(self.port_failure(direction, rule, judged, peer, traffic));
        failures
    }

    fn peer_failure(&self, rule: &Rule, peer: &End) -> Option<Failure> {
        let Peers::OneOf(peers) = &rule.peers else { return None };
        if peers.iter().any(|one| self.peer_matches(one, peer)) {
            return None;
        }
        let other_family = |one: &Peer| match &one.matches {
            PeerMatch::Cidr { prefix, .. } => prefix.addr().is_ipv4() != peer.address.is_ipv4(),
            _ => false,
        };
        let found = |one: &Peer| match &one.matches {
            PeerMatch::Cidr { .. } if other_family(one) => {
                format!("{}, by {}", words::address(peer), Family::of(peer.address))
            }
            PeerMatch::Labels(selector) => failing_label(selector, peer),
            PeerMatch::Entity(_) => words::who(peer),
            PeerMatch::Cidr { prefix, reach, .. } => {
                let place = self.place_of(peer);
                words::address_for_cidr(peer, place, *reach, prefix.contains(&peer.address))
            }
            PeerMatch::CidrGroup { group, reach, .. } => {
                let mut prefixes = prefixes_of(self.engine.cidr_groups(), group, RuleAction::Allow);
                let holds = prefixes.any(|prefix| prefix.contains(&peer.address));
                words::address_for_cidr(peer, self.place_of(peer), *reach, holds)
            }
        };
        // The peer that fails in the fewest labels is the one that was probably meant. A CIDR of the other family can't
        // be, where there is another peer.
        let nearest = peers.iter().min_by_key(|one| match &one.matches {
            PeerMatch::Labels(selector) => {
                selector.requirements.iter().filter(|requirement| !requirement.matches(&peer.labels)).count()
            }
            _ if other_family(one) => usize::MAX,
            _ => usize::MAX - 1,
        });
        Some(match nearest {
            None => Failure {
                field: rule.path.clone(),
                wanted: "nobody: the rule has an empty list of peers".to_owned(),
                found: words::who(peer),
                other_family: false,
            },
            Some(one) => Failure {
                field: one.path.clone(),
                wanted: words::peer(&one.matches),
                found: found(one),
                other_family: other_family(one),
            },
        })
    }

    /// As the resolver has it, but for CIDRs, which are compared directly: the classes here are those of policies that
    /// select somebody.
    fn peer_matches(&self, one: &Peer, peer: &End) -> bool {
        let cidr = |prefix: IpNet, except: &[IpNet], reach: CidrReach| {
            let reached = match self.place_of(peer) {
                Place::World => peer.standing != Standing::Unknown,
                Place::Nodes => reach.nodes,
                Place::Pods => reach.pods,
            };
            reached && prefix.contains(&peer.address) && !except.iter().any(|net| net.contains(&peer.address))
        };
        match &one.matches {
            PeerMatch::Labels(selector) => selector.matches(&peer.labels),
            PeerMatch::Entity(entity) => self.engine.is_entity(*entity, peer.identity, &peer.labels),
            PeerMatch::Cidr { prefix, except, reach } => cidr(*prefix, except, *reach),
            PeerMatch::CidrGroup { group, except, reach } => {
                // Only what allows is nearly an answer.
                prefixes_of(self.engine.cidr_groups(), group, RuleAction::Allow)
                    .any(|prefix| cidr(prefix, except, *reach))
            }
        }
    }

    /// What kind of place an end's address is; a lent one is a pod's, wherever it lies.
    fn place_of(&self, peer: &End) -> Place {
        if peer.standing == Standing::Lent { Place::Pods } else { self.engine.place_of(peer.address) }
    }

    fn port_failure(
        &self,
        direction: Direction,
        rule: &Rule,
        judged: &End,
        peer: &End,
        traffic: &Traffic,
    ) -> Option<Failure> {
        let owner = if direction == Direction::Ingress { judged } else { peer };
        let matches = |port: &PortMatch| port_matches(&port.matches, owner, traffic);
        if rule.ports.is_empty() || rule.ports.iter().any(matches) {
            return None;
        }
        let same_protocol = |port: &&PortMatch| words::protocol_of(&port.matches) == traffic.protocol;
        let nearest = rule.ports.iter().find(same_protocol).or(rule.ports.first())?;
        Some(Failure {
            field: nearest.path.clone(),
            wanted: rule.ports.iter().map(|port| words::port(&port.matches)).collect::<Vec<_>>().join(", "),
            found: words::traffic(traffic),
            other_family: false,
        })
    }
}

fn port_matches(kind: &PortMatchKind, owner: &End, traffic: &Traffic) -> bool {
    if words::protocol_of(kind) != traffic.protocol {
        return false;
    }
    let Some(port) = traffic.port else { return matches!(kind, PortMatchKind::Protocol(_)) };
    match kind {
        PortMatchKind::Protocol(_) => true,
        PortMatchKind::Range { first, last, .. } => (*first..=*last).contains(&port),
        PortMatchKind::IcmpType { icmp_type, .. } => u16::from(*icmp_type) == port,
        PortMatchKind::Named { protocol, name } => owner.named(name, *protocol).contains(&port),
    }
}

/// What an end has instead of the first label that a selector misses.
fn failing_label(selector: &Selector, end: &End) -> String {
    let failing = selector.requirements.iter().find(|requirement| !requirement.matches(&end.labels));
    let Some(failing) = failing else { return words::who(end) };
    let values: Vec<&str> = end.labels.values_of_any(&failing.key).collect();
    match values.as_slice() {
        [] => format!("without a label {}", failing.key),
        values => format!("{}={}", failing.key, values.join(",")),
    }
}

/// One for each field that failed.
fn near_misses(policy: &Policy, rule: &Rule, failures: Vec<Failure>) -> Vec<NearMiss> {
    let failed = failures.len();
    let cause = Cause::Rule { policy: policy.name.clone(), path: rule.path.clone() };
    let rule = RuleRef { cause, origin: rule.origin.clone(), deny: false };
    let miss =
        |Failure { field, wanted, found, .. }| NearMiss { rule: rule.clone(), field, wanted, found, failed };
    failures.into_iter().map(miss).collect()
}
