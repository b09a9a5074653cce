//! What addresses resolve to: the exact ipcache, ranges, policy classes, and the identities that tables know.

use std::net::IpAddr;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, MapData, MapError};
use ipnet::IpNet;
use sinew_api::identity::Identity;
use sinew_bpf::abi::{Address, IpcacheEntry};
use sinew_engine::Found;

use super::DatapathError;
use super::abi::{Abi, absent_is_fine};
use super::counters::{Counted, count};
use super::pins::{Take, typed};

/// The maps by address and identity.
pub(super) struct Addresses {
    ipcache: HashMap<MapData, Abi<Address>, Abi<IpcacheEntry>>,
    ranges: LpmTrie<MapData, Abi<Address>, Abi<IpcacheEntry>>,
    classes: LpmTrie<MapData, Abi<Address>, u32>,
    known: HashMap<MapData, u32, u32>,
}

impl Addresses {
    pub(super) fn open(take: Take<'_>) -> Result<Self, DatapathError> {
        Ok(Self {
            ipcache: typed(take("IPCACHE")?, "IPCACHE")?,
            ranges: typed(take("RANGES")?, "RANGES")?,
            classes: typed(take("CLASSES")?, "CLASSES")?,
            known: typed(take("KNOWN")?, "KNOWN")?,
        })
    }

    pub(super) fn set(&mut self, address: IpAddr, entry: IpcacheEntry) -> Result<(), DatapathError> {
        self.ipcache
            .insert(Abi(Address::from(address)), Abi(entry), 0)
            .map_err(|e| DatapathError::kernel(format!("writing {address} to the ipcache"), e))
    }

    pub(super) fn delete(&mut self, address: IpAddr) -> Result<(), DatapathError> {
        absent_is_fine(
            self.ipcache.remove(&Abi(Address::from(address))),
            "removing an address from the ipcache",
        )
    }

    pub(super) fn range_set(&mut self, prefix: IpNet, entry: IpcacheEntry) -> Result<(), DatapathError> {
        self.ranges
            .insert(&key(prefix), Abi(entry), 0)
            .map_err(|e| DatapathError::kernel(format!("writing range {prefix}"), e))
    }

    pub(super) fn range_delete(&mut self, prefix: IpNet) -> Result<(), DatapathError> {
        absent_is_fine(self.ranges.remove(&key(prefix)), "removing a range")
    }

    pub(super) fn class_set(&mut self, prefix: IpNet, class: u32) -> Result<(), DatapathError> {
        self.classes
            .insert(&key(prefix), class, 0)
            .map_err(|e| DatapathError::kernel(format!("writing the class of {prefix}"), e))
    }

    pub(super) fn class_delete(&mut self, prefix: IpNet) -> Result<(), DatapathError> {
        absent_is_fine(self.classes.remove(&key(prefix)), "removing the class of a prefix")
    }

    pub(super) fn known_add(&mut self, identity: u32) -> Result<(), DatapathError> {
        self.known
            .insert(identity, 1, 0)
            .map_err(|e| DatapathError::kernel(format!("making identity {identity} known"), e))
    }

    pub(super) fn known_delete(&mut self, identity: u32) -> Result<(), DatapathError> {
        absent_is_fine(self.known.remove(&identity), "making an identity unknown")
    }

    /// What is in these maps: all of it, since what is left out stays for ever.
    pub(super) fn found(&self) -> Result<Found, DatapathError> {
        let refused = |e: MapError| DatapathError::kernel("reading what addresses resolve to", e);
        let mut found = Found::default();
        for address in self.ipcache.keys() {
            let Abi(address) = address.map_err(refused)?;
            found.addresses.push(address.into());
        }
        for key in self.ranges.keys() {
            found.ranges.extend(prefix(&key.map_err(refused)?));
        }
        for row in self.classes.iter() {
            let (key, class) = row.map_err(refused)?;
            found.classes.extend(prefix(&key).map(|prefix| (prefix, Identity(class))));
        }
        for identity in self.known.keys() {
            found.known.push(Identity(identity.map_err(refused)?));
        }
        Ok(found)
    }

    /// Name, kind and entries of these maps.
    pub(super) fn fill(&self) -> [Counted; 4] {
        [
            Counted::new("IPCACHE", "hash", count(self.ipcache.keys())),
            Counted::new("RANGES", "lpm-trie", count(self.ranges.keys())),
            Counted::new("CLASSES", "lpm-trie", count(self.classes.keys())),
            Counted::new("KNOWN", "hash", count(self.known.keys())),
        ]
    }
}

/// A trie key as the prefix that it is.
fn prefix(key: &Key<Abi<Address>>) -> Option<IpNet> {
    let Abi(address) = key.data();
    let mapped = if address.is_v4() && key.prefix_len() >= 96 { 96 } else { 0 };
    let bits = u8::try_from(key.prefix_len() - mapped).ok()?;
    IpNet::new(address.into(), bits).ok()
}

/// IPv4 prefixes lie under `::ffff:0:0/96`, as the addresses do.
fn key(prefix: IpNet) -> Key<Abi<Address>> {
    let mapped = if prefix.addr().is_ipv4() { 96 } else { 0 };
    Key::new(u32::from(prefix.prefix_len()) + mapped, Abi(Address::from(prefix.network())))
}
