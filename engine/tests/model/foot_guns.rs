//! What `policy validate` warns of, and what it doesn't.

use sinew_api::labels::LabelFilter;
use sinew_engine::{Config, Event};

use crate::node::Node;

/// Warnings of the one policy, as `path: message`.
fn warnings(node: &mut Node, spec: &str) -> Vec<String> {
    node.yaml(&format!(
        "
apiVersion: sinew.io/v1
kind: SinewNetworkPolicy
metadata: {{name: one, namespace: shop}}
spec:
{spec}"
    ));
    let snapshot = node.engine.snapshot();
    let view = snapshot.policies.values().next().unwrap();
    assert_eq!(view.problems, []);
    view.warnings.iter().map(ToString::to_string).collect()
}

fn populated() -> Node {
    let mut node = Node::new();
    node.apply([Event::NodeAddresses(vec!["192.168.0.1".parse().unwrap()])]);
    node.pod("shop/web", "app=web");
    node.pod("shop/client", "app=client");
    node
}

#[test]
fn a_cidr_over_pods_or_nodes() {
    let mut node = populated();
    let deny = "
  endpointSelector: {matchLabels: {app: web}}
  enableDefaultDeny: {ingress: false}
  ingressDeny: [{fromCIDR: [10.0.0.0/8, 192.168.0.0/24, 203.0.113.0/24]}]
";
    assert_eq!(
        warnings(&mut node, deny),
        [
            "spec.ingressDeny[0].fromCIDR[0]: holds pods (10.0.0.0/16), but denies only what is outside the cluster; \
             policyCIDRMatchMode: [pods] would change that",
            "spec.ingressDeny[0].fromCIDR[1]: holds nodes (192.168.0.1), but denies only what is outside the cluster; \
             policyCIDRMatchMode: [nodes] would change that",
        ]
    );
    let meant = format!("  policyCIDRMatchMode: [pods, nodes]{deny}");
    assert_eq!(warnings(&mut node, &meant), [""; 0]);
    // A part of the range does not hold it.
    let part = deny.replace("10.0.0.0/8, ", "10.0.3.0/24, ");
    assert_eq!(
        warnings(&mut node, &part)[0],
        "spec.ingressDeny[0].fromCIDR[0]: is a part of the pods' range 10.0.0.0/16, but denies only what is outside \
         the cluster; policyCIDRMatchMode: [pods] would change that"
    );
}

#[test]
fn no_way_to_dns() {
    let mut node = populated();
    let https = "
  endpointSelector: {matchLabels: {app: web}}
  egress:
  - toEntities: [world]
    toPorts: [{ports: [{port: '443', protocol: TCP}]}]
";
    let warned = [
        "spec.egress[0]: default deny for egress leaves no way to DNS: no rule allows UDP port 53 to a resolver",
    ];
    assert_eq!(warnings(&mut node, https), warned);
    let with_dns = format!(
        "{https}  - toEndpoints: [{{}}]\n    toPorts: [{{ports: [{{port: '53', protocol: ANY}}]}}]\n"
    );
    assert_eq!(warnings(&mut node, &with_dns), [""; 0]);
    // Another policy may be the one that opens DNS, for all whom this one selects.
    node.yaml(
        "
apiVersion: sinew.io/v1
kind: SinewNetworkPolicy
metadata: {name: two-dns, namespace: shop}
spec:
  endpointSelector: {}
  enableDefaultDeny: {egress: false}
  egress: [{toEntities: [cluster], toPorts: [{ports: [{port: '53', protocol: UDP}]}]}]
",
    );
    assert_eq!(warnings(&mut node, https), [""; 0]);
}

