//! This process's own resource use, under the names that every Prometheus client library uses.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Description, Family, Value};

/// Every metric here.
pub const METRICS: &[&Description] = &[&CPU, &MEMORY, &FILES, &START];

const CPU: Description =
    Description::counter("process_cpu_seconds_total", &[], "Processor time used, seconds.");
const MEMORY: Description = Description::gauge("process_resident_memory_bytes", &[], "Memory in use, bytes.");
const FILES: Description = Description::gauge("process_open_fds", &[], "Open file descriptors.");
const START: Description =
    Description::gauge("process_start_time_seconds", &[], "When the process started, seconds since 1970.");

/// Ticks of a second in `/proc/self/stat`: USER_HZ, 100 on every architecture that Rust's Linux targets have.
const TICKS: f64 = 100.0;

/// The process as it is now. What `/proc` doesn't tell is left out.
#[must_use]
pub fn families(started: SystemTime) -> Vec<Family> {
    let mut families = Vec::new();
    if let Some(seconds) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(cpu_seconds) {
        families.push(Family::single(&CPU, Value::Number(seconds)));
    }
    if let Some(bytes) = fs::read_to_string("/proc/self/status").ok().as_deref().and_then(resident_bytes) {
        families.push(Family::single(&MEMORY, Value::Count(bytes)));
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        families.push(Family::single(&FILES, Value::Count(files.count() as u64)));
    }
    let since = started.duration_since(UNIX_EPOCH).unwrap_or_default();
    families.push(Family::single(&START, Value::Number(since.as_secs_f64())));
    families
}

/// utime and stime, fields 14 and 15 of proc(5); the name before them may hold blanks and brackets.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11).map(|field| field.parse::<f64>().ok());
    Some((fields.next()?? + fields.next()??) / TICKS)
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_with_a_strange_name() {
        let stat = "4242 (a) b (c) S 1 2 3 0 -1 4194560 100 0 0 0 250 50 7 8 20 0 3 0 12345 1000 200";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds("rubbish"), None);
        assert_eq!(resident_bytes("VmPeak:\t  9 kB\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
    }

    #[test]
    fn this_process_tells_everything() {
        let told: Vec<&str> = families(SystemTime::now()).iter().map(|it| it.description.name).collect();
        assert_eq!(told, METRICS.iter().map(|it| it.name).collect::<Vec<_>>());
    }
}
