//! Policy objects: the version that the store has, the last valid one, and which of them is in force (policy.md 14).
//!
//! Neighbours: `subjects.rs` compiles what is in force, `snapshot.rs` tells people.

use std::collections::BTreeSet;
use std::sync::Arc;

use sinew_api::object::{PolicyName, Problem};
use sinew_api::policy::{Enforcement, Policy};

use super::Engine;
use crate::change::Change;
use crate::policy::load::{Force, Loaded};

/// One policy object.
#[derive(Clone, Debug, Default)]
pub(super) struct Stored {
    /// As the store has it; `None` for one that was only read back from disk.
    pub(super) applied: Option<Arc<Policy>>,
    /// The last version without problems that was in force as a whole.
    pub(super) valid: Option<Arc<Policy>>,
    /// How much of the version in force is in force.
    pub(super) force: Force,
    /// Why not all of it is: it doesn't fit.
    pub(super) overflow: Option<Problem>,
    /// Rises with every version, so that of two policies that don't fit together the later one is refused.
    pub(super) turn: u64,
    /// The revision at which the version in force came into force.
    pub(super) revision: u64,
}

impl Stored {
    /// The version in force.
    pub(super) fn running(&self) -> Option<&Arc<Policy>> {
        match &self.applied {
            Some(applied) if !self.refused() => Some(applied),
            Some(applied) => self.valid.as_ref().or(Some(applied)),
            None => self.valid.as_ref(),
        }
    }

    /// Whether the store's version is refused.
    pub(super) fn refused(&self) -> bool {
        self.overflow.is_some() || self.applied.as_ref().is_some_and(|applied| !applied.problems.is_empty())
    }

    /// Where it stands.
    pub(super) fn is_audit(&self) -> bool {
        self.running().is_some_and(|policy| policy.enforcement == Enforcement::Audit)
    }
}

impl Engine {
    pub(super) fn policy_applied(&mut self, policy: Policy) {
        let name = policy.name.clone();
        self.stale_policies.insert(name.clone());
        let stored = self.policies.entry(name.clone()).or_default();
        if stored.applied.as_deref() == Some(&policy) {
            return;
        }
        let policy = Arc::new(policy);
        stored.applied = Some(policy);
        self.turn += 1;
        stored.turn = self.turn;
        stored.overflow = None;
        stored.force = Force::Whole;
        self.dirty.candidates.insert(name.clone());
        self.dirty.policies.insert(name);
    }

    pub(super) fn policy_restored(&mut self, policy: Policy) {
        let name = policy.name.clone();
        let stored = self.policies.entry(name.clone()).or_default();
        if stored.valid.is_none() && policy.problems.is_empty() {
            stored.valid = Some(Arc::new(policy));
            self.dirty.policies.insert(name);
        }
    }

    pub(super) fn policy_removed(&mut self, name: &PolicyName) {
        if self.policies.remove(name).is_some() {
            self.outbox.push(Change::PolicyGone(name.clone()));
            self.stale_policies.insert(name.clone());
            self.dirty.policies.insert(name.clone());
        }
    }

    /// Policies that were read back from disk and that the store doesn't have are gone.
    pub(super) fn first_lists_complete(&mut self) {
        let gone: Vec<PolicyName> = self
            .policies
            .iter()
            .filter(|(_, stored)| stored.applied.is_none())
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            self.policy_removed(&name);
        }
        let locals: Vec<_> = self.locals.keys().copied().collect();
        self.dirty.locals.extend(locals);
        self.dirty.places = true;
        self.dirty.strangers = true;
        self.dirty.arrived.extend(self.matchers.identities().keys());
        self.dirty.addresses.extend(self.written.addresses.keys());
    }

    /// Policies that name CIDR groups are loaded again.
    pub(super) fn groups_changed(&mut self) {
        let naming =
            self.loaded.iter().filter(|(_, loaded)| loaded.names_groups).map(|(name, _)| name.clone());
        self.dirty.policies.extend(naming);
    }

    /// Puts into force what the store's versions ask for, and marks the subjects that are concerned.
    pub(super) fn settle_policies(&mut self) -> bool {
        let names = std::mem::take(&mut self.dirty.policies);
        let changed = !names.is_empty();
        for name in names {
            self.load(&name);
        }
        changed
    }

    /// Loads one policy anew.
    pub(super) fn load(&mut self, name: &PolicyName) {
        self.dirty.came_into_force.insert(name.clone());
        self.stale_policies.insert(name.clone());
        let mut concerned: BTreeSet<_> = self.subjects_selected_by(name);
        if let Some(old) = self.loaded.remove(name) {
            self.deselect(name, &old, &concerned);
            old.release(&mut self.matchers);
        }
        let running =
            self.policies.get(name).and_then(|stored| Some((stored.running()?.clone(), stored.force)));
        if let Some((policy, force)) = running {
            let loaded =
                Loaded::new(policy, force, &self.facts.groups, &mut self.matchers, &mut self.numbers);
            concerned.extend(self.select(name, &loaded));
            self.loaded.insert(name.clone(), loaded);
        }
        self.dirty.subjects.extend(concerned);
    }
}
