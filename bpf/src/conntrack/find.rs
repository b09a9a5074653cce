//! Where a connection's entry is: found, still there, moved to the table that it belongs to.
//!
//! Neighbours: `conntrack.rs` has the rules and asks; `entry.rs` says when an entry is expired.

use super::{Tracking, entry};
use crate::abi::{CtEntry, CtKey};
use crate::maps::{CtTable, Maps};
use crate::packet::Packet;
use crate::parse::protocol;

/// Looks in the tables where the packet's protocol can be; 8.
#[inline(always)]
pub(super) fn find<M: Maps, P: Packet>(
    t: &Tracking<'_, M, P>,
    key: &CtKey,
    expired: &mut bool,
) -> (CtTable, Option<M::Conntrack>) {
    if t.parsed.protocol != protocol::TCP {
        return (CtTable::Any, live(t, CtTable::Any, key, expired));
    }
    let found = live(t, CtTable::Tcp, key, expired);
    if found.is_some() {
        return (CtTable::Tcp, found);
    }
    (CtTable::TcpOpening, live(t, CtTable::TcpOpening, key, expired))
}

#[inline(always)]
fn live<M: Maps, P: Packet>(
    t: &Tracking<'_, M, P>,
    table: CtTable,
    key: &CtKey,
    expired: &mut bool,
) -> Option<M::Conntrack> {
    let entry = t.maps.conntrack(table, key)?;
    if entry::is_expired(&entry, table, t.parsed.protocol, t.now) {
        *expired = true;
        return None;
    }
    Some(entry)
}

/// 16: whether an element that was looked up is still this connection's. Asked after it was copied, so that initiator,
/// identities and counters in the copy are not another connection's.
#[inline(always)]
pub(super) fn is_still<M: Maps, P: Packet>(
    t: &Tracking<'_, M, P>,
    table: CtTable,
    key: &CtKey,
    entry: &CtEntry,
) -> bool {
    t.maps.conntrack(table, key).is_some_and(|found| core::ptr::eq(&raw const *found, entry))
}

/// Moves an open connection to the table of open ones. If that has no room, it stays where it is.
#[inline(always)]
pub(super) fn promote<M: Maps, P: Packet>(t: &Tracking<'_, M, P>, key: &CtKey, entry: &CtEntry) {
    if t.maps
        .conntrack_write(CtTable::Tcp, key, Some(entry), |_| is_still(t, CtTable::TcpOpening, key, entry))
    {
        t.maps.conntrack_delete(CtTable::TcpOpening, key);
    }
}
