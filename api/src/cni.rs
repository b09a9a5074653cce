//! What the CNI plugin says to the agent and hears back: one JSON line each way on the node's CNI socket.
//!
//! Neighbours: `agent/src/cni` serves it, the `sinew-cni` binary speaks it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// One request. `container_id` and `ifname` together name an attachment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "UPPERCASE", deny_unknown_fields)]
pub enum Request {
    /// Attach the pod's interface.
    Add(Attachment),
    /// Detach it; succeeds if there is nothing.
    Del {
        /// `CNI_CONTAINERID`.
        container_id: String,
        /// `CNI_IFNAME`.
        ifname: String,
    },
    /// Is the attachment as it should be?
    Check(Attachment),
    /// Remove every attachment to the network that is not named here.
    Gc {
        /// `name` of the network's configuration.
        #[serde(default)]
        network: String,
        /// `cni.dev/valid-attachments`: pairs of container id and ifname.
        valid: Vec<(String, String)>,
    },
    /// Could an ADD be served now?
    Status,
}

/// A pod's interface to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_NETNS`: path of the pod's network namespace.
    pub netns: String,
    /// `CNI_IFNAME`: name of the interface in the pod.
    pub ifname: String,
    /// `name` of the network's configuration, by which GC goes; empty where it is not known.
    #[serde(default)]
    pub network: String,
    /// `K8S_POD_NAMESPACE` of `CNI_ARGS`, or empty.
    #[serde(default)]
    pub pod_namespace: String,
    /// `K8S_POD_NAME` of `CNI_ARGS`, or empty.
    #[serde(default)]
    pub pod_name: String,
    /// `K8S_POD_UID` of `CNI_ARGS`, or empty.
    #[serde(default)]
    pub pod_uid: String,
    /// `args.cni.labels` of the network configuration.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// The agent's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Response {
    /// Done, with nothing to say.
    Done,
    /// The interface stands.
    Added(Added),
    /// Refused: becomes the CNI error object.
    Refused {
        /// The CNI error code.
        code: u32,
        /// One sentence.
        message: String,
        /// More, or empty.
        details: String,
    },
}

/// What an ADD made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// Host side of the veth pair.
    pub host_ifname: String,
    /// Its MAC, `aa:bb:…`.
    pub host_mac: String,
    /// The pod side's MAC.
    pub pod_mac: String,
    /// The pod's addresses, at most one a family.
    pub addresses: Vec<IpAddr>,
    /// Gateways, one for each address, in the same order.
    pub gateways: Vec<IpAddr>,
    /// MTU of both interfaces, bytes.
    pub device_mtu: u32,
    /// MTU of the pod's default routes, bytes.
    pub route_mtu: u32,
}
