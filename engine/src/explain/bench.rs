//! A copy of the engine on which both ends of a query have tables, and the kernel's verdict code over them.
//!
//! Neighbours: `sinew_bpf::policy` judges, `sinew_bpf::host` holds the maps, `state/lend.rs` says who is where,
//! `meet.rs` chooses the addresses that are judged.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use sinew_api::identity::Identity;
use sinew_bpf::abi::policy::verdict;
use sinew_bpf::abi::{Address, PrefixKey};
use sinew_bpf::drop::{DropReason, Dropped};
use sinew_bpf::host::HostMaps;
use sinew_bpf::identity::Lookup;
use sinew_bpf::parse::protocol;
use sinew_bpf::policy::{Answer, Question, ask};
use sinew_bpf::source;

use super::party::{End, Party, Standing, Unknown, find_pod};
use super::{Traffic, Verdict};
use crate::change::EndpointId;
use crate::numbers::Direction;
use crate::policy::Enforcement;
use crate::policy::compile::NamedPorts;
use crate::state::{Engine, Somebody, is_gateway};

/// Addresses that stand for the pods of a query that have none, where no range of pods is known: shared address space
/// (RFC 6598), which no cluster may route, and the discard prefix (RFC 6666).
const NO_ADDRESS: [[&str; 2]; 2] = [["100.127.255.253", "100::fd"], ["100.127.255.254", "100::fe"]];

/// What is said of an API server that is both on a node and outside, or of both families.
const MIXED_APISERVER: &str = "all addresses of the API server have one identity, and here they are of several kinds (a node's, \
                               outside the cluster, of either family): it is allowed what rules allow to each of them";

/// The copy.
pub(crate) struct Bench {
    pub(crate) engine: Engine,
    /// What must be said of the ends.
    pub(super) notes: Vec<String>,
}

/// What a table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Judged {
    pub(crate) verdict: Verdict,
    pub(crate) cookie: u32,
    pub(crate) shadow: Verdict,
    pub(crate) shadow_cookie: u32,
}

/// One end's table with the question that another end puts to it, but for the traffic.
pub(crate) struct Judge {
    pub(super) maps: HostMaps,
    pub(super) question: Question,
    /// Why nothing that leaves the pod for that address is judged.
    pub(super) refused: Option<DropReason>,
    /// The UDP port to which no pod may send at a node; `None` where nothing is sent, or the receiver is no node.
    pub(super) forbidden_port: Option<u16>,
}

impl Judge {
    /// What the table says.
    pub(crate) fn of(&self, traffic: &Traffic) -> Judged {
        if let Some(reason) = self.refused {
            return Judged::dropped(reason);
        }
        let overlay = |port| Traffic { protocol: Some(protocol::UDP), port: Some(port) };
        if self.forbidden_port.is_some_and(|port| *traffic == overlay(port)) {
            return Judged::dropped(DropReason::EncapProhibited);
        }
        let question = Question {
            protocol: traffic.protocol.unwrap_or(0),
            port: traffic.port.unwrap_or_else(|| unnamed_port(traffic.protocol)).to_be(),
            ..self.question
        };
        let mut answer = Answer::default();
        match ask(&self.maps, &question, &mut answer) {
            Ok(()) => Judged {
                verdict: spoken(answer.verdict),
                cookie: answer.cookie,
                shadow: spoken(answer.shadow_verdict),
                shadow_cookie: answer.shadow_cookie,
            },
            Err(dropped) => {
                let reason = dropped.reason().expect("the verdict code drops for reasons that have names");
                Judged::dropped(reason)
            }
        }
    }
}

impl Judged {
    /// Dropped before any rule is asked.
    fn dropped(reason: DropReason) -> Self {
        let verdict = Verdict::Drop(reason);
        Self { verdict, cookie: 0, shadow: verdict, shadow_cookie: 0 }
    }
}

impl Bench {
    /// A copy of an engine.
    pub(crate) fn new(engine: &Engine) -> Self {
        Self { engine: engine.clone(), notes: Vec::new() }
    }

    /// Finds both ends, and gives those who are judged a table.
    pub(crate) fn ends(&mut self, from: &Party, to: &Party) -> Result<(End, End), Unknown> {
        let asked = [from, to];
        let mut from = self.find("FROM", from)?;
        let mut to = self.find("TO", to)?;
        self.see_from_afar(asked[0], &mut from, &to, Lookup::Known);
        self.see_from_afar(asked[1], &mut to, &from, Lookup::Destination);
        from.as_seen_from(&to.node, to.judged, &self.engine);
        to.as_seen_from(&from.node, from.judged, &self.engine);
        if [&from, &to].iter().any(|end| end.identity == Identity::KUBE_APISERVER)
            && self.engine.kinds_of_apiserver() > 1
        {
            self.notes.push(MIXED_APISERVER.to_owned());
        }
        for (number, end) in [&mut from, &mut to].into_iter().enumerate() {
            self.settle(end, number);
        }
        Ok((from, to))
    }

