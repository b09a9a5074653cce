//! What the control loop and CNI count as they go. Written by the control thread; a scrape reads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::histogram::Histogram;
use sinew_api::cni::{Request, Response};
use sinew_observer::metrics::{Description, Family, SECONDS, Value};

/// Every metric here.
pub(super) const METRICS: &[&Description] =
    &[&COMPUTATION, &ENFORCEMENT, &WAITING, &CNI_REQUESTS, &CNI_SECONDS];

const COMPUTATION: Description = Description::histogram(
    "sinew_policy_computation_seconds",
    &[],
    "Time to decide what a batch of changes to objects, pods or nodes means for the tables, seconds.",
);
const ENFORCEMENT: Description = Description::histogram(
    "sinew_policy_enforcement_delay_seconds",
    &[],
    "Time from hearing of a change to the moment when the kernel enforces the revision that it led to, seconds.",
);
const WAITING: Description = Description::gauge(
    "sinew_policy_changes_waiting",
    &[],
    "Changes that the kernel does not have yet; more than 0 for long means that it refuses one.",
);
const CNI_REQUESTS: Description = Description::counter(
    "sinew_cni_requests_total",
    &["command", "result", "code"],
    "CNI requests answered, by command, result (ok, refused) and CNI error code (0 for ok).",
);
const CNI_SECONDS: Description = Description::histogram(
    "sinew_cni_request_seconds",
    &["command"],
    "Time from reading a CNI request to its answer, seconds.",
);

/// Numbers that only those know who do the work.
#[derive(Debug)]
pub struct Counted {
    computation: Histogram,
    enforcement: Histogram,
    waiting: AtomicU64,
    /// Requests by command and error code, and how long a command took. Both sets are small: the commands of CNI, and
    /// the codes of `crate::cni::Refusal`.
    cni: Mutex<Requests>,
}

#[derive(Debug, Default)]
struct Requests {
    answered: BTreeMap<(&'static str, u32), u64>,
    took: BTreeMap<&'static str, Histogram>,
}

impl Default for Counted {
    fn default() -> Self {
        Self {
            computation: Histogram::new(SECONDS),
            enforcement: Histogram::new(SECONDS),
            waiting: AtomicU64::new(0),
            cni: Mutex::default(),
        }
    }
}

impl Counted {
    /// The engine has decided about a batch.
    pub fn computed(&self, took: Duration) {
        self.computation.observe(took.as_secs_f64());
    }

    /// A revision is enforced, this long after the change was heard of.
    pub fn enforced(&self, after: Duration) {
        self.enforcement.observe(after.as_secs_f64());
    }

    /// So many changes wait for the kernel.
    pub fn waiting(&self, changes: usize) {
        self.waiting.store(changes as u64, Ordering::Relaxed);
    }

    /// A CNI request was answered; `None` is one that could not be read.
    pub fn cni(&self, request: Option<&Request>, response: &Response, took: Duration) {
        let command = match request {
            Some(Request::Add(_)) => "ADD",
            Some(Request::Del { .. }) => "DEL",
            Some(Request::Check(_)) => "CHECK",
            Some(Request::Gc { .. }) => "GC",
            Some(Request::Status) => "STATUS",
            None => "unreadable",
        };
        let code = match response {
            Response::Refused { code, .. } => *code,
            Response::Added(_) | Response::Done => 0,
        };
        let mut requests = self.cni.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.answered.entry((command, code)).or_default() += 1;
        requests.took.entry(command).or_insert_with(|| Histogram::new(SECONDS)).observe(took.as_secs_f64());
    }

    /// All of them.
    pub(super) fn families(&self) -> Vec<Family> {
        let (mut answered, mut took) = (Family::new(&CNI_REQUESTS), Family::new(&CNI_SECONDS));
        let requests = self.cni.lock().unwrap_or_else(PoisonError::into_inner);
        for ((command, code), count) in &requests.answered {
            let result = if *code == 0 { "ok" } else { "refused" };
            answered.add([command, result, &code.to_string()], Value::Count(*count));
        }
        for (command, histogram) in &requests.took {
            took.add([command], Value::Spread(histogram.clone()));
        }
        vec![
            Family::single(&COMPUTATION, Value::Spread(self.computation.clone())),
            Family::single(&ENFORCEMENT, Value::Spread(self.enforcement.clone())),
            Family::single(&WAITING, Value::Count(self.waiting.load(Ordering::Relaxed))),
            answered,
            took,
        ]
    }
}

#[cfg(test)]
mod tests {
    use sinew_observer::metrics::{Format, text};

    use super::*;
    use crate::cni::Refusal;

    #[test]
    fn requests_by_command_and_result() {
        let counted = Counted::default();
        let del = Request::Del { container_id: "c".into(), ifname: "eth0".into() };
        let took = Duration::from_millis(3);
        counted.cni(Some(&del), &Response::Done, took);
        counted.cni(Some(&del), &Response::Done, took);
        counted.cni(Some(&Request::Status), &Refusal::NotAvailable("no address".into()).response(), took);
        counted.cni(None, &Refusal::Request("no JSON".into()).response(), took);
        counted.computed(Duration::from_millis(2));
        counted.enforced(Duration::from_millis(30));
        counted.waiting(4);
        let text = text(counted.families(), Format::OpenMetrics);
        for line in [
            "sinew_cni_requests_total{command=\"DEL\",result=\"ok\",code=\"0\"} 2",
            // CNI 1.1.0, section 5: 50 is "not available", 6 "failed to decode".
            "sinew_cni_requests_total{command=\"STATUS\",result=\"refused\",code=\"50\"} 1",
            "sinew_cni_requests_total{command=\"unreadable\",result=\"refused\",code=\"6\"} 1",
            "sinew_cni_request_seconds_bucket{le=\"0.005\",command=\"DEL\"} 2",
            "sinew_cni_request_seconds_bucket{le=\"0.001\",command=\"DEL\"} 0",
            "sinew_policy_computation_seconds_count 1",
            "sinew_policy_enforcement_delay_seconds_bucket{le=\"0.025\"} 0",
            "sinew_policy_enforcement_delay_seconds_bucket{le=\"0.05\"} 1",
            "sinew_policy_changes_waiting 4",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is not in {text}");
        }
    }
}
