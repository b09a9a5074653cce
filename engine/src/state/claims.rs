//! Who has which address: every claim that somebody makes, and the one that holds.
//!
//! Neighbours: `locals.rs` and `facts.rs` make claims, `order.rs` writes what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

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
    /// Another node.
    Node(Arc<str>),
    /// An endpoint object of another node.
    Remote(Arc<str>),
    /// The configuration, which knows no way to the address: whoever stands there does.
    KubeApiserver,
}

/// All claims. Two sets of pairs, and no set for each address: that would be a kilobyte for each pod of the cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims {
    by_claimant: BTreeSet<(Claimant, IpAddr)>,
    by_address: BTreeMap<(IpAddr, Claimant), IpcacheEntry>,
    changed: BTreeSet<IpAddr>,
    /// How many claims name an identity.
    identities: BTreeMap<Identity, usize>,
}

impl Claims {
    /// All that a claimant claims from now on.
    pub(super) fn set(&mut self, claimant: &Claimant, claims: BTreeMap<IpAddr, IpcacheEntry>) {
        let first = (claimant.clone(), IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let of_claimant = self.by_claimant.range(first..).take_while(|(other, _)| other == claimant);
        let old: Vec<IpAddr> = of_claimant.map(|(_, address)| *address).collect();
        for address in old.into_iter().filter(|address| !claims.contains_key(address)) {
            self.changed.insert(address);
            self.by_claimant.remove(&(claimant.clone(), address));
            if let Some(entry) = self.by_address.remove(&(address, claimant.clone())) {
                self.count(&entry, false);
            }
        }
        for (address, entry) in claims {
            let old = self.by_address.insert((address, claimant.clone()), entry);
            if old == Some(entry) {
                continue;
            }
            self.changed.insert(address);
            self.count(&entry, true);
            match old {
                Some(old) => self.count(&old, false),
                None => drop(self.by_claimant.insert((claimant.clone(), address))),
            }
        }
    }

    /// The claimant who has an address, and what it resolves to.
    pub(super) fn holder(&self, address: IpAddr) -> Option<(&Claimant, &IpcacheEntry)> {
        let ((held, claimant), entry) = self.by_address.range((address, Claimant::OwnNode)..).next()?;
        (*held == address).then_some((claimant, entry))
    }

    /// Every address with its holder.
    pub(super) fn holders(&self) -> impl Iterator<Item = (IpAddr, &Claimant, &IpcacheEntry)> {
        let mut last = None;
        self.by_address.iter().filter_map(move |((address, claimant), entry)| {
            (last.replace(*address) != Some(*address)).then_some((*address, claimant, entry))
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
