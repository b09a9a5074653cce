//! Which metrics are asked for, in Hubble's words: `drop:sourceContext=pod|namespace;destinationContext=workload flow`.
//!
//! Metrics are separated by blanks, a metric from its options by a colon, options by semicolons, values by `|` or, where
//! there is none, by commas. Names of options and contexts may be in any case. What Hubble silently ignores (an unknown
//! metric, an option that a metric does not have) is refused here, because its author would never notice; so is an option
//! that would add an unbounded label.

use super::context::{Context, Contexts, LABELS, Label};

/// A metric that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricSettings {
    /// Which one.
    pub metric: Metric,
    /// Whom its series name.
    pub contexts: Contexts,
}

/// The metrics that count flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// `flow`.
    Flow,
    /// `drop`.
    Drop,
    /// `tcp`.
    Tcp,
    /// `icmp`.
    Icmp,
    /// `port-distribution`.
    PortDistribution,
    /// `flows-to-world`.
    FlowsToWorld {
        /// `any-drop`: drops that are not policy's count too.
        any_drop: bool,
        /// `port`: the destination's port is a label.
        port: bool,
        /// `syn-only`: of TCP, only the opening SYN counts.
        syn_only: bool,
    },
    /// `policy`.
    Policy,
}

/// Why metrics can't be had as they are asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// There is no such metric.
    #[error("{0:?} is no metric; there are {NAMES}")]
    Unknown(String),
    /// Hubble has it, and nothing here makes the flows that it counts.
    #[error("{metric}: {why}")]
    NoFlows {
        /// Its name.
        metric: &'static str,
        /// What is missing.
        why: &'static str,
    },
    /// It is asked for twice.
    #[error("{0} is asked for twice")]
    Twice(String),
    /// An option can't be had.
    #[error("{metric}: {option}: {why}")]
    Option {
        /// Its metric.
        metric: String,
        /// The option.
        option: String,
        /// What is wrong.
        why: String,
    },
}

const NAMES: &str = "drop, flow, flows-to-world, icmp, policy, port-distribution, tcp";
const OPTIONS: &str = "sourceContext, destinationContext, sourceEgressContext, sourceIngressContext, \
                       destinationEgressContext, destinationIngressContext, labelsContext";
const NO_NAMES: &str = "no flow carries DNS names yet, and those of the world would have no bound";

/// Reads what is asked for.
///
/// # Errors
///
/// [`SettingsError`] names the metric and the option.
pub fn parse(text: &str) -> Result<Vec<MetricSettings>, SettingsError> {
    let mut metrics: Vec<(&str, MetricSettings)> = Vec::new();
    for word in text.split_whitespace() {
        let (name, options) = word.split_once(':').unwrap_or((word, ""));
        let settings = parse_metric(name, options)?;
        if metrics.iter().any(|(other, _)| *other == name) {
            return Err(SettingsError::Twice(name.to_owned()));
        }
        metrics.push((name, settings));
    }
    Ok(metrics.into_iter().map(|(_, settings)| settings).collect())
}

fn parse_metric(name: &str, options: &str) -> Result<MetricSettings, SettingsError> {
    let metric = match name {
        "flow" => Metric::Flow,
        "drop" => Metric::Drop,
        "tcp" => Metric::Tcp,
        "icmp" => Metric::Icmp,
        "port-distribution" => Metric::PortDistribution,
        "flows-to-world" => Metric::FlowsToWorld { any_drop: false, port: false, syn_only: false },
        "policy" => Metric::Policy,
        "dns" => return none("dns", "there are no DNS flows yet"),
        "http" => return none("http", "there are no HTTP flows yet"),
        "httpV2" => return none("httpV2", "there are no HTTP flows yet"),
        "kafka" => return none("kafka", "there are no Kafka flows, and Cilium 1.20 has none any more"),
        "sctp" => return none("sctp", "flows do not say the type of an SCTP chunk"),
        "flows-per-pod" => return none("flows-per-pod", "flow:sourceContext=pod counts the same"),
        _ => return Err(SettingsError::Unknown(name.to_owned())),
    };
    let mut settings = MetricSettings { metric, contexts: Contexts::default() };
    for option in options.split(';').filter(|option| !option.is_empty()) {
        let (key, value) = option.split_once('=').map_or((option, None), |(key, value)| (key, Some(value)));
        set(&mut settings, key, value).map_err(|why| SettingsError::Option {
            metric: name.to_owned(),
            option: option.to_owned(),
            why,
        })?;
    }
    Ok(settings)
}

