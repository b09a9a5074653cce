//! Which verdict a table has for a packet. This comment is the specification; the code follows by number.
//!
//! 1. The peer's identity must be one that the tables know ([`Maps::known`]); a packet of another identity is dropped with
//!    its own reason and never matches a wildcard (datapath.md 4).
//! 2. Up to three keys are looked up: the peer's identity, the class of its address (the longest policy prefix that
//!    contains it; none for most addresses), and any peer. For each key the longest prefix of protocol and port counts.
//! 3. Of the entries found, the one with the highest precedence decides: deny before allow before the default entry.
//!    With equal precedence, the longest protocol and port prefix; with equal prefixes, identity before class before any.
//! 4. Each complete table has a default entry for any peer in each direction. So a lookup without any result means
//!    that the endpoint has no table, and the packet is dropped as not ready.
//! 5. The shadow verdict is found by the same rules over the shadow halves of the same entries. It never changes what
//!    happens; where it denies what the enforced verdict allows, the flow is reported as audited (policy.md 13).
//!
//! Neighbours: `conntrack.rs` asks for a new connection or a stale stamp; `sinew_engine::policy` writes the entries.

use crate::abi::policy::verdict;
use crate::abi::{Address, PolicyEntry, PolicyKey};
use crate::drop::{Dropped, file};
use crate::dropped;
use crate::maps::Maps;

const FILE: u8 = file::POLICY;

/// Which key decided.
pub mod matched {
    /// Any peer.
    pub const ANY: u8 = 0;
    /// The class of the peer's address.
    pub const CLASS: u8 = 1;
    /// The peer's identity.
    pub const IDENTITY: u8 = 2;
}

/// What is asked: the other side of a connection and its traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Slot of the endpoint's table.
    pub slot: u32,
    /// [`crate::abi::policy::direction`].
    pub direction: u8,
    /// Identity of the peer.
    pub peer: u32,
    /// Address of the peer.
    pub address: Address,
    /// IANA protocol number.
    pub protocol: u8,
    /// Destination port or ICMP type, network order.
    pub port: u16,
}

/// A table's answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// [`verdict`].
    pub verdict: u8,
    /// [`verdict`] with audit policies.
    pub shadow_verdict: u8,
    /// [`matched`] in bits 5–6, protocol and port bits in bits 0–4.
    pub matches: u8,
    /// Zero.
    pub reserved: u8,
    /// Listener that must have the connection.
    pub listener: u16,
    /// Zero.
    pub reserved2: u16,
    /// The rule, or who switched default deny on.
    pub cookie: u32,
    /// The same of the shadow verdict.
    pub shadow_cookie: u32,
}

impl Answer {
    /// Whether the packet may pass.
    #[inline(always)]
    #[must_use]
    pub const fn allows(&self) -> bool {
        self.verdict == verdict::ALLOW
    }

    /// Why it may not.
    #[inline(always)]
    #[must_use]
    pub fn refusal(&self) -> Dropped {
        if self.verdict == verdict::DENY { dropped!(DeniedByRule) } else { dropped!(PolicyDenied) }
    }
}

/// Asks a table.
#[inline(always)]
pub fn ask<M: Maps>(maps: &M, question: &Question, answer: &mut Answer) -> Result<(), Dropped> {
    // 1.
    if !maps.known(question.peer) {
        return Err(dropped!(InvalidIdentity));
    }
    // 2, any peer first: 4.
    let mut key = PolicyKey {
        peer: 0,
        direction: question.direction,
        protocol: question.protocol,
        port: question.port,
    };
    let mut best = Best::default();
    let Some(entry) = maps.policy(question.slot, &key) else { return Err(dropped!(EndpointNotReady)) };
    best.consider(entry, matched::ANY);
    let class = maps.class(&question.address);
    if class != 0 {
        key.peer = class;
        if let Some(entry) = maps.policy(question.slot, &key) {
            best.consider(entry, matched::CLASS);
        }
    }
    key.peer = question.peer;
    if let Some(entry) = maps.policy(question.slot, &key) {
        best.consider(entry, matched::IDENTITY);
    }
    *answer = best.answer;
    Ok(())
}

/// The best entries so far, enforced and shadow.
#[derive(Default)]
struct Best {
    rank: u64,
    shadow_rank: u64,
    answer: Answer,
}

impl Best {
    /// 3, as one comparison: precedence, then prefix bits, then the key. Keys come in rising order.
    #[inline(always)]
    fn consider(&mut self, entry: &PolicyEntry, matched: u8) {
        let rank = rank(entry.precedence, entry.l4_bits, matched);
        if rank >= self.rank {
            self.rank = rank;
            self.answer.verdict = entry.verdict;
            self.answer.cookie = entry.cookie;
            self.answer.listener = entry.listener;
            self.answer.matches = matched << 5 | (entry.l4_bits & 0x1f);
        }
        // 5.
        let shadow_rank = self::rank(entry.shadow_precedence, entry.shadow_l4_bits, matched);
        if shadow_rank >= self.shadow_rank {
            self.shadow_rank = shadow_rank;
            self.answer.shadow_verdict = entry.shadow_verdict;
            self.answer.shadow_cookie = entry.shadow_cookie;
        }
    }
}

#[inline(always)]
const fn rank(precedence: u32, l4_bits: u8, matched: u8) -> u64 {
    (precedence as u64) << 16 | (l4_bits as u64) << 8 | matched as u64
}

#[cfg(test)]
mod tests;
