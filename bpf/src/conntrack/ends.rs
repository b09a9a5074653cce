//! Who is at an end of an established connection: whether a packet can come from there, whom a node's address stands for,
//! and who is outside the cluster.
//!
//! Neighbours: `conntrack.rs` asks, by the rules above it; `identity.rs` names the ends of new connections.

use super::{End, Report, Tracking, entry, judge};
use crate::abi::conntrack::flag;
use crate::abi::{Address, CtEntry, ipcache};
use crate::drop::{Dropped, file};
use crate::dropped;
use crate::identity::{self, Lookup, reserved};
use crate::maps::Maps;
use crate::packet::Packet;

const FILE: u8 = file::ENDS;

/// A packet from another machine must come from the side on which its sender is: not from outside if the sender is this
/// node, not on the bare wire if the sender is reached through the overlay. For a new connection [`identity::resolve`]
/// checks this.
///
/// The entry says whether an end is this node. A packet with a claim needs no lookup. The world may be behind a node's
/// address, so that one is looked up.
#[inline(always)]
pub(super) fn from_its_own_side<M: Maps, P: Packet>(
    t: &Tracking<'_, M, P>,
    entry: &CtEntry,
    sender: u8,
) -> Result<(), Dropped> {
    let identity = entry::identity_of(entry, sender);
    if identity == reserved::HOST && !has_left_the_node(t, entry, sender) {
        // An error's sender is whoever the quoted packet was for: here the node, so that packet has met no router. What the
        // host's NAT has sent elsewhere is quoted by the addresses that it had there, which are another connection's.
        return Err(if t.is_error { dropped!(UnrelatedIcmpError) } else { dropped!(SpoofedLocalSource) });
    }
    if t.settings.overlay_ifindex != 0
        && t.sender.lookup as u8 == Lookup::FromWire as u8
        && t.maps.ipcache(&t.sender.address).is_some_and(|e| identity::is_beyond_the_overlay(t.settings, e))
    {
        return Err(dropped!(TunnelSourceMismatch));
    }
    Ok(())
}

/// Whether a sender's address was this node's and is another's now, as with an address that moves between nodes: then the
/// packet is judged again.
#[inline(always)]
fn has_left_the_node<M: Maps, P: Packet>(t: &Tracking<'_, M, P>, entry: &CtEntry, sender: u8) -> bool {
    entry::stamp_of(entry, sender) != t.sender.stamp
        && t.maps.ipcache(&t.sender.address).is_some_and(|e| e.flags & ipcache::flag::LOCAL_NODE == 0)
}

/// How the identities of sender and receiver are found where a connection is judged again because of its responder's packet
/// ([`judge::Report::settled`]): an initiator at a node's address keeps the identity that it was found to have, and the
/// responder gets the one that its address has as the destination of the initiator's packets.
#[inline(always)]
pub(super) fn settle<M: Maps>(maps: &M, [from, to]: [&End; 2], entry: &CtEntry, sender: u8) -> [u32; 2] {
    if from.local {
        let stored = entry::identity_of(entry, 1 - sender);
        return [0, if to.local { 0 } else { initiator_by_a_node(maps, to, stored) }];
    }
    let from_the_stack =
        from.lookup as u8 == Lookup::FromStack as u8 || from.lookup as u8 == Lookup::FromSocket as u8;
    if from_the_stack {
        return [judge::AS_DESTINATION, 0];
    }
    // What a node claims of an answer from its own address is not the end's identity.
    let node = match maps.ipcache(&from.address) {
        Some(found) if found.flags & ipcache::flag::REMOTE_NODE != 0 => found.identity,
        _ => 0,
    };
    [if from.claimed != 0 { node } else { 0 }, 0]
}

#[inline(always)]
fn initiator_by_a_node<M: Maps>(maps: &M, end: &End, stored: u32) -> u32 {
    match maps.ipcache(&end.address) {
        Some(found) if found.flags & ipcache::flag::LOCAL_NODE != 0 => stored,
        Some(found) if found.flags & ipcache::flag::REMOTE_NODE != 0 && reserved::is_world(stored) => stored,
        _ => 0,
    }
}

/// Whether an address is outside the cluster.
#[inline(always)]
pub(super) fn is_outside<M: Maps>(maps: &M, address: &Address) -> bool {
    match maps.ipcache(address) {
        Some(entry) => entry.flags & ipcache::flag::OUTSIDE != 0,
        None => true,
    }
}

/// [`flag::VIA_STACK`] for what leaves through the host's stack, which may track it too (deliver 3).
#[inline(always)]
pub(super) fn via_stack<M: Maps>(maps: &M, receiver: &End, report: &Report) -> u16 {
    let identity = report.identities[1];
    let leaves = receiver.lookup as u8 == Lookup::Destination as u8
        && (reserved::is_beyond_the_cluster(identity)
            || (identity == reserved::KUBE_APISERVER && is_outside(maps, &receiver.address)));
    if leaves { flag::VIA_STACK } else { 0 }
}
