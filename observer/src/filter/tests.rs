//! Each field of `FlowFilter` with a flow that it matches and one that it does not; values without a meaning; and
//! random filters over random flows against an evaluator that shares no code.

mod naive;
mod random;

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
fn addresses_and_prefixes() {
    check(
        "source_ip",
        |f| f.source_ip = vec!["10.0.0.1".into()],
        |f| f.ip = ip("10.0.0.1", ""),
        |f| f.ip = ip("", "10.0.0.1"),
    );
    check(
        "source_ip",
        |f| f.source_ip = vec!["10.1.0.0/16".into(), "fd00::/8".into()],
        |f| f.ip = ip("fd12::1", ""),
        |f| f.ip = ip("10.2.0.1", ""),
    );
    check(
        "destination_ip",
        |f| f.destination_ip = vec!["10.1.2.3/8".into()],
        |f| f.ip = ip("", "10.255.0.1"),
        |f| f.ip = ip("10.255.0.1", "::ffff:10.0.0.1"),
    );
    check(
        "destination_ip",
        |f| f.destination_ip = vec!["FD00:0::1".into()],
        |f| f.ip = ip("", "fd00::1"),
        |_| {},
    );
    check(
        "source_ip_xlated",
        |f| f.source_ip_xlated = vec!["192.0.2.0/24".into()],
        |f| f.ip = Some(Ip { source_xlated: "192.0.2.9".into(), ..Ip::default() }),
        |f| f.ip = ip("192.0.2.9", "192.0.2.9"),
    );
}

#[test]
fn pods_by_namespace_and_prefix() {
    check(
        "source_pod",
        |f| f.source_pod = vec!["shop/web".into()],
        |f| f.source = pod("shop", "web-1"),
        |f| f.source = pod("other", "web-1"),
    );
    check(
        "source_pod",
        |f| f.source_pod = vec!["web".into()],
        |f| f.source = pod("default", "web-1"),
        |f| f.source = pod("shop", "web-1"),
    );
    check(
        "source_pod",
        |f| f.source_pod = vec!["shop/".into()],
        |f| f.source = pod("shop", "x"),
        |f| f.destination = pod("shop", "x"),
    );
    check(
        "destination_pod",
        |f| f.destination_pod = vec!["/web".into()],
        |f| f.destination = pod("x", "web"),
        |f| f.destination = pod("x", "a-web"),
    );
    check(
        "destination_pod",
        |f| f.destination_pod = vec!["/".into()],
        |f| f.destination = pod("x", "y"),
        |f| f.destination = pod("", ""),
    );
}

#[test]
fn services_by_namespace_and_prefix() {
    let service =
        |namespace: &str, name: &str| Some(Service { name: name.into(), namespace: namespace.into() });
    check(
        "source_service",
        |f| f.source_service = vec!["a/b".into()],
        |f| f.source_service = service("a", "bc"),
        |f| f.destination_service = service("a", "bc"),
    );
    check(
        "destination_service",
        |f| f.destination_service = vec!["b".into()],
        |f| f.destination_service = service("default", "b"),
        |f| f.destination_service = service("a", "b"),
    );
}

#[test]
fn names_of_addresses() {
    check(
        "source_fqdn",
        |f| f.source_fqdn = vec!["*.example.com.".into()],
        |f| f.source_names = vec!["a.b.example.com".into()],
        |f| f.source_names = vec!["example.com".into()],
    );
    check(
        "destination_fqdn",
        |f| f.destination_fqdn = vec!["API.example.com".into()],
        |f| f.destination_names = vec!["x.org".into(), "api.example.com".into()],
        |f| f.destination_names = vec!["api.example.com.org".into()],
    );
    check(
        "destination_fqdn",
        |f| f.destination_fqdn = vec!["a.b".into()],
        |f| f.destination_names = vec!["a.b".into()],
        |f| f.destination_names = vec!["axb".into()],
    );
}

