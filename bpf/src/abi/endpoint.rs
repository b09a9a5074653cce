//! Endpoints of this node and their state words.

use super::Address;

/// What a 64-bit state word holds: `epoch << 32 | slot` for an endpoint, `revision << 32 | generation` at index 0.
///
/// A program reads a word once for each packet, before any table (datapath.md 1); the agent writes tables first and
/// the word last, with one store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateWord(pub u64);

impl StateWord {
    /// Index of the node's own word.
    pub const NODE: u32 = 0;
    /// The slot that has no table: whoever is in it drops everything.
    pub const DROP_SLOT: u32 = 0;

    /// Puts a word together.
    #[must_use]
    pub const fn new(high: u32, low: u32) -> Self {
        Self(((high as u64) << 32) | low as u64)
    }

    /// Epoch of an endpoint's verdicts.
    #[inline(always)]
    #[must_use]
    pub const fn epoch(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Table slot of an endpoint.
    #[inline(always)]
    #[must_use]
    pub const fn slot(self) -> u32 {
        self.0 as u32
    }

    /// Policy revision that the node enforces.
    #[inline(always)]
    #[must_use]
    pub const fn revision(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Generation of the ipcache.
    #[inline(always)]
    #[must_use]
    pub const fn generation(self) -> u32 {
        self.0 as u32
    }
}

/// Stamps say under which state an end of a connection was judged (datapath.md 7). The top bit tells epochs from
/// generations, so that one never passes for the other when an address moves between nodes.
pub mod stamp {
    /// Never current: an end that still has to be judged.
    pub const NONE: u32 = 0;
    /// Set in stamps of this node's endpoints.
    pub const LOCAL: u32 = 1 << 31;

    /// Stamp of an endpoint of this node.
    #[inline(always)]
    #[must_use]
    pub const fn of_epoch(epoch: u32) -> u32 {
        epoch | LOCAL
    }

    /// Stamp of everybody else.
    #[inline(always)]
    #[must_use]
    pub const fn of_generation(generation: u32) -> u32 {
        generation & !LOCAL
    }
}

/// Flags of an [`EndpointEntry`].
pub mod flag {
    /// Traffic of this endpoint takes the host's stack, both ways: a chained plugin shapes it on the host side of the pair,
    /// where a redirect would bypass it (datapath.md 21). Both ways, because the host's connection tracking would call
    /// half a connection invalid.
    pub const VIA_STACK: u32 = 1;
}

/// An endpoint of this node. Found by its interface (what it sends) and by its addresses (what it gets).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointEntry {
    /// Index of its state word, from 1.
    pub id: u32,
    /// Host side of its veth pair.
    pub ifindex: u32,
    /// Identity that its packets carry.
    pub identity: u32,
    /// [`flag`]s.
    pub flags: u32,
    /// Its IPv4 address, or none.
    pub v4: Address,
    /// Its IPv6 address, or none.
    pub v6: Address,
    /// MAC of the pod's side.
    pub mac: [u8; 6],
    /// MAC of the host's side.
    pub host_mac: [u8; 6],
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<EndpointEntry>() == 64);
