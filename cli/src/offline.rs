//! The engine of a node that does not run: a folder's objects, with every pod as an endpoint of this one node.
//!
//! What an agent would do with the engine's answers (give identities their numbers, wait for other nodes) is done here at
//! once. Neighbours: `folder.rs` reads the objects; `validate`, `explain --from-folder` and `simulate` ask.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context, Result};
use ipnet::IpNet;
use sinew_api::identity::Identity;
use sinew_api::object::{Endpoint, Object, ObjectKind, Pod};
use sinew_api::proto::agent::{ExplainRequest, ExplainResponse};
use sinew_engine::explain::{Party, Query};
use sinew_engine::{Change, Config, EndpointId, Engine, Event, LocalEndpoint};

use crate::failure::Failure;
use crate::folder::Folder;

/// The node's name: no object can have it, since it is no DNS label.
const NODE: &str = "(offline)";

/// First global identity that is given to labels without a number.
const FIRST: u32 = 256;

/// An engine that has heard everything that a folder says.
pub(crate) struct Offline {
    /// The engine, synced.
    pub(crate) engine: Engine,
}

impl Offline {
    /// Feeds an engine.
    ///
    /// # Errors
    /// More pods than a node can have.
    pub(crate) fn new(folder: &Folder) -> Result<Self> {
        let mut engine = Engine::new(config(folder), []);
        let mut numbers = Numbers::of(folder);
        let refused = folder.refused.iter().filter_map(|document| document.name.as_ref());
        let namespaces = refused.filter(|name| name.kind == ObjectKind::Namespace);
        let namespaces = namespaces.map(|name| name.name.clone()).collect();
        let mut events = vec![Event::NamespacesRefused(namespaces)];
        for object in &folder.objects {
            match object {
                // It becomes one of this node's own below.
                Object::Endpoint(endpoint) => {
                    events.push(Event::IdentityApplied(endpoint.identity, endpoint.labels.clone()));
                }
                other => events.push(Event::from(other.clone())),
            }
        }
        let endpoints = endpoints(folder)?;
        events.extend(endpoints.into_iter().map(Event::EndpointCreated));
        events.push(Event::Synced);
        while !events.is_empty() {
            let changes = engine.apply(events);
            events = changes.into_iter().filter_map(|change| numbers.answer(change)).collect();
        }
        Ok(Self { engine })
    }

    /// What an agent would answer.
    ///
    /// # Errors
    /// An end that nobody has, or a question that can't be understood.
    pub(crate) fn explain(&self, request: &ExplainRequest) -> Result<ExplainResponse, Failure> {
        self.explain_between(request, [None, None])
    }

    /// The same, where either end may be known better than a request can say.
    ///
    /// # Errors
    /// The same.
    pub(crate) fn explain_between(
        &self,
        request: &ExplainRequest,
        ends: [Option<Party>; 2],
    ) -> Result<ExplainResponse, Failure> {
        let mut query =
            Query::try_from(request).map_err(|malformed| Failure::usage(malformed.to_string()))?;
        let [from, to] = ends;
        query.from = from.unwrap_or(query.from);
        query.to = to.unwrap_or(query.to);
        let explanation =
            self.engine.explain(&query).map_err(|unknown| Failure::unknown_name(unknown.to_string()))?;
        let mut answer = explanation.to_wire(request);
        // The made-up node is no fact, and neither is the number of times that the engine has thought.
        for party in [&mut answer.from, &mut answer.to].into_iter().flatten() {
            if party.node == NODE {
                party.node.clear();
            }
        }
        answer.revision = 0;
        Ok(answer)
    }
}

/// Both families, unless the pods and pools are all of one; the cluster's ranges are the nodes' pools.
fn config(folder: &Folder) -> Config {
    let mut config = Config::new(NODE, "default");
    let mut addresses: Vec<IpAddr> = Vec::new();
    let mut ranges: BTreeSet<IpNet> = BTreeSet::new();
    for object in &folder.objects {
        match object {
            Object::Pod(pod) => addresses.extend(&pod.addresses),
            Object::Endpoint(endpoint) => addresses.extend(&endpoint.addresses),
            Object::Node(node) => {
                config.cluster.clone_from(&node.cluster);
                ranges.extend(&node.pod_cidrs);
                addresses.extend(node.pod_cidrs.iter().map(IpNet::addr));
            }
            Object::Policy(_) | Object::CidrGroup(_) | Object::Namespace(_) | Object::Identity(_) => {}
        }
    }
    if !addresses.is_empty() {
        config.v4 = addresses.iter().any(IpAddr::is_ipv4);
        config.v6 = addresses.iter().any(IpAddr::is_ipv6);
    }
    config.cluster_cidrs = ranges.into_iter().collect();
    config
}

