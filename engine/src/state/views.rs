//! Makes snapshots. Each part is made again only when something in it may have changed.
//!
//! Neighbours: `snapshot.rs` has the values.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sinew_api::object::{PolicyName, Problem};
use sinew_api::policy::Policy;

use super::Engine;
use super::claims::Claimant;
use super::policies::Stored;
use super::subjects::Selected;
use crate::change::EndpointId;
use crate::numbers::Direction;
use crate::policy::load::LoadedPeers;
use crate::snapshot::{AddressView, EndpointView, IdentityView, PolicyState, PolicyView, Snapshot};
use crate::validate::{self, Places};

/// Parts of the last snapshot that are no longer so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stale {
    pub(super) endpoints: bool,
    pub(super) policies: bool,
    pub(super) identities: bool,
    pub(super) addresses: bool,
    pub(super) numbers: bool,
}

impl Stale {
    pub(super) const ALL: Self =
        Self { endpoints: true, policies: true, identities: true, addresses: true, numbers: true };
    const NOTHING: Self =
        Self { endpoints: false, policies: false, identities: false, addresses: false, numbers: false };
}

/// Who is selected by each policy, by spec.
type Selections<'a> = BTreeMap<&'a PolicyName, Vec<(usize, &'a Selected)>>;

impl Engine {
    /// Everything that readers ask for, as of now.
    pub fn snapshot(&mut self) -> Arc<Snapshot> {
        if let Some(snapshot) = &self.snapshot
            && snapshot.revision == self.revision
            && !self.changed_since_snapshot
        {
            return Arc::clone(snapshot);
        }
        let mut next = self.snapshot.as_deref().cloned().unwrap_or_default();
        next.revision = self.revision;
        next.synced = self.synced;
        let stale = std::mem::replace(&mut self.stale, Stale::NOTHING);
        if stale.endpoints {
            next.endpoints = Arc::new(self.locals.keys().map(|id| (*id, self.endpoint_view(*id))).collect());
        }
        let changed = std::mem::take(&mut self.stale_policies);
        if stale.policies {
            next.policies = Arc::new(self.policy_views(self.policies.keys()));
        } else if !changed.is_empty() {
            let views = Arc::make_mut(&mut next.policies);
            views.retain(|name, _| self.policies.contains_key(name));
            views.extend(self.policy_views(changed.iter()));
        }
        if stale.identities {
            next.identities = Arc::new(self.identity_views());
        }
        if stale.addresses {
            next.addresses = Arc::new(self.address_views());
        }
        if stale.numbers {
            let causes = self.numbers.causes().map(|(cookie, cause)| (cookie, cause.clone()));
            next.causes = Arc::new(causes.collect());
            next.classes = Arc::new(self.numbers.classes().map(|(number, class)| (number, *class)).collect());
        }
        let snapshot = Arc::new(next);
        self.snapshot = Some(Arc::clone(&snapshot));
        self.changed_since_snapshot = false;
        snapshot
    }

    fn endpoint_view(&self, id: EndpointId) -> EndpointView {
        let local = &self.locals[&id];
        EndpointView {
            created: local.created.clone(),
            pod: local.pod.clone(),
            identity: local.identity,
            labels: Arc::clone(&local.labels),
            moving_to: local.moving.as_ref().map(|moving| Arc::clone(&moving.labels)),
            enforcement: self.enforcement_of(id),
            table: self.written.endpoints.get(&id).map(|(_, table)| Arc::clone(table)),
        }
    }

    fn policy_views<'a>(
        &self,
        names: impl Iterator<Item = &'a PolicyName>,
    ) -> BTreeMap<PolicyName, PolicyView> {
        let mut selections = Selections::new();
        for selected in self.subjects.values() {
            for (name, index) in &selected.specs {
                selections.entry(name).or_default().push((*index, selected));
            }
        }
        let (pods, nodes) = self.pods_and_nodes();
        let published = self.published_addresses();
        let on_host = self.pods_on_host();
        let places = Places { pods, nodes, published, on_host, resolvers: Default::default() };
        let views = names.filter_map(|name| {
            let stored = self.policies.get(name)?;
            let running = stored.running()?;
            let policy = stored.applied.as_ref().unwrap_or(running);
            let selected = selections.get(name).map(Vec::as_slice).unwrap_or_default();
            let mut problems = policy.problems.clone();
            problems.extend(stored.overflow.clone());
            let mut warnings = policy.warnings.clone();
            warnings.extend(self.held_back_warning(policy).filter(|_| !selected.is_empty()));
            let tables: Vec<_> =
                selected.iter().map(|(index, selected)| (*index, &*selected.compiled.table)).collect();
            warnings.extend(self.unmatched(running));
            warnings.extend(validate::warnings(self, running, &places, &tables));
            problems.sort_by(|one, other| one.origin.cmp(&other.origin));
            warnings.sort_by(|one, other| one.origin.cmp(&other.origin));
            let users: BTreeSet<EndpointId> =
                selected.iter().flat_map(|(_, selected)| selected.users.iter().copied()).collect();
            let view = PolicyView {
                policy: Arc::clone(policy),
                running: Arc::clone(running),
                force: stored.force,
                state: self.policy_state(stored),
                problems,
                warnings,
                selected: users.into_iter().collect(),
                matched: self.matched_by(name),
                revision: stored.revision,
            };
            Some((name.clone(), view))
        });
        views.collect()
    }

    /// Identities that arrived when a table was full, said to whoever may have filled it.
    fn held_back_warning(&self, policy: &Policy) -> Option<Problem> {
        (!self.held_back.is_empty()).then(|| Problem {
            path: "spec".to_owned(),
            message: format!(
                "{} identities don't fit into the policy tables here ({} entries each); their packets drop",
                self.held_back.len(),
                self.config.table_capacity
            ),
            origin: policy.origin.clone(),
        })
    }

    fn policy_state(&self, stored: &Stored) -> PolicyState {
        if stored.refused() {
            PolicyState::Refused
        } else if !self.synced {
            PolicyState::Pending
        } else if stored.is_audit() {
            PolicyState::Audited
        } else {
            PolicyState::Enforced
        }
    }

    fn matched_by(&self, name: &PolicyName) -> BTreeMap<String, Option<usize>> {
        let (Some(loaded), Some(stored)) = (self.loaded.get(name), self.policies.get(name)) else {
            return BTreeMap::new();
        };
        let mut matched = BTreeMap::new();
        for (spec, loaded) in loaded.policy.specs.iter().zip(&loaded.specs) {
            for direction in Direction::BOTH {
                // Of a policy that is only partly in force not every written rule is loaded.
                let written = crate::policy::load::written_rules(spec, direction).iter();
                let written = written.filter(|rule| stored.force.counts(rule));
                let rules = &loaded.rules[usize::from(direction.number())];
                for (rule, loaded) in written.zip(rules) {
                    let peers = match &loaded.peers {
                        LoadedPeers::Any => None,
                        LoadedPeers::OneOf(ids) => Some(match ids.as_slice() {
                            [id] => self.matchers.members(*id).len(),
                            ids => {
                                let members = ids.iter().flat_map(|id| self.matchers.members(*id));
                                let mut members: Vec<_> = members.collect();
                                members.sort_unstable();
                                members.dedup();
                                members.len()
                            }
                        }),
                    };
                    matched.insert(rule.path.clone(), peers);
                }
            }
        }
        matched
    }

    fn identity_views(&self) -> BTreeMap<sinew_api::identity::Identity, IdentityView> {
        let view = |(number, labels): (&sinew_api::identity::Identity, &Arc<_>)| {
            let view = IdentityView {
                labels: Arc::clone(labels),
                addresses: self.claims.count_of(*number),
                known: self.written.known.contains(number),
            };
            (*number, view)
        };
        self.matchers.identities().iter().map(view).collect()
    }

    fn address_views(&self) -> BTreeMap<std::net::IpAddr, AddressView> {
        let own: Arc<str> = self.config.node.as_str().into();
        let nobody: Arc<str> = Arc::default();
        let views = self.claims.holders().map(|(address, claimant, entry)| {
            let mut view = AddressView {
                entry: *entry,
                pod_namespace: Arc::clone(&nobody),
                pod_name: Arc::clone(&nobody),
                workload: None,
                endpoint: None,
                node: Arc::clone(&nobody),
            };
            match claimant {
                Claimant::OwnNode => view.node = Arc::clone(&own),
                Claimant::Node(name) => view.node = Arc::clone(name),
                Claimant::KubeApiserver => {}
                Claimant::Local(id) => {
                    view.node = Arc::clone(&own);
                    view.endpoint = Some(*id);
                    if let Some(local) = self.locals.get(id) {
                        view.pod_namespace = local.created.pod_namespace.as_str().into();
                        view.pod_name = local.created.pod_name.as_str().into();
                        let workload = local.pod.as_ref().and_then(|pod| pod.workload.clone());
                        view.workload = workload.map(Arc::new);
                    }
                }
                Claimant::Remote(name) => {
                    if let Some(endpoint) = self.facts.remotes.get(name) {
                        view.node = Arc::clone(&endpoint.node);
                        view.pod_namespace = Arc::clone(&endpoint.pod_namespace);
                        view.pod_name = Arc::clone(&endpoint.pod_name);
                        view.workload.clone_from(&endpoint.workload);
                    }
                }
            }
            (address, view)
        });
        views.collect()
    }
}
