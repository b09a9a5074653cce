//! Where allowed packets go: datapath.md 19–23.

use super::cases;
use super::talk::{DATA, SYN_ACK, opened, talk};
use crate::abi::conntrack::flag;
use crate::abi::policy::direction::EGRESS;
use crate::abi::{EndpointEntry, IpcacheEntry, endpoint, event, ipcache};
use crate::drop::DropReason;
use crate::host::world::{
    API, Family, NODE, OTHER_NODE, Pod, REMOTE, REMOTE_IDENTITY, Sent, UNDERLAY, WEB, WORLD, World,
    endpoint_of,
};
use crate::host::{Case, Counts, Expected};
use crate::identity::reserved;
use crate::packet::Route;
use crate::parse::tcp;

const NEW: Counts = &[("rule 0", 2), ("new", 1), ("any", 1), ("packets", 1)];
const NEW_OUT: Counts = &[("rule 0", 1), ("new", 1), ("any", 1), ("packets", 1)];

fn to_remote(f: Family) -> Expected {
    Expected::Forward(UNDERLAY, OTHER_NODE.ip(f).into())
}

fn no_flag(case: Case) -> Case {
    case.look(|maps| {
        let connections = maps.connections.borrow();
        assert!(connections.values().all(|entry| entry.flags & flag::VIA_STACK == 0), "{connections:?}");
    })
}

/// A pod behind somebody else's queue.
fn shaped(pod: &Pod) -> World {
    let mut world = World::open();
    let entry = EndpointEntry { flags: endpoint::flag::VIA_STACK, ..endpoint_of(pod) };
    world.maps.interfaces.insert(pod.ifindex, entry);
    for family in Family::BOTH {
        world.maps.endpoints.insert(pod.place.ip(family).into(), entry);
    }
    world
}

