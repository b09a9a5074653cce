//! What the store and the node say is so. Each event changes a fact and marks what depends on it; nothing is decided here.
//!
//! Neighbours: `state.rs` owns the facts, `policies.rs`, `locals.rs` and `subjects.rs` draw the conclusions.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use sinew_api::identity::Identity;
use sinew_api::labels::Labels;
use sinew_api::object::{CidrGroupKind, Endpoint, Namespace, Node, Pod, Routing};
use sinew_api::policy::CidrGroup;
use sinew_bpf::abi::{Address, IpcacheEntry, ipcache};
use std::sync::Arc;

use super::claims::Claimant;
use super::locals::{Local, is_same_uid};
use super::remotes::Remotes;
use super::{Engine, Stale};
use crate::event::Event;
use crate::numbers::Place;

/// The facts.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) namespaces: BTreeMap<String, Namespace>,
    /// Those whose object is refused; the last valid version, if there was one, is among `namespaces`.
    pub(super) refused_namespaces: BTreeSet<String>,
    pub(super) pods: BTreeMap<(String, String), Pod>,
    pub(super) nodes: BTreeMap<String, Node>,
    pub(super) groups: BTreeMap<(CidrGroupKind, String), CidrGroup>,
    pub(super) remotes: Remotes,
    pub(super) node_addresses: BTreeSet<IpAddr>,
}

impl Engine {
    pub(super) fn hear(&mut self, event: Event) {
        match event {
            Event::PolicyApplied(policy) => self.policy_applied(policy),
            Event::PolicyRestored(policy) => self.policy_restored(policy),
            Event::PolicyRemoved(name) => self.policy_removed(&name),
            Event::CidrGroupApplied(group) => {
                let key = (group.kind, group.name.clone());
                if self.facts.groups.get(&key) != Some(&group) {
                    self.facts.groups.insert(key, group);
                    self.groups_changed();
                }
            }
            Event::CidrGroupRemoved(kind, name) => {
                if self.facts.groups.remove(&(kind, name)).is_some() {
                    self.groups_changed();
                }
            }
            Event::PodApplied(pod) => self.pod_applied(pod),
            Event::PodRemoved { namespace, name } => {
                let key = (namespace, name);
                if self.facts.pods.remove(&key).is_some() {
                    self.pod_changed(&key);
                }
            }
            Event::NamespaceApplied(namespace) => {
                let name = namespace.name.clone();
                if self.facts.namespaces.insert(name.clone(), namespace.clone()) != Some(namespace) {
                    self.namespace_changed(&name);
                }
            }
            Event::NamespaceRemoved(name) => {
                if self.facts.namespaces.remove(&name).is_some() {
                    self.namespace_changed(&name);
                }
            }
            Event::NamespacesRefused(names) => {
                let before = std::mem::replace(&mut self.facts.refused_namespaces, names);
                let differ: Vec<String> =
                    before.symmetric_difference(&self.facts.refused_namespaces).cloned().collect();
                differ.iter().for_each(|name| self.namespace_changed(name));
            }
            Event::NodeApplied(node) => {
                let name = node.name.clone();
                let old = self.facts.nodes.insert(name.clone(), node.clone());
                let same = old.is_some_and(|old| {
                    (old.id, old.addresses, old.pod_cidrs) == (node.id, node.addresses, node.pod_cidrs)
                });
                if !same {
                    self.node_changed(&name);
                }
            }
            Event::NodeRemoved(name) => {
                if self.facts.nodes.remove(&name).is_some() {
                    self.node_changed(&name);
                }
            }
            Event::RemoteEndpointApplied(endpoint) => {
                if endpoint.node != self.config.node {
                    self.remote_applied(endpoint);
                }
            }
            Event::RemoteEndpointRemoved(name) => self.remote_removed(&name),
            Event::IdentityApplied(number, labels) => self.identity_applied(number, Arc::new(labels)),
            Event::IdentityRemoved(number) => {
                if self.matchers.identities().contains_key(&number) && number >= Identity::FIRST_ALLOCATED {
                    self.departing.insert(number);
                }
            }
            Event::EndpointCreated(created) => {
                let id = created.id;
                self.stale.endpoints = true;
                if let Some(old) = self.locals.insert(id, Local::new(created)) {
                    self.leave_subjects(id, &old.subjects());
                }
                self.dirty.locals.insert(id);
            }
            Event::EndpointRemoved(id) => {
                if self.locals.contains_key(&id) {
                    self.close(id);
                    self.dirty.closing.insert(id);
                }
            }
            Event::NodeAddresses(addresses) => {
                let addresses: BTreeSet<IpAddr> =
                    addresses.into_iter().filter(|address| !address.is_loopback()).collect();
                if self.facts.node_addresses != addresses {
                    self.facts.node_addresses = addresses;
                    self.own_node_changed();
                }
            }
            Event::Found(found) => self.written.found(found),
            Event::Synced => {
                if !self.synced {
                    self.synced = true;
                    self.stale = Stale::ALL;
                    self.first_lists_complete();
                }
            }
            Event::RelabelDone(id, identity) => self.relabel_done(id, identity),
        }
    }

