//! Who reaches whom under the published policies in `api/tests/policies`, worked out by hand from what each is for.
//!
//! A line is `FROM TO PORT[/PROTOCOL]: RESULT`. The results: `yes`; `in` and `out`, default deny of the receiver's ingress
//! or the sender's egress; `deny in` and `deny out`, a deny rule. Pods are `namespace/name`, `name` in the namespace
//! `default`. The node is 192.168.0.1, another node 192.168.0.2, the range of pods 10.0.0.0/16.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use sinew_api::object::{NodeStatus, Object, Origin, Routing, decode_text};
use sinew_engine::snapshot::PolicyState;
use sinew_engine::{EndpointId, Event, LocalEndpoint};

use crate::node::Node;

/// A file, the pods it is tried with, and what comes of it.
struct Recipe {
    file: &'static str,
    pods: &'static [(&'static str, &'static str)],
    says: &'static [&'static str],
}

const fn recipe(
    file: &'static str,
    pods: &'static [(&'static str, &'static str)],
    says: &'static [&'static str],
) -> Recipe {
    Recipe { file, pods, says }
}

const RECIPES: &[Recipe] = &[
    recipe(
        "networkpolicy/allow-all-namespaces.yaml",
        &[("web", "app=web"), ("a", "app=a"), ("two/b", "app=b")],
        &[
            "a web 80: yes",
            "two/b web 80: yes",
            "8.8.8.8 web 80: in",
            "8.8.8.8 a 80: yes",
            "192.168.0.1 web 80: yes",
        ],
    ),
    recipe(
        "networkpolicy/allow-all-to-app.yaml",
        &[("web", "app=web"), ("two/b", "app=b")],
        &["two/b web 80: yes", "8.8.8.8 web 22: yes", "2001:db8::1 web 80/UDP: yes"],
    ),
    recipe(
        "networkpolicy/allow-external.yaml",
        &[("web", "app=web"), ("a", "app=a")],
        &["a web 80: yes", "8.8.8.8 web 80: yes", "8.8.8.8 web 443: in", "a web 80/UDP: in"],
    ),
    recipe(
        "networkpolicy/allow-namespace.yaml",
        &[("web", "app=web"), ("a", "app=a"), ("prod/b", "app=b"), ("dev/c", "app=c")],
        &["prod/b web 80: yes", "dev/c web 80: in", "a web 80: in", "8.8.8.8 web 80: in"],
    ),
    recipe(
        "networkpolicy/allow-pods-of-namespace.yaml",
        &[
            ("web", "app=web"),
            ("ops/m", "type=monitoring"),
            ("ops/n", "type=other"),
            ("m", "type=monitoring"),
            ("dev/m", "type=monitoring"),
        ],
        &["ops/m web 80: yes", "ops/n web 80: yes", "m web 80: yes", "dev/m web 80: in"],
    ),
    recipe(
        "networkpolicy/allow-port.yaml",
        &[("api", "app=apiserver"), ("m", "role=monitoring"), ("two/m", "role=monitoring")],
        &["m api 5000: yes", "m api 5001: in", "m api 5000/UDP: in", "two/m api 5000: in"],
    ),
    recipe(
        "networkpolicy/audit.yaml",
        &[("web", "app=web"), ("a", "app=a")],
        &["a web 80: yes", "8.8.8.8 web 80: yes"],
    ),
    recipe(
        "networkpolicy/default-deny-both.yaml",
        &[("a", "app=a"), ("b", "app=b"), ("two/c", "app=c")],
        &["a b 80: out", "two/c a 80: in", "a two/c 80: out", "a 8.8.8.8 443: out", "192.168.0.1 a 80: yes"],
    ),
    recipe(
        "networkpolicy/default-deny-egress.yaml",
        &[("a", "app=a"), ("two/c", "app=c")],
        &["a two/c 80: out", "a 8.8.8.8 53/UDP: out", "two/c a 80: yes", "a 192.168.0.1 22: out"],
    ),
    recipe(
        "networkpolicy/default-deny-ingress.yaml",
        &[("shop/a", "app=a"), ("shop/b", "app=b"), ("c", "app=c")],
        &["shop/a shop/b 80: in", "c shop/a 80: in", "shop/a c 80: yes", "192.168.0.2 shop/a 80: in"],
    ),
    recipe(
        "networkpolicy/deny-all-to-app.yaml",
        &[("web", "app=web"), ("a", "app=a")],
        &["a web 80: in", "8.8.8.8 web 80: in", "web a 80: yes", "192.168.0.1 web 80: yes"],
    ),
    recipe(
        "networkpolicy/deny-egress-but-dns.yaml",
        &[("foo", "app=foo"), ("a", "app=a")],
        &[
            "foo a 80: out",
            "foo a 53: yes",
            "foo 8.8.8.8 53/UDP: yes",
            "foo 8.8.8.8 53/SCTP: out",
            "a foo 80: yes",
        ],
    ),
    recipe(
        "networkpolicy/deny-external-egress.yaml",
        &[("foo", "app=foo"), ("two/a", "app=a")],
        &["foo two/a 80: yes", "foo 8.8.8.8 443: out", "foo 8.8.8.8 53/UDP: yes", "foo 192.168.0.1 22: out"],
    ),
    recipe(
        "networkpolicy/deny-from-other-namespaces.yaml",
        &[("secondary/a", "app=a"), ("secondary/b", ""), ("c", "app=c")],
        &[
            "secondary/a secondary/b 80: yes",
            "secondary/b secondary/a 80: yes",
            "c secondary/a 80: in",
            "8.8.8.8 secondary/b 80: in",
        ],
    ),
    recipe(
        "networkpolicy/documentation.yaml",
        &[("db", "role=db"), ("web", "role=frontend"), ("proj/p", "x=y"), ("two/web", "role=frontend")],
        &[
            "web db 6379: yes",
            "web db 6380: in",
            "proj/p db 6379: yes",
            "two/web db 6379: in",
            "172.17.3.4 db 6379: yes",
            "172.17.1.4 db 6379: in",
            // The pods' own range is 10.0.0.0/16: a block is matched by address, pods included.
            "db web 5978: yes",
            "db web 5979: out",
            "db 172.17.3.4 5978: out",
        ],
    ),
    recipe(
        "networkpolicy/limit-to-app.yaml",
        &[("api", "app=bookstore, role=api"), ("f", "app=bookstore, role=web"), ("c", "app=coffee")],
        &["f api 80: yes", "c api 80: in", "c f 80: yes"],
    ),
    recipe(
        "networkpolicy/multiple-selectors.yaml",
        &[
            ("db", "app=bookstore, role=db"),
            ("s", "app=bookstore, role=search"),
            ("i", "app=inventory, role=web"),
            ("o", "app=inventory, role=search"),
        ],
        &["s db 6379: yes", "i db 6379: yes", "o db 6379: in"],
    ),
    recipe(
        "networkpolicy/named-ports.yaml",
        // Every pod here has the port http, 8080 of TCP, and none the port diameter.
        &[("a", "app=a"), ("b", "app=b")],
        &["a b 8080: yes", "a b 80: in", "a b 53/UDP: yes", "a b 3868/SCTP: in", "a b 8/ICMP: in"],
    ),
    recipe(
        "networkpolicy/namespaces-by-name.yaml",
        &[("my", "app=myapp"), ("frontend/f", "app=f"), ("backend/b", "app=b"), ("other", "app=o")],
        &["my frontend/f 80: yes", "my backend/b 443: yes", "my other 80: out", "my 8.8.8.8 80: out"],
    ),
    recipe(
        "networkpolicy/port-range.yaml",
        &[("db", "role=db"), ("a", "app=a")],
        &[
            "db a 32000: yes",
            "db a 32768: yes",
            "db a 31999: out",
            "db a 32769: out",
            "db a 32500/UDP: out",
            "db 10.1.0.1 32500: out",
        ],
    ),
    recipe(
        "networkpolicy/types-decide.yaml",
        &[("a", "app=a"), ("b", "app=b"), ("two/c", "app=c")],
        // The second object closes ingress and opens egress for all.
        &["a b 80: in", "a two/c 80: yes", "two/c a 80: in"],
    ),
    recipe(
        "cilium/across-namespaces.yaml",
        &[("ns1/leia", "name=leia"), ("ns2/luke", "name=luke"), ("ns1/luke", "name=luke")],
        &["ns2/luke ns1/leia 80: yes", "ns1/luke ns1/leia 80: in"],
    ),
    recipe(
        "cilium/any-protocol.yaml",
        &[("api", "app=api"), ("client", "app=client"), ("x", "app=x")],
        &[
            "x api 123/UDP: yes",
            "x api 123: in",
            "client api 1: yes",
            "client api 1/SCTP: yes",
            "client api 8/ICMP: in",
            "8.8.8.8 api 5/UDP: yes",
        ],
    ),
    recipe(
        "cilium/audit.yaml",
        &[("api", "app=api"), ("x", "app=x")],
        &["x api 80: yes", "8.8.8.8 api 80: yes"],
    ),
    recipe(
        "cilium/cidr-except.yaml",
        &[("my", "app=myService"), ("x", "app=x")],
        &[
            "my 20.1.1.1 80: yes",
            "my 20.1.1.2 80: out",
            "my 10.200.0.1 80: yes",
            "my 10.96.0.1 80: out",
            // A pod of 10.0.0.0/16.
            "my x 80: out",
        ],
    ),
    recipe(
        "cilium/cidr-group.yaml",
        &[("a", "app=a"), ("b", "app=b")],
        // The second peer names the same group without the exception.
        &[
            "10.48.0.1 a 80: yes",
            "10.48.0.9 a 80: yes",
            "203.0.113.7 a 80: yes",
            "203.0.113.8 a 80: in",
            "b a 80: in",
        ],
    ),
    recipe(
        "cilium/cidr-l4.yaml",
        &[("c", "role=crawler")],
        &[
            "c 192.0.2.9 80: yes",
            "c 192.0.2.9 443: out",
            "c 2001:db8::5 80: yes",
            "c 2001:db9::5 80: out",
            "c 8.8.8.8 80: out",
        ],
    ),
    recipe(
        "cilium/clusterwide-health.yaml",
        &[("a", "app=a"), ("b", "app=b")],
        &["a b 80: yes", "192.168.0.2 a 80: yes"],
    ),
    recipe(
        "cilium/clusterwide-wildcard.yaml",
        &[("leia", "name=leia"), ("two/x", "app=x")],
        &["two/x leia 80: yes", "two/x leia 81: in", "8.8.8.8 leia 80: in", "192.168.0.2 leia 80: in"],
    ),
    recipe(
        "cilium/clusterwide.yaml",
        &[
            ("leia", "name=leia"),
            ("two/luke", "name=luke"),
            ("two/han", "name=han"),
            ("two/leia", "name=leia"),
        ],
        &["two/luke leia 80: yes", "two/luke two/leia 80: yes", "two/han leia 80: in"],
    ),
    recipe(
        "cilium/cross-cluster.yaml",
        // This cluster is named default: nobody here is selected.
        &[("x", "name=x-wing"), ("r", "name=rebel-base")],
        &["x r 80: yes", "x 8.8.8.8 80: yes"],
    ),
    recipe(
        "cilium/deny-only.yaml",
        &[("a", "app=a"), ("bad", "env=bad"), ("two/c", "app=c")],
        &["two/c a 80: in", "bad a 80: deny in", "a two/c 80: yes"],
    ),
    recipe(
        "cilium/deny-without-default-deny.yaml",
        &[("a", "app=a"), ("two/b", "app=b")],
        &["a 8.8.8.8 23: deny out", "a 8.8.8.8 22: yes", "a two/b 23: yes", "a 2001:db8::1 23: deny out"],
    ),
    recipe(
        "cilium/egress-allow-all-endpoints.yaml",
        &[("v", "role=victim"), ("a", "app=a"), ("two/b", "app=b")],
        &["v a 80: yes", "v two/b 80: out", "v 8.8.8.8 80: out", "two/b v 80: yes"],
    ),
    recipe(
        "cilium/egress-default-deny.yaml",
        &[("r", "role=restricted"), ("a", "app=a")],
        &["r a 80: out", "a r 80: yes", "r 192.168.0.1 80: out"],
    ),
    recipe(
        "cilium/enable-default-deny.yaml",
        &[("a", "app=a"), ("kube-system/dns", "k8s-app=kube-dns")],
        &[
            "a kube-system/dns 53/UDP: yes",
            "a 8.8.8.8 443: yes",
            "kube-system/dns a 80: in",
            "a kube-system/dns 9153: yes",
        ],
    ),
    recipe(
        "cilium/entities-host.yaml",
        &[("d", "env=dev"), ("a", "app=a")],
        &["d 192.168.0.1 22: yes", "d 192.168.0.2 22: out", "d a 80: out"],
    ),
    recipe(
        "cilium/entities-nodes.yaml",
        &[("d", "env=dev"), ("a", "app=a")],
        &["192.168.0.1 d 80: yes", "192.168.0.2 d 80: yes", "a d 80: in", "8.8.8.8 d 80: in"],
    ),
    recipe(
        "cilium/entities-world.yaml",
        &[("p", "role=public"), ("a", "app=a")],
        &["8.8.8.8 p 80: yes", "2001:db8::1 p 80: yes", "a p 80: in", "192.168.0.2 p 80: in"],
    ),
    recipe(
        "cilium/everything-optional.yaml",
        &[("shop/api", "app=api"), ("shop/c", "app=client"), ("c", "app=client")],
        &["shop/c shop/api 80: yes", "c shop/api 80: in"],
    ),
    recipe(
        "cilium/external-lockdown.yaml",
        &[("a", "app=a"), ("two/b", "app=b")],
        &["8.8.8.8 a 80: deny in", "two/b a 80: yes", "192.168.0.2 a 80: yes", "a 8.8.8.8 80: yes"],
    ),
    recipe(
        "cilium/from-init.yaml",
        &[("my", "app=myService"), ("a", "app=a"), ("unlabelled", "?")],
        // One without labels may send nothing itself: its own side refuses first.
        &["unlabelled my 80: out", "a my 80: in", "a my 53/UDP: yes"],
    ),
    recipe(
        "cilium/icmp.yaml",
        &[("my", "app=myService"), ("a", "app=a")],
        &["my a 8/ICMP: yes", "my a 0/ICMP: out", "my 2001:db8::1 128/ICMPv6: yes", "my a 80: out"],
    ),
    recipe(
        "cilium/ingress-allow-all-endpoints.yaml",
        &[("v", "role=victim"), ("a", "app=a"), ("two/b", "app=b")],
        &["a v 80: yes", "two/b v 80: in", "8.8.8.8 v 80: in"],
    ),
    recipe(
        "cilium/ingress-default-deny.yaml",
        &[("r", "role=restricted"), ("a", "app=a")],
        &["a r 80: in", "r a 80: yes", "192.168.0.1 r 80: yes"],
    ),
    recipe(
        "cilium/ingress-deny.yaml",
        &[("a", "app=a"), ("bad", "env=bad"), ("two/bad", "env=bad")],
        &["bad a 80: deny in", "two/bad a 80: yes", "8.8.8.8 a 80: yes"],
    ),
    recipe(
        "cilium/init-dotted.yaml",
        &[("a", "app=a"), ("u", "?")],
        &[
            "u a 53/UDP: yes",
            "u 8.8.8.8 53/UDP: yes",
            "u a 53: out",
            "192.168.0.1 u 80: yes",
            "a u 80: in",
            "192.168.0.2 u 80: in",
        ],
    ),
    recipe(
        "cilium/init-endpoints.yaml",
        &[("kube-system/dns", "k8s-app=kube-dns"), ("a", "app=a"), ("u", "?")],
        &[
            "u kube-system/dns 53/UDP: yes",
            "u kube-system/dns 53: out",
            "u a 53/UDP: out",
            "a u 80: in",
            "192.168.0.1 u 80: in",
        ],
    ),
    recipe(
        "cilium/isolate-namespaces.yaml",
        &[("ns1/a", "app=a"), ("ns1/b", "app=b"), ("ns2/a", "app=a")],
        &["ns1/a ns1/b 80: yes", "ns1/a ns2/a 80: in", "ns2/a ns1/a 80: in"],
    ),
    recipe(
        "cilium/kube-dns.yaml",
        &[("public/a", "app=a"), ("kube-system/dns", "k8s-app=kube-dns"), ("kube-system/x", "app=x")],
        &[
            "public/a kube-system/dns 53: yes",
            "public/a kube-system/dns 53/SCTP: yes",
            "public/a kube-system/dns 54/UDP: out",
            "public/a kube-system/x 53/UDP: out",
        ],
    ),
    recipe(
        "cilium/l3-l4-labels.yaml",
        &[("b", "role=backend"), ("f", "role=frontend"), ("x", "role=x")],
        &["f b 80: yes", "f b 443: in", "x b 80: in"],
    ),
    recipe(
        "cilium/l3-labels.yaml",
        &[("b", "role=backend"), ("f", "role=frontend"), ("two/f", "role=frontend")],
        &["f b 80: yes", "f b 8/ICMP: yes", "two/f b 80: in", "b two/f 80: yes"],
    ),
    recipe(
        "cilium/l4-port-range.yaml",
        &[("my", "app=myService"), ("a", "app=a")],
        &["my a 80: yes", "my 8.8.8.8 444: yes", "my a 445: out", "my a 79: out", "my a 100/UDP: out"],
    ),
    recipe(
        "cilium/l4-port.yaml",
        &[("my", "app=myService"), ("a", "app=a")],
        &["my a 80: yes", "my 8.8.8.8 80: yes", "my 192.168.0.1 80: yes", "my a 81: out"],
    ),
    recipe(
        "cilium/lock-down-namespaced-pods.yaml",
        &[("a", "app=a"), ("two/b", "app=b"), ("kube-system/dns", "k8s-app=kube-dns")],
        &[
            // The server is closed too: another policy must open it.
            "a kube-system/dns 53/UDP: in",
            "a kube-system/dns 53: out",
            "a two/b 80: out",
            "8.8.8.8 a 80: in",
            "192.168.0.1 a 80: yes",
        ],
    ),
    recipe(
        "cilium/match-expressions.yaml",
        &[
            ("b", "role=backend"),
            ("ok", "tier=web, team=x"),
            ("canary", "tier=web, team=x, track=canary"),
            ("teamless", "tier=edge"),
            ("sick", "tier=edge, team=x, quarantine=y"),
            ("db", "tier=db, team=x"),
        ],
        &["ok b 80: yes", "canary b 80: in", "teamless b 80: in", "sick b 80: in", "db b 80: in"],
    ),
    recipe(
        "cilium/multi-rules.yaml",
        &[("b", "role=backend"), ("f", "role=frontend"), ("x", "role=x")],
        &["f b 80: yes", "f b 81: out", "f x 80: out", "x b 80: in"],
    ),
    recipe(
        "cilium/named-port.yaml",
        // No pod here has a port of this name.
        &[("api", "app=api"), ("monitoring/p", "app=p")],
        &["monitoring/p api 8080: in", "monitoring/p api 9090: in"],
    ),
    recipe(
        "cilium/namespace-labels.yaml",
        &[("shop/api", "app=api"), ("red/a", "app=a"), ("shop/a", "app=a")],
        &["red/a shop/api 80: yes", "shop/a shop/api 80: in"],
    ),
    recipe(
        "cilium/service-account.yaml",
        &[("leia", "@leia"), ("luke", "@luke"), ("han", "@han"), ("two/luke", "@luke")],
        &["luke leia 80: yes", "luke leia 81: in", "han leia 80: in", "two/luke leia 80: in"],
    ),
    recipe(
        "cilium/star-wars-l4.yaml",
        &[
            ("deathstar", "org=empire, class=deathstar"),
            ("tie", "org=empire, class=tiefighter"),
            ("x", "org=alliance, class=xwing"),
        ],
        &["tie deathstar 80: yes", "x deathstar 80: in", "tie deathstar 443: in"],
    ),
    recipe(
        "cilium/union-of-elements.yaml",
        &[("b", "role=backend"), ("f", "role=frontend"), ("x", "role=x")],
        &["f b 22: yes", "x b 80: yes", "x b 22: in", "8.8.8.8 b 80: yes"],
    ),
    recipe("sinew/cidr-group.yaml", &[("a", "app=a")], &["8.8.8.8 a 80: yes"]),
    recipe(
        "sinew/clusterwide.yaml",
        &[("db", "tier=db"), ("two/db", "tier=db"), ("a", "app=a")],
        &[
            "a db 5432: yes",
            "8.8.8.8 db 5432: in",
            "db two/db 5432: yes",
            "db two/db 80: out",
            "db a 5432: out",
            "192.168.0.2 a 1: yes",
        ],
    ),
    recipe(
        "sinew/json.yaml",
        &[("api", "app=api"), ("a", "app=a")],
        &["a api 80: yes", "8.8.8.8 api 80: yes", "a api 81: in"],
    ),
    recipe("sinew/list.yaml", &[("a", "app=a"), ("b", "app=b")], &["a b 80: in", "8.8.8.8 a 80: in"]),
    recipe("sinew/policy.yaml", &[("shop/api", "app=api")], &["8.8.8.8 shop/api 80: yes"]),
];

