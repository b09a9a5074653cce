//! `from_pod`: tcx ingress on the host side of a pod's veth pair. Everything that a pod sends is judged here; where the
//! other end is a pod of this node, its ingress too.

use super::Run;
use crate::abi::conntrack::flag as ct_flag;
use crate::abi::endpoint;
use crate::abi::{EndpointEntry, ipcache};
use crate::conntrack::{End, Tracking, track, track_error};
use crate::deliver::{self, Action};
use crate::drop::{Dropped, file};
use crate::dropped;
use crate::identity::Lookup;
use crate::maps::Maps;
use crate::packet::Packet;
use crate::parse::{self, Parsed, protocol};
use crate::settings::Settings;
use crate::source::{self, Admitted};

const FILE: u8 = file::SOURCE;

/// Judges a packet from a pod.
#[inline(always)]
pub fn from_pod<M: Maps, P: Packet>(
    maps: &M,
    packet: &mut P,
    settings: &Settings,
    now: u64,
) -> Result<Action, Dropped> {
    let mut run = Run::new(maps, packet, settings, now);
    let result = judged(&mut run);
    run.finish(result)
}

#[inline(always)]
fn judged<M: Maps, P: Packet>(run: &mut Run<'_, M, P>) -> Result<Action, Dropped> {
    let Some(pod) = run.maps.endpoint_by_interface(run.packet.interface()) else {
        return Err(dropped!(EndpointNotReady));
    };
    run.endpoint = pod.id as u16;
    run.report.identities[0] = pod.identity;
    parse::network(&*run.packet, &mut run.parsed)?;
    if source::network(&*run.packet, &run.parsed, pod)? as u8 == Admitted::Host as u8 {
        return Ok(Action::Stack);
    }
    source::group_membership(&run.parsed)?;
    parse::transport(run.maps, &*run.packet, &mut run.parsed)?;
    if source::transport(&*run.packet, &run.parsed, pod)? as u8 == Admitted::Host as u8 {
        return Ok(Action::Stack);
    }
    tunnel_port(run)?;
    let sender = run.local_end(pod, &run.parsed.source);
    let destination = run.maps.endpoint_by_address(&run.parsed.destination);
    let receiver = match destination {
        Some(endpoint) => run.local_end(endpoint, &run.parsed.destination),
        None => run.other_end(&run.parsed.destination, Lookup::Destination),
    };
    let flags = if run.parsed.is_icmp_error() {
        quoted_connection(run, pod, &receiver)?
    } else {
        let tracking = Tracking {
            maps: run.maps,
            packet: &*run.packet,
            settings: run.settings,
            now: run.now,
            parsed: &run.parsed,
            sender: &sender,
            receiver: &receiver,
            create_flags: 0,
        };
        track(&tracking, &mut run.report)?
    };
    if flags & ct_flag::VIA_STACK != 0 {
        return Ok(Action::Stack);
    }
    match destination {
        Some(endpoint) if endpoint.flags & endpoint::flag::VIA_STACK != 0 => Ok(Action::Stack),
        Some(endpoint) => deliver::to_endpoint(run.packet, run.settings, &run.parsed, endpoint),
        None => deliver::off_node(run.maps, run.packet, run.settings, &run.parsed, pod.identity),
    }
}

/// No pod sends to the overlay's port of a node, whatever policy says (datapath.md 24).
#[inline(always)]
fn tunnel_port<M: Maps, P: Packet>(run: &Run<'_, M, P>) -> Result<(), Dropped> {
    if run.parsed.protocol == protocol::UDP
        && run.parsed.destination_port == run.settings.tunnel_port
        && let Some(entry) = run.maps.ipcache(&run.parsed.destination)
        && entry.flags & (ipcache::flag::LOCAL_NODE | ipcache::flag::REMOTE_NODE) != 0
    {
        return Err(dropped!(EncapProhibited));
    }
    Ok(())
}

/// An ICMP error of the pod: it passes for a connection whose packet the error's destination sent.
#[inline(always)]
fn quoted_connection<M: Maps, P: Packet>(
    run: &mut Run<'_, M, P>,
    pod: &EndpointEntry,
    receiver: &End,
) -> Result<u16, Dropped> {
    let mut inner = Parsed::default();
    parse::quoted(&*run.packet, &run.parsed, &mut inner)?;
    if inner.source != run.parsed.destination {
        return Err(dropped!(UnrelatedIcmpError));
    }
    // The quoted packet went to this pod, or to somebody behind whom it stands; only the former is ours to vouch for.
    let sender = run.local_end(pod, &inner.destination);
    if inner.destination != run.parsed.source {
        return Err(dropped!(UnrelatedIcmpError));
    }
    turn(&mut inner);
    let tracking = Tracking {
        maps: run.maps,
        packet: &*run.packet,
        settings: run.settings,
        now: run.now,
        parsed: &inner,
        sender: &sender,
        receiver,
        create_flags: 0,
    };
    track_error(&tracking, &mut run.report)
}

/// The packet that answers a quoted one: its sender is who got the quoted packet.
#[inline(always)]
pub(super) fn turn(inner: &mut Parsed) {
    core::mem::swap(&mut inner.source, &mut inner.destination);
    core::mem::swap(&mut inner.source_port, &mut inner.destination_port);
}
