//! One judgement: the initiator's egress and the responder's ingress, those that are enforced here.

use super::Tracking;
use crate::abi::conntrack::flag;
use crate::abi::policy::{direction, verdict};
use crate::abi::{Address, CtEntry, event};
use crate::drop::{DropReason, Dropped, file};
use crate::dropped;
use crate::identity::{self, Lookup};
use crate::maps::Maps;
use crate::packet::Packet;
use crate::parse::{icmp, protocol};
use crate::policy::{self, Answer, Question};

const FILE: u8 = file::JUDGE;

/// An end is to be looked up as the destination of the initiator's packets ([`Report::settled`]).
pub(super) const AS_DESTINATION: u32 = u32::MAX;

/// One end of a connection, as it is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// Its address.
    pub address: Address,
    /// Its identity, where `lookup` is [`Lookup::Known`].
    pub identity: u32,
    /// How its identity is found.
    pub lookup: Lookup,
    /// Whether it is an endpoint of this node, so that its table is asked.
    pub local: bool,
    /// Whether that endpoint's packets take the host's stack ([`crate::abi::endpoint::flag::VIA_STACK`]).
    pub shaped: bool,
    /// Number of that endpoint.
    pub endpoint: u16,
    /// What its stamp is now.
    pub stamp: u32,
    /// Slot of its table.
    pub slot: u32,
    /// The identity that the overlay claims for it, 0 where nothing is claimed.
    pub claimed: u32,
}

/// What was judged, for the event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// [`event::kind`], 0 for no event.
    pub kind: u8,
    /// [`event::flag`].
    pub flags: u8,
    /// Enforced verdict in the low nibble, shadow verdict in the high one; egress, ingress.
    pub verdicts: [u8; 2],
    /// [`policy::Answer::matches`]; egress, ingress.
    pub matches: [u8; 2],
    /// Identities of the packet's source and destination.
    pub identities: [u32; 2],
    /// Cookies; egress, ingress.
    pub cookies: [u32; 2],
    /// Cookies of the shadow verdicts; egress, ingress.
    pub shadow_cookies: [u32; 2],
    /// Proxy listener that the judgements demand, 0 for none.
    pub listener: u16,
    /// Flags of the connection's entry ([`crate::abi::conntrack::flag`]).
    pub entry_flags: u16,
    /// Identities of the packet's source and destination that are known before it is judged again, [`AS_DESTINATION`],
    /// or 0 to look them up as the ends say.
    pub(super) settled: [u32; 2],
    decision: u32,
}

impl Report {
    /// Whether a shadow verdict denies what is allowed. Asked only of what is allowed.
    #[inline(always)]
    #[must_use]
    pub fn audited(&self) -> bool {
        // One comparison at the end: BPF has no instruction that turns a comparison into a value, so each is a branch, and
        // each branch doubles what the verifier walks through after it.
        let differs = |judged: u8, verdicts: u8| judged.wrapping_neg() & ((verdicts >> 4) ^ verdict::ALLOW);
        let egress = (self.flags & event::flag::EGRESS_JUDGED) / event::flag::EGRESS_JUDGED;
        let ingress = (self.flags & event::flag::INGRESS_JUDGED) / event::flag::INGRESS_JUDGED;
        differs(egress, self.verdicts[0]) | differs(ingress, self.verdicts[1]) != 0
    }

    /// [`flag::EGRESS_REFUSED`] where the egress judgement refused, else 0.
    #[inline(always)]
    pub(super) fn egress_refused(&self) -> u16 {
        if self.flags & event::flag::EGRESS_JUDGED != 0 && self.verdicts[0] & 0xf != verdict::ALLOW {
            flag::EGRESS_REFUSED
        } else {
            0
        }
    }

    /// Keeps four small numbers over a judgement, where the verifier does not follow them.
    ///
    /// In registers they would be constants, and the verifier would walk through the judgement once for each combination;
    /// read back from map memory they could be any number, so it does so once (60k instructions, not 387k; kernel 6.18).
    #[inline(always)]
    #[allow(unsafe_code, reason = "a volatile access is the one that the compiler does not skip")]
    pub(super) fn keep(&mut self, numbers: [u8; 4]) {
        // SAFETY: a field of `self`, aligned.
        unsafe { (&raw mut self.decision).write_volatile(u32::from_le_bytes(numbers)) }
    }

    /// The numbers that were kept.
    #[inline(always)]
    #[allow(unsafe_code, reason = "a volatile access is the one that the compiler does not skip")]
    pub(super) fn kept(&self) -> [u8; 4] {
        // SAFETY: as in `keep`.
        unsafe { (&raw const self.decision).read_volatile() }.to_le_bytes()
    }

    /// Sends a result through memory, for the same reason: each drop is a constant of its own.
    #[inline(always)]
    pub(super) fn forget(&mut self, result: Result<(), Dropped>) -> Result<(), Dropped> {
        let word = match result {
            Ok(()) => 0,
            Err(dropped) => dropped.word(),
        };
        self.keep(word.to_le_bytes());
        Dropped::from_word(u32::from_le_bytes(self.kept()))
    }

    /// The direction is known.
    #[inline(always)]
    pub fn reply_known(&mut self, reply: bool) {
        self.flags |= event::flag::DIRECTION_KNOWN;
        if reply {
            self.flags |= event::flag::REPLY;
        }
    }