#[test]
fn everything_to_somebody_who_is_no_resolver_is_no_way_to_dns() {
    let mut node = populated();
    node.pod("kube-system/dns", "k8s-app=kube-dns");
    node.pod("shop/db", "app=db");
    node.yaml(
        "
apiVersion: sinew.io/v1
kind: SinewCIDRGroup
metadata: {name: offices}
spec: {externalCIDRs: [203.0.113.0/24]}
",
    );
    for (peers, warned) in [
        ("toEndpoints: [{matchLabels: {app: db}}]", true),
        ("toEndpoints: [{}]", true),
        ("toCIDR: [203.0.113.0/24]", true),
        ("toCIDRSet: [{cidrGroupRef: offices}]", true),
        ("toEntities: [kube-apiserver]", true),
        (
            "toEndpoints: [{matchLabels: {app: db}}], toPorts: [{ports: [{port: '1', endPort: 65535, protocol: UDP}]}]",
            true,
        ),
        ("toEndpoints: [{matchLabels: {app: db}}], toPorts: [{ports: [{port: '53', protocol: UDP}]}]", false),
        ("toEndpoints: [{matchLabels: {'k8s:io.kubernetes.pod.namespace': kube-system}}]", false),
        (
            "toEndpoints: [{matchLabels: {'k8s:io.kubernetes.pod.namespace': kube-system, k8s-app: kube-dns}}]",
            false,
        ),
        ("toEntities: [cluster]", false),
        ("toEntities: [host]", false),
        ("toCIDR: [0.0.0.0/0]", false),
        ("toCIDR: [169.254.20.10/32]", false),
        ("toEntities: [all]", false),
    ] {
        let spec = format!("  endpointSelector: {{matchLabels: {{app: web}}}}\n  egress: [{{{peers}}}]\n");
        let said = warnings(&mut node, &spec);
        let dns = said.iter().any(|warning| warning.contains("no way to DNS"));
        assert_eq!(dns, warned, "{peers}: {said:?}");
    }
}

#[test]
fn a_cidr_over_pods_whose_ranges_nobody_knows() {
    let mut node = Node::unsynced(sinew_engine::Config::new("node", "default"));
    node.apply([Event::Synced]);
    node.pod("shop/web", "app=web");
    node.yaml(
        "
apiVersion: sinew.io/v1
kind: SinewCIDRGroup
metadata: {name: private}
spec: {externalCIDRs: [192.168.0.0/16, 10.0.0.0/8]}
",
    );
    let text = "holds pods (10.0.0.1), but denies only what is outside the cluster; \
                policyCIDRMatchMode: [pods] would change that";
    for (peers, said) in [
        ("toCIDR: [10.0.0.0/8]", vec![format!("spec.egressDeny[0].toCIDR[0]: {text}")]),
        (
            "toCIDRSet: [{cidrGroupRef: private}]",
            vec![format!("spec.egressDeny[0].toCIDRSet[0]: 10.0.0.0/8 of the group {text}")],
        ),
        ("toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.0.0.0/24]}]", vec![]),
        ("toCIDR: [10.1.0.0/16]", vec![]),
    ] {
        let spec = format!(
            "  endpointSelector: {{matchLabels: {{app: web}}}}\n  enableDefaultDeny: {{egress: false}}\n  \
             egressDeny: [{{{peers}}}]\n"
        );
        assert_eq!(warnings(&mut node, &spec), said, "{peers}");
    }
}

#[test]
fn selectors_that_match_nothing() {
    let mut node = populated();
    let typo = "
  endpointSelector: {matchLabels: {app: wbe}}
  ingress: [{fromEndpoints: [{matchLabels: {app: client}}, {matchLabels: {app: cleint}}]}]
";
    let warned = [
        "spec.endpointSelector: selects no pod that exists",
        "spec.ingress[0].fromEndpoints[1]: matches nobody that exists",
    ];
    assert_eq!(warnings(&mut node, typo), warned);
    // A node that knows no pod can't say that none matches.
    assert_eq!(warnings(&mut Node::new(), typo), [""; 0]);
}