fn none(metric: &'static str, why: &'static str) -> Result<MetricSettings, SettingsError> {
    Err(SettingsError::NoFlows { metric, why })
}

fn set(settings: &mut MetricSettings, key: &str, value: Option<&str>) -> Result<(), String> {
    let contexts = &mut settings.contexts;
    let key = key.to_lowercase();
    if let Metric::FlowsToWorld { any_drop, port, syn_only } = &mut settings.metric {
        let switch = match &*key {
            "any-drop" => Some(any_drop),
            "port" => Some(port),
            "syn-only" => Some(syn_only),
            _ => None,
        };
        if let Some(switch) = switch {
            *switch = true;
            // Hubble accepts a value and ignores it: `port=false` would switch the option on.
            return value.map_or(Ok(()), |_| Err("it takes no value: leave it out or name it".to_owned()));
        }
    }
    let list = match &*key {
        "sourcecontext" => &mut contexts.source.any,
        "sourceegresscontext" => &mut contexts.source.egress,
        "sourceingresscontext" => &mut contexts.source.ingress,
        "destinationcontext" => &mut contexts.destination.any,
        "destinationegresscontext" => &mut contexts.destination.egress,
        "destinationingresscontext" => &mut contexts.destination.ingress,
        "labelscontext" => {
            for value in values(value)? {
                let label = LABELS.iter().find(|(name, _)| *name == value);
                let (_, label) =
                    label.ok_or_else(|| format!("{value:?} is no label; there are {}", labels()))?;
                contexts.labels.push(*label);
            }
            // In Hubble's order, whatever order they are asked for in.
            contexts.labels.sort_unstable();
            contexts.labels.dedup();
            return Ok(());
        }
        _ => {
            let more = match settings.metric {
                Metric::FlowsToWorld { .. } => ", any-drop, port, syn-only",
                _ => "",
            };
            return Err(format!("there is no such option; there are {OPTIONS}{more}"));
        }
    };
    if !list.is_empty() {
        return Err("it is set twice".to_owned());
    }
    for value in values(value)? {
        list.push(context(value)?);
    }
    Ok(())
}

/// The values of an option, at least one.
fn values(text: Option<&str>) -> Result<Vec<&str>, String> {
    let text = text.unwrap_or_default();
    let separator = if text.contains('|') { '|' } else { ',' };
    let values: Vec<&str> = text.split(separator).filter(|value| !value.is_empty()).collect();
    if values.is_empty() { Err("it needs a value".to_owned()) } else { Ok(values) }
}

fn context(text: &str) -> Result<Context, String> {
    Ok(match &*text.to_lowercase() {
        "identity" => Context::Identity,
        "namespace" => Context::Namespace,
        "pod" => Context::Pod,
        "pod-name" => Context::PodName,
        "ip" => Context::Ip,
        "reserved-identity" => Context::ReservedIdentity,
        "workload" => Context::Workload,
        "workload-name" => Context::WorkloadName,
        "app" => Context::App,
        "dns" => return Err(NO_NAMES.to_owned()),
        _ => {
            return Err(format!(
                "{text:?} is no context; there are identity, namespace, pod, pod-name, ip, reserved-identity, workload, \
                 workload-name, app"
            ));
        }
    })
}

