//! The connection tables as a person reads them.

use std::net::IpAddr;

use aya::maps::{HashMap, MapData, MapError, PerCpuArray, PerCpuValues};
use sinew_bpf::abi::{CtEntry, CtKey};
use sinew_bpf::conntrack;
use sinew_bpf::maps::{CONNECTION_TABLES, CtTable, TableCount};

use super::DatapathError;
use super::abi::{Abi, was_there};
use super::counters::{Counted, count};
use super::pins::{Take, typed};
use crate::clock::monotonic_nanoseconds;

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
    tables: [(CtTable, &'static str, Table); CONNECTION_TABLES as usize],
    counts: PerCpuArray<MapData, Abi<TableCount>>,
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
            counts: typed(take("TABLES")?, "TABLES")?,
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
        for (table, name, map) in &mut self.tables {
            let before = removed;
            let keys: Vec<_> = map
                .keys()
                .collect::<Result<_, _>>()
                .map_err(|e| DatapathError::kernel(format!("reading {name}"), e))?;
            for key in keys {
                if filter.matches(&decode(&key)) && was_there(map.remove(&key), "removing a connection")? {
                    removed += 1;
                }
            }
            add_removed(&mut self.counts, *table, removed - before)
                .map_err(|e| DatapathError::kernel(format!("counting what left {name}"), e))?;
        }
        Ok(removed)
    }

    /// Name, kind, entries and evictions of these maps.
    pub(super) fn fill(&self) -> impl Iterator<Item = Counted> + '_ {
        self.tables.iter().map(|(table, name, map)| {
            let entries = count(map.keys());
            Counted { evictions: self.evictions(*table, entries), ..Counted::new(name, "lru-hash", entries) }
        })
    }

    /// Evictions: entries made, less those removed and those still there (datapath.md 6). A connection that is made
    /// during the count may be missing in one of the numbers, so the result is exact for tables at rest and a few too low
    /// under traffic.
    fn evictions(&self, table: CtTable, entries: u64) -> Option<u64> {
        let (mut created, mut deleted) = (0, 0);
        for index in [table as u32, agents(table)] {
            for Abi(count) in self.counts.get(&index, 0).ok()?.iter() {
                created += count.created;
                deleted += count.deleted;
            }
        }
        Some(created.saturating_sub(deleted).saturating_sub(entries))
    }
}

/// The element of the counters that is the agent's; programs write the others.
fn agents(table: CtTable) -> u32 {
    CONNECTION_TABLES + table as u32
}

fn add_removed(
    counts: &mut PerCpuArray<MapData, Abi<TableCount>>,
    table: CtTable,
    removed: usize,
) -> Result<(), MapError> {
    let mut values: Vec<_> = counts.get(&agents(table), 0)?.iter().copied().collect();
    if let Some(Abi(first)) = values.first_mut() {
        first.deleted += removed as u64;
    }
    counts.set(agents(table), PerCpuValues::try_from(values)?, 0)
}

/// Bytes of a map as the value that they are.
fn decode<T, const N: usize>(bytes: &[u8; N]) -> T {
    const { assert!(size_of::<T>() == N) };
    // SAFETY: the sizes agree, the types are made of integers, and the read needs no alignment.
    unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
}
