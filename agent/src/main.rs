//! The binary `sinew-agent`: arguments, log, and the compiled programs; everything else is the library's.
#![allow(clippy::print_stdout, reason = "cleanup tells the person who ran it what it removed")]

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use sinew_agent::config::{Arguments, Command, Config};
use sinew_agent::{cleanup, datapath, run};
use tracing_subscriber::EnvFilter;

/// The binary that carries the programs.
struct Agent;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // SINEW_LOG takes the usual directives, such as `info,sinew_agent::cni=debug`.
    let filter = EnvFilter::try_from_env("SINEW_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match execute(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        Some(Command::Cleanup) => {
            let removed = cleanup::cleanup(&arguments.place)?;
            if removed.is_empty() {
                println!("nothing of node {} was here", arguments.place.node_name);
            }
            for line in removed {
                println!("removed {line}");
            }
            Ok(())
        }
        None => {
            let config = Config::try_from(arguments)?;
            run::run(config, datapath::object::embedded::<Agent>())
        }
    }
}
