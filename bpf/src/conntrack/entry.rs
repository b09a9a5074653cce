//! Keys, ends and time-outs of connection entries.

use crate::abi::conntrack::{half_flag, verdict};
use crate::abi::{CtEntry, CtHalf, CtKey};
use crate::maps::CtTable;
use crate::parse::{Parsed, protocol, tcp};

/// Time-outs in nanoseconds.
pub mod timeout {
    const SECOND: u64 = 1_000_000_000;
    /// A TCP connection that is open. RFC 5382 §5 asks for at least 2 h 4 min.
    pub const TCP: u64 = 8000 * SECOND;
    /// A TCP connection that opens.
    pub const TCP_OPENING: u64 = 60 * SECOND;
    /// A TCP connection that both ends have closed, or one has reset.
    pub const TCP_CLOSING: u64 = 10 * SECOND;
    /// How long the responder of a refused UDP or SCTP connection must be silent before its next packet counts as a
    /// connection of its own (datapath.md 10): as long as a resolver waits for an answer (resolv.conf(5), `timeout`), so
    /// that an answer to what was asked while it was allowed does not count as one.
    pub const SILENCE: u64 = 5 * SECOND;
    /// When silence is no longer required: an end that has sent without a pause for this long after the refusal is not
    /// answering any more, but sending on its own account.
    pub const SILENCE_WAITED_FOR: u64 = 60 * SECOND;
    /// UDP and SCTP. RFC 4787 §4.3 asks for at least 2 min.
    pub const ANY: u64 = 120 * SECOND;
    /// ICMP. RFC 5508 §3.2 asks for at least 60 s.
    pub const ICMP: u64 = 60 * SECOND;
}

/// The connection of a packet, and which end of the key has sent it: 0 the lower one.
#[inline(always)]
#[must_use]
pub fn key_of(parsed: &Parsed) -> (CtKey, u8) {
    let sender_is_low = if parsed.source == parsed.destination {
        parsed.source_port <= parsed.destination_port
    } else {
        parsed.source.below(&parsed.destination)
    };
    let mut key = CtKey { protocol: parsed.protocol, ..CtKey::default() };
    if sender_is_low {
        key.low = parsed.source;
        key.high = parsed.destination;
        key.low_port = parsed.source_port;
        key.high_port = parsed.destination_port;
        (key, 0)
    } else {
        key.low = parsed.destination;
        key.high = parsed.source;
        key.low_port = parsed.destination_port;
        key.high_port = parsed.source_port;
        (key, 1)
    }
}

/// Puts the sender's and the receiver's value in the order of the key's ends.
#[inline(always)]
pub(super) fn by_end(sender: u8, own: u32, other: u32) -> [u32; 2] {
    if sender == 0 { [own, other] } else { [other, own] }
}

/// What an end was judged under.
#[inline(always)]
pub(super) fn stamp_of(entry: &CtEntry, end: u8) -> u32 {
    if end == 0 { entry.stamps[0] } else { entry.stamps[1] }
}

/// Who an end was judged to be.
#[inline(always)]
pub(super) fn identity_of(entry: &CtEntry, end: u8) -> u32 {
    if end == 0 { entry.identities[0] } else { entry.identities[1] }
}

/// Whether the connection's time is up.
#[inline(always)]
#[must_use]
pub fn is_expired(entry: &CtEntry, table: CtTable, transport: u8, now: u64) -> bool {
    let last = last_packet(entry);
    now > last && now - last > allowed_idle(entry, table, transport)
}

/// Nanoseconds until it expires without another packet; negative for an expired one.
#[cfg(not(target_arch = "bpf"))]
#[must_use]
pub fn remaining(entry: &CtEntry, table: CtTable, transport: u8, now: u64) -> i64 {
    let end = last_packet(entry).saturating_add(allowed_idle(entry, table, transport));
    end.cast_signed().saturating_sub(now.cast_signed())
}

/// Whether a packet of a refused connection's responder may begin a connection of its own (datapath.md 10).
///
/// Out of line for the sake of the hooks' stack.
#[inline(never)]
pub(super) fn may_begin(entry: &CtEntry, responder: u8, transport: u8, now: u64) -> bool {
    if transport != protocol::UDP && transport != protocol::SCTP {
        return false;
    }
    let half = if responder == 0 { &entry.halves[0] } else { &entry.halves[1] };
    let last = half.last.get();
    let since = if last > entry.refused { last } else { entry.refused };
    now > since + timeout::SILENCE || now > entry.refused + timeout::SILENCE_WAITED_FOR
}

#[inline(always)]
fn last_packet(entry: &CtEntry) -> u64 {
    let mut last = entry.created;
    let seen = entry.halves[0].last.get();
    if seen > last {
        last = seen;
    }
    let seen = entry.halves[1].last.get();
    if seen > last {
        last = seen;
    }
    last
}

#[inline(always)]
fn allowed_idle(entry: &CtEntry, table: CtTable, transport: u8) -> u64 {
    match table {
        CtTable::Any if transport == protocol::ICMP || transport == protocol::ICMPV6 => timeout::ICMP,
        CtTable::Any => timeout::ANY,
        // 10.
        _ if entry.verdict == verdict::DENY => timeout::TCP,
        CtTable::TcpOpening => timeout::TCP_OPENING,
        CtTable::Tcp if is_closing(entry) => timeout::TCP_CLOSING,
        CtTable::Tcp => timeout::TCP,
    }
}

/// Whether both ends have closed, or one has reset.
#[inline(always)]
pub fn is_closing(entry: &CtEntry) -> bool {
    let (low, high) = (entry.halves[0].flags.get(), entry.halves[1].flags.get());
    (low & high & half_flag::CLOSED != 0) || ((low | high) & half_flag::RESET != 0)
}

/// The flags of a half after a packet of its end.
#[inline(always)]
pub(super) fn half_flags(before: u64, parsed: &Parsed) -> u64 {
    let mut after = before | u64::from(parsed.tcp_flags) | half_flag::SEEN;
    if parsed.tcp_flags & tcp::FIN != 0 {
        after |= half_flag::CLOSED;
    } else if parsed.payload_bytes != 0 {
        after &= !(half_flag::CLOSED | half_flag::RESET);
    }
    if parsed.tcp_flags & tcp::RST != 0 {
        after |= half_flag::CLOSED | half_flag::RESET;
    }
    after
}

/// Data after the other end's RST: the connection continues, whoever sent that RST (datapath.md 14).
#[inline(always)]
pub(super) fn revive(other: &CtHalf, parsed: &Parsed) {
    let flags = other.flags.get();
    if parsed.payload_bytes != 0 && flags & half_flag::RESET != 0 {
        other.flags.set(flags & !(half_flag::RESET | half_flag::CLOSED));
    }
}
