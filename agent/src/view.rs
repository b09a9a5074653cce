//! What the control loop publishes after each batch of events: one value, cheap to hand out, that everybody else answers
//! from.
//!
//! Neighbours: `control.rs` writes it, `server/` reads it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use sinew_api::object::{Node, Problem, Refused};
use sinew_engine::EndpointId;
use sinew_engine::snapshot::Snapshot;

/// A node that has been silent for longer counts as dead (policy.md 16). Nodes say that they live every 2 s.
const NODE_SILENCE: Duration = Duration::from_secs(30);

/// Whether a node was heard of lately. One ahead of our clock was.
pub(crate) fn is_alive(node: &Node, now: SystemTime) -> bool {
    let heartbeat = SystemTime::UNIX_EPOCH + Duration::from_millis(node.status.heartbeat_ms);
    now.duration_since(heartbeat).is_ok_and(|silence| silence < NODE_SILENCE) || heartbeat >= now
}

/// The node as of one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// What the engine has decided.
    pub snapshot: Arc<Snapshot>,
    /// What it has decided by now, carried out or not: what the programs tell of may have been decided since `snapshot`.
    pub ahead: Arc<Snapshot>,
    /// The revision that is written and has passed a grace period.
    pub enforced: u64,
    /// Every node of the store, this one too, by name.
    pub nodes: Arc<BTreeMap<String, Node>>,
    /// Digest of the policies that the store holds, as this node reads them.
    pub store_digest: String,
    /// Documents of the store that can't be read, not even their names.
    pub unreadable: Arc<Vec<Problem>>,
    /// Documents with a name that are no object as they are: of objects other than policies, or of a name that another
    /// document has.
    pub refused: Arc<Vec<Refused>>,
    /// Pods under way to other labels, which count for no policy yet (policy.md 17), and their nodes.
    pub moving: Arc<BTreeMap<String, String>>,
    /// Documents of the store that are of foreign kinds, and nobody's business here.
    pub foreign: usize,
    /// How the endpoints are wired.
    pub wires: Arc<BTreeMap<EndpointId, Wire>>,
    /// The node's pools.
    pub pools: Vec<PoolFill>,
    /// What is not as it should be, by what it concerns; empty is good.
    pub failures: BTreeMap<Part, String>,
    /// What of the store is not read, is seen late or can't be said, if anything is; pods are attached all the same.
    pub store_warning: Option<String>,
    /// Why the programs don't catch forged checksum offsets in pods' packets, if they don't.
    pub checksums_off: Option<String>,
}

impl View {
    /// Before anything is known.
    pub(crate) fn empty() -> Self {
        Self {
            snapshot: Arc::default(),
            ahead: Arc::default(),
            enforced: 0,
            nodes: Arc::default(),
            store_digest: String::new(),
            unreadable: Arc::default(),
            refused: Arc::default(),
            moving: Arc::default(),
            foreign: 0,
            wires: Arc::default(),
            pools: Vec::new(),
            failures: BTreeMap::new(),
            store_warning: None,
            checksums_off: None,
        }
    }

    /// Why no CNI ADD can be served now, if that is so.
    #[must_use]
    pub fn unavailable(&self) -> Option<String> {
        unavailable(&self.failures, self.snapshot.synced, &self.pools)
    }
}

/// The same before it is in a view: CNI STATUS and `sinew status` say one thing.
pub(crate) fn unavailable(
    failures: &BTreeMap<Part, String>,
    synced: bool,
    pools: &[PoolFill],
) -> Option<String> {
    for part in [Part::Datapath, Part::Store, Part::Underlay] {
        if let Some(message) = failures.get(&part) {
            return Some(format!("{}: {message}", part.name()));
        }
    }
    if !synced {
        return Some("the first list of objects is not complete yet".into());
    }
    let full = pools.iter().find(|pool| pool.is_exhausted())?;
    Some(format!("no address is free in {}", full.range))
}

/// A part of the node that is checked, in the order in which they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Programs and maps.
    Datapath,
    /// The store, as far as it can be read and written.
    Store,
    /// The objects in it.
    Policies,
    /// Whether pods can be attached.
    Cni,
    /// The node's pools.
    Addresses,
    /// Whether the underlay's devices can serve pods at all.
    Underlay,
    /// Programs on the underlay's devices.
    Devices,
    /// The ways to other nodes' pods.
    Routes,
    /// The size of packets on the underlay.
    Mtu,
    /// Limits on pods' interfaces.
    Queues,
    /// What a restart must find again.
    State,
}

impl Part {
    /// Every part.
    pub const ALL: [Self; 11] = [
        Self::Datapath,
        Self::Store,
        Self::Policies,
        Self::Cni,
        Self::Addresses,
        Self::Underlay,
        Self::Devices,
        Self::Routes,
        Self::Mtu,
        Self::Queues,
        Self::State,
    ];

    /// Its name in `sinew status` and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Datapath => "datapath",
            Self::Store => "store",
            Self::Policies => "policies",
            Self::Cni => "cni",
            Self::Addresses => "addresses",
            Self::Underlay => "underlay",
            Self::Devices => "devices",
            Self::Routes => "routes",
            Self::Mtu => "mtu",
            Self::Queues => "queues",
            Self::State => "state",
        }
    }
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

impl PoolFill {
    /// Addresses that can be leased now.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.capacity.saturating_sub(self.leased + self.resting)
    }

    /// Whether none can be.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.free() == 0
    }
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

#[cfg(test)]
mod tests {
    use sinew_api::object::{NodeStatus, Origin, Routing};

    use super::*;

    #[test]
    fn a_silent_node_is_dead_and_one_ahead_of_us_is_alive() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let node = |heartbeat_ms| {
            let mut node = Node {
                name: "b".into(),
                cluster: "default".into(),
                id: 2,
                addresses: Vec::new(),
                pod_cidrs: Vec::new(),
                routing: Routing::Native,
                status: NodeStatus::default(),
                origin: Origin::default(),
            };
            node.status.heartbeat_ms = heartbeat_ms;
            node
        };
        assert!(is_alive(&node(990_000), now));
        assert!(is_alive(&node(1_005_000), now), "clocks differ by some seconds");
        assert!(!is_alive(&node(960_000), now));
        assert!(!is_alive(&node(0), now), "never heard of");
    }
}
