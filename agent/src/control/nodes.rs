//! The nodes of the cluster as this one hears of them: who lives, who holds which identity, and where their pods are.
//!
//! Neighbours: `super` feeds it from the store; `crate::netlink::route` writes the routes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, UNIX_EPOCH};

use ipnet::IpNet;
use sinew_api::identity::Identity;
use sinew_api::object::{Node, NodeStatus};

use crate::netlink::address::Mac;
use crate::netlink::node::overlay_mac;
use crate::netlink::route::Route;
use crate::view::is_alive;

/// Time between two signs of life of a node.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(2);

/// All nodes of the store.
#[derive(Clone, Debug, Default)]
pub(super) struct Nodes {
    nodes: BTreeMap<String, Node>,
}

impl Nodes {
    /// A node is so now. True if it differs in more than its sign of life.
    pub(super) fn set(&mut self, node: Node) -> bool {
        let before = self.nodes.get(&node.name).map(without_status);
        let changed = before.as_ref() != Some(&without_status(&node));
        self.nodes.insert(node.name.clone(), node);
        changed
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    /// All of them, by name.
    pub(super) fn all(&self) -> &BTreeMap<String, Node> {
        &self.nodes
    }

    /// Whether every living node but `own` says that its tables hold the identity.
    pub(super) fn hold(&self, identity: Identity, own: &str, now: Duration) -> bool {
        self.living(now)
            .filter(|node| node.name != own)
            .all(|node| node.status.recent_identities.contains(&identity))
    }

    /// Whether `own` is the living node with the first name, which does what one node must do for all.
    pub(super) fn leads(&self, own: &str, now: Duration) -> bool {
        self.living(now).map(|node| node.name.as_str()).min().is_none_or(|first| first >= own)
    }

    /// Routes to the pods of other nodes by way of their addresses. `on_link` are the underlay's devices with their
    /// prefixes: a node that is on none of them is reached through routers, whose business its pods are then.
    pub(super) fn native_routes(&self, own: &Node, on_link: &[(u32, IpNet)]) -> Vec<Route> {
        self.others(own)
            .filter_map(|(node, range)| {
                let gateway = address_of_family(&node.addresses, &range)?;
                let (interface, _) = on_link.iter().find(|(_, prefix)| prefix.contains(&gateway))?;
                Some(Route {
                    destination: range,
                    gateway: Some(gateway),
                    interface: *interface,
                    source: address_of_family(&own.addresses, &range),
                    mtu: None,
                })
            })
            .collect()
    }

    /// The pods of living nodes that no route of ours leads to, with the nodes' names: others' routes have to. `written`
    /// are ours. A family that either node lacks is nobody's business.
    pub(super) fn left_to_others(
        &self,
        own: &Node,
        written: &[Route],
        now: Duration,
    ) -> Vec<(String, IpNet)> {
        self.living(now)
            .filter(|node| node.name != own.name)
            .flat_map(|node| node.pod_cidrs.iter().map(move |range| (node, *range)))
            .filter(|(node, range)| {
                [own, node].iter().all(|end| address_of_family(&end.addresses, range).is_some())
            })
            .filter(|(_, range)| written.iter().all(|route| route.destination != *range))
            .map(|(node, range)| (node.name.clone(), range))
            .collect()
    }

    /// Routes to the pods of other nodes through the overlay's device, and the neighbours that they go by. The next hop
    /// only gives the frame a destination: the tunnel is chosen by the packet's address.
    pub(super) fn overlay_routes(
        &self,
        own: &Node,
        interface: u32,
        mtu: u32,
    ) -> (Vec<Route>, Vec<(IpAddr, Mac)>) {
        let mut routes = Vec::new();
        let mut neighbours = Vec::new();
        for (node, range) in self.others(own) {
            let mac = overlay_mac(&node.cluster, &node.name);
            let gateway = match range {
                IpNet::V4(_) => match address_of_family(&node.addresses, &range) {
                    Some(address) => address,
                    None => continue,
                },
                IpNet::V6(_) => mac.link_local().into(),
            };
            neighbours.push((gateway, mac));
            routes.push(Route {
                destination: range,
                gateway: Some(gateway),
                interface,
                source: address_of_family(&own.addresses, &range),
                mtu: Some(mtu),
            });
        }
        (routes, neighbours)
    }

    /// The other nodes with each of their pools.
    fn others<'a>(&'a self, own: &'a Node) -> impl Iterator<Item = (&'a Node, IpNet)> {
        self.nodes
            .values()
            .filter(|node| node.name != own.name)
            .flat_map(|node| node.pod_cidrs.iter().map(move |range| (node, *range)))
    }

    fn living(&self, now: Duration) -> impl Iterator<Item = &Node> {
        self.nodes.values().filter(move |node| is_alive(node, UNIX_EPOCH + now))
    }
}

