//! The `fuzz` lane: each target of `tests/fuzz` replays what is committed, then explores for a bounded time.
//!
//! The targets are libFuzzer's, compiled with LLVM's coverage pass, which the stable compiler can add as well; no
//! cargo-fuzz and no nightly is needed. What an exploration finds is kept in the target folder, so that the next one
//! goes on from there; a crash is printed with the file that repeats it, which then belongs into the corpus.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::test::Tally;
use crate::{paths, process, toolchain};

/// Seconds of exploration for each target; `SINEW_FUZZ_SECONDS` says otherwise.
const SECONDS: u64 = 20;

/// What stands in a target's place in `tests/fuzz/src/bin`, and seeds that are other tests' cases.
const SEEDS: &[(&str, &str)] = &[("policy_yaml", "api/tests/policies")];

/// Counters and comparisons for libFuzzer (clang's SanitizerCoverage), and every check that a debug build has.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions=on -Coverflow-checks=on";

/// Replays and explores every target.
pub(crate) fn run() -> Result<Tally> {
    let seconds = seconds()?;
    let folder = build()?;
    let mut tally = Tally::default();
    for target in targets()? {
        let target = Target::new(&folder, &target)?;
        tally.check(&format!("{}: replay of {} inputs", target.name, target.inputs()?), &target.replay()?);
        tally.check(&format!("{}: {seconds} s of exploration", target.name), &target.explore(seconds)?);
    }
    Ok(tally)
}

fn seconds() -> Result<u64> {
    match env::var("SINEW_FUZZ_SECONDS") {
        Err(_) => Ok(SECONDS),
        Ok(text) => {
            text.parse().with_context(|| format!("SINEW_FUZZ_SECONDS={text} is no number of seconds"))
        }
    }
}

/// Compiles the targets and returns the folder that they are in. With a target named, cargo gives the flags to what
/// runs in the targets only, not to build scripts and macros.
fn build() -> Result<PathBuf> {
    let host = toolchain::host()?;
    let target_folder = paths::target().join("fuzz");
    let mut cargo = Command::new("cargo");
    cargo.current_dir(paths::root()).env("RUSTFLAGS", FLAGS).env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo.args([
        "build",
        "--profile",
        "fuzz",
        "--package",
        "sinew-fuzz",
        "--bins",
        "--target",
        &host,
        "--target-dir",
    ]);
    process::run(cargo.arg(&target_folder))?;
    Ok(target_folder.join(host).join("fuzz"))
}

fn targets() -> Result<Vec<String>> {
    let folder = paths::root().join("tests/fuzz/src/bin");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let name = entry.with_context(|| format!("cannot list {}", folder.display()))?.file_name();
        names.extend(name.to_str().and_then(|name| name.strip_suffix(".rs")).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

struct Target {
    name: String,
    program: PathBuf,
    /// Committed.
    corpus: PathBuf,
    /// Committed too, as the cases of other tests.
    seeds: Option<PathBuf>,
    /// Found by explorations of this checkout.
    found: PathBuf,
    /// Inputs that crashed.
    crashes: PathBuf,
}

impl Target {
    fn new(programs: &Path, name: &str) -> Result<Self> {
        let seeds =
            SEEDS.iter().find(|(target, _)| *target == name).map(|(_, folder)| paths::root().join(folder));
        let target = Self {
            name: name.to_owned(),
            program: programs.join(name),
            corpus: paths::root().join("tests/fuzz/corpus").join(name),
            seeds,
            found: paths::target().join("fuzz/found").join(name),
            crashes: paths::target().join("fuzz/crashes").join(name),
        };
        for folder in [&target.found, &target.crashes] {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        if target.inputs()? == 0 {
            bail!("{name} has no corpus in {}", target.corpus.display());
        }
        Ok(target)
    }

    /// How many inputs are committed.
    fn inputs(&self) -> Result<usize> {
        let folder = self.corpus.display();
        let entries =
            fs::read_dir(&self.corpus).with_context(|| format!("{} has no corpus in {folder}", self.name))?;
        Ok(entries.count())
    }

    fn replay(&self) -> Result<Vec<String>> {
        let mut command = self.command();
        command.arg("-runs=0").arg(&self.corpus).args(&self.seeds);
        self.problems(&mut command)
    }

    fn explore(&self, seconds: u64) -> Result<Vec<String>> {
        let mut command = self.command();
        command.arg(format!("-max_total_time={seconds}"));
        command.arg(&self.found).arg(&self.corpus).args(&self.seeds);
        self.problems(&mut command)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["-timeout=10", "-rss_limit_mb=2048", "-verbosity=0", "-print_final_stats=1"]);
        command.arg(format!("-artifact_prefix={}/", self.crashes.display()));
        command
    }

    /// Nothing after a good end; otherwise what libFuzzer and the panic said.
    fn problems(&self, command: &mut Command) -> Result<Vec<String>> {
        let answer = command.output().with_context(|| format!("cannot start {}", self.program.display()))?;
        let said = String::from_utf8_lossy(&answer.stderr);
        if answer.status.success() {
            let count = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
            println!("{}: {} inputs run", self.name, count.unwrap_or("no").trim());
            return Ok(Vec::new());
        }
        let mut problems: Vec<String> = said.lines().map(str::to_owned).collect();
        problems.push(format!(
            "mend it, then keep the file named above as tests/fuzz/corpus/{}/<what it shows>",
            self.name
        ));
        Ok(problems)
    }
}
