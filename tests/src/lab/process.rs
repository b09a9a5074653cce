//! Child processes: run to the end with their output, or kept running until dropped.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Runs a command to its end and returns its standard output.
///
/// # Errors
/// It cannot be started, or it failed; the error holds what it said.
pub fn run(command: &mut Command) -> Result<String> {
    run_with(command, b"")
}

/// The same with an input.
///
/// # Errors
/// As [`run`].
pub fn run_with(command: &mut Command, input: &[u8]) -> Result<String> {
    let output = output_with(command, input)?;
    ensure!(!interrupted(), "interrupted");
    ensure!(
        output.status.success(),
        "{} failed ({}): {}{}",
        show(command),
        output.status,
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command to its end with an input, however it ends.
///
/// # Errors
/// It cannot be started.
pub fn output_with(command: &mut Command, input: &[u8]) -> Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", show(command)))?;
    // A command that ends without reading its input is fine; its exit status says whether that was right.
    child.stdin.take().expect("stdin is piped").write_all(input).ok();
    child.wait_with_output().with_context(|| format!("waiting for {}", show(command)))
}

/// A command as a person would type it.
#[must_use]
pub fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Says that the person wants the program to end: whatever waits stops waiting with an error.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Whether somebody called [`interrupt`].
#[must_use]
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Waits, unless the person wants the program to end.
///
/// # Errors
/// The person does.
pub fn pause(length: Duration) -> Result<()> {
    let end = Instant::now() + length;
    while Instant::now() < end {
        ensure!(!interrupted(), "interrupted");
        thread::sleep(Duration::from_millis(10).min(end.saturating_duration_since(Instant::now())));
    }
    Ok(())
}

/// Calls `done` until it returns true.
///
/// # Errors
/// It has not happened when the time is over; the error says what was awaited.
pub fn wait_until(what: &str, limit: Duration, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !done()? {
        if start.elapsed() > limit {
            bail!("waited {} s for {what}", limit.as_secs_f32());
        }
        pause(Duration::from_millis(10))?;
    }
    Ok(())
}

/// Waits until a process is stopped by SIGSTOP.
///
/// # Errors
/// It does not, or is gone.
pub fn wait_stopped(pid: u32) -> Result<()> {
    wait_until(&format!("process {pid} to stand still"), Duration::from_secs(10), || {
        let path = format!("/proc/{pid}/status");
        let status = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        Ok(status.lines().any(|line| line.starts_with("State:") && line.contains("stopped")))
    })
}

/// A process that runs until this value is dropped. It is in a process group of its own, so that Ctrl-C on the terminal
/// ends the lab's owner, which then ends the lab's parts.
#[derive(Debug)]
pub struct Running {
    child: Child,
    log: Option<PathBuf>,
}

impl Running {
    /// Starts a command whose output goes to a file.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("opening {}", log.display()))?;
        let errors = file.try_clone().context("a second handle of the log")?;
        command.stdin(Stdio::null()).stdout(file).stderr(errors);
        Ok(Self { child: spawn(command)?, log: Some(log.to_path_buf()) })
    }

    /// Starts a command that is talked to over pipes; its errors go to the test's own.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn talk(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(Self { child: spawn(command)?, log: None })
    }

    /// Starts a command with the input and outputs that it was given.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_as_given(command: &mut Command) -> Result<Self> {
        Ok(Self { child: spawn(command)?, log: None })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(pid(self.child.id())?, signal)
            .with_context(|| format!("sending {signal} to {}", self.child.id()))
    }

    /// `kill -9`, and waits for its end.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().context("waiting for a killed process")
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It has not ended in time.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        wait_until("a process to end", limit, || Ok(self.child.try_wait()?.is_some()))?;
        self.child.wait().context("waiting for an ended process")
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// It cannot be asked for.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait().context("asking for a process")?.is_none())
    }

    /// The next line that it prints.
    ///
    /// # Errors
    /// It ended.
    pub fn line(&mut self) -> Result<String> {
        let stdout = self.child.stdout.as_mut().context("its output is not piped")?;
        let mut line = String::new();
        // One byte at a time: what comes after the line must stay in the pipe.
        let mut byte = [0];
        while stdout.read(&mut byte).context("reading its output")? == 1 && byte[0] != b'\n' {
            line.push(char::from(byte[0]));
        }
        ensure!(!line.is_empty(), "a process ended without a word");
        Ok(line)
    }

    /// Closes its input and reads the rest of what it prints.
    ///
    /// # Errors
    /// Its output is not piped.
    pub fn finish(mut self) -> Result<String> {
        drop::<Option<ChildStdin>>(self.child.stdin.take());
        let mut stdout: ChildStdout = self.child.stdout.take().context("its output is not piped")?;
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).context("reading its output")?;
        self.child.wait().context("waiting for its end")?;
        Ok(rest)
    }

    /// Leaves it running when this value is dropped.
    pub fn release(self) {
        std::mem::forget(self);
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        self.log.as_deref().map_or_else(String::new, |log| tail(log, lines))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The last lines of a file, or why there are none.
#[must_use]
pub fn tail(file: &Path, lines: usize) -> String {
    let Ok(file) = File::open(file) else { return format!("{} cannot be read", file.display()) };
    let all: Vec<String> = BufReader::new(file).lines().map_while(Result::ok).collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

pub(super) fn pid(id: u32) -> Result<Pid> {
    Ok(Pid::from_raw(i32::try_from(id).context("a process id is 31 bits")?))
}

fn spawn(command: &mut Command) -> Result<Child> {
    command.process_group(0).spawn().with_context(|| format!("cannot start {}", show(command)))
}
