//! Questions and answers as the agent's service carries them: one form, whether an agent is asked or a folder.
//!
//! Neighbours: `agent/src/server` and the `sinew` command both go through here.

use std::net::IpAddr;

use sinew_api::identity::Identity;
use sinew_api::labels::Labels;
use sinew_api::proto::agent::{self, EnforcementMode, ExplainRequest, ExplainResponse, party::By};
use sinew_api::proto::flow;
use sinew_bpf::drop::DropReason;

use super::{
    DirectionExplanation, Exception, Explanation, Family, NearMiss, Party, Query, ResolvedParty, RuleRef,
    SwitchedOn, Verdict, words,
};
use crate::numbers::{Cause, Direction};
use crate::policy::Enforcement;

/// A question that can't be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Malformed {
    /// The field of the request.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

impl TryFrom<&ExplainRequest> for Query {
    type Error = Malformed;

    fn try_from(request: &ExplainRequest) -> Result<Self, Malformed> {
        let protocol = match request.protocol.as_str() {
            "" | "ANY" => None,
            "ICMP" => Some(1),
            "TCP" => Some(6),
            "UDP" => Some(17),
            "ICMPv6" => Some(58),
            "SCTP" => Some(132),
            other => {
                let problem = format!("{other:?} is not TCP, UDP, SCTP, ICMP or ICMPv6");
                return Err(Malformed { field: "protocol", problem });
            }
        };
        let port = match request.port {
            None => None,
            Some(port) => Some(
                u16::try_from(port)
                    .map_err(|_| Malformed { field: "port", problem: format!("{port} is above 65535") })?,
            ),
        };
        Ok(Self {
            from: party("from", request.from.as_ref())?,
            to: party("to", request.to.as_ref())?,
            protocol,
            port,
            family: match request.family() {
                flow::IpVersion::IpNotUsed => None,
                flow::IpVersion::IPv4 => Some(Family::V4),
                flow::IpVersion::IPv6 => Some(Family::V6),
            },
        })
    }
}

fn party(field: &'static str, party: Option<&agent::Party>) -> Result<Party, Malformed> {
    let Some(by) = party.and_then(|party| party.by.as_ref()) else {
        return Err(Malformed { field, problem: "names nobody".to_owned() });
    };
    Ok(match by {
        By::Pod(name) => Party::Pod(name.clone()),
        By::Identity(number) => Party::Identity(Identity(*number)),
        By::Address(text) => Party::Address(
            text.parse::<IpAddr>()
                .map_err(|_| Malformed { field, problem: format!("{text:?} is not an IP address") })?,
        ),
        By::Labels(list) => {
            let mut labels = Labels::new();
            for text in &list.labels {
                let (source, rest) = text.split_once(':').ok_or_else(|| Malformed {
                    field,
                    problem: format!("{text:?} is not a label of the form source:key=value"),
                })?;
                let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
                labels.insert(source, key, value);
            }
            Party::Labels(labels)
        }
        By::Entity(name) => Party::Entity(name.clone()),
    })
}

impl Explanation {
    /// The answer to a request.
    #[must_use]
    pub fn to_wire(&self, request: &ExplainRequest) -> ExplainResponse {
        let audited = self.verdict == Verdict::Allow
            && self
                .directions
                .iter()
                .any(|one| one.shadow.as_ref().is_some_and(|(shadow, _)| *shadow != Verdict::Allow));
        ExplainResponse {
            from: Some(self.from.to_wire()),
            to: Some(self.to.to_wire()),
            verdict: if audited { flow::Verdict::Audit } else { verdict(self.verdict) }.into(),
            directions: self.directions.iter().map(DirectionExplanation::to_wire).collect(),
            suggestion: self.suggestion.clone(),
            revision: self.revision,
            port: request.port,
            protocol: request.protocol.clone(),
            families: self.families.iter().map(family_verdict).collect(),
            exceptions: self.exceptions.iter().copied().map(Exception::to_wire).collect(),
            notes: self.notes.clone(),
        }
    }
}

fn family_verdict((over, found): &(Family, Verdict)) -> agent::FamilyVerdict {
    agent::FamilyVerdict { family: family(Some(*over)).into(), verdict: verdict(*found).into() }
}

impl Exception {
    fn to_wire(self) -> agent::PortVerdict {
        agent::PortVerdict {
            protocol: words::name_of(self.protocol),
            first: self.first.into(),
            last: self.last.into(),
            verdict: verdict(self.verdict).into(),
            family: family(self.family).into(),
        }
    }
}

impl ResolvedParty {
    fn to_wire(&self) -> agent::ResolvedParty {
        agent::ResolvedParty {
            name: self.name.clone(),
            identity: self.identity.unwrap_or_default().0,
            labels: self.labels.to_strings(),
            addresses: self.addresses.iter().map(ToString::to_string).collect(),
            endpoint_id: self.endpoint.map_or(0, |endpoint| u32::from(endpoint.0)),
            node: self.node.clone(),
        }
    }
}