#[test]
fn label_selectors() {
    let app = &["k8s:app=web", "k8s:tier=front", "reserved:host"];
    for (selector, hit) in [
        ("app=web", true),
        ("k8s:app==web", true),
        ("any:app=web", true),
        ("cilium:app=web", false),
        ("app=db", false),
        ("app", true),
        ("!app", false),
        ("!role", true),
        ("app!=db", true),
        ("app!=web", false),
        ("role!=x", true),
        ("app in (db, web)", true),
        ("app in (db)", false),
        ("app notin (db)", true),
        ("role notin (db)", true),
        ("app=web,tier=front", true),
        ("app=web, tier=back", false),
        ("reserved:host", true),
        ("reserved:world", false),
        ("  app = web  ", true),
        ("tier in (front),app", true),
        ("", true),
    ] {
        for field in ["source_label", "destination_label", "node_labels"] {
            let mut filter = FlowFilter::default();
            let mut flow = Flow::default();
            match field {
                "source_label" => (filter.source_label, flow.source) = (vec![selector.into()], labels(app)),
                "destination_label" => {
                    (filter.destination_label, flow.destination) = (vec![selector.into()], labels(app))
                }
                _ => {
                    (filter.node_labels, flow.node_labels) =
                        (vec![selector.into()], app.iter().map(|it| (*it).to_owned()).collect())
                }
            }
            let set = FilterSet::new(&[filter], &[]).unwrap_or_else(|error| panic!("{selector}: {error}"));
            assert_eq!(set.matches(&flow), hit, "{field} {selector}");
        }
    }
}

