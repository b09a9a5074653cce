//! What a refused object still does, policy.md 14: it never opens what it would have closed.

use super::brief;
use sinew_api::object::decode_text;

/// The lines of a policy but for its name and its complaints.
fn in_force(text: &str) -> Vec<String> {
    let lines = brief::object(&decode_text("p.yaml", text).remove(0));
    assert!(lines.iter().any(|line| line.starts_with("refused ")), "{text} is not refused: {lines:?}");
    let rest = lines.into_iter().skip(1);
    rest.filter(|line| !line.starts_with("refused ") && !line.starts_with("warning ")).collect()
}

fn cilium(spec: &str) -> Vec<String> {
    in_force(&format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p}}\nspec: {{{spec}}}\n"
    ))
}

fn network_policy(spec: &str) -> Vec<String> {
    in_force(&format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p}}\nspec: {{{spec}}}\n"
    ))
}

#[test]
fn its_allows_are_gone_and_its_default_deny_stays() {
    assert_eq!(
        cilium(
            "endpointSelector: {}, ingress: [{fromEntities: [all]}], egress: [{toFQDNs: [{matchName: a.example}]}]"
        ),
        ["select ns=default, deny ingress egress"]
    );
}

#[test]
fn its_whole_denies_stay() {
    assert_eq!(
        cilium(
            "endpointSelector: {}, egress: [{toFQDNs: [{matchName: a.example}]}], \
             egressDeny: [{toCIDR: [192.0.2.0/24]}, {toCIDR: [192.0.2.0/33]}, {toServices: [{}]}]"
        ),
        ["select ns=default, deny egress", "deny spec.egressDeny[0] to 192.0.2.0/24 on all"]
    );
}

#[test]
fn a_default_deny_that_it_switches_off_stays_off() {
    let off = "endpointSelector: {}, enableDefaultDeny: {egress: false}, egress: [{toFQDNs: [{matchName: a.example}]}]";
    assert_eq!(cilium(off), ["select ns=default, deny nothing"]);
    // A switch that cannot be read does not switch off.
    let broken = "endpointSelector: {}, enableDefaultDeny: {egress: \"false\"}, egress: [{}]";
    assert_eq!(cilium(broken), ["select ns=default, deny egress"]);
}

#[test]
fn a_section_that_cannot_be_read_counts_as_there() {
    assert_eq!(cilium("endpointSelector: {}, ingress: {}"), ["select ns=default, deny ingress"]);
    assert_eq!(cilium("endpointSelector: {}, ingress: [7]"), ["select ns=default, deny ingress"]);
}

#[test]
fn without_a_selector_nothing_can_be_in_force() {
    assert_eq!(cilium("ingress: [{}]"), [""; 0]);
    assert_eq!(cilium("endpointSelector: {matchLabels: {\"a b\": c}}, ingress: [{}]"), [""; 0]);
    assert_eq!(network_policy("podSelector: {matchLabels: {\"a b\": c}}"), [""; 0]);
}

#[test]
fn one_bad_spec_of_several_takes_the_allows_of_all() {
    let text = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p}\nspecs:\n\
                - {endpointSelector: {matchLabels: {app: a}}, ingress: [{fromEntities: [all]}]}\n\
                - {endpointSelector: {matchLabels: {app: b}}, egress: [{colour: red}]}\n\
                - {endpointSelector: {matchLabels: {\"c d\": b}}, egress: [{}]}\n";
    assert_eq!(
        in_force(text),
        ["select app=a & ns=default, deny ingress", "select app=b & ns=default, deny egress"]
    );
}

#[test]
fn a_network_policy_isolates_what_it_would_have() {
    assert_eq!(
        network_policy("podSelector: {}, ingress: [{from: [{}]}]"),
        ["select ns=default, deny ingress"]
    );
    assert_eq!(network_policy("podSelector: {}, policyTypes: [egress]"), ["select ns=default, deny ingress"]);
    assert_eq!(
        network_policy("podSelector: {}, policyTypes: [Egress, 7]"),
        ["select ns=default, deny ingress egress"]
    );
    assert_eq!(
        network_policy("podSelector: {}, policyTypes: 7, egress: [{}]"),
        ["select ns=default, deny ingress egress"]
    );
    assert_eq!(
        network_policy("podSelector: {}, policyTypes: [Egress], egress: 7"),
        ["select ns=default, deny egress"]
    );
}

#[test]
fn audit_stays_audit() {
    let text = "apiVersion: sinew.io/v1\nkind: SinewNetworkPolicy\nmetadata: {name: p}\n\
                spec: {enforcement: audit, endpointSelector: {}, egress: [{toFQDNs: [{matchName: a.example}]}]}\n";
    let lines = brief::object(&decode_text("p.yaml", text).remove(0));
    assert_eq!(lines[..2], ["snp/default/p audit", "select ns=default, deny egress"]);
}