fn labels() -> String {
    LABELS.map(|(name, _): (&str, Label)| name).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn what_hubble_is_given() {
        // The values of Cilium's own documentation, without those for flows that don't exist here.
        let text = "drop:sourceContext=pod;destinationContext=pod|reserved-identity tcp  flow:SourceIngressContext=Workload-Name,App \
                    port-distribution icmp policy:labelsContext=traffic_direction,source_namespace,source_pod \
                    flows-to-world:any-drop;port;syn-only;sourceContext=namespace";
        let metrics = parse(text).unwrap();
        assert_eq!(
            metrics.iter().map(|settings| settings.metric).collect::<Vec<_>>(),
            [
                Metric::Drop,
                Metric::Tcp,
                Metric::Flow,
                Metric::PortDistribution,
                Metric::Icmp,
                Metric::Policy,
                Metric::FlowsToWorld { any_drop: true, port: true, syn_only: true },
            ]
        );
        assert_eq!(metrics[0].contexts.source.any, [Context::Pod]);
        assert_eq!(metrics[0].contexts.destination.any, [Context::Pod, Context::ReservedIdentity]);
        assert_eq!(metrics[2].contexts.source.ingress, [Context::WorkloadName, Context::App]);
        assert_eq!(
            metrics[5].contexts.labels,
            [Label::SourcePod, Label::SourceNamespace, Label::TrafficDirection],
            "in Hubble's order"
        );
        assert_eq!(metrics[6].contexts.source.any, [Context::Namespace]);
        assert_eq!(parse(""), Ok(Vec::new()));
    }

    #[test]
    fn what_is_refused_is_named_with_its_reason() {
        for (text, words) in [
            ("dns", "dns: there are no DNS flows yet"),
            ("drop dns:query;ignoreAAAA", "dns: there are no DNS flows yet"),
            ("http", "http: there are no HTTP flows yet"),
            ("httpV2:exemplars=true", "httpV2: there are no HTTP flows yet"),
            ("kafka", "kafka: there are no Kafka flows, and Cilium 1.20 has none any more"),
            ("sctp", "sctp: flows do not say the type of an SCTP chunk"),
            (
                "drops",
                "\"drops\" is no metric; there are drop, flow, flows-to-world, icmp, policy, port-distribution, tcp",
            ),
            (
                "Drop",
                "\"Drop\" is no metric; there are drop, flow, flows-to-world, icmp, policy, port-distribution, tcp",
            ),
            ("drop tcp drop:sourceContext=pod", "drop is asked for twice"),
            (
                "drop:sourceContext=pods",
                "drop: sourceContext=pods: \"pods\" is no context; there are identity, namespace, pod, pod-name, ip, reserved-identity, workload, workload-name, app",
            ),
            ("drop:sourceContext=", "drop: sourceContext=: it needs a value"),
            ("drop:sourceContext", "drop: sourceContext: it needs a value"),
            ("drop:sourceContext=pod;sourceContext=ip", "drop: sourceContext=ip: it is set twice"),
            (
                "flow:destinationContext=pod|dns",
                "flow: destinationContext=pod|dns: no flow carries DNS names yet, and those of the world would have no bound",
            ),
            (
                "tcp:port",
                "tcp: port: there is no such option; there are sourceContext, destinationContext, sourceEgressContext, sourceIngressContext, destinationEgressContext, destinationIngressContext, labelsContext",
            ),
            (
                "flows-to-world:port=false",
                "flows-to-world: port=false: it takes no value: leave it out or name it",
            ),
        ] {
            assert_eq!(refusal(text), words);
        }
        let words = refusal("policy:labelsContext=source_pod,source_port");
        assert!(words.starts_with("policy: labelsContext=source_pod,source_port: \"source_port\" is no label; there are source_ip, "), "{words}");
        let words = refusal("flows-to-world:ports");
        assert!(words.ends_with("labelsContext, any-drop, port, syn-only"), "{words}");
    }
}
