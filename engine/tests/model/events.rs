//! Random events into the engine. After each of them: what the kernel was told is what a fresh engine would tell it from
//! the facts alone, and the naive evaluator of policy.md agrees with every verdict that is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};
use sinew_api::identity::Identity;
use sinew_api::labels::Labels;
use sinew_api::object::{
    Endpoint, NamedPort, Namespace, Node as NodeObject, Origin, Pod, PodPhase, PolicyName,
};
use sinew_api::policy::{CidrGroup, PeerMatch, Peers, Policy, Protocol};
use sinew_engine::explain::{self, Party, Query};
use sinew_engine::{Config, Direction, EndpointId, Engine, Event, Found, LocalEndpoint};

use crate::cast::{FORGED, addresses, node_object, pod_name, pod_object, pod_uid};
use crate::kernel::Kernel;
use crate::naive::{self, Cluster, End, Enforcer, Label, Traffic, Verdict};
use crate::node::Node;
use crate::random::{self, NAMESPACES, Step};

/// Verdicts compared in one run. The issue asks for 100,000.
const AT_LEAST: u64 = 100_000;

#[test]
fn random_events_keep_every_promise() {
    let compared = AtomicU64::new(0);
    let cases =
        Cases { cases: 1_500, max_shrink_iters: 4_000, failure_persistence: None, ..Cases::default() };
    let questions = prop::collection::vec(random::traffic(), 3);
    let steps = prop::collection::vec(random::step(), 1..45);
    TestRunner::new(cases)
        .run(&(random::apiserver(), steps, questions), |(apiserver, steps, questions)| {
            let mut model = Model::with_apiserver(apiserver);
            for step in steps {
                model.take(step);
                model.check_from_scratch()?;
                let asked = model.check_verdicts(&questions)?;
                compared.fetch_add(asked, Ordering::Relaxed);
            }
            model.check_explanations(questions[0])?;
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
    let compared = compared.into_inner();
    println!("{compared} verdicts compared");
    assert!(compared >= AT_LEAST, "only {compared} verdicts compared");
}

/// What the test knows to be so.
pub(crate) struct Model {
    config: Config,
    pub(crate) node: Node,
    pods: BTreeMap<u8, Pod>,
    namespaces: BTreeMap<String, Namespace>,
    nodes: BTreeMap<String, NodeObject>,
    own: Vec<IpAddr>,
    groups: BTreeMap<String, CidrGroup>,
    policies: BTreeMap<PolicyName, Stored>,
    locals: BTreeMap<u8, Local>,
    remotes: BTreeMap<u8, Endpoint>,
}

struct Stored {
    applied: Policy,
    valid: Option<Policy>,
}

/// An endpoint of this node.
#[derive(Clone, Debug)]
struct Local {
    created: LocalEndpoint,
    pod: Option<Pod>,
    labels: Labels,
    target: Labels,
}

impl Local {
    /// Whether an object of its pod's name is its pod's: a new pod of an old name has another uid.
    fn is_of(&self, object: &Pod) -> bool {
        let uids = [&self.created.pod_uid, &object.uid];
        uids.iter().any(|uid| uid.is_empty()) || uids[0] == uids[1]
    }
}

impl Model {
    pub(crate) fn new() -> Self {
        Self::with_apiserver(Vec::new())
    }

    /// A cluster whose API server has these addresses.
    fn with_apiserver(addresses: Vec<IpAddr>) -> Self {
        let mut config = Config::new("node", "default");
        config.cluster_cidrs = ["10.0.0.0/16", "fd00::/48"].map(|range| range.parse().unwrap()).into();
        config.kube_apiserver = Some(addresses);
        let mut node = Node::unsynced(config.clone());
        node.apply([Event::Synced]);
        Self {
            config,
            node,
            pods: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            nodes: BTreeMap::new(),
            own: Vec::new(),
            groups: BTreeMap::new(),
            policies: BTreeMap::new(),
            locals: BTreeMap::new(),
            remotes: BTreeMap::new(),
        }
    }

    pub(crate) fn take(&mut self, step: Step) {
        match step {
            Step::Policy(policy) => {
                let old = self.policies.remove(&policy.name).and_then(|stored| stored.valid);
                let valid = if policy.problems.is_empty() { Some((*policy).clone()) } else { old };
                self.policies.insert(policy.name.clone(), Stored { applied: (*policy).clone(), valid });
                self.node.apply([Event::PolicyApplied(*policy)]);
            }
            Step::NoPolicy(choice) => {
                if let Some(name) = nth(self.policies.keys(), choice) {
                    self.policies.remove(&name);
                    self.node.apply([Event::PolicyRemoved(name)]);
                }
            }
            Step::Pod { pod, labels, ports, over, uid } => {
                let object = Pod { uid: pod_uid(uid), ..pod_object(pod, labels, ports, over) };
                self.pods.insert(pod, object.clone());
                self.node.apply([Event::PodApplied(object)]);
            }
            Step::NoPod(pod) => {
                if let Some(Pod { namespace, name, .. }) = self.pods.remove(&pod) {
                    self.node.apply([Event::PodRemoved { namespace, name }]);
                }
            }
            Step::Endpoint(pod, uid) if pod.is_multiple_of(2) => self.create_local(pod, uid),
            Step::Endpoint(pod, _) => self.apply_remote(pod),
            Step::NoEndpoint(pod) => {
                if let Some(local) = self.locals.remove(&pod) {
                    self.node.apply([Event::EndpointRemoved(local.created.id)]);
                }
                if let Some(remote) = self.remotes.remove(&pod) {
                    self.node.apply([Event::RemoteEndpointRemoved(remote.name)]);
                }
            }
            Step::Namespace { namespace, labels } => {
                let mut object = Namespace::bare(NAMESPACES[usize::from(namespace % 2)]);
                if let Some(env) = [None, Some("prod"), Some("dev")][usize::from(labels % 3)] {
                    object.labels.insert("env".to_owned(), env.to_owned());
                }
                self.namespaces.insert(object.name.clone(), object.clone());
                self.node.apply([Event::NamespaceApplied(object)]);
            }
            Step::NoNamespace(choice) => {
                if let Some(name) = nth(self.namespaces.keys(), choice) {
                    self.namespaces.remove(&name);
                    self.node.apply([Event::NamespaceRemoved(name)]);
                }
            }
            Step::Node { node, shape } => {
                let object = node_object(node, shape);
                self.nodes.insert(object.name.clone(), object.clone());
                self.node.apply([Event::NodeApplied(object)]);
            }
            Step::NoNode(choice) => {
                if let Some(name) = nth(self.nodes.keys(), choice) {
                    self.nodes.remove(&name);
                    self.node.apply([Event::NodeRemoved(name)]);
                }
            }
            Step::OwnAddresses(choice) => {
                let all = ["192.168.0.1", "10.0.1.200", "2001:db8::1"].map(|text| text.parse().unwrap());
                self.own = all[..usize::from(choice % 4)].to_vec();
                self.node.apply([Event::NodeAddresses(self.own.clone())]);
            }
            Step::Group { group, prefixes, labels } => {
                let group = random::group(group, prefixes, labels);
                self.groups.insert(format!("{:?} {}", group.kind, group.name), group.clone());
                self.node.apply([Event::CidrGroupApplied(group)]);
            }
            Step::NoGroup(choice) => {
                if let Some(key) = nth(self.groups.keys(), choice) {
                    let group = self.groups.remove(&key).unwrap();
                    self.node.apply([Event::CidrGroupRemoved(group.kind, group.name)]);
                }
            }
            Step::RelabelDone(choice) => {
                if let Some((endpoint, identity)) = nth(self.node.announced.iter(), choice) {
                    let moved = self.locals.values_mut().find(|local| local.created.id == endpoint);
                    let number = |labels: &Labels| self.node.store.get(labels).copied();
                    if let Some(local) = moved
                        && number(&local.target) == Some(identity)
                    {
                        local.labels = local.target.clone();
                    }
                    self.node.apply([Event::RelabelDone(endpoint, identity)]);
                }
            }
            Step::NoIdentity(choice) => {
                let used: BTreeSet<Identity> = self.used_identities();
                let unused = self.node.store.iter().filter(|(_, number)| !used.contains(number));
                if let Some((labels, number)) =
                    nth(unused.map(|(l, n)| (l.clone(), *n)).collect::<Vec<_>>().iter(), choice)
                {
                    self.node.store.remove(&labels);
                    self.node.apply([Event::IdentityRemoved(number)]);
                }
            }
            Step::Restart(seed) => self.restart(seed),
        }
        self.settle();
    }

    fn create_local(&mut self, pod: u8, uid: u8) {
        if self.locals.contains_key(&pod) {
            return;
        }
        let (namespace, name) = pod_name(pod);
        // Number 6 is no pod: it has the labels of its CNI configuration, or none at all.
        let nameless = pod == 6;
        let labels = match self.pods.get(&pod) {
            Some(object) if nameless => object.labels.clone(),
            _ => BTreeMap::new(),
        };
        let created = LocalEndpoint {
            id: EndpointId(u16::from(pod) + 1),
            container_id: format!("container-{pod}"),
            ifname: "eth0".to_owned(),
            pod_namespace: if nameless { String::new() } else { namespace },
            pod_name: if nameless { String::new() } else { name },
            pod_uid: if nameless { String::new() } else { pod_uid(uid) },
            labels,
            addresses: addresses(pod),
            found: None,
        };
        let init = Labels::reserved("init");
        let local = Local { created: created.clone(), pod: None, labels: init.clone(), target: init };
        self.locals.insert(pod, local);
        self.node.apply([Event::EndpointCreated(created)]);
    }

    /// What another node's agent would write.
    fn apply_remote(&mut self, number: u8) {
        let (pod_namespace, pod_name) = pod_name(number);
        let pod = self.pods.get(&number);
        let labels = match pod {
            Some(pod) => self.pod_labels(pod),
            None => Labels::reserved("init"),
        };
        let identity = if pod.is_some() { self.node.number(&labels) } else { Identity::INIT };
        let before = self.remotes.get(&number).map(|remote| remote.identity);
        let endpoint = Endpoint {
            name: format!("endpoint-{number}"),
            pod_namespace,
            pod_name,
            pod_uid: String::new(),
            container_id: format!("container-{number}"),
            ifname: "eth0".to_owned(),
            node: if number % 4 == 1 { "n1" } else { "n2" }.to_owned(),
            addresses: addresses(number),
            identity,
            previous_identity: before.filter(|before| *before != identity),
            labels,
            ports: pod.map(|pod| pod.ports.clone()).unwrap_or_default(),
            phase: pod.and_then(|pod| pod.phase),
            workload: None,
            origin: Origin::default(),
        };
        self.remotes.insert(number, endpoint.clone());
        self.node.apply([Event::RemoteEndpointApplied(endpoint)]);
    }

    /// policy.md 8, 9, 17 for the endpoints of this node.
    fn settle(&mut self) {
        let mut settled = std::mem::take(&mut self.locals);
        for (number, local) in &mut settled {
            if !local.created.pod_name.is_empty()
                && let Some(pod) = self.pods.get(number)
                && local.is_of(pod)
            {
                local.pod = Some(pod.clone());
            }
            local.target = match &local.pod {
                Some(pod) => self.pod_labels(pod),
                None if !local.created.pod_name.is_empty() || local.created.found.is_some() => {
                    local.labels.clone()
                }
                None => {
                    let mut labels = Labels::new();
                    for (key, value) in &local.created.labels {
                        if !FORGED.contains(&key.as_str()) {
                            labels.insert("cni", key, value);
                        }
                    }
                    if labels == Labels::new() { Labels::reserved("unmanaged") } else { labels }
                }
            };
            let nobody = ["init", "unmanaged"].iter().any(|name| local.labels == Labels::reserved(name));
            if nobody {
                local.labels = local.target.clone();
            }
        }
        self.locals = settled;
    }

    fn pod_labels(&self, pod: &Pod) -> Labels {
        let mut labels = Labels::new();
        for (key, value) in &pod.labels {
            if !FORGED.contains(&key.as_str()) {
                labels.insert("k8s", key, value);
            }
        }
        let bare = Namespace::bare(&pod.namespace);
        let namespace = self.namespaces.get(&pod.namespace).unwrap_or(&bare);
        for (key, value) in &namespace.labels {
            labels.insert("k8s", &format!("io.cilium.k8s.namespace.labels.{key}"), value);
        }
        labels.insert("k8s", "io.kubernetes.pod.namespace", &pod.namespace);
        labels.insert("k8s", "io.cilium.k8s.policy.cluster", "default");
        labels.insert("k8s", "io.cilium.k8s.policy.serviceaccount", &pod.service_account);
        labels
    }

    fn used_identities(&self) -> BTreeSet<Identity> {
        let remotes = self.remotes.values();
        let mut used: BTreeSet<Identity> = remotes
            .flat_map(|remote| remote.previous_identity.into_iter().chain([remote.identity]))
            .collect();
        for local in self.locals.values() {
            let numbers = [&local.labels, &local.target].map(|labels| self.node.store.get(labels).copied());
            used.extend(numbers.into_iter().flatten());
        }
        used
    }

    /// The agent dies and starts again: the kernel keeps what it has, the store says everything again.
    fn restart(&mut self, seed: u64) {
        for (number, local) in &mut self.locals {
            if !self.pods.get(number).is_some_and(|pod| local.is_of(pod)) {
                local.pod = None;
            }
            local.target = local.labels.clone();
            local.created.found = Some(number_of(&self.node, &local.labels));
        }
        let old = &self.node.kernel;
        let found = Found {
            addresses: old.addresses.keys().copied().collect(),
            ranges: old.ranges.keys().copied().collect(),
            classes: old.classes.iter().map(|(prefix, class)| (*prefix, *class)).collect(),
            known: old.known.iter().copied().collect(),
        };
        let mut node = Node::restarted(self.config.clone(), &self.node);
        node.kernel = old.clone();
        node.kernel.revision = 0;
        node.apply([Event::Found(found)]);
        let mut events = self.facts();
        events.extend(self.locals.values().map(|local| Event::EndpointCreated(local.created.clone())));
        shuffle(&mut events, seed);
        for event in events {
            node.apply([event]);
        }
        node.apply([Event::Synced]);
        self.node = node;
    }

    /// Everything that the store says.
    fn facts(&self) -> Vec<Event> {
        let mut events = Vec::new();
        for stored in self.policies.values() {
            events.extend(stored.valid.clone().map(Event::PolicyRestored));
            events.push(Event::PolicyApplied(stored.applied.clone()));
        }
        events.extend(self.groups.values().cloned().map(Event::CidrGroupApplied));
        events.extend(self.pods.values().cloned().map(Event::PodApplied));
        events.extend(self.namespaces.values().cloned().map(Event::NamespaceApplied));
        events.extend(self.nodes.values().cloned().map(Event::NodeApplied));
        events.extend(self.remotes.values().cloned().map(Event::RemoteEndpointApplied));
        events.extend(
            self.node.store.iter().map(|(labels, number)| Event::IdentityApplied(*number, labels.clone())),
        );
        events.push(Event::NodeAddresses(self.own.clone()));
        events
    }

    /// Every endpoint here, with everybody who may be at the other end.
    pub(crate) fn judged(&self) -> Vec<(EndpointId, Vec<(Identity, End)>)> {
        self.locals.values().map(|local| (local.created.id, self.peers())).collect()
    }

    fn check_from_scratch(&self) -> Result<(), TestCaseError> {
        let mut node = Node::restarted(self.config.clone(), &self.node);
        node.apply(self.facts());
        for (number, local) in &self.locals {
            // Pods that are gone, but whose endpoints are there, still have the labels of their objects, also where
            // another pod has their name by now.
            let namesake = self.pods.get(number);
            let held = local.pod.clone().filter(|pod| namesake != Some(pod));
            node.apply(held.clone().map(Event::PodApplied));
            let found = Some(number_of(&self.node, &local.labels));
            node.apply([Event::EndpointCreated(LocalEndpoint { found, ..local.created.clone() })]);
            node.apply(held.map(|pod| match namesake.cloned() {
                Some(namesake) => Event::PodApplied(namesake),
                None => Event::PodRemoved { namespace: pod.namespace, name: pod.name },
            }));
        }
        node.apply([Event::Synced]);
        let (fresh, kept) = (&node.kernel, &self.node.kernel);
        prop_assert_eq!(&fresh.known, &kept.known);
        prop_assert_eq!(&fresh.addresses, &kept.addresses);
        prop_assert_eq!(&fresh.ranges, &kept.ranges);
        prop_assert_eq!(&fresh.classes, &kept.classes);
        prop_assert_eq!(&fresh.endpoints, &kept.endpoints);
        Ok(())
    }

    fn check_verdicts(&self, questions: &[Traffic]) -> Result<u64, TestCaseError> {
        let cluster = self.cluster();
        let peers = self.peers();
        let kernel = &self.node.kernel;
        let mut asked = 0;
        for (identity, peer) in peers.iter().filter(|(identity, _)| !identity.is_world()) {
            prop_assert_eq!(kernel.identity_of(peer.address), *identity, "who is {}", peer.address);
        }
        let claimed: BTreeSet<IpAddr> =
            peers.iter().filter(|(identity, _)| !identity.is_world()).map(|(_, peer)| peer.address).collect();
        prop_assert_eq!(kernel.addresses.keys().copied().collect::<BTreeSet<_>>(), claimed);
        for local in self.locals.values() {
            for direction in Direction::BOTH {
                for (identity, peer) in &peers {
                    for traffic in questions {
                        let expected = self.expected(&cluster, local, direction, peer, *traffic);
                        let found = ask(kernel, local.created.id, direction, *identity, peer, *traffic);
                        let same = if self.may_be_stricter(local) {
                            found >= expected.0 && (expected.0 == Verdict::Allow) >= (found == Verdict::Allow)
                        } else {
                            found == expected.0
                        };
                        prop_assert!(
                            same,
                            "{direction:?} of {:?}\npeer {identity} {peer:?}\n{traffic:?}\nexpected {:?}, found {found:?}",
                            local,
                            expected.0
                        );
                        let shadow = self.shadow(local.created.id, direction, *identity, peer, *traffic);
                        if !self.may_be_stricter(local) {
                            prop_assert_eq!(shadow, expected.1, "shadow of {:?} from {:?}", local, peer);
                        }
                        asked += 1;
                    }
                }
            }
        }
        Ok(asked)
    }

    /// Explain says what the kernel says, and applying what it suggests does allow the connection.
    fn check_explanations(&self, traffic: Traffic) -> Result<(), TestCaseError> {
        let peers = self.peers();
        for local in
            self.locals.values().filter(|local| local.labels == local.target && !over(local.pod.as_ref()))
        {
            let own = local.created.addresses[0];
            for (identity, peer) in peers.iter().filter(|(identity, peer)| {
                peer.address.is_ipv4() == own.is_ipv4()
                    // What it sends to itself nobody judges.
                    && peer.address != own
                    && self.node.kernel.identity_of(peer.address) == *identity
            }) {
                for direction in Direction::BOTH {
                    let found = ask(&self.node.kernel, local.created.id, direction, *identity, peer, traffic);
                    let (answer, one) = explain(&self.node.engine, direction, own, peer.address, traffic);
                    let explained = match one {
                        explain::Verdict::Allow => Verdict::Allow,
                        explain::Verdict::DefaultDeny => Verdict::DefaultDeny,
                        explain::Verdict::Deny => Verdict::Deny,
                        explain::Verdict::Drop(reason) => panic!("{}", reason.words()),
                    };
                    prop_assert_eq!(explained, found, "{:?} of {:?} from {:?}", direction, local, peer);
                    if found != Verdict::DefaultDeny {
                        prop_assert_eq!(answer, "");
                        continue;
                    }
                    if answer.is_empty() {
                        prop_assert!([1, 58].contains(&traffic.protocol), "{:?} needs a suggestion", traffic);
                        continue;
                    }
                    let objects = sinew_api::object::decode_text("suggested.yaml", &answer);
                    let objects: Vec<_> = objects.into_iter().map(|object| object.unwrap()).collect();
                    for object in &objects {
                        let sinew_api::object::Object::Policy(policy) = object else { panic!("a policy") };
                        prop_assert_eq!(&policy.problems, &[], "{}", &answer);
                    }
                    let mut engine = self.node.engine.clone();
                    engine.apply(objects.into_iter().map(Event::from));
                    let (_, one) = explain(&engine, direction, own, peer.address, traffic);
                    prop_assert_eq!(one, explain::Verdict::Allow, "{}\n{:?} from {:?}", answer, local, peer);
                }
            }
        }
        Ok(())
    }

    /// While it moves, an endpoint may deny a pod or node that one of its label sets allows by labels and the other only by
    /// address, and what is outside if an address of the API server is too: one table entry can't say both
    /// (policy/relabel.rs).
    fn may_be_stricter(&self, local: &Local) -> bool {
        local.labels != local.target
            && self.running().any(|policy| {
                let rules = policy.specs.iter().flat_map(|spec| spec.ingress.iter().chain(&spec.egress));
                rules.clone().any(|rule| match &rule.peers {
                    Peers::Any => false,
                    Peers::OneOf(peers) => peers.iter().any(|peer| match &peer.matches {
                        PeerMatch::Cidr { reach, .. } | PeerMatch::CidrGroup { reach, .. } => {
                            reach.pods || reach.nodes || !self.apiserver().is_empty()
                        }
                        _ => false,
                    }),
                })
            })
    }

    fn shadow(
        &self,
        id: EndpointId,
        direction: Direction,
        identity: Identity,
        peer: &End,
        traffic: Traffic,
    ) -> Verdict {
        let answer = self
            .node
            .kernel
            .judge(id, direction, identity, peer.address, traffic.protocol, traffic.port)
            .unwrap();
        verdict(answer.shadow_verdict)
    }

    fn expected(
        &self,
        cluster: &Cluster,
        local: &Local,
        direction: Direction,
        peer: &End,
        traffic: Traffic,
    ) -> (Verdict, Verdict) {
        let ports = local.pod.as_ref().map(|pod| named(&pod.ports)).unwrap_or_default();
        let judge = |labels: &Labels| {
            let enforcer = Enforcer { labels: plain(labels), ports: ports.clone() };
            naive::judge(cluster, &enforcer, direction == Direction::Ingress, peer, traffic)
        };
        let (one, other) = (judge(&local.labels), judge(&local.target));
        (one.0.max(other.0), one.1.max(other.1))
    }

    fn running(&self) -> impl Iterator<Item = &Policy> {
        self.policies.values().map(|stored| match stored.applied.problems.is_empty() {
            true => &stored.applied,
            false => stored.valid.as_ref().unwrap_or(&stored.applied),
        })
    }

    fn cluster(&self) -> Cluster {
        let pools = self.nodes.values().flat_map(|node| node.pod_cidrs.iter().copied());
        let configured = self.config.cluster_cidrs.clone();
        let named = self.nodes.values().flat_map(|node| node.addresses.iter());
        let locals = self.locals.values().filter(|local| !over(local.pod.as_ref()));
        let locals = locals.flat_map(|local| local.created.addresses.clone());
        Cluster {
            name: "default".to_owned(),
            policies: self.running().cloned().collect(),
            groups: self.groups.values().cloned().collect(),
            pod_ranges: configured.into_iter().chain(pools).collect(),
            pod_addresses: locals.chain(self.live_remotes().flat_map(|(_, r)| r.addresses.clone())).collect(),
            node_addresses: self.own.iter().chain(named).copied().collect(),
        }
    }

    fn live_remotes(&self) -> impl Iterator<Item = (&u8, &Endpoint)> {
        self.remotes.iter().filter(|(number, remote)| {
            !over(self.pods.get(number)) && !remote.phase.is_some_and(PodPhase::is_over)
        })
    }

    fn apiserver(&self) -> &[IpAddr] {
        self.config.kube_apiserver.as_deref().unwrap_or_default()
    }

    /// Everybody who may be at the other end, with the identity that the kernel finds for him.
    fn peers(&self) -> Vec<(Identity, End)> {
        let mut peers = Vec::new();
        let store = |labels: &Labels| number_of(&self.node, labels);
        // Ports of an identity are those of all its pods.
        let mut ports: BTreeMap<Identity, Vec<(String, Protocol, u16)>> = BTreeMap::new();
        let locals: Vec<(Identity, &Local)> =
            self.locals.values().map(|local| (store(&local.labels), local)).collect();
        for (identity, local) in &locals {
            let own = local.pod.as_ref().map(|pod| named(&pod.ports)).unwrap_or_default();
            ports.entry(*identity).or_default().extend(own);
        }
        for remote in self.remotes.values() {
            let identity = remote.previous_identity.unwrap_or(remote.identity);
            ports.entry(identity).or_default().extend(named(&remote.ports));
        }
        let end = |identity: Identity, labels: &Labels, address: IpAddr| {
            let ports = ports.get(&identity).cloned().unwrap_or_default();
            (identity, End { labels: plain(labels), others: Vec::new(), address, ports })
        };
        for (identity, local) in locals {
            if !over(local.pod.as_ref()) {
                peers.extend(local.created.addresses.iter().map(|a| end(identity, &local.labels, *a)));
            }
        }
        for (_, remote) in self.live_remotes() {
            let identity = remote.previous_identity.unwrap_or(remote.identity);
            let labels = self.node.labels_of(identity);
            peers.extend(remote.addresses.iter().map(|address| end(identity, &labels, *address)));
        }
        let taken: BTreeSet<IpAddr> = peers.iter().map(|(_, end)| end.address).collect();
        let named = self.nodes.get("node").map(|node| node.addresses.as_slice()).unwrap_or_default();
        let own = self.own.iter().chain(named);
        let mut host = Labels::reserved("host");
        if own.clone().any(|address| self.apiserver().contains(address)) {
            host.insert("reserved", "kube-apiserver", "");
        }
        peers.extend(own.clone().map(|address| end(Identity::HOST, &host, *address)));
        let remote_node = Labels::reserved("remote-node");
        let nodes = self.nodes.values().filter(|node| node.name != "node").flat_map(|node| &node.addresses);
        let nodes =
            nodes.filter(|address| !taken.contains(address) && !own.clone().any(|own| own == *address));
        let (of_apiserver, nodes): (Vec<IpAddr>, Vec<IpAddr>) =
            nodes.copied().partition(|address| self.apiserver().contains(address));
        peers.extend(nodes.into_iter().map(|address| end(Identity::REMOTE_NODE, &remote_node, address)));
        let ranges = self.cluster().pod_ranges;
        let mut apiserver = Vec::new();
        for address in self.apiserver() {
            if taken.contains(address) || own.clone().any(|own| own == address) {
                continue;
            }
            let also = match address {
                _ if of_apiserver.contains(address) => "remote-node",
                _ if ranges.iter().any(|range| range.contains(address)) => "kube-apiserver",
                IpAddr::V4(_) => "world-ipv4",
                IpAddr::V6(_) => "world-ipv6",
            };
            let mut labels = Labels::reserved("kube-apiserver");
            labels.insert("reserved", also, "");
            apiserver.push(end(Identity::KUBE_APISERVER, &labels, *address));
        }
        let kinds: Vec<Vec<Label>> = apiserver.iter().map(|(_, end)| end.labels.clone()).collect();
        peers.extend(
            apiserver.into_iter().map(|(number, end)| (number, End { others: kinds.clone(), ..end })),
        );
        // What the stack forwards with a node's address is world (policy.md 7).
        let outside = random::outside();
        let outside = outside.iter().filter(|address| !self.apiserver().contains(address));
        for address in outside.chain(&self.own).filter(|address| !taken.contains(address)) {
            let (identity, name) = match address.is_ipv4() {
                true => (Identity::WORLD_IPV4, "world-ipv4"),
                false => (Identity::WORLD_IPV6, "world-ipv6"),
            };
            peers.push(end(identity, &Labels::reserved(name), *address));
        }
        peers
    }
}

pub(crate) fn ask(
    kernel: &Kernel,
    id: EndpointId,
    direction: Direction,
    identity: Identity,
    peer: &End,
    traffic: Traffic,
) -> Verdict {
    let judged = kernel.judge(id, direction, identity, peer.address, traffic.protocol, traffic.port);
    verdict(
        judged.unwrap_or_else(|reason| panic!("{id:?} and {identity} {peer:?}: {}", reason.words())).verdict,
    )
}

/// The suggestion for one direction, and its verdict.
fn explain(
    engine: &Engine,
    direction: Direction,
    own: IpAddr,
    peer: IpAddr,
    traffic: Traffic,
) -> (String, explain::Verdict) {
    let (from, to) = match direction {
        Direction::Ingress => (peer, own),
        Direction::Egress => (own, peer),
    };
    let query = Query {
        from: Party::Address(from),
        to: Party::Address(to),
        protocol: Some(traffic.protocol),
        port: Some(traffic.port),
        family: None,
    };
    let answer = engine.explain(&query).unwrap();
    let one = answer.directions.into_iter().find(|one| one.direction == direction).unwrap();
    (one.suggestion, one.verdict)
}

fn verdict(number: u8) -> Verdict {
    use sinew_bpf::abi::policy::verdict;
    match number {
        verdict::ALLOW => Verdict::Allow,
        verdict::DENY => Verdict::Deny,
        verdict::DEFAULT_DENY => Verdict::DefaultDeny,
        other => panic!("{other} is no verdict"),
    }
}

fn nth<'a, T: Clone + 'a>(items: impl Iterator<Item = &'a T>, choice: u8) -> Option<T> {
    let all: Vec<&T> = items.collect();
    if all.is_empty() { None } else { Some(all[usize::from(choice) % all.len()].clone()) }
}

fn shuffle<T>(items: &mut [T], mut seed: u64) {
    for last in (1..items.len()).rev() {
        // Knuth's MMIX generator: any order will do, as long as the seed decides it.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        items.swap(last, (seed >> 33) as usize % (last + 1));
    }
}

fn number_of(node: &Node, labels: &Labels) -> Identity {
    let reserved = Identity::RESERVED.iter().find(|(_, name)| *labels == Labels::reserved(name));
    reserved.map_or_else(|| node.store[labels], |(number, _)| *number)
}

fn plain(labels: &Labels) -> Vec<Label> {
    labels
        .iter()
        .map(|(label, value)| (label.source.to_owned(), label.key.to_owned(), value.to_owned()))
        .collect()
}

fn named(ports: &[NamedPort]) -> Vec<(String, Protocol, u16)> {
    ports.iter().map(|port| (port.name.clone(), port.protocol, port.port)).collect()
}

fn over(pod: Option<&Pod>) -> bool {
    pod.and_then(|pod| pod.phase).is_some_and(PodPhase::is_over)
}
