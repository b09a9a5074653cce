//! The per-CPU event rings: one producer each, so that CPUs don't share a lock (a shared ring falls from 11 to 3
//! million records a second with the second producer).

use std::os::fd::{AsRawFd, RawFd};

use aya::maps::{ArrayOfMaps, Map, MapData, PerCpuArray, RingBuf};
use sinew_bpf::abi::EventRecord;
use sinew_bpf::maps::RingCount;

use super::DatapathError;
use super::abi::Abi;
use super::pins::typed;

/// `BPF_MAP_TYPE_RINGBUF`.
const RING_TYPE: u32 = 27;

/// One ring for each CPU. Records of a CPU come in order; [`Self::drain`] merges CPUs by time.
pub struct EventRings {
    rings: Vec<RingBuf<MapData>>,
    counts: PerCpuArray<MapData, Abi<RingCount>>,
}

impl EventRings {
    /// Opens the rings, and makes those that are missing.
    pub(super) fn open(map: Map, counts: Map, bytes: u32) -> Result<Self, DatapathError> {
        let mut outer: ArrayOfMaps<MapData, MapData> = typed(map, "EVENTS")?;
        let cpus = aya::util::online_cpus()
            .map_err(|(path, error)| DatapathError::kernel(format!("reading {path}"), error))?;
        let mut rings = Vec::new();
        for cpu in cpus {
            let ring = match outer.get(&cpu, 0) {
                Ok(ring) => ring,
                Err(_) => {
                    let template = aya_obj::Map::new_from_params(RING_TYPE, 0, 0, bytes, 0);
                    let ring = MapData::create(template, "sinew_events", None).map_err(|e| {
                        DatapathError::kernel(format!("making the event ring of CPU {cpu}"), e)
                    })?;
                    outer.set(cpu, &ring, 0).map_err(|e| {
                        DatapathError::kernel(format!("setting the event ring of CPU {cpu}"), e)
                    })?;
                    ring
                }
            };
            rings.push(typed(Map::RingBuf(ring), "EVENTS")?);
        }
        Ok(Self { rings, counts: typed(counts, "RINGS")? })
    }

    /// Takes up to `limit` records from each ring into `into`, in the order of their time.
    pub fn drain(&mut self, limit: usize, into: &mut Vec<EventRecord>) {
        let start = into.len();
        for ring in &mut self.rings {
            for _ in 0..limit {
                let Some(item) = ring.next() else { break };
                if item.len() == size_of::<EventRecord>() {
                    // SAFETY: the length is that of a record, which is integers only; the read needs no alignment.
                    into.push(unsafe { item.as_ptr().cast::<EventRecord>().read_unaligned() });
                }
            }
        }
        into[start..].sort_by_key(|record| record.time);
    }

    /// Records lost since the maps were made, because a ring was full.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let Ok(counts) = self.counts.get(&0, 0) else { return 0 };
        counts.iter().map(|Abi(count)| count.lost).sum()
    }

    /// Descriptors that become readable when a program wakes its reader.
    pub fn descriptors(&self) -> impl Iterator<Item = RawFd> + '_ {
        self.rings.iter().map(AsRawFd::as_raw_fd)
    }
}
