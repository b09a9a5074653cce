//! What the running kernel must be, and the file system that pinned programs live in.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{privilege, process};

/// Where the kernel says its release.
const RELEASE_FILE: &str = "/proc/sys/kernel/osrelease";

/// The oldest kernel that the tests run on.
const OLDEST: (u32, u32) = (6, 12);

/// Refuses a kernel that Sinew isn't tested on.
pub(super) fn check() -> Result<()> {
    let release = fs::read_to_string(RELEASE_FILE).with_context(|| format!("cannot read {RELEASE_FILE}"))?;
    let release = release.trim();
    if !is_supported(release) {
        bail!("Sinew needs Linux {}.{} or newer, and this machine runs {release}", OLDEST.0, OLDEST.1);
    }
    eprintln!("kernel: {release}");
    Ok(())
}

/// Whether a kernel release is new enough; one that can't be read as a version is not.
fn is_supported(release: &str) -> bool {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= OLDEST,
        _ => false,
    }
}

/// Mounts bpffs where everything expects it.
pub(super) fn mount_bpffs() -> Result<()> {
    const PLACE: &str = "/sys/fs/bpf";
    let kind = process::output(Command::new("stat").args(["--file-system", "--format=%T", PLACE]))?;
    if kind == "bpf_fs" {
        eprintln!("bpffs: mounted at {PLACE}");
        return Ok(());
    }
    eprintln!("bpffs: mounting it at {PLACE}");
    process::run(&mut privilege::as_root("mount", &["-t", "bpf", "bpf", PLACE])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        for release in ["6.12.0", "6.12", "6.18.44-generic", "7.0.1", "10.1-rc1"] {
            assert!(is_supported(release), "{release}");
        }
        for release in ["6.11.9", "6.6.1", "5.19.0", "6.2.0", "", "unknown", "6"] {
            assert!(!is_supported(release), "{release}");
        }
    }
}
