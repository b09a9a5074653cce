//! The difference between what should be and what was asked for so far, in an order in which every packet meets one
//! whole policy set (datapath.md 1, 4, 17; policy.md 17):
//!
//! 1. Numbers are remembered before anything carries them.
//! 2. An endpoint that goes away drops everything before its address leaves.
//! 3. Address classes are shared by all tables, so they never change together with verdicts. First the space is cut where
//!    either the old or the new policies need it, under tables that give each new piece the verdict of the piece that
//!    it was cut from; then tables get the new verdicts, on all those pieces; then pieces that nobody needs are joined again.
//! 4. A table with a new identity's entries comes before the identity is KNOWN, and that before an address resolves to
//!    it. An identity leaves the other way round, with a grace period at each step.
//! 5. A relabel is announced when all of this is asked for, and the revision comes last.
//!
//! Neighbours: `state.rs` calls this, `change.rs` has the steps.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use sinew_api::identity::Identity;
use sinew_bpf::abi::{IpcacheEntry, ipcache};

use super::Engine;
use super::claims::Claimant;
use crate::change::{Change, EndpointId};
use crate::event::Found;
use crate::numbers::{Class, Place};
use crate::policy::classes::{self, ClassTrie};
use crate::policy::compile::{Subject, World};
use crate::table::{PolicyTable, TableKey};

/// What has been asked for so far. `None` stands for something found at start whose value doesn't matter.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Written {
    pub(super) endpoints: BTreeMap<EndpointId, (Identity, Arc<PolicyTable>)>,
    pub(super) known: BTreeSet<Identity>,
    pub(super) addresses: BTreeMap<IpAddr, Option<IpcacheEntry>>,
    pub(super) ranges: BTreeMap<IpNet, Option<IpcacheEntry>>,
    pub(super) classes: BTreeMap<IpNet, Identity>,
}

impl Written {
    pub(super) fn found(&mut self, found: Found) {
        self.addresses.extend(found.addresses.into_iter().map(|address| (address, None)));
        self.ranges.extend(found.ranges.into_iter().map(|range| (range, None)));
        self.classes.extend(found.classes);
        self.known.extend(found.known);
    }
}

/// How the tables get from one cut of the address space to the next (3).
#[derive(Default)]
pub(super) struct Cut {
    /// The trie while both the old and the new verdicts need it; `None` where it goes straight to the new one.
    between: Option<BTreeMap<IpNet, Identity>>,
    /// Old classes and the pieces cut from them.
    arriving: Vec<(Identity, Identity)>,
    /// New classes and the pieces that are about to become part of them; an unknown class where it is none.
    leaving: Vec<(Identity, Identity)>,
    /// Old classes that keep the entries that they have until no address has them.
    fading: BTreeSet<Identity>,
}

impl Engine {
    /// Cuts the address space as the policies in force need it, and tells the matchers.
    pub(super) fn cut_classes(&mut self) {
        let policies_changed = self.class_prefixes.take_changed();
        if !policies_changed && !self.dirty.places {
            return;
        }
        let (ranges, nodes) = self.pods_and_nodes();
        let new = classes::cut(self.class_prefixes.iter(), &ranges, &nodes);
        let numbers: BTreeMap<Identity, Class> =
            new.values().flatten().map(|class| (self.numbers.class(class), *class)).collect();
        if self.numbers.has_many_classes() {
            let used: BTreeSet<Class> = new.values().chain(self.trie.values()).flatten().copied().collect();
            self.numbers.forget_classes(|class| used.contains(class));
        }
        let old = std::mem::replace(&mut self.trie, new);
        self.trie_before.get_or_insert(old);
        let changed = self.matchers.set_classes(numbers);
        self.dirty.matchers.extend(changed);
    }

    /// How the tables get to the new cut, if there is one.
    pub(super) fn take_cut(&mut self) -> Option<Cut> {
        let old = self.trie_before.take()?;
        let new = self.trie.clone();
        let numbered = self.numbered(&new);
        if new == old && self.written.classes == numbered {
            return None;
        }
        let mut cut = Cut::default();
        if self.dirty.places {
            let there: BTreeSet<&Identity> = numbered.values().collect();
            let written = self.written.classes.values();
            cut.fading = written.filter(|class| !there.contains(class)).copied().collect();
        } else {
            let (ranges, nodes) = self.pods_and_nodes();
            let prefixes =
                |trie: &ClassTrie| trie.values().flatten().map(|class| class.prefix).collect::<Vec<_>>();
            let both: BTreeSet<IpNet> = prefixes(&old).into_iter().chain(prefixes(&new)).collect();
            let between = classes::cut(both.iter(), &ranges, &nodes);
            cut.arriving = self.pieces(&between, &old);
            cut.leaving = self.pieces(&between, &new);
            cut.between = Some(self.numbered(&between));
        }
        Some(cut)
    }

