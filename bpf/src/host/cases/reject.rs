//! Answers to refused egress: datapath.md 29. What is expected is built from RFC 9293 §3.10.7.1, RFC 792 and RFC 4443.

use core::net::IpAddr;
use std::vec;
use std::vec::Vec;

use super::cases;
use super::talk::{DATA, opened, talk, unreachable};
use crate::abi::policy::direction::{EGRESS, INGRESS};
use crate::drop::DropReason;
use crate::host::build::checksum;
use crate::host::world::{API, Family, REMOTE, SECOND, Sent, WEB, WORLD, World};
use crate::host::{Build, Case, Counts, Transport};
use crate::parse::tcp;

/// What a refused first packet counts, answered or not.
const REFUSED: Counts = &[("rule 80", 1), ("drop 133", 1), ("dropped", 1)];

/// A node that answers, and WEB with nobody that it may send to.
fn closed() -> World {
    let mut world = World::open();
    world.settings.reject = 1;
    world.default_deny(&WEB, EGRESS, 80);
    world
}

/// A frame to WEB from whom WEB wrote to: hop limit 64; in IPv4 with "don't fragment" and without identification.
fn answer(packet: Build) -> Vec<u8> {
    let mut frame = packet.macs(WEB.mac, WEB.host_mac).bytes();
    if frame[12] == 0x08 {
        frame[18..22].copy_from_slice(&[0, 0, 0x40, 0]);
        frame[24..26].fill(0);
        let sum = checksum(&[&frame[14..34]]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    frame
}

/// An RST with its numbers and nothing else: no window, no options.
fn reset(from: IpAddr, ports: (u16, u16), sequence: u32, acknowledgement: u32, flags: u8) -> Vec<u8> {
    let to = WEB.place.ip(if from.is_ipv4() { Family::V4 } else { Family::V6 });
    let mut header = Vec::new();
    header.extend(ports.0.to_be_bytes());
    header.extend(ports.1.to_be_bytes());
    header.extend(sequence.to_be_bytes());
    header.extend(acknowledgement.to_be_bytes());
    header.extend([5 << 4, flags, 0, 0, 0, 0, 0, 0]);
    let octets = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let sum = checksum(&[&octets(from), &octets(to), &[0, 0, 0, 20, 0, 0, 0, 6], &header]);
    header[16..18].copy_from_slice(&sum.to_be_bytes());
    answer(Build::new(from, to, Transport::Raw(6)).payload(header))
}

/// "Administratively prohibited", which quotes the headers of what it is about and 8 bytes behind them.
fn prohibited(from: IpAddr, about: &Build) -> Vec<u8> {
    let part = if about.part.is_some() { 8 } else { 0 };
    let extensions: usize = about.extensions.iter().map(|(_, content)| content.len() + 1).sum();
    let (icmp_type, code, quoted) = match from {
        IpAddr::V4(_) => (3, 13, 20 + about.options.len() + 8),
        IpAddr::V6(_) => (1, 1, 40 + extensions + part + 8),
    };
    let transport = Transport::Icmp { icmp_type, code, rest: [0; 4], other_family: false };
    answer(Build::new(from, about.source, transport).payload(&about.network()[..quoted]))
}

cases! {
    /// 29: a SYN gets an RST that acknowledges it, data included; the sequence numbers of our packets begin at 1.
    fn dp29_syn(f) {
        let t = talk(f, WEB.place, WORLD);
        let from = WORLD.ip(f);
        let with_data = t.out(tcp::SYN).payload(*b"early");
        Case::new(closed())
            .answered(Sent::from_pod(&WEB, t.out(tcp::SYN)), reset(from, (80, 40_000), 0, 2, tcp::RST | tcp::ACK),
                DropReason::PolicyDenied, REFUSED)
            .answered(Sent::from_pod(&WEB, with_data), reset(from, (80, 40_000), 0, 7, tcp::RST | tcp::ACK),
                DropReason::PolicyDenied, REFUSED)
    }

    /// 29: a segment with ACK gets an RST with that as its sequence number, and no acknowledgement.
    fn dp29_segment_with_ack(f) {
        let t = talk(f, WEB.place, REMOTE);
        Case::new(closed()).answered(Sent::from_pod(&WEB, t.out(DATA)),
            reset(REMOTE.ip(f), (80, 40_000), 1, 0, tcp::RST), DropReason::PolicyDenied, REFUSED)
    }

    /// 29: everything else gets "administratively prohibited".
    fn dp29_datagram(f) {
        let t = talk(f, WEB.place, WORLD);
        let mut case = Case::new(closed());
        for packet in [t.udp(), t.sctp(), t.echo(7)] {
            case = case.answered(Sent::from_pod(&WEB, packet.clone()), prohibited(WORLD.ip(f), &packet),
                DropReason::PolicyDenied, REFUSED);
        }
        case
    }

    /// 29: by the 8 bytes behind options and extensions the sender finds its socket: an IPv4 header may have 40 bytes of
    /// options, here 4, 12 and 40 that record the route; IPv6 hop-by-hop options here 8 and 64 bytes of padding.
    fn dp29_options(f) {
        let t = talk(f, WEB.place, WORLD);
        let plain = t.udp().payload([7; 100]);
        let padding = |bytes: usize| {
            let mut content = vec![(bytes / 8 - 1) as u8, 1, (bytes - 4) as u8];
            content.resize(bytes - 1, 0);
            plain.clone().extension(0, content)
        };
        let recorded = |bytes: usize| {
            let mut content = vec![7, bytes as u8 - 1, 4];
            content.resize(bytes - 1, 0);
            content.push(1);
            plain.clone().options(content)
        };
        let packets = match f {
            Family::V4 => [4, 12, 40].map(recorded).to_vec(),
            Family::V6 => vec![padding(8), padding(64)],
        };
        let case = packets.into_iter().fold(Case::new(closed()), |case, packet| {
            let answer = prohibited(WORLD.ip(f), &packet);
            case.answered(Sent::from_pod(&WEB, packet), answer, DropReason::PolicyDenied, REFUSED)
        });
        match f {
            Family::V4 => case,
            Family::V6 => case.packet(Sent::from_pod(&WEB, padding(72)), DropReason::PolicyDenied, REFUSED),
        }
    }

    /// 29: a connection that is cut is answered too, with each packet that meets its tombstone.
    fn dp29_tombstone(f) {
        let t = talk(f, WEB.place, API.place);
        let mut world = World::open();
        world.settings.reject = 1;
        let answer = reset(API.place.ip(f), (80, 40_000), 1, 0, tcp::RST);
        opened(Case::new(world), &t, &WEB, &API)
            .change(|world| world.deny(&WEB, EGRESS, API.identity, None, 85))
            .answered(Sent::from_pod(&WEB, t.out(DATA)), answer.clone(), DropReason::DeniedByRule,
                &[("rule 85", 1), ("drop 181", 1), ("dropped", 1), ("tombstones", 1)])
            .answered(Sent::from_pod(&WEB, t.out(DATA)), answer, DropReason::DeniedByRule,
                &[("drop 181", 1), ("dropped", 1)])
    }

    /// 29: never for a GSO packet, an RST, an ICMP error or a later part of a datagram.
    fn dp29_never(f) {
        let t = talk(f, WEB.place, REMOTE);
        let burst = Sent::from_pod(&WEB, t.out(DATA).payload([1; 1600])).gso(2, 800);
        let mut part = t.udp().payload([1; 16]).part(0, true, 9);
        let first = prohibited(REMOTE.ip(f), &part);
        let case = Case::new(closed())
            .packet(burst, DropReason::PolicyDenied, REFUSED)
            .packet(Sent::from_pod(&WEB, t.out(tcp::RST)), DropReason::PolicyDenied, REFUSED)
            .packet(Sent::from_pod(&WEB, unreachable(WEB.place.ip(f), REMOTE.ip(f), &t.udp_back())),
                DropReason::UnrelatedIcmpError, &[("drop 1010", 1), ("dropped", 1)])
            .answered(Sent::from_pod(&WEB, part.clone()), first, DropReason::PolicyDenied,
                &[("rule 80", 1), ("drop 133", 1), ("dropped", 1), ("fragments", 1)]);
        part = part.part(3, false, 9);
        case.packet(Sent::from_pod(&WEB, part), DropReason::PolicyDenied, REFUSED)
    }

    /// 29: egress alone is answered: of a refused ingress its sender learns nothing, nor of a malformed packet.
    fn dp29_egress_alone(f) {
        let t = talk(f, WEB.place, API.place);
        let mut world = World::open();
        world.settings.reject = 1;
        world.default_deny(&API, INGRESS, 90);
        Case::new(world)
            .packet(Sent::from_pod(&WEB, t.out(tcp::SYN)), DropReason::PolicyDenied,
                &[("rule 0", 1), ("rule 90", 1), ("drop 133", 1), ("dropped", 1)])
            .packet(Sent::from_net(talk(f, REMOTE, API.place).out(tcp::SYN)), DropReason::PolicyDenied,
                &[("rule 90", 1), ("drop 133", 1), ("dropped", 1)])
            .packet(Sent::from_pod(&WEB, t.out(tcp::SYN | tcp::FIN)), DropReason::InvalidTcpFlags,
                &[("drop 1002", 1), ("dropped", 1)])
    }

    /// 29: where the node says `drop`, nobody is answered.
    fn dp29_off(f) {
        let mut world = closed();
        world.settings.reject = 0;
        Case::new(world).packet(Sent::from_pod(&WEB, talk(f, WEB.place, WORLD).out(tcp::SYN)),
            DropReason::PolicyDenied, REFUSED)
    }

    /// 29: answers are rate-limited, and those made and withheld are counted.
    fn dp29_rate(f) host only "the kernel's clock goes on by itself" {
        let t = talk(f, WEB.place, WORLD);
        let answer = reset(WORLD.ip(f), (80, 40_000), 0, 2, tcp::RST | tcp::ACK);
        let syn = || Sent::from_pod(&WEB, t.out(tcp::SYN));
        let mut case = Case::new(closed());
        for _ in 0..100 {
            case = case.answered(syn(), answer.clone(), DropReason::PolicyDenied, REFUSED);
        }
        case.packet(syn(), DropReason::PolicyDenied, REFUSED)
            .look(|maps| {
                let answers = *maps.answers.borrow();
                assert_eq!((answers.made, answers.withheld), (100, 1));
            })
            .change(|world| world.now += SECOND)
            .answered(syn(), answer, DropReason::PolicyDenied, REFUSED)
    }
}
