//! What readers get: values that don't change while they are read, and that cost nothing to hand out twice.
//!
//! Neighbours: `agent/src/flow` names what events carry, the gRPC service and `explain.rs` answer from these.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use sinew_api::identity::Identity;
use sinew_api::labels::Labels;
use sinew_api::object::{Pod, PolicyName, Problem, Workload};
use sinew_api::policy::{Policy, Rule};
use sinew_bpf::abi::IpcacheEntry;

use crate::change::EndpointId;
use crate::event::LocalEndpoint;
use crate::numbers::{Cause, Class};
use crate::policy::Enforcement;
pub use crate::policy::load::Force;
use crate::table::PolicyTable;

/// All of it. Parts that didn't change since the last snapshot are the same values.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The revision of what has been asked for.
    pub revision: u64,
    /// Whether every first list is complete.
    pub synced: bool,
    /// This node's endpoints.
    pub endpoints: Arc<BTreeMap<EndpointId, EndpointView>>,
    /// All policy objects.
    pub policies: Arc<BTreeMap<PolicyName, PolicyView>>,
    /// All identities, reserved ones too.
    pub identities: Arc<BTreeMap<Identity, IdentityView>>,
    /// Who has which address.
    pub addresses: Arc<BTreeMap<IpAddr, AddressView>>,
    /// What cookies stand for.
    pub causes: Arc<BTreeMap<u32, Cause>>,
    /// What address classes stand for.
    pub classes: Arc<BTreeMap<Identity, Class>>,
}

/// An endpoint of this node.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointView {
    /// As CNI made it.
    pub created: LocalEndpoint,
    /// Its pod, as last seen.
    pub pod: Option<Arc<Pod>>,
    /// The identity that its packets carry.
    pub identity: Identity,
    /// What that stands for.
    pub labels: Arc<Labels>,
    /// The label set that it moves to (policy.md 17).
    pub moving_to: Option<Arc<Labels>>,
    /// What policy does to what comes in and what goes out, by [`Direction`](crate::Direction) number.
    pub enforcement: [Enforcement; 2],
    /// What has been asked for; `None` for one that was found at start and goes on with what it has.
    pub table: Option<Arc<PolicyTable>>,
}

/// Where a policy object stands (policy.md 14, 15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyState {
    /// In force.
    Enforced,
    /// In force as a shadow (policy.md 13).
    Audited,
    /// Refused, whole or in its newest version.
    Refused,
    /// Not looked at yet: the first lists are not complete.
    Pending,
}

/// A policy object.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyView {
    /// The version that the store has.
    pub policy: Arc<Policy>,
    /// The version in force; of a refused object without a valid version, what policy.md 14 lets it contribute.
    pub running: Arc<Policy>,
    /// How much of that is in force: not all where it doesn't fit.
    pub force: Force,
    /// Where it stands.
    pub state: PolicyState,
    /// Why it is refused.
    pub problems: Vec<Problem>,
    /// What its author should know although it is in force.
    pub warnings: Vec<Problem>,
    /// Endpoints of this node that the version in force selects.
    pub selected: Vec<EndpointId>,
    /// Identities and classes that each of its rules matches, by the rule's path. `None`: anybody.
    pub matched: BTreeMap<String, Option<usize>>,
    /// The revision at which the version in force came into force.
    pub revision: u64,
}

impl PolicyView {
    /// The generation that is in force as a whole; none where only denies of one are.
    #[must_use]
    pub fn generation_in_force(&self) -> Option<u64> {
        let whole = self.force == Force::Whole && self.running.problems.is_empty();
        whole.then_some(self.running.generation)
    }

    /// Whether a rule of the version in force counts as it is written.
    #[must_use]
    pub fn counts(&self, rule: &Rule) -> bool {
        self.force.counts(rule)
    }
}

/// An identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityView {
    /// What it stands for.
    pub labels: Arc<Labels>,
    /// Addresses that resolve to it.
    pub addresses: usize,
    /// Whether the kernel judges its packets.
    pub known: bool,
}

/// Who has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressView {
    /// What it resolves to.
    pub entry: IpcacheEntry,
    /// Namespace of the pod, or empty.
    pub pod_namespace: Arc<str>,
    /// Name of the pod, or empty.
    pub pod_name: Arc<str>,
    /// What the pod is a replica of.
    pub workload: Option<Arc<Workload>>,
    /// The endpoint of this node.
    pub endpoint: Option<EndpointId>,
    /// The node that it is on, or that it belongs to; empty where that isn't known.
    pub node: Arc<str>,
}