    fn pod_applied(&mut self, pod: Pod) {
        let key = (pod.namespace.clone(), pod.name.clone());
        if self.facts.pods.get(&key) != Some(&pod) {
            // Policies warn of pods that they look as if they selected.
            self.stale.policies |= pod.host_network;
            self.facts.pods.insert(key.clone(), pod);
            self.pod_changed(&key);
        }
    }

    fn pod_changed(&mut self, key: &(String, String)) {
        // Its workload and ports are told, whether or not they decide anything.
        self.stale.endpoints = true;
        self.stale.addresses = true;
        let locals = self.locals.iter().filter(|(_, local)| local.is_of(key)).map(|(id, _)| *id);
        self.dirty.locals.extend(locals);
        for name in self.facts.remotes.of_pod(key) {
            self.claim_remote(&name);
        }
    }

    fn namespace_changed(&mut self, name: &str) {
        let locals = self.locals.iter().filter(|(_, local)| local.created.pod_namespace == name);
        self.dirty.locals.extend(locals.map(|(id, _)| *id));
    }

    fn remote_applied(&mut self, endpoint: Endpoint) {
        // The object says what its identity stands for, and may be seen before the identity's own.
        if endpoint.identity >= Identity::FIRST_ALLOCATED
            && !self.matchers.identities().contains_key(&endpoint.identity)
        {
            self.identity_applied(endpoint.identity, Arc::new(endpoint.labels.clone()));
        }
        if let Some(name) = self.facts.remotes.set(endpoint) {
            self.stale.addresses = true;
            self.claim_remote(&name);
        }
    }

    fn remote_removed(&mut self, name: &str) {
        if let Some(name) = self.facts.remotes.remove(name) {
            self.claim_remote(&name);
        }
    }

    /// The addresses of another node's endpoint: none once its pod is over (policy.md 9), and its old identity while it
    /// is relabelled (policy.md 17).
    pub(super) fn claim_remote(&mut self, name: &Arc<str>) {
        let claimant = Claimant::Remote(Arc::clone(name));
        let mut claims = BTreeMap::new();
        let mut ports = None;
        if let Some(endpoint) = self.facts.remotes.get(name) {
            let pod =
                self.facts.pods.get(&(endpoint.pod_namespace.to_string(), endpoint.pod_name.to_string()));
            let same = |pod: &&Pod| is_same_uid(&pod.uid, &endpoint.pod_uid);
            let over = endpoint.phase.is_some_and(|phase| phase.is_over())
                || pod.filter(same).and_then(|pod| pod.phase).is_some_and(|phase| phase.is_over());
            let identity = endpoint.previous_identity.unwrap_or(endpoint.identity);
            if !over {
                let (node_id, tunnel, flags) = self.way_to(&endpoint.node);
                let entry =
                    IpcacheEntry { identity: identity.0, node_id, flags, tunnel, ..Default::default() };
                claims.extend(endpoint.addresses.iter().map(|address| (*address, entry)));
            }
            ports = Some((identity, super::locals::named_ports(&endpoint.ports)));
        }
        self.claims.set(&claimant, claims);
        self.set_peer_ports(claimant, ports);
    }

