//! What is printed besides flows: filters as they would be sent, colours, nodes that fail or have a wrong clock.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use sinew_observer::peer::{PeerAddress, Peers};
use sinew_observer::relay::{NodeTls, Relay, RelaySettings};
use sinew_tests::lab::binaries;
use sinew_tests::lab::process::{Running, wait_until};
use tokio::sync::watch;

use super::super::{Node, Served, sinew_binary, success, text};
use super::cases::{CASES, Case};

/// The filters that both clients would send for each case are the same, word by word.
#[test]
#[ignore = "cargo xtask test hubble"]
fn the_filters_of_every_case_are_those_of_the_stock_client() -> Result<()> {
    for Case(arguments, _) in CASES {
        let printed = |binary| {
            let mut command = Command::new(binary);
            command.arg("observe").arg("--print-raw-filters").args(*arguments);
            success(&command.output()?).with_context(|| format!("{arguments:?}"))
        };
        let (theirs, ours) = (printed(binaries::hubble()?)?, printed(sinew_binary()?)?);
        ensure!(theirs == ours, "{arguments:?}\nhubble:\n{theirs}\nsinew:\n{ours}");
    }
    Ok(())
}

#[test]
#[ignore = "cargo xtask test hubble"]
fn colours_are_those_of_the_stock_client() -> Result<()> {
    let node = Node::with_flows()?;
    for form in ["compact", "dict"] {
        let words = ["observe", "-o", form, "--color", "always"];
        let (theirs, ours) = (success(&node.hubble(&words)?)?, success(&node.sinew(&words)?)?);
        ensure!(theirs.contains('\u{1b}') && theirs == ours, "hubble:\n{theirs:?}\nsinew:\n{ours:?}");
        let words = ["observe", "-o", form, "--color", "never"];
        let (theirs, ours) = (success(&node.hubble(&words)?)?, success(&node.sinew(&words)?)?);
        ensure!(!theirs.contains('\u{1b}') && theirs == ours, "hubble:\n{theirs:?}\nsinew:\n{ours:?}");
    }
    Ok(())
}

/// A process with its children, which `faketime` has one of.
struct Group(Running);

impl Drop for Group {
    fn drop(&mut self) {
        // Whoever was started stands in a process group of its own; it may have ended already.
        let group = i32::try_from(self.0.pid()).expect("a process id is 31 bits");
        killpg(Pid::from_raw(group), Signal::SIGKILL).ok();
    }
}

/// A process whose clock is an hour off, as a node of a relay: told once, with its flows.
#[test]
#[ignore = "cargo xtask test hubble"]
fn a_wrong_clock_is_told() -> Result<()> {
    let node = Node::with_flows()?;
    let folder = tempfile::tempdir()?;
    for (off, told) in [("-1h", "s behind;"), ("+1h", "s ahead;")] {
        let path = folder.path().join(format!("{off}.sock"));
        // Only the time of day is wrong: waiting goes by the other clock.
        let mut command = Command::new("faketime");
        command
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .args(["-f", off])
            .arg(binaries::find("sinew-relay")?);
        command.arg("--node").arg(format!("default/node-a={}", node.address)).arg("--socket").arg(&path);
        let log = folder.path().join(format!("{off}.log"));
        let _wrong = Group(Running::start(&mut command, &log)?);
        wait_until("the process with the wrong clock serves", Duration::from_secs(20), || {
            Ok(std::os::unix::net::UnixStream::connect(&path).is_ok())
        })
        .with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
        let peer = PeerAddress { address: format!("unix:{}", path.display()), tls: None };
        let relay = Served::start(relay_of, Peers::from([("default/wrong".to_owned(), peer)]))?;
        for run in [Served::hubble, Served::sinew] {
            let output = run(&relay, &["observe", "--port", "22"])?;
            let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
            let line =
                said.lines().find(|line| line.contains("on 1 nodes: default/wrong")).unwrap_or_default();
            ensure!(line.contains("its clock is 35") || line.contains("its clock is 3600"), "{off}: {said}");
            ensure!(line.contains(told) && said.matches("Policy denied").count() == 1, "{off}: {said}");
        }
    }
    Ok(())
}

fn relay_of(peers: watch::Receiver<Peers>) -> Arc<Relay> {
    Arc::new(Relay::new(RelaySettings::default(), "0.1.0", peers, NodeTls::Undecided, SystemTime::now()))
}

#[test]
#[ignore = "cargo xtask test hubble"]
fn a_node_that_fails_is_told_unless_errors_are_silent() -> Result<()> {
    let node = Node::with_flows()?;
    let peer = |address: &str| PeerAddress { address: address.to_owned(), tls: None };
    let peers = Peers::from([
        ("default/node-a".to_owned(), peer(&node.address)),
        ("default/node-c".to_owned(), peer("unix:/nowhere/observer.sock")),
    ]);
    let relay = Served::start(relay_of, peers)?;
    for run in [Served::hubble, Served::sinew] {
        let loud = run(&relay, &["observe", "--port", "22"])?;
        let told = format!("{}{}", text(&loud.stdout), text(&loud.stderr));
        ensure!(told.contains("unavailable: default/node-c"), "{told}");
        let silent = run(&relay, &["observe", "--port", "22", "--silent-errors"])?;
        ensure!(text(&silent.stderr).is_empty() && success(&silent)?.lines().count() == 2, "{silent:?}");
    }
    // What is between two blocks belongs to the second: the word of a node's trouble takes none of the flows' stream.
    let dict = ["observe", "--port", "22", "-o", "dict"];
    let streams =
        |output: std::process::Output| (text(&output.stdout), text(&output.stderr).contains("STATE:"));
    let (theirs, ours) = (streams(relay.hubble(&dict)?), streams(relay.sinew(&dict)?));
    ensure!(theirs.1 && ours.1, "hubble: {theirs:?}\nsinew: {ours:?}");
    let lines = |text: &str| text.lines().filter(|line| *line == "------------").count();
    ensure!(lines(&ours.0) <= 2 && !ours.0.ends_with("------------\n"), "{}", ours.0);
    Ok(())
}
