//! Answers to refused egress (`policyDenyResponse: reject`, datapath.md 29), made of the refused packet itself:
//!
//! 1. Never for a GSO packet, a later fragment, an RST, an ICMP error, or a multicast destination; never more than
//!    [`Maps::may_answer`] grants.
//! 2. TCP gets an RST as RFC 9293 §3.10.7.1 makes it for a closed port: to a segment with ACK, one with its
//!    acknowledgement as sequence number; to any other, one with sequence number 0 that acknowledges the segment.
//! 3. Everything else gets "administratively prohibited": ICMP type 3 code 13 (RFC 1812 §5.2.7.1) or ICMPv6 type 1 code 1
//!    (RFC 4443 §3.1). Both quote the headers, with options or extensions, and the 8 bytes behind them, by which the sender
//!    finds its socket. Behind extensions of more than 64 bytes, which no socket sends unasked, there is no answer.
//! 4. The answer comes from the address that the packet was for, and goes straight back into the pod: no hook judges it.

use crate::abi::{Address, EndpointEntry};
use crate::maps::Maps;
use crate::packet::Packet;
use crate::parse::headers::Tcp;
use crate::parse::{Fragment, LINK_BYTES, Parsed, protocol, tcp};

/// Hop limit of answers.
const HOP_LIMIT: u8 = 64;
const V4_BYTES: usize = 20;
const V6_BYTES: usize = 40;
const TCP_BYTES: usize = 20;
const ICMP_BYTES: usize = 8;
/// What an ICMP answer quotes at least: an IPv4 header and 8 bytes.
const V4_QUOTED: usize = 28;
/// An IPv6 header and 8 bytes.
const V6_QUOTED: usize = 48;
/// Options of IPv4 have at most 40 bytes; of IPv6 as many are taken as its extensions have in practice.
const MOST_OPTIONS: usize = 64;
/// Options and extensions come in multiples of this.
const STEP: usize = 4;

/// Room for the longest answer from the network header on.
pub type Room = [u8; V6_BYTES + ICMP_BYTES + V6_QUOTED + MOST_OPTIONS];

/// Turns a refused packet into its answer, made in `room`. False: it gets none, and the packet may be half rewritten.
#[inline(always)]
pub fn answer<M: Maps, P: Packet>(
    maps: &M,
    packet: &mut P,
    (parsed, room): (&Parsed, &mut Room),
    pod: &EndpointEntry,
    now: u64,
) -> bool {
    // 1.
    if packet.segments() > 1
        || parsed.fragment as u8 == Fragment::Later as u8
        || parsed.is_icmp_error()
        || (parsed.protocol == protocol::TCP && parsed.tcp_flags & tcp::RST != 0)
        || !maps.may_answer(now)
    {
        return false;
    }
    let made = match (parsed.is_v4(), parsed.protocol == protocol::TCP) {
        (true, true) => reset_v4(packet, parsed, room),
        (false, true) => reset_v6(packet, parsed, room),
        (true, false) => prohibited_v4(packet, parsed, room),
        (false, false) => prohibited_v6(packet, parsed, room),
    };
    // 4.
    if !made || !packet.set_macs(pod.mac, pod.host_mac) {
        return false;
    }
    packet.prepare_delivery();
    true
}

#[inline(always)]
fn reset_v4<P: Packet>(packet: &mut P, parsed: &Parsed, room: &mut Room) -> bool {
    v4_header(room, parsed, protocol::TCP, TCP_BYTES);
    if !reset(packet, parsed, room, V4_BYTES) {
        return false;
    }
    let total = v4_pseudo(parsed, protocol::TCP, TCP_BYTES) + sum(room, V4_BYTES, TCP_BYTES);
    put(room, V4_BYTES + 16, fold(total).to_be_bytes());
    write::<P, { V4_BYTES + TCP_BYTES }>(packet, room, 0)
}

#[inline(always)]
fn reset_v6<P: Packet>(packet: &mut P, parsed: &Parsed, room: &mut Room) -> bool {
    v6_header(room, parsed, protocol::TCP, TCP_BYTES);
    if !reset(packet, parsed, room, V6_BYTES) {
        return false;
    }
    let total = v6_pseudo(parsed, protocol::TCP, TCP_BYTES) + sum(room, V6_BYTES, TCP_BYTES);
    put(room, V6_BYTES + 16, fold(total).to_be_bytes());
    write::<P, { V6_BYTES + TCP_BYTES }>(packet, room, 0)
}