    /// An address that another node's pod has to do with, as far as that node's view of it differs from this one's.
    fn see_from_afar(&mut self, party: &Party, end: &mut End, judged: &End, lookup: Lookup) {
        let Party::Address(address) = party else { return };
        let is_elsewhere = judged.judged && !judged.node.is_empty() && judged.node != self.engine.node();
        let is_gateway = lookup == Lookup::Destination && is_gateway(*address);
        if !is_elsewhere || is_gateway || !self.engine.is_node_local(*address) {
            return;
        }
        self.engine.forget_own_address(*address);
        if let Some(somebody) = self.engine.at(*address, lookup) {
            *end = self.end(end.name.clone(), Somebody { addresses: vec![*address], ..somebody });
        }
        let node = &judged.node;
        self.notes.push(format!(
            "only node {node} knows whether it has {address} on a device, so its agent is the one to ask; what stands \
             here holds if it has not"
        ));
    }

    /// What answers for one end towards another; `None` if policies don't select it.
    pub(crate) fn judge(&self, direction: Direction, judged: &End, peer: &End) -> Option<Judge> {
        let table = judged.table?;
        let mut maps = self.maps(table);
        if peer.standing == Standing::Unknown {
            // No address, no class: what can be said is said of the identity.
            maps.classes.clear();
        }
        let question = Question {
            slot: u32::from(table.0),
            direction: direction.number(),
            peer: peer.identity.0,
            address: Address::from(peer.address),
            protocol: 0,
            port: 0,
        };
        let sends = direction == Direction::Egress;
        let refused = source::destination(&question.address).err().filter(|_| sends);
        let refused = refused.and_then(Dropped::reason);
        let forbidden_port = (sends && self.is_node(peer)).then(|| self.engine.tunnel_port());
        Some(Judge { maps, question, refused, forbidden_port })
    }

    /// Whether an end is a node, to which the API server's identity alone does not testify. What only routing calls the
    /// node's, as an address of kube-proxy's IPVS device, is not known here.
    fn is_node(&self, end: &End) -> bool {
        matches!(end.identity, Identity::HOST | Identity::REMOTE_NODE)
            || (end.standing == Standing::Own && self.engine.is_node_address(end.address))
    }

    pub(super) fn enforcement(&self, direction: Direction, judged: &End) -> Enforcement {
        let table = judged.table.map(|id| self.engine.enforcement_of(id));
        table
            .map(|[ingress, egress]| if direction == Direction::Ingress { ingress } else { egress })
            .unwrap_or_default()
    }

    /// The maps as far as one endpoint's policy is concerned.
    fn maps(&self, id: EndpointId) -> HostMaps {
        let mut maps = HostMaps::new();
        let written = self.engine.written();
        if let Some(table) = written.table(id) {
            let entries =
                table.entries.iter().map(|(key, entry)| ((key.prefix_len, key.key), *entry)).collect();
            maps.policy.insert(u32::from(id.0), entries);
        }
        maps.classes = written.classes().map(|(prefix, class)| (prefix_key(prefix), class.0)).collect();
        maps.known = written.known().map(|identity| identity.0).collect();
        maps
    }

    fn find(&mut self, part: &'static str, party: &Party) -> Result<End, Unknown> {
        let unknown = |problem: String, nearest| Unknown { part, party: party.clone(), problem, nearest };
        let nobody = |problem: &str| unknown(problem.to_owned(), Vec::new());
        match party {
            Party::Pod(text) => {
                let pods = self.engine.pod_names();
                let pod = find_pod(text, &pods).map_err(|(problem, nearest)| unknown(problem, nearest))?;
                let somebody = self.engine.pod(&pod).ok_or_else(|| nobody("there is no such pod"))?;
                Ok(self.end(format!("{}/{}", pod.0, pod.1), somebody))
            }
            Party::Identity(number) => {
                let labels = self.engine.labels_of_identity(*number);
                let labels = labels.ok_or_else(|| nobody("no identity has this number"))?;
                let somebody = self.engine.identity(*number, labels);
                let name = number.reserved_name().map_or_else(|| number.to_string(), str::to_owned);
                Ok(self.end(name, somebody))
            }
            Party::Entity(name) => {
                let number = reserved(name).ok_or_else(|| nobody(no_single_end(name)))?;
                let somebody = self.engine.identity(number, self.engine.labels_of_reserved(number));
                Ok(self.end(name.clone(), somebody))
            }
            Party::EntityAt { name, address, node } => {
                let number = reserved(name).ok_or_else(|| nobody(no_single_end(name)))?;
                self.engine.lend_place(number, *address, *node);
                let somebody = self.engine.identity(number, self.engine.labels_of_reserved(number));
                Ok(self.end(name.clone(), Somebody { addresses: vec![*address], ..somebody }))
            }
            Party::Labels(labels) => {
                // It is called what the person wrote, so that what was added shows.
                let completed = Arc::new(self.engine.completed(labels));
                Ok(self.end(labels.to_string(), self.engine.somebody_with(completed)))
            }
            Party::Address(address) => {
                let lookup = if part == "TO" { Lookup::Destination } else { Lookup::Known };
                let somebody = self.engine.at(*address, lookup).ok_or_else(|| {
                    nobody("the address is in a range of the cluster, and nobody is known there")
                })?;
                let name = somebody
                    .pod
                    .as_ref()
                    .map_or_else(|| address.to_string(), |pod| format!("{}/{}", pod.0, pod.1));
                Ok(self.end(name, Somebody { addresses: vec![*address], ..somebody }))
            }
        }
    }

