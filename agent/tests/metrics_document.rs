//! `docs/metrics.md` is made of the descriptions in the code: this test compares it, or writes it where
//! `SINEW_WRITE_DOCUMENTS=1` is set.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use sinew_agent::metrics::descriptions;
use sinew_observer::metrics::hubble::context::LABELS;
use sinew_observer::metrics::hubble::series::{GRACE, MOST, MOST_PORTS};
use sinew_observer::metrics::{Description, Kind, http, process};
use sinew_observer::relay::counted;

fn file(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn document() -> String {
    let mut text = format!(
        "# Metrics

This page is made from the code by `SINEW_WRITE_DOCUMENTS=1 cargo test -p sinew-agent --test metrics_document`; the same test
fails when it is stale. `docs/observability.md` says how to switch metrics on and which boards and alerts there are.

## Options of metrics that count flows

`--hubble-metrics` takes names of metrics separated by blanks, each with options as Hubble has them:
`NAME:OPTION=VALUE|VALUE;OPTION=VALUE`.

| name | metric | options besides contexts |
| --- | --- | --- |
| `flow` | `hubble_flows_processed_total` | |
| `drop` | `hubble_drop_total` | |
| `tcp` | `hubble_tcp_flags_total` | |
| `icmp` | `hubble_icmp_total` | |
| `port-distribution` | `hubble_port_distribution_total` | |
| `flows-to-world` | `hubble_flows_to_world_total` | `any-drop`: drops that are not policy's too; `port`: a label `port`; `syn-only`: of TCP the opening SYN only |
| `policy` | `hubble_policy_verdicts_total` | |

`dns`, `http`, `httpV2`, `kafka` and `sctp` are refused: no flow has what they count. So is every name and option that
Hubble would pass over.

`sourceContext` and `destinationContext` add the labels `source` and `destination`, with the first of their values that is
not empty. `sourceEgressContext`, `sourceIngressContext`, `destinationEgressContext` and `destinationIngressContext` stand in
their place for flows of that direction.

| context | value |
| --- | --- |
| `identity` | all labels of the identity, by commas |
| `namespace` | namespace |
| `pod` | `namespace/pod` |
| `pod-name` | pod |
| `workload` | `namespace/workload` |
| `workload-name` | workload |
| `app` | the label `app.kubernetes.io/name`, `k8s-app` or `app` |
| `ip` | the address of a pod or a node; empty for others, which have no bound |
| `reserved-identity` | such as `reserved:world`; `reserved:kube-apiserver` before others |
| `dns` | refused: no flow carries names yet, and those of the world have no bound |

`labelsContext` adds labels of these names: {}.

A metric has {MOST} series at most and tells {MOST_PORTS} ports apart. The series of whoever is gone leave {} s later.
",
        LABELS.map(|(name, _)| format!("`{name}`")).join(", "),
        GRACE.as_secs(),
    );
    let relay: Vec<(&str, &[&Description])> =
        vec![("The relay", counted::METRICS), ("Its port", http::METRICS), ("Its process", process::METRICS)];
    for (title, topics) in [("Of an agent", descriptions()), ("Of a relay", relay)] {
        // Writing to a String can't fail.
        let _ = write!(text, "\n## {title}\n");
        for (topic, metrics) in topics {
            let _ = write!(
                text,
                "\n### {topic}\n\n| metric | kind | labels | what it says |\n| --- | --- | --- | --- |\n"
            );
            for Description { name, kind, labels, help } in metrics {
                let kind = match kind {
                    Kind::Counter => "counter",
                    Kind::Gauge => "gauge",
                    Kind::Histogram => "histogram",
                };
                let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
                let _ = writeln!(text, "| `{name}` | {kind} | {} | {help} |", labels.join(", "));
            }
        }
    }
    text
}

#[test]
fn the_reference_is_that_of_the_code() {
    let path = file("docs/metrics.md");
    let made = document();
    if std::env::var_os("SINEW_WRITE_DOCUMENTS").is_some_and(|value| value == "1") {
        std::fs::write(&path, made).unwrap();
        return;
    }
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text == made, "docs/metrics.md is stale; SINEW_WRITE_DOCUMENTS=1 writes it");
}

/// What Prometheus asks of names, and what makes them readable: prefixes, units, one description each.
#[test]
fn names_follow_the_rules() {
    let mut names = BTreeSet::new();
    for (_, metrics) in descriptions() {
        for Description { name, kind, help, .. } in metrics {
            assert!(names.insert(*name), "{name} is described twice");
            assert!(
                ["sinew_", "hubble_", "process_"].iter().any(|prefix| name.starts_with(prefix)),
                "{name} has no prefix of ours"
            );
            assert_eq!(*kind == Kind::Counter, name.ends_with("_total"), "{name}");
            assert!(help.ends_with('.') && !help.contains(['\n', '|']), "{name}: {help}");
            assert!(*kind != Kind::Histogram || name.ends_with("_seconds"), "{name} has no unit");
        }
    }
}
