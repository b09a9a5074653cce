//! A pod: a namespace that the CNI plugin has connected.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Deref;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::cni::Call;
use super::netns::Netns;
use super::store::PodObject;
use super::{Node, Place};

/// What the lab must remember of a pod to find it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRecord {
    /// Its name in the lab.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub pod_name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its node.
    pub node: String,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// Its IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub v6: Option<Ipv6Addr>,
}

/// A pod of the lab.
#[derive(Debug)]
pub struct Pod {
    place: Place,
    record: PodRecord,
}

impl Pod {
    /// Makes the namespace and calls ADD. A refused ADD leaves no namespace.
    pub(super) fn add(lab: &str, node: &Node, object: &PodObject) -> Result<Self> {
        let name = if object.namespace == "default" {
            object.name.clone()
        } else {
            format!("{}.{}", object.name, object.namespace)
        };
        let netns = Netns::named(lab, &format!("{}-{name}", node.name()));
        netns.make()?;
        let container_id = format!("{lab}-{}-{name}", node.name());
        let result = Self::connect(node, object, &netns, &container_id);
        if result.is_err() {
            netns.remove()?;
        }
        let addresses = result.with_context(|| format!("connecting pod {name}"))?;
        let v4 =
            addresses.iter().find_map(|address| if let IpAddr::V4(v4) = address { Some(*v4) } else { None });
        let v6 =
            addresses.iter().find_map(|address| if let IpAddr::V6(v6) = address { Some(*v6) } else { None });
        let record = PodRecord {
            name,
            namespace: object.namespace.clone(),
            pod_name: object.name.clone(),
            uid: object.uid.clone(),
            labels: object.labels.clone(),
            node: node.name().to_owned(),
            container_id,
            v4,
            v6,
        };
        Ok(Self { place: Place::new(&record.name, netns, v4, v6), record })
    }

    /// A pod that another process has made.
    pub(super) fn of_record(lab: &str, record: PodRecord) -> Self {
        let netns = Netns::named(lab, &format!("{}-{}", record.node, record.name));
        Self { place: Place::new(&record.name, netns, record.v4, record.v6), record }
    }

    /// What it was made from.
    #[must_use]
    pub fn record(&self) -> &PodRecord {
        &self.record
    }

    /// Its name as policies and flows have it.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.record.namespace, self.record.pod_name)
    }

    /// Calls DEL and removes the namespace.
    pub(super) fn delete(&self, node: &Node) -> Result<()> {
        self.end_servers();
        let call = Call::new("DEL", &self.record.container_id, self.netns());
        node.cni(&call)?.into_result().with_context(|| format!("disconnecting pod {}", self.record.name))?;
        self.netns().remove()
    }

    fn connect(node: &Node, object: &PodObject, netns: &Netns, container_id: &str) -> Result<Vec<IpAddr>> {
        let mut call = Call::new("ADD", container_id, netns);
        call.arguments = arguments(object);
        let answer = node.cni(&call)?;
        answer.clone().into_result()?;
        answer.addresses()
    }
}

impl Deref for Pod {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

/// `CNI_ARGS` as containerd writes them for a pod.
#[must_use]
pub fn arguments(object: &PodObject) -> String {
    format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_UID={}",
        object.namespace, object.name, object.uid
    )
}
