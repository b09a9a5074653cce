//! Protocol and port as the policy trie sees them: 24 bits, of which the first few count. A port range becomes a few
//! such prefixes.
//!
//! Neighbours: `compile.rs` resolves prefixes into entries; `sinew_bpf::abi::PolicyKey` says why the bits stand in
//! this order.

use sinew_api::policy::{PortMatchKind, Protocol};
use sinew_bpf::abi::PolicyKey;

use crate::table::TableKey;

/// Every prefix here counts bits of protocol and port, which must be laid out as after the peer in the kernel's key.
const _: () = assert!(PolicyKey::FULL_BITS - PolicyKey::PEER_BITS == 24);

/// The first `bits` of protocol (8 bits) and port or ICMP type (16 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct L4Prefix {
    /// 0 for all traffic, 8 for a protocol, 24 for one port.
    pub(crate) bits: u8,
    /// Protocol in bits 16–23, port below; zeros behind the prefix.
    value: u32,
}

impl L4Prefix {
    /// All traffic.
    pub(crate) const ALL: Self = Self { bits: 0, value: 0 };

    /// All of a protocol.
    pub(crate) fn protocol(protocol: Protocol) -> Self {
        Self { bits: 8, value: u32::from(protocol as u8) << 16 }
    }

    /// One port or ICMP type.
    pub(crate) fn port(protocol: Protocol, port: u16) -> Self {
        Self { bits: 24, value: u32::from(protocol as u8) << 16 | u32::from(port) }
    }

    /// The fewest prefixes that together contain exactly `first..=last`.
    pub(crate) fn range(protocol: Protocol, first: u16, last: u16) -> Vec<Self> {
        let mut prefixes = Vec::new();
        let (mut next, end) = (u32::from(first), u32::from(last) + 1);
        while next < end {
            // The largest block that starts at `next` by alignment, and fits.
            let aligned = if next == 0 { 16 } else { next.trailing_zeros().min(16) };
            let fits = (end - next).ilog2();
            let block = aligned.min(fits);
            let value = u32::from(protocol as u8) << 16 | next;
            prefixes.push(Self { bits: 24 - block as u8, value });
            next += 1 << block;
        }
        prefixes
    }

    /// The prefixes of a port field; `None` for a named port, which depends on the pod.
    pub(crate) fn of(kind: &PortMatchKind) -> Option<Vec<Self>> {
        match kind {
            PortMatchKind::Protocol(protocol) => Some(vec![Self::protocol(*protocol)]),
            PortMatchKind::Range { protocol, first, last } => Some(Self::range(*protocol, *first, *last)),
            PortMatchKind::IcmpType { protocol, icmp_type } => {
                Some(vec![Self::port(*protocol, u16::from(*icmp_type))])
            }
            PortMatchKind::Named { .. } => None,
        }
    }

    /// The first `bits` of this prefix, which must not be more than it has.
    pub(crate) fn widened(self, bits: u8) -> Self {
        Self { bits, value: self.value & !(0x00ff_ffff_u32.checked_shr(u32::from(bits)).unwrap_or(0)) }
    }

    /// The trie key for a peer in a direction.
    pub(crate) fn key(self, peer: u32, direction: u8) -> TableKey {
        TableKey {
            prefix_len: PolicyKey::PEER_BITS as u8 + self.bits,
            key: PolicyKey {
                peer,
                direction,
                protocol: (self.value >> 16) as u8,
                port: (self.value as u16).to_be(),
            },
        }
    }

    /// The protocol and port part of a trie key.
    pub(crate) fn of_key(key: &TableKey) -> Self {
        Self {
            bits: key.prefix_len - PolicyKey::PEER_BITS as u8,
            value: u32::from(key.key.protocol) << 16 | u32::from(u16::from_be(key.key.port)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(prefixes: &[L4Prefix]) -> Vec<(u32, u32)> {
        prefixes.iter().map(|p| (p.value & 0xffff, (p.value & 0xffff) + (1 << (24 - p.bits)) - 1)).collect()
    }

    #[test]
    fn ranges_become_the_fewest_blocks() {
        assert_eq!(ports(&L4Prefix::range(Protocol::Tcp, 80, 80)), [(80, 80)]);
        assert_eq!(ports(&L4Prefix::range(Protocol::Tcp, 0, 65535)), [(0, 65535)]);
        assert_eq!(ports(&L4Prefix::range(Protocol::Tcp, 1, 7)), [(1, 1), (2, 3), (4, 7)]);
        assert_eq!(
            ports(&L4Prefix::range(Protocol::Tcp, 8080, 8090)),
            [(8080, 8087), (8088, 8089), (8090, 8090)]
        );
        // The longest of all: 1–65534 takes 15 blocks up and 15 down.
        assert_eq!(L4Prefix::range(Protocol::Udp, 1, 65534).len(), 30);
    }

    #[test]
    fn a_range_over_all_ports_is_the_protocol() {
        assert_eq!(L4Prefix::range(Protocol::Udp, 0, 65535), [L4Prefix::protocol(Protocol::Udp)]);
    }

    #[test]
    fn widening_clears_what_no_longer_counts() {
        let port = L4Prefix::port(Protocol::Tcp, 0xffff);
        assert_eq!(port.widened(8), L4Prefix::protocol(Protocol::Tcp));
        assert_eq!(port.widened(0), L4Prefix::ALL);
        assert_eq!(port.widened(9).value, 6 << 16 | 0x8000);
        assert_eq!(port.widened(24), port);
    }

    #[test]
    fn keys_hold_the_port_in_network_order() {
        let key = L4Prefix::port(Protocol::Tcp, 443).key(300, 1);
        assert_eq!(key.prefix_len, 64);
        assert_eq!(key.key.port.to_ne_bytes(), [1, 187]);
        assert_eq!(L4Prefix::of_key(&key), L4Prefix::port(Protocol::Tcp, 443));
    }
}
