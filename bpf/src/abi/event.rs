//! The record that a program leaves on its CPU's ring.

use super::Address;

/// What a record reports.
pub mod kind {
    /// A connection was judged and allowed: the first packet of a new one, or a change of the deciding rule.
    pub const NEW: u8 = 1;
    /// A packet was dropped; for a policy drop `cookies` name who decided.
    pub const DROP: u8 = 2;
    /// A TCP flag that this end had not sent before, or the first packet of the other direction.
    pub const FLAGS: u8 = 3;
    /// The connection has ended: both ends closed, or one reset it.
    pub const CLOSE: u8 = 4;
    /// The connection is alive: one for each report interval.
    pub const ALIVE: u8 = 5;
}

/// Where a record was made. The numbers are Cilium's trace points where it has the point.
pub mod point {
    /// Delivered to an endpoint of this node.
    pub const TO_ENDPOINT: u8 = 0;
    /// Handed to the host's stack.
    pub const TO_STACK: u8 = 3;
    /// Sent into the overlay.
    pub const TO_OVERLAY: u8 = 4;
    /// Sent to the wire.
    pub const TO_NETWORK: u8 = 11;
}

/// Flags of an [`EventRecord`].
pub mod flag {
    /// The packet goes from the responder to the initiator.
    pub const REPLY: u8 = 1;
    /// The egress of the initiator was judged here.
    pub const EGRESS_JUDGED: u8 = 2;
    /// The ingress of the responder was judged here.
    pub const INGRESS_JUDGED: u8 = 4;
    /// It is known whether the packet is a reply.
    pub const DIRECTION_KNOWN: u8 = 8;
    /// Judged again on an established connection.
    pub const REJUDGED: u8 = 16;
    /// The source MAC and destination MAC are those of the packet.
    pub const HAS_MACS: u8 = 32;
}

/// One record. Arrays of two: 0 the egress judgement, 1 the ingress judgement, each as of the connection's initiator.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventRecord {
    /// `bpf_ktime_get_ns`, nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// Counts records and losses of its CPU.
    pub sequence: u32,
    /// [`kind`].
    pub kind: u8,
    /// [`point`].
    pub point: u8,
    /// [`flag`]s.
    pub flags: u8,
    /// IANA protocol number; 0 where the packet could not be parsed that far.
    pub protocol: u8,
    /// Source of the packet.
    pub source: Address,
    /// Destination of the packet.
    pub destination: Address,
    /// Source port, or ICMP type, network order.
    pub source_port: u16,
    /// Destination port, or ICMP code, network order.
    pub destination_port: u16,
    /// TCP flags of the packet.
    pub tcp_flags: u8,
    /// 4, 6, or 0 for neither.
    pub ip_version: u8,
    /// Of a drop: the reason ([`crate::drop::DropReason`]).
    pub reason: u16,
    /// Identity of the packet's source.
    pub source_identity: u32,
    /// Identity of the packet's destination.
    pub destination_identity: u32,
    /// Cookies of the verdicts.
    pub cookies: [u32; 2],
    /// Cookies of the shadow verdicts.
    pub shadow_cookies: [u32; 2],
    /// Verdicts ([`super::policy::verdict`]) in the low nibble, shadow verdicts in the high one.
    pub verdicts: [u8; 2],
    /// How the deciding entries matched: bits 0–4 protocol and port bits, bits 5–6 the key (0 any, 1 class, 2 identity).
    pub matches: [u8; 2],
    /// The endpoint whose hook made the record, 0 for none.
    pub endpoint: u16,
    /// Of a drop: where it was decided ([`Dropped::place`](crate::drop::Dropped::place)), the number of the file in the
    /// high 4 bits and the line in the low 12.
    pub place: u16,
    /// Interface of the hook.
    pub ifindex: u32,
    /// Bytes of the packet from the link header on.
    pub length: u32,
    /// Revision that the node enforced.
    pub revision: u32,
    /// Destination MAC, then source MAC, as in the frame.
    pub macs: [u8; 12],
}

const _: () = assert!(size_of::<EventRecord>() == 112);
