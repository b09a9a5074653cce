//! Addresses of a node's pods: one pool for each family. A pool only keeps count; the agent writes its leases to disk
//! before it hands one out, and gives them back at start.
//!
//! An address is owned by an attachment. One that was released rests before it is used again, so that whatever still
//! thinks that the old pod has it (conntrack, DNS caches, other nodes) finds nobody, not a stranger. Time is logical:
//! whoever calls says what it is, as the time since any fixed moment; it must not go back across restarts.
//!
//! Neighbours: `agent/src/cni` leases and releases, `agent/src/cni/ledger.rs` keeps the leases.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Why there is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    /// Some will be free again.
    #[error(
        "no address is free in {pool}: {leased} of {capacity} are leased and {resting} rest; the next is free in {wait:?}"
    )]
    Resting {
        /// The pool.
        pool: IpNet,
        /// Addresses that can be leased at all.
        capacity: u64,
        /// Addresses leased.
        leased: u64,
        /// Addresses that rest.
        resting: u64,
        /// Until the first of them is free.
        wait: Duration,
    },
    /// None will be until somebody releases one.
    #[error("no address is free in {pool}: all {capacity} are leased")]
    Leased {
        /// The pool.
        pool: IpNet,
        /// Addresses that can be leased at all.
        capacity: u64,
    },
}

/// What became of an address, as it is kept on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lease {
    /// It is leased.
    Held {
        /// The address.
        address: IpAddr,
        /// Whose it is.
        owner: String,
    },
    /// It rests.
    Resting {
        /// The address.
        address: IpAddr,
        /// When it was released.
        released: Duration,
    },
}

/// The addresses of one range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    range: IpNet,
    rest: Duration,
    /// Never leased: the range's own ends and gateways.
    excluded: BTreeSet<u128>,
    /// Not leased as long as somebody else has them.
    reserved: BTreeSet<u128>,
    held: BTreeMap<u128, String>,
    by_owner: BTreeMap<String, u128>,
    resting: BTreeMap<u128, Duration>,
    /// Where the search goes on, so that an address is used again as late as possible.
    next: u128,
}

impl Pool {
    /// All addresses of `range` but `excluded`, its first (network, or subnet-router anycast, RFC 4291 §2.6.1) and for
    /// IPv4 its last (broadcast). A range of one or two addresses (RFC 3021) has no such ends.
    #[must_use]
    pub fn new(range: IpNet, excluded: impl IntoIterator<Item = IpAddr>, rest: Duration) -> Self {
        let range = range.trunc();
        let (first, last) = (number(range.network()), number(range.broadcast()));
        let mut ends = BTreeSet::new();
        if last - first > 1 {
            ends.insert(first);
            if range.addr().is_ipv4() {
                ends.insert(last);
            }
        }
        let excluded = excluded.into_iter().filter(|address| range.contains(address)).map(number);
        ends.extend(excluded);
        let (held, by_owner, resting) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let reserved = BTreeSet::new();
        Self { range, rest, excluded: ends, reserved, held, by_owner, resting, next: first }
    }

    /// The range.
    #[must_use]
    pub fn range(&self) -> IpNet {
        self.range
    }

