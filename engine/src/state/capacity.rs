//! Nothing overflows: what would not fit into the kernel's tables is refused with the numbers, before one entry is written
//! (policy.md 14; ARCHITECTURE.md, promise 7).
//!
//! A policy that would not fit is refused, the newest one that selects the endpoint first: its last version that fitted goes
//! on; one without such a version contributes its default denies and deny rules; if these don't fit either, it denies
//! all that it would have judged. Where no policy changed but an identity arrived that a table can't take, the identity
//! is held back: it isn't KNOWN, so its packets drop by name, and the policies say so (datapath.md 4).
//!
//! Whatever was refused or held back is tried again when something gives way.
//!
//! Neighbours: `state.rs` calls this between compiling and writing.

use std::collections::BTreeSet;

use sinew_api::identity::Identity;
use sinew_api::object::{PolicyName, Problem};

use super::Engine;
use crate::change::EndpointId;
use crate::policy::compile::Subject;
use crate::policy::load::{Force, Loaded};

impl Engine {
    /// Gives what was refused or held back another chance, if something may have given way.
    pub(super) fn retry(&mut self) {
        let gave_way = !(self.dirty.policies.is_empty()
            && self.dirty.closing.is_empty()
            && self.departing.is_empty()
            && self.dirty.idle_subjects.is_empty());
        if !gave_way {
            return;
        }
        let refused = self.policies.iter().filter(|(_, stored)| stored.overflow.is_some());
        for name in refused.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            if let Some(stored) = self.policies.get_mut(&name) {
                stored.overflow = None;
                stored.force = Force::Whole;
            }
            self.dirty.policies.insert(name);
        }
        for (number, labels) in std::mem::take(&mut self.held_back) {
            let changed = self.matchers.add_identity(number, labels);
            self.dirty.matchers.extend(changed);
            self.dirty.arrived.insert(number);
        }
    }

    /// Refuses and holds back until everything fits.
    pub(super) fn fit(&mut self, policies_changed: bool) {
        // Each round makes a policy contribute less or takes identities away, so this ends.
        loop {
            if self.trie.len() > self.config.class_capacity {
                let message = format!(
                    "does not fit: the CIDRs of all policies would cut addresses into {} classes, and {} fit",
                    self.trie.len(),
                    self.config.class_capacity
                );
                let naming = self.policies_with_prefixes();
                if !self.refuse_newest(&naming, message) {
                    return;
                }
            } else if let Some((subject, entries)) = self.overfull() {
                if !policies_changed && self.hold_back(&subject) {
                    self.spread_matchers();
                    self.compile_subjects();
                    continue;
                }
                let selected = self.subjects.get(&subject);
                let specs = selected.map(|selected| selected.specs.clone()).unwrap_or_default();
                let names: BTreeSet<PolicyName> = specs.into_iter().map(|(name, _)| name).collect();
                let message = format!(
                    "does not fit: the policy table of {} would have {entries} entries, and {} fit",
                    self.name_of(&subject),
                    self.config.table_capacity
                );
                if !self.refuse_newest(&names, message) {
                    return;
                }
            } else if let Some(crowded) = self.crowded() {
                if !self.refuse_newest(&crowded.policies, crowded.message) {
                    return;
                }
            } else {
                return;
            }
            self.settle_policies();
            self.cut_classes();
            self.spread_matchers();
            self.compile_subjects();
        }
    }

    /// Versions that are in force as a whole are the last valid ones from now on.
    pub(super) fn remember_valid(&mut self) {
        for name in std::mem::take(&mut self.dirty.candidates) {
            let Some(stored) = self.policies.get_mut(&name) else { continue };
            let Some(applied) = stored.applied.clone() else { continue };
            if stored.refused() || stored.valid.as_ref() == Some(&applied) {
                continue;
            }
            stored.valid = Some(applied.clone());
            self.outbox.push(crate::change::Change::PolicyValid(applied));
        }
    }

    pub(super) fn policies_with_prefixes(&self) -> BTreeSet<PolicyName> {
        let has = |loaded: &Loaded| loaded.specs.iter().any(|spec| !spec.prefixes.is_empty());
        self.loaded.iter().filter(|(_, loaded)| has(loaded)).map(|(name, _)| name.clone()).collect()
    }

    fn overfull(&self) -> Option<(Subject, usize)> {
        let entries = self.subjects.iter().map(|(subject, s)| (subject, s.compiled.table.entries.len()));
        let mut over = entries.filter(|(_, entries)| *entries > self.config.table_capacity);
        over.next().map(|(subject, entries)| (subject.clone(), entries))
    }

    /// Takes back the identities that arrived just now and that the table would hold.
    fn hold_back(&mut self, subject: &Subject) -> bool {
        let Some(selected) = self.subjects.get(subject) else { return false };
        let peers: BTreeSet<Identity> =
            selected.compiled.table.entries.keys().map(|key| Identity(key.key.peer)).collect();
        let held: Vec<Identity> = self.dirty.arrived.intersection(&peers).copied().collect();
        for number in &held {
            self.dirty.arrived.remove(number);
            if let Some(labels) = self.matchers.identities().get(number).cloned() {
                let changed = self.matchers.remove_identity(*number);
                self.dirty.matchers.extend(changed);
                self.held_back.insert(*number, labels);
            }
        }
        !held.is_empty()
    }

    /// Makes the newest of some policies contribute less. Whether one could.
    fn refuse_newest(&mut self, names: &BTreeSet<PolicyName>, message: String) -> bool {
        let candidates = names.iter().filter_map(|name| Some((name, self.policies.get(name)?)));
        let newest = candidates
            .filter(|(_, stored)| stored.force != Force::DenyAll)
            .max_by_key(|(_, stored)| stored.turn)
            .map(|(name, _)| name.clone());
        let Some(name) = newest else { return false };
        if let Some(stored) = self.policies.get_mut(&name) {
            let applied = stored.applied.clone();
            let older = stored.valid.is_some() && stored.valid != applied;
            match stored.overflow {
                None => {
                    let origin = applied.map(|applied| applied.origin.clone()).unwrap_or_default();
                    stored.overflow = Some(Problem { path: "spec".to_owned(), message, origin });
                    stored.force = if older { Force::Whole } else { Force::NoAllows };
                }
                Some(_) => {
                    stored.force =
                        if stored.force == Force::Whole { Force::NoAllows } else { Force::DenyAll };
                }
            }
        }
        self.dirty.policies.insert(name);
        true
    }

    /// An endpoint of a subject, as people know it.
    fn name_of(&self, subject: &Subject) -> String {
        let user = self.subjects.get(subject).and_then(|selected| selected.users.first());
        user.map_or_else(|| subject.labels.to_string(), |user| self.name_of_endpoint(*user))
    }

    pub(super) fn name_of_endpoint(&self, id: EndpointId) -> String {
        match self.locals.get(&id).map(|local| &local.created) {
            Some(created) if !created.pod_name.is_empty() => {
                format!("{}/{}", created.pod_namespace, created.pod_name)
            }
            Some(created) => created.container_id.clone(),
            None => id.0.to_string(),
        }
    }
}
