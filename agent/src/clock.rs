//! The kernel's monotonic clock. Programs stamp connections, counters and records with it, and addresses rest by it;
//! `crate::flow::names` turns its times into times of day.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Time since the machine was started, without the time it slept: what `bpf_ktime_get_ns` tells programs.
#[must_use]
pub fn monotonic() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default()
}

/// The same as programs write it.
#[must_use]
pub fn monotonic_nanoseconds() -> u64 {
    u64::try_from(monotonic().as_nanos()).unwrap_or(u64::MAX)
}
