//! Every flag of Hubble's client is one of ours, with the same short form and with a value where it has one. Both helps
//! are read; what differs stands here and in docs/observability.md.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sinew_tests::lab::binaries;

use super::super::{sinew_binary, success, text};
use super::cases::{CASES, Case};
use super::flows;

/// Commands that both have.
const COMMANDS: [&[&str]; 6] = [
    &["observe"],
    &["observe", "agent-events"],
    &["observe", "debug-events"],
    &["list", "nodes"],
    &["list", "namespaces"],
    &["watch", "peers"],
];

/// Flags that Hubble's client takes for events and does not use.
const UNUSED_FOR_EVENTS: [&str; 6] = [
    "field-mask",
    "input-file",
    "print-policy-names",
    "print-raw-filters",
    "silent-errors",
    "use-default-field-masks",
];
/// Flags of ours.
const OURS: [&str; 3] = ["explain", "policy", "socket"];

/// Short form, and whether a value has to follow.
type Flag = (Option<char>, bool);

/// `  -n, --namespace filter   Help`, `      --tls   Help`, `      --pod <[NAMESPACE/]POD>`, `  -4, --ipv4[=<ipv4>]`.
fn flag(line: &str) -> Option<(String, Flag)> {
    let (short, long) = match line.trim_start().split_once("--")? {
        ("", long) => (None, long),
        (before, long) => {
            (before.strip_prefix('-')?.strip_suffix(", ").and_then(|it| it.chars().next()), long)
        }
    };
    // A flag stands at the beginning of its line, deeper than a heading and less deep than help of its own.
    let depth = line.len() - line.trim_start().len();
    if !(2..=6).contains(&depth) {
        return None;
    }
    let end =
        long.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-').unwrap_or(long.len());
    let (name, rest) = long.split_at(end);
    // Two spaces are before the help.
    let value = rest.strip_prefix(' ').and_then(|rest| rest.split("  ").next()).unwrap_or_default();
    let value = if value.starts_with(' ') { "" } else { value.trim() };
    let is_optional = value.ends_with(']') && value.contains("[=");
    (!name.is_empty()).then(|| (name.to_owned(), (short, !value.is_empty() && !is_optional)))
}

fn flags(help: &str) -> BTreeMap<String, Flag> {
    help.lines().filter_map(flag).collect()
}

#[test]
#[ignore = "cargo xtask test hubble"]
fn every_flag_of_hubbles_client_is_one_of_ours() -> Result<()> {
    for command in COMMANDS {
        let help = |binary| success(&Command::new(binary).args(command).arg("--help").output()?);
        let (theirs, ours) = (flags(&help(binaries::hubble()?)?), flags(&help(sinew_binary()?)?));
        ensure!(theirs.len() > 15, "{command:?}: the help of hubble is not understood: {theirs:?}");
        let is_event = command.get(1).is_some_and(|it| it.ends_with("-events"));
        let missing: BTreeSet<&str> =
            theirs.keys().filter(|name| !ours.contains_key(*name)).map(String::as_str).collect();
        let documented: BTreeSet<&str> = UNUSED_FOR_EVENTS.into_iter().filter(|_| is_event).collect();
        ensure!(
            missing == documented,
            "{command:?}: ours lacks {missing:?}, and {documented:?} are documented"
        );
        let added: Vec<&String> = ours.keys().filter(|name| !theirs.contains_key(*name)).collect();
        ensure!(added.iter().all(|name| OURS.contains(&name.as_str())), "{command:?}: only ours: {added:?}");
        for (name, flag) in &theirs {
            if let Some(own) = ours.get(name) {
                ensure!(own == flag, "{command:?} --{name}: hubble has {flag:?}, ours {own:?}");
            }
        }
    }
    Ok(())
}

/// Every flag that chooses flows stands in a case that shows some flow and leaves another out.
#[test]
#[ignore = "cargo xtask test hubble"]
fn every_flag_that_chooses_has_a_case() -> Result<()> {
    let help = success(&Command::new(binaries::hubble()?).args(["observe", "--help"]).output()?)?;
    let sections = ["Selectors Flags:", "Filters Flags:", "Raw-Filters Flags:"];
    let mut choosing = BTreeMap::new();
    for section in sections {
        let (_, rest) = help.split_once(section).with_context(|| format!("the help has no {section}"))?;
        choosing.extend(flags(rest.split("\n\n").next().unwrap_or_default()));
    }
    ensure!(choosing.len() > 60, "the help is not understood: {choosing:?}");
    let some = CASES.iter().filter(|Case(_, shown)| !shown.is_empty() && shown.len() < flows::all().len());
    let words: BTreeSet<&str> = some.flat_map(|Case(arguments, _)| arguments.iter().copied()).collect();
    let has_case = |name: &str, short: Option<char>| {
        words.contains(format!("--{name}").as_str())
            || short.is_some_and(|short| words.contains(format!("-{short}").as_str()))
    };
    let without: Vec<&String> =
        choosing.iter().filter(|(name, (short, _))| !has_case(name, *short)).map(|(name, _)| name).collect();
    // `following_shows_what_comes_and_peers_are_watched` has a client that goes on.
    ensure!(without == ["follow"], "no case for {without:?}");
    Ok(())
}

/// What needs Kubernetes is refused by name, before anybody is asked.
#[test]
#[ignore = "cargo xtask test hubble"]
fn what_is_known_and_refused_says_why() -> Result<()> {
    for flags in
        [&["-P"][..], &["--port-forward-port", "4245"], &["--kubeconfig", "x"], &["--kube-context", "x"]]
    {
        let output = Command::new(sinew_binary()?).args(["observe"]).args(flags).output()?;
        let told = text(&output.stderr);
        ensure!(output.status.code() == Some(2) && told.contains("needs Kubernetes"), "{flags:?}: {told}");
    }
    Ok(())
}

#[test]
fn both_forms_of_help_are_read() {
    let theirs = "Server Flags:\n  -f, --follow         Follow flows output\n      --first uint     Get first N\n  \
                  -4, --ipv4 filter[=v4]                    Show only\n                          (--x is no flag)\n";
    let ours = "Selectors:\n  -f, --follow\n          Go on\n      --first <N>\n  -4, --ipv4[=<ipv4>]\n";
    assert_eq!(flags(theirs), flags(ours));
    assert_eq!(flags(ours)["follow"], (Some('f'), false));
    assert_eq!(flags(ours)["first"], (None, true));
}
