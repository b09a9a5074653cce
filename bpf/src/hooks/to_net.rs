//! `to_net`: tcx egress of an underlay device:
//!
//! 1. Packets that our programs made or redirected are marked, and were judged.
//! 2. No other packet may leave to the tunnel port of any node: its sender could claim any identity (datapath.md 24).
//! 3. What a pod sends through the host's stack is judged here as it leaves: the pod's own hook has seen where the pod sent
//!    it, and the host's NAT (kube-proxy) may have changed that since. If the NAT has put the node's address in place of the
//!    pod's, the pod can't be recognised, and its own hook's verdict is the only one.
//! 4. If the new destination is reached through the overlay, the packet goes there, as pods' packets to nodes do.

use super::to_overlay::check_tunnel;
use super::{Frame, Run};
use crate::abi::{EndpointEntry, IpcacheEntry, event, ipcache};
use crate::deliver::Action;
use crate::drop::{Dropped, file};
use crate::dropped;
use crate::maps::Maps;
use crate::packet::Packet;
use crate::parse::headers::Ports;
use crate::parse::{self, Fragment, ether_type, protocol};
use crate::settings::Settings;

const FILE: u8 = file::TO_NET;

/// Looks at a packet that leaves the node.
#[inline(always)]
pub fn to_net<M: Maps, P: Packet>(
    maps: &M,
    packet: &mut P,
    settings: &Settings,
    now: u64,
    frame: &mut Frame,
) -> Result<Action, Dropped> {
    // 1.
    if packet.marked() || packet.vlan_tagged() {
        // A tagged packet was judged at the VLAN device (datapath.md 30).
        return Ok(Action::Stack);
    }
    let mut run = Run::new(maps, packet, settings, now, frame);
    let read = parse::network(&*run.packet, &mut run.frame.parsed).is_ok()
        && (run.frame.parsed.ether_type == ether_type::V4 || run.frame.parsed.ether_type == ether_type::V6);
    if !read {
        return Ok(Action::Stack);
    }
    // 2.
    if is_for_a_tunnel(&run) {
        return run.finish(Err(dropped!(ForeignEncap)));
    }
    let Some(pod) = run.sending_pod() else { return Ok(Action::Stack) };
    let own = if run.frame.parsed.is_v4() { &pod.v4 } else { &pod.v6 };
    if run.frame.parsed.source != *own {
        return Ok(Action::Stack);
    }
    let result = judged(&mut run, pod);
    let point = match result {
        Ok(Some(_)) => event::point::TO_OVERLAY,
        _ => event::point::TO_NETWORK,
    };
    Ok(match run.finish_with(result, point)? {
        Some(entry) => Action::Overlay { remote: entry.tunnel, vni: pod.identity },
        None => Action::Stack,
    })
}

/// 2. The port is read without [`parse::transport`], which remembers ports of fragments: those of the host's own packets are
///    never needed.
#[inline(always)]
fn is_for_a_tunnel<M: Maps, P: Packet>(run: &Run<'_, M, P>) -> bool {
    let parsed = &run.frame.parsed;
    parsed.protocol == protocol::UDP
        && parsed.fragment as u8 != Fragment::Later as u8
        && run
            .packet
            .load::<Ports>(usize::from(parsed.transport_at))
            .is_some_and(|ports| ports.destination == run.settings.tunnel_port)
}

/// 3 and 4: where the overlay leads to, if it does.
#[inline(always)]
fn judged<'a, M: Maps, P: Packet>(
    run: &mut Run<'a, M, P>,
    pod: &EndpointEntry,
) -> Result<Option<&'a IpcacheEntry>, Dropped> {
    run.judge_leaving(pod)?;
    if run.settings.overlay_ifindex == 0 {
        return Ok(None);
    }
    match run.maps.ipcache(&run.frame.parsed.destination) {
        Some(entry) if entry.flags & ipcache::flag::TUNNEL != 0 => {
            check_tunnel(entry, pod.identity)?;
            Ok(Some(entry))
        }
        _ => Ok(None),
    }
}
