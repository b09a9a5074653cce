//! Fields about who talks to whom: addresses, pods, services, names, labels, workloads, identities.

use super::*;

#[test]
fn addresses_and_prefixes() {
    check(
        "source_ip",
        |f| f.source_ip = vec!["10.0.0.1".into()],
        |f| f.ip = ip("10.0.0.1", ""),
        |f| f.ip = ip("", "10.0.0.1"),
    );
    check(
        "source_ip",
        |f| f.source_ip = vec!["10.1.0.0/16".into(), "fd00::/8".into()],
        |f| f.ip = ip("fd12::1", ""),
        |f| f.ip = ip("10.2.0.1", ""),
    );
    check(
        "destination_ip",
        |f| f.destination_ip = vec!["10.1.2.3/8".into()],
        |f| f.ip = ip("", "10.255.0.1"),
        |f| f.ip = ip("10.255.0.1", "::ffff:10.0.0.1"),
    );
    check(
        "destination_ip",
        |f| f.destination_ip = vec!["FD00:0::1".into()],
        |f| f.ip = ip("", "fd00::1"),
        |_| {},
    );
    check(
        "source_ip_xlated",
        |f| f.source_ip_xlated = vec!["192.0.2.0/24".into()],
        |f| f.ip = Some(Ip { source_xlated: "192.0.2.9".into(), ..Ip::default() }),
        |f| f.ip = ip("192.0.2.9", "192.0.2.9"),
    );
}

#[test]
fn pods_by_namespace_and_prefix() {
    check(
        "source_pod",
        |f| f.source_pod = vec!["shop/web".into()],
        |f| f.source = pod("shop", "web-1"),
        |f| f.source = pod("other", "web-1"),
    );
    check(
        "source_pod",
        |f| f.source_pod = vec!["web".into()],
        |f| f.source = pod("default", "web-1"),
        |f| f.source = pod("shop", "web-1"),
    );
    check(
        "source_pod",
        |f| f.source_pod = vec!["shop/".into()],
        |f| f.source = pod("shop", "x"),
        |f| f.destination = pod("shop", "x"),
    );
    check(
        "destination_pod",
        |f| f.destination_pod = vec!["/web".into()],
        |f| f.destination = pod("x", "web"),
        |f| f.destination = pod("x", "a-web"),
    );
    check(
        "destination_pod",
        |f| f.destination_pod = vec!["/".into()],
        |f| f.destination = pod("x", "y"),
        |f| f.destination = pod("", ""),
    );
}

#[test]
fn services_by_namespace_and_prefix() {
    let service =
        |namespace: &str, name: &str| Some(Service { name: name.into(), namespace: namespace.into() });
    check(
        "source_service",
        |f| f.source_service = vec!["a/b".into()],
        |f| f.source_service = service("a", "bc"),
        |f| f.destination_service = service("a", "bc"),
    );
    check(
        "destination_service",
        |f| f.destination_service = vec!["b".into()],
        |f| f.destination_service = service("default", "b"),
        |f| f.destination_service = service("a", "b"),
    );
}

#[test]
fn names_of_addresses() {
    check(
        "source_fqdn",
        |f| f.source_fqdn = vec!["*.example.com.".into()],
        |f| f.source_names = vec!["a.b.example.com".into()],
        |f| f.source_names = vec!["example.com".into()],
    );
    check(
        "destination_fqdn",
        |f| f.destination_fqdn = vec!["API.example.com".into()],
        |f| f.destination_names = vec!["x.org".into(), "api.example.com".into()],
        |f| f.destination_names = vec!["api.example.com.org".into()],
    );
    check(
        "destination_fqdn",
        |f| f.destination_fqdn = vec!["a.b".into()],
        |f| f.destination_names = vec!["a.b".into()],
        |f| f.destination_names = vec!["axb".into()],
    );
}

