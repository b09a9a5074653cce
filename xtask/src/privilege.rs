//! Who runs this, and how a step that needs root gets it.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

/// A command that runs as root: directly, or by sudo where there is sudo.
///
/// # Errors
/// Neither root nor sudo: the text says what to run as root.
pub(crate) fn as_root(program: &str, arguments: &[&str]) -> Result<Command> {
    let mut command = if is_root()? {
        Command::new(program)
    } else {
        if !has_sudo() {
            bail!(
                "this step needs root and there is no sudo; run it as root: {program} {}",
                arguments.join(" ")
            );
        }
        eprintln!("this step needs root: {program} {}", arguments.join(" "));
        let mut sudo = Command::new("sudo");
        sudo.arg(program);
        sudo
    };
    command.args(arguments);
    Ok(command)
}

/// Whether this process runs as the user root.
pub(crate) fn is_root() -> Result<bool> {
    Ok(effective_user(&status()?) == Some(0))
}

/// What this process lacks for loading programs and making namespaces, in one sentence; nothing when it may do both.
pub(crate) fn missing() -> Result<Option<String>> {
    let status = status()?;
    if effective_user(&status) != Some(0) {
        let sentence =
            "this lane loads kernel programs and makes network namespaces: run it as root, or install sudo";
        return Ok((!has_sudo()).then(|| sentence.to_owned()));
    }
    let held = effective_capabilities(&status).context("/proc/self/status has no CapEff line")?;
    let lacking: Vec<&str> =
        NEEDED.iter().filter(|(bit, _)| held & (1 << bit) == 0).map(|(_, name)| *name).collect();
    Ok((!lacking.is_empty()).then(|| format!("this lane needs {}", lacking.join(", "))))
}

fn has_sudo() -> bool {
    process::output(Command::new("sudo").arg("--version")).is_ok()
}

/// Bits of `linux/capability.h`.
const NEEDED: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN"), (39, "CAP_BPF")];

fn status() -> Result<String> {
    fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")
}

fn effective_user(status: &str) -> Option<u32> {
    field(status, "Uid:")?.split_whitespace().nth(1)?.parse().ok()
}

fn effective_capabilities(status: &str) -> Option<u64> {
    u64::from_str_radix(field(status, "CapEff:")?.trim(), 16).ok()
}

fn field<'text>(status: &'text str, name: &str) -> Option<&'text str> {
    status.lines().find_map(|line| line.strip_prefix(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tx\nUid:\t1000\t0\t0\t0\nCapEff:\t0000008000201000\n";

    #[test]
    fn the_effective_user_is_the_second_number() {
        assert_eq!(effective_user(STATUS), Some(0));
        assert_eq!(effective_user("Uid:\t0\t1000\t0\t0\n"), Some(1000));
        assert_eq!(effective_user("Name:\tx\n"), None);
    }

    #[test]
    fn capabilities_are_hexadecimal() {
        assert_eq!(effective_capabilities(STATUS), Some((1 << 39) | (1 << 21) | (1 << 12)));
    }
}