#[test]
fn groups_and_ports_that_nobody_has() {
    let mut node = populated();
    let spec = "
  endpointSelector: {matchLabels: {app: web}}
  ingress:
  - fromEntities: [host]
  - fromCIDRSet: [{cidrGroupRef: offices}]
  - toPorts: [{ports: [{port: htpp, protocol: TCP}]}]
  ingressDeny:
  - toPorts: [{ports: [{port: http, protocol: TCP}, {port: metrics, protocol: TCP}]}]
";
    assert_eq!(
        warnings(&mut node, spec),
        [
            "spec.ingress[1].fromCIDRSet[0]: there is no CIDR group \"offices\" with prefixes, so this matches nobody",
            "spec.ingress[2].toPorts[0].ports[0]: nobody has a port named \"htpp\", so this allows nothing",
            "spec.ingressDeny[0].toPorts[0].ports[1]: nobody has a port named \"metrics\", so this denies nothing",
        ]
    );
}

/// A field without a protocol asks for the name in each: one that somebody has is enough.
#[test]
fn a_named_port_without_a_protocol_is_one_field() {
    let mut node = populated();
    let spec = "
  endpointSelector: {matchLabels: {app: web}}
  ingress:
  - toPorts: [{ports: [{port: http}, {port: htpp}]}]
  egress:
  - toPorts: [{ports: [{port: http, protocol: ANY}, {port: http, protocol: UDP}]}]
    toEntities: [cluster]
";
    let said = warnings(&mut node, spec);
    let of_ports: Vec<&String> = said.iter().filter(|warning| warning.contains("port named")).collect();
    assert_eq!(
        of_ports,
        [
            "spec.ingress[0].toPorts[0].ports[1]: nobody has a port named \"htpp\", so this allows nothing",
            "spec.egress[0].toPorts[0].ports[1]: nobody has a port named \"http\", so this allows nothing",
        ]
    );
}

#[test]
fn pods_on_the_host_network_are_not_selected() {
    let mut node = populated();
    node.yaml(
        "
apiVersion: v1
kind: Pod
metadata: {name: proxy, namespace: shop, labels: {app: web}}
spec: {hostNetwork: true}
",
    );
    let spec = "
  endpointSelector: {matchLabels: {app: web}}
  ingress: [{fromEntities: [cluster]}]
";
    let warned = [
        "spec.endpointSelector: does not select shop/proxy: pods on the host's network share the identity of their node",
    ];
    assert_eq!(warnings(&mut node, spec), warned);
    assert_eq!(warnings(&mut node, &spec.replace("{matchLabels: {app: web}}", "{}")), [""; 0]);
}

#[test]
fn labels_that_make_no_identity() {
    let mut node = populated();
    let spec = "
  endpointSelector: {matchLabels: {statefulset.kubernetes.io/pod-name: web-0}}
  ingress:
  - fromEndpoints:
    - matchLabels: {app: client}
    - matchExpressions: [{key: 'k8s:pod-template-hash', operator: NotIn, values: [a]}]
";
    let sentence = "which is no part of identities (--labels of the agents)";
    let found = warnings(&mut node, spec);
    let subject = "spec.endpointSelector: asks for the label \"statefulset.kubernetes.io/pod-name\"";
    assert_eq!(found[0], format!("{subject}, {sentence}: nobody has it"));
    let peer = "spec.ingress[0].fromEndpoints[1]: asks for the label \"pod-template-hash\"";
    assert!(found.contains(&format!("{peer}, {sentence}: everybody is without it")), "{found:?}");
    let named = found.iter().filter(|warning| warning.contains("no part of identities"));
    assert_eq!(named.count(), 2, "{found:?}");
    // Where the agents' patterns keep the label it is as good as any other.
    let mut config = Config::new("node", "default");
    config.labels = LabelFilter::with_patterns(&["app", r"topology\.kubernetes\.io/zone"]).unwrap();
    let mut node = Node::unsynced(config);
    node.apply([Event::Synced]);
    node.pod("shop/web", "app=web, topology.kubernetes.io/zone=a");
    node.pod("shop/client", "app=client");
    let keeps = "
  endpointSelector: {matchLabels: {topology.kubernetes.io/zone: a}}
  ingress: [{fromEndpoints: [{matchLabels: {app: client}}]}]
";
    assert_eq!(warnings(&mut node, keeps), [""; 0]);
    let other = keeps.replace("app: client", "tier: client");
    assert!(warnings(&mut node, &other)[0].contains("\"tier\", which is no part of identities"));
}

