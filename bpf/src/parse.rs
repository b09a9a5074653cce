//! From packet bytes to the few values that the stages need. Everything is checked here once: lengths, header chains,
//! fragments; what later stages get is consistent.
//!
//! [`network`] reads up to the addresses, [`transport`] the ports behind them: a hook on a shared device looks at the
//! addresses first and leaves what is not for a pod alone. [`quoted`] reads the packet inside an ICMP error.

pub(crate) mod headers;

use crate::abi::Address;
use crate::drop::{Dropped, file};
use crate::dropped;
use crate::maps::{FragmentKey, FragmentPorts, Maps};
use crate::packet::Packet;
use headers::{Ethernet, Extension, FragmentHeader, Icmp, Ports, V4, V6};

const FILE: u8 = file::PARSE;

/// Length of the link header.
pub const LINK_BYTES: usize = 14;
/// Headers end below this offset; a bound that the verifier can see.
const MAX_OFFSET: usize = 1024;
/// Extension headers that are followed. Real packets have up to two; four is what RFC 8504 §5.3 lets a host bound.
const MAX_EXTENSIONS: usize = 4;

/// EtherTypes, in network order.
pub mod ether_type {
    /// IPv4.
    pub const V4: u16 = 0x0800u16.to_be();
    /// ARP.
    pub const ARP: u16 = 0x0806u16.to_be();
    /// 802.1Q.
    pub const VLAN: u16 = 0x8100u16.to_be();
    /// 802.1ad.
    pub const QINQ: u16 = 0x88a8u16.to_be();
    /// IPv6.
    pub const V6: u16 = 0x86ddu16.to_be();
}

/// IANA protocol numbers.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IGMP.
    pub const IGMP: u8 = 2;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// TCP flags.
pub mod tcp {
    /// FIN
    pub const FIN: u8 = 1;
    /// SYN
    pub const SYN: u8 = 2;
    /// RST
    pub const RST: u8 = 4;
    /// PSH
    pub const PSH: u8 = 8;
    /// ACK
    pub const ACK: u8 = 16;
    /// URG
    pub const URG: u8 = 32;
}

/// ICMP types that are looked at.
pub mod icmp {
    /// ICMP echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// ICMP echo request.
    pub const ECHO: u8 = 8;
    /// ICMPv6 echo request.
    pub const V6_ECHO: u8 = 128;
    /// ICMPv6 echo reply.
    pub const V6_ECHO_REPLY: u8 = 129;
    /// Multicast listener query.
    pub const MLD_QUERY: u8 = 130;
    /// Multicast listener report.
    pub const MLD_REPORT: u8 = 131;
    /// Multicast listener done.
    pub const MLD_DONE: u8 = 132;
    /// Router solicitation.
    pub const ROUTER_SOLICIT: u8 = 133;
    /// Router advertisement.
    pub const ROUTER_ADVERT: u8 = 134;
    /// Neighbour solicitation.
    pub const NEIGHBOUR_SOLICIT: u8 = 135;
    /// Neighbour advertisement.
    pub const NEIGHBOUR_ADVERT: u8 = 136;
    /// Redirect.
    pub const REDIRECT: u8 = 137;
    /// Multicast listener report, version 2.
    pub const MLD2_REPORT: u8 = 143;
}

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Fragment {
    /// All of it.
    #[default]
    Whole,
    /// The first part, with the ports.
    First,
    /// A later part, without them.
    Later,
}

/// What a packet's headers say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Destination MAC, then source MAC.
    pub macs: [u8; 12],
    /// [`ether_type`].
    pub ether_type: u16,
    /// Source port as connections are keyed: for ICMP echo the identifier at the requester and 0 at the other end.
    pub source_port: u16,
    /// Destination port, likewise; for other ICMP messages their type.
    pub destination_port: u16,
    /// Offset of the transport header.
    pub transport_at: u16,
    /// Bytes of the packet from the network header on.
    pub network_bytes: u32,
    /// Bytes behind a TCP header.
    pub payload_bytes: u32,
    /// Fragment identification.
    pub fragment_id: u32,
    /// IANA protocol number.
    pub protocol: u8,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// TCP flags.
    pub tcp_flags: u8,
    /// ICMP type.
    pub icmp_type: u8,
    /// ICMP code.
    pub icmp_code: u8,
    /// Which part of a datagram it is.
    pub fragment: Fragment,
    /// Fragment offset in units of 8 bytes.
    pub fragment_offset: u16,
}

