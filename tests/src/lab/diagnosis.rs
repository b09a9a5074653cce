//! What a failing test prints: for each node its last flows, its policies' tables, its drops, the end of its agent's
//! log, and the command that enters each namespace.
#![expect(clippy::print_stderr, reason = "a test tells a person what it saw before it failed")]

use std::env;

use serde_json::Value;

use super::{Lab, Node, process};

/// Lines of each part.
const LINES: usize = 25;

/// How many pods, and policies, are printed in full; with all of a hundred pods the output would only scroll away.
const MOST: usize = 8;

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
        eprintln!("{}", tables(node));
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

/// What policy does to each pod of the node, and what each rule matches and has decided here.
#[must_use]
pub fn tables(node: &Node) -> String {
    let mut text = String::new();
    let pods: Vec<String> = node.pods().iter().map(|pod| pod.full_name()).collect();
    for (noun, names) in [("endpoint", pods), ("policy", policies(node))] {
        for name in names.iter().take(MOST) {
            text += &format!("sinew {noun} get {name}:\n{}\n", ask(node, &[noun, "get", name]));
        }
        if names.len() > MOST {
            text += &format!("({} more: sinew {noun} list)\n", names.len() - MOST);
        }
    }
    text
}

/// Names of the policies that the node's agent knows; none if it does not answer.
fn policies(node: &Node) -> Vec<String> {
    let output = node.sinew(&["policy", "list", "-o", "json"]).ok();
    let list =
        output.and_then(|output| serde_json::from_slice::<Value>(&output.stdout).ok()).unwrap_or_default();
    let policies = list["policies"].as_array().map_or(&[][..], Vec::as_slice);
    policies.iter().filter_map(|policy| policy["name"].as_str().map(str::to_owned)).collect()
}

/// The answer, or why there is none: a diagnosis continues whatever fails.
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
