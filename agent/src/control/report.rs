//! What the agent says of its node in the store: endpoints for the other nodes, statuses for the authors of objects.
//!
//! Both are computed whole from what is so, and [`Told`] writes the difference to what was said before.
//!
//! Neighbours: `super` calls after each batch; `crate::store` writes.

use std::collections::BTreeMap;

use sinew_api::identity::Identity;
use sinew_api::object::{Endpoint, ObjectKind, ObjectName, Origin, PolicyName, Problem, Refused};
use sinew_engine::EndpointId;
use sinew_engine::snapshot::{EndpointView, Force, PolicyState, PolicyView, Snapshot};

use crate::file_name;
use crate::store::{ObjectState, ObjectStatus, StoreWrite};

/// What was said last.
#[derive(Debug, Default)]
pub(super) struct Told {
    endpoints: BTreeMap<String, Endpoint>,
    /// Nothing was said yet in this run if there is none.
    statuses: Option<BTreeMap<ObjectName, ObjectStatus>>,
    /// Nothing was said yet in this run if there is none; an earlier run's word may stand there.
    unreadable: Option<Vec<Problem>>,
}

impl Told {
    /// The same for documents that can't be read.
    pub(super) fn unreadable(&mut self, problems: &[Problem]) -> Option<StoreWrite> {
        if self.unreadable.as_deref() == Some(problems) {
            return None;
        }
        self.unreadable = Some(problems.to_vec());
        Some(StoreWrite::Unreadable(problems.to_vec()))
    }

    /// Takes over what an earlier run said, as far as the store shows it: an endpoint of this node that is no more is
    /// taken back then.
    pub(super) fn found(&mut self, endpoint: Endpoint) {
        self.endpoints.entry(endpoint.name.clone()).or_insert(endpoint);
    }

    /// What has to be written to say what is so now.
    pub(super) fn difference(
        &mut self,
        endpoints: BTreeMap<String, Endpoint>,
        statuses: BTreeMap<ObjectName, ObjectStatus>,
    ) -> Vec<StoreWrite> {
        let mut writes = Vec::new();
        for name in self.endpoints.keys().filter(|name| !endpoints.contains_key(*name)) {
            writes.push(StoreWrite::EndpointGone(name.clone()));
        }
        for (name, endpoint) in &endpoints {
            if self.endpoints.get(name) != Some(endpoint) {
                writes.push(StoreWrite::Endpoint(Box::new(endpoint.clone())));
            }
        }
        let said = match self.statuses.take() {
            Some(said) => said,
            None => {
                // An earlier run's word may stand anywhere.
                writes.push(StoreWrite::KeepStatuses(statuses.keys().cloned().collect()));
                BTreeMap::new()
            }
        };
        for name in said.keys().filter(|name| !statuses.contains_key(*name)) {
            writes.push(StoreWrite::StatusGone(name.clone()));
        }
        for (name, status) in &statuses {
            let before = said.get(name);
            if before != Some(status) {
                let refused = |status: &ObjectStatus| status.state == ObjectState::Refused;
                if refused(status) && !before.is_some_and(refused) {
                    let problem = status.problems.first().map(ToString::to_string).unwrap_or_default();
                    tracing::warn!(object = %name, problem, "an object is refused");
                }
                writes.push(StoreWrite::Status(status.clone()));
            }
        }
        self.endpoints = endpoints;
        self.statuses = Some(statuses);
        writes
    }
}

/// The endpoint objects of this node. `announced` are identities that endpoints are about to have (policy.md 17).
pub(super) fn endpoints(
    snapshot: &Snapshot,
    node: &str,
    announced: &BTreeMap<EndpointId, Identity>,
) -> BTreeMap<String, Endpoint> {
    let views = snapshot.endpoints.iter();
    let objects = views.map(|(id, view)| endpoint(view, node, announced.get(id).copied()));
    objects.map(|endpoint| (endpoint.name.clone(), endpoint)).collect()
}

fn endpoint(view: &EndpointView, node: &str, announced: Option<Identity>) -> Endpoint {
    let created = &view.created;
    let moving = view.moving_to.as_ref().zip(announced).filter(|(_, identity)| *identity != view.identity);
    let (identity, previous_identity, labels) = match moving {
        Some((labels, identity)) => (identity, Some(view.identity), labels),
        None => (view.identity, None, &view.labels),
    };
    let pod = view.pod.as_deref();
    // Before its object is seen, what the runtime says.
    let uid = pod.map(|pod| &pod.uid).filter(|uid| !uid.is_empty()).unwrap_or(&created.pod_uid);
    Endpoint {
        name: object_name(&created.pod_namespace, &created.pod_name, &created.container_id, &created.ifname),
        pod_namespace: created.pod_namespace.clone(),
        pod_name: created.pod_name.clone(),
        pod_uid: uid.clone(),
        container_id: created.container_id.clone(),
        ifname: created.ifname.clone(),
        node: node.to_owned(),
        addresses: created.addresses.clone(),
        identity,
        previous_identity,
        labels: (**labels).clone(),
        ports: pod.map(|pod| pod.ports.clone()).unwrap_or_default(),
        phase: pod.and_then(|pod| pod.phase),
        workload: pod.and_then(|pod| pod.workload.clone()),
        origin: Origin::default(),
    }
}

