//! What each metric counts, against worked examples: Hubble 1.19's rules, as its documentation and its source have them.

use sinew_api::proto::flow::layer4::Protocol;
use sinew_api::proto::flow::{
    CiliumEventType, DropReason, Endpoint, IcmPv4, IcmPv6, Ip, IpVersion, Layer4, Tcp, TcpFlags,
    TrafficDirection, Udp, Verdict, Workload,
};

use super::*;
use crate::metrics::{Format, text};

const DROP: i32 = 1;
const TRACE: i32 = 4;
const VERDICT: i32 = 5;

fn meter(metrics: &str) -> Meter {
    Meter::new(settings::parse(metrics).expect("metrics"), Instant::now()).0
}

/// The series of a meter, its own two metrics left out.
fn series(meter: &Meter) -> Vec<String> {
    let text = text(meter.families(), Format::Prometheus);
    let own = |line: &&str| line.starts_with("hubble_");
    text.lines().filter(own).map(str::to_owned).collect()
}

fn pod(name: &str) -> Endpoint {
    Endpoint {
        identity: 1001,
        namespace: "shop".into(),
        pod_name: name.into(),
        labels: vec![
            "k8s:app.kubernetes.io/name=".into(),
            "k8s:app=store".into(),
            "k8s:io.kubernetes.pod.namespace=shop".into(),
        ],
        workloads: vec![Workload { name: "web".into(), kind: "Deployment".into() }],
        ..Endpoint::default()
    }
}

fn reserved(identity: u32, name: &str) -> Endpoint {
    Endpoint { identity, labels: vec![format!("reserved:{name}")], ..Endpoint::default() }
}

