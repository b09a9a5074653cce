//! What is refused, by the path of the field and with its reason; and beside each the nearest that is not. Here fields and
//! objects; single values are in `values.rs`.

use super::brief;
use sinew_api::object::decode_text;

pub(crate) const CILIUM: &str = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p}\n";
const SINEW: &str = "apiVersion: sinew.io/v1\nkind: SinewNetworkPolicy\nmetadata: {name: p}\n";
const NETWORK_POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\n";

pub(crate) fn refused(text: &str) -> Vec<String> {
    let read = decode_text("p.yaml", text);
    assert_eq!(read.len(), 1, "{text}");
    let lines = brief::object(&read[0]);
    lines.iter().filter_map(|line| line.strip_prefix("refused ")).map(str::to_owned).collect()
}

/// One complaint that begins so.
pub(crate) fn refuses(text: &str, expected: &str) {
    let found = refused(text);
    assert_eq!(found.len(), 1, "{text}\n{found:?}");
    assert!(found[0].starts_with(expected), "{text}\nexpected {expected}\nfound    {}", found[0]);
}

pub(crate) fn accepts(text: &str) {
    assert_eq!(refused(text), [""; 0], "{text}");
}

/// A CiliumNetworkPolicy with one ingress element.
pub(crate) fn ingress(element: &str) -> String {
    format!("{CILIUM}spec: {{endpointSelector: {{}}, ingress: [{{{element}}}]}}\n")
}

pub(crate) fn ports(ports: &str) -> String {
    ingress(&format!("toPorts: [{{ports: [{ports}]}}]"))
}

pub(crate) fn peer_labels(labels: &str) -> String {
    ingress(&format!("fromEndpoints: [{{matchLabels: {{{labels}}}}}]"))
}

fn network_policy(element: &str) -> String {
    format!("{NETWORK_POLICY}spec: {{podSelector: {{}}, ingress: [{{{element}}}]}}\n")
}

#[test]
fn unknown_fields_are_refused_where_they_stand() {
    let spec =
        |fields: &str| format!("{CILIUM}spec: {{endpointSelector: {{}}, ingress: [{{}}], {fields}}}\n");
    refuses(&spec("ingres: []"), "spec.ingres: unknown field (known here: endpointSelector, ");
    refuses(&spec("enforcement: audit"), "spec.enforcement: unknown field");
    refuses(
        &spec("policyCIDRMatchMode: [nodes]"),
        "spec.policyCIDRMatchMode: is no field of this kind: write the annotation sinew.io/policy-cidr-match-mode",
    );
    refuses(&spec("log: {valu: x}"), "spec.log.valu: unknown field (known here: value)");
    refuses(&spec("enableDefaultDeny: {ingres: true}"), "spec.enableDefaultDeny.ingres: unknown field");
    refuses(&ingress("fromEndpoint: []"), "spec.ingress[0].fromEndpoint: unknown field");
    refuses(&ingress("toEndpoints: []"), "spec.ingress[0].toEndpoints: unknown field");
    refuses(&ports("{port: \"80\", proto: TCP}"), "spec.ingress[0].toPorts[0].ports[0].proto: unknown field");
    refuses(
        &ingress("fromEndpoints: [{matchLabel: {}}]"),
        "spec.ingress[0].fromEndpoints[0].matchLabel: unknown field",
    );
    refuses(
        &ingress("fromCIDRSet: [{cidr: 10.0.0.0/8, excep: []}]"),
        "spec.ingress[0].fromCIDRSet[0].excep: unknown field",
    );
    refuses(&network_policy("fro: []"), "spec.ingress[0].fro: unknown field (known here: from, ports)");
    refuses(&network_policy("to: []"), "spec.ingress[0].to: unknown field");
    refuses(
        &format!("{CILIUM}spec: {{endpointSelector: {{}}, ingress: [{{}}]}}\nextra: 1\n"),
        "extra: unknown field",
    );
    refuses(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p, namspace: x}\nspec: {endpointSelector: {}, ingress: [{}]}\n",
        "metadata.namspace: unknown field",
    );
}

