//! The lab for a person: `lab up`, `pod add`, `exec` and `down` from the command line, and that nothing of it stays: no
//! namespace, process, file, mount, pin or program, whether it is taken down or interrupted while it is made.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::programs::loaded_programs;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sinew_tests::lab::Lab;
use sinew_tests::lab::process::wait_until;

const SETTLE: Duration = Duration::from_secs(60);

/// Whether a lab that is being made has come so far.
type IsThere = fn(&Bench) -> Result<bool>;

/// A lab by its name, on the command line.
struct Bench {
    id: String,
}

impl Bench {
    fn new(name: &str) -> Self {
        Self { id: format!("wb{}{name}", std::process::id()) }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sinew-lab"));
        command.args(["--lab", &self.id]).args(words).stdin(Stdio::null());
        command
    }

    /// Runs a command that must succeed, and returns what it printed.
    fn run(&self, words: &[&str]) -> Result<String> {
        let Output { status, stdout, stderr } = self.command(words).output().context("starting sinew-lab")?;
        let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        ensure!(status.success(), "sinew-lab {words:?}: {status}: {said}");
        Ok(said)
    }

    fn folder(&self) -> PathBuf {
        Path::new("/run/sinew-lab").join(&self.id)
    }

    /// Namespaces of this lab.
    fn namespaces(&self) -> Result<Vec<String>> {
        let entries = fs::read_dir("/run/netns").context("reading /run/netns")?;
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        Ok(names.filter(|name| name.starts_with(&format!("sinew-{}-", self.id))).collect())
    }

    /// Everything that runs in its namespaces.
    fn processes(&self) -> Result<BTreeSet<String>> {
        let mut processes = BTreeSet::new();
        for name in self.namespaces()? {
            let output =
                Command::new("ip").args(["netns", "pids", &name]).output().context("ip netns pids")?;
            processes.extend(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned));
        }
        Ok(processes)
    }

    /// The programs that its nodes' links run.
    fn programs(&self) -> Result<BTreeSet<u32>> {
        let lab = Lab::attach(&self.id)?;
        let mut programs = BTreeSet::new();
        for node in lab.nodes() {
            programs.extend(node.attached()?.into_values().map(|attached| attached.program_id));
        }
        Ok(programs)
    }

    fn nothing_is_left(&self) -> Result<()> {
        let namespaces = self.namespaces()?;
        ensure!(namespaces.is_empty(), "namespaces are left: {namespaces:?}");
        for folder in [self.folder(), Path::new("/sys/fs/bpf").join(format!("sinew-{}", self.id))] {
            ensure!(!folder.exists(), "{} is left", folder.display());
        }
        let mounts = fs::read_to_string("/proc/self/mounts").context("reading the list of mounts")?;
        ensure!(!mounts.contains(&self.id), "mounts are left: {mounts}");
        for entry in fs::read_dir("/proc").context("reading /proc")?.flatten() {
            let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words).replace('\0', " ");
            ensure!(!words.contains(&self.id), "a process is left: {words}");
        }
        Ok(())
    }
}

impl Drop for Bench {
    /// After a failure; where everything went well there is no such lab.
    fn drop(&mut self) {
        self.command(&["down"]).output().ok();
    }
}

