//! Label sets in use here: which policies select each, and its compiled table. Endpoints with equal labels and ports
//! share one.
//!
//! Neighbours: `locals.rs` says who uses which, `policies.rs` what is in force, `order.rs` writes tables.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use sinew_api::identity::Identity;
use sinew_api::object::PolicyName;

use super::Engine;
use super::claims::Claimant;
use super::cut::fitted;
use crate::change::EndpointId;
use crate::policy::compile::{Compiled, NamedPorts, Subject, World};
use crate::policy::load::{Loaded, LoadedPeers};
use crate::policy::matcher::MatcherId;
use crate::policy::relabel;
use crate::table::PolicyTable;

/// A subject in use.
#[derive(Clone, Debug, Default)]
pub(super) struct Selected {
    /// Who enforces its table.
    pub(super) users: BTreeSet<EndpointId>,
    /// The specs that select it, in the order of names.
    pub(super) specs: BTreeSet<(PolicyName, usize)>,
    pub(super) compiled: Compiled,
    /// What `compiled` follows from.
    alike: Option<Alike>,
    asked: Asked,
}

impl Engine {
    pub(super) fn join_subjects(&mut self, id: EndpointId, subjects: &[Subject]) {
        for subject in subjects {
            if !self.subjects.contains_key(subject) {
                let specs: BTreeSet<_> = self.world().selecting(subject).into_iter().collect();
                for (name, index) in &specs {
                    self.use_prefixes(name, *index);
                }
                self.subjects.insert(subject.clone(), Selected { specs, ..Selected::default() });
                self.dirty.subjects.insert(subject.clone());
            }
            if let Some(selected) = self.subjects.get_mut(subject) {
                selected.users.insert(id);
            }
        }
    }

    pub(super) fn leave_subjects(&mut self, id: EndpointId, subjects: &[Subject]) {
        for subject in subjects {
            let Some(selected) = self.subjects.get_mut(subject) else { continue };
            selected.users.remove(&id);
            if selected.users.is_empty() {
                self.dirty.idle_subjects.insert(subject.clone());
            }
        }
    }

    /// Forgets subjects that nobody uses any more.
    pub(super) fn sweep_subjects(&mut self) {
        for subject in std::mem::take(&mut self.dirty.idle_subjects) {
            if self.subjects.get(&subject).is_some_and(|selected| selected.users.is_empty())
                && let Some(selected) = self.subjects.remove(&subject)
            {
                for (name, index) in selected.specs {
                    self.disuse_prefixes(&name, index);
                }
            }
        }
    }

    pub(super) fn subjects_selected_by(&self, name: &PolicyName) -> BTreeSet<Subject> {
        let selected = |selected: &Selected| selected.specs.iter().any(|(policy, _)| policy == name);
        self.subjects.iter().filter(|(_, s)| selected(s)).map(|(subject, _)| subject.clone()).collect()
    }

    /// A policy's version leaves the subjects that it selects.
    pub(super) fn deselect(&mut self, name: &PolicyName, old: &Loaded, subjects: &BTreeSet<Subject>) {
        for subject in subjects {
            let Some(selected) = self.subjects.get_mut(subject) else { continue };
            let specs: Vec<usize> =
                selected.specs.iter().filter(|(policy, _)| policy == name).map(|(_, index)| *index).collect();
            selected.specs.retain(|(policy, _)| policy != name);
            for index in specs {
                self.class_prefixes.remove(old.specs.get(index).into_iter().flat_map(|spec| &spec.prefixes));
            }
        }
    }

    /// A policy's version reaches the subjects that it selects. Returns them.
    pub(super) fn select(&mut self, name: &PolicyName, new: &Loaded) -> Vec<Subject> {
        let mut reached = Vec::new();
        for (subject, selected) in self.subjects.iter_mut() {
            let specs =
                new.specs.iter().enumerate().filter(|(_, spec)| spec.subject.matches(&subject.labels));
            let mut any = false;
            for (index, spec) in specs {
                selected.specs.insert((name.clone(), index));
                self.class_prefixes.add(&spec.prefixes);
                any = true;
            }
            if any {
                reached.push(subject.clone());
            }
        }
        reached
    }

    /// Marks the subjects whose rules ask a matcher whose members changed.
    pub(super) fn spread_matchers(&mut self) {
        let changed = std::mem::take(&mut self.dirty.matchers);
        let ports = std::mem::take(&mut self.dirty.peer_ports);
        if changed.is_empty() && !ports {
            return;
        }
        for (subject, selected) in self.subjects.iter() {
            let asked = &selected.asked;
            if (ports && asked.peer_ports) || changed.iter().any(|id| asked.matchers.contains(id)) {
                self.dirty.subjects.insert(subject.clone());
            }
        }
    }

