//! What a pod may send (datapath.md 26), before anybody asks policy:
//!
//! 1. VLAN-tagged frames drop. The source MAC is the pod's own.
//! 2. ARP: sender MAC and address are the pod's own (or `0.0.0.0`, a probe); the host answers, and policy is not asked.
//! 3. Neighbour discovery goes to the host unjudged if it is a neighbour or router solicitation or a neighbour
//!    advertisement with hop limit 255, from the pod's own address, its own link-local one (of its MAC) or `::`, any
//!    advertised target is the pod's own, and the destination is on the link. The stack would forward others beyond the link
//!    past every policy. Router advertisements and redirects drop.
//! 4. MLD and IGMP end here: the node keeps no group membership for pods.
//! 5. DHCP drops: addresses come from the agent.
//! 6. Every other source address is exactly the pod's own.
//! 7. Multicast, broadcast and link-local destinations drop, each with its own reason; the pod's gateways are excepted.
//!    A loopback destination is link-local too: with `route_localnet` the stack would take it for the node's own.
//!
//! 8. IPv4 source routes drop, and so do IPv6 routing headers with segments left: the packet's destination is not where it
//!    ends up, so policy would be asked about an intermediate hop (RFC 7126 §4.3, §4.4).
//!
//! 9. A sender may leave a checksum to be filled in by whoever sends the packet off the machine (`CHECKSUM_PARTIAL`), and
//!    says where it goes: a raw socket does so in `virtio_net_hdr`, and so does a virtual machine's tap. It must go into the
//!    checksum field of the transport header that was judged, or into the payload behind that header (what a pod
//!    encapsulates has a checksum of its own). Anywhere else it would change an address or a port after the verdict. In an
//!    ICMP error the payload is judged too, so it is excluded, and a fragment has no checksum of its own.
//!
//! Neighbours: `from_pod.rs` calls it first.

use crate::abi::{Address, EndpointEntry};
use crate::drop::{Dropped, file};
use crate::dropped;
use crate::packet::Packet;
use crate::parse::headers::{Arp, Neighbour};
use crate::parse::{Fragment, LINK_BYTES, Parsed, ether_type, icmp, protocol};
use crate::settings::PENDING_BYTES;

const FILE: u8 = file::SOURCE;

/// Gateway of every pod, IPv4: 169.254.1.1.
pub const GATEWAY_V4: Address = Address::v4(u32::from_ne_bytes([169, 254, 1, 1]));
/// Gateway of every pod, IPv6: fe80::1.
pub const GATEWAY_V6: Address = Address([0xfe80_0000u32.to_be(), 0, 0, 1u32.to_be()]);

/// Where the options of an IPv4 header begin.
const OPTIONS_AT: usize = LINK_BYTES + 20;
/// Where the last of them may stand: a header has at most 60 bytes (RFC 791 §3.1).
const LAST_OPTION_AT: usize = LINK_BYTES + 59;
/// How many options of one packet are followed, counting those that only pad.
const MAX_OPTIONS: usize = 8;

/// `::1`
const LOOPBACK_V6: Address = Address([0, 0, 0, 1u32.to_be()]);

/// What happens to a frame after the link and network headers were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Admitted {
    /// Judge it.
    Judge,
    /// The host's stack answers it; policy has no say.
    Host,
}

/// Checks link and network header of a frame from a pod.
#[inline(always)]
pub fn network<P: Packet>(packet: &P, parsed: &Parsed, pod: &EndpointEntry) -> Result<Admitted, Dropped> {
    if packet.vlan_tagged() || parsed.ether_type == ether_type::VLAN || parsed.ether_type == ether_type::QINQ
    {
        return Err(dropped!(Vlan));
    }
    if !same_mac(&parsed.source_mac(), &pod.mac) {
        return Err(dropped!(InvalidSourceMac));
    }
    match parsed.ether_type {
        ether_type::V4 | ether_type::V6 => Ok(Admitted::Judge),
        ether_type::ARP => arp(packet, pod),
        _ => Err(dropped!(UnsupportedL3)),
    }
}

#[inline(always)]
fn arp<P: Packet>(packet: &P, pod: &EndpointEntry) -> Result<Admitted, Dropped> {
    let Some(arp) = packet.load::<Arp>(LINK_BYTES) else { return Err(dropped!(Truncated)) };
    if !same_mac(&{ arp.sender_mac }, &pod.mac) {
        return Err(dropped!(InvalidSourceMac));
    }
    let sender = arp.sender;
    if sender != 0 && (pod.v4.is_none() || sender != pod.v4.v4_word()) {
        return Err(dropped!(InvalidSourceIp));
    }
    Ok(Admitted::Host)
}

