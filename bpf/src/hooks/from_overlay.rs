//! `from_overlay`: tcx ingress of the VXLAN device. The VNI is the sender node's claim to an identity, and no more than
//! that (datapath.md 24):
//!
//! 1. Unknown, host, init and node-local numbers are not claims that a node can make.
//! 2. The inner source must be known, and the outer source must be its node's. A source of this node is spoofed.
//! 3. A packet for a pod is judged as from the wire, with the claimed identity; one for the node goes to its stack.

use super::{Frame, Run, from_net};
use crate::abi::ipcache;
use crate::deliver::Action;
use crate::drop::{Dropped, file};
use crate::dropped;
use crate::identity::{Lookup, reserved};
use crate::maps::Maps;
use crate::packet::{Packet, TunnelKey};
use crate::parse::{self, ether_type};
use crate::settings::Settings;

const FILE: u8 = file::FROM_OVERLAY;

/// Judges a packet from the overlay.
#[inline(always)]
pub fn from_overlay<M: Maps, P: Packet>(
    maps: &M,
    packet: &mut P,
    settings: &Settings,
    now: u64,
    frame: &mut Frame,
) -> Result<Action, Dropped> {
    let mut run = Run::new(maps, packet, settings, now, frame);
    let result = judged(&mut run);
    if result.is_err() {
        run.read_dropped();
    }
    run.finish(result)
}

#[inline(always)]
fn judged<M: Maps, P: Packet>(run: &mut Run<'_, M, P>) -> Result<Action, Dropped> {
    parse::network(&*run.packet, &mut run.frame.parsed)?;
    if run.frame.parsed.ether_type != ether_type::V4 && run.frame.parsed.ether_type != ether_type::V6 {
        return Err(dropped!(UnsupportedL3));
    }
    if run.packet.vlan_tagged() {
        // No node sends one (datapath.md 26), and the pod would take it for its own VLAN's (RFC 7348 §6.1).
        return Err(dropped!(Vlan));
    }
    let Some(tunnel) = run.packet.tunnel_key() else { return Err(dropped!(TunnelSourceMismatch)) };
    let claimed = claim(run, &tunnel)?;
    run.frame.report.identities[0] = claimed;
    // The inner frame has the MACs of the sender's veth pair, so the device takes it for another host's.
    run.packet.prepare_delivery();
    let Some(pod) = run.maps.endpoint_by_address(&run.frame.parsed.destination) else {
        return Ok(Action::Stack);
    };
    from_net::judged(run, pod, Lookup::FromOverlay, claimed)
}

/// 1 and 2.
#[inline(always)]
fn claim<M: Maps, P: Packet>(run: &Run<'_, M, P>, tunnel: &TunnelKey) -> Result<u32, Dropped> {
    // The VNI has 24 bits, so a number with a scope can't be in it.
    if matches!(tunnel.vni, reserved::UNKNOWN | reserved::HOST | reserved::INIT) {
        return Err(dropped!(InvalidIdentity));
    }
    if run.maps.endpoint_by_address(&run.frame.parsed.source).is_some() {
        return Err(dropped!(SpoofedLocalSource));
    }
    let Some(entry) = run.maps.ipcache(&run.frame.parsed.source) else { return Err(dropped!(UnknownSender)) };
    if entry.flags & ipcache::flag::LOCAL_NODE != 0 {
        return Err(dropped!(SpoofedLocalSource));
    }
    if entry.tunnel != tunnel.source {
        return Err(dropped!(TunnelSourceMismatch));
    }
    if tunnel.vni == reserved::REMOTE_NODE && entry.flags & ipcache::flag::REMOTE_NODE != 0 {
        // A node does not know whether it runs the API server.
        return Ok(entry.identity);
    }
    Ok(tunnel.vni)
}