#[test]
fn deny_rules_have_fewer_fields() {
    let deny = |element: &str| {
        format!("{CILIUM}spec: {{endpointSelector: {{}}, egress: [{{}}], egressDeny: [{{{element}}}]}}\n")
    };
    refuses(&deny("toFQDNs: [{matchName: a.example}]"), "spec.egressDeny[0].toFQDNs: unknown field");
    refuses(&deny("authentication: {mode: disabled}"), "spec.egressDeny[0].authentication: unknown field");
    refuses(
        &deny("toPorts: [{ports: [{port: \"80\"}], rules: {http: []}}]"),
        "spec.egressDeny[0].toPorts[0].rules: unknown field (known here: ports)",
    );
    accepts(&deny("toPorts: [{ports: [{port: \"80\"}]}]"));
}

#[test]
fn wrong_types_are_named() {
    refuses(
        &format!("{CILIUM}spec: {{endpointSelector: [], ingress: [{{}}]}}\n"),
        "spec.endpointSelector: must be a mapping, not a list",
    );
    refuses(
        &format!("{CILIUM}spec: {{endpointSelector: {{}}, ingress: {{}}}}\n"),
        "spec.ingress: must be a list, not a mapping",
    );
    refuses(&ingress("fromCIDR: 10.0.0.0/8"), "spec.ingress[0].fromCIDR: must be a list, not text");
    refuses(
        &ports("{port: 80}"),
        "spec.ingress[0].toPorts[0].ports[0].port: must be text; write \"80\" in quotes",
    );
    refuses(
        &ports("{port: \"80\", endPort: \"90\"}"),
        "spec.ingress[0].toPorts[0].ports[0].endPort: must be a number, not text",
    );
    refuses(
        &peer_labels("app: on"),
        "spec.ingress[0].fromEndpoints[0].matchLabels[app]: must be text; `true`",
    );
    refuses(
        &peer_labels("app: 1.10"),
        "spec.ingress[0].fromEndpoints[0].matchLabels[app]: must be text; write \"1.10\" in quotes",
    );
    refuses(&format!("{CILIUM}spec: [1]\n"), "spec: must be a mapping, not a list");
    refuses(&format!("{CILIUM}specs: {{}}\n"), "specs: must be a list, not a mapping");
    refuses(
        &format!(
            "{CILIUM}spec: {{endpointSelector: {{}}, ingress: [{{}}], enableDefaultDeny: {{ingress: \"no\"}}}}\n"
        ),
        "spec.enableDefaultDeny.ingress: must be true or false, not text",
    );
    refuses(
        &format!("{CILIUM}spec: {{endpointSelector: {{}}, ingress: [null]}}\n"),
        "spec.ingress[0]: must be a mapping, not nothing",
    );
}

#[test]
fn a_policy_must_say_whom_it_selects_and_what_it_does() {
    refuses(CILIUM, "spec: is missing; the object has no rule");
    refuses(&format!("{CILIUM}specs: []\n"), "spec: is missing; the object has no rule");
    refuses(&format!("{CILIUM}spec: {{ingress: [{{}}]}}\n"), "spec.endpointSelector: is missing");
    refuses(
        &format!(
            "{CILIUM}specs: [{{endpointSelector: {{}}, ingress: [{{}}]}}, {{endpointSelector: {{}}}}]\n"
        ),
        "specs[1]: has no rule",
    );
    accepts(&format!(
        "{CILIUM}spec: {{endpointSelector: {{}}, ingress: [{{}}]}}\nspecs: [{{endpointSelector: {{}}, egress: [{{}}]}}]\n"
    ));
}

#[test]
fn both_selectors_at_once_are_refused() {
    let found =
        refused(&format!("{CILIUM}spec: {{endpointSelector: {{}}, nodeSelector: {{}}, ingress: [{{}}]}}\n"));
    assert_eq!(
        found,
        [
            "spec.nodeSelector: policies on nodes are not enforced by this version",
            "spec.nodeSelector: cannot stand beside endpointSelector",
        ]
    );
}

