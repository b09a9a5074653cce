//! Recorded flows as questions: who asked for what, in which direction it was judged, and what the verdict was.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use anyhow::Result;
use sinew_api::identity::Identity;
use sinew_api::labels::{CLUSTER, NAMESPACE, NAMESPACE_LABELS_PREFIX, SERVICE_ACCOUNT};
use sinew_api::object::{Namespace, Object, Origin, Pod, PodPhase};
use sinew_api::proto::agent::Party;
use sinew_api::proto::agent::party::By;
use sinew_api::proto::flow::{DropReason, Endpoint, Flow, IpVersion, TrafficDirection, Verdict, layer4};
use sinew_api::proto::observer::GetFlowsRequest;
use sinew_api::proto::observer::get_flows_response::ResponseTypes;
use sinew_engine::explain;

use crate::failure::Failure;
use crate::folder::Folder;
use crate::observe;

/// `CiliumEventType.type` of a policy verdict.
const POLICY_VERDICT: i32 = 5;

/// One end of a recorded connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// A pod, as `ns/name`.
    Pod(String),
    /// A node or the host, by the name of its identity, at an address if one was recorded: CIDRs go by it.
    Entity { name: String, address: Option<IpAddr>, node: bool },
    /// Anybody else.
    Address(IpAddr),
}

impl End {
    /// The end as the question of an explanation.
    pub(super) fn party(&self) -> Party {
        let by = match self {
            Self::Pod(pod) => By::Pod(pod.clone()),
            Self::Entity { name, .. } => By::Entity(name.clone()),
            Self::Address(address) => By::Address(address.to_string()),
        };
        Party { by: Some(by) }
    }