cases! {
    /// 19: same node, over to the pod: the pair's MACs, one off the hop limit, a right header checksum, no mark.
    fn dp19_over_to_the_pod(f) {
        let t = talk(f, WEB.place, API.place);
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, t.udp()).marked(), Expected::Pod(&API), NEW)
            .packet(Sent::from_pod(&WEB, t.udp().hop_limit(2)), Expected::Pod(&API), &[("packets", 1)])
            .packet(Sent::from_net(talk(f, REMOTE, API.place).udp()), Expected::Pod(&API), NEW_OUT)
    }

    /// 20: a hop limit that ends here goes to the stack, which answers.
    fn dp20_hop_limit(f) {
        let mut case = Case::new(World::open());
        for (index, hop_limit) in [1, 0].into_iter().enumerate() {
            let first = index == 0;
            let local = talk(f, WEB.place, API.place).udp().hop_limit(hop_limit);
            case = case.packet(Sent::from_pod(&WEB, local), Expected::Stack, if first { NEW } else { &[("packets", 1)] });
            let remote = talk(f, WEB.place, REMOTE).udp().hop_limit(hop_limit);
            case = case.packet(Sent::from_pod(&WEB, remote), Expected::Stack,
                if first { NEW_OUT } else { &[("packets", 1)] });
            let wire = talk(f, REMOTE, API.place).udp().hop_limit(hop_limit);
            case = case.packet(Sent::from_net(wire), Expected::Stack, if first { NEW_OUT } else { &[("packets", 1)] });
        }
        case
    }

    /// 20: off the node by what routing says: device and next hop.
    fn dp20_forwarded_by_routing(f) {
        let t = talk(f, WEB.place, REMOTE);
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, t.udp()), to_remote(f), NEW_OUT)
            .event(|record| assert_eq!(record.point, event::point::TO_NETWORK))
            .packet(Sent::from_pod(&WEB, talk(f, WEB.place, OTHER_NODE).udp()), to_remote(f), NEW_OUT)
    }

    /// 20: what routing doesn't forward goes to the stack.
    fn dp20_not_forwarded(f) {
        let t = talk(f, WEB.place, REMOTE);
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, t.udp()), to_remote(f), NEW_OUT)
            .change(move |world| { world.routes.insert(REMOTE.ip(f).into(), Route::None); })
            .packet(Sent::from_pod(&WEB, t.udp()), Expected::Stack, &[("packets", 1)])
    }

    /// 20: the path's MTU is compared with a segment, not with the burst that it comes in.
    fn dp20_segments_are_compared_with_the_mtu(f) {
        let t = talk(f, WEB.place, REMOTE);
        let headers = if f == Family::V4 { 40 } else { 60 };
        let case = Case::new(World::open())
            .change(move |world| world.mtu(REMOTE.ip(f), 1280))
            .packet(Sent::from_pod(&WEB, t.out(DATA).payload([1; 2000])).gso(2, 1280 - headers), to_remote(f),
                &[("rule 0", 1), ("new", 1), ("opening", 1), ("packets", 2)])
            .packet(Sent::from_pod(&WEB, t.out(DATA).payload([1; 2000])).gso(2, 1281 - headers), Expected::Stack,
                &[("packets", 2)]);
        // UDP segments repeat 8 bytes of header each.
        let headers = headers - 12;
        let whole = usize::try_from(1280 - headers).unwrap_or_default();
        case.packet(Sent::from_pod(&WEB, t.udp().payload([1; 2400])).gso(2, 1280 - headers), to_remote(f),
                &[("rule 0", 1), ("new", 1), ("any", 1), ("packets", 2)])
            .packet(Sent::from_pod(&WEB, t.udp().payload([1; 2400])).gso(2, 1281 - headers), Expected::Stack,
                &[("packets", 2)])
            // Not a burst: all of it.
            .packet(Sent::from_pod(&WEB, t.udp().payload(std::vec![1; whole])), to_remote(f), &[("packets", 1)])
            .packet(Sent::from_pod(&WEB, t.udp().payload(std::vec![1; whole + 1])), Expected::Stack, &[("packets", 1)])
    }

    /// 20: a destination in no known range is the stack's, which may masquerade it.
    fn dp20_the_world_is_the_stacks(f) {
        let t = talk(f, WEB.place, WORLD);
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, t.out(tcp::SYN)), Expected::Stack,
                &[("rule 0", 1), ("new", 1), ("opening", 1), ("packets", 1)])
            .event(|record| assert_eq!(record.point, event::point::TO_STACK))
    }

    /// 20: the node's own addresses are the stack's.
    fn dp20_the_node_is_the_stacks(f) {
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, talk(f, WEB.place, NODE).udp()), Expected::Stack, NEW_OUT)
    }

    /// 21: a connection first seen in `to_pod` came through the host's stack; its replies go there.
    fn dp21_replies_of_what_came_through_the_stack(f) {
        let t = talk(f, WORLD, WEB.place);
        Case::new(World::open())
            .packet(Sent::to_pod(&WEB, UNDERLAY, t.out(tcp::SYN)), Expected::Stack,
                &[("rule 0", 1), ("new", 1), ("opening", 1), ("packets", 1)])
            .look(|maps| {
                assert!(maps.connections.borrow().values().all(|entry| entry.flags & flag::VIA_STACK != 0));
            })
            .packet(Sent::from_pod(&WEB, t.back(SYN_ACK)), Expected::Answer, &[("flags", 1), ("packets", 1)])
    }

    /// 21: also where a pod of the same node is behind the host's NAT, whose reply a short cut would deliver untranslated.
    fn dp21_replies_to_a_local_pod_through_the_stack(f) {
        let t = talk(f, API.place, WEB.place);
        Case::new(World::open())
            .packet(Sent::to_pod(&WEB, API.ifindex, t.out(tcp::SYN)), Expected::Stack,
                &[("rule 0", 2), ("new", 1), ("opening", 1), ("packets", 1)])
            .packet(Sent::from_pod(&WEB, t.back(SYN_ACK)), Expected::Answer, &[("flags", 1), ("packets", 1)])
    }

    /// 21: what left by a short cut is not flagged by the replies that reach it through the stack, nor when these are
    /// judged again, nor by a SYN of the other end that changes nothing.
    fn dp21_own_connections_are_not_flagged(f) {
        let t = talk(f, WEB.place, REMOTE);
        let case = Case::new(World::open())
            .packet(Sent::from_pod(&WEB, t.out(tcp::SYN)), to_remote(f),
                &[("rule 0", 1), ("new", 1), ("opening", 1), ("packets", 1)])
            .packet(Sent::to_pod(&WEB, UNDERLAY, t.back(SYN_ACK)), Expected::Stack, &[("flags", 1), ("packets", 1)])
            .packet(Sent::from_pod(&WEB, t.out(tcp::ACK)), to_remote(f),
                &[("packets", 1), ("opening", -1), ("tcp", 1)])
            .change(|world| world.raise_epoch(&WEB))
            .packet(Sent::to_pod(&WEB, UNDERLAY, t.back(tcp::ACK)), Expected::Stack, &[("rule 0", 1), ("packets", 1)])
            .packet(Sent::to_pod(&WEB, UNDERLAY, t.back(tcp::SYN)), Expected::Stack, &[("rule 0", 1)]);
        no_flag(case)
    }

    /// 21: what left through the stack comes back through it, where the host keeps track of both directions; the hook in
    /// front of the pod judges and counts it, once.
    fn dp21_answers_to_what_left_through_the_stack(f) {
        let t = talk(f, WEB.place, WORLD);
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, t.out(tcp::SYN)), Expected::Stack,
                &[("rule 0", 1), ("new", 1), ("opening", 1), ("packets", 1)])
            .packet(Sent::from_net(t.back(SYN_ACK)), Expected::Stack, &[])
            .packet(Sent::to_pod(&WEB, UNDERLAY, t.back(SYN_ACK)), Expected::Stack, &[("flags", 1), ("packets", 1)])
            .change(|world| world.default_deny(&WEB, EGRESS, 95))
            .packet(Sent::from_net(t.back(SYN_ACK)), Expected::Stack, &[])
            .packet(Sent::to_pod(&WEB, UNDERLAY, t.back(tcp::ACK)), DropReason::PolicyDenied,
                &[("rule 95", 1), ("drop 133", 1), ("dropped", 1), ("tombstones", 1)])
    }

    /// 21: the same for what comes from outside the cluster: the host sees the first packet, and the answers.
    fn dp21_from_outside_the_cluster(f) {
        let t = talk(f, WORLD, API.place);
        Case::new(World::open())
            .packet(Sent::from_net(t.out(tcp::SYN)), Expected::Stack, &[])
            .packet(Sent::to_pod(&API, UNDERLAY, t.out(tcp::SYN)), Expected::Stack,
                &[("rule 0", 1), ("new", 1), ("opening", 1), ("packets", 1)])
            .packet(Sent::from_pod(&API, t.back(SYN_ACK)), Expected::Answer, &[("flags", 1), ("packets", 1)])
            .packet(Sent::from_net(t.out(tcp::ACK)), Expected::Stack, &[])
            .packet(Sent::to_pod(&API, UNDERLAY, t.out(tcp::ACK)), Expected::Stack,
                &[("packets", 1), ("opening", -1), ("tcp", 1)])
    }

    /// 30: a tagged frame is its VLAN device's.
    fn dp30_a_tagged_frame_is_the_vlan_devices(f) host only "a test run of the kernel sets no VLAN" {
        let mut sent = Sent::from_net(talk(f, REMOTE, API.place).udp());
        sent.packet.vlan_tagged = true;
        Case::new(World::open()).packet(sent, Expected::Stack, &[])
    }

    /// 24: from the wire the node's own address is spoofed, also where a pod talks with the node: the host's stack would
    /// let it pass over IPv6, and in front of the pod it would be an answer of the node's.
    fn dp24_a_spoofed_answer_of_the_node(f) {
        let t = talk(f, WEB.place, NODE);
        let counts: Counts = &[("drop 1012", 1), ("dropped", 1)];
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, t.udp()), Expected::Stack, NEW_OUT)
            .packet(Sent::from_net(t.udp_back()), DropReason::SpoofedLocalSource, counts)
            .packet(Sent::to_pod(&WEB, 0, t.udp_back()), Expected::Stack, &[("flags", 1), ("packets", 1)])
    }

    /// 24: where that address has moved to another node meanwhile, the connection is judged again by who has it now.
    fn dp24_an_address_that_left_the_node(f) {
        let t = talk(f, WEB.place, NODE);
        let moved = move |world: &mut World| {
            let entry = IpcacheEntry { identity: reserved::REMOTE_NODE, flags: ipcache::flag::REMOTE_NODE, ..IpcacheEntry::default() };
            world.maps.ipcache.insert(NODE.ip(f).into(), entry);
            world.raise_generation();
        };
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, t.udp()), Expected::Stack, NEW_OUT)
            .change(moved)
            .packet(Sent::from_net(t.udp_back()), Expected::Stack, &[])
            .packet(Sent::to_pod(&WEB, UNDERLAY, t.udp_back()), Expected::Stack, &[("rule 0", 1), ("flags", 1), ("packets", 1)])
    }

    /// 30: a frame that is for another host, or for a group, is none of the node's, whatever address is inside: a switch
    /// floods what it has not learnt, and a device may be promiscuous.
    fn dp30_a_frame_for_others(f) {
        let mut case = Case::new(World::open());
        for mac in [[0x0c, 0, 0, 0, 2, 9], [0xff; 6], [0x33, 0x33, 0, 0, 0, 1]] {
            let mut sent = Sent::from_net(talk(f, REMOTE, API.place).udp());
            sent.packet.bytes[..6].copy_from_slice(&mac);
            sent.packet.for_others = true;
            case = case.packet(sent, Expected::Stack, &[]);
        }
        case.packet(Sent::from_net(talk(f, REMOTE, API.place).udp()), Expected::Pod(&API), NEW_OUT)
    }

    /// 21: an endpoint whose traffic is shaped on the host's side gets and sends it through the stack, each packet counted
    /// once.
    fn dp21_forced_through_the_stack(f) {
        let t = talk(f, WEB.place, API.place);
        let out = talk(f, API.place, REMOTE);
        Case::new(shaped(&API))
            .packet(Sent::from_pod(&WEB, t.udp()), Expected::Stack, &[("rule 0", 2), ("new", 1), ("any", 1)])
            .packet(Sent::to_pod(&API, WEB.ifindex, t.udp()), Expected::Stack, &[("packets", 1)])
            .packet(Sent::from_pod(&API, t.udp_back()), Expected::Answer, &[("flags", 1)])
            .packet(Sent::to_pod(&WEB, API.ifindex, t.udp_back()), Expected::Stack, &[("packets", 1)])
            .packet(Sent::from_net(talk(f, REMOTE, API.place).udp()), Expected::Stack,
                &[("rule 0", 1), ("new", 1), ("any", 1)])
            .packet(Sent::to_pod(&API, UNDERLAY, talk(f, REMOTE, API.place).udp()), Expected::Stack, &[("packets", 1)])
            .packet(Sent::from_pod(&API, out.udp()), Expected::Stack, NEW_OUT)
            .packet(Sent::leaving(&API, out.udp()), Expected::Stack, &[])
    }

    /// 21: what the host's NAT makes of a pod's packet is judged where it leaves the node, by whom it goes to then; the
    /// answers go through the stack, which translates them back. The hooks in front of the pod count what the pod sees.
    fn dp21_translated_on_its_way_out(f) {
        let (service, backend) = (talk(f, WEB.place, WORLD), talk(f, WEB.place, REMOTE));
        let new: Counts = &[("rule 0", 1), ("new", 1), ("opening", 1), ("packets", 1)];
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, service.out(tcp::SYN)), Expected::Stack, new)
            .packet(Sent::leaving(&WEB, backend.out(tcp::SYN)), Expected::Stack, new)
            .event(|record| {
                assert_eq!(record.point, event::point::TO_NETWORK);
                assert_eq!(record.destination_identity, REMOTE_IDENTITY);
            })
            .packet(Sent::from_net(backend.back(SYN_ACK)), Expected::Stack, &[("flags", 1), ("packets", 1)])
            .packet(Sent::to_pod(&WEB, UNDERLAY, service.back(SYN_ACK)), Expected::Stack, &[("flags", 1), ("packets", 1)])
            .packet(Sent::from_pod(&WEB, service.out(tcp::ACK)), Expected::Stack,
                &[("packets", 1), ("opening", -1), ("tcp", 1)])
            .packet(Sent::leaving(&WEB, backend.out(tcp::ACK)), Expected::Stack,
                &[("packets", 1), ("opening", -1), ("tcp", 1)])
            .change(move |world| {
                world.default_deny(&WEB, EGRESS, 95);
                world.allow(&WEB, EGRESS, if f == Family::V4 { 9 } else { 10 }, None, 96);
            })
            .packet(Sent::from_pod(&WEB, service.out(DATA)), Expected::Stack, &[("rule 96", 1), ("new", 1), ("packets", 1)])
            .packet(Sent::leaving(&WEB, backend.out(DATA)), DropReason::PolicyDenied,
                &[("rule 95", 1), ("drop 133", 1), ("dropped", 1), ("tombstones", 1)])
            .packet(Sent::from_net(backend.back(DATA)), DropReason::PolicyDenied, &[("drop 133", 1), ("dropped", 1)])
    }

    /// 21: who may talk to the world gets no further by the host's NAT.
    fn dp21_translated_to_whom_policy_refuses(f) {
        let mut world = World::open();
        world.default_deny(&WEB, EGRESS, 95);
        world.allow(&WEB, EGRESS, if f == Family::V4 { 9 } else { 10 }, None, 96);
        Case::new(world)
            .packet(Sent::from_pod(&WEB, talk(f, WEB.place, WORLD).out(tcp::SYN)), Expected::Stack,
                &[("rule 96", 1), ("new", 1), ("opening", 1), ("packets", 1)])
            .packet(Sent::leaving(&WEB, talk(f, WEB.place, REMOTE).out(tcp::SYN)), DropReason::PolicyDenied,
                &[("rule 95", 1), ("drop 133", 1), ("dropped", 1)])
            .event(|record| {
                assert_eq!(record.flags & event::flag::EGRESS_JUDGED, event::flag::EGRESS_JUDGED);
                assert_eq!(record.endpoint, WEB.id as u16);
            })
    }

    /// 21: what leaves through the stack as the pod sent it was judged and counted by the pod's own hook.
    fn dp21_untranslated_on_its_way_out(f) {
        let t = talk(f, WEB.place, WORLD);
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, t.out(tcp::SYN)), Expected::Stack,
                &[("rule 0", 1), ("new", 1), ("opening", 1), ("packets", 1)])
            .packet(Sent::leaving(&WEB, t.out(tcp::SYN)), Expected::Stack, &[])
            .packet(Sent::to_pod(&WEB, UNDERLAY, t.back(SYN_ACK)), Expected::Stack, &[("flags", 1), ("packets", 1)])
            .packet(Sent::from_pod(&WEB, t.out(tcp::ACK)), Expected::Stack, &[("packets", 1), ("opening", -1), ("tcp", 1)])
            .packet(Sent::leaving(&WEB, t.out(tcp::ACK)), Expected::Stack, &[])
            // Behind the node's address it is not the pod's any more.
            .packet(Sent::leaving(&WEB, talk(f, NODE, WORLD).out(tcp::SYN)), Expected::Stack, &[])
            // From another pod's device it is a forgery of somebody in the host's namespace.
            .packet(Sent::leaving(&API, t.out(tcp::SYN)), Expected::Stack, &[])
    }

    /// 21: whom the host's NAT hides behind the node's address gets the pod's answers, whatever the pod itself may begin.
    fn dp21_an_answer_to_whom_the_node_hides(f) {
        let t = talk(f, NODE, WEB.place);
        let mut world = World::open();
        world.default_deny(&WEB, EGRESS, 95);
        let behind = talk(f, WORLD, WEB.place);
        Case::new(world)
            .packet(Sent::to_pod(&WEB, UNDERLAY, t.udp()), Expected::Stack, NEW_OUT)
            .packet(Sent::from_pod(&WEB, t.udp_back()), Expected::Answer, &[("flags", 1), ("packets", 1)])
            .packet(Sent::leaving(&WEB, behind.udp_back()).answer(), Expected::Stack, &[])
            .packet(Sent::leaving(&WEB, behind.udp_back()), DropReason::PolicyDenied,
                &[("rule 95", 1), ("drop 133", 1), ("dropped", 1)])
    }

    /// 21: an IPv6 fragment that the kernel has cut anew has no device: it is known by its source.
    fn dp21_a_translated_fragment(f) host only "a test run of the kernel gives every packet a socket" {
        let mut world = World::open();
        world.default_deny(&WEB, EGRESS, 95);
        let mut part = Sent::to_net(talk(f, WEB.place, REMOTE).udp().part(0, true, 9)).orphan();
        if f == Family::V4 {
            part = Sent::leaving(&WEB, talk(f, WEB.place, REMOTE).udp().part(0, true, 9));
        }
        Case::new(world).packet(part, DropReason::PolicyDenied,
            &[("rule 95", 1), ("drop 133", 1), ("dropped", 1), ("fragments", 1)])
    }

    /// 21: a SYN of a translated connection on the tuple of the pod's own, which is open, is the translated one's.
    fn dp21_a_tuple_that_was_the_pods_own(f) {
        let t = talk(f, WEB.place, REMOTE);
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, t.out(tcp::SYN)), to_remote(f),
                &[("rule 0", 1), ("new", 1), ("opening", 1), ("packets", 1)])
            .packet(Sent::from_net(t.back(SYN_ACK)), Expected::Pod(&WEB), &[("flags", 1), ("packets", 1)])
            .packet(Sent::from_pod(&WEB, t.out(tcp::ACK)), to_remote(f),
                &[("packets", 1), ("opening", -1), ("tcp", 1)])
            .packet(Sent::leaving(&WEB, t.out(tcp::SYN)), Expected::Stack,
                &[("rule 0", 1), ("new", 1), ("opening", 1), ("tcp", -1), ("packets", -2)])
            .look(|maps| {
                let connections = maps.connections.borrow();
                assert!(connections.values().all(|entry| entry.flags == flag::VIA_STACK | flag::TRANSLATED));
            })
    }

    /// 20: an API server that is named by an address of no node is beyond the cluster: the host may masquerade what
    /// goes there.
    fn dp20_an_api_server_outside(f) {
        let mut world = World::open();
        world.maps.known.push(reserved::KUBE_APISERVER);
        let outside =
            IpcacheEntry { identity: reserved::KUBE_APISERVER, flags: ipcache::flag::OUTSIDE, ..IpcacheEntry::default() };
        world.maps.ipcache.insert(WORLD.ip(f).into(), outside);
        let t = talk(f, WEB.place, WORLD);
        Case::new(world)
            .packet(Sent::from_pod(&WEB, t.out(tcp::SYN)), Expected::Stack,
                &[("rule 0", 1), ("new", 1), ("opening", 1), ("packets", 1)])
            .event(|record| assert_eq!(record.destination_identity, reserved::KUBE_APISERVER))
            .look(|maps| assert!(maps.connections.borrow().values().all(|entry| entry.flags & flag::VIA_STACK != 0)))
            .packet(Sent::from_net(t.back(SYN_ACK)), Expected::Stack, &[])
            .packet(Sent::to_pod(&WEB, UNDERLAY, t.back(SYN_ACK)), Expected::Stack, &[("flags", 1), ("packets", 1)])
    }

    /// A pod's own connection to a pod elsewhere comes back over the wire, straight to the pod.
    fn dp19_replies_from_the_wire(f) {
        let t = talk(f, WEB.place, REMOTE);
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, t.out(tcp::SYN)), to_remote(f),
                &[("rule 0", 1), ("new", 1), ("opening", 1), ("packets", 1)])
            .packet(Sent::from_net(t.back(SYN_ACK)), Expected::Pod(&WEB), &[("flags", 1), ("packets", 1)])
            .packet(Sent::from_pod(&WEB, t.out(tcp::ACK)), to_remote(f),
                &[("packets", 1), ("opening", -1), ("tcp", 1)])
            .packet(Sent::from_net(t.back(DATA)), Expected::Pod(&WEB), &[("packets", 1)])
    }

    /// Bytes count from the network header on, as the packet has them: not what the wire filled a short frame up with.
    fn dp06_padding_is_not_counted(f) {
        let mut sent = Sent::from_net(talk(f, REMOTE, API.place).udp());
        sent.packet.bytes.resize(120, 0);
        Case::new(World::open()).packet(sent, Expected::Pod(&API), NEW_OUT)
    }

    /// What is not for a pod is none of `from_net`'s business: no counter, no event, malformed or not.
    fn dp19_the_hosts_own_traffic(f) {
        let mut broken = Sent::from_net(talk(f, WORLD, NODE).udp());
        broken.packet.bytes.truncate(20);
        Case::new(World::open())
            .packet(Sent::from_net(talk(f, WORLD, NODE).udp()), Expected::Stack, &[])
            .packet(Sent::from_net(talk(f, REMOTE, WORLD).udp()), Expected::Stack, &[])
            .packet(broken, Expected::Stack, &[])
            .packet(Sent::to_net(talk(f, WEB.place, WORLD).udp()), Expected::Stack, &[])
    }

    /// A pod gets nothing that is not addressed to it.
    fn dp21_to_pod_for_somebody_else(f) {
        Case::new(World::open()).packet(Sent::to_pod(&WEB, UNDERLAY, talk(f, WORLD, API.place).udp()),
            DropReason::UnknownDestination, &[("drop 1001", 1), ("dropped", 1)])
    }

    /// A connection between two pods stays redirected while it is open.
    fn dp19_open_connections(f) {
        no_flag(opened(Case::new(World::open()), &talk(f, API.place, WEB.place), &API, &WEB))
    }
}
