//! NetworkPolicy of `networking.k8s.io/v1`, with all its fields and Kubernetes' own meaning of empty ones (policy.md 1).
//!
//! Kubernetes accepts what an API server accepts: a missing `podSelector` selects every pod of the namespace.

use super::cidr::{self, Except};
use super::cilium;
use super::selectors::{self, Keys, namespace_exists, namespace_is};
use super::{CidrReach, Enforcement, Peer, PeerMatch, Peers, PolicySpec, Rule, RuleAction, ports};
use crate::fields::{Field, Fields, Report};
use crate::labels;
use crate::names;
use crate::object::metadata::Metadata;
use crate::selector::Selector;

/// `ipBlock` matches by address, whatever stands behind it (policy.md 5).
const EVERYTHING: CidrReach = CidrReach { pods: true, nodes: true };

/// Reads `spec`.
pub(super) fn read(
    document: &mut Fields<'_>,
    metadata: &Metadata,
    report: &mut Report,
) -> (Enforcement, Vec<PolicySpec>) {
    let (enforcement, _) = cilium::annotations(metadata, true, false, report);
    let namespace = metadata.namespace.as_str();
    document.take("status");
    let spec = match document.take("spec") {
        Some(field) => read_spec(&field, namespace, report),
        None => {
            report.warn(
                "spec",
                document.line(),
                "is missing: the policy isolates every pod of its namespace for ingress",
            );
            Some(PolicySpec {
                subject: Selector { requirements: vec![namespace_is(namespace)] },
                subject_line: document.line(),
                default_deny_ingress: true,
                default_deny_egress: false,
                ingress: Vec::new(),
                egress: Vec::new(),
                labels: Vec::new(),
                log: None,
            })
        }
    };
    (enforcement.unwrap_or_default(), spec.into_iter().collect())
}

fn read_spec(field: &Field<'_>, namespace: &str, report: &mut Report) -> Option<PolicySpec> {
    let mut fields = field.fields(report)?;
    let mut subject_line = field.line;
    let subject = match fields.take("podSelector") {
        Some(selector) => {
            subject_line = selector.line;
            selectors::read(&selector, Keys::Plain(""), report).map(selectors::Written::unscoped)
        }
        None => Some(Selector::default()),
    };
    let ingress = fields.take("ingress");
    let egress = fields.take("egress");
    let types = fields.take("policyTypes");
    fields.finish(report);

    let has_egress = egress.as_ref().is_some_and(|egress| !super::spec::is_empty_list(egress));
    let (ingress_isolated, egress_isolated) = policy_types(types.as_ref(), has_egress, report);
    let section = |list: Option<Field<'_>>, peers_name, isolated: bool, report: &mut Report| {
        let Some(list) = list else { return Vec::new() };
        let elements = list.list(report).unwrap_or_default();
        if !isolated && !elements.is_empty() {
            list.warn(report, "has no effect: policyTypes does not name this direction");
        }
        let rules =
            elements.iter().filter_map(|element| rule(element, peers_name, namespace, report)).collect();
        if isolated { rules } else { Vec::new() }
    };
    let ingress = section(ingress, "from", ingress_isolated, report);
    let egress = section(egress, "to", egress_isolated, report);

    let mut subject = subject?;
    subject.requirements.push(namespace_is(namespace));
    Some(PolicySpec {
        subject,
        subject_line,
        default_deny_ingress: ingress_isolated,
        default_deny_egress: egress_isolated,
        ingress,
        egress,
        labels: Vec::new(),
        log: None,
    })
}

/// Which directions the policy isolates. Without `policyTypes`, ingress always and egress if it has a rule; what cannot
/// be read among them does not open what is there.
fn policy_types(types: Option<&Field<'_>>, has_egress: bool, report: &mut Report) -> (bool, bool) {
    let default = (true, has_egress);
    let Some(types) = types else { return default };
    let Some(elements) = types.list(report) else { return default };
    if elements.is_empty() {
        return default;
    }
    let before = report.count();
    let (mut ingress, mut egress) = (false, false);
    for element in &elements {
        match element.text(report) {
            Some("Ingress") => ingress = true,
            Some("Egress") => egress = true,
            Some(other) => {
                let other = names::shown(other);
                element.refuse(report, format!("{other:?} is no policy type (known: Ingress, Egress)"));
            }
            None => {}
        }
    }
    if elements.len() > 2 {
        types.refuse(report, "has more than two elements");
    }
    if report.count() == before { (ingress, egress) } else { (true, egress || has_egress) }
}

fn rule(field: &Field<'_>, peers_name: &'static str, namespace: &str, report: &mut Report) -> Option<Rule> {
    let before = report.count();
    let mut fields = field.fields(report)?;
    let peers = fields.list(peers_name, report).unwrap_or_default();
    let port_list = fields.list("ports", report).unwrap_or_default();
    fields.finish(report);
    let mut found = Vec::new();
    for place in &peers {
        if let Some(matches) = peer(place, namespace, report) {
            found.push(Peer { matches, path: place.path.clone(), line: place.line });
        }
    }
    let ports = port_list.iter().filter_map(|port| ports::network_policy_port(port, report)).collect();
    (report.count() == before).then(|| Rule {
        action: RuleAction::Allow,
        peers: if peers.is_empty() { Peers::Any } else { Peers::OneOf(found) },
        ports,
        path: field.path.clone(),
        origin: report.origin(field.line),
    })
}

fn peer(field: &Field<'_>, namespace: &str, report: &mut Report) -> Option<PeerMatch> {
    let mut fields = field.fields(report)?;
    let block = fields.take("ipBlock");
    let pods = fields.take("podSelector");
    let namespaces = fields.take("namespaceSelector");
    fields.finish(report);
    if let Some(block) = block {
        if pods.is_some() || namespaces.is_some() {
            block.refuse(report, "cannot be combined with podSelector or namespaceSelector");
            return None;
        }
        return ip_block(&block, report);
    }
    if pods.is_none() && namespaces.is_none() {
        field.refuse(report, "names no peer: one of podSelector, namespaceSelector and ipBlock is needed");
        return None;
    }
    let mut requirements = Vec::new();
    let has_namespaces = namespaces.is_some();
    if let Some(selector) = namespaces {
        let keys = Keys::Plain(labels::NAMESPACE_LABELS_PREFIX);
        requirements.extend(selectors::read(&selector, keys, report)?.unscoped().requirements);
        // It selects namespaces, so what is in none never matches: the world and nodes have no label that `NotIn` and
        // `DoesNotExist` could miss.
        requirements.push(namespace_exists());
    }
    if let Some(selector) = pods {
        requirements.extend(selectors::read(&selector, Keys::Plain(""), report)?.unscoped().requirements);
    }
    if !has_namespaces {
        requirements.push(namespace_is(namespace));
    }
    Some(PeerMatch::Labels(Selector { requirements }))
}

fn ip_block(field: &Field<'_>, report: &mut Report) -> Option<PeerMatch> {
    let mut fields = field.fields(report)?;
    let cidr = fields.require("cidr", report);
    let except = fields.take("except");
    fields.finish(report);
    let prefix = cidr::prefix(&cidr?, false, report)?;
    let except =
        except.map(|list| cidr::except(&list, Some(prefix), Except::Smaller, report)).unwrap_or_default();
    Some(PeerMatch::Cidr { prefix, except, reach: EVERYTHING })
}
