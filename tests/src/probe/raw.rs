//! Whole IP packets, byte by byte, for what no socket sends: an RST without a connection, data in a SYN, an ICMP error that
//! quotes somebody else's packet, fragments in the wrong order.
//!
//! Tests build packets here and `sinew-probe raw` sends them from a pod. RFC 791, 8200, 9293, 768, 792, 4443.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

/// Upper-layer protocol numbers (IANA).
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IGMP.
    pub const IGMP: u8 = 2;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
}

/// TCP flags (RFC 9293, 3.1).
pub mod flag {
    /// FIN
    pub const FIN: u8 = 0x01;
    /// SYN
    pub const SYN: u8 = 0x02;
    /// RST
    pub const RST: u8 = 0x04;
    /// ACK
    pub const ACK: u8 = 0x10;
}

/// From where to where, on both layers. Both addresses are of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// Sender.
    pub from: SocketAddr,
    /// Receiver.
    pub to: SocketAddr,
}

impl Tuple {
    /// The way back.
    #[must_use]
    pub fn turned(self) -> Self {
        Self { from: self.to, to: self.from }
    }
}

/// A TCP segment in a packet.
#[must_use]
pub fn tcp(tuple: Tuple, flags: u8, sequence: u32, acknowledged: u32, data: &[u8]) -> Vec<u8> {
    let mut segment = Vec::with_capacity(20 + data.len());
    segment.extend(tuple.from.port().to_be_bytes());
    segment.extend(tuple.to.port().to_be_bytes());
    segment.extend(sequence.to_be_bytes());
    segment.extend(acknowledged.to_be_bytes());
    // Data offset of five words, flags, window, checksum, urgent pointer.
    segment.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(data);
    finish(&mut segment, 16, tuple, protocol::TCP);
    packet(tuple.from.ip(), tuple.to.ip(), protocol::TCP, &segment)
}

/// A UDP datagram, without the IP header.
#[must_use]
pub fn datagram(tuple: Tuple, data: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(8 + data.len());
    datagram.extend(tuple.from.port().to_be_bytes());
    datagram.extend(tuple.to.port().to_be_bytes());
    datagram.extend(u16::try_from(8 + data.len()).unwrap_or(u16::MAX).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(data);
    finish(&mut datagram, 6, tuple, protocol::UDP);
    datagram
}

/// "Port unreachable" from `from`, which quotes a packet: ICMP 3/3 or ICMPv6 1/4. It goes to the quoted packet's source.
#[must_use]
pub fn port_unreachable(from: IpAddr, to: IpAddr, quoted: &[u8]) -> Vec<u8> {
    let (kind, code, number) = if from.is_ipv4() { (3, 3, protocol::ICMP) } else { (1, 4, protocol::ICMPV6) };
    let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
    message.extend(&quoted[..quoted.len().min(512)]);
    if from.is_ipv4() {
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    } else {
        finish(&mut message, 2, Tuple { from: (from, 0).into(), to: (to, 0).into() }, number);
    }
    packet(from, to, number, &message)
}

/// An ICMPv6 message: `body` is what follows its checksum. Discovery goes by its hop limit (RFC 4861 §6.1, §7.1).
#[must_use]
pub fn icmpv6(from: IpAddr, to: IpAddr, kind: u8, hop_limit: u8, body: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, 0, 0, 0], body].concat();
    finish(&mut message, 2, Tuple { from: (from, 0).into(), to: (to, 0).into() }, protocol::ICMPV6);
    let mut packet = packet(from, to, protocol::ICMPV6, &message);
    packet[7] = hop_limit;
    packet
}

/// An IP packet around a payload.
#[must_use]
pub fn packet(from: IpAddr, to: IpAddr, next: u8, payload: &[u8]) -> Vec<u8> {
    fragment(from, to, next, payload, None)
}

/// Place of a fragment in its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// What names the datagram.
    pub id: u16,
    /// Bytes before it, a multiple of 8.
    pub offset: u16,
    /// Whether more follow.
    pub more: bool,
}

