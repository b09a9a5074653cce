//! The benchmarks: both sides of each ratio are measured by turns in one run.
//!
//! A shared machine drifts by tens of percent within a minute, so that numbers of two runs can't be compared. Every ratio
//! is therefore taken between neighbours in time, pair by pair, and the median of these ratios counts.
//!
//! Neighbours: [`spread`] and [`report`] hold the numbers; each group is a file of its own and makes its lab with
//! `crate::lab`. What was measured is in `docs/performance.md`.

pub mod report;
pub mod spread;

mod cluster;
mod enforce;
mod footprint;
mod ground;
mod load;
mod node;
mod observer;
mod pin;
mod programs;
mod testrun;
mod traffic;

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};

use crate::lab::{Builder, Family, Lab, Topology, binaries};
use report::{Machine, Report};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Group {
    /// Nanoseconds for a packet of each program, by test runs.
    Programs,
    /// Pods' traffic against bare wires and kernel routing.
    Traffic,
    /// Time from a policy's file to the kernel.
    Enforce,
    /// The agent's memory, and its time from start to ready.
    Agent,
    /// What flows cost, and how many go through node and relay.
    Observer,
}

const ALL: [Group; 5] = [Group::Programs, Group::Traffic, Group::Enforce, Group::Agent, Group::Observer];

/// How.
#[derive(Clone, Debug, clap::Args)]
pub struct BenchArguments {
    /// Which groups; all without a word.
    groups: Vec<Group>,
    #[command(flatten)]
    options: Options,
}

/// What all groups obey.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Fewer rounds: to see that it works, not to quote.
    #[arg(long)]
    quick: bool,
    /// Traffic over IPv6 instead of IPv4.
    #[arg(long)]
    v6: bool,
    /// What to print.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    /// Write the JSON to a file too.
    #[arg(long)]
    json: Option<PathBuf>,
    /// The programs' object file; without it what `cargo xtask build` made.
    #[arg(long)]
    object: Option<PathBuf>,
}

/// How the report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For machines.
    Json,
}

impl Options {
    fn family(&self) -> Family {
        if self.v6 { Family::V6 } else { Family::V4 }
    }

    fn object(&self) -> Result<PathBuf> {
        if let Some(object) = &self.object {
            return Ok(object.clone());
        }
        let agent = binaries::find("sinew-agent")?;
        let target = agent.parent().and_then(|release| release.parent()).context("target/release")?;
        let object = target.join("bpf/sinew-datapath");
        ensure!(object.is_file(), "{} is not there: `cargo xtask build` makes it", object.display());
        Ok(object)
    }
}

/// A lab with agents that says nothing at its end: a benchmark has failed or not, and the report tells.
fn lab(topology: Topology) -> Builder {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    Lab::build(topology).id(&format!("{}b{number}", std::process::id()))
}

/// Measures and prints.
///
/// # Errors
/// Something cannot be measured; Ctrl-C.
pub fn run(arguments: &BenchArguments) -> Result<()> {
    let options = &arguments.options;
    let groups = if arguments.groups.is_empty() { &ALL[..] } else { &arguments.groups };
    let mut machine = Machine::this()?;
    let mut rows = Vec::new();
    for group in groups {
        rows.extend(match group {
            Group::Programs => programs::run(options),
            Group::Traffic => traffic::run(options),
            Group::Enforce => enforce::run(options),
            Group::Agent => footprint::run(options),
            Group::Observer => observer::run(options),
        }?);
    }
    machine.finish()?;
    let report = Report { machine, rows };
    if let Some(file) = &options.json {
        fs::write(file, report.json()?).with_context(|| format!("writing {}", file.display()))?;
    }
    match options.output {
        Output::Table => report.print_table(),
        Output::Json => {
            use std::io::Write;
            write!(std::io::stdout(), "{}", report.json()?).context("printing the report")
        }
    }
}
