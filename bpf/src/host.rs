//! The host build of the datapath's world: maps in plain memory and packets in byte buffers. Tests, `explain` and
//! `simulate` run the kernel's verdict code over it.
//!
//! Neighbours: `host/packet.rs` has the packets; `host/cases.rs` what must become of them, in a node of `host/world.rs`;
//! the agreement tests hold both builds against each other.

#[cfg(any(test, feature = "cases"))]
mod build;
#[cfg(any(test, feature = "cases"))]
mod case;
#[cfg(any(test, feature = "cases"))]
pub mod cases;
mod packet;
#[cfg(any(test, feature = "cases"))]
pub mod world;

#[cfg(any(test, feature = "cases"))]
pub use build::{Build, Part, Transport, arp};
#[cfg(any(test, feature = "cases"))]
pub use case::{Case, Counts, Expected, Step};
pub use packet::{HostPacket, Routes};

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::vec::Vec;

use crate::abi::{
    Address, CtEntry, CtKey, EndpointEntry, EventRecord, IpcacheEntry, PolicyEntry, PolicyKey, PrefixKey,
    StateWord,
};
use crate::maps::{
    AnswerCount, CtTable, DropCount, DropRecords, FragmentKey, FragmentPorts, Maps, RuleCount, TableCount,
    Urgency,
};

/// The maps of one node, in plain memory. What packets write lies in cells, as the kernel's maps do.
#[derive(Clone, Debug, Default)]
pub struct HostMaps {
    /// State words; 0 is the node's.
    pub words: BTreeMap<u32, StateWord>,
    /// Endpoints by the host side of their pair.
    pub interfaces: BTreeMap<u32, EndpointEntry>,
    /// Endpoints by their addresses.
    pub endpoints: BTreeMap<Address, EndpointEntry>,
    /// Pods and nodes by their addresses.
    pub ipcache: BTreeMap<Address, IpcacheEntry>,
    /// Ranges.
    pub ranges: BTreeMap<PrefixKey, IpcacheEntry>,
    /// Classes of policy prefixes.
    pub classes: BTreeMap<PrefixKey, u32>,
    /// Identities whose packets may be judged.
    pub known: Vec<u32>,
    /// Policy tables by slot: entries by prefix length (40–64) and key.
    pub policy: BTreeMap<u32, BTreeMap<(u8, PolicyKey), PolicyEntry>>,
    /// Connections.
    pub connections: RefCell<BTreeMap<(CtTable, CtKey), Rc<CtEntry>>>,
    /// Connections made and removed, by the number of the table.
    pub tables: RefCell<BTreeMap<u32, TableCount>>,
    /// Ports of fragmented datagrams.
    pub fragments: RefCell<BTreeMap<FragmentKey, FragmentPorts>>,
    /// Judgements by rule cookie.
    pub rules: RefCell<BTreeMap<u32, RuleCount>>,
    /// Drops by the number of their reason.
    pub drops: RefCell<BTreeMap<u16, DropCount>>,
    /// Answers to refused packets.
    pub answers: RefCell<AnswerCount>,
    /// Records of drops that were made and suppressed.
    pub drop_records: Cell<DropRecords>,
    /// Records left, with sequence numbers from 1 and the time of `clock`.
    pub events: RefCell<Vec<EventRecord>>,
    /// What records carry as their time, nanoseconds.
    pub clock: Cell<u64>,
}

impl HostMaps {
    /// Maps with nothing in them.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A connection, for tests to look at.
    #[must_use]
    pub fn connection(&self, table: CtTable, key: &CtKey) -> Option<Rc<CtEntry>> {
        self.connections.borrow().get(&(table, *key)).cloned()
    }

    /// Takes the records left so far.
    pub fn take_events(&self) -> Vec<EventRecord> {
        self.events.take()
    }
}

impl Maps for HostMaps {
    type Conntrack = Rc<CtEntry>;

    fn word(&self, index: u32) -> StateWord {
        self.words.get(&index).copied().unwrap_or_default()
    }

    fn endpoint_by_interface(&self, ifindex: u32) -> Option<&EndpointEntry> {
        self.interfaces.get(&ifindex)
    }

    fn endpoint_by_address(&self, address: &Address) -> Option<&EndpointEntry> {
        self.endpoints.get(address)
    }

    fn ipcache(&self, address: &Address) -> Option<&IpcacheEntry> {
        self.ipcache.get(address)
    }

