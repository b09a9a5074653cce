//! The service over a journal, without a socket: what a client is told, in order.

use std::time::{Duration, SystemTime};

use prost_types::{FieldMask, Timestamp};
use sinew_api::proto::flow::agent_event::Notification;
use sinew_api::proto::flow::{
    AgentEvent, Endpoint, Flow, FlowFilter, LostEvent, LostEventSource, TimeNotification,
};
use sinew_api::proto::observer::get_flows_response::ResponseTypes;
use tonic::Code;

use super::*;
use crate::journal::{Journal, JournalSettings};
use crate::ring::Capacity;

const START: i64 = 1_800_000_000;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn flow(number: i64, namespace: &str) -> Flow {
    Flow {
        uuid: number.to_string(),
        time: Some(Timestamp { seconds: START + number, nanos: 0 }),
        source: Some(Endpoint {
            cluster_name: "default".into(),
            namespace: namespace.into(),
            ..Endpoint::default()
        }),
        node_name: "default/a".into(),
        ..Flow::default()
    }
}

fn journal(entries: usize) -> Arc<Journal> {
    let mut settings = JournalSettings::new("default/a", "0.1.0");
    settings.flows = Capacity { entries, bytes: usize::MAX };
    Arc::new(Journal::new(settings, now()))
}

async fn told(journal: &Arc<Journal>, request: GetFlowsRequest) -> Result<Vec<String>, Status> {
    let stream = ObserverService::new(journal.clone()).get_flows(Request::new(request)).await?.into_inner();
    let answers: Vec<_> = stream.map(|answer| describe(&answer.expect("an answer"))).collect().await;
    Ok(answers)
}

fn describe(answer: &GetFlowsResponse) -> String {
    match &answer.response_types {
        Some(ResponseTypes::Flow(flow)) => format!("{} {}", answer.node_name, flow.uuid),
        Some(ResponseTypes::LostEvents(lost)) => {
            format!("lost {} {}", lost.source().as_str_name(), lost.num_events_lost)
        }
        other => panic!("a journal has no {other:?}"),
    }
}

#[tokio::test]
async fn flows_and_losses_come_in_order_with_the_nodes_name() {
    let journal = journal(100);
    journal.record_flows([flow(1, "a")]);
    let lost = LostEvent {
        source: LostEventSource::PerfEventRingBuffer.into(),
        num_events_lost: 9,
        ..LostEvent::default()
    };
    journal.record_lost(lost, now());
    journal.record_flows([flow(2, "a"), flow(3, "b")]);
    let all = told(&journal, GetFlowsRequest::default()).await.expect("flows");
    assert_eq!(all, ["default/a 1", "lost PERF_EVENT_RING_BUFFER 9", "default/a 2", "default/a 3"]);
    let filter = FlowFilter { source_pod: vec!["b/".into()], ..FlowFilter::default() };
    let of_b = GetFlowsRequest { whitelist: vec![filter.clone()], ..GetFlowsRequest::default() };
    assert_eq!(told(&journal, of_b).await.expect("flows"), ["lost PERF_EVENT_RING_BUFFER 9", "default/a 3"]);
    let not_b = GetFlowsRequest { blacklist: vec![filter], number: 1, ..GetFlowsRequest::default() };
    assert_eq!(told(&journal, not_b).await.expect("flows"), ["default/a 2"]);
}

#[tokio::test]
async fn requests_without_a_meaning_are_invalid_arguments_that_name_the_field() {
    let journal = journal(100);
    let filter = |text: &str| FlowFilter { source_ip: vec![text.into()], ..FlowFilter::default() };
    let mask = |path: &str| Some(FieldMask { paths: vec![path.into()] });
    for (request, field) in [
        (GetFlowsRequest { first: true, follow: true, ..GetFlowsRequest::default() }, "first: "),
        (
            GetFlowsRequest { whitelist: vec![filter("x")], ..GetFlowsRequest::default() },
            "whitelist[0].source_ip[0]: ",
        ),
        (
            GetFlowsRequest { blacklist: vec![filter("1/2")], ..GetFlowsRequest::default() },
            "blacklist[0].source_ip[0]: ",
        ),
        (GetFlowsRequest { field_mask: mask("flow"), ..GetFlowsRequest::default() }, "field_mask: \"flow\""),
        (
            GetFlowsRequest {
                since: Some(Timestamp { seconds: 0, nanos: -1 }),
                ..GetFlowsRequest::default()
            },
            "since: ",
        ),
    ] {
        let status = told(&journal, request).await.expect_err(field);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with(field), "{status}");
    }
}