    /// Compiles the marked subjects. Marks the endpoints whose table is another one now. Subjects that the same specs
    /// select have the same table, which is compiled once and is one value: on most nodes a few tables serve all endpoints.
    pub(super) fn compile_subjects(&mut self) {
        let dirty = std::mem::take(&mut self.dirty.subjects);
        if dirty.is_empty() {
            return;
        }
        let mut done: HashMap<Alike, Compiled> = HashMap::new();
        for (subject, selected) in self.subjects.iter() {
            if !dirty.contains(subject)
                && let Some(alike) = &selected.alike
            {
                done.insert(alike.clone(), selected.compiled.clone());
            }
        }
        for subject in dirty {
            let Some(selected) = self.subjects.get(&subject) else { continue };
            let specs: Vec<_> = selected.specs.iter().cloned().collect();
            let asked = Asked::of(&self.loaded, &specs);
            let ports = asked.own_ports.then(|| Arc::clone(&subject.ports));
            let alike = Alike { specs, init: subject.is_init(), ports };
            let compiled = match done.get(&alike) {
                Some(compiled) => compiled.clone(),
                None => {
                    let world =
                        World { policies: &self.loaded, matchers: &self.matchers, ports: &self.peer_ports };
                    let compiled = world.compile(&subject, &alike.specs, &mut self.numbers);
                    done.insert(alike.clone(), compiled.clone());
                    compiled
                }
            };
            self.stale_policies.extend(alike.specs.iter().map(|(name, _)| name.clone()));
            let Some(selected) = self.subjects.get_mut(&subject) else { continue };
            if selected.compiled != compiled {
                self.dirty.endpoints.extend(&selected.users);
            }
            selected.asked = asked;
            selected.alike = Some(alike);
            selected.compiled = compiled;
        }
    }

    /// What an endpoint should enforce.
    pub(super) fn table_of(&self, id: EndpointId) -> Option<Arc<PolicyTable>> {
        let local = self.locals.get(&id)?;
        let subjects = local.subjects();
        let mut tables =
            subjects.iter().filter_map(|subject| Some(&self.subjects.get(subject)?.compiled.table));
        let one = tables.next()?;
        let Some(other) = tables.next() else { return Some(Arc::clone(one)) };
        let both = relabel::both(one, other, |class| self.outsiders_of(class));
        Some(Arc::new(fitted(both, self.config.table_room())))
    }

    pub(super) fn world(&self) -> World<'_> {
        World { policies: &self.loaded, matchers: &self.matchers, ports: &self.peer_ports }
    }

    /// The named ports of whoever claims something, and his identity; `None` takes them back.
    pub(super) fn set_peer_ports(&mut self, claimant: Claimant, ports: Option<(Identity, NamedPorts)>) {
        let ports = ports.filter(|(_, ports)| !ports.is_empty());
        let old = match ports.clone() {
            Some(ports) => self.port_owners.insert(claimant, ports),
            None => self.port_owners.remove(&claimant),
        };
        if old == ports {
            return;
        }
        self.dirty.peer_ports = true;
        let identities: BTreeSet<Identity> =
            old.iter().chain(&ports).map(|(identity, _)| *identity).collect();
        for identity in identities {
            let mut all = NamedPorts::new();
            for (_, ports) in self.port_owners.values().filter(|(owner, _)| *owner == identity) {
                for (name, numbers) in ports {
                    all.entry(name.clone()).or_default().extend(numbers);
                }
            }
            for numbers in all.values_mut() {
                numbers.sort_unstable();
                numbers.dedup();
            }
            match all.is_empty() {
                true => self.peer_ports.remove(&identity),
                false => self.peer_ports.insert(identity, all),
            };
        }
    }

    fn use_prefixes(&mut self, name: &PolicyName, index: usize) {
        if let Some(spec) = self.loaded.get(name).and_then(|loaded| loaded.specs.get(index)) {
            self.class_prefixes.add(&spec.prefixes);
        }
    }

    fn disuse_prefixes(&mut self, name: &PolicyName, index: usize) {
        if let Some(spec) = self.loaded.get(name).and_then(|loaded| loaded.specs.get(index)) {
            self.class_prefixes.remove(&spec.prefixes);
        }
    }
}

/// What a table depends on beside the policies: subjects that agree in it have the same one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Alike {
    specs: Vec<(PolicyName, usize)>,
    init: bool,
    /// The subject's own ports, where a rule names one.
    ports: Option<Arc<NamedPorts>>,
}

/// What the rules of a subject ask for.
#[derive(Clone, Debug, Default)]
struct Asked {
    matchers: HashSet<MatcherId>,
    /// Whether a rule names a port of the subject.
    own_ports: bool,
    /// Whether a rule names a port of its peers.
    peer_ports: bool,
}

impl Asked {
    fn of(loaded: &BTreeMap<PolicyName, Loaded>, specs: &[(PolicyName, usize)]) -> Self {
        let mut asked = Self::default();
        for (name, index) in specs {
            let Some(spec) = loaded.get(name).and_then(|loaded| loaded.specs.get(*index)) else { continue };
            let [ingress, egress] = &spec.rules;
            asked.own_ports |= ingress.iter().any(|rule| !rule.named.is_empty());
            asked.peer_ports |= egress.iter().any(|rule| !rule.named.is_empty());
            for rule in spec.rules.iter().flatten() {
                if let LoadedPeers::OneOf(ids) = &rule.peers {
                    asked.matchers.extend(ids);
                }
            }
        }
        asked
    }
}
