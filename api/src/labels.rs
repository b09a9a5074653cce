//! Labels with their sources: `k8s:app=web`, `reserved:world`, and the set that an identity stands for.

mod filter;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::object::{Namespace, Pod};

pub use filter::{LabelFilter, PatternError};

/// The namespace of a pod, as a label of its identity.
pub const NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Prefix of the labels of the pod's namespace.
pub const NAMESPACE_LABELS_PREFIX: &str = "io.cilium.k8s.namespace.labels.";
/// The cluster's name.
pub const CLUSTER: &str = "io.cilium.k8s.policy.cluster";
/// The pod's service account.
pub const SERVICE_ACCOUNT: &str = "io.cilium.k8s.policy.serviceaccount";

/// A label's source and key, in the order in which Hubble sorts them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LabelKey {
    /// `k8s`, `reserved`, `cni`, `cidr`.
    pub source: String,
    /// The key.
    pub key: String,
}

/// A set of labels, at most one value for a source and key.
///
/// Sorted, and shared between its clones: the store, the engine and the flow names of a node hold those of every
/// identity of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Arc<Vec<(LabelKey, String)>>);

impl Labels {
    /// No labels.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The one label of a reserved identity.
    #[must_use]
    pub fn reserved(name: &str) -> Self {
        let mut labels = Self::new();
        labels.insert("reserved", name, "");
        labels
    }

    /// The labels of a pod's identity: what the filter keeps of its own and of its namespace's, and always its namespace
    /// and cluster. Keys that only we may give are not taken from the pod.
    #[must_use]
    pub fn of_pod(pod: &Pod, namespace: &Namespace, cluster: &str, filter: &LabelFilter) -> Self {
        let mut labels = Self::new();
        let own =
            pod.labels.iter().filter(|(key, _)| !key.starts_with("io.cilium.k8s.") && *key != NAMESPACE);
        for (key, value) in own.filter(|(key, _)| filter.keeps("k8s", key)) {
            labels.insert("k8s", key, value);
        }
        let of_namespace =
            namespace.labels.iter().map(|(key, value)| (format!("{NAMESPACE_LABELS_PREFIX}{key}"), value));
        for (key, value) in of_namespace.filter(|(key, _)| filter.keeps("k8s", key)) {
            labels.insert("k8s", &key, value);
        }
        if filter.keeps("k8s", SERVICE_ACCOUNT) {
            labels.insert("k8s", SERVICE_ACCOUNT, &pod.service_account);
        }
        labels.insert("k8s", NAMESPACE, &pod.namespace);
        labels.insert("k8s", CLUSTER, cluster);
        labels
    }

    /// The labels of an endpoint without a pod: those of its CNI configuration. Without any it is `unmanaged` (policy.md 8).
    #[must_use]
    pub fn of_cni(given: &BTreeMap<String, String>, filter: &LabelFilter) -> Self {
        let mut labels = Self::new();
        for (key, value) in given.iter().filter(|(key, _)| filter.keeps("cni", key)) {
            labels.insert("cni", key, value);
        }
        labels
    }

    /// Sets a label.
    pub fn insert(&mut self, source: &str, key: &str, value: &str) {
        self.set(LabelKey { source: source.into(), key: key.into() }, value.into());
    }

    /// The value of a key of one source.
    #[must_use]
    pub fn get(&self, source: &str, key: &str) -> Option<&str> {
        let at = self
            .0
            .binary_search_by(|(label, _)| (label.source.as_str(), label.key.as_str()).cmp(&(source, key)));
        Some(self.0.get(at.ok()?)?.1.as_str())
    }

    /// Every value that the key has, whatever its source.
    pub fn values_of_any<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(label, _)| label.key == key).map(|(_, value)| value.as_str())
    }

    /// All labels in order.
    pub fn iter(&self) -> impl Iterator<Item = (&LabelKey, &str)> {
        self.0.iter().map(|(label, value)| (label, value.as_str()))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `source:key=value` of each, sorted; `source:key` where the value is empty, as Hubble prints them.
    #[must_use]
    pub fn to_strings(&self) -> Vec<String> {
        self.iter()
            .map(|(key, value)| match value {
                "" => format!("{}:{}", key.source, key.key),
                value => format!("{}:{}={value}", key.source, key.key),
            })
            .collect()
    }

    fn set(&mut self, key: LabelKey, value: String) {
        let labels = Arc::make_mut(&mut self.0);
        match labels.binary_search_by(|(label, _)| label.cmp(&key)) {
            Ok(at) => labels[at].1 = value,
            Err(at) => labels.insert(at, (key, value)),
        }
    }
}

/// As the list of its strings: that is how people read labels, and every format can hold it.
impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_strings().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut labels = Self::new();
        for text in Vec::<String>::deserialize(deserializer)? {
            let Some((key, value)) = parse(&text) else {
                return Err(de::Error::custom(format!(
                    "{text:?} is not a label of the form source:key=value"
                )));
            };
            labels.set(key, value);
        }
        Ok(labels)
    }
}

/// Reads `source:key=value` or `source:key`.
fn parse(text: &str) -> Option<(LabelKey, String)> {
    let (source, rest) = text.split_once(':')?;
    let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
    if source.is_empty() || key.is_empty() {
        return None;
    }
    Some((LabelKey { source: source.to_owned(), key: key.to_owned() }, value.to_owned()))
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_strings().join(","))
    }
}
