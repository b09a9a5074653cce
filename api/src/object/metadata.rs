//! `metadata` of an object: the few of its fields that decide anything here.

use std::collections::BTreeMap;

use crate::fields::{Field, Fields, Report};
use crate::names;

/// The fields of `metadata` that we read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metadata {
    pub(crate) name: String,
    /// Empty for objects outside namespaces.
    pub(crate) namespace: String,
    pub(crate) uid: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) deleting: bool,
    /// Line of each annotation's mapping, for messages.
    pub(crate) annotations_line: u32,
}

/// Whether unknown fields are an error: a policy that says `namspace` would come into force in another namespace than
/// its author thinks. Objects that Kubernetes itself writes may have fields that we have not heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strictness {
    Strict,
    Tolerant,
}

/// Reads `metadata`. `None` where it has no name that could be used as one: then there is no object to speak of.
pub(crate) fn metadata(
    document: &mut Fields<'_>,
    namespaced: bool,
    strictness: Strictness,
    report: &mut Report,
) -> Option<Metadata> {
    let mut fields = document.require("metadata", report)?.fields(report)?;
    let mut metadata = Metadata::default();

    let name = fields.require("name", report);
    let usable = name.as_ref().and_then(|field| usable_name(field, names::subdomain, report));
    let namespace = fields.take("namespace").filter(|field| field.node.as_text() != Some(""));
    let namespace = match namespace {
        Some(field) if !namespaced => {
            field.refuse(report, "objects of this kind have no namespace");
            Some(String::new())
        }
        Some(field) => usable_name(&field, names::dns_label, report),
        None if namespaced => Some("default".to_owned()),
        None => Some(String::new()),
    };
    if let Some(uid) = fields.text("uid", report) {
        uid.clone_into(&mut metadata.uid);
    }
    if let Some(field) = fields.take("labels") {
        metadata.labels = labels(&field, report);
    }
    if let Some(field) = fields.take("annotations") {
        metadata.annotations_line = field.line;
        metadata.annotations = field.string_map(report).unwrap_or_default();
    }
    metadata.deleting = fields.take("deletionTimestamp").is_some();
    for known in [
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "finalizers",
        "generateName",
        "generation",
        "managedFields",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
    ] {
        fields.take(known);
    }
    if strictness == Strictness::Strict {
        fields.finish(report);
    }
    metadata.name = usable?;
    metadata.namespace = namespace?;
    Some(metadata)
}

/// A name, if it can at least stand in a file name and on a screen; whether it is also right goes into the report.
fn usable_name(
    field: &Field<'_>,
    rule: fn(&str) -> Result<(), String>,
    report: &mut Report,
) -> Option<String> {
    let name = field.text(report)?;
    if let Err(wrong) = rule(name) {
        field.refuse(report, wrong);
    }
    let usable = !name.is_empty()
        && name.len() <= 253
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && !name.starts_with('.');
    usable.then(|| name.to_owned())
}

/// `metadata.labels`, each judged.
pub(crate) fn labels(field: &Field<'_>, report: &mut Report) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for (key, place) in field.entries(report).unwrap_or_default() {
        let Some(value) = place.text(report) else { continue };
        if let Err(wrong) = names::label_key(key).and_then(|()| names::label_value(value)) {
            place.refuse(report, wrong);
        }
        labels.insert(key.to_owned(), value.to_owned());
    }
    labels
}
