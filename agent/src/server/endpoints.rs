//! Endpoints as a person asks for them: by number, name, container or address.

use sinew_api::identity::Identity;
use sinew_api::labels::Labels;
use sinew_api::policy::Protocol;
use sinew_api::proto::agent::get_endpoint_request::By;
use sinew_api::proto::agent::table_entry::PeerKind;
use sinew_api::proto::agent::{
    DirectionEnforcement, Endpoint, EndpointState, GetEndpointRequest, GetEndpointResponse,
    ListEndpointsResponse, NamedPort, TableEntry,
};
use sinew_api::proto::flow::{TrafficDirection, Verdict};
use sinew_bpf::abi::policy::{direction, verdict};
use sinew_bpf::abi::{PolicyEntry, PolicyKey, StateWord};
use sinew_engine::explain::enforcement;
use sinew_engine::snapshot::EndpointView;
use sinew_engine::{EndpointId, TableKey};
use tonic::Status;

use super::policies::rule_of_cookie;
use super::{AgentService, Ask};
use crate::view::View;

impl AgentService {
    /// All, by number.
    pub(super) async fn endpoints(&self) -> Result<ListEndpointsResponse, Status> {
        let words = self.ask(Ask::Words).await?;
        let view = self.view();
        let endpoints = view
            .snapshot
            .endpoints
            .iter()
            .map(|(id, endpoint)| {
                answer(&view, &self.sources.constants.node, *id, endpoint, words.get(id).copied())
            })
            .collect();
        Ok(ListEndpointsResponse { endpoints })
    }

    /// One, with its table.
    pub(super) async fn endpoint(&self, request: &GetEndpointRequest) -> Result<GetEndpointResponse, Status> {
        let words = self.ask(Ask::Words).await?;
        let view = self.view();
        let by = request.by.as_ref().ok_or_else(|| Status::invalid_argument("by: name one endpoint"))?;
        let (id, endpoint) = find(&view, by)?;
        let table = sorted(endpoint.table.iter().flat_map(|table| &table.entries))
            .into_iter()
            .map(|(key, entry)| table_entry(&view, key, entry))
            .collect();
        let word = words.get(&id).copied();
        let endpoint = answer(&view, &self.sources.constants.node, id, endpoint, word);
        Ok(GetEndpointResponse { endpoint: Some(endpoint), table })
    }
}

fn find<'a>(view: &'a View, by: &By) -> Result<(EndpointId, &'a EndpointView), Status> {
    let matches = |id: EndpointId, endpoint: &EndpointView| match by {
        By::Id(number) => u32::from(id.0) == *number,
        By::Name(name) => {
            endpoint_name(endpoint) == *name || (!name.contains('/') && endpoint.created.pod_name == *name)
        }
        By::ContainerId(prefix) => endpoint.created.container_id.starts_with(prefix.as_str()),
        By::Address(address) => endpoint.created.addresses.iter().any(|own| own.to_string() == *address),
    };
    let asked = || match by {
        By::Id(number) => number.to_string(),
        By::Name(text) | By::ContainerId(text) | By::Address(text) => text.clone(),
    };
    let mut found = view.snapshot.endpoints.iter().filter(|(id, endpoint)| matches(**id, endpoint));
    match (found.next(), found.next()) {
        (Some((id, endpoint)), None) => Ok((*id, endpoint)),
        (Some(_), Some(_)) => {
            Err(Status::invalid_argument(format!("more than one endpoint of this node is `{}`", asked())))
        }
        (None, _) => Err(Status::not_found(format!("no endpoint of this node is `{}`", asked()))),
    }
}

/// `ns/pod`, or the container's id where there is no pod.
pub(super) fn endpoint_name(endpoint: &EndpointView) -> String {
    let created = &endpoint.created;
    if created.pod_name.is_empty() {
        created.container_id.clone()
    } else {
        format!("{}/{}", created.pod_namespace, created.pod_name)
    }
}

/// Where an endpoint stands.
pub(crate) fn state(view: &View, id: EndpointId) -> EndpointState {
    let Some(endpoint) = view.snapshot.endpoints.get(&id) else {
        return EndpointState::Unspecified;
    };
    match endpoint {
        _ if endpoint.pod.as_ref().is_some_and(|pod| pod.terminating) => EndpointState::Terminating,
        EndpointView { table: None, created, .. } if created.found.is_some() => EndpointState::Restored,
        EndpointView { identity: Identity::INIT, .. } if has_labels(view, endpoint) => {
            EndpointState::WaitingForIdentity
        }
        EndpointView { identity: Identity::INIT, .. } => EndpointState::WaitingForLabels,
        EndpointView { table: None, .. } => EndpointState::WaitingForTable,
        _ => EndpointState::Ready,
    }
}

