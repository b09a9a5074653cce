//! Compiles the kernel programs, then the release binaries; the agent's binary carries the programs.
//!
//! What a lab and its tests run is compiled in one cargo command, not beside what is shipped: cargo compiles a crate
//! once for each set of features that the chosen packages ask of it, and those of the `tests` package are others.
//!
//! The programs have their own compiler (see `toolchain`) and their own target folder, so the two builds never
//! throw each other's work away. The finished object goes to `target/bpf/sinew-datapath`, from where
//! `agent/build.rs` takes it. Tests have a second one, of the same source and other instructions, which
//! `tests/build.rs` takes from `target/bpf-changed` for an agent to upgrade to.

mod strip;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::toolchain::{Code, Recipe, TARGET};
use crate::{paths, process};

/// What `cargo xtask build` can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum What {
    /// The kernel programs only.
    Bpf,
    /// The programs that tests upgrade to.
    Changed,
    /// The programs and the binaries that a node or a person runs.
    All,
}

/// Builds what was asked for, in release mode.
pub(crate) fn run(what: Option<What>) -> Result<()> {
    match what.unwrap_or(What::All) {
        What::Bpf => programs().map(drop),
        What::Changed => changed_programs().map(drop),
        What::All => {
            programs()?;
            binaries(&SHIPPED)
        }
    }
}

/// Packages and the binaries of theirs that a node or a person runs.
const SHIPPED: [(&str, &[&str]); 3] = [
    ("sinew-agent", &["sinew-agent", "sinew-cni"]),
    ("sinew-cli", &["sinew"]),
    ("sinew-observer", &["sinew-relay"]),
];

/// What makes a lab of them.
const LAB: (&str, &[&str]) = ("sinew-tests", &["sinew-lab", "sinew-probe"]);

/// Compiles the programs and the binaries, with those of the lab.
pub(crate) fn with_lab() -> Result<()> {
    programs()?;
    // If `tests/build.rs` made this folder, which it watches, the next build would take that for a change.
    make_folder_of(&paths::changed_object())?;
    binaries(&[&SHIPPED[..], &[LAB]].concat())
}

/// Compiles the programs and returns the object's path.
pub(crate) fn programs() -> Result<PathBuf> {
    let recipe = Recipe::installed()?;
    eprintln!("building the kernel programs with {} (recipe {})", recipe.compiler_version()?, recipe.name());
    compile(recipe, Code::Shipped, paths::datapath_object())
}

/// Compiles the programs into other instructions and returns the object's path.
pub(crate) fn changed_programs() -> Result<PathBuf> {
    eprintln!("building the kernel programs that tests upgrade to");
    compile(Recipe::installed()?, Code::Changed, paths::changed_object())
}

fn compile(recipe: Recipe, code: Code, object: PathBuf) -> Result<PathBuf> {
    let mut cargo = recipe.cargo_build(code)?;
    cargo.current_dir(paths::root()).args(["--package", "sinew-bpf", "--bin", "sinew-datapath"]);
    process::run(&mut cargo)?;
    let made = recipe.target(code).join(TARGET).join("release/sinew-datapath");
    copy_if_changed(&made, &object)?;
    eprintln!("programs: {}", object.display());
    Ok(object)
}

fn binaries(packages: &[(&str, &[&str])]) -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(paths::root()).args(["build", "--release"]);
    for (package, binaries) in packages {
        cargo.args(["--package", package]);
        for binary in *binaries {
            cargo.args(["--bin", binary]);
        }
    }
    eprintln!("building the binaries: the first time some ten minutes on two cores");
    process::run(&mut cargo)?;
    eprintln!("binaries: {}", paths::target().join("release").display());
    Ok(())
}

/// Puts the object into its place, without what nobody reads. An unchanged one keeps its time stamp, so that the agent
/// isn't linked again.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let made = fs::read(from).with_context(|| format!("cargo left no object at {}", from.display()))?;
    let new =
        strip::without_dwarf(&made).with_context(|| format!("taking DWARF out of {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    make_folder_of(to)?;
    let beside = to.with_extension("new");
    fs::write(&beside, new).with_context(|| format!("cannot write {}", beside.display()))?;
    fs::rename(&beside, to).with_context(|| format!("cannot put {} in place", to.display()))
}

fn make_folder_of(object: &Path) -> Result<()> {
    let folder = object.parent().expect("the object's path has a folder");
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}