#[test]
fn label_selectors() {
    let app = &[
        "k8s:app=web",
        "k8s:tier=front",
        "reserved:host",
        "k8s:version=12",
        "k8s:empty",
        "k8s:example.com/team=a-1",
    ];
    for (selector, hit) in [
        ("app=web", true),
        ("k8s:app==web", true),
        ("any:app=web", true),
        ("cilium:app=web", false),
        ("app=db", false),
        ("app", true),
        ("!app", false),
        ("!role", true),
        ("app!=db", true),
        ("app!=web", false),
        ("role!=x", true),
        ("app in (db, web)", true),
        ("app in (db)", false),
        ("app notin (db)", true),
        ("role notin (db)", true),
        ("app=web,tier=front", true),
        ("app=web, tier=back", false),
        ("reserved:host", true),
        ("reserved:world", false),
        ("  app = web  ", true),
        ("tier in (front),app", true),
        ("", true),
        ("version>11", true),
        ("version > 12", false),
        ("k8s:version<13,app", true),
        ("version<12", false),
        ("any:version>2", true),
        ("cilium:version>2", false),
        ("version>9223372036854775807", false),
        ("role>0", false),
        ("role<0", false),
        ("app>0", false),
        ("app<0", false),
        ("empty<1", false),
        ("empty=", true),
        ("empty!=", false),
        ("app in (db,,web)", true),
        ("empty in ()", true),
        ("empty in (a,)", true),
        ("app in(web)", true),
        ("app\nin\t(web)", true),
        ("example.com/team=a-1", true),
        ("k8s:example.com/team", true),
        ("example.org/team", false),
        ("in", false),
        ("app in (in, web)", true),
    ] {
        for field in ["source_label", "destination_label", "node_labels"] {
            let mut filter = FlowFilter::default();
            let mut flow = Flow::default();
            match field {
                "source_label" => (filter.source_label, flow.source) = (vec![selector.into()], labels(app)),
                "destination_label" => {
                    (filter.destination_label, flow.destination) = (vec![selector.into()], labels(app))
                }
                _ => {
                    (filter.node_labels, flow.node_labels) =
                        (vec![selector.into()], app.iter().map(|it| (*it).to_owned()).collect())
                }
            }
            let set = FilterSet::new(&[filter], &[]).unwrap_or_else(|error| panic!("{selector}: {error}"));
            assert_eq!(set.matches(&flow), hit, "{field} {selector}");
        }
    }
}

#[test]
fn workloads_clusters_and_identities() {
    let owned = |kind: &str, name: &str| {
        Some(Endpoint {
            workloads: vec![Workload { name: name.into(), kind: kind.into() }],
            ..Endpoint::default()
        })
    };
    let want = |kind: &str, name: &str| vec![Workload { name: name.into(), kind: kind.into() }];
    check(
        "source_workload",
        |f| f.source_workload = want("", "web"),
        |f| f.source = owned("Deployment", "web"),
        |f| f.source = owned("Deployment", "webs"),
    );
    check(
        "destination_workload",
        |f| f.destination_workload = want("Deployment", ""),
        |f| f.destination = owned("Deployment", "x"),
        |f| f.destination = owned("DaemonSet", "x"),
    );
    let of = |cluster: &str| Some(Endpoint { cluster_name: cluster.into(), ..Endpoint::default() });
    check(
        "source_cluster_name",
        |f| f.source_cluster_name = vec!["east".into()],
        |f| f.source = of("east"),
        |f| f.source = of("eastern"),
    );
    check(
        "destination_cluster_name",
        |f| f.destination_cluster_name = vec!["east".into()],
        |f| f.destination = of("east"),
        |_| {},
    );
    let with = |identity| Some(Endpoint { identity, ..Endpoint::default() });
    check(
        "source_identity",
        |f| f.source_identity = vec![7, 8],
        |f| f.source = with(8),
        |f| f.source = with(9),
    );
    check(
        "destination_identity",
        |f| f.destination_identity = vec![0],
        |f| f.destination = with(0),
        |f| f.source = with(0),
    );
}
