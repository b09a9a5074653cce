//! What one node is told about itself and its cluster.

use std::net::IpAddr;

use ipnet::IpNet;
use sinew_api::labels::LabelFilter;
use sinew_api::object::Routing;
use sinew_bpf::settings::TUNNEL_PORT;

/// Entries that one policy table of a node may have. The kernel's has room for a third more.
pub const TABLE_CAPACITY: usize = 49_152;
/// Classes that the CIDRs of all policies of a node may cut addresses into. The kernel has room for a third more.
pub const CLASS_CAPACITY: usize = 49_152;

/// Settings of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This node's name.
    pub node: String,
    /// The cluster's name.
    pub cluster: String,
    /// Whether pods have IPv4 addresses.
    pub v4: bool,
    /// Whether pods have IPv6 addresses.
    pub v6: bool,
    /// Ranges of all pods of the cluster.
    pub cluster_cidrs: Vec<IpNet>,
    /// Addresses of the API server (entity `kube-apiserver`). One of this node's own stays the host's, and one of a pod the
    /// pod's. `None` where nobody knows, as for a folder of objects.
    pub kube_apiserver: Option<Vec<IpAddr>>,
    /// How other nodes' pods are reached.
    pub routing: Routing,
    /// UDP port of the overlay, to which no pod may send at a node (datapath.md 24).
    pub tunnel_port: u16,
    /// Which labels make an identity.
    pub labels: LabelFilter,
    /// Entries that one policy table may have. The kernel's has room for a third more, for the time while classes are
    /// cut ([`Config::table_room`]).
    pub table_capacity: usize,
    /// Prefixes that the trie of address classes may have; the kernel's has room for a third more too.
    pub class_capacity: usize,
    /// The revision to go on from: that of the last run, or 0.
    pub revision: u64,
}

impl Config {
    /// A dual-stack node with Cilium's defaults.
    #[must_use]
    pub fn new(node: &str, cluster: &str) -> Self {
        Self {
            node: node.to_owned(),
            cluster: cluster.to_owned(),
            v4: true,
            v6: true,
            cluster_cidrs: Vec::new(),
            kube_apiserver: None,
            routing: Routing::Native,
            tunnel_port: TUNNEL_PORT,
            labels: LabelFilter::default(),
            table_capacity: TABLE_CAPACITY,
            class_capacity: CLASS_CAPACITY,
            revision: 0,
        }
    }

    /// Whether the API server has this address.
    pub(crate) fn is_apiserver(&self, address: &IpAddr) -> bool {
        self.kube_apiserver.as_ref().is_some_and(|all| all.contains(address))
    }

    /// Entries that a table may have while classes are cut.
    pub(crate) fn table_room(&self) -> usize {
        self.table_capacity + self.table_capacity / 3
    }

    /// Prefixes that the trie may have while classes are cut.
    pub(crate) fn class_room(&self) -> usize {
        self.class_capacity + self.class_capacity / 3
    }
}
