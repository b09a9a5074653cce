//! Endpoints of this node: which labels each has, which identity follows from them, and the move from one to another
//! (policy.md 8, 9, 17).
//!
//! Neighbours: `subjects.rs` keeps a table for each label set in use, `facts.rs` hears of pods and identities.

use std::collections::BTreeMap;
use std::sync::Arc;

use sinew_api::identity::Identity;
use sinew_api::labels::Labels;
use sinew_api::object::{NamedPort, Namespace, Pod};
use sinew_bpf::abi::IpcacheEntry;

use super::Engine;
use super::claims::Claimant;
use crate::change::{Change, EndpointId};
use crate::event::LocalEndpoint;
use crate::policy::compile::{NamedPorts, Subject};

/// An endpoint of this node.
#[derive(Clone, Debug)]
pub(super) struct Local {
    pub(super) created: LocalEndpoint,
    /// The pod as it was last seen; it stays when the object goes (policy.md 9).
    pub(super) pod: Option<Arc<Pod>>,
    /// What its packets carry.
    pub(super) identity: Identity,
    /// What `identity` stands for.
    pub(super) labels: Arc<Labels>,
    /// Where it moves to.
    pub(super) moving: Option<Moving>,
    pub(super) ports: Arc<NamedPorts>,
}

/// A relabel under way.
#[derive(Clone, Debug)]
pub(super) struct Moving {
    pub(super) labels: Arc<Labels>,
    /// The number of `labels`, once it is known and announced.
    pub(super) announced: Option<Identity>,
}

impl Local {
    pub(super) fn new(created: LocalEndpoint) -> Self {
        let identity = created.found.unwrap_or(Identity::INIT);
        Self {
            created,
            pod: None,
            identity,
            labels: Arc::new(Labels::reserved("init")),
            moving: None,
            ports: Arc::default(),
        }
    }

    /// Whether it is of a pod of this name.
    pub(super) fn is_of(&self, pod: &(String, String)) -> bool {
        self.created.pod_name == pod.1 && self.created.pod_namespace == pod.0
    }

    /// Whether the object of its pod's name is its pod's. A pod that was made anew under the name of one that is deleted
    /// (StatefulSets do) has another uid, and the older object may still be the one that is known. Where either has none,
    /// the name decides.
    pub(super) fn is_described_by(&self, pod: &Pod) -> bool {
        is_same_uid(&self.created.pod_uid, &pod.uid)
    }

    /// Whether it needs the number of these labels.
    pub(super) fn wants(&self, labels: &Labels) -> bool {
        match &self.moving {
            Some(moving) => *moving.labels == *labels,
            None => *self.labels != *labels,
        }
    }

    /// The subjects whose tables it enforces: one, or two while it moves.
    pub(super) fn subjects(&self) -> Vec<Subject> {
        let subject =
            |labels: &Arc<Labels>| Subject { labels: Arc::clone(labels), ports: Arc::clone(&self.ports) };
        let mut subjects = vec![subject(&self.labels)];
        subjects.extend(self.moving.as_ref().map(|moving| subject(&moving.labels)));
        subjects.dedup();
        subjects
    }
}

impl Engine {
    /// Draws the conclusions for one endpoint: labels, identity, address, subjects.
    pub(super) fn settle_local(&mut self, id: EndpointId, changes: &mut Vec<Change>) {
        let Some(mut local) = self.locals.remove(&id) else { return };
        let before = local.subjects();
        let pod = (local.created.pod_namespace.clone(), local.created.pod_name.clone());
        if let Some(pod) = self.facts.pods.get(&pod).filter(|pod| !pod.host_network)
            && local.is_described_by(pod)
            && local.pod.as_deref() != Some(pod)
        {
            local.pod = Some(Arc::new(pod.clone()));
        }
        if let Some(pod) = &local.pod {
            local.ports = Arc::new(named_ports(&pod.ports));
        }
        // What an endpoint found at start stands for, before anything else may change it.
        if local.created.found == Some(local.identity)
            && let Some(labels) = self.matchers.identities().get(&local.identity)
        {
            local.labels = Arc::clone(labels);
        }
        if self.synced {
            let target = self.labels_of(&local);
            self.pursue(id, &mut local, target, changes);
        }
        let over = local.pod.as_ref().and_then(|pod| pod.phase).is_some_and(|phase| phase.is_over());
        let node_id = self.facts.nodes.get(&self.config.node).map_or(0, |node| node.id);
        let entry = IpcacheEntry { identity: local.identity.0, node_id, ..Default::default() };
        let claims = match over {
            true => BTreeMap::new(),
            false => local.created.addresses.iter().map(|address| (*address, entry)).collect(),
        };
        self.claims.set(&Claimant::Local(id), claims);
        self.set_peer_ports(Claimant::Local(id), Some((local.identity, (*local.ports).clone())));
        let after = local.subjects();
        self.locals.insert(id, local);
        self.leave_subjects(id, &before);
        self.join_subjects(id, &after);
        self.dirty.endpoints.insert(id);
    }

