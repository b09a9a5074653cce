//! Counting flows: who talks to whom, what is dropped and why, which policies decide. Pure: flows in, numbers out.
//!
//! Neighbours: `edges.rs` prints a whole answer, `top.rs` one window after the other.

use std::collections::BTreeMap;

use clap::ValueEnum;
use prost_types::Timestamp;
use sinew_api::identity::Identity;
use sinew_api::object::PolicyKind;
use sinew_api::proto::flow::{Endpoint, Flow, Policy, Service, TrafficDirection, Verdict, layer4};

use super::print::words;

/// What an end of a flow is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Naming {
    /// The controller of the pod, such as shop/web; a pod without one by its own name
    #[default]
    Workload,
    /// The pod
    Pod,
    /// The namespace
    Namespace,
}

/// From whom, to whom, and how: the opener of the connection comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Edge {
    pub(super) source: String,
    pub(super) destination: String,
    /// `5432/TCP`, `ICMP`, or empty.
    pub(super) port: String,
}

/// What was seen on an edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) forwarded: u64,
    pub(super) dropped: u64,
    pub(super) audited: u64,
    pub(super) last: Option<Timestamp>,
}

impl Count {
    /// All flows.
    pub(super) fn flows(&self) -> u64 {
        self.forwarded + self.dropped + self.audited
    }
}

/// Verdicts in which a policy took part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hits {
    pub(super) allowed: u64,
    pub(super) denied: u64,
    /// It would have denied them, and is only watched.
    pub(super) audited: u64,
}

impl Hits {
    /// All of them.
    pub(super) fn sum(&self) -> u64 {
        self.allowed + self.denied + self.audited
    }
}

/// The numbers so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Census {
    naming: Naming,
    pub(super) edges: BTreeMap<Edge, Count>,
    pub(super) drops: BTreeMap<String, u64>,
    /// By policy, as `kind/namespace/name`.
    pub(super) policies: BTreeMap<String, Hits>,
    pub(super) flows: u64,
    /// Policy verdicts, including those without a policy.
    pub(super) verdicts: u64,
    pub(super) lost: u64,
}

impl Census {
    pub(super) fn new(naming: Naming) -> Self {
        Self { naming, ..Self::default() }
    }

    /// Counts one flow. A denied packet produces a verdict and a drop, of which only the verdict counts for its edge. A
    /// packet that the sender's side allows may still be refused: then that verdict does not count, but what becomes of
    /// the packet.
    pub(super) fn count(&mut self, flow: &Flow) {
        self.flows += 1;
        let event = flow.event_type.as_ref().map_or(0, |event| event.r#type);
        let verdict = flow.verdict();
        self.verdicts += u64::from(event == words::TYPE_POLICY_VERDICT);
        if event == words::TYPE_DROP {
            *self.drops.entry(words::flow_type(flow)).or_default() += 1;
        }
        for (policies, denied) in [
            (&flow.egress_allowed_by, false),
            (&flow.ingress_allowed_by, false),
            (&flow.egress_denied_by, true),
            (&flow.ingress_denied_by, true),
        ] {
            for policy in policies.iter().filter(|_| event == words::TYPE_POLICY_VERDICT) {
                let hits = self.policies.entry(policy_name(policy)).or_default();
                match (denied, verdict) {
                    (true, Verdict::Audit) => hits.audited += 1,
                    (true, _) => hits.denied += 1,
                    (false, _) => hits.allowed += 1,
                }
            }
        }
        let is_policy_drop = event == words::TYPE_DROP && matches!(flow.drop_reason_desc, 133 | 181);
        let is_half_a_verdict = event == words::TYPE_POLICY_VERDICT
            && flow.traffic_direction() == TrafficDirection::Egress
            && !matches!(verdict, Verdict::Dropped | Verdict::Error);
        let Some(edge) = self.edge(flow).filter(|_| !is_policy_drop && !is_half_a_verdict) else { return };
        let count = self.edges.entry(edge).or_default();
        match verdict {
            Verdict::Dropped | Verdict::Error => count.dropped += 1,
            Verdict::Audit => count.audited += 1,
            Verdict::Forwarded
            | Verdict::Redirected
            | Verdict::Traced
            | Verdict::Translated
            | Verdict::Unknown => {
                count.forwarded += 1;
            }
        }
        let times = [count.last, flow.time];
        count.last = times.into_iter().flatten().max_by(sinew_observer::query::compare);
    }

    fn edge(&self, flow: &Flow) -> Option<Edge> {
        let ip = flow.ip.as_ref()?;
        let source =
            self.name(flow.source.as_ref(), flow.source_service.as_ref(), &flow.source_names, &ip.source);
        let destination = self.name(
            flow.destination.as_ref(),
            flow.destination_service.as_ref(),
            &flow.destination_names,
            &ip.destination,
        );
        let reply = flow.is_reply == Some(true);
        let port = port(flow, reply);
        Some(if reply {
            Edge { source: destination, destination: source, port }
        } else {
            Edge { source, destination, port }
        })
    }

    fn name(
        &self,
        end: Option<&Endpoint>,
        service: Option<&Service>,
        names: &[String],
        address: &str,
    ) -> String {
        if let Some(end) = end.filter(|end| !end.pod_name.is_empty()) {
            let own = match self.naming {
                Naming::Namespace => return end.namespace.clone(),
                Naming::Pod => &end.pod_name,
                Naming::Workload => end.workloads.first().map_or(&end.pod_name, |workload| &workload.name),
            };
            return format!("{}/{own}", end.namespace);
        }
        if let Some(service) = service.filter(|service| !service.name.is_empty()) {
            return format!("{}/{}", service.namespace, service.name);
        }
        if let Some(name) = names.first() {
            return name.clone();
        }
        let identity = end.map(|end| Identity(end.identity)).filter(|number| *number != Identity::UNKNOWN);
        identity.and_then(Identity::reserved_name).unwrap_or(address).to_owned()
    }
}

/// The opener's destination port.
fn port(flow: &Flow, reply: bool) -> String {
    let Some(protocol) = flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref()) else { return String::new() };
    let side = |source: u32, destination: u32| if reply { source } else { destination };
    match protocol {
        layer4::Protocol::Tcp(it) => format!("{}/TCP", side(it.source_port, it.destination_port)),
        layer4::Protocol::Udp(it) => format!("{}/UDP", side(it.source_port, it.destination_port)),
        layer4::Protocol::Sctp(it) => format!("{}/SCTP", side(it.source_port, it.destination_port)),
        layer4::Protocol::IcmPv4(_) => "ICMP".to_owned(),
        layer4::Protocol::IcmPv6(_) => "ICMPv6".to_owned(),
        layer4::Protocol::Vrrp(_) => "VRRP".to_owned(),
        layer4::Protocol::Igmp(_) => "IGMP".to_owned(),
    }
}

/// `cnp/shop/db`.
pub(super) fn policy_name(policy: &Policy) -> String {
    let kind = PolicyKind::ALL.into_iter().find(|kind| kind.kind() == policy.kind);
    let short = kind.map_or("policy", PolicyKind::short);
    if policy.namespace.is_empty() {
        format!("{short}/{}", policy.name)
    } else {
        format!("{short}/{}/{}", policy.namespace, policy.name)
    }
}

#[cfg(test)]
mod tests;
