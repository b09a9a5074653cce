//! Processor time of a process, to the nanosecond: `/proc/PID/stat` counts in ticks of 10 ms, of which a slice has 30.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// A process that is watched since a moment.
pub(super) struct Watched {
    process: Pid,
    used: Duration,
    since: Instant,
}

impl Watched {
    /// Watches from now on.
    pub(super) fn start(process: u32) -> Result<Self> {
        let process = Pid::from_raw(i32::try_from(process).context("a process id is 31 bits")?);
        Ok(Self { process, used: used(process)?, since: Instant::now() })
    }

    /// Time that it has used since then, of all processors.
    pub(super) fn used(&self) -> Result<Duration> {
        Ok(used(self.process)?.saturating_sub(self.used))
    }

    /// The same in percent of one processor.
    pub(super) fn percent(&self) -> Result<f64> {
        let length = self.since.elapsed();
        Ok(100.0 * self.used()?.as_secs_f64() / length.as_secs_f64())
    }
}

fn used(process: Pid) -> Result<Duration> {
    let clock = clock_getcpuclockid(process).with_context(|| format!("the clock of process {process}"))?;
    Ok(clock_gettime(clock).with_context(|| format!("reading the clock of process {process}"))?.into())
}
