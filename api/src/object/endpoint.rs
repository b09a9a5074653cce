//! SinewEndpoint: an endpoint as its node tells the others of it. The node's agent writes it and nobody else.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Origin;
use super::pod::{NamedPort, PodPhase, Workload};
use crate::identity::Identity;
use crate::labels::Labels;

/// An endpoint of some node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Name of the object: unique, chosen by the agent.
    pub name: String,
    /// Namespace of its pod; empty for an endpoint without a pod.
    pub pod_namespace: String,
    /// Name of its pod; empty for an endpoint without a pod.
    pub pod_name: String,
    /// `uid` of its pod, where it is known.
    pub pod_uid: String,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
    /// The node on which it is.
    pub node: String,
    /// Its addresses, at most one a family.
    pub addresses: Vec<IpAddr>,
    /// Its identity.
    pub identity: Identity,
    /// While it is relabelled, the identity that it had (policy.md 17).
    pub previous_identity: Option<Identity>,
    /// The labels of its identity.
    pub labels: Labels,
    /// Named ports of its pod.
    pub ports: Vec<NamedPort>,
    /// Phase of its pod, where it is known.
    pub phase: Option<PodPhase>,
    /// What its pod is a replica of.
    pub workload: Option<Workload>,
    /// Where it stands.
    pub origin: Origin,
}

/// `spec` of a SinewEndpoint.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EndpointSpec {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pod_namespace: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pod_name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pod_uid: String,
    #[serde(rename = "containerID")]
    container_id: String,
    ifname: String,
    node: String,
    addresses: Vec<IpAddr>,
    identity: Identity,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous_identity: Option<Identity>,
    labels: Labels,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ports: Vec<NamedPort>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    phase: Option<PodPhase>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    workload: Option<Workload>,
}

impl Endpoint {
    /// The object as YAML.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        let endpoint = self.clone();
        let spec = EndpointSpec {
            pod_namespace: endpoint.pod_namespace,
            pod_name: endpoint.pod_name,
            pod_uid: endpoint.pod_uid,
            container_id: endpoint.container_id,
            ifname: endpoint.ifname,
            node: endpoint.node,
            addresses: endpoint.addresses,
            identity: endpoint.identity,
            previous_identity: endpoint.previous_identity,
            labels: endpoint.labels,
            ports: endpoint.ports,
            phase: endpoint.phase,
            workload: endpoint.workload,
        };
        super::own::to_yaml("SinewEndpoint", &self.name, None, &spec, None::<&()>)
    }
}

pub(super) fn read(own: super::own::Own, origin: Origin) -> Result<Endpoint, super::own::Wrong> {
    let spec: EndpointSpec = own.spec()?;
    Ok(Endpoint {
        name: own.name,
        pod_namespace: spec.pod_namespace,
        pod_name: spec.pod_name,
        pod_uid: spec.pod_uid,
        container_id: spec.container_id,
        ifname: spec.ifname,
        node: spec.node,
        addresses: spec.addresses,
        identity: spec.identity,
        previous_identity: spec.previous_identity,
        labels: spec.labels,
        ports: spec.ports,
        phase: spec.phase,
        workload: spec.workload,
        origin,
    })
}
