//! What a pod may not send (datapath.md 26), as real frames from a real pod: each is dropped by its name, and what a pod
//! must be able to send beside it is not. The pipeline's cases have the corners; here the whole way is real, from the
//! pod's interface to the flow that a person reads.

#[path = "lab_forbidden/pod.rs"]
mod pod;
#[path = "lab_forbidden/tunnel.rs"]
mod tunnel;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::SystemTime;

use anyhow::{Context, Result};
use pod::{Ground, OTHER_MAC};
use serde_json::Value;
use sinew_tests::lab::flows::Flow;
use sinew_tests::lab::{Family, ROUTINGS};
use sinew_tests::probe::frame::{self, ether_type};
use sinew_tests::probe::raw::{self, Tuple, flag, protocol};

/// The words that a flow must have for its drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// Hubble's name.
    Hubble(&'static str),
    /// Our own, finer one.
    Own(&'static str),
}

use Reason::{Hubble, Own};

/// Sends a frame and waits for its drop: of these addresses if an IP packet is in it, of none if there is none. Behind
/// two tags the kernel shows no packet.
fn must_drop(ground: &Ground, what: &str, frame: &[u8], reason: Reason) -> Result<()> {
    let since = SystemTime::now();
    ground.client.send_frame(frame).with_context(|| what.to_owned())?;
    was_dropped(ground, what, frame, reason, since)
}

fn was_dropped(ground: &Ground, what: &str, frame: &[u8], reason: Reason, since: SystemTime) -> Result<()> {
    let addresses = pod::addresses_in(frame);
    let is_tagged = pod::is_tagged(frame);
    let fits = |flow: &Flow| {
        let of = |end: &str| flow.raw().pointer(&format!("/IP/{end}")).and_then(Value::as_str);
        let found = of("source").zip(of("destination")).map(|(from, to)| (from.to_owned(), to.to_owned()));
        flow.verdict() == "DROPPED" && (found == addresses || found.is_none() && is_tagged)
    };
    let flow = ground.lab.node("a").flow(since, &format!("of {what}"), fits)?;
    match reason {
        Hubble(name) => assert_eq!(flow.drop_reason(), name, "{what}: {}", flow.raw()),
        Own(words) => assert_eq!(flow.own_reason(), words, "{what}: {}", flow.raw()),
    }
    Ok(())
}

/// Nothing of what was sent harmed the pod.
fn still_talks(ground: &Ground) -> Result<()> {
    for family in Family::BOTH {
        let attempt = ground.client.udp(ground.server.address(family), pod::UDP)?;
        assert!(attempt.answered(), "{family:?}: {attempt:?}");
    }
    Ok(())
}

#[test]
#[ignore = "cargo xtask test lab"]
fn a_pod_spoofs_neither_mac_nor_address() -> Result<()> {
    for routing in ROUTINGS {
        let ground = Ground::over(routing)?;
        Family::BOTH.into_iter().try_for_each(|family| spoofs_nothing(&ground, family))?;
        still_talks(&ground)?;
    }
    Ok(())
}

fn spoofs_nothing(ground: &Ground, family: Family) -> Result<()> {
    let own = ground.datagram(ground.tuple(family));
    let mut stolen = ground.tuple(family);
    stolen.from.set_ip(match family {
        Family::V4 => Ipv4Addr::new(10, 240, 0, 99).into(),
        Family::V6 => "fd00:240::9999".parse()?,
    });
    must_drop(
        ground,
        "a packet from another MAC",
        &ground.frame_from(OTHER_MAC, family, &own),
        Hubble("INVALID_SOURCE_MAC"),
    )?;
    let stolen = ground.datagram(stolen);
    must_drop(
        ground,
        "a packet from another address",
        &ground.frame(family, &stolen),
        Hubble("INVALID_SOURCE_IP"),
    )?;
    Ok(())
}

/// What fills in a checksum behind the programs would write over an address or a port that they have judged.
#[test]
#[ignore = "cargo xtask test lab"]
fn a_pod_leaves_nothing_but_its_checksum_to_be_filled_in() -> Result<()> {
    let ground = Ground::new()?;
    for family in Family::BOTH {
        let mut tuple = ground.tuple(family);
        let frame = |tuple| ground.frame(family, &ground.datagram(tuple));
        // Where the transport header is, and the lower half of either address.
        let (transport, source, destination) = if family == Family::V4 { (34, 28, 32) } else { (54, 36, 52) };
        for (what, at) in
            [("its source", source), ("its destination", destination), ("a port", transport + 2)]
        {
            let since = SystemTime::now();
            let what = format!("{what} as the checksum {family:?}");
            ground.client.send_frame_without_checksum(&frame(tuple), at).with_context(|| what.clone())?;
            let reason = Own("checksum to be filled in outside its place");
            was_dropped(&ground, &what, &frame(tuple), reason, since)?;
        }
        // In its own place it is what each packet of a pod's stack has, and a tunnel's is in the payload.
        for at in [transport + 6, transport + 8] {
            tuple.from.set_port(tuple.from.port() + 1);
            let since = SystemTime::now();
            ground.client.send_frame_without_checksum(&frame(tuple), at)?;
            let arrived = |flow: &Flow| {
                let source = flow.raw().pointer("/l4/UDP/source_port").and_then(Value::as_u64);
                flow.verdict() == "FORWARDED" && source == Some(tuple.from.port().into())
            };
            ground.lab.node("b").flow(since, "of a checksum in its place", arrived)?;
        }
    }
    still_talks(&ground)
}

#[test]
#[ignore = "cargo xtask test lab"]
fn a_pod_spoofs_no_arp() -> Result<()> {
    let ground = Ground::new()?;
    let own = (ground.mac, ground.v4());
    let stolen = Ipv4Addr::new(10, 240, 0, 99);
    let gateway = Ipv4Addr::new(169, 254, 1, 1);
    let ask = |sender| frame::arp(1, sender, ([0; 6], gateway));
    for (what, from, message, reason) in [
        ("a request with another's address", ground.mac, ask((ground.mac, stolen)), "INVALID_SOURCE_IP"),
        ("a request with another's MAC in it", ground.mac, ask((OTHER_MAC, own.1)), "INVALID_SOURCE_MAC"),
        ("a request in another's frame", OTHER_MAC, ask(own), "INVALID_SOURCE_MAC"),
        (
            "an answer that claims another's address",
            ground.mac,
            frame::arp(2, (ground.mac, stolen), (ground.gateway_mac, gateway)),
            "INVALID_SOURCE_IP",
        ),
        (
            "an answer that claims the gateway's address",
            ground.mac,
            frame::arp(2, (ground.mac, gateway), (ground.gateway_mac, gateway)),
            "INVALID_SOURCE_IP",
        ),
    ] {
        let frame = frame::frame(from, [0xff; 6], ether_type::ARP, &message);
        must_drop(&ground, what, &frame, Hubble(reason))?;
    }
    // Its own address it may ask with: the pod's kernel does, and is answered.
    ground.client.netns().ip(&format!("neigh del {gateway} dev eth0"))?;
    ground.client.ping(ground.server.address(Family::V4))?;
    let neighbours = ground.client.netns().ip_output(&["neigh", "show", &gateway.to_string()])?;
    assert!(neighbours.contains(&pod::text_of(ground.gateway_mac)), "{neighbours}");
    still_talks(&ground)
}

#[test]
#[ignore = "cargo xtask test lab"]
fn a_pod_sends_no_tagged_frame_and_no_strange_protocol() -> Result<()> {
    let ground = Ground::new()?;
    for family in Family::BOTH {
        let plain = ground.frame(family, &ground.datagram(ground.tuple(family)));
        for tag in [ether_type::VLAN, ether_type::QINQ] {
            let tagged = frame::tagged(&plain, tag, 5);
            must_drop(&ground, &format!("tag {tag:#x} {family:?}"), &tagged, Hubble("VLAN_FILTERED"))?;
        }
    }
    let lldp = frame::frame(ground.mac, ground.gateway_mac, ether_type::LLDP, &[0; 46]);
    must_drop(&ground, "LLDP", &lldp, Hubble("UNSUPPORTED_L3_PROTOCOL"))?;
    still_talks(&ground)
}

#[test]
#[ignore = "cargo xtask test lab"]
fn a_pod_leads_no_neighbour_astray() -> Result<()> {
    let ground = Ground::new()?;
    let own = ground.client.address(Family::V6);
    let (all_nodes, server) = ("ff02::1".parse()?, ground.server.address(Family::V6));
    let forbidden = Hubble("FORBIDDEN_ICMPV6_MESSAGE");
    // RFC 4861 §4: type, then the body behind type, code and checksum.
    let advertisement = [&[64u8, 0, 0x07, 0x08][..], &[0; 8]].concat();
    let target = |address: IpAddr| match address {
        IpAddr::V6(address) => [&[0x20u8, 0, 0, 0][..], &address.octets()].concat(),
        IpAddr::V4(_) => Vec::new(),
    };
    let redirect = [target(own), target(server)[4..].to_vec()].concat();
    for (what, kind, to, hop_limit, body) in [
        ("a router advertisement", 134, all_nodes, 255, advertisement),
        ("a redirect", 137, server, 255, redirect),
        ("an advertisement of another's address", 136, all_nodes, 255, target(server)),
        ("an advertisement of the gateway", 136, all_nodes, 255, target("fe80::1".parse()?)),
        ("a solicitation from beyond the link", 135, all_nodes, 64, target("fe80::1".parse()?)),
        ("a solicitation to another pod", 135, server, 255, target(server)),
    ] {
        let packet = raw::icmpv6(own, to, kind, hop_limit, &body);
        must_drop(&ground, what, &ground.frame(Family::V6, &packet), forbidden)?;
    }
    still_talks(&ground)
}

#[test]
#[ignore = "cargo xtask test lab"]
fn a_pod_talks_to_no_group_and_joins_none() -> Result<()> {
    let ground = Ground::new()?;
    for (to, reason) in [
        ("224.0.0.251", "multicast destination"),
        ("239.1.2.3", "multicast destination"),
        ("255.255.255.255", "broadcast destination"),
        ("127.0.0.1", "link-local destination"),
        ("ff02::fb", "multicast destination"),
        ("ff0e::1", "multicast destination"),
        ("fe80::5", "link-local destination"),
        ("::1", "link-local destination"),
    ] {
        let to: IpAddr = to.parse()?;
        let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
        let tuple = Tuple { to: (to, pod::UDP).into(), ..ground.tuple(family) };
        let what = format!("a datagram to {to}");
        must_drop(&ground, &what, &ground.frame(family, &ground.datagram(tuple)), Own(reason))?;
    }
    let group: IpAddr = "224.0.0.22".parse()?;
    let igmp = raw::packet(ground.v4().into(), group, protocol::IGMP, &[0x22, 0, 0xf9, 0x02, 0, 0, 0, 1]);
    must_drop(&ground, "an IGMP report", &ground.frame(Family::V4, &igmp), Hubble("IGMP_HANDLED"))?;
    let own = ground.client.address(Family::V6);
    for (what, kind) in [("an MLD report", 131), ("an MLDv2 report", 143)] {
        let mld = raw::icmpv6(own, "ff02::16".parse()?, kind, 1, &[0; 20]);
        must_drop(&ground, what, &ground.frame(Family::V6, &mld), Hubble("MULTICAST_HANDLED"))?;
    }
    still_talks(&ground)
}

#[test]
#[ignore = "cargo xtask test lab"]
fn a_pod_serves_and_asks_no_dhcp() -> Result<()> {
    let ground = Ground::new()?;
    for (family, from, to) in [(Family::V4, 68, 67), (Family::V6, 546, 547)] {
        let mut tuple = ground.tuple(family);
        tuple.from.set_port(from);
        tuple.to.set_port(to);
        let packet = ground.frame(family, &ground.datagram(tuple));
        must_drop(&ground, &format!("DHCP {family:?}"), &packet, Own("DHCP from a pod"))?;
    }
    still_talks(&ground)
}

#[test]
#[ignore = "cargo xtask test lab"]
fn a_pod_sends_no_packet_that_contradicts_itself() -> Result<()> {
    let ground = Ground::new()?;
    let (v4, v6) = (IpAddr::from(ground.v4()), ground.client.address(Family::V6));
    let servers = Family::BOTH.map(|family| ground.server.address(family));
    let mapped: Ipv6Addr = Ipv4Addr::new(10, 240, 1, 1).to_ipv6_mapped();
    let echo = [8, 0, 0xf7, 0xff, 0, 0, 0, 0];
    for (what, family, packet, reason) in [
        (
            "ICMPv6 in IPv4",
            Family::V4,
            raw::packet(v4, servers[0], protocol::ICMPV6, &echo),
            "ICMP of the other IP version",
        ),
        (
            "ICMP in IPv6",
            Family::V6,
            raw::packet(v6, servers[1], protocol::ICMP, &echo),
            "ICMP of the other IP version",
        ),
        (
            "a mapped source",
            Family::V6,
            ground.datagram(Tuple { from: (mapped, 4000).into(), ..ground.tuple(Family::V6) }),
            "IPv4-mapped IPv6 address",
        ),
        (
            "a mapped destination",
            Family::V6,
            ground.datagram(Tuple { to: (mapped, pod::UDP).into(), ..ground.tuple(Family::V6) }),
            "IPv4-mapped IPv6 address",
        ),
    ] {
        must_drop(&ground, what, &ground.frame(family, &packet), Own(reason))?;
    }
    for family in Family::BOTH {
        for (what, flags) in [("no flag", 0), ("SYN and FIN", flag::SYN | flag::FIN)] {
            let packet = raw::tcp(ground.tuple(family), flags, 1, 0, b"");
            let what = format!("TCP with {what} {family:?}");
            must_drop(&ground, &what, &ground.frame(family, &packet), Own("invalid TCP flags"))?;
        }
        let tuple = ground.tuple(family);
        let part = raw::Fragment { id: 9, offset: 8, more: false };
        let packet = raw::fragment(tuple.from.ip(), tuple.to.ip(), protocol::TCP, &[0; 24], Some(part));
        let what = format!("a TCP fragment over the header {family:?}");
        must_drop(&ground, &what, &ground.frame(family, &packet), Own("tiny or overlapping fragment"))?;
    }
    still_talks(&ground)
}
