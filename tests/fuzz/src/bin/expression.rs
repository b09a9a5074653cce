//! Any text as the expression of a filter: it is refused with a reason, or it answers for every flow, and always the same.
//!
//! `cargo xtask test fuzz` builds this with coverage, replays `tests/fuzz/corpus/expression` and explores from it. The
//! neighbour `flow_filter` takes whole requests, in which a text that is an expression is hard to find.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sinew_api::proto::flow::{
    Endpoint, Flow, FlowFilter, IcmPv4, Layer4, Policy, Tcp, TcpFlags, Workload, flow_filter, layer4,
};
use sinew_observer::filter::FilterSet;

fuzz_target!(|text: &str| {
    let experimental = flow_filter::Experimental { cel_expression: vec![text.to_owned()] };
    let filter = FlowFilter { experimental: Some(experimental), ..FlowFilter::default() };
    match FilterSet::new(std::slice::from_ref(&filter), &[]) {
        Err(error) => {
            let error = error.to_string();
            assert!(
                error.starts_with("whitelist[0].experimental.cel_expression[0]: "),
                "a refusal names the field: {error}"
            );
        }
        Ok(allows) => {
            let denies = FilterSet::new(&[], &[filter]).expect("what may allow may deny");
            for flow in [Flow::default(), tcp(), icmp()] {
                let allowed = allows.matches(&flow);
                assert_eq!(allowed, allows.matches(&flow), "an expression remembers nothing");
                assert_ne!(allowed, denies.matches(&flow), "what is allowed is what is denied");
            }
        }
    }
});

/// A denied packet with something in every list.
fn tcp() -> Flow {
    let flags = Some(TcpFlags { syn: true, ack: true, ..TcpFlags::default() });
    let tcp = Tcp { source_port: 40000, destination_port: 5432, flags };
    let end = Endpoint {
        id: 12,
        identity: 1001,
        namespace: "shop".into(),
        pod_name: "web-1".into(),
        labels: vec!["k8s:app=web".into(), "reserved:host".into()],
        workloads: vec![Workload { name: "web".into(), kind: "Deployment".into() }],
        ..Endpoint::default()
    };
    Flow {
        verdict: 2,
        drop_reason_desc: 133,
        traffic_direction: 1,
        is_reply: Some(true),
        source_names: vec!["a.example.com".into()],
        l4: Some(Layer4 { protocol: Some(layer4::Protocol::Tcp(tcp)) }),
        source: Some(end.clone()),
        destination: Some(end),
        ingress_denied_by: vec![Policy { name: "db".into(), revision: 7, ..Policy::default() }],
        ..Flow::default()
    }
}

fn icmp() -> Flow {
    let icmp = IcmPv4 { r#type: 3, code: 1 };
    Flow {
        verdict: 1,
        l4: Some(Layer4 { protocol: Some(layer4::Protocol::IcmPv4(icmp)) }),
        is_reply: Some(false),
        ..Flow::default()
    }
}