    /// Takes from a tombstone who refused it and why, so that each packet that meets it is reported like the one that made
    /// it. One that no policy refused (an identity that is gone, a missing proxy) has no judgement to report.
    ///
    /// Out of line for the verifier's sake: its branches end where it returns.
    #[inline(never)]
    pub(super) fn refused(&mut self, entry: &CtEntry, sender: u8) {
        const DEFAULT_DENY: u16 = DropReason::PolicyDenied as u16;
        const DENY: u16 = DropReason::DeniedByRule as u16;
        self.stored(entry, sender);
        self.flags &= !(event::flag::EGRESS_JUDGED | event::flag::INGRESS_JUDGED);
        let verdict = match entry.reason {
            DEFAULT_DENY => verdict::DEFAULT_DENY,
            DENY => verdict::DENY,
            _ => return,
        };
        if entry.flags & flag::EGRESS_REFUSED != 0 {
            self.flags |= event::flag::EGRESS_JUDGED;
            self.verdicts[0] = verdict | verdict << 4;
        } else {
            self.flags |= event::flag::INGRESS_JUDGED;
            self.verdicts[1] = verdict | verdict << 4;
        }
    }

    /// Takes from an entry what was judged before.
    #[inline(always)]
    pub(super) fn stored(&mut self, entry: &CtEntry, sender: u8) {
        self.identities = super::entry::by_end(sender, entry.identities[0], entry.identities[1]);
        self.cookies = entry.cookies;
    }
}

/// Judges one orientation.
#[inline(always)]
pub(super) fn judge<M: Maps, P: Packet>(
    t: &Tracking<'_, M, P>,
    sender_initiates: bool,
    report: &mut Report,
) -> Result<(), Dropped> {
    identify(t, t.sender, report.settled[0], &mut report.identities[0])?;
    identify(t, t.receiver, report.settled[1], &mut report.identities[1])?;
    let port = policy_port(t, sender_initiates);
    // The sender's side first, whichever judgement that is; then the receiver's.
    if t.sender.local {
        let side = if sender_initiates { direction::EGRESS } else { direction::INGRESS };
        ask(t, report, t.sender, side, report.identities[1], &t.receiver.address, port)?;
    }
    if t.receiver.local {
        let side = if sender_initiates { direction::INGRESS } else { direction::EGRESS };
        ask(t, report, t.receiver, side, report.identities[0], &t.sender.address, port)?;
    }
    Ok(())
}

#[inline(always)]
fn identify<M: Maps, P: Packet>(
    t: &Tracking<'_, M, P>,
    end: &End,
    settled: u32,
    identity: &mut u32,
) -> Result<(), Dropped> {
    if settled != 0 && settled != AS_DESTINATION {
        *identity = settled;
        return Ok(());
    }
    if end.local {
        // 7: looked up again, since what was read before the word may be older than the epoch that the word names.
        let Some(endpoint) = t.maps.endpoint_by_address(&end.address) else {
            return Err(dropped!(EndpointNotReady));
        };
        *identity = endpoint.identity;
        return Ok(());
    }
    if end.lookup as u8 == Lookup::Known as u8 {
        *identity = end.identity;
        return Ok(());
    }
    let lookup = if settled == 0 { end.lookup } else { Lookup::Destination };
    identity::resolve(t.maps, t.packet, t.settings, lookup, &end.address, identity)
}

#[inline(always)]
fn ask<M: Maps, P: Packet>(
    t: &Tracking<'_, M, P>,
    report: &mut Report,
    judge: &End,
    side: u8,
    peer: u32,
    address: &Address,
    port: u16,
) -> Result<(), Dropped> {
    let question = Question {
        slot: judge.slot,
        direction: side,
        peer,
        address: *address,
        protocol: t.parsed.protocol,
        port,
    };
    let mut answer = Answer::default();
    policy::ask(t.maps, &question, &mut answer)?;
    t.maps.count_rule(answer.cookie, t.packet.length(), t.now);
    let verdicts = answer.verdict | answer.shadow_verdict << 4;
    if side == direction::EGRESS {
        report.flags |= event::flag::EGRESS_JUDGED;
        report.verdicts[0] = verdicts;
        report.matches[0] = answer.matches;
        report.cookies[0] = answer.cookie;
        report.shadow_cookies[0] = answer.shadow_cookie;
    } else {
        report.flags |= event::flag::INGRESS_JUDGED;
        report.verdicts[1] = verdicts;
        report.matches[1] = answer.matches;
        report.cookies[1] = answer.cookie;
        report.shadow_cookies[1] = answer.shadow_cookie;
    }
    report.listener |= answer.listener;
    if answer.allows() { Ok(()) } else { Err(answer.refusal()) }
}

/// The responder's port as policy sees it; for ICMP, the type of the initiator's message.
#[inline(always)]
fn policy_port<M: Maps, P: Packet>(t: &Tracking<'_, M, P>, sender_initiates: bool) -> u16 {
    let parsed = t.parsed;
    let (initiator, responder) = if sender_initiates {
        (parsed.source_port, parsed.destination_port)
    } else {
        (parsed.destination_port, parsed.source_port)
    };
    let echo = match parsed.protocol {
        protocol::ICMP => icmp::ECHO,
        protocol::ICMPV6 => icmp::V6_ECHO,
        _ => return responder,
    };
    if sender_initiates {
        u16::from(parsed.icmp_type).to_be()
    } else if initiator == u16::MAX && responder != 0 {
        // Not an echo, which has 0 as its responder's port whatever its identifier.
        responder
    } else {
        u16::from(echo).to_be()
    }
}
