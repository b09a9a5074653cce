//! The difference between what should be and what was asked for so far, in an order in which every packet meets one
//! whole policy set (datapath.md 1, 4, 17; policy.md 17):
//!
//! 1. Numbers are remembered before anything carries them.
//! 2. An endpoint that goes away drops everything before its address leaves.
//! 3. Address classes are shared by all tables, so they never change together with verdicts. First the space is cut where
//!    either the old or the new policies need it, under tables that give each new piece the verdict of the piece that
//!    it was cut from; then tables get the new verdicts, on all those pieces; then pieces that nobody needs are joined
//!    again.
//! 4. A table with a new identity's entries comes before the identity is KNOWN, and that before an address resolves to
//!    it. An identity leaves the other way round, with a grace period at each step.
//! 5. A relabel is announced when all of this is asked for, and the revision comes last.
//!
//! Neighbours: `state.rs` calls this, `cut.rs` says how the address space is cut, `change.rs` has the steps.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use sinew_api::identity::Identity;
use sinew_bpf::abi::{IpcacheEntry, ipcache};

use super::Engine;
use super::claims::Claimant;
use super::cut::{Cut, copies, kept, widened};
use crate::change::{Change, EndpointId};
use crate::event::Found;
use crate::policy::compile::{Subject, World};
use crate::table::PolicyTable;

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

impl Engine {
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
        let room = self.config.table_room();
        for (id, (identity, table)) in &mut self.written.endpoints {
            if let Some(refined) = widened(table, copies(table, &cut.arriving), room) {
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
            let mut more = copies(&table, &cut.leaving);
            if let Some((_, old)) = written {
                more.extend(kept(old, &cut.fading));
            }
            if let Some(widened) = widened(&table, more, self.config.table_room()) {
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
}
