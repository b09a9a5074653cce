//! Peers that rules ask for, each distinct one once, with the identities and address classes that it matches now.
//!
//! An identity that comes or goes is compared only with the matchers that name one of its labels, so that thousands of
//! rules and identities stay cheap: a selector is *anchored* at one label that it demands.
//!
//! Neighbours: `load.rs` acquires matchers for rules, `compile.rs` reads their members, `classes.rs` makes the classes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use ipnet::IpNet;
use sinew_api::identity::Identity;
use sinew_api::labels::{CLUSTER, Labels, NAMESPACE};
use sinew_api::policy::{CidrReach, Entity};
use sinew_api::selector::{Operator, Selector};

use crate::numbers::{Class, Place};

/// One distinct peer, other than anybody.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Matcher {
    /// Identities by labels.
    Labels(Selector),
    /// Identities by entity.
    Entity(Entity),
    /// Addresses.
    Cidr(CidrTerm),
}

/// A prefix without some others, and who may have its addresses (policy.md 5).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CidrTerm {
    pub(crate) prefix: IpNet,
    pub(crate) except: Vec<IpNet>,
    pub(crate) pods: bool,
    pub(crate) nodes: bool,
}

impl CidrTerm {
    pub(crate) fn new(prefix: IpNet, except: &[IpNet], reach: CidrReach) -> Self {
        let mut except: Vec<IpNet> = except.iter().map(IpNet::trunc).collect();
        except.sort_unstable();
        Self { prefix: prefix.trunc(), except, pods: reach.pods, nodes: reach.nodes }
    }

    /// Whether all addresses of a class match. The term's prefixes are among those that made the classes, so a class
    /// lies wholly inside or wholly outside of each.
    fn holds(&self, class: &Class) -> bool {
        let reached = match class.place {
            Place::World => true,
            Place::Nodes => self.nodes,
            Place::Pods => self.pods,
        };
        reached
            && self.prefix.contains(&class.prefix)
            && !self.except.iter().any(|except| except.contains(&class.prefix))
    }
}

/// Names a matcher that somebody has acquired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MatcherId(u32);

/// All matchers in use, and the identities and classes that they look at.
#[derive(Clone, Debug)]
pub(crate) struct Matchers {
    cluster: String,
    dual_stack: bool,
    v4: bool,
    v6: bool,
    by_matcher: HashMap<Matcher, MatcherId>,
    slots: BTreeMap<MatcherId, Slot>,
    next: u32,
    /// Selectors by the label that each is anchored at.
    anchored: HashMap<(String, String), BTreeSet<MatcherId>>,
    /// Selectors that demand no value, and the cluster's entities.
    unanchored: BTreeSet<MatcherId>,
    cidrs: BTreeSet<MatcherId>,
    identities: BTreeMap<Identity, Arc<Labels>>,
    /// Identities by key and value of a label.
    by_label: HashMap<String, HashMap<String, BTreeSet<Identity>>>,
    classes: BTreeMap<Identity, Class>,
    /// What the API server's addresses are, each kind of address once: they all have one identity, whose labels are those of
    /// all kinds together.
    apiserver: Vec<Labels>,
}

#[derive(Clone, Debug)]
struct Slot {
    matcher: Matcher,
    members: BTreeSet<Identity>,
    users: usize,
}

impl Matchers {
    /// No matchers and the reserved identities. `v4` and `v6` say which families the node has.
    pub(crate) fn new(cluster: &str, v4: bool, v6: bool) -> Self {
        let mut matchers = Self {
            cluster: cluster.to_owned(),
            dual_stack: v4 && v6,
            v4,
            v6,
            by_matcher: HashMap::new(),
            slots: BTreeMap::new(),
            next: 0,
            anchored: HashMap::new(),
            unanchored: BTreeSet::new(),
            cidrs: BTreeSet::new(),
            identities: BTreeMap::new(),
            by_label: HashMap::new(),
            classes: BTreeMap::new(),
            apiserver: vec![Labels::reserved("kube-apiserver")],
        };
        for (number, name) in Identity::RESERVED {
            if number != Identity::UNKNOWN {
                matchers.add_identity(number, Arc::new(Labels::reserved(name)));
            }
        }
        matchers
    }