/// emitted = received + told as lost, exactly, for a client that stops reading.
#[tokio::test]
async fn a_client_that_lags_is_told_what_it_missed() {
    let journal = journal(10);
    let service = ObserverService::new(journal.clone());
    let request = GetFlowsRequest { follow: true, number: 1, ..GetFlowsRequest::default() };
    journal.record_flows([flow(0, "a")]);
    let mut stream = service.get_flows(Request::new(request)).await.expect("a stream").into_inner();
    assert_eq!(describe(&stream.next().await.expect("it goes on").expect("an answer")), "default/a 0");
    for number in 1..=100 {
        journal.record_flows([flow(number, "a")]);
    }
    let (mut received, mut lost) = (0, 0);
    while received + lost < 100 {
        match stream.next().await.expect("it goes on").expect("an answer").response_types {
            Some(ResponseTypes::Flow(_)) => received += 1,
            Some(ResponseTypes::LostEvents(event)) => {
                assert_eq!(event.source(), LostEventSource::HubbleRingBuffer);
                assert!(event.first.is_some() && event.last.is_some());
                lost += event.num_events_lost;
            }
            other => panic!("a journal has no {other:?}"),
        }
    }
    assert_eq!((received, lost), (10, 90));
    let losses = journal.numbers(SystemTime::now()).losses;
    assert_eq!(losses, [(LostEventSource::HubbleRingBuffer, 90)], "status and metrics count them too");
}

#[tokio::test]
async fn status_nodes_and_namespaces() {
    let journal = journal(2);
    let service = ObserverService::new(journal.clone());
    journal.record_flows((1..=3).map(|number| flow(number, "a")));
    let status =
        service.server_status(Request::new(ServerStatusRequest {})).await.expect("a status").into_inner();
    assert_eq!((status.num_flows, status.max_flows, status.seen_flows), (2, 2, 3));
    assert_eq!((status.version.as_str(), status.num_connected_nodes), ("0.1.0", None));
    let nodes = service.get_nodes(Request::new(GetNodesRequest {})).await.expect("nodes").into_inner().nodes;
    assert_eq!((nodes.len(), nodes[0].name.as_str(), nodes[0].seen_flows), (1, "default/a", 3));

    let recent = Flow { time: Some(SystemTime::now().into()), ..flow(0, "shop") };
    journal.record_flows([recent]);
    let answer =
        service.get_namespaces(Request::new(GetNamespacesRequest {})).await.expect("namespaces").into_inner();
    let names: Vec<_> =
        answer.namespaces.iter().map(|it| (it.cluster.as_str(), it.namespace.as_str())).collect();
    assert!(names.contains(&("default", "shop")), "{names:?}");
}

#[tokio::test]
async fn losses_are_counted_by_cause() {
    let journal = journal(2);
    for (source, count) in [
        (LostEventSource::PerfEventRingBuffer, 3),
        (LostEventSource::ObserverEventsQueue, 5),
        (LostEventSource::PerfEventRingBuffer, 4),
    ] {
        let lost = LostEvent { source: source.into(), num_events_lost: count, ..LostEvent::default() };
        journal.record_lost(lost, now());
    }
    let losses = journal.numbers(now()).losses;
    assert_eq!(
        losses,
        [(LostEventSource::PerfEventRingBuffer, 7), (LostEventSource::ObserverEventsQueue, 5)]
    );
}

/// A drop that the kernel kept to itself is lost to every viewer in the same way: to a client, in the sum and in the metric.
#[tokio::test]
async fn suppressed_drops_are_lost_between_kernel_and_agent_once() {
    let journal = journal(100);
    let source = LostEventSource::PerfEventRingBuffer.into();
    journal.record_lost(LostEvent { source, num_events_lost: 3, ..LostEvent::default() }, now());
    journal.record_suppressed(31, now());
    let numbers = journal.numbers(now());
    assert_eq!(numbers.losses, [(LostEventSource::PerfEventRingBuffer, 34)]);
    assert_eq!(numbers.suppressed, 31, "of these");
    let words = told(&journal, GetFlowsRequest::default()).await.expect("words");
    assert_eq!(words, ["lost PERF_EVENT_RING_BUFFER 3", "lost PERF_EVENT_RING_BUFFER 31"]);
}

