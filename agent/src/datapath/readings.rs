//! Counters and fill for metrics and for people, read beside the owner of the datapath.
//!
//! Neither a scrape nor `sinew status` may hold up the control loop, and a walk over a full connection table takes as
//! long as a policy change to a hundred endpoints. So these are separate handles on the pinned maps, for another thread;
//! they only read. Neighbours: `counters.rs`, `connections.rs` and `addresses.rs` read the single maps, for both.

use std::collections::{BTreeMap, BTreeSet};

use aya::maps::{HashMap, MapData, PerCpuArray};
use sinew_bpf::abi::StateWord;
use sinew_bpf::maps::{AnswerCount, DropRecords, FragmentKey, FragmentPorts, RingCount};

use super::DatapathError;
use super::abi::Abi;
use super::addresses::Addresses;
use super::connections::Connections;
use super::counters::{Counted, Counters, DropTotal, MapFill, RuleHits, count};
use super::kernel_drops::{Counting, KernelDrop, KernelDrops};
use super::pins::{Pins, typed};
use super::words::{WORDS, Words};

type Fragments = HashMap<MapData, [u8; size_of::<FragmentKey>()], [u8; size_of::<FragmentPorts>()]>;

/// Handles for reading.
pub struct Readings {
    pins: Pins,
    words: Words,
    endpoints: HashMap<MapData, [u8; 16], [u8; 64]>,
    interfaces: HashMap<MapData, u32, [u8; 64]>,
    addresses: Addresses,
    connections: Connections,
    fragments: Fragments,
    counters: Counters,
    rings: PerCpuArray<MapData, Abi<RingCount>>,
    drop_records: PerCpuArray<MapData, Abi<DropRecords>>,
    answers: PerCpuArray<MapData, Abi<AnswerCount>>,
    kernel_drops: KernelDrops,
}

/// What they say at one moment.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Every table.
    pub fill: Vec<MapFill>,
    /// Every drop reason.
    pub drops: Vec<DropTotal>,
    /// Judgements by rule cookie.
    pub rules: BTreeMap<u32, RuleHits>,
    /// The event rings, by CPU.
    pub rings: Vec<RingTotal>,
    /// Records of drops that were not made, because there were too many.
    pub suppressed: u64,
    /// Answers to refused packets.
    pub answers: AnswerTotal,
    /// Packets that the kernel dropped after a redirect; none where that is not counted.
    pub kernel_drops: Option<Vec<KernelDrop>>,
}

/// Records of one CPU's ring since the maps were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingTotal {
    /// Records that programs wanted to write.
    pub wanted: u64,
    /// Records lost, because the ring was full.
    pub lost: u64,
}

/// Answers to refused packets since the maps were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AnswerTotal {
    /// Answers sent.
    pub made: u64,
    /// Answers not sent, because there were too many.
    pub withheld: u64,
}

impl Readings {
    pub(super) fn open(pins: Pins, counting: Counting) -> Result<Self, DatapathError> {
        let mut take = |name| pins.open_again(name);
        Ok(Self {
            words: Words::open(take("WORDS")?)?,
            endpoints: typed(take("ENDPOINTS")?, "ENDPOINTS")?,
            interfaces: typed(take("INTERFACES")?, "INTERFACES")?,
            addresses: Addresses::open(&mut take)?,
            connections: Connections::open(&mut take)?,
            fragments: typed(take("FRAGMENTS")?, "FRAGMENTS")?,
            counters: Counters::open(&mut take)?,
            rings: typed(take("RINGS")?, "RINGS")?,
            drop_records: typed(take("DROP_RECORDS")?, "DROP_RECORDS")?,
            answers: typed(take("ANSWERS")?, "ANSWERS")?,
            kernel_drops: KernelDrops::open(&mut take, counting)?,
            pins,
        })
    }

    /// Reads everything. Walks the keys of every table: some 300 ns an entry.
    #[must_use]
    pub fn read(&self) -> Reading {
        Reading {
            fill: self.fill(),
            drops: self.counters.drops(),
            // No number this time, rather than one that is lower than before.
            rules: self.counters.rules().unwrap_or_else(|error| {
                tracing::warn!(%error, "a scrape goes without the rules' counters");
                BTreeMap::new()
            }),
            rings: self.rings(),
            suppressed: self.suppressed(),
            answers: self.answers(),
            kernel_drops: self.kernel_drops().ok(),
        }
    }

    /// Packets that the kernel dropped after a redirect since the maps were made, by its own reason.
    ///
    /// # Errors
    ///
    /// Why they are not counted, in a sentence.
    pub fn kernel_drops(&self) -> Result<Vec<KernelDrop>, String> {
        self.kernel_drops.read()
    }

    /// Entries and capacity of every table. Most of the time that reading everything takes.
    #[must_use]
    pub fn fill(&self) -> Vec<MapFill> {
        let mut fill = vec![
            Counted::new("ENDPOINTS", "hash", count(self.endpoints.keys())),
            Counted::new("INTERFACES", "hash", count(self.interfaces.keys())),
            Counted::new("POLICY", "array-of-maps", self.slots_in_use()),
            Counted::new("FRAGMENTS", "lru-hash", count(self.fragments.keys())),
            self.counters.fill(),
        ];
        fill.extend(self.addresses.fill());
        fill.extend(self.connections.fill());
        fill.iter().filter_map(|counted| self.pins.fill(counted)).collect()
    }

    /// Slots that a word names, the one that drops left out.
    fn slots_in_use(&self) -> u64 {
        let slots: BTreeSet<u32> = (1..WORDS as u32).map(|index| self.words.get(index).slot()).collect();
        slots.iter().filter(|slot| **slot != StateWord::DROP_SLOT).count() as u64
    }

    fn rings(&self) -> Vec<RingTotal> {
        let Ok(counts) = self.rings.get(&0, 0) else { return Vec::new() };
        counts.iter().map(|Abi(count)| RingTotal { wanted: count.sequence, lost: count.lost }).collect()
    }

    fn suppressed(&self) -> u64 {
        let Ok(counts) = self.drop_records.get(&0, 0) else { return 0 };
        counts.iter().map(|Abi(count)| count.suppressed).sum()
    }

    fn answers(&self) -> AnswerTotal {
        let Ok(counts) = self.answers.get(&0, 0) else { return AnswerTotal::default() };
        counts.iter().fold(AnswerTotal::default(), |total, Abi(count)| AnswerTotal {
            made: total.made + count.made,
            withheld: total.withheld + count.withheld,
        })
    }
}