impl Parsed {
    /// Whether it is IPv4.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        self.ether_type == ether_type::V4
    }

    /// Source MAC.
    #[inline(always)]
    #[must_use]
    pub const fn source_mac(&self) -> [u8; 6] {
        [self.macs[6], self.macs[7], self.macs[8], self.macs[9], self.macs[10], self.macs[11]]
    }

    /// Whether it is a SYN that opens a connection.
    #[inline(always)]
    #[must_use]
    pub const fn is_pure_syn(&self) -> bool {
        self.protocol == protocol::TCP && self.tcp_flags & (tcp::SYN | tcp::ACK | tcp::RST) == tcp::SYN
    }

    /// Whether it is an ICMP message about another packet.
    #[inline(always)]
    #[must_use]
    pub const fn is_icmp_error(&self) -> bool {
        match self.protocol {
            // Unreachable, source quench, redirect, time exceeded, parameter problem (RFC 792).
            protocol::ICMP => matches!(self.icmp_type, 3 | 4 | 5 | 11 | 12),
            // All types below 128 are errors (RFC 4443 §2.1).
            protocol::ICMPV6 => self.icmp_type < 128,
            _ => false,
        }
    }
}

/// Reads link and network header. Of a packet that is neither IPv4 nor IPv6 only the EtherType is returned.
#[inline(never)]
pub fn network<P: Packet>(packet: &P, parsed: &mut Parsed) -> Result<(), Dropped> {
    let Some(link) = packet.load::<Ethernet>(0) else { return Err(dropped!(Truncated)) };
    parsed.macs = link.macs;
    parsed.ether_type = link.ether_type;
    match link.ether_type {
        ether_type::V4 => v4(packet, parsed, LINK_BYTES, true),
        ether_type::V6 => v6(packet, parsed, LINK_BYTES, true),
        _ => Ok(()),
    }
}

#[inline(always)]
fn v4<P: Packet>(packet: &P, parsed: &mut Parsed, at: usize, outer: bool) -> Result<(), Dropped> {
    if at > MAX_OFFSET {
        return Err(dropped!(Truncated));
    }
    let Some(header) = packet.load::<V4>(at) else { return Err(dropped!(Truncated)) };
    let header_bytes = usize::from(header.version_length & 0xf) * 4;
    if header.version_length >> 4 != 4 || header_bytes < size_of::<V4>() {
        return Err(dropped!(InvalidPacket));
    }
    if outer {
        let available = packet.length().saturating_sub(LINK_BYTES as u32);
        let mut total = u32::from(u16::from_be(header.total_bytes));
        if total == 0 && packet.segments() > 1 {
            // BIG TCP: the length does not fit the field (kernel commit b1a78b9b9886).
            total = available;
        }
        if total < header_bytes as u32 || total > available {
            return Err(dropped!(InvalidPacket));
        }
        parsed.network_bytes = total;
    }
    parsed.source = Address::v4(header.source);
    parsed.destination = Address::v4(header.destination);
    parsed.protocol = header.protocol;
    parsed.hop_limit = header.ttl;
    parsed.transport_at = (at + header_bytes) as u16;
    let fragment = u16::from_be(header.fragment);
    fragment_part(parsed, fragment & 0x1fff, fragment & 0x2000 != 0, u32::from(header.id))
}

#[inline(always)]
fn v6<P: Packet>(packet: &P, parsed: &mut Parsed, at: usize, outer: bool) -> Result<(), Dropped> {
    if at > MAX_OFFSET {
        return Err(dropped!(Truncated));
    }
    let Some(header) = packet.load::<V6>(at) else { return Err(dropped!(Truncated)) };
    if header.version_class[0] >> 4 != 6 {
        return Err(dropped!(InvalidPacket));
    }
    if outer {
        let available = packet.length().saturating_sub(LINK_BYTES as u32);
        let payload = u32::from(u16::from_be(header.payload_bytes));
        let jumbo = payload == 0 && packet.segments() > 1;
        parsed.network_bytes = if jumbo { available } else { payload + size_of::<V6>() as u32 };
        if parsed.network_bytes > available {
            return Err(dropped!(InvalidPacket));
        }
    }
    parsed.source = Address(header.source);
    parsed.destination = Address(header.destination);
    parsed.hop_limit = header.hop_limit;
    if parsed.source.is_v4() || parsed.destination.is_v4() {
        return Err(dropped!(MappedAddress));
    }
    let mut next = header.next_header;
    let mut offset = at + size_of::<V6>();
    for _ in 0..MAX_EXTENSIONS {
        match next {
            // Hop-by-hop options, routing, destination options (RFC 8200 §4).
            0 | 43 | 60 => {
                if offset > MAX_OFFSET {
                    return Err(dropped!(InvalidExtensionHeader));
                }
                let Some(extension) = packet.load::<Extension>(offset) else {
                    return Err(dropped!(Truncated));
                };
                if next == 43 && extension.segments_left != 0 {
                    // The destination is an intermediate hop, so policy would be asked about the wrong one.
                    return Err(dropped!(InvalidExtensionHeader));
                }
                next = extension.next_header;
                offset += (usize::from(extension.length) + 1) * 8;
            }
            44 => {
                if offset > MAX_OFFSET {
                    return Err(dropped!(InvalidExtensionHeader));
                }
                let Some(extension) = packet.load::<FragmentHeader>(offset) else {
                    return Err(dropped!(Truncated));
                };
                next = extension.next_header;
                offset += size_of::<FragmentHeader>();
                let field = u16::from_be(extension.offset_more);
                fragment_part(parsed, field >> 3, field & 1 != 0, extension.id)?;
                if parsed.fragment_offset != 0 {
                    // What follows is the middle of a datagram, not a header.
                    break;
                }
            }
            _ => break,
        }
    }
    if matches!(next, 0 | 43 | 44 | 60) && parsed.fragment_offset == 0 {
        return Err(dropped!(InvalidExtensionHeader));
    }
    parsed.protocol = next;
    parsed.transport_at = offset as u16;
    Ok(())
}

