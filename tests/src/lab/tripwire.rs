//! Ends a process at one of its steps: `kill -9` when it is about to make a certain system call.
//!
//! Between two system calls a process changes nothing but its memory. So killing it before the first call, before the
//! second, and so on, kills it in every state in which it can leave the system, without a switch in the process and without
//! a clock. The exception is a kernel map that the process has mapped into memory: a store into it is not a system call, so
//! the tripwire can't come between it and the call before.
//!
//! A thread traces all threads of the process (ptrace(2)): calls are counted in the order in which they begin,
//! whichever thread makes them. Nobody may wait for the process while the tripwire is set: a wait by another thread of the
//! test would take the stops away from the tracer.
//!
//! Neighbours: [`super::node`] and [`super::cni`] start the processes; `tests/lab_cni_kill.rs` and `tests/lab_upgrade.rs`
//! use it.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use super::process;

/// A system call that is about to be made.
#[derive(Clone, Copy, Debug)]
pub struct SystemCall {
    /// Its number on this machine, `libc::SYS_…`.
    pub number: libc::c_long,
    /// Its arguments, as they are in the registers.
    pub arguments: [u64; 6],
    process: Pid,
}

/// What came of a wire.
#[derive(Debug)]
pub struct Steps {
    /// How many calls that count the process has begun.
    pub begun: usize,
    /// The call that it was killed before; none if it did not come so far.
    pub killed_before: Option<SystemCall>,
}

/// A process that is ended at a step.
#[derive(Debug)]
pub struct Tripwire {
    process: Pid,
    tracer: JoinHandle<Result<Steps>>,
}

impl Tripwire {
    /// Traces a process from now on and kills it when it has made `step` calls that count and is about to make
    /// another. Returns when each of its threads is traced.
    ///
    /// # Errors
    /// There is no such process, or somebody traces it.
    pub fn set(
        process: u32,
        step: usize,
        counts: impl FnMut(&SystemCall) -> bool + Send + 'static,
    ) -> Result<Self> {
        let process = process::pid(process)?;
        let (armed, is_armed) = mpsc::channel();
        let tracer = thread::spawn(move || {
            let mut tracer = Tracer { process, step, begun: 0, waits_for: BTreeSet::new() };
            tracer.attach()?;
            tracer.follow(counts, &armed)
        });
        match is_armed.recv() {
            Ok(()) => Ok(Self { process, tracer }),
            // The thread has ended and says why.
            Err(_) => match join(tracer) {
                Ok(_) => Err(anyhow!("process {process} ended before it was traced")),
                Err(error) => Err(error.context(format!("tracing process {process}"))),
            },
        }
    }

    /// Waits until the process is killed or has ended by itself.
    ///
    /// # Errors
    /// It could not be traced.
    pub fn wait(self) -> Result<Steps> {
        join(self.tracer)
    }

    /// Kills the process where it is, unless it was killed at its step.
    ///
    /// # Errors
    /// It could not be traced.
    pub fn finish(self) -> Result<Steps> {
        match kill(self.process, Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => join(self.tracer),
            Err(error) => Err(error).with_context(|| format!("killing process {}", self.process)),
        }
    }
}

impl SystemCall {
    /// The program that the process runs.
    #[must_use]
    pub fn program(&self) -> Option<PathBuf> {
        fs::read_link(format!("/proc/{}/exe", self.process)).ok()
    }

    /// What a descriptor of the process refers to: a path, or `socket:[…]`, `anon_inode:[…]`.
    #[must_use]
    pub fn descriptor(&self, number: u64) -> Option<PathBuf> {
        fs::read_link(format!("/proc/{}/fd/{number}", self.process)).ok()
    }
}

impl fmt::Display for SystemCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second, third, ..] = self.arguments;
        write!(f, "system call {} ({first:#x}, {second:#x}, {third:#x})", self.number)
    }
}

/// The tracing thread's own: ptrace(2) answers the thread that has attached and no other.
struct Tracer {
    process: Pid,
    step: usize,
    begun: usize,
    /// Threads that were there and have not stopped for us yet.
    waits_for: BTreeSet<Pid>,
}

