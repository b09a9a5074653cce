//! What two ends say to each other, for all cases.

use core::net::IpAddr;
use std::vec::Vec;

use crate::host::world::{Family, Place, Pod, Sent};
use crate::host::{Build, Case, Expected, Transport};
use crate::parse::tcp;

/// An initiator's port, above 32768.
pub(super) const HIGH: u16 = 40_000;
/// A responder's port.
pub(super) const HTTP: u16 = 80;
/// SYN+ACK.
pub(super) const SYN_ACK: u8 = tcp::SYN | tcp::ACK;
/// Data.
pub(super) const DATA: u8 = tcp::PSH | tcp::ACK;
/// The end of one direction.
pub(super) const FIN: u8 = tcp::FIN | tcp::ACK;

/// Two ends with ports.
#[derive(Clone, Copy)]
pub(super) struct Talk {
    pub(super) family: Family,
    pub(super) a: Place,
    pub(super) b: Place,
    pub(super) ports: (u16, u16),
}

/// From a high port to HTTP.
pub(super) fn talk(family: Family, a: Place, b: Place) -> Talk {
    Talk { family, a, b, ports: (HIGH, HTTP) }
}

impl Talk {
    pub(super) fn ports(self, a: u16, b: u16) -> Self {
        Self { ports: (a, b), ..self }
    }

    fn ends(&self, back: bool) -> (IpAddr, IpAddr, u16, u16) {
        let (a, b) = (self.a.ip(self.family), self.b.ip(self.family));
        if back { (b, a, self.ports.1, self.ports.0) } else { (a, b, self.ports.0, self.ports.1) }
    }

    fn tcp(&self, back: bool, flags: u8) -> Build {
        let (from, to, source, destination) = self.ends(back);
        let packet = Build::new(from, to, Transport::Tcp { source, destination, flags });
        if flags & tcp::PSH != 0 { packet.payload(*b"sixteen bytes...") } else { packet }
    }

    /// A TCP packet from the first end; with PSH it carries data.
    pub(super) fn out(&self, flags: u8) -> Build {
        self.tcp(false, flags)
    }

    /// A TCP packet from the second end.
    pub(super) fn back(&self, flags: u8) -> Build {
        self.tcp(true, flags)
    }

    /// A datagram from the first end.
    pub(super) fn udp(&self) -> Build {
        let (from, to, source, destination) = self.ends(false);
        Build::new(from, to, Transport::Udp { source, destination }).payload(*b"datagram")
    }

    /// A datagram from the second end.
    pub(super) fn udp_back(&self) -> Build {
        let (from, to, source, destination) = self.ends(true);
        Build::new(from, to, Transport::Udp { source, destination }).payload(*b"answer")
    }

    /// An SCTP packet from the first end.
    pub(super) fn sctp(&self) -> Build {
        let (from, to, source, destination) = self.ends(false);
        Build::new(from, to, Transport::Sctp { source, destination }).payload([1, 0, 0, 4])
    }

    /// An SCTP packet from the second end.
    pub(super) fn sctp_back(&self) -> Build {
        let (from, to, source, destination) = self.ends(true);
        Build::new(from, to, Transport::Sctp { source, destination }).payload([2, 0, 0, 4])
    }

    /// An echo request from the first end, with this identifier.
    pub(super) fn echo(&self, id: u16) -> Build {
        let icmp_type = if self.family == Family::V4 { 8 } else { 128 };
        icmp(self.a.ip(self.family), self.b.ip(self.family), icmp_type, 0, echo_rest(id))
    }

    /// An echo reply from the second end.
    pub(super) fn echo_reply(&self, id: u16) -> Build {
        let icmp_type = if self.family == Family::V4 { 0 } else { 129 };
        icmp(self.b.ip(self.family), self.a.ip(self.family), icmp_type, 0, echo_rest(id))
    }
}

fn echo_rest(id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [high, low, 0, 1]
}

/// An ICMP message of the packet's family.
pub(super) fn icmp(from: IpAddr, to: IpAddr, icmp_type: u8, code: u8, rest: [u8; 4]) -> Build {
    Build::new(from, to, Transport::Icmp { icmp_type, code, rest, other_family: false }).payload(*b"ping")
}

/// An ICMP error about a packet: port unreachable.
pub(super) fn unreachable(from: IpAddr, to: IpAddr, about: &Build) -> Build {
    let (icmp_type, code) = if from.is_ipv4() { (3, 3) } else { (1, 4) };
    error(from, to, icmp_type, code, about)
}

/// An ICMP error about a packet: its hop limit ended on the way.
pub(super) fn time_exceeded(from: IpAddr, to: IpAddr, about: &Build) -> Build {
    error(from, to, if from.is_ipv4() { 11 } else { 3 }, 0, about)
}

/// An ICMP error, which quotes the network header and 8 bytes of the packet in IPv4, all of a small packet in IPv6.
fn error(from: IpAddr, to: IpAddr, icmp_type: u8, code: u8, about: &Build) -> Build {
    let mut quoted: Vec<u8> = about.network();
    if from.is_ipv4() {
        quoted.truncate(28);
    }
    icmp(from, to, icmp_type, code, [0; 4]).payload(quoted)
}

/// Opens a TCP connection between two pods that nobody's policy selects, with data both ways: 5 packets.
pub(super) fn opened(case: Case, talk: &Talk, a: &'static Pod, b: &'static Pod) -> Case {
    let to_a = Expected::Pod(a);
    let to_b = Expected::Pod(b);
    case.packet(
        Sent::from_pod(a, talk.out(tcp::SYN)),
        to_b,
        &[("rule 0", 2), ("new", 1), ("opening", 1), ("packets", 1)],
    )
    .packet(Sent::from_pod(b, talk.back(SYN_ACK)), to_a, &[("flags", 1), ("packets", 1)])
    .packet(Sent::from_pod(a, talk.out(tcp::ACK)), to_b, &[("packets", 1), ("opening", -1), ("tcp", 1)])
    .packet(Sent::from_pod(a, talk.out(DATA)), to_b, &[("packets", 1)])
    .packet(Sent::from_pod(b, talk.back(DATA)), to_a, &[("packets", 1)])
}
