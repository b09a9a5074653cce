//! The headers of a flow, and its one-line summary as Hubble's clients print it.

use std::net::IpAddr;

use sinew_api::proto::flow::layer4::Protocol;
use sinew_api::proto::flow::{
    Ethernet, IcmPv4, IcmPv6, Igmp, Ip, IpVersion, Layer4, Sctp, Tcp, TcpFlags, Udp, Vrrp,
};
use sinew_bpf::abi::{EventRecord, event};
use sinew_bpf::drop::DropReason;
use sinew_bpf::parse::{protocol, tcp};
use sinew_observer::metrics::hubble::icmp;

/// VRRP's protocol number (RFC 9568), which the programs have no word for.
const VRRP: u8 = 112;

/// The MACs, where the record has them.
pub(super) fn ethernet(record: &EventRecord) -> Option<Ethernet> {
    let mac = |bytes: &[u8]| {
        let parts: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        parts.join(":")
    };
    (record.flags & event::flag::HAS_MACS != 0)
        .then(|| Ethernet { source: mac(&record.macs[6..]), destination: mac(&record.macs[..6]) })
}

/// The addresses; none for a frame that is no IP packet.
pub(super) fn ip(record: &EventRecord) -> Option<Ip> {
    let version = match record.ip_version {
        4 => IpVersion::IPv4,
        6 => IpVersion::IPv6,
        _ => return None,
    };
    Some(Ip {
        source: IpAddr::from(record.source).to_string(),
        destination: IpAddr::from(record.destination).to_string(),
        ip_version: version.into(),
        ..Ip::default()
    })
}

/// Whether the packet was dropped before its transport header was read, so that the record's zeros are no values.
///
/// A record does not say so itself. A judged packet has been read. TCP from port 0 to port 0 without flags, and UDP or
/// SCTP between ports 0, are not seen otherwise; an ICMP message of type 0 and code 0 is an echo reply, so there the reason
/// decides. A fragment with somebody else's source is dropped unread for a reason that whole packets have too: of ICMPv4
/// it stays an echo reply, while ICMPv6's type 0 is reserved (RFC 4443, section 2.1).
fn is_unread(record: &EventRecord) -> bool {
    const READ: u8 = event::flag::EGRESS_JUDGED | event::flag::INGRESS_JUDGED | event::flag::DIRECTION_KNOWN;
    let zero = (record.source_port, record.destination_port, record.tcp_flags) == (0, 0, 0);
    if record.kind != event::kind::DROP || record.flags & READ != 0 || !zero {
        return false;
    }
    let reason = DropReason::from_number(record.reason);
    match record.protocol {
        protocol::TCP => reason != Some(DropReason::InvalidTcpFlags),
        protocol::UDP | protocol::SCTP => true,
        protocol::ICMP => reason.is_some_and(precedes_transport),
        protocol::ICMPV6 => {
            reason.is_some_and(|it| it == DropReason::InvalidSourceIp || precedes_transport(it))
        }
        _ => false,
    }
}

/// Whether a packet that is dropped for this reason, and whose ICMP type is 0, has not been read that far.
const fn precedes_transport(reason: DropReason) -> bool {
    matches!(
        reason,
        DropReason::InvalidSourceMac
            | DropReason::Vlan
            | DropReason::SourceRoute
            | DropReason::WrongIcmpFamily
            | DropReason::FragmentNotFound
            | DropReason::TinyFragment
            | DropReason::Truncated
            | DropReason::InvalidExtensionHeader
    )
}

/// The transport header; none where it was not read.
pub(super) fn l4(record: &EventRecord) -> Option<Layer4> {
    if is_unread(record) {
        return None;
    }
    let (source, destination) =
        (u32::from(u16::from_be(record.source_port)), u32::from(u16::from_be(record.destination_port)));
    let protocol = match record.protocol {
        protocol::TCP => Protocol::Tcp(Tcp {
            source_port: source,
            destination_port: destination,
            flags: Some(tcp_flags(record.tcp_flags)),
        }),
        protocol::UDP => Protocol::Udp(Udp { source_port: source, destination_port: destination }),
        protocol::SCTP => Protocol::Sctp(Sctp { source_port: source, destination_port: destination }),
        protocol::ICMP => Protocol::IcmPv4(IcmPv4 { r#type: source, code: destination }),
        protocol::ICMPV6 => Protocol::IcmPv6(IcmPv6 { r#type: source, code: destination }),
        // A record says nothing of what is in them.
        protocol::IGMP => Protocol::Igmp(Igmp::default()),
        VRRP => Protocol::Vrrp(Vrrp::default()),
        _ => return None,
    };
    Some(Layer4 { protocol: Some(protocol) })
}

fn tcp_flags(flags: u8) -> TcpFlags {
    TcpFlags {
        fin: flags & tcp::FIN != 0,
        syn: flags & tcp::SYN != 0,
        rst: flags & tcp::RST != 0,
        psh: flags & tcp::PSH != 0,
        ack: flags & tcp::ACK != 0,
        urg: flags & tcp::URG != 0,
        ece: flags & 0x40 != 0,
        cwr: flags & 0x80 != 0,
        ns: false,
    }
}

/// The transport in words: `TCP Flags: SYN, ACK`, `UDP`, `ICMPv4 DestinationUnreachable(Port)`. Without one that was read
/// and has a name, the last layer that has: `IPv4`.
pub(super) fn summary(record: &EventRecord) -> String {
    let (icmp_type, icmp_code) =
        (u32::from(u16::from_be(record.source_port)), u32::from(u16::from_be(record.destination_port)));
    match record.protocol {
        _ if is_unread(record) => network(record),
        protocol::TCP => {
            let names: Vec<&str> = [
                (tcp::SYN, "SYN"),
                (tcp::ACK, "ACK"),
                (tcp::RST, "RST"),
                (tcp::FIN, "FIN"),
                (tcp::PSH, "PSH"),
                (tcp::URG, "URG"),
                (0x40, "ECE"),
                (0x80, "CWR"),
            ]
            .into_iter()
            .filter(|(bit, _)| record.tcp_flags & bit != 0)
            .map(|(_, name)| name)
            .collect();
            format!("TCP Flags: {}", names.join(", "))
        }
        protocol::UDP => "UDP".to_owned(),
        protocol::SCTP => "SCTP".to_owned(),
        protocol::ICMP => format!("ICMPv4 {}", icmp::v4(icmp_type, icmp_code)),
        protocol::ICMPV6 => format!("ICMPv6 {}", icmp::v6(icmp_type, icmp_code)),
        protocol::IGMP => "IGMP".to_owned(),
        VRRP => "VRRP".to_owned(),
        _ => network(record),
    }
}

fn network(record: &EventRecord) -> String {
    let name = match record.ip_version {
        4 => "IPv4",
        6 => "IPv6",
        _ => "Ethernet",
    };
    name.to_owned()
}
