//! A compiled policy table: a plain value, so that equal tables are one.
//!
//! Neighbours: `policy/compile.rs` makes tables, `sinew_bpf::policy` reads them.

use std::collections::BTreeMap;

use sinew_bpf::abi::{PolicyEntry, PolicyKey};

/// A trie key with its prefix length, bits of [`PolicyKey`] that count: 40, 48, or 49–64. Ordered by peer, then
/// direction, then prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TableKey {
    /// Bits that count.
    pub prefix_len: u8,
    /// The key, with zeros behind the prefix.
    pub key: PolicyKey,
}

impl TableKey {
    /// The first key that a peer can have in a direction.
    pub(crate) fn first_of(peer: u32, direction: u8) -> Self {
        Self { prefix_len: 0, key: PolicyKey { peer, direction, ..PolicyKey::default() } }
    }

    /// Whether it is of a peer and direction.
    pub(crate) fn is_of(&self, peer: u32, direction: u8) -> bool {
        self.key.peer == peer && self.key.direction == direction
    }

    /// The same key of another peer.
    pub(crate) fn with_peer(&self, peer: u32) -> Self {
        Self { key: PolicyKey { peer, ..self.key }, ..*self }
    }
}

impl Ord for TableKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let rank =
            |key: &Self| (key.key.peer, key.key.direction, key.prefix_len, key.key.protocol, key.key.port);
        rank(self).cmp(&rank(other))
    }
}

impl PartialOrd for TableKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Everything that an endpoint enforces. Each direction has an entry for any peer without protocol that says what
/// holds where nothing else matches, so a lookup in a complete table always finds a verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyTable {
    /// The entries, in key order.
    pub entries: BTreeMap<TableKey, PolicyEntry>,
}
