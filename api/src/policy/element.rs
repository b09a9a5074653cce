//! One element of `ingress`, `ingressDeny`, `egress` or `egressDeny` of the Cilium schema.

use super::peers::{self, Direction, Scope};
use super::{Peers, Rule, RuleAction, icmp, ports};
use crate::fields::{Field, Fields, Report};
use crate::names;

/// Reads an element; `None` where anything in it is wrong.
pub(super) fn read(
    field: &Field<'_>,
    direction: Direction,
    action: RuleAction,
    scope: Scope<'_>,
    report: &mut Report,
) -> Option<Rule> {
    let before = report.count();
    let mut fields = field.fields(report)?;
    let peers = peers::read(&mut fields, direction, action, scope, report);
    let to_ports = fields.take("toPorts");
    let icmps = fields.take("icmps");
    if action == RuleAction::Allow {
        authentication(&mut fields, report);
    }
    let mut matches = Vec::new();
    let port_elements = to_ports.and_then(|list| list.list(report)).unwrap_or_default();
    let icmp_elements = icmps.as_ref().and_then(|list| list.list(report)).unwrap_or_default();
    if let Some(icmps) = icmps.filter(|_| !port_elements.is_empty() && !icmp_elements.is_empty()) {
        icmps.refuse(report, "cannot be combined with toPorts in one element; give each its own element");
    }
    for element in &port_elements {
        matches.extend(ports::to_ports(element, action, report));
    }
    for element in &icmp_elements {
        matches.extend(icmp::icmp(element, report));
    }
    fields.finish(report);

    // Without a peer field, ports alone speak of every peer, and an element that says nothing selects nobody (policy.md 1).
    let peers = peers.unwrap_or(if matches.is_empty() { Peers::OneOf(Vec::new()) } else { Peers::Any });
    (report.count() == before).then(|| Rule {
        action,
        peers,
        ports: matches,
        path: field.path.clone(),
        origin: report.origin(field.line),
    })
}

fn authentication(fields: &mut Fields<'_>, report: &mut Report) {
    let Some(field) = fields.take("authentication") else { return };
    let Some(mut fields) = field.fields(report) else { return };
    if let Some(mode) = fields.require("mode", report) {
        match mode.text(report) {
            None | Some("disabled") => {}
            Some(known @ ("required" | "test-always-fail")) => {
                mode.refuse(
                    report,
                    format!("authentication {known:?} is not enforced by this version; only \"disabled\" is"),
                );
            }
            Some(other) => {
                let other = names::shown(other);
                mode.refuse(
                    report,
                    format!("{other:?} is no mode (known: disabled, required, test-always-fail)"),
                );
            }
        }
    }
    fields.finish(report);
}
