//! Policies on real packets: each case is a policy, who gets through, and for everybody else the drop
//! reason and the policy that flows name. Both families, same node and across nodes.

#[path = "lab_policy/forged.rs"]
mod forged;
#[path = "lab_policy/leaving.rs"]
mod leaving;
#[path = "lab_policy/ports.rs"]
mod ports;

use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, Result};
use sinew_tests::lab::{Family, Lab, Place, Pod, ROUTINGS, Topology};
use sinew_tests::probe::Transport::{self, Icmp, Tcp, Udp};

const TCP: u16 = 80;
const UDP: u16 = 53;

/// What must come of one attempt.
#[derive(Clone, Copy, Debug)]
enum Expect {
    Answer,
    /// Dropped because nothing allows it and this policy switched default deny on.
    Default(&'static str),
    /// Dropped by a deny rule of this policy.
    Rule(&'static str),
}

use Expect::{Answer, Default, Rule};

struct Case {
    name: &'static str,
    yaml: &'static str,
    /// From, to, how.
    attempts: &'static [(&'static str, &'static str, Transport, Expect)],
}

/// The server is `near` on the client's node and `far` on the other; both are `app=server`.
const CASES: &[Case] = &[
    Case {
        name: "ports and protocols of one rule",
        yaml: "
apiVersion: sinew.io/v1
kind: SinewNetworkPolicy
metadata: {name: p, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: server}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts: [{ports: [{port: '80', protocol: TCP}]}]
",
        attempts: &[
            ("client", "near", Tcp, Answer),
            ("client", "far", Tcp, Answer),
            ("client", "near", Udp, Default("p")),
            ("client", "far", Udp, Default("p")),
            ("client", "far", Icmp, Default("p")),
            ("other", "near", Tcp, Default("p")),
            ("other", "far", Tcp, Default("p")),
            ("far", "near", Tcp, Default("p")),
            ("near", "other", Tcp, Answer),
        ],
    },
    Case {
        name: "deny goes before allow",
        yaml: "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: d, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: server}}
  ingress:
  - fromEntities: [all]
  ingressDeny:
  - fromEndpoints: [{matchLabels: {app: other}}]
    toPorts: [{ports: [{port: '80', protocol: TCP}]}]
",
        attempts: &[
            ("client", "far", Tcp, Answer),
            ("other", "near", Tcp, Rule("d")),
            ("other", "far", Tcp, Rule("d")),
            ("other", "far", Udp, Answer),
            ("outside", "far", Tcp, Answer),
        ],
    },
    Case {
        name: "egress to addresses of the world and nothing else",
        yaml: "
apiVersion: sinew.io/v1
kind: SinewClusterwideNetworkPolicy
metadata: {name: out}
spec:
  endpointSelector: {matchLabels: {app: client}}
  egress:
  - toCIDRSet: [{cidr: 172.31.0.192/26}, {cidr: 'fd31::/64'}]
    toPorts: [{ports: [{port: '80', protocol: TCP}]}]
",
        attempts: &[
            ("client", "outside", Tcp, Answer),
            ("client", "outside", Udp, Default("out")),
            ("client", "near", Tcp, Default("out")),
            ("client", "far", Tcp, Default("out")),
            ("client", "b", Tcp, Default("out")),
            ("other", "far", Tcp, Answer),
        ],
    },
    Case {
        name: "entities: the world may, pods may not, the own node always may",
        yaml: "
apiVersion: sinew.io/v1
kind: SinewNetworkPolicy
metadata: {name: w, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: server}}
  ingress:
  - fromEntities: [world]
",
        attempts: &[
            ("outside", "near", Tcp, Answer),
            ("outside", "far", Udp, Answer),
            ("client", "far", Tcp, Default("w")),
            ("client", "near", Icmp, Default("w")),
            ("a", "near", Tcp, Answer),
            ("a", "far", Tcp, Default("w")),
        ],
    },
    Case {
        name: "a NetworkPolicy with an ipBlock, a named port and an except",
        yaml: "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: k, namespace: default}
spec:
  podSelector: {matchExpressions: [{key: app, operator: In, values: [server]}]}
  policyTypes: [Ingress]
  ingress:
  - from:
    - podSelector: {matchLabels: {app: client}}
    - ipBlock: {cidr: 172.31.0.0/16, except: [172.31.0.0/28]}
    - ipBlock: {cidr: 'fd31::/16', except: ['fd31::/122']}
    ports: [{port: web, protocol: TCP}]
",
        attempts: &[
            ("client", "near", Tcp, Answer),
            ("client", "far", Tcp, Answer),
            ("client", "far", Udp, Default("k")),
            ("other", "far", Tcp, Default("k")),
            ("outside", "far", Tcp, Answer),
            ("outside", "far", Udp, Default("k")),
            ("a", "far", Tcp, Default("k")),
        ],
    },
    Case {
        name: "a policy that is refused closes what it would have closed",
        yaml: "
apiVersion: sinew.io/v1
kind: SinewNetworkPolicy
metadata: {name: r, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: client}}
  egress:
  - toFQDNs: [{matchName: example.com}]
  - toEndpoints: [{matchLabels: {app: server}}]
",
        attempts: &[
            ("client", "near", Tcp, Default("r")),
            ("client", "outside", Tcp, Default("r")),
            ("other", "far", Tcp, Answer),
        ],
    },
    Case {
        name: "audit closes nothing",
        yaml: "
apiVersion: sinew.io/v1
kind: SinewNetworkPolicy
metadata: {name: x, namespace: default}
spec:
  enforcement: audit
  endpointSelector: {matchLabels: {app: server}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
",
        attempts: &[
            ("client", "far", Tcp, Answer),
            ("other", "near", Tcp, Answer),
            ("other", "far", Udp, Answer),
        ],
    },
];

struct Ground {
    lab: Lab,
    pods: Vec<Arc<Pod>>,
}

impl Ground {
    fn place(&self, name: &str) -> &Place {
        match name {
            "a" | "b" => self.lab.node(name),
            "outside" => self.lab.outside(),
            _ => self.pods.iter().find(|pod| pod.name() == name).expect("a pod of this name"),
        }
    }

