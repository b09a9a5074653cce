//! Addresses and neighbour entries on a link, and hardware addresses that follow from a name.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use sha2::{Digest, Sha256};
use sinew_bpf::source;

use super::{Netlink, NetlinkError, OVERLAY_LINK, refused};

/// The IPv4 gateway of every pod, on the host side of its pair.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::from_bits(u32::from_be(source::GATEWAY_V4.v4_word()));
/// The IPv6 gateway of every pod, on the host side of its pair.
pub const GATEWAY_V6: Ipv6Addr = {
    let [first, second, third, last] = source::GATEWAY_V6.0;
    let upper = (u32::from_be(first) as u128) << 96 | (u32::from_be(second) as u128) << 64;
    Ipv6Addr::from_bits(upper | (u32::from_be(third) as u128) << 32 | u32::from_be(last) as u128)
};

/// kube-proxy in IPVS mode puts every ClusterIP on this device, so that the kernel takes packets to them in. They are
/// services', not the node's.
const IPVS_LINK: &str = "kube-ipvs0";

/// The gateway of an address's family.
#[must_use]
pub fn gateway(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => GATEWAY_V4.into(),
        IpAddr::V6(_) => GATEWAY_V6.into(),
    }
}

/// The prefix that holds one address only.
#[must_use]
pub fn host_prefix(address: IpAddr) -> IpNet {
    IpNet::from(address)
}

/// A hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// A locally administered unicast address (IEEE 802-2014 §8.4) that follows from `parts`, so that it is the same
    /// after a restart and on every node that knows the parts.
    #[must_use]
    pub fn derive(parts: &[&str]) -> Self {
        let digest = digest(parts);
        let mut mac = [0; 6];
        mac.copy_from_slice(&digest[..6]);
        mac[0] = mac[0] & 0xfc | 0x02;
        Self(mac)
    }

    /// The link-local address that belongs to it (RFC 4291, appendix A).
    #[must_use]
    pub fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 0x02, b, c, 0xff, 0xfe, d, e, f])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The address that a link has by this message: on a point-to-point link `Address` is the peer's, and `Local` its own.
pub(super) fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let (mut address, mut local) = (None, None);
    for attribute in &message.attributes {
        if let AddressAttribute::Address(found) = attribute {
            address = Some(*found);
        } else if let AddressAttribute::Local(found) = attribute {
            local = Some(*found);
        }
    }
    local.or(address)
}

/// SHA-256 over the parts, each ended by a zero byte, which none of them can hold.
pub(crate) fn digest(parts: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.finalize().into()
}

impl Netlink {
    /// Adds an address without duplicate address detection; one that is there already is as good as added.
    ///
    /// # Errors
    /// [`NetlinkError::Request`].
    pub async fn add_address(
        &self,
        index: u32,
        address: IpNet,
        scope: AddressScope,
    ) -> Result<(), NetlinkError> {
        self.write_address(index, address, scope, AddressFlags::empty()).await
    }

    /// Adds an address that no route of the kernel's comes with.
    ///
    /// # Errors
    /// [`NetlinkError::Request`].
    pub(super) async fn add_bare_address(&self, index: u32, address: IpAddr) -> Result<(), NetlinkError> {
        let flags = AddressFlags::Noprefixroute;
        self.write_address(index, host_prefix(address), AddressScope::Universe, flags).await
    }

    async fn write_address(
        &self,
        index: u32,
        address: IpNet,
        scope: AddressScope,
        mut flags: AddressFlags,
    ) -> Result<(), NetlinkError> {
        let mut request = self.handle.address().add(index, address.addr(), address.prefix_len());
        let message = request.message_mut();
        message.header.scope = scope;
        if address.addr().is_ipv6() {
            message.header.flags |= AddressHeaderFlags::Nodad;
            flags |= AddressFlags::Nodad;
        }
        if !flags.is_empty() {
            message.attributes.push(AddressAttribute::Flags(flags));
        }
        match request.execute().await.map_err(|error| refused(format!("add address {address}"), error)) {
            Err(error) if error.errno() == Some(libc::EEXIST) => Ok(()),
            outcome => outcome,
        }
    }

    /// Takes an address from a link; one that is gone already is as good as taken.
    ///
    /// # Errors
    /// [`NetlinkError::Request`].
    pub(super) async fn delete_address(&self, index: u32, address: IpNet) -> Result<(), NetlinkError> {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.prefix_len = address.prefix_len();
        message.header.family =
            if address.addr().is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.attributes.push(AddressAttribute::Local(address.addr()));
        message.attributes.push(AddressAttribute::Address(address.addr()));
        let outcome = self.handle.address().del(message).execute().await;
        match outcome.map_err(|error| refused(format!("take address {address} away"), error)) {
            Err(error) if error.errno() == Some(libc::EADDRNOTAVAIL) => Ok(()),
            outcome => outcome,
        }
    }

