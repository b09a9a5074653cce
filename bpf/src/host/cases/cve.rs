//! Classes of vulnerabilities in other datapaths, each guarded against by a case named after one of them.

use super::cases;
use super::talk::{DATA, SYN_ACK, opened, talk};
use crate::abi::policy::direction::{EGRESS, INGRESS};
use crate::abi::{PolicyKey, PrefixKey};
use crate::drop::DropReason;
use crate::host::world::{API, Family, NODE, REMOTE, Sent, UNDERLAY, WEB, WORLD, World};
use crate::host::{Build, Case, Expected, Transport};
use crate::parse::tcp;

cases! {
    /// CVE-2024-47825: a denied range stays denied where a narrower range, a port or an identity is allowed. The class of
    /// the narrower prefix carries the denial of the wider one, and denial comes first over all keys.
    fn cve_2024_47825_deny_shadowed_by_a_narrower_allow(f) {
        let (wide, narrow) = (1 << 24 | 1, 1 << 24 | 2);
        let world_identity = if f == Family::V4 { 9 } else { 10 };
        let bits = if f == Family::V4 { [96 + 16, 96 + 24] } else { [48, 64] };
        let mut world = World::open();
        for (class, prefix_len) in [(wide, bits[0]), (narrow, bits[1])] {
            world.maps.classes.insert(PrefixKey { prefix_len, address: WORLD.ip(f).into() }, class);
            world.deny(&WEB, EGRESS, class, None, 92);
        }
        world.allow(&WEB, EGRESS, world_identity, Some((17, Some(80))), 81);
        world.allow(&WEB, EGRESS, 0, Some((17, Some(80))), 82);
        Case::new(world).packet(Sent::from_pod(&WEB, talk(f, WEB.place, WORLD).udp()), DropReason::DeniedByRule,
            &[("rule 92", 1), ("drop 181", 1), ("dropped", 1)])
    }

    /// CVE-2023-27594: nothing holds for IPv4 alone. All cases run for both families; here the way round by a routing
    /// header, which only IPv6 has, and a mapped address, which would make IPv4 of it.
    fn cve_2023_27594_ipv6_way_round(_f) {
        let mut world = World::open();
        world.default_deny(&WEB, EGRESS, 80);
        world.allow(&WEB, EGRESS, API.identity, None, 81);
        let mut routing = std::vec![2, 2, 1, 0, 0, 0, 0];
        routing.extend(REMOTE.v6.octets());
        let around = talk(Family::V6, WEB.place, API.place).udp().extension(43, routing);
        let mapped = Build::new(WEB.place.v6.into(), REMOTE.v4.to_ipv6_mapped().into(),
            Transport::Udp { source: 1, destination: 2 });
        Case::new(world)
            .packet(Sent::from_pod(&WEB, around), DropReason::InvalidExtensionHeader,
                &[("drop 156", 1), ("dropped", 1)])
            .packet(Sent::from_pod(&WEB, mapped), DropReason::MappedAddress, &[("drop 1007", 1), ("dropped", 1)])
    }

    /// CVE-2024-42488: policy comes before the first packet. An endpoint without a table drops, whoever
    /// sends; when its table is there the same packets are judged by it.
    fn cve_2024_42488_policy_before_the_first_packet(f) {
        let word = World::open().maps.words[&API.id];
        let mut world = World::open();
        world.default_deny(&API, INGRESS, 90);
        world.maps.words.insert(API.id, crate::abi::StateWord::default());
        let first = talk(f, WEB.place, API.place).out(tcp::SYN);
        Case::new(world)
            .packet(Sent::from_pod(&WEB, first.clone()), DropReason::EndpointNotReady,
                &[("rule 0", 1), ("drop 203", 1), ("dropped", 1)])
            .packet(Sent::to_pod(&API, 0, talk(f, NODE, API.place).out(tcp::SYN)), DropReason::EndpointNotReady,
                &[("drop 203", 1), ("dropped", 1)])
            .change(move |world| { world.maps.words.insert(API.id, word); })
            .packet(Sent::from_pod(&WEB, first), DropReason::PolicyDenied,
                &[("rule 0", 1), ("rule 90", 1), ("drop 133", 1), ("dropped", 1)])
    }

    /// GHSA-c66w-hq56-4q97: an echo is judged like everything else, as what it is: a rule for a port number that equals
    /// its type, or for answers, does not let requests in.
    fn ghsa_c66w_icmp_echo_bypass(f) {
        let t = talk(f, WEB.place, API.place);
        let (number, request, reply) = if f == Family::V4 { (1, 8, 0) } else { (58, 128, 129) };
        let mut world = World::open();
        world.default_deny(&API, INGRESS, 90);
        world.allow(&API, INGRESS, 0, Some((6, Some(request))), 91);
        world.allow(&API, INGRESS, 0, Some((17, Some(request))), 91);
        world.allow(&API, INGRESS, 0, Some((number, Some(reply))), 92);
        Case::new(world)
            .packet(Sent::from_pod(&WEB, t.echo(7)), DropReason::PolicyDenied,
                &[("rule 0", 1), ("rule 90", 1), ("drop 133", 1), ("dropped", 1)])
            // An answer that nobody asked for passes by the rule for answers, and opens nothing.
            .packet(Sent::from_pod(&WEB, talk(f, API.place, WEB.place).echo_reply(7)), Expected::Pod(&API),
                &[("rule 0", 1), ("rule 92", 1), ("new", 1)])
            .packet(Sent::from_pod(&WEB, t.echo(7)), DropReason::PolicyDenied,
                &[("rule 0", 1), ("rule 90", 1), ("drop 133", 1), ("dropped", 1)])
            .change(move |world| world.allow(&API, INGRESS, 0, Some((number, Some(request))), 93))
            .packet(Sent::from_pod(&WEB, t.echo(7)), Expected::Pod(&API),
                &[("rule 0", 1), ("rule 93", 1), ("new", 1), ("any", 1), ("packets", 1)])
    }

    /// CVE-2026-33726: where ingress demands a proxy, a pod of the same node is not let past it.
    fn cve_2026_33726_same_node_past_the_proxy(f) {
        let mut world = World::open();
        world.default_deny(&API, INGRESS, 90);
        world.allow(&API, INGRESS, WEB.identity, Some((6, Some(80))), 91);
        demand_proxy(&mut world);
        Case::new(world)
            .packet(Sent::from_pod(&WEB, talk(f, WEB.place, API.place).out(tcp::SYN)), DropReason::ProxyMissing,
                &[("rule 0", 1), ("rule 91", 1), ("drop 1015", 1), ("dropped", 1)])
            .packet(Sent::to_pod(&API, WEB.ifindex, talk(f, WEB.place, API.place).out(tcp::SYN)),
                DropReason::ProxyMissing, &[("rule 0", 1), ("rule 91", 1), ("drop 1015", 1), ("dropped", 1)])
    }

    /// CVE-2024-52529: nor where the rule has a range of ports, every port of it, the first and the last.
    fn cve_2024_52529_range_of_ports(f) {
        let mut world = World::open();
        world.default_deny(&API, INGRESS, 90);
        // Ports 8080–8095 are one prefix: 12 bits of the port behind 8 of the protocol.
        world.allow(&API, INGRESS, 0, Some((6, Some(8080))), 91);
        if let Some(table) = world.maps.policy.get_mut(&API.id)
            && let Some(key) = table.keys().copied().find(|(_, key)| key.protocol == 6)
            && let Some(mut entry) = table.remove(&key)
        {
            entry.l4_bits = 20;
            table.insert((PolicyKey::PEER_BITS as u8 + 20, key.1), entry);
        }
        demand_proxy(&mut world);
        let mut case = Case::new(world);
        for port in [8080, 8081, 8095] {
            case = case.packet(Sent::from_pod(&WEB, talk(f, WEB.place, API.place).ports(40_000, port).out(tcp::SYN)),
                DropReason::ProxyMissing, &[("rule 0", 1), ("rule 91", 1), ("drop 1015", 1), ("dropped", 1)]);
        }
        for port in [8079, 8096] {
            case = case.packet(Sent::from_pod(&WEB, talk(f, WEB.place, API.place).ports(40_000, port).out(tcp::SYN)),
                DropReason::PolicyDenied, &[("rule 0", 1), ("rule 90", 1), ("drop 133", 1), ("dropped", 1)]);
        }
        case
    }

    /// CVE-2025-30163: what a rule for nodes or for the host allows, a workload behind a node's address does not get.
    fn cve_2025_30163_workload_with_the_nodes_address(f) {
        let mut world = World::open();
        world.default_deny(&API, INGRESS, 90);
        world.allow(&API, INGRESS, 1, None, 91);
        world.allow(&API, INGRESS, 6, None, 91);
        let t = talk(f, NODE, API.place);
        Case::new(world)
            .packet(Sent::to_pod(&API, WEB.ifindex, t.out(tcp::SYN)), DropReason::PolicyDenied,
                &[("rule 90", 1), ("drop 133", 1), ("dropped", 1)])
            .packet(Sent::to_pod(&API, UNDERLAY, t.out(tcp::SYN)), DropReason::PolicyDenied,
                &[("rule 90", 1), ("drop 133", 1), ("dropped", 1)])
            .packet(Sent::to_pod(&API, 0, t.out(tcp::SYN)), Expected::Stack,
                &[("rule 91", 1), ("new", 1), ("opening", 1), ("packets", 1)])
    }

    /// CVE-2025-32793, CVE-2024-25630: while an endpoint goes away nothing of it passes, in no order of the steps.
    fn cve_2025_32793_terminating_endpoint(f) {
        let t = talk(f, WEB.place, API.place);
        opened(Case::new(World::open()), &t, &WEB, &API)
            // Its word first: established or new, both directions end.
            .change(|world| {
                let slot = crate::abi::StateWord::DROP_SLOT;
                world.maps.words.insert(API.id, crate::abi::StateWord::new(500, slot));
            })
            .packet(Sent::from_pod(&API, t.back(DATA)), DropReason::EndpointNotReady,
                &[("drop 203", 1), ("dropped", 1), ("tombstones", 1)])
            .packet(Sent::from_pod(&WEB, t.out(DATA)), DropReason::EndpointNotReady,
                &[("drop 203", 1), ("dropped", 1)])
            .packet(Sent::from_pod(&WEB, t.out(tcp::SYN)), DropReason::EndpointNotReady,
                &[("rule 0", 1), ("drop 203", 1), ("dropped", 1)])
            .packet(Sent::from_pod(&API, t.back(SYN_ACK)), DropReason::EndpointNotReady,
                &[("drop 203", 1), ("dropped", 1)])
    }
}

fn demand_proxy(world: &mut World) {
    if let Some(table) = world.maps.policy.get_mut(&API.id) {
        for entry in table.values_mut().filter(|entry| entry.cookie == 91) {
            entry.listener = 7;
        }
    }
}
