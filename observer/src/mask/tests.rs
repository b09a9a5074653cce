//! Masks over a flow with something in every corner.

use prost_types::Timestamp;
use sinew_api::proto::flow::{Endpoint, Flow, Ip, Layer4, LostEvent, Policy, Tcp, TcpFlags, layer4};
use sinew_api::proto::observer::GetFlowsResponse;
use sinew_api::proto::observer::get_flows_response::ResponseTypes;

use super::*;

fn flow() -> Flow {
    let flags = Some(TcpFlags { syn: true, ..TcpFlags::default() });
    let tcp = Tcp { source_port: 40000, destination_port: 80, flags };
    Flow {
        uuid: "u".into(),
        verdict: 2,
        is_reply: Some(false),
        ip: Some(Ip { source: "10.0.0.1".into(), destination: "10.0.0.2".into(), ..Ip::default() }),
        l4: Some(Layer4 { protocol: Some(layer4::Protocol::Tcp(tcp)) }),
        source: Some(Endpoint {
            id: 7,
            pod_name: "web".into(),
            labels: vec!["a".into(), "b".into()],
            ..Endpoint::default()
        }),
        ingress_denied_by: vec![Policy { name: "p".into(), ..Policy::default() }],
        summary: "TCP Flags: SYN".into(),
        extensions: Some(prost_types::Any { type_url: "x".into(), value: vec![1] }),
        ..Flow::default()
    }
}

fn answer(response: ResponseTypes) -> GetFlowsResponse {
    let time = Some(Timestamp { seconds: 5, nanos: 6 });
    GetFlowsResponse { node_name: "default/a".into(), time, response_types: Some(response) }
}

fn mask(paths: &[&str]) -> Mask {
    let mask = FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() };
    Mask::new(Some(&mask)).expect("paths of the schema")
}

fn masked(paths: &[&str]) -> Flow {
    let whole = answer(ResponseTypes::Flow(flow()));
    let kept = mask(paths).apply(EncodedAnswer::of(&whole)).decode().expect("an answer");
    assert_eq!((&kept.node_name, kept.time), (&whole.node_name, whole.time), "these stay");
    match kept.response_types {
        Some(ResponseTypes::Flow(flow)) => flow,
        other => panic!("it is a flow still: {other:?}"),
    }
}

#[test]
fn no_mask_keeps_everything() {
    let whole = EncodedAnswer::of(&answer(ResponseTypes::Flow(flow())));
    assert_eq!(Mask::new(None).expect("no mask").apply(whole.clone()), whole);
    assert_eq!(masked(&[]), flow());
}

#[test]
fn what_is_no_flow_stays_whole() {
    let lost = answer(ResponseTypes::LostEvents(LostEvent { num_events_lost: 3, ..LostEvent::default() }));
    let lost = EncodedAnswer::of(&lost);
    assert_eq!(mask(&["uuid"]).apply(lost.clone()), lost);
}

#[test]
fn whole_fields_are_kept_and_nothing_else() {
    assert_eq!(
        masked(&["verdict", "Summary"]),
        Flow { verdict: 2, summary: flow().summary, ..Flow::default() }
    );
    assert_eq!(masked(&["l4"]), Flow { l4: flow().l4, ..Flow::default() });
    assert_eq!(
        masked(&["is_reply"]),
        Flow { is_reply: Some(false), ..Flow::default() },
        "false is not unknown"
    );
    assert_eq!(masked(&["extensions"]).extensions, flow().extensions);
    assert_eq!(
        masked(&["ingress_denied_by"]),
        Flow { ingress_denied_by: flow().ingress_denied_by, ..Flow::default() }
    );
    assert_eq!(masked(&["time"]), Flow::default(), "what is not set stays so");
}

#[test]
fn parts_of_fields_are_kept() {
    let kept = masked(&["source.pod_name", "source.labels", "IP.destination", "l4.TCP.flags.SYN"]);
    let source =
        Endpoint { pod_name: "web".into(), labels: vec!["a".into(), "b".into()], ..Endpoint::default() };
    let flags = Some(TcpFlags { syn: true, ..TcpFlags::default() });
    let tcp = layer4::Protocol::Tcp(Tcp { flags, ..Tcp::default() });
    let expected = Flow {
        source: Some(source),
        ip: Some(Ip { destination: "10.0.0.2".into(), ..Ip::default() }),
        l4: Some(Layer4 { protocol: Some(tcp) }),
        ..Flow::default()
    };
    assert_eq!(kept, expected);
}

#[test]
fn a_field_and_a_part_of_it_are_the_field() {
    assert_eq!(masked(&["source", "source.pod_name"]).source, flow().source);
    assert_eq!(masked(&["source.pod_name", "source"]).source, flow().source);
}

#[test]
fn paths_that_lead_nowhere_are_refused_by_name() {
    for (path, problem) in [
        ("pod", "field_mask: \"pod\": flow.Flow has no field \"pod\" there"),
        ("source.pod", "field_mask: \"source.pod\": flow.Flow has no field \"pod\" there"),
        ("verdict.name", "field_mask: \"verdict.name\": \"verdict\" has no fields below it"),
        (
            "ingress_denied_by.name",
            "field_mask: \"ingress_denied_by.name\": \"ingress_denied_by\" has no fields below it",
        ),
        ("", "field_mask: \"\": flow.Flow has no field \"\" there"),
        ("l4.", "field_mask: \"l4.\": flow.Flow has no field \"\" there"),
        ("ip", "field_mask: \"ip\": flow.Flow has no field \"ip\" there"),
    ] {
        let mask = FieldMask { paths: vec![path.to_owned()] };
        assert_eq!(Mask::new(Some(&mask)).expect_err(path).to_string(), problem);
    }
    let many = FieldMask { paths: vec!["time".to_owned(); 513] };
    assert_eq!(Mask::new(Some(&many)), Err(MaskError::TooMany(513)));
}
