//! The maps that the stages look into, as a trait: the programs implement it over kernel maps, the host build over
//! plain memory (`host.rs`), so that the same verdict code runs in the kernel, in tests and in `explain`.

use core::ops::Deref;

use crate::abi::{
    Address, CtEntry, CtKey, EndpointEntry, EventRecord, IpcacheEntry, PolicyEntry, PolicyKey, StateWord,
};

/// The three connection tables: a SYN flood evicts half-open connections only (datapath.md 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CtTable {
    /// TCP before the initiator has answered the SYN+ACK.
    TcpOpening,
    /// TCP.
    Tcp,
    /// Everything else.
    Any,
}

/// Number of connection tables.
pub const CONNECTION_TABLES: u32 = 3;

impl CtTable {
    /// The table of a number that `as u8` gave.
    #[inline(always)]
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::TcpOpening,
            1 => Self::Tcp,
            _ => Self::Any,
        }
    }
}

/// Names a fragmented datagram: addresses, id, protocol and the interface that its fragments came in by.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FragmentKey {
    /// Source.
    pub source: Address,
    /// Destination.
    pub destination: Address,
    /// IPv4 identification or IPv6 fragment identification.
    pub id: u32,
    /// Interface of the hook.
    pub ifindex: u32,
    /// IANA protocol number in IPv4, 0 in IPv6.
    pub protocol: u32,
}

/// What the first fragment said.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentPorts {
    /// Source port, or ICMP echo identifier, network order.
    pub source: u16,
    /// Destination port, network order.
    pub destination: u16,
    /// ICMP type.
    pub icmp_type: u8,
    /// ICMP code.
    pub icmp_code: u8,
    /// IANA number of the protocol whose header it holds.
    pub protocol: u8,
    /// Zero.
    pub reserved: u8,
}

/// Judgements by one rule, on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleCount {
    /// Packets that were judged: the first of a connection, each denied one, and each that met a stale stamp.
    pub packets: u64,
    /// Bytes of those packets from the link header on.
    pub bytes: u64,
    /// Time of the last one, nanoseconds of `CLOCK_MONOTONIC`.
    pub last: u64,
}

/// Packets dropped for one reason, on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropCount {
    /// Packets.
    pub packets: u64,
    /// Bytes from the link header on.
    pub bytes: u64,
}

/// Entries of one connection table that were made and removed, on one CPU. The kernel evicted those that are gone and that
/// neither the programs nor the agent removed (datapath.md 6).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableCount {
    /// Entries made under a key that had none.
    pub created: u64,
    /// Entries removed.
    pub deleted: u64,
}

/// Number of counters in the drop counter map.
pub const DROP_COUNTERS: u32 = 512;

/// Index of a reason's counter: Hubble's numbers unchanged, our own after them.
#[inline(always)]
#[must_use]
pub const fn drop_counter(reason: u16) -> u32 {
    let index = if reason < 1000 { reason as u32 } else { reason as u32 - 1000 + 256 };
    index & (DROP_COUNTERS - 1)
}

/// Answers to refused packets, on one CPU: a bucket of tokens.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AnswerCount {
    /// When the bucket was last filled, nanoseconds of `CLOCK_MONOTONIC`.
    pub filled: u64,
    /// Answers that may be made before it is filled again.
    pub tokens: u64,
    /// Answers made.
    pub made: u64,
    /// Answers not made for want of a token.
    pub withheld: u64,
}

impl AnswerCount {
    /// Answers that a CPU makes in a second, and also the size of the bucket: enough for a person's retries, too few for a
    /// flood of refused packets to amplify.
    pub const EACH_SECOND: u64 = 100;

    /// Takes a token.
    #[inline(always)]
    pub fn take(&mut self, now: u64) -> bool {
        if now.wrapping_sub(self.filled) >= 1_000_000_000 {
            self.filled = now;
            self.tokens = Self::EACH_SECOND;
        }
        if self.tokens == 0 {
            self.withheld += 1;
            return false;
        }
        self.tokens -= 1;
        self.made += 1;
        true
    }
}

