//! `to_net`: tcx egress of an underlay device. Nothing but this node's overlay sends to the tunnel port (datapath.md 24),
//! of whatever node: whoever could, could claim any identity.

use super::{Frame, Run};
use crate::deliver::Action;
use crate::drop::{Dropped, file};
use crate::dropped;
use crate::maps::Maps;
use crate::packet::Packet;
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
    if packet.overlay_marked() {
        return Ok(Action::Stack);
    }
    let run = Run::new(maps, packet, settings, now, frame);
    let read = parse::network(&*run.packet, &mut run.frame.parsed).is_ok()
        && (run.frame.parsed.ether_type == ether_type::V4 || run.frame.parsed.ether_type == ether_type::V6)
        && run.frame.parsed.protocol == protocol::UDP
        && run.frame.parsed.fragment as u8 != Fragment::Later as u8
        && parse::transport(run.maps, &*run.packet, &mut run.frame.parsed).is_ok();
    if !read || run.frame.parsed.destination_port != settings.tunnel_port {
        return Ok(Action::Stack);
    }
    run.finish(Err(dropped!(ForeignEncap)))
}
