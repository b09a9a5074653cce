//! The source address of what the host's NAT sends into the overlay.
//!
//! `MASQUERADE` takes an address of the device that a packet leaves by. The overlay's device has none of its own; then the
//! kernel takes the first global address of the node's other devices (`inet_select_addr`), or chooses among all of them
//! (`ipv6_dev_get_saddr`). On a node with several that may be one that no other node knows, and its answers go astray. So
//! the overlay's device gets the address that other nodes know as well, but only where another one would be taken: what
//! looks for a device by an IPv4 address (who joins a multicast group by it, or sends to one from it) finds the device
//! that got it last (`__ip_dev_find`, kernel 6.18).
//!
//! It has the pods' gateway as an address of the link besides. `rp_filter` in its loose form lets no answer in by a device
//! without any IPv4 address unless the route back is by that device (`__fib_validate_source`, kernel 6.18), and to
//! nodes it is not: what the host translates back, the answers of a service on another node, would be lost.
//!
//! Neighbours: `crate::control` keeps it so; `super::address` writes.

use std::net::IpAddr;

use futures_util::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::address::{AddressHeaderFlags, AddressMessage, AddressScope};

use super::address::{GATEWAY_V4, host_prefix, own_address};
use super::{Netlink, NetlinkError, refused};

/// An address of global scope on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Source {
    interface: u32,
    address: IpNet,
    /// Whether it stands behind another address of its subnet (IPv4), which the kernel takes instead.
    secondary: bool,
}

/// Gives the overlay's device those of the node's addresses that it has to have, and takes all others from it. True if
/// something was written.
///
/// # Errors
/// [`NetlinkError::Request`].
pub async fn sync_overlay_sources(
    netlink: &Netlink,
    overlay: u32,
    node: &[IpAddr],
) -> Result<bool, NetlinkError> {
    netlink.add_address(overlay, host_prefix(GATEWAY_V4.into()), AddressScope::Link).await?;
    let sources = netlink.sources().await?;
    let wanted = wanted(&sources, overlay, node);
    let present: Vec<IpNet> =
        sources.iter().filter(|source| source.interface == overlay).map(|source| source.address).collect();
    let surplus: Vec<IpNet> = present.iter().filter(|address| !wanted.contains(address)).copied().collect();
    let missing: Vec<IpNet> = wanted.into_iter().filter(|address| !present.contains(address)).collect();
    for address in &surplus {
        netlink.delete_address(overlay, *address).await?;
    }
    for address in &missing {
        netlink.add_bare_address(overlay, address.addr()).await?;
    }
    Ok(!surplus.is_empty() || !missing.is_empty())
}

fn wanted(sources: &[Source], overlay: u32, node: &[IpAddr]) -> Vec<IpNet> {
    let others: Vec<&Source> =
        sources.iter().filter(|source| source.interface != overlay && !source.secondary).collect();
    let is_taken_anyway = |own: &IpAddr| {
        let mut family = others
            .iter()
            .map(|source| source.address.addr())
            .filter(|address| address.is_ipv4() == own.is_ipv4());
        match own {
            IpAddr::V4(_) => family.next() == Some(*own),
            // The choice depends on the destination (RFC 6724).
            IpAddr::V6(_) => family.all(|address| address == *own),
        }
    };
    // One that no other device has (any more) is not the node's.
    let is_there = |own: &IpAddr| {
        sources.iter().any(|source| source.interface != overlay && source.address.addr() == *own)
    };
    node.iter().filter(|own| is_there(own) && !is_taken_anyway(own)).map(|own| host_prefix(*own)).collect()
}

impl Netlink {
    /// The addresses that the kernel may choose as a source for others than a link's neighbours, in its order.
    async fn sources(&self) -> Result<Vec<Source>, NetlinkError> {
        let request = self.handle.address().get();
        let messages: Vec<_> =
            request.execute().try_collect().await.map_err(|error| refused("list addresses".into(), error))?;
        let mut sources: Vec<Source> = messages.iter().filter_map(Source::from_message).collect();
        // The kernel goes by the order in which devices were made, which their indexes have. The sort is stable: a
        // device's addresses stay in the order of its list.
        sources.sort_by_key(|source| source.interface);
        Ok(sources)
    }
}

impl Source {
    fn from_message(message: &AddressMessage) -> Option<Self> {
        if message.header.scope != AddressScope::Universe {
            return None;
        }
        let own = own_address(message)?;
        Some(Self {
            interface: message.header.index,
            address: IpNet::new(own, message.header.prefix_len).ok()?,
            // Of an IPv6 address the same bit says "temporary".
            secondary: own.is_ipv4() && message.header.flags.contains(AddressHeaderFlags::Secondary),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OVERLAY: u32 = 9;

    /// Interface and address; `+` before the address says that it is a secondary one.
    fn wanted_of(sources: &[(u32, &str)], node: &[&str]) -> Vec<String> {
        let sources: Vec<Source> = sources
            .iter()
            .map(|(interface, text)| Source {
                interface: *interface,
                address: text.trim_start_matches('+').parse().unwrap(),
                secondary: text.starts_with('+'),
            })
            .collect();
        let node: Vec<IpAddr> = node.iter().map(|address| address.parse().unwrap()).collect();
        wanted(&sources, OVERLAY, &node).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_an_address_that_would_not_be_taken_anyway_is_wanted() {
        let v4 = ["192.0.2.10"];
        assert_eq!(wanted_of(&[(2, "192.0.2.10/24")], &v4), [""; 0], "one device");
        assert_eq!(wanted_of(&[(2, "192.0.2.10/24"), (3, "172.17.0.1/16")], &v4), [""; 0], "it is the first");
        let behind = [(2, "10.0.2.15/24"), (3, "192.0.2.10/24")];
        assert_eq!(wanted_of(&behind, &v4), ["192.0.2.10/32"]);
        let standing = [(2, "10.0.2.15/24"), (3, "192.0.2.10/24"), (9, "192.0.2.10/32")];
        assert_eq!(wanted_of(&standing, &v4), ["192.0.2.10/32"], "what is there is no reason against it");
        let secondary = [(2, "192.0.2.9/24"), (2, "+192.0.2.10/24")];
        assert_eq!(wanted_of(&secondary, &v4), ["192.0.2.10/32"]);
        assert_eq!(wanted_of(&[(2, "10.0.2.15/24"), (9, "192.0.2.10/32")], &v4), [""; 0], "no device has it");

        let v6 = ["2001:db8::10"];
        assert_eq!(wanted_of(&[(2, "2001:db8::10/64"), (2, "192.0.2.10/24")], &v6), [""; 0]);
        let several = [(2, "2001:db8::10/64"), (3, "2001:db8:5::7/64")];
        assert_eq!(wanted_of(&several, &v6), ["2001:db8::10/128"], "first or not");
    }
}