/// Every pod that has an interface of its own, and every endpoint whose pod the folder does not have: that one keeps the
/// identity that its agent gave it.
fn endpoints(folder: &Folder) -> Result<Vec<LocalEndpoint>> {
    let mut made: Vec<LocalEndpoint> = Vec::new();
    let pods = folder.objects.iter().filter_map(|object| match object {
        Object::Pod(pod) => Some((pod.namespace.as_str(), pod.name.as_str())),
        _ => None,
    });
    let pods = pods.collect::<BTreeSet<_>>();
    for object in &folder.objects {
        let number =
            u16::try_from(made.len() + 1).context("more than 65,535 pods are too many for one node")?;
        match object {
            Object::Pod(pod) if !pod.host_network => made.push(of_pod(EndpointId(number), pod, folder)),
            Object::Endpoint(endpoint)
                if !pods.contains(&(endpoint.pod_namespace.as_str(), endpoint.pod_name.as_str())) =>
            {
                made.push(without_pod(EndpointId(number), endpoint));
            }
            _ => {}
        }
    }
    Ok(made)
}

/// A pod has the addresses that its endpoint has, or else those that its status names.
fn of_pod(id: EndpointId, pod: &Pod, folder: &Folder) -> LocalEndpoint {
    let own = folder.objects.iter().find_map(|object| match object {
        Object::Endpoint(endpoint)
            if endpoint.pod_namespace == pod.namespace && endpoint.pod_name == pod.name =>
        {
            Some(endpoint)
        }
        _ => None,
    });
    LocalEndpoint {
        id,
        container_id: own.map(|endpoint| endpoint.container_id.clone()).unwrap_or_default(),
        ifname: own.map_or_else(|| "eth0".to_owned(), |endpoint| endpoint.ifname.clone()),
        pod_namespace: pod.namespace.clone(),
        pod_name: pod.name.clone(),
        pod_uid: String::new(),
        labels: Default::default(),
        addresses: own.map_or_else(|| pod.addresses.clone(), |endpoint| endpoint.addresses.clone()),
        found: None,
    }
}

fn without_pod(id: EndpointId, endpoint: &Endpoint) -> LocalEndpoint {
    LocalEndpoint {
        id,
        container_id: endpoint.container_id.clone(),
        ifname: endpoint.ifname.clone(),
        pod_namespace: endpoint.pod_namespace.clone(),
        pod_name: endpoint.pod_name.clone(),
        pod_uid: String::new(),
        labels: Default::default(),
        addresses: endpoint.addresses.clone(),
        found: Some(endpoint.identity),
    }
}

/// Numbers for label sets that the folder gives none.
struct Numbers {
    taken: BTreeSet<Identity>,
    next: u32,
}

impl Numbers {
    fn of(folder: &Folder) -> Self {
        let taken = folder.objects.iter().filter_map(|object| match object {
            Object::Identity(identity) => Some(identity.identity),
            Object::Endpoint(endpoint) => Some(endpoint.identity),
            _ => None,
        });
        Self { taken: taken.collect(), next: FIRST }
    }

    /// What an agent would answer.
    fn answer(&mut self, change: Change) -> Option<Event> {
        match change {
            Change::AllocateIdentity(labels) => {
                while self.taken.contains(&Identity(self.next)) {
                    self.next += 1;
                }
                let number = Identity(self.next);
                self.taken.insert(number);
                Some(Event::IdentityApplied(number, labels))
            }
            Change::Announce { endpoint, identity } => Some(Event::RelabelDone(endpoint, identity)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(text: &str) -> Folder {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let read = Folder::read_any(file.path()).unwrap();
        assert_eq!(read.refused, []);
        read
    }

    const PODS: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: default, labels: {app: web}}
status: {podIPs: [{ip: 10.0.0.7}]}
---
apiVersion: v1
kind: Pod
metadata: {name: agent, namespace: default}
spec: {hostNetwork: true}
---
apiVersion: sinew.io/v1
kind: SinewEndpoint
metadata: {name: gone}
spec:
  containerID: abc
  ifname: eth0
  node: b
  addresses: [10.0.1.9]
  identity: 256
  labels: ['k8s:app=old']
";

    #[test]
    fn every_pod_is_an_endpoint_with_a_number_of_its_own() {
        let snapshot = Offline::new(&folder(PODS)).unwrap().engine.snapshot();
        let found = snapshot.endpoints.values().map(|endpoint| {
            (
                endpoint.created.pod_name.clone(),
                endpoint.identity.0,
                endpoint.labels.get("k8s", "app").map(str::to_owned),
            )
        });
        // 256 is taken, so the pod's labels get the next number; a pod on the host's network has no endpoint.
        let expected = [("web".into(), 257, Some("web".into())), (String::new(), 256, Some("old".into()))];
        assert_eq!(found.collect::<Vec<_>>(), expected);
        assert!(snapshot.synced);
    }

    #[test]
    fn the_families_are_those_of_the_pods() {
        let config = config(&folder(PODS));
        assert!(config.v4 && !config.v6);
        assert_eq!(config.cluster_cidrs, []);
    }
}
