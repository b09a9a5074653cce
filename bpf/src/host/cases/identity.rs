//! Who is behind an address: datapath.md 4, 5, 28, and policy.md 7, 8, 13.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::cases;
use super::talk::talk;
use crate::abi::EventRecord;
use crate::abi::policy::direction::{EGRESS, INGRESS};
use crate::abi::policy::{precedence, verdict};
use crate::drop::DropReason;
use crate::host::world::{
    API, Family, NOBODY, NODE, NODE_DNS, OTHER_NODE, Place, REMOTE, Sent, UNDERLAY, WEB, WORLD, World,
};
use crate::host::{Case, Counts, Expected};

const NEW: Counts = &[("rule 0", 2), ("new", 1), ("any", 1), ("packets", 1)];
const NEW_OUT: Counts = &[("rule 0", 1), ("new", 1), ("any", 1), ("packets", 1)];
/// The address where clouds have their metadata.
const METADATA: Place =
    Place { v4: Ipv4Addr::new(169, 254, 169, 254), v6: Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254) };

fn world_of(f: Family) -> u32 {
    if f == Family::V4 { 9 } else { 10 }
}

fn source_is(identity: u32) -> impl Fn(&EventRecord) {
    move |record| assert_eq!(record.source_identity, identity)
}

fn destination_is(identity: u32) -> impl Fn(&EventRecord) {
    move |record| assert_eq!(record.destination_identity, identity)
}

