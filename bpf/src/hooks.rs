//! The programs, one function each: parse → source → connection → policy → deliver. Every stage is a function of this
//! library, and `?` ends the run with the drop reason. This file has what all hooks share: the frame of a run, and the
//! event at its end.
//!
//! Stage order, including the stages that are not built yet (datapath.md 18): reverse-SNAT → source identity → DNAT →
//! conntrack → reverse-DNAT → destination identity → policy → proxy → encrypt or tunnel → SNAT.

pub mod from_net;
pub mod from_overlay;
pub mod from_pod;
pub mod to_net;
pub mod to_overlay;
pub mod to_pod;

use crate::abi::endpoint::{self, stamp};
use crate::abi::{Address, EndpointEntry, IpcacheEntry, StateWord, event, ipcache};
use crate::conntrack::{End, Place, Report, Tracking, track};
use crate::deliver::Action;
use crate::drop::{Dropped, file};
use crate::dropped;
use crate::identity::Lookup;
use crate::maps::{Maps, Urgency};
use crate::packet::Packet;
use crate::parse::{self, Fragment, Parsed};
use crate::reject;
use crate::settings::{PENDING_BYTES, Settings};

const FILE: u8 = file::HOOKS;

/// The working data of a run. It is in a map and not on the stack: programs have 512 bytes of stack, and this takes 410.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frame {
    /// The node's word, read before everything else.
    pub node: StateWord,
    /// Time, nanoseconds of `CLOCK_MONOTONIC`.
    pub now: u64,
    /// Number of the endpoint whose hook this is, 0 for none.
    pub endpoint: u16,
    /// What the packet says.
    pub parsed: Parsed,
    /// What the packet that an ICMP error quotes says.
    pub inner: Parsed,
    /// What was judged.
    pub report: Report,
    /// Who sent it.
    pub sender: End,
    /// Who gets it.
    pub receiver: End,
    /// Where an answer to a refused packet is made.
    pub room: Answer,
    /// What the kernel says of a packet's checksum.
    pub pending: Pending,
}

/// Room for a part of `sk_buff`.
#[derive(Clone, Copy, Debug)]
pub struct Pending(pub [u8; PENDING_BYTES]);

impl Default for Pending {
    fn default() -> Self {
        Self([0; PENDING_BYTES])
    }
}

/// Room for an answer.
#[derive(Clone, Copy, Debug)]
pub struct Answer(pub reject::Room);

impl Default for Answer {
    fn default() -> Self {
        Self([0; size_of::<reject::Room>()])
    }
}

/// One packet at one hook.
pub struct Run<'a, M, P> {
    /// The maps.
    pub maps: &'a M,
    /// The packet.
    pub packet: &'a mut P,
    /// Constants of the node.
    pub settings: &'a Settings,
    /// What it works with.
    pub frame: &'a mut Frame,
}

impl<'a, M: Maps, P: Packet> Run<'a, M, P> {
    /// Begins a run.
    #[inline(always)]
    pub fn new(
        maps: &'a M,
        packet: &'a mut P,
        settings: &'a Settings,
        now: u64,
        frame: &'a mut Frame,
    ) -> Self {
        frame.node = maps.word(StateWord::NODE);
        frame.now = now;
        frame.endpoint = 0;
        frame.parsed = Parsed::default();
        frame.report = Report::default();
        Self { maps, packet, settings, frame }
    }

    /// Ends a run, and writes the event that it is worth.
    #[inline(always)]
    pub fn finish(self, result: Result<Action, Dropped>) -> Result<Action, Dropped> {
        self.finish_at(result, event::point::TO_STACK)
    }

    /// The same, for a hook where `stack` is the observation point of a packet that continues as it came.
    #[inline(always)]
    pub fn finish_at(self, result: Result<Action, Dropped>, stack: u8) -> Result<Action, Dropped> {
        let point = match &result {
            Ok(action) => action.point(stack),
            Err(_) => 0,
        };
        self.finish_with(result, point)
    }