/// Whether it is known which labels an endpoint has: its pod's, or those of CNI where there is no pod. The engine asks
/// for their number once the first lists are complete.
fn has_labels(view: &View, endpoint: &EndpointView) -> bool {
    let known = endpoint.pod.is_some() || endpoint.created.pod_name.is_empty();
    known && view.snapshot.synced
}

fn answer(
    view: &View,
    node: &str,
    id: EndpointId,
    endpoint: &EndpointView,
    word: Option<StateWord>,
) -> Endpoint {
    let created = &endpoint.created;
    let wire = view.wires.get(&id);
    let word = word.unwrap_or_default();
    let side = |side: u8| Some(enforced(endpoint, side));
    Endpoint {
        id: u32::from(id.0),
        node: node.to_owned(),
        namespace: created.pod_namespace.clone(),
        pod: created.pod_name.clone(),
        container_id: created.container_id.clone(),
        container_interface: created.ifname.clone(),
        interface: wire.map(|wire| wire.interface.clone()).unwrap_or_default(),
        interface_index: wire.map_or(0, |wire| wire.ifindex),
        addresses: created.addresses.iter().map(ToString::to_string).collect(),
        identity: endpoint.identity.0,
        labels: endpoint.labels.to_strings(),
        state: state(view, id).into(),
        message: endpoint.moving_to.as_deref().map(moving).unwrap_or_default(),
        ingress: side(direction::INGRESS),
        egress: side(direction::EGRESS),
        epoch: word.epoch(),
        slot: word.slot(),
        revision: view.enforced,
        created: wire.map(|wire| wire.created.into()),
        mac: wire.map(|wire| mac(wire.mac)).unwrap_or_default(),
        netns: wire.map(|wire| wire.netns.clone()).unwrap_or_default(),
        named_ports: endpoint.pod.iter().flat_map(|pod| &pod.ports).map(named_port).collect(),
        workload: endpoint
            .pod
            .as_ref()
            .and_then(|pod| pod.workload.as_ref())
            .map(|workload| format!("{}/{}", workload.kind, workload.name))
            .unwrap_or_default(),
    }
}

/// What policy does to one direction of an endpoint. Its table is the sum of all policies: a deny rule of one that switches
/// no default deny on drops too.
fn enforced(endpoint: &EndpointView, side: u8) -> DirectionEnforcement {
    let denies =
        |key: &TableKey, entry: &PolicyEntry| key.key.direction == side && entry.verdict == verdict::DENY;
    let mut table = endpoint.table.iter().flat_map(|table| &table.entries);
    DirectionEnforcement {
        deny_rules: table.any(|(key, entry)| denies(key, entry)),
        ..enforcement(&endpoint.enforcement[usize::from(side)])
    }
}

/// The entries of a table as people read them: the ports of a range, which are several, in their order.
fn sorted<'a>(
    entries: impl IntoIterator<Item = (&'a TableKey, &'a PolicyEntry)>,
) -> Vec<(&'a TableKey, &'a PolicyEntry)> {
    let mut entries: Vec<_> = entries.into_iter().collect();
    entries.sort_by_key(|(TableKey { prefix_len, key }, _)| {
        (key.peer, key.direction, key.protocol, u16::from_be(key.port), *prefix_len)
    });
    entries
}

fn moving(labels: &Labels) -> String {
    format!(
        "moves to the identity of {labels}; until every node knows it, only what both identities allow is allowed"
    )
}

