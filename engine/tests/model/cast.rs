//! The pods and nodes that random events speak of, by their numbers.

use std::collections::BTreeMap;
use std::net::IpAddr;

use sinew_api::object::{NamedPort, Node as NodeObject, Origin, Pod, PodPhase};
use sinew_api::policy::Protocol;

use crate::random::NAMESPACES;

/// Labels that a pod may carry and that say nothing of it: only its namespace object may say them.
pub(crate) const FORGED: [&str; 2] = ["io.cilium.k8s.namespace.labels.env", "io.kubernetes.pod.namespace"];

/// Namespace and name of a pod.
pub(crate) fn pod_name(number: u8) -> (String, String) {
    (NAMESPACES[usize::from(number / 4)].to_owned(), format!("pod-{number}"))
}

/// Of this node, of a node in the cluster's range, and of one outside of it.
pub(crate) fn addresses(number: u8) -> Vec<IpAddr> {
    let (v4, v6) = match number % 4 {
        0 | 2 => (format!("10.0.1.{}", number + 1), format!("fd00::1:{number}")),
        1 => (format!("10.0.2.{number}"), format!("fd00::2:{number}")),
        _ => (format!("10.9.0.{number}"), format!("fd09::{number}")),
    };
    vec![v4.parse().unwrap(), v6.parse().unwrap()]
}

/// One of two uids, or none.
pub(crate) fn pod_uid(choice: u8) -> String {
    ["", "one", "one", "two"][usize::from(choice % 4)].to_owned()
}

pub(crate) fn pod_object(number: u8, labels: u8, ports: u8, over: bool) -> Pod {
    let (namespace, name) = pod_name(number);
    let mut object = Pod {
        namespace,
        name,
        uid: String::new(),
        labels: BTreeMap::new(),
        service_account: "default".to_owned(),
        host_network: false,
        node: String::new(),
        ports: Vec::new(),
        phase: over.then_some(PodPhase::Succeeded),
        addresses: Vec::new(),
        terminating: false,
        workload: None,
        origin: Origin::default(),
    };
    if let Some(app) = [None, Some("a"), Some("b"), Some("c")][usize::from(labels % 4)] {
        object.labels.insert("app".to_owned(), app.to_owned());
    }
    if let Some(tier) = [None, Some("x"), Some("y")][usize::from(labels / 4 % 3)] {
        object.labels.insert("tier".to_owned(), tier.to_owned());
    }
    match labels / 12 % 4 {
        1 => drop(object.labels.insert(FORGED[0].to_owned(), "prod".to_owned())),
        2 => drop(object.labels.insert(FORGED[1].to_owned(), NAMESPACES[0].to_owned())),
        _ => {}
    }
    let port = |name: &str, protocol, port| NamedPort { name: name.to_owned(), protocol, port };
    object.ports = match ports % 4 {
        0 => vec![],
        1 => vec![port("http", Protocol::Tcp, 80)],
        2 => vec![port("http", Protocol::Tcp, 8080), port("dns", Protocol::Udp, 443)],
        _ => vec![port("http", Protocol::Udp, 80), port("dns", Protocol::Tcp, 443)],
    };
    object
}

pub(crate) fn node_object(node: u8, shape: u8) -> NodeObject {
    let (name, addresses, pod_cidrs) = match node % 3 {
        0 => ("node", vec!["192.168.0.1"], vec!["10.0.1.0/24"]),
        1 => ("n1", vec!["192.168.0.2", "2001:db8::7"], vec!["10.0.2.0/24"]),
        _ => ("n2", vec!["192.168.0.3"], vec!["10.9.0.0/24", "fd09::/64"]),
    };
    let few = |all: Vec<&'static str>, bit: u8| if shape & bit == 0 { all } else { Vec::new() };
    NodeObject {
        name: name.to_owned(),
        cluster: "default".to_owned(),
        id: u16::from(node % 3) + 1,
        addresses: few(addresses, 1).iter().map(|address| address.parse().unwrap()).collect(),
        pod_cidrs: few(pod_cidrs, 2).iter().map(|range| range.parse().unwrap()).collect(),
        routing: sinew_api::object::Routing::Native,
        status: sinew_api::object::NodeStatus::default(),
        origin: Origin::default(),
    }
}
