//! SinewNode: what a node says of itself to the others, and what it enforces. The node's agent writes it and nobody else.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Origin, PolicyName};
use crate::identity::Identity;

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// The cluster's name.
    pub cluster: String,
    /// Its number, unique in the cluster, from 1.
    pub id: u16,
    /// Its own addresses, at most one a family, those of the underlay first.
    pub addresses: Vec<IpAddr>,
    /// Its pools, at most one a family.
    pub pod_cidrs: Vec<IpNet>,
    /// How it reaches other nodes' pods.
    pub routing: Routing,
    /// What it says from time to time.
    pub status: NodeStatus,
    /// Where it stands.
    pub origin: Origin,
}

/// How packets get to another node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Routing {
    /// Routed, as they are.
    #[default]
    Native,
    /// In VXLAN.
    Vxlan,
}

impl fmt::Display for Routing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Vxlan => "vxlan",
        })
    }
}

/// What a node's agent says from time to time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NodeStatus {
    /// When it last said something, milliseconds since 1970. A node that has been silent for long is not waited for.
    pub heartbeat_ms: u64,
    /// The policy revision that it enforces (policy.md 16).
    pub revision: u64,
    /// `policy_digest` of all that it enforces at that revision.
    pub policy_digest: String,
    /// When it began to enforce it, milliseconds since 1970.
    pub enforced_at_ms: u64,
    /// Identities that it learnt lately and that its tables hold: a relabel waits for them (policy.md 17).
    pub recent_identities: Vec<Identity>,
}

/// `spec` of a SinewNode.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NodeSpec {
    cluster: String,
    id: u16,
    addresses: Vec<IpAddr>,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Vec<IpNet>,
    #[serde(default)]
    routing: Routing,
}

impl Node {
    /// The object as YAML.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        let spec = NodeSpec {
            cluster: self.cluster.clone(),
            id: self.id,
            addresses: self.addresses.clone(),
            pod_cidrs: self.pod_cidrs.clone(),
            routing: self.routing,
        };
        super::own::to_yaml("SinewNode", &self.name, None, &spec, Some(&self.status))
    }
}

pub(super) fn read(own: super::own::Own, origin: Origin) -> Result<Node, super::own::Wrong> {
    let spec: NodeSpec = own.spec()?;
    let status = own.status()?;
    Ok(Node {
        name: own.name,
        cluster: spec.cluster,
        id: spec.id,
        addresses: spec.addresses,
        pod_cidrs: spec.pod_cidrs,
        routing: spec.routing,
        status,
        origin,
    })
}

/// A short text that is the same on two nodes if, and but for a hash collision only if, they hold the same generations
/// of the same policies: 32 hexadecimal digits of SHA-256.
#[must_use]
pub fn policy_digest<'a>(policies: impl IntoIterator<Item = (&'a PolicyName, u64)>) -> String {
    let sorted: BTreeMap<_, _> = policies.into_iter().collect();
    let mut hash = Sha256::new();
    for (name, generation) in sorted {
        hash.update(format!("{name} {generation}\n"));
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
