//! What a node's namespace needs before its first pod: forwarding, the overlay's device, and the MTU of a path.
//!
//! Neighbours: `crate::control` calls at start; [`super::route`] points routes at the device.

use std::io;
use std::net::IpAddr;

use netlink_packet_route::link::{InfoVxlan, LinkAttribute};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVxlan};

pub use super::OVERLAY_LINK;
use super::address::Mac;
use super::sysctl::{self, Family};
use super::{Link, Netlink, NetlinkError, refused};

/// Bytes that VXLAN puts in front of a pod's packet: outer IPv4 20 or IPv6 40, UDP 8, VXLAN 8, inner Ethernet 14
/// (RFC 7348 §5).
#[must_use]
pub fn overlay_overhead(node_addresses: &[IpAddr]) -> u32 {
    // Where a node has both families either may carry the tunnel, so the larger header counts.
    if node_addresses.iter().any(IpAddr::is_ipv6) { 70 } else { 50 }
}

/// The MTU that a pod's packets have on every path: the underlay's, less what the overlay adds.
#[must_use]
pub fn path_mtu(underlay_mtu: u32, overlay: bool, node_addresses: &[IpAddr]) -> u32 {
    if overlay { underlay_mtu.saturating_sub(overlay_overhead(node_addresses)) } else { underlay_mtu }
}

/// Hardware address of a node's overlay device. It follows from the node's name, so that other nodes know it.
#[must_use]
pub fn overlay_mac(cluster: &str, node: &str) -> Mac {
    Mac::derive(&[cluster, node, OVERLAY_LINK])
}

/// Makes the node forward. An interface that forwards takes router advertisements only with `accept_ra` 2
/// (Documentation/networking/ip-sysctl.rst), and when forwarding begins the kernel deletes what routes came with them
/// (`rt6_purge_dflt_routers`). So every interface that takes them now is made to go on. True if forwarding was off.
///
/// # Errors
/// [`NetlinkError::Sysctl`].
pub fn enable_forwarding(underlay: &[String], v6: bool) -> Result<bool, NetlinkError> {
    let is_off = |family| sysctl::get(family, "all", "forwarding").is_none_or(|value| value != "1");
    let mut was_off = is_off(Family::V4);
    sysctl::set(Family::V4, "all", "forwarding", "1")?;
    if v6 && sysctl::has_v6() {
        underlay.iter().try_for_each(|interface| keep_advertisements(interface))?;
        underlay.iter().try_for_each(|interface| keep_addresses(interface))?;
        if is_off(Family::V6) {
            was_off = true;
            let hears = |interface: &String| {
                // One that forwards alone was told not to listen.
                sysctl::get(Family::V6, interface, "forwarding").is_some_and(|value| value == "0")
            };
            let interfaces = sysctl::interfaces(Family::V6);
            interfaces.iter().filter(|name| hears(name)).try_for_each(|name| keep_advertisements(name))?;
        }
        sysctl::set(Family::V6, "all", "forwarding", "1")?;
    }
    Ok(was_off)
}

/// Lets an interface that takes router advertisements while it doesn't forward take them in any case.
///
/// # Errors
/// [`NetlinkError::Sysctl`].
pub fn keep_advertisements(interface: &str) -> Result<(), NetlinkError> {
    if sysctl::get(Family::V6, interface, "accept_ra").is_none_or(|value| value != "1") {
        return Ok(());
    }
    set_unless_gone(interface, "accept_ra", "2")
}

/// Lets an interface that is set down keep the IPv6 addresses that somebody gave it: by default the kernel takes them away,
/// and nothing gives them back (`addrconf_ifdown`, Linux 6.18). A negative value says that somebody wants that.
///
/// # Errors
/// [`NetlinkError::Sysctl`].
pub fn keep_addresses(interface: &str) -> Result<(), NetlinkError> {
    if sysctl::get(Family::V6, interface, "keep_addr_on_down").is_none_or(|value| value != "0") {
        return Ok(());
    }
    set_unless_gone(interface, "keep_addr_on_down", "1")
}

