//! What Sinew's nodes are compared with: the same wires without anything on them, and the same machines where the kernel
//! routes between veth pairs.
//!
//! ```text
//! bare, same node:     client ═ server
//! bare, other node:    client ═ bridge ═ server
//! routed, same node:   client ═ node ═ server
//! routed, other node:  client ═ node ═ bridge ═ node ═ server
//! ```
//!
//! `═` is a veth pair. Neighbours: `traffic.rs` loads all of them by turns.

use std::net::IpAddr;

use anyhow::Result;

use super::load::Ends;
use crate::lab::netns::Netns;
use crate::lab::topology::MTU;
use crate::lab::{Family, Lab, Topology};

/// The other side of a ratio, for each way.
pub(super) struct Ground {
    pub(super) bare: [Ends; 2],
    pub(super) routed: [Ends; 2],
    /// Removes the namespaces at its end.
    _lab: Lab,
}

/// A machine's end of a pair.
struct Port<'a> {
    netns: &'a Netns,
    device: &'a str,
    /// Subnet and host: 10.9.s.h/24 and fd99:0:0:s::h/64; none for a bridge's port.
    at: Option<(u8, u8)>,
}

impl Ground {
    /// Makes all of it for one family.
    pub(super) fn make(family: Family) -> Result<Self> {
        let lab = Lab::build(Topology::Wire(1)).without_agents().start()?;
        let bare = [bare_pair(&lab, family)?, bare_wire(&lab, family)?];
        let routed = [routed_node(&lab, family)?, routed_wire(&lab, family)?];
        Ok(Self { bare, routed, _lab: lab })
    }
}

fn bare_pair(lab: &Lab, family: Family) -> Result<Ends> {
    let [client, server] = machines(lab, ["pair-client", "pair-server"])?;
    pair(&at(&client, "eth0", 1, 1), &at(&server, "eth0", 1, 2))?;
    finish(client, server, address(family, 1, 2))
}

fn bare_wire(lab: &Lab, family: Family) -> Result<Ends> {
    let [client, server, wire] = machines(lab, ["wire-client", "wire-server", "wire"])?;
    bridge(&wire)?;
    pair(&at(&client, "eth0", 2, 1), &port(&wire, "one"))?;
    pair(&at(&server, "eth0", 2, 2), &port(&wire, "two"))?;
    finish(client, server, address(family, 2, 2))
}

fn routed_node(lab: &Lab, family: Family) -> Result<Ends> {
    let [client, node, server] = machines(lab, ["node-client", "node", "node-server"])?;
    forward(&node)?;
    pair(&at(&client, "eth0", 3, 2), &at(&node, "one", 3, 1))?;
    pair(&at(&server, "eth0", 4, 2), &at(&node, "two", 4, 1))?;
    default_route(&client, 3, 1)?;
    default_route(&server, 4, 1)?;
    finish(client, server, address(family, 4, 2))
}

fn routed_wire(lab: &Lab, family: Family) -> Result<Ends> {
    let [client, one, wire, two, server] =
        machines(lab, ["nodes-client", "nodes-one", "nodes-wire", "nodes-two", "nodes-server"])?;
    bridge(&wire)?;
    for node in [&one, &two] {
        forward(node)?;
    }
    pair(&at(&client, "eth0", 5, 2), &at(&one, "pod", 5, 1))?;
    pair(&at(&server, "eth0", 6, 2), &at(&two, "pod", 6, 1))?;
    pair(&at(&one, "eth0", 7, 1), &port(&wire, "one"))?;
    pair(&at(&two, "eth0", 7, 2), &port(&wire, "two"))?;
    default_route(&client, 5, 1)?;
    default_route(&server, 6, 1)?;
    default_route(&one, 7, 2)?;
    default_route(&two, 7, 1)?;
    finish(client, server, address(family, 6, 2))
}

fn machines<const N: usize>(lab: &Lab, names: [&str; N]) -> Result<[Netns; N]> {
    let made = names.map(|name| lab.scratch(name));
    made.iter().try_for_each(Netns::make)?;
    Ok(made)
}

fn bridge(wire: &Netns) -> Result<()> {
    wire.ip("link add br0 type bridge mcast_snooping 0\nlink set br0 up")
}

fn forward(node: &Netns) -> Result<()> {
    node.sysctl("net/ipv4/ip_forward", "1")?;
    node.sysctl("net/ipv6/conf/all/forwarding", "1")
}

fn at<'a>(netns: &'a Netns, device: &'a str, subnet: u8, host: u8) -> Port<'a> {
    Port { netns, device, at: Some((subnet, host)) }
}

fn port<'a>(wire: &'a Netns, device: &'a str) -> Port<'a> {
    Port { netns: wire, device, at: None }
}

fn pair(one: &Port<'_>, other: &Port<'_>) -> Result<()> {
    let path = other.netns.path();
    let peer = path.file_name().expect("a namespace has a name").to_string_lossy();
    one.netns.ip(&format!(
        "link add {} mtu {MTU} type veth peer name {} mtu {MTU} netns {peer}",
        one.device, other.device
    ))?;
    for end in [one, other] {
        match end.at {
            Some((subnet, host)) => end.netns.ip(&format!(
                "addr add {}/24 dev {device}\naddr add {}/64 dev {device} nodad\nlink set {device} up",
                address(Family::V4, subnet, host),
                address(Family::V6, subnet, host),
                device = end.device
            ))?,
            None => end.netns.ip(&format!("link set dev {} master br0 up", end.device))?,
        }
    }
    Ok(())
}

fn default_route(machine: &Netns, subnet: u8, host: u8) -> Result<()> {
    let [v4, v6] = Family::BOTH.map(|family| address(family, subnet, host));
    machine.ip(&format!("route add default via {v4}\nroute add default via {v6}"))
}

fn finish(client: Netns, server: Netns, address: IpAddr) -> Result<Ends> {
    client.wait_links()?;
    server.wait_links()?;
    Ok(Ends { client, server, address })
}

fn address(family: Family, subnet: u8, host: u8) -> IpAddr {
    match family {
        Family::V4 => [10, 9, subnet, host].into(),
        Family::V6 => [0xfd99, 0, 0, u16::from(subnet), 0, 0, 0, u16::from(host)].into(),
    }
}
