//! The nodes that the Peer service tells: where a relay finds the Observer of each.
//!
//! All nodes of a cluster serve it at the same port and in the same manner, as Hubble's do: what this node was told of
//! its own port holds for the others. Without a port it tells of itself alone, by its socket. Neighbours: the control
//! loop publishes the nodes in its [`View`], `sinew_observer::peer` serves the set.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use sinew_api::object::Node;
use sinew_observer::peer::{PeerAddress, Peers, tls_server_name};
use tokio::sync::watch;

use crate::config::ObserverPort;
use crate::view::{Constants, View};

/// Keeps a published set as the view has it, until the control loop ends. Nothing is told before the first list of
/// nodes is complete: a relay would take the missing ones for gone.
pub async fn publish(
    mut view: watch::Receiver<Arc<View>>,
    constants: &Constants,
    port: Option<&ObserverPort>,
    socket: &Path,
    peers: &watch::Sender<Peers>,
) {
    loop {
        let now = {
            let view = view.borrow_and_update();
            view.snapshot.synced.then(|| peers_of(&view.nodes, constants, port, socket))
        };
        if let Some(now) = now {
            peers.send_if_modified(|told| {
                let changed = *told != now;
                if changed {
                    *told = now;
                }
                changed
            });
        }
        if view.changed().await.is_err() {
            return;
        }
    }
}

/// The set of one moment.
#[must_use]
pub fn peers_of(
    nodes: &BTreeMap<String, Node>,
    constants: &Constants,
    port: Option<&ObserverPort>,
    socket: &Path,
) -> Peers {
    let own = format!("{}/{}", constants.cluster, constants.node);
    let Some(port) = port else {
        let address = PeerAddress { address: format!("unix://{}", socket.display()), tls: None };
        return Peers::from([(own, address)]);
    };
    let peer = |cluster: &str, name: &str, addresses: &[IpAddr]| {
        let address = addresses.iter().find(|address| is_served(port.address, **address))?;
        let address = SocketAddr::new(*address, port.address.port()).to_string();
        let tls = port.tls.as_ref().map(|_| tls_server_name(cluster, name));
        Some((format!("{cluster}/{name}"), PeerAddress { address, tls }))
    };
    // Its own object may not be in the store yet.
    let itself = peer(&constants.cluster, &constants.node, &constants.addresses);
    let others = nodes.values().filter_map(|node| peer(&node.cluster, &node.name, &node.addresses));
    itself.into_iter().chain(others).collect()
}

/// Whether a port of that address answers at a node's address: of the same family, or of all.
fn is_served(port: SocketAddr, address: IpAddr) -> bool {
    let of_both = port.ip().is_ipv6() && port.ip().is_unspecified();
    of_both || port.is_ipv4() == address.is_ipv4()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use sinew_api::object::{NodeStatus, Origin, Routing};
    use sinew_observer::tls::Identity;

    use super::*;
    use crate::config::PortFiles;

    fn node(cluster: &str, name: &str, addresses: &[&str]) -> (String, Node) {
        let node = Node {
            name: name.into(),
            cluster: cluster.into(),
            id: 1,
            addresses: addresses.iter().map(|address| address.parse().expect("an address")).collect(),
            pod_cidrs: Vec::new(),
            routing: Routing::Native,
            status: NodeStatus::default(),
            origin: Origin::default(),
        };
        (name.to_owned(), node)
    }

    fn told(listen: &str, tls: bool) -> Vec<String> {
        let constants = Constants {
            node: "a".into(),
            cluster: "lab".into(),
            addresses: vec!["192.0.2.1".parse().expect("an address"), "2001:db8::1".parse().expect("one")],
            routing: "native".into(),
            mtu: 1500,
            store: "folder:/x".into(),
            started: SystemTime::UNIX_EPOCH,
            kernel: "6.12".into(),
        };
        let nodes = BTreeMap::from([
            node("lab", "b.example", &["192.0.2.2", "2001:db8::2"]),
            node("lab", "six", &["2001:db8::3"]),
        ]);
        let files = PortFiles {
            identity: Identity { certificate: "c".into(), key: "k".into() },
            client_ca: vec!["a".into()],
        };
        let port = ObserverPort { address: listen.parse().expect("an address"), tls: tls.then_some(files) };
        let peers = peers_of(&nodes, &constants, Some(&port), Path::new("/run/sinew/agent.sock"));
        let line = |(name, peer): (String, PeerAddress)| format!("{name} {} {:?}", peer.address, peer.tls);
        peers.into_iter().map(line).collect()
    }

    // Names as in Hubble's peer service: node and cluster with hyphens for dots, then hubble-grpc.cilium.io.
    #[test]
    fn every_node_at_its_address_with_the_name_of_its_certificate() {
        assert_eq!(
            told("[::]:4244", true),
            [
                "lab/a 192.0.2.1:4244 Some(\"a.lab.hubble-grpc.cilium.io\")",
                "lab/b.example 192.0.2.2:4244 Some(\"b-example.lab.hubble-grpc.cilium.io\")",
                "lab/six [2001:db8::3]:4244 Some(\"six.lab.hubble-grpc.cilium.io\")",
            ]
        );
    }

    #[test]
    fn addresses_are_of_the_family_that_is_served() {
        assert_eq!(told("0.0.0.0:1", false), ["lab/a 192.0.2.1:1 None", "lab/b.example 192.0.2.2:1 None"]);
        let six = told("[2001:db8::1]:1", false);
        assert_eq!(six[..2], ["lab/a [2001:db8::1]:1 None", "lab/b.example [2001:db8::2]:1 None"]);
    }
}
