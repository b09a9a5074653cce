//! Each field of `FlowFilter` with a flow that it matches and one that it does not, here those of packets and messages, in
//! [`ends`] those of who talks to whom; values without a meaning ([`refusals`]); and random filters over random flows
//! against an evaluator that shares no code.

mod ends;
mod naive;
mod random;
mod refusals;

use proptest::prelude::*;
use sinew_api::proto::flow::{
    CiliumEventType, Dns, DropReason, Endpoint, EventTypeFilter, Http, HttpHeader, IcmPv4, IcmPv6, Ip,
    IpTraceId, IpVersion, Layer4, Layer7, NetworkInterface, Sctp, Service, Tcp, TcpFlags, TraceContext,
    TraceParent, TrafficDirection, Udp, Verdict, Workload, flow_filter, layer4, layer7,
};

use super::*;

/// Set-up of a filter, of a flow that it matches, and of one that it does not.
fn check(
    field: &str,
    filter: impl FnOnce(&mut FlowFilter),
    hit: impl FnOnce(&mut Flow),
    miss: impl FnOnce(&mut Flow),
) {
    let mut made = FlowFilter::default();
    filter(&mut made);
    let (mut hit_flow, mut miss_flow) = (Flow::default(), Flow::default());
    hit(&mut hit_flow);
    miss(&mut miss_flow);
    let allow =
        FilterSet::new(std::slice::from_ref(&made), &[]).unwrap_or_else(|error| panic!("{field}: {error}"));
    assert!(allow.matches(&hit_flow), "{field} matches {hit_flow:?}");
    assert!(!allow.matches(&miss_flow), "{field} does not match {miss_flow:?}");
    let deny = FilterSet::new(&[], std::slice::from_ref(&made)).expect("a filter of either list");
    assert!(!deny.matches(&hit_flow) && deny.matches(&miss_flow), "{field} in the deny list");
}

fn ip(source: &str, destination: &str) -> Option<Ip> {
    Some(Ip { source: source.into(), destination: destination.into(), ..Ip::default() })
}

fn pod(namespace: &str, name: &str) -> Option<Endpoint> {
    Some(Endpoint { namespace: namespace.into(), pod_name: name.into(), ..Endpoint::default() })
}

fn labels(labels: &[&str]) -> Option<Endpoint> {
    Some(Endpoint { labels: labels.iter().map(|it| (*it).to_owned()).collect(), ..Endpoint::default() })
}

fn tcp(source_port: u32, destination_port: u32) -> Option<Layer4> {
    Some(Layer4 { protocol: Some(layer4::Protocol::Tcp(Tcp { source_port, destination_port, flags: None })) })
}

fn http(code: u32, method: &str, url: &str) -> Option<Layer7> {
    let headers = vec![HttpHeader { key: "Host".into(), value: "shop".into() }];
    let http = Http { code, method: method.into(), url: url.into(), headers, ..Http::default() };
    Some(Layer7 { record: Some(layer7::Record::Http(http)), ..Layer7::default() })
}

#[test]
fn uuid() {
    check(
        "uuid",
        |f| f.uuid = vec!["a".into(), "b".into()],
        |f| f.uuid = "b".into(),
        |f| f.uuid = "c".into(),
    );
}

