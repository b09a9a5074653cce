//! Where a thread runs: in which network namespace, on which processor.

use std::fs::{self, File};
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, setns};
use nix::unistd::Pid;

use crate::lab::netns::Netns;

/// Puts this thread into a network namespace for the rest of its life.
pub(super) fn enter(netns: &Netns) -> Result<()> {
    let path = netns.path();
    let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("entering {}", path.display()))
}

/// Does something in a network namespace and comes back: a socket that was made there stays there.
pub(super) fn inside<T: Send>(netns: &Netns, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let visit = scope.spawn(|| enter(netns).and_then(|()| work()));
        visit.join().map_err(|_| anyhow!("a visit of {} panicked", netns.path().display()))?
    })
}

/// Keeps all threads that a process has now on one processor; on a machine with fewer they are left where they are.
pub(super) fn process_to_processor(process: u32, number: usize) -> Result<()> {
    let folder = format!("/proc/{process}/task");
    for task in fs::read_dir(&folder).with_context(|| format!("reading {folder}"))? {
        let name = task.with_context(|| format!("reading {folder}"))?.file_name();
        let id: i32 = name.to_str().and_then(|name| name.parse().ok()).context("a thread has a number")?;
        keep(Pid::from_raw(id), number)?;
    }
    Ok(())
}

/// Keeps this thread on one processor; on a machine with fewer it is left where it is.
pub(super) fn to_processor(number: usize) -> Result<()> {
    keep(Pid::from_raw(0), number)
}

fn keep(task: Pid, number: usize) -> Result<()> {
    if number >= thread::available_parallelism().context("counting processors")?.get() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    set.set(number).context("naming a processor")?;
    sched_setaffinity(task, &set).with_context(|| format!("going to processor {number}"))
}
