//! The demo plays to its end with every expectation met, and Ctrl-C at any moment leaves nothing.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sinew_tests::lab::process::{pause, wait_until};

/// There is one demo on a machine at a time.
static ONE: Mutex<()> = Mutex::new(());
/// Moments of the demo: while nodes are made, while pods are, while probes wait, while traffic runs.
const INTERRUPTED_AFTER: [u64; 5] = [100, 700, 2_500, 6_000, 11_000];

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
    let _one = ONE.lock().expect("no test panics while it holds this lock");
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
    let _one = ONE.lock().expect("no test panics while it holds this lock");
    for after in INTERRUPTED_AFTER {
        let mut child =
            demo().stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("starting the demo")?;
        pause(Duration::from_millis(after))?;
        kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGINT).context("interrupting the demo")?;
        wait_until("the interrupted demo", Duration::from_secs(30), || Ok(child.try_wait()?.is_some()))?;
        assert_eq!(child.wait()?.code(), Some(130), "after {after} ms");
        nothing_is_left().with_context(|| format!("interrupted after {after} ms"))?;
    }
    Ok(())
}