#[test]
fn fields_that_exclude_each_other_are_refused() {
    refuses(
        &ingress("toPorts: [{ports: [{port: \"80\"}]}], icmps: [{fields: [{type: 8}]}]"),
        "spec.ingress[0].icmps: cannot be combined with toPorts in one element",
    );
    refuses(
        &ingress("fromEndpoints: [{}], fromCIDR: [10.0.0.0/8]"),
        "spec.ingress[0].fromCIDR: cannot be combined with fromEndpoints in one element",
    );
    refuses(
        &ingress("fromCIDR: [10.0.0.0/8], fromCIDRSet: [{cidr: 10.0.0.0/8}]"),
        "spec.ingress[0].fromCIDRSet: cannot be combined with fromCIDR in one element",
    );
    refuses(
        &ingress("fromEntities: [world], fromEndpoints: [{}]"),
        "spec.ingress[0].fromEntities: cannot be combined with fromEndpoints in one element",
    );
    accepts(&ingress("fromEndpoints: [], fromCIDR: [10.0.0.0/8]"));
    accepts(&ingress("toPorts: [], icmps: [{fields: [{type: 8}]}]"));
}

#[test]
fn network_policy_follows_kubernetes() {
    let peer = |peer: &str| network_policy(&format!("from: [{{{peer}}}]"));
    let port = |port: &str| network_policy(&format!("ports: [{{{port}}}]"));
    refuses(&peer(""), "spec.ingress[0].from[0]: names no peer");
    refuses(
        &peer("ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}"),
        "spec.ingress[0].from[0].ipBlock: cannot be combined with podSelector",
    );
    refuses(&peer("ipBlock: {}"), "spec.ingress[0].from[0].ipBlock.cidr: is missing");
    refuses(
        &peer("ipBlock: {cidr: 10.0.0.1}"),
        "spec.ingress[0].from[0].ipBlock.cidr: \"10.0.0.1\" is not a CIDR: the prefix length is missing",
    );
    refuses(
        &peer("ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}"),
        "spec.ingress[0].from[0].ipBlock.except[0]: 10.0.0.0/8 must be smaller than 10.0.0.0/8",
    );
    refuses(
        &peer("ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/24]}"),
        "spec.ingress[0].from[0].ipBlock.except[0]: 11.0.0.0/24 is not within 10.0.0.0/8",
    );
    refuses(
        &peer("podSelector: {matchLabels: {\"k8s:app\": x}}"),
        "spec.ingress[0].from[0].podSelector.matchLabels[k8s:app]: \"k8s:app\" is not a label key",
    );
    refuses(&port("port: 0"), "spec.ingress[0].ports[0].port: 0 is not between 1 and 65535");
    refuses(&port("port: 65536"), "spec.ingress[0].ports[0].port: 65536 is not between 1 and 65535");
    refuses(
        &port("port: \"80\""),
        "spec.ingress[0].ports[0].port: \"80\" is neither a port number nor a port name",
    );
    refuses(&port("port: HTTP"), "spec.ingress[0].ports[0].port: port name \"HTTP\" must be in lower case");
    refuses(
        &port("port: 80, protocol: tcp"),
        "spec.ingress[0].ports[0].protocol: \"tcp\" is no protocol (known: TCP, UDP, SCTP)",
    );
    refuses(&port("port: 80, protocol: ANY"), "spec.ingress[0].ports[0].protocol: \"ANY\" is no protocol");
    refuses(&port("port: 80, endPort: 79"), "spec.ingress[0].ports[0].endPort: 79 is below port 80");
    refuses(
        &port("port: http, endPort: 90"),
        "spec.ingress[0].ports[0].endPort: cannot stand beside a named port",
    );
    refuses(&port("endPort: 90"), "spec.ingress[0].ports[0].endPort: needs a port to begin with");
    let types =
        |types: &str| format!("{NETWORK_POLICY}spec: {{podSelector: {{}}, policyTypes: [{types}]}}\n");
    refuses(&types("ingress"), "spec.policyTypes[0]: \"ingress\" is no policy type (known: Ingress, Egress)");
    refuses(&types("Ingress, Egress, Ingress"), "spec.policyTypes: has more than two elements");
    accepts(&types("Ingress, Egress"));
    accepts(&port("protocol: SCTP"));
}

