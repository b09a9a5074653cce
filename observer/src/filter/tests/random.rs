//! Random filters and flows from small alphabets, so that a filter often matches.

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use sinew_api::proto::flow::flow_filter::Experimental;
use sinew_api::proto::flow::{
    CiliumEventType, Dns, Endpoint, EventTypeFilter, Flow, FlowFilter, Http, HttpHeader, IcmPv4, IcmPv6, Ip,
    IpTraceId, Layer4, Layer7, NetworkInterface, Sctp, Service, Tcp, TcpFlags, TraceContext, TraceParent,
    Udp, Workload, layer4, layer7,
};

const ADDRESSES: [&str; 6] = ["10.0.0.1", "10.0.0.2", "10.1.0.1", "fd00::1", "fd00::2", "fd01::1"];
const WANTED_ADDRESSES: [&str; 8] =
    ["10.0.0.1", "10.0.0.0/24", "10.0.0.0/15", "0.0.0.0/0", "fd00::1", "fd00::/64", "fd00::/8", "::/0"];
const LABELS: [&str; 8] = [
    "k8s:app=web",
    "k8s:app=db",
    "k8s:tier=front",
    "reserved:world",
    "any:app=web",
    "app=web",
    "k8s:age=9",
    "age=10",
];
const SELECTORS: [&str; 13] = [
    "age>9",
    "k8s:age<10",
    "app<3",
    "app",
    "!app",
    "app=web",
    "app!=web",
    "k8s:app=web",
    "app in (web,db)",
    "app=web,tier=front",
    "!tier,app in (db)",
    "reserved:world",
    "k8s:tier!=front",
];
const NAMES: [&str; 4] = ["a.example.com", "b.example.com", "example.com", "x.org"];
const PATTERNS: [&str; 5] = ["*.example.com", "*", "example.com", "a.*", "*.org"];
/// Regular expressions of a kind that the naive evaluator knows: a text, with an anchor or without.
const REGEXES: [&str; 6] = ["^/shop", "shop", "a=1$", "^/$", "example", "^a"];
const URLS: [&str; 6] =
    ["", "/shop/1?a=1", "http://shop.example.com/", "http://example.com", "/?/shop", "shop"];
/// Expressions, each of which the naive evaluator has by heart.
pub(super) const EXPRESSIONS: [&str; 6] = [
    "_flow.verdict == Verdict.DROPPED",
    "has(_flow.l4.TCP) && _flow.l4.TCP.destination_port < 80",
    "_flow.source.identity in [1, 2]",
    "_flow.destination.labels.exists(l, l.endsWith('=web'))",
    "_flow.is_reply == null || _flow.is_reply",
    "_flow.source.workloads.all(w, w.kind != 'Job')",
];

fn text(from: &'static [&'static str]) -> impl Strategy<Value = String> {
    select(from).prop_map(str::to_owned)
}

fn few<S: Strategy>(values: S) -> impl Strategy<Value = Vec<S::Value>>
where
    S::Value: Clone,
{
    // Most fields are not set, else nothing ever matches.
    prop_oneof![6 => Just(Vec::new()), 1 => vec(values, 1..3)]
}

fn flags() -> impl Strategy<Value = TcpFlags> {
    (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(syn, ack, fin)| TcpFlags {
        syn,
        ack,
        fin,
        ..TcpFlags::default()
    })
}

fn port() -> impl Strategy<Value = u32> {
    select(&[22_u32, 53, 80][..])
}

