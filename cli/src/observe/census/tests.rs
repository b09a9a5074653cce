//! Edges of single flows.

use sinew_api::proto::flow::{CiliumEventType, Ip, Layer4, Tcp, Workload};

use super::*;

fn pod(name: &str, workload: &str) -> Option<Endpoint> {
    let workloads =
        (!workload.is_empty()).then(|| Workload { name: workload.into(), kind: "Deployment".into() });
    Some(Endpoint {
        namespace: "shop".into(),
        pod_name: name.into(),
        workloads: workloads.into_iter().collect(),
        ..Endpoint::default()
    })
}

fn flow(source: Option<Endpoint>, destination: Option<Endpoint>, ports: (u32, u32)) -> Flow {
    let tcp = Tcp { source_port: ports.0, destination_port: ports.1, flags: None };
    Flow {
        source,
        destination,
        ip: Some(Ip { source: "10.0.0.1".into(), destination: "10.0.0.2".into(), ..Ip::default() }),
        l4: Some(Layer4 { protocol: Some(layer4::Protocol::Tcp(tcp)) }),
        verdict: Verdict::Forwarded.into(),
        ..Flow::default()
    }
}

fn edges(naming: Naming, flows: &[Flow]) -> Vec<String> {
    let mut census = Census::new(naming);
    flows.iter().for_each(|flow| census.count(flow));
    let line = |(edge, count): (&Edge, &Count)| {
        format!("{} > {} {} {}+{}", edge.source, edge.destination, edge.port, count.forwarded, count.dropped)
    };
    census.edges.iter().map(line).collect()
}

#[test]
fn a_reply_belongs_to_the_openers_edge() {
    let there = flow(pod("web-1", "web"), pod("db-0", ""), (40000, 5432));
    let back = Flow { is_reply: Some(true), ..flow(pod("db-0", ""), pod("web-1", "web"), (5432, 40000)) };
    assert_eq!(edges(Naming::Workload, &[there.clone(), back]), ["shop/web > shop/db-0 5432/TCP 2+0"]);
    assert_eq!(edges(Naming::Pod, std::slice::from_ref(&there)), ["shop/web-1 > shop/db-0 5432/TCP 1+0"]);
    assert_eq!(edges(Naming::Namespace, &[there]), ["shop > shop 5432/TCP 1+0"]);
}

#[test]
fn what_is_no_pod_is_called_by_what_is_known() {
    let world = Endpoint { identity: 2, ..Endpoint::default() };
    let mut out = flow(pod("web", ""), Some(world), (1, 443));
    assert_eq!(edges(Naming::Pod, std::slice::from_ref(&out)), ["shop/web > world 443/TCP 1+0"]);
    out.destination_names = vec!["api.example.com".into()];
    assert_eq!(edges(Naming::Pod, std::slice::from_ref(&out)), ["shop/web > api.example.com 443/TCP 1+0"]);
    out.destination_service = Some(Service { name: "api".into(), namespace: "x".into() });
    assert_eq!(edges(Naming::Pod, std::slice::from_ref(&out)), ["shop/web > x/api 443/TCP 1+0"]);
    assert_eq!(edges(Naming::Pod, &[flow(None, None, (1, 2))]), ["10.0.0.1 > 10.0.0.2 2/TCP 1+0"]);
    assert_eq!(edges(Naming::Pod, &[Flow { ip: None, ..out }]), [""; 0], "no addresses, no edge");
}

#[test]
fn a_denial_counts_once_for_its_edge() {
    let event = |r#type, sub_type| Some(CiliumEventType { r#type, sub_type });
    let denied = Flow {
        verdict: Verdict::Dropped.into(),
        drop_reason_desc: 133,
        ..flow(pod("a", ""), pod("b", ""), (1, 2))
    };
    let verdict = Flow { event_type: event(5, 0), ..denied.clone() };
    let drop = Flow { event_type: event(1, 133), ..denied.clone() };
    assert_eq!(edges(Naming::Pod, &[verdict, drop]), ["shop/a > shop/b 2/TCP 0+1"]);
    let other = Flow { event_type: event(1, 151), drop_reason_desc: 151, ..denied };
    assert_eq!(
        edges(Naming::Pod, &[other]),
        ["shop/a > shop/b 2/TCP 0+1"],
        "a drop without a verdict counts"
    );
}

/// A ping that the receiver's side refuses: the sender's side had let it go.
#[test]
fn what_one_side_allows_and_the_other_refuses_is_not_forwarded() {
    let event = |r#type| Some(CiliumEventType { r#type, sub_type: 0 });
    let asked = |direction: TrafficDirection, verdict: Verdict| Flow {
        event_type: event(5),
        traffic_direction: direction.into(),
        verdict: verdict.into(),
        ..flow(pod("a", ""), pod("b", ""), (1, 2))
    };
    let allowed = asked(TrafficDirection::Egress, Verdict::Forwarded);
    let refused = asked(TrafficDirection::Ingress, Verdict::Dropped);
    assert_eq!(edges(Naming::Pod, &[allowed.clone(), refused]), ["shop/a > shop/b 2/TCP 0+1"]);
    let arrived = Flow { event_type: event(4), ..flow(pod("a", ""), pod("b", ""), (1, 2)) };
    assert_eq!(edges(Naming::Pod, &[allowed, arrived]), ["shop/a > shop/b 2/TCP 1+0"]);
}

#[test]
fn what_an_audit_would_deny_is_not_denied() {
    let policy = Policy {
        name: "db".into(),
        namespace: "shop".into(),
        kind: "NetworkPolicy".into(),
        ..Policy::default()
    };
    let watched = Flow {
        event_type: Some(CiliumEventType { r#type: 5, sub_type: 0 }),
        verdict: Verdict::Audit.into(),
        ingress_denied_by: vec![policy],
        ..flow(pod("a", ""), pod("b", ""), (1, 2))
    };
    let mut census = Census::new(Naming::Pod);
    census.count(&watched);
    assert_eq!(census.policies["netpol/shop/db"], Hits { allowed: 0, denied: 0, audited: 1 });
    census.count(&Flow { verdict: Verdict::Dropped.into(), ..watched });
    assert_eq!(census.policies["netpol/shop/db"], Hits { allowed: 0, denied: 1, audited: 1 });
}
