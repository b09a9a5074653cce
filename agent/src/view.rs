//! What the control loop publishes after each batch of events: one value, cheap to hand out, that everybody else answers
//! from.
//!
//! Neighbours: `control.rs` writes it, `server/` reads it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use sinew_api::object::{Node, Problem};
use sinew_engine::EndpointId;
use sinew_engine::snapshot::Snapshot;

/// A node that has been silent for longer counts as dead: it is listed, and nobody waits for it (policy.md 16). Nodes say
/// that they live every 2 s.
pub const NODE_SILENCE: Duration = Duration::from_secs(30);

/// The node as of one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// What the engine has decided.
    pub snapshot: Arc<Snapshot>,
    /// The revision that is written and has passed a grace period.
    pub enforced: u64,
    /// Every node of the store, this one too, by name.
    pub nodes: Arc<BTreeMap<String, Node>>,
    /// Digest of the policies that the store holds, as this node reads them.
    pub store_digest: String,
    /// Documents of the store that can't be read.
    pub unreadable: Arc<Vec<Problem>>,
    /// How the endpoints are wired.
    pub wires: Arc<BTreeMap<EndpointId, Wire>>,
    /// The node's pools.
    pub pools: Vec<PoolFill>,
    /// What is not as it should be, by what it concerns; empty is good.
    pub failures: BTreeMap<&'static str, String>,
}

/// How an endpoint is wired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wire {
    /// Host side of its pair.
    pub interface: String,
    /// Its index.
    pub ifindex: u32,
    /// MAC of the pod's side.
    pub mac: [u8; 6],
    /// Path of the pod's network namespace.
    pub netns: String,
    /// Whether its CNI ADD has been answered.
    pub stands: bool,
    /// When CNI ADD began.
    pub created: SystemTime,
}

/// How full a pool is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolFill {
    /// The pool.
    pub range: IpNet,
    /// Addresses that can be leased at all.
    pub capacity: u64,
    /// Addresses leased.
    pub leased: u64,
    /// Released addresses that rest.
    pub resting: u64,
}

/// What doesn't change while the agent runs.
#[derive(Clone, Debug)]
pub struct Constants {
    /// Name of the node, without the cluster.
    pub node: String,
    /// Name of the cluster.
    pub cluster: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// `native` or `vxlan`.
    pub routing: String,
    /// MTU that pods use across nodes, bytes.
    pub mtu: u32,
    /// The store, such as `folder:/etc/sinew/objects`.
    pub store: String,
    /// When the agent started.
    pub started: SystemTime,
    /// Kernel release.
    pub kernel: String,
}