/// 2, at a place of the room, without its checksum.
#[inline(always)]
fn reset<P: Packet>(packet: &P, parsed: &Parsed, room: &mut Room, at: usize) -> bool {
    let Some(segment) = packet.load::<Tcp>(usize::from(parsed.transport_at)) else { return false };
    let (sequence, acknowledged) = (segment.sequence, segment.acknowledgement);
    let (own_sequence, own_acknowledgement, flags) = if parsed.tcp_flags & tcp::ACK != 0 {
        (acknowledged, 0, tcp::RST)
    } else {
        let opening = u32::from(parsed.tcp_flags & tcp::SYN) / u32::from(tcp::SYN);
        let closing = u32::from(parsed.tcp_flags & tcp::FIN);
        let length = parsed.payload_bytes.wrapping_add(opening).wrapping_add(closing);
        (0, u32::from_be(sequence).wrapping_add(length).to_be(), tcp::RST | tcp::ACK)
    };
    put(room, at, parsed.destination_port.to_ne_bytes());
    put(room, at + 2, parsed.source_port.to_ne_bytes());
    put(room, at + 4, own_sequence.to_ne_bytes());
    put(room, at + 8, own_acknowledgement.to_ne_bytes());
    put(room, at + 12, [(TCP_BYTES as u8 / 4) << 4, flags, 0, 0, 0, 0, 0, 0]);
    true
}

/// 3, IPv4.
#[inline(always)]
fn prohibited_v4<P: Packet>(packet: &mut P, parsed: &Parsed, room: &mut Room) -> bool {
    let Some(quoted) = packet.load::<[u8; V4_QUOTED]>(LINK_BYTES) else { return false };
    put(room, V4_BYTES, [3, 13, 0, 0, 0, 0, 0, 0]);
    put(room, V4_BYTES + ICMP_BYTES, quoted);
    let Some(options) = options(parsed, V4_BYTES) else { return false };
    if !quote_options(packet, room, (V4_BYTES + ICMP_BYTES, V4_QUOTED), options) {
        return false;
    }
    let total = sum(room, V4_BYTES, ICMP_BYTES + V4_QUOTED + MOST_OPTIONS);
    put(room, V4_BYTES + 2, fold(total).to_be_bytes());
    v4_header(room, parsed, protocol::ICMP, ICMP_BYTES + V4_QUOTED + options);
    write::<P, { V4_BYTES + ICMP_BYTES + V4_QUOTED }>(packet, room, options)
}

/// 3, IPv6.
#[inline(always)]
fn prohibited_v6<P: Packet>(packet: &mut P, parsed: &Parsed, room: &mut Room) -> bool {
    let Some(quoted) = packet.load::<[u8; V6_QUOTED]>(LINK_BYTES) else { return false };
    put(room, V6_BYTES, [1, 1, 0, 0, 0, 0, 0, 0]);
    put(room, V6_BYTES + ICMP_BYTES, quoted);
    let Some(options) = options(parsed, V6_BYTES) else { return false };
    if !quote_options(packet, room, (V6_BYTES + ICMP_BYTES, V6_QUOTED), options) {
        return false;
    }
    let pseudo = v6_pseudo(parsed, protocol::ICMPV6, ICMP_BYTES + V6_QUOTED + options);
    let total = pseudo + sum(room, V6_BYTES, ICMP_BYTES + V6_QUOTED + MOST_OPTIONS);
    put(room, V6_BYTES + 2, fold(total).to_be_bytes());
    v6_header(room, parsed, protocol::ICMPV6, ICMP_BYTES + V6_QUOTED + options);
    write::<P, { V6_BYTES + ICMP_BYTES + V6_QUOTED }>(packet, room, options)
}

/// Bytes between the network header and the transport's; `None` if they are more than an answer has room for.
#[inline(always)]
fn options(parsed: &Parsed, header: usize) -> Option<usize> {
    let bytes = usize::from(parsed.transport_at).checked_sub(LINK_BYTES + header)?;
    (bytes <= MOST_OPTIONS).then_some(bytes)
}

/// Quotes what follows the first `quoted` bytes, as many as options moved the transport's first 8 bytes away. The rest of
/// their room is zero, so that a sum over all of it is the sum of what is there: one of a length that the verifier does not
/// know takes it 200,000 instructions.
#[inline(always)]
fn quote_options<P: Packet>(
    packet: &P,
    room: &mut Room,
    (at, quoted): (usize, usize),
    options: usize,
) -> bool {
    put(room, at + quoted, [0; MOST_OPTIONS]);
    for step in 0..MOST_OPTIONS / STEP {
        let offset = quoted + step * STEP;
        if step * STEP >= options {
            break;
        }
        let Some(bytes) = packet.load::<[u8; STEP]>(LINK_BYTES + offset) else { return false };
        put(room, at + offset, bytes);
    }
    true
}

