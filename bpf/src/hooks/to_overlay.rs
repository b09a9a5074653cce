//! `to_overlay`: tcx egress of the VXLAN device. What a pod sends comes here with its tunnel key set; what the node's own
//! processes send to pods and nodes elsewhere gets one here: host travels as remote-node, forwarded traffic as world
//! (datapath.md 24).

use super::{Frame, Run};
use crate::abi::{Address, ipcache};
use crate::deliver::Action;
use crate::drop::{Dropped, file};
use crate::dropped;
use crate::identity::{self, reserved};
use crate::maps::Maps;
use crate::packet::Packet;
use crate::parse::{self, ether_type};
use crate::settings::Settings;

const FILE: u8 = file::TO_OVERLAY;

/// Finds the tunnel of a packet from the host. `None` where the packet has one already.
#[inline(always)]
pub fn to_overlay<M: Maps, P: Packet>(
    maps: &M,
    packet: &mut P,
    settings: &Settings,
    now: u64,
    frame: &mut Frame,
) -> Result<Action, Dropped> {
    let mut run = Run::new(maps, packet, settings, now, frame);
    let result = judged(&mut run);
    run.finish(result)
}

#[inline(always)]
fn judged<M: Maps, P: Packet>(run: &mut Run<'_, M, P>) -> Result<Action, Dropped> {
    if run.packet.overlay_marked() {
        return Ok(Action::Stack);
    }
    parse::network(&*run.packet, &mut run.frame.parsed)?;
    if run.frame.parsed.ether_type != ether_type::V4 && run.frame.parsed.ether_type != ether_type::V6 {
        return Err(dropped!(UnsupportedL3));
    }
    if run.maps.endpoint_by_address(&run.frame.parsed.source).is_some() {
        // A pod's packet comes marked; one that took the stack instead was never meant for the overlay.
        return Err(dropped!(EncapProhibited));
    }
    let Some(entry) = run.maps.ipcache(&run.frame.parsed.destination) else {
        return Err(dropped!(NoTunnelEndpoint));
    };
    let remote: Address = entry.tunnel;
    if remote.is_none() || entry.flags & ipcache::flag::TUNNEL == 0 {
        return Err(dropped!(NoTunnelEndpoint));
    }
    let own =
        run.maps.ipcache(&run.frame.parsed.source).is_some_and(|e| e.flags & ipcache::flag::LOCAL_NODE != 0);
    let vni = if own && run.is_from_socket() {
        reserved::REMOTE_NODE
    } else {
        identity::world(run.settings, &run.frame.parsed.source)
    };
    Ok(Action::Overlay { remote, vni })
}
