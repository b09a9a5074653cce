//! Requests of whole command lines.

use std::time::Duration;

use clap::{Args, FromArgMatches};

use super::*;
use crate::failure::Code;

/// 2019-07-01T14:00:00Z.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_561_989_600)
}

fn args(line: &str) -> FlowArgs {
    let command = FlowArgs::augment_args(clap::Command::new("observe"));
    let matches = command.try_get_matches_from(std::iter::once("observe").chain(line.split_whitespace()));
    FlowArgs::from_arg_matches(&matches.unwrap_or_else(|error| panic!("{error}"))).expect("arguments")
}

fn request(line: &str) -> GetFlowsRequest {
    flows(&args(line), now()).unwrap_or_else(|failure| panic!("{line}: {failure}"))
}

fn seconds(time: Option<Timestamp>) -> Option<i64> {
    time.map(|time| time.seconds)
}

#[test]
fn numbers_and_times_have_hubbles_defaults() {
    let number = |line: &str| {
        let GetFlowsRequest { number, first, follow, .. } = request(line);
        (number, first, follow)
    };
    assert_eq!(number(""), (20, false, false));
    assert_eq!(number("--last 5"), (5, false, false));
    assert_eq!(number("--last 0"), (20, false, false));
    assert_eq!(number("--first 5"), (5, true, false));
    assert_eq!(number("--all"), (u64::MAX, false, false));
    assert_eq!(number("-f"), (0, false, true));
    assert_eq!(number("-f --last 3"), (3, false, true));
    assert_eq!(number("--since 1m"), (0, false, false));
    assert_eq!(number("--since 1m --last 7"), (7, false, false));
    assert_eq!(number("--input-file x"), (0, false, false));
    let times = request("--since 1h --until 2019-07-01T13:30:00Z");
    assert_eq!((seconds(times.since), seconds(times.until)), (Some(1_561_986_000), Some(1_561_987_800)));
    assert_eq!(request("-f --until 1m").until, None);
}

#[test]
fn what_can_not_be_together_is_a_usage_error() {
    for (line, problem) in [
        ("--first 1 --last 1", "--first and --last can't be combined"),
        ("--first 1 --all", "--first and --all can't be combined"),
        ("--first 1 --follow", "--first and --follow can't be combined"),
        ("--last 1 --all", "--last and --all can't be combined"),
        ("--follow -o table", "-o table can't be combined with --follow"),
        ("-f -o tab --all", "-o table can't be combined with --follow"),
        ("--since soon", "--since \"soon\" is no time"),
        ("--until 2019-99-99", "--until \"2019-99-99\" is no time"),
        ("--field-mask time", "--field-mask goes with JSON output only"),
        ("--allowlist {", "--allowlist {: EOF"),
        ("--denylist {\"pod\":[]}", "--denylist {\"pod\":[]}: unrecognized field name"),
    ] {
        let failure = flows(&args(line), now()).expect_err(problem);
        assert_eq!(failure.code, Code::TimedOut, "a usage error");
        assert!(failure.message.contains(problem), "{line}: {failure}");
    }
}

#[test]
fn filters_keep_their_order() {
    let made = request("--not --verdict FORWARDED -4 --port 53 -l app=web --not --uuid x");
    assert_eq!(
        made.blacklist,
        [FlowFilter { verdict: vec![1], uuid: vec!["x".into()], ..FlowFilter::default() }]
    );
    let one = |source: bool| {
        let (port, label) = (vec!["53".to_owned()], vec!["app=web".to_owned()]);
        let filter = FlowFilter { ip_version: vec![1], ..FlowFilter::default() };
        if source {
            FlowFilter { source_port: port, source_label: label, ..filter }
        } else {
            FlowFilter { destination_port: port, destination_label: label, ..filter }
        }
    };
    assert_eq!(made.whitelist, [one(true), one(false)]);
}

#[test]
fn one_flow_is_explained_by_its_uuid() {
    let made = request("--explain 4f2a --verdict DROPPED");
    let expected = FlowFilter { uuid: vec!["4f2a".into()], verdict: vec![2], ..FlowFilter::default() };
    assert_eq!(made.whitelist, [expected]);
    assert_eq!(request("--explain -f").whitelist, []);
}

#[test]
fn raw_filters_come_behind_the_others() {
    let made = request(
        "--uuid a --allowlist {\"uuid\":[\"b\"]}{\"verdict\":[\"AUDIT\"]} --denylist {\"source_port\":[\"1\"]}",
    );
    let of = |uuid: &str| FlowFilter { uuid: vec![uuid.into()], ..FlowFilter::default() };
    assert_eq!(made.whitelist, [of("a"), of("b"), FlowFilter { verdict: vec![4], ..FlowFilter::default() }]);
    assert_eq!(made.blacklist, [FlowFilter { source_port: vec!["1".into()], ..FlowFilter::default() }]);
}

#[test]
fn only_shown_fields_are_asked_for_unless_it_is_json() {
    let mask = request("").field_mask.expect("a mask");
    sinew_observer::mask::Mask::new(Some(&mask)).expect("every field of it is in the schema");
    assert!(
        mask.paths.contains(&"traffic_direction".to_owned())
            && !mask.paths.contains(&"node_labels".to_owned())
    );
    assert_eq!(request("-o json").field_mask, None);
    assert_eq!(request("--use-default-field-masks=false").field_mask, None);
    let own = request("-o jsonpb --field-mask time,source.pod_name").field_mask.expect("a mask");
    assert_eq!(own.paths, ["time", "source.pod_name"]);
    assert_eq!(request("-o json --field-mask=").field_mask, None);
    assert_eq!(request("--field-mask=").field_mask, request("").field_mask);
}

#[test]
fn what_is_counted_is_everything_unless_said_otherwise() {
    let made = for_census(&FlowArgs::default(), now()).expect("a request");
    assert_eq!((made.number, made.follow), (u64::MAX, false));
    let mask = made.field_mask.expect("a mask");
    sinew_observer::mask::Mask::new(Some(&mask)).expect("every field of it is in the schema");
    assert!(mask.paths.contains(&"source.workloads".to_owned()) && mask.paths.contains(&"IP".to_owned()));
    assert_eq!(for_census(&args("--last 5"), now()).expect("a request").number, 5);
    let since = for_census(&args("--since 1m"), now()).expect("a request");
    assert!(since.number == 0 && since.since.is_some());
}

#[test]
fn events_in_columns_are_not_followed_either() {
    let args = |line: &str| {
        let command = EventArgs::augment_args(clap::Command::new("agent-events"));
        let matches =
            command.try_get_matches_from(std::iter::once("agent-events").chain(line.split_whitespace()));
        EventArgs::from_arg_matches(&matches.unwrap_or_else(|error| panic!("{error}"))).expect("arguments")
    };
    for refused in [
        agent_events(&args("-f -o table"), now()).expect_err("events of the agent"),
        debug_events(&args("-f -o table"), now()).expect_err("debug messages"),
    ] {
        assert!(refused.message.contains("sinew observe top"), "{refused}");
    }
    assert!(agent_events(&args("-f -o dict"), now()).is_ok());
    assert!(debug_events(&args("-o table"), now()).is_ok());
}