#[test]
fn published_policies_do_what_they_are_for() {
    let mut wrong = Vec::new();
    for recipe in RECIPES {
        let mut node = cast(recipe.pods);
        for object in objects(recipe.file) {
            node.apply([Event::from(object)]);
        }
        for line in recipe.says {
            let (asked, expected) = line.split_once(": ").unwrap();
            let found = outcome(&node, asked);
            if found != *expected {
                wrong.push(format!("{}: {asked}: expected {expected}, found {found}", recipe.file));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_published_policy_is_tried() {
    let tried: BTreeSet<PathBuf> = RECIPES.iter().map(|recipe| PathBuf::from(recipe.file)).collect();
    let mut there = BTreeSet::new();
    for folder in ["networkpolicy", "cilium", "sinew"] {
        for entry in fs::read_dir(folder_of_policies().join(folder)).unwrap() {
            there.insert(Path::new(folder).join(entry.unwrap().file_name()));
        }
    }
    assert_eq!(tried, there);
}

/// policy.md 14: nothing is opened by what is refused, and what it would have closed is closed.
#[test]
fn refused_policies_close_and_name_the_field() {
    for entry in fs::read_dir(folder_of_policies().join("refused")).unwrap() {
        let file = format!("refused/{}", entry.unwrap().file_name().display());
        for object in objects(&file) {
            let Object::Policy(policy) = &object else { continue };
            assert!(!policy.problems.is_empty(), "{file}: {} is not refused", policy.name);
            let mut node = Node::new();
            node.apply([Event::from(object.clone())]);
            let snapshot = node.engine.snapshot();
            let view = &snapshot.policies[&policy.name];
            assert_eq!(view.state, PolicyState::Refused, "{file}");
            assert!(!view.problems[0].path.is_empty(), "{file}");
            for spec in &policy.specs {
                let opens = spec.ingress.iter().chain(&spec.egress);
                let mut opens = opens.filter(|rule| rule.action == sinew_api::policy::RuleAction::Allow);
                assert!(opens.next().is_none(), "{file}: a refused object allows something");
            }
        }
    }
}

/// A refused policy that selects web pods closes them, and drops name it.
#[test]
fn a_refused_http_rule_opens_nothing() {
    let mut node = cast(&[("web", "app=web"), ("client", "app=client")]);
    node.apply(
        decode_text(
            "http.yaml",
            "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: http, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{method: GET}]}}]
  ingressDeny:
  - fromEntities: [world]
",
        )
        .into_iter()
        .map(|object| Event::from(object.unwrap())),
    );
    assert_eq!(
        node.connect("default/client", "default/web", 80),
        "ingress: default deny by cnp/default/http"
    );
    assert_eq!(node.connect("8.8.8.8", "default/web", 80), "ingress: cnp/default/http spec.ingressDeny[0]");
}

fn folder_of_policies() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../api/tests/policies")
}

fn objects(file: &str) -> Vec<Object> {
    let text = fs::read_to_string(folder_of_policies().join(file)).unwrap();
    decode_text(file, &text).into_iter().filter_map(Result::ok).collect()
}

/// A node with pods. Labels `?` stand for a pod whose object nobody has seen, `@name` for a service account.
pub(crate) fn cast(pods: &[(&str, &str)]) -> Node {
    let mut node = Node::new();
    for (name, label) in [
        ("prod", "purpose: production"),
        ("ops", "team: operations"),
        ("proj", "project: myproject"),
        ("red", "team: red"),
    ] {
        node.yaml(&format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{{label}}}}}\n"
        ));
    }
    node.apply([
        Event::NodeAddresses(vec!["192.168.0.1".parse().unwrap()]),
        Event::NodeApplied(sinew_api::object::Node {
            name: "other".to_owned(),
            cluster: "default".to_owned(),
            id: 2,
            addresses: vec!["192.168.0.2".parse().unwrap()],
            pod_cidrs: Vec::new(),
            routing: Routing::Native,
            status: NodeStatus::default(),
            origin: Origin::default(),
        }),
    ]);
    for (name, labels) in pods {
        let name = full(name);
        match labels.strip_prefix('@') {
            Some(account) => {
                let (namespace, pod) = name.split_once('/').unwrap();
                node.pod(&name, "");
                node.yaml(&format!(
                    "apiVersion: v1\nkind: Pod\nmetadata: {{namespace: {namespace}, name: {pod}}}\n\
                     spec: {{serviceAccountName: {account}}}\n"
                ));
                node.finish_relabels();
            }
            None if *labels == "?" => unseen(&mut node, &name),
            None => {
                node.pod(&name, labels);
            }
        }
    }
    node
}

