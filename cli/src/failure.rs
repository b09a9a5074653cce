//! How a command ends without success: an exit code that scripts branch on, what happened, and what to do next.
//!
//! Neighbours: `lib.rs` prints a failure and exits with its code; `agent.rs` makes failures of gRPC statuses.

use std::fmt;

/// Exit codes. `README.md` and every `--help` give the same table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// Refused or failed.
    Failed = 1,
    /// Not done in time. Usage errors share the code, as clap gives them 2.
    TimedOut = 2,
    /// The name of a pod, policy, identity or node is unknown, or fits several.
    UnknownName = 3,
    /// No agent answers at the socket.
    Unreachable = 4,
}

/// What the person at the terminal reads: a sentence on what happened and, where there is one, the next step.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Exit code.
    pub(crate) code: Code,
    /// What happened.
    pub(crate) message: String,
    /// What to do next, one step a line; may be empty.
    pub(crate) next: Vec<String>,
}

impl Failure {
    /// Something was refused or went wrong.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Code::Failed, message)
    }

    /// It was not done in time.
    pub(crate) fn timed_out(message: impl Into<String>) -> Self {
        Self::new(Code::TimedOut, message)
    }

    /// The command line asks for something that can't be.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::TimedOut, message)
    }

    /// A name that nothing has, or that several things have.
    pub(crate) fn unknown_name(message: impl Into<String>) -> Self {
        Self::new(Code::UnknownName, message)
    }

    /// Nobody answers.
    pub(crate) fn unreachable(message: impl Into<String>) -> Self {
        Self::new(Code::Unreachable, message)
    }

    /// Adds a next step.
    pub(crate) fn next(mut self, step: impl Into<String>) -> Self {
        self.next.push(step.into());
        self
    }

    fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), next: Vec::new() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for step in &self.next {
            write!(f, "\n  {step}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_what_happened_then_what_to_do() {
        let failure = Failure::unknown_name("no pod is called web").next("list them: sinew endpoint list");
        assert_eq!(failure.to_string(), "no pod is called web\n  list them: sinew endpoint list");
        assert_eq!(failure.code as u8, 3);
    }
}