    /// Number, tunnel address and flags of what is on another node.
    fn way_to(&self, node: &str) -> (u16, Address, u16) {
        let node = self.facts.nodes.get(node);
        let id = node.map_or(0, |node| node.id);
        if self.config.routing != Routing::Vxlan {
            return (id, Address::NONE, 0);
        }
        let own = self.facts.nodes.get(&self.config.node).map_or(&[][..], |own| &own.addresses);
        let tunnel = node.and_then(|node| tunnel_address(&node.addresses, own));
        // Where no tunnel leads, nothing goes: bare on the wire it would be nobody's.
        (id, tunnel.map_or(Address::NONE, Address::from), ipcache::flag::TUNNEL)
    }

    fn node_changed(&mut self, name: &str) {
        self.dirty.places = true;
        if name == self.config.node {
            self.own_node_changed();
            let locals: Vec<_> = self.locals.keys().copied().collect();
            self.dirty.locals.extend(locals);
            // Which family a tunnel takes follows from both ends.
            let others: Vec<_> = self.facts.nodes.keys().filter(|other| *other != name).cloned().collect();
            others.iter().for_each(|other| self.claim_node(other));
            return;
        }
        self.claim_node(name);
    }

    pub(super) fn claim_node(&mut self, name: &str) {
        let (node_id, tunnel, mut flags) = self.way_to(name);
        if tunnel.is_none() {
            // A node that no tunnel leads to is on the wire, as it was before there were pods.
            flags = 0;
        }
        let entry = |address: &IpAddr| {
            // An API server on a node is reached as the node is.
            let identity = match self.config.is_apiserver(address) {
                true => Identity::KUBE_APISERVER,
                false => Identity::REMOTE_NODE,
            };
            let flags = flags | ipcache::flag::REMOTE_NODE;
            IpcacheEntry { identity: identity.0, node_id, flags, tunnel, ..Default::default() }
        };
        let node = self.facts.nodes.get(name);
        let addresses = node.map(|node| node.addresses.as_slice()).unwrap_or_default();
        let claims = addresses.iter().map(|address| (*address, entry(address))).collect();
        self.claims.set(&Claimant::Node(name.into()), claims);
        for remote in self.facts.remotes.on_node(name) {
            self.claim_remote(&remote);
        }
    }

    fn own_node_changed(&mut self) {
        self.dirty.places = true;
        let own = self.facts.nodes.get(&self.config.node);
        let entry = IpcacheEntry {
            identity: Identity::HOST.0,
            node_id: own.map_or(0, |node| node.id),
            flags: ipcache::flag::LOCAL_NODE,
            ..Default::default()
        };
        let named = own.iter().flat_map(|node| node.addresses.iter());
        let claims = self.facts.node_addresses.iter().chain(named).map(|address| (*address, entry)).collect();
        self.claims.set(&Claimant::OwnNode, claims);
        self.place_host();
    }

    /// The host is the API server too, as in Cilium, where this node has an address of it.
    fn place_host(&mut self) {
        let own = self.facts.nodes.get(&self.config.node);
        let named = own.iter().flat_map(|node| node.addresses.iter());
        let is_apiserver =
            self.facts.node_addresses.iter().chain(named).any(|address| self.config.is_apiserver(address));
        let mut labels = Labels::reserved("host");
        if is_apiserver {
            labels.insert("reserved", "kube-apiserver", "");
        }
        if self.matchers.identities().get(&Identity::HOST).is_some_and(|old| **old == labels) {
            return;
        }
        let before = self.matchers.remove_identity(Identity::HOST);
        let after = self.matchers.add_identity(Identity::HOST, Arc::new(labels));
        self.dirty.matchers.extend(before.into_iter().chain(after));
        self.stale.identities = true;
    }

