//! Pod of `v1`: what policy, identities and flows need of it. Everything else in a Pod is Kubernetes' business.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};

use super::Origin;
use super::metadata::Metadata;
use crate::fields::{Field, Fields, Report};
use crate::names;
use crate::policy::Protocol;
use crate::yaml::Value;

/// The annotation of an object that the kubelet wrote for a pod of its own folder: that pod's uid (Kubernetes,
/// `pkg/kubelet/pod/mirror_client.go`).
const MIRROR: &str = "kubernetes.io/config.mirror";

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `metadata.uid`; empty in most folders. Of the object that mirrors a static pod, the uid that the kubelet gives the
    /// pod itself, which is the one that the runtime hears: annotation `kubernetes.io/config.mirror`.
    pub uid: String,
    /// Its labels, all of them.
    pub labels: BTreeMap<String, String>,
    /// `spec.serviceAccountName`, or `default`.
    pub service_account: String,
    /// Whether it lives in its node's network namespace: no endpoint then.
    pub host_network: bool,
    /// The node that it is bound to, or empty.
    pub node: String,
    /// Named ports of its containers and sidecars.
    pub ports: Vec<NamedPort>,
    /// `status.phase`; `None` where the object does not say.
    pub phase: Option<PodPhase>,
    /// `status.podIPs`, or `status.podIP`.
    pub addresses: Vec<IpAddr>,
    /// Whether it has a `deletionTimestamp`.
    pub terminating: bool,
    /// What it is a replica of, for flows.
    pub workload: Option<Workload>,
    /// Where it stands.
    pub origin: Origin,
}

/// A container port with a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedPort {
    /// Its name.
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number.
    pub port: u16,
}

/// `status.phase` of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are Kubernetes' own")]
pub enum PodPhase {
    Pending,
    Running,
    Succeeded,
    Failed,
    Unknown,
}

impl PodPhase {
    /// Whether its containers are done for good: its address then leaves its peers at once (policy.md 9).
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// What made a pod: `Deployment` and its name, `CronJob`, `StatefulSet`, …
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
}

pub(super) fn read(document: &mut Fields<'_>, metadata: Metadata, report: &mut Report) -> Pod {
    let owners =
        document.take("metadata").and_then(|field| field.fields(report)?.list("ownerReferences", report));
    let workload = workload(&owners.unwrap_or_default(), &metadata.labels, report);
    let origin = report.origin(document.line());
    let mirrored = metadata.annotations.get(MIRROR).filter(|uid| !uid.is_empty()).cloned();
    let mut pod = Pod {
        namespace: metadata.namespace,
        name: metadata.name,
        uid: mirrored.unwrap_or(metadata.uid),
        labels: metadata.labels,
        service_account: "default".to_owned(),
        host_network: false,
        node: String::new(),
        ports: Vec::new(),
        phase: None,
        addresses: Vec::new(),
        terminating: metadata.deleting,
        workload,
        origin,
    };
    if let Some(mut spec) = document.take("spec").and_then(|spec| spec.fields(report)) {
        // `serviceAccount` is the deprecated name of the same field.
        for name in ["serviceAccount", "serviceAccountName"] {
            if let Some(account) = spec.text(name, report).filter(|account| !account.is_empty()) {
                account.clone_into(&mut pod.service_account);
            }
        }
        pod.host_network =
            spec.take("hostNetwork").and_then(|field| field.boolean(report)).unwrap_or_default();
        spec.text("nodeName", report).unwrap_or_default().clone_into(&mut pod.node);
        for container in spec.list("containers", report).unwrap_or_default() {
            container_ports(&container, false, &mut pod.ports, report);
        }
        for container in spec.list("initContainers", report).unwrap_or_default() {
            container_ports(&container, true, &mut pod.ports, report);
        }
    }
    if let Some(mut status) = document.take("status").and_then(|status| status.fields(report)) {
        pod.phase = status.take("phase").and_then(|field| phase(&field, report));
        pod.addresses = addresses(&mut status, report);
    }
    pod
}

