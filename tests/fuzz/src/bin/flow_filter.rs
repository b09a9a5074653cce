//! Any request for flows: it is refused with a reason, or its filters, expressions and field mask answer for every flow.
//!
//! An input that begins with `{` is the JSON of a `GetFlowsRequest`, any other its protobuf. `cargo xtask test fuzz`
//! builds this with coverage, replays `tests/fuzz/corpus/flow_filter` and explores from it.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use sinew_api::proto::FILE_DESCRIPTOR_SET;
use sinew_api::proto::flow::{
    Endpoint, Flow, Http, Ip, Layer4, Layer7, Policy, Tcp, TcpFlags, layer4, layer7,
};
use sinew_api::proto::observer::get_flows_response::ResponseTypes;
use sinew_api::proto::observer::{GetFlowsRequest, GetFlowsResponse};
use sinew_observer::encoded::EncodedAnswer;
use sinew_observer::filter::FilterSet;
use sinew_observer::mask::Mask;
use sinew_observer::query::Selection;

/// Read once: it takes longer than a request.
static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the committed descriptors are whole")
});

fuzz_target!(|input: &[u8]| {
    let Some(request) = request(input) else { return };
    if let Err(error) = Selection::from(&request).check() {
        assert!(!error.to_string().is_empty(), "an error says what is wrong");
    }
    let mask = Mask::new(request.field_mask.as_ref());
    let filters = FilterSet::new(&request.whitelist, &request.blacklist);
    for flow in [Flow::default(), flow()] {
        if let Ok(mask) = &mask {
            let response_types = Some(ResponseTypes::Flow(flow.clone()));
            let answer = GetFlowsResponse { response_types, ..GetFlowsResponse::default() };
            let once = mask.apply(EncodedAnswer::of(&answer));
            assert_eq!(mask.apply(once.clone()), once, "a masked flow has nothing left to mask");
        }
        if let Ok(filters) = &filters {
            assert_eq!(filters.matches(&flow), filters.matches(&flow), "a filter remembers nothing");
        }
    }
    let problems = [mask.err().map(|it| it.to_string()), filters.err().map(|it| it.to_string())];
    for problem in problems.into_iter().flatten() {
        assert!(problem.contains(": "), "a refusal names the field: {problem}");
    }
});

fn request(input: &[u8]) -> Option<GetFlowsRequest> {
    if !input.starts_with(b"{") {
        return GetFlowsRequest::decode(input).ok();
    }
    let descriptor = POOL.get_message_by_name("observer.GetFlowsRequest").expect("the schema has it");
    let mut json = serde_json::Deserializer::from_slice(input);
    let dynamic = DynamicMessage::deserialize(descriptor, &mut json).ok()?;
    GetFlowsRequest::decode(dynamic.encode_to_vec().as_slice()).ok()
}

/// Something in every corner that filters look into.
fn flow() -> Flow {
    let flags = Some(TcpFlags { syn: true, ..TcpFlags::default() });
    let tcp = Tcp { source_port: 40000, destination_port: 5432, flags };
    let http = Http { code: 404, method: "GET".into(), url: "http://db/page?x".into(), ..Http::default() };
    let end = Endpoint {
        identity: 1001,
        namespace: "shop".into(),
        pod_name: "web-1".into(),
        labels: vec!["k8s:app=web".into(), "reserved:host".into()],
        ..Endpoint::default()
    };
    Flow {
        uuid: "u".into(),
        verdict: 2,
        drop_reason_desc: 133,
        node_name: "default/a".into(),
        source_names: vec!["a.example.com".into()],
        ip: Some(Ip {
            source: "10.0.0.1".into(),
            destination: "fd00::1".into(),
            ip_version: 1,
            ..Ip::default()
        }),
        l4: Some(Layer4 { protocol: Some(layer4::Protocol::Tcp(tcp)) }),
        l7: Some(Layer7 { record: Some(layer7::Record::Http(http)), ..Layer7::default() }),
        source: Some(end.clone()),
        destination: Some(end),
        ingress_denied_by: vec![Policy { name: "db".into(), ..Policy::default() }],
        ..Flow::default()
    }
}
