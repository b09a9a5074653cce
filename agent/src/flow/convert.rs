//! Which flows a record is (docs/observability.md), and the message of each:
//!
//! 1. A new connection: one policy verdict for each judgement made here, then the trace of where the packet went.
//! 2. A packet that policy dropped: the verdict that denied it, then the drop, both naming the same policies.
//! 3. Any other drop: the drop.
//! 4. A new TCP flag, the first answer, the end, a sign of life: a trace.
//!
//! Neighbours: [`super::seen`] has them apart and named; a message is made when a client asks.

use std::sync::Arc;

use sinew_api::extensions::{DecidingRule, Extensions};
use sinew_api::proto::agent::MonitorEvent;
use sinew_api::proto::flow::{
    CiliumEventType, Emitter, FileInfo, Flow, FlowType, NetworkInterface, TraceObservationPoint, TraceReason,
    TrafficDirection, Verdict,
};
use sinew_bpf::abi::policy::verdict;
use sinew_bpf::abi::{EventRecord, event};
use sinew_bpf::drop::{DropReason, file};

use super::layers;
use super::names::{Clock, Reason};
use super::seen::{Judged, Part, Seen, Side};

/// Hubble's event types.
const DROP: i32 = 1;
const TRACE: i32 = 4;
const POLICY_VERDICT: i32 = 5;

/// The flow that was seen.
pub(super) fn flow(seen: &Seen) -> Flow {
    let mut flow = base(seen);
    match seen.part {
        Part::Verdict(side) => {
            if let Some(judged) = Judged::of(&seen.record, side) {
                tell_verdict(&mut flow, seen, &judged);
            }
        }
        Part::Outcome if seen.record.kind == event::kind::DROP => tell_drop(&mut flow, seen),
        Part::Outcome => tell_trace(&mut flow, &seen.record),
    }
    flow
}

impl Side {
    /// The direction of traffic that it judges.
    pub(super) fn direction(self) -> TrafficDirection {
        match self {
            Self::Egress => TrafficDirection::Egress,
            Self::Ingress => TrafficDirection::Ingress,
        }
    }
}

impl Judged {
    /// Hubble's match types: 0 none, 1 L3, 2 L3 and L4, 3 L4, 4 all, 5 L3 and protocol, 6 protocol.
    fn match_type(&self) -> u32 {
        let (by_peer, l4_bits) = (self.matches >> 5 != 0, self.matches & 0x1f);
        match (by_peer, l4_bits) {
            (true, 0) => 1,
            (true, 1..=8) => 5,
            (true, _) => 2,
            (false, 0) if self.verdict == verdict::DEFAULT_DENY => 0,
            (false, 0) => 4,
            (false, 1..=8) => 6,
            (false, _) => 3,
        }
    }
}

fn base(seen: &Seen) -> Flow {
    let Seen { record, source, destination, .. } = seen;
    let known = record.flags & event::flag::DIRECTION_KNOWN != 0;
    let reply = record.flags & event::flag::REPLY != 0;
    let mut flow = Flow {
        time: Some(seen.node.clock.timestamp(record.time)),
        uuid: seen.node.uuid(seen.number),
        emitter: Some(Emitter { name: "Sinew".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }),
        r#type: FlowType::L3L4.into(),
        node_name: seen.node.name.clone(),
        ethernet: layers::ethernet(record),
        ip: layers::ip(record),
        l4: layers::l4(record),
        source: source.as_ref().map(|end| end.said.clone()),
        destination: destination.as_ref().map(|end| end.said.clone()),
        is_reply: known.then_some(reply),
        interface: Some(NetworkInterface { index: record.ifindex, name: seen.interface.to_string() }),
        ..Flow::default()
    };
    #[allow(deprecated, reason = "the stock client builds its compact lines from these")]
    {
        flow.reply = known && reply;
        flow.summary = layers::summary(record);
    }
    flow
}

