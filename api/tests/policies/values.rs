//! Single values that are refused: ports, ICMP types, prefixes, labels, names; and beside each the nearest that is not.

use super::refusals::{CILIUM, accepts, ingress, peer_labels, ports, refuses};

#[test]
fn bad_ports_are_refused() {
    let at = "spec.ingress[0].toPorts[0].ports[0]";
    for port in ["\"65536\"", "\"-1\"", "\"080\"", "\"\"", "\"80 \"", "\"8.0\""] {
        refuses(
            &ports(&format!("{{port: {port}}}")),
            &format!("{at}.port: {port} is not a port: 0 (every port) to 65535"),
        );
    }
    refuses(&ports("{protocol: TCP}"), &format!("{at}.port: is missing"));
    refuses(
        &ports("{port: a-name-of-16-let}"),
        "spec.ingress[0].toPorts[0].ports[0].port: the port name has 16 characters, at most 15",
    );
    refuses(&ports("{port: a--b}"), &format!("{at}.port: \"a--b\" is neither a port number nor a port name"));
    refuses(&ports("{port: \"80\", endPort: 79}"), &format!("{at}.endPort: 79 is below port 80"));
    refuses(
        &ports("{port: \"80\", endPort: 65536}"),
        &format!("{at}.endPort: 65536 is not between 0 and 65535"),
    );
    refuses(&ports("{port: http, endPort: 90}"), &format!("{at}.endPort: cannot stand beside a named port"));
    refuses(&ports("{port: \"0\", endPort: 90}"), &format!("{at}.endPort: a range cannot begin at port 0"));
    refuses(
        &ports("{port: \"80\", protocol: HTTP}"),
        &format!("{at}.protocol: \"HTTP\" is no protocol (known: TCP, UDP, SCTP, ANY)"),
    );
    refuses(&ingress("toPorts: [{}]"), "spec.ingress[0].toPorts[0].ports: names no port");
    refuses(&ingress("toPorts: [{ports: []}]"), "spec.ingress[0].toPorts[0].ports: names no port");
    for good in [
        "{port: \"80\", endPort: 80}",
        "{port: \"80\", endPort: 0}",
        "{port: http, endPort: 0}",
        "{port: a-b-c, protocol: UDP}",
        "{port: \"65535\"}",
    ] {
        accepts(&ports(good));
    }
}

#[test]
fn forty_ports_are_the_most() {
    let many = |count: u16| {
        (1..=count).map(|port| format!("{{port: \"{port}\", protocol: TCP}}")).collect::<Vec<_>>().join(", ")
    };
    accepts(&ports(&many(40)));
    refuses(&ports(&many(41)), "spec.ingress[0].toPorts[0].ports: has 41 ports, at most 40 are allowed");
    let types =
        |count: usize| ingress(&format!("icmps: [{{fields: [{}]}}]", vec!["{type: 8}"; count].join(", ")));
    accepts(&types(40));
    refuses(&types(41), "spec.ingress[0].icmps[0].fields: has 41 types, at most 40 are allowed");
}

#[test]
fn bad_icmp_types_are_refused() {
    let icmp = |field: &str| ingress(&format!("icmps: [{{fields: [{{{field}}}]}}]"));
    let at = "spec.ingress[0].icmps[0].fields[0]";
    refuses(&icmp("type: 256"), &format!("{at}.type: 256 is not between 0 and 255"));
    refuses(&icmp("type: \"*\""), &format!("{at}.type: \"*\" is no ICMP type of IPv4"));
    refuses(&icmp("type: PacketTooBig"), &format!("{at}.type: \"PacketTooBig\" is no ICMP type of IPv4"));
    refuses(
        &icmp("type: Photuris, family: IPv6"),
        &format!("{at}.type: \"Photuris\" is no ICMP type of IPv6"),
    );
    refuses(&icmp("type: echorequest"), &format!("{at}.type: \"echorequest\" is no ICMP type of IPv4"));
    refuses(&icmp("family: IPv4"), &format!("{at}.type: is missing"));
    refuses(
        &icmp("type: 8, family: ipv4"),
        &format!("{at}.family: \"ipv4\" is no family (known: IPv4, IPv6)"),
    );
    refuses(&icmp("type: 8, code: 0"), &format!("{at}.code: unknown field"));
    refuses(&ingress("icmps: [{}]"), "spec.ingress[0].icmps[0].fields: names no type");
    for good in [
        "type: 0",
        "type: \"8\"",
        "type: Echo",
        "type: PacketTooBig, family: IPv6",
        "type: 255, family: IPv6",
    ] {
        accepts(&icmp(good));
    }
}

