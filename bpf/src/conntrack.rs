//! Connections. This comment is the specification (datapath.md 6–17); the code follows by number.
//!
//!  6. Three LRU tables: TCP that opens, TCP that is open, everything else. So collection works while the agent is dead,
//!     and a SYN flood evicts half-open connections only. One entry serves both directions: the key is the canonical
//!     tuple, lower address and port first. Addresses are those after service translation and before masquerade. The
//!     ports of an ICMP request are (id, 0), those of its answer (0, id).
//!  7. An entry carries a stamp for each end: of a local endpoint its epoch, of any other end the ipcache generation.
//!     Words and generation are read first, tables and ipcache after, and the entry is stamped with what was read.
//!  8. Time-outs are checked at lookup: an expired entry counts as absent, and is overwritten where a new one is created.
//!     It is not deleted: by then another CPU may have put a new connection in its place.
//!  9. Hit, both stamps current, and the overlay's claim, if any, equal to the stored identity: the stored verdict holds.
//!     Otherwise the connection is judged again in its initiator's orientation, whichever way this packet goes, with
//!     fresh identities. If allowed, it is restamped, with an event only if the rule changed. If denied, the entry becomes
//!     a tombstone, whose time begins with this packet.
//! 10. A tombstone drops both directions until it has been idle for as long as its connection could have been, a stamp is
//!     stale, or a pure SYN comes. If it ended earlier, a refused TCP connection between two high ports could come back to
//!     life by 13: what its responder retransmits after a minute of silence would count as a connection of its own.
//!     For UDP and SCTP, a packet from the responder is judged as a connection of its own, but only once the responder has
//!     been silent for 5 s since the refusal, or 60 s have passed since then. Before that it counts as an answer already
//!     under way, and is refused: as a connection of the responder's it would let the initiator's packets pass as answers,
//!     and the refused traffic would continue (seen at 2,000 datagrams a second, once in 60 changes).
//! 11. If judging again demands a proxy that the entry does not have, it becomes a tombstone. If it no longer demands
//!     one, the connection stays with its proxy until it closes. A new connection that demands a proxy is dropped: there
//!     is no stage that could give it one.
//! 12. A pure SYN is never a reply. From the initiator it is a retransmission while the connection opens under current
//!     stamps; otherwise it is judged as new and the entry starts afresh. From the responder it is a connection of its own:
//!     if allowed, it replaces a closing or denied entry; over any other entry it passes and changes nothing.
//! 13. Miss, SYN or not TCP: the sender initiates. Miss in the middle of a TCP connection (eviction, upgrade): a SYN+ACK
//!     says that the sender is the responder; otherwise, if exactly one port is below 32768, its end is the responder;
//!     otherwise the sender initiates. That one orientation is judged. An entry is created only after every local
//!     judgement has allowed; a denied new connection leaves none, and neither does an RST or an ICMP answer that nobody
//!     asked for. A connection picked up in its middle counts as opening until both ends have sent something other than an
//!     RST, so that lone ACKs and the answers to them evict no open connection. Whether the host's NAT translates the
//!     connection is forgotten with its entry. So a responder's packet takes the stack and leaves no entry: the connection
//!     is picked up in front of a pod, or by its initiator's next packet.
//! 14. An ICMP error passes only if it quotes a connection that 9 allows and a packet that the error's receiver sent; from
//!     the wire only if that packet can have gone there, so not if it was for this node or another pod of it. It never
//!     creates, refreshes or changes an entry, even where 9 judges again for it: the connection's own next packet does
//!     that. RST and FIN shorten the time-out; data that comes after them restores it.
//! 15. If both ends are local, both are judged at once. An end that is not enforced here is stamped with the generation,
//!     which is never an epoch: so, if it gets an endpoint here, that endpoint's hook judges it.
//! 16. Through a looked-up entry only counters, times and flags are written. Everything else is written by key, since the
//!     table may have given the element to another connection. A copy of an entry is compared with its key before it is
//!     written back, and not written if the connection has gone meanwhile. Creation never overwrites: the entry that came
//!     first is used.
//! 17. A deleted endpoint has the drop slot and a new epoch: its entries are stale, and no sweep is needed. Packets that
//!     are refused because nobody has an address do not keep an entry alive. Otherwise it would still be there when the
//!     address has its next owner, and what is refused now would reach that one as answers that the last owner asked for.
//!
//! Who is behind a node's address can be told only by the initiator's packets: it is the host, or somebody whom the host's
//! NAT hides behind it. The answers of a translated connection take another way than those of the node's own processes.
//! So where 9 judges again for a responder's packet, such an end keeps the identity that it was found to have. An
//! initiator's packet from that address must come the same way as the earlier ones: one that came in by a device is not the
//! host's, even if a connection of the host has the same ports, and one that a socket of the host sent is not the world's.
//!
//! A packet from another machine is never taken for this node's, and one that comes outside the overlay never for one of
//! somebody who is reached through it (datapath.md 24). This is checked on established connections too, where otherwise
//! the stored verdict would hold.
//!
//! Neighbours: `policy.rs` answers for one end, `identity.rs` names an end; the hooks build the [`End`]s. Below:
//! `find.rs` looks entries up, `miss.rs` decides for a packet without one, `judge.rs` judges, `ends.rs` says who is at an
//! end of an established connection, `account.rs` counts, `entry.rs` reads an entry.

