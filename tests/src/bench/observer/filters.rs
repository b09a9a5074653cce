//! How many flows a second pass through filters, on one processor: what a client's request costs the agent for each
//! flow, whether the client gets it or not.
//!
//! Neighbour: `sample.rs` makes the flows.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use sinew_api::proto::flow::FlowFilter;
use sinew_api::proto::flow::flow_filter::Experimental;
use sinew_observer::filter::FilterSet;

use super::{GROUP, sample};
use crate::bench::Options;
use crate::bench::report::Row;
use crate::bench::spread::Spread;
use crate::lab::process::interrupted;

/// Flows, of as many pairs of pods.
const FLOWS: u32 = 10_000;

/// Filters, and how long they are asked.
struct Case {
    name: &'static str,
    allow: Vec<FlowFilter>,
    /// Times through the flows in a round: less where an expression is evaluated.
    passes: usize,
}

/// Measures every case.
pub(super) fn run(options: &Options) -> Result<Vec<Row>> {
    let rounds = if options.quick { 3 } else { 11 };
    let flows: Vec<_> = (0..FLOWS).map(sample::flow).collect();
    let mut rows = Vec::new();
    for Case { name, allow, passes } in cases() {
        let filters = FilterSet::new(&allow, &[]).with_context(|| format!("filters {name}"))?;
        let (mut numbers, mut passed) = (Vec::new(), 0);
        for _ in 0..rounds {
            ensure!(!interrupted(), "interrupted");
            let start = Instant::now();
            for _ in 0..passes {
                passed = flows.iter().filter(|flow| filters.matches(black_box(flow))).count();
            }
            numbers.push(f64::from(FLOWS) * passes as f64 / start.elapsed().as_secs_f64());
        }
        ensure!(passed > 0, "filters {name}: no flow passes");
        let spread = Spread::of(numbers).context("no rounds")?;
        let note = format!("{passed} of {FLOWS} pass");
        rows.push(Row::new(GROUP, format!("filters, {name}"), "flows/s", spread).note(note));
    }
    Ok(rows)
}

fn cases() -> [Case; 4] {
    let pod = |number: u32| FlowFilter {
        source_pod: vec![format!("shop/client-{number}-")],
        ..FlowFilter::default()
    };
    let expression = "_flow.verdict == Verdict.FORWARDED && _flow.source.pod_name.startsWith('client-1') && \
         _flow.l4.TCP.destination_port == uint(8080)";
    let experimental = Experimental { cel_expression: vec![expression.to_owned()] };
    let cel = FlowFilter { experimental: Some(experimental), ..FlowFilter::default() };
    [
        Case { name: "none", allow: Vec::new(), passes: 200 },
        Case { name: "one pod", allow: vec![pod(1)], passes: 50 },
        Case { name: "ten pods", allow: (0..10).map(pod).collect(), passes: 20 },
        Case { name: "one CEL expression", allow: vec![cel], passes: 1 },
    ]
}
