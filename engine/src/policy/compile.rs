//! From the rules that concern a subject to its table. The numbers in comments are those of the specification above
//! `policy.rs`.
//!
//! Neighbours: `load.rs` made the rules, `matcher.rs` knows whom they match, `sinew_bpf::policy` reads the result.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use sinew_api::identity::Identity;
use sinew_api::labels::Labels;
use sinew_api::object::PolicyName;
use sinew_api::policy::{Protocol, RuleAction};
use sinew_bpf::abi::PolicyEntry;
use sinew_bpf::abi::policy::{precedence, verdict};

use super::l4::L4Prefix;
use super::load::{Loaded, LoadedPeers, LoadedRule};
use super::matcher::Matchers;
use super::relabel;
use crate::numbers::{Cause, Direction, Numbers};
use crate::table::{PolicyTable, TableKey};

/// Ports by name and protocol. A pod has one port for a name; an identity has those of all its pods.
pub(crate) type NamedPorts = BTreeMap<(String, Protocol), Vec<u16>>;

/// Whom a table is for: endpoints with equal subjects have equal tables.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Subject {
    /// What policies select it by.
    pub(crate) labels: Arc<Labels>,
    /// Its own named ports.
    pub(crate) ports: Arc<NamedPorts>,
}

impl Subject {
    /// Whether the labels aren't known yet (policy.md 8).
    pub(crate) fn is_init(&self) -> bool {
        self.labels.get("reserved", "init").is_some()
    }
}

/// What policy does to one direction of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Enforcement {
    /// Policies that select it for this direction: they switch default deny on or have rules. Sorted.
    pub policies: Vec<PolicyName>,
    /// Those that switch default deny on.
    pub switched_on_by: Vec<PolicyName>,
    /// Audit policies that would switch it on.
    pub audited_by: Vec<PolicyName>,
    /// It is `init`, which always enforces.
    pub init: bool,
}

impl Enforcement {
    /// Adds what policy does to the same endpoint under another label set (policy.md 17).
    pub(crate) fn merge(&mut self, other: &Self) {
        let sides = [
            (&mut self.policies, &other.policies),
            (&mut self.switched_on_by, &other.switched_on_by),
            (&mut self.audited_by, &other.audited_by),
        ];
        for (mine, others) in sides {
            mine.extend(others.iter().cloned());
            mine.sort_unstable();
            mine.dedup();
        }
        self.init |= other.init;
    }
}

/// A subject's table and what `endpoint get` says about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// The table.
    pub table: Arc<PolicyTable>,
    /// By [`Direction`] number.
    pub enforcement: [Enforcement; 2],
}

/// What compilation reads.
pub(crate) struct World<'a> {
    pub(crate) policies: &'a BTreeMap<PolicyName, Loaded>,
    pub(crate) matchers: &'a Matchers,
    /// Named ports of peers.
    pub(crate) ports: &'a BTreeMap<Identity, NamedPorts>,
}

impl World<'_> {
    /// The specs that select a subject.
    pub(crate) fn selecting(&self, subject: &Subject) -> Vec<(PolicyName, usize)> {
        let mut selecting = Vec::new();
        for (name, loaded) in self.policies {
            for (index, spec) in loaded.specs.iter().enumerate() {
                if spec.subject.matches(&subject.labels) {
                    selecting.push((name.clone(), index));
                }
            }
        }
        selecting
    }

    /// A subject's table, from the specs that [`selecting`](Self::selecting) found.
    pub(crate) fn compile(
        &self,
        subject: &Subject,
        selecting: &[(PolicyName, usize)],
        numbers: &mut Numbers,
    ) -> Compiled {
        let mut entries = Vec::new();
        let enforcement = Direction::BOTH.map(|direction| {
            let side = Side::new(self, subject, selecting, direction, numbers);
            side.write(&mut entries);
            side.enforcement
        });
        Compiled { table: Arc::new(PolicyTable { entries: entries.into_iter().collect() }), enforcement }
    }
}

