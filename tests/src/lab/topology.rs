//! Which machines stand where, the address plan, and the wires.
//!
//! ```text
//! Wire(2)                         Routed(2)
//! a ──┐                           a 172.31.0.10 ── .1 ┐
//! b ──┼─ bridge 172.31.0.0/24     b 172.31.1.10 ── .1 ┼─ router ── outside 172.31.99.10
//! outside                                             ┘
//! ```
//!
//! Node number n has 172.31.0.(10+n) on the wire or 172.31.n.10 behind the router, and the pods 10.240.n.0/24 and
//! fd00:240:n::/64; IPv6 addresses of machines are fd31:0:0:s::h with the same subnet s and host h. There is no
//! masquerade: the outside knows the way to the pods.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{Family, Lab, Routing};

/// All pods of the cluster, in the order of [`Family::BOTH`].
pub const CLUSTER_CIDRS: [&str; 2] = ["10.240.0.0/16", "fd00:240::/32"];
/// The device of every machine that leads to the others.
pub const UNDERLAY: &str = "eth0";
/// MTU of the wires, bytes.
pub const MTU: u32 = 1500;

const OUTSIDE_SUBNET: u8 = 99;

/// How many nodes, and what is between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Topology {
    /// Nodes and an outside host on one Ethernet segment.
    Wire(u8),
    /// Each node and the outside host in a subnet of their own, with a router between them.
    Routed(u8),
}

/// Where a machine is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
}

impl Topology {
    /// How many nodes there are.
    #[must_use]
    pub fn nodes(self) -> u8 {
        match self {
            Self::Wire(nodes) | Self::Routed(nodes) => nodes,
        }
    }

    /// The name of the namespace between the machines.
    #[must_use]
    pub fn between(self) -> &'static str {
        match self {
            Self::Wire(_) => "wire",
            Self::Routed(_) => "router",
        }
    }

    /// Addresses of node `number`.
    #[must_use]
    pub fn node(self, number: u8) -> Addresses {
        match self {
            Self::Wire(_) => machine(0, 10 + number),
            Self::Routed(_) => machine(number, 10),
        }
    }

    /// Addresses of the outside host.
    #[must_use]
    pub fn outside(self) -> Addresses {
        match self {
            Self::Wire(_) => machine(0, 200),
            Self::Routed(_) => machine(OUTSIDE_SUBNET, 10),
        }
    }

    /// The address pool of node `number`.
    #[must_use]
    pub fn pool(number: u8, family: Family) -> String {
        match family {
            Family::V4 => format!("10.240.{number}.0/24"),
            Family::V6 => format!("fd00:240:{number}::/64"),
        }
    }

    pub(super) fn wire(self, lab: &Lab) -> Result<()> {
        let between = lab.between();
        match self {
            Self::Wire(_) => between.ip("link add br0 type bridge mcast_snooping 0\nlink set br0 up")?,
            Self::Routed(_) => {
                between.sysctl("net/ipv4/ip_forward", "1")?;
                between.sysctl("net/ipv6/conf/all/forwarding", "1")?;
            }
        }
        for node in lab.nodes() {
            self.connect(lab, node.netns(), node.name(), self.node(node.number()))?;
        }
        self.connect(lab, lab.outside().netns(), "outside", self.outside())?;
        self.routes(lab)
    }

    /// A wire from a machine's underlay device to the bridge or the router.
    fn connect(self, lab: &Lab, machine: &super::netns::Netns, name: &str, at: Addresses) -> Result<()> {
        let between = lab.between();
        let peer = between.path();
        let peer = peer.file_name().expect("a namespace has a name").to_string_lossy();
        let port = format!("to-{name}");
        let families = &lab.plan().families;
        let addresses = |at: Addresses, device: &str| -> String {
            let add = |family: &Family| match family {
                Family::V4 => format!("addr add {}/24 dev {device}\n", at.v4),
                Family::V6 => format!("addr add {}/64 dev {device} nodad\n", at.v6),
            };
            families.iter().map(add).collect()
        };
        machine.ip(&format!(
            "link add {UNDERLAY} mtu {MTU} type veth peer name {port} mtu {MTU} netns {peer}\n\
             {}link set {UNDERLAY} up",
            addresses(at, UNDERLAY)
        ))?;
        match self {
            Self::Wire(_) => between.ip(&format!("link set dev {port} master br0 up")),
            Self::Routed(_) => {
                let gateway = gateway(at);
                between.ip(&format!("{}link set dev {port} up", addresses(gateway, &port)))?;
                let add = |family: &Family| match family {
                    Family::V4 => format!("route add default via {}\n", gateway.v4),
                    Family::V6 => format!("route add default via {}\n", gateway.v6),
                };
                machine.ip(&families.iter().map(add).collect::<String>())
            }
        }
    }

    /// The network knows where the pods are: by the router, or by every machine of the wire. Under VXLAN only the outside
    /// does, which is not of the cluster.
    fn routes(self, lab: &Lab) -> Result<()> {
        for target in lab.nodes() {
            let at = self.node(target.number());
            let lines: Vec<String> = lab
                .plan()
                .families
                .iter()
                .map(|&family| {
                    let via = if family == Family::V4 { at.v4.to_string() } else { at.v6.to_string() };
                    format!("route add {} via {via}", Self::pool(target.number(), family))
                })
                .collect();
            let lines = lines.join("\n");
            match self {
                Self::Routed(_) => lab.between().ip(&lines)?,
                Self::Wire(_) => {
                    lab.outside().netns().ip(&lines)?;
                    let others = lab.nodes().filter(|other| other.number() != target.number());
                    for other in others.filter(|_| lab.plan().routing == Routing::Native) {
                        other.netns().ip(&lines)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn machine(subnet: u8, host: u8) -> Addresses {
    Addresses {
        v4: Ipv4Addr::new(172, 31, subnet, host),
        v6: Ipv6Addr::new(0xfd31, 0, 0, subnet.into(), 0, 0, 0, host.into()),
    }
}

fn gateway(of: Addresses) -> Addresses {
    machine(of.v4.octets()[2], 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_have_the_addresses_of_the_drawing() {
        assert_eq!(Topology::Wire(2).node(1).v4.to_string(), "172.31.0.11");
        assert_eq!(Topology::Routed(2).node(1).v4.to_string(), "172.31.1.10");
        assert_eq!(Topology::Routed(2).node(1).v6.to_string(), "fd31:0:0:1::a");
        assert_eq!(gateway(Topology::Routed(2).outside()).v6.to_string(), "fd31:0:0:63::1");
        assert_eq!(Topology::pool(3, Family::V6), "fd00:240:3::/64");
    }
}
