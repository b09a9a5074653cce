//! What the observer costs at a fixed number of events a second: the agent's processor time, and the effect on requests.
//!
//! One thread sends datagrams at the rate from processor 0; requests are sent on processor 1, 250 a second, and their
//! packets are part of the rate. Without observer the same packets are sent and leave no record. Neighbours: `paced.rs`
//! sends both, `sides.rs` has the nodes.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use super::GROUP;
use super::count::Count;
use super::paced::Lane;
use super::sides::{Side, Sides, Site, against_off, with_agent};
use crate::bench::report::Row;
use crate::bench::spread::{Spread, quantile};
use crate::bench::{Options, pin};

/// Events a second, and their names.
const RATES: [(f64, &str); 3] = [(1e3, "1k"), (1e4, "10k"), (1e5, "100k")];
/// Time between two requests.
const PACE: Duration = Duration::from_millis(4);
/// Packets of a request and its answer.
const PACKETS: f64 = 2.0;

/// One slice of one side.
struct Slice {
    percent: f64,
    median: f64,
    p99: f64,
    /// Packets that were sent, a second.
    rate: f64,
    count: Count,
}

/// Measures all rates.
pub(super) fn run(options: &Options) -> Result<Vec<Row>> {
    let (rounds, length) = if options.quick { (2, 500) } else { (7, 2000) };
    let length = Duration::from_millis(length);
    let sides = Sides::start(options.family(), &["--monitor-aggregation", "none"])?;
    let mut rows = Vec::new();
    for (rate, name) in RATES {
        sides.by_turns(1, |site| slice(site, rate, length / 10))?;
        let slices = sides.by_turns(rounds, |site| slice(site, rate, length))?;
        rows.extend(rows_of(name, &slices)?);
    }
    Ok(rows)
}

fn slice(site: &Site, rate: f64, length: Duration) -> Result<Slice> {
    let (events, requests) = (Lane::for_events(site)?, Lane::for_requests(site)?);
    let asked_packets = PACKETS / PACE.as_secs_f64();
    let before = Count::read(site.node())?;
    let ((sent, mut times), percent) = with_agent(site, || {
        thread::scope(|scope| {
            let sending = scope.spawn(|| {
                pin::to_processor(0)?;
                events.send(rate - asked_packets, length)
            });
            let times = requests.ask(1, PACE, length)?;
            let sent = sending.join().map_err(|_| anyhow!("a sender panicked"))??;
            Ok((sent, times))
        })
    })?;
    ensure!(!times.is_empty(), "no request was asked in {} ms", length.as_millis());
    times.sort_by(f64::total_cmp);
    Ok(Slice {
        percent,
        median: quantile(&times, 0.5),
        p99: quantile(&times, 0.99),
        rate: (sent.count as f64 + PACKETS * times.len() as f64) / sent.took.as_secs_f64(),
        count: Count::read(site.node())? - before,
    })
}

fn rows_of(rate: &str, slices: &[Vec<Slice>; 3]) -> Result<Vec<Row>> {
    let column = |side: Side, value: fn(&Slice) -> f64| -> Vec<f64> {
        slices[side as usize].iter().map(value).collect()
    };
    let mut rows = Vec::new();
    for side in Side::ALL {
        let spread = Spread::of(column(side, |slice| slice.percent)).context("no rounds")?;
        let name = format!("agent, {rate} events/s, observer {}", side.name());
        let packets = Spread::of(column(side, |slice| slice.rate)).context("no rounds")?;
        let sum = |value: fn(&Slice) -> u64| -> u64 { slices[side as usize].iter().map(value).sum() };
        let note = format!(
            "{:.0} packets/s; {} records made in all slices, {} of them lost",
            packets.median,
            sum(|slice| slice.count.made),
            sum(|slice| slice.count.lost)
        );
        rows.push(Row::new(GROUP, name, "% CPU", spread).note(note));
    }
    for which in ["median", "99th"] {
        let value = if which == "median" { |slice: &Slice| slice.median } else { |slice: &Slice| slice.p99 };
        for side in [Side::On, Side::Followed] {
            let (ours, against) = against_off(&column(side, value), &column(Side::Off, value))?;
            let name = format!("request/response, {which}, {rate} events/s, {}", side.name());
            rows.push(Row { against: Some(against), ..Row::new(GROUP, name, "us", ours) });
        }
    }
    Ok(rows)
}
