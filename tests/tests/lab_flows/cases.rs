//! How the rows of the table of cases are made: policies, then packets. The rows say what must be told.
//!
//! Neighbours: [`super::table`] reads the rows, [`super::told`] compares.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use sinew_tests::lab::{Family, Place};
use sinew_tests::probe::Transport;
use sinew_tests::probe::raw::{self, Tuple};
use sinew_tests::probe::report::Outcome;

use super::ground::{Ground, TCP, UDP};
use super::table::Lines;
use super::told::{Talk, check};

/// A row.
pub(crate) struct Case {
    /// The row's first cell.
    pub(crate) name: &'static str,
    /// A word for the agents.
    pub(crate) word: &'static str,
    from: &'static str,
    to: &'static str,
    /// The policy of a time before, in which the connection was opened.
    before: Option<&'static str>,
    policy: Option<&'static str>,
    /// The packets have a source that no pod has.
    stolen: bool,
    act: fn(&Act<'_>) -> Result<()>,
}

/// What a case is made with.
struct Act<'a> {
    from: &'a Place,
    to: &'a Place,
    family: Family,
    port: u16,
}

const DROP: &str = "--policy-deny-response=drop";
const REJECT: &str = "--policy-deny-response=reject";

/// Nothing may leave the client.
const NO_EGRESS: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: default}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Egress]
";
/// Nothing may come to client or server.
const NO_INGRESS: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: default}
spec:
  podSelector: {matchExpressions: [{key: app, operator: In, values: [client, server]}]}
  policyTypes: [Ingress]
";
/// Everything may leave the client but what is for servers.
const EGRESS_RULE: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: p, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: client}}
  egress: [{toEntities: [all]}]
  egressDeny: [{toEndpoints: [{matchLabels: {app: server}}]}]
";
/// Everything may come to servers but what is from clients.
const INGRESS_RULE: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: p, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: server}}
  ingress: [{fromEntities: [all]}]
  ingressDeny: [{fromEndpoints: [{matchLabels: {app: client}}]}]
";
/// Servers accept nothing of clients, on trial.
const AUDIT: &str = "
apiVersion: sinew.io/v1
kind: SinewNetworkPolicy
metadata: {name: p, namespace: default}
spec:
  enforcement: audit
  endpointSelector: {matchLabels: {app: server}}
  ingress: [{fromEndpoints: [{matchLabels: {app: server}}]}]
";
/// Servers accept what clients send.
const CLIENT_MAY: &str = "
apiVersion: sinew.io/v1
kind: SinewNetworkPolicy
metadata: {name: p, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: server}}
  ingress: [{fromEndpoints: [{matchLabels: {app: client}}]}]
";
/// The same by another rule.
const ALL_MAY: &str = "
apiVersion: sinew.io/v1
kind: SinewNetworkPolicy
metadata: {name: q, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: server}}
  ingress: [{fromEntities: [all]}]
";
const fn case(
    name: &'static str,
    (from, to): (&'static str, &'static str),
    policy: Option<&'static str>,
    act: fn(&Act<'_>) -> Result<()>,
) -> Case {
    Case { name, word: DROP, from, to, before: None, policy, stolen: false, act }
}

/// Every row.
pub(crate) const CASES: [Case; 17] = [
    case("egress denied by default", ("client", "near"), Some(NO_EGRESS), |act| act.refused_syn()),
    case("egress denied by a rule", ("client", "near"), Some(EGRESS_RULE), |act| act.refused_syn()),
    case("egress of a datagram denied by default", ("client", "near"), Some(NO_EGRESS), |act| {
        act.refused_datagram()
    }),
    case("egress of an echo denied by default", ("client", "near"), Some(NO_EGRESS), |act| {
        act.refused_echo()
    }),
    Case {
        word: REJECT,
        ..case("egress denied and answered with a RST", ("client", "near"), Some(NO_EGRESS), |act| {
            act.expect(Transport::Tcp, TCP, Outcome::Refused)
        })
    },
    Case {
        word: REJECT,
        ..case("egress denied and answered with an ICMP error", ("client", "near"), Some(NO_EGRESS), |act| {
            act.expect(Transport::Udp, UDP, Outcome::Unreachable)
        })
    },
    case("ingress denied by default", ("client", "near"), Some(NO_INGRESS), |act| act.refused_syn()),
    case("ingress denied by a rule", ("client", "near"), Some(INGRESS_RULE), |act| act.refused_syn()),
    case("ingress denied by default, between nodes", ("client", "far"), Some(NO_INGRESS), |act| {
        act.refused_syn()
    }),
    case("ingress denied by default, from outside", ("outside", "client"), Some(NO_INGRESS), |act| {
        act.refused_syn()
    }),
    case("an audit policy would deny the ingress", ("client", "near"), Some(AUDIT), |act| {
        act.expect(Transport::Tcp, TCP, Outcome::Answered)
    }),
    Case {
        before: Some(CLIENT_MAY),
        ..case(
            "a connection that a change cuts: two packets of its opener, then one of the other end",
            ("client", "near"),
            Some(NO_INGRESS),
            |act| act.two_and_one(),
        )
    },
    Case {
        before: Some(CLIENT_MAY),
        ..case("the same, between nodes", ("client", "far"), Some(NO_INGRESS), |act| act.two_and_one())
    },
    Case {
        before: Some(ALL_MAY),
        ..case(
            "a connection that a change allows by another rule, asked and answered once more",
            ("client", "near"),
            Some(CLIENT_MAY),
            |act| act.asked(),
        )
    },
    case("an ICMP error about no connection, from a pod", ("client", "far"), None, |act| act.unrelated()),
    case("an ICMP error about no connection, from outside", ("outside", "client"), None, |act| {
        act.unrelated()
    }),
    Case {
        stolen: true,
        ..case("a source that is not the pod's", ("client", "far"), None, |act| act.stolen())
    },
];

/// An address of node a's pool that no pod has.
fn nobodys(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([10, 240, 0, 99]),
        Family::V6 => IpAddr::from([0xfd00, 0x240, 0, 0, 0, 0, 0, 0x9999]),
    }
}

