//! `sinew observe`: flows of a node or a cluster, past and coming, with Hubble's flags, defaults and lines.
//!
//! `flags.rs` has the command line, `filters.rs` turns its filters into FlowFilters, `request.rs` the rest into a request,
//! `crate::server` finds the server to ask, `input.rs` reads a file instead, `print.rs` writes what comes, `census.rs`
//! counts it for `edges.rs` and `top.rs`. The agent makes the flows, and `sinew_observer` filters them: in the server, or
//! here for those of a file.

mod census;
mod edges;
mod explain;
mod filters;
mod flags;
pub(crate) mod input;
mod moment;
mod print;
mod request;
mod top;

use std::io::IsTerminal;
use std::net::IpAddr;
use std::time::SystemTime;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use futures_util::StreamExt;
use prost_reflect::MessageDescriptor;
use sinew_api::proto::flow::IpVersion;
use sinew_api::proto::observer::GetFlowsRequest;
use sinew_api::proto::observer::observer_client::ObserverClient;

use crate::failure::Failure;
use crate::server::{self, Address, Server, ServerArgs, refused};

use flags::{EventArgs, FlowArgs, OutputForm};
use print::Printer;

/// Largest answer that is read, in bytes: a flow with every field is ≈ 2 KiB.
const LARGEST_ANSWER: usize = 16 << 20;

/// The command line of `sinew observe`.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ObserveArgs {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    flows: FlowArgs,
}

#[derive(Subcommand)]
enum What {
    /// Flows, as without this word
    Flows(Box<FlowArgs>),
    /// What happened in the agent: policies, endpoints and addresses that came, changed or went
    AgentEvents(EventArgs),
    /// Debug messages of the datapath
    DebugEvents(EventArgs),
    /// Who talks to whom: a table, a graph or JSON
    Edges(Box<edges::EdgeArgs>),
    /// Talkers, drops and policies, live
    Top(Box<top::TopArgs>),
}

/// Asks, and prints what comes.
pub(crate) async fn run(args: &ObserveArgs) -> Result<()> {
    match &args.what {
        None => flows(&args.flows).await,
        Some(What::Flows(args)) => flows(args).await,
        Some(What::AgentEvents(args)) => agent_events(args).await,
        Some(What::DebugEvents(args)) => debug_events(args).await,
        Some(What::Edges(args)) => edges::run(args).await,
        Some(What::Top(args)) => top::run(args).await,
    }
}

async fn flows(args: &FlowArgs) -> Result<()> {
    let request = request::flows(args, SystemTime::now())?;
    if args.other.print_raw_filters {
        return print::raw_filters(&request);
    }
    let uuid = args.other.explain.as_deref();
    if uuid.is_some() && !matches!(args.format.output, OutputForm::Compact | OutputForm::Dict) {
        let message = "--explain writes lines behind a flow, for which only compact and dict have a place; \
                       -o json carries the rules that decided in extensions";
        return Err(Failure::usage(message).into());
    }
    if args.server.debug {
        args.server.tell(format_args!("GetFlows {}", flows_asked(&request)?));
    }
    let mut printer = Printer::new(&args.format, &args.flow_format, args.other.silent_errors)?;
    printer.debug = args.server.debug;
    let (mut explain, answers) = match &args.other.input_file {
        Some(path) => {
            let answers = futures_util::stream::iter(input::read(path, &request)?);
            (uuid.map(|uuid| explain::Explainer::new(None, uuid)), answers.left_stream())
        }
        None => {
            let (mut client, server) = connect(&args.server).await?;
            let stream = client.get_flows(request).await.map_err(|status| refused(&status))?.into_inner();
            let answers = stream.map(|answer| answer.map_err(|status| anyhow::Error::from(refused(&status))));
            (uuid.map(|uuid| explain::Explainer::new(Some(&server), uuid)), answers.right_stream())
        }
    };
    let mut answers = std::pin::pin!(answers);
    while let Some(answer) = answers.next().await {
        let answer = answer?;
        printer.flow(&answer)?;
        if let Some(explain) = &mut explain {
            printer.note(&explain.of(&answer).await)?;
        }
    }
    printer.finish()?;
    match (explain, uuid) {
        (Some(explain), Some(uuid)) => Ok(explain.finish(uuid)?),
        _ => Ok(()),
    }
}

