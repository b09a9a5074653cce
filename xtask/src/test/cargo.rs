//! One `cargo test` with its output shown and counted.

use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::tally::{Reader, Tally};
use crate::setup::cnitool;
use crate::{paths, privilege, process, toolchain};

/// A `cargo test` that goes on after a failure.
pub(super) struct TestRun {
    cargo: Command,
    /// For the test binaries.
    words: Vec<String>,
}

impl TestRun {
    pub(super) fn new(filter: Option<&str>) -> Self {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(paths::root()).args(["test", "--no-fail-fast"]);
        Self { cargo, words: filter.map(str::to_owned).into_iter().collect() }
    }

    pub(super) fn arguments(&mut self, words: &[&str]) -> &mut Self {
        self.cargo.args(words);
        self
    }

    /// Runs what an ordinary `cargo test` leaves out because it needs a lane.
    pub(super) fn include_ignored(&mut self) -> &mut Self {
        self.words.push("--include-ignored".to_owned());
        self
    }

    /// Tells the tests where to find what `build` and `setup` made, and runs them as root.
    pub(super) fn on_nodes(mut self) -> Result<Self> {
        let release = paths::target().join("release");
        let named = [("SINEW_BINARIES", release), ("SINEW_CNITOOL", cnitool()?)];
        if !privilege::is_root()? {
            // sudo keeps none of these; a runner's words are separated by spaces (cargo's configuration).
            let mut runner = vec!["sudo".to_owned(), "env".to_owned()];
            for name in ["HOME", "PATH", "XDG_CACHE_HOME", "RUST_BACKTRACE"] {
                runner.extend(env::var(name).ok().map(|value| format!("{name}={value}")));
            }
            runner.extend(named.iter().map(|(name, value)| format!("{name}={}", value.display())));
            let variable =
                format!("CARGO_TARGET_{}_RUNNER", toolchain::host()?.replace('-', "_").to_uppercase());
            self.cargo.env(variable, runner.join(" "));
        }
        self.cargo.envs(named);
        Ok(self)
    }

    /// Runs the tests; failed tests are in the answer, not an error.
    pub(super) fn run(mut self) -> Result<Tally> {
        self.cargo.arg("--").args(&self.words);
        count(self.cargo)
    }
}

/// Runs a command whose output is libtest's.
fn count(mut command: Command) -> Result<Tally> {
    let shown = process::show(&command);
    println!("$ {shown}");
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start `{shown}`"))?;
    let output = child.stdout.take().expect("the output was asked for as a pipe");
    let mut reader = Reader::default();
    for line in BufReader::new(output).split(b'\n') {
        let line = line.with_context(|| format!("cannot read what `{shown}` prints"))?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        reader.line(&line);
    }
    let status = child.wait().with_context(|| format!("cannot wait for `{shown}`"))?;
    Ok(reader.end(status.success()))
}