#[inline(always)]
fn fragment_part(parsed: &mut Parsed, offset: u16, more: bool, id: u32) -> Result<(), Dropped> {
    parsed.fragment_offset = offset;
    parsed.fragment_id = id;
    parsed.fragment = match (offset, more) {
        (0, false) => Fragment::Whole,
        (0, true) => Fragment::First,
        _ => Fragment::Later,
    };
    Ok(())
}

/// Reads the transport header, or, for a later fragment, what its first one said.
#[inline(never)]
pub fn transport<M: Maps, P: Packet>(maps: &M, packet: &P, parsed: &mut Parsed) -> Result<(), Dropped> {
    let later = parsed.fragment as u8 == Fragment::Later as u8;
    if !(later && names_extension(parsed)) {
        protocol_known(parsed)?;
    }
    if later {
        later_fragment(maps, packet, parsed)?;
        return protocol_known(parsed);
    }
    let at = usize::from(parsed.transport_at);
    if at > MAX_OFFSET {
        return Err(dropped!(InvalidExtensionHeader));
    }
    let transport_bytes = (parsed.network_bytes + LINK_BYTES as u32).saturating_sub(at as u32);
    let least = match parsed.protocol {
        protocol::TCP => 20,
        protocol::SCTP => 12,
        _ => 8,
    };
    if transport_bytes < least {
        if parsed.fragment as u8 == Fragment::First as u8 {
            return Err(dropped!(TinyFragment));
        }
        return Err(dropped!(Truncated));
    }
    match parsed.protocol {
        protocol::TCP => {
            let Some(header) = packet.load::<headers::Tcp>(at) else { return Err(dropped!(Truncated)) };
            parsed.source_port = header.source;
            parsed.destination_port = header.destination;
            parsed.tcp_flags = header.flags;
            let header_bytes = u32::from(header.data_offset >> 4) * 4;
            if header_bytes < 20 || header_bytes > transport_bytes {
                return Err(dropped!(InvalidPacket));
            }
            parsed.payload_bytes = transport_bytes - header_bytes;
            let opening = tcp::SYN | tcp::FIN;
            if header.flags & 0x3f == 0 || header.flags & opening == opening {
                return Err(dropped!(InvalidTcpFlags));
            }
        }
        protocol::ICMP | protocol::ICMPV6 => {
            let Some(header) = packet.load::<Icmp>(at) else { return Err(dropped!(Truncated)) };
            parsed.icmp_type = header.icmp_type;
            parsed.icmp_code = header.code;
            (parsed.source_port, parsed.destination_port) =
                icmp_ports(parsed.protocol, header.icmp_type, header.id);
        }
        _ => {
            let Some(header) = packet.load::<Ports>(at) else { return Err(dropped!(Truncated)) };
            parsed.source_port = header.source;
            parsed.destination_port = header.destination;
        }
    }
    if parsed.fragment as u8 == Fragment::First as u8 {
        let ports = FragmentPorts {
            source: parsed.source_port,
            destination: parsed.destination_port,
            icmp_type: parsed.icmp_type,
            icmp_code: parsed.icmp_code,
            protocol: parsed.protocol,
            reserved: 0,
        };
        maps.fragment_write(&fragment_key(packet, parsed), &ports);
    }
    Ok(())
}

/// Whether an IPv6 packet's protocol is an extension header: only a later fragment's can be, if the fragmented part began
/// with extension headers.
#[inline(always)]
fn names_extension(parsed: &Parsed) -> bool {
    !parsed.is_v4() && matches!(parsed.protocol, 0 | 43 | 60)
}