/// Checks addresses and message types of a packet from a pod, its transport header read.
#[inline(always)]
pub fn transport<P: Packet>(packet: &P, parsed: &Parsed, pod: &EndpointEntry) -> Result<Admitted, Dropped> {
    if parsed.protocol == protocol::ICMPV6 {
        match parsed.icmp_type {
            icmp::ROUTER_SOLICIT | icmp::NEIGHBOUR_SOLICIT | icmp::NEIGHBOUR_ADVERT => {
                return neighbour(packet, parsed, pod);
            }
            icmp::ROUTER_ADVERT | icmp::REDIRECT => return Err(dropped!(ForbiddenIcmpv6)),
            icmp::MLD_QUERY | icmp::MLD_REPORT | icmp::MLD_DONE | icmp::MLD2_REPORT => {
                return Err(dropped!(Multicast));
            }
            _ => {}
        }
    }
    if parsed.protocol == protocol::UDP && is_dhcp(parsed) {
        return Err(dropped!(Dhcp));
    }
    let own = if parsed.is_v4() { &pod.v4 } else { &pod.v6 };
    if own.is_none() || parsed.source != *own {
        return Err(dropped!(InvalidSourceIp));
    }
    destination(&parsed.destination)?;
    Ok(Admitted::Judge)
}

/// A first fragment's ports go into a table that all pods share, so its source is checked before.
#[inline(always)]
pub fn fragment(parsed: &Parsed, pod: &EndpointEntry) -> Result<(), Dropped> {
    let own = if parsed.is_v4() { &pod.v4 } else { &pod.v6 };
    if parsed.fragment as u8 != Fragment::Whole as u8 && (own.is_none() || parsed.source != *own) {
        return Err(dropped!(InvalidSourceIp));
    }
    Ok(())
}

/// Options of an IPv4 header.
#[inline(always)]
pub fn options<P: Packet>(packet: &P, parsed: &Parsed) -> Result<(), Dropped> {
    if !parsed.is_v4() || usize::from(parsed.transport_at) <= OPTIONS_AT {
        return Ok(());
    }
    if is_source_routed(packet, parsed.transport_at) { Err(dropped!(SourceRoute)) } else { Ok(()) }
}

/// Whether there is a source route among the options, or options that can't be followed to their end.
#[inline(never)]
fn is_source_routed<P: Packet>(packet: &P, end: u16) -> bool {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const LOOSE: u8 = 131;
    const STRICT: u8 = 137;
    let (mut at, end) = (OPTIONS_AT, usize::from(end));
    for _ in 0..MAX_OPTIONS {
        if at >= end {
            return false;
        }
        if at > LAST_OPTION_AT {
            return true;
        }
        let Some([kind, length]) = packet.load::<[u8; 2]>(at) else { return true };
        match kind {
            END => return false,
            LOOSE | STRICT => return true,
            NO_OPERATION => at += 1,
            _ if length < 2 => return true,
            _ => at += usize::from(length),
        }
    }
    at < end
}

/// IGMP has no ports, so it is handled before the transport header is read for them.
#[inline(always)]
pub fn group_membership(parsed: &Parsed) -> Result<(), Dropped> {
    if parsed.is_v4() && parsed.protocol == protocol::IGMP { Err(dropped!(Igmp)) } else { Ok(()) }
}

/// Where the packet's checksum will be filled in.
#[inline(always)]
pub fn pending_checksum<P: Packet>(
    packet: &P,
    parsed: &Parsed,
    room: &mut [u8; PENDING_BYTES],
) -> Result<(), Dropped> {
    const NO_PAYLOAD: u32 = u32::MAX;
    let Some(at) = packet.pending_checksum(room) else { return Ok(()) };
    // Both relative to the start of the transport header: the checksum field, and where the payload may begin.
    let (checksum, payload) = match parsed.protocol {
        protocol::TCP => (16, 20),
        protocol::UDP => (6, 8),
        protocol::SCTP => (8, 12),
        _ => (2, NO_PAYLOAD),
    };
    let transport = u32::from(parsed.transport_at);
    let in_place = at >= transport && {
        let within = at - transport;
        within == checksum || (within >= payload && within <= u32::from(u16::MAX))
    };
    if in_place && parsed.fragment as u8 == Fragment::Whole as u8 {
        Ok(())
    } else {
        Err(dropped!(MisplacedChecksum))
    }
}