mod account;
mod ends;
mod entry;
mod find;
mod judge;
mod miss;

#[cfg(not(target_arch = "bpf"))]
pub use entry::remaining;
pub use entry::{is_closing, is_expired, key_of, timeout};
pub use judge::{End, Report};

use crate::abi::conntrack::{flag, half_flag, verdict};
use crate::abi::endpoint::stamp;
use crate::abi::{CtEntry, CtKey, event};
use crate::drop::{DropReason, Dropped, file};
use crate::dropped;
use crate::identity::{Lookup, reserved};
use crate::maps::{CtTable, Maps};
use crate::packet::Packet;
use crate::parse::{Parsed, protocol, tcp};
use crate::settings::Settings;

const FILE: u8 = file::CONNTRACK;

/// Everything about one packet that its connection is tracked with.
pub struct Tracking<'a, M, P> {
    /// The maps.
    pub maps: &'a M,
    /// The packet.
    pub packet: &'a P,
    /// Constants of the node.
    pub settings: &'a Settings,
    /// Time, nanoseconds of `CLOCK_MONOTONIC`.
    pub now: u64,
    /// What the packet says.
    pub parsed: &'a Parsed,
    /// Who sent it.
    pub sender: &'a End,
    /// Who gets it.
    pub receiver: &'a End,
    /// Where the packet is.
    pub place: Place,
    /// 14: the packet is an ICMP error, and everything else here is about the connection that it quotes: `parsed` is the
    /// quoted packet reversed, so that its sender is whoever got the quoted packet and its receiver whoever gets the error.
    pub is_error: bool,
}

/// Where a packet is tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Place {
    /// A pod has sent it.
    FromPod,
    /// It came from another machine. Whether its sender spoofs an address of this node's pods is looked up only where the
    /// packet is judged: a pod's end is stamped with its epoch, never with the generation that such a sender has, so a
    /// current entry shows that it does not.
    FromOutside,
    /// Out of the host's stack, on its way to a pod.
    ToPod,
    /// A pod's, out of the host's stack, on its way off the node. If the stack has left the addresses as they were, the
    /// pod's own hook has judged and counted it.
    Leaving,
}

impl Place {
    #[inline(always)]
    const fn is(self, other: Self) -> bool {
        self as u8 == other as u8
    }

    /// [`flag`]s of an entry that its initiator's packet creates here.
    #[inline(always)]
    const fn flags(self) -> u16 {
        match self {
            Self::FromPod | Self::FromOutside => 0,
            Self::ToPod => flag::VIA_STACK,
            Self::Leaving => flag::VIA_STACK | flag::TRANSLATED,
        }
    }
}

/// What to do about a packet once it is judged.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Plan {
    /// Create the entry.
    Create,
    /// Write it anew, whatever was there.
    Reset,
    /// Write it anew if what is there is closing or denied (12, from the responder).
    Replace,
    /// Restamp it, or make it a tombstone (9).
    Rejudge,
    /// Leave no entry (13, 14).
    Nothing,
}

