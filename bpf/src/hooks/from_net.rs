//! `from_net`: tcx ingress of an underlay device. What is for a pod of this node is judged and handed over; everything
//! else belongs to the host and is left alone.

use super::Run;
use super::from_pod::turn;
use crate::abi::EndpointEntry;
use crate::abi::endpoint;
use crate::conntrack::{Tracking, track, track_error};
use crate::deliver::{self, Action};
use crate::drop::{Dropped, file};
use crate::dropped;
use crate::identity::Lookup;
use crate::maps::Maps;
use crate::packet::Packet;
use crate::parse::{self, Parsed, ether_type};
use crate::settings::Settings;

const FILE: u8 = file::DELIVER;

/// Judges a packet from the wire.
#[inline(always)]
pub fn from_net<M: Maps, P: Packet>(
    maps: &M,
    packet: &mut P,
    settings: &Settings,
    now: u64,
) -> Result<Action, Dropped> {
    let mut run = Run::new(maps, packet, settings, now);
    // A frame that isn't even addressed to a pod is nobody's business here, malformed or not.
    if parse::network(&*run.packet, &mut run.parsed).is_err() {
        return Ok(Action::Stack);
    }
    if run.parsed.ether_type != ether_type::V4 && run.parsed.ether_type != ether_type::V6 {
        return Ok(Action::Stack);
    }
    let Some(pod) = maps.endpoint_by_address(&run.parsed.destination) else { return Ok(Action::Stack) };
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
    run.endpoint = pod.id as u16;
    parse::transport(run.maps, &*run.packet, &mut run.parsed)?;
    if run.maps.endpoint_by_address(&run.parsed.source).is_some() {
        return Err(dropped!(SpoofedLocalSource));
    }
    let receiver = run.local_end(pod, &run.parsed.destination);
    let mut inner = Parsed::default();
    let error = run.parsed.is_icmp_error();
    if error {
        parse::quoted(&*run.packet, &run.parsed, &mut inner)?;
        if inner.source != run.parsed.destination {
            return Err(dropped!(UnrelatedIcmpError));
        }
        turn(&mut inner);
    }
    let seen = if error { &inner } else { &run.parsed };
    let mut sender = run.end_of(&seen.source, lookup);
    if !error && claimed != 0 {
        sender.identity = claimed;
        sender.lookup = Lookup::Known;
        sender.claimed = claimed;
    }
    let tracking = Tracking {
        maps: run.maps,
        packet: &*run.packet,
        settings: run.settings,
        now: run.now,
        parsed: seen,
        sender: &sender,
        receiver: &receiver,
        create_flags: 0,
    };
    if error {
        track_error(&tracking, &mut run.report)?;
    } else {
        track(&tracking, &mut run.report)?;
    }
    if pod.flags & endpoint::flag::VIA_STACK != 0 {
        return Ok(Action::Stack);
    }
    deliver::to_endpoint(run.packet, run.settings, &run.parsed, pod)
}
