//! Who stands behind an address (policy.md 7, 8; datapath.md 5, 24, 28):
//!
//! 1. A pod or a node, by its exact address in the ipcache.
//! 2. `host` is this node. As a source: only packets that a socket of the node's own network namespace sent, with an
//!    address that routing calls local. The hooks recognise them by having no input device, and IPv6 fragments only if they
//!    have a socket too, since forwarded datagrams that the kernel fragments again lose their device. As a destination: an
//!    address that the agent lists as the node's, or the pods' gateway. Routing is not asked there: it has one answer for
//!    "local" and "no route" (`BPF_FIB_LKUP_RET_NOT_FWDED`, kernel 6.18), so that on a node without a default route the
//!    world would be host.
//! 3. A packet that came in by a device with an address of this node as its source is not the host's: from the stack it is
//!    world (forwarded or masqueraded traffic), from the wire it is spoofed. Spoofed, too, is an address of this node's
//!    pods, and on the bare wire the address of whoever is reached through the overlay.
//! 4. A packet from or to an unassigned address inside the cluster's ranges is dropped with its own reason; it is never
//!    world.
//! 5. Everything else is world, by family when both families are on.
//!
//! Neighbours: `conntrack/judge.rs` asks when a connection is judged; an established packet doesn't come here.

use crate::abi::{Address, IpcacheEntry, ipcache};
use crate::drop::{Dropped, file};
use crate::dropped;
use crate::maps::Maps;
use crate::packet::{Packet, Route, RouteQuery};
use crate::settings::Settings;
use crate::source::{GATEWAY_V4, GATEWAY_V6};

const FILE: u8 = file::IDENTITY;

/// Reserved identities that the datapath itself assigns.
pub mod reserved {
    /// Not known.
    pub const UNKNOWN: u32 = 0;
    /// This node.
    pub const HOST: u32 = 1;
    /// Outside the cluster, where one family is on.
    pub const WORLD: u32 = 2;
    /// An endpoint whose labels aren't known yet.
    pub const INIT: u32 = 5;
    /// Another node.
    pub const REMOTE_NODE: u32 = 6;
    /// An API server.
    pub const KUBE_APISERVER: u32 = 7;
    /// Outside the cluster, IPv4.
    pub const WORLD_V4: u32 = 9;
    /// Outside the cluster, IPv6.
    pub const WORLD_V6: u32 = 10;

    /// Whether this is this node or the world: what a pod reaches through the host's stack.
    #[inline(always)]
    #[must_use]
    pub const fn is_beyond_the_cluster(identity: u32) -> bool {
        const THEM: u32 = 1 << HOST | 1 << WORLD | 1 << WORLD_V4 | 1 << WORLD_V6;
        identity < 32 && THEM >> identity & 1 != 0
    }

    /// Whether this is outside the cluster.
    #[inline(always)]
    #[must_use]
    pub const fn is_world(identity: u32) -> bool {
        const WORLDS: u32 = 1 << WORLD | 1 << WORLD_V4 | 1 << WORLD_V6;
        identity < 32 && WORLDS >> identity & 1 != 0
    }

    /// Whether this is another node, or what may be behind the address of one.
    #[inline(always)]
    #[must_use]
    pub const fn is_behind_a_node(identity: u32) -> bool {
        is_world(identity) || identity == REMOTE_NODE || identity == KUBE_APISERVER
    }
}

/// How an end's identity is found, if it is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Lookup {
    /// It is known already.
    #[default]
    Known,
    /// As the destination of a packet that leaves a pod.
    Destination,
    /// As the source of a packet from the wire.
    FromWire,
    /// As the far end of a connection that an ICMP error from the overlay speaks of.
    FromOverlay,
    /// As the source of a packet from the host's stack that somebody else may have sent.
    FromStack,
    /// As the source of a packet that a socket of this node sent.
    FromSocket,
}

/// Writes the identity of an address.
#[inline(always)]
pub fn resolve<M: Maps, P: Packet>(
    maps: &M,
    packet: &P,
    settings: &Settings,
    lookup: Lookup,
    address: &Address,
    identity: &mut u32,
) -> Result<(), Dropped> {
    if lookup as u8 == Lookup::FromWire as u8 && maps.endpoint_by_address(address).is_some() {
        return Err(dropped!(SpoofedLocalSource));
    }
    if let Some(entry) = maps.ipcache(address) {
        return exact(settings, lookup, address, entry, identity);
    }
    let is_host = match lookup {
        Lookup::Destination => *address == GATEWAY_V4 || *address == GATEWAY_V6,
        Lookup::FromSocket => is_local(packet, address),
        Lookup::FromWire | Lookup::FromOverlay | Lookup::FromStack | Lookup::Known => false,
    };
    if is_host {
        *identity = reserved::HOST;
        return Ok(());
    }
    if let Some(range) = maps.range(address)
        && range.flags & ipcache::flag::CLUSTER_RANGE != 0
    {
        return Err(if lookup as u8 == Lookup::Destination as u8 {
            dropped!(UnknownDestination)
        } else {
            dropped!(UnknownSender)
        });
    }
    *identity = world(settings, address);
    Ok(())
}

#[inline(always)]
fn exact(
    settings: &Settings,
    lookup: Lookup,
    address: &Address,
    entry: &IpcacheEntry,
    identity: &mut u32,
) -> Result<(), Dropped> {
    if entry.flags & ipcache::flag::LOCAL_NODE == 0 {
        if lookup as u8 == Lookup::FromWire as u8 && is_beyond_the_overlay(settings, entry) {
            return Err(dropped!(TunnelSourceMismatch));
        }
        *identity = entry.identity;
        return Ok(());
    }
    match lookup {
        Lookup::FromStack => *identity = world(settings, address),
        Lookup::FromWire | Lookup::FromOverlay => return Err(dropped!(SpoofedLocalSource)),
        _ => *identity = reserved::HOST,
    }
    Ok(())
}

/// Whether an entry's packets may come through the overlay only (datapath.md 24).
#[inline(always)]
pub(crate) fn is_beyond_the_overlay(settings: &Settings, entry: &IpcacheEntry) -> bool {
    settings.overlay_ifindex != 0 && entry.flags & ipcache::flag::TUNNEL != 0
}

/// Whether routing calls an address this node's own, or has no route to it.
#[inline(always)]
pub(crate) fn is_local<P: Packet>(packet: &P, address: &Address) -> bool {
    let query = RouteQuery { source: *address, destination: *address, length: 0 };
    matches!(packet.route(&query), Route::Local)
}

/// The identity of what is outside the cluster.
#[inline(always)]
#[must_use]
pub fn world(settings: &Settings, address: &Address) -> u32 {
    if address.is_v4() { settings.world_v4 } else { settings.world_v6 }
}
