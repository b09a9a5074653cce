//! Runs other programs: says what it runs, and turns an exit code into an error that names the command.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs a command to its end with its output shown.
///
/// # Errors
/// It cannot be started, or it ends with anything but success.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command.status().with_context(|| format!("cannot start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` ended with {status}");
    }
    Ok(())
}

/// Runs a command and returns what it printed, without the last line break.
///
/// # Errors
/// It cannot be started, ends with anything but success, or prints something that is no UTF-8.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let answer = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{shown}`"))?;
    if !answer.status.success() {
        bail!("`{shown}` ended with {}: {}", answer.status, String::from_utf8_lossy(&answer.stderr).trim());
    }
    let text = String::from_utf8(answer.stdout).with_context(|| format!("`{shown}` printed no text"))?;
    Ok(text.trim_end().to_owned())
}

/// The command as a person would type it.
pub(crate) fn show(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}
