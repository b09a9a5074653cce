//! Lines for flows that carry their rules, and questions for those that do not.

use sinew_api::proto::agent::RuleRef;
use sinew_api::proto::flow::{IcmPv4, Ip, Layer4, Policy, Tcp};

use super::*;

fn rule(policy: &str, deny: bool) -> DecidingRule {
    DecidingRule {
        direction: TrafficDirection::Ingress,
        policy: policy.into(),
        path: "spec.ingress[0]".into(),
        file: "shop/db.yaml".into(),
        line: 9,
        deny,
        ..DecidingRule::default()
    }
}

fn lines(extensions: &Extensions) -> Vec<String> {
    carried(&Flow { extensions: extensions.to_any(), ..Flow::default() }, extensions)
}

#[test]
fn a_rule_is_told_with_its_place() {
    let told = lines(&Extensions { rules: vec![rule("cnp/shop/db", false)], ..Extensions::default() });
    assert_eq!(told, ["ingress allowed by cnp/shop/db spec.ingress[0] (shop/db.yaml:9)"]);
    let told = lines(&Extensions { rules: vec![rule("cnp/shop/db", true)], ..Extensions::default() });
    assert_eq!(told, ["ingress denied by cnp/shop/db spec.ingress[0] (shop/db.yaml:9)"]);
}

#[test]
fn a_default_deny_names_who_switched_it_on_and_what_is_refused() {
    let switch = DecidingRule { path: String::new(), ..rule("netpol/shop/db", false) };
    let refused =
        DecidingRule { path: "spec.egress[0].toFQDNs".into(), refused: true, ..rule("cnp/shop/x", false) };
    let told =
        lines(&Extensions { default_deny: true, rules: vec![switch, refused], ..Extensions::default() });
    assert_eq!(
        told,
        [
            "ingress default deny by netpol/shop/db (shop/db.yaml:9)",
            "ingress default deny by cnp/shop/x, refused: spec.egress[0].toFQDNs (shop/db.yaml:9)",
        ]
    );
}

#[test]
fn an_audit_rule_and_a_finer_reason() {
    let shadow = DecidingRule { shadow: true, ..rule("snp/shop/trial", true) };
    let extensions = Extensions {
        reason: 1004,
        reason_text: "source address".into(),
        rules: vec![shadow],
        ..Extensions::default()
    };
    assert_eq!(
        lines(&extensions),
        [
            "reason 1004: source address",
            "ingress audit: would be denied by snp/shop/trial spec.ingress[0] (shop/db.yaml:9)"
        ]
    );
}

/// What an audit policy would close passes because something else allows it; the line must not say that the audit allows.
#[test]
fn a_default_deny_in_audit_is_told_as_one() {
    let switched_on = DecidingRule { shadow: true, deny: false, ..rule("cnp/shop/trial", true) };
    let extensions = Extensions { rules: vec![switched_on], ..Extensions::default() };
    assert_eq!(
        lines(&extensions),
        ["ingress audit: would be denied by default by cnp/shop/trial spec.ingress[0] (shop/db.yaml:9)"]
    );
}

#[test]
fn a_flow_of_another_server_tells_at_least_the_policies() {
    let policy = Policy {
        name: "db".into(),
        namespace: "shop".into(),
        kind: "NetworkPolicy".into(),
        ..Policy::default()
    };
    let flow = Flow { ingress_denied_by: vec![policy], ..Flow::default() };
    assert_eq!(carried(&flow, &Extensions::default()), ["denied by netpol/shop/db"]);
}

#[test]
fn the_nearest_rule_is_told_with_what_failed() {
    let at = RuleRef {
        policy: "cnp/shop/db".into(),
        path: "spec.ingress[0]".into(),
        file: "f.yaml".into(),
        line: 3,
        ..RuleRef::default()
    };
    let miss = NearMiss {
        rule: Some(at),
        field: "toPorts[0]".into(),
        wanted: "5432/TCP".into(),
        found: "22/TCP".into(),
    };
    let told = "nearest: cnp/shop/db spec.ingress[0] (f.yaml:3): toPorts[0] wants 5432/TCP, this has 22/TCP";
    assert_eq!(near_miss(std::slice::from_ref(&miss)), told);
    let whole = NearMiss { field: "spec.ingress[0].toPorts[0]".into(), ..miss.clone() };
    assert_eq!(near_miss(std::slice::from_ref(&whole)), told, "the path stands there once");
    let peer =
        NearMiss { field: "fromEndpoints[0]".into(), wanted: "a".into(), found: "b".into(), ..miss.clone() };
    let both = format!("{told}; and fromEndpoints[0] wants a, this has b");
    assert_eq!(near_miss(&[miss.clone(), peer]), both);
    let rule = near_miss(&[NearMiss { field: "spec.ingress[0]".into(), ..miss }]);
    assert!(rule.contains("(f.yaml:3): wants 5432/TCP"), "{rule}");
}

