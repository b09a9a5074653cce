//! `from_net`: tcx ingress of an underlay device. A packet for a pod of this node is judged and delivered; everything else
//! belongs to the host and is left alone.

use super::{Frame, Run};
use crate::abi::EndpointEntry;
use crate::abi::conntrack::flag as ct_flag;
use crate::abi::endpoint;
use crate::conntrack::Place;
use crate::deliver::{self, Action};
use crate::drop::{Dropped, file};
use crate::dropped;
use crate::identity::Lookup;
use crate::maps::Maps;
use crate::packet::Packet;
use crate::parse::{self, ether_type};
use crate::settings::Settings;
use crate::source::is_impossible;

const FILE: u8 = file::FROM_NET;

/// Judges a packet from the wire.
#[inline(always)]
pub fn from_net<M: Maps, P: Packet>(
    maps: &M,
    packet: &mut P,
    settings: &Settings,
    now: u64,
    frame: &mut Frame,
) -> Result<Action, Dropped> {
    let mut run = Run::new(maps, packet, settings, now, frame);
    if run.packet.vlan_tagged() {
        // The VLAN's device judges it (datapath.md 30).
        return Ok(Action::Stack);
    }
    if !run.packet.for_this_host() {
        // Not addressed to this device, which is promiscuous or behind a switch that floods (datapath.md 30).
        return Ok(Action::Stack);
    }
    // A packet that isn't addressed to a pod is not judged here, malformed or not.
    if parse::network(&*run.packet, &mut run.frame.parsed).is_err() {
        return Ok(Action::Stack);
    }
    if run.frame.parsed.ether_type != ether_type::V4 && run.frame.parsed.ether_type != ether_type::V6 {
        return Ok(Action::Stack);
    }
    let Some(pod) = maps.endpoint_by_address(&run.frame.parsed.destination) else { return Ok(Action::Stack) };
    let result = judged(&mut run, pod, Lookup::FromWire, 0);
    run.finish(result)
}

/// Judges a packet for a pod of this node; `claimed` is what the overlay says of the sender.
#[inline(always)]
pub(super) fn judged<M: Maps, P: Packet>(
    run: &mut Run<'_, M, P>,
    pod: &EndpointEntry,
    lookup: Lookup,
    claimed: u32,
) -> Result<Action, Dropped> {
    run.frame.endpoint = pod.id as u16;
    parse::transport(run.maps, &*run.packet, &mut run.frame.parsed)?;
    if is_impossible(&run.frame.parsed.source) {
        return Err(dropped!(ImpossibleSource));
    }
    run.frame.receiver = run.local_end(pod, &run.frame.parsed.destination);
    if run.frame.parsed.is_icmp_error() {
        if run.is_of_this_node(&run.frame.parsed.source) {
            return Err(dropped!(SpoofedLocalSource));
        }
        run.read_quoted()?;
        // Packets between pods of this node never leave it: no router can have seen the quoted one.
        if run.maps.endpoint_by_address(&run.frame.inner.source).is_some() {
            return Err(dropped!(UnrelatedIcmpError));
        }
        run.frame.sender = run.end_of(&run.frame.inner.source, lookup);
    } else {
        run.frame.sender = run.other_end(&run.frame.parsed.source, lookup);
        if claimed != 0 {
            run.frame.sender.identity = claimed;
            run.frame.sender.lookup = Lookup::Known;
            run.frame.sender.claimed = claimed;
        }
    }
    run.track(Place::FromOutside)?;
    if run.frame.report.entry_flags & ct_flag::VIA_STACK != 0 || pod.flags & endpoint::flag::VIA_STACK != 0 {
        return Ok(Action::Stack);
    }
    deliver::to_endpoint(run.packet, run.settings, &run.frame.parsed, pod)
}