#[inline(always)]
fn neighbour<P: Packet>(packet: &P, parsed: &Parsed, pod: &EndpointEntry) -> Result<Admitted, Dropped> {
    let source = parsed.source;
    if parsed.hop_limit != 255 || !(is_own(&source, pod) || source.is_none()) {
        return Err(dropped!(ForbiddenIcmpv6));
    }
    if !is_link_local(&parsed.destination) && !is_link_group(&parsed.destination) {
        return Err(dropped!(ForbiddenIcmpv6));
    }
    if parsed.icmp_type == icmp::NEIGHBOUR_ADVERT {
        let Some(message) = packet.load::<Neighbour>(usize::from(parsed.transport_at)) else {
            return Err(dropped!(Truncated));
        };
        if !is_own(&Address(message.target), pod) {
            return Err(dropped!(ForbiddenIcmpv6));
        }
    }
    Ok(Admitted::Host)
}

#[inline(always)]
fn is_dhcp(parsed: &Parsed) -> bool {
    const V4_SERVER: u16 = 67u16.to_be();
    const V4_CLIENT: u16 = 68u16.to_be();
    const V6_SERVER: u16 = 547u16.to_be();
    const V6_CLIENT: u16 = 546u16.to_be();
    if parsed.is_v4() {
        parsed.source_port == V4_CLIENT && parsed.destination_port == V4_SERVER
    } else {
        parsed.source_port == V6_CLIENT && parsed.destination_port == V6_SERVER
    }
}

/// Whether a pod may send there at all.
///
/// # Errors
/// What is wrong with the destination.
#[inline(always)]
pub fn destination(address: &Address) -> Result<(), Dropped> {
    if address.is_v4() {
        let word = u32::from_be(address.v4_word());
        if word == u32::MAX {
            return Err(dropped!(BroadcastDestination));
        }
        if word >> 28 == 0xe {
            return Err(dropped!(MulticastDestination));
        }
        if word >> 24 == 127 {
            return Err(dropped!(LinkLocalDestination));
        }
        return Ok(());
    }
    let first = u32::from_be(address.0[0]);
    if first >> 24 == 0xff {
        return Err(dropped!(MulticastDestination));
    }
    if (is_link_local(address) && *address != GATEWAY_V6) || *address == LOOPBACK_V6 {
        return Err(dropped!(LinkLocalDestination));
    }
    Ok(())
}

/// Whether a source address is impossible in a packet from the wire to a pod: loopback, multicast, unspecified
/// (RFC 1122 §3.2.1.3), or IPv6 link-local, which no router forwards (RFC 4291 §2.5.6). A packet that is redirected to a pod
/// bypasses the checks of the host's stack.
///
/// 169.254.0.0/16 is possible: clouds answer from there, as pods ask 169.254.169.254 for metadata.
#[inline(always)]
pub(crate) fn is_impossible(address: &Address) -> bool {
    if address.is_v4() {
        let word = u32::from_be(address.v4_word());
        return word == 0 || word >> 24 == 127 || word >> 28 == 0xe || word == u32::MAX;
    }
    u32::from_be(address.0[0]) >> 24 == 0xff
        || is_link_local(address)
        || *address == LOOPBACK_V6
        || address.is_none()
}

/// Whether an IPv6 address is the pod's, or the link-local one that belongs to its MAC (RFC 4291, appendix A).
#[inline(always)]
fn is_own(address: &Address, pod: &EndpointEntry) -> bool {
    let mac = &pod.mac;
    let upper = u32::from_be_bytes([mac[0] ^ 2, mac[1], mac[2], 0xff]);
    let lower = u32::from_be_bytes([0xfe, mac[3], mac[4], mac[5]]);
    let link_local = Address([0xfe80_0000u32.to_be(), 0, upper.to_be(), lower.to_be()]);
    *address == pod.v6 || *address == link_local
}

/// ff02::/16 (RFC 4291 §2.7).
#[inline(always)]
fn is_link_group(address: &Address) -> bool {
    u32::from_be(address.0[0]) >> 16 == 0xff02
}

/// fe80::/10 (RFC 4291 §2.5.6).
#[inline(always)]
fn is_link_local(address: &Address) -> bool {
    u32::from_be(address.0[0]) >> 22 == 0xfe80 >> 6
}

/// Byte by byte through words: `[u8; 6] ==` calls memcmp in a BPF program.
#[inline(always)]
fn same_mac(left: &[u8; 6], right: &[u8; 6]) -> bool {
    (left[0] ^ right[0])
        | (left[1] ^ right[1])
        | (left[2] ^ right[2])
        | (left[3] ^ right[3])
        | (left[4] ^ right[4])
        | (left[5] ^ right[5])
        == 0
}
