//! What one node is told about itself and its cluster.

use std::net::IpAddr;

use ipnet::IpNet;
use sinew_api::object::Routing;

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
    /// Addresses of the API server (entity `kube-apiserver`), unless they are this node's own.
    pub kube_apiserver: Vec<IpAddr>,
    /// How other nodes' pods are reached.
    pub routing: Routing,
    /// Which labels make an identity.
    pub labels: LabelFilter,
    /// Entries that one policy table may have. The kernel's has room for a third more, for the time while classes are
    /// cut (`state/order.rs` 3).
    pub table_capacity: usize,
    /// Prefixes that the trie of address classes may have.
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
            kube_apiserver: Vec::new(),
            routing: Routing::Native,
            labels: LabelFilter::default(),
            table_capacity: 49_152,
            class_capacity: 65_536,
            revision: 0,
        }
    }
}

/// Which labels of a pod are part of its identity: all, except what a pattern excludes. Where patterns disagree, the
/// longest one that matches decides, as in Cilium.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelFilter {
    include: Vec<String>,
    exclude: Vec<String>,
}

impl Default for LabelFilter {
    /// Cilium's default: what tools put on pods for their own use makes no identities.
    fn default() -> Self {
        Self::new([
            "io.kubernetes.pod.namespace",
            "io.cilium.k8s.namespace.labels.",
            "app.kubernetes.io",
            "io.cilium.k8s.policy.cluster",
            "io.cilium.k8s.policy.serviceaccount",
            "!io.kubernetes",
            "!kubernetes.io",
            "!statefulset.kubernetes.io/pod-name",
            "!apps.kubernetes.io/pod-index",
            "!batch.kubernetes.io/job-completion-index",
            "!batch.kubernetes.io/controller-uid",
            "!*.beta.kubernetes.io",
            "!k8s.io",
            "!pod-template-generation",
            "!pod-template-hash",
            "!controller-revision-hash",
            "!controller-uid",
            "!annotation.",
            "!etcd_node",
            "!topology.kubernetes.io",
        ])
    }
}

impl LabelFilter {
    /// A filter of patterns. One stands for every key that begins with it, or, with `*` in front, for every key that
    /// contains it; `!` before it excludes those keys.
    #[must_use]
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Self {
        let mut filter = Self { include: Vec::new(), exclude: Vec::new() };
        for pattern in patterns {
            match pattern.strip_prefix('!') {
                Some(pattern) => filter.exclude.push(pattern.to_owned()),
                None => filter.include.push(pattern.to_owned()),
            }
        }
        filter
    }

    /// Whether a label with this key is part of identities.
    #[must_use]
    pub fn keeps(&self, key: &str) -> bool {
        let longest = |patterns: &[String]| {
            patterns.iter().filter(|pattern| matches(pattern, key)).map(String::len).max().unwrap_or(0)
        };
        let excluded = longest(&self.exclude);
        excluded == 0 || longest(&self.include) > excluded
    }
}

fn matches(pattern: &str, key: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(part) => key.contains(part),
        None => key.starts_with(pattern),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_keeps_what_people_select_by() {
        let filter = LabelFilter::default();
        for key in [
            "app",
            "app.kubernetes.io/name",
            "io.kubernetes.pod.namespace",
            "io.cilium.k8s.policy.cluster",
            "io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name",
            "team.example.org/tier",
        ] {
            assert!(filter.keeps(key), "{key}");
        }
        for key in [
            "pod-template-hash",
            "controller-revision-hash",
            "statefulset.kubernetes.io/pod-name",
            "batch.kubernetes.io/controller-uid",
            "io.kubernetes.container.name",
            "failure-domain.beta.kubernetes.io/zone",
            "topology.kubernetes.io/zone",
        ] {
            assert!(!filter.keeps(key), "{key}");
        }
    }

    #[test]
    fn the_longest_pattern_decides() {
        let filter = LabelFilter::new(["!team", "team.example.org/owner"]);
        assert!(filter.keeps("team.example.org/owner"));
        assert!(!filter.keeps("team.example.org/cost"));
        assert!(filter.keeps("app"));
    }
}
