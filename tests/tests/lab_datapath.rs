//! Every path a packet of a pod can take, with TCP, UDP, fragments, echo, and 64 KiB bursts whose every byte is verified
//!, over both families, both routings, one wire and a router.

#[path = "lab_datapath/families.rs"]
mod families;
#[path = "lab_datapath/hops.rs"]
mod hops;

use std::net::IpAddr;
use std::time::SystemTime;

use anyhow::Result;
use sinew_tests::lab::process::run;
use sinew_tests::lab::{Family, Lab, Place, ROUTINGS, Routing, Topology};
use sinew_tests::probe::Transport;
use sinew_tests::probe::report::Outcome;
use sinew_tests::probe::stream::Direction;

const TCP: u16 = 80;
const UDP: u16 = 53;
/// Bytes of a burst: some hundred GSO packets of 64 KiB.
const BURST: u64 = 8 << 20;
/// A datagram of six fragments.
const FRAGMENTED: &str = "8000";

/// Goes the way once with everything there is.
fn check_path(from: &Place, to: &Place, lab: &Lab) -> Result<()> {
    for family in Family::BOTH {
        let address = to.address(family);
        let path = format!("{:?}: {} → {} {family:?}", lab.plan(), from.name(), to.name());
        for attempt in [
            from.tcp(address, TCP)?,
            from.udp(address, UDP)?,
            from.ping(address)?,
            from.dial(Transport::Udp, address, UDP, &["--bytes", FRAGMENTED])?,
        ] {
            assert!(attempt.answered(), "{path}: {attempt:?}");
        }
        for direction in [Direction::Up, Direction::Down] {
            let streamed = from.stream(address, TCP, direction, BURST)?;
            assert_eq!(streamed.outcome, Outcome::Answered, "{path} {direction:?}: {streamed:?}");
            assert_eq!(streamed.bytes, BURST);
        }
    }
    Ok(())
}

fn check_every_path(topology: Topology, routing: Routing) -> Result<()> {
    let lab = Lab::build(topology).routing(routing).start()?;
    let (a, b) = (lab.node("a"), lab.node("b"));
    let client = a.pod("client", &[("app", "client")])?;
    let neighbour = a.pod("neighbour", &[("app", "server")])?;
    let remote = b.pod("remote", &[("app", "server")])?;
    let places: [&Place; 6] = [&client, &neighbour, &remote, a, b, lab.outside()];
    for place in places {
        place.serve(&[TCP], &[UDP])?;
    }
    // From a pod to its neighbour, another node's pod, its own node, another node, and the outside; and the ways back.
    for (from, to) in [
        (places[0], places[1]),
        (places[0], places[2]),
        (places[2], places[0]),
        (places[0], places[3]),
        (places[0], places[4]),
        (places[0], places[5]),
        (places[3], places[0]),
        (places[4], places[0]),
        (places[5], places[0]),
    ] {
        check_path(from, to, &lab)?;
    }
    Ok(())
}

#[test]
#[ignore = "cargo xtask test lab"]
fn every_path_on_one_wire_native() -> Result<()> {
    check_every_path(Topology::Wire(2), Routing::Native)
}

#[test]
#[ignore = "cargo xtask test lab"]
fn every_path_on_one_wire_vxlan() -> Result<()> {
    check_every_path(Topology::Wire(2), Routing::Vxlan)
}

#[test]
#[ignore = "cargo xtask test lab"]
fn every_path_behind_a_router_native() -> Result<()> {
    check_every_path(Topology::Routed(2), Routing::Native)
}

#[test]
#[ignore = "cargo xtask test lab"]
fn every_path_behind_a_router_vxlan() -> Result<()> {
    check_every_path(Topology::Routed(2), Routing::Vxlan)
}

#[test]
#[ignore = "cargo xtask test lab"]
fn a_refused_packet_is_silent_or_answered_as_the_node_is_told() -> Result<()> {
    const NO_EGRESS: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: no-egress, namespace: default}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Egress]
";
    for (response, tcp, udp) in
        [("drop", Outcome::TimedOut, Outcome::TimedOut), ("reject", Outcome::Refused, Outcome::Unreachable)]
    {
        let lab = Lab::build(Topology::Wire(2))
            .agent_argument("--policy-deny-response")
            .agent_argument(response)
            .start()?;
        let client = lab.node("a").pod("client", &[("app", "client")])?;
        let (near, far) = (lab.node("a").pod("near", &[])?, lab.node("b").pod("far", &[])?);
        for server in [&near, &far] {
            server.serve(&[TCP], &[UDP])?;
        }
        lab.apply("no-egress", NO_EGRESS)?;
        for server in [&near, &far] {
            for family in Family::BOTH {
                let since = SystemTime::now();
                let to = server.address(family);
                let path = format!("{response}: client → {} {family:?}", server.name());
                assert_eq!(client.tcp(to, TCP)?.outcome, tcp, "{path} TCP");
                assert_eq!(client.udp(to, UDP)?.outcome, udp, "{path} UDP");
                assert_eq!(client.ping(to)?.outcome, udp, "{path} echo");
                for protocol in ["TCP", "UDP", if family == Family::V4 { "ICMPv4" } else { "ICMPv6" }] {
                    let flow = lab.dropped(since, "client", server.name(), protocol)?;
                    assert_eq!(flow.drop_reason(), "POLICY_DENIED", "{}", flow.raw());
                    assert_eq!(flow.direction(), "EGRESS", "{}", flow.raw());
                    assert_eq!(flow.denied_by(), ["no-egress"], "{}", flow.raw());
                }
            }
        }
    }
    Ok(())
}