/// An endpoint whose pod nobody has seen.
fn unseen(node: &mut Node, name: &str) {
    let (namespace, pod) = name.split_once('/').unwrap();
    let id = EndpointId(node.reserve(name));
    node.apply([Event::EndpointCreated(LocalEndpoint {
        id,
        container_id: pod.to_owned(),
        ifname: "eth0".to_owned(),
        pod_namespace: namespace.to_owned(),
        pod_name: pod.to_owned(),
        pod_uid: String::new(),
        labels: [].into(),
        addresses: vec![node.address(name)],
        found: None,
    })]);
}

/// Pods have a namespace, addresses don't.
fn full(name: &str) -> String {
    match name.parse::<std::net::IpAddr>() {
        Err(_) if !name.contains('/') => format!("default/{name}"),
        _ => name.to_owned(),
    }
}

pub(crate) fn outcome(node: &Node, asked: &str) -> String {
    let words: Vec<&str> = asked.split(' ').collect();
    let [from, to, port] = words.as_slice() else { panic!("{asked}") };
    let (port, protocol) = port.split_once('/').unwrap_or((port, "TCP"));
    let protocol = match protocol {
        "TCP" => 6,
        "UDP" => 17,
        "SCTP" => 132,
        "ICMP" => 1,
        "ICMPv6" => 58,
        other => panic!("{other}"),
    };
    let said = node.send(&full(from), &full(to), protocol, port.parse().unwrap());
    let side = if said.starts_with("ingress") { "in" } else { "out" };
    match said.split_once(": ") {
        None => "yes".to_owned(),
        Some((_, cause)) if cause.starts_with("default deny") || cause == "init" => side.to_owned(),
        Some((_, cause)) if cause.contains("Deny[") => format!("deny {side}"),
        Some(_) => said,
    }
}