    /// The identities known, reserved ones too.
    pub(crate) fn identities(&self) -> &BTreeMap<Identity, Arc<Labels>> {
        &self.identities
    }

    /// Acquires a matcher.
    pub(crate) fn acquire(&mut self, matcher: Matcher) -> MatcherId {
        if let Some(id) = self.by_matcher.get(&matcher) {
            if let Some(slot) = self.slots.get_mut(id) {
                slot.users += 1;
            }
            return *id;
        }
        let id = MatcherId(self.next);
        self.next += 1;
        let members = self.members_from_scratch(&matcher);
        match &matcher {
            Matcher::Labels(selector) => match anchor(selector) {
                Some((key, values)) => {
                    for value in values {
                        self.anchored.entry((key.to_owned(), value.clone())).or_default().insert(id);
                    }
                }
                None => {
                    self.unanchored.insert(id);
                }
            },
            Matcher::Entity(_) => {
                self.unanchored.insert(id);
            }
            Matcher::Cidr(_) => {
                self.cidrs.insert(id);
            }
        }
        self.by_matcher.insert(matcher.clone(), id);
        self.slots.insert(id, Slot { matcher, members, users: 1 });
        id
    }

    /// Releases a matcher; the last release removes it.
    pub(crate) fn release(&mut self, id: MatcherId) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        slot.users -= 1;
        if slot.users > 0 {
            return;
        }
        let Some(slot) = self.slots.remove(&id) else { return };
        self.by_matcher.remove(&slot.matcher);
        self.unanchored.remove(&id);
        self.cidrs.remove(&id);
        if let Matcher::Labels(selector) = &slot.matcher
            && let Some((key, values)) = anchor(selector)
        {
            for value in values {
                let place = (key.to_owned(), value.clone());
                if let Some(ids) = self.anchored.get_mut(&place) {
                    ids.remove(&id);
                    if ids.is_empty() {
                        self.anchored.remove(&place);
                    }
                }
            }
        }
    }

    /// The identities and classes that a matcher matches.
    pub(crate) fn members(&self, id: MatcherId) -> &BTreeSet<Identity> {
        static NOBODY: BTreeSet<Identity> = BTreeSet::new();
        self.slots.get(&id).map_or(&NOBODY, |slot| &slot.members)
    }

    /// Whether a pod's identity matches a selector.
    pub(crate) fn anybody_matches(&self, selector: &Selector) -> bool {
        let matches =
            |number: &Identity| self.identities.get(number).is_some_and(|labels| selector.matches(labels));
        match self.fewest_candidates(selector) {
            Some(candidates) => candidates.into_iter().flatten().any(matches),
            None => self.identities.keys().any(matches),
        }
    }

    /// An identity appears. Returns the matchers that match it.
    pub(crate) fn add_identity(&mut self, number: Identity, labels: Arc<Labels>) -> Vec<MatcherId> {
        let mut candidates: BTreeSet<MatcherId> = self.unanchored.clone();
        for (label, value) in labels.iter() {
            self.by_label
                .entry(label.key.to_owned())
                .or_default()
                .entry(value.to_owned())
                .or_default()
                .insert(number);
            if let Some(ids) = self.anchored.get(&(label.key.to_owned(), value.to_owned())) {
                candidates.extend(ids);
            }
        }
        self.identities.insert(number, Arc::clone(&labels));
        candidates.retain(|id| {
            let Some(slot) = self.slots.get(id) else { return false };
            self.matches_identity(&slot.matcher, number, &labels)
        });
        for id in &candidates {
            if let Some(slot) = self.slots.get_mut(id) {
                slot.members.insert(number);
            }
        }
        candidates.into_iter().collect()
    }

    /// An identity is removed. Returns the matchers that matched it.
    pub(crate) fn remove_identity(&mut self, number: Identity) -> Vec<MatcherId> {
        let Some(labels) = self.identities.remove(&number) else { return Vec::new() };
        for (label, value) in labels.iter() {
            if let Some(values) = self.by_label.get_mut(label.key)
                && let Some(numbers) = values.get_mut(value)
            {
                numbers.remove(&number);
                if numbers.is_empty() {
                    values.remove(value);
                }
                if values.is_empty() {
                    self.by_label.remove(label.key);
                }
            }
        }
        let mut changed = Vec::new();
        for (id, slot) in &mut self.slots {
            if slot.members.remove(&number) {
                changed.push(*id);
            }
        }
        changed
    }

    /// What the API server's addresses are now. Returns the matchers that this may concern.
    pub(crate) fn set_apiserver(&mut self, kinds: Vec<Labels>) -> Option<Vec<MatcherId>> {
        if self.apiserver == kinds {
            return None;
        }
        let mut all = Labels::new();
        for (label, value) in kinds.iter().flat_map(Labels::iter) {
            all.insert(label.source, label.key, value);
        }
        let mut changed = self.remove_identity(Identity::KUBE_APISERVER);
        self.apiserver = kinds;
        changed.extend(self.add_identity(Identity::KUBE_APISERVER, Arc::new(all)));
        Some(changed)
    }

    /// Kinds of addresses that the API server's identity stands for.
    pub(crate) fn kinds_of_apiserver(&self) -> usize {
        self.apiserver.len()
    }

    /// Whether a matcher matches the API server's addresses of one kind.
    pub(crate) fn is_apiserver(&self, id: MatcherId, kind: usize) -> bool {
        let (Some(slot), Some(labels)) = (self.slots.get(&id), self.apiserver.get(kind)) else {
            return false;
        };
        self.holds(&slot.matcher, Identity::KUBE_APISERVER, labels)
    }

    /// The address classes are these now. Returns the matchers that gained or lost one.
    pub(crate) fn set_classes(&mut self, classes: BTreeMap<Identity, Class>) -> Vec<MatcherId> {
        let gone: Vec<Identity> =
            self.classes.keys().filter(|number| !classes.contains_key(number)).copied().collect();
        let new: Vec<(Identity, Class)> = classes
            .iter()
            .filter(|(number, _)| !self.classes.contains_key(number))
            .map(|(number, class)| (*number, *class))
            .collect();
        self.classes = classes;
        let mut changed = Vec::new();
        for id in &self.cidrs {
            let Some(slot) = self.slots.get_mut(id) else { continue };
            let Matcher::Cidr(term) = &slot.matcher else { continue };
            let mut differs = false;
            for number in &gone {
                differs |= slot.members.remove(number);
            }
            for (number, class) in &new {
                differs |= term.holds(class) && slot.members.insert(*number);
            }
            if differs {
                changed.push(*id);
            }
        }
        changed
    }

    fn members_from_scratch(&self, matcher: &Matcher) -> BTreeSet<Identity> {
        match matcher {
            Matcher::Labels(selector) => {
                let matching = |number: &&Identity| {
                    let labels = self.identities.get(number);
                    labels.is_some_and(|labels| self.matches_identity(matcher, **number, labels))
                };
                match self.fewest_candidates(selector) {
                    Some(candidates) => candidates.into_iter().flatten().filter(matching).copied().collect(),
                    None => self.identities.keys().filter(matching).copied().collect(),
                }
            }
            Matcher::Entity(_) => self
                .identities
                .iter()
                .filter(|(number, labels)| self.matches_identity(matcher, **number, labels))
                .map(|(number, _)| *number)
                .collect(),
            Matcher::Cidr(term) => self
                .classes
                .iter()
                .filter(|(_, class)| term.holds(class))
                .map(|(number, _)| *number)
                .collect(),
        }
    }

    /// Identities that may match, by the rarest label that the selector demands.
    fn fewest_candidates(&self, selector: &Selector) -> Option<Vec<&BTreeSet<Identity>>> {
        selector
            .requirements
            .iter()
            .filter_map(|requirement| {
                let sets: Vec<&BTreeSet<Identity>> = match &requirement.operator {
                    Operator::In(values) => {
                        let by_value = self.by_label.get(&requirement.key);
                        values.iter().filter_map(|value| by_value?.get(value)).collect()
                    }
                    Operator::Exists => {
                        self.by_label.get(&requirement.key).into_iter().flat_map(HashMap::values).collect()
                    }
                    Operator::NotIn(_) | Operator::DoesNotExist => return None,
                };
                Some((sets.iter().map(|set| set.len()).sum::<usize>(), sets))
            })
            .min_by_key(|(size, _)| *size)
            .map(|(_, sets)| sets)
    }

    /// Whether an identity matches, or some of its addresses do.
    fn matches_identity(&self, matcher: &Matcher, number: Identity, labels: &Labels) -> bool {
        match number {
            Identity::KUBE_APISERVER => self.apiserver.iter().any(|kind| self.holds(matcher, number, kind)),
            _ => self.holds(matcher, number, labels),
        }
    }

    fn holds(&self, matcher: &Matcher, number: Identity, labels: &Labels) -> bool {
        match matcher {
            Matcher::Labels(selector) => selector.matches(labels),
            Matcher::Entity(entity) => self.entity_holds(*entity, number, labels),
            Matcher::Cidr(_) => false,
        }
    }

    /// policy.md 6. World is every number that world traffic can have; the families' own numbers exist only where both
    /// families are on, and with one family 2 stands for it. An API server on a node is both, and one outside the cluster is
    /// of the world and, as in Cilium, of the cluster (`state/facts.rs`).
    pub(crate) fn entity_holds(&self, entity: Entity, number: Identity, labels: &Labels) -> bool {
        let is_of = |world: Identity, name: &str| {
            number == world || (number == Identity::KUBE_APISERVER && labels.get("reserved", name).is_some())
        };
        let world = || is_of(Identity::WORLD, "world");
        let (ipv4, ipv6) =
            (is_of(Identity::WORLD_IPV4, "world-ipv4"), is_of(Identity::WORLD_IPV6, "world-ipv6"));
        match entity {
            Entity::All => true,
            Entity::None => false,
            Entity::World => ipv4 || ipv6 || world(),
            Entity::WorldIpv4 => ipv4 || (self.v4 && !self.dual_stack && world()),
            Entity::WorldIpv6 => ipv6 || (self.v6 && !self.dual_stack && world()),
            Entity::Cluster => {
                let elsewhere = labels.get("k8s", CLUSTER).is_some_and(|cluster| cluster != self.cluster);
                !number.is_world() && !elsewhere
            }
            Entity::ClusterMesh => !number.is_world(),
            Entity::Host => number == Identity::HOST,
            Entity::Init => number == Identity::INIT,
            Entity::Ingress => number == Identity::INGRESS,
            Entity::Unmanaged => number == Identity::UNMANAGED,
            Entity::RemoteNode => labels.get("reserved", "remote-node").is_some(),
            Entity::Health => number == Identity::HEALTH,
            Entity::KubeApiserver => labels.get("reserved", "kube-apiserver").is_some(),
        }
    }
}

/// The key and values that an identity must have to match: preferably not its namespace, which many share.
fn anchor(selector: &Selector) -> Option<(&str, &[String])> {
    let demands = || {
        selector.requirements.iter().filter_map(|requirement| match &requirement.operator {
            Operator::In(values) => Some((requirement.key.as_str(), values.as_slice())),
            Operator::NotIn(_) | Operator::Exists | Operator::DoesNotExist => None,
        })
    };
    demands().find(|(key, _)| *key != NAMESPACE).or_else(|| demands().next())
}
