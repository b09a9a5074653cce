//! Namespace of `v1`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Origin;
use super::metadata::Metadata;
use crate::fields::{Fields, Report};

/// The label that an API server puts on every namespace, with its name.
pub const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Its labels, `kubernetes.io/metadata.name` always among them.
    pub labels: BTreeMap<String, String>,
    /// Where it stands.
    pub origin: Origin,
}

impl Namespace {
    /// A namespace that nobody wrote down: in a folder, naming it in a pod is enough.
    #[must_use]
    pub fn bare(name: &str) -> Self {
        let labels = BTreeMap::from([(NAME_LABEL.to_owned(), name.to_owned())]);
        Self { name: name.to_owned(), labels, origin: Origin::default() }
    }
}

pub(super) fn read(document: &Fields<'_>, metadata: Metadata, report: &Report) -> Namespace {
    let mut namespace = Namespace::bare(&metadata.name);
    for (key, value) in metadata.labels {
        // The API server does not let anybody say otherwise about the name.
        namespace.labels.entry(key).or_insert(value);
    }
    namespace.origin = report.origin(document.line());
    namespace
}