cases! {
    /// 4: an identity that the tables don't know yet drops by name and meets no wildcard, from it and towards it.
    fn dp04_unknown_identities(f) {
        let mut world = World::open();
        world.maps.known.retain(|identity| *identity != crate::host::world::REMOTE_IDENTITY);
        Case::new(world)
            .packet(Sent::from_net(talk(f, REMOTE, API.place).udp()), DropReason::InvalidIdentity,
                &[("drop 171", 1), ("dropped", 1)])
            .packet(Sent::from_pod(&WEB, talk(f, WEB.place, REMOTE).udp()), DropReason::InvalidIdentity,
                &[("drop 171", 1), ("dropped", 1)])
    }

    /// 4: an identity that leaves KNOWN ends its connections once a stamp is stale, not before.
    fn dp04_an_identity_leaves(f) {
        let t = talk(f, REMOTE, API.place);
        Case::new(World::open())
            .packet(Sent::from_net(t.udp()), Expected::Pod(&API), NEW_OUT)
            .change(|world| world.maps.known.retain(|identity| *identity != crate::host::world::REMOTE_IDENTITY))
            .packet(Sent::from_net(t.udp()), Expected::Pod(&API), &[("packets", 1)])
            .change(|world| world.raise_generation())
            .packet(Sent::from_net(t.udp()), DropReason::InvalidIdentity,
                &[("drop 171", 1), ("dropped", 1), ("tombstones", 1)])
    }

    /// Policy 8: an address in a cluster range that nobody has is unknown, never world.
    fn dp05_unknown_addresses(f) {
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, talk(f, WEB.place, NOBODY).udp()), DropReason::UnknownDestination,
                &[("drop 1001", 1), ("dropped", 1)])
            .packet(Sent::from_net(talk(f, NOBODY, API.place).udp()), Expected::Stack, &[])
            .packet(Sent::to_pod(&API, UNDERLAY, talk(f, NOBODY, API.place).udp()), DropReason::UnknownSender,
                &[("drop 172", 1), ("dropped", 1)])
    }

    /// 28: a connection of the host's is not that of somebody whom the host's NAT gives its address and port, nor the other
    /// way round: each is judged as who it is.
    fn dp28_the_world_does_not_ride_on_the_hosts_connection(f) {
        let t = talk(f, NODE, API.place);
        let mut world = World::open();
        world.default_deny(&API, INGRESS, 90);
        world.allow(&API, INGRESS, 1, None, 91);
        Case::new(world)
            .packet(Sent::to_pod(&API, 0, t.udp()), Expected::Stack,
                &[("rule 91", 1), ("new", 1), ("any", 1), ("packets", 1)])
            .event(source_is(1))
            .packet(Sent::to_pod(&API, UNDERLAY, t.udp()), DropReason::PolicyDenied,
                &[("rule 90", 1), ("drop 133", 1), ("dropped", 1), ("tombstones", 1)])
            .event(source_is(world_of(f)))
            .packet(Sent::to_pod(&API, 0, t.udp()), Expected::Stack,
                &[("rule 91", 1), ("new", 1), ("tombstones", -1), ("packets", 1)])
            .event(source_is(1))
            .packet(Sent::from_pod(&API, t.udp_back()), Expected::Answer, &[("flags", 1), ("packets", 1)])
            .packet(Sent::to_pod(&API, 0, t.udp()), Expected::Stack, &[("packets", 1)])
    }

    /// Everything else is world, by family; with one family on there is one world.
    fn dp05_world_by_family(f) {
        let t = talk(f, WORLD, API.place);
        Case::new(World::open())
            .packet(Sent::to_pod(&API, UNDERLAY, t.udp()), Expected::Stack, NEW_OUT)
            .event(source_is(world_of(f)))
            .packet(Sent::from_pod(&WEB, talk(f, WEB.place, WORLD).udp()), Expected::Stack, NEW_OUT)
            .event(destination_is(world_of(f)))
    }

    /// With one family on there is one world.
    fn dp05_one_world(f) host only "settings are fixed when programs are loaded" {
        let mut world = World::open();
        world.settings.world_v4 = 2;
        world.settings.world_v6 = 2;
        world.maps.known.push(2);
        Case::new(world)
            .packet(Sent::to_pod(&API, UNDERLAY, talk(f, WORLD, API.place).udp()), Expected::Stack, NEW_OUT)
            .event(source_is(2))
    }

    /// 28: host is what a socket of the node's own namespace sent from a local address.
    fn dp28_a_local_socket_is_host(f) {
        Case::new(World::open())
            .packet(Sent::to_pod(&API, 0, talk(f, NODE, API.place).udp()), Expected::Stack, NEW_OUT)
            .event(|record| {
                source_is(1)(record);
                assert_eq!(record.point, crate::abi::event::point::TO_ENDPOINT, "it goes into the pod");
            })
    }

    /// 28: a packet that came in by a device is not the host's, whatever its source: masqueraded traffic is world.
    fn dp28_forwarded_with_the_nodes_address_is_world(f) {
        Case::new(World::open())
            .packet(Sent::to_pod(&API, UNDERLAY, talk(f, NODE, API.place).udp()), Expected::Stack, NEW_OUT)
            .event(source_is(world_of(f)))
    }

    /// 28: a local socket with an address that is not local (a transparent proxy) is not host.
    fn dp28_a_foreign_address_of_a_local_socket_is_not_host(f) {
        Case::new(World::open())
            .packet(Sent::to_pod(&API, 0, talk(f, WORLD, API.place).udp()), Expected::Stack, NEW_OUT)
            .event(source_is(world_of(f)))
    }

    /// 28: as a source a local address that no map lists is host by routing. As a destination it is not: routing has the
    /// same answer for what it has no way to.
    fn dp28_a_local_address_that_is_not_listed(f) {
        Case::new(World::open())
            .packet(Sent::to_pod(&API, 0, talk(f, NODE_DNS, API.place).udp()), Expected::Stack, NEW_OUT)
            .event(source_is(1))
            .packet(Sent::to_pod(&WEB, UNDERLAY, talk(f, NODE_DNS, WEB.place).udp()), Expected::Stack, NEW_OUT)
            .event(source_is(world_of(f)))
            .packet(Sent::from_pod(&WEB, talk(f, WEB.place, NODE_DNS).ports(5000, 53).udp()), Expected::Stack, NEW_OUT)
            .event(destination_is(world_of(f)))
    }

    /// 28: node-local DNS is host both ways, since the agent lists every address of the node.
    fn dp28_node_local_dns_is_host(f) {
        let mut world = World::open();
        let listed = crate::abi::IpcacheEntry {
            identity: 1, flags: crate::abi::ipcache::flag::LOCAL_NODE, ..Default::default()
        };
        world.maps.ipcache.insert(NODE_DNS.ip(f).into(), listed);
        Case::new(world)
            .packet(Sent::from_pod(&WEB, talk(f, WEB.place, NODE_DNS).udp()), Expected::Stack, NEW_OUT)
            .event(destination_is(1))
            .packet(Sent::to_pod(&API, 0, talk(f, NODE_DNS, API.place).udp()), Expected::Stack, NEW_OUT)
            .event(source_is(1))
    }

    /// 28: without a route to it the world is still the world, and not the node.
    fn dp28_an_unroutable_destination_is_world(f) {
        let mut world = World::open();
        world.routes.insert(WORLD.ip(f).into(), crate::packet::Route::Local);
        Case::new(world)
            .packet(Sent::from_pod(&WEB, talk(f, WEB.place, WORLD).udp()), Expected::Stack, NEW_OUT)
            .event(destination_is(world_of(f)))
    }

    /// 24: the host's NAT may give a packet from the wire a pod as its destination, but never a pod's source.
    fn dp24_a_pods_address_from_another_device(f) {
        let counts = &[("drop 1012", 1), ("dropped", 1)];
        let mut world = World::open();
        world.default_deny(&API, INGRESS, 90);
        world.allow(&API, INGRESS, WEB.identity, None, 91);
        let t = talk(f, WEB.place, API.place);
        Case::new(world)
            .packet(Sent::to_pod(&API, UNDERLAY, t.udp()), DropReason::SpoofedLocalSource, counts)
            .packet(Sent::to_pod(&API, WEB.ifindex, t.udp()), Expected::Stack,
                &[("rule 0", 1), ("rule 91", 1), ("new", 1), ("any", 1), ("packets", 1)])
            // Also inside a connection that the host's NAT carries.
            .packet(Sent::from_net(t.udp()), Expected::Stack, &[])
            .packet(Sent::to_pod(&API, UNDERLAY, t.udp()), DropReason::SpoofedLocalSource, counts)
    }

    /// 28: the metadata address of elsewhere is world.
    fn dp28_metadata_is_world(f) {
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, talk(f, WEB.place, METADATA).udp()), Expected::Stack, NEW_OUT)
            .event(destination_is(world_of(f)))
    }

    /// 28: and its answers, which come over the wire from a link-local address, reach the pod.
    fn dp28_metadata_answers(f) {
        let t = talk(f, WEB.place, METADATA);
        Case::new(World::open())
            .packet(Sent::from_pod(&WEB, t.udp()), Expected::Stack, NEW_OUT)
            .packet(Sent::from_net(t.udp_back()), Expected::Stack, &[])
            .packet(Sent::to_pod(&WEB, UNDERLAY, t.udp_back()), Expected::Stack, &[("flags", 1), ("packets", 1)])
    }

    /// 28: an IPv6 fragment of forwarded traffic that the kernel cut anew has no device, and is not the node's for that; a
    /// pod it may say to come from is not known by its device either. The node's own fragments have a socket.
    fn dp28_fragments_of_nobody(f) host only "a test run of the kernel gives every packet a socket" {
        let part = |place, id| talk(f, place, API.place).udp().part(0, true, id);
        let new: Counts = &[("rule 0", 1), ("new", 1), ("any", 1), ("packets", 1), ("fragments", 1)];
        let case = Case::new(World::open());
        let case = match f {
            Family::V4 => case.packet(Sent::to_pod(&API, 0, part(NODE, 1)).orphan(), Expected::Stack, new)
                .event(source_is(1)),
            Family::V6 => case.packet(Sent::to_pod(&API, 0, part(NODE, 1)).orphan(), Expected::Stack, new)
                .event(source_is(10))
                .packet(Sent::to_pod(&API, 0, part(WEB.place, 2)).orphan(), DropReason::SpoofedLocalSource,
                    &[("drop 1012", 1), ("dropped", 1), ("fragments", 1)]),
        };
        let other = |packet| Sent::to_pod(&API, 0, packet);
        case.packet(other(talk(f, NODE, API.place).ports(2, 80).udp().part(0, true, 3)), Expected::Stack, new)
            .event(source_is(1))
            .packet(other(talk(f, NODE, API.place).ports(3, 80).udp()).orphan(), Expected::Stack, NEW_OUT)
            .event(source_is(1))
    }

    /// Policy 7: other nodes are remote-node, and not exempt from policy.
    fn dp28_other_nodes(f) {
        let mut world = World::open();
        world.default_deny(&API, INGRESS, 90);
        world.allow(&API, INGRESS, 1, None, 91);
        Case::new(world)
            .packet(Sent::to_pod(&API, 0, talk(f, NODE, API.place).udp()), Expected::Stack,
                &[("rule 91", 1), ("new", 1), ("any", 1), ("packets", 1)])
            .packet(Sent::from_net(talk(f, OTHER_NODE, API.place).udp()), DropReason::PolicyDenied,
                &[("rule 90", 1), ("drop 133", 1), ("dropped", 1)])
            .event(source_is(6))
    }

    /// A source of this node does not come from the wire.
    fn dp24_local_sources_from_the_wire(f) {
        let counts = &[("drop 1012", 1), ("dropped", 1)];
        Case::new(World::open())
            .packet(Sent::from_net(talk(f, WEB.place, API.place).udp()), DropReason::SpoofedLocalSource, counts)
            .packet(Sent::from_net(talk(f, NODE, API.place).udp()), DropReason::SpoofedLocalSource, counts)
    }

    /// Nor does one that nobody can have: what is redirected to a pod never meets the checks of the host's stack.
    fn dp24_impossible_sources_from_the_wire(f) {
        let sources: [IpAddr; 3] = match f {
            Family::V4 => [[127, 0, 0, 1].into(), [224, 0, 0, 9].into(), [0; 4].into()],
            Family::V6 => {
                let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 9);
                [Ipv6Addr::LOCALHOST.into(), group.into(), Ipv6Addr::UNSPECIFIED.into()]
            }
        };
        let mut case = Case::new(World::open());
        for source in sources {
            let packet = crate::host::Build { source, ..talk(f, WORLD, API.place).udp() };
            case = case.packet(Sent::from_net(packet), DropReason::ImpossibleSource,
                &[("drop 1014", 1), ("dropped", 1)]);
        }
        case
    }

    /// Policy 5: three keys are asked, the peer's identity, the class of its address, any; the higher precedence decides.
    fn dp05_deny_by_class(f) {
        let class = 1 << 24 | 7;
        let mut world = World::open();
        world.default_deny(&API, INGRESS, 90);
        world.allow(&API, INGRESS, world_of(f), None, 91);
        world.deny(&API, INGRESS, class, Some((17, None)), 92);
        let bits = if f == Family::V4 { 96 + 24 } else { 48 };
        let prefix = crate::abi::PrefixKey { prefix_len: bits, address: WORLD.ip(f).into() };
        world.maps.classes.insert(prefix, class);
        Case::new(world)
            .packet(Sent::to_pod(&API, UNDERLAY, talk(f, WORLD, API.place).udp()), DropReason::DeniedByRule,
                &[("rule 92", 1), ("drop 181", 1), ("dropped", 1)])
            // Class key (1), 8 bits of protocol.
            .event(|record| assert_eq!(record.matches, [0, 1 << 5 | 8]))
            .packet(Sent::to_pod(&API, UNDERLAY, talk(f, WORLD, API.place).out(crate::parse::tcp::SYN)), Expected::Stack,
                &[("rule 91", 1), ("new", 1), ("opening", 1), ("packets", 1)])
            .event(|record| assert_eq!(record.matches, [0, 2 << 5]))
    }

    /// Policy 13: audit never changes what happens; the event carries the shadow verdict and its rule, and the connection
    /// remembers it.
    fn dp05_audit(f) {
        let mut world = World::open();
        for entry in world.maps.policy.entry(API.id).or_default().values_mut() {
            entry.shadow_verdict = verdict::DENY;
            entry.shadow_precedence = precedence::DENY;
            entry.shadow_cookie = 66;
        }
        Case::new(world)
            .packet(Sent::from_pod(&WEB, talk(f, WEB.place, API.place).udp()), Expected::Pod(&API), NEW)
            .event(|record| {
                assert_eq!(record.verdicts, [0x11, 0x21]);
                assert_eq!(record.shadow_cookies, [0, 66]);
            })
            .look(|maps| {
                let audit = crate::abi::conntrack::flag::AUDIT;
                assert!(maps.connections.borrow().values().all(|entry| entry.flags & audit != 0));
            })
    }

    /// A pod that no rule allows out reaches nobody, the node included.
    fn dp28_egress_to_the_own_node_is_judged(f) {
        let mut world = World::open();
        world.default_deny(&WEB, EGRESS, 80);
        Case::new(world).packet(Sent::from_pod(&WEB, talk(f, WEB.place, NODE).udp()), DropReason::PolicyDenied,
            &[("rule 80", 1), ("drop 133", 1), ("dropped", 1)])
    }
}
