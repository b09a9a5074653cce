//! From kernel records to [flows](sinew_api::proto::flow::Flow) with names, into the node's journal.
//!
//! One task, [`run`], owns the rings and the journal's writing end. Names come from the engine's snapshot as of the
//! moment of reading. Neighbours: `datapath/events.rs` has the rings, `names.rs` the names, `convert.rs` says which
//! flows a record is, `layers.rs` what their headers say, `changes.rs` what happened in the agent; `sinew_observer`
//! serves what is written.

mod changes;
mod convert;
mod layers;
mod names;

pub use changes::{changes, tell};
pub use convert::{flows, raw};
pub use names::{Clock, Names};

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sinew_api::proto::flow::{LostEvent, LostEventSource};
use sinew_bpf::abi::EventRecord;
use sinew_observer::Journal;
use tokio::sync::{broadcast, watch};

use crate::datapath::EventRings;
use crate::view::View;

/// How long a record may lie in its ring. Programs wake nobody for most records; a shorter interval costs wake-ups on an
/// idle node, a longer one is seen by whoever watches.
const INTERVAL: Duration = Duration::from_millis(10);
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

/// Records as they came from the rings, for whoever watches them raw.
pub type RecordBatch = Arc<[EventRecord]>;

/// Reads the rings until the task is dropped. What it has taken and not written yet is lost then, as it would be with
/// the agent.
pub async fn run(
    mut rings: EventRings,
    settings: FlowSettings,
    mut views: watch::Receiver<Arc<View>>,
    journal: Arc<Journal>,
    raw: broadcast::Sender<RecordBatch>,
) {
    let clock = Clock::now();
    let mut lost = Losses::default();
    let mut names = Names::new(settings, clock, views.borrow_and_update().snapshot.clone());
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut records = Vec::new();
    loop {
        ticks.tick().await;
        loop {
            rings.drain(BATCH, &mut records);
            if records.is_empty() {
                break;
            }
            if views.has_changed().unwrap_or(false) {
                names.update(views.borrow_and_update().snapshot.clone());
            }
            if raw.receiver_count() > 0 {
                // Nobody is left to hear it only if the last one went just now.
                let _ = raw.send(records.as_slice().into());
            }
            journal.record_flows(records.drain(..).flat_map(|record| convert::flows(&record, &names)));
            tokio::task::yield_now().await;
        }
        if let Some(count) = lost.since(rings.lost()) {
            let event = LostEvent {
                source: LostEventSource::PerfEventRingBuffer.into(),
                num_events_lost: count,
                ..LostEvent::default()
            };
            journal.record_lost(event, SystemTime::now());
        }
    }
}

/// Losses already told.
#[derive(Default)]
struct Losses {
    told: Option<u64>,
}

impl Losses {
    /// Losses since the last call; those before the first call were another agent's to tell.
    fn since(&mut self, total: u64) -> Option<u64> {
        let before = self.told.replace(total).unwrap_or(total);
        total.checked_sub(before).filter(|count| *count > 0)
    }
}
