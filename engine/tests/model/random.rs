//! Random policies, pods, nodes and events, from a small vocabulary so that they meet.

use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use sinew_api::labels::NAMESPACE;
use sinew_api::object::{CidrGroupKind, Origin, PolicyKind, PolicyName, Problem};
use sinew_api::policy::{
    CidrGroup, CidrGroupMatch, CidrReach, Enforcement, Entity, Peer, PeerMatch, Peers, Policy, PolicySpec,
    PortMatch, PortMatchKind, Protocol, Rule, RuleAction,
};
use sinew_api::selector::{Operator, Requirement, Selector};

use crate::naive::Traffic;

/// Namespaces.
pub(crate) const NAMESPACES: [&str; 2] = ["one", "two"];

/// What may happen. Numbers choose among what there is at that moment.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Policy(Box<Policy>),
    NoPolicy(u8),
    /// A pod object of this number with this choice of labels and ports; even ones live here.
    Pod {
        pod: u8,
        labels: u8,
        ports: u8,
        over: bool,
        uid: u8,
    },
    NoPod(u8),
    /// An endpoint of this pod, with this choice of a uid.
    Endpoint(u8, u8),
    NoEndpoint(u8),
    Namespace {
        namespace: u8,
        labels: u8,
    },
    NoNamespace(u8),
    Node {
        node: u8,
        shape: u8,
    },
    NoNode(u8),
    OwnAddresses(u8),
    Group {
        group: u8,
        prefixes: Vec<IpNet>,
        labels: u8,
    },
    NoGroup(u8),
    RelabelDone(u8),
    /// The store gives an unused identity back.
    NoIdentity(u8),
    /// The agent starts again, and hears of things in another order.
    Restart(u64),
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => policy().prop_map(|policy| Step::Policy(Box::new(policy))),
        3 => any::<u8>().prop_map(Step::NoPolicy),
        8 => (0..8u8, any::<u8>(), any::<u8>(), prop::bool::weighted(0.1), any::<u8>())
            .prop_map(|(pod, labels, ports, over, uid)| Step::Pod { pod, labels, ports, over, uid }),
        2 => (0..8u8).prop_map(Step::NoPod),
        6 => (0..8u8, any::<u8>()).prop_map(|(pod, uid)| Step::Endpoint(pod, uid)),
        2 => (0..8u8).prop_map(Step::NoEndpoint),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(namespace, labels)| Step::Namespace { namespace, labels }),
        1 => any::<u8>().prop_map(Step::NoNamespace),
        3 => (any::<u8>(), any::<u8>()).prop_map(|(node, shape)| Step::Node { node, shape }),
        1 => any::<u8>().prop_map(Step::NoNode),
        1 => any::<u8>().prop_map(Step::OwnAddresses),
        2 => (any::<u8>(), subsequence(prefixes(), 0..4), any::<u8>())
            .prop_map(|(group, prefixes, labels)| Step::Group { group, prefixes, labels }),
        1 => any::<u8>().prop_map(Step::NoGroup),
        4 => any::<u8>().prop_map(Step::RelabelDone),
        2 => any::<u8>().prop_map(Step::NoIdentity),
        1 => any::<u64>().prop_map(Step::Restart),
    ]
}

/// Prefixes that hold pods, nodes, both and neither.
pub(crate) fn prefixes() -> Vec<IpNet> {
    [
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.0.0.0/16",
        "10.0.1.0/24",
        "10.0.1.3/32",
        "10.9.0.0/24",
        "192.168.0.0/24",
        "192.168.0.2/32",
        "198.51.100.0/24",
        "198.51.100.7/32",
        "::/0",
        "fd00::/48",
        "fd00::1:0/112",
        "2001:db8::/32",
        "2001:db8::7/128",
    ]
    .map(|prefix| prefix.parse().unwrap())
    .to_vec()
}

/// Addresses outside the cluster.
pub(crate) fn outside() -> Vec<IpAddr> {
    ["8.8.8.8", "10.7.7.7", "198.51.100.7", "198.51.100.9", "2001:db8::7", "2001:db8::9", "2a00::1"]
        .map(|address| address.parse().unwrap())
        .to_vec()
}

