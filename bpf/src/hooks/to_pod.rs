//! `to_pod`: tcx egress on the host side of a pod's veth pair. What reaches a pod through the host's stack is judged
//! here: the node's own processes, and what the host's NAT has rewritten.

use super::Run;
use super::from_pod::turn;
use crate::abi::conntrack::flag as ct_flag;
use crate::conntrack::{Tracking, track, track_error};
use crate::deliver::Action;
use crate::drop::{Dropped, file};
use crate::dropped;
use crate::identity::Lookup;
use crate::maps::Maps;
use crate::packet::Packet;
use crate::parse::{self, Parsed, ether_type, icmp, protocol};
use crate::settings::Settings;

const FILE: u8 = file::DELIVER;

/// Judges a packet to a pod.
#[inline(always)]
pub fn to_pod<M: Maps, P: Packet>(
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
    parse::network(&*run.packet, &mut run.parsed)?;
    match run.parsed.ether_type {
        ether_type::ARP => return Ok(Action::Stack),
        ether_type::V4 | ether_type::V6 => {}
        _ => return Err(dropped!(UnsupportedL3)),
    }
    parse::transport(run.maps, &*run.packet, &mut run.parsed)?;
    if is_gateway_talk(run) {
        return Ok(Action::Stack);
    }
    let own = if run.parsed.is_v4() { &pod.v4 } else { &pod.v6 };
    if run.parsed.destination != *own {
        return Err(dropped!(UnknownDestination));
    }
    let receiver = run.local_end(pod, &run.parsed.destination);
    if run.parsed.is_icmp_error() {
        let mut inner = Parsed::default();
        parse::quoted(&*run.packet, &run.parsed, &mut inner)?;
        if inner.source != run.parsed.destination {
            return Err(dropped!(UnrelatedIcmpError));
        }
        turn(&mut inner);
        let sender = run.end_of(&inner.source, Lookup::FromStack);
        let tracking = Tracking {
            maps: run.maps,
            packet: &*run.packet,
            settings: run.settings,
            now: run.now,
            parsed: &inner,
            sender: &sender,
            receiver: &receiver,
            create_flags: 0,
        };
        track_error(&tracking, &mut run.report)?;
        return Ok(Action::Stack);
    }
    let sender = run.end_of(&run.parsed.source, Lookup::FromStack);
    let tracking = Tracking {
        maps: run.maps,
        packet: &*run.packet,
        settings: run.settings,
        now: run.now,
        parsed: &run.parsed,
        sender: &sender,
        receiver: &receiver,
        create_flags: ct_flag::VIA_STACK,
    };
    track(&tracking, &mut run.report)?;
    Ok(Action::Stack)
}

/// Neighbour discovery of the host with its pod: never judged (policy.md 10).
#[inline(always)]
fn is_gateway_talk<M: Maps, P: Packet>(run: &Run<'_, M, P>) -> bool {
    run.parsed.protocol == protocol::ICMPV6
        && run.parsed.hop_limit == 255
        && run.packet.from_device() == 0
        && matches!(
            run.parsed.icmp_type,
            icmp::NEIGHBOUR_SOLICIT | icmp::NEIGHBOUR_ADVERT | icmp::MLD_REPORT | icmp::MLD2_REPORT
        )
}