    /// Somebody else has these addresses now, the node for one, and none of those that were named before. Leases stay.
    pub fn reserve<'a>(&mut self, addresses: impl IntoIterator<Item = &'a IpAddr>) {
        let inside = addresses.into_iter().filter(|address| self.range.contains(*address));
        self.reserved = inside.map(|address| number(*address)).collect();
    }

    /// Takes leases back that were kept on disk. Returns those that are not possible here: out of the range, or claimed
    /// twice; the first one that claims an address keeps it.
    pub fn restore(&mut self, leases: impl IntoIterator<Item = Lease>) -> Vec<Lease> {
        let mut impossible = Vec::new();
        for lease in leases {
            let (Lease::Held { address, .. } | Lease::Resting { address, .. }) = lease;
            if !self.range.contains(&address) {
                impossible.push(lease);
                continue;
            }
            let address = number(address);
            match lease {
                Lease::Held { ref owner, .. } => {
                    if self.held.contains_key(&address) || self.by_owner.contains_key(owner) {
                        impossible.push(lease);
                        continue;
                    }
                    self.resting.remove(&address);
                    self.by_owner.insert(owner.clone(), address);
                    self.held.insert(address, owner.clone());
                }
                Lease::Resting { released, .. } => {
                    if !self.held.contains_key(&address) {
                        self.resting.insert(address, released);
                    }
                }
            }
            self.next = self.next.max(address.saturating_add(1));
        }
        impossible
    }

    /// Everything that must be on disk.
    pub fn leases(&self) -> impl Iterator<Item = Lease> {
        let held = self
            .held
            .iter()
            .map(|(address, owner)| Lease::Held { address: self.address(*address), owner: owner.clone() });
        let resting = self.resting.iter().map(|(address, released)| Lease::Resting {
            address: self.address(*address),
            released: *released,
        });
        held.chain(resting)
    }

    /// An address for an owner; the one that he has, if he has one.
    ///
    /// # Errors
    ///
    /// All addresses are leased or rest.
    pub fn lease(&mut self, owner: &str, now: Duration) -> Result<IpAddr, Exhausted> {
        if let Some(address) = self.by_owner.get(owner) {
            return Ok(self.address(*address));
        }
        let rest = self.rest;
        self.resting.retain(|_, released| released.saturating_add(rest) > now);
        let Some(address) = self.free_from(self.next).or_else(|| self.free_from(0)) else {
            return Err(self.exhausted(now));
        };
        self.next = address.saturating_add(1);
        self.held.insert(address, owner.to_owned());
        self.by_owner.insert(owner.to_owned(), address);
        Ok(self.address(address))
    }

    /// An owner's address is released, and rests from now on. Returns it, if he had one.
    pub fn release(&mut self, owner: &str, now: Duration) -> Option<IpAddr> {
        let address = self.by_owner.remove(owner)?;
        self.held.remove(&address);
        self.resting.insert(address, now);
        Some(self.address(address))
    }

    /// Addresses that can be leased at all; `u64::MAX` for more.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        let (first, last) = self.ends();
        let all = (last - first).saturating_add(1);
        let taken = |address: &&u128| !self.excluded.contains(address) && !self.held.contains_key(address);
        let reserved = self.reserved.iter().filter(taken).count();
        u64::try_from(all - (self.excluded.len() + reserved) as u128).unwrap_or(u64::MAX)
    }

    /// Addresses leased.
    #[must_use]
    pub fn leased(&self) -> u64 {
        self.held.len() as u64
    }

    /// Addresses that rest.
    #[must_use]
    pub fn resting(&self, now: Duration) -> u64 {
        self.resting.values().filter(|released| released.saturating_add(self.rest) > now).count() as u64
    }

    /// The first free address from a number on.
    fn free_from(&self, from: u128) -> Option<u128> {
        let (first, last) = self.ends();
        let mut address = from.max(first);
        // Each step passes an address that is taken, so there are no more steps than those.
        while address <= last {
            let taken = self.held.contains_key(&address)
                || self.resting.contains_key(&address)
                || self.excluded.contains(&address)
                || self.reserved.contains(&address);
            if !taken {
                return Some(address);
            }
            address = address.checked_add(1)?;
        }
        None
    }

    fn exhausted(&self, now: Duration) -> Exhausted {
        let (pool, capacity) = (self.range, self.capacity());
        match self.resting.values().min() {
            None => Exhausted::Leased { pool, capacity },
            Some(released) => Exhausted::Resting {
                pool,
                capacity,
                leased: self.leased(),
                resting: self.resting(now),
                wait: released.saturating_add(self.rest).saturating_sub(now),
            },
        }
    }

    fn ends(&self) -> (u128, u128) {
        (number(self.range.network()), number(self.range.broadcast()))
    }

    fn address(&self, number: u128) -> IpAddr {
        match self.range {
            IpNet::V4(_) => Ipv4Addr::from(u32::try_from(number).expect("numbers of an IPv4 range")).into(),
            IpNet::V6(_) => Ipv6Addr::from(number).into(),
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

#[cfg(test)]
mod tests;
