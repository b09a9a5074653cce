//! Records as the programs write them, and the flows that people see: sequence, names, policies, reasons.

use std::collections::BTreeMap;
use std::net::IpAddr;

use sinew_api::identity::Identity;
use sinew_api::labels::Labels;
use sinew_api::object::{Origin, PolicyKind, PolicyName, Problem, Workload};
use sinew_api::policy::{Enforcement, Peers, Policy, PolicySpec, Rule, RuleAction};
use sinew_api::proto::flow::layer4::Protocol;
use sinew_bpf::abi::{Address, IpcacheEntry};
use sinew_engine::snapshot::{AddressView, Force, IdentityView, PolicyState, PolicyView, Snapshot};
use sinew_engine::{Cause, Direction, EndpointId};

use super::super::FlowSettings;
use super::super::names::{Clock, Names};
use super::super::seen::see;
use super::*;

const WEB: u32 = 1001;
const DB: u32 = 1002;
/// Cookies.
const CLIENT_OUT: u32 = 7;
const DENY_RULE: u32 = 8;
const DEFAULT: u32 = 9;
const TRIAL: u32 = 10;

fn name(kind: PolicyKind, name: &str) -> PolicyName {
    PolicyName { kind, namespace: "shop".into(), name: name.into() }
}

fn policy(of: PolicyName, path: &str, action: RuleAction, line: u32) -> Policy {
    let rule = Rule {
        action,
        peers: Peers::Any,
        ports: Vec::new(),
        path: path.into(),
        origin: Origin { file: "shop.yaml".into(), line },
    };
    let spec = PolicySpec {
        subject: Default::default(),
        subject_line: 2,
        default_deny_ingress: true,
        default_deny_egress: false,
        ingress: vec![rule],
        egress: Vec::new(),
        labels: vec!["unspec:owner=shop".into()],
        log: Some("audit trail".into()),
    };
    Policy {
        name: of,
        uid: "4f2a".into(),
        generation: 1,
        origin: Origin { file: "shop.yaml".into(), line: 1 },
        enforcement: Enforcement::Enforce,
        specs: vec![spec],
        problems: Vec::new(),
        warnings: Vec::new(),
    }
}

fn view(policy: Policy) -> PolicyView {
    let policy = Arc::new(policy);
    PolicyView {
        running: policy.clone(),
        problems: policy.problems.clone(),
        policy,
        force: Force::Whole,
        state: PolicyState::Enforced,
        warnings: Vec::new(),
        selected: Vec::new(),
        matched: BTreeMap::new(),
        revision: 3,
    }
}