fn l4() -> impl Strategy<Value = Layer4> {
    let tcp = (port(), port(), of(flags())).prop_map(|(source_port, destination_port, flags)| {
        layer4::Protocol::Tcp(Tcp { source_port, destination_port, flags })
    });
    let udp = (port(), port()).prop_map(|(source_port, destination_port)| {
        layer4::Protocol::Udp(Udp { source_port, destination_port })
    });
    let sctp = (port(), port()).prop_map(|(source_port, destination_port)| {
        layer4::Protocol::Sctp(Sctp { source_port, destination_port })
    });
    let ping = Just(layer4::Protocol::IcmPv4(IcmPv4 { r#type: 8, code: 0 }));
    let ping6 = Just(layer4::Protocol::IcmPv6(IcmPv6 { r#type: 128, code: 0 }));
    prop_oneof![tcp, udp, sctp, ping, ping6].prop_map(|protocol| Layer4 { protocol: Some(protocol) })
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let names = (text(&["", "default", "shop"]), text(&["", "web-1", "web-2", "db"]));
    let owners = vec(workload(), 0..3);
    (0_u32..3, names, vec(text(&LABELS), 0..3), text(&["", "east", "west"]), owners).prop_map(
        |(identity, (namespace, pod_name), labels, cluster_name, workloads)| Endpoint {
            identity,
            namespace,
            pod_name,
            labels,
            cluster_name,
            workloads,
            ..Endpoint::default()
        },
    )
}

/// An owner, or a wish for one: an empty part of a wish is any.
fn workload() -> impl Strategy<Value = Workload> {
    (text(&["", "web", "db"]), text(&["", "Deployment", "Job"]))
        .prop_map(|(name, kind)| Workload { name, kind })
}

fn service() -> impl Strategy<Value = Service> {
    (text(&["", "web", "web-2"]), text(&["", "default", "shop"]))
        .prop_map(|(name, namespace)| Service { name, namespace })
}

fn header() -> impl Strategy<Value = HttpHeader> {
    (text(&["X-A", "x-a"]), text(&["1", "2"])).prop_map(|(key, value)| HttpHeader { key, value })
}

fn ip() -> impl Strategy<Value = Ip> {
    (text(&ADDRESSES), text(&ADDRESSES), text(&["", "10.0.0.1"]), 0..3, any::<bool>()).prop_map(
        |(source, destination, source_xlated, ip_version, encrypted)| Ip {
            source,
            destination,
            source_xlated,
            ip_version,
            encrypted,
        },
    )
}

fn l7() -> impl Strategy<Value = Layer7> {
    let codes = select(&[0_u32, 99, 200, 404, 503][..]);
    let http = (text(&["", "GET", "PUT"]), codes, text(&URLS), vec(header(), 0..2)).prop_map(
        |(method, code, url, headers)| {
            layer7::Record::Http(Http { method, code, url, headers, ..Http::default() })
        },
    );
    let dns = text(&NAMES).prop_map(|query| layer7::Record::Dns(Dns { query, ..Dns::default() }));
    prop_oneof![http, dns].prop_map(|record| Layer7 { record: Some(record), ..Layer7::default() })
}

pub(super) fn flow() -> impl Strategy<Value = Flow> {
    let numbers = (0..4, select(&[0, 133, 181][..]), 0..3, of(any::<bool>()));
    let ends = (of(endpoint()), of(endpoint()), of(ip()), of(l4()), of(l7()));
    let names = (vec(text(&NAMES), 0..2), vec(text(&NAMES), 0..2), vec(text(&LABELS), 0..2));
    let event = of((0..5, 0..3).prop_map(|(r#type, sub_type)| CiliumEventType { r#type, sub_type }));
    let interface =
        of((0_u32..3, text(&["", "eth0"])).prop_map(|(index, name)| NetworkInterface { index, name }));
    let place = (text(&["", "n1", "default/n1", "east/n2"]), event, interface, text(&["a", "b", "c"]));
    let parent = of(text(&["t1", "t2"]).prop_map(|trace_id| TraceParent { trace_id }));
    let traces = (of(parent.prop_map(|parent| TraceContext { parent })), of(0_u64..3));
    (numbers, ends, names, place, (of(service()), of(service())), traces).prop_map(
        |(
            (verdict, drop_reason_desc, traffic_direction, is_reply),
            (source, destination, ip, l4, l7),
            (source_names, destination_names, node_labels),
            (node_name, event_type, interface, uuid),
            (source_service, destination_service),
            (trace_context, trace_id),
        )| Flow {
            verdict,
            drop_reason_desc,
            traffic_direction,
            is_reply,
            source,
            destination,
            ip,
            l4,
            l7,
            source_names,
            destination_names,
            node_labels,
            node_name,
            event_type,
            interface,
            uuid,
            source_service,
            destination_service,
            trace_context,
            ip_trace_id: trace_id.map(|trace_id| IpTraceId { trace_id, ip_option_type: 0 }),
            ..Flow::default()
        },
    )
}

pub(super) fn filter() -> impl Strategy<Value = FlowFilter> {
    let ends = (
        (few(text(&WANTED_ADDRESSES)), few(text(&WANTED_ADDRESSES)), few(text(&WANTED_ADDRESSES))),
        (few(text(&["web", "shop/", "/web", "shop/db"])), few(text(&["web-1", "/", "default/"]))),
        (few(text(&PATTERNS)), few(text(&PATTERNS))),
        (few(text(&SELECTORS)), few(text(&SELECTORS)), few(text(&SELECTORS))),
        (few(0_u32..3), few(0_u32..3), few(text(&["22", "53"])), few(text(&["53", "80"]))),
        (few(text(&["east"])), few(text(&["east", "west"]))),
    );
    let event = (0..5, any::<bool>(), 0..3).prop_map(|(r#type, match_sub_type, sub_type)| EventTypeFilter {
        r#type,
        match_sub_type,
        sub_type,
    });
    let interface =
        (0_u32..3, text(&["", "eth0"])).prop_map(|(index, name)| NetworkInterface { index, name });
    let numbers = (
        (few(0..4), few(select(&[133, 181][..])), few(0..3), few(0..3)),
        (few(any::<bool>()), few(any::<bool>()), few(event), few(flags())),
        (few(text(&["tcp", "udp", "icmp", "icmpv6", "sctp", "http", "dns"])), few(interface)),
        (few(text(&["n1", "*", "default/*", "east/", "*/n*"])), few(text(&["a", "b"]))),
    );
    let http = (
        few(text(&["get", "PUT"])),
        few(text(&["200", "4+", "50+"])),
        few(text(&REGEXES)),
        few(text(&REGEXES)),
        few(header()),
    );
    let owners = (
        (few(text(&["web", "shop/", "/web", "shop/web-2"])), few(text(&["/", "default/web"]))),
        (few(workload()), few(workload())),
    );
    let rest = (few(text(&REGEXES)), few(text(&["t1", "t3"])), few(0_u64..3), few(text(&EXPRESSIONS)));
    (ends, numbers, http, owners, rest).prop_map(|(ends, numbers, http, owners, rest)| {
        let ((source_ip, destination_ip, source_ip_xlated), (source_pod, destination_pod), names, labels, l4, clusters) =
            ends;
        let ((verdict, drop_reason_desc, traffic_direction, ip_version), flags, (protocol, interface), place) = numbers;
        let (reply, encrypted, event_type, tcp_flags) = flags;
        // With an event type that is not L7, fields of HTTP are refused.
        let (http_method, http_status_code, http_path, http_url, http_header) =
            if event_type.is_empty() { http } else { Default::default() };
        let ((source_service, destination_service), (source_workload, destination_workload)) = owners;
        let (dns_query, trace_id, ip_trace_id, cel_expression) = rest;
        FlowFilter {
            source_ip,
            destination_ip,
            source_ip_xlated,
            source_pod,
            destination_pod,
            source_fqdn: names.0,
            destination_fqdn: names.1,
            source_label: labels.0,
            destination_label: labels.1,
            node_labels: labels.2,
            source_identity: l4.0,
            destination_identity: l4.1,
            source_port: l4.2,
            destination_port: l4.3,
            source_cluster_name: clusters.0,
            destination_cluster_name: clusters.1,
            verdict,
            drop_reason_desc,
            traffic_direction,
            ip_version,
            reply,
            encrypted,
            event_type,
            tcp_flags,
            protocol,
            interface,
            node_name: place.0,
            uuid: place.1,
            http_method,
            http_status_code,
            http_path,
            http_url,
            http_header,
            source_service,
            destination_service,
            source_workload,
            destination_workload,
            dns_query,
            trace_id,
            ip_trace_id,
            // Every field of the schema, so that a new one is missed here.
            experimental: (!cel_expression.is_empty()).then_some(Experimental { cel_expression }),
        }
    })
}
