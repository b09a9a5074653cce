//! Flows counted as Hubble counts them: its metrics, by its names, with its context options.
//!
//! A [`Meter`] belongs to whoever makes flows; counting takes no lock, and no allocation for a known series. A scrape asks
//! through its [`Scraper`] and gets an answer between two batches. Everything is bounded: a series of a pod that is gone is
//! removed after [`series::GRACE`], a metric has [`series::MOST`] series at most, a port label [`series::MOST_PORTS`] ports,
//! an `ip` context only addresses of the cluster; flows that find no room are counted. Inside: [`settings`] reads options,
//! [`context`] says who a flow is about, `handler.rs` what each metric counts, `icmp.rs` has the names of ICMP messages,
//! [`series`] the numbers.

pub mod context;
mod handler;
pub mod icmp;
pub mod series;
pub mod settings;

use std::time::{Duration, Instant};

use sinew_api::proto::flow::Flow;
use tokio::sync::{mpsc, oneshot};

use super::{Description, Family, Value};
use handler::Handler;
use series::Living;
pub use settings::{MetricSettings, SettingsError};

/// Metrics that count flows, then those about counting.
pub const METRICS: &[&Description] = &[
    &handler::FLOW,
    &handler::DROP,
    &handler::TCP,
    &handler::ICMP,
    &handler::PORT_DISTRIBUTION,
    &handler::FLOWS_TO_WORLD,
    &handler::POLICY,
    &SERIES,
    &UNCOUNTED,
];

const SERIES: Description =
    Description::gauge("sinew_flow_metric_series", &["metric"], "Series of a metric that counts flows.");
const UNCOUNTED: Description = Description::counter(
    "sinew_flow_metric_uncounted_total",
    &["metric"],
    "Flows that a metric did not count, because it had as many series as it may have.",
);

/// Scrapes that wait for an answer.
const SCRAPES: usize = 32;
/// How long a scrape waits for the counting task, which looks at least every 40 ms.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time between two looks for series of pods that are gone.
const LOOK: Duration = Duration::from_secs(10);

type Question = oneshot::Sender<Vec<Family>>;

/// Counts flows.
pub struct Meter {
    handlers: Vec<Handler>,
    questions: mpsc::Receiver<Question>,
    looked: Instant,
}

/// Asks a meter for its numbers.
#[derive(Clone, Debug)]
pub struct Scraper(mpsc::Sender<Question>);

impl Meter {
    /// A meter for these metrics, and the end that a scrape holds.
    #[must_use]
    pub fn new(settings: Vec<MetricSettings>, now: Instant) -> (Self, Scraper) {
        let (sender, questions) = mpsc::channel(SCRAPES);
        let handlers = settings.into_iter().map(Handler::new).collect();
        (Self { handlers, questions, looked: now }, Scraper(sender))
    }

    /// Counts a flow.
    pub fn count(&mut self, flow: &Flow) {
        for handler in &mut self.handlers {
            handler.count(flow);
        }
    }

    /// Answers scrapes that wait.
    pub fn answer(&mut self) {
        while let Ok(question) = self.questions.try_recv() {
            // Whoever asked may have given up.
            let _gone = question.send(self.families());
        }
    }

    /// Removes series whose pod, workload or address has been gone for [`series::GRACE`]. `living` is called only when it is
    /// time to look.
    pub fn forget<'l>(&mut self, now: Instant, living: impl FnOnce() -> Living<'l>) {
        if now.saturating_duration_since(self.looked) < LOOK {
            return;
        }
        self.looked = now;
        if self.handlers.iter().any(Handler::names_somebody) {
            let living = living();
            for handler in &mut self.handlers {
                handler.forget(now, &living);
            }
        }
    }

    fn families(&self) -> Vec<Family> {
        let (mut series, mut uncounted) = (Family::new(&SERIES), Family::new(&UNCOUNTED));
        let mut families = Vec::with_capacity(self.handlers.len() + 2);
        for handler in &self.handlers {
            let family = handler.family();
            series.add([family.description.name], Value::Count(family.samples.len() as u64));
            uncounted.add([family.description.name], Value::Count(handler.uncounted()));
            families.push(family);
        }
        families.extend([series, uncounted]);
        families
    }
}

impl Scraper {
    /// The numbers; `None` if the meter is gone or does not answer.
    pub async fn families(&self) -> Option<Vec<Family>> {
        let (question, answer) = oneshot::channel();
        self.0.send(question).await.ok()?;
        tokio::time::timeout(PATIENCE, answer).await.ok()?.ok()
    }
}

#[cfg(test)]
mod tests;
