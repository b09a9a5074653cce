//! The project's own tool: everything that is more than one cargo command stands behind `cargo xtask`.
//!
//! `setup` fetches tools, `build` makes the programs and the binaries, `test` runs the lanes, and `demo`, `lab` and
//! `bench` hand over to the binaries of the `tests` package. Each of them calls what it needs of the ones before it,
//! so README's two commands work on a fresh clone.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this binary talks to the person who runs it")]

mod build;
mod codegen;
mod fuzz;
mod lab;
mod paths;
mod privilege;
mod process;
mod qemu;
mod setup;
mod test;
mod tidy;
mod toolchain;
mod verifier;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use setup::Group;

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
        group: Group,
    },
    /// Compile the kernel programs, then the release binaries that carry them.
    Build {
        /// What to build; everything when it is left out.
        what: Option<build::What>,
    },
    /// Two nodes, pods and policies on this machine, with every verdict explained.
    Demo {
        /// Words for the demo; see `cargo xtask demo -- --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// The demo's machines for one's own use: `lab up`, `lab pod add`, `lab pod remove`, `lab exec`, `lab down`.
    Lab {
        /// Words for the lab; see `cargo xtask lab -- --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Measure, each row with both sides of its ratio.
    Bench {
        /// Words for the benchmarks; see `cargo xtask bench -- --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Run the tests, lane by lane.
    Test(test::Arguments),
    /// Measure what the verifier makes of the programs, and write it into docs/limits.md.
    Limits,
    /// Make the Rust code of the protobuf files in `api/proto`, or check that what is committed is current.
    Codegen(codegen::Options),
}

fn main() -> ExitCode {
    // An error is a sentence with its causes; a backtrace of this tool would only hide it.
    run().unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run() -> Result<ExitCode> {
    match Arguments::parse().task {
        Task::Test(arguments) => return test::run(&arguments),
        Task::Setup { group } => setup::run(group)?,
        Task::Build { what } => build::run(what)?,
        Task::Demo { words } => return lab::run(Group::Lab, &with_verb("demo", words)),
        Task::Lab { words } => return lab::run(Group::Lab, &words),
        Task::Bench { words } => return lab::run(Group::Test, &with_verb("bench", words)),
        Task::Limits => verifier::write_record()?,
        Task::Codegen(options) => codegen::run(&options)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn with_verb(verb: &str, words: Vec<String>) -> Vec<String> {
    std::iter::once(verb.to_owned()).chain(words).collect()
}
