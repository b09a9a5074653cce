//! Makes snapshots. Each part is made again only when something in it may have changed.
//!
//! Neighbours: `snapshot.rs` has the values.

use std::collections::BTreeMap;
use std::sync::Arc;

use sinew_api::object::{PolicyName, Problem};
use sinew_api::policy::Policy;

use super::Engine;
use super::claims::Claimant;
use super::policies::Stored;
use crate::change::EndpointId;
use crate::numbers::Direction;
use crate::policy::load::LoadedPeers;
use crate::snapshot::{AddressView, EndpointView, IdentityView, PolicyState, PolicyView, Snapshot};

impl Engine {
    /// Everything that readers ask for, as of now.
    pub fn snapshot(&mut self) -> Arc<Snapshot> {
        if let Some(snapshot) = &self.snapshot {
            return Arc::clone(snapshot);
        }
        let snapshot = Arc::new(Snapshot {
            revision: self.revision,
            synced: self.synced,
            endpoints: Arc::new(self.locals.keys().map(|id| (*id, self.endpoint_view(*id))).collect()),
            policies: Arc::new(self.policy_views()),
            identities: Arc::new(self.identity_views()),
            addresses: Arc::new(self.address_views()),
            causes: Arc::new(self.numbers.causes().map(|(cookie, cause)| (cookie, cause.clone())).collect()),
            classes: Arc::new(self.numbers.classes().map(|(number, class)| (number, *class)).collect()),
        });
        self.snapshot = Some(Arc::clone(&snapshot));
        snapshot
    }

    fn endpoint_view(&self, id: EndpointId) -> EndpointView {
        let local = &self.locals[&id];
        EndpointView {
            created: local.created.clone(),
            pod: local.pod.clone().map(Arc::new),
            identity: local.identity,
            labels: Arc::clone(&local.labels),
            moving_to: local.moving.as_ref().map(|moving| Arc::clone(&moving.labels)),
            enforcement: self.enforcement_of(id),
            table: self.written.endpoints.get(&id).map(|(_, table)| Arc::clone(table)),
        }
    }

    fn policy_views(&self) -> BTreeMap<PolicyName, PolicyView> {
        let views = self.policies.iter().filter_map(|(name, stored)| {
            let running = stored.running()?;
            let policy = stored.applied.as_ref().unwrap_or(running);
            let mut problems = policy.problems.clone();
            problems.extend(stored.overflow.clone());
            let mut warnings = policy.warnings.clone();
            warnings.extend(self.held_back_warning(policy));
            warnings.extend(crate::validate::warnings(self, running));
            let view = PolicyView {
                policy: Arc::clone(policy),
                running: Arc::clone(running),
                state: self.policy_state(stored),
                problems,
                warnings,
                selected: self.selected_by(name),
                matched: self.matched_by(name),
                revision: stored.revision,
            };
            Some((name.clone(), view))
        });
        views.collect()
    }

    /// Identities that arrived when a table was full, said to whoever may have filled it.
    fn held_back_warning(&self, policy: &Policy) -> Option<Problem> {
        let selects = !self.selected_by(&policy.name).is_empty();
        (selects && !self.held_back.is_empty()).then(|| Problem {
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

    fn selected_by(&self, name: &PolicyName) -> Vec<EndpointId> {
        let mut selected: Vec<EndpointId> = self
            .subjects
            .values()
            .filter(|selected| selected.specs.iter().any(|(policy, _)| policy == name))
            .flat_map(|selected| selected.users.iter().copied())
            .collect();
        selected.sort_unstable();
        selected.dedup();
        selected
    }

    fn matched_by(&self, name: &PolicyName) -> BTreeMap<String, Option<usize>> {
        let Some(loaded) = self.loaded.get(name) else { return BTreeMap::new() };
        let mut matched = BTreeMap::new();
        for (spec, loaded) in loaded.policy.specs.iter().zip(&loaded.specs) {
            for direction in Direction::BOTH {
                let written = crate::policy::load::written_rules(spec, direction);
                let rules = &loaded.rules[usize::from(direction.number())];
                // Of a policy that is only partly in force not every written rule is loaded.
                if written.len() != rules.len() {
                    continue;
                }
                for (rule, loaded) in written.iter().zip(rules) {
                    let peers = match &loaded.peers {
                        LoadedPeers::Any => None,
                        LoadedPeers::OneOf(ids) => {
                            let members = ids.iter().flat_map(|id| self.matchers.members(*id));
                            Some(members.collect::<std::collections::BTreeSet<_>>().len())
                        }
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
        let own = &self.config.node;
        let views = self.claims.holders().map(|(address, claimant, entry)| {
            let mut view = AddressView {
                entry: *entry,
                pod_namespace: String::new(),
                pod_name: String::new(),
                workload: None,
                endpoint: None,
                node: String::new(),
            };
            match claimant {
                Claimant::OwnNode => view.node.clone_from(own),
                Claimant::Node(name) => view.node.clone_from(name),
                Claimant::KubeApiserver => {}
                Claimant::Local(id) => {
                    view.node.clone_from(own);
                    view.endpoint = Some(*id);
                    if let Some(local) = self.locals.get(id) {
                        view.pod_namespace.clone_from(&local.created.pod_namespace);
                        view.pod_name.clone_from(&local.created.pod_name);
                        view.workload = local.pod.as_ref().and_then(|pod| pod.workload.clone());
                    }
                }
                Claimant::Remote(name) => {
                    if let Some(endpoint) = self.facts.remotes.get(name) {
                        view.node.clone_from(&endpoint.node);
                        view.pod_namespace.clone_from(&endpoint.pod_namespace);
                        view.pod_name.clone_from(&endpoint.pod_name);
                        view.workload.clone_from(&endpoint.workload);
                    }
                }
            }
            (address, view)
        });
        views.collect()
    }
}
