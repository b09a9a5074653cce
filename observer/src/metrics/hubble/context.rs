//! Who a series is about: Hubble's context options and labels, as values taken from a flow.
//!
//! `source` and `destination` take the first context that has a value, by the flow's direction if that is configured;
//! the labels of `labelsContext` are added. An address is a value only if it is a pod's or a node's: those of the world are
//! unbounded, and fall back to the next context.

use std::borrow::Cow;

use sinew_api::proto::flow::{Endpoint, Flow, TrafficDirection};

use super::series::{Key, Subject};

/// What names an end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// All labels of its identity.
    Identity,
    /// Its namespace.
    Namespace,
    /// `namespace/pod`.
    Pod,
    /// Its pod's name.
    PodName,
    /// Its address, if it is a pod's or a node's.
    Ip,
    /// The reserved label of its identity, such as `reserved:world`.
    ReservedIdentity,
    /// `namespace/workload`.
    Workload,
    /// Its workload's name.
    WorkloadName,
    /// Its app's name, by the labels that Kubernetes recommends.
    App,
}

/// Contexts of one end, the first with a value counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndContexts {
    /// Whatever the direction.
    pub any: Vec<Context>,
    /// Used instead for egress flows, if there are any.
    pub egress: Vec<Context>,
    /// Likewise for ingress flows.
    pub ingress: Vec<Context>,
}

/// All contexts of a metric.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contexts {
    /// Labels of their own, in Hubble's order.
    pub labels: Vec<Label>,
    /// The label `source`.
    pub source: EndContexts,
    /// The label `destination`.
    pub destination: EndContexts,
}

/// A label of `labelsContext`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Label {
    /// `source_ip`, and so on.
    SourceIp,
    /// The pod's name.
    SourcePod,
    /// Its namespace.
    SourceNamespace,
    /// Its workload's name.
    SourceWorkload,
    /// Its workload's kind.
    SourceWorkloadKind,
    /// Its app.
    SourceApp,
    /// The same of the destination.
    DestinationIp,
    /// The pod's name.
    DestinationPod,
    /// Its namespace.
    DestinationNamespace,
    /// Its workload's name.
    DestinationWorkload,
    /// Its workload's kind.
    DestinationWorkloadKind,
    /// Its app.
    DestinationApp,
    /// `ingress`, `egress` or `unknown`.
    TrafficDirection,
}

/// Names of labels, in Hubble's order.
pub const LABELS: [(&str, Label); 13] = [
    ("source_ip", Label::SourceIp),
    ("source_pod", Label::SourcePod),
    ("source_namespace", Label::SourceNamespace),
    ("source_workload", Label::SourceWorkload),
    ("source_workload_kind", Label::SourceWorkloadKind),
    ("source_app", Label::SourceApp),
    ("destination_ip", Label::DestinationIp),
    ("destination_pod", Label::DestinationPod),
    ("destination_namespace", Label::DestinationNamespace),
    ("destination_workload", Label::DestinationWorkload),
    ("destination_workload_kind", Label::DestinationWorkloadKind),
    ("destination_app", Label::DestinationApp),
    ("traffic_direction", Label::TrafficDirection),
];

/// Labels that name a pod's app, the first of a pod's sorted labels that is one of these counts.
const APP_LABELS: [&str; 3] = ["k8s:app.kubernetes.io/name=", "k8s:k8s-app=", "k8s:app="];
const KUBE_APISERVER: &str = "reserved:kube-apiserver";

impl EndContexts {
    fn is_empty(&self) -> bool {
        self.any.is_empty() && self.egress.is_empty() && self.ingress.is_empty()
    }

    fn of(&self, direction: TrafficDirection) -> &[Context] {
        match direction {
            TrafficDirection::Ingress if !self.ingress.is_empty() => &self.ingress,
            TrafficDirection::Egress if !self.egress.is_empty() => &self.egress,
            _ => &self.any,
        }
    }

    fn subjects(&self) -> Vec<Subject> {
        let all = self.any.iter().chain(&self.egress).chain(&self.ingress);
        all.map(|context| match context {
            Context::Identity => Subject::Identity,
            Context::Namespace => Subject::Namespace,
            Context::Pod => Subject::Pod,
            Context::PodName => Subject::PodName,
            Context::Ip => Subject::Address,
            Context::ReservedIdentity => Subject::Lasting,
            Context::Workload => Subject::Workload,
            Context::WorkloadName => Subject::WorkloadName,
            Context::App => Subject::App,
        })
        .collect()
    }
}

impl Contexts {
    /// Names of the labels, and whom each can name.
    #[must_use]
    pub fn names(&self) -> Vec<(&'static str, Vec<Subject>)> {
        let own = |wanted: &Label| LABELS.iter().find(|(_, label)| label == wanted).map(|(name, _)| *name);
        let mut names: Vec<_> = self
            .labels
            .iter()
            .filter_map(|label| Some((own(label)?, vec![label.subject(&self.labels)])))
            .collect();
        for (name, end) in [("source", &self.source), ("destination", &self.destination)] {
            if !end.is_empty() {
                names.push((name, end.subjects()));
            }
        }
        names
    }

