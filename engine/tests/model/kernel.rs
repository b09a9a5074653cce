//! What the agent and the kernel make of changes: maps in memory, written in the order of the changes, and read by the
//! kernel's own verdict code.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use sinew_api::identity::Identity;
use sinew_bpf::abi::{
    Address, CtEntry, CtKey, EndpointEntry, EventRecord, IpcacheEntry, PolicyEntry, PolicyKey, StateWord,
};
use sinew_bpf::drop::DropReason;
use sinew_bpf::maps::{CtTable, FragmentKey, FragmentPorts, Maps};
use sinew_bpf::policy::{Answer, Question, ask};
use sinew_engine::{Change, Direction, EndpointId, PolicyTable, TableKey};

/// The maps.
#[derive(Clone, Default)]
pub(crate) struct Kernel {
    pub(crate) endpoints: BTreeMap<EndpointId, (Identity, Arc<PolicyTable>)>,
    pub(crate) known: BTreeSet<Identity>,
    pub(crate) addresses: BTreeMap<IpAddr, IpcacheEntry>,
    pub(crate) ranges: BTreeMap<IpNet, IpcacheEntry>,
    pub(crate) classes: BTreeMap<IpNet, Identity>,
    pub(crate) revision: u64,
}

impl Kernel {
    /// Carries out one step.
    pub(crate) fn write(&mut self, change: &Change) {
        match change {
            Change::Endpoint { endpoint, identity, table } => {
                self.endpoints.insert(*endpoint, (*identity, Arc::clone(table)));
            }
            Change::EndpointClosed(endpoint) => {
                self.endpoints.remove(endpoint);
            }
            Change::ClassSet(prefix, class) => {
                self.classes.insert(*prefix, *class);
            }
            Change::ClassDelete(prefix) => {
                assert!(self.classes.remove(prefix).is_some(), "{prefix} has no class to take back");
            }
            Change::KnownAdd(identity) => {
                assert!(self.known.insert(*identity), "{identity} is KNOWN already");
            }
            Change::KnownDelete(identity) => {
                assert!(self.known.remove(identity), "{identity} is not KNOWN");
                let resolves = self.addresses.values().any(|entry| entry.identity == identity.0);
                assert!(!resolves, "{identity} leaves while an address resolves to it");
            }
            Change::IpcacheSet(address, entry) => {
                let identity = Identity(entry.identity);
                assert!(
                    self.known.contains(&identity),
                    "{address} resolves to {identity}, which isn't KNOWN"
                );
                self.addresses.insert(*address, *entry);
            }
            Change::IpcacheDelete(address) => {
                assert!(self.addresses.remove(address).is_some(), "{address} does not resolve");
            }
            Change::RangeSet(range, entry) => {
                self.ranges.insert(*range, *entry);
            }
            Change::RangeDelete(range) => {
                assert!(self.ranges.remove(range).is_some(), "{range} does not resolve");
            }
            Change::Revision(revision) => {
                assert!(*revision > self.revision, "the revision falls to {revision}");
                self.revision = *revision;
            }
            Change::Remember(_)
            | Change::PolicyValid(_)
            | Change::PolicyGone(_)
            | Change::AllocateIdentity(_)
            | Change::Announce { .. }
            | Change::Grace
            | Change::Generation => {}
        }
    }

    /// What the tables of an endpoint say.
    pub(crate) fn judge(
        &self,
        endpoint: EndpointId,
        direction: Direction,
        peer: Identity,
        address: IpAddr,
        protocol: u8,
        port: u16,
    ) -> Result<Answer, DropReason> {
        let question = Question {
            slot: u32::from(endpoint.0),
            direction: direction.number(),
            peer: peer.0,
            address: Address::from(address),
            protocol,
            port: port.to_be(),
        };
        let mut answer = Answer::default();
        ask(self, &question, &mut answer).map_err(|dropped| dropped.reason().unwrap())?;
        Ok(answer)
    }

    /// Who an address is, as the kernel finds it.
    pub(crate) fn identity_of(&self, address: IpAddr) -> Identity {
        match self.addresses.get(&address) {
            Some(entry) => Identity(entry.identity),
            None if address.is_ipv4() => Identity::WORLD_IPV4,
            None => Identity::WORLD_IPV6,
        }
    }
}

impl Maps for Kernel {
    type Conntrack = Box<CtEntry>;

    fn word(&self, _: u32) -> StateWord {
        StateWord::default()
    }
    fn endpoint_by_interface(&self, _: u32) -> Option<&EndpointEntry> {
        None
    }
    fn endpoint_by_address(&self, _: &Address) -> Option<&EndpointEntry> {
        None
    }
    fn ipcache(&self, address: &Address) -> Option<&IpcacheEntry> {
        self.addresses.get(&IpAddr::from(*address))
    }
    fn range(&self, _: &Address) -> Option<&IpcacheEntry> {
        None
    }
    /// As the kernel's trie does it: over 128 bits, in which IPv4 is a part of IPv6.
    fn class(&self, address: &Address) -> u32 {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
            IpAddr::V6(v6) => u128::from(v6),
        };
        let wanted = bits(IpAddr::from(*address));
        let length = |prefix: &IpNet| match prefix {
            IpNet::V4(v4) => 96 + v4.prefix_len(),
            IpNet::V6(v6) => v6.prefix_len(),
        };
        self.classes
            .iter()
            .filter(|(prefix, _)| {
                let shift = u32::from(128 - length(prefix));
                (bits(prefix.addr()) ^ wanted).checked_shr(shift).unwrap_or(0) == 0
            })
            .max_by_key(|(prefix, _)| length(prefix))
            .map_or(0, |(_, class)| class.0)
    }
    fn known(&self, identity: u32) -> bool {
        self.known.contains(&Identity(identity))
    }
    fn policy(&self, slot: u32, key: &PolicyKey) -> Option<&PolicyEntry> {
        let (_, table) = self.endpoints.get(&EndpointId(slot as u16))?;
        let port = u16::from_be(key.port);
        (40..=64u8).rev().find_map(|prefix_len| {
            let protocol = if prefix_len >= 48 { key.protocol } else { 0 };
            let mask = 0xffff_u16.checked_shl(u32::from(64 - prefix_len)).unwrap_or(0);
            let key = PolicyKey { protocol, port: (port & mask).to_be(), ..*key };
            table.entries.get(&TableKey { prefix_len, key })
        })
    }
    fn conntrack(&self, _: CtTable, _: &CtKey) -> Option<Self::Conntrack> {
        None
    }
    fn conntrack_create(&self, _: CtTable, _: &CtKey, _: impl FnOnce(&mut CtEntry)) -> bool {
        false
    }
    fn conntrack_write(
        &self,
        _: CtTable,
        _: &CtKey,
        _: Option<&CtEntry>,
        _: impl FnOnce(&mut CtEntry),
    ) -> bool {
        false
    }
    fn conntrack_delete(&self, _: CtTable, _: &CtKey) {}
    fn fragment(&self, _: &FragmentKey) -> Option<FragmentPorts> {
        None
    }
    fn fragment_write(&self, _: &FragmentKey, _: &FragmentPorts) {}
    fn count_rule(&self, _: u32, _: u32, _: u64) {}
    fn count_drop(&self, _: u16, _: u32) {}
    fn emit(&self, _: impl FnOnce(&mut EventRecord)) {}
}
