//! The lanes: what each is for, what it needs, and which tests are its own.
//!
//! A new test target of the `tests` package must be named here; one that no lane claims fails the `unit` lane, so that
//! no test exists that nothing runs.

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Tally;
use crate::{fuzz, paths, process, tidy, verifier};

/// A group of tests that is run by name.
pub(super) struct Lane {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) needs: Needs,
    pub(super) steps: &'static [Step],
}

/// What must be there before a lane can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// Only this workspace and its crates.
    Nothing,
    /// Root, the tools of `setup test`, and what `build` makes.
    Node,
}

/// A part of a lane.
pub(super) enum Step {
    /// The tests beside the code.
    Units,
    /// A test target, whole: also what it marks as ignored for an ordinary `cargo test`.
    Target { package: &'static str, target: &'static str, release: bool },
    /// A check that isn't libtest's.
    Own(fn() -> Result<Tally>),
}

/// In the order in which `cargo xtask test` runs them.
pub(super) const LANES: &[Lane] = &[
    Lane {
        name: "tidy",
        about: "format, lints, documentation, sizes, names and edges between packages",
        needs: Needs::Nothing,
        steps: &[Step::Own(tidy::run)],
    },
    Lane { name: "unit", about: "tests beside the code", needs: Needs::Nothing, steps: &[Step::Units] },
    Lane {
        name: "model",
        about: "random events into the engine, against a state from scratch and a naive evaluator",
        needs: Needs::Nothing,
        steps: &[Step::Target { package: "sinew-engine", target: "model", release: true }],
    },
    Lane {
        name: "agreement",
        about: "the same packets through the kernel's build of the verdict code and through the host's",
        needs: Needs::Node,
        steps: &[Step::Target { package: "sinew-tests", target: "agreement", release: true }],
    },
    Lane {
        name: "lab",
        about: "nodes and pods in network namespaces, real agent, real plugin, real packets",
        needs: Needs::Node,
        steps: &[
            Step::Target { package: "sinew-tests", target: "netlink", release: true },
            Step::Target { package: "sinew-tests", target: "lab_ground", release: true },
            Step::Target { package: "sinew-tests", target: "lab_explain", release: true },
            Step::Target { package: "sinew-tests", target: "lab_policy", release: true },
            Step::Target { package: "sinew-tests", target: "lab_demo", release: true },
            Step::Target { package: "sinew-tests", target: "lab_workbench", release: true },
            Step::Target { package: "sinew-tests", target: "lab_restart", release: true },
            Step::Target { package: "sinew-tests", target: "lab_underlay", release: true },
            Step::Target { package: "sinew-tests", target: "lab_upgrade", release: true },
            Step::Target { package: "sinew-tests", target: "lab_change", release: true },
            Step::Target { package: "sinew-tests", target: "lab_runtime", release: true },
            Step::Target { package: "sinew-tests", target: "lab_conntrack", release: true },
            Step::Target { package: "sinew-tests", target: "lab_lifetime", release: true },
            Step::Target { package: "sinew-tests", target: "lab_datapath", release: true },
            Step::Target { package: "sinew-tests", target: "lab_forbidden", release: true },
            Step::Target { package: "sinew-tests", target: "lab_cni_kill", release: true },
            Step::Target { package: "sinew-tests", target: "lab_cni", release: true },
            Step::Target { package: "sinew-tests", target: "lab_store", release: true },
            Step::Target { package: "sinew-tests", target: "lab_folder", release: true },
            Step::Target { package: "sinew-tests", target: "lab_metrics", release: true },
            Step::Target { package: "sinew-tests", target: "lab_flows", release: true },
            Step::Target { package: "sinew-tests", target: "lab_losses", release: true },
            Step::Target { package: "sinew-tests", target: "lab_kernel_drops", release: true },
        ],
    },
    Lane {
        name: "hubble",
        about: "Hubble's own client and `sinew observe` against the observer: filters, forms of output, every command, over sockets and mutual TLS, and against an agent whose pods talk; a relay before real agents that die, freeze and go",
        needs: Needs::Node,
        steps: &[
            Step::Target { package: "sinew-tests", target: "hubble", release: true },
            Step::Target { package: "sinew-tests", target: "lab_hubble", release: true },
            Step::Target { package: "sinew-tests", target: "lab_relay", release: true },
        ],
    },
    Lane {
        name: "fuzz",
        about: "inputs that once broke something, and a bounded search for new ones",
        needs: Needs::Nothing,
        steps: &[Step::Own(fuzz::run)],
    },
    Lane {
        name: "verifier",
        about: "every program loads, on this kernel and on the oldest one",
        needs: Needs::Node,
        steps: &[Step::Own(verifier::running_kernel), Step::Own(verifier::oldest_kernel)],
    },
];

/// The package whose every test target needs a lane of its own.
const TESTS: &str = "sinew-tests";

/// The targets with tests that no lane names.
#[derive(Default)]
pub(super) struct Unclaimed {
    /// Binaries with tests beside their code. Cargo would run all others too, if it were asked for all binaries.
    pub(super) binaries: Vec<String>,
    /// Test targets of the packages that are tested.
    pub(super) beside_code: Vec<String>,
    /// Test targets of the `tests` package: they must have a lane.
    pub(super) without_lane: Vec<String>,
}

/// Looks through all packages.
pub(super) fn unclaimed() -> Result<Unclaimed> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(paths::root()).args(["metadata", "--format-version", "1", "--no-deps"]);
    let metadata: Value =
        serde_json::from_str(&process::output(&mut cargo)?).context("cargo metadata is no JSON")?;
    let mut unclaimed = Unclaimed::default();
    for package in metadata["packages"].as_array().context("cargo metadata names no packages")? {
        let package_name = package["name"].as_str().context("a package without a name")?;
        for target in package["targets"].as_array().context("a package without targets")? {
            let name = target["name"].as_str().context("a target without a name")?;
            if target["test"] != true || is_claimed(package_name, name) {
                continue;
            }
            let is =
                |kind| target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|one| one == kind));
            if is("bin") {
                unclaimed.binaries.push(name.to_owned());
            } else if is("test") && package_name == TESTS {
                unclaimed.without_lane.push(name.to_owned());
            } else if is("test") {
                unclaimed.beside_code.push(name.to_owned());
            }
        }
    }
    Ok(unclaimed)
}

fn is_claimed(package_name: &str, target_name: &str) -> bool {
    LANES.iter().flat_map(|lane| lane.steps).any(|step| match step {
        Step::Target { package, target, .. } => *package == package_name && *target == target_name,
        Step::Units | Step::Own(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_has_its_own_name_and_something_to_run() {
        for (at, lane) in LANES.iter().enumerate() {
            assert!(
                !LANES[..at].iter().any(|earlier| earlier.name == lane.name),
                "{} stands twice",
                lane.name
            );
            assert!(!lane.steps.is_empty(), "{} runs nothing", lane.name);
        }
    }
}
