//! A policy made ready for compilation: its peers are matchers, its ports prefixes, its rules have cookies.
//!
//! Neighbours: `matcher.rs` holds the matchers, `compile.rs` reads the rules. Names of CIDR groups are replaced by their
//! prefixes here, so a policy is loaded again when a group that it names changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use sinew_api::labels::Labels;
use sinew_api::object::CidrGroupKind;
use sinew_api::policy::{
    CidrGroup, CidrGroupMatch, Enforcement, Entity, PeerMatch, Peers, Policy, PolicySpec, PortMatchKind,
    Protocol, Rule, RuleAction,
};
use sinew_api::selector::Selector;

use super::l4::L4Prefix;
use super::matcher::{CidrTerm, Matcher, MatcherId, Matchers};
use crate::numbers::{Cause, Direction, Numbers};

/// How much of a policy is in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Force {
    /// All of it.
    #[default]
    Whole,
    /// Default deny and deny rules only: the whole doesn't fit into a table (policy.md 14).
    NoAllows,
    /// Everything that it would have judged is denied: not even its deny rules fit.
    DenyAll,
}

impl Force {
    /// Whether a rule counts as it is written.
    pub(crate) fn counts(self, rule: &Rule) -> bool {
        match self {
            Self::Whole => true,
            Self::NoAllows => rule.action == RuleAction::Deny,
            Self::DenyAll => false,
        }
    }
}

/// A policy in force.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) policy: Arc<Policy>,
    pub(crate) specs: Vec<LoadedSpec>,
    /// Whether it names CIDR groups.
    pub(crate) names_groups: bool,
    matchers: Vec<MatcherId>,
}

/// One spec of it.
#[derive(Clone, Debug)]
pub(crate) struct LoadedSpec {
    pub(crate) subject: Selector,
    /// Default deny, by [`Direction`] number.
    pub(crate) default_deny: [bool; 2],
    /// Rules, by [`Direction`] number.
    pub(crate) rules: [Vec<Arc<LoadedRule>>; 2],
    /// Every prefix that its CIDRs name, exceptions too.
    pub(crate) prefixes: BTreeSet<IpNet>,
}

/// One rule of it.
#[derive(Clone, Debug)]
pub(crate) struct LoadedRule {
    pub(crate) action: RuleAction,
    pub(crate) audit: bool,
    pub(crate) cookie: u32,
    pub(crate) peers: LoadedPeers,
    /// Prefixes that are the same for every peer.
    pub(crate) fixed: Vec<L4Prefix>,
    /// Ports that depend on the subject (ingress) or on the peer (egress).
    pub(crate) named: Vec<(Protocol, String)>,
}

/// Whom a rule asks for.
#[derive(Clone, Debug)]
pub(crate) enum LoadedPeers {
    Any,
    OneOf(Vec<MatcherId>),
}

impl Loaded {
    /// Acquires all matchers that the policy needs.
    pub(crate) fn new(
        policy: Arc<Policy>,
        force: Force,
        groups: &BTreeMap<(CidrGroupKind, String), CidrGroup>,
        matchers: &mut Matchers,
        numbers: &mut Numbers,
    ) -> Self {
        let mut loading = Loading {
            audit: policy.enforcement == Enforcement::Audit,
            policy: &policy,
            force,
            groups,
            matchers,
            numbers,
            acquired: Vec::new(),
            names_groups: false,
        };
        let specs = policy.specs.iter().map(|spec| loading.spec(spec)).collect();
        let (acquired, names_groups) = (loading.acquired, loading.names_groups);
        Self { specs, names_groups, matchers: acquired, policy }
    }

    /// Releases them.
    pub(crate) fn release(self, matchers: &mut Matchers) {
        for id in self.matchers {
            matchers.release(id);
        }
    }

    /// Whether verdicts of this policy are enforced.
    pub(crate) fn enforced(&self) -> bool {
        self.policy.enforcement == Enforcement::Enforce
    }
}

/// A policy on its way to [`Loaded`].
struct Loading<'a> {
    policy: &'a Policy,
    audit: bool,
    force: Force,
    groups: &'a BTreeMap<(CidrGroupKind, String), CidrGroup>,
    matchers: &'a mut Matchers,
    numbers: &'a mut Numbers,
    acquired: Vec<MatcherId>,
    names_groups: bool,
}

