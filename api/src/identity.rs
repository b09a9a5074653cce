//! Identity numbers: reserved ones as in Cilium, so that Hubble clients print the right names, and their scopes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A number for a label set. The top 8 bits are its scope; a global one is cluster id (8 bits) and 16 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Identity(pub u32);

#[allow(missing_docs, reason = "each constant is the reserved label of its own name")]
impl Identity {
    pub const UNKNOWN: Self = Self(0);
    pub const HOST: Self = Self(1);
    pub const WORLD: Self = Self(2);
    pub const UNMANAGED: Self = Self(3);
    pub const HEALTH: Self = Self(4);
    pub const INIT: Self = Self(5);
    pub const REMOTE_NODE: Self = Self(6);
    pub const KUBE_APISERVER: Self = Self(7);
    pub const INGRESS: Self = Self(8);
    pub const WORLD_IPV4: Self = Self(9);
    pub const WORLD_IPV6: Self = Self(10);
    /// The first number that is allocated for labels; below stand reserved ones.
    pub const FIRST_ALLOCATED: Self = Self(256);

    /// The reserved numbers with their label names.
    pub const RESERVED: [(Self, &'static str); 11] = [
        (Self::UNKNOWN, "unknown"),
        (Self::HOST, "host"),
        (Self::WORLD, "world"),
        (Self::UNMANAGED, "unmanaged"),
        (Self::HEALTH, "health"),
        (Self::INIT, "init"),
        (Self::REMOTE_NODE, "remote-node"),
        (Self::KUBE_APISERVER, "kube-apiserver"),
        (Self::INGRESS, "ingress"),
        (Self::WORLD_IPV4, "world-ipv4"),
        (Self::WORLD_IPV6, "world-ipv6"),
    ];

    /// The top 8 bits: 0 global, 1 local to the node (address classes), 2 nodes.
    #[must_use]
    pub fn scope(self) -> u8 {
        (self.0 >> 24) as u8
    }

    /// The name of a reserved identity.
    #[must_use]
    pub fn reserved_name(self) -> Option<&'static str> {
        Self::RESERVED.iter().find(|(id, _)| *id == self).map(|(_, name)| *name)
    }

    /// Whether it stands for addresses outside the cluster.
    #[must_use]
    pub fn is_world(self) -> bool {
        matches!(self, Self::WORLD | Self::WORLD_IPV4 | Self::WORLD_IPV6)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
