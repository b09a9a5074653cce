//! Removes what a test's container runtime leaves when the test dies: containers in the lab's cgroup, and the namespaces
//! that the runtime made for them, which carry the runtime's names and not the lab's.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::process;

const CGROUPS: &str = "/sys/fs/cgroup";
/// How containerd names namespaces.
const RUNTIME_PREFIX: &str = "cni-";

/// The cgroup that containers of a lab are put under, in every hierarchy.
fn cgroup_of(id: &str) -> String {
    format!("sinew-{id}")
}

/// Ends the containers of a lab and removes their namespaces and cgroups.
pub(super) fn remove(id: &str) -> Result<()> {
    let groups: Vec<PathBuf> =
        hierarchies().map(|path| path.join(cgroup_of(id))).filter(|path| path.exists()).collect();
    if groups.is_empty() {
        return Ok(());
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut namespaces = Vec::new();
    loop {
        let pids: Vec<i32> = groups.iter().flat_map(|group| processes(group)).collect();
        if pids.is_empty() {
            break;
        }
        for pid in pids {
            if let Ok(found) = fs::metadata(format!("/proc/{pid}/ns/net")) {
                namespaces.push((found.dev(), found.ino()));
            }
            // It may end by itself in between.
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
        ensure!(Instant::now() < deadline, "containers of lab {id} do not die");
        thread::sleep(Duration::from_millis(10));
    }
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let same =
            fs::metadata(entry.path()).is_ok_and(|found| namespaces.contains(&(found.dev(), found.ino())));
        if name.starts_with(RUNTIME_PREFIX) && same {
            process::run(Command::new("ip").args(["netns", "del", &name]))?;
        }
    }
    groups.iter().try_for_each(|group| remove_group(group))
}

/// The roots of all cgroup hierarchies; with version 2 alone that is the one.
fn hierarchies() -> impl Iterator<Item = PathBuf> {
    let below = fs::read_dir(CGROUPS).into_iter().flatten().flatten().map(|entry| entry.path());
    std::iter::once(PathBuf::from(CGROUPS)).chain(below.filter(|path| path.is_dir()))
}

fn processes(group: &Path) -> Vec<i32> {
    let own = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = own.lines().filter_map(|line| line.parse().ok()).collect();
    pids.extend(children(group).flat_map(|child| processes(&child)));
    pids
}

/// A cgroup is removed by rmdir, from the leaves up; its files are not files.
fn remove_group(group: &Path) -> Result<()> {
    children(group).try_for_each(|child| remove_group(&child))?;
    fs::remove_dir(group).with_context(|| format!("removing cgroup {}", group.display()))
}

fn children(group: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(group).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| path.is_dir())
}