fn names() -> Names {
    let labels = |app: &str| {
        let mut labels = Labels::new();
        labels.insert("k8s", "app", app);
        labels.insert("k8s", "io.cilium.k8s.policy.cluster", "east");
        Arc::new(labels)
    };
    let identity = |app: &str| IdentityView { labels: labels(app), addresses: 1, known: true };
    let address = |identity: u32, pod: &str, endpoint: u16| AddressView {
        entry: IpcacheEntry { identity, ..IpcacheEntry::default() },
        pod_namespace: "shop".into(),
        pod_name: pod.into(),
        workload: Some(Arc::new(Workload { kind: "Deployment".into(), name: pod.into() })),
        endpoint: (endpoint != 0).then_some(EndpointId(endpoint)),
        node: "a".into(),
    };
    let (client, deny) =
        (name(PolicyKind::CiliumNetworkPolicy, "client"), name(PolicyKind::SinewNetworkPolicy, "deny"));
    let (db, trial) = (name(PolicyKind::NetworkPolicy, "db"), name(PolicyKind::SinewNetworkPolicy, "trial"));
    let mut refused = policy(db.clone(), "spec.ingress[0]", RuleAction::Allow, 9);
    let origin = Origin { file: "shop.yaml".into(), line: 5 };
    refused.problems.push(Problem {
        path: "spec.egress[0].toFQDNs".into(),
        message: "not yet".into(),
        origin,
    });
    let policies = BTreeMap::from([
        (client.clone(), view(policy(client.clone(), "spec.ingress[0]", RuleAction::Allow, 4))),
        (deny.clone(), view(policy(deny.clone(), "spec.ingressDeny[0]", RuleAction::Deny, 6))),
        (db.clone(), view(refused)),
        (trial.clone(), view(policy(trial.clone(), "spec.ingressDeny[0]", RuleAction::Deny, 8))),
    ]);
    let causes = BTreeMap::from([
        (CLIENT_OUT, Cause::Rule { policy: client, path: "spec.ingress[0]".into() }),
        (DENY_RULE, Cause::Rule { policy: deny, path: "spec.ingressDeny[0]".into() }),
        (DEFAULT, Cause::DefaultDeny { direction: Direction::Ingress, policies: vec![db] }),
        (TRIAL, Cause::Rule { policy: trial, path: "spec.ingressDeny[0]".into() }),
    ]);
    let snapshot = Snapshot {
        identities: Arc::new(BTreeMap::from([
            (Identity(WEB), identity("web")),
            (Identity(DB), identity("db")),
        ])),
        addresses: Arc::new(BTreeMap::from([
            ("10.0.0.1".parse().unwrap(), address(WEB, "web", 11)),
            ("10.0.0.2".parse().unwrap(), address(DB, "db", 12)),
            ("10.0.0.3".parse().unwrap(), address(2222, "moved", 0)),
        ])),
        policies: Arc::new(policies),
        causes: Arc::new(causes),
        ..Snapshot::default()
    };
    let settings = FlowSettings { cluster: "default".into(), node: "a".into() };
    Names::new(&settings, Clock::now(), Arc::new(snapshot))
}

fn address(text: &str) -> Address {
    Address::from(text.parse::<IpAddr>().unwrap())
}

/// A SYN from web to db, judged both ways and allowed.
fn new_connection() -> EventRecord {
    EventRecord {
        kind: event::kind::NEW,
        point: event::point::TO_ENDPOINT,
        flags: event::flag::EGRESS_JUDGED | event::flag::INGRESS_JUDGED | event::flag::DIRECTION_KNOWN,
        protocol: 6,
        source: address("10.0.0.1"),
        destination: address("10.0.0.2"),
        source_port: 40000_u16.to_be(),
        destination_port: 5432_u16.to_be(),
        tcp_flags: 0x02,
        ip_version: 4,
        source_identity: WEB,
        destination_identity: DB,
        cookies: [0, CLIENT_OUT],
        verdicts: [verdict::ALLOW | verdict::ALLOW << 4, verdict::ALLOW | verdict::ALLOW << 4],
        // Any peer and all of L4; identity and a whole port.
        matches: [0, 2 << 5 | 24],
        revision: 7,
        ..EventRecord::default()
    }
}

fn denied(reason: DropReason, verdict: u8, cookie: u32) -> EventRecord {
    EventRecord {
        kind: event::kind::DROP,
        reason: reason as u16,
        verdicts: [verdict::ALLOW | verdict::ALLOW << 4, verdict | verdict << 4],
        cookies: [0, cookie],
        matches: [0, 0],
        place: 2 << 12 | 77,
        ..new_connection()
    }
}

/// Event type, direction, verdict and the policies of a flow.
fn told(flow: &Flow) -> String {
    let event = flow.event_type.unwrap_or_default();
    let names = |list: &[sinew_api::proto::flow::Policy]| {
        list.iter().map(|policy| format!("{}:{}", policy.kind, policy.name)).collect::<Vec<_>>().join(",")
    };
    format!(
        "{}.{} {} {} out+{} in+{} out-{} in-{}",
        event.r#type,
        event.sub_type,
        flow.traffic_direction().as_str_name(),
        flow.verdict().as_str_name(),
        names(&flow.egress_allowed_by),
        names(&flow.ingress_allowed_by),
        names(&flow.egress_denied_by),
        names(&flow.ingress_denied_by)
    )
}

