//! The forms of policy.md 1: what an empty, a missing and a full field means, in both schemas. They are opposites.

use super::brief;
use sinew_api::object::decode_text;

/// What a spec of a CiliumNetworkPolicy in namespace `default` becomes, without the line of its name.
fn cilium(spec: &str) -> Vec<String> {
    lines("cilium.io/v2", "CiliumNetworkPolicy", &format!("endpointSelector: {{}}, {spec}"))
}

fn clusterwide(spec: &str) -> Vec<String> {
    lines("cilium.io/v2", "CiliumClusterwideNetworkPolicy", &format!("endpointSelector: {{}}, {spec}"))
}

fn network_policy(spec: &str) -> Vec<String> {
    lines("networking.k8s.io/v1", "NetworkPolicy", &format!("podSelector: {{}}, {spec}"))
}

fn lines(version: &str, kind: &str, spec: &str) -> Vec<String> {
    let text = format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: p}}\nspec: {{{spec}}}\n");
    let mut read = decode_text("p.yaml", &text);
    assert_eq!(read.len(), 1, "{text}");
    brief::object(&read.remove(0)).split_off(1)
}

const PORT: &str = r#"toPorts: [{ports: [{port: "80", protocol: TCP}]}]"#;

#[test]
fn an_empty_cilium_rule_closes_and_allows_nothing() {
    for (section, denied, word) in [("ingress", "ingress", "from"), ("egress", "egress", "to")] {
        assert_eq!(
            cilium(&format!("{section}: [{{}}]")),
            [
                format!("select ns=default, deny {denied}"),
                format!("allow spec.{section}[0] {word} nobody on all")
            ]
        );
    }
}

#[test]
fn an_empty_network_policy_rule_allows_everything() {
    assert_eq!(
        network_policy("ingress: [{}]"),
        ["select ns=default, deny ingress", "allow spec.ingress[0] from any on all"]
    );
    assert_eq!(
        network_policy("egress: [{}]"),
        ["select ns=default, deny ingress egress", "allow spec.egress[0] to any on all"]
    );
}

#[test]
fn a_cilium_rule_of_ports_alone_means_any_peer() {
    assert_eq!(cilium(&format!("ingress: [{{{PORT}}}]"))[1], "allow spec.ingress[0] from any on tcp/80");
    assert_eq!(cilium(&format!("egress: [{{{PORT}}}]"))[1], "allow spec.egress[0] to any on tcp/80");
    assert_eq!(
        cilium("ingress: [{icmps: [{fields: [{type: 8}]}]}]")[1],
        "allow spec.ingress[0] from any on icmp/8"
    );
    // Null is absent, an empty toPorts says nothing: the rule is as empty as `{}`.
    assert_eq!(
        cilium(&format!("ingress: [{{fromEndpoints: null, {PORT}}}]"))[1],
        "allow spec.ingress[0] from any on tcp/80"
    );
    assert_eq!(cilium("ingress: [{toPorts: []}]")[1], "allow spec.ingress[0] from nobody on all");
    assert_eq!(cilium("ingress: [{fromEndpoints: null}]")[1], "allow spec.ingress[0] from nobody on all");
}

#[test]
fn an_empty_cilium_peer_list_selects_nothing() {
    for field in [
        "fromEndpoints",
        "fromCIDR",
        "fromCIDRSet",
        "fromEntities",
        "fromNodes",
        "fromGroups",
        "fromRequires",
    ] {
        assert_eq!(
            cilium(&format!("ingress: [{{{field}: []}}]")),
            ["select ns=default, deny ingress", "allow spec.ingress[0] from nobody on all"],
            "{field}"
        );
        assert_eq!(
            cilium(&format!("ingress: [{{{field}: [], {PORT}}}]"))[1],
            "allow spec.ingress[0] from nobody on tcp/80",
            "{field}"
        );
    }
    for field in
        ["toEndpoints", "toCIDR", "toCIDRSet", "toEntities", "toServices", "toFQDNs", "toNodes", "toGroups"]
    {
        assert_eq!(
            cilium(&format!("egress: [{{{field}: []}}]"))[1],
            "allow spec.egress[0] to nobody on all",
            "{field}"
        );
    }
}

#[test]
fn an_empty_network_policy_peer_list_is_any_peer() {
    for from in ["from: []", "from: null", "ports: []", "from: [], ports: []"] {
        assert_eq!(
            network_policy(&format!("ingress: [{{{from}}}]"))[1],
            "allow spec.ingress[0] from any on all",
            "{from}"
        );
    }
    assert_eq!(
        network_policy("ingress: [{from: [], ports: [{port: 80}]}]")[1],
        "allow spec.ingress[0] from any on tcp/80"
    );
    assert_eq!(
        network_policy("policyTypes: [Egress], egress: [{to: []}]")[1],
        "allow spec.egress[0] to any on all"
    );
}

