//! The documents are true: their examples run, and their tables are those of the code.
//!
//! `documents/sessions.rs` runs the YAML and the commands of `docs/policy.md` against the real binary;
//! `documents/tables.rs` makes the tables that repeat code and compares them, or writes them where
//! `SINEW_WRITE_DOCUMENTS=1` is set.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

#[path = "documents/sessions.rs"]
mod sessions;
#[path = "documents/tables.rs"]
mod tables;

use std::path::PathBuf;

/// A file of the repository.
fn file(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Whether to write what differs instead of failing.
fn writing() -> bool {
    std::env::var_os("SINEW_WRITE_DOCUMENTS").is_some_and(|value| value == "1")
}

#[test]
fn the_examples_of_the_policy_document_do_what_it_says() {
    sessions::check(&file("docs/policy.md"));
}

#[test]
fn tables_that_repeat_code_are_those_of_the_code() {
    tables::check();
}

#[test]
fn what_readme_shows_of_the_command_is_what_the_policy_document_runs() {
    let readme = std::fs::read_to_string(file("README.md")).unwrap();
    let run = std::fs::read_to_string(file("docs/policy.md")).unwrap();
    let blocks = readme.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut shown = 0;
    for block in blocks {
        assert!(run.contains(block), "README.md shows what docs/policy.md does not run:\n{block}");
        shown += 1;
    }
    assert!(shown > 0, "README.md shows no command");
}
