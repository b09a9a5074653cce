//! ICMP errors: datapath.md 14. An error passes only for a tracked connection whose packet its receiver sent.

use super::cases;
use super::talk::{DATA, opened, talk, time_exceeded, unreachable};
use crate::abi::policy::direction::{EGRESS, INGRESS};
use crate::drop::DropReason;
use crate::host::world::{API, Family, NODE, OTHER_NODE, REMOTE, ROUTER, Sent, UNDERLAY, WEB, WORLD, World};
use crate::host::{Case, Counts, Expected};
use crate::parse::tcp;

const NEW: Counts = &[("rule 0", 2), ("new", 1), ("any", 1), ("packets", 1)];
const NEW_OUT: Counts = &[("rule 0", 1), ("new", 1), ("any", 1), ("packets", 1)];
const UNRELATED: Counts = &[("drop 1010", 1), ("dropped", 1)];

fn to_remote(f: Family) -> Expected {
    Expected::Forward(UNDERLAY, OTHER_NODE.ip(f).into())
}

cases! {
    /// 14: the responder's error about a packet that it got passes back, and changes nothing.
    fn dp14_error_of_the_responder(f) {
        let t = talk(f, WEB.place, API.place);
        let about = t.udp();
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, about.clone()), Expected::Pod(&API), NEW)
            .packet(Sent::from_pod(&API, unreachable(API.place.ip(f), WEB.place.ip(f), &about)),
                Expected::Pod(&WEB), &[])
    }

    /// 14: the initiator's error about an answer passes too.
    fn dp14_error_of_the_initiator(f) {
        let t = talk(f, WEB.place, API.place);
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, t.udp()), Expected::Pod(&API), NEW)
            .packet(Sent::from_pod(&WEB, unreachable(WEB.place.ip(f), API.place.ip(f), &t.udp_back())),
                Expected::Pod(&API), &[])
    }

    /// 14: an error whose quotation nobody sent drops by name.
    fn dp14_unrelated(f) {
        let t = talk(f, WEB.place, API.place);
        Case::new(World::open())
            .packet(Sent::from_pod(&API, unreachable(API.place.ip(f), WEB.place.ip(f), &t.udp())),
                DropReason::UnrelatedIcmpError, UNRELATED)
    }

    /// 14: a pod can't send errors about packets that did not go to it.
    fn dp14_a_pod_vouches_for_itself_alone(f) {
        let t = talk(f, WEB.place, REMOTE);
        let about = t.udp();
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, about.clone()), to_remote(f), NEW_OUT)
            .packet(Sent::from_pod(&API, unreachable(API.place.ip(f), WEB.place.ip(f), &about)),
                DropReason::UnrelatedIcmpError, UNRELATED)
    }

    /// 14: what one pod of the node sends another has met no router: an error about it doesn't come from the wire.
    fn dp14_error_from_the_wire_about_what_never_left(f) {
        let about = talk(f, WEB.place, API.place).udp();
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, about.clone()), Expected::Pod(&API),
                &[("rule 0", 2), ("new", 1), ("any", 1), ("packets", 1)])
            .packet(Sent::from_net(unreachable(WORLD.ip(f), WEB.place.ip(f), &about)),
                DropReason::UnrelatedIcmpError, UNRELATED)
            // Its receiver may say so.
            .packet(Sent::from_pod(&API, unreachable(API.place.ip(f), WEB.place.ip(f), &about)),
                Expected::Pod(&WEB), &[])
    }

    /// 14: nor has what a pod sends its own node, and nothing on the wire comes from the node itself. The node's own error
    /// takes its stack.
    fn dp14_error_from_the_wire_about_the_node(f) {
        let t = talk(f, WEB.place, NODE);
        let about = t.udp();
        let elsewhere = talk(f, WEB.place, REMOTE).udp();
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, about.clone()), Expected::Stack, NEW_OUT)
            .packet(Sent::from_net(unreachable(ROUTER.ip(f), WEB.place.ip(f), &about)),
                DropReason::UnrelatedIcmpError, UNRELATED)
            .packet(Sent::to_pod(&WEB, 0, unreachable(NODE.ip(f), WEB.place.ip(f), &about)), Expected::Stack, &[])
            .packet(Sent::from_pod(&WEB, elsewhere.clone()), to_remote(f), NEW_OUT)
            .packet(Sent::from_net(unreachable(NODE.ip(f), WEB.place.ip(f), &elsewhere)),
                DropReason::SpoofedLocalSource, &[("drop 1012", 1), ("dropped", 1)])
            .packet(Sent::from_net(unreachable(ROUTER.ip(f), WEB.place.ip(f), &elsewhere)), Expected::Pod(&WEB), &[])
    }

    /// 14: the error is for whoever sent the quoted packet: to anybody else it drops.
    fn dp14_for_the_sender_of_the_quoted_packet_alone(f) {
        let t = talk(f, WEB.place, REMOTE);
        let about = t.udp();
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, about.clone()), to_remote(f), NEW_OUT)
            .packet(Sent::from_net(unreachable(REMOTE.ip(f), API.place.ip(f), &about)),
                DropReason::UnrelatedIcmpError, UNRELATED)
    }

    /// 14: a router on the way reports about a tracked connection, although it is no end of it.
    fn dp14_error_of_a_router_from_the_wire(f) {
        let t = talk(f, WEB.place, REMOTE);
        let about = t.udp();
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, about.clone()), to_remote(f), NEW_OUT)
            .packet(Sent::from_net(time_exceeded(ROUTER.ip(f), WEB.place.ip(f), &about)),
                Expected::Pod(&WEB), &[])
            .packet(Sent::from_net(time_exceeded(ROUTER.ip(f), WEB.place.ip(f), &t.udp_back())),
                DropReason::UnrelatedIcmpError, UNRELATED)
    }

    /// 14: and so does the node itself, through the pod's own hook.
    fn dp14_error_of_the_node(f) {
        let t = talk(f, WEB.place, WORLD);
        let about = t.udp();
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, about.clone()), Expected::Stack, NEW_OUT)
            .packet(Sent::to_pod(&WEB, 0, time_exceeded(NODE.ip(f), WEB.place.ip(f), &about)), Expected::Stack, &[])
            .packet(Sent::to_pod(&WEB, UNDERLAY, time_exceeded(ROUTER.ip(f), WEB.place.ip(f), &about)),
                Expected::Stack, &[])
    }

    /// 14: an error about an echo finds the echo's connection.
    fn dp14_error_about_an_echo(f) {
        let t = talk(f, WEB.place, REMOTE);
        let about = t.echo(7);
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, about.clone()), to_remote(f), NEW_OUT)
            .packet(Sent::from_net(unreachable(ROUTER.ip(f), WEB.place.ip(f), &about)), Expected::Pod(&WEB), &[])
            .packet(Sent::from_net(unreachable(ROUTER.ip(f), WEB.place.ip(f), &t.echo(8))),
                DropReason::UnrelatedIcmpError, UNRELATED)
    }

    /// 14: an error about a denied connection drops, for the reason that the connection drops for.
    fn dp14_error_about_a_tombstone(f) {
        let t = talk(f, WEB.place, API.place);
        opened(Case::new(World::open()), &t, &WEB, &API)
            .change(|world| world.default_deny(&API, INGRESS, 90))
            .packet(Sent::from_pod(&WEB, t.out(DATA)), DropReason::PolicyDenied,
                &[("rule 0", 1), ("rule 90", 1), ("drop 133", 1), ("dropped", 1), ("tombstones", 1)])
            .packet(Sent::from_pod(&API, unreachable(API.place.ip(f), WEB.place.ip(f), &t.out(DATA))),
                DropReason::PolicyDenied, &[("drop 133", 1), ("dropped", 1)])
    }

    /// 14, 9 first: under a stale stamp the connection is judged; refused, the error drops, and the entry stays as it is
    /// for the connection's own next packet.
    fn dp14_error_under_a_stale_stamp_changes_nothing(f) {
        let t = talk(f, WEB.place, API.place);
        let error = unreachable(API.place.ip(f), WEB.place.ip(f), &t.udp());
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, t.udp()), Expected::Pod(&API), NEW)
            .change(|world| world.raise_epoch(&API))
            .packet(Sent::from_pod(&API, error.clone()), Expected::Pod(&WEB), &[("rule 0", 2)])
            .packet(Sent::from_pod(&WEB, t.udp()), Expected::Pod(&API), &[("rule 0", 2), ("packets", 1)])
            .change(|world| world.default_deny(&API, INGRESS, 90))
            .packet(Sent::from_pod(&API, error), DropReason::PolicyDenied,
                &[("rule 90", 1), ("drop 133", 1), ("dropped", 1)])
    }

    /// 14: an error does not keep a connection alive.
    fn dp14_error_does_not_refresh(f) {
        let t = talk(f, WEB.place, API.place);
        let error = unreachable(API.place.ip(f), WEB.place.ip(f), &t.udp());
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, t.udp()), Expected::Pod(&API), NEW)
            .age(100)
            .packet(Sent::from_pod(&API, error.clone()), Expected::Pod(&WEB), &[])
            .age(30)
            .packet(Sent::from_pod(&API, error), DropReason::UnrelatedIcmpError, UNRELATED)
    }

    /// 14: an echo reply that nobody asked for is judged as what it is, and opens no way for requests back.
    fn dp14_unasked_echo_reply(f) {
        let t = talk(f, WEB.place, API.place);
        let mut world = World::open();
        world.default_deny(&API, INGRESS, 90);
        Case::new(world)
            .packet(Sent::from_pod(&API, t.echo_reply(7)), Expected::Pod(&WEB), &[("rule 0", 2), ("new", 1)])
            .packet(Sent::from_pod(&WEB, t.echo(7)), DropReason::PolicyDenied,
                &[("rule 0", 1), ("rule 90", 1), ("drop 133", 1), ("dropped", 1)])
    }

    /// Policy names ICMP by type; a stale echo is judged as the request that it is, whoever sends and whatever its
    /// identifier: 65535 included, which other messages have in its place.
    fn dp09_echo_is_judged_by_its_type_in_both_directions(f) {
        let t = talk(f, WEB.place, API.place);
        let (number, request) = if f == Family::V4 { (1, 8) } else { (58, 128) };
        let mut world = World::open();
        world.default_deny(&WEB, EGRESS, 80);
        world.allow(&WEB, EGRESS, 0, Some((number, Some(request))), 81);
        Case::new(world)
            .packet(Sent::from_pod(&WEB, t.echo(0xffff)), Expected::Pod(&API),
                &[("rule 81", 1), ("rule 0", 1), ("new", 1), ("any", 1), ("packets", 1)])
            .change(|world| world.raise_epoch(&WEB))
            .packet(Sent::from_pod(&API, t.echo_reply(0xffff)), Expected::Pod(&WEB),
                &[("rule 81", 1), ("rule 0", 1), ("flags", 1), ("packets", 1)])
            .change(|world| world.raise_epoch(&WEB))
            // The error is the requester's, about the reply: its own egress of a request was judged, and is.
            .packet(Sent::from_pod(&WEB, unreachable(WEB.place.ip(f), API.place.ip(f), &t.echo_reply(0xffff))),
                Expected::Pod(&API), &[("rule 81", 1), ("rule 0", 1)])
            .packet(Sent::from_pod(&WEB, t.out(tcp::SYN)), DropReason::PolicyDenied,
                &[("rule 80", 1), ("drop 133", 1), ("dropped", 1)])
    }
}
