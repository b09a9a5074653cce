//! Installs Debian packages where apt is at home; elsewhere says exactly what is missing.
//!
//! Nothing is ever removed (`--no-remove`): a machine that has another vendor's runtime keeps it, and the person
//! reads what stands in the way.

use std::process::Command;

use anyhow::{Context, Result, bail};

use super::packages::is_there;
use crate::{privilege, process};

/// Whether this machine installs software with apt.
pub(super) fn is_here() -> bool {
    is_there("apt-get")
}

/// Installs packages, with the package lists fetched anew when the first attempt fails.
///
/// # Errors
/// There is no apt, no root, or apt itself refused; the text names the packages.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if !is_here() {
        bail!(
            "this machine has no apt; install what these Debian packages contain, then run this again: {list}"
        );
    }
    eprintln!("installing with apt: {list}");
    let first = attempt(packages);
    if let Err(error) = first {
        eprintln!("apt: {error:#}; fetching new package lists");
        update()?;
        attempt(packages)
            .with_context(|| format!("install these Debian packages by hand, then run this again: {list}"))?;
    }
    Ok(())
}

/// Fetches the package lists.
pub(super) fn update() -> Result<()> {
    process::run(&mut apt_get(&["update", "--quiet"])?)
}

/// Whether apt could install a package; false too when its lists were never fetched.
pub(super) fn has_candidate(package: &str) -> bool {
    process::output(Command::new("apt-cache").env("LC_ALL", "C").args(["policy", package])).is_ok_and(
        |policy| policy.lines().any(|line| line.contains("Candidate:") && !line.contains("(none)")),
    )
}

fn attempt(packages: &[&str]) -> Result<()> {
    let mut command = apt_get(&["install", "--yes", "--quiet", "--no-install-recommends", "--no-remove"])?;
    command.args(packages);
    process::run(&mut command)
}

fn apt_get(arguments: &[&str]) -> Result<Command> {
    let mut words = vec!["DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=600"];
    words.extend(arguments);
    privilege::as_root("env", &words)
}