#[test]
fn ports_protocols_and_flags() {
    check("source_port", |f| f.source_port = vec!["80".into()], |f| f.l4 = tcp(80, 1), |f| f.l4 = tcp(1, 80));
    let udp =
        Some(Layer4 { protocol: Some(layer4::Protocol::Udp(Udp { source_port: 1, destination_port: 53 })) });
    let sctp = Some(Layer4 {
        protocol: Some(layer4::Protocol::Sctp(Sctp { source_port: 1, destination_port: 53 })),
    });
    let ping = Some(Layer4 { protocol: Some(layer4::Protocol::IcmPv4(IcmPv4 { r#type: 8, code: 0 })) });
    let ping6 = Some(Layer4 { protocol: Some(layer4::Protocol::IcmPv6(IcmPv6 { r#type: 128, code: 0 })) });
    check(
        "destination_port",
        |f| f.destination_port = vec!["0053".into()],
        |f| f.l4 = udp.clone(),
        |f| f.l4 = ping.clone(),
    );
    check("destination_port", |f| f.destination_port = vec!["53".into()], |f| f.l4 = sctp.clone(), |_| {});
    check("protocol", |f| f.protocol = vec!["ICMP".into()], |f| f.l4 = ping6.clone(), |f| f.l4 = udp.clone());
    check("protocol", |f| f.protocol = vec!["icmpv4".into()], |f| f.l4 = ping, |f| f.l4 = ping6);
    check(
        "protocol",
        |f| f.protocol = vec!["udp".into(), "http".into()],
        |f| f.l7 = http(200, "", ""),
        |f| f.l4 = sctp,
    );
    let flags = |flags: TcpFlags| {
        Some(Layer4 { protocol: Some(layer4::Protocol::Tcp(Tcp { flags: Some(flags), ..Tcp::default() })) })
    };
    let syn = TcpFlags { syn: true, ..TcpFlags::default() };
    let syn_ack = TcpFlags { ack: true, ..syn };
    check(
        "tcp_flags",
        |f| f.tcp_flags = vec![syn],
        |f| f.l4 = flags(syn_ack),
        |f| f.l4 = flags(TcpFlags::default()),
    );
    check("tcp_flags", |f| f.tcp_flags = vec![syn_ack], |f| f.l4 = flags(syn_ack), |f| f.l4 = flags(syn));
    check(
        "tcp_flags",
        |f| f.tcp_flags = vec![TcpFlags::default()],
        |f| f.l4 = flags(syn),
        |f| f.l4 = tcp(1, 2),
    );
}

#[test]
fn verdicts_and_events() {
    check("verdict", |f| f.verdict = vec![2], |f| f.verdict = Verdict::Dropped.into(), |f| f.verdict = 1);
    let dropped = |reason: DropReason| {
        move |f: &mut Flow| (f.verdict, f.drop_reason_desc) = (Verdict::Dropped.into(), reason.into())
    };
    check(
        "drop_reason_desc",
        |f| f.drop_reason_desc = vec![133],
        dropped(DropReason::PolicyDenied),
        dropped(DropReason::PolicyDeny),
    );
    check(
        "drop_reason_desc",
        |f| f.drop_reason_desc = vec![133],
        dropped(DropReason::PolicyDenied),
        |f| f.drop_reason_desc = 133,
    );
    check(
        "traffic_direction",
        |f| f.traffic_direction = vec![1],
        |f| f.traffic_direction = TrafficDirection::Ingress.into(),
        |_| {},
    );
    let event = |r#type, sub_type| Some(CiliumEventType { r#type, sub_type });
    let want = |r#type, match_sub_type, sub_type| vec![EventTypeFilter { r#type, match_sub_type, sub_type }];
    check(
        "event_type",
        |f| f.event_type = want(4, false, 9),
        |f| f.event_type = event(4, 1),
        |f| f.event_type = event(1, 9),
    );
    check(
        "event_type",
        |f| f.event_type = want(4, true, 0),
        |f| f.event_type = event(4, 0),
        |f| f.event_type = event(4, 1),
    );
    check("event_type", |f| f.event_type = want(0, true, 3), |f| f.event_type = event(9, 3), |_| {});
    check("reply", |f| f.reply = vec![true], |f| f.is_reply = Some(true), |f| f.is_reply = Some(false));
    check("reply", |f| f.reply = vec![false], |f| f.verdict = Verdict::Dropped.into(), |f| f.verdict = 1);
    check(
        "encrypted",
        |f| f.encrypted = vec![true],
        |f| f.ip = Some(Ip { encrypted: true, ..Ip::default() }),
        |_| {},
    );
    check(
        "ip_version",
        |f| f.ip_version = vec![2],
        |f| f.ip = Some(Ip { ip_version: IpVersion::IPv6.into(), ..Ip::default() }),
        |_| {},
    );
    check(
        "ip_version",
        |f| f.ip_version = vec![0],
        |_| {},
        |f| f.ip = Some(Ip { ip_version: 1, ..Ip::default() }),
    );
}

#[test]
fn places_and_traces() {
    let at = |index, name: &str| NetworkInterface { index, name: name.into() };
    check(
        "interface",
        |f| f.interface = vec![at(0, "eth0")],
        |f| f.interface = Some(at(7, "eth0")),
        |f| f.interface = Some(at(7, "eth1")),
    );
    check("interface", |f| f.interface = vec![at(7, "")], |f| f.interface = Some(at(7, "x")), |_| {});
    check(
        "node_name",
        |f| f.node_name = vec!["node*".into()],
        |f| f.node_name = "default/node-1".into(),
        |f| f.node_name = "default/a-node".into(),
    );
    check(
        "node_name",
        |f| f.node_name = vec!["east/".into()],
        |f| f.node_name = "east/n.x".into(),
        |f| f.node_name = "n".into(),
    );
    check("node_name", |f| f.node_name = vec!["default/n".into()], |f| f.node_name = "n".into(), |_| {});
    let trace = |id: &str| Some(TraceContext { parent: Some(TraceParent { trace_id: id.into() }) });
    check(
        "trace_id",
        |f| f.trace_id = vec!["a".into()],
        |f| f.trace_context = trace("a"),
        |f| f.trace_context = trace("b"),
    );
    let traced = |trace_id| Some(IpTraceId { trace_id, ip_option_type: 0 });
    check(
        "ip_trace_id",
        |f| f.ip_trace_id = vec![5],
        |f| f.ip_trace_id = traced(5),
        |f| f.ip_trace_id = traced(6),
    );
}

#[test]
fn application_messages() {
    let dns = |query: &str| {
        Some(Layer7 {
            record: Some(layer7::Record::Dns(Dns { query: query.into(), ..Dns::default() })),
            ..Layer7::default()
        })
    };
    check(
        "dns_query",
        |f| f.dns_query = vec!["^a\\.".into()],
        |f| f.l7 = dns("a.b."),
        |f| f.l7 = http(200, "GET", "a."),
    );
    check(
        "http_status_code",
        |f| f.http_status_code = vec!["404".into()],
        |f| f.l7 = http(404, "", ""),
        |f| f.l7 = http(405, "", ""),
    );
    check(
        "http_status_code",
        |f| f.http_status_code = vec!["40+".into()],
        |f| f.l7 = http(409, "", ""),
        |f| f.l7 = http(0, "", ""),
    );
    check(
        "http_method",
        |f| f.http_method = vec!["get".into()],
        |f| f.l7 = http(0, "GET", ""),
        |f| f.l7 = http(0, "PUT", ""),
    );
    check(
        "http_path",
        |f| f.http_path = vec!["^/a$".into()],
        |f| f.l7 = http(0, "", "http://h/a?b=/c"),
        |f| f.l7 = http(0, "", "http://h/b?/a"),
    );
    check(
        "http_path",
        |f| f.http_path = vec!["a".into()],
        |f| f.l7 = http(0, "", "/a#x"),
        |f| f.l7 = http(0, "", "a"),
    );
    check(
        "http_path",
        |f| f.http_path = vec!["^/a b#c$".into()],
        |f| f.l7 = http(0, "", "http://h/a%20b#c?d"),
        |f| f.l7 = http(0, "", "/a%2b#c"),
    );
    check(
        "http_path",
        |f| f.http_path = vec!["a".into()],
        |f| f.l7 = http(0, "", "/a%25"),
        |f| f.l7 = http(0, "", "/a%2"),
    );
    check(
        "http_url",
        |f| f.http_url = vec!["b=".into()],
        |f| f.l7 = http(0, "", "/a?b=1"),
        |f| f.l7 = http(0, "", "/a"),
    );
    let header = |value: &str| vec![HttpHeader { key: "Host".into(), value: value.into() }];
    check("http_header", |f| f.http_header = header("shop"), |f| f.l7 = http(0, "", ""), |_| {});
    let other = FlowFilter { http_header: header("x"), ..FlowFilter::default() };
    let set = FilterSet::new(&[other], &[]).expect("a filter");
    assert!(!set.matches(&Flow { l7: http(0, "", ""), ..Flow::default() }));
}

#[test]
fn lists_are_or_and_fields_are_and() {
    let dropped = FlowFilter { verdict: vec![2], ..FlowFilter::default() };
    let of_a = FlowFilter { uuid: vec!["a".into()], ..FlowFilter::default() };
    let both = FlowFilter { verdict: vec![2], uuid: vec!["a".into()], ..FlowFilter::default() };
    let flow = |verdict, uuid: &str| Flow { verdict, uuid: uuid.into(), ..Flow::default() };
    let either = FilterSet::new(&[dropped.clone(), of_a.clone()], &[]).expect("filters");
    assert!(either.matches(&flow(2, "b")) && either.matches(&flow(1, "a")) && !either.matches(&flow(1, "b")));
    let and = FilterSet::new(&[both], &[]).expect("filters");
    assert!(and.matches(&flow(2, "a")) && !and.matches(&flow(2, "b")) && !and.matches(&flow(1, "a")));
    let without = FilterSet::new(&[dropped], &[of_a]).expect("filters");
    assert!(without.matches(&flow(2, "b")) && !without.matches(&flow(2, "a")));
    assert!(FilterSet::default().matches(&Flow::default()), "no filter matches everything");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn compiled_filters_agree_with_a_naive_evaluator(
        allow in proptest::collection::vec(random::filter(), 0..3),
        deny in proptest::collection::vec(random::filter(), 0..2),
        flows in proptest::collection::vec(random::flow(), 1..8),
    ) {
        let set = FilterSet::new(&allow, &deny).expect("random filters have a meaning");
        for flow in &flows {
            prop_assert_eq!(set.matches(flow), naive::passes(&allow, &deny, flow), "{:?}", flow);
        }
    }
}
