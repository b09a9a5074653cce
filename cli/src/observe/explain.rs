//! `--explain`: after a verdict, the rule that decided with its file and line, or the nearest rule and what did not match.
//!
//! For a rule that decided, the flow carries enough. For a default deny the node's agent is asked, if it is the one that
//! sent the flow: only it has the rules. It answers by its current rules; a line says so if the revision has changed.

use std::time::Duration;

use sinew_api::extensions::{DecidingRule, Extensions};
use sinew_api::identity::Identity;
use sinew_api::proto::agent::agent_client::AgentClient;
use sinew_api::proto::agent::party::By;
use sinew_api::proto::agent::{ExplainRequest, ExplainResponse, NearMiss, Party};
use sinew_api::proto::flow::{Endpoint, Flow, TrafficDirection, Verdict, layer4};
use sinew_api::proto::observer::GetFlowsResponse;
use sinew_api::proto::observer::get_flows_response::ResponseTypes;
use sinew_bpf::drop::DropReason;
use tonic::transport::Channel;

use super::census::policy_name;
use super::print::words;
use crate::failure::Failure;
use crate::server::Address;

/// `policy_match_type` of an entry that takes every peer and port.
const MATCH_ALL: u32 = 4;
/// How long the agent may take for one answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Explains flows of one server.
pub(super) struct Explainer {
    socket: Option<String>,
    agent: Option<AgentClient<Channel>>,
    /// Whether one flow is asked for. If all flows are, a denial's verdict is explained and not its drop again.
    single: bool,
    explained: u64,
}

impl Explainer {
    /// For flows of a server, or of a file; `uuid` is the one that is wanted, if it is one.
    pub(super) fn new(server: Option<&Address>, uuid: &str) -> Self {
        let socket = match server {
            Some(Address::Socket(path)) => Some(path.clone()),
            Some(Address::Plain(_) | Address::Tls(_)) | None => None,
        };
        Self { socket, agent: None, single: !uuid.is_empty(), explained: 0 }
    }

    /// Whether the flow that was asked for has been found.
    ///
    /// # Errors
    /// The one flow that was asked for is not held any more, or never was.
    pub(super) fn finish(self, uuid: &str) -> Result<(), Failure> {
        if self.single && self.explained == 0 {
            let message =
                format!("no flow {uuid:?} is held there, or what was given as a filter leaves it out");
            return Err(Failure::unknown_name(message)
                .next("a node keeps its last flows only; `sinew observe --all -o jsonpb > FILE` keeps more, and")
                .next("`sinew observe --input-file FILE --explain UUID` explains what such a file holds"));
        }
        Ok(())
    }

