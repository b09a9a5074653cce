//! The series of one metric: numbers by label values, bounded in number, and removed when what they name is gone.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::super::{Description, Family, Labels, Value};

/// How long the series of a pod that is gone stay, so that Prometheus can scrape the last counts. As in Hubble.
pub const GRACE: Duration = Duration::from_secs(60);
/// Series of one metric. A Prometheus server takes some millions. A node of 110 pods that all talk to each other has 12,100
/// pairs of pods: name workloads rather than pods there.
pub const MOST: usize = 10_000;
/// Ports that one metric distinguishes; the others are `other`. A scan of all ports must not cost 65,536 series.
pub const MOST_PORTS: usize = 1000;

/// Whom the value of a label names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Nobody who can be gone: a reason, a protocol, a reserved identity.
    Lasting,
    /// `namespace/pod`.
    Pod,
    /// A pod's name.
    PodName,
    /// A pod's name, whose namespace is the next label's value.
    PodBeforeNamespace,
    /// A namespace.
    Namespace,
    /// `namespace/workload`.
    Workload,
    /// A workload's name.
    WorkloadName,
    /// An app.
    App,
    /// All labels of an identity.
    Identity,
    /// An address.
    Address,
}

/// Everybody who is there.
#[derive(Clone, Debug, Default)]
pub struct Living<'a> {
    pods: HashSet<(&'a str, &'a str)>,
    pod_names: HashSet<&'a str>,
    namespaces: HashSet<&'a str>,
    workloads: HashSet<(&'a str, &'a str)>,
    workload_names: HashSet<&'a str>,
    addresses: HashSet<String>,
    identities: HashSet<String>,
    apps: HashSet<String>,
}

impl<'a> Living<'a> {
    /// Somebody at an address: a pod with its workload, or a node with neither.
    pub fn add_address(&mut self, address: String, namespace: &'a str, pod: &'a str, workload: &'a str) {
        self.addresses.insert(address);
        if !pod.is_empty() {
            self.pods.insert((namespace, pod));
            self.pod_names.insert(pod);
            self.namespaces.insert(namespace);
        }
        if !workload.is_empty() {
            self.workloads.insert((namespace, workload));
            self.workload_names.insert(workload);
        }
    }

    /// An identity.
    pub fn add_identity(&mut self, labels: &[String]) {
        let app = super::context::app(labels);
        if !app.is_empty() {
            self.apps.insert(app.to_owned());
        }
        self.identities.insert(labels.join(","));
    }

    /// Whether the value of a label names somebody who is there. `next` is the value behind it.
    fn has(&self, subject: Subject, value: &str, next: &str) -> bool {
        match subject {
            Subject::Lasting => value.starts_with("reserved:"),
            Subject::Pod => value.split_once('/').is_some_and(|pair| self.pods.contains(&pair)),
            Subject::PodName => self.pod_names.contains(value),
            Subject::PodBeforeNamespace => self.pods.contains(&(next, value)),
            Subject::Namespace => self.namespaces.contains(value),
            Subject::Workload => {
                value.split_once('/').is_some_and(|pair| self.workloads.contains(&pair))
                    || self.workload_names.contains(value)
            }
            Subject::WorkloadName => self.workload_names.contains(value),
            Subject::App => self.apps.contains(value),
            Subject::Identity => value.starts_with("reserved:") || self.identities.contains(value),
            Subject::Address => self.addresses.contains(value),
        }
    }
}

/// Label values of a series, made in a buffer that is used again.
#[derive(Debug, Default)]
pub struct Key {
    text: String,
}

/// Behind each value; no name or label of Kubernetes has it, and one that did would only share a series.
const SEPARATOR: char = '\0';

impl Key {
    /// Begins anew.
    pub fn clear(&mut self) {
        self.text.clear();
    }

    /// Adds a value.
    pub fn push(&mut self, value: &str) {
        self.text.push_str(value);
        self.text.push(SEPARATOR);
    }

    fn values(&self) -> impl Iterator<Item = &str> {
        self.text.split_terminator(SEPARATOR)
    }
}

/// One series.
#[derive(Debug)]
struct Series {
    labels: Labels,
    count: u64,
    gone_since: Option<Instant>,
}

/// All series of a metric.
#[derive(Debug)]
pub(super) struct SeriesSet {
    description: &'static Description,
    names: Vec<&'static str>,
    /// For each label whom it can name; empty for one of the metric's own.
    subjects: Vec<Vec<Subject>>,
    series: HashMap<Box<str>, Series>,
    uncounted: u64,
}

impl SeriesSet {
    pub(super) fn new(description: &'static Description, labels: Vec<(&'static str, Vec<Subject>)>) -> Self {
        let (names, subjects) = labels.into_iter().unzip();
        Self { description, names, subjects, series: HashMap::new(), uncounted: 0 }
    }

    /// Counts one. The key has a value for each label.
    pub(super) fn count(&mut self, key: &Key) {
        if let Some(series) = self.series.get_mut(&*key.text) {
            series.count += 1;
        } else if self.series.len() >= MOST {
            self.uncounted += 1;
        } else {
            let labels = self.names.iter().copied().zip(key.values().map(str::to_owned)).collect();
            self.series.insert(key.text.as_str().into(), Series { labels, count: 1, gone_since: None });
        }
    }

    /// Whether a label names somebody who can be gone.
    pub(super) fn names_somebody(&self) -> bool {
        self.subjects.iter().flatten().any(|subject| *subject != Subject::Lasting)
    }

    /// Removes series whose subject has been gone for long enough.
    pub(super) fn forget(&mut self, now: Instant, living: &Living<'_>) {
        let subjects = &self.subjects;
        self.series.retain(|_, series| {
            if names_only_the_living(&series.labels, subjects, living) {
                series.gone_since = None;
                return true;
            }
            now.saturating_duration_since(*series.gone_since.get_or_insert(now)) < GRACE
        });
    }

    pub(super) fn uncounted(&self) -> u64 {
        self.uncounted
    }

    pub(super) fn family(&self) -> Family {
        let mut samples: Vec<_> =
            self.series.values().map(|series| (series.labels.clone(), Value::Count(series.count))).collect();
        samples.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Family { description: self.description, samples }
    }
}

fn names_only_the_living(labels: &Labels, subjects: &[Vec<Subject>], living: &Living<'_>) -> bool {
    labels.iter().zip(subjects).enumerate().all(|(at, ((_, value), subjects))| {
        let next = labels.get(at + 1).map_or("", |(_, value)| value);
        // If no context had a value, the label is empty and names nobody.
        value.is_empty()
            || subjects.is_empty()
            || subjects == &[Subject::Lasting]
            || subjects.iter().any(|subject| living.has(*subject, value, next))
    })
}

/// Ports that a metric tells apart.
#[derive(Debug, Default)]
pub(super) struct Ports(HashSet<(u8, u32)>);

impl Ports {
    /// The port as a label's value. `protocol` keeps ports of different protocols apart.
    pub(super) fn label(&mut self, protocol: u8, port: u32) -> String {
        let known = self.0.contains(&(protocol, port));
        if known || self.0.len() < MOST_PORTS {
            self.0.insert((protocol, port));
            port.to_string()
        } else {
            "other".to_owned()
        }
    }
}
