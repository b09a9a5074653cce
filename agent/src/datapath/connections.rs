//! The connection tables as a person reads them.

use std::net::IpAddr;

use aya::maps::{HashMap, MapData};
use sinew_bpf::abi::{CtEntry, CtKey};
use sinew_bpf::conntrack;
use sinew_bpf::maps::CtTable;

use super::DatapathError;
use super::abi::absent_is_fine;
use super::counters::count;
use super::pins::{Take, typed};

const KEY_BYTES: usize = size_of::<CtKey>();
const ENTRY_BYTES: usize = size_of::<CtEntry>();

type Table = HashMap<MapData, [u8; KEY_BYTES], [u8; ENTRY_BYTES]>;

/// One tracked connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The table that holds it.
    pub table: CtTable,
    /// Its ends.
    pub key: CtKey,
    /// Its verdict and counters.
    pub entry: CtEntry,
}

/// Which connections are meant. An empty filter means all.
#[derive(Clone, Debug, Default)]
pub struct ConnectionFilter {
    /// Those with one of these addresses at an end.
    pub addresses: Vec<IpAddr>,
    /// Of those, the ones with this address at an end.
    pub also: Option<IpAddr>,
    /// Those that are past their time, too.
    pub expired: bool,
    /// Those of this protocol.
    pub protocol: Option<u8>,
}

impl ConnectionFilter {
    fn matches(&self, key: &CtKey) -> bool {
        let at_an_end = |address: &IpAddr| {
            let address = (*address).into();
            key.low == address || key.high == address
        };
        (self.addresses.is_empty() || self.addresses.iter().any(at_an_end))
            && self.also.as_ref().is_none_or(at_an_end)
            && self.protocol.is_none_or(|protocol| protocol == key.protocol)
    }
}

/// The three tables.
pub(super) struct Connections {
    tables: [(CtTable, &'static str, Table); 3],
}

impl Connections {
    pub(super) fn open(take: Take<'_>) -> Result<Self, DatapathError> {
        let mut open = |name: &'static str| typed::<Table>(take(name)?, name);
        Ok(Self {
            tables: [
                (CtTable::TcpOpening, "CT_OPENING", open("CT_OPENING")?),
                (CtTable::Tcp, "CT_TCP", open("CT_TCP")?),
                (CtTable::Any, "CT_ANY", open("CT_ANY")?),
            ],
        })
    }

    /// The connections that a filter means, those past their time left out.
    pub(super) fn list(&self, filter: &ConnectionFilter) -> Result<Vec<Connection>, DatapathError> {
        let now = monotonic_nanoseconds();
        let mut found = Vec::new();
        for (table, name, map) in &self.tables {
            for row in map.iter() {
                let (key, entry) = row.map_err(|e| DatapathError::kernel(format!("reading {name}"), e))?;
                let connection = Connection { table: *table, key: decode(&key), entry: decode(&entry) };
                let expired = conntrack::is_expired(&connection.entry, *table, connection.key.protocol, now);
                if (filter.expired || !expired) && filter.matches(&connection.key) {
                    found.push(connection);
                }
            }
        }
        Ok(found)
    }

    /// Removes the connections that a filter means.
    pub(super) fn flush(&mut self, filter: &ConnectionFilter) -> Result<usize, DatapathError> {
        let mut removed = 0;
        for (_, name, map) in &mut self.tables {
            let keys: Vec<_> = map
                .keys()
                .collect::<Result<_, _>>()
                .map_err(|e| DatapathError::kernel(format!("reading {name}"), e))?;
            for key in keys {
                if filter.matches(&decode(&key)) {
                    absent_is_fine(map.remove(&key), "removing a connection")?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    /// Name, kind and entries of these maps.
    pub(super) fn fill(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
        self.tables.iter().map(|(_, name, map)| (*name, "lru-hash", count(map.keys())))
    }
}

/// The time that programs stamp with.
fn monotonic_nanoseconds() -> u64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map(|now| now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
        .unwrap_or_default()
}

/// Bytes of a map as the value that they are.
fn decode<T, const N: usize>(bytes: &[u8; N]) -> T {
    const { assert!(size_of::<T>() == N) };
    // SAFETY: the sizes agree, the types are made of integers, and the read needs no alignment.
    unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
}
