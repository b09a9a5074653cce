//! Expressions over one flow, those that are refused, and random texts.

use proptest::prelude::*;
use sinew_api::proto::flow::{Endpoint, Ip, Layer4, Policy, Tcp, TcpFlags, layer4};

use super::*;

fn flow() -> Flow {
    let flags = Some(TcpFlags { syn: true, ..TcpFlags::default() });
    let tcp = Tcp { source_port: 40000, destination_port: 5432, flags };
    let policy = |name: &str| Policy { name: name.into(), namespace: "shop".into(), ..Policy::default() };
    Flow {
        verdict: 2,
        drop_reason_desc: 133,
        is_reply: Some(false),
        ip: Some(Ip { source: "10.0.0.1".into(), ..Ip::default() }),
        l4: Some(Layer4 { protocol: Some(layer4::Protocol::Tcp(tcp)) }),
        source: Some(Endpoint {
            identity: 1001,
            namespace: "shop".into(),
            pod_name: "web-1".into(),
            labels: vec!["k8s:app=web".into(), "k8s:tier=front".into()],
            ..Endpoint::default()
        }),
        ingress_denied_by: vec![policy("db"), policy("extra")],
        ..Flow::default()
    }
}

fn holds(text: &str) -> bool {
    CelExpression::parse(text, &Budget::default())
        .unwrap_or_else(|problem| panic!("{problem}"))
        .holds(&FlowView::new(&flow()))
}

#[test]
fn fields_enums_loops_and_functions() {
    for text in [
        "true",
        "_flow.verdict == Verdict.DROPPED",
        "_flow.verdict == flow.Verdict.DROPPED",
        "_flow.drop_reason_desc == DropReason.POLICY_DENIED && _flow.l4.TCP.flags.SYN",
        "_flow.source.identity == 1001u",
        "_flow.source.identity > 1000u",
        "_flow.l4.TCP.destination_port in [5432u, 6379u]",
        "_flow.source.pod_name.startsWith('web')",
        "_flow.source.pod_name.matches('^web-[0-9]+$')",
        "_flow.source.labels.exists(l, l == 'k8s:app=web')",
        "_flow.source.labels.all(l, l.startsWith('k8s:'))",
        "size(_flow.source.labels) == 2",
        "_flow.source.labels[1].endsWith('front')",
        "'k8s:tier=front' in _flow.source.labels",
        "_flow.ingress_denied_by.exists(p, p.name == 'db' && p.namespace == 'shop')",
        "_flow.is_reply == false",
        "_flow.source.namespace == 'shop' ? _flow.verdict == 2 : false",
        "_flow.source != null",
        "(true ? 1 : 'x') == 1",
        "'a' in [1, 'a']",
        "_flow.source.identity > 1",
    ] {
        assert!(holds(text), "{text}");
        assert!(!holds(&format!("!({text})")), "not {text}");
    }
}

#[test]
fn what_is_not_set_has_its_default_and_has_says_so() {
    assert!(holds("_flow.destination.pod_name == ''"));
    assert!(holds("_flow.l4.UDP.destination_port == 0u"));
    assert!(holds("has(_flow.source) && !has(_flow.destination)"));
    assert!(holds("has(_flow.l4.TCP) && !has(_flow.l4.UDP)"));
    assert!(holds("!has(_flow.source.cluster_name)"));
    let unknown = FlowView::new(&Flow::default());
    let is_null = CelExpression::parse("_flow.is_reply == null", &Budget::default()).expect("an expression");
    assert!(is_null.holds(&unknown), "unknown is not false");
    assert!(!is_null.holds(&FlowView::new(&flow())));
    assert!(holds("!_flow.is_reply && has(_flow.is_reply)"));
}

#[test]
fn an_expression_that_fails_does_not_match() {
    assert!(!holds("_flow.source.labels[7] == 'x'"));
    assert!(!holds("1 / 0 == 1"));
}