    /// The addresses on a link, or with index 0 on all links.
    ///
    /// # Errors
    /// [`NetlinkError::Request`].
    pub async fn addresses(&self, index: u32) -> Result<Vec<IpNet>, NetlinkError> {
        let all = self.handle.address().get();
        let request = if index == 0 { all } else { all.set_link_index_filter(index) };
        let messages: Vec<_> =
            request.execute().try_collect().await.map_err(|error| refused("list addresses".into(), error))?;
        Ok(messages
            .iter()
            .filter_map(|message| {
                let address = message.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Address(address) => Some(*address),
                    _ => None,
                })?;
                IpNet::new(address, message.header.prefix_len).ok()
            })
            .collect())
    }

    /// Everything that others may send to and that ends at this node, sorted.
    ///
    /// # Errors
    /// [`NetlinkError::Request`].
    pub async fn node_addresses(&self) -> Result<Vec<IpAddr>, NetlinkError> {
        // What the overlay's device has is another device's, or was.
        let mut passed_over = Vec::new();
        for name in [OVERLAY_LINK, IPVS_LINK] {
            passed_over.extend(self.link(name).await?.map(|link| link.index));
        }
        let mut addresses: Vec<IpAddr> = self
            .own_destinations(&passed_over)
            .await?
            .into_iter()
            .filter(|address| match address {
                IpAddr::V4(v4) => !v4.is_loopback() && *v4 != GATEWAY_V4,
                IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
            })
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        Ok(addresses)
    }

    /// What packets to the node itself may be sent to: its addresses, the broadcast addresses of its subnets and their
    /// anycast addresses (RFC 4291 §2.6.1). The kernel takes all of them for its own. Links of these indexes are passed
    /// over.
    async fn own_destinations(&self, passed_over: &[u32]) -> Result<Vec<IpAddr>, NetlinkError> {
        let request = self.handle.address().get();
        let messages: Vec<_> =
            request.execute().try_collect().await.map_err(|error| refused("list addresses".into(), error))?;
        let mut own = Vec::new();
        for message in messages.iter().filter(|message| !passed_over.contains(&message.header.index)) {
            own.extend(own_address(message));
            for attribute in &message.attributes {
                match attribute {
                    AddressAttribute::Broadcast(found) => own.push((*found).into()),
                    AddressAttribute::Address(found) => {
                        let prefix = IpNet::new(*found, message.header.prefix_len).ok();
                        own.extend(prefix.and_then(shared_address));
                    }
                    _ => {}
                }
            }
        }
        Ok(own)
    }

    /// Writes a permanent neighbour entry: nobody is ever asked for this address (datapath.md 23).
    ///
    /// # Errors
    /// [`NetlinkError::Request`].
    pub async fn set_neighbour(&self, index: u32, address: IpAddr, mac: Mac) -> Result<(), NetlinkError> {
        self.handle
            .neighbours()
            .add(index, address)
            .link_layer_address(&mac.0)
            .replace()
            .execute()
            .await
            .map_err(|error| refused(format!("set the neighbour entry of {address}"), error))
    }
}

/// The address that all nodes of a subnet listen to, as the kernel adds it (`fib_add_ifaddr`, `addrconf_join_anycast`).
fn shared_address(prefix: IpNet) -> Option<IpAddr> {
    match prefix {
        IpNet::V4(v4) if v4.prefix_len() < 31 => Some(v4.broadcast().into()),
        IpNet::V6(v6) if v6.prefix_len() < 127 => Some(v6.network().into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_have_a_broadcast_or_an_anycast_address() {
        let shared =
            |prefix: &str| shared_address(prefix.parse().unwrap()).map(|address| address.to_string());
        assert_eq!(shared("192.0.2.7/25").as_deref(), Some("192.0.2.127"));
        assert_eq!(shared("2001:db8::7/64").as_deref(), Some("2001:db8::"));
        for alone in ["192.0.2.7/31", "192.0.2.7/32", "2001:db8::7/127", "2001:db8::7/128"] {
            assert_eq!(shared(alone), None, "{alone}");
        }
    }

    #[test]
    fn gateways_are_those_that_the_programs_know() {
        assert_eq!(
            (GATEWAY_V4.to_string(), GATEWAY_V6.to_string()),
            ("169.254.1.1".into(), "fe80::1".into())
        );
    }

    #[test]
    fn a_derived_mac_is_local_unicast_and_stable() {
        let mac = Mac::derive(&["c1", "eth0", "pod"]);
        assert_eq!(mac.0[0] & 0x03, 0x02, "locally administered, not multicast");
        assert_eq!(mac, Mac::derive(&["c1", "eth0", "pod"]));
        assert_ne!(mac, Mac::derive(&["c1e", "th0", "pod"]), "parts don't run into each other");
    }

    #[test]
    fn link_local_follows_rfc_4291() {
        // The example of RFC 4291, appendix A: 34-56-78-9A-BC-DE becomes 3656:78ff:fe9a:bcde.
        let mac = Mac([0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde]);
        assert_eq!(mac.link_local().to_string(), "fe80::3656:78ff:fe9a:bcde");
    }
}
