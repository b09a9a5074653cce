//! The demo plays to its end with every expectation met, and Ctrl-C at any moment leaves nothing.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// There is one demo on a machine at a time.
static ONE: Mutex<()> = Mutex::new(());
/// What the demo has just said when Ctrl-C comes, and how it ends then: nodes are to be made, pods are, probes wait for an
/// answer that a policy refuses, traffic runs; and the last scene, of which Ctrl-C is the end.
const INTERRUPTED_AT: [(&str, i32); 5] =
    [("1/7", 130), ("two nodes", 130), ("3/7", 130), ("6/7", 130), ("7/7", 0)];

/// A test that fails says so itself; the other one still has its turn.
fn one() -> MutexGuard<'static, ()> {
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn demo() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sinew-lab"));
    command.args(["demo", "--no-wait"]).stdin(Stdio::null());
    command
}

fn nothing_is_left() -> Result<()> {
    let names =
        fs::read_dir("/run/netns").context("reading /run/netns")?.flatten().map(|entry| entry.file_name());
    let left: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with("sinew-demo-")).collect();
    assert!(left.is_empty(), "{left:?}");
    for folder in ["/run/sinew-lab/demo", "/sys/fs/bpf/sinew-demo"] {
        assert!(!Path::new(folder).exists(), "{folder} is left");
    }
    Ok(())
}

#[test]
#[ignore = "cargo xtask test lab"]
fn the_demo_plays_to_its_end() -> Result<()> {
    let _one = one();
    let output = demo().output().context("starting the demo")?;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    // Scenes, verdicts by name with the policy that decided, and both families.
    for part in [
        "7/7",
        "DENIED BY api-accepts-web",
        "ALLOWED BY db-accepts-api",
        "the smallest addition",
        "fd00:240:",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    nothing_is_left()
}

#[test]
#[ignore = "cargo xtask test lab"]
fn an_interrupted_demo_leaves_nothing() -> Result<()> {
    let _one = one();
    for (said, code) in INTERRUPTED_AT {
        let mut child =
            demo().stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("starting the demo")?;
        let mut lines = BufReader::new(child.stdout.take().context("the demo's output")?).lines();
        let mut heard = Vec::new();
        while !heard.last().is_some_and(|line: &String| line.contains(said)) {
            let Some(line) = lines.next() else { bail!("{said:?} is not in:\n{}", heard.join("\n")) };
            heard.push(line.context("reading the demo's output")?);
        }
        kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGINT).context("interrupting the demo")?;
        let rest: Vec<_> = lines.map_while(Result::ok).collect();
        assert_eq!(child.wait()?.code(), Some(code), "at {said:?}, and then:\n{}", rest.join("\n"));
        nothing_is_left().with_context(|| format!("interrupted at {said:?}"))?;
    }
    Ok(())
}
