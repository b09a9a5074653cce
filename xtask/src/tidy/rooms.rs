//! Which package may use which, and where the outside world may be named (design: rooms).
//!
//! A decision crate that opens a file or reads a clock can no longer be tested as a value; an aya or netlink type
//! outside its room makes two owners of one thing.

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::source::Source;
use crate::{paths, process};

/// Packages of tests may depend on any.
const TESTS: [&str; 2] = ["sinew-tests", "sinew-fuzz"];

/// A package and the packages of ours that it may depend on.
const EDGES: &[(&str, &[&str])] = &[
    ("sinew-bpf", &[]),
    ("sinew-api", &[]),
    ("sinew-engine", &["sinew-api", "sinew-bpf"]),
    ("sinew-observer", &["sinew-api"]),
    ("sinew-agent", &["sinew-engine", "sinew-api", "sinew-bpf", "sinew-observer"]),
    ("sinew-cli", &["sinew-engine", "sinew-api", "sinew-bpf", "sinew-observer"]),
    ("xtask", &[]),
];

/// Packages that decide, and what would let them do more than that.
const PURE: [&str; 3] = ["sinew-bpf", "sinew-api", "sinew-engine"];
const IMPURE: [&str; 8] = ["tokio", "nix", "libc", "aya", "rtnetlink", "inotify", "tracing", "tempfile"];

/// `cargo metadata` with every dependency.
pub(super) fn metadata() -> Result<Value> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(paths::root()).args(["metadata", "--format-version", "1", "--quiet"]);
    serde_json::from_str(&process::output(&mut cargo)?).context("cargo metadata is no JSON")
}

/// Dependencies that no row allows.
pub(super) fn edges(metadata: &Value) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for package in metadata["packages"].as_array().context("cargo metadata names no packages")? {
        if !package["source"].is_null() {
            continue;
        }
        let name = package["name"].as_str().context("a package without a name")?;
        if TESTS.contains(&name) {
            continue;
        }
        let Some((_, allowed)) = EDGES.iter().find(|(row, _)| *row == name) else {
            problems.push(format!("{name}: not in xtask/src/tidy/rooms.rs"));
            continue;
        };
        for dependency in package["dependencies"].as_array().context("a package without dependencies")? {
            let other = dependency["name"].as_str().context("a dependency without a name")?;
            let is_ours = dependency["source"].is_null();
            if is_ours && !allowed.contains(&other) {
                problems.push(format!("{name}: may not depend on {other}"));
            }
            let is_for_tests = dependency["kind"] == "dev";
            if PURE.contains(&name) && IMPURE.contains(&other) && !is_for_tests {
                problems.push(format!("{name}: decides only, so it may not depend on {other}"));
            }
        }
    }
    Ok(problems)
}

/// A text that may stand in some folders only.
struct Place {
    /// In which folders the rule looks.
    within: &'static [&'static str],
    /// The folders and files among them where the text is at home.
    home: &'static [&'static str],
    text: &'static str,
    why: &'static str,
}

const PLACES: &[Place] = &[
    Place {
        within: &["agent/src/", "cli/src/", "observer/src/"],
        home: &["agent/src/datapath"],
        text: "aya::",
        why: "only agent/src/datapath names aya's types",
    },
    Place {
        within: &["agent/src/", "cli/src/", "observer/src/"],
        home: &["agent/src/netlink"],
        text: "rtnetlink::",
        why: "only agent/src/netlink and the lab speak netlink",
    },
    Place {
        within: &["agent/src/", "cli/src/", "observer/src/"],
        home: &["agent/src/netlink"],
        text: "netlink_packet",
        why: "only agent/src/netlink and the lab speak netlink",
    },
    Place { within: DECIDING, home: &[], text: "std::fs", why: "a decision reads no file" },
    Place { within: DECIDING, home: &[], text: "std::process", why: "a decision starts nothing" },
    Place { within: DECIDING, home: &[], text: "std::thread", why: "a decision has no task" },
    Place { within: DECIDING, home: &[], text: "Instant::now", why: "time is an argument" },
    Place { within: DECIDING, home: &[], text: "SystemTime::now", why: "time is an argument" },
    Place { within: DECIDING, home: &[], text: "TcpStream", why: "a decision has no socket" },
    Place { within: DECIDING, home: &[], text: "UdpSocket", why: "a decision has no socket" },
    Place { within: DECIDING, home: &[], text: "UnixStream", why: "a decision has no socket" },
    Place { within: DECIDING, home: &[], text: "std::env::", why: "a decision has no environment" },
    Place {
        within: &["agent/", "api/", "bpf/", "cli/", "engine/", "observer/", "xtask/"],
        home: &["bpf/src/", "agent/src/datapath", "agent/src/heap", "xtask/src/tidy"],
        text: "allow(unsafe_code",
        why: "unsafe code is for the programs, the loader and the allocator's settings",
    },
];

const DECIDING: &[&str] = &["engine/src/", "api/src/", "bpf/src/"];

/// Texts outside their room.
pub(super) fn code(source: &Source) -> Vec<String> {
    if !source.is_rust() || source.is_test() || source.is_generated() {
        return Vec::new();
    }
    let mut problems = Vec::new();
    for place in PLACES {
        let is_within = place.within.iter().any(|folder| source.path.starts_with(folder));
        let is_home = place.home.iter().any(|folder| source.path.starts_with(folder));
        if !is_within || is_home {
            continue;
        }
        let lines = source.code_lines().filter(|(_, line)| !line.trim_start().starts_with("//"));
        let found = lines.filter(|(_, line)| line.contains(place.text));
        problems.extend(found.map(|(at, _)| source.problem(at, &format!("`{}`: {}", place.text, place.why))));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn package(name: &str, dependency: &str, kind: Option<&str>, is_ours: bool) -> Value {
        let source = if is_ours { Value::Null } else { json!("registry") };
        json!({"packages": [{"name": name, "source": null,
            "dependencies": [{"name": dependency, "source": source, "kind": kind}]}]})
    }

    #[test]
    fn an_edge_that_no_row_allows_is_found() {
        for (name, dependency, kind, is_ours, problems) in [
            ("sinew-engine", "sinew-api", None, true, 0),
            ("sinew-engine", "sinew-agent", None, true, 1),
            ("sinew-engine", "sinew-agent", Some("dev"), true, 1),
            ("sinew-engine", "tokio", None, false, 1),
            ("sinew-engine", "proptest", Some("dev"), false, 0),
            ("sinew-agent", "tokio", None, false, 0),
            ("sinew-tests", "sinew-cli", None, true, 0),
            ("sinew-new", "serde", None, false, 1),
        ] {
            let found = edges(&package(name, dependency, kind, is_ours)).unwrap();
            assert_eq!(found.len(), problems, "{name} -> {dependency}: {found:?}");
        }
    }

    #[test]
    fn the_outside_world_is_named_in_its_room_only() {
        for (path, text, problems) in [
            ("agent/src/cni.rs", "use aya::Ebpf;", 1),
            ("agent/src/datapath/load.rs", "use aya::Ebpf;", 0),
            ("engine/src/state.rs", "    let now = Instant::now();", 1),
            ("engine/src/state.rs", "// not Instant::now()", 0),
            ("engine/src/state.rs", "#[cfg(test)]\nuse std::fs;", 0),
            ("engine/src/state/tests.rs", "use std::fs;", 0),
            ("cli/src/main.rs", "#![allow(unsafe_code, reason = \"x\")]", 1),
        ] {
            let found = code(&Source::new(path, text));
            assert_eq!(found.len(), problems, "{path}: {text}: {found:?}");
        }
    }
}