/// An IP packet around a payload, or around a part of one.
#[must_use]
pub fn fragment(from: IpAddr, to: IpAddr, next: u8, payload: &[u8], part: Option<Fragment>) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let part = part.unwrap_or(Fragment { id: 0x5157, offset: 0, more: false });
            let total = u16::try_from(20 + payload.len()).unwrap_or(u16::MAX);
            let place = (part.offset / 8) | if part.more { 0x2000 } else { 0 };
            let mut header = vec![0x45, 0];
            header.extend(total.to_be_bytes());
            header.extend(part.id.to_be_bytes());
            header.extend(place.to_be_bytes());
            header.extend([64, next, 0, 0]);
            header.extend(from.octets());
            header.extend(to.octets());
            let sum = checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            [header, payload.to_vec()].concat()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let extension = part.map_or_else(Vec::new, |part| {
                let place = part.offset | u16::from(part.more);
                let mut extension = vec![next, 0];
                extension.extend(place.to_be_bytes());
                extension.extend(u32::from(part.id).to_be_bytes());
                extension
            });
            let first = if part.is_some() { protocol::FRAGMENT } else { next };
            let length = u16::try_from(extension.len() + payload.len()).unwrap_or(u16::MAX);
            let mut header = vec![0x60, 0, 0, 0];
            header.extend(length.to_be_bytes());
            header.extend([first, 64]);
            header.extend(from.octets());
            header.extend(to.octets());
            [header, extension, payload.to_vec()].concat()
        }
        _ => panic!("a packet has one family"),
    }
}

/// Sends a packet as it is; the kernel adds the link layer only. `IPPROTO_RAW` includes the header (raw(7)).
///
/// # Errors
/// The own machine refused to send it.
pub fn send(packet: &[u8], to: IpAddr) -> io::Result<()> {
    let domain = if to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
    socket.send_to(packet, &SocketAddr::new(to, 0).into()).map(drop)
}

/// Bytes as hexadecimal digits, for a command line.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Hexadecimal digits as bytes; `None` if they are none.
#[must_use]
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let pair = |index: usize| u8::from_str_radix(text.get(index..index + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(pair).collect()
}

/// Writes the checksum over pseudo-header and message to its place.
fn finish(message: &mut [u8], at: usize, tuple: Tuple, number: u8) {
    let mut bytes = match (tuple.from.ip(), tuple.to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => [from.octets(), to.octets()].concat(),
        (IpAddr::V6(from), IpAddr::V6(to)) => [from.octets(), to.octets()].concat(),
        _ => panic!("a packet has one family"),
    };
    bytes.extend(u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend([0, 0, 0, number]);
    bytes.extend(&*message);
    let sum = checksum(&bytes);
    message[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// RFC 1071.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded to 16 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(from: &str, to: &str) -> Tuple {
        Tuple { from: from.parse().unwrap(), to: to.parse().unwrap() }
    }

    #[test]
    fn a_syn_has_the_bytes_that_rfc_9293_draws() {
        let packet = tcp(tuple("10.0.0.1:40000", "10.0.0.2:80"), flag::SYN, 1, 0, b"");
        assert_eq!(to_hex(&packet[..10]), "45000028515700004006");
        assert_eq!(checksum(&packet[..20]), 0, "the IP header's checksum closes it");
        // 40000, 80, sequence 1, acknowledgement 0, five words, SYN, window.
        assert_eq!(to_hex(&packet[20..36]), "9c40005000000001000000005002ffff");
    }

    #[test]
    fn a_fragment_names_its_place() {
        let part = Fragment { id: 7, offset: 16, more: true };
        let (from, to) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let packet = fragment(from, to, protocol::UDP, &[1, 2], Some(part));
        assert_eq!(to_hex(&packet[2..8]), "001600072002");
        let (from, to) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
        let packet = fragment(from, to, protocol::UDP, &[1, 2], Some(part));
        assert_eq!(to_hex(&packet[4..8]), "000a2c40");
        assert_eq!(to_hex(&packet[40..]), "11000011000000070102");
    }

    #[test]
    fn hexadecimal_goes_both_ways() {
        assert_eq!(from_hex(&to_hex(&[0, 255, 16])), Some(vec![0, 255, 16]));
        assert_eq!(from_hex("abc"), None);
        assert_eq!(from_hex("zz"), None);
    }
}
