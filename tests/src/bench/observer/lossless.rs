//! How many events a second get from the kernel's ring through the agent to a client without a loss, with the agent on one
//! processor.
//!
//! The rate is raised until something is lost or the sender reaches its limit. At each step every event is accounted for:
//! it arrived, or it was counted as lost, in the kernel's ring or for the client. Neighbours: `paced.rs` sends,
//! `follower.rs` counts.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::GROUP;
use super::count::Count;
use super::follower::{Follower, Told};
use super::paced::Lane;
use super::sides::{PORT, Site};
use crate::bench::report::{Aim, Row};
use crate::bench::spread::Spread;
use crate::bench::{Options, pin};
use crate::lab::Family;
use crate::lab::process::{interrupted, pause, wait_until};

/// The first step, and the distance to the next, in events a second.
const STEP: f64 = 10_000.0;
/// No further than this.
const MOST: f64 = 600_000.0;
/// A sender that does less of what it is asked for can't offer more.
const ENOUGH: f64 = 0.97;
/// Where the agent stays. The sender is pinned to the other processor; the client is not pinned.
const AGENT: usize = 1;
const SENDER: usize = 0;
/// Flows in the agent's ring: how far a client may be behind. The first is the agent's default.
const CAPACITIES: [&str; 2] = ["4095", "16383"];
/// Nothing comes after so long a silence.
const SILENCE: Duration = Duration::from_millis(300);
/// What is on its way arrives within this.
const LIMIT: Duration = Duration::from_secs(10);
/// Events a second that the project wants.
const AIM: f64 = 100_000.0;

/// One step.
struct Step {
    rate: f64,
    sent: u64,
    lost_in_ring: u64,
    lost: u64,
    offered: bool,
}

/// Measures.
pub(super) fn run(options: &Options) -> Result<Vec<Row>> {
    let (rounds, length) = if options.quick { (1, 500) } else { (5, 2000) };
    let length = Duration::from_millis(length);
    CAPACITIES.iter().map(|capacity| highest(options.family(), capacity, rounds, length)).collect()
}

/// The highest rate for a size of the agent's ring of flows.
fn highest(family: Family, capacity: &str, rounds: usize, length: Duration) -> Result<Row> {
    let words = ["--monitor-aggregation", "none", "--hubble-event-buffer-capacity", capacity];
    let site = Site::start(family, &words)?;
    pin::process_to_processor(site.agent()?, AGENT)?;
    let (mut best, mut ends) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (highest, end) = climb(&site, length)?;
        best.push(highest);
        ends.push(end);
    }
    let spread = Spread::of(best).context("no rounds")?;
    let name = format!("ring to client without a loss, agent on 1 processor, ring of {capacity} flows");
    let note = format!("where it ended: {}", ends.join("; "));
    Ok(Row::new(GROUP, &name, "1/s", spread).aim(Aim::AtLeast(AIM)).note(note))
}

/// The highest rate without a loss, and what was at the next one.
fn climb(site: &Site, length: Duration) -> Result<(f64, String)> {
    let lane = Lane::for_events(site)?;
    let follower = Follower::start(site.node(), PORT)?;
    wait_until("the client to hear a first flow", LIMIT, || {
        lane.send_one()?;
        Ok(follower.told()?.of_port > 0)
    })?;
    let (mut highest, mut rate) = (0.0_f64, STEP);
    while rate <= MOST {
        ensure!(!interrupted(), "interrupted");
        let step = step(site, &lane, &follower, rate, length)?;
        if step.lost > 0 {
            let Step { rate, sent, lost, lost_in_ring, .. } = step;
            let client = lost - lost_in_ring;
            return Ok((
                highest,
                format!("{rate:.0}/s lost {lost_in_ring} in the ring and {client} for the client of {sent}"),
            ));
        }
        highest = highest.max(step.rate);
        if !step.offered {
            return Ok((highest, format!("the sender does no more than {:.0}/s", step.rate)));
        }
        rate += STEP;
    }
    Ok((highest, format!("{MOST:.0}/s is the last step")))
}

fn step(site: &Site, lane: &Lane, follower: &Follower, rate: f64, length: Duration) -> Result<Step> {
    let told = quiet(follower)?;
    let count = Count::read(site.node())?;
    let sent = thread::scope(|scope| {
        let sending = scope.spawn(|| {
            pin::to_processor(SENDER)?;
            lane.send(rate, length)
        });
        sending.join().map_err(|_| anyhow!("a sender panicked"))?
    })?;
    let now = quiet(follower)?;
    let (came, lost) = (now.of_port - told.of_port, now.lost - told.lost);
    let count = Count::read(site.node())? - count;
    ensure!(
        came <= sent.count && sent.count <= came + lost,
        "{} events were made, {came} came and {lost} are counted as lost",
        sent.count
    );
    ensure!(count.lost <= lost, "the ring has lost {}, the client was told of {lost}", count.lost);
    let reached = sent.count as f64 / sent.took.as_secs_f64();
    Ok(Step {
        rate: reached,
        sent: sent.count,
        lost_in_ring: count.lost,
        lost,
        offered: reached >= ENOUGH * rate,
    })
}

/// What the client has heard when nothing more comes.
fn quiet(follower: &Follower) -> Result<Told> {
    let start = Instant::now();
    let mut told = follower.told()?;
    loop {
        pause(SILENCE)?;
        let now = follower.told()?;
        if now == told {
            return Ok(now);
        }
        ensure!(start.elapsed() < LIMIT, "flows still come {} s after the last event", LIMIT.as_secs());
        told = now;
    }
}
