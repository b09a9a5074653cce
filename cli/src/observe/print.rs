//! What `sinew observe` writes: Hubble's lines, blocks, columns and JSON, so that scripts and people used to them can
//! rely on them.
//!
//! Flows and losses go to stdout, trouble with nodes to stderr. Control characters in names are made visible: a pod's
//! name must not control the reader's terminal. Neighbours: `print/line.rs` (the parts of a line), `print/event.rs`
//! (agent and debug events), `print/json.rs`, `print/words.rs`.

mod event;
pub(super) mod json;
mod line;
pub(super) mod words;

use std::ffi::OsString;
use std::io::Write;

use anyhow::{Context, Result};
use sinew_api::proto::flow::{Flow, LostEvent};
use sinew_api::proto::observer::get_flows_response::ResponseTypes;
use sinew_api::proto::observer::{
    GetAgentEventsResponse, GetDebugEventsResponse, GetFlowsRequest, GetFlowsResponse,
};
use sinew_api::proto::relay::{NodeState, NodeStatusEvent};

use super::flags::{Colour, FlowFormatArgs, FormatArgs, OutputForm, TimeForm};
use super::moment;
use crate::failure::Failure;
use crate::output;
use crate::output::table::spaced;
use line::{Hue, Style};

/// Between two blocks of dict output.
const SEPARATOR: &str = "------------";
/// Columns of flows in table output, without the node.
const FLOW_COLUMNS: [&str; 6] = ["TIMESTAMP", "SOURCE", "DESTINATION", "TYPE", "VERDICT", "SUMMARY"];

/// Writes answers in one form.
pub(super) struct Printer {
    form: OutputForm,
    time_form: TimeForm,
    node_names: bool,
    style: Style,
    silent: bool,
    /// Nodes that come and go are reported, not only those in trouble.
    pub(super) debug: bool,
    written: u64,
    rows: Vec<Vec<String>>,
}

impl Printer {
    /// A printer of flows.
    pub(super) fn new(
        format: &FormatArgs,
        flow_format: &FlowFormatArgs,
        silent: bool,
    ) -> Result<Self, Failure> {
        let blocks = matches!(format.output, OutputForm::Compact | OutputForm::Dict);
        let colours = match flow_format.color {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => super::stdout_is_terminal() && takes_colours(|name| std::env::var_os(name)),
        };
        Ok(Self {
            style: Style {
                colours: colours && blocks,
                names: flow_format.ip_translation && !flow_format.numeric,
                policies: flow_format.print_policy_names,
            },
            silent,
            ..Self::for_events(format)?
        })
    }

    /// A printer of agent or debug events.
    pub(super) fn for_events(format: &FormatArgs) -> Result<Self, Failure> {
        Ok(Self {
            form: format.output,
            time_form: format.time_format,
            node_names: format.print_node_name,
            style: Style { colours: false, names: true, policies: false },
            silent: false,
            debug: false,
            written: 0,
            rows: Vec::new(),
        })
    }

    /// Writes one answer about flows.
    pub(super) fn flow(&mut self, answer: &GetFlowsResponse) -> Result<()> {
        match &answer.response_types {
            Some(ResponseTypes::NodeStatus(status)) => self.node_status(answer, status),
            Some(ResponseTypes::Flow(_) | ResponseTypes::LostEvents(_)) if self.is_json() => {
                output::write(&super::json("observer.GetFlowsResponse", answer)?)
            }
            Some(ResponseTypes::Flow(flow)) => self.flow_text(flow),
            Some(ResponseTypes::LostEvents(lost)) => self.lost(answer, lost),
            None => Ok(()),
        }
    }

    /// Writes an event of the agent.
    pub(super) fn agent_event(&mut self, answer: &GetAgentEventsResponse) -> Result<()> {
        if self.is_json() {
            return output::write(&super::json("observer.GetAgentEventsResponse", answer)?);
        }
        let Some(event) = &answer.agent_event else { return Ok(()) };
        let time = moment::text(answer.time.as_ref(), self.time_form);
        let kind = event.r#type().as_str_name();
        let details = event::agent_details(event, self.time_form);
        match self.form {
            OutputForm::Table => self.row(
                &["TIMESTAMP", "TYPE", "DETAILS"],
                &answer.node_name,
                vec![time, kind.to_owned(), details],
            ),
            OutputForm::Dict => {
                self.block(&answer.node_name, &[("TIMESTAMP", &time), ("TYPE", kind), ("DETAILS", &details)])
            }
            OutputForm::Compact | OutputForm::Json | OutputForm::Jsonpb => {
                self.line(&format!("{time}{}: {kind} ({details})", self.node(&answer.node_name)))
            }
        }
    }