fn named_port(port: &sinew_api::object::NamedPort) -> NamedPort {
    let protocol = match port.protocol {
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
        _ => "TCP",
    };
    NamedPort { name: port.name.clone(), port: u32::from(port.port), protocol: protocol.to_owned() }
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

fn table_entry(view: &View, key: &TableKey, entry: &PolicyEntry) -> TableEntry {
    let PolicyKey { peer, direction: side, protocol, port } = key.key;
    let (kind, text) = match Identity(peer) {
        Identity(0) => (PeerKind::Any, "any".to_owned()),
        id if id.scope() == 1 => {
            let class = view.snapshot.classes.get(&id);
            (PeerKind::AddressClass, class.map(|class| class.prefix.to_string()).unwrap_or_default())
        }
        id => {
            let labels = view.snapshot.identities.get(&id).map(|identity| identity.labels.to_string());
            (PeerKind::Identity, labels.unwrap_or_default())
        }
    };
    let port_bits = u32::from(key.prefix_len.saturating_sub(PolicyKey::PEER_BITS as u8 + 8)).min(16);
    let first = u16::from_be(port);
    let last = first | u16::MAX.checked_shr(port_bits).unwrap_or(0);
    let side = if side == direction::INGRESS { TrafficDirection::Ingress } else { TrafficDirection::Egress };
    let differs = (entry.verdict, entry.cookie) != (entry.shadow_verdict, entry.shadow_cookie);
    TableEntry {
        direction: side.into(),
        peer_kind: kind.into(),
        peer,
        peer_text: text,
        protocol: protocol_name(protocol).to_owned(),
        first_port: u32::from(first),
        last_port: u32::from(last),
        verdict: flow_verdict(entry.verdict).into(),
        shadow_verdict: if differs { flow_verdict(entry.shadow_verdict) } else { Verdict::Unknown }.into(),
        rule: rule_of_cookie(view, entry.cookie, side),
        shadow_rule: differs.then(|| rule_of_cookie(view, entry.shadow_cookie, side)).flatten(),
        precedence: entry.precedence,
    }
}

fn flow_verdict(number: u8) -> Verdict {
    if number == verdict::ALLOW { Verdict::Forwarded } else { Verdict::Dropped }
}

/// A protocol as people write it; `ANY` for 0.
pub(super) fn protocol_name(number: u8) -> &'static str {
    match number {
        1 => "ICMP",
        6 => "TCP",
        17 => "UDP",
        58 => "ICMPv6",
        132 => "SCTP",
        _ => "ANY",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use sinew_api::object::{Object, decode_text};
    use sinew_engine::snapshot::Snapshot;
    use sinew_engine::{LocalEndpoint, PolicyTable};

    use super::*;

    fn endpoint(created: LocalEndpoint, pod: Option<Arc<sinew_api::object::Pod>>) -> EndpointView {
        EndpointView {
            created,
            pod,
            identity: Identity::INIT,
            labels: Arc::new(Labels::reserved("init")),
            moving_to: None,
            enforcement: Default::default(),
            table: None,
        }
    }

    fn created(pod_name: &str) -> LocalEndpoint {
        LocalEndpoint {
            id: EndpointId(1),
            container_id: "c".into(),
            ifname: "eth0".into(),
            pod_namespace: "default".into(),
            pod_name: pod_name.into(),
            pod_uid: String::new(),
            labels: BTreeMap::new(),
            addresses: Vec::new(),
            found: None,
        }
    }

    /// The state of an endpoint of `init` with this pod, whose object says this, or none.
    fn state_of_init(pod_name: &str, pod: Option<&str>, synced: bool) -> EndpointState {
        let pod = pod.map(|text| match decode_text("pod.yaml", text).remove(0) {
            Ok(Object::Pod(pod)) => Arc::new(pod),
            other => panic!("{other:?}"),
        });
        let endpoint = endpoint(created(pod_name), pod);
        let endpoints = Arc::new(BTreeMap::from([(EndpointId(1), endpoint)]));
        let snapshot = Arc::new(Snapshot { synced, endpoints, ..Snapshot::default() });
        state(&View { snapshot, ..View::empty() }, EndpointId(1))
    }

    #[test]
    fn a_pod_whose_labels_are_known_waits_for_their_number() {
        let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\n";
        assert_eq!(state_of_init("web", None, true), EndpointState::WaitingForLabels);
        assert_eq!(state_of_init("web", Some(pod), true), EndpointState::WaitingForIdentity);
        assert_eq!(state_of_init("", None, true), EndpointState::WaitingForIdentity);
        assert_eq!(state_of_init("web", Some(pod), false), EndpointState::WaitingForLabels);
    }
    fn key(side: u8, port: u16, prefix_len: u8) -> TableKey {
        let key = PolicyKey { peer: 0, direction: side, protocol: 6, port: port.to_be() };
        TableKey { prefix_len, key }
    }

    #[test]
    fn deny_rules_show_whatever_default_deny_is() {
        let entry = |verdict: u8| PolicyEntry { verdict, ..PolicyEntry::default() };
        let mut endpoint = endpoint(created("web"), None);
        assert!(!enforced(&endpoint, direction::INGRESS).deny_rules);
        let entries = [
            (key(direction::INGRESS, 80, 64), entry(verdict::DENY)),
            (key(direction::EGRESS, 80, 64), entry(verdict::DEFAULT_DENY)),
        ];
        endpoint.table = Some(Arc::new(PolicyTable { entries: entries.into() }));
        let sides = [direction::INGRESS, direction::EGRESS];
        assert_eq!(sides.map(|side| enforced(&endpoint, side).deny_rules), [true, false]);
    }

    #[test]
    fn the_ports_of_a_range_come_in_their_order() {
        let entry = PolicyEntry::default();
        let keys = [key(0, 8192, 55), key(0, 8704, 56), key(0, 8064, 57), key(0, 8063, 64)];
        let ports: Vec<u16> = sorted(keys.iter().map(|key| (key, &entry)))
            .into_iter()
            .map(|(key, _)| u16::from_be(key.key.port))
            .collect();
        assert_eq!(ports, [8063, 8064, 8192, 8704]);
    }
}
