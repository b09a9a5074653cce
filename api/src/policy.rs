//! A policy as the engine sees it: one shape for all five kinds, every field of their schemas either in here or
//! among the problems (policy.md 14).
//!
//! Neighbours: `policy/` decodes YAML into these values; `sinew_engine::policy` resolves them into tables.
//! What a field of a kind means (`ingress: [{}]`, a missing `from`) is settled by the decoder: nothing here is
//! kind-specific.

mod cidr;
pub(crate) mod cidr_group;
mod cilium;
pub(crate) mod decode;
mod element;
mod icmp;
mod network_policy;
mod peers;
mod ports;
mod selectors;
mod spec;

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::object::{CidrGroupKind, Origin, PolicyName, Problem};
use crate::selector::Selector;

pub use cilium::{ENFORCEMENT_ANNOTATION, MATCH_MODE_ANNOTATION};

/// One policy object, valid or refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Kind, namespace and name.
    pub name: PolicyName,
    /// `metadata.uid`, empty where there is none.
    pub uid: String,
    /// `metadata.generation`; in the folder store a hash of the document's content.
    pub generation: u64,
    /// Where the document begins.
    pub origin: Origin,
    /// Whether it is enforced or only reported (policy.md 13).
    pub enforcement: Enforcement,
    /// `spec` and `specs[]`. Of a refused object: what policy.md 14 lets it contribute.
    pub specs: Vec<PolicySpec>,
    /// Why the object is refused; empty for a valid one. A refused object's specs hold no allow rules.
    pub problems: Vec<Problem>,
    /// Valid, but its author should know (foot-guns that the object alone shows).
    pub warnings: Vec<Problem>,
}

/// Whether a policy's verdicts are enforced or are a shadow beside the enforced ones (policy.md 13).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Enforcement {
    /// Enforced.
    #[default]
    Enforce,
    /// Reported as `AUDIT`, never enforced.
    Audit,
}

/// One `spec`: whom it selects, which default denies it switches on, and its rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicySpec {
    /// The endpoints it selects, with the scope of policy.md 3 already part of it.
    pub subject: Selector,
    /// The line of the field that selects them, or of the spec where that is absent.
    #[serde(default)]
    pub subject_line: u32,
    /// Switches on default deny for ingress (policy.md 2).
    pub default_deny_ingress: bool,
    /// Switches on default deny for egress (policy.md 2).
    pub default_deny_egress: bool,
    /// Rules on what comes in.
    pub ingress: Vec<Rule>,
    /// Rules on what goes out.
    pub egress: Vec<Rule>,
    /// `labels[]` of the spec, as `source:key=value`.
    pub labels: Vec<String>,
    /// `log.value`.
    pub log: Option<String>,
}

/// One element of a section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// What it says of a packet that it matches.
    pub action: RuleAction,
    /// Who the other side is.
    pub peers: Peers,
    /// Which traffic; empty means all of it.
    pub ports: Vec<PortMatch>,
    /// Path of the element, such as `spec.ingress[0]` or `specs[1].egressDeny[2]`.
    pub path: String,
    /// Where the element stands.
    pub origin: Origin,
}

/// What a rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RuleAction {
    /// The packet may pass.
    Allow,
    /// It may not, whatever allows it (policy.md 11).
    Deny,
}

/// The other side of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Peers {
    /// Anybody: every identity and every address.
    Any,
    /// Whoever one of these matches; nobody, if it is empty (policy.md 1).
    OneOf(Vec<Peer>),
}

/// One peer of a rule, with the field that named it, for `explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// What it matches.
    pub matches: PeerMatch,
    /// Path of the field, such as `spec.ingress[0].fromEndpoints[1]`.
    pub path: String,
    /// Its line.
    #[serde(default)]
    pub line: u32,
}

/// What a peer matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerMatch {
    /// Identities by their labels, the scope of policy.md 3 already part of the selector.
    Labels(Selector),
    /// An entity (policy.md 6).
    Entity(Entity),
    /// Addresses of a prefix but not of `except`, where `reach` says what may stand behind them.
    Cidr {
        /// The prefix, with host bits cleared.
        prefix: IpNet,
        /// Prefixes cut out of it.
        except: Vec<IpNet>,
        /// What may stand behind an address (policy.md 5).
        reach: CidrReach,
    },
    /// The prefixes of CIDR groups, resolved by the engine against the groups it knows.
    CidrGroup {
        /// By name, or by labels of the group.
        group: CidrGroupMatch,
        /// Prefixes cut out of them.
        except: Vec<IpNet>,
        /// As for `Cidr`.
        reach: CidrReach,
    },
}

/// How a rule names a `SinewCIDRGroup` or `CiliumCIDRGroup`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CidrGroupMatch {
    /// `cidrGroupRef`.
    Name(String),
    /// `cidrGroupSelector`, over the group's labels.
    Labels(Selector),
}

/// What may stand behind an address that a prefix matches (policy.md 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CidrReach {
    /// Pods of the cluster (NetworkPolicy `ipBlock`, or `policyCIDRMatchMode: pods`).
    pub pods: bool,
    /// Nodes of the cluster, this one too (`ipBlock`, or `policyCIDRMatchMode: nodes`).
    pub nodes: bool,
}

/// The entities of the CiliumNetworkPolicy schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(
    missing_docs,
    reason = "each name is the schema's own word; policy.md 6 and docs/policy.md say what each holds"
)]
pub enum Entity {
    All,
    World,
    WorldIpv4,
    WorldIpv6,
    Cluster,
    ClusterMesh,
    Host,
    Init,
    Ingress,
    Unmanaged,
    RemoteNode,
    Health,
    None,
    KubeApiserver,
}

/// Which traffic an element of `toPorts` or `icmps` matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMatch {
    /// What it matches.
    pub matches: PortMatchKind,
    /// Path of the field, such as `spec.ingress[0].toPorts[0].ports[1]`.
    pub path: String,
    /// Its line.
    #[serde(default)]
    pub line: u32,
}

/// What a port field matches. `Any` protocols with a port are expanded by the decoder to TCP, UDP and SCTP (policy.md 10).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PortMatchKind {
    /// A whole protocol, whatever its port.
    Protocol(Protocol),
    /// Ports `first..=last` of a protocol, 1..=65535.
    Range {
        /// The protocol.
        protocol: Protocol,
        /// First port.
        first: u16,
        /// Last port, not below the first.
        last: u16,
    },
    /// A named port: of the selected pod for ingress, of each peer for egress (policy.md 10).
    Named {
        /// The protocol.
        protocol: Protocol,
        /// The name.
        name: String,
    },
    /// One ICMP or ICMPv6 type.
    IcmpType {
        /// `Icmp` or `Icmpv6`.
        protocol: Protocol,
        /// The type, 0–255.
        icmp_type: u8,
    },
}

/// Protocols that policy speaks of. The numbers are IANA's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the protocols'")]
#[repr(u8)]
pub enum Protocol {
    Icmp = 1,
    Tcp = 6,
    Udp = 17,
    Icmpv6 = 58,
    Sctp = 132,
}

/// A `SinewCIDRGroup` or `CiliumCIDRGroup`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CidrGroup {
    /// Which of the two kinds it is.
    pub kind: CidrGroupKind,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its prefixes, host bits cleared.
    pub prefixes: Vec<IpNet>,
    /// Whether these are all that it names. The rest of a refused group holds in deny rules and in no other
    /// (policy.md 14).
    pub whole: bool,
    /// Where it stands.
    pub origin: Origin,
}