    /// Adds the values of a flow to a key, in the order of the names.
    pub fn push(&self, flow: &Flow, key: &mut Key) {
        for label in &self.labels {
            key.push(&label.value(flow));
        }
        let direction = flow.traffic_direction();
        for (contexts, end) in
            [(&self.source, End::source(flow)), (&self.destination, End::destination(flow))]
        {
            if !contexts.is_empty() {
                let mut values = contexts.of(direction).iter().map(|context| end.value(*context));
                key.push(&values.find(|value| !value.is_empty()).unwrap_or_default());
            }
        }
    }
}

impl Label {
    /// Whom it names. A pod's name beside its namespace means the one pod, as in Hubble.
    fn subject(self, beside: &[Self]) -> Subject {
        match self {
            Self::SourceIp | Self::DestinationIp => Subject::Address,
            Self::SourcePod if beside.contains(&Self::SourceNamespace) => Subject::PodBeforeNamespace,
            Self::DestinationPod if beside.contains(&Self::DestinationNamespace) => {
                Subject::PodBeforeNamespace
            }
            Self::SourcePod | Self::DestinationPod => Subject::PodName,
            Self::SourceNamespace | Self::DestinationNamespace => Subject::Namespace,
            Self::SourceWorkload | Self::DestinationWorkload => Subject::WorkloadName,
            Self::SourceApp | Self::DestinationApp => Subject::App,
            Self::SourceWorkloadKind | Self::DestinationWorkloadKind | Self::TrafficDirection => {
                Subject::Lasting
            }
        }
    }

    fn value(self, flow: &Flow) -> Cow<'_, str> {
        let (source, destination) = (End::source(flow), End::destination(flow));
        match self {
            Self::SourceIp => source.value(Context::Ip),
            Self::SourcePod => source.value(Context::PodName),
            Self::SourceNamespace => source.value(Context::Namespace),
            Self::SourceWorkload => source.value(Context::WorkloadName),
            Self::SourceWorkloadKind => source.workload_kind().into(),
            Self::SourceApp => source.value(Context::App),
            Self::DestinationIp => destination.value(Context::Ip),
            Self::DestinationPod => destination.value(Context::PodName),
            Self::DestinationNamespace => destination.value(Context::Namespace),
            Self::DestinationWorkload => destination.value(Context::WorkloadName),
            Self::DestinationWorkloadKind => destination.workload_kind().into(),
            Self::DestinationApp => destination.value(Context::App),
            Self::TrafficDirection => match flow.traffic_direction() {
                TrafficDirection::Ingress => "ingress".into(),
                TrafficDirection::Egress => "egress".into(),
                TrafficDirection::Unknown => "unknown".into(),
            },
        }
    }
}

/// An end of a flow.
struct End<'f> {
    endpoint: Option<&'f Endpoint>,
    address: &'f str,
}

impl<'f> End<'f> {
    fn source(flow: &'f Flow) -> Self {
        let address = flow.ip.as_ref().map_or("", |ip| &*ip.source);
        Self { endpoint: flow.source.as_ref(), address }
    }

    fn destination(flow: &'f Flow) -> Self {
        let address = flow.ip.as_ref().map_or("", |ip| &*ip.destination);
        Self { endpoint: flow.destination.as_ref(), address }
    }

    fn value(&self, context: Context) -> Cow<'f, str> {
        let Some(endpoint) = self.endpoint else { return Cow::default() };
        let workload = || endpoint.workloads.first().map_or("", |workload| &*workload.name);
        match context {
            Context::Identity => endpoint.labels.join(",").into(),
            Context::Namespace => (&*endpoint.namespace).into(),
            Context::Pod if endpoint.namespace.is_empty() => (&*endpoint.pod_name).into(),
            // As Hubble has it: also for an end with a namespace and no pod.
            Context::Pod => format!("{}/{}", endpoint.namespace, endpoint.pod_name).into(),
            Context::PodName => (&*endpoint.pod_name).into(),
            Context::Ip if is_of_cluster(endpoint) => self.address.into(),
            Context::Ip => Cow::default(),
            Context::ReservedIdentity => reserved(&endpoint.labels).into(),
            Context::Workload if workload().is_empty() || endpoint.namespace.is_empty() => workload().into(),
            Context::Workload => format!("{}/{}", endpoint.namespace, workload()).into(),
            Context::WorkloadName => workload().into(),
            Context::App => app(&endpoint.labels).into(),
        }
    }

    fn workload_kind(&self) -> &'f str {
        let workload = self.endpoint.and_then(|endpoint| endpoint.workloads.first());
        workload.map_or("", |workload| &*workload.kind)
    }
}

/// Whether an address is one of a pod or of a node, of which there are as many as the cluster has.
fn is_of_cluster(endpoint: &Endpoint) -> bool {
    const NODES: [&str; 2] = ["reserved:host", "reserved:remote-node"];
    !endpoint.pod_name.is_empty() || endpoint.labels.iter().any(|label| NODES.contains(&&**label))
}

fn reserved(labels: &[String]) -> &str {
    let named = labels.iter().find(|label| *label == KUBE_APISERVER);
    named.or_else(|| labels.iter().find(|label| label.starts_with("reserved:"))).map_or("", String::as_str)
}

/// The app that labels name.
pub(super) fn app(labels: &[String]) -> &str {
    let value = |label: &'_ String| -> Option<usize> {
        let prefix = APP_LABELS.iter().find(|prefix| label.starts_with(**prefix))?;
        (label.len() > prefix.len()).then_some(prefix.len())
    };
    labels.iter().find_map(|label| Some(&label[value(label)?..])).unwrap_or_default()
}
