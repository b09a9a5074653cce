//! The overlay: datapath.md 24. A node's claim to an identity is checked, not trusted.

use super::cases;
use super::talk::{HTTP, SYN_ACK, talk, unreachable};
use crate::abi::event;
use crate::abi::policy::direction::EGRESS;
use crate::drop::DropReason;
use crate::host::world::{
    API, Family, Hook, NOBODY, NODE, NODE_DNS, OTHER_NODE, OVERLAY, REMOTE, REMOTE_IDENTITY, ROUTER, Sent,
    UNDERLAY, WEB, WORLD, World,
};
use crate::host::{Case, Counts, Expected, arp};
use crate::identity::reserved;
use crate::parse::tcp;
use crate::settings::TUNNEL_PORT;

const NEW_OUT: Counts = &[("rule 0", 1), ("new", 1), ("any", 1), ("packets", 1)];

fn outer() -> core::net::IpAddr {
    OTHER_NODE.ip(Family::V4)
}

fn tunnel(vni: u32) -> Expected {
    Expected::Tunnel(outer().into(), vni)
}

cases! {
    /// 24: to a pod and to a node elsewhere through the tunnel, with the pod's identity.
    fn dp24_into_the_tunnel(f) {
        let t = talk(f, WEB.place, REMOTE);
        Case::new(World::overlay())
            .packet(Sent::from_pod(&WEB, t.udp()), tunnel(WEB.identity), NEW_OUT)
            .event(|record| assert_eq!(record.point, event::point::TO_OVERLAY))
            .packet(Sent::from_pod(&WEB, talk(f, WEB.place, OTHER_NODE).udp()), tunnel(WEB.identity), NEW_OUT)
            .packet(Sent::from_pod(&WEB, t.udp().hop_limit(1)), Expected::Stack, &[("packets", 1)])
    }

    /// 23: what does not fit into the overlay goes to the stack, whose route has its MTU and which answers.
    fn dp23_too_big_for_the_overlay(f) {
        let t = talk(f, WEB.place, REMOTE);
        let headers = if f == Family::V4 { 28 } else { 48 };
        let mut world = World::overlay();
        world.settings.overlay_mtu = 1400;
        Case::new(world)
            .packet(Sent::from_pod(&WEB, t.udp().payload(std::vec![1; 1400 - headers])), tunnel(WEB.identity), NEW_OUT)
            .packet(Sent::from_pod(&WEB, t.udp().payload(std::vec![1; 1401 - headers])), Expected::Stack,
                &[("packets", 1)])
            .packet(Sent::from_pod(&WEB, t.udp().payload([1; 2000])).gso(2, 1000), tunnel(WEB.identity),
                &[("packets", 2)])
    }

    /// 24: only scope-0 identities travel; a number that means something on this node alone does not.
    fn dp24_scoped_identities_do_not_travel(f) {
        let mut world = World::overlay();
        let scoped = 1 << 24 | 9;
        world.maps.known.push(scoped);
        let entry = crate::abi::EndpointEntry { identity: scoped, ..crate::host::world::endpoint_of(&WEB) };
        world.maps.interfaces.insert(WEB.ifindex, entry);
        world.maps.endpoints.insert(WEB.place.ip(f).into(), entry);
        Case::new(world).packet(Sent::from_pod(&WEB, talk(f, WEB.place, REMOTE).udp()), DropReason::InvalidIdentity,
            &[("rule 0", 1), ("any", 1), ("packets", 1), ("drop 171", 1), ("dropped", 1)])
    }

    /// 24: from the tunnel with the claimed identity; the connection is judged by it, and comes back through the tunnel.
    fn dp24_out_of_the_tunnel(f) host only "a test run of the kernel has no tunnel key" {
        let t = talk(f, REMOTE, API.place);
        Case::new(World::overlay())
            .packet(Sent::from_overlay(outer(), REMOTE_IDENTITY, t.out(tcp::SYN)), Expected::Pod(&API),
                &[("rule 0", 1), ("new", 1), ("opening", 1), ("packets", 1)])
            .event(|record| assert_eq!(record.source_identity, REMOTE_IDENTITY))
            .packet(Sent::from_pod(&API, t.back(SYN_ACK)), tunnel(API.identity), &[("flags", 1), ("packets", 1)])
    }

    /// 24: unknown, host and init are no claim that a node can make.
    fn dp24_refused_claims(f) host only "a test run of the kernel has no tunnel key" {
        let mut case = Case::new(World::overlay());
        for vni in [0, 1, 5] {
            case = case.packet(Sent::from_overlay(outer(), vni, talk(f, REMOTE, API.place).udp()),
                DropReason::InvalidIdentity, &[("drop 171", 1), ("dropped", 1)]);
        }
        case
    }

    /// 24: a claim to an identity that the tables don't know drops by name.
    fn dp24_a_claim_to_an_unknown_identity(f) host only "a test run of the kernel has no tunnel key" {
        Case::new(World::overlay()).packet(Sent::from_overlay(outer(), 4242, talk(f, REMOTE, API.place).udp()),
            DropReason::InvalidIdentity, &[("drop 171", 1), ("dropped", 1)])
    }

    /// 24: the inner source must belong to the outer source's node.
    fn dp24_the_inner_source_belongs_to_the_outer_ones_node(f) host only "a test run of the kernel has no tunnel key" {
        let t = talk(f, REMOTE, API.place);
        Case::new(World::overlay())
            .packet(Sent::from_overlay(ROUTER.ip(Family::V4), REMOTE_IDENTITY, t.udp()),
                DropReason::TunnelSourceMismatch, &[("drop 1011", 1), ("dropped", 1)])
            .packet(Sent::from_overlay(outer(), REMOTE_IDENTITY, talk(f, NOBODY, API.place).udp()),
                DropReason::UnknownSender, &[("drop 172", 1), ("dropped", 1)])
            .packet(Sent::from_overlay(outer(), 9, talk(f, WORLD, API.place).udp()),
                DropReason::UnknownSender, &[("drop 172", 1), ("dropped", 1)])
    }

    /// 24: a source that is local to the receiver drops: a pod's, and the node's.
    fn dp24_local_sources_from_the_tunnel(f) host only "a test run of the kernel has no tunnel key" {
        let mut case = Case::new(World::overlay());
        for source in [WEB.place, NODE] {
            case = case.packet(Sent::from_overlay(outer(), REMOTE_IDENTITY, talk(f, source, API.place).udp()),
                DropReason::SpoofedLocalSource, &[("drop 1012", 1), ("dropped", 1)]);
        }
        case
    }

    /// 24: whoever is reached through the overlay comes through it: on the bare wire anybody could say to be him, of a new
    /// connection, of one that stands, and in an error about it.
    fn dp24_past_the_overlay(f) {
        let counts: Counts = &[("drop 1011", 1), ("dropped", 1)];
        let t = talk(f, WEB.place, REMOTE);
        Case::new(World::overlay())
            .packet(Sent::from_net(talk(f, REMOTE, API.place).out(tcp::SYN)), DropReason::TunnelSourceMismatch, counts)
            .packet(Sent::from_net(talk(f, OTHER_NODE, API.place).udp()), DropReason::TunnelSourceMismatch, counts)
            .packet(Sent::from_pod(&WEB, t.udp()), tunnel(WEB.identity), NEW_OUT)
            .packet(Sent::from_net(t.udp_back()), DropReason::TunnelSourceMismatch, counts)
            .packet(Sent::from_net(unreachable(ROUTER.ip(f), WEB.place.ip(f), &t.udp())),
                DropReason::TunnelSourceMismatch, counts)
            // Who is not behind the overlay is as without one.
            .packet(Sent::from_net(talk(f, WORLD, API.place).udp()), Expected::Stack, &[])
    }

    /// 24: and through the overlay it comes, an error too, also where its connection is judged again.
    fn dp24_answers_out_of_the_tunnel(f) host only "a test run of the kernel has no tunnel key" {
        let t = talk(f, WEB.place, REMOTE);
        let error = unreachable(REMOTE.ip(f), WEB.place.ip(f), &t.udp());
        Case::new(World::overlay())
            .packet(Sent::from_pod(&WEB, t.udp()), tunnel(WEB.identity), NEW_OUT)
            .packet(Sent::from_overlay(outer(), REMOTE_IDENTITY, t.udp_back()), Expected::Pod(&WEB),
                &[("flags", 1), ("packets", 1)])
            .packet(Sent::from_overlay(outer(), REMOTE_IDENTITY, error.clone()), Expected::Pod(&WEB), &[])
            .change(|world| world.raise_generation())
            .packet(Sent::from_overlay(outer(), REMOTE_IDENTITY, error), Expected::Pod(&WEB), &[("rule 0", 1)])
    }

    /// 24: what has no tunnel key did not come through a tunnel; ARP has no business in one.
    fn dp24_without_a_key(f) {
        let mut sent = Sent::from_overlay(outer(), REMOTE_IDENTITY, talk(f, REMOTE, API.place).udp());
        sent.packet.tunnel = None;
        let frame = arp(1, (WEB.mac, [10, 2, 0, 21]), ([0; 6], [10, 1, 0, 12]), WEB.mac);
        Case::new(World::overlay())
            .packet(sent, DropReason::TunnelSourceMismatch, &[("drop 1011", 1), ("dropped", 1)])
            .packet(Sent::raw(Hook::FromOverlay, OVERLAY, frame), DropReason::UnsupportedL3,
                &[("drop 139", 1), ("dropped", 1)])
    }

    /// 24: what is for the node itself goes to its stack.
    fn dp24_to_the_node(f) host only "a test run of the kernel has no tunnel key" {
        Case::new(World::overlay())
            .packet(Sent::from_overlay(outer(), REMOTE_IDENTITY, talk(f, REMOTE, NODE).udp()), Expected::Stack, &[])
    }

    /// 24: host travels as remote-node, everything else as world; the packets of pods come marked.
    fn dp24_what_the_host_sends(f) {
        let world = if f == Family::V4 { 9 } else { 10 };
        Case::new(World::overlay())
            .packet(Sent::to_overlay(0, talk(f, NODE, REMOTE).udp()), Expected::HostTunnel(outer().into(), 6), &[])
            .packet(Sent::to_overlay(UNDERLAY, talk(f, NODE, REMOTE).udp()),
                Expected::HostTunnel(outer().into(), world), &[])
            .packet(Sent::to_overlay(UNDERLAY, talk(f, WORLD, REMOTE).udp()),
                Expected::HostTunnel(outer().into(), world), &[])
            .packet(Sent::to_overlay(WEB.ifindex, talk(f, WEB.place, REMOTE).udp()).marked(), Expected::Stack, &[])
            .packet(Sent::to_overlay(API.ifindex, talk(f, WEB.place, REMOTE).udp()), DropReason::EncapProhibited,
                &[("drop 170", 1), ("dropped", 1)])
            .packet(Sent::to_overlay(0, talk(f, NODE, WORLD).udp()), DropReason::NoTunnelEndpoint,
                &[("drop 160", 1), ("dropped", 1)])
            .event(|record| assert_eq!(record.destination_port, HTTP.to_be(), "a drop is told with its ports"))
    }

    /// 24, 21: what a pod sends through the host's stack goes into the tunnel as the pod's, judged as it left the
    /// host's NAT: out of the overlay's device, and on the wire where a node is behind the overlay.
    fn dp24_a_pods_packet_out_of_the_stack(f) {
        let new: Counts = &[("rule 0", 1), ("new", 1), ("any", 1), ("packets", 1)];
        let t = talk(f, WEB.place, REMOTE);
        Case::new(World::overlay())
            .packet(Sent::to_overlay(WEB.ifindex, t.udp()), Expected::HostTunnel(outer().into(), WEB.identity), new)
            .packet(Sent::leaving(&WEB, talk(f, WEB.place, OTHER_NODE).udp()),
                Expected::HostTunnel(outer().into(), WEB.identity), new)
            .change(|world| world.default_deny(&WEB, EGRESS, 95))
            .packet(Sent::to_overlay(WEB.ifindex, t.udp()), DropReason::PolicyDenied,
                &[("rule 95", 1), ("drop 133", 1), ("dropped", 1), ("tombstones", 1)])
    }

    /// 24: bare on the wire with the source of a pod behind the overlay, to an address that the host's NAT makes a pod's.
    fn dp24_past_the_overlay_by_the_hosts_nat(f) {
        let counts: Counts = &[("drop 1011", 1), ("dropped", 1)];
        let t = talk(f, REMOTE, WEB.place);
        Case::new(World::overlay())
            .packet(Sent::to_pod(&WEB, UNDERLAY, t.udp()), DropReason::TunnelSourceMismatch, counts)
            .packet(Sent::to_pod(&WEB, OVERLAY, t.udp()), Expected::Stack, NEW_OUT)
            .packet(Sent::to_pod(&WEB, UNDERLAY, t.udp()), DropReason::TunnelSourceMismatch, counts)
            // Nodes talk with each other past the overlay.
            .packet(Sent::to_pod(&WEB, UNDERLAY, talk(f, OTHER_NODE, WEB.place).udp()), Expected::Stack, NEW_OUT)
    }

    /// 24: nor as the node whose NAT a standing connection of the world came by.
    fn dp24_past_the_overlay_as_a_node(f) host only "a test run of the kernel has no tunnel key" {
        let t = talk(f, OTHER_NODE, WEB.place);
        let world = if f == Family::V4 { 9 } else { 10 };
        Case::new(World::overlay())
            .packet(Sent::from_overlay(outer(), world, t.udp()), Expected::Pod(&WEB), NEW_OUT)
            .packet(Sent::from_net(t.udp()), DropReason::TunnelSourceMismatch, &[("drop 1011", 1), ("dropped", 1)])
    }

    /// 24: a node does not know that the API server is on it; whoever gets its packets does.
    fn dp24_an_api_server_on_a_node(f) host only "a test run of the kernel has no tunnel key" {
        let mut world = World::overlay();
        world.maps.known.push(reserved::KUBE_APISERVER);
        if let Some(entry) = world.maps.ipcache.get_mut(&OTHER_NODE.ip(f).into()) {
            entry.identity = reserved::KUBE_APISERVER;
        }
        let t = talk(f, OTHER_NODE, WEB.place);
        Case::new(world)
            .packet(Sent::from_overlay(outer(), reserved::REMOTE_NODE, t.udp()), Expected::Pod(&WEB), NEW_OUT)
            .event(|record| assert_eq!(record.source_identity, reserved::KUBE_APISERVER))
    }

    /// 24: somebody behind a node that no tunnel leads to is reached by nobody.
    fn dp24_no_tunnel_known(f) {
        let mut world = World::overlay();
        if let Some(entry) = world.maps.ipcache.get_mut(&REMOTE.ip(f).into()) {
            entry.tunnel = crate::abi::Address::NONE;
        }
        let counts: Counts = &[("drop 160", 1), ("dropped", 1)];
        Case::new(world)
            .packet(Sent::from_pod(&WEB, talk(f, WEB.place, REMOTE).udp()), DropReason::NoTunnelEndpoint,
                &[("rule 0", 1), ("any", 1), ("packets", 1), ("drop 160", 1), ("dropped", 1)])
            .packet(Sent::to_overlay(0, talk(f, NODE, REMOTE).udp()), DropReason::NoTunnelEndpoint, counts)
    }

    /// 24, 28: an IPv6 fragment without device and socket is not the host's.
    fn dp24_fragments_of_nobody(f) host only "a test run of the kernel gives every packet a socket" {
        let part = talk(f, NODE, REMOTE).udp().part(0, true, 9);
        let vni = if f == Family::V4 { 6 } else { 10 };
        Case::new(World::overlay())
            .packet(Sent::to_overlay(0, part.clone()).orphan(), Expected::HostTunnel(outer().into(), vni), &[])
            .packet(Sent::to_overlay(0, part), Expected::HostTunnel(outer().into(), 6), &[])
    }

    /// 24: no pod sends to the tunnel port of a node, whatever policy says: of this one, listed or not, and of others.
    fn dp24_pods_and_the_tunnel_port(f) {
        let counts: Counts = &[("drop 170", 1), ("dropped", 1)];
        let mut case = Case::new(World::open());
        for node in [NODE, NODE_DNS, OTHER_NODE] {
            let t = talk(f, WEB.place, node).ports(40_000, TUNNEL_PORT);
            case = case.packet(Sent::from_pod(&WEB, t.udp()), DropReason::EncapProhibited, counts);
        }
        // To a pod it is a port like any other.
        let t = talk(f, WEB.place, API.place).ports(40_000, TUNNEL_PORT);
        case.packet(Sent::from_pod(&WEB, t.udp()), Expected::Pod(&API),
            &[("rule 0", 2), ("new", 1), ("any", 1), ("packets", 1)])
    }

    /// 24: the tunnel port leaves the node only by what the overlay marked.
    fn dp24_the_tunnel_port_on_the_wire(f) {
        let counts: Counts = &[("drop 1013", 1), ("dropped", 1)];
        let to = |place| talk(f, NODE, place).ports(40_000, TUNNEL_PORT);
        Case::new(World::overlay())
            .packet(Sent::to_net(to(OTHER_NODE).udp()).marked(), Expected::Stack, &[])
            .packet(Sent::to_net(to(OTHER_NODE).udp()), DropReason::ForeignEncap, counts)
            .packet(Sent::to_net(to(ROUTER).udp()), DropReason::ForeignEncap, counts)
            .packet(Sent::to_net(to(OTHER_NODE).out(tcp::SYN)), Expected::Stack, &[])
            .packet(Sent::to_net(talk(f, NODE, OTHER_NODE).udp()), Expected::Stack, &[])
    }
}
