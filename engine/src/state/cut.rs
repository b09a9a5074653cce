//! How the address space is cut into classes, and how the tables get from one cut to the next (`order.rs` 3).
//!
//! On the way the trie and the tables hold what the old and the new cut need together. The kernel's have room for a third
//! more than a settled one may have; a change that needs more is refused before it begins (`capacity.rs`).
//!
//! Neighbours: `order.rs` carries a cut out, `policy/classes.rs` cuts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use sinew_api::identity::Identity;
use sinew_api::object::PolicyName;
use sinew_bpf::abi::{PolicyEntry, policy::verdict};

use super::Engine;
use super::claims::Claimant;
use crate::numbers::{Class, Place};
use crate::policy::classes::{self, ClassTrie};
use crate::table::{PolicyTable, TableKey};

/// How the tables get from one cut of the address space to the next (3).
#[derive(Default)]
pub(super) struct Cut {
    /// The trie while both the old and the new verdicts need it; `None` where it goes straight to the new one.
    pub(super) between: Option<BTreeMap<IpNet, Identity>>,
    /// Old classes and the pieces cut from them.
    pub(super) arriving: Vec<(Identity, Identity)>,
    /// New classes and the pieces that are about to become part of them; an unknown class where it is none.
    pub(super) leaving: Vec<(Identity, Identity)>,
    /// Old classes that keep the entries that they have until no address has them.
    pub(super) fading: BTreeSet<Identity>,
}

