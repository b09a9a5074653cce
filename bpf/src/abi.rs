//! What the kernel programs and the agent both read: keys and values of the maps, the event record, verdict numbers.
//!
//! Every type is `repr(C)`, without implicit padding, and made of integers only, since user space reads bytes that
//! the kernel or an older agent wrote. Addresses and ports are in network order, as in the packet; an IPv4 address is
//! its v4-mapped IPv6 address, so that one key serves both families. [`VERSION`] names the layout in the pin path:
//! whoever changes a size or a meaning raises it (the fingerprint test says so).
//!
//! Neighbours: `maps.rs` says which map holds what; `policy.rs`, `conntrack.rs`, `identity.rs` read them;
//! `sinew_engine` computes policy and ipcache values, `agent/src/datapath` writes them.

pub mod conntrack;
pub mod endpoint;
pub mod event;
pub mod ipcache;
pub mod policy;

pub use conntrack::{Counter, CtEntry, CtHalf, CtKey};
pub use endpoint::{EndpointEntry, StateWord};
pub use event::EventRecord;
pub use ipcache::IpcacheEntry;
pub use policy::{PolicyEntry, PolicyKey};

/// Version of everything in this module. Part of the pin path.
pub const VERSION: u32 = 1;

/// An address of either family in network order; IPv4 as `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2).
///
/// Words instead of bytes: comparing `[u8; 16]` calls memcmp in a BPF program, 182 instructions (kernel 6.18).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(pub [u32; 4]);

impl Address {
    /// No address: `::`.
    pub const NONE: Self = Self([0; 4]);
    /// Third word of every v4-mapped address.
    pub const V4_MARK: u32 = 0xffffu32.to_be();

    /// An IPv4 address from its four bytes as one word in network order.
    #[inline(always)]
    #[must_use]
    pub const fn v4(word: u32) -> Self {
        Self([0, 0, Self::V4_MARK, word])
    }

    /// Whether it is an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == Self::V4_MARK
    }

    /// The four bytes of an IPv4 address as one word in network order; meaningless for IPv6.
    #[inline(always)]
    #[must_use]
    pub const fn v4_word(&self) -> u32 {
        self.0[3]
    }

    /// Whether it is `::`.
    #[inline(always)]
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == 0 && self.0[3] == 0
    }

    /// Orders two addresses; which order does not matter, only that both directions of a connection agree.
    #[inline(always)]
    #[must_use]
    pub const fn below(&self, other: &Self) -> bool {
        if self.0[3] != other.0[3] {
            return self.0[3] < other.0[3];
        }
        if self.0[2] != other.0[2] {
            return self.0[2] < other.0[2];
        }
        if self.0[1] != other.0[1] {
            return self.0[1] < other.0[1];
        }
        self.0[0] < other.0[0]
    }
}

#[cfg(not(target_arch = "bpf"))]
impl From<core::net::IpAddr> for Address {
    fn from(address: core::net::IpAddr) -> Self {
        let bytes = match address {
            core::net::IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            core::net::IpAddr::V6(v6) => v6.octets(),
        };
        let mut words = [0; 4];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
        }
        Self(words)
    }
}

#[cfg(not(target_arch = "bpf"))]
impl From<Address> for core::net::IpAddr {
    fn from(address: Address) -> Self {
        let mut bytes = [0; 16];
        for (chunk, word) in bytes.chunks_exact_mut(4).zip(address.0) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        core::net::Ipv6Addr::from(bytes).to_canonical()
    }
}

/// Key of an LPM trie over addresses: prefix length in bits of the 128, then the address. IPv4 `/n` is `96 + n`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PrefixKey {
    /// Bits of `address` that count, 0–128.
    pub prefix_len: u32,
    /// The prefix.
    pub address: Address,
}

#[cfg(test)]
mod tests;
