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

/// Hubble's client: `$SINEW_HUBBLE`, or where `cargo xtask setup test` puts it.
///
/// # Errors
/// It was not built.
pub fn hubble() -> Result<PathBuf> {
    let named = env::var_os("SINEW_HUBBLE").map(PathBuf::from);
    let cache = env::var_os("XDG_CACHE_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let cache = cache.or_else(|| env::home_dir().map(|home| home.join(".cache")));
    let path = named.or_else(|| cache.map(|cache| cache.join("sinew/tools/hubble-1.19.3/hubble")));
    let path = path.context("neither XDG_CACHE_HOME nor HOME is set")?;
    ensure!(path.is_file(), "{} is not there: cargo xtask setup test", path.display());
    Ok(path)
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