/// One direction of a table that is being compiled.
struct Side<'a> {
    world: &'a World<'a>,
    subject: &'a Subject,
    direction: Direction,
    rules: Vec<Arc<LoadedRule>>,
    /// Which of the rules lets the node reach its pods (7).
    local_host: Option<usize>,
    /// The default, where no rule matches.
    default: PolicyEntry,
    enforcement: Enforcement,
}

impl<'a> Side<'a> {
    fn new(
        world: &'a World<'a>,
        subject: &'a Subject,
        selecting: &[(PolicyName, usize)],
        direction: Direction,
        numbers: &mut Numbers,
    ) -> Self {
        let mut rules: Vec<Arc<LoadedRule>> = Vec::new();
        let mut enforcement = Enforcement { init: subject.is_init(), ..Enforcement::default() };
        let number = usize::from(direction.number());
        for (name, index) in selecting {
            let Some(loaded) = world.policies.get(name) else { continue };
            let Some(spec) = loaded.specs.get(*index) else { continue };
            rules.extend(spec.rules[number].iter().cloned());
            // 2.
            if spec.default_deny[number] || !spec.rules[number].is_empty() {
                enforcement.policies.push(name.clone());
            }
            if spec.default_deny[number] && loaded.enforced() {
                enforcement.switched_on_by.push(name.clone());
            } else if spec.default_deny[number] {
                enforcement.audited_by.push(name.clone());
            }
        }
        for names in [&mut enforcement.policies, &mut enforcement.switched_on_by, &mut enforcement.audited_by]
        {
            names.dedup();
        }
        // 7. A rule like any other, so that a deny rule that matches the host outranks it.
        let mut local_host = None;
        if direction == Direction::Ingress && !enforcement.init {
            local_host = Some(rules.len());
            rules.push(Arc::new(LoadedRule {
                action: RuleAction::Allow,
                audit: false,
                cookie: numbers.cookie(&Cause::LocalHost),
                peers: LoadedPeers::OneOf(Vec::new()),
                fixed: vec![L4Prefix::ALL],
                named: Vec::new(),
            }));
        }
        let default = default_entry(direction, &enforcement, numbers);
        Self { world, subject, direction, rules, local_host, default, enforcement }
    }

    fn write(&self, entries: &mut Vec<(TableKey, PolicyEntry)>) {
        let mut known: HashMap<Vec<usize>, Rc<Vec<(L4Prefix, PolicyEntry)>>> = HashMap::new();
        for (peer, rules) in self.rules_by_peer() {
            // Peers that the same rules match share the resolved entries, unless a rule's ports are each peer's own.
            let shared = self.direction == Direction::Ingress
                || rules.iter().all(|rule| self.rules[*rule].named.is_empty());
            let resolved = if peer == Identity::KUBE_APISERVER && self.world.matchers.kinds_of_apiserver() > 1
            {
                Rc::new(self.resolve_apiserver(&rules))
            } else if shared {
                let made = known.get(&rules).cloned();
                made.unwrap_or_else(|| {
                    let made = Rc::new(self.resolve(peer, &rules));
                    known.insert(rules, Rc::clone(&made));
                    made
                })
            } else {
                Rc::new(self.resolve(peer, &rules))
            };
            let direction = self.direction.number();
            entries.extend(resolved.iter().map(|(prefix, entry)| (prefix.key(peer.0, direction), *entry)));
        }
        // Any peer, whose entry without protocol must always be there.
        let any: Vec<usize> = (0..self.rules.len())
            .filter(|rule| matches!(self.rules[*rule].peers, LoadedPeers::Any))
            .collect();
        let resolved = self.resolve(Identity::UNKNOWN, &any);
        if resolved.first().is_none_or(|(prefix, _)| *prefix != L4Prefix::ALL) {
            entries.push((L4Prefix::ALL.key(0, self.direction.number()), self.default));
        }
        entries
            .extend(resolved.iter().map(|(prefix, entry)| (prefix.key(0, self.direction.number()), *entry)));
    }