/// Whether policy can name the protocol, and no fragment overwrites its header.
#[inline(always)]
fn protocol_known(parsed: &Parsed) -> Result<(), Dropped> {
    match parsed.protocol {
        protocol::TCP if parsed.fragment_offset == 1 => Err(dropped!(TinyFragment)),
        protocol::TCP | protocol::UDP | protocol::SCTP => Ok(()),
        protocol::ICMP if parsed.is_v4() => Ok(()),
        protocol::ICMPV6 if !parsed.is_v4() => Ok(()),
        protocol::ICMP | protocol::ICMPV6 => Err(dropped!(WrongIcmpFamily)),
        _ => Err(dropped!(UnknownL4)),
    }
}

/// Ports that key an ICMP message: (id, 0) for a request, (0, id) for its answer, so that both find the same connection;
/// for other messages the type, in a place where no request has it. With identifier 0 a request and its answer would have
/// the same ports, and the responder could send requests of its own.
#[inline(always)]
fn icmp_ports(protocol: u8, icmp_type: u8, id: u16) -> (u16, u16) {
    let id = if id == 0 { u16::MAX } else { id };
    match (protocol, icmp_type) {
        (protocol::ICMP, icmp::ECHO) | (protocol::ICMPV6, icmp::V6_ECHO) => (id, 0),
        (protocol::ICMP, icmp::ECHO_REPLY) | (protocol::ICMPV6, icmp::V6_ECHO_REPLY) => (0, id),
        _ => (u16::MAX, u16::from(icmp_type).to_be()),
    }
}

/// The type of the other echo message: of a request that of its reply, and the other way round.
#[inline(always)]
pub(crate) fn echo_turned(protocol: u8, icmp_type: u8) -> u8 {
    match (protocol, icmp_type) {
        (protocol::ICMP, icmp::ECHO) => icmp::ECHO_REPLY,
        (protocol::ICMP, icmp::ECHO_REPLY) => icmp::ECHO,
        (protocol::ICMPV6, icmp::V6_ECHO) => icmp::V6_ECHO_REPLY,
        (protocol::ICMPV6, icmp::V6_ECHO_REPLY) => icmp::V6_ECHO,
        _ => icmp_type,
    }
}

#[inline(always)]
fn later_fragment<M: Maps, P: Packet>(maps: &M, packet: &P, parsed: &mut Parsed) -> Result<(), Dropped> {
    let Some(ports) = maps.fragment(&fragment_key(packet, parsed)) else {
        return Err(dropped!(FragmentNotFound));
    };
    if !parsed.is_v4() {
        parsed.protocol = ports.protocol;
    }
    parsed.source_port = ports.source;
    parsed.destination_port = ports.destination;
    parsed.icmp_type = ports.icmp_type;
    parsed.icmp_code = ports.icmp_code;
    if parsed.protocol == protocol::TCP {
        // A fragment of a TCP segment carries data and nothing that opens or closes.
        parsed.tcp_flags = tcp::ACK;
    }
    Ok(())
}

/// What the fragments of a datagram have in common: in IPv4 the protocol too (RFC 791 §3.2). In IPv6 their Next Header may
/// differ or name an extension header, and reassembly doesn't compare it (RFC 8200 §4.5).
#[inline(always)]
fn fragment_key<P: Packet>(packet: &P, parsed: &Parsed) -> FragmentKey {
    FragmentKey {
        source: parsed.source,
        destination: parsed.destination,
        id: parsed.fragment_id,
        ifindex: packet.interface(),
        protocol: if parsed.is_v4() { u32::from(parsed.protocol) } else { 0 },
    }
}

/// Reads the packet that an ICMP error quotes: addresses, protocol and the ports in its first 8 transport bytes
/// (RFC 792, RFC 4443 §3). Sizes of the quoted packet are not checked, since a quotation is cut.
#[inline(never)]
pub fn quoted<P: Packet>(packet: &P, error: &Parsed, inner: &mut Parsed) -> Result<(), Dropped> {
    let at = usize::from(error.transport_at) + size_of::<Icmp>();
    inner.ether_type = error.ether_type;
    if error.is_v4() {
        v4(packet, inner, at, false)?;
    } else {
        v6(packet, inner, at, false)?;
    }
    if inner.fragment_offset != 0 {
        return Err(dropped!(UnrelatedIcmpError));
    }
    let at = usize::from(inner.transport_at);
    if at > MAX_OFFSET {
        return Err(dropped!(UnrelatedIcmpError));
    }
    let Some(header) = packet.load::<Icmp>(at) else { return Err(dropped!(Truncated)) };
    match inner.protocol {
        protocol::TCP | protocol::UDP | protocol::SCTP => {
            inner.source_port = u16::from_ne_bytes([header.icmp_type, header.code]);
            inner.destination_port = header.checksum;
        }
        protocol::ICMP | protocol::ICMPV6 => {
            inner.icmp_type = header.icmp_type;
            (inner.source_port, inner.destination_port) =
                icmp_ports(inner.protocol, header.icmp_type, header.id);
        }
        _ => return Err(dropped!(UnrelatedIcmpError)),
    }
    Ok(())
}
