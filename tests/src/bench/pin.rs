//! Where a thread runs: in which network namespace, on which processor.

use std::fs::File;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, setns};
use nix::unistd::Pid;

use crate::lab::netns::Netns;

/// Puts this thread into a network namespace for the rest of its life.
pub(super) fn enter(netns: &Netns) -> Result<()> {
    let path = netns.path();
    let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("entering {}", path.display()))
}

/// Keeps this thread on one processor; on a machine with fewer it is left where it is.
pub(super) fn to_processor(number: usize) -> Result<()> {
    if number >= std::thread::available_parallelism().context("counting processors")?.get() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    set.set(number).context("naming a processor")?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("going to processor {number}"))
}
