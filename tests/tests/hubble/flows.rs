//! The flows that the cases speak of, by uuid. Each has something that no other has, so that a filter can tell it.

use prost_types::Timestamp;
use sinew_api::extensions::{DecidingRule, Extensions};
use sinew_api::proto::flow::{
    CiliumEventType, Dns, DropReason, Emitter, Endpoint, Ethernet, FileInfo, Flow, FlowType, Http,
    HttpHeader, IcmPv4, IcmPv6, Ip, IpTraceId, IpVersion, L7FlowType, Layer4, Layer7, NetworkInterface,
    Policy, Sctp, Service, SocketTranslationPoint, Tcp, TcpFlags, TraceContext, TraceObservationPoint,
    TraceParent, TraceReason, TrafficDirection, Udp, Verdict, Workload, layer4, layer7,
};

/// 2026-11-21T03:00:00Z; flow number N is N seconds later.
pub(crate) const START: i64 = 1_795_230_000;

const DROP: i32 = 1;
const TRACE: i32 = 4;
const VERDICT: i32 = 5;
const SOCK: i32 = 7;
const L7: i32 = 129;

fn pod(id: u32, identity: u32, namespace: &str, name: &str) -> Option<Endpoint> {
    let app = name.split('-').next().unwrap_or(name);
    Some(Endpoint {
        id,
        identity,
        cluster_name: "default".into(),
        namespace: namespace.into(),
        labels: vec![format!("k8s:app={app}"), format!("k8s:io.kubernetes.pod.namespace={namespace}")],
        pod_name: name.into(),
        workloads: vec![Workload { name: app.into(), kind: "Deployment".into() }],
    })
}

fn client() -> Option<Endpoint> {
    pod(11, 1001, "shop", "client-7d9f")
}

fn db() -> Option<Endpoint> {
    pod(12, 1002, "shop", "db-0")
}

fn world(identity: u32, label: &str) -> Option<Endpoint> {
    Some(Endpoint { identity, labels: vec![format!("reserved:{label}")], ..Endpoint::default() })
}

fn ip(source: &str, destination: &str) -> Option<Ip> {
    let ip_version = if source.contains(':') { IpVersion::IPv6 } else { IpVersion::IPv4 };
    Some(Ip {
        source: source.into(),
        destination: destination.into(),
        ip_version: ip_version.into(),
        ..Ip::default()
    })
}

fn tcp(source_port: u32, destination_port: u32, flags: TcpFlags) -> Option<Layer4> {
    let tcp = Tcp { source_port, destination_port, flags: Some(flags) };
    Some(Layer4 { protocol: Some(layer4::Protocol::Tcp(tcp)) })
}

fn udp(source_port: u32, destination_port: u32) -> Option<Layer4> {
    Some(Layer4 { protocol: Some(layer4::Protocol::Udp(Udp { source_port, destination_port })) })
}

