//! Label selectors of policies, and the scope that their place gives them (policy.md 3).

use crate::fields::{Field, Report};
use crate::identity::Identity;
use crate::labels;
use crate::names;
use crate::selector::{Operator, Requirement, Selector};

/// How the keys of a selector are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keys {
    /// `source:key` or `key`, which is `any:key`: the Cilium schema.
    Sourced,
    /// Kubernetes' plain keys, with this put in front: NetworkPolicy. They are of source `k8s`.
    Plain(&'static str),
    /// Labels of a CIDR group: plain keys, `cidrgroup:` before them allowed.
    CidrGroup,
}

/// A selector as it is written, before its place gives it a scope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    /// From `matchLabels`.
    pub(super) labels: Vec<Requirement>,
    /// From `matchExpressions`.
    pub(super) expressions: Vec<Requirement>,
}

impl Written {
    fn iter(&self) -> impl Iterator<Item = &Requirement> {
        self.labels.iter().chain(&self.expressions)
    }

    /// Whether a requirement is on a label of the `reserved` source.
    pub(super) fn names_reserved(&self) -> bool {
        self.iter().any(|requirement| requirement.source == "reserved")
    }

    /// Whether it speaks of endpoints that have no labels yet.
    pub(super) fn names_init(&self) -> bool {
        self.iter().any(|requirement| requirement.source == "reserved" && requirement.key == "init")
    }

    /// The requirements on the namespace's name. No label but a pod's own has this key, so a plain key means it too.
    fn on_namespace(&self) -> impl Iterator<Item = &Requirement> {
        self.iter().filter(|requirement| is_on_namespace(requirement))
    }

    /// The requirements on the namespace's labels.
    fn on_namespace_labels(&self) -> impl Iterator<Item = &Requirement> {
        self.iter().filter(|requirement| {
            is_of_kubernetes(requirement) && requirement.key.starts_with(labels::NAMESPACE_LABELS_PREFIX)
        })
    }

    /// Whether only what has a namespace can match, or whether it is wanted that only what has none does.
    fn decides_whether_namespaced(&self) -> bool {
        let demands =
            |requirement: &Requirement| matches!(requirement.operator, Operator::In(_) | Operator::Exists);
        self.on_namespace().any(|it| demands(it) || it.operator == Operator::DoesNotExist)
            || self.on_namespace_labels().any(demands)
    }

    /// The selector without any scope.
    pub(super) fn unscoped(self) -> Selector {
        let mut requirements = self.labels;
        requirements.extend(self.expressions);
        Selector { requirements }
    }

    /// The scope of `endpointSelector`: a namespaced policy never leaves its namespace. Clusterwide ones select every
    /// endpoint that matches, those without a namespace too, as in Cilium.
    pub(super) fn of_subject(mut self, namespace: &str, field: &Field<'_>, report: &mut Report) -> Selector {
        if namespace.is_empty() {
            return self.unscoped();
        }
        if self.names_reserved() {
            field.warn(report, "selects nothing: endpoints with reserved labels are in no namespace; use a clusterwide policy");
        }
        let is_own = |requirement: &Requirement| match &requirement.operator {
            Operator::In(names) => names.iter().any(|name| name == namespace),
            Operator::NotIn(names) => names.iter().all(|name| name != namespace),
            Operator::Exists => true,
            Operator::DoesNotExist => false,
        };
        if self.on_namespace().any(|requirement| !is_own(requirement)) {
            field.warn(
                report,
                format!("names another namespace; the policy selects in its own, {namespace:?}"),
            );
        }
        self.labels.retain(|requirement| !is_on_namespace(requirement));
        self.labels.push(namespace_is(namespace));
        self.unscoped()
    }

    /// The scope of a peer: the policy's namespace, unless the selector names one or is reserved; for a clusterwide
    /// policy, any namespace, but one, unless the policy is for endpoints without labels (`subject_is_init`). A selector
    /// that only says which namespace it is not means pods of the others, and neither the world nor nodes, which have
    /// none; that Cilium let it mean them is a bug of Cilium (cilium/cilium#46949).
    pub(super) fn of_peer(mut self, namespace: &str, subject_is_init: bool) -> Selector {
        if self.names_reserved() {
            return self.unscoped();
        }
        let names_one = self.on_namespace().next().is_some();
        let names_labels = self.on_namespace_labels().next().is_some();
        if !names_one && !names_labels && !namespace.is_empty() {
            self.labels.push(namespace_is(namespace));
        } else if names_one || !namespace.is_empty() {
            if !self.decides_whether_namespaced() {
                self.expressions.push(namespace_exists());
            }
        } else if !subject_is_init {
            self.expressions.push(namespace_exists());
        }
        self.unscoped()
    }
}

fn is_of_kubernetes(requirement: &Requirement) -> bool {
    matches!(requirement.source.as_str(), "k8s" | "any")
}

fn is_on_namespace(requirement: &Requirement) -> bool {
    is_of_kubernetes(requirement) && requirement.key == labels::NAMESPACE
}

/// `k8s:io.kubernetes.pod.namespace` is this one.
pub(super) fn namespace_is(namespace: &str) -> Requirement {
    Requirement {
        source: "k8s".into(),
        key: labels::NAMESPACE.into(),
        operator: Operator::In(vec![namespace.to_owned()]),
    }
}

/// There is a `k8s:io.kubernetes.pod.namespace`.
pub(super) fn namespace_exists() -> Requirement {
    Requirement { source: "k8s".into(), key: labels::NAMESPACE.into(), operator: Operator::Exists }
}