    /// The same, before the [`Action`] is made. Where only some cases set parts of an [`Action`], LLVM spills these parts in
    /// all cases, which the verifier forbids (kernel 6.18: "R5 !read_ok").
    #[inline(always)]
    fn finish_with<T: Copy>(self, result: Result<T, Dropped>, point: u8) -> Result<T, Dropped> {
        match result {
            Ok(_) => {
                if self.frame.report.kind != 0 {
                    self.emit(self.frame.report.kind, point, 0, 0);
                }
            }
            Err(dropped) => {
                self.maps.count_drop(dropped.number(), self.packet.length());
                self.emit(event::kind::DROP, 0, dropped.number(), dropped.place());
            }
        }
        result
    }

    /// Reads the transport header of a packet that was dropped before it was read, so that the drop is reported with it. Not
    /// of a first fragment, which would leave its ports for later ones.
    #[inline(always)]
    fn read_dropped(&mut self) {
        let parsed = &mut self.frame.parsed;
        if parsed.fragment as u8 == Fragment::Whole as u8 {
            parse::transport(self.maps, &*self.packet, parsed).ok();
        }
    }

    #[inline(always)]
    fn emit(&self, kind: u8, point: u8, reason: u16, place: u16) {
        if self.settings.records == 0 {
            return;
        }
        let mut urgency = Urgency::Trace;
        if kind == event::kind::DROP {
            urgency = Urgency::Drop;
            let interval = self.settings.drop_interval;
            if interval != 0 && !self.maps.may_report_drop(self.frame.now, interval) {
                return;
            }
        }
        let parsed = &self.frame.parsed;
        let report = &self.frame.report;
        self.maps.emit(urgency, |record| {
            record.kind = kind;
            record.point = point;
            record.flags = report.flags | event::flag::HAS_MACS;
            record.protocol = parsed.protocol;
            record.source = parsed.source;
            record.destination = parsed.destination;
            record.source_port = parsed.source_port;
            record.destination_port = parsed.destination_port;
            if is_icmp(parsed.protocol) {
                record.source_port = u16::from(parsed.icmp_type).to_be();
                record.destination_port = u16::from(parsed.icmp_code).to_be();
            }
            record.tcp_flags = parsed.tcp_flags;
            record.ip_version = ip_version(parsed);
            record.reason = reason;
            record.place = place;
            record.source_identity = report.identities[0];
            record.destination_identity = report.identities[1];
            record.cookies = report.cookies;
            record.shadow_cookies = report.shadow_cookies;
            record.verdicts = report.verdicts;
            record.matches = report.matches;
            record.endpoint = self.frame.endpoint;
            record.ifindex = self.packet.interface();
            record.length = self.packet.length();
            record.revision = self.frame.node.revision();
            record.macs = parsed.macs;
        });
    }

    /// Whether a socket of the node's own network namespace sent the packet (datapath.md 28): it came in by no device.
    ///
    /// For an IPv6 fragment a missing device says nothing: where the kernel fragments a forwarded datagram again, the
    /// fragments have no device (`ip6_frag_next`, kernel 6.18), but an owning socket only if the datagram had one. Other
    /// packets need no owner, since the node sends some without.
    #[inline(always)]
    fn is_from_socket(&self) -> bool {
        let parsed = &self.frame.parsed;
        let whole = parsed.is_v4() || parsed.fragment as u8 == Fragment::Whole as u8;
        self.packet.from_device() == 0 && (whole || self.packet.has_socket())
    }

    /// An endpoint of this node as an end of a connection. Its word is read here, before its table.
    #[inline(always)]
    fn local_end(&self, endpoint: &EndpointEntry, address: &Address) -> End {
        let word = self.maps.word(endpoint.id);
        End {
            address: *address,
            identity: endpoint.identity,
            lookup: Lookup::Known,
            local: true,
            shaped: endpoint.flags & endpoint::flag::VIA_STACK != 0,
            endpoint: endpoint.id as u16,
            stamp: stamp::of_epoch(word.epoch()),
            slot: word.slot(),
            claimed: 0,
        }
    }

    /// Anybody else as an end of a connection.
    #[inline(always)]
    fn other_end(&self, address: &Address, lookup: Lookup) -> End {
        End {
            address: *address,
            identity: 0,
            lookup,
            local: false,
            shaped: false,
            endpoint: 0,
            stamp: stamp::of_generation(self.frame.node.generation()),
            slot: 0,
            claimed: 0,
        }
    }

