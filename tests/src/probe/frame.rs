//! Whole Ethernet frames, for what no stack of a pod sends: another MAC, an ARP message about somebody else, VLAN tags.
//!
//! Tests build frames here and `sinew-probe frame` sends them from a pod, bypassing everything but the interface. IEEE
//! 802.3, 802.1Q, RFC 826. Neighbours: [`super::raw`] builds the IP packets in them.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, SockaddrLike, sendto, socket};

/// A hardware address.
pub type Mac = [u8; 6];

/// Numbers of what is in a frame (IANA, IEEE 802 numbers).
pub mod ether_type {
    /// IPv4.
    pub const V4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// A VLAN tag (802.1Q).
    pub const VLAN: u16 = 0x8100;
    /// IPv6.
    pub const V6: u16 = 0x86dd;
    /// A second tag (802.1ad).
    pub const QINQ: u16 = 0x88a8;
    /// LLDP, which nobody asks a pod for.
    pub const LLDP: u16 = 0x88cc;
}

/// A frame around a payload.
#[must_use]
pub fn frame(from: Mac, to: Mac, ether_type: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &ether_type.to_be_bytes(), payload].concat()
}

/// The same frame with a tag before its type: `tag` is [`ether_type::VLAN`] or [`ether_type::QINQ`].
#[must_use]
pub fn tagged(frame: &[u8], tag: u16, vlan: u16) -> Vec<u8> {
    let (link, rest) = frame.split_at(12);
    [link, &tag.to_be_bytes(), &vlan.to_be_bytes(), rest].concat()
}

/// An ARP message about an IPv4 address: `operation` 1 asks, 2 answers.
#[must_use]
pub fn arp(operation: u16, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    // Ethernet, IPv4, and the lengths of their addresses.
    let mut message = vec![0, 1, 8, 0, 6, 4];
    message.extend(operation.to_be_bytes());
    for (mac, address) in [sender, target] {
        message.extend(mac);
        message.extend(address.octets());
    }
    message
}

/// Six pairs of hexadecimal digits with colons between them.
#[must_use]
pub fn parse_mac(text: &str) -> Option<Mac> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|pair| u8::from_str_radix(pair, 16).ok()).collect();
    bytes?.try_into().ok()
}

/// Sends a frame as it is (packet(7)). With a place, the two bytes there are left to be filled in with the checksum of what
/// follows them, as a stack does that leaves this to the device (`virtio_net_hdr` of linux/virtio_net.h).
///
/// # Errors
/// There is no such interface, or the own machine refused to send it.
pub fn send(interface: &str, frame: &[u8], checksum_at: Option<u16>) -> Result<()> {
    let mut addresses = getifaddrs().context("asking for interfaces")?;
    let link = addresses
        .find_map(|found| {
            let address = found.address.filter(|_| found.interface_name == interface)?;
            address.as_link_addr().copied()
        })
        .with_context(|| format!("there is no interface {interface}"))?;
    debug_assert_eq!(link.family(), Some(AddressFamily::Packet));
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None)
        .context("making a packet socket")?;
    let mut bytes = Vec::new();
    if let Some(at) = checksum_at {
        header_comes_first(&socket)?;
        // VIRTIO_NET_HDR_F_NEEDS_CSUM, no segments, their header's length and size, where the sum begins, and where it goes
        // from there.
        bytes.extend([1, 0, 0, 0, 0, 0]);
        bytes.extend(at.to_ne_bytes());
        bytes.extend([0, 0]);
    }
    bytes.extend(frame);
    let sent = sendto(socket.as_raw_fd(), &bytes, &link, MsgFlags::empty()).context("sending the frame")?;
    anyhow::ensure!(sent == bytes.len(), "{sent} of {} bytes were sent", bytes.len());
    Ok(())
}

/// What is written to the socket begins with a `virtio_net_hdr`.
#[allow(unsafe_code, reason = "nix has no such socket option")]
fn header_comes_first(socket: &OwnedFd) -> Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the socket is open, and the kernel reads one number of this size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_VNET_HDR,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error()).context("asking for a header before frames")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::raw::to_hex;

    const OWN: Mac = [2, 0, 0, 0, 0, 1];
    const OTHER: Mac = [2, 0, 0, 0, 0, 2];

    #[test]
    fn an_arp_request_has_the_bytes_that_rfc_826_draws() {
        let (own, other) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let frame = frame(OWN, [0xff; 6], ether_type::ARP, &arp(1, (OWN, own), ([0; 6], other)));
        assert_eq!(
            to_hex(&frame),
            "ffffffffffff020000000001080600010800060400010200000000010a0000010000000000000a000002"
        );
    }

    #[test]
    fn a_tag_stands_between_addresses_and_type() {
        let frame = tagged(&frame(OWN, OTHER, ether_type::V4, &[1, 2]), ether_type::VLAN, 5);
        assert_eq!(to_hex(&frame), "0200000000020200000000018100000508000102");
    }

    #[test]
    fn a_mac_is_six_pairs() {
        assert_eq!(parse_mac("02:00:00:00:00:01"), Some(OWN));
        assert_eq!(parse_mac("02:00:00:00:00"), None);
        assert_eq!(parse_mac("02:00:00:00:00:xx"), None);
    }
}