/// Judges a packet by its connection; fills the report with what was judged.
#[inline(always)]
pub fn track<M: Maps, P: Packet>(t: &Tracking<'_, M, P>, report: &mut Report) -> Result<(), Dropped> {
    let (key, sender) = key_of(t.parsed);
    let pure_syn = !t.is_error && t.parsed.is_pure_syn();
    let mut expired = false;
    let (table, found) = find::find(t, &key, &mut expired);
    let plan;
    let sender_initiates;
    match &found {
        None => {
            if t.is_error {
                return Err(dropped!(UnrelatedIcmpError));
            }
            if t.place.is(Place::FromOutside)
                && t.sender.claimed == 0
                && ends::is_outside(t.maps, &t.sender.address)
            {
                // From outside the cluster: the pod's answers take the host's stack, which must see both directions.
                report.entry_flags = flag::VIA_STACK;
                return Ok(());
            }
            sender_initiates = miss::initiates(t.parsed);
            plan = if sender_initiates || t.place.is(Place::ToPod) {
                miss::plan(t.parsed, expired)
            } else {
                Plan::Nothing
            };
        }
        Some(entry) => {
            let entry: &CtEntry = entry;
            if t.place.is(Place::FromOutside) {
                ends::from_its_own_side(t, entry, sender)?;
            }
            let own_way = entry.flags & (flag::VIA_STACK | flag::TRANSLATED);
            if t.place.is(Place::FromOutside) && !t.is_error && own_way == flag::VIA_STACK {
                // The host's NAT and its checks see it first, then the hook in front of the pod judges and counts it. A
                // packet that the host translates back belongs to another connection there, so it is judged here.
                report.entry_flags = entry.flags;
                return Ok(());
            }
            let from_initiator = entry.initiator == sender;
            let current = is_current(entry, sender, from_initiator, t.sender, t.receiver);
            let denied = entry.verdict == verdict::DENY;
            if pure_syn {
                // 12.
                let opening = table as u8 == CtTable::TcpOpening as u8 && !entry::is_closing(entry);
                if from_initiator && opening && !denied && current {
                    if is_seen_before(t, entry) {
                        return Ok(());
                    }
                    account::hit(t, entry, sender, false, report);
                    return Ok(());
                }
                sender_initiates = true;
                plan = if from_initiator { Plan::Reset } else { Plan::Replace };
            } else if denied
                && !from_initiator
                && !t.is_error
                && entry::may_begin(entry, sender, t.parsed.protocol, t.now)
            {
                // 10.
                sender_initiates = true;
                plan = Plan::Reset;
            } else if current {
                if denied {
                    return Err(tombstone_hit(t, entry, sender, report));
                }
                if t.is_error {
                    report.reply_known(!from_initiator);
                    report.entry_flags = entry.flags;
                    return Ok(());
                }
                if is_seen_before(t, entry) {
                    return Ok(());
                }
                let opens = table as u8 == CtTable::TcpOpening as u8
                    && from_initiator
                    && t.parsed.tcp_flags & tcp::RST == 0
                    && is_answered(entry, sender);
                account::hit(t, entry, sender, !from_initiator, report);
                if opens {
                    find::promote(t, &key, entry);
                }
                return Ok(());
            } else {
                if t.place.is(Place::FromOutside)
                    && !t.is_error
                    && entry::stamp_of(entry, sender) & stamp::LOCAL != 0
                {
                    return Err(dropped!(SpoofedLocalSource));
                }
                sender_initiates = from_initiator;
                plan = Plan::Rejudge;
                if !from_initiator {
                    report.settled = ends::settle(t.maps, [t.sender, t.receiver], entry, sender);
                }
            }
        }
    }
    report.keep([plan as u8, table as u8, sender, u8::from(sender_initiates)]);
    let judged = judge::judge(t, sender_initiates, report);
    let [plan, table, sender, sender_initiates] = report.kept();
    let judged = report.forget(judged);
    let (sender, sender_initiates) = (sender & 1, sender_initiates != 0);
    let table = CtTable::from_number(table);
    let initiator = if sender_initiates { sender } else { 1 - sender };
    if plan == Plan::Rejudge as u8 {
        return match &found {
            Some(entry) => rejudged(t, table, &key, sender, entry, judged, report),
            None => Err(dropped!(CtInsertFailed)),
        };
    }
    report.reply_known(!sender_initiates);
    if judged.is_err() {
        report.entry_flags = report.egress_refused();
    }
    judged?;
    if report.listener != 0 {
        // 11.
        return Err(dropped!(ProxyMissing));
    }
    if plan == Plan::Nothing as u8 {
        report.entry_flags = if sender_initiates { t.place.flags() } else { flag::VIA_STACK };
        // A packet that takes the stack to a pod is reported in front of that pod; one that leaves the node was reported by
        // the hook of the pod that sent it.
        let on_its_way = !sender_initiates && t.receiver.local && !t.place.is(Place::ToPod);
        let told_elsewhere = t.place.is(Place::Leaving) || on_its_way;
        if !told_elsewhere {
            report.kind = event::kind::NEW;
        }
        return Ok(());
    }
    if plan == Plan::Replace as u8
        && let Some(entry) = &found
        && entry.verdict != verdict::DENY
        && !entry::is_closing(entry)
    {
        report.entry_flags = entry.flags;
        return Ok(());
    }
    let target = miss::table(t.parsed);
    if plan != Plan::Create as u8 && table as u8 != target as u8 {
        t.maps.conntrack_delete(table, &key);
    }
    let picked_up = t.parsed.protocol == protocol::TCP && !pure_syn;
    let made = match &found {
        // An opening entry that is stale may be of the pod's own SYN; over any other, its hook would have written anew.
        Some(entry)
            if t.place.is(Place::Leaving)
                && table as u8 == CtTable::TcpOpening as u8
                && !entry::is_closing(entry) =>
        {
            flag::VIA_STACK | entry.flags & flag::TRANSLATED
        }
        _ if sender_initiates => t.place.flags(),
        _ if reserved::is_beyond_the_cluster(report.identities[0]) => flag::VIA_STACK,
        _ => 0,
    };
    let flags = ends::via_stack(t.maps, t.receiver, report)
        | made
        | if picked_up { flag::PICKED_UP } else { 0 }
        | if report.audited() { flag::AUDIT } else { 0 };
    let stamps = entry::by_end(sender, t.sender.stamp, t.receiver.stamp);
    let identities = entry::by_end(sender, report.identities[0], report.identities[1]);
    let cookies = report.cookies;
    let fill = |entry: &mut CtEntry| {
        entry.stamps = stamps;
        entry.identities = identities;
        entry.cookies = cookies;
        entry.verdict = verdict::ALLOW;
        entry.initiator = initiator;
        entry.flags = flags;
        entry.created = t.now;
        account::first(t, entry, sender);
    };
    report.kind = event::kind::NEW;
    report.entry_flags = flags;
    if plan == Plan::Create as u8 {
        if t.maps.conntrack_create(target, &key, fill) {
            return Ok(());
        }
        return first_come(t, target, &key, sender, report);
    }
    let fill = |entry: &mut CtEntry| {
        fill(entry);
        true
    };
    if t.maps.conntrack_write(target, &key, None, fill) { Ok(()) } else { Err(dropped!(CtInsertFailed)) }
}

