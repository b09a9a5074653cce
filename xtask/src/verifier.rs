//! The `verifier` lane and `cargo xtask limits`: every program loads on this kernel and on the oldest supported one,
//! within limits of our own, and what it costs there is on record.
//!
//! `sinew-load` of the `tests` package does the loading; `verifier/record.rs` is the table in docs/limits.md. The
//! record is per toolchain, since another compiler makes other code, and for the oldest kernel only, since that one is
//! the same on every machine.

mod record;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::qemu::{self, Kernel};
use crate::setup::{self, Group};
use crate::test::Tally;
use crate::toolchain::Recipe;
use crate::{build, paths, privilege, process};
use record::Record;

/// Half of what the kernel accepts: room for another compiler, another kernel, and for what comes later.
const MOST_INSTRUCTIONS: u64 = 500_000;
/// The kernel allows as much, rounded for each function; here in the deepest function and the deepest that it calls.
const MOST_STACK_BYTES: u64 = 512;

/// What the verifier made of one program, with the settings that cost most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    name: String,
    instructions: u64,
    /// Bytes of the program and of each function in it: `320+64`.
    stack: String,
}

/// Loads the programs on the running kernel.
pub(crate) fn running_kernel() -> Result<Tally> {
    let printed =
        process::output(&mut privilege::as_root(text(&loader()?)?, &[text(&paths::datapath_object())?])?)?;
    let mut tally = Tally::default();
    for program in programs(&printed)? {
        tally.check(&format!("{} on this kernel", program.sentence()), &program.over_limit());
    }
    Ok(tally)
}

/// Loads the programs on the oldest kernel, and compares with the record.
pub(crate) fn oldest_kernel() -> Result<Tally> {
    let kernel = Kernel::fetch()?;
    let recipe = Recipe::installed()?;
    let record = Record::read()?;
    let mut tally = Tally::default();
    for program in on_oldest(&kernel)? {
        let mut problems = program.over_limit();
        match record.find(recipe.name(), &program.name) {
            None => problems.push("is not in docs/limits.md: run `cargo xtask limits`".to_owned()),
            Some(before) if *before != program => {
                println!("note: {} was recorded as {}", program.name, before.sentence());
            }
            Some(_) => {}
        }
        tally.check(&format!("{} on {}", program.sentence(), kernel.release()), &problems);
    }
    Ok(tally)
}

/// Measures on the oldest kernel and writes this toolchain's rows of the record.
pub(crate) fn write_record() -> Result<()> {
    setup::run(Group::Test)?;
    build::programs()?;
    let recipe = Recipe::installed()?;
    let measured = on_oldest(&Kernel::fetch()?)?;
    for program in &measured {
        println!("{}", program.sentence());
    }
    let mut record = Record::read()?;
    record.replace(recipe.name(), measured);
    record.write()
}

fn on_oldest(kernel: &Kernel) -> Result<Vec<Program>> {
    programs(&qemu::run(kernel, &loader()?, &[&paths::datapath_object()])?)
}

impl Program {
    fn sentence(&self) -> String {
        format!("{}: {} instructions verified, {} bytes of stack", self.name, self.instructions, self.stack)
    }

    /// The deepest that the stack gets: one large function, and one of those that call no others.
    fn stack_bytes(&self) -> u64 {
        let mut depths: Vec<u64> = self.stack.split('+').filter_map(|depth| depth.parse().ok()).collect();
        depths.sort_unstable();
        depths.iter().rev().take(2).sum()
    }

    fn over_limit(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.instructions > MOST_INSTRUCTIONS {
            problems.push(format!("more than {MOST_INSTRUCTIONS} instructions"));
        }
        if self.stack_bytes() > MOST_STACK_BYTES {
            problems.push(format!("more than {MOST_STACK_BYTES} bytes of stack"));
        }
        problems
    }
}

fn loader() -> Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(paths::root()).args([
        "build",
        "--release",
        "--package",
        "sinew-tests",
        "--bin",
        "sinew-load",
    ]);
    process::run(&mut cargo)?;
    Ok(paths::target().join("release/sinew-load"))
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("the target folder's path is no UTF-8")
}

/// Reads `program NAME SETTINGS INSTRUCTIONS STACK` lines; of several settings the costliest counts.
fn programs(printed: &str) -> Result<Vec<Program>> {
    let mut programs: Vec<Program> = Vec::new();
    for line in printed.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["program", name, _settings, instructions, stack] = words[..] else {
            continue;
        };
        let instructions = instructions.parse().with_context(|| format!("no number in `{line}`"))?;
        let new = Program { name: name.to_owned(), instructions, stack: stack.to_owned() };
        match programs.iter_mut().find(|program| program.name == name) {
            None => programs.push(new),
            Some(before) if before.instructions < new.instructions => *before = new,
            Some(_) => {}
        }
    }
    if programs.is_empty() {
        bail!("sinew-load named no program; it printed:\n{printed}");
    }
    programs.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_costliest_settings_count() {
        let printed = "x\nprogram to_pod plain 9 8\nprogram from_pod plain 100 320\nprogram from_pod full 120 320+64+8\n";
        let found = programs(printed).unwrap();
        let names: Vec<&str> = found.iter().map(|program| program.name.as_str()).collect();
        assert_eq!(names, ["from_pod", "to_pod"]);
        assert_eq!((found[0].instructions, found[0].stack_bytes()), (120, 384));
        assert!(programs("error: the verifier refuses from_pod").is_err());
    }

    #[test]
    fn the_limits_are_enforced() {
        let program = |instructions, stack: &str| Program {
            name: "p".to_owned(),
            instructions,
            stack: stack.to_owned(),
        };
        assert_eq!(program(500_000, "0+432+80+16").over_limit(), Vec::<String>::new());
        assert_eq!(program(500_001, "8").over_limit(), ["more than 500000 instructions"]);
        assert_eq!(program(1, "432+16+81").over_limit(), ["more than 512 bytes of stack"]);
    }
}
