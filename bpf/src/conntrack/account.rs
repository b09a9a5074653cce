//! What a packet leaves in its connection: counters, times, flags; and whether it is worth an event.

use super::entry::{half_flags, is_closing, revive};
use super::{Place, Report, Tracking};
use crate::abi::conntrack::half_flag;
use crate::abi::{CtEntry, CtHalf, event};
use crate::maps::Maps;
use crate::packet::Packet;
use crate::parse::{Parsed, tcp};

/// `last` is written at most this often, so that most packets don't dirty it.
const RESOLUTION: u64 = 1_000_000_000;
/// TCP flags whose first appearance is an event. With PSH and ACK too, a short connection would leave eight records instead
/// of four, and whoever reads them takes processor time from the packets.
const NOTED: u64 = (tcp::FIN | tcp::SYN | tcp::RST) as u64;

/// A packet of a connection whose verdict holds.
#[inline(always)]
pub(super) fn hit<M: Maps, P: Packet>(
    t: &Tracking<'_, M, P>,
    entry: &CtEntry,
    sender: u8,
    reply: bool,
    report: &mut Report,
) {
    report.reply_known(reply);
    report.kind = note(t.parsed, entry, sender);
    let (own, _) = halves(entry, sender);
    if report.kind == 0 && t.now.saturating_sub(own.reported.get()) >= t.settings.report_interval {
        report.kind = event::kind::ALIVE;
    }
    if report.kind != 0 {
        own.reported.set(t.now);
        report.stored(entry, sender);
    }
    report.entry_flags = entry.flags;
    add(t, entry, sender);
}

/// How a packet whose connection was judged again changes the entry.
pub(super) struct Again {
    /// Nanoseconds.
    pub(super) now: u64,
    /// It is refused, and counts nothing.
    pub(super) refused: bool,
    /// It is refused because nobody has the address of one of its ends, and keeps nothing alive.
    pub(super) of_nobody: bool,
    /// What it counts as.
    pub(super) packets: u64,
}

/// A packet of a connection that was judged again, into the copy that replaces its entry. Returns the event that it is
/// worth beside the judgement.
///
/// Out of line, and without the whole of [`Tracking`], for the sake of the hooks' stack.
#[inline(never)]
pub(super) fn again(parsed: &Parsed, copy: &mut CtEntry, sender: u8, again: &Again) -> u8 {
    let refused = copy.refused;
    copy.refused = match again.refused {
        true if refused == 0 => again.now,
        // Refused again: what counts is when it became a tombstone.
        true => refused,
        false => 0,
    };
    let (own, _) = halves(copy, sender);
    if !again.of_nobody {
        own.last.set(again.now);
    }
    if again.refused {
        return 0;
    }
    if again.packets != 0 {
        own.packets.add(again.packets);
        own.bytes.add(u64::from(parsed.network_bytes));
    }
    own.reported.set(again.now);
    note(parsed, copy, sender)
}

/// Notes the TCP flags of a packet, and that its end has sent something. Returns the event that this is worth.
#[inline(always)]
fn note(parsed: &Parsed, entry: &CtEntry, sender: u8) -> u8 {
    let (own, other) = halves(entry, sender);
    let before = own.flags.get();
    let after = half_flags(before, parsed);
    let mut kind = 0;
    if after != before {
        let was_closing = is_closing(entry);
        own.flags.set(after);
        if (after & !before) & (NOTED | half_flag::SEEN) != 0 {
            kind = event::kind::FLAGS;
        }
        if !was_closing && is_closing(entry) {
            kind = event::kind::CLOSE;
        }
    }
    revive(other, parsed);
    kind
}

/// Counts a packet.
#[inline(always)]
pub(super) fn add<M: Maps, P: Packet>(t: &Tracking<'_, M, P>, entry: &CtEntry, sender: u8) {
    let (own, _) = halves(entry, sender);
    let packets = packets(t);
    if packets != 0 {
        own.packets.add(packets);
        own.bytes.add(u64::from(t.parsed.network_bytes));
    }
    refresh(t, entry, sender);
}

/// The connection is in use.
#[inline(always)]
pub(super) fn refresh<M: Maps, P: Packet>(t: &Tracking<'_, M, P>, entry: &CtEntry, sender: u8) {
    let (own, _) = halves(entry, sender);
    if t.now > own.last.get() + RESOLUTION {
        own.last.set(t.now);
    }
}

/// The first packet, into an entry that nobody else sees yet.
#[inline(always)]
pub(super) fn first<M: Maps, P: Packet>(t: &Tracking<'_, M, P>, entry: &mut CtEntry, sender: u8) {
    let (own, _) = halves(entry, sender);
    let packets = packets(t);
    if packets != 0 {
        own.packets.set(packets);
        own.bytes.set(u64::from(t.parsed.network_bytes));
    }
    own.last.set(t.now);
    own.reported.set(t.now);
    own.flags.set(half_flags(0, t.parsed));
}

#[inline(always)]
fn halves(entry: &CtEntry, sender: u8) -> (&CtHalf, &CtHalf) {
    if sender == 0 { (&entry.halves[0], &entry.halves[1]) } else { (&entry.halves[1], &entry.halves[0]) }
}

/// How many packets this one counts as: a GSO packet counts as the segments that it becomes on the wire. 0 if the stack
/// takes it to a pod of this node as it is, because the hook in front of that pod counts it.
#[inline(always)]
pub(super) fn packets<M: Maps, P: Packet>(t: &Tracking<'_, M, P>) -> u64 {
    let by_the_stack = t.receiver.shaped || (t.sender.shaped && t.receiver.local);
    if by_the_stack && t.place as u8 != Place::ToPod as u8 {
        return 0;
    }
    let segments = t.packet.segments();
    if segments > 1 { u64::from(segments) } else { 1 }
}
