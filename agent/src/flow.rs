//! From kernel records to [flows](sinew_api::proto::flow::Flow) with names, into the node's journal.
//!
//! One task, [`run`], owns the rings and the journal's writing end. Names come from what the engine has decided at the
//! moment of reading; the flow itself is made when a client asks for it, or when metrics count it. Neighbours:
//! `datapath/events.rs` has the rings, `seen.rs` says what lies in the journal, `names.rs` the names, `convert.rs` makes
//! flows, `layers.rs` what their headers say, `changes.rs` what happened in the agent, `counting.rs` counts for metrics;
//! `sinew_observer` serves what is written. `benches/flows.rs` has the cost.

mod changes;
mod convert;
mod counting;
mod layers;
mod memory;
mod names;
mod seen;

pub use changes::{changes, tell};
pub use convert::raw;
pub use counting::Counting;
pub use names::{Clock, Names};
pub use seen::{Seen, see};

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use sinew_api::proto::flow::{LostEvent, LostEventSource};
use sinew_bpf::abi::EventRecord;
use sinew_observer::journal::Sighting;
use tokio::sync::{broadcast, watch};
use tokio::time::sleep;

use crate::datapath::EventRings;
use crate::view::View;

/// Time between two looks at the rings while records come. What a storm of 100,000 a second leaves meanwhile is an
/// eighth of a ring.
const INTERVAL: Duration = Duration::from_millis(10);
/// How long a record may lie in its ring when none came last time. A shorter time costs an idle node wake-ups, a longer
/// one is seen by whoever watches; a program ends it at once with every 256th record.
const QUIET: Duration = Duration::from_millis(40);
/// Time between two words of losses.
const TELLING: Duration = Duration::from_secs(1);
/// Records taken from one ring at a time, so that a storm on one CPU does not hold back the others.
const BATCH: usize = 4096;

/// Who this node is, in flows.
#[derive(Clone, Debug)]
pub struct FlowSettings {
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the node, without the cluster.
    pub node: String,
}

/// What this node saw.
pub type Journal = sinew_observer::Journal<Seen>;

/// Records as they came from the rings, for whoever watches them raw.
#[derive(Clone, Debug)]
pub struct RecordBatch {
    /// How many were given out before these: a reader that missed batches knows by it how many records it missed.
    pub before: u64,
    /// The records.
    pub records: Arc<[EventRecord]>,
}

/// Reads the rings until the task is dropped. What it has taken and not written yet is lost then, as it would be with
/// the agent.
///
/// # Errors
/// The kernel does not let the rings be waited for.
pub async fn run(
    mut rings: EventRings,
    settings: FlowSettings,
    mut views: watch::Receiver<Arc<View>>,
    journal: Arc<Journal>,
    raw: broadcast::Sender<RecordBatch>,
    mut counting: Option<Counting>,
) -> io::Result<std::convert::Infallible> {
    let bells = rings.bells()?;
    let mut given_out = 0;
    // Read before anything is taken, so that what is lost from here on is told.
    let (mut lost, mut suppressed) = (Losses::after(rings.lost()), Losses::after(rings.suppressed()));
    let mut names = Names::new(&settings, Clock::now(), views.borrow_and_update().ahead.clone());
    let (mut records, mut seen) = (Vec::new(), Vec::new());
    loop {
        let mut came = false;
        // The wall clock is stepped and nodes are suspended while records go on in monotonic time.
        names.look_at(Clock::now());
        // What comes while this runs waits for the next look, unless a ring fills: looking again at once would go on for
        // as long as records come, each time for a handful of them.
        loop {
            let more = rings.drain(BATCH, &mut records);
            came |= !records.is_empty() || !rings.is_settled();
            if views.has_changed().unwrap_or(false) {
                names.update(views.borrow_and_update().ahead.clone());
            }
            if raw.receiver_count() > 0 && !records.is_empty() {
                // Nobody is left to hear it only if the last one went just now.
                let _ = raw.send(RecordBatch { before: given_out, records: records.as_slice().into() });
                given_out += records.len() as u64;
            }
            for record in records.drain(..) {
                see(&record, &mut names, &mut seen);
            }
            if let Some(counting) = &mut counting {
                seen.iter().for_each(|seen| counting.count(&seen.flow()));
            }
            journal.record_flows(seen.drain(..));
            if !more {
                break;
            }
            tokio::task::yield_now().await;
        }
        if let Some(counting) = &mut counting {
            counting.look(&views.borrow().snapshot);
        }
        if let Some(count) = lost.untold(rings.lost(), Instant::now()) {
            let event = LostEvent {
                source: LostEventSource::PerfEventRingBuffer.into(),
                num_events_lost: count,
                ..LostEvent::default()
            };
            journal.record_lost(event, SystemTime::now());
        }
        if let Some(count) = suppressed.untold(rings.suppressed(), Instant::now()) {
            journal.record_suppressed(count, SystemTime::now());
        }
        if came {
            sleep(INTERVAL).await;
        } else {
            tokio::select! {
                () = sleep(QUIET) => {}
                () = bells.rung() => {}
            }
        }
    }
}

/// Losses already told.
struct Losses {
    told: u64,
    at: Option<Instant>,
}

impl Losses {
    /// Tells what comes behind a total. What was lost before, while another agent ran or none, is in the kernel's count
    /// and no client of this one waited for it.
    fn after(total: u64) -> Self {
        Self { told: total, at: None }
    }

    /// Losses that have not been told, at most once in [`TELLING`]: under lasting loss, words of it must not push the flows
    /// out.
    fn untold(&mut self, total: u64, now: Instant) -> Option<u64> {
        let count = total.checked_sub(self.told).filter(|count| *count > 0)?;
        if self.at.is_some_and(|at| now.saturating_duration_since(at) < TELLING) {
            return None;
        }
        *self = Self { told: total, at: Some(now) };
        Some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_told_at_once_then_once_a_second_and_none_is_left_out() {
        let start = Instant::now();
        let mut losses = Losses::after(5);
        let mut told = Vec::new();
        for (milliseconds, total) in [(0, 5), (10, 7), (20, 9), (900, 12), (1010, 12), (2500, 12), (2600, 13)]
        {
            let now = start + Duration::from_millis(milliseconds);
            told.extend(losses.untold(total, now).map(|count| (milliseconds, count)));
        }
        assert_eq!(told, [(10, 2), (1010, 5), (2600, 1)]);
        assert_eq!(losses.untold(2, start + TELLING * 9), None, "a count that went back tells nothing");
    }
}
