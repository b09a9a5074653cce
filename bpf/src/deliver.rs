//! Where an allowed packet goes (datapath.md 19–21).
//!
//! 1. To an endpoint of this node: both MACs are set, the hop limit is decremented, and the packet is redirected to the
//!    pod's end of the pair. That skips everything on the host side, so it is done only where nothing there needs the
//!    packet ([`VIA_STACK`]).
//! 2. Off the node: through the overlay where the destination's entry says so; otherwise by the kernel's routing, which
//!    gives device and next hop.
//! 3. A packet whose hop limit ends here, that is too big, or that routing doesn't forward goes to the stack, which
//!    knows the answer to send. So does a packet to a destination outside the cluster: the host may masquerade it.
//!
//! [`VIA_STACK`]: crate::abi::endpoint::flag::VIA_STACK

use crate::abi::{Address, EndpointEntry, event, ipcache};
use crate::drop::{Dropped, file};
use crate::dropped;
use crate::maps::Maps;
use crate::packet::{Packet, Route, RouteQuery};
use crate::parse::{LINK_BYTES, Parsed};
use crate::settings::Settings;

const FILE: u8 = file::DELIVER;

/// What the hook does with the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The next program of the device, then the host's stack, decide.
    Stack,
    /// Redirect to the pod behind this host-side interface.
    Endpoint {
        /// Host side of its pair.
        ifindex: u32,
    },
    /// Out of a device, to a neighbour.
    Forward {
        /// The device.
        ifindex: u32,
        /// The neighbour's address.
        next_hop: Address,
    },
    /// Dropped, and answered by the program for that.
    Answer,
    /// Into the overlay.
    Overlay {
        /// Outer destination.
        remote: Address,
        /// What is claimed of the sender.
        vni: u32,
    },
}

impl Action {
    /// The action's observation point; `stack` is that of a packet that continues from its hook as it came.
    #[inline(always)]
    #[must_use]
    pub const fn point(&self, stack: u8) -> u8 {
        match self {
            Self::Stack | Self::Answer => stack,
            Self::Endpoint { .. } => event::point::TO_ENDPOINT,
            Self::Forward { .. } => event::point::TO_NETWORK,
            Self::Overlay { .. } => event::point::TO_OVERLAY,
        }
    }
}

/// 1.
#[inline(always)]
pub fn to_endpoint<P: Packet>(
    packet: &mut P,
    settings: &Settings,
    parsed: &Parsed,
    endpoint: &EndpointEntry,
) -> Result<Action, Dropped> {
    if parsed.hop_limit <= 1 {
        return Ok(Action::Stack);
    }
    let (mac, host_mac, ifindex) = (endpoint.mac, endpoint.host_mac, endpoint.ifindex);
    lower_hop_limit(packet, settings, parsed)?;
    if !packet.set_macs(mac, host_mac) {
        return Err(dropped!(InvalidPacket));
    }
    packet.prepare_delivery();
    Ok(Action::Endpoint { ifindex })
}

/// 2 and 3, for a packet from a pod.
#[inline(always)]
pub fn off_node<M: Maps, P: Packet>(
    maps: &M,
    packet: &mut P,
    settings: &Settings,
    parsed: &Parsed,
    identity: u32,
) -> Result<Action, Dropped> {
    // 3.
    let Some(entry) = maps.ipcache(&parsed.destination) else { return Ok(Action::Stack) };
    if entry.flags & (ipcache::flag::LOCAL_NODE | ipcache::flag::OUTSIDE) != 0 || parsed.hop_limit <= 1 {
        return Ok(Action::Stack);
    }
    if entry.flags & ipcache::flag::TUNNEL != 0 {
        let remote = entry.tunnel;
        if remote.is_none() || settings.overlay_ifindex == 0 {
            return Err(dropped!(NoTunnelEndpoint));
        }
        if identity >> 24 != 0 {
            // Only scope 0 travels: another number means something on this node alone.
            return Err(dropped!(InvalidIdentity));
        }
        if settings.overlay_mtu != 0 && u32::from(segment_bytes(packet, parsed)) > settings.overlay_mtu {
            // The stack's route to other nodes' pods has this MTU, so it answers the sender; the device itself would cut the
            // outer packet into fragments, since outer DF is clear (datapath.md 23), as it does of what goes to a node.
            return Ok(Action::Stack);
        }
        lower_hop_limit(packet, settings, parsed)?;
        return Ok(Action::Overlay { remote, vni: identity });
    }
    let query = RouteQuery {
        source: parsed.source,
        destination: parsed.destination,
        length: segment_bytes(packet, parsed),
    };
    match packet.route(&query) {
        Route::Forward { ifindex, next_hop } => {
            lower_hop_limit(packet, settings, parsed)?;
            Ok(Action::Forward { ifindex, next_hop })
        }
        Route::Local | Route::TooBig | Route::None => Ok(Action::Stack),
    }
}

/// Bytes from the network header on, of the packet or of one segment of it: what the path's MTU is compared with.
#[inline(always)]
fn segment_bytes<P: Packet>(packet: &P, parsed: &Parsed) -> u16 {
    let segment = packet.segment_size();
    let bytes = if segment == 0 {
        parsed.network_bytes
    } else if parsed.payload_bytes == 0 {
        // UDP segmentation: network header and the 8 bytes of UDP.
        u32::from(parsed.transport_at) - LINK_BYTES as u32 + 8 + segment
    } else {
        parsed.network_bytes - parsed.payload_bytes.min(parsed.network_bytes) + segment
    };
    // A value that is not a segment size (`GSO_BY_FRAGS` of SCTP is 0xffff) must not come out small.
    bytes.min(u32::from(u16::MAX)) as u16
}

#[inline(always)]
fn lower_hop_limit<P: Packet>(packet: &mut P, settings: &Settings, parsed: &Parsed) -> Result<(), Dropped> {
    if settings.lower_hop_limit != 0 && !packet.decrement_hop_limit(parsed.is_v4()) {
        return Err(dropped!(InvalidPacket));
    }
    Ok(())
}
