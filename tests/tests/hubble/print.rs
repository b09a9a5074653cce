//! What is printed besides flows: filters as they would be sent, colours, and nodes that fail.

use std::process::Command;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use sinew_observer::peer::{PeerAddress, Peers};
use sinew_observer::relay::{NodeTls, Relay, RelaySettings};
use sinew_tests::lab::binaries;

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

#[test]
#[ignore = "cargo xtask test hubble"]
fn a_node_that_fails_is_told_unless_errors_are_silent() -> Result<()> {
    let node = Node::with_flows()?;
    let peer = |address: &str| PeerAddress { address: address.to_owned(), tls: None };
    let peers = Peers::from([
        ("default/node-a".to_owned(), peer(&node.address)),
        ("default/node-c".to_owned(), peer("unix:/nowhere/observer.sock")),
    ]);
    let settings = RelaySettings::default();
    let make = |peers| Arc::new(Relay::new(settings, "0.1.0", peers, NodeTls::Undecided, SystemTime::now()));
    let relay = Served::start(make, peers)?;
    for run in [Served::hubble, Served::sinew] {
        let loud = run(&relay, &["observe", "--port", "22"])?;
        let told = format!("{}{}", text(&loud.stdout), text(&loud.stderr));
        ensure!(told.contains("unavailable: default/node-c"), "{told}");
        let silent = run(&relay, &["observe", "--port", "22", "--silent-errors"])?;
        ensure!(text(&silent.stderr).is_empty() && success(&silent)?.lines().count() == 2, "{silent:?}");
    }
    Ok(())
}
