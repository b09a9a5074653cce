//! Routes of ours, told by their protocol number: to pods on this node, and to the pods of other nodes.
//!
//! Routes are level-triggered: [`sync_node_routes`] compares what the kernel has with what should be and writes the
//! difference, so that the route to a node that left goes, whoever made it.
//!
//! Neighbours: [`super::veth`] writes the routes of one pod; `crate::control` names the nodes.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use futures_util::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteProtocol,
    RouteScope, RouteType,
};

use super::address::host_prefix;
use super::{Netlink, NetlinkError, ROUTE_PROTOCOL, refused};

/// One route of the main table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// Where to.
    pub destination: IpNet,
    /// Next hop, taken to be on the link; none for what is on the link itself.
    pub gateway: Option<IpAddr>,
    /// Index of the interface.
    pub interface: u32,
    /// Source address that the node prefers.
    pub source: Option<IpAddr>,
    /// Path MTU, bytes.
    pub mtu: Option<u32>,
}

/// Which routes of the main table to list: unicast ones, but for the last. The kernel chooses, so that nobody waits for
/// the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteFilter {
    /// All of them.
    All,
    /// Those that Sinew wrote.
    Ours,
    /// Those through the interface of this index, whoever wrote them.
    Through(u32),
    /// Those that Sinew wrote and that lead nowhere.
    Unreachable,
}

/// What [`sync_node_routes`] did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RouteChanges {
    /// Destinations that got a route or another one.
    pub written: Vec<IpNet>,
    /// Destinations whose route is gone.
    pub removed: Vec<IpNet>,
    /// Destinations whose route the kernel refused, with its reason.
    pub refused: Vec<(IpNet, String)>,
}

/// Makes the routes of ours that go through `interfaces` equal to `wanted`. `present` are all of ours.
pub async fn sync_node_routes(
    netlink: &Netlink,
    present: &[Route],
    interfaces: &[u32],
    wanted: &[Route],
) -> RouteChanges {
    let mut changes = RouteChanges::default();
    let wanted: BTreeMap<IpNet, &Route> = wanted.iter().map(|route| (route.destination, route)).collect();
    let present: Vec<&Route> = present.iter().filter(|route| interfaces.contains(&route.interface)).collect();
    let standing: HashSet<&Route> = present.iter().copied().collect();
    for route in present {
        if !wanted.contains_key(&route.destination) {
            match netlink.delete_route(route).await {
                Ok(()) => changes.removed.push(route.destination),
                Err(error) => changes.refused.push((route.destination, error.to_string())),
            }
        }
    }
    for (destination, route) in wanted {
        if standing.contains(route) {
            continue;
        }
        match netlink.set_route(route).await {
            Ok(()) => changes.written.push(destination),
            Err(error) => changes.refused.push((destination, error.to_string())),
        }
    }
    changes
}

impl Netlink {
    /// Writes a route, in place of one with the same destination.
    ///
    /// # Errors
    /// [`NetlinkError::Request`].
    pub async fn set_route(&self, route: &Route) -> Result<(), NetlinkError> {
        let request = self.handle.route().add(route.to_message()).replace();
        request
            .execute()
            .await
            .map_err(|error| refused(format!("write the route to {}", route.destination), error))
    }

    /// Deletes a route; one that is gone already is as good as deleted.
    ///
    /// # Errors
    /// [`NetlinkError::Request`].
    pub async fn delete_route(&self, route: &Route) -> Result<(), NetlinkError> {
        let outcome = self.handle.route().del(route.to_message()).execute().await;
        match outcome.map_err(|error| refused(format!("delete the route to {}", route.destination), error)) {
            Err(error) if error.errno() == Some(libc::ESRCH) => Ok(()),
            outcome => outcome,
        }
    }

    /// The routes of the main table that are asked for.
    ///
    /// # Errors
    /// [`NetlinkError::Request`].
    pub async fn routes(&self, which: RouteFilter) -> Result<Vec<Route>, NetlinkError> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut answer = self.handle.route().get(which.request(family)).execute();
            loop {
                match answer.try_next().await.map_err(|error| refused("list routes".into(), error)) {
                    // A kernel without IPv6 answers with what it has.
                    Ok(Some(message)) if message.header.address_family != family => {}
                    Ok(Some(message)) => routes.extend(Route::from_message(&message)),
                    Ok(None) => break,
                    // The kernel makes the main table with its first route.
                    Err(error) if error.errno() == Some(libc::ENOENT) => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(routes)
    }
}

impl Netlink {
    /// Whether the kernel has a way to an address, by whoever's route.
    ///
    /// # Errors
    /// [`NetlinkError::Request`].
    pub async fn has_way_to(&self, address: IpAddr) -> Result<bool, NetlinkError> {
        Ok(self.way(address, None).await?.is_some())
    }

    /// Whether the kernel has the local route of an address that the interface of this index has: without one it takes
    /// no packet to the address in. Another interface's address is none here.
    ///
    /// # Errors
    /// [`NetlinkError::Request`].
    pub async fn has_local_route(&self, address: IpAddr, interface: u32) -> Result<bool, NetlinkError> {
        Ok(self.way(address, Some(interface)).await? == Some(RouteType::Local))
    }