    /// Which rules name each identity and class, in the order of the rules.
    fn rules_by_peer(&self) -> HashMap<Identity, Vec<usize>> {
        let mut by_peer: HashMap<Identity, Vec<usize>> = HashMap::new();
        let mut add = |peer: Identity, rule: usize| {
            let rules = by_peer.entry(peer).or_default();
            if rules.last() != Some(&rule) {
                rules.push(rule);
            }
        };
        for (index, rule) in self.rules.iter().enumerate() {
            match &rule.peers {
                LoadedPeers::OneOf(matchers) => {
                    for matcher in matchers {
                        for peer in self.world.matchers.members(*matcher) {
                            add(*peer, index);
                        }
                    }
                }
                // 10. Anybody, but on a port of the peer's own: so everybody who has a port of that name.
                LoadedPeers::Any if self.direction == Direction::Egress && !rule.named.is_empty() => {
                    for (peer, ports) in self.world.ports {
                        if rule
                            .named
                            .iter()
                            .any(|(protocol, name)| ports.contains_key(&(name.clone(), *protocol)))
                        {
                            add(*peer, index);
                        }
                    }
                }
                LoadedPeers::Any => {}
            }
        }
        if let Some(rule) = self.local_host {
            add(Identity::HOST, rule);
        }
        by_peer
    }

    /// The entries of one peer, from the rules that match it. 11: an entry's value is the best of the rules at its own
    /// prefix and at all prefixes that contain it, because the kernel finds only the longest; if the next shorter entry has
    /// the same value, the entry is not written.
    fn resolve(&self, peer: Identity, rules: &[usize]) -> Vec<(L4Prefix, PolicyEntry)> {
        let mut at: BTreeMap<L4Prefix, Best> = BTreeMap::new();
        for rule in rules {
            let rule = &self.rules[*rule];
            let named = rule.named.iter().flat_map(|(protocol, name)| {
                self.named_ports(peer, name, *protocol)
                    .iter()
                    .map(|port| L4Prefix::port(*protocol, *port))
                    .collect::<Vec<_>>()
            });
            for prefix in rule.fixed.iter().copied().chain(named) {
                at.entry(prefix).or_default().consider(rule, prefix.bits);
            }
        }
        let mut written: BTreeMap<L4Prefix, PolicyEntry> = BTreeMap::new();
        // In the order of their lengths, so that prefixes come before those that they contain.
        for prefix in at.keys() {
            let mut best = Best::default();
            let mut shorter = None;
            for bits in 0..=prefix.bits {
                let holder = prefix.widened(bits);
                if let Some(found) = at.get(&holder) {
                    best.merge(found);
                }
                if bits < prefix.bits {
                    shorter = written.get(&holder).or(shorter);
                }
            }
            let entry = best.entry(&self.default);
            if entry != *shorter.unwrap_or(&self.default) {
                written.insert(*prefix, entry);
            }
        }
        written.into_iter().collect()
    }

    /// The entries of the API server's identity, whose addresses are of several kinds (6): what is allowed to each kind.
    fn resolve_apiserver(&self, rules: &[usize]) -> Vec<(L4Prefix, PolicyEntry)> {
        let matchers = self.world.matchers;
        let of_kind = |kind: usize| {
            let matching = |rule: &usize| match &self.rules[*rule].peers {
                LoadedPeers::Any => true,
                LoadedPeers::OneOf(ids) => ids.iter().any(|id| matchers.is_apiserver(*id, kind)),
            };
            let rules: Vec<usize> = rules.iter().copied().filter(matching).collect();
            self.resolve(Identity::KUBE_APISERVER, &rules)
        };
        let kinds: Vec<_> = (0..matchers.kinds_of_apiserver()).map(of_kind).collect();
        relabel::all(&kinds, &self.default)
    }