#[test]
#[ignore = "cargo xtask test lab"]
fn a_lab_of_a_person_is_gone_after_down() -> Result<()> {
    let bench = Bench::new("down");
    bench.run(&["up", "--routing", "vxlan"])?;
    bench.run(&["pod", "add", "server", "--node", "b", "--labels", "app=server"])?;
    bench.run(&[
        "pod",
        "add",
        "client",
        "--node",
        "a",
        "--labels",
        "app=client",
        "--",
        "sleep",
        "infinity",
    ])?;
    // A name that is taken changes nothing of the pod that has it.
    let object = bench.folder().join("store/pods/default_server.yaml");
    let before = fs::read_to_string(&object)?;
    let taken = bench.command(&["pod", "add", "server", "--node", "a", "--labels", "app=other"]).output()?;
    let said = String::from_utf8_lossy(&taken.stderr).into_owned();
    assert!(!taken.status.success() && said.contains("already, on node b"), "{said}");
    assert_eq!(fs::read_to_string(&object)?, before);
    // Pods know each other by name.
    let found = bench.run(&["exec", "client", "--", "getent", "hosts", "server"])?;
    assert!(found.contains("fd00:240:1::") || found.contains("10.240.1."), "{found}");
    let probe = env!("CARGO_BIN_EXE_sinew-probe");
    let answered = bench.run(&["exec", "client", "--", probe, "dial", "tcp", "server", "80"])?;
    assert!(answered.contains("answered"), "{answered}");
    // A pod that goes takes what runs in it along, and leaves its name to another one, with another UID.
    let uid = |text: &str| text.lines().find(|line| line.contains("uid:")).map(str::to_owned);
    let add = ["pod", "add", "guest", "--node", "a", "--namespace", "shop", "--", "sleep", "infinity"];
    bench.run(&add)?;
    let guest = bench.folder().join("store/pods/shop_guest.yaml");
    let first = fs::read_to_string(&guest)?;
    let beside = bench.processes()?.len();
    bench.run(&["pod", "remove", "guest.shop"])?;
    assert!(!guest.exists() && bench.processes()?.len() == beside - 1);
    let unknown = bench.command(&["pod", "remove", "guest.shop"]).output()?;
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(!unknown.status.success() && said.contains("there are: client, server"), "{said}");
    bench.run(&add)?;
    let second = fs::read_to_string(&guest)?;
    assert!(uid(&first).is_some() && uid(&first) != uid(&second), "{first}{second}");
    // Two agents, the server and the sleepers; what their links run is loaded.
    let (processes, programs) = (bench.processes()?, bench.programs()?);
    assert!(processes.len() >= 4 && programs.len() >= 6, "{processes:?} {programs:?}");

    bench.run(&["down"])?;
    bench.nothing_is_left()?;
    // Dead, and taken by the machine's first process, whose they became when `up` had ended.
    wait_until("its processes to be gone", SETTLE, || {
        Ok(!processes.iter().any(|pid| Path::new("/proc").join(pid).exists()))
    })?;
    // The kernel frees a program after its last user, when no CPU can be in it any more.
    wait_until("the programs to be gone", SETTLE, || {
        let loaded: Vec<u32> = loaded_programs().flatten().map(|program| program.id()).collect();
        Ok(!loaded.iter().any(|id| programs.contains(id)))
    })?;
    let again = bench.command(&["down"]).output()?;
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.status.success() && said.contains("there is no lab"), "{said}");
    Ok(())
}

#[test]
#[ignore = "cargo xtask test lab"]
fn a_lab_that_is_interrupted_while_it_is_made_leaves_nothing() -> Result<()> {
    // When its folder, its first namespace and its first agent are there.
    let moments: [(&str, IsThere); 3] = [
        ("folder", |bench| Ok(bench.folder().exists())),
        ("namespace", |bench| Ok(!bench.namespaces()?.is_empty())),
        ("agent", |bench| Ok(bench.folder().join("a/notes/agent.pid").exists())),
    ];
    for (name, is_there) in moments {
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            let bench = Bench::new(&format!("{name}{signal}"));
            let mut up =
                bench.command(&["up"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("up")?;
            wait_until(name, SETTLE, || is_there(&bench))?;
            kill(Pid::from_raw(i32::try_from(up.id())?), signal).context("interrupting")?;
            assert_eq!(up.wait()?.code(), Some(130), "{signal} at the first {name}");
            bench.nothing_is_left().with_context(|| format!("{signal} at the first {name}"))?;
        }
    }
    Ok(())
}

/// `up` whose reader has gone: the lab stands with its agents, as it would have with one.
#[test]
#[ignore = "cargo xtask test lab"]
fn a_lab_whose_reader_is_gone_stands_whole() -> Result<()> {
    let bench = Bench::new("pipe");
    let mut up = bench.command(&["up"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("up")?;
    drop(up.stdout.take());
    up.wait().context("waiting for up")?;
    let lab = Lab::attach(&bench.id)?;
    for node in lab.nodes() {
        node.wait_ready(SETTLE)?;
    }
    drop(lab);
    bench.run(&["down"])?;
    bench.nothing_is_left()
}
