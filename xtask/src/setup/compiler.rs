//! Installs the BPF toolchain: a compiler that knows the target, and the linker that fits to it.
//!
//! What is there is used; then rustup's way is tried, then Debian's (see `toolchain` for the two recipes). The linker
//! is compiled once, into the cache.

use std::env;
use std::process::Command;

use anyhow::{Result, bail};

use super::apt;
use super::packages::is_there;
use crate::process;
use crate::toolchain::Recipe;

/// Makes one recipe complete.
///
/// # Errors
/// None could be made complete; the text says what stood in the way of each.
pub(super) fn install() -> Result<()> {
    if let Some(recipe) = Recipe::find()? {
        eprintln!("BPF toolchain: {} (recipe {})", recipe.compiler_version()?, recipe.name());
        return Ok(());
    }
    let mut refusals = Vec::new();
    let mut recipes = Recipe::allowed()?;
    // A compiler that is there needs no download.
    recipes.sort_by_key(|recipe| !recipe.has_compiler());
    for recipe in recipes {
        eprintln!("BPF toolchain: trying recipe {}", recipe.name());
        match install_compiler(recipe).and_then(|()| install_linker(recipe)) {
            Ok(()) => {
                eprintln!("BPF toolchain: {} (recipe {})", recipe.compiler_version()?, recipe.name());
                return Ok(());
            }
            Err(error) => {
                eprintln!("BPF toolchain: recipe {} is not possible here: {error:#}", recipe.name());
                refusals.push(format!("{}: {error:#}", recipe.name()));
            }
        }
    }
    bail!(
        "no BPF toolchain could be installed ({}); install Rust 1.95 by rustup and run `rustup component add rust-src`, \
         then run this again",
        refusals.join("; ")
    )
}

fn install_compiler(recipe: Recipe) -> Result<()> {
    if recipe.has_compiler() {
        return Ok(());
    }
    match recipe {
        Recipe::Rustup => {
            if !is_there("rustup") {
                bail!("rustup is not on PATH");
            }
            // rustup tries for minutes where its server can't be reached.
            process::run(Command::new("timeout").args(["90", "rustup", "component", "add", "rust-src"]))?;
        }
        Recipe::Debian => {
            if apt::is_here() && !DEBIAN_PACKAGES.iter().all(|package| apt::has_candidate(package)) {
                apt::update()?;
            }
            apt::install(&DEBIAN_PACKAGES)?;
        }
    }
    if !recipe.has_compiler() {
        bail!("the compiler was installed, yet it doesn't fit: rustc with LLVM 22 is needed");
    }
    Ok(())
}

const DEBIAN_PACKAGES: [&str; 8] = [
    "rustc-web",
    "cargo-web",
    "rust-web-src",
    "libstd-rust-web-dev-bpf",
    "llvm-22-dev",
    "libpolly-22-dev",
    "zlib1g-dev",
    "libzstd-dev",
];

fn install_linker(recipe: Recipe) -> Result<()> {
    if recipe.linker()?.is_file() {
        return Ok(());
    }
    let version = recipe.linker_version();
    eprintln!("BPF toolchain: compiling bpf-linker {version}, which takes a few minutes");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["install", "--locked", "--force", "--root"]).arg(recipe.linker_folder()?);
    cargo.arg(format!("bpf-linker@{version}"));
    if recipe == Recipe::Debian {
        cargo.args(["--no-default-features", "--features", "llvm-22"]);
        cargo.env("LLVM_PREFIX", "/usr/lib/llvm-22");
    }
    // The linker is a program of its own: neither this workspace's target folder nor its flags are for it.
    cargo.current_dir("/").env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS");
    process::run(&mut cargo)
}