impl Loading<'_> {
    fn spec(&mut self, spec: &PolicySpec) -> LoadedSpec {
        let mut prefixes = BTreeSet::new();
        let rules = [&spec.ingress, &spec.egress].map(|rules| self.rules(rules, &mut prefixes));
        LoadedSpec {
            subject: spec.subject.clone(),
            default_deny: [spec.default_deny_ingress, spec.default_deny_egress],
            rules,
            prefixes,
        }
    }

    fn rules(&mut self, rules: &[Rule], prefixes: &mut BTreeSet<IpNet>) -> Vec<Arc<LoadedRule>> {
        let force = self.force;
        match force {
            Force::Whole | Force::NoAllows => {
                let count = rules.iter().filter(|rule| force.counts(rule));
                count.map(|rule| Arc::new(self.rule(rule, prefixes))).collect()
            }
            Force::DenyAll if rules.is_empty() => Vec::new(),
            Force::DenyAll => vec![Arc::new(LoadedRule {
                action: RuleAction::Deny,
                audit: self.audit,
                cookie: self.numbers.cookie(&Cause::Overflow { policy: self.policy.name.clone() }),
                peers: LoadedPeers::Any,
                fixed: vec![L4Prefix::ALL],
                named: Vec::new(),
            })],
        }
    }

    fn rule(&mut self, rule: &Rule, prefixes: &mut BTreeSet<IpNet>) -> LoadedRule {
        let mut fixed = Vec::new();
        let mut named = Vec::new();
        for port in &rule.ports {
            match &port.matches {
                PortMatchKind::Named { protocol, name } => named.push((*protocol, name.clone())),
                kind => fixed.extend(L4Prefix::of(kind).unwrap_or_default()),
            }
        }
        if rule.ports.is_empty() {
            fixed.push(L4Prefix::ALL);
        }
        fixed.sort_unstable();
        fixed.dedup();
        let cause = Cause::Rule { policy: self.policy.name.clone(), path: rule.path.clone() };
        LoadedRule {
            action: rule.action,
            audit: self.audit,
            cookie: self.numbers.cookie(&cause),
            peers: self.peers(rule, prefixes),
            fixed,
            named,
        }
    }

    fn peers(&mut self, rule: &Rule, prefixes: &mut BTreeSet<IpNet>) -> LoadedPeers {
        let Peers::OneOf(peers) = &rule.peers else { return LoadedPeers::Any };
        let mut ids = Vec::new();
        for peer in peers {
            let matchers = match &peer.matches {
                PeerMatch::Entity(Entity::All) => return LoadedPeers::Any,
                PeerMatch::Entity(entity) => vec![Matcher::Entity(*entity)],
                PeerMatch::Labels(selector) => vec![Matcher::Labels(selector.clone())],
                PeerMatch::Cidr { prefix, except, reach } => {
                    vec![Matcher::Cidr(CidrTerm::new(*prefix, except, *reach))]
                }
                PeerMatch::CidrGroup { group, except, reach } => {
                    self.names_groups = true;
                    prefixes_of(self.groups, group, rule.action)
                        .map(|prefix| Matcher::Cidr(CidrTerm::new(prefix, except, *reach)))
                        .collect()
                }
            };
            for matcher in matchers {
                if let Matcher::Cidr(term) = &matcher {
                    prefixes.insert(term.prefix);
                    prefixes.extend(&term.except);
                }
                let id = self.matchers.acquire(matcher);
                self.acquired.push(id);
                ids.push(id);
            }
        }
        ids.sort_unstable();
        ids.dedup();
        LoadedPeers::OneOf(ids)
    }
}

/// The prefixes of the groups that a rule names; none for a group that doesn't exist. What can be read of a refused group
/// applies in a deny rule only (policy.md 14).
pub(crate) fn prefixes_of<'a>(
    groups: &'a BTreeMap<(CidrGroupKind, String), CidrGroup>,
    wanted: &'a CidrGroupMatch,
    action: RuleAction,
) -> impl Iterator<Item = IpNet> + 'a {
    groups
        .values()
        .filter(move |group| group.whole || action == RuleAction::Deny)
        .filter(move |group| group_matches(group, wanted))
        .flat_map(|group| group.prefixes.iter().copied())
}

fn group_matches(group: &CidrGroup, wanted: &CidrGroupMatch) -> bool {
    match wanted {
        CidrGroupMatch::Name(name) => group.name == *name,
        CidrGroupMatch::Labels(selector) => {
            let mut labels = Labels::new();
            for (key, value) in &group.labels {
                labels.insert("k8s", key, value);
            }
            selector.matches(&labels)
        }
    }
}

/// The direction's rules of a spec, as its author wrote them.
pub(crate) fn written_rules(spec: &PolicySpec, direction: Direction) -> &[Rule] {
    match direction {
        Direction::Ingress => &spec.ingress,
        Direction::Egress => &spec.egress,
    }
}