fn set_unless_gone(interface: &str, key: &str, value: &str) -> Result<(), NetlinkError> {
    match sysctl::set(Family::V6, interface, key, value) {
        Err(NetlinkError::Sysctl { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// What the overlay's device is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// UDP port.
    pub port: u16,
    /// MTU, bytes.
    pub mtu: u32,
    /// Hardware address.
    pub mac: Mac,
    /// Whether pods have IPv6, so that the device needs it.
    pub v6: bool,
    /// Index that a device which is made anew has to have, since loaded programs know it.
    pub index: Option<u32>,
}

/// Makes the overlay's device, or brings one that stands there to what it should be, without a gap where that can be. A
/// device with another port is made anew, since the port can't be changed. A new one is down: programs are attached to
/// it before it carries a packet. True if the device is new.
///
/// # Errors
/// Any [`NetlinkError`].
pub async fn ensure_overlay(netlink: &Netlink, wanted: &Overlay) -> Result<(Link, bool), NetlinkError> {
    let Overlay { port, mtu, mac, v6, index } = *wanted;
    if let Some(present) = netlink.link(OVERLAY_LINK).await? {
        if netlink.overlay_port(present.index).await? == Some(port) {
            set_overlay(v6)?;
            return Ok((netlink.adjust(present, mtu, mac).await?, false));
        }
        netlink.delete_link(OVERLAY_LINK).await?;
    }
    // Over IPv6 too, tunnels may send a UDP checksum of zero (RFC 6935), and other VXLAN stacks do.
    let device = LinkMessageBuilder::<LinkVxlan>::new(OVERLAY_LINK)
        .index(index.unwrap_or(0))
        .collect_metadata(true)
        .port(port)
        .learning(false)
        .udp_zero_csum6_rx(true)
        .append_extra_attribute(LinkAttribute::Address(mac.0.to_vec()))
        .append_extra_attribute(LinkAttribute::Mtu(mtu))
        .build();
    let request = netlink.handle.link().add(device);
    request.execute().await.map_err(|error| {
        refused(format!("make the overlay device {OVERLAY_LINK} on UDP port {port}"), error)
    })?;
    set_overlay(v6)?;
    Ok((netlink.require_link(OVERLAY_LINK).await?, true))
}

/// Settings of the overlay's device. Routes through it go by neighbours that are written down, so it needs no link-local
/// address; the kernel would defend one with packets that no tunnel is for. What stays are some reports of the routers'
/// group (MLD) when the device goes up.
fn set_overlay(v6: bool) -> Result<(), NetlinkError> {
    sysctl::set(Family::V4, OVERLAY_LINK, "rp_filter", "2")?;
    if sysctl::has_v6() {
        sysctl::set(Family::V6, OVERLAY_LINK, "addr_gen_mode", "1")?;
        sysctl::set(Family::V6, OVERLAY_LINK, "accept_ra", "0")?;
        sysctl::set(Family::V6, OVERLAY_LINK, "disable_ipv6", if v6 { "0" } else { "1" })?;
    }
    Ok(())
}

impl Netlink {
    /// Gives a link another MTU or hardware address, where it has a different one.
    async fn adjust(&self, link: Link, mtu: u32, mac: Mac) -> Result<Link, NetlinkError> {
        if link.mtu == mtu && link.mac == mac.0 {
            return Ok(link);
        }
        let message = LinkMessageBuilder::<LinkUnspec>::new()
            .index(link.index)
            .mtu(mtu)
            .address(mac.0.to_vec())
            .build();
        let request = self.handle.link().set(message);
        request.execute().await.map_err(|error| {
            refused(format!("give {} the MTU {mtu} and the address {mac}", link.name), error)
        })?;
        Ok(Link { mtu, mac: mac.0.to_vec(), ..link })
    }

    /// UDP port of a VXLAN device; none for any other device.
    async fn overlay_port(&self, index: u32) -> Result<Option<u16>, NetlinkError> {
        use futures_util::TryStreamExt;
        use netlink_packet_route::link::{InfoData, LinkInfo};
        let mut answer = self.handle.link().get().match_index(index).execute();
        let message =
            answer.try_next().await.map_err(|error| refused(format!("look up {OVERLAY_LINK}"), error))?;
        let attributes = message.map(|message| message.attributes).unwrap_or_default();
        let settings = attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(elements) => elements.iter().find_map(|element| match element {
                LinkInfo::Data(InfoData::Vxlan(settings)) => Some(settings),
                _ => None,
            }),
            _ => None,
        });
        Ok(settings.and_then(|settings| {
            settings.iter().find_map(|setting| match setting {
                InfoVxlan::Port(port) => Some(*port),
                _ => None,
            })
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overlay_takes_its_headers_from_the_mtu() {
        let v4 = ["192.0.2.1".parse().unwrap()];
        let both = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        assert_eq!(path_mtu(1500, false, &both), 1500);
        assert_eq!(path_mtu(1500, true, &v4), 1450);
        assert_eq!(path_mtu(1500, true, &both), 1430);
    }
}
