//! What an agent takes with rings of flows of several sizes, each full.
//!
//! Neighbours: `paced.rs` fills them, `../footprint.rs` reads the agent's memory.

use std::time::Duration;

use anyhow::{Context, Result};

use super::GROUP;
use super::paced::Lane;
use super::sides::Site;
use crate::bench::report::Row;
use crate::bench::spread::Spread;
use crate::bench::{Options, footprint};
use crate::lab::process::wait_until;

/// Flows that a ring holds; the second is the default.
const SIZES: [usize; 4] = [1_023, 4_095, 16_383, 65_535];
/// More bytes than any of these rings needs, so that the count is what limits them.
const BYTES: usize = 1 << 30;
/// Events a second that fill a ring.
const RATE: f64 = 20_000.0;
/// A ring is full after this.
const LIMIT: Duration = Duration::from_secs(60);

/// Measures every size.
pub(super) fn run(options: &Options) -> Result<Vec<Row>> {
    SIZES.into_iter().map(|size| measure(size, options)).collect()
}

fn measure(size: usize, options: &Options) -> Result<Row> {
    let capacity = format!("--hubble-event-buffer-capacity={size}");
    let bytes = format!("--hubble-event-buffer-bytes={BYTES}");
    let site = Site::start(options.family(), &["--monitor-aggregation", "none", &capacity, &bytes])?;
    let lane = Lane::for_events(&site)?;
    wait_until("a full ring", LIMIT, || {
        lane.send(RATE, Duration::from_millis(200))?;
        Ok(held(&site)? >= size as u64)
    })?;
    let (resident, note) = footprint::resident(site.node())?;
    let spread = Spread::of(vec![resident]).context("one number")?;
    Ok(Row::new(GROUP, format!("agent memory, ring of {size} flows, full"), "MB", spread).note(note))
}

/// Flows in the ring.
fn held(site: &Site) -> Result<u64> {
    let output = site.node().sinew(&["status", "-o", "json"])?;
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).context("the status is JSON")?;
    let held = status.pointer("/status/flows/held").or_else(|| status.pointer("/flows/held"));
    // Without a flow the field is left out.
    Ok(held.and_then(|count| count.as_u64().or_else(|| count.as_str()?.parse().ok())).unwrap_or(0))
}