#[test]
fn an_api_server_that_nobody_knows() {
    let spec = "
  endpointSelector: {matchLabels: {app: web}}
  ingress: [{fromEntities: [kube-apiserver]}]
";
    let of = |addresses: Option<Vec<std::net::IpAddr>>| {
        let mut config = Config::new("node", "default");
        config.kube_apiserver = addresses;
        let mut node = Node::unsynced(config);
        node.apply([Event::Synced]);
        node.pod("shop/web", "app=web");
        warnings(&mut node, spec)
    };
    let warned = "spec.ingress[0].fromEntities[0]: matches nobody: the agent knows no address of it (--kube-apiserver)";
    assert_eq!(of(Some(Vec::new())), [warned]);
    assert_eq!(of(Some(vec!["203.0.113.6".parse().unwrap()])), [""; 0]);
    // A folder of objects doesn't say.
    assert_eq!(of(None), [""; 0]);
}

#[test]
fn a_warning_names_what_the_kind_has_and_stands_at_its_field() {
    let mut node = populated();
    node.yaml(
        "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: one, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: nobody}}
  ingressDeny:
  - fromCIDR:
    - 203.0.113.0/24
    - 10.0.0.0/8
    toPorts:
    - ports:
      - {port: none, protocol: TCP}
",
    );
    let snapshot = node.engine.snapshot();
    let view = snapshot.policies.values().next().unwrap();
    let said: Vec<(u32, &str)> =
        view.warnings.iter().map(|warning| (warning.origin.line, warning.path.as_str())).collect();
    // The text begins with an empty line.
    let fields =
        [(6, "spec.endpointSelector"), (7, "spec.ingressDeny"), (10, "spec.ingressDeny[0].fromCIDR[1]")];
    assert_eq!(said, fields, "{:?}", view.warnings);
    assert_eq!(
        view.warnings[2].message,
        "holds pods (10.0.0.0/16), but denies only what is outside the cluster; the annotation \
         sinew.io/policy-cidr-match-mode: pods would change that"
    );
    // What it recommends is taken.
    node.yaml(
        "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: one, namespace: shop, annotations: {sinew.io/policy-cidr-match-mode: pods}}
spec:
  endpointSelector: {matchLabels: {app: web}}
  enableDefaultDeny: {ingress: false}
  ingressDeny: [{fromCIDR: [10.0.0.0/8], toPorts: [{ports: [{port: none, protocol: TCP}]}]}]
",
    );
    let snapshot = node.engine.snapshot();
    let view = snapshot.policies.values().next().unwrap();
    assert_eq!(view.problems, []);
    let said: Vec<(u32, &str)> =
        view.warnings.iter().map(|warning| (warning.origin.line, warning.path.as_str())).collect();
    assert_eq!(said, [(8, "spec.ingressDeny[0].toPorts[0].ports[0]")]);
}

#[test]
fn a_node_is_told_by_an_address_that_people_know_it_by() {
    let mut node = populated();
    let own = ["fd31::", "fd31::1", "fd32::", "fd32::5", "192.168.0.1", "192.168.0.9"];
    let own = own.iter().map(|address| address.parse().unwrap()).collect();
    node.apply([Event::NodeAddresses(own)]);
    node.yaml(
        "
apiVersion: sinew.io/v1
kind: SinewNode
metadata: {name: node}
spec: {cluster: default, id: 7, addresses: [192.168.0.9, 'fd31::1'], podCIDRs: []}
",
    );
    let spec = "
  endpointSelector: {matchLabels: {app: web}}
  enableDefaultDeny: {ingress: false}
  ingressDeny: [{fromCIDR: [192.168.0.0/24, 'fd31::/64', 'fd32::/64']}]
";
    let said = warnings(&mut node, spec);
    for (said, named) in said.iter().zip(["(192.168.0.9)", "(fd31::1)", "(fd32::5)"]) {
        assert!(said.contains(&format!("holds nodes {named}")), "{said}");
    }
    assert_eq!(said.len(), 3);
}
