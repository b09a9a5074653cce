//! A packet in a byte buffer.

use core::net::IpAddr;
use std::boxed::Box;
use std::collections::BTreeMap;
use std::vec::Vec;

use crate::abi::Address;
use crate::packet::{Header, Packet, Route, RouteQuery, TunnelKey};
use crate::parse::LINK_BYTES;
use crate::settings::PENDING_BYTES;

/// Routing of a test: what the kernel would answer for a destination, and `None` for the rest.
pub type Routes = BTreeMap<Address, Route>;

/// A packet, with what an skb has beside its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostPacket {
    /// Its bytes from the link header on.
    pub bytes: Vec<u8>,
    /// Interface of the hook.
    pub interface: u32,
    /// Interface that it came in by, 0 for a local socket.
    pub from_device: u32,
    /// Whether no socket owns it.
    pub orphan: bool,
    /// Whether its frame is addressed to another host, or to a group.
    pub for_others: bool,
    /// Segments of a GSO packet.
    pub segments: u32,
    /// Payload bytes of a segment.
    pub segment_size: u32,
    /// Where its checksum is still to be filled in.
    pub pending_checksum: Option<u32>,
    /// Whether a VLAN tag stands beside it.
    pub vlan_tagged: bool,
    /// Whether the mark of what was sent off the node is set.
    pub marked: bool,
    /// Whether the mark of a pod's answer is set.
    pub answer: bool,
    /// Tunnel key.
    pub tunnel: Option<TunnelKey>,
    /// What routing answers.
    pub routes: Box<Routes>,
    /// What paths take at most, where that is known: bytes from the network header on.
    pub mtus: Box<BTreeMap<Address, u16>>,
    /// Whether it was prepared for delivery: addressed to whoever gets it, without a mark.
    pub prepared: bool,
}

impl HostPacket {
    /// A packet at the hook of an interface.
    #[must_use]
    pub fn new(bytes: Vec<u8>, interface: u32) -> Self {
        Self { bytes, interface, ..Self::default() }
    }
}

#[allow(unsafe_code, reason = "headers are read from bytes as in the kernel")]
impl Packet for HostPacket {
    fn load<T: Header>(&self, at: usize) -> Option<T> {
        let bytes = self.bytes.get(at..at.checked_add(size_of::<T>())?)?;
        if at > 1024 {
            return None;
        }
        // SAFETY: the slice has the header's size, and any bytes are a value of a header, at any alignment.
        Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
    }

    fn length(&self) -> u32 {
        self.bytes.len() as u32
    }

    fn vlan_tagged(&self) -> bool {
        self.vlan_tagged
    }

    fn interface(&self) -> u32 {
        self.interface
    }

    fn from_device(&self) -> u32 {
        self.from_device
    }

    fn has_socket(&self) -> bool {
        !self.orphan
    }

    fn for_this_host(&self) -> bool {
        !self.for_others
    }

    fn segments(&self) -> u32 {
        self.segments
    }

    fn segment_size(&self) -> u32 {
        self.segment_size
    }

    fn pending_checksum(&self, _: &mut [u8; PENDING_BYTES]) -> Option<u32> {
        self.pending_checksum
    }

    fn marked(&self) -> bool {
        self.marked
    }

    fn is_answer(&self) -> bool {
        self.answer
    }

    fn mark_answer(&mut self) {
        self.answer = true;
    }

    fn tunnel_key(&self) -> Option<TunnelKey> {
        self.tunnel
    }

    fn route(&self, query: &RouteQuery) -> Route {
        let unlisted = if is_never_forwarded(&query.destination) { Route::Local } else { Route::None };
        match self.routes.get(&query.destination).copied().unwrap_or(unlisted) {
            Route::Forward { .. }
                if self.mtus.get(&query.destination).is_some_and(|mtu| query.length > *mtu) =>
            {
                Route::TooBig
            }
            route => route,
        }
    }

    fn set_macs(&mut self, destination: [u8; 6], source: [u8; 6]) -> bool {
        let Some(macs) = self.bytes.get_mut(..12) else { return false };
        macs[..6].copy_from_slice(&destination);
        macs[6..].copy_from_slice(&source);
        true
    }

    fn decrement_hop_limit(&mut self, v4: bool) -> bool {
        if !v4 {
            let Some(hop_limit) = self.bytes.get_mut(LINK_BYTES + 7) else { return false };
            *hop_limit = hop_limit.wrapping_sub(1);
            return true;
        }
        let Some(header) = self.bytes.get_mut(LINK_BYTES..LINK_BYTES + 20) else { return false };
        let before = u16::from_be_bytes([header[8], header[9]]);
        header[8] = header[8].wrapping_sub(1);
        let after = u16::from_be_bytes([header[8], header[9]]);
        // RFC 1624 equation 3.
        let checksum = u16::from_be_bytes([header[10], header[11]]);
        let mut sum = u32::from(!checksum) + u32::from(!before) + u32::from(after);
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        header[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        true
    }

    fn resize(&mut self, bytes: u32) -> bool {
        self.bytes.resize(bytes as usize, 0);
        true
    }

    fn store<const N: usize>(&mut self, at: u32, bytes: &[u8; N]) -> bool {
        let at = at as usize;
        let Some(target) = self.bytes.get_mut(at..at + N) else { return false };
        target.copy_from_slice(bytes);
        true
    }

    fn prepare_delivery(&mut self) {
        self.prepared = true;
        (self.marked, self.answer) = (false, false);
    }
}

/// Whether the kernel's routing says of an address, as of its own ones, that packets to it are not forwarded
/// (`BPF_FIB_LKUP_RET_NOT_FWDED`, kernel 6.18): loopback, and of IPv6 groups and link-local addresses.
fn is_never_forwarded(address: &Address) -> bool {
    match IpAddr::from(*address) {
        IpAddr::V4(v4) => v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_multicast() || v6.is_unicast_link_local(),
    }
}
