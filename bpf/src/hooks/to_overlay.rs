//! `to_overlay`: tcx egress of the VXLAN device. A pod's packet comes here with its tunnel key set, or through the host's
//! stack: then it is judged again, as the host's NAT has left it, and travels with the pod's identity. What the node's own
//! processes send to pods and nodes elsewhere gets its tunnel key here: host travels as remote-node, forwarded traffic as
//! world (datapath.md 24).

use super::{Frame, Run};
use crate::abi::{IpcacheEntry, ipcache};
use crate::deliver::Action;
use crate::drop::{Dropped, file};
use crate::dropped;
use crate::identity::{self, reserved};
use crate::maps::Maps;
use crate::packet::Packet;
use crate::parse::{self, ether_type};
use crate::settings::Settings;

const FILE: u8 = file::TO_OVERLAY;

/// Judges what enters the overlay and names its tunnel; what is marked passes.
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
    if result.is_err() {
        run.read_dropped();
    }
    run.finish(result)
}

#[inline(always)]
fn judged<M: Maps, P: Packet>(run: &mut Run<'_, M, P>) -> Result<Action, Dropped> {
    if run.packet.marked() {
        return Ok(Action::Stack);
    }
    parse::network(&*run.packet, &mut run.frame.parsed)?;
    if run.frame.parsed.ether_type != ether_type::V4 && run.frame.parsed.ether_type != ether_type::V6 {
        return Err(dropped!(UnsupportedL3));
    }
    let source = run.maps.endpoint_by_address(&run.frame.parsed.source);
    let sender = run.sending_pod();
    let vni = match (source, sender) {
        (Some(pod), Some(sender)) if pod.id == sender.id => {
            run.judge_leaving(pod)?;
            pod.identity
        }
        // It has a pod's source, and no pod sent it.
        (Some(_), _) => return Err(dropped!(EncapProhibited)),
        (None, _) => {
            let cached = run.maps.ipcache(&run.frame.parsed.source);
            let own = cached.is_some_and(|entry| entry.flags & ipcache::flag::LOCAL_NODE != 0);
            if own && run.is_from_socket() {
                reserved::REMOTE_NODE
            } else {
                identity::world(run.settings, &run.frame.parsed.source)
            }
        }
    };
    match run.maps.ipcache(&run.frame.parsed.destination) {
        Some(entry) if entry.flags & ipcache::flag::TUNNEL != 0 => {
            check_tunnel(entry, vni)?;
            Ok(Action::Overlay { remote: entry.tunnel, vni })
        }
        _ => Err(dropped!(NoTunnelEndpoint)),
    }
}

/// Whether a tunnel leads to where an entry is, and an identity may travel.
#[inline(always)]
pub(super) fn check_tunnel(entry: &IpcacheEntry, vni: u32) -> Result<(), Dropped> {
    if entry.tunnel.is_none() {
        return Err(dropped!(NoTunnelEndpoint));
    }
    if vni >> 24 != 0 {
        // Only scope 0 travels: another number means something on this node alone.
        return Err(dropped!(InvalidIdentity));
    }
    Ok(())
}
