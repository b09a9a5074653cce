//! What the observer costs the loads of the group `traffic`, pod to pod on one node, at default aggregation.
//!
//! Request and response use one processor, so their ratio is what records cost the programs; the agent's share of the
//! other processor is a row of its own. A stream uses both processors and is affected by both. Neighbours: `sides.rs`,
//! `../load.rs`.

use std::time::Duration;

use anyhow::{Context, Result};

use super::GROUP;
use super::sides::{Side, Sides, against_off, with_agent};
use crate::bench::Options;
use crate::bench::load::{self, Load};
use crate::bench::report::{Aim, Row};
use crate::bench::spread::Spread;

/// Connections are reported apart: each makes eight records, and nobody promised two percent of that.
const LOADS: [(Load, bool); 3] =
    [(Load::TcpStream, true), (Load::Requests, true), (Load::Connections, false)];
/// Percent of a processor that the observer may take.
const AIM: f64 = 2.0;

/// Measures all loads.
pub(super) fn run(options: &Options) -> Result<Vec<Row>> {
    let sides = Sides::start(options.family(), &[])?;
    let mut rows = Vec::new();
    for (load, has_aim) in LOADS {
        rows.extend(measure(&sides, load, has_aim, options)?);
    }
    Ok(rows)
}

fn measure(sides: &Sides, load: Load, has_aim: bool, options: &Options) -> Result<Vec<Row>> {
    let (rounds, length) = if options.quick { (3, 150) } else { (11, 300) };
    let length = Duration::from_millis(length);
    // Neighbours and caches warm up.
    sides.by_turns(1, |site| load::run(load, &site.ends(), Duration::from_millis(50)))?;
    let pairs = sides.by_turns(rounds, |site| with_agent(site, || load::run(load, &site.ends(), length)))?;
    let [off, on, followed] = pairs.map(|pairs| pairs.into_iter().unzip::<f64, f64, Vec<_>, Vec<_>>());
    let mut rows = Vec::new();
    for (side, (through, _)) in [(Side::On, &on), (Side::Followed, &followed)] {
        let (ours, against) = against_off(through, &off.0)?;
        let name = format!("{}, observer {}", load.name(), side.name());
        let row = Row { against: Some(against), ..Row::new(GROUP, name, load.unit(), ours) };
        let is_quiet = side == Side::On && has_aim;
        rows.push(Row { aim: is_quiet.then_some(Aim::AtLeast(1.0 - AIM / 100.0)), ..row });
    }
    for (side, (_, percent)) in [(Side::Off, off), (Side::On, on), (Side::Followed, followed)] {
        let spread = Spread::of(percent).context("no rounds")?;
        let name = format!("agent, {}, observer {}", load.name(), side.name());
        let row = Row::new(GROUP, name, "% CPU", spread);
        let is_quiet = side == Side::On && has_aim;
        rows.push(Row { aim: is_quiet.then_some(Aim::AtMost(AIM)), ..row });
    }
    Ok(rows)
}
