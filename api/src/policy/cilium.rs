//! SinewNetworkPolicy, SinewClusterwideNetworkPolicy and their twins under `cilium.io/v2`: one schema, one decoder.
//!
//! Two things are said in different places: audit mode (policy.md 13) and what CIDRs reach (policy.md 5) are fields of
//! our kinds, `spec.enforcement` and `spec.policyCIDRMatchMode`, and annotations of the others, whose schema is not ours
//! to extend: `sinew.io/enforcement: audit`, `sinew.io/policy-cidr-match-mode: nodes,pods`.

use super::{CidrReach, Enforcement, PolicySpec, spec};
use crate::fields::{Field, Fields, Report};
use crate::object::PolicyKind;
use crate::object::metadata::Metadata;
use crate::yaml::{Node, Value};

/// Annotation that says how a policy of another group is enforced.
pub const ENFORCEMENT_ANNOTATION: &str = "sinew.io/enforcement";
/// Annotation that says what the CIDRs of a policy of another group reach.
pub const MATCH_MODE_ANNOTATION: &str = "sinew.io/policy-cidr-match-mode";

/// CIDRs match the world only unless a policy says more (policy.md 5).
const WORLD: CidrReach = CidrReach { pods: false, nodes: false };

/// Reads `spec` and `specs`.
pub(super) fn read(
    document: &mut Fields<'_>,
    kind: PolicyKind,
    metadata: &Metadata,
    report: &mut Report,
) -> (Enforcement, Vec<PolicySpec>) {
    let ours = matches!(kind, PolicyKind::SinewNetworkPolicy | PolicyKind::SinewClusterwideNetworkPolicy);
    let (annotated, reach) = annotations(metadata, !ours, !ours, report);

    let mut places = Vec::new();
    let spec = document.take("spec");
    let specs = document.take("specs");
    document.take("status");
    places.extend(spec);
    if let Some(specs) = specs.filter(|specs| !spec::is_empty_list(specs)) {
        places.extend(specs.list(report).unwrap_or_default());
    }
    if places.is_empty() && report.count() == 0 {
        report.refuse("spec", document.line(), "is missing; the object has no rule");
    }
    let mut kept = Vec::new();
    let mut said: Option<(Option<Enforcement>, String)> = None;
    for place in &places {
        let read = spec::read(place, &metadata.namespace, ours, reach, report);
        kept.extend(read.spec);
        match &said {
            Some((first, path)) if *first != read.enforcement => {
                let message = format!("differs from {path}; an object is enforced or audited as a whole");
                report.refuse(&format!("{}.enforcement", place.path), place.line, message);
            }
            Some(_) => {}
            None => said = Some((read.enforcement, place.path.clone())),
        }
    }
    let enforcement = annotated.or(said.and_then(|(enforcement, _)| enforcement)).unwrap_or_default();
    (enforcement, kept)
}

/// Reads our annotations, as far as they belong on the kind. One that does not, or that we do not know, is refused: an
/// audit that was spelt wrong would be enforced.
pub(super) fn annotations(
    metadata: &Metadata,
    with_enforcement: bool,
    with_match_mode: bool,
    report: &mut Report,
) -> (Option<Enforcement>, CidrReach) {
    let (mut enforcement, mut reach) = (None, WORLD);
    for (key, value) in metadata.annotations.iter().filter(|(key, _)| key.starts_with("sinew.io/")) {
        let node = Node { line: metadata.annotations_line, value: Value::Null };
        let field = Field { node: &node, path: format!("metadata.annotations[{key}]"), line: node.line };
        match key.as_str() {
            ENFORCEMENT_ANNOTATION if with_enforcement => {
                enforcement = spec::enforcement(&field, value, report);
            }
            MATCH_MODE_ANNOTATION if with_match_mode => {
                for mode in value.split(',').map(str::trim) {
                    spec::match_mode(&field, mode, &mut reach, report);
                }
            }
            ENFORCEMENT_ANNOTATION => field.refuse(report, "is a field of this kind: write spec.enforcement"),
            MATCH_MODE_ANNOTATION if !with_enforcement => {
                field.refuse(report, "is a field of this kind: write spec.policyCIDRMatchMode");
            }
            MATCH_MODE_ANNOTATION => {
                field.refuse(report, "has no place here: ipBlock matches pods and nodes anyway")
            }
            _ => {
                let known = format!("{ENFORCEMENT_ANNOTATION}, {MATCH_MODE_ANNOTATION}");
                field.refuse(report, format!("unknown annotation of sinew.io (known: {known})"));
            }
        }
    }
    (enforcement, reach)
}
