//! `cargo xtask test [lane…]`: runs lanes of tests and ends with one line that says how many passed and failed.
//!
//! The lanes stand in `test/lanes.rs`, how cargo's and libtest's output becomes numbers in `test/tally.rs` and
//! `test/cargo.rs`, and what a text or a manifest must look like in `tidy`. A lane that can't run here has failed: only
//! a test that says why it was left out (`test/tally.rs`: a line `skipped: TEST: REASON`) counts as skipped.

mod cargo;
mod lanes;
mod tally;

pub(crate) use tally::Tally;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Error, Result, bail};

use crate::setup::{self, Group};
use crate::{build, privilege};
use cargo::TestRun;
use lanes::{LANES, Lane, Needs, Step};

/// Which lanes to run.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Lanes, in the order in which they are to run; all when none is named.
    lanes: Vec<String>,
    /// Print the lanes and what each is for.
    #[arg(long)]
    list: bool,
    /// Run only tests with this text in their name.
    #[arg(long)]
    filter: Option<String>,
}

/// Runs the lanes. The last line on the standard output is the sum.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.list {
        for lane in LANES {
            println!("{:<10} {}", lane.name, lane.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = choose(&arguments.lanes)?;
    let mut sum = Tally::default();
    let mut lines = Vec::new();
    // Once for all lanes that need it, and before the first of them: a machine that lacks something says so at once.
    let prepared = if chosen.iter().any(|lane| lane.needs == Needs::Node) { prepare() } else { Ok(()) };
    for lane in chosen {
        let start = Instant::now();
        println!("\n=== lane {}: {}", lane.name, lane.about);
        let tally = match &prepared {
            Err(error) if lane.needs == Needs::Node => failure(error),
            _ => run_lane(lane, arguments.filter.as_deref()),
        };
        lines.push(format!("{:<10} {tally} in {} s", lane.name, start.elapsed().as_secs()));
        sum.add(tally);
    }
    println!("\n{}", lines.join("\n"));
    println!("{sum}");
    Ok(if sum.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn choose(names: &[String]) -> Result<Vec<&'static Lane>> {
    if names.is_empty() {
        return Ok(LANES.iter().collect());
    }
    let find = |name: &String| {
        LANES.iter().find(|lane| lane.name == name).with_context(|| {
            let known: Vec<&str> = LANES.iter().map(|lane| lane.name).collect();
            format!("there is no lane `{name}`; the lanes are: {}", known.join(", "))
        })
    };
    names.iter().map(find).collect()
}

/// What the lanes that make nodes need: tools, the programs and the binaries.
fn prepare() -> Result<()> {
    if let Some(sentence) = privilege::missing()? {
        bail!(sentence);
    }
    setup::run(Group::Test)?;
    build::changed_programs()?;
    build::with_lab()
}

fn run_lane(lane: &Lane, filter: Option<&str>) -> Tally {
    let mut tally = Tally::default();
    for step in lane.steps {
        let result = match step {
            Step::Units => units(filter),
            Step::Target { package, target, release } => {
                let words: &[&str] = if *release { &["--release"] } else { &[] };
                let mut run = TestRun::new(filter);
                run.arguments(&["--package", package, "--test", target]).arguments(words).include_ignored();
                if lane.needs == Needs::Node { run.on_nodes().and_then(TestRun::run) } else { run.run() }
            }
            Step::Own(function) => function(),
        };
        tally.add(result.unwrap_or_else(|error| failure(&error)));
    }
    tally
}

fn failure(error: &Error) -> Tally {
    println!("FAILED: {error:#}");
    Tally { failed: 1, ..Tally::default() }
}

/// Everything that lies beside the code: libraries, binaries, documentation, and the test targets of packages that no
/// other lane claims.
fn units(filter: Option<&str>) -> Result<Tally> {
    let unclaimed = lanes::unclaimed()?;
    let mut tally = Tally::default();
    let problem =
        |name| format!("tests/tests/{name}.rs is run by no lane: name it in xtask/src/test/lanes.rs");
    tally.check("every test has a lane", &unclaimed.without_lane.iter().map(problem).collect::<Vec<_>>());
    let mut run = TestRun::new(filter);
    run.arguments(&["--workspace", "--lib"]);
    for binary in &unclaimed.binaries {
        run.arguments(&["--bin", binary]);
    }
    for target in &unclaimed.beside_code {
        run.arguments(&["--test", target]);
    }
    tally.add(run.run()?);
    let mut documentation = TestRun::new(filter);
    documentation.arguments(&["--workspace", "--doc"]);
    tally.add(documentation.run()?);
    Ok(tally)
}