fn event(r#type: i32, sub_type: i32) -> Option<CiliumEventType> {
    Some(CiliumEventType { r#type, sub_type })
}

fn policy(kind: &str, name: &str) -> Policy {
    Policy {
        name: name.into(),
        namespace: "shop".into(),
        labels: vec![format!("k8s:io.cilium.k8s.policy.name={name}")],
        revision: 7,
        kind: kind.into(),
    }
}

/// What all have.
fn base(verdict: Verdict) -> Flow {
    Flow {
        verdict: verdict.into(),
        emitter: Some(Emitter { name: "Sinew".into(), version: "0.1.0".into() }),
        r#type: FlowType::L3L4.into(),
        node_name: "default/node-a".into(),
        node_labels: vec!["kubernetes.io/arch=amd64".into(), "zone=east".into()],
        ethernet: Some(Ethernet {
            source: "02:00:00:00:00:0b".into(),
            destination: "02:00:00:00:00:0c".into(),
        }),
        interface: Some(NetworkInterface { index: 4, name: "snw00000000001".into() }),
        ..Flow::default()
    }
}

/// Client to database, both in the shop.
fn connection(verdict: Verdict) -> Flow {
    Flow {
        source: client(),
        destination: db(),
        ip: ip("10.0.0.11", "10.0.0.12"),
        is_reply: Some(false),
        ..base(verdict)
    }
}

fn syn() -> TcpFlags {
    TcpFlags { syn: true, ..TcpFlags::default() }
}

fn syn_ack() -> TcpFlags {
    TcpFlags { ack: true, ..syn() }
}

/// All flows, oldest first.
pub(crate) fn all() -> Vec<Flow> {
    let named = allowed().into_iter().chain(denied()).chain(others()).chain(l7());
    let flows = named.zip(0_i64..).map(|((uuid, flow), number)| Flow {
        uuid: uuid.into(),
        time: Some(Timestamp { seconds: START + number, nanos: 120_000_000 }),
        ..flow
    });
    flows.collect()
}

fn allowed() -> Vec<(&'static str, Flow)> {
    let verdict = Flow {
        l4: tcp(40000, 5432, syn()),
        event_type: event(VERDICT, 1),
        traffic_direction: TrafficDirection::Egress.into(),
        policy_match_type: 2,
        egress_allowed_by: vec![policy("CiliumNetworkPolicy", "client-out")],
        policy_log: vec!["shop audit".into()],
        summary: "TCP Flags: SYN".into(),
        ..connection(Verdict::Forwarded)
    };
    let delivered = Flow {
        l4: tcp(40000, 5432, syn()),
        event_type: event(TRACE, 0),
        traffic_direction: TrafficDirection::Ingress.into(),
        trace_observation_point: TraceObservationPoint::ToEndpoint.into(),
        trace_reason: TraceReason::New.into(),
        summary: "TCP Flags: SYN".into(),
        ..connection(Verdict::Forwarded)
    };
    let reply = Flow {
        source: db(),
        destination: client(),
        ip: ip("10.0.0.12", "10.0.0.11"),
        l4: tcp(5432, 40000, syn_ack()),
        event_type: event(TRACE, 0),
        traffic_direction: TrafficDirection::Ingress.into(),
        trace_observation_point: TraceObservationPoint::ToEndpoint.into(),
        trace_reason: TraceReason::Reply.into(),
        is_reply: Some(true),
        reply: true,
        summary: "TCP Flags: SYN, ACK".into(),
        ..connection(Verdict::Forwarded)
    };
    vec![("verdict-egress", verdict), ("delivered", delivered), ("reply", reply)]
}

fn denied() -> Vec<(&'static str, Flow)> {
    let rule = DecidingRule {
        direction: TrafficDirection::Ingress,
        policy: "netpol/shop/db-in".into(),
        file: "shop/db.yaml".into(),
        line: 1,
        ..DecidingRule::default()
    };
    let extensions = Extensions { default_deny: true, rules: vec![rule], ..Extensions::default() };
    let verdict = Flow {
        l4: tcp(40001, 22, syn()),
        event_type: event(VERDICT, 0),
        traffic_direction: TrafficDirection::Ingress.into(),
        drop_reason: 133,
        drop_reason_desc: DropReason::PolicyDenied.into(),
        ingress_denied_by: vec![policy("NetworkPolicy", "db-in"), policy("CiliumNetworkPolicy", "db-extra")],
        extensions: extensions.to_any(),
        summary: "TCP Flags: SYN".into(),
        ..connection(Verdict::Dropped)
    };
    let drop = Flow {
        l4: tcp(40001, 22, syn()),
        event_type: event(DROP, 133),
        file: Some(FileInfo { name: "policy.rs".into(), line: 77 }),
        is_reply: None,
        drop_reason: 133,
        drop_reason_desc: DropReason::PolicyDenied.into(),
        traffic_direction: TrafficDirection::Ingress.into(),
        extensions: extensions.to_any(),
        summary: "TCP Flags: SYN".into(),
        ..connection(Verdict::Dropped)
    };
    let audit = Flow {
        l4: tcp(40002, 6379, syn()),
        event_type: event(VERDICT, 1),
        traffic_direction: TrafficDirection::Egress.into(),
        policy_match_type: 4,
        egress_denied_by: vec![policy("SinewNetworkPolicy", "trial")],
        summary: "TCP Flags: SYN".into(),
        ..connection(Verdict::Audit)
    };
    let ethernet_only = Flow {
        ip: None,
        interface: Some(NetworkInterface { index: 9, name: "eth0".into() }),
        event_type: event(DROP, 166),
        drop_reason: 166,
        drop_reason_desc: DropReason::UnsupportedL2Protocol.into(),
        summary: "Ethernet".into(),
        ..base(Verdict::Dropped)
    };
    vec![("verdict-denied", verdict), ("drop", drop), ("audit", audit), ("ethernet", ethernet_only)]
}

fn others() -> Vec<(&'static str, Flow)> {
    let dns = Flow {
        source: client(),
        destination: pod(13, 1003, "kube-system", "coredns-x"),
        destination_service: Some(Service { name: "kube-dns".into(), namespace: "kube-system".into() }),
        ip: ip("10.0.0.11", "10.0.0.13"),
        l4: udp(5353, 53),
        event_type: event(TRACE, 4),
        trace_observation_point: TraceObservationPoint::ToOverlay.into(),
        is_reply: Some(false),
        summary: "UDP".into(),
        ..base(Verdict::Forwarded)
    };
    let ping = Flow {
        source: client(),
        destination: db(),
        l4: Some(Layer4 { protocol: Some(layer4::Protocol::IcmPv4(IcmPv4 { r#type: 8, code: 0 })) }),
        ip: ip("10.0.0.11", "10.0.0.12"),
        event_type: event(TRACE, 5),
        trace_observation_point: TraceObservationPoint::FromEndpoint.into(),
        ip_trace_id: Some(IpTraceId { trace_id: 99, ip_option_type: 136 }),
        summary: "ICMPv4 EchoRequest".into(),
        ..base(Verdict::Forwarded)
    };
    let ping6 = Flow {
        source: client(),
        destination: db(),
        l4: Some(Layer4 { protocol: Some(layer4::Protocol::IcmPv6(IcmPv6 { r#type: 128, code: 0 })) }),
        ip: ip("fd00::11", "fd00::12"),
        event_type: event(TRACE, 11),
        trace_observation_point: TraceObservationPoint::ToNetwork.into(),
        is_reply: Some(false),
        summary: "ICMPv6 EchoRequest".into(),
        ..base(Verdict::Forwarded)
    };
    let outside = Flow {
        source: client(),
        destination: world(9, "world-ipv4"),
        destination_names: vec!["api.example.com".into()],
        ip: Some(Ip {
            source_xlated: "192.0.2.1".into(),
            ..ip("10.0.0.11", "198.51.100.7").unwrap_or_default()
        }),
        l4: tcp(40003, 443, TcpFlags { fin: true, ack: true, ..TcpFlags::default() }),
        node_name: "prod/node-b".into(),
        node_labels: vec!["rack=12".into(), "zone=west".into()],
        event_type: event(TRACE, 3),
        trace_observation_point: TraceObservationPoint::ToStack.into(),
        is_reply: Some(false),
        summary: "TCP Flags: ACK, FIN".into(),
        ..base(Verdict::Forwarded)
    };
    let tunnelled = Flow {
        source: pod(21, 2001, "lab", "probe-0"),
        source_names: vec!["probe.west.test".into()],
        destination: Some(Endpoint {
            cluster_name: "west".into(),
            ..pod(22, 2002, "lab", "sink-0").unwrap_or_default()
        }),
        ip: Some(Ip { encrypted: true, ..ip("fd00::21", "fd00::22").unwrap_or_default() }),
        l4: Some(Layer4 {
            protocol: Some(layer4::Protocol::Sctp(Sctp { source_port: 7000, destination_port: 7001 })),
        }),
        event_type: event(TRACE, 9),
        trace_observation_point: TraceObservationPoint::FromOverlay.into(),
        is_reply: Some(false),
        summary: "SCTP".into(),
        ..base(Verdict::Forwarded)
    };
    let translated = Flow {
        source: client(),
        r#type: FlowType::Sock.into(),
        ip: ip("10.0.0.11", "10.96.0.10"),
        l4: udp(0, 53),
        event_type: event(SOCK, 0),
        sock_xlate_point: SocketTranslationPoint::SockXlatePointPostDirectionFwd.into(),
        socket_cookie: 4711,
        summary: "UDP".into(),
        ..base(Verdict::Translated)
    };
    vec![
        ("dns", dns),
        ("ping", ping),
        ("ping6", ping6),
        ("outside", outside),
        ("tunnelled", tunnelled),
        ("translated", translated),
    ]
}

fn l7() -> Vec<(&'static str, Flow)> {
    let http = Flow {
        source: db(),
        source_service: Some(Service { name: "db".into(), namespace: "shop".into() }),
        destination: client(),
        r#type: FlowType::L7.into(),
        ip: ip("10.0.0.12", "10.0.0.11"),
        l4: tcp(8080, 40004, TcpFlags::default()),
        event_type: event(L7, 0),
        l7: Some(Layer7 {
            r#type: L7FlowType::Response.into(),
            latency_ns: 2_500_000,
            record: Some(layer7::Record::Http(Http {
                code: 404,
                method: "GET".into(),
                url: "http://db/page/12?x=1".into(),
                protocol: "HTTP/1.1".into(),
                headers: vec![HttpHeader { key: "X-Shop".into(), value: "blue".into() }],
            })),
        }),
        trace_context: Some(TraceContext { parent: Some(TraceParent { trace_id: "4bf92f".into() }) }),
        is_reply: Some(true),
        reply: true,
        summary: "HTTP/1.1 404 2ms (GET http://db/page/12?x=1)".into(),
        ..base(Verdict::Forwarded)
    };
    let query = Flow {
        source: client(),
        destination: world(2, "world"),
        r#type: FlowType::L7.into(),
        ip: ip("10.0.0.11", "203.0.113.53"),
        l4: udp(5354, 53),
        event_type: event(L7, 0),
        l7: Some(Layer7 {
            r#type: L7FlowType::Request.into(),
            latency_ns: 0,
            record: Some(layer7::Record::Dns(Dns {
                query: "api.example.com.".into(),
                qtypes: vec!["A".into()],
                observation_source: "proxy".into(),
                ..Dns::default()
            })),
        }),
        is_reply: Some(false),
        summary: "DNS Query api.example.com. A".into(),
        ..base(Verdict::Redirected)
    };
    vec![("http", http), ("query", query)]
}