    fn pods_and_nodes(&self) -> (BTreeSet<IpNet>, BTreeSet<IpAddr>) {
        let mut ranges = self.pod_ranges();
        ranges.extend(self.strays.iter().map(|address| IpNet::from(*address)));
        (ranges, self.all_node_addresses())
    }

    /// Finds the pods whose addresses are in no range of pods, as those of a node that isn't known yet: each is a
    /// place of pods by itself, so that a CIDR which reaches only the world doesn't reach it.
    pub(super) fn find_strays(&mut self) {
        let ranges = self.pod_ranges();
        let is_stray = |address: IpAddr| {
            matches!(self.claims.holder(address), Some((Claimant::Local(_) | Claimant::Remote(_), _)))
                && !ranges.iter().any(|range| range.contains(&address))
        };
        let mut strays = self.strays.clone();
        if self.dirty.places {
            strays = self.claims.holders().map(|(address, ..)| address).filter(|a| is_stray(*a)).collect();
        }
        for address in self.claims.changed() {
            if is_stray(address) {
                strays.insert(address);
            } else {
                strays.remove(&address);
            }
        }
        if strays != self.strays {
            self.strays = strays;
            self.dirty.places = true;
        }
    }

    /// The classes of a finer trie that a coarser one doesn't have, each with the class that the coarser one gives it.
    fn pieces(&mut self, finer: &ClassTrie, coarser: &ClassTrie) -> Vec<(Identity, Identity)> {
        let there: BTreeSet<&Class> = coarser.values().flatten().collect();
        let mut pieces = BTreeMap::new();
        for (prefix, class) in finer {
            let Some(class) = class.filter(|class| !there.contains(class)) else { continue };
            let around = classes::class_around(coarser, prefix);
            let around = around.map_or(Identity::UNKNOWN, |class| self.numbers.class(&class));
            pieces.insert(self.numbers.class(&class), around);
        }
        pieces.into_iter().map(|(piece, around)| (around, piece)).collect()
    }

    fn numbered(&mut self, trie: &ClassTrie) -> BTreeMap<IpNet, Identity> {
        trie.iter()
            .map(|(prefix, class)| {
                (*prefix, class.map_or(Identity::UNKNOWN, |class| self.numbers.class(&class)))
            })
            .collect()
    }

    /// Asks for everything that differs. `cut` says how the address space changes, if it does.
    pub(super) fn order(&mut self, cut: Option<Cut>, closed: Vec<EndpointId>) -> Vec<Change> {
        let mut changes = Vec::new();
        // 2.
        for id in closed {
            self.written.endpoints.remove(&id);
            changes.push(Change::EndpointClosed(id));
        }
        // 3, 4.
        let cut = cut.unwrap_or_default();
        self.refine(&cut, &mut changes);
        let endpoints: Vec<EndpointId> = std::mem::take(&mut self.dirty.endpoints).into_iter().collect();
        for id in &endpoints {
            self.write_endpoint(*id, Some(&cut), &mut changes);
        }
        self.write_known(&mut changes);
        self.write_addresses(&mut changes);
        if self.synced {
            self.coarsen(&endpoints, &mut changes);
            self.dismiss(&mut changes);
        }
        // 1.
        let fresh = self.numbers.take_fresh();
        if !fresh.is_empty() {
            changes.splice(0..0, fresh.into_iter().map(Change::Remember));
        }
        // 5.
        changes.append(&mut self.announcements);
        changes
    }

    fn refine(&mut self, cut: &Cut, changes: &mut Vec<Change>) {
        let Some(between) = &cut.between else { return };
        if *between == self.written.classes {
            return;
        }
        let before = changes.len();
        for (id, (identity, table)) in &mut self.written.endpoints {
            let room = self.config.table_capacity + self.config.table_capacity / 3;
            let refined = with_pieces(table, &cut.arriving).filter(|refined| refined.entries.len() <= room);
            if let Some(refined) = refined {
                *table = Arc::new(refined);
                changes.push(Change::Endpoint {
                    endpoint: *id,
                    identity: *identity,
                    table: Arc::clone(table),
                });
            }
        }
        if changes.len() > before {
            changes.push(Change::Grace);
        }
        self.write_classes(between.clone(), changes);
    }