#[test]
fn workloads_clusters_and_identities() {
    let owned = |kind: &str, name: &str| {
        Some(Endpoint {
            workloads: vec![Workload { name: name.into(), kind: kind.into() }],
            ..Endpoint::default()
        })
    };
    let want = |kind: &str, name: &str| vec![Workload { name: name.into(), kind: kind.into() }];
    check(
        "source_workload",
        |f| f.source_workload = want("", "web"),
        |f| f.source = owned("Deployment", "web"),
        |f| f.source = owned("Deployment", "webs"),
    );
    check(
        "destination_workload",
        |f| f.destination_workload = want("Deployment", ""),
        |f| f.destination = owned("Deployment", "x"),
        |f| f.destination = owned("DaemonSet", "x"),
    );
    let of = |cluster: &str| Some(Endpoint { cluster_name: cluster.into(), ..Endpoint::default() });
    check(
        "source_cluster_name",
        |f| f.source_cluster_name = vec!["east".into()],
        |f| f.source = of("east"),
        |f| f.source = of("eastern"),
    );
    check(
        "destination_cluster_name",
        |f| f.destination_cluster_name = vec!["east".into()],
        |f| f.destination = of("east"),
        |_| {},
    );
    let with = |identity| Some(Endpoint { identity, ..Endpoint::default() });
    check(
        "source_identity",
        |f| f.source_identity = vec![7, 8],
        |f| f.source = with(8),
        |f| f.source = with(9),
    );
    check(
        "destination_identity",
        |f| f.destination_identity = vec![0],
        |f| f.destination = with(0),
        |f| f.source = with(0),
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

/// The field, its filter, and a part of the sentence.
#[test]
fn values_without_a_meaning_are_named_with_their_place() {
    fn filter(change: impl FnOnce(&mut FlowFilter)) -> FlowFilter {
        let mut filter = FlowFilter::default();
        change(&mut filter);
        filter
    }
    let text = |text: &str| vec!["10.0.0.1".to_owned(), text.to_owned()];
    let one = |text: &str| vec![text.to_owned()];
    let cases: Vec<(&str, FlowFilter)> = vec![
        ("source_ip[1]: \"10.0.0\"", filter(|f| f.source_ip = text("10.0.0"))),
        ("destination_ip[1]: \"10.0.0.0/33\"", filter(|f| f.destination_ip = text("10.0.0.0/33"))),
        ("source_ip_xlated[1]: \"\"", filter(|f| f.source_ip_xlated = text(""))),
        ("source_pod[0]: must not be empty", filter(|f| f.source_pod = one(""))),
        (
            "destination_pod[0]: \"a/b/c\" has more than one slash",
            filter(|f| f.destination_pod = one("a/b/c")),
        ),
        ("source_service[0]: must not be empty", filter(|f| f.source_service = one(""))),
        ("destination_service[0]: \"a/b/c\"", filter(|f| f.destination_service = one("a/b/c"))),
        ("source_fqdn[0]: must not be empty", filter(|f| f.source_fqdn = one("."))),
        (
            "destination_fqdn[0]: \"a..\" ends with more than one dot",
            filter(|f| f.destination_fqdn = one("a..")),
        ),
        ("destination_fqdn[0]: \"a b\": ' ' is in no name", filter(|f| f.destination_fqdn = one("a b"))),
        (
            "source_label[0]: \"a in b\": an opening bracket is missing",
            filter(|f| f.source_label = one("a in b")),
        ),
        (
            "destination_label[0]: \"a=b c\": a comma is missing",
            filter(|f| f.destination_label = one("a=b c")),
        ),
        ("node_labels[0]: \"a,\": a label after the comma", filter(|f| f.node_labels = one("a,"))),
        ("source_label[0]: \"k8s:\": \"k8s:\" has no key", filter(|f| f.source_label = one("k8s:"))),
        ("source_label[0]: \"a ~ b\": \"~\" is no operator", filter(|f| f.source_label = one("a ~ b"))),
        ("source_cluster_name[0]: must not be empty", filter(|f| f.source_cluster_name = one(""))),
        ("destination_cluster_name[0]: must not be empty", filter(|f| f.destination_cluster_name = one(""))),
        ("source_port[0]: \"http\" is no port", filter(|f| f.source_port = one("http"))),
        ("destination_port[0]: \"65536\" is no port", filter(|f| f.destination_port = one("65536"))),
        ("traffic_direction[0]: 3 is no direction", filter(|f| f.traffic_direction = vec![3])),
        ("verdict[1]: 99 is no verdict", filter(|f| f.verdict = vec![1, 99])),
        ("drop_reason_desc[0]: 159 is no drop reason", filter(|f| f.drop_reason_desc = vec![159])),
        ("ip_version[0]: 4 is no IP version", filter(|f| f.ip_version = vec![4])),
        ("protocol[0]: \"tpc\" is no protocol", filter(|f| f.protocol = one("tpc"))),
        ("node_name[0]: must not be empty", filter(|f| f.node_name = one(""))),
        ("node_name[0]: \"a/b/c\" has more than one slash", filter(|f| f.node_name = one("a/b/c"))),
        ("dns_query[0]: \"(\" is no regular expression", filter(|f| f.dns_query = one("("))),
        ("http_status_code[0]: \"600\" is no status code", filter(|f| f.http_status_code = one("600"))),
        ("http_status_code[0]: \"+\" is no status code", filter(|f| f.http_status_code = one("+"))),
        ("http_path[0]: \"[\" is no regular expression", filter(|f| f.http_path = one("["))),
        ("http_url[0]: \"a{9999999}\" is no regular expression", filter(|f| f.http_url = one("a{9999999}"))),
        ("uuid[0]: at most 4096 bytes", filter(|f| f.uuid = one(&"x".repeat(5000)))),
        ("uuid: at most 1024 values", filter(|f| f.uuid = vec![String::new(); 1025])),
        (
            "http_method: can never match together with event_type 1",
            filter(|f| {
                f.http_method = one("GET");
                f.event_type = vec![EventTypeFilter { r#type: 1, ..EventTypeFilter::default() }];
            }),
        ),
    ];
    for (expected, filter) in cases {
        let error =
            FilterSet::new(&[FlowFilter::default(), filter.clone()], &[]).expect_err(expected).to_string();
        assert!(error.starts_with(&format!("whitelist[1].{expected}")), "{error}");
        let error = FilterSet::new(&[], &[filter]).expect_err(expected).to_string();
        assert!(error.starts_with(&format!("blacklist[0].{expected}")), "{error}");
    }
    let expressions = FlowFilter {
        experimental: Some(flow_filter::Experimental { cel_expression: vec!["true".into(); 9] }),
        ..FlowFilter::default()
    };
    let both = [expressions];
    let one_list = FilterSet::new(&both, &[]);
    assert!(one_list.is_ok(), "{one_list:?}");
    let error = FilterSet::new(&both, &both).expect_err("both lists have one budget");
    let words = "blacklist[0].experimental.cel_expression[7]: a request takes at most 16 expressions";
    assert_eq!(error.to_string(), words);
    let queries = filter(|f| f.dns_query = vec!["a".into(); 100]);
    let error = FilterSet::new(&[queries.clone(), queries], &[]).expect_err("too many patterns");
    assert_eq!(error.to_string(), "whitelist[1].dns_query[28]: a request takes at most 128 patterns");
    let many = vec![FlowFilter::default(); MOST_FILTERS + 1];
    assert!(FilterSet::new(&many, &[]).is_err_and(|error| error.to_string().contains("at most 256 filters")));
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