    fn end(&self, name: String, somebody: Somebody) -> End {
        let Somebody { pod, identity, labels, ports, addresses, endpoint, node, judged } = somebody;
        End {
            name,
            pod,
            unnumbered: identity.is_none(),
            identity: identity.unwrap_or_default(),
            labels,
            ports,
            addresses,
            lent: Vec::new(),
            address: IpAddr::from([0; 4]),
            standing: Standing::Unknown,
            judged,
            table: None,
            endpoint,
            node,
        }
    }

    /// Gives an end what it lacks: a number, an address, a table.
    fn settle(&mut self, end: &mut End, number: usize) {
        if end.unnumbered {
            end.identity = self.engine.lend_identity(Arc::clone(&end.labels));
        }
        if end.judged && end.addresses.is_empty() {
            let ranges = self.engine.pod_ranges();
            let lent = NO_ADDRESS[number].iter().filter_map(|text| text.parse::<IpAddr>().ok());
            let lent = lent.filter(|address| self.engine.has_family(address.is_ipv4()));
            let lent = lent.map(|nowhere| {
                let mut hosts = ranges
                    .iter()
                    .filter(|range| range.addr().is_ipv4() == nowhere.is_ipv4())
                    .filter_map(|range| range.hosts().nth(number));
                hosts.next().unwrap_or(nowhere)
            });
            end.lent = lent.collect();
        }
        let ready = end.endpoint.filter(|id| self.engine.written().table(*id).is_some());
        if end.judged && ready.is_none() {
            let Self { engine, .. } = self;
            let ports: Arc<NamedPorts> = Arc::clone(&end.ports);
            end.table = Some(engine.lend_table(end.identity, Arc::clone(&end.labels), ports));
        } else if end.judged {
            end.table = ready;
        }
        if let Some(table) = end.table.filter(|_| !end.lent.is_empty()) {
            self.engine.lend_addresses(table, end.identity, &end.lent);
        }
    }
}

/// The identity of a reserved name that somebody can have.
fn reserved(name: &str) -> Option<Identity> {
    let found =
        Identity::RESERVED.iter().find(|(number, known)| *known == name && *number != Identity::UNKNOWN);
    found.map(|(number, _)| *number)
}

/// A port that no rule names, or a type of ICMP: types have 8 bits, and 0 is one of them.
fn unnamed_port(protocol: Option<u8>) -> u16 {
    if matches!(protocol, Some(protocol::ICMP | protocol::ICMPV6)) { 0x100 } else { 0 }
}

/// Why a name that is no reserved identity's is no end of a connection.
fn no_single_end(entity: &str) -> &'static str {
    match entity {
        "all" => {
            "that is everybody, and a connection has one opener: name a pod, an address, labels, world or host"
        }
        "cluster" | "cluster-mesh" => {
            "that is every pod and every node: name one, by pod, address, labels, host or remote-node"
        }
        "none" => "that is nobody",
        _ => "there is no entity of this name",
    }
}

fn spoken(number: u8) -> Verdict {
    match number {
        verdict::ALLOW => Verdict::Allow,
        verdict::DENY => Verdict::Deny,
        _ => Verdict::DefaultDeny,
    }
}

fn prefix_key(prefix: &IpNet) -> PrefixKey {
    let prefix_len = match prefix {
        IpNet::V4(v4) => 96 + u32::from(v4.prefix_len()),
        IpNet::V6(v6) => u32::from(v6.prefix_len()),
    };
    PrefixKey { prefix_len, address: Address::from(prefix.addr()) }
}
