//! `from_pod`: tcx ingress on the host side of a pod's veth pair. Everything that a pod sends is judged here; where the
//! other end is a pod of this node, its ingress too.

use super::{Frame, Run};
use crate::abi::conntrack::flag as ct_flag;
use crate::abi::endpoint;
use crate::abi::{event, ipcache};
use crate::conntrack::Place;
use crate::deliver::{self, Action};
use crate::drop::{Dropped, file};
use crate::dropped;
use crate::identity::{self, Lookup};
use crate::maps::Maps;
use crate::packet::Packet;
use crate::parse::{self, protocol};
use crate::reject;
use crate::settings::Settings;
use crate::source::{self, Admitted};

const FILE: u8 = file::FROM_POD;

/// Judges a packet from a pod.
#[inline(always)]
pub fn from_pod<M: Maps, P: Packet>(
    maps: &M,
    packet: &mut P,
    settings: &Settings,
    now: u64,
    frame: &mut Frame,
) -> Result<Action, Dropped> {
    let mut run = Run::new(maps, packet, settings, now, frame);
    let result = judged(&mut run);
    let refused = result.is_err() && run.frame.report.entry_flags & ct_flag::EGRESS_REFUSED != 0;
    let result = run.finish(result);
    if settings.reject != 0 && refused { Ok(Action::Answer) } else { result }
}

/// Answers the packet that this CPU has just refused, using what that run left in the frame. It is a program of its own,
/// reached by tail call, because the hook's stack has no room for it.
#[inline(always)]
pub fn answer<M: Maps, P: Packet>(
    maps: &M,
    packet: &mut P,
    _: &Settings,
    now: u64,
    frame: &mut Frame,
) -> Result<Action, Dropped> {
    let Some(pod) = maps.endpoint_by_interface(packet.interface()) else {
        return Err(dropped!(EndpointNotReady));
    };
    if reject::answer(maps, packet, (&frame.parsed, &mut frame.room.0), pod, now) {
        Ok(Action::Endpoint { ifindex: pod.ifindex })
    } else {
        Err(dropped!(PolicyDenied))
    }
}

#[inline(always)]
fn judged<M: Maps, P: Packet>(run: &mut Run<'_, M, P>) -> Result<Action, Dropped> {
    let Some(pod) = run.maps.endpoint_by_interface(run.packet.interface()) else {
        return Err(dropped!(EndpointNotReady));
    };
    run.frame.endpoint = pod.id as u16;
    run.frame.report.identities[0] = pod.identity;
    parse::network(&*run.packet, &mut run.frame.parsed)?;
    if source::network(&*run.packet, &run.frame.parsed, pod)? as u8 == Admitted::Host as u8 {
        return Ok(Action::Stack);
    }
    source::options(&*run.packet, &run.frame.parsed)?;
    source::group_membership(&run.frame.parsed)?;
    source::fragment(&run.frame.parsed, pod)?;
    parse::transport(run.maps, &*run.packet, &mut run.frame.parsed)?;
    source::pending_checksum(&*run.packet, &run.frame.parsed, &mut run.frame.pending.0)?;
    if source::transport(&*run.packet, &run.frame.parsed, pod)? as u8 == Admitted::Host as u8 {
        return Ok(Action::Stack);
    }
    tunnel_port(run)?;
    let destination = run.maps.endpoint_by_address(&run.frame.parsed.destination);
    run.frame.receiver = match destination {
        Some(endpoint) => run.local_end(endpoint, &run.frame.parsed.destination),
        None => run.other_end(&run.frame.parsed.destination, Lookup::Destination),
    };
    run.frame.sender = run.local_end(pod, &run.frame.parsed.source);
    if run.frame.parsed.is_icmp_error() {
        run.read_quoted()?;
        // The quoted packet must have gone to this pod itself: a pod doesn't speak for others behind it.
        if run.frame.inner.source != run.frame.parsed.source {
            return Err(dropped!(UnrelatedIcmpError));
        }
    }
    run.track(Place::FromPod)?;
    if run.frame.report.flags & event::flag::REPLY != 0 {
        // If it takes the stack, the host's NAT may send it on to whom it hides: that is no connection of the pod's own.
        run.packet.mark_answer();
    }
    if run.frame.report.entry_flags & ct_flag::VIA_STACK != 0 || pod.flags & endpoint::flag::VIA_STACK != 0 {
        return Ok(Action::Stack);
    }
    match destination {
        Some(endpoint) if endpoint.flags & endpoint::flag::VIA_STACK != 0 => Ok(Action::Stack),
        Some(endpoint) => deliver::to_endpoint(run.packet, run.settings, &run.frame.parsed, endpoint),
        None => deliver::off_node(run.maps, run.packet, run.settings, &run.frame.parsed, pod.identity),
    }
}

/// No pod sends to the tunnel port of a node, whatever policy says (datapath.md 24). A node's address is one that the
/// ipcache lists, or one that routing calls local.
#[inline(always)]
fn tunnel_port<M: Maps, P: Packet>(run: &Run<'_, M, P>) -> Result<(), Dropped> {
    if run.frame.parsed.protocol == protocol::UDP
        && run.frame.parsed.destination_port == run.settings.tunnel_port
    {
        let destination = &run.frame.parsed.destination;
        let to_node = match run.maps.ipcache(destination) {
            Some(entry) => entry.flags & (ipcache::flag::LOCAL_NODE | ipcache::flag::REMOTE_NODE) != 0,
            None => identity::is_local(&*run.packet, destination),
        };
        if to_node {
            return Err(dropped!(EncapProhibited));
        }
    }
    Ok(())
}
