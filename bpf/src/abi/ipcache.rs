//! What an address resolves to.

use super::Address;

/// Flags of an [`IpcacheEntry`].
pub mod flag {
    /// An address of this node.
    pub const LOCAL_NODE: u16 = 1;
    /// An address of another node.
    pub const REMOTE_NODE: u16 = 2;
    /// A range of the cluster's pods: an address in it without an entry of its own is unknown and drops (policy.md 8).
    pub const CLUSTER_RANGE: u16 = 4;
    /// Reached through the overlay: `tunnel` is the outer destination.
    pub const TUNNEL: u16 = 8;
    /// Neither a pod nor a node, and so outside the cluster, whatever its identity: an API server configured by address.
    pub const OUTSIDE: u16 = 16;
}

/// Value of the exact ipcache (pods and nodes) and of the trie of ranges.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IpcacheEntry {
    /// The identity; 0 for a cluster range.
    pub identity: u32,
    /// Number of the node that has the address, 0 for none.
    pub node_id: u16,
    /// [`flag`]s.
    pub flags: u16,
    /// Underlay address of that node, or none.
    pub tunnel: Address,
    /// Epoch of the node's encryption key, 0 without encryption.
    pub key_epoch: u8,
    /// Zero.
    pub reserved: [u8; 7],
}

const _: () = assert!(size_of::<IpcacheEntry>() == 32);