    /// Lines for an answer; none for one that is not a verdict.
    pub(super) async fn of(&mut self, answer: &GetFlowsResponse) -> Vec<String> {
        let Some(ResponseTypes::Flow(flow)) = &answer.response_types else { return Vec::new() };
        self.explained += 1;
        let is_verdict =
            flow.event_type.as_ref().is_some_and(|event| event.r#type == words::TYPE_POLICY_VERDICT);
        if !is_verdict && flow.verdict() != Verdict::Dropped {
            return if self.single {
                vec!["no judgement: a trace of where it went".to_owned()]
            } else {
                Vec::new()
            };
        }
        let known = Extensions::of(flow);
        let mut lines = carried(flow, &known);
        if lines.is_empty() {
            lines.extend(without_policy(flow, is_verdict));
        }
        if known.default_deny && (is_verdict || self.single) {
            match self.ask(flow).await {
                Ok(Some(answer)) => {
                    lines.extend(nearest(&answer, flow.traffic_direction()));
                    lines.extend(moved(flow, answer.revision));
                }
                Ok(None) => {}
                Err(problem) => lines.push(format!("nearest rule unknown: {problem}")),
            }
        }
        lines
    }

    async fn ask(&mut self, flow: &Flow) -> Result<Option<ExplainResponse>, String> {
        let Some(socket) = &self.socket else {
            return Err("only the node's own agent has the rules; ask it through its socket".to_owned());
        };
        let Some(request) = question(flow) else { return Ok(None) };
        if self.agent.is_none() {
            let endpoint = tonic::transport::Endpoint::from_shared(format!("unix:{socket}"));
            let channel = endpoint.map_err(|error| error.to_string())?.connect_lazy();
            self.agent = Some(AgentClient::new(channel));
        }
        let Some(agent) = &mut self.agent else { return Ok(None) };
        let mut request = tonic::Request::new(request);
        request.set_timeout(PATIENCE);
        agent
            .explain(request)
            .await
            .map(|answer| Some(answer.into_inner()))
            .map_err(|status| status.message().to_owned())
    }
}

/// What the flow itself says.
fn carried(flow: &Flow, known: &Extensions) -> Vec<String> {
    let mut lines = Vec::new();
    if known.reason != 0 {
        lines.push(format!("reason {}: {}", known.reason, known.reason_text));
    }
    let rules = known.rules.iter().map(|rule| rule_line(rule, known.default_deny && !rule.shadow));
    lines.extend(rules);
    if known.rules.is_empty() {
        let denied = [&flow.egress_denied_by, &flow.ingress_denied_by].into_iter().flatten();
        lines.extend(denied.map(|policy| format!("denied by {}", policy_name(policy))));
        let allowed = [&flow.egress_allowed_by, &flow.ingress_allowed_by].into_iter().flatten();
        lines.extend(allowed.map(|policy| format!("allowed by {}", policy_name(policy))));
    }
    lines
}

/// Why a verdict or a drop is what it is where no policy stands behind it.
fn without_policy(flow: &Flow, is_verdict: bool) -> Option<String> {
    if !is_verdict {
        return reason_line(flow.drop_reason_desc);
    }
    let (direction, judge) = match flow.traffic_direction() {
        TrafficDirection::Ingress => ("ingress", &flow.destination),
        TrafficDirection::Egress => ("egress", &flow.source),
        TrafficDirection::Unknown => return reason_line(flow.drop_reason_desc),
    };
    let is = |end: &Option<Endpoint>, identity: Identity| {
        end.as_ref().is_some_and(|end| end.identity == identity.0)
    };
    let why = match flow.verdict() {
        Verdict::Dropped if is(judge, Identity::INIT) => "default deny: the pod's labels are not known yet",
        Verdict::Dropped => return reason_line(flow.drop_reason_desc),
        _ if flow.policy_match_type == MATCH_ALL => "allowed: no policy switches default deny on for it",
        _ if direction == "ingress" && is(&flow.source, Identity::HOST) => {
            "allowed: a node may always reach its own pods"
        }
        _ => "allowed by a policy that the flow does not name",
    };
    Some(format!("{direction} {why}"))
}

/// A reason by Hubble's number, in our words where it is one of ours.
fn reason_line(number: i32) -> Option<String> {
    let number = u16::try_from(number).ok().filter(|number| *number != 0)?;
    let ours = DropReason::from_number(number).map(DropReason::words);
    let said = ours.or_else(|| words::drop_reason(u8::try_from(number).ok()?))?;
    Some(format!("reason {number}: {said}"))
}

fn rule_line(rule: &DecidingRule, default_deny: bool) -> String {
    let direction = match rule.direction {
        TrafficDirection::Ingress => "ingress",
        TrafficDirection::Egress => "egress",
        TrafficDirection::Unknown => "both ways",
    };
    let did = match (default_deny, rule.shadow, rule.deny) {
        (true, ..) => "default deny by",
        (_, true, true) => "audit: would be denied by",
        // A shadow verdict is reported only where it denies; without a rule that denies, it does so by default.
        (_, true, false) => "audit: would be denied by default by",
        (_, _, true) => "denied by",
        (..) => "allowed by",
    };
    let path = match (rule.path.is_empty(), rule.refused) {
        (true, _) => String::new(),
        (false, true) => format!(", refused: {}", rule.path),
        (false, false) => format!(" {}", rule.path),
    };
    format!("{direction} {did} {}{path}{}", rule.policy, place(&rule.file, rule.line))
}

fn nearest(answer: &ExplainResponse, direction: TrafficDirection) -> Vec<String> {
    let of_direction = answer.directions.iter().filter(|it| it.direction() == direction);
    of_direction
        .filter_map(|it| crate::explain::text::by_rule(&it.near_misses).next())
        .map(near_miss)
        .collect()
}

/// Says that the current rules are not those under which the flow was judged. A flow carries the low half of the revision.
fn moved(flow: &Flow, now: u64) -> Option<String> {
    let denied = [&flow.egress_denied_by, &flow.ingress_denied_by].into_iter().flatten();
    let then = denied.map(|policy| policy.revision).find(|revision| *revision != 0)?;
    (then != now & u64::from(u32::MAX)).then(|| {
        format!("the rules have changed since: it was judged at revision {then}, the node is at {now}")
    })
}

/// The fields in which one rule failed.
fn near_miss(fields: &[NearMiss]) -> String {
    let rule = fields.first().and_then(|miss| miss.rule.clone()).unwrap_or_default();
    let each = fields.iter().map(|miss| {
        // The rule's own path stands before it.
        let field = miss.field.strip_prefix(&rule.path).unwrap_or(&miss.field).trim_start_matches('.');
        let field = if field.is_empty() { String::new() } else { format!("{field} ") };
        format!("{field}wants {}, this has {}", miss.wanted, miss.found)
    });
    let each = each.collect::<Vec<_>>().join("; and ");
    format!("nearest: {} {}{}: {each}", rule.policy, rule.path, place(&rule.file, rule.line))
}

fn place(file: &str, line: u32) -> String {
    match (file, line) {
        ("", _) => String::new(),
        (file, 0) => format!(" ({file})"),
        (file, line) => format!(" ({file}:{line})"),
    }
}

/// The flow's connection as a question; the opener asks. `None` where it can't be asked about.
fn question(flow: &Flow) -> Option<ExplainRequest> {
    let ip = flow.ip.as_ref()?;
    // What the responder sends comes from the port that was opened.
    let reply = flow.is_reply == Some(true);
    let port_of = |source: u32, destination: u32| if reply { source } else { destination };
    let (port, protocol) = match flow.l4.as_ref()?.protocol.as_ref()? {
        layer4::Protocol::Tcp(it) => (port_of(it.source_port, it.destination_port), "TCP"),
        layer4::Protocol::Udp(it) => (port_of(it.source_port, it.destination_port), "UDP"),
        layer4::Protocol::Sctp(it) => (port_of(it.source_port, it.destination_port), "SCTP"),
        // An echo reply belongs to its request, whose type is the one that rules name.
        layer4::Protocol::IcmPv4(it) => (if reply && it.r#type == 0 { 8 } else { it.r#type }, "ICMP"),
        layer4::Protocol::IcmPv6(it) => (if reply && it.r#type == 129 { 128 } else { it.r#type }, "ICMPv6"),
        layer4::Protocol::Vrrp(_) | layer4::Protocol::Igmp(_) => return None,
    };
    let sender = party(flow.source.as_ref(), &ip.source);
    let receiver = party(flow.destination.as_ref(), &ip.destination);
    let (from, to) = if reply { (receiver, sender) } else { (sender, receiver) };
    Some(ExplainRequest {
        from: Some(from),
        to: Some(to),
        port: Some(port),
        protocol: protocol.to_owned(),
        family: super::family(&ip.source).into(),
    })
}

fn party(endpoint: Option<&Endpoint>, address: &str) -> Party {
    let pod = endpoint.filter(|it| !it.pod_name.is_empty() && !it.namespace.is_empty());
    let by = match pod {
        Some(it) => By::Pod(format!("{}/{}", it.namespace, it.pod_name)),
        None => By::Address(address.to_owned()),
    };
    Party { by: Some(by) }
}

#[cfg(test)]
mod tests;
