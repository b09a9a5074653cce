//! A node to try things on: an engine, what the kernel has of it, and an agent that answers at once.

use std::collections::BTreeMap;
use std::net::IpAddr;

use sinew_api::identity::Identity;
use sinew_api::labels::Labels;
use sinew_api::object::decode_text;
use sinew_bpf::abi::policy::verdict;
use sinew_bpf::drop::DropReason;
use sinew_engine::{Cause, Change, Config, Direction, EndpointId, Engine, Event, LocalEndpoint, Record};

use crate::kernel::Kernel;

/// TCP's number.
pub(crate) const TCP: u8 = 6;
/// UDP's number.
pub(crate) const UDP: u8 = 17;

/// The node.
pub(crate) struct Node {
    pub(crate) engine: Engine,
    pub(crate) kernel: Kernel,
    pub(crate) records: Vec<Record>,
    /// Every change since somebody cleared this.
    pub(crate) history: Vec<Change>,
    /// Announcements that nobody has answered.
    pub(crate) announced: Vec<(EndpointId, Identity)>,
    /// Identities as the store has them.
    pub(crate) store: BTreeMap<Labels, Identity>,
    next: u32,
    endpoints: BTreeMap<String, EndpointId>,
}

impl Node {
    /// A node that has complete, empty lists.
    pub(crate) fn new() -> Self {
        let mut config = Config::new("node", "default");
        config.cluster_cidrs = ["10.0.0.0/16", "fd00::/48"].map(|range| range.parse().unwrap()).into();
        let mut node = Self::unsynced(config);
        node.apply([Event::Synced]);
        node
    }

    /// A node whose lists aren't complete.
    pub(crate) fn unsynced(config: Config) -> Self {
        Self {
            engine: Engine::new(config, []),
            kernel: Kernel::default(),
            records: Vec::new(),
            history: Vec::new(),
            announced: Vec::new(),
            store: BTreeMap::new(),
            next: Identity::FIRST_ALLOCATED.0,
            endpoints: BTreeMap::new(),
        }
    }

    /// An agent that starts again where another one was: same numbers, same store.
    pub(crate) fn restarted(config: Config, old: &Self) -> Self {
        Self {
            engine: Engine::new(config, old.records.clone()),
            kernel: Kernel::default(),
            records: old.records.clone(),
            history: Vec::new(),
            announced: Vec::new(),
            store: old.store.clone(),
            next: old.next,
            endpoints: old.endpoints.clone(),
        }
    }

    /// The number that the store has for labels, or makes; a number has one meaning for good.
    pub(crate) fn number(&mut self, labels: &Labels) -> Identity {
        if let Some(number) = self.store.get(labels) {
            return *number;
        }
        let number = Identity(self.next);
        self.next += 1;
        self.store.insert(labels.clone(), number);
        number
    }

    /// What a number stands for.
    pub(crate) fn labels_of(&self, number: Identity) -> Labels {
        match number.reserved_name() {
            Some(name) => Labels::reserved(name),
            None => self.store.iter().find(|(_, n)| **n == number).map(|(labels, _)| labels.clone()).unwrap(),
        }
    }

    /// Lets something happen, and everything that follows. Returns the changes.
    pub(crate) fn apply(&mut self, events: impl IntoIterator<Item = Event>) -> Vec<Change> {
        let mut all = Vec::new();
        let mut changes = self.engine.apply(events);
        while !changes.is_empty() {
            let mut answers = Vec::new();
            for change in &changes {
                self.kernel.write(change);
                self.history.push(change.clone());
                match change {
                    Change::Remember(record) => self.records.push(record.clone()),
                    Change::AllocateIdentity(labels) => {
                        answers.push(Event::IdentityApplied(self.number(labels), labels.clone()));
                    }
                    Change::Announce { endpoint, identity } => self.announced.push((*endpoint, *identity)),
                    _ => {}
                }
            }
            all.append(&mut changes);
            changes = self.engine.apply(answers);
        }
        all
    }

    /// Applies the objects of a YAML text.
    pub(crate) fn yaml(&mut self, text: &str) -> Vec<Change> {
        let objects = decode_text("test.yaml", text);
        self.apply(objects.into_iter().map(|object| Event::from(object.unwrap())).collect::<Vec<_>>())
    }

