//! What a node says of itself to Prometheus, on `--hubble-metrics-server`.
//!
//! Exact numbers: the kernel's own counters ([`kernel`]), the control loop's last view ([`state`]), and what the loop and
//! CNI count as they go ([`Counted`]); beside them the journal's and this process's (`sinew_observer::metrics`). All are
//! read when somebody scrapes, on a thread of the port's own: packets, flows and policies wait for nobody here.
//! Neighbours: `run.rs` starts the thread, `sinew_observer::metrics` serves and writes the text, `docs/metrics.md` is made
//! of [`descriptions`].

mod counted;
mod kernel;
mod state;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use sinew_observer::metrics::http::Exposed;
use sinew_observer::metrics::hubble::{self, Scraper};
use sinew_observer::metrics::{Description, Family, flows, http, process};
use tokio::sync::watch;

use crate::datapath::Readings;
use crate::flow::Journal;
use crate::view::{Constants, View};

pub use counted::Counted;

/// Everything that a node's metrics are made of.
pub struct NodeMetrics {
    constants: Arc<Constants>,
    view: watch::Receiver<Arc<View>>,
    journal: Arc<Journal>,
    counted: Arc<Counted>,
    kernel: Mutex<kernel::Paced>,
    flows: Option<Scraper>,
}

impl NodeMetrics {
    /// The metrics of a node.
    #[must_use]
    pub fn new(
        constants: Arc<Constants>,
        view: watch::Receiver<Arc<View>>,
        journal: Arc<Journal>,
        counted: Arc<Counted>,
        readings: Readings,
        flows: Option<Scraper>,
    ) -> Self {
        Self { constants, view, journal, counted, kernel: Mutex::new(kernel::Paced::new(readings)), flows }
    }
}

impl Exposed for NodeMetrics {
    async fn families(&self) -> Vec<Family> {
        let (now, view) = (SystemTime::now(), self.view.borrow().clone());
        let mut families = state::families(&self.constants, &view, now);
        families.extend(self.counted.families());
        families.extend(self.kernel.lock().unwrap_or_else(PoisonError::into_inner).families(&view.snapshot));
        families.extend(flows::families(&self.journal, now));
        families.extend(process::families(self.constants.started));
        if let Some(scraper) = &self.flows {
            match scraper.families().await {
                Some(counted) => families.extend(counted),
                None => tracing::warn!("flows are not counted now: the flow task does not answer"),
            }
        }
        families
    }
}

/// Every metric of a node, by topic, for the reference.
#[must_use]
pub fn descriptions() -> Vec<(&'static str, &'static [&'static Description])> {
    vec![
        ("The node", state::METRICS),
        ("Policies and CNI", counted::METRICS),
        ("The datapath", kernel::METRICS),
        ("Flows and losses", flows::METRICS),
        ("Flows counted", hubble::METRICS),
        ("The metrics port", http::METRICS),
        ("The process", process::METRICS),
    ]
}
