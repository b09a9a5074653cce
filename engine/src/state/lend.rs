//! What `explain` asks of its copy of the engine: who is where, and a table, a number or an address for whom has none.
//! Nothing here is meant for the engine that the agent holds.
//!
//! Neighbours: `explain/bench.rs` asks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use sinew_api::identity::Identity;
use sinew_api::labels::{CLUSTER, Labels, NAMESPACE, NAMESPACE_LABELS_PREFIX, SERVICE_ACCOUNT};
use sinew_api::object::{CidrGroupKind, Namespace, Node, NodeStatus, Origin, Pod, PolicyName};
use sinew_api::policy::{CidrGroup, Entity, Policy, Protocol};
use sinew_api::selector::Selector;
use sinew_bpf::abi::{Address, IpcacheEntry, ipcache};
use sinew_bpf::identity::Lookup;
use sinew_bpf::source::{GATEWAY_V4, GATEWAY_V6};

use super::Engine;
use super::claims::Claimant;
use super::locals::{Local, named_ports};
use super::order::Written;
use crate::change::EndpointId;
use crate::event::{Event, LocalEndpoint};
use crate::numbers::{Cause, Direction, Place};
use crate::policy::Enforcement;
use crate::policy::classes::{ClassTrie, class_of};
use crate::policy::compile::NamedPorts;
use crate::table::PolicyTable;

/// The last number of the identities that labels without one borrow; global, and the last that the store would give.
const LAST_IDENTITY: u32 = 0x00ff_ffff;

/// Somebody who can be at an end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Somebody {
    /// Namespace and name of the pod.
    pub(crate) pod: Option<(String, String)>,
    /// `None` for labels without a number.
    pub(crate) identity: Option<Identity>,
    pub(crate) labels: Arc<Labels>,
    pub(crate) ports: Arc<NamedPorts>,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) endpoint: Option<EndpointId>,
    pub(crate) node: String,
    /// Whether policies select it.
    pub(crate) judged: bool,
}

/// Whether it is one of the addresses that every pod has as its gateway.
pub(crate) fn is_gateway(address: IpAddr) -> bool {
    [GATEWAY_V4, GATEWAY_V6].contains(&Address::from(address))
}

impl Written {
    pub(crate) fn table(&self, id: EndpointId) -> Option<&Arc<PolicyTable>> {
        self.endpoints.get(&id).map(|(_, table)| table)
    }

    pub(crate) fn classes(&self) -> impl Iterator<Item = (&IpNet, Identity)> {
        self.classes.iter().map(|(prefix, class)| (prefix, *class))
    }

    pub(crate) fn known(&self) -> impl Iterator<Item = Identity> {
        self.known.iter().copied()
    }
}

impl Engine {
    pub(crate) fn written(&self) -> &Written {
        &self.written
    }

    pub(crate) fn trie(&self) -> &ClassTrie {
        &self.trie
    }

    pub(crate) fn cidr_groups(&self) -> &BTreeMap<(CidrGroupKind, String), CidrGroup> {
        &self.facts.groups
    }

    /// Whether any pod of the cluster is known.
    pub(crate) fn has_pods(&self) -> bool {
        self.synced && self.matchers.identities().range(Identity::FIRST_ALLOCATED..).next().is_some()
    }

    /// Identities that are known, with what they stand for.
    pub(crate) fn identities(&self) -> &BTreeMap<Identity, Arc<Labels>> {
        self.matchers.identities()
    }

    /// The prefix that an address class stands for.
    pub(crate) fn prefix_of(&self, class: Identity) -> Option<IpNet> {
        self.numbers.class_of(class).map(|class| class.prefix)
    }

    /// Whether an identity that is known matches.
    pub(crate) fn anybody_matches(&self, selector: &Selector) -> bool {
        self.matchers.anybody_matches(selector)
    }

    /// Whether a pod has a port of this name: of this node's for what comes in, of the whole cluster's for what goes out.
    pub(crate) fn somebody_has_port(&self, direction: Direction, name: &str, protocol: Protocol) -> bool {
        let key = (name.to_owned(), protocol);
        match direction {
            Direction::Ingress => self.locals.values().any(|local| local.ports.contains_key(&key)),
            Direction::Egress => self.peer_ports.values().any(|ports| ports.contains_key(&key)),
        }
    }