    /// The labels that an endpoint should have.
    fn labels_of(&self, local: &Local) -> Arc<Labels> {
        if let Some(pod) = &local.pod {
            let namespace = &pod.namespace;
            if self.facts.refused_namespaces.contains(namespace)
                && !self.facts.namespaces.contains_key(namespace)
            {
                // What its namespace says is not known: a new one stays `init`, others keep what they had.
                return Arc::clone(&local.labels);
            }
            return Arc::new(self.labels_of_pod(pod));
        }
        // Found at start, and its pod is gone already: it keeps what it had.
        if local.created.found == Some(local.identity) {
            return Arc::clone(&local.labels);
        }
        if !local.created.pod_name.is_empty() {
            return Arc::clone(&local.labels);
        }
        let labels = Labels::of_cni(&local.created.labels, &self.config.labels);
        Arc::new(if labels.is_empty() { Labels::reserved("unmanaged") } else { labels })
    }

    /// The labels of a pod's identity.
    pub(super) fn labels_of_pod(&self, pod: &Pod) -> Labels {
        let bare;
        let namespace = match self.facts.namespaces.get(&pod.namespace) {
            Some(namespace) => namespace,
            None => {
                bare = Namespace::bare(&pod.namespace);
                &bare
            }
        };
        Labels::of_pod(pod, namespace, &self.config.cluster, &self.config.labels)
    }

    /// Takes an endpoint towards a label set: at once from `init`, else by announcing it first.
    fn pursue(&mut self, id: EndpointId, local: &mut Local, target: Arc<Labels>, changes: &mut Vec<Change>) {
        let number = self.number_of(&target);
        if number == Some(local.identity) {
            local.labels = target;
            local.moving = None;
            return;
        }
        if number.is_none() && self.requested.insert(Arc::clone(&target)) {
            changes.push(Change::AllocateIdentity((*target).clone()));
        }
        if local.identity < Identity::FIRST_ALLOCATED {
            // It was nobody yet that others know: nothing to move from.
            if let Some(number) = number {
                local.identity = number;
                local.labels = target;
                local.moving = None;
            }
            return;
        }
        let announced = local.moving.as_ref().filter(|moving| moving.labels == target);
        let announced = announced.and_then(|moving| moving.announced);
        local.moving = Some(Moving { labels: target, announced: number });
        if let Some(number) = number
            && announced != Some(number)
        {
            self.announcements.push(Change::Announce { endpoint: id, identity: number });
        }
    }

    /// The number of a label set: reserved, or the lowest that is not about to go.
    pub(super) fn number_of(&self, labels: &Labels) -> Option<Identity> {
        for name in ["init", "unmanaged"] {
            if labels.get("reserved", name).is_some() {
                return Identity::RESERVED
                    .iter()
                    .find(|(_, known)| *known == name)
                    .map(|(number, _)| *number);
            }
        }
        let numbers = self.by_labels.get(labels)?;
        numbers.iter().find(|number| !self.departing.contains(number)).copied()
    }

    pub(super) fn relabel_done(&mut self, id: EndpointId, identity: Identity) {
        let Some(local) = self.locals.get_mut(&id) else { return };
        let Some(moving) = &local.moving else { return };
        // An answer to an announcement that has been overtaken says nothing about the newer one.
        if moving.announced != Some(identity) {
            return;
        }
        let before = local.subjects();
        local.created.found = None;
        local.identity = identity;
        local.labels = Arc::clone(&moving.labels);
        local.moving = None;
        self.leave_subjects(id, &before);
        let after = self.locals.get(&id).map(Local::subjects).unwrap_or_default();
        self.join_subjects(id, &after);
        self.dirty.locals.insert(id);
    }
}

/// Whether two uids may be one pod's: an empty one is not known.
pub(super) fn is_same_uid(one: &str, other: &str) -> bool {
    one.is_empty() || other.is_empty() || one == other
}

/// Ports by name and protocol.
pub(super) fn named_ports(ports: &[NamedPort]) -> NamedPorts {
    let mut named = NamedPorts::new();
    for port in ports {
        let numbers = named.entry((port.name.clone(), port.protocol)).or_default();
        numbers.push(port.port);
        numbers.sort_unstable();
        numbers.dedup();
    }
    named
}
