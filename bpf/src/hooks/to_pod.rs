//! `to_pod`: tcx egress on the host side of a pod's veth pair. What reaches a pod through the host's stack is judged
//! here: packets of the node's own processes, and those that the host's NAT has rewritten.

use super::{Frame, Run};
use crate::abi::{event, ipcache};
use crate::conntrack::Place;
use crate::deliver::Action;
use crate::drop::{Dropped, file};
use crate::dropped;
use crate::identity::Lookup;
use crate::maps::Maps;
use crate::packet::Packet;
use crate::parse::{self, ether_type, icmp, protocol};
use crate::settings::Settings;

const FILE: u8 = file::TO_POD;

/// Judges a packet to a pod.
#[inline(always)]
pub fn to_pod<M: Maps, P: Packet>(
    maps: &M,
    packet: &mut P,
    settings: &Settings,
    now: u64,
    frame: &mut Frame,
) -> Result<Action, Dropped> {
    let mut run = Run::new(maps, packet, settings, now, frame);
    let result = judged(&mut run);
    // Behind this hook is the pod's end of the pair.
    run.finish_at(result, event::point::TO_ENDPOINT)
}

#[inline(always)]
fn judged<M: Maps, P: Packet>(run: &mut Run<'_, M, P>) -> Result<Action, Dropped> {
    let Some(pod) = run.maps.endpoint_by_interface(run.packet.interface()) else {
        return Err(dropped!(EndpointNotReady));
    };
    run.frame.endpoint = pod.id as u16;
    parse::network(&*run.packet, &mut run.frame.parsed)?;
    match run.frame.parsed.ether_type {
        ether_type::ARP => return Ok(Action::Stack),
        ether_type::V4 | ether_type::V6 => {}
        _ => return Err(dropped!(UnsupportedL3)),
    }
    parse::transport(run.maps, &*run.packet, &mut run.frame.parsed)?;
    if is_gateway_talk(run) {
        return Ok(Action::Stack);
    }
    let own = if run.frame.parsed.is_v4() { &pod.v4 } else { &pod.v6 };
    if run.frame.parsed.destination != *own {
        return Err(dropped!(UnknownDestination));
    }
    let from_socket = run.is_from_socket();
    // A packet of a socket of the node was not sent by a pod; looking for one would cost 24 ns.
    let sender = if from_socket { None } else { run.maps.endpoint_by_address(&run.frame.parsed.source) };
    let lookup = if from_socket { Lookup::FromSocket } else { Lookup::FromStack };
    if let Some(sender) = sender
        && sender.ifindex != run.packet.from_device()
    {
        // The host's NAT may have given it this destination, but not a pod's address as its source.
        return Err(dropped!(SpoofedLocalSource));
    }
    if !from_socket && sender.is_none() && came_past_the_overlay(run) {
        return Err(dropped!(TunnelSourceMismatch));
    }
    run.frame.receiver = run.local_end(pod, &run.frame.parsed.destination);
    if run.frame.parsed.is_icmp_error() {
        run.read_quoted()?;
        run.frame.sender = run.end_of(&run.frame.inner.source, lookup);
    } else if let Some(sender) = sender {
        run.frame.sender = run.local_end(sender, &run.frame.parsed.source);
    } else {
        run.frame.sender = run.other_end(&run.frame.parsed.source, lookup);
    }
    run.track(Place::ToPod)?;
    Ok(Action::Stack)
}

/// Whether a packet that has the source of somebody reached through the overlay came another way, by the host's NAT
/// (datapath.md 24). Nodes' own traffic with each other does not take the overlay.
#[inline(always)]
fn came_past_the_overlay<M: Maps, P: Packet>(run: &Run<'_, M, P>) -> bool {
    let overlay = run.settings.overlay_ifindex;
    overlay != 0
        && run.packet.from_device() != overlay
        && run.maps.ipcache(&run.frame.parsed.source).is_some_and(|entry| {
            entry.flags & (ipcache::flag::TUNNEL | ipcache::flag::REMOTE_NODE) == ipcache::flag::TUNNEL
        })
}

/// Neighbour discovery of the host with its pod, and the host's own group membership, which has hop limit 1 (RFC 3810
/// §5): never judged (policy.md 10).
#[inline(always)]
fn is_gateway_talk<M: Maps, P: Packet>(run: &Run<'_, M, P>) -> bool {
    let hop_limit = match run.frame.parsed.icmp_type {
        icmp::NEIGHBOUR_SOLICIT | icmp::NEIGHBOUR_ADVERT => 255,
        icmp::MLD_REPORT | icmp::MLD2_REPORT => 1,
        _ => return false,
    };
    run.frame.parsed.protocol == protocol::ICMPV6
        && run.frame.parsed.hop_limit == hop_limit
        && run.is_from_socket()
}
