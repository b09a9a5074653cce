//! One `spec` of the Cilium schema: whom it selects, its four sections, and which default denies they switch on.

use super::cilium::MATCH_MODE_ANNOTATION;
use super::peers::{Direction, Scope};
use super::selectors::{self, Keys};
use super::{CidrReach, Enforcement, PolicySpec, Rule, RuleAction, element};
use crate::fields::{Field, Fields, Report};
use crate::names;
use crate::yaml::Value;

/// Most characters of `log.value`.
const MAX_LOG: usize = 32;

/// A spec, and what it says of the whole object.
pub(super) struct Read {
    /// What is in force; `None` where the selector cannot be read.
    pub(super) spec: Option<PolicySpec>,
    /// `enforcement` (policy.md 13).
    pub(super) enforcement: Option<Enforcement>,
}

/// Reads a spec. `ours` says that it stands in a Sinew kind, which has fields of its own; `reach` comes from the
/// annotation of a Cilium kind.
pub(super) fn read(
    field: &Field<'_>,
    namespace: &str,
    ours: bool,
    reach: CidrReach,
    report: &mut Report,
) -> Read {
    let nothing = Read { spec: None, enforcement: None };
    let Some(mut fields) = field.fields(report) else { return nothing };
    let (mut enforcement, mut reach) = (None, reach);
    if ours {
        if let Some(field) = fields.take("enforcement") {
            enforcement = field.text(report).and_then(|text| self::enforcement(&field, text, report));
        }
        if let Some(field) = fields.take("policyCIDRMatchMode") {
            let modes = field.list(report).unwrap_or_default();
            let texts: Vec<_> =
                modes.iter().filter_map(|mode| Some((mode.clone(), mode.text(report)?))).collect();
            for (mode, text) in texts {
                match_mode(&mode, text, &mut reach, report);
            }
        }
    } else {
        let annotation = format!("the annotation {MATCH_MODE_ANNOTATION}");
        fields.of_another_kind("policyCIDRMatchMode", &annotation, report);
    }
    let subject = fields.take("endpointSelector");
    let nodes = fields.not_enforced("nodeSelector", "policies on nodes are", report);
    let written = subject.as_ref().and_then(|field| selectors::read(field, Keys::Sourced, report));
    match (&subject, nodes) {
        (Some(_), Some(nodes)) => nodes.refuse(report, "cannot stand beside endpointSelector"),
        (None, None) => report.refuse(&fields.path_of("endpointSelector"), fields.line(), "is missing"),
        _ => {}
    }
    let subject_is_init = written.as_ref().is_some_and(selectors::Written::names_init);
    let scope = Scope { namespace, subject_is_init, reach };

    let ingress = Section::read(&mut fields, ["ingress", "ingressDeny"], Direction::Ingress, scope, report);
    let egress = Section::read(&mut fields, ["egress", "egressDeny"], Direction::Egress, scope, report);
    if !ingress.present && !egress.present {
        let message = "has no rule: one of ingress, ingressDeny, egress and egressDeny must have an element";
        report.refuse(fields.path(), fields.line(), message);
    }
    let (deny_ingress, deny_egress) = default_deny(&mut fields, report);
    for (section, switch, name) in [(&ingress, deny_ingress, "ingress"), (&egress, deny_egress, "egress")] {
        if section.denies_only && switch.is_none() {
            let message = format!(
                "allows nothing: a section that only denies switches on default deny too; \
                 enableDefaultDeny.{name}: false leaves the rest open"
            );
            report.warn(&fields.path_of(&format!("{name}Deny")), section.deny_line, message);
        }
    }
    let labels = fields.list("labels", report).unwrap_or_default();
    let labels = labels.iter().filter_map(|label| policy_label(label, report)).collect();
    fields.text("description", report);
    let log = log(&mut fields, report);
    fields.finish(report);

    let spec = subject.zip(written).map(|(field, written)| PolicySpec {
        subject: written.of_subject(namespace, &field, report),
        subject_line: field.line,
        default_deny_ingress: deny_ingress.unwrap_or(ingress.present),
        default_deny_egress: deny_egress.unwrap_or(egress.present),
        ingress: ingress.rules,
        egress: egress.rules,
        labels,
        log,
    });
    Read { spec, enforcement }
}