#[tokio::test]
async fn agent_events_have_a_ring_of_their_own() {
    let journal = journal(1);
    let start = TimeNotification { time: Some(now().into()) };
    let event = AgentEvent { r#type: 2, notification: Some(Notification::AgentStart(start)) };
    journal.record_event(event.clone(), now());
    journal.record_flows((1..=50).map(|number| flow(number, "a")));
    let service = ObserverService::new(journal);
    let request = Request::new(GetAgentEventsRequest { number: 5, ..GetAgentEventsRequest::default() });
    let stream = service.get_agent_events(request).await.expect("events").into_inner();
    let events: Vec<_> = stream.map(|answer| answer.expect("an event")).collect().await;
    assert_eq!(events.len(), 1, "a storm of flows does not push it out");
    assert_eq!((events[0].agent_event.as_ref(), events[0].node_name.as_str()), (Some(&event), "default/a"));
    let debug = service.get_debug_events(Request::new(GetDebugEventsRequest::default())).await.expect("none");
    assert_eq!(debug.into_inner().count().await, 0);
}

/// A word of losses that is overwritten is missed with all that it told of; words are no flows.
#[tokio::test]
async fn a_loss_whose_word_is_overwritten_is_still_told() {
    let journal = journal(3);
    let service = ObserverService::new(journal.clone());
    let request = GetFlowsRequest { follow: true, number: 1, ..GetFlowsRequest::default() };
    journal.record_flows([flow(0, "a")]);
    let mut stream = service.get_flows(Request::new(request)).await.expect("a stream").into_inner();
    assert_eq!(describe(&stream.next().await.expect("it goes on").expect("an answer")), "default/a 0");
    let source = LostEventSource::PerfEventRingBuffer.into();
    journal.record_lost(LostEvent { source, num_events_lost: 1000, ..LostEvent::default() }, now());
    assert_eq!(journal.numbers(now()).fill.entries, 1, "a word is no flow");
    journal.record_flows([1, 2, 3, 4].map(|number| flow(number, "a")));
    let told = describe(&stream.next().await.expect("it goes on").expect("an answer"));
    assert_eq!(told, "lost HUBBLE_RING_BUFFER 1001", "flow 1, and what the word told of");
}

#[tokio::test]
async fn events_that_a_slow_client_missed_are_told_and_counted() {
    let journal = journal(1);
    let service = ObserverService::new(journal.clone());
    let event = || AgentEvent { r#type: 2, notification: None };
    let request = Request::new(GetAgentEventsRequest { follow: true, ..GetAgentEventsRequest::default() });
    let mut stream = service.get_agent_events(request).await.expect("a stream").into_inner();
    // A stream begins when it is first asked.
    assert!(tokio::time::timeout(Duration::from_millis(10), stream.next()).await.is_err());
    (0..1034).for_each(|_| journal.record_event(event(), now()));
    let first = stream.next().await.expect("it goes on").expect("an answer").agent_event.expect("an event");
    let Some(Notification::Unknown(told)) = first.notification else { panic!("no word: {first:?}") };
    assert!(told.notification.starts_with("10 events of the agent were missed"), "{told:?}");
    assert_eq!(journal.numbers(now()).losses, [(LostEventSource::HubbleRingBuffer, 10)]);
}

/// A client has its share of the streams, and a stream that ends gives its place back.
#[tokio::test]
async fn streams_are_bounded_for_one_client_and_for_all() {
    let journal = journal(1);
    let service = ObserverService::new(journal.clone());
    let StreamLimits { all, per_client } = journal.stream_limits();
    let ask = async |from: Option<&str>| {
        let mut request = Request::new(GetFlowsRequest { follow: true, ..GetFlowsRequest::default() });
        if let Some(address) = from {
            request.extensions_mut().insert(Client(address.parse().expect("an address")));
        }
        service.get_flows(request).await
    };
    let mut open = Vec::new();
    for _ in 0..per_client {
        open.push(ask(Some("192.0.2.1")).await.expect("its share"));
    }
    let refused = ask(Some("192.0.2.1")).await.err().expect("one too many");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("160 for one address"), "{refused}");
    assert!(ask(Some("192.0.2.2")).await.is_ok(), "another client has a share of its own");
    for _ in per_client..all {
        open.push(ask(None).await.expect("the socket takes what is free"));
    }
    assert_eq!(ask(None).await.err().map(|status| status.code()), Some(Code::ResourceExhausted));
    open.pop();
    assert!(ask(None).await.is_ok(), "its place is free again");
}