    /// Writes a debug message.
    pub(super) fn debug_event(&mut self, answer: &GetDebugEventsResponse) -> Result<()> {
        if self.is_json() {
            return output::write(&super::json("observer.GetDebugEventsResponse", answer)?);
        }
        let Some(event) = &answer.debug_event else { return Ok(()) };
        let time = moment::text(answer.time.as_ref(), self.time_form);
        let parts = event::debug_parts(event);
        let event::DebugParts { from, kind, mark, cpu, message } = &parts;
        match self.form {
            OutputForm::Table => self.row(
                &["TIMESTAMP", "FROM", "TYPE", "CPU/MARK", "MESSAGE"],
                &answer.node_name,
                vec![time, from.clone(), (*kind).to_owned(), format!("{cpu} {mark}"), message.clone()],
            ),
            OutputForm::Dict => self.block(
                &answer.node_name,
                &[
                    ("TIMESTAMP", &time),
                    ("TYPE", kind),
                    ("FROM", from),
                    ("MARK", mark),
                    ("CPU", cpu),
                    ("MESSAGE", message),
                ],
            ),
            OutputForm::Compact | OutputForm::Json | OutputForm::Jsonpb => {
                let node = self.node(&answer.node_name);
                self.line(&format!("{time}{node}: {from} {kind} MARK: {mark} CPU: {cpu} ({message})"))
            }
        }
    }

    /// Writes lines that belong to the flow before them, indented; nothing in JSON and columns.
    pub(super) fn note(&mut self, lines: &[String]) -> Result<()> {
        if self.is_json() || self.form == OutputForm::Table {
            return Ok(());
        }
        let text: String = lines.iter().map(|line| format!("    {}\n", visible(line))).collect();
        output::write(&text)
    }

    /// Writes what was held back: columns are as wide as their widest cell, so they are written last.
    pub(super) fn finish(self) -> Result<()> {
        output::write(&spaced(&self.rows))
    }

    fn flow_text(&mut self, flow: &Flow) -> Result<()> {
        let time = moment::text(flow.time.as_ref(), self.time_form);
        let style = self.style;
        let (source, destination) = style.hosts(flow);
        let (kind, verdict, summary) = (words::flow_type(flow), style.verdict(flow), style.summary(flow));
        match self.form {
            OutputForm::Table => self.row(
                &FLOW_COLUMNS,
                &flow.node_name,
                vec![time, source, destination, kind, verdict, summary],
            ),
            OutputForm::Dict => self.block(
                &flow.node_name,
                &[
                    ("TIMESTAMP", &time),
                    ("SOURCE", &source),
                    ("DESTINATION", &destination),
                    ("TYPE", &kind),
                    ("VERDICT", &verdict),
                    ("SUMMARY", &summary),
                ],
            ),
            OutputForm::Compact | OutputForm::Json | OutputForm::Jsonpb => {
                let identity = |end: Option<&sinew_api::proto::flow::Endpoint>| {
                    style.paint(Hue::Magenta, &words::identity(end.map_or(0, |end| end.identity)))
                };
                let from = format!("{source} {}", identity(flow.source.as_ref()));
                let to = format!("{destination} {}", identity(flow.destination.as_ref()));
                // The opener comes first, whoever sent this packet.
                let ends = match flow.is_reply {
                    None => format!("{from} <> {to}"),
                    Some(false) => format!("{from} -> {to}"),
                    Some(true) => format!("{to} <- {from}"),
                };
                let node = self.node(&flow.node_name);
                self.line(&format!("{time}{node}: {ends} {kind} {verdict} ({summary})"))
            }
        }
    }

    fn lost(&mut self, answer: &GetFlowsResponse, lost: &LostEvent) -> Result<()> {
        let time = moment::text(answer.time.as_ref(), self.time_form);
        let source = lost.source().as_str_name();
        let cpu = lost.cpu.unwrap_or(0);
        let span = match (&lost.first, &lost.last) {
            (Some(first), Some(last)) => format!(
                " (first: {}, last: {})",
                moment::text(Some(first), self.time_form),
                moment::text(Some(last), self.time_form)
            ),
            _ => String::new(),
        };
        let node = if answer.node_name.is_empty() { "-" } else { &answer.node_name };
        let count = lost.num_events_lost;
        match self.form {
            OutputForm::Table => {
                let cells = [time.as_str(), source, "-", "EVENTS LOST", "-"].map(str::to_owned);
                let summary = format!("CPU({cpu}) - {count}{span}");
                self.row(&FLOW_COLUMNS, node, cells.into_iter().chain([summary]).collect())
            }
            OutputForm::Dict => {
                let summary = format!("CPU({cpu}) - {count}{span}");
                let fields = [
                    ("TIMESTAMP", time.as_str()),
                    ("SOURCE", source),
                    ("TYPE", "EVENTS LOST"),
                    ("VERDICT", "-"),
                    ("SUMMARY", &summary),
                ];
                self.block(node, &fields)
            }
            OutputForm::Compact | OutputForm::Json | OutputForm::Jsonpb => {
                self.line(&format!("{time} EVENTS LOST: {source} CPU({cpu}) {count}{span}"))
            }
        }
    }

