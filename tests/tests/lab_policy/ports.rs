//! Ports and kinds of ICMP on packets: a named port of the peer, ranges at their edges, one type of ICMP.

use std::time::SystemTime;

use anyhow::Result;
use sinew_tests::lab::{Family, Lab, Pod, ROUTINGS, Topology};
use sinew_tests::probe::Transport::{self, Icmp, Tcp, Udp};

/// The servers' port `web` has another number on each: egress by its name opens that number towards that peer only.
const BY_NAME: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: by-name, namespace: default}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Egress]
  egress:
  - to: [{podSelector: {matchLabels: {app: server}}}]
    ports: [{port: web, protocol: TCP}]
";

/// Of a range the first port, the last, and one between; not those beside it, nor the other protocol.
const BY_RANGE: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: by-range, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: server}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts: [{ports: [{port: '81', endPort: 8080, protocol: TCP}]}]
";

/// Echo requests pass; a denied range of ports does not hold them up, and nothing else of the client passes.
const BY_TYPE: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: by-type, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: server}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    icmps: [{fields: [{family: IPv4, type: 8}, {family: IPv6, type: 128}]}]
";

/// As above for another type: an echo request is none.
const BY_OTHER_TYPE: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: by-type, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: server}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    icmps: [{fields: [{family: IPv4, type: 13}, {family: IPv6, type: 129}]}]
";

/// The policy that denies, if one does.
type Denied = Option<&'static str>;

fn check(lab: &Lab, client: &Pod, server: &Pod, ways: &[(Transport, u16, Denied)]) -> Result<()> {
    for family in Family::BOTH {
        for &(transport, port, denied) in ways {
            let what =
                format!("{:?} {family:?} → {} {transport:?} {port}", lab.plan().routing, server.name());
            let since = SystemTime::now();
            let attempt = client.dial(transport, server.address(family), port, &["--timeout", "300"])?;
            let Some(policy) = denied else {
                assert!(attempt.answered(), "{what}: {attempt:?}");
                continue;
            };
            assert!(attempt.dropped(), "{what}: {attempt:?}");
            let protocol = match (transport, family) {
                (Tcp, _) => "TCP",
                (Udp, _) => "UDP",
                (Icmp, Family::V4) => "ICMPv4",
                (Icmp, Family::V6) => "ICMPv6",
            };
            let flow = lab.dropped(since, client.name(), server.name(), protocol)?;
            assert_eq!(flow.drop_reason(), "POLICY_DENIED", "{what}: {}", flow.raw());
            assert_eq!(flow.denied_by(), [policy], "{what}: {}", flow.raw());
        }
    }
    Ok(())
}

#[test]
#[ignore = "cargo xtask test lab"]
fn ports_by_name_and_range_and_kinds_of_icmp() -> Result<()> {
    for routing in ROUTINGS {
        let lab = Lab::build(Topology::Wire(2)).routing(routing).start()?;
        let client = lab.node("a").pod("client", &[("app", "client")])?;
        let near = lab.node("a").pod_with_ports("near", &[("app", "server")], &[("web", 81, "TCP")])?;
        let far = lab.node("b").pod_with_ports(
            "far",
            &[("app", "server"), ("far", "")],
            &[("web", 8080, "TCP")],
        )?;
        for server in [&near, &far] {
            server.serve(&[80, 81, 443, 8080, 8081], &[81])?;
        }
        let no = Some("by-name");
        lab.apply("p", BY_NAME)?;
        check(
            &lab,
            &client,
            &near,
            &[(Tcp, 81, None), (Tcp, 8080, no), (Tcp, 80, no), (Udp, 81, no), (Icmp, 0, no)],
        )?;
        check(&lab, &client, &far, &[(Tcp, 8080, None), (Tcp, 81, no), (Tcp, 8081, no), (Icmp, 0, no)])?;
        let no = Some("by-range");
        lab.apply("p", BY_RANGE)?;
        for server in [&near, &far] {
            let inside = [(Tcp, 81, None), (Tcp, 443, None), (Tcp, 8080, None)];
            check(&lab, &client, server, &inside)?;
            check(&lab, &client, server, &[(Tcp, 80, no), (Tcp, 8081, no), (Udp, 81, no), (Icmp, 0, no)])?;
        }
        let no = Some("by-type");
        lab.apply("p", BY_TYPE)?;
        for server in [&near, &far] {
            check(&lab, &client, server, &[(Icmp, 0, None), (Tcp, 80, no), (Udp, 81, no)])?;
        }
        // A connection that stands needs no new verdict: the echoes of before are forgotten first.
        lab.apply("p", BY_OTHER_TYPE)?;
        lab.nodes().try_for_each(|node| node.flush_connections())?;
        for server in [&near, &far] {
            check(&lab, &client, server, &[(Icmp, 0, no), (Tcp, 80, no)])?;
        }
    }
    Ok(())
}
