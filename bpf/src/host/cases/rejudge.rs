//! Connections when policy or identities change: datapath.md 9–11.

use super::cases;
use super::talk::{DATA, HIGH, Talk, opened, talk};
use crate::abi::conntrack::flag;
use crate::abi::event;
use crate::abi::policy::direction::{EGRESS, INGRESS};
use crate::drop::DropReason;
use crate::host::world::{
    API, Family, NODE, OTHER_NODE, Place, REMOTE, REMOTE_IDENTITY, Sent, UNDERLAY, WEB, World,
};
use crate::host::{Case, Counts, Expected};
use crate::identity::reserved;
use crate::parse::tcp;

/// What a judgement of WEB → API counts where API's ingress refuses and a connection becomes a tombstone.
const TOMBSTONED: Counts =
    &[("rule 0", 1), ("rule 90", 1), ("drop 133", 1), ("dropped", 1), ("tombstones", 1)];
/// The same with a packet of API: of two judgements the sender's comes first, and the first refusal is the last word.
const TOMBSTONED_BY_SENDER: Counts = &[("rule 90", 1), ("drop 133", 1), ("dropped", 1), ("tombstones", 1)];
/// A packet that meets a tombstone.
const DROPPED: Counts = &[("drop 133", 1), ("dropped", 1)];
/// A connection's first packet between two pods whose policies have no rules.
const NEW: Counts = &[("rule 0", 2), ("new", 1), ("any", 1), ("packets", 1)];

/// A connection's first packet where one end is here.
const NEW_IN: Counts = &[("rule 0", 1), ("new", 1), ("any", 1), ("packets", 1)];

/// Opens WEB → API, then closes API's ingress.
fn forbidden(t: &Talk) -> Case {
    opened(Case::new(World::open()), t, &WEB, &API).change(|world| world.default_deny(&API, INGRESS, 90))
}

/// Sends a datagram WEB → API, then closes API's ingress and sends another.
fn refused_datagram(t: &Talk) -> Case {
    Case::new(World::open())
        .packet(Sent::from_pod(&WEB, t.udp()), Expected::Pod(&API), NEW)
        .change(|world| world.default_deny(&API, INGRESS, 90))
        .packet(Sent::from_pod(&WEB, t.udp()), DropReason::PolicyDenied, TOMBSTONED)
}

fn relabel(world: &mut World, place: &Place, identity: u32, known: bool) {
    if known {
        world.maps.known.push(identity);
    }
    for family in crate::host::world::Family::BOTH {
        if let Some(entry) = world.maps.ipcache.get_mut(&place.ip(family).into()) {
            entry.identity = identity;
        }
    }
    world.raise_generation();
}

/// Identity of the world in a family.
fn world_of(f: Family) -> u32 {
    if f == Family::V4 { reserved::WORLD_V4 } else { reserved::WORLD_V6 }
}