async fn agent_events(args: &EventArgs) -> Result<()> {
    let request = request::agent_events(args, SystemTime::now())?;
    told(&args.server, "GetAgentEvents", "observer.GetAgentEventsRequest", &request)?;
    let mut printer = Printer::for_events(&args.format)?;
    let (mut client, _) = connect(&args.server).await?;
    let mut stream = client.get_agent_events(request).await.map_err(|status| refused(&status))?.into_inner();
    while let Some(response) = stream.next().await {
        printer.agent_event(&response.map_err(|status| refused(&status))?)?;
    }
    printer.finish()
}

async fn debug_events(args: &EventArgs) -> Result<()> {
    let request = request::debug_events(args, SystemTime::now())?;
    told(&args.server, "GetDebugEvents", "observer.GetDebugEventsRequest", &request)?;
    let mut printer = Printer::for_events(&args.format)?;
    let (mut client, _) = connect(&args.server).await?;
    let mut stream = client.get_debug_events(request).await.map_err(|status| refused(&status))?.into_inner();
    while let Some(response) = stream.next().await {
        printer.debug_event(&response.map_err(|status| refused(&status))?)?;
    }
    printer.finish()
}

/// A request for flows as text. Its mask is written separately: JSON would turn it into camel case, which `IP` and `Summary`
/// do not survive.
fn flows_asked(request: &GetFlowsRequest) -> Result<String> {
    let mut request = request.clone();
    let mask = request.field_mask.take().map(|mask| format!(" fields {}", mask.paths.join(",")));
    let text = json("observer.GetFlowsRequest", &request)?;
    Ok(text.trim_end().to_owned() + &mask.unwrap_or_default())
}

/// Prints a request, with --debug.
fn told<M: prost::Message>(args: &ServerArgs, call: &str, name: &str, request: &M) -> Result<()> {
    if args.debug {
        args.tell(format_args!("{call} {}", json(name, request)?.trim_end()));
    }
    Ok(())
}

/// A client of the server that the command line means, and its address.
pub(crate) async fn connect(args: &ServerArgs) -> Result<(ObserverClient<Server>, Address), Failure> {
    let (server, address) = server::connect(args).await?;
    Ok((ObserverClient::new(server).max_decoding_message_size(LARGEST_ANSWER), address))
}

/// The family of a flow's address.
pub(crate) fn family(address: &str) -> IpVersion {
    match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => IpVersion::IPv4,
        Ok(IpAddr::V6(_)) => IpVersion::IPv6,
        Err(_) => IpVersion::IpNotUsed,
    }
}

/// Whether stdout shows to a person.
fn stdout_is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Whether a terminal has no escape sequences, judged by its name. One without a name gets none either.
fn is_dumb(term: Option<&std::ffi::OsStr>) -> bool {
    term.is_none_or(|term| term.is_empty() || term == "dumb")
}

/// A message as proto3 JSON with the names of the schema, one line.
pub(crate) fn json<M: prost::Message>(full_name: &str, message: &M) -> Result<String> {
    print::json::line(descriptor(full_name)?, message)
}

/// A list of messages, over many lines.
pub(crate) fn json_list<M: prost::Message>(full_name: &str, messages: &[M]) -> Result<String> {
    print::json::list(descriptor(full_name)?, messages)
}

fn descriptor(full_name: &str) -> Result<MessageDescriptor> {
    let found = print::json::POOL.get_message_by_name(full_name);
    found.with_context(|| format!("the built-in schema has no message {full_name}"))
}

#[cfg(test)]
mod tests {
    use prost_types::FieldMask;

    use super::*;

    #[test]
    fn a_request_is_told_with_its_mask() {
        let field_mask = Some(FieldMask { paths: vec!["IP".into(), "source.pod_name".into()] });
        let request = GetFlowsRequest { number: 20, follow: true, field_mask, ..GetFlowsRequest::default() };
        let expected = r#"{"number":"20","follow":true} fields IP,source.pod_name"#;
        assert_eq!(flows_asked(&request).expect("words"), expected);
    }

    #[test]
    fn a_terminal_without_escapes_gets_none() {
        let of = |term: &str| is_dumb(Some(term.as_ref()));
        assert!(is_dumb(None) && of("dumb") && of("") && !of("xterm-256color") && !of("linux"));
    }
}
