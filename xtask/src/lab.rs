//! `cargo xtask demo`, `lab` and `bench`: prepare the machine, then hand over to `sinew-lab` of the `tests` package.
//!
//! The lab needs root, for it makes network namespaces and loads programs; it is started by sudo where this user is
//! not root. Ctrl-C reaches it directly, since it is in the same foreground group, and it cleans up by itself.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::setup::{self, Group};
use crate::{build, paths, privilege, process};

/// Builds what is needed and runs `sinew-lab` with these words.
pub(crate) fn run(group: Group, words: &[String]) -> Result<ExitCode> {
    setup::run(group)?;
    build::with_lab()?;

    let release = paths::target().join("release");
    let binaries = format!("SINEW_BINARIES={}", release.display());
    let program = release.join("sinew-lab");
    let program = program.to_str().context("the target folder's path is no UTF-8")?;
    let mut all = vec![binaries.as_str(), program];
    all.extend(words.iter().map(String::as_str));
    let mut command = privilege::as_root("env", &all)?;
    let status = command.status().with_context(|| format!("cannot start `{}`", process::show(&command)))?;
    Ok(match status.code() {
        Some(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        None => ExitCode::FAILURE,
    })
}
