//! The `tidy` lane: what a machine can see of how this project wants its code to be.
//!
//! Cargo's own checks come first (format, lints, documentation), then ours: `tidy/texts.rs` looks at every file's
//! text, `tidy/names.rs` at what things are called, `tidy/rooms.rs` at which package may use what, and
//! `tidy/manifests.rs` at the manifests. Each check is counted as one test.

mod manifests;
mod names;
mod rooms;
mod source;
mod texts;

use std::process::Command;

use anyhow::Result;

use crate::test::Tally;
use crate::{codegen, paths, process};
use source::Source;

/// A module's documentation names the private modules below it: it is read in the source, or made with them.
const RUSTDOC_FLAGS: &str = "--deny warnings --allow rustdoc::private_intra_doc_links";

/// Runs every check, also after one that failed.
pub(crate) fn run() -> Result<Tally> {
    let mut tally = Tally::default();
    cargo(&mut tally, "lock file", &["metadata", "--locked", "--format-version", "1", "--quiet"], &[]);
    cargo(&mut tally, "format", &["fmt", "--all", "--check"], &[]);
    let lints = ["clippy", "--workspace", "--all-targets", "--keep-going", "--", "--deny", "warnings"];
    cargo(&mut tally, "lints", &lints, &[]);
    let documentation = ["doc", "--workspace", "--no-deps", "--document-private-items"];
    cargo(&mut tally, "documentation", &documentation, &[("RUSTDOCFLAGS", RUSTDOC_FLAGS)]);

    let generated = codegen::run(&codegen::Options { check: true });
    tally.check(
        "generated code",
        &generated.err().map(|error| format!("{error:#}")).into_iter().collect::<Vec<_>>(),
    );

    let metadata = rooms::metadata()?;
    let sources = Source::all(&paths::root())?;
    let over_sources =
        |check: fn(&Source) -> Vec<String>| sources.iter().flat_map(check).collect::<Vec<String>>();
    tally.check("file sizes", &over_sources(texts::size));
    tally.check("widths of comments", &over_sources(texts::comment_width));
    tally.check("module documentation", &over_sources(texts::module_documentation));
    tally.check("nothing left to do", &over_sources(texts::left_to_do));
    tally.check("nothing of one machine", &over_sources(texts::machine));
    tally.check("citations", &over_sources(texts::citations));
    tally.check("links", &over_sources(texts::links));
    tally.check("reasons for skips", &over_sources(texts::skips));
    tally.check("names", &over_sources(names::check));
    tally.check("rooms in the code", &over_sources(rooms::code));
    tally.check("edges between packages", &rooms::edges(&metadata)?);
    tally.check("manifests", &manifests::check(&sources));
    tally.check("licences", &manifests::licences(&metadata, &sources)?);
    Ok(tally)
}

fn cargo(tally: &mut Tally, name: &str, arguments: &[&str], environment: &[(&str, &str)]) {
    let mut command = Command::new("cargo");
    command.current_dir(paths::root()).args(arguments).envs(environment.iter().copied());
    if arguments.first() == Some(&"metadata") {
        command.stdout(std::process::Stdio::null());
    }
    let problem = process::run(&mut command).err();
    tally.check(name, &problem.map(|error| format!("{error:#}")).into_iter().collect::<Vec<_>>());
}