/// The name of an endpoint's object: its pod's, made unique by the digits of its interface, which follow from container
/// id and interface name. A name that would be too long, for an object or for its file, has the digits only.
fn object_name(pod_namespace: &str, pod_name: &str, container_id: &str, ifname: &str) -> String {
    let link = crate::netlink::veth::host_link_name(container_id, ifname);
    let digits = link.trim_start_matches(crate::netlink::POD_LINK_PREFIX);
    let name = format!("{pod_namespace}.{pod_name}.{digits}");
    let is_name = sinew_api::names::subdomain(&name).is_ok() && file_name::fits(&name, ".yaml");
    if pod_name.is_empty() || !is_name {
        return format!("cni.{digits}");
    }
    name
}

/// The statuses of all objects that this node has something to say of.
pub(crate) fn statuses(snapshot: &Snapshot, refused: &[Refused]) -> BTreeMap<ObjectName, ObjectStatus> {
    let mut statuses = BTreeMap::new();
    for (name, view) in snapshot.policies.iter() {
        let name = policy_name(name);
        statuses.insert(name.clone(), policy_status(name, view));
    }
    for view in snapshot.endpoints.values() {
        if let Some(pod) = &view.pod {
            let name = ObjectName {
                kind: ObjectKind::Pod,
                namespace: pod.namespace.clone(),
                name: pod.name.clone(),
            };
            let mut status = empty(name.clone(), ObjectState::Running);
            status.addresses = view.created.addresses.clone();
            statuses.insert(name, status);
        }
    }
    for document in refused {
        let Some(name) = &document.name else { continue };
        let status =
            statuses.entry(name.clone()).or_insert_with(|| empty(name.clone(), ObjectState::Refused));
        if status.state != ObjectState::Refused {
            // Another document of this name is in force: a duplicate, or the last good version of this one.
            status.message = "a document of this name is refused".into();
        }
        status.problems.extend(document.problems.iter().cloned());
    }
    statuses
}

fn policy_status(name: ObjectName, view: &PolicyView) -> ObjectStatus {
    let state = match view.state {
        PolicyState::Enforced => ObjectState::Enforced,
        PolicyState::Audited => ObjectState::Audited,
        PolicyState::Refused => ObjectState::Refused,
        PolicyState::Pending => ObjectState::Pending,
    };
    let running = view.generation_in_force();
    let message = match (view.state, running) {
        (PolicyState::Refused, Some(running)) => format!("refused, running generation {running}"),
        (PolicyState::Refused, None) if view.force == Force::DenyAll => {
            "refused; all that it would have judged is denied".to_owned()
        }
        (PolicyState::Refused, None) => {
            "refused; its default deny and its deny rules hold, its allows do not".to_owned()
        }
        (PolicyState::Enforced | PolicyState::Audited | PolicyState::Pending, _) => String::new(),
    };
    ObjectStatus {
        generation: view.policy.generation,
        running_generation: running.unwrap_or(0),
        message,
        problems: view.problems.clone(),
        warnings: view.warnings.clone(),
        ..empty(name, state)
    }
}

fn empty(name: ObjectName, state: ObjectState) -> ObjectStatus {
    ObjectStatus {
        name,
        state,
        message: String::new(),
        generation: 0,
        running_generation: 0,
        problems: Vec::new(),
        warnings: Vec::new(),
        addresses: Vec::new(),
    }
}

fn policy_name(name: &PolicyName) -> ObjectName {
    ObjectName {
        kind: ObjectKind::Policy(name.kind),
        namespace: name.namespace.clone(),
        name: name.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_endpoints_are_names_of_objects() {
        let long = "x".repeat(250);
        for (namespace, pod) in
            [("default", "web-0"), ("", ""), ("default", &long), ("default", "Not_A_Name")]
        {
            let name = object_name(namespace, pod, "3F1C_x", "eth0");
            sinew_api::names::subdomain(&name).unwrap_or_else(|message| panic!("{name}: {message}"));
        }
        assert!(object_name("default", "web-0", "c1", "eth0").starts_with("default.web-0."));
        for characters in 200..=253 {
            let name = object_name("default", &"x".repeat(characters), "c1", "eth0");
            assert!(name.len() + ".yaml".len() <= 255, "its file can have that name: {name}");
        }
    }

    #[test]
    fn unreadable_documents_are_said_once_and_taken_back() {
        let mut told = Told::default();
        let problem = Problem { path: String::new(), message: "x".into(), origin: Origin::default() };
        assert!(told.unreadable(&[]).is_some(), "an earlier run may have left its word");
        assert!(told.unreadable(&[]).is_none());
        assert!(told.unreadable(std::slice::from_ref(&problem)).is_some());
        assert!(told.unreadable(&[problem]).is_none());
        assert_eq!(told.unreadable(&[]), Some(StoreWrite::Unreadable(Vec::new())));
    }

    #[test]
    fn only_the_difference_is_written() {
        let mut told = Told::default();
        let name = ObjectName { kind: ObjectKind::Pod, namespace: "n".into(), name: "p".into() };
        let status = empty(name.clone(), ObjectState::Running);
        let one = BTreeMap::from([(name.clone(), status.clone())]);
        // What an earlier run said of other objects goes first.
        let kept = StoreWrite::KeepStatuses([name.clone()].into());
        assert_eq!(told.difference(BTreeMap::new(), one.clone()), [kept, StoreWrite::Status(status)]);
        assert_eq!(told.difference(BTreeMap::new(), one), []);
        assert_eq!(told.difference(BTreeMap::new(), BTreeMap::new()), [StoreWrite::StatusGone(name)]);
    }
}
