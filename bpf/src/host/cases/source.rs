//! What a pod may send: datapath.md 26.

use core::net::{IpAddr, Ipv6Addr};
use std::vec;
use std::vec::Vec;

use super::cases;
use super::talk::{icmp, talk};
use crate::drop::DropReason;
use crate::host::world::{
    API, Family, Hook, OTHER_NODE, REMOTE, REMOTE_IDENTITY, Sent, UNDERLAY, WEB, WORLD, World,
};
use crate::host::{Build, Case, Counts, Expected, Transport, arp};
use crate::parse::tcp;

const GATEWAY: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// The link-local address that belongs to WEB's MAC (RFC 4291, appendix A): 0a:00:00:00:01:01 with its bit flipped.
const OWN_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x0800, 0x00ff, 0xfe00, 0x0101);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// Whom a solicitation for the gateway goes to (RFC 4291 §2.7.1).
const SOLICITED: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 1);

macro_rules! drops {
    ($number:literal) => {
        const { &[(concat!("drop ", $number), 1i64), ("dropped", 1)] }
    };
}

/// A message of neighbour discovery from WEB with a target.
fn discovery(from: Ipv6Addr, to: Ipv6Addr, icmp_type: u8, target: Ipv6Addr) -> Build {
    icmp(from.into(), to.into(), icmp_type, 0, [0; 4]).payload(target.octets()).hop_limit(255)
}

/// WEB, whose only family is IPv6 for these.
fn send(case: Case, packet: Build, expected: impl Into<Expected>, counts: Counts) -> Case {
    case.packet(Sent::from_pod(&WEB, packet), expected, counts)
}

