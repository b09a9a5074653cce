//! The headers of a flow, and its one-line summary as Hubble's clients print it.

use std::net::IpAddr;

use sinew_api::proto::flow::layer4::Protocol;
use sinew_api::proto::flow::{
    Ethernet, IcmPv4, IcmPv6, Igmp, Ip, IpVersion, Layer4, Sctp, Tcp, TcpFlags, Udp, Vrrp,
};
use sinew_bpf::abi::{EventRecord, event};
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

/// The transport header.
pub(super) fn l4(record: &EventRecord) -> Option<Layer4> {
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

/// The transport in words: `TCP Flags: SYN, ACK`, `UDP`, `ICMPv4 DestinationUnreachable(Port)`. Without one that has a
/// name, the last layer that has: `IPv4`.
pub(super) fn summary(record: &EventRecord) -> String {
    let (icmp_type, icmp_code) =
        (u32::from(u16::from_be(record.source_port)), u32::from(u16::from_be(record.destination_port)));
    match record.protocol {
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
        _ => match record.ip_version {
            4 => "IPv4".to_owned(),
            6 => "IPv6".to_owned(),
            _ => "Ethernet".to_owned(),
        },
    }
}