/// Reads a selector. `None` where something in it is wrong: half a selector selects too much.
pub(super) fn read(field: &Field<'_>, keys: Keys, report: &mut Report) -> Option<Written> {
    let before = report.count();
    let mut fields = field.fields(report)?;
    let mut written = Written::default();
    if let Some(labels) = fields.take("matchLabels") {
        for (key, place) in labels.entries(report).unwrap_or_default() {
            written.labels.extend(label(key, &place, keys, report));
        }
    }
    for expression in fields.list("matchExpressions", report).unwrap_or_default() {
        written.expressions.extend(expression_of(&expression, keys, report));
    }
    fields.finish(report);
    (report.count() == before).then_some(written)
}

/// A requirement of `matchLabels`.
fn label(key: &str, place: &Field<'_>, keys: Keys, report: &mut Report) -> Option<Requirement> {
    let requirement = source_and_key(key, keys, place, report);
    let value = place.text(report)?;
    if let Err(wrong) = names::label_value(value) {
        place.refuse(report, wrong);
    }
    let (source, key) = requirement?;
    if source == "reserved" && !value.is_empty() {
        place.warn(report, "matches nothing: reserved labels have an empty value");
    }
    Some(Requirement { source, key, operator: Operator::In(vec![value.to_owned()]) })
}

fn expression_of(field: &Field<'_>, keys: Keys, report: &mut Report) -> Option<Requirement> {
    let mut fields = field.fields(report)?;
    let key = fields.require("key", report);
    let operator = fields.require("operator", report);
    let values = fields.take("values");
    fields.finish(report);
    let place = key?;
    let (source, key) = source_and_key(place.text(report)?, keys, &place, report)?;
    let mut texts = Vec::new();
    for value in values.as_ref().and_then(|values| values.list(report)).unwrap_or_default() {
        let text = value.text(report)?;
        if let Err(wrong) = names::label_value(text) {
            value.refuse(report, wrong);
        }
        texts.push(text.to_owned());
    }
    let operator = operator?;
    let name = operator.text(report)?;
    let values_path = format!("{}.values", field.path);
    let line = values.as_ref().map_or(field.line, |values| values.line);
    match name {
        "In" | "NotIn" if texts.is_empty() => {
            report.refuse(&values_path, line, format!("operator {name} needs at least one value"));
            None
        }
        "Exists" | "DoesNotExist" if !texts.is_empty() => {
            report.refuse(&values_path, line, format!("operator {name} takes no values"));
            None
        }
        "In" => Some(Requirement { source, key, operator: Operator::In(texts) }),
        "NotIn" => Some(Requirement { source, key, operator: Operator::NotIn(texts) }),
        "Exists" => Some(Requirement { source, key, operator: Operator::Exists }),
        "DoesNotExist" => Some(Requirement { source, key, operator: Operator::DoesNotExist }),
        other => {
            let other = names::shown(other);
            operator
                .refuse(report, format!("{other:?} is no operator (known: In, NotIn, Exists, DoesNotExist)"));
            None
        }
    }
}

/// Source and key of a written key.
fn source_and_key(
    written: &str,
    keys: Keys,
    place: &Field<'_>,
    report: &mut Report,
) -> Option<(String, String)> {
    let (source, prefix, key) = match keys {
        Keys::Plain(prefix) => ("k8s", prefix, written),
        Keys::CidrGroup => ("any", "", written.strip_prefix("cidrgroup:").unwrap_or(written)),
        Keys::Sourced => match (written.split_once(':'), written.strip_prefix("reserved.")) {
            (Some((source, key)), _) => (source, "", key),
            (None, Some(reserved)) => ("reserved", "", reserved),
            (None, None) => ("any", "", written),
        },
    };
    let refused = match source {
        "cidr" => Some("labels of source `cidr` are not enforced by this version; use fromCIDR or toCIDR"),
        "cidrgroup" => {
            Some("labels of source `cidrgroup` are not enforced by this version; use cidrGroupRef")
        }
        "fqdn" => Some("labels of source `fqdn` are not enforced by this version"),
        "node" => Some("labels of source `node` are not enforced by this version"),
        "" => Some("the key begins with `:`; the source before it is missing"),
        _ => None,
    };
    if let Some(refused) = refused {
        place.refuse(report, refused);
        return None;
    }
    if source == "reserved" && !is_reserved(key) {
        let key = names::shown(key);
        place.refuse(
            report,
            format!("there is no reserved label {key:?} (known: {})", reserved_names().join(", ")),
        );
        return None;
    }
    if !matches!(source, "any" | "k8s" | "reserved" | "cni") {
        let source = names::shown(source);
        place.warn(
            report,
            format!("matches nothing: no label has source {source:?} (there are k8s, cni and reserved)"),
        );
    }
    if let Some(meant) = key.strip_prefix("k8s.")
        && source == "any"
        && (meant.starts_with("io.kubernetes.pod.") || meant.starts_with("io.cilium.k8s."))
    {
        place.warn(
            report,
            format!("is a label of that name; the source is written with a colon: k8s:{meant}"),
        );
    }
    // Labels of namespaces stand behind a long prefix, which does not count for their own key's length.
    let own = key.strip_prefix(labels::NAMESPACE_LABELS_PREFIX).unwrap_or(key);
    if let Err(wrong) = names::label_key(own) {
        place.refuse(report, wrong);
        return None;
    }
    Some((source.to_owned(), format!("{prefix}{key}")))
}

/// `none` is the label that nothing ever has.
fn is_reserved(key: &str) -> bool {
    key == "none" || Identity::RESERVED.iter().any(|(_, name)| *name == key)
}

fn reserved_names() -> Vec<&'static str> {
    Identity::RESERVED.iter().map(|(_, name)| *name).collect()
}
