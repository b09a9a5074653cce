//! The project's own tool: everything that is more than one cargo command stands behind `cargo xtask`.
//!
//! `setup` fetches tools, `build` makes the programs and the binaries, `test` runs the lanes, and `demo`, `lab` and
//! `bench` hand over to the binaries of the `tests` package. Each of them calls what it needs of the ones before it,
//! so README's two commands work on a fresh clone.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this binary talks to the person who runs it")]

mod build;
mod paths;
mod process;
mod toolchain;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Set-up, build, demo, tests and benchmarks of Sinew")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Compile the kernel programs, then the release binaries that carry them.
    Build {
        /// What to build; everything when it is left out.
        what: Option<build::What>,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().task {
        Task::Build { what } => build::run(what),
    }
}
