//! Packets for tests, from their fields: right lengths and checksums unless a test says otherwise, so that what a hook
//! rewrites can be compared with a packet built from scratch.
//!
//! Neighbours: `world.rs` has the ends that packets go between; `cases.rs` and the agreement tests send them.

use core::net::IpAddr;
use std::vec;
use std::vec::Vec;

use crate::parse::protocol;

/// EtherTypes in host order.
const V4: u16 = 0x0800;
const V6: u16 = 0x86dd;
/// The IPv6 fragment header's number (RFC 8200 §4.5).
const FRAGMENT: u8 = 44;

/// What stands behind the network header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP (RFC 9293 §3.1).
    Tcp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// Flags.
        flags: u8,
    },
    /// UDP (RFC 768).
    Udp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// SCTP's common header (RFC 9260 §3.1).
    Sctp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// ICMP or ICMPv6, by the packet's family unless `other_family`.
    Icmp {
        /// Type.
        icmp_type: u8,
        /// Code.
        code: u8,
        /// The four bytes behind the checksum: of an echo its identifier and sequence number.
        rest: [u8; 4],
        /// Whether the message is of the other IP version.
        other_family: bool,
    },
    /// Nothing but the payload, as a protocol.
    Raw(u8),
}

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Offset in units of 8 bytes.
    pub offset: u16,
    /// Whether more parts come.
    pub more: bool,
    /// Identification of the datagram.
    pub id: u32,
}

/// A packet by its fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// Destination MAC.
    pub destination_mac: [u8; 6],
    /// Source MAC.
    pub source_mac: [u8; 6],
    /// VLAN tags in front of the EtherType, as pairs of TPID and identifier.
    pub tags: Vec<(u16, u16)>,
    /// Source address.
    pub source: IpAddr,
    /// Destination address, of the same family.
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// IPv6 extension headers: number and content from the second byte on, in multiples of 8 less one.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// Options of the IPv4 header, in multiples of 4 bytes.
    pub options: Vec<u8>,
    /// Which part of a datagram it is, `None` for a whole one.
    pub part: Option<Part>,
    /// The transport header; a later part has none, only the payload.
    pub transport: Transport,
    /// What follows it.
    pub payload: Vec<u8>,
}

impl Build {
    /// A packet between two addresses, without MACs.
    #[must_use]
    pub fn new(source: IpAddr, destination: IpAddr, transport: Transport) -> Self {
        Self {
            destination_mac: [0; 6],
            source_mac: [0; 6],
            tags: Vec::new(),
            source,
            destination,
            hop_limit: 64,
            extensions: Vec::new(),
            options: Vec::new(),
            part: None,
            transport,
            payload: Vec::new(),
        }
    }

    /// With these MACs.
    #[must_use]
    pub fn macs(self, destination: [u8; 6], source: [u8; 6]) -> Self {
        Self { destination_mac: destination, source_mac: source, ..self }
    }

    /// With this TTL or hop limit.
    #[must_use]
    pub fn hop_limit(self, hop_limit: u8) -> Self {
        Self { hop_limit, ..self }
    }

    /// With this payload.
    #[must_use]
    pub fn payload(self, payload: impl Into<Vec<u8>>) -> Self {
        Self { payload: payload.into(), ..self }
    }

    /// As a part of a datagram.
    #[must_use]
    pub fn part(self, offset: u16, more: bool, id: u32) -> Self {
        Self { part: Some(Part { offset, more, id }), ..self }
    }

    /// With an IPv6 extension header in front of the transport header.
    #[must_use]
    pub fn extension(mut self, number: u8, content: impl Into<Vec<u8>>) -> Self {
        self.extensions.push((number, content.into()));
        self
    }

    /// With options in its IPv4 header.
    #[must_use]
    pub fn options(self, options: impl Into<Vec<u8>>) -> Self {
        Self { options: options.into(), ..self }
    }

    /// Whether it is IPv4.
    #[must_use]
    pub fn is_v4(&self) -> bool {
        self.source.is_ipv4()
    }