#[test]
fn bad_cidrs_are_refused() {
    let cidr = |text: &str| ingress(&format!("fromCIDR: [\"{text}\"]"));
    for (text, why) in [
        ("10.0.0.0/33", "the prefix length must be 0 to 32"),
        ("fd00::/129", "the prefix length must be 0 to 128"),
        ("10.0.0.0/-1", "the prefix length must be 0 to 32"),
        ("10.0.0.0/08", "the prefix length must be 0 to 32"),
        ("10.0.0.0/", "the prefix length must be 0 to 32"),
        ("10.0.0/8", "the address cannot be read"),
        ("010.0.0.0/8", "the address cannot be read"),
        ("fe80::1%eth0/64", "the address cannot be read"),
        ("example.com", "the address cannot be read"),
        ("", "the address cannot be read"),
    ] {
        refuses(&cidr(text), &format!("spec.ingress[0].fromCIDR[0]: \"{text}\" is not a CIDR: {why}"));
    }
    refuses(
        &cidr("::ffff:10.0.0.1/128"),
        "spec.ingress[0].fromCIDR[0]: \"::ffff:10.0.0.1/128\" is an IPv4 address in IPv6 form; write 10.0.0.1",
    );
    for good in ["10.0.0.1", "fd00::1", "0.0.0.0/0", "::/0", "10.1.2.3/8"] {
        accepts(&cidr(good));
    }
    let set = |element: &str| ingress(&format!("fromCIDRSet: [{{{element}}}]"));
    let at = "spec.ingress[0].fromCIDRSet[0]";
    refuses(
        &set("cidr: 10.0.0.1"),
        &format!("{at}.cidr: \"10.0.0.1\" is not a CIDR: the prefix length is missing"),
    );
    refuses(
        &set("cidr: 10.0.0.0/16, except: [10.1.0.0/24]"),
        &format!("{at}.except[0]: 10.1.0.0/24 is not within 10.0.0.0/16"),
    );
    refuses(
        &set("cidr: 10.0.0.0/16, except: [10.0.0.0/8]"),
        &format!("{at}.except[0]: 10.0.0.0/8 is not within 10.0.0.0/16"),
    );
    refuses(
        &set("cidr: 10.0.0.0/16, except: [\"fd00::/64\"]"),
        &format!("{at}.except[0]: fd00::/64 is not within 10.0.0.0/16"),
    );
    refuses(
        &set("except: []"),
        &format!("{at}: needs exactly one of cidr, cidrGroupRef and cidrGroupSelector"),
    );
    refuses(
        &set("cidr: 10.0.0.0/8, cidrGroupRef: g"),
        &format!("{at}: needs exactly one of cidr, cidrGroupRef"),
    );
    refuses(
        &set("cidrGroupRef: Not_A_Name"),
        &format!("{at}.cidrGroupRef: \"Not_A_Name\" is not a DNS name"),
    );
    accepts(&set("cidr: 10.0.0.0/16, except: [10.0.0.0/16]"));
}

