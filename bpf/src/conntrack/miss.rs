//! A packet without an entry: which end initiates, and what entry it leaves (13).
//!
//! Neighbours: `conntrack.rs` has the rules and asks.

use super::Plan;
use crate::maps::CtTable;
use crate::parse::{Parsed, icmp, protocol, tcp};

/// 13, which end initiates.
#[inline(always)]
pub(super) fn initiates(parsed: &Parsed) -> bool {
    if parsed.protocol != protocol::TCP || parsed.is_pure_syn() {
        return true;
    }
    if parsed.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN | tcp::ACK {
        return false;
    }
    let own_low = u16::from_be(parsed.source_port) < 32768;
    let other_low = u16::from_be(parsed.destination_port) < 32768;
    !own_low || other_low
}

/// 13, what leaves no entry; 8, what overwrites one.
#[inline(always)]
pub(super) fn plan(parsed: &Parsed, expired: bool) -> Plan {
    let unasked = match parsed.protocol {
        protocol::TCP => parsed.tcp_flags & tcp::RST != 0,
        protocol::ICMP => parsed.icmp_type == icmp::ECHO_REPLY,
        protocol::ICMPV6 => parsed.icmp_type == icmp::V6_ECHO_REPLY,
        _ => false,
    };
    if unasked {
        Plan::Nothing
    } else if expired {
        Plan::Reset
    } else {
        Plan::Create
    }
}

#[inline(always)]
pub(super) fn table(parsed: &Parsed) -> CtTable {
    if parsed.protocol != protocol::TCP { CtTable::Any } else { CtTable::TcpOpening }
}