#[test]
#[ignore = "cargo xtask test lab"]
fn a_packet_too_big_for_the_overlay_is_answered_with_its_mtu() -> Result<()> {
    let lab = Lab::build(Topology::Wire(2)).routing(Routing::Vxlan).start()?;
    let client = lab.node("a").pod("client", &[])?;
    let server = lab.node("b").pod("server", &[])?;
    server.serve(&[TCP], &[UDP])?;
    for family in Family::BOTH {
        let to = server.address(family);
        // The wire's 1500 less VXLAN (8), UDP (8), IPv6 (40, since nodes have both families) and Ethernet (14).
        let route = client.netns().ip_output(&["route", "get", &to.to_string()])?;
        assert!(route.contains("mtu 1430"), "{route}");
        let largest = if family == Family::V4 { 1430 - 20 - 8 } else { 1430 - 40 - 8 };
        let bytes = largest.to_string();
        assert!(client.dial(Transport::Icmp, to, 0, &["--bytes", &bytes])?.answered(), "{family:?} {bytes}");
        // Both pods ignore their route's MTU: from_pod answers, per destination, and the sender's kernel learns.
        for (pod, peer) in [(&client, to), (&server, client.address(family))] {
            let (bits, gateway) = if family == Family::V4 { (32, "169.254.1.1") } else { (128, "fe80::1") };
            pod.netns().ip(&format!("route replace {peer}/{bits} via {gateway} dev eth0 mtu 1500 onlink"))?;
        }
        let too_long = (largest + 70).to_string();
        let attempt = client.dial(Transport::Icmp, to, 0, &["--bytes", &too_long])?;
        assert_eq!(attempt.outcome, Outcome::TooBig, "{family:?}: {attempt:?}");
        assert!(learned(&client, to)?, "{family:?}");
        client.netns().ip_output(&[
            if family == Family::V4 { "-4" } else { "-6" },
            "route",
            "flush",
            "cache",
        ])?;
        let streamed = client.stream(to, TCP, Direction::Up, BURST)?;
        assert_eq!(streamed.outcome, Outcome::Answered, "{family:?}: {streamed:?}");
        assert!(learned(&client, to)?, "{family:?}");
    }
    Ok(())
}

/// Whether the pod's kernel has learned the path's MTU.
fn learned(pod: &Place, to: IpAddr) -> Result<bool> {
    Ok(pod.netns().ip_output(&["route", "get", &to.to_string()])?.contains("mtu 1430"))
}

/// As kube-proxy does: a service's address is made a backend's on the client's node, and the answers the service's. The
/// backend is a pod elsewhere, or a process of the other node, as an API server is.
#[test]
#[ignore = "cargo xtask test lab"]
fn a_translated_connection_is_judged_by_where_it_goes() -> Result<()> {
    const POLICY: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: world-only, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: client}}
  egress:
  - toEntities: [world]
