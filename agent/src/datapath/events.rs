//! The per-CPU event rings: one producer each, so that CPUs don't share a lock (a shared ring falls from 11 to 3
//! million records a second with the second producer).

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::Poll;

use aya::maps::{ArrayOfMaps, Map, MapData, MapError, PerCpuArray, RingBuf};
use sinew_bpf::abi::EventRecord;
use sinew_bpf::maps::{DropRecords, RingCount};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::DatapathError;
use super::abi::Abi;
use super::merge::Merge;
use super::pins::typed;
use crate::clock::monotonic_nanoseconds;

/// Bytes of the ring of a CPU that is not online. It may come online at any time, but on machines with many possible CPUs
/// full-sized rings would be memory that nobody fills. The next start gives an online CPU a full-sized one.
const SPARE_BYTES: u32 = 65_536;
/// `BPF_MAP_TYPE_RINGBUF`.
const RING_TYPE: u32 = 27;

/// One ring for each CPU. Records of a CPU come in order; [`Self::drain`] merges CPUs by time.
pub struct EventRings {
    rings: Vec<RingBuf<MapData>>,
    merge: Merge,
    counts: PerCpuArray<MapData, Abi<RingCount>>,
    drops: PerCpuArray<MapData, Abi<DropRecords>>,
}

impl EventRings {
    /// Opens the rings, and makes those that are missing or of another size.
    pub(super) fn open(map: Map, counts: Map, drops: Map, bytes: u32) -> Result<Self, DatapathError> {
        let mut outer: ArrayOfMaps<MapData, MapData> = typed(map, "EVENTS")?;
        let unreadable = |(path, error)| DatapathError::kernel(format!("reading {path}"), error);
        let online: BTreeSet<u32> = aya::util::online_cpus().map_err(unreadable)?.into_iter().collect();
        let possible = u32::try_from(aya::util::nr_cpus().map_err(unreadable)?).unwrap_or(u32::MAX);
        let mut rings = Vec::new();
        for cpu in 0..possible.min(outer.len()) {
            let wanted = ring_bytes(bytes, online.contains(&cpu));
            let refused = |what: &str, e: MapError| {
                DatapathError::kernel(format!("{what} the event ring of CPU {cpu}"), e)
            };
            let present = match outer.get(&cpu, 0) {
                Ok(ring) => Some(ring),
                Err(MapError::KeyNotFound) => None,
                Err(error) => return Err(refused("opening", error)),
            };
            let found = match &present {
                Some(ring) => ring.info().map_err(|e| refused("asking about", e))?.max_entries(),
                None => 0,
            };
            let ring = match present {
                Some(ring) if found == wanted => ring,
                present => {
                    if present.is_some() && online.contains(&cpu) {
                        tracing::info!(
                            cpu,
                            found,
                            wanted,
                            "an event ring of another size is replaced; records that nobody had read are lost"
                        );
                    }
                    let template = aya_obj::Map::new_from_params(RING_TYPE, 0, 0, wanted, 0);
                    let ring =
                        MapData::create(template, "sinew_events", None).map_err(|e| refused("making", e))?;
                    outer.set(cpu, &ring, 0).map_err(|e| refused("setting", e))?;
                    ring
                }
            };
            rings.push(typed(Map::RingBuf(ring), "EVENTS")?);
        }
        Ok(Self {
            rings,
            merge: Merge::default(),
            counts: typed(counts, "RINGS")?,
            drops: typed(drops, "DROP_RECORDS")?,
        })
    }

    /// Takes up to `limit` records from each ring, and gives out, in order of time, those that no older one can follow.
    /// Returns whether a ring may have more.
    pub fn drain(&mut self, limit: usize, into: &mut Vec<EventRecord>) -> bool {
        let (mut reading, mut more) = (self.merge.begin(monotonic_nanoseconds()), false);
        for ring in &mut self.rings {
            let mut taken = 0;
            while taken < limit
                && let Some(item) = ring.next()
            {
                taken += 1;
                if let Some(record) = record(&item) {
                    reading.take(record);
                }
            }
            if taken == limit {
                reading.has_more();
                more = true;
            }
        }
        reading.end(into);
        more
    }

    /// Whether no record that was taken waits for older ones.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.merge.is_empty()
    }

    /// Records lost since the maps were made, because a ring was full, or too full for a trace.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let Ok(counts) = self.counts.get(&0, 0) else { return 0 };
        counts.iter().map(|Abi(count)| count.lost).sum()
    }

    /// Records of drops that were not made since the maps were made, because there were too many.
    #[must_use]
    pub fn suppressed(&self) -> u64 {
        let Ok(counts) = self.drops.get(&0, 0) else { return 0 };
        counts.iter().map(|Abi(count)| count.suppressed).sum()
    }

    /// Rings when a program wakes its reader. Within a runtime of tokio only.
    ///
    /// # Errors
    /// The kernel does not let the rings be waited for.
    pub fn bells(&self) -> io::Result<Bells> {
        let bells = self.rings.iter().map(|ring| {
            let ring = ring.as_fd().try_clone_to_owned()?;
            // SAFETY: the descriptor is the `AsyncFd`'s own and closed with it; nothing else has its number before.
            unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }.map_err(io::Error::from)
        });
        bells.collect::<io::Result<_>>().map(Bells)
    }
}

fn ring_bytes(bytes: u32, online: bool) -> u32 {
    if online { bytes } else { bytes.min(SPARE_BYTES) }
}

/// A record as the program wrote it.
#[must_use]
pub fn record_bytes(record: &EventRecord) -> &[u8] {
    let bytes = std::ptr::from_ref(record).cast::<u8>();
    // SAFETY: a record is integers only and without padding (every field of it is a word on the ring), so each of its
    // bytes is written, and the slice lives as long as the borrow.
    unsafe { std::slice::from_raw_parts(bytes, size_of::<EventRecord>()) }
}

/// The record that an item of a ring is; nothing where its length is another.
#[must_use]
pub fn record(item: &[u8]) -> Option<EventRecord> {
    // SAFETY: the length is that of a record, which is integers only; the read needs no alignment.
    (item.len() == size_of::<EventRecord>())
        .then(|| unsafe { item.as_ptr().cast::<EventRecord>().read_unaligned() })
}

/// The rings' wake-ups.
pub struct Bells(Vec<AsyncFd<OwnedFd>>);

impl Bells {
    /// Waits until a program wakes the reader of a ring. Cancel-safe.
    pub async fn rung(&self) {
        poll_fn(|context| {
            let mut rung = Poll::Pending;
            for bell in &self.0 {
                // An error is the end of the reactor, and with it of the task.
                if let Poll::Ready(Ok(mut ready)) = bell.poll_read_ready(context) {
                    ready.clear_ready();
                    rung = Poll::Ready(());
                }
            }
            rung
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_that_is_not_online_has_a_small_ring() {
        assert_eq!(ring_bytes(1_048_576, true), 1_048_576);
        assert_eq!(ring_bytes(1_048_576, false), SPARE_BYTES);
        assert_eq!(ring_bytes(4096, false), 4096, "never a larger one than was asked for");
    }
}
