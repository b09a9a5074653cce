//! Filters of command lines, against FlowFilters written out by hand.

use sinew_api::proto::flow::{EventTypeFilter, TcpFlags, Workload};

use super::*;

fn lists_of(arguments: &[(&'static str, &str)]) -> Result<FilterLists, String> {
    let given: Vec<_> =
        arguments.iter().map(|(name, value)| GivenFilter { name, value: (*value).to_owned() }).collect();
    lists(&given)
}

fn allowed(arguments: &[(&'static str, &str)]) -> Vec<FlowFilter> {
    let lists = lists_of(arguments).unwrap_or_else(|problem| panic!("{arguments:?}: {problem}"));
    assert_eq!(lists.deny, []);
    lists.allow
}

fn text(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

#[test]
fn nothing_given_is_no_filter() {
    assert_eq!(lists_of(&[]), Ok(FilterLists::default()));
}

#[test]
fn either_end_makes_a_filter_for_each() {
    let source = FlowFilter { source_pod: text(&["a/b"]), protocol: text(&["tcp"]), ..FlowFilter::default() };
    let destination =
        FlowFilter { destination_pod: text(&["a/b"]), protocol: text(&["tcp"]), ..FlowFilter::default() };
    assert_eq!(allowed(&[("pod", "a/b"), ("protocol", "tcp")]), [source, destination]);
}

#[test]
fn one_end_makes_one_filter() {
    let expected = FlowFilter {
        source_pod: text(&["a/b", "c"]),
        destination_port: text(&["53"]),
        ip_version: vec![2],
        ..FlowFilter::default()
    };
    assert_eq!(
        allowed(&[("from-pod", "a/b"), ("from-pod", "c"), ("to-port", "53"), ("ipv6", "true")]),
        [expected]
    );
}

#[test]
fn namespaces_become_part_of_names() {
    let in_both = |names: &[&str]| FlowFilter { source_pod: text(names), ..FlowFilter::default() };
    assert_eq!(allowed(&[("from-namespace", "x")]), [in_both(&["x/"])]);
    assert_eq!(
        allowed(&[("from-namespace", "x"), ("from-namespace", "y"), ("from-pod", "p")]),
        [in_both(&["x/p", "y/p"])]
    );
    assert_eq!(allowed(&[("from-pod", "x/p"), ("from-namespace", "x")]), [in_both(&["x/p"])]);
    assert_eq!(allowed(&[("from-all-namespaces", "true")]), [in_both(&["/"])]);
    let service = FlowFilter { destination_service: text(&["x/web"]), ..FlowFilter::default() };
    assert_eq!(allowed(&[("to-namespace", "x"), ("to-service", "web")]), [service]);
    let either = allowed(&[("namespace", "x")]);
    let destination = FlowFilter { destination_pod: text(&["x/"]), ..FlowFilter::default() };
    assert_eq!(either, [in_both(&["x/"]), destination]);
}

#[test]
fn not_turns_the_next_filter_round_and_only_that() {
    let lists = lists_of(&[
        ("not", "true"),
        ("verdict", "FORWARDED"),
        ("from-port", "1"),
        ("not", "true"),
        ("uuid", "u"),
    ]);
    let deny = FlowFilter { verdict: vec![1], uuid: text(&["u"]), ..FlowFilter::default() };
    let allow = FlowFilter { source_port: text(&["1"]), ..FlowFilter::default() };
    assert_eq!(lists, Ok(FilterLists { allow: vec![allow], deny: vec![deny] }));
    assert_eq!(
        lists_of(&[("uuid", "u"), ("not", "true")]),
        Err("--not stands at the end; it turns the filter behind it round".to_owned())
    );
    let twice = lists_of(&[("not", "true"), ("not", "true"), ("uuid", "u")]);
    assert!(twice.is_err_and(|problem| problem.starts_with("--not stands before another --not")));
}

#[test]
fn words_become_numbers() {
    let expected = FlowFilter {
        verdict: vec![2, 4],
        drop_reason_desc: vec![133],
        event_type: vec![
            EventTypeFilter { r#type: 4, match_sub_type: true, sub_type: 0 },
            EventTypeFilter { r#type: 1, match_sub_type: true, sub_type: 133 },
            EventTypeFilter { r#type: 129, match_sub_type: false, sub_type: 0 },
        ],
        tcp_flags: vec![TcpFlags { syn: true, ack: true, ..TcpFlags::default() }],
        source_identity: vec![2, 77],
        traffic_direction: vec![1, 2],
        destination_workload: vec![
            Workload { kind: String::new(), name: "web".into() },
            Workload { kind: "Deployment".into(), name: String::new() },
        ],
        encrypted: vec![false],
        ..FlowFilter::default()
    };
    let given = [
        ("verdict", "DROPPED"),
        ("verdict", "audit"),
        ("drop-reason-desc", "policy_denied"),
        ("type", "trace:to-endpoint"),
        ("type", "drop:133"),
        ("type", "l7"),
        ("tcp-flags", "SYN,ack"),
        ("from-identity", "world"),
        ("from-identity", "0x4d"),
        ("traffic-direction", "Ingress"),
        ("traffic-direction", "egress"),
        ("to-workload", "web"),
        ("to-workload", "Deployment/"),
        ("unencrypted", "true"),
    ];
    assert_eq!(allowed(&given), [expected]);
}

#[test]
fn a_policy_is_found_by_what_is_known_of_it() {
    let expression = |value: &str| {
        let filters = allowed(&[("policy", value)]);
        filters[0].experimental.clone().expect("an expression").cel_expression[0].clone()
    };
    assert!(
        expression("web")
            .starts_with("_flow.egress_allowed_by.exists(p, p.name == 'web') || _flow.ingress_allowed_by")
    );
    assert!(
        expression("shop/web")
            .contains("ingress_denied_by.exists(p, p.name == 'web' && p.namespace == 'shop')")
    );
    assert!(expression("ccnp/web").contains("p.kind == 'CiliumClusterwideNetworkPolicy'"));
    let full = "p.name == 'web' && p.namespace == 'shop' && p.kind == 'CiliumNetworkPolicy'";
    assert!(expression("cnp/shop/web").contains(full));
    for nonsense in ["", "a'b", "a/b/c/d", "x/shop/web", "a//b"] {
        assert!(lists_of(&[("policy", nonsense)]).is_err(), "{nonsense}");
    }
}

/// Different flags must all hold, values of one flag need not.
#[test]
fn a_policy_and_an_expression_must_both_hold() {
    let expressions = |arguments: &[(&'static str, &str)]| {
        let filters = allowed(arguments);
        assert_eq!(filters.len(), 1);
        filters[0].experimental.clone().expect("expressions").cel_expression
    };
    assert_eq!(expressions(&[("cel-expression", "a"), ("cel-expression", "b")]), ["a", "b"]);
    let policies = expressions(&[("policy", "web"), ("policy", "db")]);
    let given = [("policy", "web"), ("cel-expression", "a // why"), ("policy", "db"), ("verdict", "DROPPED")];
    let expected: Vec<_> = policies.iter().map(|policy| format!("({policy}) && (a // why\n)")).collect();
    assert_eq!(expressions(&given), expected);
    assert_eq!(expected.len(), 2);
}

#[test]
fn contradictions_and_nonsense_are_refused_by_flag() {
    for (given, problem) in [
        (vec![("from-ip", "1.2.3.4"), ("pod", "a")], "--from-ip and --pod can't be combined"),
        (vec![("label", "a"), ("from-label", "b")], "--label and --from-label can't be combined"),
        (
            vec![("encrypted", "true"), ("unencrypted", "true")],
            "--encrypted and --unencrypted can't be combined",
        ),
        (vec![("namespace", "x"), ("to-pod", "p")], "--namespace and --to-pod can't be combined"),
        (vec![("namespace", "x"), ("pod", "y/p")], "\"y/p\" is not in namespace \"x\""),
        (
            vec![("from-pod", "x/p"), ("from-service", "y/s")],
            "service \"y/s\" is not in the namespace of pod \"x/p\"",
        ),
        (vec![("verdict", "LOST")], "--verdict \"LOST\" is none of"),
        (vec![("drop-reason-desc", "BAD")], "--drop-reason-desc \"BAD\" is no drop reason"),
        (vec![("type", "packet")], "--type \"packet\" is none of"),
        (vec![("type", "trace:nowhere")], "\"nowhere\" is no sub type of trace"),
        (vec![("tcp-flags", "syn,xyz")], "--tcp-flags \"xyz\" is no TCP flag"),
        (vec![("identity", "moon")], "\"moon\" is no identity"),
        (vec![("identity", "0x")], "\"0x\" is no identity"),
        (vec![("ip-version", "5")], "--ip-version \"5\" is none of"),
        (vec![("ip-trace-id", "0")], "--ip-trace-id \"0\" is no number above 0"),
        (vec![("http-header", "x")], "--http-header \"x\" is not KEY:VALUE"),
        (vec![("traffic-direction", "up")], "--traffic-direction \"up\" is neither"),
    ] {
        let told = lists_of(&given).expect_err(problem);
        assert!(told.contains(problem), "{told}");
    }
    // In different lists they do not contradict each other.
    assert!(lists_of(&[("label", "a"), ("not", "true"), ("from-label", "b")]).is_ok());
}
