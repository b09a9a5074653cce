//! What the observer costs traffic, and how much goes through it: events of the kernel as flows to clients.
//!
//! Costs are compared in one run: a node without observer, one with it, and that one with a client that follows, by turns
//! ([`sides`]). [`loads`] has the traffic of the group `traffic` at default aggregation, [`rates`] a fixed number of
//! events a second, [`lossless`] as many as go, [`memory`] full rings. [`filters`] and [`relay`] need no node.
//!
//! Neighbours: [`follower`] is the client, [`paced`] sends at a rate, [`count`] is what programs say of their rings,
//! [`processor`] the time that a process takes, [`sample`] a flow as an agent makes it.

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