    /// A relay's trouble with nodes goes to stderr; that all is well is reported only with --debug.
    fn node_status(&mut self, answer: &GetFlowsResponse, status: &NodeStatusEvent) -> Result<()> {
        let trouble = matches!(status.state_change(), NodeState::NodeError | NodeState::NodeUnavailable);
        if self.silent || !(trouble || self.debug) {
            return Ok(());
        }
        let mut text = if self.is_json() {
            super::json("observer.GetFlowsResponse", answer)?
        } else if self.form == OutputForm::Dict {
            let time = moment::text(answer.time.as_ref(), self.time_form);
            self.status_block(&time, status)
        } else {
            let time = moment::text(answer.time.as_ref(), self.time_form);
            let (count, nodes) = (status.node_names.len(), joined(&status.node_names));
            let told = match status.state_change() {
                NodeState::NodeConnected => format!("Receiving flows from {count} nodes: {nodes}"),
                NodeState::NodeUnavailable => format!("{count} nodes are unavailable: {nodes}"),
                NodeState::NodeGone => format!("{count} nodes removed from cluster: {nodes}"),
                _ => format!("Error {:?} on {count} nodes: {nodes}", status.message),
            };
            visible(&format!("{time} [{}]: {told}", answer.node_name))
        };
        if !text.ends_with('\n') {
            text.push('\n');
        }
        std::io::stderr().write_all(text.as_bytes()).context("write to stderr")
    }

    /// A node's state as a block, with its separator: it must not be among the flows, which may be redirected elsewhere.
    fn status_block(&mut self, time: &str, status: &NodeStatusEvent) -> String {
        let between = if self.written > 0 { format!("{SEPARATOR}\n") } else { String::new() };
        self.written = self.written.max(1);
        let message =
            if status.message.is_empty() { "N/A".to_owned() } else { format!("{:?}", status.message) };
        let nodes = joined(&status.node_names);
        let state = status.state_change().as_str_name();
        let fields = [("TIMESTAMP", time), ("STATE", state), ("NODES", &nodes), ("MESSAGE", &message)];
        between + &fields.map(|(name, value)| format!("{name:>11}: {}\n", visible(value))).concat()
    }

    fn is_json(&self) -> bool {
        matches!(self.form, OutputForm::Json | OutputForm::Jsonpb)
    }

    fn node(&self, name: &str) -> String {
        if self.node_names { format!(" [{name}]") } else { String::new() }
    }

    fn line(&mut self, text: &str) -> Result<()> {
        self.written += 1;
        output::write(&format!("{}\n", self.style.visible(text)))
    }

    fn row(&mut self, header: &[&str], node: &str, mut cells: Vec<String>) -> Result<()> {
        if self.rows.is_empty() {
            let mut header: Vec<String> = header.iter().map(|name| (*name).to_owned()).collect();
            if self.node_names {
                header.insert(1, "NODE".to_owned());
            }
            self.rows.push(header);
        }
        if self.node_names {
            cells.insert(1, node.to_owned());
        }
        self.rows.push(cells.iter().map(|cell| visible(cell)).collect());
        Ok(())
    }

    fn block(&mut self, node: &str, fields: &[(&str, &str)]) -> Result<()> {
        let mut text = String::new();
        if self.written > 0 {
            text.push_str(SEPARATOR);
            text.push('\n');
        }
        for (index, (name, value)) in fields.iter().enumerate() {
            text.push_str(&format!("{name:>11}: {}\n", self.style.visible(value)));
            if index == 0 && self.node_names {
                text.push_str(&format!("{:>11}: {}\n", "NODE", visible(node)));
            }
        }
        self.written += 1;
        output::write(&text)
    }
}

/// The filters of a request as the YAML that `hubble --config` takes.
pub(super) fn raw_filters(request: &GetFlowsRequest) -> Result<()> {
    let mut text = String::new();
    for (name, filters) in [("allowlist", &request.whitelist), ("denylist", &request.blacklist)] {
        if filters.is_empty() {
            continue;
        }
        text.push_str(&format!("{name}:\n"));
        for filter in filters {
            let json = super::json("flow.FlowFilter", filter)?;
            text.push_str(&format!("    - '{}'\n", json.trim_end().replace('\'', "''")));
        }
    }
    output::write(if text.is_empty() { "{}\n" } else { &text })
}

/// Names up to 50 bytes, then how many more there are.
fn joined(names: &[String]) -> String {
    let mut length = 0;
    let fits = names.iter().take_while(|name| {
        length += name.len() + 2;
        length <= 50
    });
    let shown = fits.count().max(1).min(names.len());
    let text = names[..shown].join(", ");
    match names.len() - shown {
        0 => text,
        more => format!("{text} (and {more} more)"),
    }
}

/// Whether a terminal takes colours, by its environment.
fn takes_colours(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    variable("NO_COLOR").is_none() && !super::is_dumb(variable("TERM").as_deref())
}

/// Text whose control characters can be seen.
fn visible(text: &str) -> String {
    text.replace('\u{1b}', "^[").replace('\r', "\\r")
}

#[cfg(test)]
mod tests;