    /// 10. Ports of a name: the subject's own for what comes in, the peer's for what goes out.
    fn named_ports(&self, peer: Identity, name: &str, protocol: Protocol) -> &[u16] {
        let ports = match self.direction {
            Direction::Ingress => Some(&*self.subject.ports),
            Direction::Egress => self.world.ports.get(&peer),
        };
        ports.and_then(|ports| ports.get(&(name.to_owned(), protocol))).map_or(&[], Vec::as_slice)
    }
}

/// 2. The default entry, for where no rule matches: enforced, and as audit policies would have it.
fn default_entry(direction: Direction, enforcement: &Enforcement, numbers: &mut Numbers) -> PolicyEntry {
    let mut half = |policies: &[&Vec<PolicyName>]| {
        let mut policies: Vec<PolicyName> = policies.iter().flat_map(|names| names.iter().cloned()).collect();
        policies.sort_unstable();
        policies.dedup();
        if enforcement.init {
            (verdict::DEFAULT_DENY, numbers.cookie(&Cause::Init))
        } else if policies.is_empty() {
            (verdict::ALLOW, 0)
        } else {
            (verdict::DEFAULT_DENY, numbers.cookie(&Cause::DefaultDeny { direction, policies }))
        }
    };
    let (enforced, cookie) = half(&[&enforcement.switched_on_by]);
    let (shadow, shadow_cookie) = half(&[&enforcement.switched_on_by, &enforcement.audited_by]);
    PolicyEntry {
        precedence: precedence::DEFAULT,
        shadow_precedence: precedence::DEFAULT,
        verdict: enforced,
        shadow_verdict: shadow,
        cookie,
        shadow_cookie,
        ..PolicyEntry::default()
    }
}

/// The best rule so far for the enforced verdict and for the shadow (13).
#[derive(Clone, Copy, Default)]
struct Best {
    enforced: Option<Candidate>,
    shadow: Option<Candidate>,
}

#[derive(Clone, Copy)]
struct Candidate {
    precedence: u32,
    bits: u8,
    cookie: u32,
}

impl Best {
    fn consider(&mut self, rule: &LoadedRule, bits: u8) {
        let precedence = match rule.action {
            RuleAction::Allow => precedence::ALLOW,
            RuleAction::Deny => precedence::DENY,
        };
        let candidate = Candidate { precedence, bits, cookie: rule.cookie };
        if !rule.audit {
            take_better(&mut self.enforced, candidate);
        }
        take_better(&mut self.shadow, candidate);
    }

    fn merge(&mut self, other: &Self) {
        if let Some(candidate) = other.enforced {
            take_better(&mut self.enforced, candidate);
        }
        if let Some(candidate) = other.shadow {
            take_better(&mut self.shadow, candidate);
        }
    }

    fn entry(&self, default: &PolicyEntry) -> PolicyEntry {
        let mut entry = *default;
        if let Some(candidate) = self.enforced {
            entry.precedence = candidate.precedence;
            entry.verdict = candidate.verdict();
            entry.l4_bits = candidate.bits;
            entry.cookie = candidate.cookie;
        }
        if let Some(candidate) = self.shadow {
            entry.shadow_precedence = candidate.precedence;
            entry.shadow_verdict = candidate.verdict();
            entry.shadow_l4_bits = candidate.bits;
            entry.shadow_cookie = candidate.cookie;
        }
        entry
    }
}

impl Candidate {
    fn verdict(self) -> u8 {
        if self.precedence == precedence::DENY { verdict::DENY } else { verdict::ALLOW }
    }
}

/// Of two rules of equal rank the first one stays: the order of rules is that of their policies' names.
fn take_better(best: &mut Option<Candidate>, candidate: Candidate) {
    let rank = |candidate: &Candidate| (candidate.precedence, candidate.bits);
    if best.as_ref().is_none_or(|best| rank(&candidate) > rank(best)) {
        *best = Some(candidate);
    }
}
