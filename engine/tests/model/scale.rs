//! How long one decision takes on a node of a large cluster: 110 endpoints here, 10,000 identities and 1,000 policies.
//!
//! Run `cargo test --release -p sinew-engine --test model scale -- --nocapture` to see the numbers. The aim is 5 ms for a
//! relabel and for a policy edit; the test fails at ten times that, so that it says something on a busy machine too.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use sinew_api::identity::Identity;
use sinew_api::labels::Labels;
use sinew_api::object::{Endpoint, Object, Origin, decode_text};
use sinew_engine::Event;

use crate::node::Node;

const ENDPOINTS: u16 = 110;
const IDENTITIES: u32 = 10_000;
const POLICIES: u32 = 1_000;

/// The aim, and what a busy machine may take.
const AIM: Duration = Duration::from_millis(5);
const LIMIT: Duration = Duration::from_millis(50);

fn policy(number: u32, port: u16) -> Event {
    let (namespace, app, peer) = (number % 50, number % 200, (number * 7) % 200);
    let text = format!(
        "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {{name: p{number}, namespace: ns{namespace}}}
spec:
  endpointSelector: {{matchLabels: {{app: a{app}}}}}
  ingress:
  - fromEndpoints: [{{matchLabels: {{app: a{peer}}}}}, {{matchLabels: {{'k8s:io.kubernetes.pod.namespace': ns{}}}}}]
    toPorts: [{{ports: [{{port: '{port}', protocol: TCP}}]}}]
  egress:
  - toEndpoints: [{{matchLabels: {{'k8s:io.kubernetes.pod.namespace': kube-system}}}}]
    toPorts: [{{ports: [{{port: '53', protocol: ANY}}]}}]
  - toCIDRSet: [{{cidr: 10.{}.0.0/16, except: [10.{}.1.0/24]}}]
",
        (namespace + 1) % 50,
        100 + number % 100,
        100 + number % 100,
    );
    let object = decode_text("scale.yaml", &text).remove(0).unwrap();
    Event::from(object)
}

fn pod(namespace: u32, name: &str, app: u32) -> Object {
    let text = format!(
        "
apiVersion: v1
kind: Pod
metadata: {{namespace: ns{namespace}, name: {name}, labels: {{app: a{app}, instance: {name}}}}}
"
    );
    decode_text("scale.yaml", &text).remove(0).unwrap()
}

fn remote(number: u32) -> [Event; 2] {
    let mut labels = Labels::new();
    let name = format!("r{number}");
    for (key, value) in [
        ("app", format!("a{}", number % 200)),
        ("instance", name.clone()),
        ("io.kubernetes.pod.namespace", format!("ns{}", number % 50)),
        ("io.cilium.k8s.policy.cluster", "default".to_owned()),
    ] {
        labels.insert("k8s", key, &value);
    }
    let identity = Identity(1_000 + number);
    let address: IpAddr = format!("10.0.{}.{}", number / 250, number % 250 + 1).parse().unwrap();
    let endpoint = Endpoint {
        name: name.clone(),
        pod_namespace: format!("ns{}", number % 50),
        pod_name: name,
        pod_uid: String::new(),
        container_id: String::new(),
        ifname: String::new(),
        node: "elsewhere".to_owned(),
        addresses: vec![address],
        identity,
        previous_identity: None,
        labels: labels.clone(),
        ports: Vec::new(),
        phase: None,
        workload: None,
        origin: Origin::default(),
    };
    [Event::IdentityApplied(identity, labels), Event::RemoteEndpointApplied(endpoint)]
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// The widest policy that people write: every pod of the cluster reaches every pod here, so each table names all identities.
#[test]
fn every_table_names_every_identity() {
    let mut node = Node::new();
    node.apply((0..IDENTITIES).flat_map(remote));
    for number in 0..ENDPOINTS {
        let name = format!("l{number}");
        node.apply([Event::from(pod(u32::from(number) % 50, &name, u32::from(number)))]);
        node.attach(number, &format!("ns{}", number % 50), &name);
    }
    let wide = |port: u32| {
        let text = format!(
            "
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {{name: wide}}
spec:
  endpointSelector: {{}}
  ingress: [{{fromEndpoints: [{{}}], toPorts: [{{ports: [{{port: '{port}', protocol: TCP}}]}}]}}]
"
        );
        Event::from(decode_text("scale.yaml", &text).remove(0).unwrap())
    };
    node.apply([wide(80)]);
    let arrivals = (0..20).map(|number| {
        let [identity, _] = remote(IDENTITIES + number);
        let start = Instant::now();
        node.engine.apply([identity]);
        start.elapsed()
    });
    let arrival = median(arrivals.collect());
    let edits = (0..10).map(|number| {
        let event = wide(81 + number);
        let start = Instant::now();
        node.engine.apply([event]);
        start.elapsed()
    });
    let edit = median(edits.collect());
    println!("{ENDPOINTS} tables of {IDENTITIES} identities: new identity {arrival:?}, policy edit {edit:?}");
    assert!(arrival < 2 * LIMIT && edit < 4 * LIMIT, "{arrival:?}, {edit:?}");
    // Endpoints that the same policies select share one value.
    let tables = node.engine.snapshot();
    let mut tables = tables.endpoints.values().map(|view| view.table.clone().unwrap());
    let first = tables.next().unwrap();
    assert!(tables.all(|table| std::sync::Arc::ptr_eq(&table, &first)));
}

#[test]
fn one_decision_among_ten_thousand_identities() {
    let mut node = Node::new();
    let start = Instant::now();
    node.apply((0..IDENTITIES).flat_map(remote));
    for number in 0..ENDPOINTS {
        let (namespace, app) = (u32::from(number) % 50, u32::from(number) % 200);
        let name = format!("l{number}");
        node.apply([Event::from(pod(namespace, &name, app))]);
        node.attach(number, &format!("ns{namespace}"), &name);
    }
    node.apply((0..POLICIES).map(|number| policy(number, 80)));
    let loaded = start.elapsed();
    let entries: usize = node.kernel.endpoints.values().map(|(_, table)| table.entries.len()).sum();
    println!("{entries} entries in {} tables, loaded in {loaded:?}", node.kernel.endpoints.len());

    let edits = (0..100).map(|number| {
        let event = policy(number % 50, 1_000 + number as u16);
        let start = Instant::now();
        node.engine.apply([event]);
        start.elapsed()
    });
    let edit = median(edits.collect());

    let relabels = (0..100).map(|number| {
        let namespace = number % 50;
        let event = Event::from(pod(namespace, &format!("l{namespace}"), 100 + number));
        let start = Instant::now();
        node.engine.apply([event]);
        start.elapsed()
    });
    let relabel = median(relabels.collect());

    let arrivals = (0..100).map(|number| {
        let [identity, _] = remote(IDENTITIES + number);
        let start = Instant::now();
        node.engine.apply([identity]);
        start.elapsed()
    });
    let arrival = median(arrivals.collect());

    let snapshots = (0..10).map(|number| {
        node.engine.apply([policy(number, 2_000)]);
        let start = Instant::now();
        node.engine.snapshot();
        start.elapsed()
    });
    let snapshot = median(snapshots.collect());
    println!(
        "policy edit {edit:?}, relabel {relabel:?}, new identity {arrival:?} (aim {AIM:?}); snapshot {snapshot:?}"
    );
    for time in [edit, relabel, arrival, snapshot] {
        assert!(time < LIMIT, "{time:?}");
    }
}