/// Rate limit for records of dropped packets on one CPU.
///
/// Without it a flood of refused packets would take the reader's processor and push everything else out of the flows that
/// a node keeps. What is suppressed here is a record, never a count: drops are counted packet by packet ([`DropCount`]).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropRecords {
    /// When the records made so far are paid for, nanoseconds of `CLOCK_MONOTONIC`: each one postpones it by an interval.
    pub paid: u64,
    /// Records not made.
    pub suppressed: u64,
}

impl DropRecords {
    /// A CPU that had no drops for a while may report as many at once as fit into this time, nanoseconds.
    const BURST: u64 = 1_000_000_000;

    /// Whether one more may be made, where each takes `interval` nanoseconds in the long run.
    #[inline(always)]
    pub fn take(&mut self, now: u64, interval: u32) -> bool {
        let earliest = now.saturating_sub(Self::BURST);
        let paid = if self.paid > earliest { self.paid } else { earliest };
        if paid > now {
            self.suppressed += 1;
            return false;
        }
        self.paid = paid + u64::from(interval);
        true
    }
}

/// What one CPU's ring has taken and lost.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingCount {
    /// Records that were due, taken or lost.
    pub sequence: u64,
    /// Records lost because the ring was full, for traces because three quarters of it were.
    pub lost: u64,
}

/// What a ring does with a record where room is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// It reports a drop: it may take the last byte.
    Drop,
    /// It reports what became of an allowed packet: it leaves a quarter of the ring to drops.
    Trace,
}

/// What stages read and write. Everything is looked up at the moment of the call; nothing is cached between packets.
pub trait Maps {
    /// A connection entry that stays readable although the table may replace it.
    type Conntrack: Deref<Target = CtEntry>;

    /// The state word at an index; index 0 is the node's. Zero beyond the array.
    fn word(&self, index: u32) -> StateWord;
    /// The endpoint behind an interface.
    fn endpoint_by_interface(&self, ifindex: u32) -> Option<&EndpointEntry>;
    /// The endpoint of this node with an address.
    fn endpoint_by_address(&self, address: &Address) -> Option<&EndpointEntry>;
    /// A pod or node by its exact address.
    fn ipcache(&self, address: &Address) -> Option<&IpcacheEntry>;
    /// The longest known range around an address.
    fn range(&self, address: &Address) -> Option<&IpcacheEntry>;
    /// The class of the longest policy prefix around an address, 0 for none (policy.md 5).
    fn class(&self, address: &Address) -> u32;
    /// Whether tables hold an identity's entries (datapath.md 4).
    fn known(&self, identity: u32) -> bool;
    /// The entry with the longest prefix of a key in a slot's table; none if the slot has no table.
    fn policy(&self, slot: u32, key: &PolicyKey) -> Option<&PolicyEntry>;
    /// A connection.
    fn conntrack(&self, table: CtTable, key: &CtKey) -> Option<Self::Conntrack>;
    /// Creates a connection unless its key is there; whether it could. `fill` gets a zeroed entry.
    fn conntrack_create(&self, table: CtTable, key: &CtKey, fill: impl FnOnce(&mut CtEntry)) -> bool;
    /// Writes a connection by key, new or not, from what `fill` makes of a copy of `from`, zeroed without one; nothing
    /// where `fill` says no. Whether it could.
    fn conntrack_write(
        &self,
        table: CtTable,
        key: &CtKey,
        from: Option<&CtEntry>,
        fill: impl FnOnce(&mut CtEntry) -> bool,
    ) -> bool;
    /// Removes a connection.
    fn conntrack_delete(&self, table: CtTable, key: &CtKey);
    /// What the first fragment of a datagram said.
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts>;
    /// Remembers what it said.
    fn fragment_write(&self, key: &FragmentKey, ports: &FragmentPorts);
    /// Counts a judgement for the rule behind a cookie.
    fn count_rule(&self, cookie: u32, bytes: u32, now: u64);
    /// Counts a dropped packet.
    fn count_drop(&self, reason: u16, bytes: u32);
    /// Whether a refused packet may be answered now.
    fn may_answer(&self, now: u64) -> bool;
    /// Whether a dropped packet may be reported now, where each report takes `interval` nanoseconds in the long run.
    fn may_report_drop(&self, now: u64, interval: u32) -> bool;
    /// Writes a record to this CPU's ring, with time and sequence; `fill` gets a zeroed record.
    fn emit(&self, urgency: Urgency, fill: impl FnOnce(&mut EventRecord));
}
