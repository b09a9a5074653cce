//! What the observer costs traffic, and its throughput, from kernel events to flows at a client.
//!
//! Costs are compared in one run: a node without observer, one with it, and the latter with a client that follows, by turns
//! ([`sides`]). [`loads`] has the traffic of the group `traffic` at default aggregation, [`rates`] a fixed number of
//! events a second, [`lossless`] as many as possible, [`memory`] full rings. [`filters`] and [`relay`] need no node.
//!
//! Neighbours: [`follower`] is the client, [`paced`] sends at a rate, [`count`] reads the programs' counters of their
//! rings, [`processor`] a process's processor time, [`sample`] makes a flow as an agent does.

mod count;
mod filters;
mod follower;
mod loads;
mod lossless;
mod memory;
mod paced;
mod processor;
mod rates;
mod relay;
mod sample;
mod sides;

use anyhow::Result;

use super::Options;
use super::report::Row;

/// The group's name in rows.
const GROUP: &str = "observer";

/// Measures everything.
pub(super) fn run(options: &Options) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for measure in [loads::run, rates::run, lossless::run, memory::run, filters::run, relay::run] {
        rows.extend(measure(options)?);
    }
    Ok(rows)
}