    /// What a question can't say of it.
    pub(super) fn exactly(&self) -> Option<explain::Party> {
        match self {
            Self::Entity { name, address: Some(address), node } => {
                Some(explain::Party::EntityAt { name: name.clone(), address: *address, node: *node })
            }
            _ => None,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(name) | Self::Entity { name, address: None, .. } => f.write_str(name),
            Self::Entity { name, address: Some(address), .. } => write!(f, "{name} ({address})"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// What a flow asked of the policies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Question {
    pub(super) from: End,
    pub(super) to: End,
    /// As in answers.
    pub(super) protocol: String,
    /// Destination port or ICMP type.
    pub(super) port: Option<u32>,
    /// That of the addresses: what pods are asked by name has both.
    pub(super) family: IpVersion,
    egress: bool,
}

impl Question {
    /// The direction that was judged.
    pub(super) fn direction(&self) -> TrafficDirection {
        if self.egress { TrafficDirection::Egress } else { TrafficDirection::Ingress }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let traffic = crate::explain::words::asked(&self.protocol, self.port);
        write!(f, "{} -> {} {traffic}", self.from, self.to)?;
        match crate::explain::words::family(self.family) {
            "" => Ok(()),
            family => write!(f, " over {family}"),
        }
    }
}

/// Flows that asked a question, by how it was answered: policies may have changed while flows were recorded.
type Answers = BTreeMap<(Question, Verdict), u64>;

/// All questions of a file, and the pods that asked them.
#[derive(Debug, Default)]
pub(super) struct Recording {
    verdicts: Answers,
    /// Drops by policy, for whoever recorded drops only.
    drops: Answers,
    pods: BTreeMap<(String, String), Pod>,
    namespaces: BTreeMap<String, Namespace>,
    /// Flows of any kind.
    flows: u64,
}

impl Recording {
    /// Reads a file of flows, or stdin where it is `-`.
    ///
    /// # Errors
    /// It can't be read, or holds no flow.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let mut recording = Self::default();
        for answer in observe::input::read(path, &GetFlowsRequest::default())? {
            if let Some(ResponseTypes::Flow(flow)) = answer?.response_types {
                recording.flows += 1;
                recording.add(&flow);
            }
        }
        // That nothing would change is said of what was replayed, and here nothing was.
        if recording.flows == 0 {
            return Err(Failure::failed(format!(
                "no flow could be read from {}",
                observe::input::shown(path)
            ))
            .next("record some: sinew observe --all -o jsonpb > FILE")
            .into());
        }
        Ok(recording)
    }

    /// Each question with each of its verdicts, in order, and how many flows had it; a drop counts where no verdict was
    /// recorded.
    pub(super) fn answers(&self) -> impl Iterator<Item = (&Question, Verdict, u64)> {
        let judged = self.verdicts.keys().map(|(question, _)| question).collect::<BTreeSet<_>>();
        let drops = self.drops.iter().filter(move |((question, _), _)| !judged.contains(question));
        self.verdicts.iter().chain(drops).map(|((question, verdict), flows)| (question, *verdict, *flows))
    }

    /// The pods and namespaces that the flows speak of.
    pub(super) fn folder(&self) -> Folder {
        let namespaces = self.namespaces.values().cloned().map(Object::Namespace);
        let pods = self.pods.values().cloned().map(Object::Pod);
        Folder { objects: namespaces.chain(pods).collect(), refused: Vec::new() }
    }

    /// Takes a flow in, if it tells of a verdict on a new connection.
    pub(super) fn add(&mut self, flow: &Flow) {
        let is_verdict = flow.event_type.is_some_and(|event| event.r#type == POLICY_VERDICT);
        let is_drop = flow.verdict() == Verdict::Dropped
            && matches!(flow.drop_reason_desc(), DropReason::PolicyDenied | DropReason::PolicyDeny);
        if !is_verdict && !is_drop {
            return;
        }
        self.learn(flow.source.as_ref(), flow.ip.as_ref().map(|ip| ip.source.as_str()));
        self.learn(flow.destination.as_ref(), flow.ip.as_ref().map(|ip| ip.destination.as_str()));
        // An answer has no verdict of its own. Those of a connection that was cut are refused with it, and as questions
        // they would be from a server to a client's port.
        if flow.is_reply == Some(true) {
            return;
        }
        let Some(question) = question(flow) else { return };
        let known = if is_verdict { &mut self.verdicts } else { &mut self.drops };
        *known.entry((question, flow.verdict())).or_default() += 1;
    }

    /// A pod is what the latest flow says of it.
    fn learn(&mut self, end: Option<&Endpoint>, address: Option<&str>) {
        let Some(end) = end.filter(|end| !end.pod_name.is_empty()) else { return };
        let mut pod = Pod {
            namespace: end.namespace.clone(),
            name: end.pod_name.clone(),
            uid: String::new(),
            labels: BTreeMap::new(),
            service_account: "default".into(),
            host_network: false,
            node: String::new(),
            ports: Vec::new(),
            phase: Some(PodPhase::Running),
            addresses: Vec::new(),
            terminating: false,
            workload: None,
            origin: Origin::default(),
        };
        let mut namespace = Namespace::bare(&end.namespace);
        for label in &end.labels {
            let Some(label) = label.strip_prefix("k8s:") else { continue };
            let (key, value) = label.split_once('=').unwrap_or((label, ""));
            if let Some(key) = key.strip_prefix(NAMESPACE_LABELS_PREFIX) {
                namespace.labels.insert(key.to_owned(), value.to_owned());
            } else if key == SERVICE_ACCOUNT {
                pod.service_account = value.to_owned();
            } else if key != NAMESPACE && key != CLUSTER {
                pod.labels.insert(key.to_owned(), value.to_owned());
            }
        }
        let name = (pod.namespace.clone(), pod.name.clone());
        let mut addresses =
            address.and_then(|address| address.parse::<IpAddr>().ok()).into_iter().collect::<BTreeSet<_>>();
        if let Some(before) = self.pods.get(&name) {
            // One address a family: the latest.
            let other = before
                .addresses
                .iter()
                .filter(|old| addresses.iter().all(|new| new.is_ipv4() != old.is_ipv4()));
            let other = other.copied().collect::<Vec<_>>();
            addresses.extend(other);
        }
        pod.addresses = addresses.into_iter().collect();
        self.pods.insert(name, pod);
        self.namespaces.insert(namespace.name.clone(), namespace);
    }
}

fn question(flow: &Flow) -> Option<Question> {
    let ip = flow.ip.as_ref();
    let family = ip.map(|ip| observe::family(&ip.source)).unwrap_or(IpVersion::IpNotUsed);
    let from = end(flow.source.as_ref(), ip.map(|ip| ip.source.as_str()))?;
    let to = end(flow.destination.as_ref(), ip.map(|ip| ip.destination.as_str()))?;
    let (protocol, port) = match flow.l4.as_ref()?.protocol.as_ref()? {
        layer4::Protocol::Tcp(tcp) => ("TCP", Some(tcp.destination_port)),
        layer4::Protocol::Udp(udp) => ("UDP", Some(udp.destination_port)),
        layer4::Protocol::Sctp(sctp) => ("SCTP", Some(sctp.destination_port)),
        layer4::Protocol::IcmPv4(icmp) => ("ICMP", Some(icmp.r#type)),
        layer4::Protocol::IcmPv6(icmp) => ("ICMPv6", Some(icmp.r#type)),
        layer4::Protocol::Vrrp(_) | layer4::Protocol::Igmp(_) => return None,
    };
    let egress = match flow.traffic_direction() {
        TrafficDirection::Egress => true,
        TrafficDirection::Ingress => false,
        TrafficDirection::Unknown => return None,
    };
    Some(Question { from, to, protocol: protocol.into(), port, family, egress })
}

/// A pod by its name; nodes by their identity, which the folder may not know, and their address; all others by address.
fn end(end: Option<&Endpoint>, address: Option<&str>) -> Option<End> {
    let address = address.and_then(|address| address.parse().ok());
    if let Some(end) = end {
        if !end.pod_name.is_empty() {
            return Some(End::Pod(format!("{}/{}", end.namespace, end.pod_name)));
        }
        let identity = Identity(end.identity);
        if matches!(identity, Identity::HOST | Identity::REMOTE_NODE | Identity::KUBE_APISERVER)
            && let Some(name) = identity.reserved_name()
        {
            let any = |names: &[&str]| end.labels.iter().any(|label| names.contains(&label.as_str()));
            // With both labels it is of either kind, which the folder's nodes decide.
            let is_node = any(&["reserved:remote-node", "reserved:host"])
                && !any(&["reserved:world", "reserved:world-ipv4", "reserved:world-ipv6"]);
            let node = identity != Identity::KUBE_APISERVER || is_node;
            return Some(End::Entity { name: name.to_owned(), address, node });
        }
    }
    address.map(End::Address)
}