cases! {
    /// 9: somebody whom the host's NAT hides behind the node's address stays the world when the pod's own packet has the
    /// connection judged again: the host itself would be let in by any policy.
    fn dp09_masqueraded_stays_the_world(f) {
        let t = talk(f, NODE, API.place);
        Case::new(World::open())
            .packet(Sent::to_pod(&API, UNDERLAY, t.udp()), Expected::Stack, NEW_IN)
            .change(|world| {
                world.default_deny(&API, INGRESS, 90);
                world.allow(&API, INGRESS, reserved::HOST, None, 91);
            })
            .packet(Sent::from_pod(&API, t.udp_back()), DropReason::PolicyDenied, TOMBSTONED_BY_SENDER)
            .packet(Sent::to_pod(&API, UNDERLAY, t.udp()), DropReason::PolicyDenied, DROPPED)
    }

    /// 9: and the host stays the host when the node's answer comes by way of the host's NAT.
    fn dp09_the_node_stays_the_host(f) {
        let t = talk(f, WEB.place, NODE);
        let mut world = World::open();
        world.default_deny(&WEB, EGRESS, 90);
        world.allow(&WEB, EGRESS, reserved::HOST, None, 91);
        Case::new(world)
            .packet(Sent::from_pod(&WEB, t.udp()), Expected::Stack, &[("rule 91", 1), ("new", 1), ("any", 1), ("packets", 1)])
            .change(World::raise_generation)
            .packet(Sent::to_pod(&WEB, API.ifindex, t.udp_back()), Expected::Stack,
                &[("rule 91", 1), ("flags", 1), ("packets", 1)])
            .packet(Sent::from_pod(&WEB, t.udp()), Expected::Stack, &[("packets", 1)])
    }

    /// 9: what another node claims of an answer out of its NAT does not end a connection with that node.
    fn dp09_an_answer_of_another_nodes_nat(f) host only "a test run of the kernel has no tunnel key" {
        let t = talk(f, WEB.place, OTHER_NODE);
        let node = OTHER_NODE.ip(Family::V4);
        let mut world = World::overlay();
        world.default_deny(&WEB, EGRESS, 90);
        world.allow(&WEB, EGRESS, reserved::REMOTE_NODE, None, 91);
        Case::new(world)
            .packet(Sent::from_pod(&WEB, t.udp()), Expected::Tunnel(node.into(), WEB.identity),
                &[("rule 91", 1), ("new", 1), ("any", 1), ("packets", 1)])
            .packet(Sent::from_overlay(node, world_of(f), t.udp_back()), Expected::Pod(&WEB), &[("flags", 1), ("packets", 1)])
            .change(World::raise_generation)
            .packet(Sent::from_overlay(node, world_of(f), t.udp_back()), Expected::Pod(&WEB),
                &[("rule 91", 1), ("packets", 1)])
            // A connection of its own is the world's.
            .packet(Sent::from_overlay(node, world_of(f), t.ports(4000, 4001).udp_back()), Expected::Pod(&WEB),
                &[("rule 0", 1), ("new", 1), ("any", 1), ("packets", 1)])
    }

    /// 9: the world that comes by another node's NAT stays the world when the pod answers.
    fn dp09_the_world_by_another_node(f) host only "a test run of the kernel has no tunnel key" {
        let t = talk(f, OTHER_NODE, API.place);
        let node = OTHER_NODE.ip(Family::V4);
        let mut world = World::overlay();
        world.default_deny(&API, INGRESS, 90);
        world.allow(&API, INGRESS, world_of(f), None, 91);
        Case::new(world)
            .packet(Sent::from_overlay(node, world_of(f), t.udp()), Expected::Pod(&API),
                &[("rule 91", 1), ("new", 1), ("any", 1), ("packets", 1)])
            .change(World::raise_generation)
            .packet(Sent::from_pod(&API, t.udp_back()), Expected::Tunnel(node.into(), API.identity),
                &[("rule 91", 1), ("flags", 1), ("packets", 1)])
            .packet(Sent::from_overlay(node, world_of(f), t.udp()), Expected::Pod(&API), &[("packets", 1)])
            // The node itself is not the world.
            .packet(Sent::from_overlay(node, reserved::REMOTE_NODE, t.ports(4000, 4001).udp()), DropReason::PolicyDenied,
                &[("rule 90", 1), ("drop 133", 1), ("dropped", 1)])
    }

    /// 9: a node that becomes, or is no more, an API server is judged as what it is, whoever's packet comes first.
    fn dp09_a_node_that_is_an_api_server_no_more(f) {
        let t = talk(f, WEB.place, OTHER_NODE);
        let mut world = World::open();
        world.maps.known.push(reserved::KUBE_APISERVER);
        if let Some(entry) = world.maps.ipcache.get_mut(&OTHER_NODE.ip(f).into()) {
            entry.identity = reserved::KUBE_APISERVER;
        }
        world.default_deny(&WEB, EGRESS, 90);
        world.allow(&WEB, EGRESS, reserved::KUBE_APISERVER, None, 91);
        Case::new(world)
            .packet(Sent::from_pod(&WEB, t.udp()), Expected::Forward(UNDERLAY, OTHER_NODE.ip(f).into()),
                &[("rule 91", 1), ("new", 1), ("any", 1), ("packets", 1)])
            .change(|world| relabel(world, &OTHER_NODE, reserved::REMOTE_NODE, true))
            .packet(Sent::from_net(t.udp_back()), DropReason::PolicyDenied, TOMBSTONED_BY_SENDER)
    }

    /// 9: a stale stamp is judged again with the initiator's packet, and the tombstone holds in both directions.
    fn dp09_stale_stamp_from_the_initiator(f) {
        let t = talk(f, WEB.place, API.place);
        forbidden(&t)
            .packet(Sent::from_pod(&WEB, t.out(DATA)), DropReason::PolicyDenied, TOMBSTONED)
            .event(|record| {
                assert_eq!(record.flags & event::flag::REJUDGED, event::flag::REJUDGED);
                assert_eq!(record.cookies, [0, 90]);
                assert_eq!(record.flags & event::flag::REPLY, 0);
            })
            .packet(Sent::from_pod(&API, t.back(DATA)), DropReason::PolicyDenied, DROPPED)
            .packet(Sent::from_pod(&WEB, t.out(DATA)), DropReason::PolicyDenied, DROPPED)
            .event(|record| assert_eq!(record.cookies, [0, 90], "the tombstone says who decided"))
    }

    /// 9: every packet that a tombstone drops is told of as the one that made it: the side that refused, its verdict, its
    /// policies. What no policy refused has none.
    fn dp09_a_tombstone_tells_who_refused(f) {
        let t = talk(f, WEB.place, API.place);
        let sides = event::flag::EGRESS_JUDGED | event::flag::INGRESS_JUDGED | event::flag::DIRECTION_KNOWN
            | event::flag::REPLY;
        forbidden(&t)
            .packet(Sent::from_pod(&WEB, t.out(DATA)), DropReason::PolicyDenied, TOMBSTONED)
            .packet(Sent::from_pod(&API, t.back(DATA)), DropReason::PolicyDenied, DROPPED)
            .event(move |record| {
                assert_eq!(record.flags & sides,
                    event::flag::INGRESS_JUDGED | event::flag::DIRECTION_KNOWN | event::flag::REPLY);
                assert_eq!((record.verdicts[1], record.cookies[1]), (0x00, 90));
            })
            .change(|world| {
                world.open_again(&API, INGRESS);
                world.deny(&WEB, EGRESS, API.identity, None, 81);
            })
            .packet(Sent::from_pod(&WEB, t.out(DATA)), DropReason::DeniedByRule,
                &[("rule 81", 1), ("drop 181", 1), ("dropped", 1)])
            .packet(Sent::from_pod(&WEB, t.out(DATA)), DropReason::DeniedByRule, &[("drop 181", 1), ("dropped", 1)])
            .event(move |record| {
                assert_eq!(record.flags & sides, event::flag::EGRESS_JUDGED | event::flag::DIRECTION_KNOWN);
                assert_eq!((record.verdicts[0], record.cookies[0]), (0x22, 81));
                assert_eq!((record.source_identity, record.destination_identity), (WEB.identity, API.identity));
            })
            .change(|world| {
                world.open_again(&WEB, EGRESS);
                demand_proxy(world, 7);
            })
            .packet(Sent::from_pod(&WEB, t.out(DATA)), DropReason::ProxyMissing,
                &[("rule 0", 1), ("rule 91", 1), ("drop 1015", 1), ("dropped", 1)])
            .packet(Sent::from_pod(&WEB, t.out(DATA)), DropReason::ProxyMissing, &[("drop 1015", 1), ("dropped", 1)])
            .event(move |record| assert_eq!(record.flags & sides, event::flag::DIRECTION_KNOWN))
    }

    /// 9: and with the responder's packet, in the initiator's orientation: its own egress allows everything.
    fn dp09_stale_stamp_from_the_responder(f) {
        let t = talk(f, WEB.place, API.place);
        forbidden(&t)
            .packet(Sent::from_pod(&API, t.back(DATA)), DropReason::PolicyDenied, TOMBSTONED_BY_SENDER)
            .event(|record| {
                assert_eq!(record.flags & event::flag::REPLY, event::flag::REPLY);
                assert_eq!(record.source_identity, API.identity);
                assert_eq!(record.destination_identity, WEB.identity);
            })
            .packet(Sent::from_pod(&WEB, t.out(DATA)), DropReason::PolicyDenied, DROPPED)
    }

    /// 9: a tombstone's time begins with the packet that made it, not with the last one before that.
    fn dp09_tombstone_of_an_idle_connection(f) {
        let t = talk(f, WEB.place, API.place);
        opened(Case::new(World::open()), &t, &WEB, &API)
            .age(5000)
            .change(|world| world.default_deny(&API, INGRESS, 90))
            .packet(Sent::from_pod(&API, t.back(DATA)), DropReason::PolicyDenied, TOMBSTONED_BY_SENDER)
            .age(5000)
            .packet(Sent::from_pod(&WEB, t.out(DATA)), DropReason::PolicyDenied, DROPPED)
    }

    /// 9: allowed again by the same rule: the entry is restamped and nothing is reported; the packet counts.
    fn dp09_restamped_without_an_event(f) {
        let t = talk(f, WEB.place, API.place);
        opened(Case::new(World::open()), &t, &WEB, &API)
            .change(|world| world.raise_epoch(&API))
            .packet(Sent::from_pod(&API, t.back(DATA)), Expected::Pod(&WEB), &[("rule 0", 2), ("packets", 1)])
            .packet(Sent::from_pod(&WEB, t.out(DATA)), Expected::Pod(&API), &[("packets", 1)])
    }

    /// 9: allowed by another rule: that is reported.
    fn dp09_another_rule_is_reported(f) {
        let t = talk(f, WEB.place, API.place);
        opened(Case::new(World::open()), &t, &WEB, &API)
            .change(|world| {
                world.default_deny(&API, INGRESS, 90);
                world.allow(&API, INGRESS, WEB.identity, None, 91);
            })
            .packet(Sent::from_pod(&WEB, t.out(DATA)), Expected::Pod(&API),
                &[("rule 0", 1), ("rule 91", 1), ("new", 1), ("packets", 1)])
            .event(|record| assert_eq!(record.cookies, [0, 91]))
            .packet(Sent::from_pod(&WEB, t.out(DATA)), Expected::Pod(&API), &[("packets", 1)])
    }

    /// 9: what opens under a stale stamp opens all the same: the reply that was judged again counts as an answer.
    fn dp09_judged_again_while_it_opens(f) {
        let t = talk(f, WEB.place, API.place);
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, t.out(tcp::SYN)), Expected::Pod(&API),
                &[("rule 0", 2), ("new", 1), ("opening", 1), ("packets", 1)])
            .change(|world| world.raise_epoch(&WEB))
            .packet(Sent::from_pod(&API, t.back(tcp::SYN | tcp::ACK)), Expected::Pod(&WEB),
                &[("rule 0", 2), ("flags", 1), ("packets", 1)])
            .packet(Sent::from_pod(&WEB, t.out(tcp::ACK)), Expected::Pod(&API),
                &[("packets", 1), ("opening", -1), ("tcp", 1)])
    }

    /// 9: a tombstone with a stale stamp is judged again, and lives again where policy allows it by now.
    fn dp09_allowed_again(f) {
        let t = talk(f, WEB.place, API.place);
        forbidden(&t)
            .packet(Sent::from_pod(&WEB, t.out(DATA)), DropReason::PolicyDenied, TOMBSTONED)
            .change(|world| world.open_again(&API, INGRESS))
            .packet(Sent::from_pod(&WEB, t.out(DATA)), Expected::Pod(&API),
                &[("rule 0", 2), ("new", 1), ("packets", 1), ("tombstones", -1)])
            .packet(Sent::from_pod(&API, t.back(DATA)), Expected::Pod(&WEB), &[("packets", 1)])
    }

    /// 9: a relabel of the remote peer raises the generation: the next packet either way meets fresh identities.
    fn dp09_relabel_of_a_remote_peer(f) {
        let t = talk(f, REMOTE, API.place);
        let mut world = World::open();
        world.default_deny(&API, INGRESS, 90);
        world.allow(&API, INGRESS, REMOTE_IDENTITY, None, 91);
        let back = Expected::Forward(UNDERLAY, OTHER_NODE.ip(f).into());
        Case::new(world)
            .packet(Sent::from_net(t.out(tcp::SYN)), Expected::Pod(&API),
                &[("rule 91", 1), ("new", 1), ("opening", 1), ("packets", 1)])
            .packet(Sent::from_pod(&API, t.back(tcp::SYN | tcp::ACK)), back, &[("flags", 1), ("packets", 1)])
            .change(|world| relabel(world, &REMOTE, 1004, true))
            .packet(Sent::from_pod(&API, t.back(tcp::ACK)), DropReason::PolicyDenied,
                &[("rule 90", 1), ("drop 133", 1), ("dropped", 1), ("tombstones", 1)])
            .packet(Sent::from_net(t.out(DATA)), DropReason::PolicyDenied, DROPPED)
            .change(|world| relabel(world, &REMOTE, REMOTE_IDENTITY, false))
            .packet(Sent::from_net(t.out(DATA)), Expected::Pod(&API),
                &[("rule 91", 1), ("new", 1), ("packets", 1), ("tombstones", -1)])
    }

    /// 9: a local pod's new identity counts from its new epoch on.
    fn dp09_relabel_of_a_local_peer(f) {
        let t = talk(f, WEB.place, API.place);
        let mut world = World::open();
        world.default_deny(&API, INGRESS, 90);
        world.allow(&API, INGRESS, WEB.identity, None, 91);
        Case::new(world)
            .packet(Sent::from_pod(&WEB, t.udp()), Expected::Pod(&API),
                &[("rule 0", 1), ("rule 91", 1), ("new", 1), ("any", 1), ("packets", 1)])
            .change(move |world| {
                world.maps.known.push(1005);
                let entry = crate::abi::EndpointEntry {
                    identity: 1005, ..crate::host::world::endpoint_of(&WEB)
                };
                world.maps.interfaces.insert(WEB.ifindex, entry);
                world.maps.endpoints.insert(WEB.place.ip(f).into(), entry);
                world.raise_epoch(&WEB);
            })
            .packet(Sent::from_pod(&WEB, t.udp()), DropReason::PolicyDenied, TOMBSTONED)
    }

    /// 9: the overlay's claim is compared with the stored identity on every packet; another one is judged again.
    fn dp09_vni_mismatch(f) host only "a test run of the kernel has no tunnel key" {
        let t = talk(f, REMOTE, API.place);
        let outer = OTHER_NODE.ip(crate::host::world::Family::V4);
        let mut world = World::overlay();
        world.maps.known.push(1004);
        world.default_deny(&API, INGRESS, 90);
        world.allow(&API, INGRESS, REMOTE_IDENTITY, None, 91);
        Case::new(world)
            .packet(Sent::from_overlay(outer, REMOTE_IDENTITY, t.out(tcp::SYN)), Expected::Pod(&API),
                &[("rule 91", 1), ("new", 1), ("opening", 1), ("packets", 1)])
            .packet(Sent::from_overlay(outer, REMOTE_IDENTITY, t.out(tcp::SYN)), Expected::Pod(&API),
                &[("packets", 1)])
            .packet(Sent::from_overlay(outer, 1004, t.out(DATA)), DropReason::PolicyDenied,
                &[("rule 90", 1), ("drop 133", 1), ("dropped", 1), ("tombstones", 1)])
            .packet(Sent::from_overlay(outer, REMOTE_IDENTITY, t.out(DATA)), Expected::Pod(&API),
                &[("rule 91", 1), ("new", 1), ("packets", 1), ("tombstones", -1)])
    }

    /// 10: a tombstone drops both directions until it was idle for 8000 s; each packet that meets it begins those anew.
    /// Lane agreement has the kernel's clock, before whose start no packet came: there none ends on a younger machine.
    fn dp10_tombstone_until_idle(f) {
        let t = talk(f, WEB.place, API.place);
        forbidden(&t)
            .packet(Sent::from_pod(&WEB, t.out(DATA)), DropReason::PolicyDenied, TOMBSTONED)
            .age(7998)
            .packet(Sent::from_pod(&API, t.back(DATA)), DropReason::PolicyDenied, DROPPED)
            .age(7998)
            .packet(Sent::from_pod(&WEB, t.out(DATA)), DropReason::PolicyDenied, DROPPED)
            .age(8002)
            // Absent by now: judged by the ports, which say that API responds, so its ingress refuses.
            .packet(Sent::from_pod(&API, t.back(DATA)), DropReason::PolicyDenied,
                &[("rule 90", 1), ("drop 133", 1), ("dropped", 1)])
    }

    /// 10: one of datagrams for 120 s, as long as their connection.
    fn dp10_datagrams_tombstone_until_idle(f) {
        let t = talk(f, WEB.place, API.place);
        refused_datagram(&t)
            .age(118)
            .packet(Sent::from_pod(&WEB, t.udp()), DropReason::PolicyDenied, DROPPED)
            .age(122)
            .packet(Sent::from_pod(&WEB, t.udp()), DropReason::PolicyDenied,
                &[("rule 0", 1), ("rule 90", 1), ("drop 133", 1), ("dropped", 1)])
    }

    /// 10: with two high ports, too, where what the responder sends after a long silence would begin a connection of its
    /// own, whose answers the initiator's packets were.
    fn dp10_a_refused_connection_stays_refused_while_its_ends_wait(f) {
        let t = talk(f, WEB.place, API.place).ports(HIGH, HIGH + 1);
        opened(Case::new(World::open()), &t, &WEB, &API)
            .change(|world| world.default_deny(&API, INGRESS, 90))
            .packet(Sent::from_pod(&WEB, t.out(DATA)), DropReason::PolicyDenied, TOMBSTONED)
            .look(|maps| {
                let all = maps.connections.borrow();
                assert!(all.values().all(|entry| entry.flags & flag::AUDIT == 0), "no policy is on trial");
            })
            .age(120)
            .packet(Sent::from_pod(&API, t.back(DATA)), DropReason::PolicyDenied, DROPPED)
            .packet(Sent::from_pod(&WEB, t.out(DATA)), DropReason::PolicyDenied, DROPPED)
    }

    /// 10: a pure SYN is judged by itself, tombstone or not.
    fn dp10_syn_on_a_tombstone(f) {
        let t = talk(f, WEB.place, API.place);
        forbidden(&t)
            .packet(Sent::from_pod(&WEB, t.out(DATA)), DropReason::PolicyDenied, TOMBSTONED)
            .packet(Sent::from_pod(&WEB, t.out(tcp::SYN)), DropReason::PolicyDenied,
                &[("rule 0", 1), ("rule 90", 1), ("drop 133", 1), ("dropped", 1)])
    }

    /// 10: an answer that was under way when its connection was refused is no connection of the responder's, although
    /// policy would let it open one: the client's next datagram would pass as the answer to that.
    fn dp10_an_answer_under_way_opens_nothing(f) {
        let t = talk(f, WEB.place, API.place);
        refused_datagram(&t)
            .packet(Sent::from_pod(&API, t.udp_back()), DropReason::PolicyDenied, DROPPED)
            .event(|record| {
                assert_eq!(record.flags & event::flag::REPLY, event::flag::REPLY);
                assert_eq!(record.cookies, [0, 90], "the tombstone says who decided");
            })
            .packet(Sent::from_pod(&WEB, t.udp()), DropReason::PolicyDenied, DROPPED)
    }

    /// 10: also where the connection was quiet for longer than that before it was refused.
    fn dp10_an_answer_after_a_long_wait_opens_nothing(f) {
        let t = talk(f, WEB.place, API.place);
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, t.udp()), Expected::Pod(&API), NEW)
            .age(60)
            .change(|world| world.default_deny(&API, INGRESS, 90))
            .packet(Sent::from_pod(&WEB, t.udp()), DropReason::PolicyDenied, TOMBSTONED)
            .packet(Sent::from_pod(&API, t.udp_back()), DropReason::PolicyDenied, DROPPED)
    }

    /// 10: a server that goes on sending goes on being refused; each datagram begins its 5 s of silence anew.
    fn dp10_a_stream_of_answers_opens_nothing(f) {
        let t = talk(f, WEB.place, API.place);
        let answer = |case: Case| {
            case.age(4).packet(Sent::from_pod(&API, t.udp_back()), DropReason::PolicyDenied, DROPPED)
        };
        answer(answer(answer(refused_datagram(&t))))
            .packet(Sent::from_pod(&WEB, t.udp()), DropReason::PolicyDenied, DROPPED)
    }

    /// 10: but not for ever: who never pauses talks for itself after a minute (both ends on one port, as SIP or a gossip).
    fn dp10_a_stream_that_never_pauses_is_heard_in_the_end(f) {
        let t = talk(f, WEB.place, API.place);
        let mut case = refused_datagram(&t);
        for _ in 0..15 {
            case = case.age(4).packet(Sent::from_pod(&API, t.udp_back()), DropReason::PolicyDenied, DROPPED);
        }
        case.age(4).packet(Sent::from_pod(&API, t.udp_back()), Expected::Pod(&WEB),
            &[("rule 0", 2), ("new", 1), ("tombstones", -1)])
    }

    /// 10: after a silence of 5 s the responder's datagram is judged as its own connection.
    fn dp10_datagram_from_the_responder_after_a_silence(f) {
        let t = talk(f, WEB.place, API.place);
        refused_datagram(&t)
            .packet(Sent::from_pod(&WEB, t.udp()), DropReason::PolicyDenied, DROPPED)
            .age(6)
            .packet(Sent::from_pod(&API, t.udp_back()), Expected::Pod(&WEB),
                &[("rule 0", 2), ("new", 1), ("tombstones", -1)])
            .event(|record| assert_eq!(record.flags & event::flag::REPLY, 0))
    }

    /// 10: a tombstone that is judged again, by whomever, still was refused when it became one.
    fn dp10_the_refusal_is_not_renewed_by_another_judgement(f) {
        let t = talk(f, WEB.place, API.place);
        refused_datagram(&t)
            .age(6)
            .change(|world| world.raise_epoch(&API))
            .packet(Sent::from_pod(&WEB, t.udp()), DropReason::PolicyDenied,
                &[("rule 0", 1), ("rule 90", 1), ("drop 133", 1), ("dropped", 1)])
            .packet(Sent::from_pod(&API, t.udp_back()), Expected::Pod(&WEB),
                &[("rule 0", 2), ("new", 1), ("tombstones", -1)])
    }

    /// 10: an echo reply is never a connection, silence or not.
    fn dp10_an_echo_reply_never_opens(f) {
        let t = talk(f, WEB.place, API.place);
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, t.echo(7)), Expected::Pod(&API), NEW)
            .change(|world| world.default_deny(&API, INGRESS, 90))
            .packet(Sent::from_pod(&WEB, t.echo(7)), DropReason::PolicyDenied, TOMBSTONED)
            .age(30)
            .packet(Sent::from_pod(&API, t.echo_reply(7)), DropReason::PolicyDenied, DROPPED)
            .packet(Sent::from_pod(&WEB, t.echo(7)), DropReason::PolicyDenied, DROPPED)
    }

    /// 10: and where its own direction is refused, the tombstone stays.
    fn dp10_datagram_from_the_responder_refused(f) {
        let t = talk(f, WEB.place, API.place);
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, t.udp()), Expected::Pod(&API), NEW)
            .change(|world| {
                world.default_deny(&API, INGRESS, 90);
                world.default_deny(&API, EGRESS, 95);
            })
            .packet(Sent::from_pod(&WEB, t.udp()), DropReason::PolicyDenied, TOMBSTONED)
            .age(6)
            .packet(Sent::from_pod(&API, t.udp_back()), DropReason::PolicyDenied,
                &[("rule 95", 1), ("drop 133", 1), ("dropped", 1)])
    }

    /// 11: judging again demands a proxy that the connection does not have: it ends.
    fn dp11_a_proxy_is_demanded(f) {
        let t = talk(f, WEB.place, API.place);
        opened(Case::new(World::open()), &t, &WEB, &API)
            .change(|world| demand_proxy(world, 7))
            .packet(Sent::from_pod(&WEB, t.out(DATA)), DropReason::ProxyMissing,
                &[("rule 0", 1), ("rule 91", 1), ("drop 1015", 1), ("dropped", 1), ("tombstones", 1)])
            .packet(Sent::from_pod(&API, t.back(DATA)), DropReason::ProxyMissing,
                &[("drop 1015", 1), ("dropped", 1)])
    }

    /// 11: a new connection that must go through a proxy is never waved past it.
    fn dp11_a_new_connection_without_its_proxy(f) {
        let t = talk(f, WEB.place, API.place);
        let mut world = World::open();
        demand_proxy(&mut world, 7);
        Case::new(world).packet(Sent::from_pod(&WEB, t.out(tcp::SYN)), DropReason::ProxyMissing,
            &[("rule 0", 1), ("rule 91", 1), ("drop 1015", 1), ("dropped", 1)])
    }

    /// 11: a connection that has its proxy keeps it until it closes, also when none is demanded any more.
    fn dp11_proxied_until_it_closes(f) {
        let t = talk(f, WEB.place, API.place);
        opened(Case::new(World::open()), &t, &WEB, &API)
            .change(|world| {
                for entry in world.maps.connections.borrow_mut().values_mut() {
                    *entry = std::rc::Rc::new(crate::abi::CtEntry { listener: 7, ..(**entry).clone() });
                }
                world.raise_epoch(&API);
            })
            .packet(Sent::from_pod(&WEB, t.out(DATA)), Expected::Pod(&API), &[("rule 0", 2), ("packets", 1)])
            .look(|maps| assert!(maps.connections.borrow().values().all(|entry| entry.listener == 7)))
    }

    /// 9: an entry that is written anew keeps what it has counted, and its flags.
    fn dp09_counters_survive(f) {
        let t = talk(f, WEB.place, API.place);
        opened(Case::new(World::open()), &t, &WEB, &API)
            .change(|world| world.raise_epoch(&WEB))
            .packet(Sent::from_pod(&WEB, t.out(DATA)), Expected::Pod(&API), &[("rule 0", 2), ("packets", 1)])
            .look(|maps| {
                let connections = maps.connections.borrow();
                let packets: u64 = connections.values().flat_map(|e| &e.halves).map(|h| h.packets.get()).sum();
                assert_eq!(packets, 6);
            })
    }
}

/// A rule that wants API's traffic in a proxy.
fn demand_proxy(world: &mut World, listener: u16) {
    world.default_deny(&API, INGRESS, 90);
    world.allow(&API, INGRESS, 0, Some((6, None)), 91);
    if let Some(table) = world.maps.policy.get_mut(&API.id) {
        for entry in table.values_mut().filter(|entry| entry.cookie == 91) {
            entry.listener = listener;
        }
    }
}
