//! What a packet leaves in its connection: counters, times, flags; and whether it is worth an event.

use super::entry::{half_flags, is_closing, revive};
use super::{Report, Tracking};
use crate::abi::{CtEntry, CtHalf, event};
use crate::maps::Maps;
use crate::packet::Packet;
use crate::parse::{LINK_BYTES, tcp};

/// `last` is written at most this often, so that most packets don't dirty it.
const RESOLUTION: u64 = 1_000_000_000;
/// TCP flags whose first appearance is an event.
const NOTED: u64 = (tcp::FIN | tcp::SYN | tcp::RST | tcp::PSH | tcp::ACK) as u64;

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
    let (own, other) = halves(entry, sender);
    let before = own.flags.get();
    let after = half_flags(before, t.parsed);
    if after != before {
        let was_closing = is_closing(entry);
        own.flags.set(after);
        if (after & !before) & (NOTED | crate::abi::conntrack::half_flag::SEEN) != 0 {
            report.kind = event::kind::FLAGS;
        }
        if !was_closing && is_closing(entry) {
            report.kind = event::kind::CLOSE;
        }
    }
    revive(other, t.parsed);
    if report.kind == 0 && t.now > own.reported.get() + t.settings.report_interval {
        report.kind = event::kind::ALIVE;
    }
    if report.kind != 0 {
        own.reported.set(t.now);
        report.stored(entry, sender);
    }
    report.entry_flags = entry.flags;
    add(t, entry, sender);
}

/// Counts a packet.
#[inline(always)]
pub(super) fn add<M: Maps, P: Packet>(t: &Tracking<'_, M, P>, entry: &CtEntry, sender: u8) {
    let (own, _) = halves(entry, sender);
    let (packets, bytes) = size(t);
    own.packets.add(packets);
    own.bytes.add(bytes);
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
    let (packets, bytes) = size(t);
    own.packets.set(packets);
    own.bytes.set(bytes);
    own.last.set(t.now);
    own.reported.set(t.now);
    own.flags.set(half_flags(0, t.parsed));
}

#[inline(always)]
fn halves(entry: &CtEntry, sender: u8) -> (&CtHalf, &CtHalf) {
    if sender == 0 { (&entry.halves[0], &entry.halves[1]) } else { (&entry.halves[1], &entry.halves[0]) }
}

/// Packets and bytes from the network header on; a GSO packet is what it becomes on the wire, less the headers that
/// segmentation repeats.
#[inline(always)]
fn size<M: Maps, P: Packet>(t: &Tracking<'_, M, P>) -> (u64, u64) {
    let segments = t.packet.segments();
    let packets = if segments > 1 { u64::from(segments) } else { 1 };
    (packets, u64::from(t.packet.length().saturating_sub(LINK_BYTES as u32)))
}