";
    for routing in ROUTINGS {
        let lab = Lab::build(Topology::Wire(2)).routing(routing).start()?;
        let (a, b) = (lab.node("a"), lab.node("b"));
        let client = a.pod("client", &[("app", "client")])?;
        let backend = b.pod("backend", &[("app", "server")])?;
        let backends: [&Place; 2] = [&backend, b];
        for place in backends {
            place.serve(&[TCP], &[UDP])?;
        }
        let services = |family| match family {
            Family::V4 => ["10.96.0.1", "10.96.0.2"],
            Family::V6 => ["fd96::1", "fd96::2"],
        };
        for family in Family::BOTH {
            let program = if family == Family::V4 { "iptables" } else { "ip6tables" };
            for (service, backend) in services(family).into_iter().zip(backends) {
                for protocol in ["tcp", "udp"] {
                    let to = backend.address(family).to_string();
                    run(a
                        .netns()
                        .command(program)
                        .args(["-t", "nat", "-A", "PREROUTING", "-d", service])
                        .args(["-p", protocol, "-j", "DNAT", "--to-destination", &to]))?;
                }
            }
        }
        for family in Family::BOTH {
            for service in services(family) {
                let service: IpAddr = service.parse()?;
                for attempt in [client.tcp(service, TCP)?, client.udp(service, UDP)?] {
                    assert!(attempt.answered(), "{routing:?} {service}: {attempt:?}");
                }
                for direction in [Direction::Up, Direction::Down] {
                    let streamed = client.stream(service, TCP, direction, BURST)?;
                    assert_eq!(
                        streamed.outcome,
                        Outcome::Answered,
                        "{routing:?} {service} {direction:?}: {streamed:?}"
                    );
                }
            }
        }
        lab.apply("world-only", POLICY)?;
        let since = SystemTime::now();
        for family in Family::BOTH {
            for service in services(family) {
                let attempt = client.tcp(service.parse()?, TCP)?;
                assert!(attempt.dropped(), "{routing:?} {service}: {attempt:?}");
            }
        }
        let flow = lab.dropped(since, "client", "backend", "TCP")?;
        assert_eq!(flow.drop_reason(), "POLICY_DENIED");
        assert_eq!((flow.direction(), flow.by_default()), ("EGRESS", true), "{flow:?}");
    }
    Ok(())
}

#[test]
#[ignore = "cargo xtask test lab"]
fn an_address_of_the_cluster_that_nobody_has_is_dropped_by_name() -> Result<()> {
    for routing in ROUTINGS {
        let lab = Lab::build(Topology::Wire(2)).routing(routing).start()?;
        let client = lab.node("a").pod("client", &[])?;
        for nobody in ["10.240.1.250", "fd00:240:1::fafa"] {
            let since = SystemTime::now();
            let attempt = client.tcp(nobody.parse()?, TCP)?;
            assert_eq!(attempt.outcome, Outcome::TimedOut, "{nobody}: {attempt:?}");
            let flow = lab.node("a").flow(since, "to nobody", |flow| {
                flow.verdict() == "DROPPED" && flow.source() == "client" && !flow.own_reason().is_empty()
            })?;
            assert_eq!(flow.own_reason(), "unknown address in a cluster range", "{}", flow.raw());
        }
    }
    Ok(())
}

#[test]
#[ignore = "cargo xtask test lab"]
fn what_a_pod_must_not_send_is_dropped_by_name() -> Result<()> {
    let lab = Lab::build(Topology::Wire(2)).agent_argument("--tunnel-port=4789").start()?;
    let client = lab.node("a").pod("client", &[])?;
    let server = lab.node("b").pod("server", &[])?;
    server.serve(&[TCP], &[UDP])?;
    // Somebody else's address.
    for (stolen, to, reason) in [
        ("10.240.0.99/32", server.address(Family::V4), "INVALID_SOURCE_IP"),
        ("fd00:240::9999/128", server.address(Family::V6), "INVALID_SOURCE_IP"),
    ] {
        let since = SystemTime::now();
        client
            .netns()
            .ip(&format!("addr add {stolen} dev eth0 {}", if stolen.contains(':') { "nodad" } else { "" }))?;
        let source = stolen.split('/').next().unwrap_or_default();
        let more = ["--source", source, "--timeout", "300"];
        assert_eq!(client.dial(Transport::Udp, to, UDP, &more)?.outcome, Outcome::TimedOut);
        let flow = lab.node("a").flow(since, "with a stolen source", |flow| flow.drop_reason() == reason)?;
        assert_eq!(flow.verdict(), "DROPPED");
        client.netns().ip(&format!("addr del {stolen} dev eth0"))?;
    }
    // The tunnel port of a node, whatever policy says (datapath.md 24); explain has the same one.
    let since = SystemTime::now();
    let node = lab.node("b").address(Family::V4);
    assert_eq!(client.udp(node, 4789)?.outcome, Outcome::TimedOut);
    lab.node("a").flow(since, "to the tunnel port", |flow| flow.drop_reason().contains("ENCAP"))?;
    assert_eq!(client.udp(node, 8472)?.outcome, Outcome::Refused, "nobody listens there");
    for (traffic, word) in [("4789/UDP", "encapsulation traffic is prohibited"), ("8472/UDP", "ALLOWED")] {
        let said =
            lab.node("a").sinew(&["policy", "explain", client.name(), &node.to_string(), traffic])?.stdout;
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains(word), "{traffic}: {said}");
    }
    // DHCP.
    let since = SystemTime::now();
    let more = ["--source-port", "68", "--timeout", "300"];
    assert_eq!(
        client.dial(Transport::Udp, server.address(Family::V4), 67, &more)?.outcome,
        Outcome::TimedOut
    );
    let flow = lab.node("a").flow(since, "DHCP", |flow| flow.port() == Some(67))?;
    assert_eq!(flow.own_reason(), "DHCP from a pod", "{}", flow.raw());
    Ok(())
}
