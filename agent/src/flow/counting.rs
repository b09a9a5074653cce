//! Flows counted for Hubble's metrics, as they pass; only where metrics are asked for.
//!
//! Neighbours: `sinew_observer::metrics::hubble` says what is counted, `crate::metrics` asks for the numbers.

use std::sync::Arc;
use std::time::Instant;

use sinew_api::proto::flow::Flow;
use sinew_engine::snapshot::Snapshot;
use sinew_observer::metrics::hubble::series::Living;
use sinew_observer::metrics::hubble::{Meter, MetricSettings, Scraper};

/// The flow task's end.
pub struct Counting {
    meter: Meter,
}

impl Counting {
    /// Counts these metrics; the other end is for scrapes. Nothing where none is asked for.
    #[must_use]
    pub fn new(metrics: Vec<MetricSettings>) -> Option<(Self, Scraper)> {
        if metrics.is_empty() {
            return None;
        }
        let (meter, scraper) = Meter::new(metrics, Instant::now());
        Some((Self { meter }, scraper))
    }

    /// Counts a flow.
    pub fn count(&mut self, flow: &Flow) {
        self.meter.count(flow);
    }

    /// Answers scrapes, and lets series of the gone go.
    pub fn look(&mut self, snapshot: &Arc<Snapshot>) {
        self.meter.answer();
        self.meter.forget(Instant::now(), || living(snapshot));
    }
}

/// Everybody that a snapshot knows, on this node and on others.
fn living(snapshot: &Snapshot) -> Living<'_> {
    let mut living = Living::default();
    for (address, view) in snapshot.addresses.iter() {
        let workload = view.workload.as_ref().map_or("", |workload| &*workload.name);
        living.add_address(address.to_string(), &view.pod_namespace, &view.pod_name, workload);
    }
    for view in snapshot.identities.values() {
        living.add_identity(&view.labels.to_strings());
    }
    living
}
