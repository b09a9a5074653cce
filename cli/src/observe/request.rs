//! Requests from the command line: selectors, filters and field mask, with Hubble's defaults.

use std::time::SystemTime;

use prost::Message;
use prost_reflect::DynamicMessage;
use prost_types::{FieldMask, Timestamp};
use sinew_api::proto::flow::FlowFilter;
use sinew_api::proto::observer::{GetAgentEventsRequest, GetDebugEventsRequest, GetFlowsRequest};

use super::flags::{EventArgs, FlowArgs, GivenFilter, OutputForm, SelectorArgs};
use super::print::json::POOL;
use super::{filters, moment};
use crate::failure::Failure;

/// Flows shown when nothing says how many.
const DEFAULT_COUNT: u64 = 20;

/// The fields that compact, dict and table show: Hubble's, and those of policies and drops, without which Hubble's own
/// client can't show the direction of a verdict or the names of policies.
const SHOWN_FIELDS: [&str; 29] = [
    "time",
    "uuid",
    "verdict",
    "drop_reason_desc",
    "auth_type",
    "ethernet",
    "IP",
    "l4",
    "source.identity",
    "source.namespace",
    "source.pod_name",
    "destination.identity",
    "destination.namespace",
    "destination.pod_name",
    "Type",
    "node_name",
    "l7",
    "event_type",
    "source_service",
    "destination_service",
    "is_reply",
    "Summary",
    "ip_trace_id",
    "traffic_direction",
    "policy_match_type",
    "egress_allowed_by",
    "ingress_allowed_by",
    "egress_denied_by",
    "ingress_denied_by",
];
/// Shown where they are set; kept apart so that the list above reads as Hubble's plus ours.
const SHOWN_SOMETIMES: [&str; 5] =
    ["source_names", "destination_names", "sock_xlate_point", "debug_capture_point", "extensions"];

/// The request for flows.
pub(super) fn flows(args: &FlowArgs, now: SystemTime) -> Result<GetFlowsRequest, Failure> {
    columns_have_an_end(&args.selectors, args.format.output)?;
    let from_file = args.other.input_file.is_some();
    let Selected { number, first, since, until } = select(&args.selectors, from_file, now)?;
    let mut given = args.filters.given.clone();
    if let Some(uuid) = args.other.explain.as_ref().filter(|uuid| !uuid.is_empty()) {
        given.push(GivenFilter { name: "uuid", value: uuid.clone() });
    }
    let lists = filters::lists(&given).map_err(Failure::usage)?;
    let (mut whitelist, mut blacklist) = (lists.allow, lists.deny);
    whitelist.extend(raw("allowlist", &args.raw.allowlist)?);
    blacklist.extend(raw("denylist", &args.raw.denylist)?);
    Ok(GetFlowsRequest {
        number,
        first,
        follow: args.selectors.follow,
        blacklist,
        whitelist,
        since,
        until,
        field_mask: mask(args)?,
        experimental: None,
        extensions: None,
    })
}

/// The request for flows that are counted: everything that the server holds, unless the command line says otherwise.
pub(super) fn for_census(args: &FlowArgs, now: SystemTime) -> Result<GetFlowsRequest, Failure> {
    let SelectorArgs { all, first, last, follow, since, until } = &args.selectors;
    let is_open = !all && first.is_none() && last.is_none() && !follow && since.is_none() && until.is_none();
    let selectors = SelectorArgs { all: is_open || *all, ..args.selectors.clone() };
    let mut request = flows(&FlowArgs { selectors, ..args.clone() }, now)?;
    let shown = SHOWN_FIELDS.iter().chain(&SHOWN_SOMETIMES);
    let paths = shown.chain(&["source.workloads", "destination.workloads"]).map(|path| (*path).to_owned());
    request.field_mask = Some(FieldMask { paths: paths.collect() });
    Ok(request)
}

/// The request for events of the agent.
pub(super) fn agent_events(args: &EventArgs, now: SystemTime) -> Result<GetAgentEventsRequest, Failure> {
    columns_have_an_end(&args.selectors, args.format.output)?;
    let Selected { number, first, since, until } = select(&args.selectors, false, now)?;
    Ok(GetAgentEventsRequest { number, first, follow: args.selectors.follow, since, until })
}

