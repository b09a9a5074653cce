//! Connections while policy stands still: datapath.md 6–8, 13, 15, 17.

use super::cases;
use super::talk::{DATA, FIN, HIGH, HTTP, SYN_ACK, opened, talk};
use crate::abi::conntrack::flag;
use crate::abi::endpoint::stamp;
use crate::abi::policy::direction::{EGRESS, INGRESS};
use crate::abi::{CtEntry, event};
use crate::conntrack::key_of;
use crate::drop::DropReason;
use crate::host::world::{API, Family, NODE, OTHER_NODE, REMOTE, SECOND, Sent, UNDERLAY, WEB, WORLD, World};
use crate::host::{Case, Counts, Expected, HostMaps};
use crate::parse::{Parsed, protocol, tcp};

/// The only connection there is.
fn only(maps: &HostMaps) -> CtEntry {
    let connections = maps.connections.borrow();
    assert_eq!(connections.len(), 1, "one connection: {connections:?}");
    connections.values().map(|entry| (**entry).clone()).next().unwrap_or_default()
}

cases! {
    /// 6: one entry serves both directions, and opens into the table of open connections.
    fn dp06_one_entry_for_both_directions(f) {
        opened(Case::new(World::open()), &talk(f, WEB.place, API.place), &WEB, &API).look(|maps| {
            let entry = only(maps);
            let mut packets = entry.halves.map(|half| half.packets.get());
            packets.sort_unstable();
            assert_eq!(packets, [2, 3], "the responder sent 2, the initiator 3");
        })
    }

    /// 6: the canonical key is the same from both directions, whichever end is the lower one.
    fn dp06_keys_are_canonical(f) {
        let t = talk(f, API.place, WEB.place);
        opened(Case::new(World::open()), &t, &API, &WEB).look(move |_| {
            let (low, high) = (WEB.place.ip(f).into(), API.place.ip(f).into());
            for (from, to) in [(low, high), (high, low), (low, low)] {
                for (source_port, destination_port) in [(1, 2), (2, 1), (7, 7)] {
                    let there = Parsed {
                        source: from, destination: to, source_port, destination_port,
                        protocol: protocol::TCP, ..Parsed::default()
                    };
                    let back = Parsed {
                        source: to, destination: from,
                        source_port: destination_port, destination_port: source_port, ..there
                    };
                    let ((key, end), (other_key, other_end)) = (key_of(&there), key_of(&back));
                    assert_eq!(key, other_key);
                    assert!(end != other_end || (from == to && source_port == destination_port));
                }
            }
        })
    }

    /// 6: an echo is keyed (identifier, 0), so that request and reply are one connection and another identifier another.
    fn dp06_echo_and_its_reply_are_one_connection(f) {
        let t = talk(f, WEB.place, API.place);
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, t.echo(7)), Expected::Pod(&API),
                &[("rule 0", 2), ("new", 1), ("any", 1), ("packets", 1)])
            .packet(Sent::from_pod(&API, t.echo_reply(7)), Expected::Pod(&WEB), &[("flags", 1), ("packets", 1)])
            .packet(Sent::from_pod(&WEB, t.echo(8)), Expected::Pod(&API),
                &[("rule 0", 2), ("new", 1), ("any", 1), ("packets", 1)])
    }

    /// 6: also with identifier 0, where whoever was asked does not ask back in its answer's name.
    fn dp06_echo_with_identifier_zero(f) {
        let (t, back) = (talk(f, WEB.place, API.place), talk(f, API.place, WEB.place));
        let mut world = World::open();
        world.default_deny(&API, EGRESS, 90);
        Case::new(world)
            .packet(Sent::from_pod(&WEB, t.echo(0)), Expected::Pod(&API), &[("rule 0", 2), ("new", 1), ("any", 1), ("packets", 1)])
            .packet(Sent::from_pod(&API, back.echo(0)), DropReason::PolicyDenied,
                &[("rule 90", 1), ("drop 133", 1), ("dropped", 1)])
            .packet(Sent::from_pod(&API, t.echo_reply(0)), Expected::Pod(&WEB), &[("flags", 1), ("packets", 1)])
    }

    /// 6: SCTP between pods, as UDP is, with ports.
    fn dp06_sctp_has_ports(f) {
        let t = talk(f, WEB.place, API.place);
        let mut world = World::open();
        world.default_deny(&API, INGRESS, 90);
        world.allow(&API, INGRESS, 0, Some((protocol::SCTP, Some(HTTP))), 91);
        Case::new(world)
            .packet(Sent::from_pod(&WEB, t.sctp()), Expected::Pod(&API),
                &[("rule 0", 1), ("rule 91", 1), ("new", 1), ("any", 1), ("packets", 1)])
            .packet(Sent::from_pod(&API, t.sctp_back()), Expected::Pod(&WEB), &[("flags", 1), ("packets", 1)])
            .packet(Sent::from_pod(&WEB, t.ports(HIGH, 81).sctp()), DropReason::PolicyDenied,
                &[("rule 0", 1), ("rule 90", 1), ("drop 133", 1), ("dropped", 1)])
    }

    /// 6: a GSO packet counts its segments, and its bytes once.
    fn dp06_gso_counts_segments(f) {
        let t = talk(f, WEB.place, API.place);
        let burst = t.out(DATA).payload([7; 2400]);
        opened(Case::new(World::open()), &t, &WEB, &API)
            .packet(Sent::from_pod(&WEB, burst).gso(3, 800), Expected::Pod(&API), &[("packets", 3)])
    }

    /// 6: `last` is written at most once a second.
    fn dp06_last_is_written_once_a_second(f) host only "the kernel's clock goes on by itself" {
        let t = talk(f, WEB.place, API.place);
        let start = World::open().now;
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, t.udp()), Expected::Pod(&API),
                &[("rule 0", 2), ("new", 1), ("any", 1), ("packets", 1)])
            .change(|world| world.now += SECOND / 2)
            .packet(Sent::from_pod(&WEB, t.udp()), Expected::Pod(&API), &[("packets", 1)])
            .look(move |maps| assert!(only(maps).halves.iter().any(|half| half.last.get() == start)))
            .change(|world| world.now += SECOND)
            .packet(Sent::from_pod(&WEB, t.udp()), Expected::Pod(&API), &[("packets", 1)])
            .look(move |maps| {
                assert!(only(maps).halves.iter().any(|half| half.last.get() == start + SECOND + SECOND / 2));
            })
    }

    /// 7: the stamp of a local end is its epoch, of any other end the generation.
    fn dp07_stamps_are_epoch_and_generation(f) {
        let t = talk(f, WEB.place, REMOTE);
        let next_hop = World::open().routes[&REMOTE.ip(f).into()];
        let crate::packet::Route::Forward { ifindex, next_hop } = next_hop else { panic!("a route") };
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, t.udp()), Expected::Forward(ifindex, next_hop),
                &[("rule 0", 1), ("new", 1), ("any", 1), ("packets", 1)])
            .look(|maps| {
                let mut stamps = only(maps).stamps;
                stamps.sort_unstable();
                assert_eq!(stamps, [stamp::of_generation(5), stamp::of_epoch(11)]);
            })
    }

    /// 8: an expired entry is absent, whatever lies in the table: datagrams after 120 s, echoes after 60 s.
    fn dp08_expired_entries_are_absent(f) {
        let t = talk(f, WEB.place, API.place);
        let new = &[("rule 0", 2), ("new", 1), ("any", 1), ("packets", 1)];
        let anew = &[("rule 0", 2), ("new", 1)];
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, t.udp()), Expected::Pod(&API), new)
            .age(119)
            .packet(Sent::from_pod(&WEB, t.udp()), Expected::Pod(&API), &[("packets", 1), ("alive", 1)])
            .age(122)
            // Two packets were counted; the entry begins again with one.
            .packet(Sent::from_pod(&WEB, t.udp()), Expected::Pod(&API),
                &[("rule 0", 2), ("new", 1), ("packets", -1)])
            .packet(Sent::from_pod(&WEB, t.echo(7)), Expected::Pod(&API), new)
            .age(62)
            .packet(Sent::from_pod(&WEB, t.echo(7)), Expected::Pod(&API), anew)
    }

    /// 8: of an expired connection its answer is absent too: the responder's packet is judged as its own.
    fn dp08_an_answer_after_the_end_is_no_reply(f) {
        let t = talk(f, WEB.place, API.place);
        let mut world = World::open();
        world.default_deny(&WEB, INGRESS, 70);
        Case::new(world)
            .packet(Sent::from_pod(&WEB, t.udp()), Expected::Pod(&API),
                &[("rule 0", 2), ("new", 1), ("any", 1), ("packets", 1)])
            .age(10)
            .packet(Sent::from_pod(&API, t.udp_back()), Expected::Pod(&WEB), &[("flags", 1), ("packets", 1)])
            .age(122)
            .packet(Sent::from_pod(&API, t.udp_back()), DropReason::PolicyDenied,
                &[("rule 0", 1), ("rule 70", 1), ("drop 133", 1), ("dropped", 1)])
    }

    /// 33: without aggregation every packet is reported, also one whose connection has just been judged again.
    fn dp33_every_packet_is_reported(f) {
        let t = talk(f, WEB.place, API.place);
        let mut world = World::open();
        world.settings.report_interval = 0;
        Case::new(world)
            .packet(Sent::from_pod(&WEB, t.udp()), Expected::Pod(&API),
                &[("rule 0", 2), ("new", 1), ("any", 1), ("packets", 1)])
            .packet(Sent::from_pod(&WEB, t.udp()), Expected::Pod(&API), &[("packets", 1), ("alive", 1)])
            .packet(Sent::from_pod(&API, t.udp_back()), Expected::Pod(&WEB), &[("packets", 1), ("flags", 1)])
            .change(|world| world.raise_epoch(&API))
            .packet(Sent::from_pod(&WEB, t.udp()), Expected::Pod(&API),
                &[("rule 0", 2), ("packets", 1), ("alive", 1)])
    }

    /// 33: at most, only its beginning, the first answer and its end are.
    fn dp33_no_sign_of_life_is_reported(f) {
        let t = talk(f, WEB.place, API.place);
        let mut world = World::open();
        world.settings.report_interval = u64::MAX;
        opened(Case::new(world), &t, &WEB, &API)
            .age(600)
            .packet(Sent::from_pod(&WEB, t.out(DATA)), Expected::Pod(&API), &[("packets", 1)])
            .packet(Sent::from_pod(&WEB, t.out(FIN)), Expected::Pod(&API), &[("packets", 1), ("flags", 1)])
            .packet(Sent::from_pod(&API, t.back(FIN)), Expected::Pod(&WEB), &[("packets", 1), ("close", 1)])
    }

    /// 33: of a flood of drops each is counted and some are reported: two a second here, and those that an idle second
    /// has saved up.
    fn dp33_a_flood_of_drops_is_counted(f) host only "the kernel's clock goes on by itself" {
        let t = talk(f, WEB.place, API.place);
        let mut world = World::open();
        world.default_deny(&WEB, EGRESS, 70);
        world.settings.drop_interval = 500_000_000;
        let reported: &[_] = &[("rule 70", 1), ("drop 133", 1), ("dropped", 1)];
        let counted: &[_] = &[("rule 70", 1), ("drop 133", 1)];
        let send = |case: Case, counts| case.packet(Sent::from_pod(&WEB, t.udp()), DropReason::PolicyDenied, counts);
        let mut case = Case::new(world);
        for counts in [reported, reported, reported, counted, counted] {
            case = send(case, counts);
        }
        case = case
            .look(|maps| assert_eq!(maps.drop_records.get().suppressed, 2))
            .change(|world| world.now += SECOND);
        for counts in [reported, reported, counted] {
            case = send(case, counts);
        }
        case
    }

    /// 33: a node without an observer counts, and reports nothing.
    fn dp33_nothing_is_reported(f) {
        let t = talk(f, WEB.place, API.place);
        let mut world = World::open();
        world.default_deny(&API, EGRESS, 70);
        world.settings.records = 0;
        Case::new(world)
            .packet(Sent::from_pod(&WEB, t.udp()), Expected::Pod(&API),
                &[("rule 0", 2), ("any", 1), ("packets", 1)])
            .packet(Sent::from_pod(&API, t.ports(HIGH + 1, HTTP).udp_back()), DropReason::PolicyDenied,
                &[("rule 70", 1), ("drop 133", 1)])
    }

    /// 8: a connection that opens lives 60 s, an open one 8000 s, a closed one 10 s.
    fn dp08_tcp_times(f) {
        let t = talk(f, WEB.place, API.place);
        let other = t.ports(HIGH + 1, HTTP);
        let case = Case::new(World::open())
            .packet(Sent::from_pod(&WEB, other.out(tcp::SYN)), Expected::Pod(&API),
                &[("rule 0", 2), ("new", 1), ("opening", 1), ("packets", 1)])
            .age(62)
            // A SYN+ACK of a connection that is no more: its sender is the responder (13). What lay there goes.
            .packet(Sent::from_pod(&API, other.back(SYN_ACK)), Expected::Answer, &[("rule 0", 2)])
            .packet(Sent::to_pod(&WEB, API.ifindex, other.back(SYN_ACK)), Expected::Stack,
                &[("rule 0", 2), ("new", 1)]);
        opened(case, &t, &WEB, &API)
            .age(7990)
            .packet(Sent::from_pod(&WEB, t.out(DATA)), Expected::Pod(&API), &[("packets", 1), ("alive", 1)])
            .packet(Sent::from_pod(&WEB, t.out(FIN)), Expected::Pod(&API), &[("packets", 1), ("flags", 1)])
            .age(100)
            .packet(Sent::from_pod(&API, t.back(FIN)), Expected::Pod(&WEB), &[("packets", 1), ("close", 1)])
            .age(12)
            .packet(Sent::from_pod(&WEB, t.out(tcp::ACK)), Expected::Pod(&API),
                &[("rule 0", 2), ("new", 1), ("opening", 1), ("packets", 1)])
    }

    /// 13: a denied new connection leaves no entry.
    fn dp13_denied_leaves_no_entry(f) {
        let t = talk(f, WEB.place, API.place);
        let mut world = World::open();
        world.default_deny(&API, INGRESS, 90);
        Case::new(world)
            .packet(Sent::from_pod(&WEB, t.out(tcp::SYN)), DropReason::PolicyDenied,
                &[("rule 0", 1), ("rule 90", 1), ("drop 133", 1), ("dropped", 1)])
            .event(|record| {
                assert_eq!(record.cookies, [0, 90]);
                assert_eq!(record.reason, 133);
                assert_eq!(record.source_identity, WEB.identity);
                assert_eq!(record.destination_identity, API.identity);
            })
            .packet(Sent::from_pod(&WEB, t.udp()), DropReason::PolicyDenied,
                &[("rule 0", 1), ("rule 90", 1), ("drop 133", 1), ("dropped", 1)])
    }

    /// 13: an entry is created only after every local judgement: egress allowed and ingress denied leaves none.
    fn dp13_both_judgements_before_the_entry(f) {
        let t = talk(f, WEB.place, API.place);
        let mut world = World::open();
        world.default_deny(&WEB, EGRESS, 80);
        world.allow(&WEB, EGRESS, API.identity, None, 81);
        world.deny(&API, INGRESS, WEB.identity, None, 92);
        Case::new(world).packet(Sent::from_pod(&WEB, t.out(tcp::SYN)), DropReason::DeniedByRule,
            &[("rule 81", 1), ("rule 92", 1), ("drop 181", 1), ("dropped", 1)])
    }

    /// 13: of a connection that was evicted, a SYN+ACK says that its sender is the responder, whatever the ports.
    fn dp13_pick_up_by_syn_ack(f) {
        let t = talk(f, WEB.place, API.place).ports(90, HIGH);
        let mut world = World::open();
        // The responder may answer but not initiate.
        world.default_deny(&API, EGRESS, 90);
        Case::new(world)
            .packet(Sent::from_pod(&API, t.back(SYN_ACK)), Expected::Answer, &[("rule 0", 2)])
            .packet(Sent::to_pod(&WEB, API.ifindex, t.back(SYN_ACK)), Expected::Stack,
                &[("rule 0", 2), ("new", 1), ("opening", 1), ("packets", 1)])
            .look(|maps| assert_eq!(only(maps).flags, flag::PICKED_UP))
            .event(|record| assert_eq!(record.flags & event::flag::REPLY, event::flag::REPLY))
            .packet(Sent::from_pod(&API, t.back(SYN_ACK)), Expected::Pod(&WEB), &[("packets", 1)])
    }

    /// 13: without SYN+ACK exactly one port below 32768 is the responder's, whoever sends.
    fn dp13_pick_up_by_port(f) {
        let t = talk(f, WEB.place, API.place);
        let mut world = World::open();
        world.default_deny(&API, EGRESS, 90);
        Case::new(world)
            .packet(Sent::from_pod(&API, t.back(DATA)), Expected::Answer, &[("rule 0", 2)])
            .packet(Sent::to_pod(&WEB, API.ifindex, t.back(DATA)), Expected::Stack,
                &[("rule 0", 2), ("new", 1), ("opening", 1), ("packets", 1)])
            .packet(Sent::from_pod(&WEB, t.out(DATA)), Expected::Pod(&API),
                &[("packets", 1), ("flags", 1), ("opening", -1), ("tcp", 1)])
    }

    /// 13: an answer that nobody knows of leaves no entry, but is told of: it passes by its opener's rights, and that it was
    /// asked is what anybody can write into a header.
    fn dp13_an_unknown_answer_is_told(f) {
        let t = talk(f, WORLD, API.place);
        let mut world = World::open();
        world.default_deny(&API, EGRESS, 90);
        Case::new(world)
            .packet(Sent::from_pod(&API, t.back(DATA)), Expected::Answer, &[("rule 0", 1), ("new", 1)])
            .event(|record| assert_eq!(record.flags & event::flag::REPLY, event::flag::REPLY))
            .packet(Sent::from_pod(&API, t.back(tcp::RST)), Expected::Answer, &[("rule 0", 1), ("new", 1)])
            .look(|maps| assert!(maps.connections.borrow().is_empty()))
    }

    /// 13: what an RST answers is not open, whatever comes after it.
    fn dp13_an_rst_opens_nothing(f) {
        let t = talk(f, WORLD, API.place);
        Case::new(World::open())
            .packet(Sent::to_pod(&API, UNDERLAY, t.out(tcp::ACK)), Expected::Stack,
                &[("rule 0", 1), ("new", 1), ("opening", 1), ("packets", 1)])
            .packet(Sent::from_pod(&API, t.back(tcp::RST)), Expected::Answer, &[("close", 1), ("packets", 1)])
            .packet(Sent::to_pod(&API, UNDERLAY, t.out(DATA)), Expected::Stack, &[("packets", 1)])
            .packet(Sent::to_pod(&API, UNDERLAY, t.out(DATA)), Expected::Stack, &[("packets", 1)])
    }

    /// 13: a responder elsewhere is picked up behind the stack too, and its next packet takes the short way.
    fn dp13_pick_up_from_the_wire(f) {
        let t = talk(f, WEB.place, REMOTE);
        Case::new(World::open())
            .packet(Sent::from_net(t.back(DATA)), Expected::Stack, &[("rule 0", 1)])
            .packet(Sent::to_pod(&WEB, UNDERLAY, t.back(DATA)), Expected::Stack,
                &[("rule 0", 1), ("new", 1), ("opening", 1), ("packets", 1)])
            .packet(Sent::from_net(t.back(DATA)), Expected::Pod(&WEB), &[("packets", 1)])
    }

    /// 13: one here that answers somebody elsewhere is so by that one's next packet. As an answer it leaves unasked.
    fn dp13_pick_up_of_what_leaves(f) {
        let t = talk(f, REMOTE, WEB.place);
        let hop = OTHER_NODE.ip(f).into();
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, t.back(DATA)), Expected::Answer, &[("rule 0", 1), ("new", 1)])
            .packet(Sent::leaving(&WEB, t.back(DATA)).answer(), Expected::Stack, &[])
            .packet(Sent::from_net(t.out(DATA)), Expected::Pod(&WEB),
                &[("rule 0", 1), ("new", 1), ("opening", 1), ("packets", 1)])
            .look(|maps| assert_eq!(only(maps).flags, flag::PICKED_UP))
            .packet(Sent::from_pod(&WEB, t.back(DATA)), Expected::Forward(UNDERLAY, hop), &[("flags", 1), ("packets", 1)])
    }

    /// 13: what a pod answers to a node's address is nobody's yet: it may be a process there, or somebody that the
    /// node's NAT hides. Its own packet says.
    fn dp13_pick_up_by_the_address_of_a_node(f) {
        let t = talk(f, NODE, WEB.place);
        let world = if f == Family::V4 { 9 } else { 10 };
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, t.back(DATA)), Expected::Answer, &[("rule 0", 1), ("new", 1)])
            .packet(Sent::to_pod(&WEB, UNDERLAY, t.out(DATA)), Expected::Stack,
                &[("rule 0", 1), ("new", 1), ("opening", 1), ("packets", 1)])
            .look(move |maps| assert!(only(maps).identities.contains(&world)))
    }

    /// 13: what is picked up has the table of what opens until both ends have spoken, so lone ACKs evict no open one.
    fn dp13_lone_acks_fill_the_table_of_what_opens(f) {
        let mut case = Case::new(World::open());
        for port in 0..20 {
            let t = talk(f, REMOTE, API.place).ports(HIGH + port, HTTP);
            case = case.packet(Sent::from_net(t.out(tcp::ACK)), Expected::Pod(&API),
                &[("rule 0", 1), ("new", 1), ("opening", 1), ("packets", 1)]);
        }
        case
    }

    /// 13: with two high ports, or two low ones, the sender initiates.
    fn dp13_pick_up_by_sender(f) {
        let mut world = World::open();
        world.default_deny(&API, EGRESS, 90);
        let high = talk(f, WEB.place, API.place).ports(HIGH, HIGH + 1);
        let low = talk(f, WEB.place, API.place).ports(HTTP, HTTP + 1);
        Case::new(world)
            .packet(Sent::from_pod(&API, high.back(DATA)), DropReason::PolicyDenied,
                &[("rule 90", 1), ("drop 133", 1), ("dropped", 1)])
            .packet(Sent::from_pod(&API, low.back(DATA)), DropReason::PolicyDenied,
                &[("rule 90", 1), ("drop 133", 1), ("dropped", 1)])
            .packet(Sent::from_pod(&WEB, low.out(DATA)), Expected::Pod(&API),
                &[("rule 0", 2), ("new", 1), ("opening", 1), ("packets", 1)])
    }

    /// 13: an RST creates nothing, allowed or not.
    fn dp13_rst_creates_nothing(f) {
        let t = talk(f, WEB.place, API.place);
        let mut world = World::open();
        world.default_deny(&WEB, INGRESS, 70);
        Case::new(world)
            .packet(Sent::from_pod(&WEB, t.out(tcp::RST | tcp::ACK)), Expected::Pod(&API),
                &[("rule 0", 2), ("new", 1)])
            .packet(Sent::from_pod(&API, t.ports(HIGH, HIGH).back(tcp::RST)), DropReason::PolicyDenied,
                &[("rule 0", 1), ("rule 70", 1), ("drop 133", 1), ("dropped", 1)])
    }

    /// 15: `from_pod` judges both ends: the egress of one, the ingress of the other, one entry and one event.
    fn dp15_same_node_judges_both_ends(f) {
        let t = talk(f, WEB.place, API.place);
        let mut world = World::open();
        world.default_deny(&WEB, EGRESS, 80);
        world.allow(&WEB, EGRESS, API.identity, Some((protocol::TCP, Some(HTTP))), 81);
        world.default_deny(&API, INGRESS, 90);
        world.allow(&API, INGRESS, WEB.identity, Some((protocol::TCP, None)), 91);
        Case::new(world)
            .packet(Sent::from_pod(&WEB, t.out(tcp::SYN)), Expected::Pod(&API),
                &[("rule 81", 1), ("rule 91", 1), ("new", 1), ("opening", 1), ("packets", 1)])
            .event(|record| {
                assert_eq!(record.cookies, [81, 91]);
                let both = event::flag::EGRESS_JUDGED | event::flag::INGRESS_JUDGED;
                assert_eq!(record.flags & both, both);
                assert_eq!(record.verdicts, [0x11, 0x11], "enforced and shadow verdict allow");
                // Identity key (2) with protocol and port (24 bits); with the protocol alone (8 bits).
                assert_eq!(record.matches, [2 << 5 | 24, 2 << 5 | 8]);
                assert_eq!(record.point, event::point::TO_ENDPOINT);
                assert_eq!(record.revision, 3);
                assert_eq!(record.endpoint, WEB.id as u16);
            })
            .packet(Sent::from_pod(&WEB, t.ports(HIGH, 81).out(tcp::SYN)), DropReason::PolicyDenied,
                &[("rule 80", 1), ("drop 133", 1), ("dropped", 1)])
    }

    /// 15: of a connection that its egress alone was judged for, the responder's hook judges the ingress.
    fn dp15_to_pod_completes_what_only_egress_judged(f) {
        let t = talk(f, WEB.place, API.place);
        let mut world = World::open();
        world.default_deny(&API, INGRESS, 90);
        // The pod is announced, its endpoint isn't in the tables yet.
        world.maps.endpoints.remove(&API.place.ip(f).into());
        world.routes.insert(API.place.ip(f).into(), crate::packet::Route::None);
        Case::new(world)
            .packet(Sent::from_pod(&WEB, t.out(tcp::SYN)), Expected::Stack,
                &[("rule 0", 1), ("new", 1), ("opening", 1), ("packets", 1)])
            .change(move |world| {
                let entry = crate::host::world::endpoint_of(&API);
                world.maps.endpoints.insert(API.place.ip(f).into(), entry);
            })
            .packet(Sent::to_pod(&API, WEB.ifindex, t.out(tcp::SYN)), DropReason::PolicyDenied,
                &[("rule 0", 1), ("rule 90", 1), ("drop 133", 1), ("dropped", 1)])
    }

    /// 15: each node enforces its own ends: from the wire the ingress alone is judged.
    fn dp15_from_the_wire_ingress_alone(f) {
        let t = talk(f, REMOTE, API.place);
        let mut world = World::open();
        world.default_deny(&API, EGRESS, 90);
        Case::new(world)
            .packet(Sent::from_net(t.out(tcp::SYN)), Expected::Pod(&API),
                &[("rule 0", 1), ("new", 1), ("opening", 1), ("packets", 1)])
            .event(|record| {
                assert_eq!(record.flags & event::flag::EGRESS_JUDGED, 0);
                assert_eq!(record.flags & event::flag::INGRESS_JUDGED, event::flag::INGRESS_JUDGED);
            })
            // The answer is a reply: the responder's egress has no say.
            .packet(Sent::from_pod(&API, t.back(SYN_ACK)),
                Expected::Forward(UNDERLAY, crate::host::world::OTHER_NODE.ip(f).into()),
                &[("flags", 1), ("packets", 1)])
    }

    /// 17: a deleted endpoint's connections end with its next packet, in either direction, without a sweep.
    fn dp17_deleted_endpoint(f) {
        let t = talk(f, WEB.place, API.place);
        opened(Case::new(World::open()), &t, &WEB, &API)
            .change(|world| world.remove_pod(&API))
            .packet(Sent::from_pod(&API, t.back(DATA)), DropReason::EndpointNotReady,
                &[("drop 203", 1), ("dropped", 1)])
            // Its address is nobody's now. The sender's egress is not asked about somebody unknown.
            .packet(Sent::from_pod(&WEB, t.out(DATA)), DropReason::UnknownDestination,
                &[("drop 1001", 1), ("dropped", 1), ("tombstones", 1)])
    }

    /// 17: what its peer goes on to send to a deleted pod keeps none of its connections for whom the address is leased to
    /// next: to that pod it would be an answer.
    fn dp17_no_connection_is_left_to_the_heir(f) {
        let t = talk(f, WEB.place, API.place);
        let gone: Counts = &[("drop 1001", 1), ("dropped", 1)];
        let mut case = Case::new(World::open())
            .packet(Sent::from_pod(&WEB, t.udp()), Expected::Pod(&API),
                &[("rule 0", 2), ("new", 1), ("any", 1), ("packets", 1)])
            .change(|world| world.remove_pod(&WEB))
            .age(119)
            .packet(Sent::from_pod(&API, t.udp_back()), DropReason::UnknownDestination,
                &[("drop 1001", 1), ("dropped", 1), ("tombstones", 1)]);
        for _ in 0..4 {
            case = case.age(4).packet(Sent::from_pod(&API, t.udp_back()), DropReason::UnknownDestination, gone);
        }
        case.change(|world| {
                world.add_pod(&WEB);
                world.raise_epoch(&WEB);
                world.default_deny(&WEB, INGRESS, 90);
                world.raise_generation();
            })
            .age(4)
            .packet(Sent::from_pod(&API, t.udp_back()), DropReason::PolicyDenied,
                &[("rule 0", 1), ("rule 90", 1), ("drop 133", 1), ("dropped", 1)])
    }

    /// 17: an endpoint in the drop slot drops what comes and goes, with a reason.
    fn dp17_drop_slot(f) {
        let t = talk(f, WEB.place, API.place);
        let mut world = World::open();
        world.maps.words.insert(API.id, crate::abi::StateWord::new(77, crate::abi::StateWord::DROP_SLOT));
        Case::new(world)
            .packet(Sent::from_pod(&API, t.back(tcp::SYN)), DropReason::EndpointNotReady,
                &[("drop 203", 1), ("dropped", 1)])
            .packet(Sent::from_pod(&WEB, t.out(tcp::SYN)), DropReason::EndpointNotReady,
                &[("rule 0", 1), ("drop 203", 1), ("dropped", 1)])
            .packet(Sent::from_net(talk(f, REMOTE, API.place).out(tcp::SYN)), DropReason::EndpointNotReady,
                &[("drop 203", 1), ("dropped", 1)])
    }
}