    fn write_endpoint(&mut self, id: EndpointId, cut: Option<&Cut>, changes: &mut Vec<Change>) {
        let Some(local) = self.locals.get(&id) else { return };
        let identity = local.identity;
        if !self.synced && local.created.found.is_some() {
            return;
        }
        let table = if self.synced { self.table_of(id) } else { Some(self.init_table()) };
        let Some(mut table) = table else { return };
        let written = self.written.endpoints.get(&id);
        if let Some(cut) = cut {
            let room = self.config.table_capacity + self.config.table_capacity / 3;
            let widened = with_pieces(&table, &cut.leaving).filter(|widened| widened.entries.len() <= room);
            if let Some(widened) = widened {
                table = Arc::new(widened);
            }
            if let Some((_, old)) = written
                && !cut.fading.is_empty()
            {
                let kept = old.entries.iter().filter(|(key, _)| cut.fading.contains(&Identity(key.key.peer)));
                let mut widened = (*table).clone();
                widened.entries.extend(kept.map(|(key, entry)| (*key, *entry)));
                table = Arc::new(widened);
            }
        }
        if let Some((old, enforced)) = self.written.endpoints.get_mut(&id)
            && *old == identity
            && *enforced == table
        {
            // Equal tables stay one value, however each came about.
            *enforced = table;
            return;
        }
        self.written.endpoints.insert(id, (identity, Arc::clone(&table)));
        changes.push(Change::Endpoint { endpoint: id, identity, table });
    }

    /// Before the first lists are complete a new endpoint may do nothing: no policy is known, so none may open.
    fn init_table(&mut self) -> Arc<PolicyTable> {
        let subject =
            Subject { labels: Arc::new(sinew_api::labels::Labels::reserved("init")), ports: Arc::default() };
        let nothing = BTreeMap::new();
        let world = World { policies: &nothing, matchers: &self.matchers, ports: &self.peer_ports };
        world.compile(&subject, &[], &mut self.numbers).table
    }

    fn write_known(&mut self, changes: &mut Vec<Change>) {
        let mut arrived = std::mem::take(&mut self.dirty.arrived);
        if !self.synced {
            arrived = Identity::RESERVED.iter().map(|(number, _)| *number).skip(1).collect();
        }
        for number in arrived {
            if self.written.known.insert(number) {
                changes.push(Change::KnownAdd(number));
            }
        }
    }

    fn write_addresses(&mut self, changes: &mut Vec<Change>) {
        let before = changes.len();
        let mut addresses = self.claims.take_changed();
        addresses.append(&mut self.dirty.addresses);
        for address in addresses {
            let holder = self.claims.holder(address);
            if !self.synced && holder.is_some_and(|(claimant, _)| !self.is_new(claimant)) {
                self.dirty.addresses.insert(address);
                continue;
            }
            match holder {
                Some((_, entry)) => {
                    let entry = *entry;
                    if self.written.addresses.insert(address, Some(entry)) != Some(Some(entry)) {
                        changes.push(Change::IpcacheSet(address, entry));
                    }
                }
                None => {
                    if self.written.addresses.remove(&address).is_some() {
                        changes.push(Change::IpcacheDelete(address));
                    }
                }
            }
        }
        if self.synced && std::mem::take(&mut self.dirty.places) {
            let ranges = self.desired_ranges();
            let gone: Vec<IpNet> =
                self.written.ranges.keys().filter(|range| !ranges.contains_key(range)).copied().collect();
            for (range, entry) in ranges {
                if self.written.ranges.insert(range, Some(entry)) != Some(Some(entry)) {
                    changes.push(Change::RangeSet(range, entry));
                }
            }
            for range in gone {
                self.written.ranges.remove(&range);
                changes.push(Change::RangeDelete(range));
            }
        }
        if changes.len() > before {
            changes.push(Change::Generation);
        }
    }

    /// Whether a claim is one that holds before the first lists are complete: this node's, or a new endpoint's.
    fn is_new(&self, claimant: &Claimant) -> bool {
        match claimant {
            Claimant::OwnNode => true,
            Claimant::Local(id) => self.locals.get(id).is_some_and(|local| local.created.found.is_none()),
            Claimant::KubeApiserver | Claimant::Node(_) | Claimant::Remote(_) => false,
        }
    }

    /// Joins pieces that no policy needs any more.
    fn coarsen(&mut self, endpoints: &[EndpointId], changes: &mut Vec<Change>) {
        let trie = self.trie.clone();
        let classes = self.numbered(&trie);
        if classes == self.written.classes {
            return;
        }
        changes.push(Change::Grace);
        self.write_classes(classes, changes);
        let before = changes.len();
        changes.push(Change::Grace);
        for id in endpoints {
            self.write_endpoint(*id, None, changes);
        }
        if changes.len() == before + 1 {
            changes.pop();
        }
    }