    fn check(&self, case: &Case, family: Family) -> Result<()> {
        for &(from, to, transport, expect) in case.attempts {
            let port = match transport {
                Tcp => TCP,
                Udp => UDP,
                Icmp => 0,
            };
            let what = format!("{}: {from} → {to} {transport:?} {family:?}", case.name);
            let since = SystemTime::now();
            let address = self.place(to).address(family);
            let attempt = self.place(from).dial(transport, address, port, &["--timeout", "300"])?;
            let (name, by_default) = match expect {
                Answer => {
                    assert!(attempt.answered(), "{what}: {attempt:?}");
                    continue;
                }
                Default(name) => (name, true),
                Rule(name) => (name, false),
            };
            assert!(attempt.dropped(), "{what}: {attempt:?}");
            let flow = self.dropped(since, to, transport, family).with_context(|| what.clone())?;
            let reason = if by_default { "POLICY_DENIED" } else { "POLICY_DENY" };
            assert_eq!(flow.drop_reason(), reason, "{what}: {}", flow.raw());
            assert_eq!(flow.by_default(), by_default, "{what}: {}", flow.raw());
            assert_eq!(flow.denied_by(), [name], "{what}: {}", flow.raw());
        }
        Ok(())
    }

    /// The drop of the attempt just made, wherever it happened.
    fn dropped(
        &self,
        since: SystemTime,
        to: &str,
        transport: Transport,
        family: Family,
    ) -> Result<sinew_tests::lab::flows::Flow> {
        let protocol = match (transport, family) {
            (Tcp, _) => "TCP",
            (Udp, _) => "UDP",
            (Icmp, Family::V4) => "ICMPv4",
            (Icmp, Family::V6) => "ICMPv6",
        };
        let address = self.place(to).address(family).to_string();
        self.lab.flow_of_any(since, &format!("a drop to {to} {protocol}"), |flow| {
            flow.verdict() == "DROPPED"
                && !flow.drop_reason().is_empty()
                && flow.protocol() == protocol
                && flow.raw()["IP"]["destination"] == address.as_str()
        })
    }
}

#[test]
#[ignore = "cargo xtask test lab"]
fn each_policy_lets_through_what_it_says_and_names_what_it_drops() -> Result<()> {
    for routing in ROUTINGS {
        let lab = Lab::build(Topology::Wire(2)).routing(routing).start()?;
        let (a, b) = (lab.node("a"), lab.node("b"));
        let port = [("web", TCP, "TCP")];
        let pods = vec![
            a.pod("client", &[("app", "client")])?,
            a.pod("other", &[("app", "other")])?,
            a.pod_with_ports("near", &[("app", "server")], &port)?,
            b.pod_with_ports("far", &[("app", "server")], &port)?,
        ];
        let ground = Ground { lab, pods };
        for name in ["client", "other", "near", "far", "a", "b", "outside"] {
            ground.place(name).serve(&[TCP], &[UDP])?;
        }
        for case in CASES {
            ground.lab.store().write("case", case.yaml)?;
            // A refused object is an answer of `policy wait` too.
            ground
                .lab
                .wait_enforced()
                .or_else(|error| if case.name.contains("refused") { Ok(()) } else { Err(error) })?;
            for family in Family::BOTH {
                ground.check(case, family)?;
            }
        }
    }
    Ok(())
}

/// CVE-2025-64715: a list of peers that is empty, or whose groups have nobody, is nobody. It must not become "no
/// restriction" on its way through decoding, tables, or the agent's own files.
#[test]
#[ignore = "cargo xtask test lab"]
fn cve_2025_64715_an_empty_list_of_peers_is_nobody() -> Result<()> {
    let lab = Lab::build(Topology::Wire(2)).start()?;
    let client = lab.node("a").pod("client", &[("app", "client")])?;
    let server = lab.node("b").pod("server", &[("app", "server")])?;
    server.serve(&[TCP], &[UDP])?;
    let policy = |direction: &str, app: &str, peers: &str| {
        format!(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p, namespace: default}}\n\
             spec:\n  endpointSelector: {{matchLabels: {{app: {app}}}}}\n  {direction}:\n  - {peers}\n    \
             toPorts: [{{ports: [{{port: '80', protocol: TCP}}]}}]\n"
        )
    };
    let refused = |what: &str| -> Result<()> {
        for family in Family::BOTH {
            let since = SystemTime::now();
            let attempt = client.tcp(server.address(family), TCP)?;
            assert!(attempt.dropped(), "{what} {family:?}: {attempt:?}");
            let flow = lab.dropped(since, "client", "server", "TCP")?;
            assert_eq!(flow.drop_reason(), "POLICY_DENIED", "{what}: {}", flow.raw());
            assert!(flow.by_default() && flow.denied_by() == ["p"], "{what}: {}", flow.raw());
        }
        Ok(())
    };
    for (direction, app, fields) in [
        ("egress", "client", ["toEndpoints", "toCIDR", "toCIDRSet", "toEntities", "toGroups", "toServices"]),
        (
            "ingress",
            "server",
            ["fromEndpoints", "fromCIDR", "fromCIDRSet", "fromEntities", "fromGroups", "fromNodes"],
        ),
    ] {
        for field in fields {
            lab.apply("p", &policy(direction, app, &format!("{field}: []")))?;
            refused(field)?;
        }
        // Without any such field the port is open to everybody.
        lab.apply("p", &policy(direction, app, "{}").replace("{}\n    toPorts", "toPorts"))?;
        assert!(client.tcp(server.address(Family::V6), TCP)?.answered(), "{direction}");
    }
    // The agent's own copy of a valid policy, which is in force when a later edit is broken.
    lab.apply("p", &policy("egress", "client", "toGroups: []"))?;
    lab.store().write("p", &policy("egress", "client", "toGroups: [] \n    nonsense: 1"))?;
    lab.nodes().try_for_each(|node| node.restart_agent())?;
    lab.wait_enforced().expect_err("the edit is refused");
    refused("after a restart")
}

/// A `NotIn` selects pods of other namespaces, and neither the world nor nodes, which have no namespace to be in.
#[test]
#[ignore = "cargo xtask test lab"]
fn a_namespace_that_one_is_not_in_is_still_a_namespace() -> Result<()> {
    let lab = Lab::build(Topology::Wire(2)).start()?;
    let client = lab.node("a").pod("client", &[("app", "client")])?;
    let server = lab.node("b").pod("server", &[("app", "server")])?;
    server.serve(&[TCP], &[UDP])?;
    lab.apply(
        "p",
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: default}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - from: [{namespaceSelector: {matchExpressions: [{key: team, operator: NotIn, values: [sales]}]}}]
",
    )?;
    for family in Family::BOTH {
        assert!(client.tcp(server.address(family), TCP)?.answered(), "{family:?}");
        let others: [(&str, &Place); 2] = [("outside", lab.outside()), ("a", lab.node("a"))];
        for (name, place) in others {
            let attempt = place.tcp(server.address(family), TCP)?;
            assert!(attempt.dropped(), "{name} {family:?}: {attempt:?}");
        }
    }
    Ok(())
}
