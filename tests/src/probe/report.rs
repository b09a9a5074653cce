//! What a probe saw, as the line of JSON that it prints and the lab reads.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How one attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The other end answered, and the answer was the right one.
    Answered,
    /// A RST to the SYN, or an ICMP port unreachable: a host said that nobody listens (or a policy pretends so).
    Refused,
    /// The connection stood and was reset.
    Reset,
    /// An ICMP error said that there is no way, or that it is prohibited.
    Unreachable,
    /// An ICMP error said that the packet is too big.
    TooBig,
    /// The connection stood and the other end closed it before it had answered.
    Closed,
    /// Nothing at all came back in time.
    TimedOut,
    /// The answer was not what was asked for.
    Corrupt,
    /// The own machine refused to send.
    NotSent,
}

impl Outcome {
    /// Reads the kernel's word for what came back. `icmp_err_convert` in `net/ipv4/icmp.c` and `icmpv6_err_convert` in
    /// `net/ipv6/icmp.c` say which ICMP error becomes which number: administratively prohibited is EHOSTUNREACH with
    /// IPv4 and EACCES with IPv6.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ECONNREFUSED) => Self::Refused,
            Some(libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED) => Self::Reset,
            Some(libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EACCES | libc::ENOPROTOOPT) => {
                Self::Unreachable
            }
            Some(libc::EMSGSIZE) => Self::TooBig,
            Some(libc::ETIMEDOUT | libc::EAGAIN) => Self::TimedOut,
            _ => match error.kind() {
                io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Self::TimedOut,
                io::ErrorKind::UnexpectedEof => Self::Closed,
                io::ErrorKind::InvalidData => Self::Corrupt,
                _ => Self::NotSent,
            },
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Unreachable => "unreachable",
            Self::TooBig => "too big",
            Self::Closed => "closed",
            Self::TimedOut => "timed out",
            Self::Corrupt => "corrupt",
            Self::NotSent => "not sent",
        })
    }
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// How it ended.
    pub outcome: Outcome,
    /// The kernel's word, for a person.
    pub detail: String,
    /// From the first packet to the end, microseconds.
    pub micros: u64,
    /// The port it was made from; 0 where there is none.
    pub source_port: u16,
}

/// A stream of bytes whose content was verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streamed {
    /// How it ended; only `Answered` means that every byte came through unchanged.
    pub outcome: Outcome,
    /// The kernel's word, or where the content differs.
    pub detail: String,
    /// Bytes that were verified.
    pub bytes: u64,
    /// How long it took, microseconds.
    pub micros: u64,
}

/// What a probe that goes on and on has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    /// Attempts, or requests over the one connection.
    pub attempts: u64,
    /// Those that were answered.
    pub answered: u64,
    /// How the others ended.
    pub failed: BTreeMap<Outcome, u64>,
    /// The longest time between two answers, microseconds.
    pub longest_gap_micros: u64,
    /// When the first failure came, microseconds after the start.
    pub first_failure_micros: Option<u64>,
    /// When the first answer came, microseconds after the start.
    pub first_answer_micros: Option<u64>,
    /// When the last answer came, microseconds after the start.
    pub last_answer_micros: Option<u64>,
    /// When the last attempt that was answered began, by the clock that all processes of a machine share: [`clock`].
    pub last_answered_began: Option<Duration>,
}

/// The time since the machine's start, which one process can compare with another's.
#[must_use]
pub fn clock() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

impl Watched {
    /// How attempts failed and how often, for a person: `timed out: 1, reset: 2`.
    #[must_use]
    pub fn failures(&self) -> String {
        let each: Vec<String> =
            self.failed.iter().map(|(outcome, count)| format!("{outcome}: {count}")).collect();
        each.join(", ")
    }

    /// Notes one attempt that ended `at` microseconds after the start.
    pub fn note(&mut self, outcome: Outcome, at: u64) {
        self.attempts += 1;
        if outcome == Outcome::Answered {
            self.answered += 1;
            let since = at - self.last_answer_micros.unwrap_or(0);
            self.longest_gap_micros = self.longest_gap_micros.max(since);
            self.first_answer_micros.get_or_insert(at);
            self.last_answer_micros = Some(at);
        } else {
            *self.failed.entry(outcome).or_default() += 1;
            self.first_failure_micros.get_or_insert(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_words() {
        let mut watched = Watched::default();
        for outcome in [Outcome::Answered, Outcome::TimedOut, Outcome::Reset, Outcome::TimedOut] {
            watched.note(outcome, 1);
        }
        assert_eq!(watched.failures(), "reset: 1, timed out: 2");
    }
}