#[test]
fn an_empty_selector_is_every_pod_in_reach() {
    assert_eq!(cilium("ingress: [{fromEndpoints: [{}]}]")[1], "allow spec.ingress[0] from ns=default on all");
    assert_eq!(clusterwide("ingress: [{fromEndpoints: [{}]}]")[1], "allow spec.ingress[0] from ns on all");
    let peer = |peer: &str| network_policy(&format!("ingress: [{{from: [{peer}]}}]"))[1].clone();
    assert_eq!(peer("{podSelector: {}}"), "allow spec.ingress[0] from ns=default on all");
    assert_eq!(peer("{namespaceSelector: {}}"), "allow spec.ingress[0] from ns on all");
    assert_eq!(peer("{namespaceSelector: {}, podSelector: {}}"), "allow spec.ingress[0] from ns on all");
    for not in ["{key: team, operator: NotIn, values: [a]}", "{key: team, operator: DoesNotExist}"] {
        let selector = format!("{{matchExpressions: [{not}]}}");
        for (peer, scope) in [
            (peer(&format!("{{namespaceSelector: {selector}}}")), "ns"),
            (peer(&format!("{{podSelector: {selector}}}")), "ns=default"),
        ] {
            let selector = peer.split(" from ").last().and_then(|it| it.strip_suffix(" on all")).unwrap();
            assert!(selector.split(" & ").any(|it| it == scope), "{peer}");
        }
    }
}

#[test]
fn allow_all_is_an_entity() {
    assert_eq!(cilium("ingress: [{fromEntities: [all]}]")[1], "allow spec.ingress[0] from entity:all on all");
    assert_eq!(cilium("egress: [{toEntities: [all]}]")[1], "allow spec.egress[0] to entity:all on all");
}

#[test]
fn a_cilium_section_without_elements_is_absent() {
    assert_eq!(
        cilium("ingress: [], egress: [{}]"),
        ["select ns=default, deny egress", "allow spec.egress[0] to nobody on all"]
    );
    assert_eq!(
        cilium("ingress: null, egressDeny: [], egress: [{}]"),
        ["select ns=default, deny egress", "allow spec.egress[0] to nobody on all"]
    );
    for none in [
        "",
        "ingress: []",
        "ingress: [], ingressDeny: [], egress: [], egressDeny: null",
        "enableDefaultDeny: {ingress: true}",
    ] {
        let lines = cilium(none);
        let refused = lines.iter().find(|line| line.starts_with("refused")).unwrap();
        assert!(
            refused.starts_with("refused spec: has no rule: one of ingress, ingressDeny, egress"),
            "{none}: {lines:?}"
        );
    }
}

#[test]
fn a_network_policy_section_without_elements_isolates() {
    for none in
        ["", "ingress: []", "ingress: null", "egress: []", "policyTypes: []", "policyTypes: [Ingress]"]
    {
        assert_eq!(network_policy(none), ["select ns=default, deny ingress"], "{none}");
    }
    assert_eq!(network_policy("policyTypes: [Egress]"), ["select ns=default, deny egress"]);
    assert_eq!(network_policy("policyTypes: [Ingress, Egress]"), ["select ns=default, deny ingress egress"]);
}

#[test]
fn a_network_policy_without_selector_or_spec_isolates_its_namespace() {
    assert_eq!(
        lines("networking.k8s.io/v1", "NetworkPolicy", "ingress: []"),
        ["select ns=default, deny ingress"]
    );
    let text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\n";
    let lines = brief::object(&decode_text("p.yaml", text).remove(0));
    assert_eq!(lines[1], "select ns=default, deny ingress");
    assert!(lines[2].starts_with("warning spec: is missing"), "{lines:?}");
}

#[test]
fn deny_sections_switch_on_default_deny_too() {
    assert_eq!(
        cilium("ingressDeny: [{}]")[..2],
        ["select ns=default, deny ingress", "deny spec.ingressDeny[0] from nobody on all"]
    );
    assert_eq!(
        cilium("egressDeny: [{toEntities: [world]}]")[..2],
        ["select ns=default, deny egress", "deny spec.egressDeny[0] to entity:world on all"]
    );
}

#[test]
fn enable_default_deny_says_otherwise() {
    let cases = [
        ("enableDefaultDeny: {ingress: false}, ingress: [{}]", "nothing"),
        ("enableDefaultDeny: {egress: true}, ingress: [{}]", "ingress egress"),
        ("enableDefaultDeny: {ingress: false, egress: true}, ingress: [{}]", "egress"),
        ("enableDefaultDeny: {}, ingress: [{}]", "ingress"),
        ("enableDefaultDeny: {ingress: null}, ingress: [{}], egressDeny: [{}]", "ingress egress"),
        ("enableDefaultDeny: {egress: false}, ingress: [{}], egressDeny: [{}]", "ingress"),
    ];
    for (spec, denied) in cases {
        assert_eq!(cilium(spec)[0], format!("select ns=default, deny {denied}"), "{spec}");
    }
}