/// Addresses of the API server, mostly none: of this node and another, outside, of pods, and one that nobody has.
pub(crate) fn apiserver() -> impl Strategy<Value = Vec<IpAddr>> {
    let addresses =
        ["192.168.0.1", "192.168.0.2", "8.8.8.8", "198.51.100.7", "2a00::1", "10.9.0.3", "10.0.1.99"];
    let addresses = addresses.map(|address| address.parse().unwrap()).to_vec();
    prop_oneof![Just(Vec::new()), subsequence(addresses, 0..4)]
}

/// Traffic that some rule may name, and some that none does.
pub(crate) fn traffic() -> impl Strategy<Value = Traffic> {
    prop_oneof![
        6 => (select(vec![6u8, 17, 132]), select(vec![0u16, 1, 63, 64, 80, 81, 100, 127, 128, 443, 8080, 65535]))
            .prop_map(|(protocol, port)| Traffic { protocol, port }),
        2 => (select(vec![1u8, 58]), select(vec![0u16, 8, 128])).prop_map(|(protocol, port)| Traffic { protocol, port }),
        1 => (any::<u8>(), any::<u16>()).prop_map(|(protocol, port)| Traffic { protocol, port }),
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    let kind = select(vec![
        PolicyKind::CiliumNetworkPolicy,
        PolicyKind::SinewClusterwideNetworkPolicy,
        PolicyKind::NetworkPolicy,
    ]);
    let specs = prop::collection::vec(spec(), 1..3);
    (kind, 0..3u8, prop::bool::weighted(0.2), prop::bool::weighted(0.15), specs).prop_map(
        |(kind, name, audit, refused, mut specs)| {
            let mut problems = Vec::new();
            if refused {
                // As a decoder leaves a refused object: switches and deny rules.
                for spec in &mut specs {
                    spec.ingress.retain(|rule| rule.action == RuleAction::Deny);
                    spec.egress.retain(|rule| rule.action == RuleAction::Deny);
                }
                let message = "not enforced yet".to_owned();
                problems.push(Problem { path: "spec".to_owned(), message, origin: Origin::default() });
            }
            for (index, spec) in specs.iter_mut().enumerate() {
                for (section, rules) in [("ingress", &mut spec.ingress), ("egress", &mut spec.egress)] {
                    for (number, rule) in rules.iter_mut().enumerate() {
                        let deny = if rule.action == RuleAction::Deny { "Deny" } else { "" };
                        rule.path = format!("specs[{index}].{section}{deny}[{number}]");
                    }
                }
            }
            let namespace = if kind.clusterwide() { "" } else { NAMESPACES[0] }.to_owned();
            Policy {
                name: PolicyName { kind, namespace, name: format!("p{name}") },
                uid: String::new(),
                generation: 1,
                origin: Origin::default(),
                enforcement: if audit { Enforcement::Audit } else { Enforcement::Enforce },
                specs,
                problems,
                warnings: Vec::new(),
            }
        },
    )
}

fn spec() -> impl Strategy<Value = PolicySpec> {
    let rules = || prop::collection::vec(rule(), 0..3);
    (selector(), prop::bool::weighted(0.6), prop::bool::weighted(0.4), rules(), rules()).prop_map(
        |(subject, default_deny_ingress, default_deny_egress, ingress, egress)| PolicySpec {
            subject,
            subject_line: 0,
            default_deny_ingress,
            default_deny_egress,
            ingress,
            egress,
            labels: Vec::new(),
            log: None,
        },
    )
}

fn rule() -> impl Strategy<Value = Rule> {
    let peers = prop_oneof![
        1 => Just(Peers::Any),
        5 => prop::collection::vec(peer(), 0..4).prop_map(Peers::OneOf),
    ];
    let ports = prop_oneof![Just(Vec::new()), prop::collection::vec(port(), 1..4)];
    (prop::bool::weighted(0.25), peers, ports).prop_map(|(deny, peers, ports)| Rule {
        action: if deny { RuleAction::Deny } else { RuleAction::Allow },
        peers,
        ports,
        path: String::new(),
        origin: Origin::default(),
    })
}

fn peer() -> impl Strategy<Value = Peer> {
    let reach = || (any::<bool>(), any::<bool>()).prop_map(|(pods, nodes)| CidrReach { pods, nodes });
    let except = || subsequence(prefixes(), 0..3);
    let group = prop_oneof![
        (0..2u8).prop_map(|group| CidrGroupMatch::Name(format!("g{group}"))),
        selector().prop_map(CidrGroupMatch::Labels),
    ];
    let entity = select(vec![
        Entity::All,
        Entity::World,
        Entity::WorldIpv4,
        Entity::WorldIpv6,
        Entity::Cluster,
        Entity::ClusterMesh,
        Entity::Host,
        Entity::Init,
        Entity::Ingress,
        Entity::Unmanaged,
        Entity::RemoteNode,
        Entity::Health,
        Entity::None,
        Entity::KubeApiserver,
    ]);
    let matches = prop_oneof![
        5 => selector().prop_map(PeerMatch::Labels),
        2 => entity.prop_map(PeerMatch::Entity),
        4 => (select(prefixes()), except(), reach())
            .prop_map(|(prefix, except, reach)| PeerMatch::Cidr { prefix, except, reach }),
        1 => (group, except(), reach())
            .prop_map(|(group, except, reach)| PeerMatch::CidrGroup { group, except, reach }),
    ];
    matches.prop_map(|matches| Peer { matches, path: String::new(), line: 0 })
}

fn port() -> impl Strategy<Value = PortMatch> {
    let l4 = || select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
    let any = select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp, Protocol::Icmp, Protocol::Icmpv6]);
    let matches = prop_oneof![
        2 => any.prop_map(PortMatchKind::Protocol),
        3 => (l4(), select(vec![(80, 80), (64, 127), (1, 65535), (81, 8080), (443, 443)]))
            .prop_map(|(protocol, (first, last))| PortMatchKind::Range { protocol, first, last }),
        2 => (l4(), select(vec!["http", "dns"]))
            .prop_map(|(protocol, name)| PortMatchKind::Named { protocol, name: name.to_owned() }),
        1 => (select(vec![Protocol::Icmp, Protocol::Icmpv6]), select(vec![0u8, 8, 128]))
            .prop_map(|(protocol, icmp_type)| PortMatchKind::IcmpType { protocol, icmp_type }),
    ];
    matches.prop_map(|matches| PortMatch { matches, path: String::new(), line: 0 })
}

