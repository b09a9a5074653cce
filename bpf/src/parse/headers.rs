//! Header layouts as they are in a packet: network order, aligned to two bytes, as every header is behind a link header of
//! fourteen. With an alignment of one the programs would read them byte by byte.

#![allow(unsafe_code, reason = "each type declares that any bytes are a value of it")]

use crate::packet::Header;

macro_rules! header {
    ($(#[$doc:meta])* $name:ident, $bytes:literal { $($field:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[repr(C, packed(2))]
        #[derive(Clone, Copy)]
        pub(crate) struct $name { $(pub(crate) $field: $kind,)* }

        const _: () = assert!(size_of::<$name>() == $bytes);

        // SAFETY: packed integers: no padding, alignment 2, any bytes are a value.
        unsafe impl Header for $name {}
    };
}

header! {
    /// Ethernet II.
    Ethernet, 14 { macs: [u8; 12], ether_type: u16, }
}
header! {
    /// IPv4 without options (RFC 791 §3.1).
    V4, 20 {
        version_length: u8, class: u8, total_bytes: u16, id: u16, fragment: u16,
        ttl: u8, protocol: u8, checksum: u16, source: u32, destination: u32,
    }
}
header! {
    /// IPv6 (RFC 8200 §3).
    V6, 40 {
        version_class: [u8; 4], payload_bytes: u16, next_header: u8, hop_limit: u8,
        source: [u32; 4], destination: [u32; 4],
    }
}
header! {
    /// The start of most IPv6 extension headers (RFC 6564 §4); of a routing header how far it is (RFC 8200 §4.4).
    Extension, 8 { next_header: u8, length: u8, routing_type: u8, segments_left: u8, rest: u32, }
}
header! {
    /// The IPv6 fragment header (RFC 8200 §4.5).
    FragmentHeader, 8 { next_header: u8, reserved: u8, offset_more: u16, id: u32, }
}
header! {
    /// TCP without options (RFC 9293 §3.1).
    Tcp, 20 {
        source: u16, destination: u16, sequence: u32, acknowledgement: u32,
        data_offset: u8, flags: u8, window: u16, checksum: u16, urgent: u16,
    }
}
header! {
    /// What UDP and SCTP begin with.
    Ports, 8 { source: u16, destination: u16, rest: u32, }
}
header! {
    /// ICMP and ICMPv6 with an identifier; of other messages, whatever stands there.
    Icmp, 8 { icmp_type: u8, code: u8, checksum: u16, id: u16, sequence: u16, }
}
header! {
    /// ARP for IPv4 over Ethernet (RFC 826).
    Arp, 28 {
        hardware: u16, protocol: u16, lengths: u16, operation: u16,
        sender_mac: [u8; 6], sender: u32, target_mac: [u8; 6], target: u32,
    }
}
header! {
    /// Neighbour solicitation or advertisement up to its target (RFC 4861 §4.3).
    Neighbour, 24 { icmp_type: u8, code: u8, checksum: u16, flags: u32, target: [u32; 4], }
}