/// The request for debug messages.
pub(super) fn debug_events(args: &EventArgs, now: SystemTime) -> Result<GetDebugEventsRequest, Failure> {
    columns_have_an_end(&args.selectors, args.format.output)?;
    let Selected { number, first, since, until } = select(&args.selectors, false, now)?;
    Ok(GetDebugEventsRequest { number, first, follow: args.selectors.follow, since, until })
}

/// Columns are as wide as their widest cell, which is known only at the end, and an answer that follows has no end.
fn columns_have_an_end(selectors: &SelectorArgs, form: OutputForm) -> Result<(), Failure> {
    if selectors.follow && form == OutputForm::Table {
        return Err(Failure::usage(
            "-o table can't be combined with --follow: columns are written when all rows are there; \
             use -o compact, dict or json, or sinew observe top for a live table",
        ));
    }
    Ok(())
}

struct Selected {
    number: u64,
    first: bool,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

fn select(args: &SelectorArgs, from_file: bool, now: SystemTime) -> Result<Selected, Failure> {
    let (first, last) = (args.first.filter(|count| *count > 0), args.last.filter(|count| *count > 0));
    let clash = match (first.is_some(), last.is_some()) {
        (true, true) => Some("--first and --last"),
        (true, _) if args.all => Some("--first and --all"),
        (true, _) if args.follow => Some("--first and --follow"),
        (_, true) if args.all => Some("--last and --all"),
        _ => None,
    };
    if let Some(pair) = clash {
        return Err(Failure::usage(format!("{pair} can't be combined")));
    }
    let time = |flag: &str, text: &Option<String>| {
        let time = text.as_deref().map(|text| moment::parse(text, now)).transpose();
        time.map_err(|problem| Failure::usage(format!("--{flag} {problem}")))
    };
    let since = time("since", &args.since)?;
    // With --follow the answer has no end, as in Hubble.
    let until = if args.follow { None } else { time("until", &args.until)? };
    let number = match first.or(last) {
        Some(count) => count,
        None if since.is_some() || until.is_some() => 0,
        None if args.all => u64::MAX,
        None if args.follow || from_file => 0,
        None => DEFAULT_COUNT,
    };
    Ok(Selected { number, first: first.is_some(), since, until })
}

fn mask(args: &FlowArgs) -> Result<Option<FieldMask>, Failure> {
    let is_json = matches!(args.format.output, OutputForm::Json | OutputForm::Jsonpb);
    // An empty value asks for nothing in particular, as in Hubble.
    if args.other.field_mask.iter().any(|path| !path.is_empty()) {
        if !is_json {
            return Err(Failure::usage("--field-mask goes with JSON output only: -o json"));
        }
        return Ok(Some(FieldMask { paths: args.other.field_mask.clone() }));
    }
    let shown = SHOWN_FIELDS.iter().chain(&SHOWN_SOMETIMES).map(|path| (*path).to_owned());
    Ok((!is_json && args.other.use_default_field_masks).then(|| FieldMask { paths: shown.collect() }))
}

/// FlowFilters as JSON, any number of them in each text.
fn raw(flag: &str, texts: &[String]) -> Result<Vec<FlowFilter>, Failure> {
    let descriptor =
        POOL.get_message_by_name("flow.FlowFilter").expect("the built-in schema has flow.FlowFilter");
    let mut made = Vec::new();
    for text in texts {
        let problem = |error: &dyn std::fmt::Display| Failure::usage(format!("--{flag} {text}: {error}"));
        let values = serde_json::Deserializer::from_str(text).into_iter::<serde_json::Value>();
        for value in values {
            let value = value.map_err(|error| problem(&error))?;
            let dynamic =
                DynamicMessage::deserialize(descriptor.clone(), value).map_err(|error| problem(&error))?;
            let filter =
                FlowFilter::decode(dynamic.encode_to_vec().as_slice()).map_err(|error| problem(&error))?;
            made.push(filter);
        }
    }
    Ok(made)
}

#[cfg(test)]
mod tests;