fn selector() -> impl Strategy<Value = Selector> {
    prop::collection::vec(requirement(), 0..3).prop_map(|requirements| Selector { requirements })
}

fn requirement() -> impl Strategy<Value = Requirement> {
    let key = prop_oneof![
        6 => Just(("app".to_owned(), vec!["a", "b", "c"])),
        3 => Just(("tier".to_owned(), vec!["x", "y"])),
        3 => Just((NAMESPACE.to_owned(), NAMESPACES.to_vec())),
        2 => Just(("io.cilium.k8s.namespace.labels.env".to_owned(), vec!["prod", "dev"])),
        1 => Just(("host".to_owned(), vec![""])),
        1 => Just(("init".to_owned(), vec![""])),
        1 => Just(("world-ipv4".to_owned(), vec![""])),
        1 => Just(("kube-apiserver".to_owned(), vec![""])),
    ];
    let operator = |values: Vec<&'static str>| {
        let values = subsequence(values.clone(), 0..=values.len());
        let owned = |values: Vec<&str>| values.into_iter().map(str::to_owned).collect();
        prop_oneof![
            5 => values.clone().prop_map(move |values| Operator::In(owned(values))),
            1 => values.prop_map(move |values| Operator::NotIn(owned(values))),
            2 => Just(Operator::Exists),
            1 => Just(Operator::DoesNotExist),
        ]
    };
    let source = select(vec!["any", "any", "k8s", "reserved", "cni"]);
    (source, key.prop_flat_map(move |(key, values)| (Just(key), operator(values))))
        .prop_map(|(source, (key, operator))| Requirement { source: source.to_owned(), key, operator })
}

/// A group of this number.
pub(crate) fn group(number: u8, prefixes: Vec<IpNet>, labels: u8) -> CidrGroup {
    let app = ["a", "b", "c"][usize::from(labels % 3)];
    CidrGroup {
        kind: if number.is_multiple_of(2) { CidrGroupKind::Sinew } else { CidrGroupKind::Cilium },
        name: format!("g{}", number % 4 / 2),
        labels: [("app".to_owned(), app.to_owned())].into(),
        prefixes,
        whole: !labels.is_multiple_of(4),
        origin: Origin::default(),
    }
}
