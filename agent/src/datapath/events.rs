//! The per-CPU event rings: one producer each, so that CPUs don't share a lock (a shared ring falls from 11 to 3
//! million records a second with the second producer).

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::Poll;

use aya::maps::{ArrayOfMaps, Map, MapData, PerCpuArray, RingBuf};
use sinew_bpf::abi::EventRecord;
use sinew_bpf::maps::{DropRecords, RingCount};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::DatapathError;
use super::abi::Abi;
use super::connections::monotonic_nanoseconds;
use super::merge::Merge;
use super::pins::typed;

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
    /// Opens the rings, and makes those that are missing.
    pub(super) fn open(map: Map, counts: Map, drops: Map, bytes: u32) -> Result<Self, DatapathError> {
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
        Ok(Self {
            rings,
            merge: Merge::default(),
            counts: typed(counts, "RINGS")?,
            drops: typed(drops, "DROP_RECORDS")?,
        })
    }

    /// Takes up to `limit` records from each ring, and gives out those before which none can come, in the order of their
    /// time. Whether a ring may have more.
    pub fn drain(&mut self, limit: usize, into: &mut Vec<EventRecord>) -> bool {
        let (mut reading, mut more) = (self.merge.begin(monotonic_nanoseconds()), false);
        for ring in &mut self.rings {
            let mut taken = 0;
            while taken < limit
                && let Some(item) = ring.next()
            {
                taken += 1;
                if item.len() == size_of::<EventRecord>() {
                    // SAFETY: the length is that of a record, which is integers only; the read needs no alignment.
                    reading.take(unsafe { item.as_ptr().cast::<EventRecord>().read_unaligned() });
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