    /// What else the API server is where it is not the host, as in Cilium: on another node that node, outside the cluster
    /// the world. Addresses of either kind have one identity, so a table holds what is allowed to all of them
    /// (`policy/compile.rs`).
    pub(super) fn place_apiserver(&mut self) {
        let moved =
            self.dirty.places || self.claims.changed().any(|address| self.config.is_apiserver(&address));
        if !moved {
            return;
        }
        let addresses = self.config.kube_apiserver.iter().flatten();
        let kinds: BTreeSet<Labels> =
            addresses.filter_map(|address| self.kind_of_apiserver(*address)).collect();
        let nowhere = kinds.is_empty().then(|| Labels::reserved("kube-apiserver"));
        if let Some(changed) = self.matchers.set_apiserver(kinds.into_iter().chain(nowhere).collect()) {
            self.stale.identities = true;
            self.dirty.matchers.extend(changed);
        }
        // What two tables both allow follows from which classes hold its addresses, too.
        let moving = self.locals.iter().filter(|(_, local)| local.moving.is_some());
        self.dirty.endpoints.extend(moving.map(|(id, _)| *id));
    }

    /// What an address of the API server's identity is, if it is one.
    pub(super) fn kind_of_apiserver(&self, address: IpAddr) -> Option<Labels> {
        let mut labels = Labels::reserved("kube-apiserver");
        let also = match self.claims.holder(address)?.0 {
            Claimant::Node(_) if self.config.is_apiserver(&address) => Some("remote-node"),
            // Unassigned addresses of pods are nobody's, and no one's world.
            Claimant::KubeApiserver if self.place_of(address) == Place::World => {
                self.world_identity(address).reserved_name()
            }
            Claimant::KubeApiserver => None,
            _ => return None,
        };
        also.into_iter().for_each(|name| labels.insert("reserved", name, ""));
        Some(labels)
    }

    /// A number and what it stands for. One that is known keeps its meaning: numbers are never reused while packets
    /// of the old meaning may live (policy.md 18).
    fn identity_applied(&mut self, number: Identity, labels: Arc<Labels>) {
        if number < Identity::FIRST_ALLOCATED || number.scope() != 0 {
            return;
        }
        self.departing.remove(&number);
        if self.matchers.identities().contains_key(&number) {
            return;
        }
        self.requested.remove(&labels);
        let waiting = self.locals.iter().filter(|(_, local)| local.wants(&labels)).map(|(id, _)| *id);
        self.dirty.locals.extend(waiting);
        self.by_labels.entry(Arc::clone(&labels)).or_default().insert(number);
        let changed = self.matchers.add_identity(number, labels);
        self.dirty.matchers.extend(changed);
        self.dirty.arrived.insert(number);
    }
}

/// Where the tunnel to another node ends. Both ends have to come to the same family, whatever the order of their
/// addresses, since each takes the other's packets from that address only: IPv4 where both have it, else IPv6.
fn tunnel_address(theirs: &[IpAddr], own: &[IpAddr]) -> Option<IpAddr> {
    let of =
        |addresses: &[IpAddr], v4: bool| addresses.iter().find(|address| address.is_ipv4() == v4).copied();
    let common = [true, false].into_iter().filter(|v4| own.is_empty() || of(own, *v4).is_some());
    common.filter_map(|v4| of(theirs, v4)).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_a_tunnel_come_to_the_same_family() {
        let addresses = |list: &str| -> Vec<IpAddr> {
            list.split_whitespace().map(|address| address.parse().unwrap()).collect()
        };
        let (v4, v6) = ("192.0.2.1", "2001:db8::1");
        for (theirs, own, expected) in [
            ("192.0.2.1 2001:db8::1", "2001:db8::2 192.0.2.2", Some(v4)),
            ("2001:db8::1 192.0.2.1", "192.0.2.2 2001:db8::2", Some(v4)),
            ("192.0.2.1 2001:db8::1", "2001:db8::2", Some(v6)),
            ("2001:db8::1", "192.0.2.2 2001:db8::2", Some(v6)),
            ("2001:db8::1", "192.0.2.2", None),
            // This node's own object has not come yet.
            ("2001:db8::1 192.0.2.1", "", Some(v4)),
        ] {
            let found = tunnel_address(&addresses(theirs), &addresses(own));
            assert_eq!(
                found.map(|address| address.to_string()).as_deref(),
                expected,
                "{theirs} from {own:?}"
            );
        }
    }
}
