//! Metrics for Prometheus: what a metric is, and the text in which it is scraped.
//!
//! Whoever has numbers hands them over as [`Family`] values at each scrape; nothing is registered globally and
//! nothing is kept twice. Each metric is described once, by a [`Description`]: the exposition text, `docs/metrics.md` and
//! the tests are made from it. Neighbours: [`http`] serves, [`hubble`] counts flows under Hubble's names, [`flows`] has a
//! journal's metrics, [`process`] this process's; the agent's own are in `agent/src/metrics`, the relay's in
//! [`crate::relay`].

pub mod flows;
pub mod http;
pub mod hubble;
pub mod process;

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Limits of the buckets in which durations are counted, seconds: those of Prometheus' own client libraries, and two
/// below them for what takes less than 5 ms.
pub const SECONDS: [f64; 13] = [0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the process lives.
    Counter,
    /// A current value.
    Gauge,
    /// How long things took, or how large they were.
    Histogram,
}

/// A metric, as the reference lists it.
#[derive(Debug, PartialEq, Eq)]
pub struct Description {
    /// Its whole name; a counter's ends in `_total`.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Names of its labels, context labels of flow metrics left out.
    pub labels: &'static [&'static str],
    /// What it says, in one sentence, with its unit.
    pub help: &'static str,
}

impl Description {
    /// A counter. Its name ends in `_total`.
    #[must_use]
    pub const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Counter, labels, help }
    }

    /// A gauge.
    #[must_use]
    pub const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, labels, help }
    }

    /// A histogram.
    #[must_use]
    pub const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Histogram, labels, help }
    }
}

/// Names and values of labels.
pub type Labels = Arc<[(&'static str, String)]>;

/// A metric with its series.
#[derive(Clone, Debug)]
pub struct Family {
    /// Which metric.
    pub description: &'static Description,
    /// Its series; without any, the text says nothing of it.
    pub samples: Vec<(Labels, Value)>,
}

/// The number of one series.
#[derive(Clone, Debug)]
pub enum Value {
    /// Things counted.
    Count(u64),
    /// A measure.
    Number(f64),
    /// Many measures.
    Spread(Histogram),
}

impl Family {
    /// A metric without series yet.
    #[must_use]
    pub const fn new(description: &'static Description) -> Self {
        Self { description, samples: Vec::new() }
    }

    /// A metric without labels.
    #[must_use]
    pub fn single(description: &'static Description, value: Value) -> Self {
        Self { description, samples: vec![(Labels::default(), value)] }
    }

    /// Adds a series; values of labels in the order of the description's names.
    ///
    /// # Panics
    ///
    /// There are more or fewer values than names.
    pub fn add<const N: usize>(&mut self, values: [&str; N], value: Value) {
        let names = self.description.labels;
        assert_eq!(names.len(), N, "a value for each label of {}", self.description.name);
        let labels = names.iter().copied().zip(values.map(str::to_owned)).collect();
        self.samples.push((labels, value));
    }

    /// The same, for a chain of calls.
    #[must_use]
    pub fn with<const N: usize>(mut self, values: [&str; N], value: Value) -> Self {
        self.add(values, value);
        self
    }
}

/// How a scrape wants its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0: a counter is described by its name without `_total`, and the text has an end.
    OpenMetrics,
    /// Prometheus' older text, version 0.0.4: a counter is described by the name of its series.
    Prometheus,
}

impl Format {
    /// What an `Accept` header asks for; the older text unless the newer one is named.
    #[must_use]
    pub fn accepted(header: &str) -> Self {
        if header.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// The `Content-Type` of the text.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The metrics as text.
#[must_use]
pub fn text(families: Vec<Family>, format: Format) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families(families)));
    let mut text = String::new();
    encode(&mut text, &registry).expect("a String takes any text");
    match format {
        Format::OpenMetrics => text,
        Format::Prometheus => describe_series(&text),
    }
}

/// Names counters in their descriptions as their series are named, and leaves the end out.
fn describe_series(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 64);
    let mut help = None;
    for line in text.lines().filter(|line| *line != "# EOF") {
        if line.starts_with("# HELP ") {
            help = Some(line);
            continue;
        }
        let counter = line.strip_prefix("# TYPE ").and_then(|rest| rest.strip_suffix(" counter"));
        if let Some(help) = help.take() {
            let described = help["# HELP ".len()..].split_once(' ');
            match (counter, described) {
                (Some(name), Some((_, words))) => {
                    out.extend(["# HELP ", name, "_total ", words, "\n"]);
                }
                _ => out.extend([help, "\n"]),
            }
        }
        match counter {
            Some(name) => out.extend(["# TYPE ", name, "_total counter\n"]),
            None => out.extend([line, "\n"]),
        }
    }
    out
}

/// Metrics on their way into the text.
#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for Family { description, samples } in self.0.iter().filter(|family| !family.samples.is_empty()) {
            let (name, kind) = match description.kind {
                Kind::Counter => (description.name.trim_end_matches("_total"), MetricType::Counter),
                Kind::Gauge => (description.name, MetricType::Gauge),
                Kind::Histogram => (description.name, MetricType::Histogram),
            };
            let mut metric = encoder.encode_descriptor(name, description.help, None, kind)?;
            for (labels, value) in samples {
                let labels = labels.as_ref();
                if labels.is_empty() {
                    write(metric, description.kind, value)?;
                    break;
                }
                write(metric.encode_family(&labels)?, description.kind, value)?;
            }
        }
        Ok(())
    }
}

fn write(mut series: MetricEncoder<'_>, kind: Kind, value: &Value) -> fmt::Result {
    match (kind, value) {
        (Kind::Counter, Value::Count(count)) => series.encode_counter::<NoLabelSet, u64, f64>(count, None),
        (Kind::Counter, Value::Number(number)) => series.encode_counter::<NoLabelSet, f64, f64>(number, None),
        (_, Value::Count(count)) => series.encode_gauge(&i64::try_from(*count).unwrap_or(i64::MAX)),
        (_, Value::Number(number)) => series.encode_gauge(number),
        (_, Value::Spread(histogram)) => histogram.encode(series),
    }
}

#[cfg(test)]
mod tests;