#[test]
fn bad_labels_and_expressions_are_refused() {
    let at = "spec.ingress[0].fromEndpoints[0]";
    let long = "a".repeat(64);
    refuses(
        &peer_labels(&format!("{long}: x")),
        &format!("{at}.matchLabels[{long}]: the name part of the key has 64 characters, at most 63"),
    );
    refuses(
        &peer_labels(&format!("app: {long}")),
        &format!("{at}.matchLabels[app]: the value has 64 characters, at most 63"),
    );
    refuses(
        &peer_labels(&format!("{}/a: x", "a".repeat(254))),
        &format!(
            "{at}.matchLabels[{}/a]: the part before `/` has 254 characters, at most 253",
            "a".repeat(254)
        ),
    );
    refuses(&peer_labels("\"a b\": x"), &format!("{at}.matchLabels[a b]: \"a b\" is not a label key"));
    refuses(&peer_labels("app: \"a b\""), &format!("{at}.matchLabels[app]: \"a b\" is not a label value"));
    refuses(&peer_labels("app: -a"), &format!("{at}.matchLabels[app]: \"-a\" is not a label value"));
    refuses(&peer_labels("\"k8s:\": x"), &format!("{at}.matchLabels[k8s:]: \"\" is not a label key"));
    refuses(&peer_labels("\":app\": x"), &format!("{at}.matchLabels[:app]: the key begins with `:`"));
    refuses(
        &peer_labels("\"reserved:wrold\": \"\""),
        &format!(
            "{at}.matchLabels[reserved:wrold]: there is no reserved label \"wrold\" (known: unknown, host, world"
        ),
    );
    refuses(
        &peer_labels("\"cidr:10.0.0.0/8\": \"\""),
        &format!("{at}.matchLabels[cidr:10.0.0.0/8]: labels of source `cidr` are not enforced"),
    );
    let expression = |text: &str| ingress(&format!("fromEndpoints: [{{matchExpressions: [{{{text}}}]}}]"));
    let at = "spec.ingress[0].fromEndpoints[0].matchExpressions[0]";
    refuses(
        &expression("key: a, operator: In"),
        &format!("{at}.values: operator In needs at least one value"),
    );
    refuses(
        &expression("key: a, operator: NotIn, values: []"),
        &format!("{at}.values: operator NotIn needs at least one value"),
    );
    refuses(
        &expression("key: a, operator: Exists, values: [x]"),
        &format!("{at}.values: operator Exists takes no values"),
    );
    refuses(
        &expression("key: a, operator: Equals, values: [x]"),
        &format!("{at}.operator: \"Equals\" is no operator (known: In, NotIn, Exists, DoesNotExist)"),
    );
    refuses(&expression("operator: Exists"), &format!("{at}.key: is missing"));
    refuses(&expression("key: a"), &format!("{at}.operator: is missing"));
    refuses(
        &expression("key: a, operator: In, values: [\"a b\"]"),
        &format!("{at}.values[0]: \"a b\" is not a label value"),
    );
    refuses(
        &expression("key: a, operator: In, values: [1]"),
        &format!("{at}.values[0]: must be text; write \"1\" in quotes"),
    );
    accepts(&peer_labels("app: \"\""));
    accepts(&peer_labels(&format!("\"k8s:{}\": x", "a".repeat(63))));
    accepts(&peer_labels(&format!("\"k8s:io.cilium.k8s.namespace.labels.{}\": x", "a".repeat(63))));
}

#[test]
fn unknown_entities_and_log_texts_are_refused() {
    refuses(
        &ingress("fromEntities: [wrold]"),
        "spec.ingress[0].fromEntities[0]: \"wrold\" is no entity (known: all, world, world-ipv4",
    );
    for entity in [
        "all",
        "world",
        "world-ipv4",
        "world-ipv6",
        "cluster",
        "cluster-mesh",
        "host",
        "init",
        "ingress",
        "unmanaged",
        "remote-node",
        "health",
        "none",
        "kube-apiserver",
    ] {
        accepts(&ingress(&format!("fromEntities: [{entity}]")));
    }
    let log = |value: &str| {
        format!("{CILIUM}spec: {{endpointSelector: {{}}, ingress: [{{}}], log: {{value: \"{value}\"}}}}\n")
    };
    accepts(&log(&"x".repeat(32)));
    refuses(&log(&"x".repeat(33)), "spec.log.value: has 33 characters, at most 32 are allowed");
    refuses(&log("a\\tb"), "spec.log.value: has characters that are not printable ASCII");
    refuses(&log("\u{e9}"), "spec.log.value: has characters that are not printable ASCII");
    refuses(
        &ingress("authentication: {mode: on-demand}"),
        "spec.ingress[0].authentication.mode: \"on-demand\" is no mode",
    );
    refuses(&ingress("authentication: {}"), "spec.ingress[0].authentication.mode: is missing");
}

#[test]
fn bad_names_are_refused() {
    let named = |metadata: &str| {
        format!(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{{metadata}}}\nspec: {{endpointSelector: {{}}, ingress: [{{}}]}}\n"
        )
    };
    refuses(&named(""), "metadata.name: is missing");
    refuses(&named("name: Web"), "metadata.name: \"Web\" is not a DNS name");
    refuses(
        &named(&format!("name: {}", "a".repeat(254))),
        "metadata.name: has 254 characters, at most 253 are allowed",
    );
    refuses(&named("name: ../../etc"), "metadata.name: \"../../etc\" is not a DNS name");
    refuses(
        &named(&format!("name: p, namespace: {}", "a".repeat(64))),
        "metadata.namespace: has 64 characters, at most 63 are allowed",
    );
    refuses(&named("name: p, namespace: a.b"), "metadata.namespace: \"a.b\" is not a DNS label");
    refuses(&named("name: 7"), "metadata.name: must be text; write \"7\" in quotes");
    refuses(&named("name: p, labels: {\"a b\": c}"), "metadata.labels[a b]: \"a b\" is not a label key");
    refuses(
        "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: p, namespace: x}\nspec: {endpointSelector: {}, ingress: [{}]}\n",
        "metadata.namespace: objects of this kind have no namespace",
    );
    accepts(&named("name: a.b-c.d, namespace: x-1"));
}