impl Case {
    /// Makes the case with both families and compares what is told with its row.
    pub(crate) fn check(&self, ground: &Ground, row: &Lines) -> Result<()> {
        let acts = Family::BOTH.map(|family| Act {
            from: ground.place(self.from),
            to: ground.place(self.to),
            family,
            port: Talk::free_port(),
        });
        if let Some(before) = self.before {
            ground.lab.apply("p", before)?;
            acts.iter().try_for_each(|act| act.asked())?;
        }
        if let Some(policy) = self.policy {
            ground.lab.apply("p", policy)?;
        }
        let mut talks = Vec::new();
        for act in &acts {
            let what = format!("{} {:?}", self.name, act.family);
            let mut talk = Talk::between(what, [act.from, act.to], act.family, row.clone());
            let lines = row.values().flatten();
            if lines.clone().any(|line| ["SYN", "UDP"].iter().any(|packet| line.contains(packet))) {
                talk.port = Some(act.port);
            }
            if self.stolen {
                talk.addresses[0] = nobodys(act.family);
            }
            (self.act)(act).with_context(|| talk.what.clone())?;
            talks.push(talk);
        }
        check(&ground.lab, &talks)?;
        if self.policy.is_some() { ground.lab.withdraw("p") } else { Ok(()) }
    }
}

impl Act<'_> {
    fn expect(&self, transport: Transport, port: u16, outcome: Outcome) -> Result<()> {
        let from = self.port.to_string();
        // What stays without an answer is given up before it is sent again, after a second (RFC 6298 §2).
        let limit = if outcome == Outcome::TimedOut { "400" } else { "5000" };
        let more = ["--source-port", &from, "--timeout", limit];
        let attempt = self.from.dial(transport, self.to.address(self.family), port, &more)?;
        ensure!(attempt.outcome == outcome, "it ended with {attempt:?}");
        Ok(())
    }

    fn refused_syn(&self) -> Result<()> {
        self.expect(Transport::Tcp, TCP, Outcome::TimedOut)
    }

    fn refused_datagram(&self) -> Result<()> {
        self.expect(Transport::Udp, UDP, Outcome::TimedOut)
    }

    fn refused_echo(&self) -> Result<()> {
        self.expect(Transport::Icmp, 0, Outcome::TimedOut)
    }

    fn asked(&self) -> Result<()> {
        self.expect(Transport::Udp, UDP, Outcome::Answered)
    }

    fn tuple(&self) -> Tuple {
        let [from, to] = [self.from, self.to].map(|end| end.address(self.family));
        Tuple { from: (from, self.port).into(), to: (to, UDP).into() }
    }

    fn two_and_one(&self) -> Result<()> {
        let there = self.tuple();
        for (place, tuple) in [(self.from, there), (self.from, there), (self.to, there.turned())] {
            place.send_raw(tuple.to.ip(), &datagram(tuple))?;
        }
        Ok(())
    }

    fn unrelated(&self) -> Result<()> {
        let Tuple { from, to } = self.tuple();
        let never_sent = datagram(Tuple { from: to, to: from });
        self.from.send_raw(to.ip(), &raw::port_unreachable(from.ip(), to.ip(), &never_sent))
    }

    fn stolen(&self) -> Result<()> {
        let tuple = self.tuple();
        let stolen = Tuple { from: (nobodys(self.family), self.port).into(), ..tuple };
        self.from.send_raw(tuple.to.ip(), &datagram(stolen))
    }
}

fn datagram(tuple: Tuple) -> Vec<u8> {
    raw::packet(tuple.from.ip(), tuple.to.ip(), raw::protocol::UDP, &raw::datagram(tuple, b"datagram"))
}
