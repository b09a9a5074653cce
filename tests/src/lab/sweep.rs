//! Removing labs: one's own at its end, and those whose process died before it could.
//!
//! A lab's folder names its owner by process id and start time, since ids are reused. Everything else is found by
//! the lab's id: processes by the namespace that they are in, namespaces and pins by name.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{LABS, containers, folder_of, netns, pins_of};

const OWNER: &str = "owner";

/// The process that a lab belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pid: u32,
    started: String,
}

impl Owner {
    /// This process.
    ///
    /// # Errors
    /// /proc is not mounted.
    pub fn this_process() -> Result<Self> {
        Self::of(std::process::id()).context("/proc has no entry for this process")
    }

    /// Writes it into a lab's folder.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        fs::write(folder.join(OWNER), format!("{} {}", self.pid, self.started))
            .context("writing the lab's owner")
    }

    fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold spaces; the start time is the 20th field after it (proc(5)).
        let started = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.to_owned();
        Some(Self { pid, started })
    }

    fn read(folder: &Path) -> Option<Self> {
        let text = fs::read_to_string(folder.join(OWNER)).ok()?;
        let (pid, started) = text.split_once(' ')?;
        Some(Self { pid: pid.parse().ok()?, started: started.to_owned() })
    }

    fn lives(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }
}

/// Says that a lab belongs to no process: only `down` removes it.
///
/// # Errors
/// It cannot be written.
pub fn disown(id: &str) -> Result<()> {
    fs::write(folder_of(id).join(OWNER), "nobody").context("writing the lab's owner")
}

/// Removes every lab whose owner is dead. One sweep runs at a time: of two that remove the same lab each would miss
/// what the other has taken away already.
///
/// # Errors
/// One cannot be removed.
pub fn stale() -> Result<()> {
    let Ok(folder) = File::open(LABS) else { return Ok(()) };
    let _alone = Flock::lock(folder, FlockArg::LockExclusive)
        .map_err(|(_, error)| error)
        .with_context(|| format!("locking {LABS}"))?;
    let entries = fs::read_dir(LABS).with_context(|| format!("listing {LABS}"))?;
    for id in entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()) {
        if is_stale(&id) {
            remove(&id)?;
        }
    }
    Ok(())
}

/// Whether a lab's owner is dead.
pub(super) fn is_stale(id: &str) -> bool {
    Owner::read(&folder_of(id)).is_some_and(|owner| !owner.lives())
}

/// Removes everything that a lab has made, whatever of it is there.
///
/// # Errors
/// Something is there and cannot be removed; the rest is.
pub fn remove(id: &str) -> Result<()> {
    let names = namespaces(id);
    end_processes(names.iter().map(|name| Path::new("/run/netns").join(name)))?;
    let mut result = containers::remove(id);
    for name in &names {
        result = result.and(netns::Netns::named(id, &name[netns::prefix(id).len()..]).remove());
    }
    // Pins keep programs and their links alive; they go last, so that no packet of a living pod is left unjudged.
    result = result.and(remove_folder(&pins_of(id)));
    result.and(remove_folder(&folder_of(id)))
}

/// Names of the namespaces of a lab.
fn namespaces(id: &str) -> Vec<String> {
    let prefix = netns::prefix(id);
    let Ok(entries) = fs::read_dir("/run/netns") else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(&prefix)).collect()
}

/// Kills what runs in these namespaces, files each, and waits until it is gone.
pub(crate) fn end_processes(namespaces: impl IntoIterator<Item = PathBuf>) -> Result<()> {
    let inodes: Vec<(u64, u64)> = namespaces
        .into_iter()
        .filter_map(|file| fs::metadata(file).ok())
        .map(|metadata| (metadata.dev(), metadata.ino()))
        .collect();
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let inside = processes_in(&inodes);
        if inside.is_empty() {
            return Ok(());
        }
        for &pid in &inside {
            match kill(Pid::from_raw(pid), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error).with_context(|| format!("killing process {pid} of a lab")),
            }
        }
        anyhow::ensure!(Instant::now() < deadline, "processes {inside:?} of a lab do not die");
        thread::sleep(Duration::from_millis(5));
    }
}

fn processes_in(inodes: &[(u64, u64)]) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let inside = |pid: &i32| {
        // A zombie has no namespace any more, and its metadata cannot be read.
        fs::metadata(format!("/proc/{pid}/ns/net"))
            .is_ok_and(|found| inodes.contains(&(found.dev(), found.ino())))
    };
    pids.filter(inside).collect()
}

fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            // A container runtime of a test mounts below its folder.
            unmount_below(folder)?;
            fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))
        }
        Err(error) => Err(error).with_context(|| format!("removing {}", folder.display())),
    }
}

fn unmount_below(folder: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading the list of mounts")?;
    let points = mounts.lines().rev().filter_map(|line| line.split(' ').nth(1));
    for point in points.filter(|point| Path::new(point).starts_with(folder)) {
        umount2(point, MntFlags::MNT_DETACH).with_context(|| format!("unmounting {point}"))?;
    }
    Ok(())
}
