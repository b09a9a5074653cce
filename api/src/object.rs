//! The objects of the store: how one is named, where it stands, and what each kind holds.
//!
//! Neighbours: `object/decode.rs` reads them from YAML; `policy` has the policies, which are kinds of object too.

mod decode;
mod endpoint;
pub mod folder;
mod identity;
pub(crate) mod metadata;
mod namespace;
mod node;
mod own;
mod pod;
#[cfg(test)]
mod tests;

use std::fmt;

pub use decode::{decode, decode_bytes, decode_text};
pub use endpoint::Endpoint;
pub use identity::AllocatedIdentity;
pub use namespace::{NAME_LABEL, Namespace};
pub use node::{Node, NodeStatus, Routing, policy_digest};
pub use pod::{NamedPort, Pod, PodPhase, Workload};

use serde::{Deserialize, Serialize};

use crate::policy::{CidrGroup, Policy};

/// `apiVersion` of our own kinds.
pub const GROUP_VERSION: &str = "sinew.io/v1";

/// An object of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A policy of any kind, valid or refused: a refused one may still close something (policy.md 14).
    Policy(Policy),
    /// A group of CIDRs.
    CidrGroup(CidrGroup),
    /// A pod.
    Pod(Pod),
    /// A namespace.
    Namespace(Namespace),
    /// A node.
    Node(Node),
    /// An endpoint.
    Endpoint(Box<Endpoint>),
    /// An identity.
    Identity(AllocatedIdentity),
}

/// A document that is no object: nothing of it is in force, apart from what `remains`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// What it would have been, where that can be read.
    pub name: Option<ObjectName>,
    /// Where it begins.
    pub origin: Origin,
    /// Why; never empty.
    pub problems: Vec<Problem>,
    /// It is of a kind that nobody here reads, such as a Deployment beside its policy: passed over, and nothing is wrong.
    pub foreign: bool,
    /// What can be read of a group of CIDRs. A deny rule reaches that (policy.md 14).
    pub remains: Option<Box<CidrGroup>>,
}

impl Refused {
    /// A document that is refused as a whole.
    #[must_use]
    pub fn new(name: Option<ObjectName>, origin: Origin, problems: Vec<Problem>) -> Self {
        Self { name, origin, problems, foreign: false, remains: None }
    }

    /// Whether not even its name can be read: it may be any object that its file held before.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        self.name.is_none() && !self.foreign
    }
}

/// The kinds of object that the store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each variant is its kind")]
pub enum ObjectKind {
    Policy(PolicyKind),
    CidrGroup(CidrGroupKind),
    Pod,
    Namespace,
    Node,
    Endpoint,
    Identity,
}

/// The kinds of CIDR group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CidrGroupKind {
    /// `SinewCIDRGroup` of `sinew.io`.
    Sinew,
    /// `CiliumCIDRGroup` of `cilium.io`.
    Cilium,
}

/// The name of an object. `namespace` is empty for kinds outside namespaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectName {
    /// Its kind.
    pub kind: ObjectKind,
    /// Its namespace, or empty.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{}/{}", self.kind.kind(), self.name),
            namespace => write!(f, "{}/{namespace}/{}", self.kind.kind(), self.name),
        }
    }
}

impl Object {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> ObjectName {
        let (kind, namespace, name) = match self {
            Self::Policy(policy) => {
                let PolicyName { kind, namespace, name } = policy.name.clone();
                (ObjectKind::Policy(kind), namespace, name)
            }
            Self::CidrGroup(group) => (ObjectKind::CidrGroup(group.kind), String::new(), group.name.clone()),
            Self::Pod(pod) => (ObjectKind::Pod, pod.namespace.clone(), pod.name.clone()),
            Self::Namespace(namespace) => (ObjectKind::Namespace, String::new(), namespace.name.clone()),
            Self::Node(node) => (ObjectKind::Node, String::new(), node.name.clone()),
            Self::Endpoint(endpoint) => (ObjectKind::Endpoint, String::new(), endpoint.name.clone()),
            Self::Identity(allocated) => {
                (ObjectKind::Identity, String::new(), allocated.identity.to_string())
            }
        };
        ObjectName { kind, namespace, name }
    }
}

/// The kinds of policy object. Objects of different kinds with one name are different objects (policy.md 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PolicyKind {
    /// `SinewNetworkPolicy` of `sinew.io`.
    SinewNetworkPolicy,
    /// `SinewClusterwideNetworkPolicy` of `sinew.io`.
    SinewClusterwideNetworkPolicy,
    /// `CiliumNetworkPolicy` of `cilium.io/v2`.
    CiliumNetworkPolicy,
    /// `CiliumClusterwideNetworkPolicy` of `cilium.io/v2`.
    CiliumClusterwideNetworkPolicy,
    /// `NetworkPolicy` of `networking.k8s.io/v1`.
    NetworkPolicy,
}

impl PolicyKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::SinewNetworkPolicy,
        Self::SinewClusterwideNetworkPolicy,
        Self::CiliumNetworkPolicy,
        Self::CiliumClusterwideNetworkPolicy,
        Self::NetworkPolicy,
    ];

    /// The short name in front of `namespace/name` (policy.md 4).
    #[must_use]
    pub fn short(self) -> &'static str {
        match self {
            Self::SinewNetworkPolicy => "snp",
            Self::SinewClusterwideNetworkPolicy => "sccnp",
            Self::CiliumNetworkPolicy => "cnp",
            Self::CiliumClusterwideNetworkPolicy => "ccnp",
            Self::NetworkPolicy => "netpol",
        }
    }

    /// The kind as it is written in YAML.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::SinewNetworkPolicy => "SinewNetworkPolicy",
            Self::SinewClusterwideNetworkPolicy => "SinewClusterwideNetworkPolicy",
            Self::CiliumNetworkPolicy => "CiliumNetworkPolicy",
            Self::CiliumClusterwideNetworkPolicy => "CiliumClusterwideNetworkPolicy",
            Self::NetworkPolicy => "NetworkPolicy",
        }
    }

    /// Whether objects of this kind live outside namespaces.
    #[must_use]
    pub fn clusterwide(self) -> bool {
        matches!(self, Self::SinewClusterwideNetworkPolicy | Self::CiliumClusterwideNetworkPolicy)
    }
}

/// The name of one policy object. `namespace` is empty for clusterwide kinds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PolicyName {
    /// Its kind.
    pub kind: PolicyKind,
    /// Its namespace, or empty.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind.clusterwide() {
            write!(f, "{}/{}", self.kind.short(), self.name)
        } else {
            write!(f, "{}/{}/{}", self.kind.short(), self.namespace, self.name)
        }
    }
}

/// Where something stands: a file of the folder store (or `<kubernetes>`), and the line, counted from 1.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// Path as the store names it.
    pub file: String,
    /// Line, from 1; 0 where it is not known.
    pub line: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is wrong with a file as a whole stands in no line.
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

/// Something wrong in an object: the path of the field, what is wrong with it, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// Path of the field, such as `spec.ingress[0].toPorts[1].ports[0].endPort`.
    pub path: String,
    /// What is wrong, in one sentence.
    pub message: String,
    /// Where it stands.
    pub origin: Origin,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}