fn tell_verdict(flow: &mut Flow, seen: &Seen, judged: &Judged) {
    flow.event_type = Some(CiliumEventType { r#type: POLICY_VERDICT, sub_type: 0 });
    flow.traffic_direction = judged.side.direction().into();
    flow.policy_match_type = judged.match_type();
    let verdict = if judged.denies() {
        drop_reason(flow, &seen.record);
        Verdict::Dropped
    } else if judged.audits() {
        Verdict::Audit
    } else {
        Verdict::Forwarded
    };
    flow.verdict = verdict.into();
    name_policies(flow, seen, judged);
}

fn tell_drop(flow: &mut Flow, seen: &Seen) {
    let record = &seen.record;
    flow.verdict = Verdict::Dropped.into();
    drop_reason(flow, record);
    let number = DropReason::from_number(record.reason).map_or(0, DropReason::hubble);
    flow.event_type = Some(CiliumEventType { r#type: DROP, sub_type: i32::from(number) });
    flow.file = Some(FileInfo {
        name: file::NAMES.get(usize::from(record.place >> 12)).copied().unwrap_or_default().to_owned(),
        line: u32::from(record.place & 0xfff),
    });
    flow.traffic_direction = drop_direction(seen).into();
    if let Some(judged) = Judged::all(record).find(Judged::denies) {
        flow.traffic_direction = judged.side.direction().into();
        flow.policy_match_type = judged.match_type();
        name_policies(flow, seen, &judged);
    } else {
        set_extensions(flow, record, &[]);
    }
}

fn tell_trace(flow: &mut Flow, record: &EventRecord) {
    let audited = Judged::all(record).any(|judged| judged.audits());
    flow.verdict = if audited { Verdict::Audit } else { Verdict::Forwarded }.into();
    let point = match record.point {
        event::point::TO_STACK => TraceObservationPoint::ToStack,
        event::point::TO_OVERLAY => TraceObservationPoint::ToOverlay,
        event::point::TO_NETWORK => TraceObservationPoint::ToNetwork,
        _ => TraceObservationPoint::ToEndpoint,
    };
    flow.trace_observation_point = point.into();
    flow.event_type = Some(CiliumEventType { r#type: TRACE, sub_type: i32::from(record.point) });
    let reply = record.flags & event::flag::REPLY != 0;
    let reason = match record.kind {
        event::kind::NEW if record.flags & event::flag::REJUDGED == 0 => TraceReason::New,
        _ if reply => TraceReason::Reply,
        _ => TraceReason::Established,
    };
    flow.trace_reason = reason.into();
    flow.traffic_direction = direction(record, record.point == event::point::TO_ENDPOINT).into();
}

/// The direction of the connection as its endpoint sees it: the one that gets the packet at `to-endpoint`, else the one
/// that sends it.
fn direction(record: &EventRecord, at_receiver: bool) -> TrafficDirection {
    let reply = record.flags & event::flag::REPLY != 0;
    if at_receiver != reply { TrafficDirection::Ingress } else { TrafficDirection::Egress }
}

/// The direction of a drop that no judgement stands behind, as Hubble has it: what the endpoint at whose hook it happened
/// sent is egress, anything else there is ingress, and where there was no endpoint nobody can say. A frame without
/// addresses shows no sender either.
fn drop_direction(seen: &Seen) -> TrafficDirection {
    let record = &seen.record;
    // A pod that lies about its source sends all the same; only what pods send has its source checked in that file.
    let lies = record.place >> 12 == u16::from(file::SOURCE);
    match &seen.source {
        _ if record.endpoint == 0 => TrafficDirection::Unknown,
        _ if lies => TrafficDirection::Egress,
        None => TrafficDirection::Unknown,
        Some(source) if source.endpoint == u32::from(record.endpoint) => TrafficDirection::Egress,
        Some(_) => TrafficDirection::Ingress,
    }
}

fn drop_reason(flow: &mut Flow, record: &EventRecord) {
    let number = DropReason::from_number(record.reason).map_or(0, DropReason::hubble);
    flow.drop_reason_desc = i32::from(number);
    #[allow(deprecated, reason = "older clients read this one")]
    {
        flow.drop_reason = u32::from(number);
    }
}

/// Puts the policies behind a judgement where Hubble has them, and the rules behind it where our own screens look.
fn name_policies(flow: &mut Flow, seen: &Seen, judged: &Judged) {
    let revision = u64::from(seen.record.revision);
    let policies = |reason: &Reason| {
        let mut policies = reason.policies.clone();
        policies.iter_mut().for_each(|policy| policy.revision = revision);
        policies
    };
    if let Some(shadow) = &seen.shadow {
        deny_list(flow, judged.side).extend(policies(shadow));
        flow.policy_log.extend(shadow.log.iter().cloned());
    }
    if let Some(enforced) = &seen.enforced {
        let list = match judged.side {
            side if judged.denies() => deny_list(flow, side),
            Side::Egress => &mut flow.egress_allowed_by,
            Side::Ingress => &mut flow.ingress_allowed_by,
        };
        list.extend(policies(enforced));
        flow.policy_log.extend(enforced.log.iter().cloned());
    }
    set_extensions(flow, &seen.record, &[(&seen.enforced, false), (&seen.shadow, true)]);
}

fn deny_list(flow: &mut Flow, side: Side) -> &mut Vec<sinew_api::proto::flow::Policy> {
    match side {
        Side::Egress => &mut flow.egress_denied_by,
        Side::Ingress => &mut flow.ingress_denied_by,
    }
}

/// `reasons` are what decided, and whether it is a shadow's.
fn set_extensions(flow: &mut Flow, record: &EventRecord, reasons: &[(&Option<Arc<Reason>>, bool)]) {
    let finer = DropReason::from_number(record.reason).filter(|reason| *reason as u16 >= 1000);
    let dropped = record.kind == event::kind::DROP;
    let reasons = reasons.iter().filter_map(|(reason, shadow)| Some((reason.as_ref()?, *shadow)));
    let rules = reasons.clone().flat_map(|(reason, shadow)| {
        reason.rules.iter().map(move |rule| DecidingRule { shadow, ..rule.clone() })
    });
    let extensions = Extensions {
        reason: finer.filter(|_| dropped).map_or(0, |reason| reason as u32),
        reason_text: finer.filter(|_| dropped).map(|reason| reason.words().to_owned()).unwrap_or_default(),
        default_deny: dropped && reasons.clone().any(|(reason, _)| reason.by_default),
        rules: rules.collect(),
    };
    flow.extensions = extensions.to_any();
}

/// A record for whoever watches them raw: what it says, without names.
#[must_use]
pub fn raw(record: &EventRecord, clock: Clock) -> MonitorEvent {
    let dropped = record.kind == event::kind::DROP;
    let reason = DropReason::from_number(record.reason);
    let (side, cookie, shadow_cookie) = Judged::all(record)
        .max_by_key(|judged| (judged.denies(), judged.audits()))
        .map_or((None, 0, 0), |judged| (Some(judged.side), judged.cookie, judged.shadow_cookie));
    let audited = Judged::all(record).any(|judged| judged.audits());
    let verdict = match (dropped, audited) {
        (true, _) => Verdict::Dropped,
        (false, true) => Verdict::Audit,
        (false, false) => Verdict::Forwarded,
    };
    let mut trace = Flow::default();
    tell_trace(&mut trace, record);
    let denied = Judged::all(record).any(|judged| judged.denies());
    let direction = match side {
        // Who sent it is a name, and names are not looked up here.
        _ if dropped && !denied => TrafficDirection::Unknown.into(),
        Some(side) => side.direction().into(),
        None => trace.traffic_direction,
    };
    MonitorEvent {
        time: Some(clock.timestamp(record.time)),
        sequence: u64::from(record.sequence),
        endpoint_id: u32::from(record.endpoint),
        direction,
        observation_point: if dropped { 0 } else { trace.trace_observation_point },
        ip: layers::ip(record),
        l4: layers::l4(record),
        source_identity: record.source_identity,
        destination_identity: record.destination_identity,
        verdict: verdict.into(),
        drop_reason: reason.filter(|_| dropped).map_or(0, |reason| i32::from(reason.hubble())),
        sinew_reason: if record.reason >= 1000 { u32::from(record.reason) } else { 0 },
        rule_cookie: cookie,
        interface_index: record.ifindex,
        line: u32::from(record.place & 0xfff),
        file: file::NAMES.get(usize::from(record.place >> 12)).copied().unwrap_or_default().to_owned(),
        packet_bytes: record.length,
        text: layers::summary(record),
        trace_reason: if dropped { 0 } else { trace.trace_reason },
        shadow_cookie,
        ..MonitorEvent::default()
    }
}

#[cfg(test)]
mod tests;