cases! {
    /// 26: only its own MAC.
    fn dp26_source_mac(f) {
        let packet = talk(f, WEB.place, API.place).udp().macs(WEB.host_mac, API.mac);
        Case::new(World::open())
            .packet(Sent::raw(Hook::FromPod, WEB.ifindex, packet.bytes()), DropReason::InvalidSourceMac, drops!("130"))
    }

    /// 26: only its own address; neither another pod's nor the world's.
    fn dp26_source_address(f) {
        let counts = drops!("132");
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, talk(f, API.place, REMOTE).udp()), DropReason::InvalidSourceIp, counts)
            .packet(Sent::from_pod(&WEB, talk(f, WORLD, API.place).udp()), DropReason::InvalidSourceIp, counts)
    }

    /// 26: a pod without an address of the family has none that it could send from.
    fn dp26_no_address_of_the_family(f) {
        let mut world = World::open();
        let mut entry = crate::host::world::endpoint_of(&WEB);
        match f {
            Family::V4 => entry.v4 = crate::abi::Address::NONE,
            Family::V6 => entry.v6 = crate::abi::Address::NONE,
        }
        world.maps.interfaces.insert(WEB.ifindex, entry);
        Case::new(world).packet(Sent::from_pod(&WEB, talk(f, WEB.place, API.place).udp()),
            DropReason::InvalidSourceIp, drops!("132"))
    }

    /// 26: ARP likewise: own MAC and address, or none for a probe; the host answers.
    fn dp26_arp(_f) {
        let gateway = ([0; 6], [169, 254, 1, 1]);
        let own = (WEB.mac, WEB.place.v4.octets());
        let raw = |bytes| Sent::raw(Hook::FromPod, WEB.ifindex, bytes);
        Case::new(World::open())
            .packet(raw(arp(1, own, gateway, WEB.mac)), Expected::Stack, &[])
            .packet(raw(arp(2, own, (WEB.host_mac, [169, 254, 1, 1]), WEB.mac)), Expected::Stack, &[])
            .packet(raw(arp(1, (WEB.mac, [0; 4]), own, WEB.mac)), Expected::Stack, &[])
            .packet(raw(arp(1, (WEB.mac, API.place.v4.octets()), gateway, WEB.mac)),
                DropReason::InvalidSourceIp, drops!("132"))
            .packet(raw(arp(2, (API.mac, own.1), gateway, WEB.mac)), DropReason::InvalidSourceMac, drops!("130"))
            .packet(raw(arp(1, own, gateway, API.mac)), DropReason::InvalidSourceMac, drops!("130"))
            .packet(raw(arp(1, own, gateway, WEB.mac)[..40].to_vec()), DropReason::Truncated, drops!("135"))
    }

    /// 26: solicitations and advertisements with hop limit 255, from the pod's own address, its own link-local one or
    /// none, go to the host; nothing is judged.
    fn dp26_neighbour_discovery(_f) {
        let own = WEB.place.v6;
        let mut case = Case::new(World::open());
        for from in [own, OWN_LINK_LOCAL, Ipv6Addr::UNSPECIFIED] {
            case = send(case, discovery(from, SOLICITED, 135, GATEWAY), Expected::Stack, &[]);
            case = send(case, discovery(from, ALL_ROUTERS, 133, GATEWAY), Expected::Stack, &[]);
        }
        case = send(case, discovery(own, GATEWAY, 136, own), Expected::Stack, &[]);
        send(case, discovery(OWN_LINK_LOCAL, GATEWAY, 136, OWN_LINK_LOCAL), Expected::Stack, &[])
    }

    /// 26: with another hop limit, or from or about somebody else, they drop.
    fn dp26_forged_neighbour_discovery(_f) {
        let own = WEB.place.v6;
        let counts = drops!("176");
        let reason = DropReason::ForbiddenIcmpv6;
        let mut case = Case::new(World::open());
        case = send(case, discovery(own, SOLICITED, 135, GATEWAY).hop_limit(254), reason, counts);
        for from in [API.place.v6, GATEWAY, Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x99)] {
            case = send(case, discovery(from, SOLICITED, 135, GATEWAY), reason, counts);
        }
        for target in [API.place.v6, GATEWAY] {
            case = send(case, discovery(own, GATEWAY, 136, target), reason, counts);
        }
        case
    }

    /// 26: and they stay on the link: towards anybody else a solicitation would pass unjudged through the stack.
    fn dp26_neighbour_discovery_stays_on_the_link(_f) {
        let own = WEB.place.v6;
        let mut case = Case::new(World::open());
        for to in [API.place.v6, REMOTE.v6, WORLD.v6] {
            for icmp_type in [133, 135, 136] {
                case = send(case, discovery(own, to, icmp_type, own), DropReason::ForbiddenIcmpv6, drops!("176"));
            }
        }
        case
    }

    /// 26: router advertisements and redirects drop.
    fn dp26_router_advertisement_and_redirect(_f) {
        let own = WEB.place.v6;
        let mut case = Case::new(World::open());
        for icmp_type in [134, 137] {
            case = send(case, discovery(own, GATEWAY, icmp_type, own), DropReason::ForbiddenIcmpv6, drops!("176"));
        }
        case
    }

    /// Policy 10: the host's own discovery and group membership on the pair pass to the pod unjudged; what only looks like
    /// it and came in by a device does not.
    fn dp26_discovery_of_the_host(_f) {
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
        let solicitation = discovery(GATEWAY, WEB.place.v6, 135, WEB.place.v6);
        let advertisement = discovery(GATEWAY, WEB.place.v6, 136, GATEWAY);
        let report = discovery(GATEWAY, group, 143, GATEWAY).hop_limit(1).extension(0, [0, 5, 2, 0, 0, 1, 0]);
        let mut world = World::open();
        world.default_deny(&WEB, crate::abi::policy::direction::INGRESS, 70);
        Case::new(world)
            .packet(Sent::to_pod(&WEB, 0, solicitation.clone()), Expected::Stack, &[])
            .packet(Sent::to_pod(&WEB, 0, advertisement), Expected::Stack, &[])
            .packet(Sent::to_pod(&WEB, 0, report.clone()), Expected::Stack, &[])
            .packet(Sent::to_pod(&WEB, UNDERLAY, report), DropReason::UnknownDestination, drops!("1001"))
            .packet(Sent::to_pod(&WEB, 0, solicitation.clone().hop_limit(254)), DropReason::PolicyDenied,
                &[("rule 70", 1), ("drop 133", 1), ("dropped", 1)])
            .packet(Sent::to_pod(&WEB, UNDERLAY, solicitation), DropReason::PolicyDenied,
                &[("rule 70", 1), ("drop 133", 1), ("dropped", 1)])
    }

    /// 26: group membership is absorbed.
    fn dp26_group_membership(f) {
        let case = Case::new(World::open());
        match f {
            Family::V4 => {
                let group = IpAddr::from([224, 0, 0, 22]);
                let packet = Build::new(WEB.place.ip(f), group, Transport::Raw(2)).payload([0x22, 0, 0, 0, 0, 0, 0, 0]);
                send(case, packet, DropReason::Igmp, drops!("199"))
            }
            Family::V6 => {
                let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
                let mut case = case;
                for icmp_type in [130, 131, 132, 143] {
                    // Hop-by-hop options with the router alert (RFC 2711).
                    let packet = discovery(OWN_LINK_LOCAL, group, icmp_type, GATEWAY).hop_limit(1)
                        .extension(0, [0, 5, 2, 0, 0, 1, 0]);
                    case = send(case, packet, DropReason::Multicast, drops!("201"));
                }
                case
            }
        }
    }

    /// 26: multicast, broadcast and other link-local destinations drop, each with its own reason.
    fn dp26_destinations(f) {
        let own = WEB.place.ip(f);
        let to = |destination: IpAddr| {
            Build::new(own, destination, Transport::Udp { source: 5353, destination: 5353 })
        };
        let case = Case::new(World::open());
        match f {
            Family::V4 => {
                let case = send(case, to([224, 0, 0, 251].into()), DropReason::MulticastDestination, drops!("1003"));
                send(case, to([255; 4].into()), DropReason::BroadcastDestination, drops!("1004"))
            }
            Family::V6 => {
                let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
                let case = send(case, to(group.into()), DropReason::MulticastDestination, drops!("1003"));
                let stranger = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x99);
                send(case, to(stranger.into()), DropReason::LinkLocalDestination, drops!("1005"))
            }
        }
    }

    /// 26: nobody's loopback is reached through a pair of interfaces, whatever `route_localnet` says (CVE-2020-8558).
    fn dp26_loopback_destination(f) {
        let loopback: IpAddr = match f {
            Family::V4 => [127, 0, 0, 1].into(),
            Family::V6 => Ipv6Addr::LOCALHOST.into(),
        };
        let mut world = World::open();
        world.routes.insert(loopback.into(), crate::packet::Route::Local);
        let packet = Build::new(WEB.place.ip(f), loopback, Transport::Udp { source: 4000, destination: 10_255 });
        Case::new(world).packet(Sent::from_pod(&WEB, packet), DropReason::LinkLocalDestination, drops!("1005"))
    }

    /// 26: DHCP drops: addresses come from the agent.
    fn dp26_dhcp(f) {
        let (from, to, source, destination): (IpAddr, IpAddr, u16, u16) = match f {
            Family::V4 => ([0; 4].into(), [255; 4].into(), 68, 67),
            Family::V6 => {
                let servers = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
                (OWN_LINK_LOCAL.into(), servers.into(), 546, 547)
            }
        };
        let packet = Build::new(from, to, Transport::Udp { source, destination }).payload([1; 240]);
        send(Case::new(World::open()), packet, DropReason::Dhcp, drops!("1006"))
    }

    /// 26: VLAN-tagged frames drop: 802.1Q and 802.1ad in the bytes.
    fn dp26_vlan(f) {
        let mut case = Case::new(World::open());
        for kind in [0x8100, 0x88a8] {
            let packet = Build { tags: vec![(kind, 7)], ..talk(f, WEB.place, API.place).udp() };
            case = send(case, packet, DropReason::Vlan, drops!("182"));
        }
        case
    }

    /// 26: and with the tag beside the packet, where the device has taken it off; so none comes out of the tunnel either.
    fn dp26_vlan_taken_off(f) host only "a test run of the kernel has no tag beside the packet" {
        let mut sent = Sent::from_pod(&WEB, talk(f, WEB.place, API.place).udp());
        sent.packet.vlan_tagged = true;
        let other_node = OTHER_NODE.ip(Family::V4);
        let mut inside = Sent::from_overlay(other_node, REMOTE_IDENTITY, talk(f, REMOTE, API.place).udp());
        inside.packet.vlan_tagged = true;
        Case::new(World::overlay())
            .packet(sent, DropReason::Vlan, drops!("182"))
            .packet(inside, DropReason::Vlan, drops!("182"))
    }

    /// 26: a checksum that is still to be filled in goes into its own place or into the payload, nowhere else; neither
    /// where ICMP quotes what is judged, nor into a part of a datagram.
    fn dp26_pending_checksum(f) host only "a test run of the kernel has no checksum to be filled in" {
        let t = talk(f, WEB.place, API.place);
        let transport = if f == Family::V4 { 34 } else { 54 };
        let pending = |packet: Build, at: u32| {
            let mut sent = Sent::from_pod(&WEB, packet);
            sent.packet.pending_checksum = Some(at);
            sent
        };
        let refused = |case: Case, packet: &Build, at: u32| {
            case.packet(pending(packet.clone(), at), DropReason::MisplacedChecksum, drops!("1018"))
        };
        let echo = t.echo(7);
        let mut case = Case::new(World::open())
            .packet(pending(t.udp(), transport + 6), Expected::Pod(&API),
                &[("rule 0", 2), ("new", 1), ("any", 1), ("packets", 1)])
            .packet(pending(t.udp(), transport + 8 + 40), Expected::Pod(&API), &[("packets", 1)])
            .packet(pending(t.out(tcp::SYN), transport + 16), Expected::Pod(&API),
                &[("rule 0", 2), ("new", 1), ("opening", 1), ("packets", 1)])
            .packet(pending(echo.clone(), transport + 2), Expected::Pod(&API),
                &[("rule 0", 2), ("new", 1), ("any", 1), ("packets", 1)]);
        // Addresses, the header before the transport's, ports, flags; what would be before the packet.
        for at in [0, 26, 28, 30, 32, transport - 2, transport - 1, transport, transport + 2, transport + 4, u32::MAX] {
            case = refused(case, &t.udp(), at);
            case = refused(case, &t.out(tcp::SYN), at);
        }
        for at in [transport + 7, transport + 0x1_0000] {
            case = refused(case, &t.udp(), at);
        }
        for at in [transport + 6, transport + 12, transport + 15] {
            case = refused(case, &t.out(tcp::SYN), at);
        }
        for at in [transport, transport + 8, transport + 20] {
            case = refused(case, &echo, at);
        }
        case
    }

    /// 26: IPv6 packets with a v4-mapped address drop, as source and as destination.
    fn dp26_mapped_addresses(_f) {
        let mapped = |v4: core::net::Ipv4Addr| IpAddr::V6(v4.to_ipv6_mapped());
        let udp = Transport::Udp { source: 1000, destination: 53 };
        let to = Build::new(WEB.place.v6.into(), mapped(API.place.v4), udp.clone());
        let from = Build::new(mapped(WEB.place.v4), API.place.v6.into(), udp);
        let case = send(Case::new(World::open()), to, DropReason::MappedAddress, drops!("1007"));
        send(case, from, DropReason::MappedAddress, drops!("1007"))
    }

    /// 26: ICMP in IPv6 and ICMPv6 in IPv4 drop.
    fn dp26_icmp_of_the_other_family(f) {
        let icmp_type = if f == Family::V4 { 128 } else { 8 };
        let transport = Transport::Icmp { icmp_type, code: 0, rest: [0, 7, 0, 1], other_family: true };
        let packet = Build::new(WEB.place.ip(f), API.place.ip(f), transport);
        send(Case::new(World::open()), packet, DropReason::WrongIcmpFamily, drops!("1008"))
    }

    /// 26: TCP without flags and SYN with FIN drop.
    fn dp26_tcp_flags(f) {
        let t = talk(f, WEB.place, API.place);
        let mut case = Case::new(World::open());
        for flags in [0, 0xc0, tcp::SYN | tcp::FIN, tcp::SYN | tcp::FIN | tcp::ACK] {
            case = send(case, t.out(flags), DropReason::InvalidTcpFlags, drops!("1002"));
        }
        case
    }

    /// Protocols that policy has no words for drop.
    fn dp26_unknown_protocols(f) {
        let mut case = Case::new(World::open());
        for number in [47, 50, 59, 253] {
            let packet = Build::new(WEB.place.ip(f), API.place.ip(f), Transport::Raw(number)).payload([0; 16]);
            case = send(case, packet, DropReason::UnknownL4, drops!("142"));
        }
        case
    }

    /// Link protocols that are neither IP nor ARP drop.
    fn dp26_unknown_link_protocols(f) {
        let mut bytes: Vec<u8> = talk(f, WEB.place, API.place).udp().macs(WEB.host_mac, WEB.mac).bytes();
        bytes[12..14].copy_from_slice(&0x88ccu16.to_be_bytes());
        Case::new(World::open())
            .packet(Sent::raw(Hook::FromPod, WEB.ifindex, bytes), DropReason::UnsupportedL3, drops!("139"))
    }

    /// Up to four IPv6 extension headers are followed; more, and a routing header that is not done, drop: policy would be
    /// asked about an address that is not the last one.
    fn dp26_extension_headers(_f) {
        let t = talk(Family::V6, WEB.place, API.place);
        let options = [0, 1, 4, 0, 0, 0, 0];
        let mut packet = t.udp();
        let mut case = Case::new(World::open());
        for count in 1..=4 {
            packet = packet.extension(60, options);
            let counts: Counts = if count == 1 {
                &[("rule 0", 2), ("new", 1), ("any", 1), ("packets", 1)]
            } else {
                &[("packets", 1)]
            };
            case = send(case, packet.clone(), Expected::Pod(&API), counts);
        }
        case = send(case, packet.extension(60, options), DropReason::InvalidExtensionHeader, drops!("156"));
        // Length 2 in units of 8 bytes, type 2, one segment left: the next address is inside.
        let mut routing = vec![2, 2, 1, 0, 0, 0, 0];
        routing.extend(REMOTE.v6.octets());
        case = send(case, t.udp().extension(43, routing.clone()), DropReason::InvalidExtensionHeader, drops!("156"));
        routing[2] = 0;
        send(case, t.udp().extension(43, routing), Expected::Pod(&API), &[("packets", 1)])
    }

    /// 26: of IPv4 source routes drop, loose and strict, wherever they stand; so do options that can't be followed up to
    /// their end. Others pass.
    fn dp26_source_routes(_f) {
        let t = talk(Family::V4, WEB.place, API.place);
        let [a, b, c, d] = REMOTE.v4.octets();
        let mut case = Case::new(World::open());
        for kind in [131, 137] {
            let route = [kind, 7, 4, a, b, c, d, 0];
            case = send(case, t.udp().options(route), DropReason::SourceRoute, drops!("1017"));
            let behind = [&[1, 7, 7, 4, 0, 0, 0, 0][..], &route].concat();
            case = send(case, t.udp().options(behind), DropReason::SourceRoute, drops!("1017"));
        }
        for endless in [vec![7, 1, 0, 0], vec![7, 0, 0, 0], vec![1; 12]] {
            case = send(case, t.udp().options(endless), DropReason::SourceRoute, drops!("1017"));
        }
        // Record route (7), the router alert (148, RFC 2113), padding; what stands behind the end is no option.
        case = send(case, t.udp().options([148, 4, 0, 0]), Expected::Pod(&API),
            &[("rule 0", 2), ("new", 1), ("any", 1), ("packets", 1)]);
        for options in [vec![7, 7, 4, 0, 0, 0, 0, 1], vec![1; 8], vec![0, 131, 3, 4]] {
            case = send(case, t.udp().options(options), Expected::Pod(&API), &[("packets", 1)]);
        }
        case
    }

    /// A frame that ends before its headers do drops, wherever it is cut.
    fn dp26_truncated(f) {
        let bytes = talk(f, WEB.place, API.place).out(tcp::SYN).macs(WEB.host_mac, WEB.mac).bytes();
        let network = if f == Family::V4 { 34 } else { 54 };
        let mut case = Case::new(World::open());
        for length in [14, 20, network - 1] {
            let sent = Sent::raw(Hook::FromPod, WEB.ifindex, bytes[..length].to_vec());
            case = case.packet(sent, DropReason::Truncated, drops!("135"));
        }
        // From here on the network header says how much there should be.
        for length in [network, network + 8, bytes.len() - 1] {
            let sent = Sent::raw(Hook::FromPod, WEB.ifindex, bytes[..length].to_vec());
            case = case.packet(sent, DropReason::InvalidPacket, drops!("134"));
        }
        case
    }

    /// Nothing is known of the interface: nothing passes.
    fn dp17_unknown_interface(f) {
        let sent = Sent::raw(Hook::FromPod, UNDERLAY, talk(f, WEB.place, OTHER_NODE).udp().bytes());
        Case::new(World::open()).packet(sent, DropReason::EndpointNotReady, drops!("203"))
    }
}
