//! Counters that the programs keep, added up over CPUs, and the fill of the maps.

use std::collections::BTreeMap;

use aya::maps::{MapData, MapError, PerCpuArray, PerCpuHashMap};
use sinew_bpf::drop::DropReason;
use sinew_bpf::maps::{DropCount, RuleCount, drop_counter};

use super::DatapathError;
use super::abi::Abi;
use super::pins::{Take, typed};

/// How full a map is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapFill {
    /// Its name, that of its pin.
    pub name: &'static str,
    /// What it is.
    pub kind: &'static str,
    /// Entries in it.
    pub entries: u64,
    /// Entries that the kernel removed to make room, since the map exists; only of maps where that is counted.
    pub evictions: Option<u64>,
    /// Entries that fit.
    pub capacity: u32,
    /// Bytes of a key.
    pub key_bytes: u32,
    /// Bytes of a value.
    pub value_bytes: u32,
    /// Number that the kernel gave it.
    pub id: u32,
}

/// Judgements by one rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleHits {
    /// Packets judged.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The last one, nanoseconds of `CLOCK_MONOTONIC`.
    pub last: u64,
}

/// Drops for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropTotal {
    /// The reason.
    pub reason: DropReason,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// The per-CPU maps.
pub(super) struct Counters {
    rules: PerCpuHashMap<MapData, u32, Abi<RuleCount>>,
    drops: PerCpuArray<MapData, Abi<DropCount>>,
}

impl Counters {
    pub(super) fn open(take: Take<'_>) -> Result<Self, DatapathError> {
        Ok(Self { rules: typed(take("RULES")?, "RULES")?, drops: typed(take("DROPS")?, "DROPS")? })
    }

    /// Judgements by cookie: all of them or an error, since a sum that falls is taken for a counter that was reset.
    pub(super) fn rules(&self) -> Result<BTreeMap<u32, RuleHits>, DatapathError> {
        let mut hits: BTreeMap<u32, RuleHits> = BTreeMap::new();
        for row in self.rules.iter() {
            let (cookie, counts) =
                row.map_err(|e| DatapathError::kernel("reading the rules' counters", e))?;
            let total = hits.entry(cookie).or_default();
            for Abi(count) in counts.iter() {
                total.packets += count.packets;
                total.bytes += count.bytes;
                total.last = total.last.max(count.last);
            }
        }
        Ok(hits)
    }

    /// Drops by reason, those that never happened too.
    pub(super) fn drops(&self) -> Vec<DropTotal> {
        let mut totals = Vec::new();
        for reason in DropReason::ALL {
            let Ok(counts) = self.drops.get(&drop_counter(*reason as u16), 0) else { continue };
            let mut total = DropTotal { reason: *reason, packets: 0, bytes: 0 };
            for Abi(count) in counts.iter() {
                total.packets += count.packets;
                total.bytes += count.bytes;
            }
            totals.push(total);
        }
        totals
    }

    /// Entries of the map by cookie.
    pub(super) fn fill(&self) -> Counted {
        Counted::new("RULES", "lru-percpu-hash", count(self.rules.keys()))
    }
}

/// Name, kind and entries of a map.
pub(super) struct Counted {
    /// Name of its pin.
    pub(super) name: &'static str,
    /// What it is.
    pub(super) kind: &'static str,
    /// Entries in it.
    pub(super) entries: u64,
    /// [`MapFill::evictions`].
    pub(super) evictions: Option<u64>,
}

impl Counted {
    /// A map whose evictions are not counted.
    pub(super) fn new(name: &'static str, kind: &'static str, entries: u64) -> Self {
        Self { name, kind, entries, evictions: None }
    }
}

/// Entries that a walk over the keys finds.
pub(super) fn count<K>(keys: impl Iterator<Item = Result<K, MapError>>) -> u64 {
    keys.filter(Result::is_ok).count() as u64
}