/// Both sections of a direction.
struct Section {
    /// Whether either has an element, or something that cannot be read: what its author wanted closed stays closed.
    present: bool,
    /// Whether only the deny section has elements.
    denies_only: bool,
    /// Where the deny section stands; 0 where it doesn't.
    deny_line: u32,
    rules: Vec<Rule>,
}

impl Section {
    fn read(
        fields: &mut Fields<'_>,
        [allow, deny]: [&'static str; 2],
        direction: Direction,
        scope: Scope<'_>,
        report: &mut Report,
    ) -> Self {
        let mut section = Self { present: false, denies_only: false, deny_line: 0, rules: Vec::new() };
        for (name, action) in [(allow, RuleAction::Allow), (deny, RuleAction::Deny)] {
            let Some(field) = fields.take(name) else { continue };
            if action == RuleAction::Deny {
                section.deny_line = field.line;
            }
            let Some(elements) = field.list(report) else {
                section.present = true;
                continue;
            };
            section.denies_only = action == RuleAction::Deny && !section.present && !elements.is_empty();
            section.present |= !elements.is_empty();
            let rules =
                elements.iter().filter_map(|field| element::read(field, direction, action, scope, report));
            section.rules.extend(rules);
        }
        section
    }
}

/// `enableDefaultDeny`. A value that cannot be read counts as absent: the sections decide.
fn default_deny(fields: &mut Fields<'_>, report: &mut Report) -> (Option<bool>, Option<bool>) {
    let Some(mut switches) = fields.take("enableDefaultDeny").and_then(|field| field.fields(report)) else {
        return (None, None);
    };
    let ingress = switches.take("ingress").and_then(|field| field.boolean(report));
    let egress = switches.take("egress").and_then(|field| field.boolean(report));
    switches.finish(report);
    (ingress, egress)
}

/// An element of `labels`, as `source:key=value`. Without a source it is `unspec`, as Cilium prints it.
fn policy_label(field: &Field<'_>, report: &mut Report) -> Option<String> {
    let mut fields = field.fields(report)?;
    let key = fields.require("key", report);
    let value = fields.text("value", report).unwrap_or_default();
    let source = fields.text("source", report).filter(|source| !source.is_empty()).unwrap_or("unspec");
    fields.finish(report);
    let key = key?;
    let text = key.text(report)?;
    if text.is_empty() {
        key.refuse(report, "is empty");
        return None;
    }
    if source == "k8s" && text.starts_with("io.cilium.k8s.policy.") {
        key.warn(report, "is not shown in flows: labels of this name say which policy it is");
    }
    Some(if value.is_empty() { format!("{source}:{text}") } else { format!("{source}:{text}={value}") })
}

fn log(fields: &mut Fields<'_>, report: &mut Report) -> Option<String> {
    let mut log = fields.take("log")?.fields(report)?;
    let value = log.take("value");
    log.finish(report);
    let value = value?;
    let text = value.text(report)?;
    let length = text.chars().count();
    if length > MAX_LOG {
        value.refuse(report, format!("has {length} characters, at most {MAX_LOG} are allowed"));
        return None;
    }
    if !text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        value.refuse(report, "has characters that are not printable ASCII");
        return None;
    }
    Some(text.to_owned())
}

/// The value of `enforcement`, in a spec or an annotation.
pub(super) fn enforcement(field: &Field<'_>, text: &str, report: &mut Report) -> Option<Enforcement> {
    match text {
        "enforce" => Some(Enforcement::Enforce),
        "audit" => Some(Enforcement::Audit),
        other => {
            let other = names::shown(other);
            field.refuse(report, format!("{other:?} is no enforcement (known: enforce, audit)"));
            None
        }
    }
}

/// One value of `policyCIDRMatchMode`, in a spec or an annotation.
pub(super) fn match_mode(field: &Field<'_>, text: &str, reach: &mut CidrReach, report: &mut Report) {
    match text {
        "nodes" => reach.nodes = true,
        "pods" => reach.pods = true,
        other => {
            let other = names::shown(other);
            field.refuse(report, format!("{other:?} is no mode (known: nodes, pods)"));
        }
    }
}

/// Whether a field is an empty list, which counts as absent where a section could stand.
pub(super) fn is_empty_list(field: &Field<'_>) -> bool {
    matches!(&field.node.value, Value::Sequence(items) if items.is_empty())
}