    /// What kind of place an address is.
    pub(crate) fn place_of(&self, address: IpAddr) -> Place {
        let pods = || self.pod_ranges().iter().any(|range| range.contains(&address));
        if self.all_node_addresses().contains(&address) {
            Place::Nodes
        } else if pods() || self.strays.contains(&address) {
            Place::Pods
        } else {
            Place::World
        }
    }

    pub(crate) fn cause(&self, cookie: u32) -> Option<&Cause> {
        self.numbers.cause(cookie)
    }

    pub(crate) fn running_policy(&self, name: &PolicyName) -> Option<Arc<Policy>> {
        self.policies.get(name)?.running().cloned()
    }

    /// Policies in force, in the order of their names.
    pub(crate) fn running_policies(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.policies.values().filter_map(|stored| stored.running())
    }

    pub(crate) fn pod_names(&self) -> BTreeSet<(String, String)> {
        let locals = self.locals.values().map(|local| &local.created);
        let locals = locals.map(|created| (created.pod_namespace.clone(), created.pod_name.clone()));
        let others = self.facts.remotes.pods().chain(self.facts.pods.keys().cloned());
        locals.chain(others).filter(|(_, name)| !name.is_empty()).collect()
    }

    /// A pod of any node.
    pub(crate) fn pod(&self, pod: &(String, String)) -> Option<Somebody> {
        let named = self.locals.iter().filter(|(_, local)| local.is_of(pod));
        // Of two of one name one is about to go: the known object's is meant.
        let known = |local: &Local| self.facts.pods.get(pod).is_some_and(|pod| local.is_described_by(pod));
        if let Some((id, local)) = named.max_by_key(|(_, local)| known(local)) {
            return Some(self.local(*id, local));
        }
        if let Some(remote) = self.facts.remotes.of_pod(pod).first() {
            return self.remote(remote);
        }
        self.facts.pods.get(pod).map(|pod| self.unplaced(pod))
    }

    /// Whoever has an address, as the datapath finds it (`sinew_bpf::identity`); the world, if it is outside the cluster.
    /// `None` for an address in a range of the cluster that nobody is known to have.
    pub(crate) fn at(&self, address: IpAddr, lookup: Lookup) -> Option<Somebody> {
        let Some((claimant, entry)) = self.claims.holder(address) else {
            if lookup == Lookup::Destination && is_gateway(address) {
                // Of whichever node sends there, so it is told of none.
                return Some(self.identity(Identity::HOST, self.labels_of_identity(Identity::HOST)?));
            }
            if self.pod_ranges().iter().any(|range| range.contains(&address)) {
                return None;
            }
            let identity = self.world_identity(address);
            return Some(self.identity(identity, self.labels_of_identity(identity)?));
        };
        match claimant {
            Claimant::Local(id) => self.locals.get(id).map(|local| self.local(*id, local)),
            Claimant::Remote(name) => self.remote(name),
            Claimant::OwnNode | Claimant::KubeApiserver | Claimant::Node(_) => {
                let identity = Identity(entry.identity);
                let kind = (identity == Identity::KUBE_APISERVER).then(|| self.kind_of_apiserver(address));
                let labels = kind.flatten().map(Arc::new).or_else(|| self.labels_of_identity(identity))?;
                let mut somebody = self.identity(identity, labels);
                match claimant {
                    Claimant::OwnNode => somebody.node.clone_from(&self.config.node),
                    Claimant::Node(name) => somebody.node = name.to_string(),
                    _ => {}
                }
                Some(somebody)
            }
        }
    }

    /// Whether the ipcache calls an address a node's.
    pub(crate) fn is_node_address(&self, address: IpAddr) -> bool {
        let of_node = ipcache::flag::LOCAL_NODE | ipcache::flag::REMOTE_NODE;
        self.claims.holder(address).is_some_and(|(_, entry)| entry.flags & of_node != 0)
    }