    /// Whoever has an address, as an end of a connection.
    #[inline(always)]
    fn end_of(&self, address: &Address, lookup: Lookup) -> End {
        match self.maps.endpoint_by_address(address) {
            Some(endpoint) => self.local_end(endpoint, address),
            None => self.other_end(address, lookup),
        }
    }

    /// Whether an address is the node's own or that of one of its pods: nothing on the wire comes from there.
    #[inline(always)]
    fn is_of_this_node(&self, address: &Address) -> bool {
        let of_node = |entry: &IpcacheEntry| entry.flags & ipcache::flag::LOCAL_NODE != 0;
        self.maps.endpoint_by_address(address).is_some() || self.maps.ipcache(address).is_some_and(of_node)
    }

    /// The pod that sent a packet which then went through the host's stack, by the device that it came in by; an IPv6
    /// fragment, which has none (see [`Self::is_from_socket`]), by its source.
    #[inline(always)]
    fn sending_pod(&self) -> Option<&'a EndpointEntry> {
        match self.packet.from_device() {
            0 if self.is_from_socket() => None,
            0 => self.maps.endpoint_by_address(&self.frame.parsed.source),
            device => self.maps.endpoint_by_interface(device),
        }
    }

    /// Judges what a pod sends off the node through the host's stack, whose NAT may have changed where it goes. The
    /// transport header is not read yet.
    #[inline(always)]
    fn judge_leaving(&mut self, pod: &EndpointEntry) -> Result<(), Dropped> {
        if self.packet.is_answer() {
            // The pod's hook has judged it by its connection, and the NAT may have translated it back to whom it hides.
            return Ok(());
        }
        self.frame.endpoint = pod.id as u16;
        self.frame.report.identities[0] = pod.identity;
        parse::transport(self.maps, &*self.packet, &mut self.frame.parsed)?;
        if self.frame.parsed.is_icmp_error() {
            // An error: its pod's hook has judged it by the connection that it quotes.
            return Ok(());
        }
        self.frame.sender = self.local_end(pod, &self.frame.parsed.source);
        self.frame.receiver = self.end_of(&self.frame.parsed.destination, Lookup::Destination);
        self.track(Place::Leaving)
    }

    /// Tracks the packet between the frame's ends: by its own connection, or, for an ICMP error, by the one that it quotes.
    #[inline(always)]
    fn track(&mut self, place: Place) -> Result<(), Dropped> {
        let Frame { now, parsed, inner, report, sender, receiver, .. } = &mut *self.frame;
        let is_error = parsed.is_icmp_error();
        let tracking = Tracking {
            maps: self.maps,
            packet: &*self.packet,
            settings: self.settings,
            now: *now,
            parsed: if is_error { inner } else { parsed },
            sender,
            receiver,
            place,
            is_error,
        };
        track(&tracking, report)
    }

    /// Reads the packet that an ICMP error quotes, and reverses it: its sender is then whoever got the quoted packet.
    /// The error is for whoever sent that packet, nobody else.
    #[inline(always)]
    fn read_quoted(&mut self) -> Result<(), Dropped> {
        let Frame { parsed, inner, .. } = &mut *self.frame;
        *inner = Parsed::default();
        parse::quoted(&*self.packet, parsed, inner)?;
        if inner.source != parsed.destination {
            return Err(dropped!(UnrelatedIcmpError));
        }
        core::mem::swap(&mut inner.source, &mut inner.destination);
        core::mem::swap(&mut inner.source_port, &mut inner.destination_port);
        inner.icmp_type = parse::echo_turned(inner.protocol, inner.icmp_type);
        Ok(())
    }
}

#[inline(always)]
fn is_icmp(protocol: u8) -> bool {
    protocol == crate::parse::protocol::ICMP || protocol == crate::parse::protocol::ICMPV6
}

#[inline(always)]
fn ip_version(parsed: &Parsed) -> u8 {
    match parsed.ether_type {
        crate::parse::ether_type::V4 => 4,
        crate::parse::ether_type::V6 => 6,
        _ => 0,
    }
}
