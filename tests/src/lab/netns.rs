//! A named network namespace, made by `ip netns add`, and commands that run in it.
//!
//! `nsenter --net` and not `ip netns exec`: the latter remounts /sys, and what runs there loses /sys/fs/cgroup and
//! /sys/fs/bpf.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::process;

/// A network namespace under `/run/netns`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netns {
    name: String,
}

/// What every namespace of a lab is named like.
pub(super) fn prefix(id: &str) -> String {
    format!("sinew-{id}-")
}

impl Netns {
    pub(super) fn named(id: &str, name: &str) -> Self {
        Self { name: format!("{}{name}", prefix(id)) }
    }

    /// Its file, for `CNI_NETNS` and for `nsenter`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Makes it, with loopback up and no duplicate address detection, which would keep IPv6 silent for a second.
    ///
    /// # Errors
    /// Privileges are missing, or there is one of that name.
    pub fn make(&self) -> Result<()> {
        process::run(Command::new("ip").args(["netns", "add", &self.name])).context("this needs root")?;
        self.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        self.sysctl("net/ipv6/conf/all/accept_dad", "0")?;
        self.ip("link set lo up")
    }

    /// Removes its name; the kernel removes it when nothing is left in it.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn remove(&self) -> Result<()> {
        process::run(Command::new("ip").args(["netns", "del", &self.name])).map(drop)
    }

    /// A command that runs in it.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// What a person types to get a shell in it.
    #[must_use]
    pub fn enter_line(&self) -> String {
        format!("nsenter --net={} -- bash", self.path().display())
    }

    /// Runs lines of `ip` in it, the first failure ends them.
    ///
    /// # Errors
    /// A line failed.
    pub fn ip(&self, lines: &str) -> Result<()> {
        let mut command = Command::new("ip");
        process::run_with(command.args(["-n", &self.name, "-batch", "-"]), lines.as_bytes())
            .map(drop)
            .with_context(|| format!("ip -n {} …: {lines}", self.name))
    }

    /// The output of one `ip` command in it.
    ///
    /// # Errors
    /// It failed.
    pub fn ip_output(&self, words: &[&str]) -> Result<String> {
        process::run(Command::new("ip").args(["-n", &self.name]).args(words))
    }

    /// Waits until every device in it that was set up is in operation: the kernel's link watch may take a second, and
    /// what is sent before that is lost.
    ///
    /// # Errors
    /// A device stays down.
    pub fn wait_links(&self) -> Result<()> {
        process::wait_until(&format!("the links in {}", self.name), Duration::from_secs(10), || {
            let links = self.ip_output(&["-o", "link", "show", "up"])?;
            Ok(!links.lines().any(|link| link.contains("state DOWN") || link.contains("LOWERLAYERDOWN")))
        })
    }

    /// Sets `/proc/sys/<name>` in it.
    ///
    /// # Errors
    /// There is no such setting.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        // The shell's redirection opens the file after nsenter has changed the namespace.
        process::run(self.command("sh").args(["-c", &format!("echo {value} > /proc/sys/{name}")])).map(drop)
    }
}