impl Tracer {
    /// Attaches to every thread. A thread that is made meanwhile by one that is not attached yet is found by looking
    /// again; one that is made later is attached by the kernel.
    fn attach(&mut self) -> Result<()> {
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_EXITKILL;
        loop {
            let mut found = false;
            for thread in threads(self.process)? {
                if self.waits_for.contains(&thread) {
                    continue;
                }
                match ptrace::seize(thread, options) {
                    Ok(()) => {
                        ptrace::interrupt(thread).with_context(|| format!("stopping thread {thread}"))?;
                        found = self.waits_for.insert(thread);
                    }
                    // It has ended, or the kernel has attached us when it was made.
                    Err(Errno::ESRCH | Errno::EPERM) if thread != self.process => {}
                    Err(error) => return Err(error).with_context(|| format!("attaching to thread {thread}")),
                }
            }
            if !found {
                return Ok(());
            }
        }
    }

    /// Lets the process go from call to call. Returning lets go of it; a dead process is left to its parent, which
    /// started it and waits for it.
    fn follow(
        mut self,
        mut counts: impl FnMut(&SystemCall) -> bool,
        armed: &mpsc::Sender<()>,
    ) -> Result<Steps> {
        // Only this thread's tracees: the test has children of its own.
        let ours = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        let mut told = false;
        loop {
            let look = WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT | ours;
            let next = match waitid(Id::All, look) {
                Ok(next) => next,
                Err(Errno::ECHILD) => return Ok(self.steps(None)),
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error).context("waiting for a traced process"),
            };
            let thread = next.pid().context("a wait without a process")?;
            if matches!(next, WaitStatus::Exited(..) | WaitStatus::Signaled(..)) && thread == self.process {
                return Ok(self.steps(None));
            }
            let status = waitpid(thread, Some(ours)).context("taking a stop of a traced process")?;
            self.waits_for.remove(&thread);
            let mut signal = None;
            match status {
                WaitStatus::PtraceSyscall(thread) => {
                    if let Some(call) = self.entered(thread)
                        && counts(&call)
                    {
                        if self.begun == self.step {
                            kill(self.process, Signal::SIGKILL).context("killing at the step")?;
                            return Ok(self.steps(Some(call)));
                        }
                        self.begun += 1;
                    }
                }
                WaitStatus::Stopped(_, sent) => signal = Some(sent),
                WaitStatus::Exited(..) | WaitStatus::Signaled(..) => continue,
                _ => {}
            }
            match ptrace::syscall(thread, signal) {
                // Killed while it stood.
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error).with_context(|| format!("letting thread {thread} go on")),
            }
            if self.waits_for.is_empty() && !told {
                told = true;
                // Whoever set the wire waits for this, or has ended.
                armed.send(()).ok();
            }
        }
    }

    /// The call that a thread is about to make; none if it has just returned from one, or is being killed.
    fn entered(&self, thread: Pid) -> Option<SystemCall> {
        if ptrace::syscall_info(thread).ok()?.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
            return None;
        }
        let text = fs::read_to_string(format!("/proc/{}/task/{thread}/syscall", self.process)).ok()?;
        let mut words = text.split_whitespace();
        let number = words.next()?.parse().ok()?;
        let mut arguments = [0; 6];
        for argument in &mut arguments {
            *argument = u64::from_str_radix(words.next()?.trim_start_matches("0x"), 16).ok()?;
        }
        Some(SystemCall { number, arguments, process: self.process })
    }

    fn steps(&self, killed_before: Option<SystemCall>) -> Steps {
        Steps { begun: self.begun, killed_before }
    }
}

fn threads(process: Pid) -> Result<Vec<Pid>> {
    let folder = format!("/proc/{process}/task");
    let entries = fs::read_dir(&folder).with_context(|| format!("reading {folder}"))?;
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(numbers.map(Pid::from_raw).collect())
}

fn join(tracer: JoinHandle<Result<Steps>>) -> Result<Steps> {
    tracer.join().map_err(|_| anyhow!("the tracing thread panicked"))?
}