fn flows(record: &EventRecord, mut names: Names) -> Vec<Flow> {
    let mut seen = Vec::new();
    see(record, &mut names, &mut seen);
    seen.iter().map(flow).collect()
}

fn sequence(record: &EventRecord) -> Vec<String> {
    flows(record, names()).iter().map(told).collect()
}

#[test]
fn a_new_connection_is_two_verdicts_and_a_trace() {
    let expected = [
        "5.0 EGRESS FORWARDED out+ in+ out- in-",
        "5.0 INGRESS FORWARDED out+ in+CiliumNetworkPolicy:client out- in-",
        "4.0 INGRESS FORWARDED out+ in+ out- in-",
    ];
    assert_eq!(sequence(&new_connection()), expected);
    let made = flows(&new_connection(), names());
    assert_eq!(made.iter().map(|flow| flow.policy_match_type).collect::<Vec<_>>(), [4, 2, 0]);
    assert_eq!(made[2].trace_reason(), TraceReason::New);
    assert_eq!(made[2].trace_observation_point(), TraceObservationPoint::ToEndpoint);
    assert!(made[0].uuid != made[1].uuid && made[1].uuid != made[2].uuid && made[0].uuid.len() == 36);
}

#[test]
fn both_ends_have_their_names() {
    let flow = flows(&new_connection(), names()).remove(1);
    let source = flow.source.clone().unwrap();
    assert_eq!(
        (source.id, source.identity, source.namespace.as_str(), source.pod_name.as_str()),
        (11, WEB, "shop", "web")
    );
    assert_eq!(source.labels, ["k8s:app=web", "k8s:io.cilium.k8s.policy.cluster=east"]);
    assert_eq!((source.cluster_name.as_str(), source.workloads[0].kind.as_str()), ("east", "Deployment"));
    assert_eq!((flow.node_name.as_str(), flow.summary.as_str()), ("default/a", "TCP Flags: SYN"));
    assert_eq!((flow.is_reply, flow.reply), (Some(false), false));
    assert_eq!(flow.emitter.map(|emitter| emitter.name).as_deref(), Some("Sinew"));
    assert_eq!(flow.policy_log, ["audit trail"]);
    let policy = &flow.ingress_allowed_by[0];
    let labels = [
        "unspec:owner=shop",
        "k8s:io.cilium.k8s.policy.derived-from=CiliumNetworkPolicy",
        "k8s:io.cilium.k8s.policy.name=client",
        "k8s:io.cilium.k8s.policy.namespace=shop",
        "k8s:io.cilium.k8s.policy.uid=4f2a",
    ];
    assert_eq!((policy.labels.as_slice(), policy.revision), (&labels.map(str::to_owned)[..], 7));
    let Some(Protocol::Tcp(tcp)) = flow.l4.and_then(|l4| l4.protocol) else { panic!("no TCP") };
    assert_eq!((tcp.source_port, tcp.destination_port, tcp.flags.unwrap().syn), (40000, 5432, true));
}

#[test]
fn a_denial_is_a_verdict_and_a_drop_that_name_the_same_policies() {
    let expected = [
        "5.0 EGRESS FORWARDED out+ in+ out- in-",
        "5.0 INGRESS DROPPED out+ in+ out- in-SinewNetworkPolicy:deny",
        "1.181 INGRESS DROPPED out+ in+ out- in-SinewNetworkPolicy:deny",
    ];
    let record = denied(DropReason::DeniedByRule, verdict::DENY, DENY_RULE);
    assert_eq!(sequence(&record), expected);
    let drop = flows(&record, names()).remove(2);
    assert_eq!((drop.drop_reason_desc, drop.drop_reason), (181, 181));
    let file = drop.file.clone().unwrap();
    assert_eq!((file.name.as_str(), file.line), (file::NAMES[2], 77));
    let said = Extensions::of(&drop);
    assert!(!said.default_deny);
    assert_eq!(
        (said.rules[0].policy.as_str(), said.rules[0].path.as_str()),
        ("snp/shop/deny", "spec.ingressDeny[0]")
    );
    assert_eq!((said.rules[0].file.as_str(), said.rules[0].line, said.rules[0].deny), ("shop.yaml", 6, true));
}

