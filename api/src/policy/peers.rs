//! The peer fields of an element of the Cilium schema.

use super::{CidrReach, Entity, Peer, PeerMatch, Peers, RuleAction, cidr};
use crate::fields::{Field, Fields, Report};
use crate::names;
use crate::policy::selectors::{self, Keys};

/// Which section an element stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Ingress,
    Egress,
}

/// What a peer's meaning depends on besides its own text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope<'a> {
    /// The policy's namespace; empty for a clusterwide one.
    pub(super) namespace: &'a str,
    /// Whether `endpointSelector` names `reserved:init`.
    pub(super) subject_is_init: bool,
    /// What CIDRs reach.
    pub(super) reach: CidrReach,
}

/// The entities by their names in the schema.
const ENTITIES: [(&str, Entity); 14] = [
    ("all", Entity::All),
    ("world", Entity::World),
    ("world-ipv4", Entity::WorldIpv4),
    ("world-ipv6", Entity::WorldIpv6),
    ("cluster", Entity::Cluster),
    ("cluster-mesh", Entity::ClusterMesh),
    ("host", Entity::Host),
    ("init", Entity::Init),
    ("ingress", Entity::Ingress),
    ("unmanaged", Entity::Unmanaged),
    ("remote-node", Entity::RemoteNode),
    ("health", Entity::Health),
    ("none", Entity::None),
    ("kube-apiserver", Entity::KubeApiserver),
];

/// Reads the peer fields; `None` where there is none of them. An element whose fields are there but empty has peers:
/// nobody (policy.md 1).
pub(super) fn read(
    fields: &mut Fields<'_>,
    direction: Direction,
    action: RuleAction,
    scope: Scope<'_>,
    report: &mut Report,
) -> Option<Peers> {
    let names = match direction {
        Direction::Ingress => Names::INGRESS,
        Direction::Egress => Names::EGRESS,
    };
    let mut found = Found { peers: Vec::new(), present: false, filled: Vec::new() };

    found.each(fields.take(names.endpoints), report, |field, report| {
        let written = selectors::read(field, Keys::Sourced, report)?;
        Some(PeerMatch::Labels(written.of_peer(scope.namespace, scope.subject_is_init)))
    });
    found.each(fields.take(names.cidr), report, |field, report| {
        let prefix = cidr::prefix(field, true, report)?;
        Some(PeerMatch::Cidr { prefix, except: Vec::new(), reach: scope.reach })
    });
    found.each(fields.take(names.cidr_set), report, |field, report| {
        cidr::set_element(field, scope.reach, report)
    });
    found.each(fields.take(names.entities), report, |field, report| {
        entity(field, report).map(PeerMatch::Entity)
    });

    let requires = fields.not_enforced(names.requires, "this deprecated field is", report);
    found.unenforced(requires);
    for (name, what) in names.unenforced {
        let field = fields.not_enforced(name, what, report);
        found.unenforced(field);
    }
    if direction == Direction::Egress && action == RuleAction::Allow {
        let field = fields.not_enforced("toFQDNs", "DNS names are", report);
        found.unenforced(field);
    }
    if let [first, second, ..] = found.filled.as_slice() {
        let first = first.path.rsplit('.').next().unwrap_or_default().to_owned();
        let message = format!("cannot be combined with {first} in one element; give each its own element");
        second.refuse(report, message);
    }
    found.present.then_some(Peers::OneOf(found.peers))
}

/// The peer fields' names in one direction.
struct Names {
    endpoints: &'static str,
    requires: &'static str,
    cidr: &'static str,
    cidr_set: &'static str,
    entities: &'static str,
    unenforced: &'static [(&'static str, &'static str)],
}

impl Names {
    const INGRESS: Self = Self {
        endpoints: "fromEndpoints",
        requires: "fromRequires",
        cidr: "fromCIDR",
        cidr_set: "fromCIDRSet",
        entities: "fromEntities",
        unenforced: &[("fromGroups", "cloud provider groups are"), ("fromNodes", "node selectors are")],
    };
    const EGRESS: Self = Self {
        endpoints: "toEndpoints",
        requires: "toRequires",
        cidr: "toCIDR",
        cidr_set: "toCIDRSet",
        entities: "toEntities",
        unenforced: &[
            ("toServices", "services as peers are"),
            ("toGroups", "cloud provider groups are"),
            ("toNodes", "node selectors are"),
        ],
    };
}

/// What the peer fields of an element said so far.
struct Found<'n> {
    peers: Vec<Peer>,
    present: bool,
    /// The fields with at least one peer in them.
    filled: Vec<Field<'n>>,
}

impl<'n> Found<'n> {
    fn each(
        &mut self,
        list: Option<Field<'n>>,
        report: &mut Report,
        read: impl Fn(&Field<'n>, &mut Report) -> Option<PeerMatch>,
    ) {
        let Some(list) = list else { return };
        self.present = true;
        let items = list.list(report).unwrap_or_default();
        if !items.is_empty() {
            self.filled.push(list);
        }
        for item in items {
            if let Some(matches) = read(&item, report) {
                self.peers.push(Peer { matches, path: item.path, line: item.line });
            }
        }
    }

    fn unenforced(&mut self, field: Option<Field<'n>>) {
        self.present |= field.is_some();
    }
}

fn entity(field: &Field<'_>, report: &mut Report) -> Option<Entity> {
    let name = field.text(report)?;
    let Some((_, entity)) = ENTITIES.iter().find(|(known, _)| *known == name) else {
        let known: Vec<_> = ENTITIES.iter().map(|(name, _)| *name).collect();
        let name = names::shown(name);
        field.refuse(report, format!("{name:?} is no entity (known: {})", known.join(", ")));
        return None;
    };
    match entity {
        Entity::Health => field.warn(report, "matches nobody: Sinew has no health endpoints"),
        Entity::Ingress => field.warn(report, "matches nobody: there is no ingress proxy here"),
        Entity::ClusterMesh => {
            field.warn(report, "matches nobody beyond this cluster: there is no cluster mesh")
        }
        _ => {}
    }
    Some(*entity)
}