#[test]
fn a_question_names_pods_where_there_are_some() {
    let tcp = Tcp { source_port: 4, destination_port: 22, flags: None };
    let mut flow = Flow {
        source: Some(Endpoint { namespace: "shop".into(), pod_name: "web".into(), ..Endpoint::default() }),
        ip: Some(Ip { source: "10.0.0.1".into(), destination: "198.51.100.1".into(), ..Ip::default() }),
        l4: Some(Layer4 { protocol: Some(layer4::Protocol::Tcp(tcp)) }),
        ..Flow::default()
    };
    let asked = question(&flow).expect("a question");
    assert_eq!(asked.from.and_then(|it| it.by), Some(By::Pod("shop/web".into())));
    assert_eq!(asked.to.and_then(|it| it.by), Some(By::Address("198.51.100.1".into())));
    assert_eq!((asked.port, asked.protocol.as_str()), (Some(22), "TCP"));
    flow.l4 = Some(Layer4 { protocol: Some(layer4::Protocol::IcmPv4(IcmPv4 { r#type: 8, code: 0 })) });
    let asked = question(&flow).expect("a question");
    assert_eq!((asked.port, asked.protocol.as_str()), (Some(8), "ICMP"));
    flow.l4 = None;
    assert_eq!(question(&flow), None);
}

#[test]
fn a_reply_is_asked_about_as_its_opener_would() {
    let tcp = Tcp { source_port: 5432, destination_port: 40000, flags: None };
    let mut flow = Flow {
        source: Some(Endpoint { namespace: "shop".into(), pod_name: "db".into(), ..Endpoint::default() }),
        ip: Some(Ip { source: "10.0.0.2".into(), destination: "198.51.100.1".into(), ..Ip::default() }),
        l4: Some(Layer4 { protocol: Some(layer4::Protocol::Tcp(tcp)) }),
        is_reply: Some(true),
        ..Flow::default()
    };
    let asked = question(&flow).expect("a question");
    assert_eq!(asked.from.and_then(|it| it.by), Some(By::Address("198.51.100.1".into())));
    assert_eq!(asked.to.and_then(|it| it.by), Some(By::Pod("shop/db".into())));
    assert_eq!(asked.port, Some(5432));
    flow.l4 = Some(Layer4 { protocol: Some(layer4::Protocol::IcmPv4(IcmPv4 { r#type: 0, code: 0 })) });
    assert_eq!(question(&flow).expect("a question").port, Some(8), "the echo, not its answer");
}

#[test]
fn rules_that_have_changed_since_are_told() {
    let policy = Policy { revision: 7, ..Policy::default() };
    let flow = Flow { ingress_denied_by: vec![policy], ..Flow::default() };
    assert_eq!(moved(&flow, 7), None);
    assert_eq!(moved(&flow, (1 << 32) | 7), None, "a flow carries the low half");
    let told = moved(&flow, 9).expect("it moved");
    assert_eq!(told, "the rules have changed since: it was judged at revision 7, the node is at 9");
    assert_eq!(moved(&Flow::default(), 9), None, "another server's flow says nothing of revisions");
}

/// By the UUID of the drop or of the verdict alike; and a flow that is gone is no success.
#[tokio::test]
async fn one_flow_is_explained_whichever_it_is_or_said_to_be_gone() {
    let extensions = Extensions { default_deny: true, ..Extensions::default() };
    let drop = GetFlowsResponse {
        response_types: Some(ResponseTypes::Flow(Flow {
            verdict: Verdict::Dropped.into(),
            extensions: extensions.to_any(),
            ..Flow::default()
        })),
        ..GetFlowsResponse::default()
    };
    let mut all = Explainer::new(None, "");
    assert_eq!(all.of(&drop).await, [""; 0], "its verdict is explained");
    assert!(all.finish("").is_ok());
    let mut one = Explainer::new(None, "4f2a");
    let told = one.of(&drop).await.join(" ");
    assert!(told.starts_with("nearest rule unknown: only the node's own agent"), "{told}");
    assert!(one.finish("4f2a").is_ok());
    let gone = Explainer::new(None, "4f2a").finish("4f2a").expect_err("it is not held");
    assert_eq!(gone.code as i32, 3);
    assert!(gone.message.contains("no flow \"4f2a\" is held"), "{gone}");
}

/// An allow without a policy and a drop before any policy are explained as well.
#[test]
fn what_no_policy_decided_is_told_as_that() {
    let of =
        |direction: TrafficDirection, verdict: Verdict, source: u32, destination: u32, match_type: u32| {
            Flow {
                verdict: verdict.into(),
                traffic_direction: direction.into(),
                source: Some(Endpoint { identity: source, ..Endpoint::default() }),
                destination: Some(Endpoint { identity: destination, ..Endpoint::default() }),
                policy_match_type: match_type,
                drop_reason_desc: if verdict == Verdict::Dropped { 133 } else { 0 },
                ..Flow::default()
            }
        };
    let (egress, ingress) = (TrafficDirection::Egress, TrafficDirection::Ingress);
    let (passed, dropped) = (Verdict::Forwarded, Verdict::Dropped);
    for (flow, told) in [
        (of(egress, passed, 1001, 1002, 4), "egress allowed: no policy switches default deny on for it"),
        (of(ingress, passed, 1, 1002, 1), "ingress allowed: a node may always reach its own pods"),
        (of(ingress, passed, 1001, 1002, 2), "ingress allowed by a policy that the flow does not name"),
        (of(ingress, dropped, 1001, 5, 0), "ingress default deny: the pod's labels are not known yet"),
        (of(ingress, dropped, 1001, 1002, 0), "reason 133: policy denied by default"),
    ] {
        assert_eq!(without_policy(&flow, true).as_deref(), Some(told));
    }
}

#[tokio::test]
async fn a_drop_before_policy_has_its_reason() {
    let told = async |number: i32| {
        let flow = Flow { verdict: Verdict::Dropped.into(), drop_reason_desc: number, ..Flow::default() };
        let answer = GetFlowsResponse {
            response_types: Some(ResponseTypes::Flow(flow)),
            ..GetFlowsResponse::default()
        };
        Explainer::new(None, "").of(&answer).await
    };
    assert_eq!(told(201).await, ["reason 201: multicast handled"]);
    assert_eq!(told(196).await, ["reason 196: TTL exceeded"], "one that only Cilium has");
    assert_eq!(told(0).await, [""; 0]);
}