/// policy.md 14: a refused object is named with the field for which it is refused.
#[test]
fn a_default_deny_names_who_switched_it_on() {
    let record = denied(DropReason::PolicyDenied, verdict::DEFAULT_DENY, DEFAULT);
    let expected = [
        "5.0 EGRESS FORWARDED out+ in+ out- in-",
        "5.0 INGRESS DROPPED out+ in+ out- in-NetworkPolicy:db",
        "1.133 INGRESS DROPPED out+ in+ out- in-NetworkPolicy:db",
    ];
    assert_eq!(sequence(&record), expected);
    for flow in &flows(&record, names())[1..] {
        let said = Extensions::of(flow);
        assert!(said.default_deny && said.rules[0].refused);
        assert_eq!(said.rules[0].path, "spec.egress[0].toFQDNs");
        assert_eq!(said.reason, 0, "Hubble's number says all");
    }
}

/// policy.md 13.
#[test]
fn an_audit_policy_makes_an_allowed_flow_audit() {
    let mut record = new_connection();
    record.verdicts[1] = verdict::ALLOW | verdict::DENY << 4;
    record.shadow_cookies[1] = TRIAL;
    let expected = [
        "5.0 EGRESS FORWARDED out+ in+ out- in-",
        "5.0 INGRESS AUDIT out+ in+CiliumNetworkPolicy:client out- in-SinewNetworkPolicy:trial",
        "4.0 INGRESS AUDIT out+ in+ out- in-",
    ];
    assert_eq!(sequence(&record), expected);
    let said = Extensions::of(&flows(&record, names())[1]);
    assert_eq!(said.rules.iter().map(|rule| rule.shadow).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn a_reply_turns_the_direction_round() {
    let reply = EventRecord {
        kind: event::kind::FLAGS,
        flags: event::flag::REPLY | event::flag::DIRECTION_KNOWN,
        tcp_flags: 0x12,
        source: address("10.0.0.2"),
        destination: address("10.0.0.1"),
        source_identity: DB,
        destination_identity: WEB,
        ..new_connection()
    };
    let made = flows(&reply, names());
    assert_eq!(made.len(), 1);
    assert_eq!(told(&made[0]), "4.0 EGRESS FORWARDED out+ in+ out- in-");
    assert_eq!((made[0].is_reply, made[0].trace_reason()), (Some(true), TraceReason::Reply));
    assert_eq!(made[0].summary, "TCP Flags: SYN, ACK");
}

#[test]
fn a_drop_before_any_judgement_is_a_drop_alone() {
    let own =
        DropReason::ALL.iter().copied().find(|reason| *reason as u16 >= 1000).expect("a reason of our own");
    let record = EventRecord { flags: 0, ip_version: 0, protocol: 0, ..denied(own, 0, 0) };
    let made = flows(&record, names());
    assert_eq!(made.len(), 1);
    assert_eq!(made[0].event_type.unwrap().r#type, 1);
    assert_eq!((made[0].ip.clone(), made[0].source.clone(), made[0].is_reply), (None, None, None));
    let said = Extensions::of(&made[0]);
    assert_eq!((said.reason, said.reason_text.as_str()), (own as u32, own.words()));
    assert_eq!(made[0].drop_reason_desc, i32::from(own.hubble()));
}

/// What the endpoint of the hook sent is egress, what came to it ingress.
#[test]
fn a_drop_without_a_judgement_has_the_direction_of_its_hook() {
    let place = u16::from(file::PARSE) << 12 | 5;
    let unjudged = |record: EventRecord| EventRecord { flags: 0, cookies: [0; 2], place, ..record };
    let drop = unjudged(denied(DropReason::InvalidPacket, 0, 0));
    let direction = |record: EventRecord| {
        let mut made = flows(&record, names());
        assert_eq!(made.len(), 1, "no verdict");
        made.remove(0).traffic_direction()
    };
    assert_eq!(direction(EventRecord { endpoint: 11, ..drop }), TrafficDirection::Egress, "web sent it");
    assert_eq!(direction(EventRecord { endpoint: 12, ..drop }), TrafficDirection::Ingress, "it came to db");
    assert_eq!(direction(EventRecord { endpoint: 0, ..drop }), TrafficDirection::Unknown, "at no endpoint");
    let moving = EventRecord { endpoint: 11, source_identity: 4444, ..drop };
    assert_eq!(
        direction(moving),
        TrafficDirection::Egress,
        "an identity that has moved on changes no endpoint"
    );
    let spoofed = EventRecord {
        endpoint: 11,
        source: address("198.51.100.7"),
        place: u16::from(file::SOURCE) << 12 | 9,
        ..drop
    };
    assert_eq!(direction(spoofed), TrafficDirection::Egress, "whatever it claims");
    let frame = EventRecord { endpoint: 11, ip_version: 0, ..drop };
    assert_eq!(direction(frame), TrafficDirection::Unknown, "without addresses");
    assert_eq!(raw(&drop, Clock::now()).direction, i32::from(TrafficDirection::Unknown));
    let allowed_first = EventRecord { flags: event::flag::EGRESS_JUDGED, endpoint: 12, ..drop };
    let made = flows(&allowed_first, names());
    assert_eq!(made[1].traffic_direction(), TrafficDirection::Ingress, "an allowance drops nothing");
}

#[test]
fn an_audited_record_is_told_as_audited() {
    let allowed = EventRecord {
        flags: event::flag::EGRESS_JUDGED | event::flag::INGRESS_JUDGED,
        verdicts: [verdict::ALLOW | verdict::ALLOW << 4; 2],
        ..new_connection()
    };
    assert_eq!(raw(&allowed, Clock::now()).verdict(), Verdict::Forwarded);
    let shadow = verdict::ALLOW | verdict::DEFAULT_DENY << 4;
    let audited = EventRecord {
        verdicts: [shadow, allowed.verdicts[1]],
        cookies: [1, 2],
        shadow_cookies: [3, 2],
        ..allowed
    };
    let told = raw(&audited, Clock::now());
    assert_eq!((told.verdict(), told.direction()), (Verdict::Audit, TrafficDirection::Egress));
    assert_eq!((told.rule_cookie, told.shadow_cookie), (1, 3), "the judgement that is audited");
}

/// Every reason has a number that Hubble's clients know.
#[test]
fn every_reason_has_a_name_for_hubble() {
    for reason in DropReason::ALL {
        let number = i32::from(reason.hubble());
        let known = sinew_api::proto::flow::DropReason::try_from(number);
        assert!(known.is_ok_and(|known| known as i32 >= 130), "{reason:?} is {number} for Hubble");
    }
}

#[test]
fn what_is_known_of_an_address_now_is_not_said_of_another_holder() {
    let record = EventRecord { source: address("10.0.0.3"), source_identity: WEB, ..new_connection() };
    let source = flows(&record, names()).remove(0).source.unwrap();
    assert_eq!((source.identity, source.pod_name.as_str()), (WEB, ""));
    let unjudged = EventRecord { source_identity: 0, ..record };
    let source = flows(&unjudged, names()).remove(0).source.unwrap();
    assert_eq!((source.identity, source.pod_name.as_str()), (2222, "moved"));
    let world = EventRecord { source: address("198.51.100.7"), source_identity: 9, ..new_connection() };
    let source = flows(&world, names()).remove(0).source.unwrap();
    assert_eq!((source.identity, source.cluster_name.as_str()), (9, ""));
    assert_eq!(source.labels, ["reserved:world-ipv4"]);
}

/// As Hubble's parser words them: the last layer that it knows, and ICMP's messages with their codes.
#[test]
fn summaries_are_hubbles() {
    let summary = |protocol: u8, ip_version: u8, icmp: (u16, u16)| {
        let (source_port, destination_port) = (icmp.0.to_be(), icmp.1.to_be());
        let record = EventRecord { protocol, ip_version, source_port, destination_port, ..new_connection() };
        flows(&record, names()).remove(0).summary
    };
    for (told, protocol, ip_version, icmp) in [
        ("ICMPv4 EchoRequest", 1, 4, (8, 0)),
        ("ICMPv4 DestinationUnreachable(Port)", 1, 4, (3, 3)),
        ("ICMPv4 TimeExceeded(TTLExceeded)", 1, 4, (11, 0)),
        ("ICMPv6 PacketTooBig", 58, 6, (2, 0)),
        ("ICMPv6 DestinationUnreachable(PortUnreachable)", 58, 6, (1, 4)),
        ("IGMP", 2, 4, (0, 0)),
        ("VRRP", 112, 4, (0, 0)),
        ("IPv4", 47, 4, (0, 0)),
        ("IPv6", 47, 6, (0, 0)),
        ("Ethernet", 0, 0, (0, 0)),
    ] {
        assert_eq!(summary(protocol, ip_version, icmp), told);
    }
}

/// A source MAC is judged before the transport header is read: what was not seen is not claimed.
#[test]
fn what_was_dropped_unread_has_no_transport() {
    let of = |protocol: u8, reason: DropReason, flags: u8| {
        let record = EventRecord {
            flags,
            protocol,
            source_port: 0,
            destination_port: 0,
            tcp_flags: 0,
            ip_version: if protocol == 58 { 6 } else { 4 },
            ..denied(reason, 0, 0)
        };
        let flow = flows(&record, names()).pop().unwrap();
        (flow.summary, flow.l4.is_some())
    };
    for protocol in [1, 6, 17, 132] {
        for reason in [DropReason::InvalidSourceMac, DropReason::Vlan, DropReason::SourceRoute] {
            assert_eq!(of(protocol, reason, 0), ("IPv4".to_owned(), false), "{protocol} {reason:?}");
        }
    }
    let none = ("IPv6".to_owned(), false);
    assert_eq!(of(58, DropReason::InvalidSourceMac, 0), none);
    assert_eq!(of(58, DropReason::InvalidSourceIp, 0), none, "a fragment");
    let reply = ("ICMPv4 EchoReply".to_owned(), true);
    assert_eq!(of(1, DropReason::InvalidSourceIp, 0), reply, "it may be a whole packet, which was read");
    assert_eq!(of(1, DropReason::PolicyDenied, event::flag::DIRECTION_KNOWN), reply, "judged");
    assert_eq!(
        of(6, DropReason::InvalidTcpFlags, 0),
        ("TCP Flags: ".to_owned(), true),
        "no flags is the reason"
    );
    let judged = event::flag::INGRESS_JUDGED;
    assert_eq!(of(17, DropReason::PolicyDenied, judged), ("UDP".to_owned(), true));
    let syn = EventRecord { flags: 0, ..denied(DropReason::InvalidSourceIp, 0, 0) };
    assert_eq!(flows(&syn, names())[0].summary, "TCP Flags: SYN");
}

/// So that `--protocol igmp` finds what was dropped for being IGMP.
#[test]
fn igmp_and_vrrp_are_protocols_without_ports() {
    let of = |protocol: u8| flows(&EventRecord { protocol, ..new_connection() }, names()).remove(0).l4;
    assert!(matches!(of(2).and_then(|l4| l4.protocol), Some(Protocol::Igmp(_))));
    assert!(matches!(of(112).and_then(|l4| l4.protocol), Some(Protocol::Vrrp(_))));
    assert_eq!(of(47), None);
}
