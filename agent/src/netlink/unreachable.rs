//! Routes of ours that lead nowhere, for the ranges of this node's own pods. A pod's own route is narrower; what is for an
//! address that no pod has would else take the node's default route back to the router, which sends it to the node again
//! until its hops are used up, or would leave the overlay bare.
//!
//! The kernel answers whoever sent such a packet that the address is not there. It chooses no source address by these
//! routes, since they lead nowhere.
//!
//! Neighbours: [`super::route`] lists them, `crate::control` says which there should be.

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

use super::route::{RouteChanges, RouteFilter};
use super::{Netlink, NetlinkError, ROUTE_PROTOCOL, refused};

/// Behind any route that somebody else has to the same range, such as that of a former network's bridge.
const METRIC: u32 = 1_000_000_000;

/// Makes the unreachable routes of ours equal to `wanted`.
///
/// # Errors
/// [`NetlinkError::Request`] if they can't be listed; what the kernel refuses to write is in the changes.
pub async fn sync_unreachable(netlink: &Netlink, wanted: &[IpNet]) -> Result<RouteChanges, NetlinkError> {
    let mut changes = RouteChanges::default();
    let present = netlink.routes(RouteFilter::Unreachable).await?;
    let present: Vec<IpNet> = present.into_iter().map(|route| route.destination).collect();
    for range in present.iter().filter(|range| !wanted.contains(range)) {
        match netlink.delete_unreachable(*range).await {
            Ok(()) => changes.removed.push(*range),
            Err(error) => changes.refused.push((*range, error.to_string())),
        }
    }
    for range in wanted.iter().filter(|range| !present.contains(range)) {
        match netlink.add_unreachable(*range).await {
            Ok(()) => changes.written.push(*range),
            Err(error) => changes.refused.push((*range, error.to_string())),
        }
    }
    Ok(changes)
}

impl Netlink {
    async fn add_unreachable(&self, range: IpNet) -> Result<(), NetlinkError> {
        let outcome = self.handle.route().add(message(range)).execute().await;
        outcome.map_err(|error| refused(format!("write the unreachable route for {range}"), error))
    }

    async fn delete_unreachable(&self, range: IpNet) -> Result<(), NetlinkError> {
        let outcome = self.handle.route().del(message(range)).execute().await;
        match outcome.map_err(|error| refused(format!("delete the unreachable route for {range}"), error)) {
            Err(error) if error.errno() == Some(libc::ESRCH) => Ok(()),
            outcome => outcome,
        }
    }
}

fn message(range: IpNet) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.table = RouteHeader::RT_TABLE_MAIN;
    header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
    header.kind = RouteType::Unreachable;
    header.scope = RouteScope::Universe;
    header.address_family = if range.addr().is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    header.destination_prefix_length = range.prefix_len();
    if range.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(range.network().into()));
    }
    message.attributes.push(RouteAttribute::Priority(METRIC));
    message
}