    /// The UDP port to which no pod may send at a node.
    pub(crate) fn tunnel_port(&self) -> u16 {
        self.config.tunnel_port
    }

    /// Whether only a pod's own node knows what an address is to it: an address on the link, which every node may have on
    /// a device, or one that this node has and the store does not name.
    pub(crate) fn is_node_local(&self, address: IpAddr) -> bool {
        let on_link = match address {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        match self.claims.holder(address) {
            None => on_link,
            Some((Claimant::OwnNode, _)) => on_link || !self.published_addresses().contains(&address),
            Some(_) => false,
        }
    }

    /// Addresses of nodes that the store names. A node has others beside them, those of its subnets too.
    pub(crate) fn published_addresses(&self) -> BTreeSet<IpAddr> {
        self.facts.nodes.values().flat_map(|node| node.addresses.iter().copied()).collect()
    }

    /// What this node's devices say of an address is forgotten: another node judges.
    pub(crate) fn forget_own_address(&mut self, address: IpAddr) {
        let others = self.facts.node_addresses.iter().copied().filter(|own| *own != address).collect();
        self.hear(Event::NodeAddresses(others));
        self.reconcile();
    }

    /// The node whose engine this is.
    pub(crate) fn node(&self) -> &str {
        &self.config.node
    }

    /// Whoever has an identity.
    pub(crate) fn identity(&self, number: Identity, labels: Arc<Labels>) -> Somebody {
        let ports = self.peer_ports.get(&number).cloned().unwrap_or_default();
        let mut somebody = self.somebody_with(labels);
        somebody.identity = Some(number);
        somebody.ports = Arc::new(ports);
        somebody.addresses = self.addresses_of(number);
        somebody
    }

    /// Labels that a person wrote, with those that every pod of their namespace has beside them: the namespace's, the
    /// cluster and the service account `default`, as far as none was written. As they are, where they name no namespace
    /// or an identity has exactly them.
    pub(crate) fn completed(&self, written: &Labels) -> Labels {
        let mut labels = written.clone();
        let Some(name) = written.get("k8s", NAMESPACE) else { return labels };
        if self.number_of(written).is_some() {
            return labels;
        }
        let bare = Namespace::bare(name);
        let namespace = self.facts.namespaces.get(name).unwrap_or(&bare);
        let of_namespace = namespace.labels.iter();
        let of_namespace =
            of_namespace.map(|(key, value)| (format!("{NAMESPACE_LABELS_PREFIX}{key}"), value.as_str()));
        let of_all = [(CLUSTER, self.config.cluster.as_str()), (SERVICE_ACCOUNT, "default")];
        let of_all = of_all.map(|(key, value)| (key.to_owned(), value));
        for (key, value) in of_namespace.chain(of_all) {
            if self.config.labels.keeps("k8s", &key) && labels.get("k8s", &key).is_none() {
                labels.insert("k8s", &key, value);
            }
        }
        labels
    }

    /// Whoever has these labels, which are all that it has.
    pub(crate) fn somebody_with(&self, labels: Arc<Labels>) -> Somebody {
        // Of the reserved identities these two are endpoints' (policy.md 8).
        let mut reserved =
            Identity::RESERVED.iter().filter(|(_, name)| labels.get("reserved", name).is_some());
        let reserved = reserved.next().map(|(number, _)| *number);
        Somebody {
            pod: None,
            identity: reserved.or_else(|| self.number_of(&labels)),
            labels,
            ports: Arc::default(),
            addresses: Vec::new(),
            endpoint: None,
            node: String::new(),
            judged: reserved.is_none_or(|number| matches!(number, Identity::INIT | Identity::UNMANAGED)),
        }
    }

    pub(crate) fn labels_of_identity(&self, number: Identity) -> Option<Arc<Labels>> {
        self.matchers.identities().get(&number).cloned()
    }

    /// What a reserved identity stands for; a host or a node may be the API server too.
    pub(crate) fn labels_of_reserved(&self, number: Identity) -> Arc<Labels> {
        let bare = || Arc::new(Labels::reserved(number.reserved_name().unwrap_or_default()));
        self.labels_of_identity(number).unwrap_or_else(bare)
    }

    /// Kinds of addresses that the API server has.
    pub(crate) fn kinds_of_apiserver(&self) -> usize {
        self.matchers.kinds_of_apiserver()
    }

    /// Whether CIDRs tell addresses of an identity apart that are of one family.
    pub(crate) fn is_scattered(&self, number: Identity, v4: bool) -> bool {
        let holders = self.claims.holders().filter(|(_, _, entry)| entry.identity == number.0);
        let addresses = holders.map(|(address, ..)| address).filter(|address| address.is_ipv4() == v4);
        let mut classes = addresses.map(|address| class_of(&self.trie, address));
        let Some(first) = classes.next().filter(|_| !self.trie.is_empty()) else { return false };
        classes.any(|class| class != first)
    }

    pub(crate) fn addresses_of(&self, number: Identity) -> Vec<IpAddr> {
        let holders = self.claims.holders().filter(|(_, _, entry)| entry.identity == number.0);
        holders.map(|(address, ..)| address).take(16).collect()
    }

    /// Whether the node has IPv4, or IPv6; both, where nobody said.
    pub(crate) fn has_family(&self, v4: bool) -> bool {
        if v4 { self.config.v4 || !self.config.v6 } else { self.config.v6 || !self.config.v4 }
    }

    /// What the kernel calls an address outside the cluster.
    pub(crate) fn world_identity(&self, address: IpAddr) -> Identity {
        match address {
            _ if !(self.config.v4 && self.config.v6) => Identity::WORLD,
            IpAddr::V4(_) => Identity::WORLD_IPV4,
            IpAddr::V6(_) => Identity::WORLD_IPV6,
        }
    }

    /// What policy does to an endpoint, by [`Direction`] number.
    pub(crate) fn enforcement_of(&self, id: EndpointId) -> [Enforcement; 2] {
        let mut enforcement = [Enforcement::default(), Enforcement::default()];
        let Some(local) = self.locals.get(&id) else { return enforcement };
        for subject in local.subjects() {
            let Some(selected) = self.subjects.get(&subject) else { continue };
            for (all, one) in enforcement.iter_mut().zip(&selected.compiled.enforcement) {
                all.merge(one);
            }
        }
        enforcement
    }

    /// Whether somebody is of an entity.
    pub(crate) fn is_entity(&self, entity: Entity, number: Identity, labels: &Labels) -> bool {
        self.matchers.entity_holds(entity, number, labels)
    }

    /// A number for labels that have none.
    pub(crate) fn lend_identity(&mut self, labels: Arc<Labels>) -> Identity {
        let free = |number: &Identity| !self.matchers.identities().contains_key(number);
        let number = (0..=LAST_IDENTITY).rev().map(Identity).find(free).unwrap_or_default();
        self.hear(Event::IdentityApplied(number, (*labels).clone()));
        self.reconcile();
        number
    }

    /// A table for labels.
    pub(crate) fn lend_table(
        &mut self,
        identity: Identity,
        labels: Arc<Labels>,
        ports: Arc<NamedPorts>,
    ) -> EndpointId {
        let free = |id: &EndpointId| !self.locals.contains_key(id);
        let id = (1..=u16::MAX).rev().map(EndpointId).find(free).unwrap_or(EndpointId(0));
        let created = LocalEndpoint {
            id,
            container_id: String::new(),
            ifname: String::new(),
            pod_namespace: String::new(),
            pod_name: String::new(),
            pod_uid: String::new(),
            labels: BTreeMap::new(),
            addresses: Vec::new(),
            found: None,
        };
        let local = Local { identity, labels, ports, ..Local::new(created) };
        let subjects = local.subjects();
        self.locals.insert(id, local);
        self.join_subjects(id, &subjects);
        self.dirty.endpoints.insert(id);
        self.reconcile();
        id
    }

    /// Addresses for an endpoint that has none.
    pub(crate) fn lend_addresses(&mut self, id: EndpointId, identity: Identity, addresses: &[IpAddr]) {
        let entry = IpcacheEntry { identity: identity.0, ..IpcacheEntry::default() };
        self.claims.set(&Claimant::Local(id), addresses.iter().map(|address| (*address, entry)).collect());
        self.reconcile();
    }

    /// An address is this entity's, and a node's or not, whoever is known to have it.
    pub(crate) fn lend_place(&mut self, number: Identity, address: IpAddr, node: bool) {
        if number == Identity::KUBE_APISERVER {
            let flags = ipcache::flag::OUTSIDE;
            let entry = IpcacheEntry { identity: number.0, flags, ..IpcacheEntry::default() };
            self.claims.set(&Claimant::KubeApiserver, [(address, entry)].into());
            self.config.kube_apiserver = Some(vec![address]);
            let has_it = |node: &&Node| node.addresses.contains(&address);
            let there: Vec<String> =
                self.facts.nodes.values().filter(has_it).map(|node| node.name.clone()).collect();
            there.iter().for_each(|name| self.claim_node(name));
        }
        if number == Identity::HOST {
            let own = self.facts.node_addresses.iter().copied();
            self.hear(Event::NodeAddresses(own.chain([address]).collect()));
        } else if node && !self.all_node_addresses().contains(&address) {
            self.hear(Event::NodeApplied(Node {
                // No object can have this name, since it is no DNS label.
                name: format!("({address})"),
                cluster: self.config.cluster.clone(),
                id: 0,
                addresses: vec![address],
                pod_cidrs: Vec::new(),
                routing: self.config.routing,
                status: NodeStatus::default(),
                origin: Origin::default(),
            }));
        }
        self.reconcile();
    }

    fn local(&self, id: EndpointId, local: &Local) -> Somebody {
        let pod = (local.created.pod_namespace.clone(), local.created.pod_name.clone());
        Somebody {
            pod: Some(pod).filter(|(_, name)| !name.is_empty()),
            identity: Some(local.identity),
            labels: Arc::clone(&local.labels),
            ports: Arc::clone(&local.ports),
            addresses: local.created.addresses.clone(),
            endpoint: Some(id),
            // An engine without a node of its own (`explain --from-folder`) has pods of all.
            node: match &local.pod {
                Some(pod) if !pod.node.is_empty() => pod.node.clone(),
                _ => self.config.node.clone(),
            },
            judged: true,
        }
    }

    fn remote(&self, name: &str) -> Option<Somebody> {
        let endpoint = self.facts.remotes.get(name)?;
        let identity = endpoint.previous_identity.unwrap_or(endpoint.identity);
        let labels = self.labels_of_identity(identity)?;
        Some(Somebody {
            pod: Some((endpoint.pod_namespace.to_string(), endpoint.pod_name.to_string()))
                .filter(|(_, name)| !name.is_empty()),
            identity: Some(identity),
            labels,
            ports: Arc::new(named_ports(&endpoint.ports)),
            addresses: endpoint.addresses.to_vec(),
            endpoint: None,
            node: endpoint.node.to_string(),
            judged: true,
        })
    }

    /// Pods on the host's network, with the labels that they would have as endpoints.
    pub(crate) fn pods_on_host(&self) -> Vec<(String, Labels)> {
        let pods = self.facts.pods.values().filter(|pod| pod.host_network);
        pods.map(|pod| (format!("{}/{}", pod.namespace, pod.name), self.labels_of_pod(pod))).collect()
    }

    /// A pod that has no endpoint that we know of: one of the host network, or one that is about to start.
    fn unplaced(&self, pod: &Pod) -> Somebody {
        let name = Some((pod.namespace.clone(), pod.name.clone()));
        if pod.host_network {
            let here = pod.node.is_empty() || pod.node == self.config.node;
            let number = if here { Identity::HOST } else { Identity::REMOTE_NODE };
            let somebody = self.somebody_with(self.labels_of_reserved(number));
            return Somebody {
                pod: name,
                addresses: pod.addresses.clone(),
                node: pod.node.clone(),
                ..somebody
            };
        }
        let somebody = self.somebody_with(Arc::new(self.labels_of_pod(pod)));
        Somebody {
            pod: name,
            ports: Arc::new(named_ports(&pod.ports)),
            addresses: pod.addresses.clone(),
            node: pod.node.clone(),
            ..somebody
        }
    }
}
