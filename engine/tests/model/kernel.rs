//! What the agent and the kernel make of changes: maps in memory, written in the order of the changes, and read by the
//! kernel's own verdict code.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use sinew_api::identity::Identity;
use sinew_bpf::abi::{Address, IpcacheEntry, PrefixKey};
use sinew_bpf::drop::DropReason;
use sinew_bpf::host::HostMaps;
use sinew_bpf::policy::{Answer, Question, ask};
use sinew_engine::{Change, Direction, EndpointId, PolicyTable};

/// The maps.
#[derive(Clone, Default)]
pub(crate) struct Kernel {
    pub(crate) endpoints: BTreeMap<EndpointId, (Identity, Arc<PolicyTable>)>,
    pub(crate) known: BTreeSet<Identity>,
    pub(crate) addresses: BTreeMap<IpAddr, IpcacheEntry>,
    pub(crate) ranges: BTreeMap<IpNet, IpcacheEntry>,
    pub(crate) classes: BTreeMap<IpNet, Identity>,
    pub(crate) revision: u64,
    /// Addresses may resolve to identities that are held back.
    pub(crate) holds_back: bool,
    /// What the verdict code reads.
    maps: HostMaps,
}

impl Kernel {
    /// Carries out one step.
    pub(crate) fn write(&mut self, change: &Change) {
        match change {
            Change::Endpoint { endpoint, identity, table } => {
                self.endpoints.insert(*endpoint, (*identity, Arc::clone(table)));
                let entries = table.entries.iter().map(|(key, entry)| ((key.prefix_len, key.key), *entry));
                self.maps.policy.insert(u32::from(endpoint.0), entries.collect());
            }
            Change::EndpointClosed(endpoint) => {
                self.endpoints.remove(endpoint);
                self.maps.policy.remove(&u32::from(endpoint.0));
            }
            Change::ClassSet(prefix, class) => {
                self.classes.insert(*prefix, *class);
                self.maps.classes.insert(prefix_key(prefix), class.0);
            }
            Change::ClassDelete(prefix) => {
                assert!(self.classes.remove(prefix).is_some(), "{prefix} has no class to take back");
                self.maps.classes.remove(&prefix_key(prefix));
            }
            Change::KnownAdd(identity) => {
                assert!(self.known.insert(*identity), "{identity} is KNOWN already");
                self.maps.known.push(identity.0);
            }
            Change::KnownDelete(identity) => {
                assert!(self.known.remove(identity), "{identity} is not KNOWN");
                self.maps.known.retain(|known| *known != identity.0);
                let resolves = self.addresses.values().any(|entry| entry.identity == identity.0);
                assert!(!resolves, "{identity} leaves while an address resolves to it");
            }
            Change::IpcacheSet(address, entry) => {
                let identity = Identity(entry.identity);
                let known = self.known.contains(&identity) || self.holds_back;
                assert!(known, "{address} resolves to {identity}, which isn't KNOWN");
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

    /// These tables, with the address classes of another moment.
    pub(crate) fn with_classes_of(&self, other: &Self) -> Self {
        let mut mixed = self.clone();
        mixed.classes.clone_from(&other.classes);
        mixed.maps.classes.clone_from(&other.maps.classes);
        mixed
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
        ask(&self.maps, &question, &mut answer).map_err(|dropped| dropped.reason().unwrap())?;
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

fn prefix_key(prefix: &IpNet) -> PrefixKey {
    let prefix_len = match prefix {
        IpNet::V4(v4) => 96 + u32::from(v4.prefix_len()),
        IpNet::V6(v6) => u32::from(v6.prefix_len()),
    };
    PrefixKey { prefix_len, address: Address::from(prefix.addr()) }
}
