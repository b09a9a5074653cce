//! A policy object of any kind, and what is left in force of one that is refused (policy.md 14).

use super::{Policy, RuleAction, cilium, network_policy};
use crate::fields::{Fields, Report};
use crate::object::metadata::{self, Strictness};
use crate::object::{PolicyKind, PolicyName};

/// Reads a policy. `Err` gives the report back where the object has no name that could be used.
pub(crate) fn read(
    document: &mut Fields<'_>,
    kind: PolicyKind,
    generation: u64,
    mut report: Report,
) -> Result<Policy, Report> {
    let metadata = metadata::metadata(document, !kind.clusterwide(), Strictness::Strict, &mut report);
    let Some(metadata) = metadata else { return Err(report) };
    let (enforcement, mut specs) = match kind {
        PolicyKind::NetworkPolicy => network_policy::read(document, &metadata, &mut report),
        _ => cilium::read(document, kind, &metadata, &mut report),
    };
    document.refuse_rest(&mut report);
    let origin = report.origin(document.line());
    let (problems, warnings) = report.into_parts();
    if !problems.is_empty() {
        // Nothing that the object would have closed is opened: its default denies and whole deny rules stay, no allow does.
        for spec in &mut specs {
            spec.ingress.retain(|rule| rule.action == RuleAction::Deny);
            spec.egress.retain(|rule| rule.action == RuleAction::Deny);
        }
    }
    let name = PolicyName { kind, namespace: metadata.namespace, name: metadata.name };
    Ok(Policy { name, uid: metadata.uid, generation, origin, enforcement, specs, problems, warnings })
}