/// What does not fit while the tables go to a new cut.
pub(super) struct Crowded {
    /// Policies of which one must give way.
    pub(super) policies: BTreeSet<PolicyName>,
    /// What is too much, with the numbers.
    pub(super) message: String,
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
        let cut = self.plan_cut();
        self.trie_before = None;
        cut
    }

    fn plan_cut(&mut self) -> Option<Cut> {
        let old = self.trie_before.clone()?;
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

    /// What does not fit on the way to the new cut, if something does not.
    pub(super) fn crowded(&mut self) -> Option<Crowded> {
        let cut = self.plan_cut()?;
        let next = match &cut.between {
            Some(between) => between.keys().copied().collect::<BTreeSet<IpNet>>(),
            None => self.trie.keys().copied().collect(),
        };
        let classes = next.union(&self.written.classes.keys().copied().collect()).count();
        let room = self.config.class_room();
        if classes > room {
            let policies = self.policies_with_prefixes();
            return Some(Crowded { policies, message: crowded(&format!("{classes} address classes"), room) });
        }
        let room = self.config.table_room();
        for (id, local) in self.locals.iter() {
            let old = self.written.endpoints.get(id).map(|(_, table)| table);
            let refined = old.map_or(0, |old| old.entries.len() + copies(old, &cut.arriving).len());
            let new = self.table_of(*id);
            let kept = old.map_or(0, |old| kept(old, &cut.fading).len());
            let new = new.map_or(0, |new| new.entries.len() + copies(&new, &cut.leaving).len() + kept);
            let entries = refined.max(new);
            if entries <= room {
                continue;
            }
            let selected = local.subjects().into_iter().filter_map(|subject| self.subjects.get(&subject));
            let policies =
                selected.flat_map(|selected| selected.specs.iter().map(|(name, _)| name.clone())).collect();
            let what = format!("{entries} entries in the policy table of {}", self.name_of_endpoint(*id));
            return Some(Crowded { policies, message: crowded(&what, room) });
        }
        None
    }

    /// Where pods and nodes are: ranges of pods, and by itself each pod that is in none.
    pub(super) fn pods_and_nodes(&self) -> (BTreeSet<IpNet>, BTreeSet<IpAddr>) {
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

    pub(super) fn numbered(&mut self, trie: &ClassTrie) -> BTreeMap<IpNet, Identity> {
        trie.iter()
            .map(|(prefix, class)| {
                (*prefix, class.map_or(Identity::UNKNOWN, |class| self.numbers.class(&class)))
            })
            .collect()
    }

    /// Which identities the addresses of a class may have, if it is outside the cluster: the world's, and the API server's
    /// where one of its addresses is among them.
    pub(super) fn outsiders_of(&self, number: Identity) -> Vec<Identity> {
        let class = self.numbers.class_of(number).filter(|class| class.place == Place::World);
        let Some(class) = class else { return Vec::new() };
        let is_apiserver = |address: &IpAddr| {
            classes::class_of(&self.trie, *address) == Some(*class)
                && matches!(self.claims.holder(*address), Some((Claimant::KubeApiserver, _)))
        };
        let apiserver = self.config.kube_apiserver.iter().flatten().any(is_apiserver);
        let apiserver = apiserver.then_some(Identity::KUBE_APISERVER);
        apiserver.into_iter().chain([self.world_identity(class.prefix.addr())]).collect()
    }
}

fn crowded(what: &str, room: usize) -> String {
    format!(
        "does not fit: the change from what is in force would need {what}, and {room} fit; make it in steps"
    )
}

/// The entries of some classes under other class numbers too.
pub(super) fn copies(table: &PolicyTable, pieces: &[(Identity, Identity)]) -> Vec<(TableKey, PolicyEntry)> {
    let mut copies = Vec::new();
    for (from, to) in pieces.iter().filter(|(from, _)| *from != Identity::UNKNOWN) {
        for direction in [0, 1] {
            let first = TableKey::first_of(from.0, direction);
            let of_class = table.entries.range(first..).take_while(|(key, _)| key.is_of(from.0, direction));
            copies.extend(of_class.map(|(key, entry)| (key.with_peer(to.0), *entry)));
        }
    }
    copies
}

/// The entries of classes that fade.
pub(super) fn kept(table: &PolicyTable, fading: &BTreeSet<Identity>) -> Vec<(TableKey, PolicyEntry)> {
    let faded = |key: &TableKey| fading.contains(&Identity(key.key.peer));
    let entries = table.entries.iter().filter(|(key, _)| !fading.is_empty() && faded(key));
    entries.map(|(key, entry)| (*key, *entry)).collect()
}

/// A table with more entries; `None` where there are none.
pub(super) fn widened(
    table: &PolicyTable,
    more: Vec<(TableKey, PolicyEntry)>,
    room: usize,
) -> Option<PolicyTable> {
    if more.is_empty() {
        return None;
    }
    let mut widened = table.clone();
    widened.entries.extend(more);
    Some(fitted(widened, room))
}

/// As much of a table as there is room for, where nothing can be refused any more: what is left out is what allows a pod
/// or an address, so that it closes.
pub(super) fn fitted(mut table: PolicyTable, room: usize) -> PolicyTable {
    let over = table.entries.len().saturating_sub(room);
    if over > 0 {
        let opens = |(key, entry): &(&TableKey, &PolicyEntry)| {
            entry.verdict == verdict::ALLOW && Identity(key.key.peer) >= Identity::FIRST_ALLOCATED
        };
        let gone: Vec<TableKey> =
            table.entries.iter().rev().filter(opens).take(over).map(|(key, _)| *key).collect();
        for key in gone {
            table.entries.remove(&key);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::l4::L4Prefix;

    fn table(entries: &[(u32, u8)]) -> PolicyTable {
        let entry = |(peer, verdict): &(u32, u8)| {
            (L4Prefix::ALL.key(*peer, 0), PolicyEntry { verdict: *verdict, ..PolicyEntry::default() })
        };
        PolicyTable { entries: entries.iter().map(entry).collect() }
    }

    #[test]
    fn what_does_not_fit_closes() {
        let (allow, deny) = (verdict::ALLOW, verdict::DENY);
        let full = table(&[(0, allow), (1, allow), (300, deny), (301, allow), (302, allow), (303, deny)]);
        assert_eq!(fitted(full.clone(), 6), full);
        assert_eq!(
            fitted(full.clone(), 5),
            table(&[(0, allow), (1, allow), (300, deny), (301, allow), (303, deny)])
        );
        // What holds for anybody, and the host's way to its pods, stay; so does every deny.
        assert_eq!(fitted(full, 2), table(&[(0, allow), (1, allow), (300, deny), (303, deny)]));
    }

    #[test]
    fn a_table_is_widened_as_far_as_there_is_room() {
        let (allow, deny) = (verdict::ALLOW, verdict::DENY);
        let old = table(&[(0, allow), (300, deny), (301, allow)]);
        let pieces =
            [(Identity(300), Identity(400)), (Identity(301), Identity(401)), (Identity(0), Identity(402))];
        let more = copies(&old, &pieces);
        assert_eq!(more.len(), 2, "an unknown class has no entries");
        let whole = table(&[(0, allow), (300, deny), (301, allow), (400, deny), (401, allow)]);
        assert_eq!(widened(&old, more.clone(), 5), Some(whole));
        let closed = table(&[(0, allow), (300, deny), (301, allow), (400, deny)]);
        assert_eq!(widened(&old, more, 4), Some(closed));
        assert_eq!(widened(&old, Vec::new(), 4), None);
        assert_eq!(
            kept(&old, &[Identity(301)].into()),
            copies(&table(&[(301, allow)]), &[(Identity(301), Identity(301))])
        );
    }
}
