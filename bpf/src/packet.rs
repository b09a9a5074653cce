//! A packet at a hook, as a trait: an skb in the programs, a byte buffer in the host build.

use crate::abi::Address;
use crate::settings::PENDING_BYTES;

/// Headers that may be read from packet bytes as they are: integers and arrays of them, in network order.
///
/// # Safety
///
/// Every bit pattern must be a value of the type, and the type must have no padding and an alignment of at most 2: the
/// programs load headers from even addresses.
#[allow(unsafe_code, reason = "a marker for types that any bytes are a value of")]
pub unsafe trait Header: Copy {}

// SAFETY: bytes.
#[allow(unsafe_code, reason = "a marker for types that any bytes are a value of")]
unsafe impl<const N: usize> Header for [u8; N] {}

/// Where the kernel's routing would send a packet (`bpf_fib_lookup`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Out of a device, to a neighbour.
    Forward {
        /// The device.
        ifindex: u32,
        /// The neighbour's address: the destination itself or a gateway.
        next_hop: Address,
    },
    /// It is for this node.
    Local,
    /// Larger than the path takes.
    TooBig,
    /// No route, or one that the stack must decide.
    None,
}

/// What is asked of routing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteQuery {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Bytes from the network header on, of one GSO segment.
    pub length: u16,
}

/// What an encapsulated packet came with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunnelKey {
    /// The VXLAN network identifier: the sender's claim to an identity.
    pub vni: u32,
    /// Outer source address.
    pub source: Address,
}

/// A packet at a hook.
pub trait Packet {
    /// Reads a header. `None` if the linear part of the packet ends before it.
    fn load<T: Header>(&self, at: usize) -> Option<T>;
    /// Bytes from the link header on, of the whole packet.
    fn length(&self) -> u32;
    /// Whether a VLAN tag is beside the packet, where hardware offload moves it.
    fn vlan_tagged(&self) -> bool;
    /// Interface of the hook.
    fn interface(&self) -> u32;
    /// Interface that the packet came in by, 0 for a socket of this network namespace (datapath.md 28).
    #[allow(clippy::wrong_self_convention, reason = "it is the device that the packet is from")]
    fn from_device(&self) -> u32;
    /// Whether a socket owns the packet. Not every packet that the node makes has an owner: before kernel 6.13 the resets
    /// that it sends over IPv6 have none.
    fn has_socket(&self) -> bool;
    /// Whether the frame is addressed to the device that got it, and not to another host or to a group.
    fn for_this_host(&self) -> bool;
    /// Segments of a GSO packet, 0 or 1 for one that is not.
    fn segments(&self) -> u32;
    /// Payload bytes of a GSO segment, 0 for a packet that is not one.
    fn segment_size(&self) -> u32;
    /// Offset, from the link header, of the two bytes of a checksum that is to be filled in after the programs, as the
    /// sender declared it. The room is for what the kernel says of the packet.
    fn pending_checksum(&self, room: &mut [u8; PENDING_BYTES]) -> Option<u32>;
    /// Whether our programs made the packet or sent it off the node (the mark that goes with a redirect).
    fn marked(&self) -> bool;
    /// Whether it is an answer that a pod has sent, by the mark of its hook.
    fn is_answer(&self) -> bool;
    /// Marks it as such an answer.
    fn mark_answer(&mut self);
    /// The tunnel key of a packet from the overlay.
    fn tunnel_key(&self) -> Option<TunnelKey>;
    /// Asks the kernel's routing.
    fn route(&self, query: &RouteQuery) -> Route;
    /// Writes both MACs; whether it could.
    fn set_macs(&mut self, destination: [u8; 6], source: [u8; 6]) -> bool;
    /// Decrements TTL or hop limit and adjusts the IPv4 header checksum; whether it could.
    fn decrement_hop_limit(&mut self, v4: bool) -> bool;
    /// Shortens or extends the packet to a number of bytes from the link header on; whether it could.
    fn resize(&mut self, bytes: u32) -> bool;
    /// Writes bytes at an offset; whether it could.
    fn store<const N: usize>(&mut self, at: u32, bytes: &[u8; N]) -> bool;
    /// Marks the packet as addressed to the host that gets it, and clears its mark (datapath.md 19).
    fn prepare_delivery(&mut self);
}
