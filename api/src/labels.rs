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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelKey<'a> {
    /// `k8s`, `reserved`, `cni`, `cidr`.
    pub source: &'a str,
    /// The key.
    pub key: &'a str,
}

/// A set of labels, at most one value for a source and key.
///
/// One text, sorted, and shared between its clones: the store, the engine and the flow names of a node hold the labels of
/// every identity of the cluster, and three strings for each label would be four times as much.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Arc<Packed>);

/// Labels as people read them, `source:key=value` or `source:key`, one behind the other.
#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Packed {
    text: Box<str>,
    ends: Box<[Ends]>,
}

/// Where the parts of a label end in the text; it begins where the one before it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Ends {
    source: u32,
    key: u32,
    label: u32,
}

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
    /// and cluster. Keys that only we may give are not taken from the pod: whoever may label a pod must not choose its
    /// namespace's labels (CVE-2023-39347 of Cilium).
    #[must_use]
    pub fn of_pod(pod: &Pod, namespace: &Namespace, cluster: &str, filter: &LabelFilter) -> Self {
        let own = pod.labels.iter().filter(|(key, _)| !is_ours(key) && filter.keeps("k8s", key));
        let of_namespace: Vec<(String, &String)> = namespace
            .labels
            .iter()
            .map(|(key, value)| (format!("{NAMESPACE_LABELS_PREFIX}{key}"), value))
            .filter(|(key, _)| filter.keeps("k8s", key))
            .collect();
        let account =
            Some((SERVICE_ACCOUNT, pod.service_account.as_str())).filter(|(key, _)| filter.keeps("k8s", key));
        let mut labels: Vec<(&str, &str)> = own.map(|(key, value)| (key.as_str(), value.as_str())).collect();
        labels.extend(of_namespace.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        labels.extend(account);
        labels.extend([(NAMESPACE, pod.namespace.as_str()), (CLUSTER, cluster)]);
        labels.into_iter().map(|(key, value)| (LabelKey { source: "k8s", key }, value)).collect()
    }

    /// The labels of an endpoint without a pod: those of its CNI configuration, without the keys that only we may give,
    /// since a selector's plain key is of any source. Without any it is `unmanaged` (policy.md 8).
    #[must_use]
    pub fn of_cni(given: &BTreeMap<String, String>, filter: &LabelFilter) -> Self {
        let kept = given.iter().filter(|(key, _)| !is_ours(key) && filter.keeps("cni", key));
        kept.map(|(key, value)| (LabelKey { source: "cni", key }, value.as_str())).collect()
    }

    /// Sets a label. A set of many is better collected.
    pub fn insert(&mut self, source: &str, key: &str, value: &str) {
        *self = self.iter().chain([(LabelKey { source, key }, value)]).collect();
    }

    /// The value of a key of one source.
    #[must_use]
    pub fn get(&self, source: &str, key: &str) -> Option<&str> {
        self.iter().find(|(label, _)| *label == LabelKey { source, key }).map(|(_, value)| value)
    }

    /// Every value that the key has, whatever its source.
    pub fn values_of_any<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.iter().filter(move |(label, _)| label.key == key).map(|(_, value)| value)
    }

    /// All labels in order.
    pub fn iter(&self) -> impl Iterator<Item = (LabelKey<'_>, &str)> {
        self.texts().map(|(label, source, key)| {
            // A value stands behind its `=`; a label without one ends with its key.
            let value = label.get(key + 1..).unwrap_or_default();
            (LabelKey { source: &label[..source], key: &label[source + 1..key] }, value)
        })
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.ends.is_empty()
    }

    /// `source:key=value` of each, sorted; `source:key` where the value is empty, as Hubble prints them.
    #[must_use]
    pub fn to_strings(&self) -> Vec<String> {
        self.texts().map(|(label, ..)| label.to_owned()).collect()
    }

    /// Each label as text, and where its source and its key end in it.
    fn texts(&self) -> impl Iterator<Item = (&str, usize, usize)> {
        let starts = std::iter::once(0).chain(self.0.ends.iter().map(|ends| ends.label));
        starts.zip(&self.0.ends).map(|(start, ends)| {
            let label = &self.0.text[start as usize..ends.label as usize];
            (label, (ends.source - start) as usize, (ends.key - start) as usize)
        })
    }
}

/// Whether only we may give a label of this key: by its beginning, so that no spelling of what follows passes.
fn is_ours(key: &str) -> bool {
    key.starts_with("io.cilium.k8s.") || key.starts_with(NAMESPACE)
}

/// Sorted; of several values for one source and key the last one stays.
impl<'a> FromIterator<(LabelKey<'a>, &'a str)> for Labels {
    fn from_iter<I: IntoIterator<Item = (LabelKey<'a>, &'a str)>>(labels: I) -> Self {
        let labels: BTreeMap<LabelKey<'a>, &'a str> = labels.into_iter().collect();
        let mut text = String::new();
        let mut ends = Vec::with_capacity(labels.len());
        // What was read has at most the megabytes of a file.
        let here = |text: &String| u32::try_from(text.len()).expect("labels of less than 4 GiB");
        for (LabelKey { source, key }, value) in labels {
            text.push_str(source);
            let source = here(&text);
            text.push(':');
            text.push_str(key);
            let key = here(&text);
            if !value.is_empty() {
                text.push('=');
                text.push_str(value);
            }
            ends.push(Ends { source, key, label: here(&text) });
        }
        Self(Arc::new(Packed { text: text.into(), ends: ends.into() }))
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
        let texts = Vec::<String>::deserialize(deserializer)?;
        let read = texts.iter().map(|text| {
            parse(text).ok_or_else(|| {
                de::Error::custom(format!("{text:?} is not a label of the form source:key=value"))
            })
        });
        read.collect()
    }
}

/// Reads `source:key=value` or `source:key`.
fn parse(text: &str) -> Option<(LabelKey<'_>, &str)> {
    let (source, rest) = text.split_once(':')?;
    let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
    if source.is_empty() || key.is_empty() {
        return None;
    }
    Some((LabelKey { source, key }, value))
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_strings().join(","))
    }
}
