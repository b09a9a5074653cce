//! Who has which address: every claim that somebody makes, and the one that holds.
//!
//! Neighbours: `locals.rs` and `facts.rs` make claims, `order.rs` writes what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use sinew_api::identity::Identity;
use sinew_bpf::abi::IpcacheEntry;

use crate::change::EndpointId;

/// Who says that he has an address. Of several the first in this order has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Claimant {
    /// This node, by its interfaces.
    OwnNode,
    /// An endpoint of this node.
    Local(EndpointId),
    /// The configuration.
    KubeApiserver,
    /// Another node.
    Node(String),
    /// An endpoint object of another node.
    Remote(String),
}

/// All claims.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims {
    by_claimant: BTreeMap<Claimant, BTreeMap<IpAddr, IpcacheEntry>>,
    by_address: BTreeMap<IpAddr, BTreeMap<Claimant, IpcacheEntry>>,
    changed: BTreeSet<IpAddr>,
    /// How many claims name an identity.
    identities: BTreeMap<Identity, usize>,
}

impl Claims {
    /// All that a claimant claims from now on.
    pub(super) fn set(&mut self, claimant: &Claimant, claims: BTreeMap<IpAddr, IpcacheEntry>) {
        let old = match claims.is_empty() {
            true => self.by_claimant.remove(claimant),
            false => self.by_claimant.insert(claimant.clone(), claims.clone()),
        }
        .unwrap_or_default();
        for (address, entry) in &old {
            if claims.get(address) == Some(entry) {
                continue;
            }
            self.changed.insert(*address);
            self.count(entry, false);
            if let Some(claimants) = self.by_address.get_mut(address) {
                claimants.remove(claimant);
                if claimants.is_empty() {
                    self.by_address.remove(address);
                }
            }
        }
        for (address, entry) in claims {
            if old.get(&address) != Some(&entry) {
                self.changed.insert(address);
                self.count(&entry, true);
                self.by_address.entry(address).or_default().insert(claimant.clone(), entry);
            }
        }
    }

    /// The claimant who has an address, and what it resolves to.
    pub(super) fn holder(&self, address: IpAddr) -> Option<(&Claimant, &IpcacheEntry)> {
        self.by_address.get(&address)?.first_key_value()
    }

    /// Every address with its holder.
    pub(super) fn holders(&self) -> impl Iterator<Item = (IpAddr, &Claimant, &IpcacheEntry)> {
        self.by_address.iter().filter_map(|(address, claimants)| {
            claimants.first_key_value().map(|(claimant, entry)| (*address, claimant, entry))
        })
    }

    /// Whether an address resolves to the identity, or would if another claim fell away.
    pub(super) fn names(&self, identity: Identity) -> bool {
        self.identities.contains_key(&identity)
    }

    /// Addresses whose claims changed since the last call of `take_changed`.
    pub(super) fn changed(&self) -> impl Iterator<Item = IpAddr> {
        self.changed.iter().copied()
    }

    /// How many claims name an identity.
    pub(super) fn count_of(&self, identity: Identity) -> usize {
        self.identities.get(&identity).copied().unwrap_or(0)
    }

    /// Addresses whose claims changed since the last call.
    pub(super) fn take_changed(&mut self) -> BTreeSet<IpAddr> {
        std::mem::take(&mut self.changed)
    }

    fn count(&mut self, entry: &IpcacheEntry, more: bool) {
        let identity = Identity(entry.identity);
        let count = self.identities.entry(identity).or_default();
        if more {
            *count += 1;
        } else {
            *count -= 1;
            if *count == 0 {
                self.identities.remove(&identity);
            }
        }
    }
}