/// 9. What a node claims of an answer from its own address is not the identity of that end. An initiator's packet that came
///    in by a device is not the host's, and one from a socket of the host is not the world's.
#[inline(always)]
fn is_current(entry: &CtEntry, sender: u8, from_initiator: bool, from: &End, to: &End) -> bool {
    let (own, other) =
        if sender == 0 { (entry.stamps[0], entry.stamps[1]) } else { (entry.stamps[1], entry.stamps[0]) };
    let identity = entry::identity_of(entry, sender);
    let somebody_else = from_initiator
        && match from.lookup {
            Lookup::FromStack => identity == reserved::HOST,
            Lookup::FromSocket => reserved::is_world(identity),
            _ => false,
        };
    !somebody_else
        && own == from.stamp
        && other == to.stamp
        && (from.claimed == 0
            || from.claimed == identity
            || (!from_initiator && reserved::is_behind_a_node(identity)))
}

/// Whether a packet that leaves the node has been counted by the hook of the pod that sent it.
#[inline(always)]
fn is_seen_before<M: Maps, P: Packet>(t: &Tracking<'_, M, P>, entry: &CtEntry) -> bool {
    t.place.is(Place::Leaving) && entry.flags & flag::TRANSLATED == 0
}

/// 9 and 11, after the judgement.
#[inline(always)]
fn rejudged<M: Maps, P: Packet>(
    t: &Tracking<'_, M, P>,
    table: CtTable,
    key: &CtKey,
    sender: u8,
    entry: &CtEntry,
    judged: Result<(), Dropped>,
    report: &mut Report,
) -> Result<(), Dropped> {
    let judged = match judged {
        Ok(()) if report.listener != 0 && entry.listener != report.listener => Err(dropped!(ProxyMissing)),
        other => other,
    };
    let denied = match judged {
        Ok(()) => 0,
        Err(dropped) => dropped.number(),
    };
    let stamps = entry::by_end(sender, t.sender.stamp, t.receiver.stamp);
    let identities = entry::by_end(sender, report.identities[0], report.identities[1]);
    let cookies = report.cookies;
    let rule_changed = (entry.cookies[0] ^ cookies[0]) | (entry.cookies[1] ^ cookies[1]) != 0;
    let audited = denied == 0 && report.audited();
    let changing = flag::AUDIT | flag::EGRESS_REFUSED;
    let flags = entry.flags & !changing
        | if denied != 0 { report.egress_refused() } else { 0 }
        | if audited { flag::AUDIT } else { 0 };
    let again = account::Again {
        now: t.now,
        refused: denied != 0,
        of_nobody: is_of_nobody(denied),
        packets: if is_seen_before(t, entry) { 0 } else { account::packets(t) },
    };
    let mut still = true;
    let kind = &mut report.kind;
    let written = t.is_error
        || t.maps.conntrack_write(table, key, Some(entry), |copy| {
            copy.stamps = stamps;
            copy.identities = identities;
            copy.cookies = cookies;
            copy.verdict = if denied == 0 { verdict::ALLOW } else { verdict::DENY };
            copy.reason = denied;
            copy.flags = flags;
            // In the copy: what is added to the element that the copy replaces would be lost.
            *kind = account::again(t.parsed, copy, sender, &again);
            still = find::is_still(t, table, key, entry);
            still
        });
    report.flags |= event::flag::REJUDGED;
    report.entry_flags = flags;
    report.reply_known(entry.initiator != sender);
    judged?;
    if !written && still {
        return Err(dropped!(CtInsertFailed));
    }
    if !t.is_error {
        if rule_changed || entry.verdict == verdict::DENY {
            report.kind = event::kind::NEW;
        } else if report.kind == 0 && t.settings.report_interval == 0 {
            report.kind = event::kind::ALIVE;
        }
    }
    Ok(())
}

