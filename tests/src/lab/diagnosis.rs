//! What a failing test prints: for each node its last flows, its policies' tables, its drops, the end of its agent's
//! log, and the command that enters each namespace.
#![expect(clippy::print_stderr, reason = "a test tells a person what it saw before it failed")]

use std::env;

use super::{Lab, Node, process};

/// Lines of each part.
const LINES: usize = 25;

/// What is asked of each agent, and why a reader wants it.
const QUESTIONS: [(&str, &[&str]); 5] = [
    ("status", &["status"]),
    ("last flows", &["observe", "--last", "25", "--print-policy-names"]),
    ("last drops", &["observe", "--last", "10", "--verdict", "DROPPED"]),
    ("endpoints", &["endpoint", "list"]),
    ("policies", &["policy", "list"]),
];

/// Prints the state of a lab to the standard error.
pub fn print(lab: &Lab) {
    eprintln!("\n──── lab {} ({:?}) at its end ────", lab.id(), lab.plan());
    for node in lab.nodes() {
        eprintln!("\n── node {}", node.name());
        for (what, words) in QUESTIONS {
            eprintln!("{what} (sinew {}):\n{}", words.join(" "), ask(node, words));
        }
        eprintln!("agent's log:\n{}", process::tail(&node.agent_log(), LINES));
        eprintln!("enter node {}: {}", node.name(), node.netns().enter_line());
        for pod in node.pods() {
            eprintln!("enter pod {}: {}", pod.name(), pod.netns().enter_line());
        }
    }
    if env::var_os("SINEW_LAB_KEEP").is_none() {
        eprintln!("(the lab is being removed; with SINEW_LAB_KEEP=1 a failing one stays)");
    }
}

/// The answer, or why there is none: a diagnosis goes on whatever fails.
fn ask(node: &Node, words: &[&str]) -> String {
    match node.sinew(words) {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            text.lines().take(LINES).map(|line| format!("  {line}\n")).collect()
        }
        Err(error) => format!("  {error:#}\n"),
    }
}