    /// A pod of this node, with its endpoint. `name` is `namespace/name`; labels are `key=value`, comma-separated.
    pub(crate) fn pod(&mut self, name: &str, labels: &str) -> EndpointId {
        self.label(name, labels);
        let (namespace, pod) = name.split_once('/').unwrap();
        let number = self.endpoints.len() as u16;
        self.endpoints.insert(name.to_owned(), EndpointId(number + 1));
        self.attach(number, namespace, pod)
    }

    /// An endpoint of this number for a pod.
    pub(crate) fn attach(&mut self, number: u16, namespace: &str, pod: &str) -> EndpointId {
        let id = EndpointId(number + 1);
        self.apply([Event::EndpointCreated(LocalEndpoint {
            id,
            container_id: format!("container-{}", id.0),
            ifname: "eth0".to_owned(),
            pod_namespace: namespace.to_owned(),
            pod_name: pod.to_owned(),
            pod_uid: String::new(),
            labels: BTreeMap::new(),
            addresses: vec![
                format!("10.0.0.{}", id.0).parse().unwrap(),
                format!("fd00::{:x}", id.0).parse().unwrap(),
            ],
            found: None,
        })]);
        id
    }

    /// A number for an endpoint that the test makes itself.
    pub(crate) fn reserve(&mut self, name: &str) -> u16 {
        let number = self.endpoints.len() as u16 + 1;
        self.endpoints.insert(name.to_owned(), EndpointId(number));
        number
    }

    /// Answers every announcement.
    pub(crate) fn finish_relabels(&mut self) {
        let done = std::mem::take(&mut self.announced);
        self.apply(done.into_iter().map(|(endpoint, identity)| Event::RelabelDone(endpoint, identity)));
    }

    /// Gives a pod object other labels.
    pub(crate) fn label(&mut self, name: &str, labels: &str) {
        let (namespace, pod) = name.split_once('/').unwrap();
        let labels = labels.split(", ").filter_map(|label| label.split_once('='));
        let labels: Vec<String> = labels.map(|(key, value)| format!("{key:?}: {value:?}")).collect();
        let labels = labels.join(", ");
        self.yaml(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{namespace: {namespace:?}, name: {pod:?}, labels: {{{labels}}}}}\n\
             spec: {{containers: [{{name: c, ports: [{{name: http, containerPort: 8080}}]}}]}}"
        ));
    }

    /// The address of a pod of this node.
    pub(crate) fn address(&self, name: &str) -> IpAddr {
        format!("10.0.0.{}", self.endpoints[name].0).parse().unwrap()
    }

    /// What happens to a new TCP connection between two pods, or addresses: `allowed`, or the direction that refuses it
    /// and why.
    pub(crate) fn connect(&self, from: &str, to: &str, port: u16) -> String {
        self.send(from, to, TCP, port)
    }

    /// The same for a protocol.
    pub(crate) fn send(&self, from: &str, to: &str, protocol: u8, port: u16) -> String {
        let address = |end: &str| end.parse().unwrap_or_else(|_| self.address(end));
        for (end, peer, direction) in [(from, to, Direction::Egress), (to, from, Direction::Ingress)] {
            let Some(id) = self.endpoints.get(end) else { continue };
            let peer = address(peer);
            let judged =
                self.kernel.judge(*id, direction, self.kernel.identity_of(peer), peer, protocol, port);
            let word = match direction {
                Direction::Egress => "egress",
                Direction::Ingress => "ingress",
            };
            match judged {
                Ok(answer) if answer.verdict == verdict::ALLOW => {}
                Ok(answer) => return format!("{word}: {}", self.cause(answer.cookie)),
                Err(reason) => return format!("{word}: {}", DropReason::words(reason)),
            }
        }
        "allowed".to_owned()
    }

    /// What a cookie stands for.
    pub(crate) fn cause(&self, cookie: u32) -> String {
        let found = self.records.iter().find_map(|record| match record {
            Record::Cookie(number, cause) if *number == cookie => Some(cause),
            _ => None,
        });
        match found {
            None => "open".to_owned(),
            Some(Cause::Rule { policy, path }) => format!("{policy} {path}"),
            Some(Cause::DefaultDeny { policies, .. }) => {
                let names: Vec<String> = policies.iter().map(ToString::to_string).collect();
                format!("default deny by {}", names.join(", "))
            }
            Some(Cause::Init) => "init".to_owned(),
            Some(Cause::LocalHost) => "local host".to_owned(),
            Some(Cause::Overflow { policy }) => format!("overflow of {policy}"),
        }
    }
}
