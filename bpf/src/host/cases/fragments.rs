//! Fragments: datapath.md 27.

use super::cases;
use super::talk::talk;
use crate::abi::policy::direction::INGRESS;
use crate::drop::DropReason;
use crate::host::world::{API, Family, REMOTE, Sent, WEB, World};
use crate::host::{Build, Case, Counts, Expected, Transport};
use crate::parse::tcp;

const FIRST: Counts = &[("rule 0", 2), ("new", 1), ("any", 1), ("packets", 1), ("fragments", 1)];
const LATER: Counts = &[("packets", 1)];
const NOT_FOUND: Counts = &[("drop 175", 1), ("dropped", 1)];

/// The parts of a datagram from WEB to API: 8 bytes of header and 16 of data, 24 more, the last 8.
fn parts(f: Family, id: u32) -> [Build; 3] {
    let datagram = talk(f, WEB.place, API.place).udp();
    [
        datagram.clone().payload([1; 16]).part(0, true, id),
        datagram.clone().payload([2; 24]).part(3, true, id),
        datagram.payload([3; 8]).part(6, false, id),
    ]
}

cases! {
    /// 27: later parts follow their first, in any order, and count for its connection.
    fn dp27_after_the_first_in_any_order(f) {
        let [first, middle, last] = parts(f, 77);
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, first), Expected::Pod(&API), FIRST)
            .packet(Sent::from_pod(&WEB, last), Expected::Pod(&API), LATER)
            .packet(Sent::from_pod(&WEB, middle), Expected::Pod(&API), LATER)
    }

    /// 27: a part that comes before its first drops by name.
    fn dp27_before_the_first(f) {
        let [first, middle, _] = parts(f, 77);
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, middle.clone()), DropReason::FragmentNotFound, NOT_FOUND)
            .packet(Sent::from_pod(&WEB, first), Expected::Pod(&API), FIRST)
            .packet(Sent::from_pod(&WEB, middle), Expected::Pod(&API), LATER)
    }

    /// 27: an extension header behind the fragment header is in the first part only; later ones name it all the same
    /// (RFC 8200 §4.5).
    fn dp27_extension_header_in_the_first_part(_f) {
        let t = talk(Family::V6, WEB.place, API.place);
        let options = [17, 0, 1, 4, 0, 0, 0, 0];
        let datagram = Build { transport: Transport::Raw(60), ..t.udp() };
        let first = [&options[..], &t.udp().payload([1; 16]).network()[40..]].concat();
        let later = datagram.clone().payload([2; 8]).part(4, false, 77);
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, later.clone()), DropReason::FragmentNotFound, NOT_FOUND)
            .packet(Sent::from_pod(&WEB, datagram.payload(first).part(0, true, 77)), Expected::Pod(&API), FIRST)
            .packet(Sent::from_pod(&WEB, later), Expected::Pod(&API), LATER)
    }

    /// 27: the key holds addresses, protocol (IPv4), identification and the endpoint that the parts came in by.
    fn dp27_parts_of_others(f) {
        let [first, ..] = parts(f, 77);
        let [_, other_id, _] = parts(f, 78);
        let [_, middle, _] = parts(f, 77);
        let from_elsewhere = Build { source: REMOTE.ip(f), ..middle.clone() };
        let other_protocol = Build {
            transport: Transport::Tcp { source: 1, destination: 2, flags: tcp::ACK }, ..middle.clone()
        };
        let back = Build { source: API.place.ip(f), destination: WEB.place.ip(f), ..middle.clone() };
        let case = Case::new(World::open()).packet(Sent::from_pod(&WEB, first), Expected::Pod(&API), FIRST);
        let case = match f {
            Family::V4 => case.packet(Sent::from_pod(&WEB, other_protocol), DropReason::FragmentNotFound, NOT_FOUND),
            // What a later part names there, nobody reads.
            Family::V6 => case.packet(Sent::from_pod(&WEB, other_protocol), Expected::Pod(&API), LATER),
        };
        case.packet(Sent::from_pod(&WEB, other_id), DropReason::FragmentNotFound, NOT_FOUND)
            .packet(Sent::from_pod(&API, back), DropReason::FragmentNotFound, NOT_FOUND)
            .packet(Sent::from_net(from_elsewhere), DropReason::FragmentNotFound, NOT_FOUND)
            .packet(Sent::to_pod(&API, WEB.ifindex, middle), DropReason::FragmentNotFound, NOT_FOUND)
    }

    /// 27: parts of what is refused are refused, each by the rule.
    fn dp27_parts_of_what_is_refused(f) {
        let [first, middle, _] = parts(f, 77);
        let mut world = World::open();
        world.default_deny(&API, INGRESS, 90);
        Case::new(world)
            .packet(Sent::from_pod(&WEB, first), DropReason::PolicyDenied,
                &[("rule 0", 1), ("rule 90", 1), ("drop 133", 1), ("dropped", 1), ("fragments", 1)])
            .packet(Sent::from_pod(&WEB, middle), DropReason::PolicyDenied,
                &[("rule 0", 1), ("rule 90", 1), ("drop 133", 1), ("dropped", 1)])
    }

    /// 27: a first part without a full transport header drops: ports or flags would follow where nobody looks.
    fn dp27_first_without_a_whole_header(f) {
        let udp = Build::new(WEB.place.ip(f), API.place.ip(f), Transport::Raw(17)).payload([0; 4]).part(0, true, 7);
        let tcp = Build::new(WEB.place.ip(f), API.place.ip(f), Transport::Raw(6)).payload([0; 16]).part(0, true, 7);
        let counts: Counts = &[("drop 1009", 1), ("dropped", 1)];
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, udp), DropReason::TinyFragment, counts)
            .packet(Sent::from_pod(&WEB, tcp), DropReason::TinyFragment, counts)
    }

    /// 27: a TCP part at offset 1 would overwrite the flags (RFC 3128).
    fn dp27_tcp_at_offset_one(f) {
        let t = talk(f, WEB.place, API.place);
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, t.out(tcp::ACK).payload([0; 16]).part(0, true, 9)), Expected::Pod(&API),
                &[("rule 0", 2), ("new", 1), ("opening", 1), ("packets", 1), ("fragments", 1)])
            .packet(Sent::from_pod(&WEB, t.out(tcp::ACK).payload([0; 16]).part(1, false, 9)),
                DropReason::TinyFragment, &[("drop 1009", 1), ("dropped", 1)])
    }

    /// 27: so does one whose first has not been seen; and one of a protocol that policy has no words for is no part of
    /// anything.
    fn dp27_refused_whatever_was_first(f) {
        let t = talk(f, WEB.place, API.place);
        let raw = Build::new(WEB.place.ip(f), API.place.ip(f), Transport::Raw(47)).payload([0; 16]);
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, t.out(tcp::ACK).payload([0; 16]).part(1, false, 9)),
                DropReason::TinyFragment, &[("drop 1009", 1), ("dropped", 1)])
            .packet(Sent::from_pod(&WEB, raw.part(3, false, 9)), DropReason::UnknownL4,
                &[("drop 142", 1), ("dropped", 1)])
    }

    /// 27: a first part leaves its ports for the others only if its source is the pod's own.
    fn dp27_a_spoofed_first_part_leaves_nothing(f) {
        let t = talk(f, API.place, REMOTE);
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, t.udp().payload([1; 16]).part(0, true, 9)), DropReason::InvalidSourceIp,
                &[("drop 132", 1), ("dropped", 1)])
    }

    /// 27: parts of an echo request find its connection.
    fn dp27_echo(f) {
        let t = talk(f, WEB.place, API.place);
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, t.echo(7).payload([1; 16]).part(0, true, 9)), Expected::Pod(&API), FIRST)
            .packet(Sent::from_pod(&WEB, t.echo(7).payload([1; 16]).part(3, false, 9)), Expected::Pod(&API), LATER)
    }

    /// 27: a datagram in one part with a fragment header is whole (RFC 6946).
    fn dp27_atomic(f) {
        let packet = talk(f, WEB.place, API.place).udp().part(0, false, 5);
        Case::new(World::open()).packet(Sent::from_pod(&WEB, packet), Expected::Pod(&API),
            &[("rule 0", 2), ("new", 1), ("any", 1), ("packets", 1)])
    }
}