    fn range(&self, address: &Address) -> Option<&IpcacheEntry> {
        longest(&self.ranges, address)
    }

    fn class(&self, address: &Address) -> u32 {
        longest(&self.classes, address).copied().unwrap_or_default()
    }

    fn known(&self, identity: u32) -> bool {
        self.known.contains(&identity)
    }

    fn policy(&self, slot: u32, key: &PolicyKey) -> Option<&PolicyEntry> {
        let table = self.policy.get(&slot)?;
        let bits = PolicyKey::PEER_BITS as u8..=PolicyKey::FULL_BITS as u8;
        bits.rev().find_map(|bits| table.get(&(bits, cut(key, bits))))
    }

    fn conntrack(&self, table: CtTable, key: &CtKey) -> Option<Rc<CtEntry>> {
        self.connection(table, key)
    }

    fn conntrack_create(&self, table: CtTable, key: &CtKey, fill: impl FnOnce(&mut CtEntry)) -> bool {
        !self.connections.borrow().contains_key(&(table, *key))
            && self.conntrack_write(table, key, None, |entry| {
                fill(entry);
                true
            })
    }

    fn conntrack_write(
        &self,
        table: CtTable,
        key: &CtKey,
        from: Option<&CtEntry>,
        fill: impl FnOnce(&mut CtEntry) -> bool,
    ) -> bool {
        let mut entry = from.cloned().unwrap_or_default();
        if !fill(&mut entry) {
            return false;
        }
        if self.connections.borrow_mut().insert((table, *key), Rc::new(entry)).is_none() {
            self.tables.borrow_mut().entry(table as u32).or_default().created += 1;
        }
        true
    }

    fn conntrack_delete(&self, table: CtTable, key: &CtKey) {
        if self.connections.borrow_mut().remove(&(table, *key)).is_some() {
            self.tables.borrow_mut().entry(table as u32).or_default().deleted += 1;
        }
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts> {
        self.fragments.borrow().get(key).copied()
    }

    fn fragment_write(&self, key: &FragmentKey, ports: &FragmentPorts) {
        self.fragments.borrow_mut().insert(*key, *ports);
    }

    fn count_rule(&self, cookie: u32, bytes: u32, now: u64) {
        let mut rules = self.rules.borrow_mut();
        let count = rules.entry(cookie).or_default();
        count.packets += 1;
        count.bytes += u64::from(bytes);
        count.last = now;
    }

    fn count_drop(&self, reason: u16, bytes: u32) {
        let mut drops = self.drops.borrow_mut();
        let count = drops.entry(reason).or_default();
        count.packets += 1;
        count.bytes += u64::from(bytes);
    }

    fn may_answer(&self, now: u64) -> bool {
        self.answers.borrow_mut().take(now)
    }

    fn may_report_drop(&self, now: u64, interval: u32) -> bool {
        let mut records = self.drop_records.get();
        let may = records.take(now, interval);
        self.drop_records.set(records);
        may
    }

    fn emit(&self, _: Urgency, fill: impl FnOnce(&mut EventRecord)) {
        let mut record = EventRecord::default();
        fill(&mut record);
        let mut events = self.events.borrow_mut();
        record.time = self.clock.get();
        record.sequence = events.len() as u32 + 1;
        events.push(record);
    }
}

/// The value with the longest prefix around an address.
fn longest<'a, V>(trie: &'a BTreeMap<PrefixKey, V>, address: &Address) -> Option<&'a V> {
    trie.iter()
        .filter(|(key, _)| prefix_of(address, key.prefix_len) == prefix_of(&key.address, key.prefix_len))
        .max_by_key(|(key, _)| key.prefix_len)
        .map(|(_, value)| value)
}

fn prefix_of(address: &Address, bits: u32) -> u128 {
    let value = address.0.iter().fold(0u128, |value, word| value << 32 | u128::from(u32::from_be(*word)));
    if bits == 0 { 0 } else { value >> (128 - bits.min(128)) }
}

/// A policy key with zeros behind a prefix, as tables hold them.
#[must_use]
pub fn cut(key: &PolicyKey, bits: u8) -> PolicyKey {
    let behind = bits.saturating_sub(PolicyKey::PEER_BITS as u8);
    let port_bits = u32::from(behind.saturating_sub(8)).min(16);
    let mask = if port_bits == 0 { 0 } else { u16::MAX << (16 - port_bits) };
    PolicyKey { protocol: if behind >= 8 { key.protocol } else { 0 }, port: key.port & mask.to_be(), ..*key }
}