/// 10.
#[inline(always)]
fn tombstone_hit<M: Maps, P: Packet>(
    t: &Tracking<'_, M, P>,
    entry: &CtEntry,
    sender: u8,
    report: &mut Report,
) -> Dropped {
    if !t.is_error && !is_of_nobody(entry.reason) {
        account::refresh(t, entry, sender);
    }
    report.refused(entry, sender);
    report.entry_flags = entry.flags;
    report.reply_known(entry.initiator != sender);
    Dropped::by_number(entry.reason, FILE, line!())
}

/// 17: whether a packet was refused because nobody has the address of one of its ends.
#[inline(always)]
const fn is_of_nobody(reason: u16) -> bool {
    reason == DropReason::UnknownDestination as u16 || reason == DropReason::UnknownSender as u16
}

/// 16: another CPU created the entry between lookup and creation; if it allows, it is used.
#[inline(always)]
fn first_come<M: Maps, P: Packet>(
    t: &Tracking<'_, M, P>,
    table: CtTable,
    key: &CtKey,
    sender: u8,
    report: &mut Report,
) -> Result<(), Dropped> {
    report.kind = 0;
    let Some(entry) = t.maps.conntrack(table, key) else { return Err(dropped!(CtInsertFailed)) };
    if entry.verdict != verdict::ALLOW {
        report.refused(&entry, sender);
        return Err(Dropped::by_number(entry.reason, FILE, line!()));
    }
    report.entry_flags = entry.flags;
    account::add(t, &entry, sender);
    Ok(())
}

/// Whether the other end has sent something, but no RST: with this end's next packet the connection is open.
#[inline(always)]
fn is_answered(entry: &CtEntry, sender: u8) -> bool {
    let other = if sender == 0 { &entry.halves[1] } else { &entry.halves[0] };
    other.flags.get() & (half_flag::SEEN | tcp::RST as u64) == half_flag::SEEN
}

#[cfg(test)]
mod tests;