    /// The whole frame.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut frame = Vec::new();
        frame.extend(self.destination_mac);
        frame.extend(self.source_mac);
        for (kind, identifier) in &self.tags {
            frame.extend(kind.to_be_bytes());
            frame.extend(identifier.to_be_bytes());
        }
        frame.extend(if self.is_v4() { V4 } else { V6 }.to_be_bytes());
        frame.extend(self.network());
        frame
    }

    /// The packet from its network header on, as an ICMP error quotes it.
    #[must_use]
    pub fn network(&self) -> Vec<u8> {
        let transport = self.transport();
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let part = self.part.unwrap_or(Part { offset: 0, more: false, id: 0x1234 });
                let options = self.options.len();
                let mut header = vec![0x45 + (options / 4) as u8, 0];
                header.extend(((20 + options + transport.len()) as u16).to_be_bytes());
                header.extend((part.id as u16).to_be_bytes());
                header.extend((part.offset | u16::from(part.more) << 13).to_be_bytes());
                header.extend([self.hop_limit, self.number(), 0, 0]);
                header.extend(source.octets());
                header.extend(destination.octets());
                header.extend(&self.options);
                let sum = checksum(&[&header]);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                header.extend(transport);
                header
            }
            (source, destination) => {
                let mut chain = self.extensions.clone();
                if let Some(part) = self.part {
                    let mut content = vec![0];
                    content.extend((part.offset << 3 | u16::from(part.more)).to_be_bytes());
                    content.extend(part.id.to_be_bytes());
                    chain.push((FRAGMENT, content));
                }
                let mut behind = Vec::new();
                for (index, (_, content)) in chain.iter().enumerate() {
                    behind.push(chain.get(index + 1).map_or(self.number(), |next| next.0));
                    behind.extend(content);
                }
                behind.extend(transport);
                let mut header = vec![0x60, 0, 0, 0];
                header.extend((behind.len() as u16).to_be_bytes());
                header.extend([chain.first().map_or(self.number(), |first| first.0), self.hop_limit]);
                header.extend(octets(source));
                header.extend(octets(destination));
                header.extend(behind);
                header
            }
        }
    }

    /// IANA number of the transport.
    #[must_use]
    pub fn number(&self) -> u8 {
        match self.transport {
            Transport::Tcp { .. } => protocol::TCP,
            Transport::Udp { .. } => protocol::UDP,
            Transport::Sctp { .. } => protocol::SCTP,
            Transport::Icmp { other_family, .. } if other_family == self.is_v4() => protocol::ICMPV6,
            Transport::Icmp { .. } => protocol::ICMP,
            Transport::Raw(number) => number,
        }
    }

    fn transport(&self) -> Vec<u8> {
        if self.part.is_some_and(|part| part.offset != 0) {
            return self.payload.clone();
        }
        let mut bytes = Vec::new();
        let checksum_at = match self.transport {
            Transport::Tcp { source, destination, flags } => {
                bytes.extend(source.to_be_bytes());
                bytes.extend(destination.to_be_bytes());
                bytes.extend([0, 0, 0, 1, 0, 0, 0, 1, 5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
                Some(16)
            }
            Transport::Udp { source, destination } => {
                bytes.extend(source.to_be_bytes());
                bytes.extend(destination.to_be_bytes());
                bytes.extend((8 + self.payload.len() as u16).to_be_bytes());
                bytes.extend([0, 0]);
                Some(6)
            }
            Transport::Sctp { source, destination } => {
                bytes.extend(source.to_be_bytes());
                bytes.extend(destination.to_be_bytes());
                bytes.extend([0, 0, 0, 7, 0, 0, 0, 0]);
                None
            }
            Transport::Icmp { icmp_type, code, rest, .. } => {
                bytes.extend([icmp_type, code, 0, 0]);
                bytes.extend(rest);
                Some(2)
            }
            Transport::Raw(_) => None,
        };
        bytes.extend(&self.payload);
        if let Some(at) = checksum_at {
            let sum = self.transport_checksum(&bytes);
            bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        if let Transport::Sctp { .. } = self.transport {
            let sum = crc32c(&bytes);
            bytes[8..12].copy_from_slice(&sum.to_le_bytes());
        }
        bytes
    }

    fn transport_checksum(&self, bytes: &[u8]) -> u16 {
        if self.number() == protocol::ICMP {
            return checksum(&[bytes]);
        }
        let mut pseudo = octets(self.source);
        pseudo.extend(octets(self.destination));
        pseudo.extend((bytes.len() as u32).to_be_bytes());
        pseudo.extend([0, 0, 0, self.number()]);
        match checksum(&[&pseudo, bytes]) {
            // RFC 768: zero means that there is none.
            0 if self.number() == protocol::UDP => 0xffff,
            sum => sum,
        }
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// RFC 1071, over parts of even length but the last.
pub(super) fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or_default());
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// RFC 9260, appendix A.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 != 0 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

/// An ARP frame for IPv4 over Ethernet (RFC 826): to everybody for a request (1), to its target for a reply (2).
#[must_use]
pub fn arp(operation: u16, sender: ([u8; 6], [u8; 4]), target: ([u8; 6], [u8; 4]), from: [u8; 6]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(if operation == 1 { [0xff; 6] } else { target.0 });
    frame.extend(from);
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4]);
    frame.extend(operation.to_be_bytes());
    frame.extend(sender.0);
    frame.extend(sender.1);
    frame.extend(target.0);
    frame.extend(target.1);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 1071 §3: the sum of these bytes is 0xddf2.
    #[test]
    fn checksum_of_the_rfc() {
        assert_eq!(checksum(&[&[0x00, 0x01, 0xf2, 0x03], &[0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2);
    }

    /// The check value of CRC-32C in the catalogue of parametrised CRC algorithms.
    #[test]
    fn crc_of_the_catalogue() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    /// A DNS query as dig sends it: header bytes worked out by hand.
    #[test]
    fn a_udp_packet_byte_by_byte() {
        let source = IpAddr::from([192, 0, 2, 1]);
        let destination = IpAddr::from([192, 0, 2, 2]);
        let packet = Build::new(source, destination, Transport::Udp { source: 0x1000, destination: 53 })
            .macs([1; 6], [2; 6])
            .payload(*b"hi");
        let expected: &[u8] = &[
            1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 0x08, 0x00, // Ethernet
            0x45, 0, 0, 30, 0x12, 0x34, 0, 0, 64, 17, 0xe4, 0x97, 192, 0, 2, 1, 192, 0, 2, 2, // IPv4
            0x10, 0x00, 0, 53, 0, 10, 0x03, 0x26, b'h', b'i', // UDP
        ];
        let bytes = packet.bytes();
        assert_eq!(checksum(&[&bytes[14..34]]), 0, "the header sums up with its checksum");
        assert_eq!(bytes[..24], expected[..24]);
        assert_eq!(bytes[26..40], expected[26..40]);
        assert_eq!(bytes[42..], expected[42..]);
    }
}
