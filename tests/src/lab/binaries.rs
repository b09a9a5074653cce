//! Where the programs are that the lab runs: what `cargo xtask build` made, or the folder in `SINEW_BINARIES`.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The path of one of our binaries.
///
/// # Errors
/// It was not built.
pub fn find(name: &str) -> Result<PathBuf> {
    let found = folder(name)?.join(name);
    ensure!(found.is_file(), "{} is not there: `cargo xtask build` makes it", found.display());
    Ok(found)
}

/// The probe and the agent to upgrade to belong to this package and are built with the test that runs; all others are
/// release builds.
fn folder(name: &str) -> Result<PathBuf> {
    let own = env::current_exe().context("the path of this program")?;
    // …/target/<profile>/<binary>, or …/target/<profile>/deps/<test>.
    let mut profile = own.parent().context("this program lies in a folder")?;
    if profile.ends_with("deps") {
        profile = profile.parent().context("deps lies in a profile's folder")?;
    }
    if ["sinew-probe", "sinew-agent-changed"].contains(&name) {
        return Ok(profile.to_path_buf());
    }
    if let Some(folder) = env::var_os("SINEW_BINARIES") {
        return Ok(PathBuf::from(folder));
    }
    Ok(profile.parent().unwrap_or(Path::new("/")).join("release"))
}
