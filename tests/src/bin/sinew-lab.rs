//! `sinew-lab`: the lab for a person, the demo and the benchmarks. `cargo xtask demo`, `lab` and `bench` start it as root.

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use nix::sys::signal::{SigSet, Signal};
use sinew_tests::bench::{self, BenchArguments};
use sinew_tests::demo::{self, DemoArguments};
use sinew_tests::lab::{process, sweep};
use sinew_tests::workbench::{self, NamespaceArguments, PodArguments, UpArguments};

/// After an interrupt the program removes its lab; if that hangs, it ends anyway and the next run removes the rest.
const LAST_MOMENT: Duration = Duration::from_secs(20);

/// Nodes and pods as network namespaces on this machine.
#[derive(Parser)]
#[command(name = "sinew-lab")]
struct Arguments {
    /// Which lab of those that `up` makes; the demo and the benchmarks have labs of their own.
    #[arg(long, global = true, default_value = workbench::USUAL, hide_default_value = true)]
    lab: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Two nodes, pods and policies, with every verdict explained.
    Demo(DemoArguments),
    /// Measure, each row with both sides of its ratio.
    Bench(BenchArguments),
    /// Make a lab that stands until `down`.
    Up(UpArguments),
    /// Pods of the lab.
    Pod {
        #[command(subcommand)]
        command: PodCommand,
    },
    /// Give a namespace labels.
    Namespace(NamespaceArguments),
    /// Run a command in a pod, on a node (`a`, `b`, …) or on the `outside` host; a shell without one.
    Exec {
        place: String,
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Remove the lab.
    Down,
    /// Remove labs whose process is gone.
    Sweep,
}

#[derive(Subcommand)]
enum PodCommand {
    /// Put a pod on a node.
    Add(PodArguments),
    /// End what runs in a pod, and take it from its node.
    Remove {
        /// The pod, as the lab calls it.
        name: String,
    },
}

#[expect(clippy::print_stderr, reason = "a failure is told on stderr")]
fn main() -> ExitCode {
    let result = end_cleanly_on_signals().and_then(|()| run());
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Everything is removed by now: the person asked for it.
        Err(_) if process::interrupted() => ExitCode::from(130),
        Err(error) => {
            eprintln!("sinew-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments = Arguments::parse();
    match &arguments.command {
        Command::Demo(demo) => demo::run(demo),
        Command::Bench(bench) => bench::run(bench),
        Command::Up(up) => workbench::up(&arguments.lab, up),
        Command::Pod { command: PodCommand::Add(pod) } => workbench::add_pod(&arguments.lab, pod),
        Command::Pod { command: PodCommand::Remove { name } } => workbench::remove_pod(&arguments.lab, name),
        Command::Namespace(namespace) => workbench::label_namespace(&arguments.lab, namespace),
        Command::Exec { place, command } => workbench::exec(&arguments.lab, place, command),
        Command::Down => workbench::down(&arguments.lab),
        Command::Sweep => sweep::stale(),
    }
}

/// Ctrl-C and SIGTERM make whatever waits stop waiting, so that the lab is dropped on the way out.
fn end_cleanly_on_signals() -> Result<()> {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    // Blocked here, before any thread is there, so that only the waiting thread gets them. Children start with nothing
    // blocked: std resets the mask.
    signals.thread_block().context("blocking signals")?;
    thread::spawn(move || {
        if signals.wait().is_ok() {
            process::interrupt();
            thread::sleep(LAST_MOMENT);
            std::process::exit(130);
        }
    });
    Ok(())
}