    /// The kind of the route that the kernel would take, by one interface if one is given; none if there is no way.
    async fn way(&self, address: IpAddr, interface: Option<u32>) -> Result<Option<RouteType>, NetlinkError> {
        let mut answer = self.handle.route().get(way_to(address, interface)).execute();
        match answer.try_next().await.map_err(|error| refused(format!("look up a route to {address}"), error))
        {
            Ok(message) => Ok(message.map(|message| message.header.kind)),
            // No route at all; one that says unreachable, prohibit or blackhole.
            Err(error)
                if [libc::ENETUNREACH, libc::EHOSTUNREACH, libc::EACCES, libc::EINVAL]
                    .map(Some)
                    .contains(&error.errno()) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// The question for one address, by one interface if one is given: checked strictly, it has nothing but that
/// (`inet_rtm_valid_getroute_req`, Linux 6.18).
fn way_to(address: IpAddr, interface: Option<u32>) -> RouteMessage {
    let mut message = RouteMessage::default();
    let whole = host_prefix(address);
    message.header.address_family =
        if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.destination_prefix_length = whole.prefix_len();
    message.attributes.push(RouteAttribute::Destination(address.into()));
    message.attributes.extend(interface.map(RouteAttribute::Oif));
    message
}

impl RouteFilter {
    /// The request of one family (`ip_valid_fib_dump_req` and `inet6_dump_fib`, Linux 6.18).
    fn request(self, family: AddressFamily) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.kind = RouteType::Unicast;
        match self {
            Self::All => {}
            Self::Ours => message.header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL),
            Self::Through(index) => message.attributes.push(RouteAttribute::Oif(index)),
            Self::Unreachable => {
                message.header.kind = RouteType::Unreachable;
                message.header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
            }
        }
        message
    }
}

impl Route {
    fn to_message(&self) -> RouteMessage {
        let mut message = RouteMessage::default();
        let header = &mut message.header;
        header.table = RouteHeader::RT_TABLE_MAIN;
        header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
        header.kind = RouteType::Unicast;
        header.address_family = match self.destination {
            IpNet::V4(_) => AddressFamily::Inet,
            IpNet::V6(_) => AddressFamily::Inet6,
        };
        header.destination_prefix_length = self.destination.prefix_len();
        header.scope = match (self.destination, self.gateway) {
            // IPv6 has no scopes of routes; the kernel lists all as universe.
            (IpNet::V4(_), None) => RouteScope::Link,
            _ => RouteScope::Universe,
        };
        let attributes = &mut message.attributes;
        if self.destination.prefix_len() > 0 {
            attributes.push(RouteAttribute::Destination(self.destination.addr().into()));
        }
        attributes.push(RouteAttribute::Oif(self.interface));
        if let Some(gateway) = self.gateway {
            header.flags.insert(RouteFlags::Onlink);
            attributes.push(RouteAttribute::Gateway(gateway.into()));
        }
        if let Some(source) = self.source {
            attributes.push(RouteAttribute::PrefSource(source.into()));
        }
        if let Some(mtu) = self.mtu {
            attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
        }
        message
    }

    fn from_message(message: &RouteMessage) -> Option<Self> {
        let any = match message.header.address_family {
            AddressFamily::Inet => IpNet::from(ipnet::Ipv4Net::default()),
            AddressFamily::Inet6 => IpNet::from(ipnet::Ipv6Net::default()),
            _ => return None,
        };
        let mut route = Self { destination: any, gateway: None, interface: 0, source: None, mtu: None };
        for attribute in &message.attributes {
            if let RouteAttribute::Destination(address) = attribute {
                let prefix_len = message.header.destination_prefix_length;
                route.destination = IpNet::new(address_of(address)?, prefix_len).ok()?;
            } else if let RouteAttribute::Gateway(address) = attribute {
                route.gateway = address_of(address);
            } else if let RouteAttribute::PrefSource(address) = attribute {
                route.source = address_of(address);
            } else if let RouteAttribute::Oif(index) = attribute {
                route.interface = *index;
            } else if let RouteAttribute::Metrics(metrics) = attribute {
                route.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
        }
        Some(route)
    }
}

fn address_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asked in the namespace of whoever tests, where a loopback address has a way.
    #[tokio::test]
    async fn the_kernel_is_asked_for_one_address() {
        let netlink = Netlink::open().unwrap();
        for address in ["127.0.0.1", "::1"] {
            let address: IpAddr = address.parse().unwrap();
            let message = way_to(address, None);
            assert_eq!(
                message.attributes,
                [RouteAttribute::Destination(address.into())],
                "else it lists all"
            );
            assert_eq!(message.header.destination_prefix_length, host_prefix(address).prefix_len());
            if address.is_ipv4() {
                assert!(netlink.has_way_to(address).await.unwrap(), "{address}");
            }
        }
    }
}