#[test]
fn what_has_no_meaning_is_refused_by_name() {
    for (text, problem) in [
        ("_flow.pod == 'x'", "flow.Flow has no field \"pod\""),
        ("_flow.source.pod == 'x'", "flow.Endpoint has no field \"pod\""),
        ("_flow.source.labels.exists(l, l.name == 'x')", "a text has no field \"name\""),
        ("_flow.ingress_denied_by.exists(p, p.nam == 'x')", "flow.Policy has no field \"nam\""),
        ("_flow.is_reply.value", "a value or null has no field \"value\""),
        ("has(_flow.is_reply.value)", "a value or null has no field \"value\""),
        ("_flow.is_reply.value == true", "a value or null has no field \"value\""),
        ("flow.verdict == 1", "package flow has no enum \"verdict\""),
        ("_flow.verdict == Verdict.LOST", "enum Verdict has no value \"LOST\""),
        ("verdict == 1", "there is no \"verdict\"; the flow is _flow"),
        ("_flow.verdict", "gives a number, not a bool"),
        ("_flow.source", "gives a flow.Endpoint, not a bool"),
        ("'yes'", "gives a text, not a bool"),
        ("_flow.verdict == 'DROPPED'", "compares a number with a text"),
        ("'5432' in [_flow.l4.TCP.destination_port]", "compares a text with a number"),
        ("_flow.source == _flow.IP", "compares a flow.Endpoint with a flow.IP"),
        ("_flow.source.labels.exists(l, l == 1)", "compares a text with a number"),
        ("(_flow.l4.TCP.flags.SYN ? 1 : 2) > 'x'", "compares a number with a text"),
        ("_flow.time == 1", "\"time\" is a google.protobuf.Timestamp"),
        ("_flow.node_name.lowerAscii() == 'x'", "calls lowerAscii(), which this server lacks"),
        ("_flow.node_name.matches('(')", "is no regular expression"),
        ("_flow.node_name.matches(_flow.uuid)", "takes a pattern that is written out"),
        ("Flow{uuid: 'x'} == _flow", "makes a Flow"),
        ("_flow.verdict ==", "_flow.verdict =="),
        ("", "\"\""),
    ] {
        let told = CelExpression::parse(text, &Budget::default()).expect_err(text);
        assert!(told.contains(problem), "{text}: {told}");
    }
}

#[test]
fn what_would_cost_too_much_is_refused() {
    let refused = |text: &str, problem: &str| {
        let told = CelExpression::parse(text, &Budget::default()).expect_err(problem);
        assert!(told.contains(problem), "{told}");
    };
    refused(&format!("{}1{} == 1", "[".repeat(500), "]".repeat(500)), "recursion");
    refused(&("true||".repeat(700)), "at most 4096 bytes");
    refused(&format!("{}1 == 159", "1+".repeat(158)), "deeper than 40");
    let loops =
        "_flow.node_labels.exists(a, _flow.node_labels.exists(b, _flow.node_labels.exists(c, a == c)))";
    refused(loops, "loops within each other");
    let list = format!("size([{}]) == 0", vec!["1"; 700].join(","));
    refused(&list, "has more than 600 parts");
}

/// The longest chains and the deepest brackets that are taken fit into the stack of a thread.
#[test]
fn what_is_taken_is_evaluated() {
    assert!(holds(&format!("{}1 == 31", "1+".repeat(30))));
    assert!(holds(&format!("{}true{}", "(".repeat(1000), ")".repeat(1000))));
    assert!(!holds(&format!("{}false", "false ? true : ".repeat(30))));
    assert!(holds(&format!("{}[1]{} != []", "[".repeat(15), "]".repeat(15))));
    // What the parser still takes is refused behind it.
    for text in [
        format!("{}1 == 159", "1+".repeat(158)),
        format!("{}true", "!".repeat(160)),
        format!("{}false", "false ? true : ".repeat(80)),
        format!("_flow{} == 1", "[0]".repeat(158)),
        format!("_flow{}", ".x".repeat(158)),
    ] {
        let told = CelExpression::parse(&text, &Budget::default())
            .map(|expression| expression.holds(&FlowView::new(&flow())));
        assert!(told.is_err() || told == Ok(true), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_texts_are_answered_or_refused(
        parts in proptest::collection::vec(proptest::sample::select(vec![
            "_flow", ".", "source", "labels", "(", ")", "[", "]", "exists", "x", ",", "==", "'a'", "1", "1u", "&&", "!", "?", ":",
            "has", "matches", "Verdict", "{", "}", "in", " ", "-", "size", "\\", "\"", "é", "null", "0x", "1e999", "b'\\xff'",
        ]), 0..24),
    ) {
        if let Ok(expression) = CelExpression::parse(&parts.concat(), &Budget::default()) {
            let _ = expression.holds(&FlowView::new(&flow()));
        }
    }
}