/// Writes the first `N` bytes of the room, and as many behind them as there are options, behind the link header.
#[inline(always)]
fn write<P: Packet, const N: usize>(packet: &mut P, room: &Room, options: usize) -> bool {
    let Some(bytes) = room.first_chunk::<N>() else { return false };
    if !packet.resize((LINK_BYTES + N + options) as u32) || !packet.store(LINK_BYTES as u32, bytes) {
        return false;
    }
    for step in 0..MOST_OPTIONS / STEP {
        if step * STEP >= options {
            break;
        }
        let more = room.get(N + step * STEP..).and_then(<[u8]>::first_chunk::<STEP>);
        let Some(bytes) = more else { return false };
        if !packet.store((LINK_BYTES + N + step * STEP) as u32, bytes) {
            return false;
        }
    }
    true
}

#[inline(always)]
fn v4_header(room: &mut Room, parsed: &Parsed, transport: u8, transport_bytes: usize) {
    let [high, low] = ((V4_BYTES + transport_bytes) as u16).to_be_bytes();
    // Don't fragment: then the identification means nothing (RFC 6864 §4.1).
    put(room, 0, [0x45, 0, high, low, 0, 0, 0x40, 0, HOP_LIMIT, transport, 0, 0]);
    put(room, 12, parsed.destination.v4_word().to_ne_bytes());
    put(room, 16, parsed.source.v4_word().to_ne_bytes());
    let total = sum(room, 0, V4_BYTES);
    put(room, 10, fold(total).to_be_bytes());
}

#[inline(always)]
fn v6_header(room: &mut Room, parsed: &Parsed, transport: u8, transport_bytes: usize) {
    let [high, low] = (transport_bytes as u16).to_be_bytes();
    put(room, 0, [0x60, 0, 0, 0, high, low, transport, HOP_LIMIT]);
    put_address(room, 8, &parsed.destination);
    put_address(room, 24, &parsed.source);
}

/// Sum of the pseudo-header (RFC 9293 §3.1).
#[inline(always)]
fn v4_pseudo(parsed: &Parsed, transport: u8, transport_bytes: usize) -> u32 {
    let addresses = words(parsed.source.v4_word()) + words(parsed.destination.v4_word());
    addresses + u32::from(transport) + transport_bytes as u32
}

/// Sum of the pseudo-header (RFC 8200 §8.1).
#[inline(always)]
fn v6_pseudo(parsed: &Parsed, transport: u8, transport_bytes: usize) -> u32 {
    let address = |address: &Address| {
        words(address.0[0]) + words(address.0[1]) + words(address.0[2]) + words(address.0[3])
    };
    address(&parsed.source) + address(&parsed.destination) + u32::from(transport) + transport_bytes as u32
}

/// The two 16-bit words of a word in network order, added.
#[inline(always)]
fn words(word: u32) -> u32 {
    let word = u32::from_be(word);
    (word >> 16) + (word & 0xffff)
}

/// The 16-bit words of some bytes of the room, added (RFC 1071). Out of line: if the compiler can see what was written, it
/// keeps all of it on the stack.
#[inline(never)]
fn sum(room: &Room, at: usize, bytes: usize) -> u32 {
    let mut total = 0;
    for word in 0..size_of::<Room>() / 2 {
        if word * 2 >= bytes {
            break;
        }
        let place = at + word * 2;
        let (Some(high), Some(low)) = (room.get(place), room.get(place + 1)) else { break };
        total += u32::from(*high) << 8 | u32::from(*low);
    }
    total
}

#[inline(always)]
const fn fold(total: u32) -> u16 {
    let once = (total & 0xffff) + (total >> 16);
    !((once & 0xffff) + (once >> 16)) as u16
}

#[inline(always)]
fn put_address(room: &mut Room, at: usize, address: &Address) {
    put(room, at, address.0[0].to_ne_bytes());
    put(room, at + 4, address.0[1].to_ne_bytes());
    put(room, at + 8, address.0[2].to_ne_bytes());
    put(room, at + 12, address.0[3].to_ne_bytes());
}

/// Copies bytes to a constant place; does nothing beyond the end.
#[inline(always)]
fn put<const S: usize>(room: &mut Room, at: usize, source: [u8; S]) {
    if let Some(target) = room.get_mut(at..at + S) {
        target.copy_from_slice(&source);
    }
}
