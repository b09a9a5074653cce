//! What happened, as the engine hears it. Events only say what is so now; what follows from it the engine computes from
//! all that it knows (level-triggered), so an event that comes twice changes nothing.
//!
//! Neighbours: `agent/src/store` turns objects into events, `agent/src/cni` makes those about endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use sinew_api::identity::Identity;
use sinew_api::labels::Labels;
use sinew_api::object::{
    CidrGroupKind, Endpoint, Namespace, Node, Object, ObjectKind, ObjectName, Pod, PolicyName,
};
use sinew_api::policy::{CidrGroup, Policy};

use crate::change::EndpointId;

/// Something happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A policy is there or has changed, valid or refused.
    PolicyApplied(Policy),
    /// The last valid version of a policy, read from disk at start. It runs if the store's version is refused, and is
    /// forgotten if the store turns out not to have the object.
    PolicyRestored(Policy),
    /// A policy is gone.
    PolicyRemoved(PolicyName),
    /// A CIDR group is there or has changed.
    CidrGroupApplied(CidrGroup),
    /// A CIDR group is gone.
    CidrGroupRemoved(CidrGroupKind, String),
    /// A pod of any node is there or has changed.
    PodApplied(Pod),
    /// A pod is gone. Its endpoint keeps labels and policy until CNI DEL (policy.md 9).
    PodRemoved {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A namespace is there or has changed.
    NamespaceApplied(Namespace),
    /// A namespace is gone.
    NamespaceRemoved(String),
    /// All namespaces whose object stands in the store and is refused. Of one that was never valid no labels are known,
    /// which is not the same as that it has none (policy.md 14).
    NamespacesRefused(BTreeSet<String>),
    /// A node, this one too, is there or has changed.
    NodeApplied(Node),
    /// A node is gone.
    NodeRemoved(String),
    /// An endpoint object is there or has changed. Those of this node are passed over.
    RemoteEndpointApplied(Endpoint),
    /// The endpoint object of this name is gone.
    RemoteEndpointRemoved(String),
    /// A number stands for these labels: learnt from the store, or the answer to `Change::AllocateIdentity`.
    IdentityApplied(Identity, Labels),
    /// A number is given back: no pod of the cluster has it.
    IdentityRemoved(Identity),
    /// An endpoint of this node has addresses and is about to be attached, or was found attached at start.
    EndpointCreated(LocalEndpoint),
    /// An endpoint of this node is going away (CNI DEL).
    EndpointRemoved(EndpointId),
    /// All addresses of this node's own interfaces.
    NodeAddresses(Vec<IpAddr>),
    /// What the pinned maps held when the agent started, so that what shouldn't be there is taken back after `Synced`.
    Found(Found),
    /// Every first list is complete. Before this, endpoints keep the tables that they were found with, new ones are
    /// `init`, and nothing is taken back.
    Synced,
    /// Every live node holds the identity that was announced for the endpoint, or 5 s are over (policy.md 17).
    RelabelDone(EndpointId, Identity),
}

/// An endpoint of this node as CNI made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalEndpoint {
    /// Its number.
    pub id: EndpointId,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
    /// Its pod's namespace, empty without Kubernetes arguments.
    pub pod_namespace: String,
    /// Its pod's name, likewise.
    pub pod_name: String,
    /// Its pod's uid; empty where the runtime gives none. Names are used again, uids are not.
    pub pod_uid: String,
    /// `args.cni.labels`: its labels where there is no pod.
    pub labels: BTreeMap<String, String>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The identity under which it was found attached; `None` for a new one.
    pub found: Option<Identity>,
}

/// What an earlier run left in the pinned maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Keys of the ipcache.
    pub addresses: Vec<IpAddr>,
    /// Keys of the trie of ranges.
    pub ranges: Vec<IpNet>,
    /// Prefixes with their classes.
    pub classes: Vec<(IpNet, Identity)>,
    /// Identities in the KNOWN set.
    pub known: Vec<Identity>,
}

impl From<Object> for Event {
    fn from(object: Object) -> Self {
        match object {
            Object::Policy(policy) => Self::PolicyApplied(policy),
            Object::CidrGroup(group) => Self::CidrGroupApplied(group),
            Object::Pod(pod) => Self::PodApplied(pod),
            Object::Namespace(namespace) => Self::NamespaceApplied(namespace),
            Object::Node(node) => Self::NodeApplied(node),
            Object::Endpoint(endpoint) => Self::RemoteEndpointApplied(*endpoint),
            Object::Identity(allocated) => Self::IdentityApplied(allocated.identity, allocated.labels),
        }
    }
}

impl Event {
    /// The event of an object that is gone; `None` for the name of an identity that is no number.
    #[must_use]
    pub fn removed(object: ObjectName) -> Option<Self> {
        let ObjectName { kind, namespace, name } = object;
        Some(match kind {
            ObjectKind::Policy(kind) => Self::PolicyRemoved(PolicyName { kind, namespace, name }),
            ObjectKind::CidrGroup(kind) => Self::CidrGroupRemoved(kind, name),
            ObjectKind::Pod => Self::PodRemoved { namespace, name },
            ObjectKind::Namespace => Self::NamespaceRemoved(name),
            ObjectKind::Node => Self::NodeRemoved(name),
            ObjectKind::Endpoint => Self::RemoteEndpointRemoved(name),
            ObjectKind::Identity => Self::IdentityRemoved(Identity(name.parse().ok()?)),
        })
    }
}