/// A forwarded SYN of shop/a to shop/b:80, at `to-endpoint`.
fn flow() -> Flow {
    Flow {
        verdict: Verdict::Forwarded.into(),
        event_type: Some(CiliumEventType { r#type: TRACE, sub_type: 0 }),
        traffic_direction: TrafficDirection::Ingress.into(),
        ip: Some(Ip {
            source: "10.0.0.1".into(),
            destination: "10.0.0.2".into(),
            ip_version: IpVersion::IPv4.into(),
            ..Ip::default()
        }),
        l4: tcp("S", 80),
        source: Some(pod("a")),
        destination: Some(pod("b")),
        is_reply: Some(false),
        ..Flow::default()
    }
}

fn tcp(flags: &str, port: u32) -> Option<Layer4> {
    let flags = TcpFlags {
        syn: flags.contains('S'),
        ack: flags.contains('A'),
        fin: flags.contains('F'),
        rst: flags.contains('R'),
        psh: flags.contains('P'),
        ..TcpFlags::default()
    };
    l4(Protocol::Tcp(Tcp { source_port: 40_000, destination_port: port, flags: Some(flags) }))
}

fn udp(port: u32) -> Option<Layer4> {
    l4(Protocol::Udp(Udp { source_port: 40_000, destination_port: port }))
}

fn l4(protocol: Protocol) -> Option<Layer4> {
    Some(Layer4 { protocol: Some(protocol) })
}

fn event(r#type: i32, sub_type: i32) -> Option<CiliumEventType> {
    Some(CiliumEventType { r#type, sub_type })
}

fn dropped(reason: DropReason, kind: i32) -> Flow {
    Flow {
        verdict: Verdict::Dropped.into(),
        event_type: event(kind, 0),
        drop_reason_desc: reason.into(),
        ..flow()
    }
}

#[test]
fn every_flow_by_protocol_type_and_verdict() {
    let mut meter = meter("flow");
    meter.count(&flow());
    meter.count(&flow());
    meter.count(&Flow { event_type: event(TRACE, 4), l4: udp(53), ..flow() });
    meter.count(&Flow { event_type: event(VERDICT, 0), verdict: Verdict::Audit.into(), ..flow() });
    meter.count(&dropped(DropReason::PolicyDenied, DROP));
    meter.count(&Flow { l4: None, ..dropped(DropReason::PolicyDenied, DROP) });
    meter.count(&Flow { event_type: event(2, 0), ..flow() });
    assert_eq!(
        series(&meter),
        [
            "hubble_flows_processed_total{protocol=\"TCP\",type=\"Drop\",subtype=\"\",verdict=\"DROPPED\"} 1",
            "hubble_flows_processed_total{protocol=\"TCP\",type=\"PolicyVerdict\",subtype=\"\",verdict=\"AUDIT\"} 1",
            "hubble_flows_processed_total{protocol=\"TCP\",type=\"Trace\",subtype=\"to-endpoint\",verdict=\"FORWARDED\"} 2",
            "hubble_flows_processed_total{protocol=\"UDP\",type=\"Trace\",subtype=\"to-overlay\",verdict=\"FORWARDED\"} 1",
            "hubble_flows_processed_total{protocol=\"Unknown L4\",type=\"Drop\",subtype=\"\",verdict=\"DROPPED\"} 1",
            "hubble_flows_processed_total{protocol=\"Unknown flow\",type=\"Unknown\",subtype=\"2\",verdict=\"FORWARDED\"} 1",
        ]
    );
}

/// Flow by flow: of a denial the verdict and the drop are two flows, and both are DROPPED.
#[test]
fn drops_by_reason() {
    let mut meter = meter("drop");
    meter.count(&flow());
    meter.count(&Flow { verdict: Verdict::Audit.into(), ..flow() });
    meter.count(&dropped(DropReason::PolicyDenied, VERDICT));
    meter.count(&dropped(DropReason::PolicyDenied, DROP));
    meter.count(&Flow { l4: udp(53), ..dropped(DropReason::PolicyDeny, DROP) });
    meter.count(&Flow { drop_reason_desc: 9999, ..dropped(DropReason::PolicyDenied, DROP) });
    assert_eq!(
        series(&meter),
        [
            "hubble_drop_total{reason=\"9999\",protocol=\"TCP\"} 1",
            "hubble_drop_total{reason=\"POLICY_DENIED\",protocol=\"TCP\"} 2",
            "hubble_drop_total{reason=\"POLICY_DENY\",protocol=\"UDP\"} 1",
        ]
    );
}

#[test]
fn flags_of_what_was_forwarded() {
    let mut meter = meter("tcp");
    meter.count(&flow());
    meter.count(&Flow { l4: tcp("SA", 80), ..flow() });
    // Neither an ACK alone nor a push is counted; FIN and RST of one packet are two.
    meter.count(&Flow { l4: tcp("A", 80), ..flow() });
    meter.count(&Flow { l4: tcp("PA", 80), ..flow() });
    meter.count(&Flow { l4: tcp("FRA", 80), ..flow() });
    meter.count(&Flow { verdict: Verdict::Redirected.into(), l4: tcp("FA", 80), ..flow() });
    meter.count(&Flow { l4: udp(53), ..flow() });
    meter.count(&dropped(DropReason::PolicyDenied, DROP));
    meter.count(&Flow { verdict: Verdict::Audit.into(), ..flow() });
    let v6 = Ip { ip_version: IpVersion::IPv6.into(), ..Ip::default() };
    meter.count(&Flow { ip: Some(v6), ..flow() });
    meter.count(&Flow { ip: None, ..flow() });
    assert_eq!(
        series(&meter),
        [
            "hubble_tcp_flags_total{flag=\"FIN\",family=\"IPv4\"} 2",
            "hubble_tcp_flags_total{flag=\"RST\",family=\"IPv4\"} 1",
            "hubble_tcp_flags_total{flag=\"SYN\",family=\"IPv4\"} 1",
            "hubble_tcp_flags_total{flag=\"SYN\",family=\"IPv6\"} 1",
            "hubble_tcp_flags_total{flag=\"SYN-ACK\",family=\"IPv4\"} 1",
        ]
    );
}

#[test]
fn icmp_by_name_whatever_became_of_it() {
    let mut meter = meter("icmp");
    let v4 = |r#type, code| Flow { l4: l4(Protocol::IcmPv4(IcmPv4 { r#type, code })), ..flow() };
    let v6 = |r#type, code| Flow { l4: l4(Protocol::IcmPv6(IcmPv6 { r#type, code })), ..flow() };
    for flow in [v4(8, 0), v4(0, 0), v4(3, 3), v4(3, 99), v4(8, 1), v4(42, 7), v6(128, 0), v6(1, 4), v6(2, 0)]
    {
        meter.count(&flow);
    }
    meter.count(&Flow { verdict: Verdict::Dropped.into(), ..v4(8, 0) });
    meter.count(&flow());
    assert_eq!(
        series(&meter),
        [
            "hubble_icmp_total{family=\"IPv4\",type=\"42(7)\"} 1",
            "hubble_icmp_total{family=\"IPv4\",type=\"DestinationUnreachable(Code: 99)\"} 1",
            "hubble_icmp_total{family=\"IPv4\",type=\"DestinationUnreachable(Port)\"} 1",
            "hubble_icmp_total{family=\"IPv4\",type=\"EchoReply\"} 1",
            "hubble_icmp_total{family=\"IPv4\",type=\"EchoRequest\"} 2",
            "hubble_icmp_total{family=\"IPv4\",type=\"EchoRequest(Code: 1)\"} 1",
            "hubble_icmp_total{family=\"IPv6\",type=\"DestinationUnreachable(PortUnreachable)\"} 1",
            "hubble_icmp_total{family=\"IPv6\",type=\"EchoRequest\"} 1",
            "hubble_icmp_total{family=\"IPv6\",type=\"PacketTooBig\"} 1",
        ]
    );
}

#[test]
fn ports_of_what_is_known_to_be_no_reply() {
    let mut meter = meter("port-distribution");
    meter.count(&flow());
    meter.count(&Flow { l4: udp(53), ..flow() });
    meter.count(&Flow { l4: l4(Protocol::IcmPv4(IcmPv4 { r#type: 8, code: 0 })), ..flow() });
    meter.count(&Flow { is_reply: Some(true), ..flow() });
    meter.count(&Flow { is_reply: None, ..flow() });
    meter.count(&Flow { verdict: Verdict::Audit.into(), ..flow() });
    meter.count(&dropped(DropReason::PolicyDenied, DROP));
    assert_eq!(
        series(&meter),
        [
            "hubble_port_distribution_total{protocol=\"ICMPv4\",port=\"0\"} 1",
            "hubble_port_distribution_total{protocol=\"TCP\",port=\"80\"} 1",
            "hubble_port_distribution_total{protocol=\"UDP\",port=\"53\"} 1",
        ]
    );
}

/// Flows to the world: a SYN, an ACK, a reply, a denial, another drop, and one to a pod.
fn to_world() -> Vec<Flow> {
    let world = |flow: Flow| Flow { destination: Some(reserved(2, "world")), ..flow };
    vec![
        world(flow()),
        world(Flow { l4: tcp("A", 80), ..flow() }),
        world(Flow { is_reply: Some(true), l4: tcp("SA", 40_001), ..flow() }),
        world(dropped(DropReason::PolicyDenied, DROP)),
        world(dropped(DropReason::UnsupportedL3Protocol, DROP)),
        Flow { destination: Some(reserved(10, "world-ipv6")), l4: udp(53), ..flow() },
        world(Flow { event_type: None, ..flow() }),
        flow(),
    ]
}

#[test]
fn flows_to_the_world_and_its_three_switches() {
    let count = |metrics| {
        let mut meter = meter(metrics);
        to_world().iter().for_each(|flow| meter.count(flow));
        series(&meter)
    };
    assert_eq!(
        count("flows-to-world"),
        [
            "hubble_flows_to_world_total{protocol=\"TCP\",verdict=\"DROPPED\"} 1",
            "hubble_flows_to_world_total{protocol=\"TCP\",verdict=\"FORWARDED\"} 2",
            "hubble_flows_to_world_total{protocol=\"UDP\",verdict=\"FORWARDED\"} 1",
        ]
    );
    assert_eq!(
        count("flows-to-world:any-drop;port"),
        [
            "hubble_flows_to_world_total{protocol=\"TCP\",verdict=\"DROPPED\",port=\"80\"} 2",
            "hubble_flows_to_world_total{protocol=\"TCP\",verdict=\"FORWARDED\",port=\"80\"} 2",
            "hubble_flows_to_world_total{protocol=\"UDP\",verdict=\"FORWARDED\",port=\"53\"} 1",
        ]
    );
    assert_eq!(
        count("flows-to-world:syn-only"),
        [
            "hubble_flows_to_world_total{protocol=\"TCP\",verdict=\"DROPPED\"} 1",
            "hubble_flows_to_world_total{protocol=\"TCP\",verdict=\"FORWARDED\"} 1",
        ]
    );
}

#[test]
fn verdicts_by_direction_match_and_action() {
    let mut meter = meter("policy");
    let verdict = |matched, verdict: Verdict| Flow {
        event_type: event(VERDICT, 0),
        policy_match_type: matched,
        verdict: verdict.into(),
        ..flow()
    };
    meter.count(&verdict(2, Verdict::Forwarded));
    meter.count(&verdict(0, Verdict::Dropped));
    meter.count(&Flow { traffic_direction: TrafficDirection::Egress.into(), ..verdict(4, Verdict::Audit) });
    meter.count(&verdict(99, Verdict::Forwarded));
    // The node reaches its own pods; a trace is no verdict.
    meter.count(&Flow { source: Some(reserved(1, "host")), ..verdict(2, Verdict::Forwarded) });
    meter.count(&flow());
    assert_eq!(
        series(&meter),
        [
            "hubble_policy_verdicts_total{direction=\"egress\",match=\"all\",action=\"audit\"} 1",
            "hubble_policy_verdicts_total{direction=\"ingress\",match=\"l3-l4\",action=\"forwarded\"} 1",
            "hubble_policy_verdicts_total{direction=\"ingress\",match=\"none\",action=\"dropped\"} 1",
            "hubble_policy_verdicts_total{direction=\"ingress\",match=\"unknown\",action=\"forwarded\"} 1",
        ]
    );
}

/// Every context and every label, for a flow from a pod to the API server's address outside.
#[test]
fn contexts_name_the_ends() {
    let mut api = reserved(7, "world");
    api.labels.insert(0, "cidr:192.0.2.9/32".into());
    api.labels.push("reserved:kube-apiserver".into());
    let to_api = Flow {
        destination: Some(api),
        ip: Some(Ip { destination: "192.0.2.9".into(), ..flow().ip.expect("an address") }),
        ..flow()
    };
    let check = |options: &str, labels: &str| {
        let mut meter = meter(&format!("flow:{options}"));
        meter.count(&to_api);
        let own = "protocol=\"TCP\",type=\"Trace\",subtype=\"to-endpoint\",verdict=\"FORWARDED\"";
        assert_eq!(
            series(&meter),
            [format!("hubble_flows_processed_total{{{own},{labels}}} 1")],
            "{options}"
        );
    };
    check("sourceContext=namespace", "source=\"shop\"");
    check("sourceContext=pod", "source=\"shop/a\"");
    check("sourceContext=pod-name", "source=\"a\"");
    check("sourceContext=ip", "source=\"10.0.0.1\"");
    check("sourceContext=workload", "source=\"shop/web\"");
    check("sourceContext=workload-name", "source=\"web\"");
    // An empty recommended label is none; the next one counts.
    check("sourceContext=app", "source=\"store\"");
    check(
        "sourceContext=identity",
        "source=\"k8s:app.kubernetes.io/name=,k8s:app=store,k8s:io.kubernetes.pod.namespace=shop\"",
    );
    check("sourceContext=reserved-identity", "source=\"\"");
    // An address outside has no bound: the next context names it.
    check("destinationContext=ip", "destination=\"\"");
    check("destinationContext=ip|pod|reserved-identity", "destination=\"reserved:kube-apiserver\"");
    check("destinationContext=pod,namespace", "destination=\"\"");
    check(
        "sourceContext=pod|ip;destinationContext=namespace|reserved-identity",
        "source=\"shop/a\",destination=\"reserved:kube-apiserver\"",
    );
    // By direction: the flow is ingress.
    check("sourceContext=pod;sourceIngressContext=workload", "source=\"shop/web\"");
    check("sourceContext=pod;sourceEgressContext=workload", "source=\"shop/a\"");
    check("destinationEgressContext=pod", "destination=\"\"");
    check(
        "labelsContext=source_ip,source_pod,source_namespace,source_workload,source_workload_kind,source_app,\
         destination_ip,destination_pod,destination_namespace,destination_workload,destination_workload_kind,\
         destination_app,traffic_direction",
        "source_ip=\"10.0.0.1\",source_pod=\"a\",source_namespace=\"shop\",source_workload=\"web\",\
         source_workload_kind=\"Deployment\",source_app=\"store\",destination_ip=\"\",destination_pod=\"\",\
         destination_namespace=\"\",destination_workload=\"\",destination_workload_kind=\"\",destination_app=\"\",\
         traffic_direction=\"ingress\"",
    );
    let to_node = Flow { destination: Some(reserved(6, "remote-node")), ..to_api.clone() };
    let mut meter = meter("drop flow:destinationContext=ip");
    meter.count(&to_node);
    assert!(
        series(&meter)[0].ends_with("destination=\"192.0.2.9\"} 1"),
        "a node's address is one of the cluster"
    );
}

/// Pods a, b and c of namespace shop, two of workload web; c goes.
#[test]
fn series_of_a_pod_that_is_gone_leave() {
    let begin = Instant::now();
    let at = |seconds| begin + Duration::from_secs(seconds);
    let mut meter = Meter::new(
        settings::parse(
            "drop:sourceContext=pod flow:labelsContext=source_pod,source_namespace tcp:sourceContext=workload|pod|reserved-identity \
             icmp port-distribution:sourceContext=ip policy:sourceContext=identity",
        )
        .expect("metrics"),
        begin,
    )
    .0;
    let from = |name: &str, workload: &str, address: &str| {
        let workloads = match workload {
            "" => Vec::new(),
            name => vec![Workload { name: name.into(), kind: "Deployment".into() }],
        };
        let labels = vec![format!("k8s:app={name}")];
        let source = Endpoint { workloads, labels, ..pod(name) };
        let ip = Ip { source: address.into(), ..flow().ip.expect("an address") };
        Flow { source: Some(source), ip: Some(ip), ..flow() }
    };
    for flow in [from("a", "web", "10.0.0.1"), from("b", "web", "10.0.0.2"), from("c", "", "10.0.0.3")] {
        meter.count(&flow);
        meter.count(&Flow { verdict: Verdict::Dropped.into(), ..flow.clone() });
        meter.count(&Flow { event_type: event(VERDICT, 0), ..flow });
    }
    meter.count(&Flow { source: Some(reserved(2, "world")), ..flow() });
    let living = |pods: &[&'static str]| {
        let mut living = Living::default();
        for pod in pods {
            let (address, workload) = match *pod {
                "a" => ("10.0.0.1", "web"),
                "b" => ("10.0.0.2", "web"),
                _ => ("10.0.0.3", ""),
            };
            living.add_address(address.into(), "shop", pod, workload);
            living.add_identity(&[format!("k8s:app={pod}")]);
        }
        living
    };
    let count =
        |meter: &Meter, metric: &str| series(meter).iter().filter(|line| line.starts_with(metric)).count();
    // A look comes no earlier than it is due, and keeps whoever is there.
    meter.forget(at(1), || unreachable!("no look is due"));
    meter.forget(at(20), || living(&["a", "b", "c"]));
    // drop: a, b, c. tcp: the workload, c, the world. port-distribution: three addresses, and nobody's for the world.
    let all = |meter: &Meter| {
        ["hubble_drop_", "hubble_tcp_", "hubble_port_", "hubble_policy_"].map(|metric| count(meter, metric))
    };
    assert_eq!(all(&meter), [3, 3, 4, 3]);
    let flows = count(&meter, "hubble_flows_");

    // b and c are gone: their series stay for a minute, then leave. The workload still has a.
    meter.forget(at(30), || living(&["a"]));
    meter.forget(at(80), || living(&["a"]));
    assert_eq!(all(&meter), [3, 3, 4, 3]);
    assert_eq!(count(&meter, "hubble_flows_"), flows);
    meter.forget(at(95), || living(&["a"]));
    assert_eq!(all(&meter), [1, 2, 2, 1]);
    assert!(
        series(&meter)
            .iter()
            .any(|line| line.contains("hubble_drop_total{") && line.contains("source=\"shop/a\""))
    );
    // Three flows of each pod; the world's has no pod and stays.
    assert_eq!(count(&meter, "hubble_flows_"), flows - 6);

    // Back within the minute: the time begins anew.
    meter.forget(at(110), || living(&[]));
    meter.forget(at(150), || living(&["a"]));
    meter.forget(at(175), || living(&[]));
    meter.forget(at(200), || living(&[]));
    assert_eq!(count(&meter, "hubble_drop_"), 1, "gone for 25 s");
    meter.forget(at(240), || living(&[]));
    assert_eq!(count(&meter, "hubble_drop_"), 0);
}

#[test]
fn a_pod_of_the_same_name_elsewhere_keeps_nothing_alive() {
    let begin = Instant::now();
    let settings = settings::parse("flow:labelsContext=source_pod,source_namespace").expect("a metric");
    let (mut meter, _) = Meter::new(settings, begin);
    meter.count(&flow());
    let elsewhere = || {
        let mut living = Living::default();
        living.add_address("10.0.0.9".into(), "other", "a", "");
        living.add_address("10.0.0.8".into(), "shop", "z", "");
        living
    };
    meter.forget(begin + Duration::from_secs(10), elsewhere);
    meter.forget(begin + Duration::from_secs(71), elsewhere);
    assert_eq!(series(&meter), [""; 0]);
}

#[test]
fn a_metric_that_names_nobody_never_asks_who_is_there() {
    let begin = Instant::now();
    let settings = settings::parse("flow drop:sourceContext=reserved-identity").expect("metrics");
    let (mut meter, _) = Meter::new(settings, begin);
    meter.count(&flow());
    meter.forget(begin + Duration::from_secs(1000), || unreachable!("nobody can be gone"));
    assert_eq!(series(&meter).len(), 1);
}

#[test]
fn series_and_ports_have_a_bound_and_what_finds_no_room_is_counted() {
    let mut meter = meter("flow:sourceContext=pod port-distribution");
    for at in 0..u32::try_from(series::MOST + 5).expect("it fits") {
        meter.count(&Flow { source: Some(pod(&format!("p{at}"))), l4: tcp("S", at + 1), ..flow() });
    }
    let text = text(meter.families(), Format::Prometheus);
    let rest = series::MOST + 5 - series::MOST_PORTS;
    for line in [
        "sinew_flow_metric_series{metric=\"hubble_flows_processed_total\"} 10000".to_owned(),
        "sinew_flow_metric_uncounted_total{metric=\"hubble_flows_processed_total\"} 5".to_owned(),
        "sinew_flow_metric_series{metric=\"hubble_port_distribution_total\"} 1001".to_owned(),
        "sinew_flow_metric_uncounted_total{metric=\"hubble_port_distribution_total\"} 0".to_owned(),
        format!("hubble_port_distribution_total{{protocol=\"TCP\",port=\"other\"}} {rest}"),
    ] {
        assert!(text.lines().any(|it| it == line), "{line} is missing");
    }
    // A series that is there goes on counting.
    meter.count(&Flow { source: Some(pod("p1")), ..flow() });
    assert!(series(&meter).iter().any(|line| line.ends_with("source=\"shop/p1\"} 2")));
}

#[tokio::test]
async fn a_scrape_is_answered_between_two_batches_and_not_without_a_meter() {
    let (mut meter, scraper) = Meter::new(settings::parse("flow").expect("a metric"), Instant::now());
    meter.count(&flow());
    let asked = tokio::spawn({
        let scraper = scraper.clone();
        async move { scraper.families().await }
    });
    while !asked.is_finished() {
        meter.answer();
        tokio::task::yield_now().await;
    }
    let families = asked.await.expect("no panic").expect("an answer");
    assert_eq!(families[0].samples.len(), 1);
    drop(meter);
    assert!(scraper.families().await.is_none());
}
