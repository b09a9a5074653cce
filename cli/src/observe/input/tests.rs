//! Files of answers.

use std::io::Write;

use sinew_api::proto::flow::FlowFilter;

use super::*;

const LINES: &str = r#"
{"flow":{"uuid":"a","verdict":"FORWARDED"},"node_name":"default/n","time":"2026-11-21T03:00:01Z"}
{"flow":{"uuid":"b","verdict":"DROPPED","from_the_future":{"x":1}},"time":"2026-11-21T03:00:02Z"}
not json
{"lost_events":{"source":"HUBBLE_RING_BUFFER","num_events_lost":"3"},"time":"2026-11-21T03:00:03Z"}
{"flow":{"uuid":"c","verdict":"DROPPED"},"time":"2026-11-21T03:00:04Z"}
"#;

fn uuids(request: &GetFlowsRequest) -> Vec<String> {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(LINES.as_bytes()).expect("written");
    let answers = read(file.path(), request).expect("a file that opens");
    let name = |answer: Result<GetFlowsResponse>| match answer.expect("a line").response_types {
        Some(ResponseTypes::Flow(flow)) => flow.uuid,
        Some(ResponseTypes::LostEvents(lost)) => format!("lost {}", lost.num_events_lost),
        other => panic!("{other:?}"),
    };
    answers.map(name).collect()
}

fn second(second: i64) -> Option<Timestamp> {
    // 2026-11-21T03:00:00Z.
    Some(Timestamp { seconds: 1_795_230_000 + second, nanos: 0 })
}

#[test]
fn lines_are_read_in_order_and_nonsense_is_passed_over() {
    assert_eq!(uuids(&GetFlowsRequest::default()), ["a", "b", "lost 3", "c"]);
}

#[test]
fn first_last_and_times() {
    let request = GetFlowsRequest::default();
    assert_eq!(uuids(&GetFlowsRequest { number: 2, ..request.clone() }), ["lost 3", "c"]);
    assert_eq!(uuids(&GetFlowsRequest { number: 2, first: true, ..request.clone() }), ["a", "b"]);
    assert_eq!(uuids(&GetFlowsRequest { since: second(2), until: second(3), ..request }), ["b", "lost 3"]);
}

#[test]
fn filters_are_the_servers() {
    let dropped = FlowFilter { verdict: vec![2], ..FlowFilter::default() };
    let request = GetFlowsRequest { whitelist: vec![dropped], ..GetFlowsRequest::default() };
    assert_eq!(uuids(&request), ["b", "lost 3", "c"]);
}

#[test]
fn what_can_not_be_is_said() {
    let told = |request: GetFlowsRequest, path: &str| match read(Path::new(path), &request) {
        Ok(_) => panic!("it opened {path}"),
        Err(error) => format!("{error:#}"),
    };
    let request = GetFlowsRequest::default();
    assert!(told(request.clone(), "/nowhere").starts_with("open /nowhere: No such file"));
    let follow = GetFlowsRequest { follow: true, ..request.clone() };
    assert!(
        told(follow, "/nowhere").starts_with("open /nowhere"),
        "a file that is followed ends, as Hubble's does"
    );
    let filter = FlowFilter { source_ip: vec!["x".into()], ..FlowFilter::default() };
    let wrong = GetFlowsRequest { whitelist: vec![filter], ..request };
    assert!(told(wrong, "-").contains("whitelist[0].source_ip[0]"));
}

#[test]
fn a_text_without_a_flow_is_an_error_at_its_end_and_an_empty_one_is_none() {
    let read_all = |text: &str, request: &GetFlowsRequest| {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(text.as_bytes()).expect("written");
        let answers = read(file.path(), request).expect("a file that opens");
        answers.collect::<Result<Vec<_>>>().map(|answers| answers.len()).map_err(|error| error.to_string())
    };
    let request = GetFlowsRequest::default();
    let last = GetFlowsRequest { number: 2, ..request.clone() };
    for text in ["no json\n\nat all\n", "{\"kind\":\"Pod\"}\n"] {
        for request in [&request, &last] {
            let error = read_all(text, request).expect_err(text);
            assert!(error.starts_with("no line of ") && error.contains(" is a flow: a line is"), "{error}");
        }
    }
    assert_eq!(read_all("", &request), Ok(0));
    assert_eq!(read_all("\n\n", &request), Ok(0));
    let dropped = FlowFilter { uuid: vec!["nobody's".into()], ..FlowFilter::default() };
    let request = GetFlowsRequest { whitelist: vec![dropped], ..request };
    let flow = LINES.lines().nth(1).expect("a flow");
    assert_eq!(
        read_all(&format!("no json\n{flow}\n"), &request),
        Ok(0),
        "a filter may leave all of them out"
    );
}

#[test]
fn a_folder_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    for request in [GetFlowsRequest::default(), GetFlowsRequest { number: 3, ..GetFlowsRequest::default() }] {
        let Err(error) = read(folder.path(), &request) else { panic!("a folder is no file of flows") };
        assert!(error.to_string().contains("is a folder: name one file of flows"), "{error}");
    }
}