    fn write_classes(&mut self, classes: BTreeMap<IpNet, Identity>, changes: &mut Vec<Change>) {
        for (prefix, class) in &classes {
            if self.written.classes.get(prefix) != Some(class) {
                changes.push(Change::ClassSet(*prefix, *class));
            }
        }
        for prefix in self.written.classes.keys() {
            if !classes.contains_key(prefix) {
                changes.push(Change::ClassDelete(*prefix));
            }
        }
        self.written.classes = classes;
    }

    /// 4. Identities that nobody has any more leave.
    fn dismiss(&mut self, changes: &mut Vec<Change>) {
        if self.departing.is_empty() && !std::mem::take(&mut self.dirty.strangers) {
            return;
        }
        let in_use = |number: Identity| {
            self.claims.names(number)
                || self.locals.values().any(|local| {
                    local.identity == number
                        || local.moving.as_ref().and_then(|moving| moving.announced) == Some(number)
                })
        };
        let mut leaving: BTreeSet<Identity> =
            self.departing.iter().copied().filter(|number| !in_use(*number)).collect();
        let identities = self.matchers.identities();
        leaving.extend(self.written.known.iter().filter(|number| !identities.contains_key(number)));
        if leaving.is_empty() {
            return;
        }
        changes.push(Change::Grace);
        for number in &leaving {
            self.departing.remove(number);
            if let Some(labels) = self.matchers.identities().get(number).cloned()
                && let Some(numbers) = self.by_labels.get_mut(&labels)
            {
                numbers.remove(number);
                if numbers.is_empty() {
                    self.by_labels.remove(&labels);
                }
            }
            let changed = self.matchers.remove_identity(*number);
            self.dirty.matchers.extend(changed);
            if self.written.known.remove(number) {
                changes.push(Change::KnownDelete(*number));
            }
        }
        changes.push(Change::Grace);
        self.spread_matchers();
        self.compile_subjects();
        for id in std::mem::take(&mut self.dirty.endpoints) {
            self.write_endpoint(id, None, changes);
        }
    }

    pub(crate) fn pod_ranges(&self) -> BTreeSet<IpNet> {
        let pools = self.facts.nodes.values().flat_map(|node| node.pod_cidrs.iter());
        self.config.cluster_cidrs.iter().chain(pools).map(IpNet::trunc).collect()
    }

    pub(super) fn all_node_addresses(&self) -> BTreeSet<IpAddr> {
        let named = self.facts.nodes.values().flat_map(|node| node.addresses.iter());
        self.facts.node_addresses.iter().chain(named).copied().collect()
    }

    fn desired_ranges(&self) -> BTreeMap<IpNet, IpcacheEntry> {
        let entry = IpcacheEntry { flags: ipcache::flag::CLUSTER_RANGE, ..Default::default() };
        let mut ranges: BTreeMap<IpNet, IpcacheEntry> =
            self.config.cluster_cidrs.iter().map(|range| (range.trunc(), entry)).collect();
        for node in self.facts.nodes.values() {
            let entry = IpcacheEntry { node_id: node.id, ..entry };
            ranges.extend(node.pod_cidrs.iter().map(|range| (range.trunc(), entry)));
        }
        ranges
    }

    /// Which identity the addresses of a class have, if it is outside the cluster.
    pub(super) fn world_of(&self, class: Identity) -> Option<Identity> {
        let class = self.numbers.class_of(class).filter(|class| class.place == Place::World)?;
        Some(match class.prefix {
            _ if !(self.config.v4 && self.config.v6) => Identity::WORLD,
            IpNet::V4(_) => Identity::WORLD_IPV4,
            IpNet::V6(_) => Identity::WORLD_IPV6,
        })
    }
}

/// The table with the entries of some classes under other class numbers too; `None` where that adds nothing.
fn with_pieces(table: &PolicyTable, pieces: &[(Identity, Identity)]) -> Option<PolicyTable> {
    let mut copies = Vec::new();
    for (from, to) in pieces.iter().filter(|(from, _)| *from != Identity::UNKNOWN) {
        for direction in [0, 1] {
            let first = TableKey::first_of(from.0, direction);
            let of_class = table.entries.range(first..).take_while(|(key, _)| key.is_of(from.0, direction));
            copies.extend(of_class.map(|(key, entry)| (key.with_peer(to.0), *entry)));
        }
    }
    if copies.is_empty() {
        return None;
    }
    let mut widened = table.clone();
    widened.entries.extend(copies);
    Some(widened)
}