impl DirectionExplanation {
    fn to_wire(&self) -> agent::DirectionExplanation {
        let reason = reason(self.verdict);
        let (shadow_verdict, shadow_rule) = match &self.shadow {
            Some((shadow, rule)) => {
                (verdict(*shadow), rule.as_ref().and_then(|rule| rule.to_wire(self.direction)))
            }
            None => (flow::Verdict::Unknown, None),
        };
        agent::DirectionExplanation {
            direction: direction(self.direction).into(),
            verdict: verdict(self.verdict).into(),
            drop_reason: reason
                .and_then(|reason| flow::DropReason::try_from(i32::from(reason.hubble())).ok())
                .unwrap_or_default()
                .into(),
            enforcement: Some(enforcement(&self.enforcement)),
            rule: self.rule.as_ref().and_then(|rule| rule.to_wire(self.direction)),
            denied_by: self.denied_by.iter().map(|one| one.policy.to_string()).collect(),
            shadow_verdict: shadow_verdict.into(),
            shadow_rule,
            near_misses: self.near.iter().map(|near| near.to_wire(self.direction)).collect(),
            endpoint: self.endpoint.clone(),
            summary: self.summary.clone(),
            suggestion: self.suggestion.clone(),
            sinew_reason: reason.map(|reason| reason as u32).filter(|number| *number >= 1000).unwrap_or(0),
            switched_on: self.denied_by.iter().map(|one| one.to_wire(self.direction)).collect(),
            family: family(self.family).into(),
        }
    }
}

impl RuleRef {
    /// `None` for a default deny, whose policies stand in fields of their own.
    fn to_wire(&self, side: Direction) -> Option<agent::RuleRef> {
        let mut wire = agent::RuleRef {
            file: self.origin.file.clone(),
            line: self.origin.line,
            direction: direction(side).into(),
            deny: self.deny,
            ..agent::RuleRef::default()
        };
        match &self.cause {
            Cause::Rule { policy, path } => {
                wire.policy = policy.to_string();
                wire.path.clone_from(path);
            }
            Cause::DefaultDeny { .. } => return None,
            Cause::Init => {
                wire.built_in = "an endpoint whose labels are not known yet allows nothing".to_owned()
            }
            Cause::LocalHost => wire.built_in = "the node reaches its own pods".to_owned(),
            Cause::Overflow { policy } => {
                wire.policy = policy.to_string();
                wire.built_in = "the policy does not fit into its table".to_owned();
            }
        }
        Some(wire)
    }
}

impl SwitchedOn {
    fn to_wire(&self, side: Direction) -> agent::RuleRef {
        let refused = self.refused.as_ref().map(|field| format!("(refused: {field})"));
        agent::RuleRef {
            policy: self.policy.to_string(),
            path: refused.unwrap_or_default(),
            file: self.origin.file.clone(),
            line: self.origin.line,
            direction: direction(side).into(),
            deny: true,
            built_in: String::new(),
        }
    }
}

impl NearMiss {
    fn to_wire(&self, side: Direction) -> agent::NearMiss {
        agent::NearMiss {
            rule: self.rule.to_wire(side),
            field: self.field.clone(),
            wanted: self.wanted.clone(),
            found: self.found.clone(),
        }
    }
}

/// What policy does to one direction, on the wire.
#[must_use]
pub fn enforcement(enforcement: &Enforcement) -> agent::DirectionEnforcement {
    let mode = if enforcement.init || !enforcement.switched_on_by.is_empty() {
        EnforcementMode::Enforcing
    } else if !enforcement.audited_by.is_empty() {
        EnforcementMode::Auditing
    } else {
        EnforcementMode::Open
    };
    let names =
        |policies: &[sinew_api::object::PolicyName]| policies.iter().map(ToString::to_string).collect();
    agent::DirectionEnforcement {
        mode: mode.into(),
        switched_on_by: names(&enforcement.switched_on_by),
        audited_by: names(&enforcement.audited_by),
        policies: names(&enforcement.policies),
        deny_rules: false,
    }
}

fn verdict(verdict: Verdict) -> flow::Verdict {
    match verdict {
        Verdict::Allow => flow::Verdict::Forwarded,
        Verdict::DefaultDeny | Verdict::Deny | Verdict::Drop(_) => flow::Verdict::Dropped,
    }
}

fn reason(verdict: Verdict) -> Option<DropReason> {
    match verdict {
        Verdict::Allow => None,
        Verdict::DefaultDeny => Some(DropReason::PolicyDenied),
        Verdict::Deny => Some(DropReason::DeniedByRule),
        Verdict::Drop(reason) => Some(reason),
    }
}

fn family(family: Option<Family>) -> flow::IpVersion {
    match family {
        None => flow::IpVersion::IpNotUsed,
        Some(Family::V4) => flow::IpVersion::IPv4,
        Some(Family::V6) => flow::IpVersion::IPv6,
    }
}

fn direction(direction: Direction) -> flow::TrafficDirection {
    match direction {
        Direction::Ingress => flow::TrafficDirection::Ingress,
        Direction::Egress => flow::TrafficDirection::Egress,
    }
}
