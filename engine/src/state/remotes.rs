//! Endpoints of other nodes: as much of each as decides something or is shown.
//!
//! A node holds those of the whole cluster, so that names are shared and nothing is kept that nobody asks for. Neighbours:
//! `facts.rs` hears of them, `views.rs` and `lend.rs` show them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use sinew_api::identity::Identity;
use sinew_api::object::{Endpoint, NamedPort, PodPhase, Workload};

/// All of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Remotes {
    by_name: BTreeMap<Arc<str>, Remote>,
    /// Namespace and name of the pod, name of the endpoint.
    by_pod: BTreeSet<(Arc<str>, Arc<str>, Arc<str>)>,
    /// Names of namespaces and nodes, one copy of each.
    names: BTreeSet<Arc<str>>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remote {
    pub(super) pod_namespace: Arc<str>,
    pub(super) pod_name: Arc<str>,
    pub(super) pod_uid: Box<str>,
    pub(super) node: Arc<str>,
    pub(super) addresses: Box<[IpAddr]>,
    pub(super) identity: Identity,
    pub(super) previous_identity: Option<Identity>,
    pub(super) ports: Box<[NamedPort]>,
    pub(super) phase: Option<PodPhase>,
    pub(super) workload: Option<Arc<Workload>>,
}

impl Remotes {
    /// Takes in an endpoint object. Its name, if that changes anything.
    pub(super) fn set(&mut self, endpoint: Endpoint) -> Option<Arc<str>> {
        let remote = Remote {
            pod_namespace: self.shared(&endpoint.pod_namespace),
            pod_name: endpoint.pod_name.into(),
            pod_uid: endpoint.pod_uid.into(),
            node: self.shared(&endpoint.node),
            addresses: endpoint.addresses.into(),
            identity: endpoint.identity,
            previous_identity: endpoint.previous_identity,
            ports: endpoint.ports.into(),
            phase: endpoint.phase,
            workload: endpoint.workload.map(Arc::new),
        };
        if self.by_name.get(endpoint.name.as_str()) == Some(&remote) {
            return None;
        }
        let name = self.remove(&endpoint.name).unwrap_or_else(|| endpoint.name.into());
        let pod = (Arc::clone(&remote.pod_namespace), Arc::clone(&remote.pod_name), Arc::clone(&name));
        self.by_pod.insert(pod);
        self.by_name.insert(Arc::clone(&name), remote);
        Some(name)
    }

    /// Forgets an endpoint. Its name, if it was known.
    pub(super) fn remove(&mut self, name: &str) -> Option<Arc<str>> {
        let (name, Remote { pod_namespace, pod_name, node, .. }) = self.by_name.remove_entry(name)?;
        let pod = (pod_namespace, pod_name, name);
        self.by_pod.remove(&pod);
        let (pod_namespace, _, name) = pod;
        for shared in [pod_namespace, node] {
            // The one in `names` and this one. What a snapshot still shows stays: some bytes for a namespace.
            if Arc::strong_count(&shared) == 2 {
                self.names.remove(&shared);
            }
        }
        Some(name)
    }

    /// The endpoint object of that name.
    pub(super) fn get(&self, name: &str) -> Option<&Remote> {
        self.by_name.get(name)
    }

    /// Names of a pod's endpoint objects.
    pub(super) fn of_pod(&self, (namespace, pod): &(String, String)) -> Vec<Arc<str>> {
        let first = (Arc::from(namespace.as_str()), Arc::from(pod.as_str()), Arc::from(""));
        let of_pod =
            self.by_pod.range(first..).take_while(|(of, name, _)| **of == **namespace && **name == **pod);
        of_pod.map(|(_, _, name)| Arc::clone(name)).collect()
    }

    /// Names of the endpoint objects of a node.
    pub(super) fn on_node(&self, node: &str) -> Vec<Arc<str>> {
        let there = self.by_name.iter().filter(|(_, remote)| *remote.node == *node);
        there.map(|(name, _)| Arc::clone(name)).collect()
    }

    /// Every pod that has an endpoint: its namespace and name, once for each endpoint.
    pub(super) fn pods(&self) -> impl Iterator<Item = (String, String)> {
        self.by_pod.iter().map(|(namespace, pod, _)| (namespace.to_string(), pod.to_string()))
    }

    fn shared(&mut self, name: &str) -> Arc<str> {
        if let Some(name) = self.names.get(name) {
            return Arc::clone(name);
        }
        let name: Arc<str> = name.into();
        self.names.insert(Arc::clone(&name));
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sinew_api::labels::Labels;
    use sinew_api::object::Origin;

    fn endpoint(name: &str, pod: &str) -> Endpoint {
        Endpoint {
            name: name.into(),
            pod_namespace: "shop".into(),
            pod_name: pod.into(),
            pod_uid: String::new(),
            container_id: "c".into(),
            ifname: "eth0".into(),
            node: "b".into(),
            addresses: vec![IpAddr::from([10, 0, 0, 1])],
            identity: Identity(1000),
            previous_identity: None,
            labels: Labels::new(),
            ports: Vec::new(),
            phase: None,
            workload: None,
            origin: Origin::default(),
        }
    }

    #[test]
    fn only_what_decides_is_a_change() {
        let mut remotes = Remotes::default();
        assert_eq!(remotes.set(endpoint("one", "web")).as_deref(), Some("one"));
        let elsewhere = Origin { file: "moved.yaml".into(), line: 7 };
        assert_eq!(remotes.set(Endpoint { origin: elsewhere, ..endpoint("one", "web") }), None);
        let relabelled = Endpoint { identity: Identity(1001), ..endpoint("one", "web") };
        assert_eq!(remotes.set(relabelled).as_deref(), Some("one"));
    }

    #[test]
    fn a_pod_may_have_several_and_its_name_may_begin_anothers() {
        let mut remotes = Remotes::default();
        for (name, pod) in [("one", "web"), ("two", "web"), ("three", "web-1"), ("four", "we")] {
            remotes.set(endpoint(name, pod));
        }
        let of = |remotes: &Remotes, pod: &str| {
            remotes.of_pod(&("shop".into(), pod.into())).iter().map(|it| it.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(of(&remotes, "web"), ["one", "two"]);
        // It is another pod's now.
        remotes.set(endpoint("one", "web-1"));
        assert_eq!(
            (of(&remotes, "web"), of(&remotes, "web-1")),
            (vec!["two".into()], vec!["one".into(), "three".into()])
        );
        assert_eq!(remotes.remove("nobody"), None);
    }

    #[test]
    fn names_are_shared_and_leave_with_the_last_user() {
        let mut remotes = Remotes::default();
        remotes.set(endpoint("one", "web"));
        remotes.set(endpoint("two", "db"));
        let of = |name: &str| remotes.get(name).unwrap();
        assert!(Arc::ptr_eq(&of("one").node, &of("two").node));
        assert_eq!(remotes.names.len(), 2, "shop and b");
        remotes.remove("one");
        assert_eq!(remotes.names.len(), 2);
        remotes.remove("two");
        assert!(remotes.names.is_empty() && remotes.by_pod.is_empty());
    }
}