/// The node without what it says from time to time.
pub(super) fn without_status(node: &Node) -> Node {
    Node { status: NodeStatus::default(), ..node.clone() }
}

fn address_of_family(addresses: &[IpAddr], range: &IpNet) -> Option<IpAddr> {
    addresses.iter().find(|address| address.is_ipv4() == range.addr().is_ipv4()).copied()
}

#[cfg(test)]
mod tests {
    use sinew_api::object::{Origin, Routing};

    use super::*;

    const NOW: Duration = Duration::from_secs(1_000_000);

    fn node(name: &str, address: &str, range: &str, silent_for: Duration) -> Node {
        Node {
            name: name.into(),
            cluster: "default".into(),
            id: 1,
            addresses: vec![address.parse().unwrap()],
            pod_cidrs: vec![range.parse().unwrap()],
            routing: Routing::Native,
            status: NodeStatus {
                heartbeat_ms: u64::try_from((NOW - silent_for).as_millis()).unwrap(),
                ..NodeStatus::default()
            },
            origin: Origin::default(),
        }
    }

    fn nodes(all: &[Node]) -> Nodes {
        let mut nodes = Nodes::default();
        all.iter().for_each(|node| assert!(nodes.set(node.clone())));
        nodes
    }

    #[test]
    fn a_sign_of_life_is_no_change() {
        let mut b = node("b", "192.0.2.2", "10.2.0.0/24", Duration::ZERO);
        let mut nodes = nodes(std::slice::from_ref(&b));
        b.status.heartbeat_ms += 2000;
        assert!(!nodes.set(b.clone()));
        b.addresses = vec!["192.0.2.9".parse().unwrap()];
        assert!(nodes.set(b));
    }

    #[test]
    fn the_dead_are_not_waited_for() {
        let alive = node("b", "192.0.2.2", "10.2.0.0/24", Duration::from_secs(5));
        let dead = node("a", "192.0.2.1", "10.1.0.0/24", Duration::from_secs(31));
        let mut nodes = nodes(&[alive.clone(), dead]);
        assert!(!nodes.hold(Identity(300), "own", NOW));
        assert!(nodes.hold(Identity(300), "b", NOW), "nobody else lives");
        assert!(nodes.leads("b", NOW), "a is dead");
        let mut alive = alive;
        alive.status.recent_identities.push(Identity(300));
        nodes.set(alive);
        assert!(nodes.hold(Identity(300), "own", NOW));
    }

    #[test]
    fn native_routes_lead_to_nodes_on_the_link_only() {
        let own = node("own", "192.0.2.7", "10.7.0.0/24", Duration::ZERO);
        let near = node("near", "192.0.2.2", "10.2.0.0/24", Duration::ZERO);
        let far = node("far", "198.51.100.2", "10.3.0.0/24", Duration::ZERO);
        let nodes = nodes(&[own.clone(), near, far]);
        let routes = nodes.native_routes(&own, &[(4, "192.0.2.0/24".parse().unwrap())]);
        assert_eq!(routes.len(), 1);
        assert_eq!(routes[0].destination.to_string(), "10.2.0.0/24");
        assert_eq!(routes[0].gateway.unwrap().to_string(), "192.0.2.2");
        assert_eq!(routes[0].source.unwrap().to_string(), "192.0.2.7");
        let (routes, neighbours) = nodes.overlay_routes(&own, 9, 1450);
        assert_eq!((routes.len(), neighbours.len()), (2, 2), "the overlay reaches both");
    }

    #[test]
    fn what_no_route_of_ours_leads_to_is_left_to_others() {
        let own = node("own", "192.0.2.7", "10.7.0.0/24", Duration::ZERO);
        let near = node("near", "192.0.2.2", "10.2.0.0/24", Duration::ZERO);
        let mut far = node("far", "198.51.100.2", "10.3.0.0/24", Duration::ZERO);
        // This node has no IPv6.
        far.pod_cidrs.push("fd00:3::/64".parse().unwrap());
        let silent = node("silent", "198.51.100.3", "10.4.0.0/24", Duration::from_secs(31));
        let other_family = node("v6", "2001:db8::2", "10.5.0.0/24", Duration::ZERO);
        let nodes = nodes(&[own.clone(), near, far, silent, other_family]);
        let left = |on_link: &[(u32, IpNet)]| {
            let left = nodes.left_to_others(&own, &nodes.native_routes(&own, on_link), NOW);
            left.into_iter().map(|(node, range)| format!("{node} {range}")).collect::<Vec<_>>()
        };
        assert_eq!(left(&[(4, "192.0.2.0/24".parse().unwrap())]), ["far 10.3.0.0/24"]);
        assert_eq!(left(&[]), ["far 10.3.0.0/24", "near 10.2.0.0/24"], "the underlay's address is gone");
        let alone = Nodes::default();
        assert_eq!(alone.left_to_others(&own, &[], NOW), []);
    }
}