/// Named ports of a container. Of the init containers only sidecars, which restart always, are there to be reached.
fn container_ports(field: &Field<'_>, init: bool, ports: &mut Vec<NamedPort>, report: &mut Report) {
    let Some(mut container) = field.fields(report) else { return };
    let sidecar = container.text("restartPolicy", report) == Some("Always");
    let list = container.list("ports", report).unwrap_or_default();
    if init && !sidecar {
        return;
    }
    for place in list {
        let Some(mut fields) = place.fields(report) else { continue };
        let number = fields.take("containerPort").and_then(|field| field.integer(1..=65535, report));
        let protocol = match fields.take("protocol") {
            None => Some(Protocol::Tcp),
            Some(field) => field.text(report).and_then(|name| container_protocol(&field, name, report)),
        };
        let Some(name) = fields.take("name") else { continue };
        let Some(text) = name.text(report).filter(|text| !text.is_empty()) else { continue };
        if let Err(wrong) = names::port_name(text) {
            name.refuse(report, wrong);
            continue;
        }
        if let (Some(protocol), Some(Ok(port))) = (protocol, number.map(u16::try_from)) {
            ports.push(NamedPort { name: text.to_owned(), protocol, port });
        }
    }
}

fn container_protocol(field: &Field<'_>, name: &str, report: &mut Report) -> Option<Protocol> {
    match name {
        "TCP" | "" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        other => {
            field.refuse(report, format!("{:?} is no protocol (known: TCP, UDP, SCTP)", names::shown(other)));
            None
        }
    }
}

/// A phase, of a pod or of the endpoint that stands for it.
pub(super) fn phase(field: &Field<'_>, report: &mut Report) -> Option<PodPhase> {
    match field.text(report)? {
        "Pending" => Some(PodPhase::Pending),
        "Running" => Some(PodPhase::Running),
        "Succeeded" => Some(PodPhase::Succeeded),
        "Failed" => Some(PodPhase::Failed),
        "Unknown" => Some(PodPhase::Unknown),
        other => {
            let other = names::shown(other);
            let known = "Pending, Running, Succeeded, Failed, Unknown";
            field.refuse(report, format!("{other:?} is no pod phase (known: {known})"));
            None
        }
    }
}

fn addresses(status: &mut Fields<'_>, report: &mut Report) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    let single = status.take("podIP");
    for item in status.list("podIPs", report).unwrap_or_default() {
        if let Some(field) = item.fields(report).and_then(|mut item| item.take("ip")) {
            addresses.extend(address(&field, report));
        }
    }
    if addresses.is_empty()
        && let Some(field) =
            single.filter(|field| !matches!(&field.node.value, Value::Text(text) if text.is_empty()))
    {
        addresses.extend(address(&field, report));
    }
    addresses
}

/// One address.
pub(super) fn address(field: &Field<'_>, report: &mut Report) -> Option<IpAddr> {
    let text = field.text(report)?;
    let address = text.parse().ok();
    if address.is_none() {
        field.refuse(report, format!("{:?} is not an IP address", names::shown(text)));
    }
    address
}

/// What controls the pod. A ReplicaSet that a Deployment made is named after it and the hash of its template, a Job that
/// a CronJob made after it and the minute of its run; people know the maker.
fn workload(
    owners: &[Field<'_>],
    labels: &BTreeMap<String, String>,
    report: &mut Report,
) -> Option<Workload> {
    static OF_CRON_JOB: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new("^(.+)-[0-9]{8,10}$").expect("the pattern is a constant that a test compiles")
    });
    for owner in owners {
        let mut fields = owner.fields(report)?;
        let controls = fields.take("controller").and_then(|field| field.boolean(report)).unwrap_or_default();
        let kind = fields.text("kind", report);
        let name = fields.text("name", report);
        let (true, Some(kind), Some(name)) = (controls, kind, name) else { continue };
        let hash = labels.get("pod-template-hash").filter(|hash| !hash.is_empty());
        let deployment = hash.and_then(|hash| name.strip_suffix(hash.as_str())?.strip_suffix('-'));
        let cron_job = OF_CRON_JOB.captures(name).and_then(|found| found.get(1)).map(|found| found.as_str());
        let (kind, name) = match (kind, deployment, cron_job) {
            ("ReplicaSet", Some(deployment), _) if !deployment.is_empty() => ("Deployment", deployment),
            ("Job", _, Some(cron_job)) => ("CronJob", cron_job),
            _ => (kind, name),
        };
        return Some(Workload { kind: kind.to_owned(), name: name.to_owned() });
    }
    None
}
