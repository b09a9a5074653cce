//! The project's own tool: everything that is more than one cargo command stands behind `cargo xtask`.
//!
//! `setup` fetches tools, `build` makes the programs and the binaries, `test` runs the lanes, and `demo`, `lab` and
//! `bench` hand over to the binaries of the `tests` package. Each of them calls what it needs of the ones before it,
//! so README's two commands work on a fresh clone.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this binary talks to the person who runs it")]

mod build;
mod codegen;
mod paths;
mod privilege;
mod process;
mod setup;
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
    /// Install what is missing on this machine.
    Setup {
        /// How much to set up.
        #[arg(default_value = "test")]
        group: setup::Group,
    },
    /// Compile the kernel programs, then the release binaries that carry them.
    Build {
        /// What to build; everything when it is left out.
        what: Option<build::What>,
    },
    /// Make the Rust code of the protobuf files in `api/proto`, or check that what is committed is current.
    Codegen(codegen::Options),
}

fn main() -> Result<()> {
    match Arguments::parse().task {
        Task::Setup { group } => setup::run(group),
        Task::Build { what } => build::run(what),
        Task::Codegen(options) => codegen::run(&options),
    }
}