#[test]
fn audit_and_match_mode_have_their_places() {
    let annotated = |base: &str, annotation: &str, spec: &str| {
        format!(
            "{}spec: {{{spec}}}\n",
            base.replace("{name: p}", &format!("{{name: p, annotations: {{{annotation}}}}}"))
        )
    };
    let cilium = "endpointSelector: {}, ingress: [{}]";
    refuses(
        &annotated(CILIUM, "sinew.io/enforcement: dry-run", cilium),
        "metadata.annotations[sinew.io/enforcement]: \"dry-run\" is no enforcement (known: enforce, audit)",
    );
    refuses(
        &annotated(CILIUM, "sinew.io/policy-cidr-match-mode: services", cilium),
        "metadata.annotations[sinew.io/policy-cidr-match-mode]: \"services\" is no mode (known: nodes, pods)",
    );
    refuses(
        &annotated(CILIUM, "sinew.io/enforcment: audit", cilium),
        "metadata.annotations[sinew.io/enforcment]: unknown annotation of sinew.io",
    );
    refuses(
        &annotated(SINEW, "sinew.io/enforcement: audit", cilium),
        "metadata.annotations[sinew.io/enforcement]: is a field of this kind: write spec.enforcement",
    );
    refuses(
        &annotated(SINEW, "sinew.io/policy-cidr-match-mode: pods", cilium),
        "metadata.annotations[sinew.io/policy-cidr-match-mode]: is a field of this kind: write spec.policyCIDRMatchMode",
    );
    refuses(
        &annotated(NETWORK_POLICY, "sinew.io/policy-cidr-match-mode: pods", "podSelector: {}"),
        "metadata.annotations[sinew.io/policy-cidr-match-mode]: has no place here",
    );
    refuses(
        &format!("{SINEW}spec: {{{cilium}, enforcement: log}}\n"),
        "spec.enforcement: \"log\" is no enforcement",
    );
    refuses(
        &format!("{SINEW}spec: {{{cilium}, policyCIDRMatchMode: [world]}}\n"),
        "spec.policyCIDRMatchMode[0]: \"world\" is no mode",
    );
    refuses(
        &format!("{SINEW}spec: {{{cilium}, enforcement: audit}}\nspecs: [{{{cilium}}}]\n"),
        "specs[0].enforcement: differs from spec; an object is enforced or audited as a whole",
    );
    accepts(&annotated(CILIUM, "sinew.io/enforcement: enforce, example.com/x: z", cilium));
    accepts(&format!(
        "{SINEW}spec: {{{cilium}, enforcement: enforce, policyCIDRMatchMode: [pods, nodes]}}\n"
    ));
}

#[test]
fn all_problems_of_an_object_are_named_with_their_lines() {
    let text = "\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata:
  name: p
spec:
  endpointSelector: {}
  ingress:
    - fromCIDR:
        - 10.0.0.0/33
    - toPorts:
        - ports:
            - port: \"80\"
              endPort: 79
  egress:
    - toFQDNs:
        - matchName: a.example
  colour: red
";
    let policy = match decode_text("shop/p.yaml", text).remove(0) {
        Ok(sinew_api::object::Object::Policy(policy)) => policy,
        other => panic!("{other:?}"),
    };
    let found: Vec<_> =
        policy.problems.iter().map(|problem| format!("{} {}", problem.origin, problem.path)).collect();
    assert_eq!(
        found,
        [
            "shop/p.yaml:9 spec.ingress[0].fromCIDR[0]",
            "shop/p.yaml:13 spec.ingress[1].toPorts[0].ports[0].endPort",
            "shop/p.yaml:15 spec.egress[0].toFQDNs",
            "shop/p.yaml:17 spec.colour",
        ]
    );
}

#[test]
fn problems_without_end_are_counted_not_kept() {
    let many = vec!["x"; 10_000].join(", ");
    let found = refused(&ingress(&format!("fromCIDR: [{many}]")));
    assert_eq!(found.len(), 51);
    assert_eq!(found[50], "document: more is wrong than the 50 problems that are listed");
}
