//! A flow as an agent makes it, with every field that a verdict or a trace between two pods has.
//!
//! Neighbours: `filters.rs` asks filters for such flows, `relay.rs` sends them through a relay.

use prost_types::Timestamp;
use sinew_api::proto::flow::{
    CiliumEventType, Emitter, Endpoint, Ethernet, Flow, FlowType, Ip, IpVersion, Layer4, NetworkInterface,
    Policy, Tcp, TcpFlags, TrafficDirection, Verdict, Workload, layer4,
};
use sinew_api::proto::observer::GetFlowsResponse;
use sinew_api::proto::observer::get_flows_response::ResponseTypes;

/// Hubble's number of policy verdicts.
const POLICY_VERDICT: i32 = 5;
/// Pods that talk to each other.
const PODS: u32 = 100;

/// The answer that brings such a flow.
pub(super) fn answer(number: u32, node: &str, time: Timestamp) -> GetFlowsResponse {
    let flow = Flow { node_name: node.to_owned(), time: Some(time), ..flow(number) };
    GetFlowsResponse {
        node_name: node.to_owned(),
        time: Some(time),
        response_types: Some(ResponseTypes::Flow(flow)),
    }
}

/// One flow; its number says between which pods.
pub(super) fn flow(number: u32) -> Flow {
    let (client, server) = (number % PODS, (number / PODS) % PODS);
    let flags = TcpFlags { syn: true, ..TcpFlags::default() };
    let ports = Tcp { source_port: 30_000 + number % 20_000, destination_port: 8_080, flags: Some(flags) };
    Flow {
        time: Some(Timestamp { seconds: 1_700_000_000, nanos: 1_000 }),
        uuid: format!("7e6bd2d4-5f0c-4a35-9d39-{number:012x}"),
        emitter: Some(Emitter { name: "Sinew".to_owned(), version: "0.1.0".to_owned() }),
        verdict: Verdict::Forwarded.into(),
        ethernet: Some(Ethernet {
            source: "0a:58:0a:f0:00:02".to_owned(),
            destination: "0a:58:0a:f0:00:03".to_owned(),
        }),
        ip: Some(Ip {
            source: address(client),
            destination: address(server),
            ip_version: IpVersion::IPv4.into(),
            ..Ip::default()
        }),
        l4: Some(Layer4 { protocol: Some(layer4::Protocol::Tcp(ports)) }),
        source: Some(end("client", client)),
        destination: Some(end("server", server)),
        r#type: FlowType::L3L4.into(),
        node_name: "default/a".to_owned(),
        event_type: Some(CiliumEventType { r#type: POLICY_VERDICT, sub_type: 0 }),
        traffic_direction: TrafficDirection::Ingress.into(),
        policy_match_type: 2,
        is_reply: Some(false),
        interface: Some(NetworkInterface { index: 7, name: "sin0a58f000002".to_owned() }),
        ingress_allowed_by: vec![Policy {
            name: "server-in".to_owned(),
            namespace: "shop".to_owned(),
            labels: Vec::new(),
            revision: 7,
            kind: "CiliumNetworkPolicy".to_owned(),
        }],
        summary: "TCP Flags: SYN".to_owned(),
        ..Flow::default()
    }
}

fn end(app: &str, number: u32) -> Endpoint {
    Endpoint {
        id: number,
        identity: 1_000 + number,
        cluster_name: "default".to_owned(),
        namespace: "shop".to_owned(),
        labels: vec![
            format!("k8s:app={app}-{number}"),
            "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=shop".to_owned(),
            "k8s:io.cilium.k8s.policy.cluster=default".to_owned(),
            "k8s:io.cilium.k8s.policy.serviceaccount=default".to_owned(),
            "k8s:io.kubernetes.pod.namespace=shop".to_owned(),
        ],
        pod_name: format!("{app}-{number}-7d9f8b6c5d-x2x4z"),
        workloads: vec![Workload { name: format!("{app}-{number}"), kind: "Deployment".to_owned() }],
    }
}

fn address(pod: u32) -> String {
    format!("10.240.{}.{}", pod / 250, 1 + pod % 250)
}
