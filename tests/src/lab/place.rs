//! A place that probes start from and that can be reached: a namespace with its addresses. Nodes, pods and the outside
//! host are places.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::binaries;
use super::netns::Netns;
use super::process::{Running, output_with, run};
use crate::probe::report::{Attempt, Outcome, Streamed, Watched};
use crate::probe::stream::Direction;
use crate::probe::{Transport, raw};

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Family {
    V4,
    V6,
}

impl Family {
    /// Both, in the order of their numbers.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// A network namespace with addresses.
#[derive(Debug)]
pub struct Place {
    name: String,
    netns: Netns,
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
    servers: Mutex<Vec<Running>>,
}

/// A probe that runs until it is asked for its report.
#[derive(Debug)]
pub struct Watch {
    running: Running,
    what: String,
}

impl Place {
    pub(super) fn new(
        name: &str,
        netns: Netns,
        v4: impl Into<Option<Ipv4Addr>>,
        v6: impl Into<Option<Ipv6Addr>>,
    ) -> Self {
        Self { name: name.to_owned(), netns, v4: v4.into(), v6: v6.into(), servers: Mutex::new(Vec::new()) }
    }

    /// Its name in the lab.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its namespace.
    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Its address.
    ///
    /// # Panics
    /// It has none of that family.
    #[must_use]
    pub fn address(&self, family: Family) -> IpAddr {
        self.find_address(family).unwrap_or_else(|| panic!("{} has no {family:?} address", self.name))
    }

    /// Its address, if it has one of that family.
    #[must_use]
    pub fn find_address(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.v4.map(IpAddr::V4),
            Family::V6 => self.v6.map(IpAddr::V6),
        }
    }

    /// A command that runs there.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        self.netns.command(program)
    }

    /// Runs `sinew-probe serve` there until the place is gone.
    ///
    /// # Errors
    /// A port is taken.
    pub fn serve(&self, tcp: &[u16], udp: &[u16]) -> Result<()> {
        let mut command = self.probe()?;
        command.args(["serve", "--name", &self.name]);
        for (flag, ports) in [("--tcp", tcp), ("--udp", udp)] {
            for port in ports {
                command.args([flag, &port.to_string()]);
            }
        }
        let mut running = Running::talk(&mut command)?;
        let line = running.line().with_context(|| format!("the server in {}", self.name))?;
        ensure!(line == "ready", "the server in {} said {line:?}", self.name);
        self.servers.lock().expect("nothing panics while it holds this lock").push(running);
        Ok(())
    }

    /// One TCP connection with one request.
    ///
    /// # Errors
    /// The probe itself failed; a refused connection is an [`Attempt`].
    pub fn tcp(&self, to: IpAddr, port: u16) -> Result<Attempt> {
        self.dial(Transport::Tcp, to, port, &[])
    }

    /// One datagram and its echo.
    ///
    /// # Errors
    /// As [`Place::tcp`].
    pub fn udp(&self, to: IpAddr, port: u16) -> Result<Attempt> {
        self.dial(Transport::Udp, to, port, &[])
    }

    /// One ICMP echo.
    ///
    /// # Errors
    /// As [`Place::tcp`].
    pub fn ping(&self, to: IpAddr) -> Result<Attempt> {
        self.dial(Transport::Icmp, to, 0, &[])
    }

    /// One attempt with more words for the probe.
    ///
    /// # Errors
    /// As [`Place::tcp`].
    pub fn dial(&self, transport: Transport, to: IpAddr, port: u16, more: &[&str]) -> Result<Attempt> {
        let mut command = self.probe()?;
        command.args(["dial", word(transport), &to.to_string(), &port.to_string()]).args(more);
        report(&mut command)
    }

    /// Sends an IP packet as it is.
    ///
    /// # Errors
    /// The own machine refused to send it.
    pub fn send_raw(&self, to: IpAddr, packet: &[u8]) -> Result<()> {
        run(self.probe()?.args(["raw", &to.to_string(), &raw::to_hex(packet)])).map(drop)
    }

    /// Sends an Ethernet frame as it is from `eth0`.
    ///
    /// # Errors
    /// The own machine refused to send it.
    pub fn send_frame(&self, frame: &[u8]) -> Result<()> {
        run(self.probe()?.args(["frame", "eth0", &raw::to_hex(frame)])).map(drop)
    }

    /// The same, with two bytes that are left to whoever fills in checksums.
    ///
    /// # Errors
    /// The own machine refused to send it.
    pub fn send_frame_without_checksum(&self, frame: &[u8], at: u16) -> Result<()> {
        let at = at.to_string();
        run(self.probe()?.args(["frame", "eth0", &raw::to_hex(frame), "--checksum-at", &at])).map(drop)
    }

    /// Starts a stream that runs until it is cut or `total` bytes are through.
    ///
    /// # Errors
    /// The probe cannot be started.
    pub fn start_stream(&self, to: IpAddr, port: u16, direction: Direction, total: u64) -> Result<Streaming> {
        let mut command = self.probe()?;
        let direction = if direction == Direction::Up { "up" } else { "down" };
        command.args(["stream", "tcp", &to.to_string(), &port.to_string(), "--timeout", "1000"]);
        command.args(["--direction", direction, "--total", &total.to_string()]);
        Ok(Streaming(Running::talk(&mut command)?))
    }

    /// Moves `total` bytes over one TCP connection in 64 KiB writes and verifies each.
    ///
    /// # Errors
    /// As [`Place::tcp`].
    pub fn stream(&self, to: IpAddr, port: u16, direction: Direction, total: u64) -> Result<Streamed> {
        let mut command = self.probe()?;
        let direction = if direction == Direction::Up { "up" } else { "down" };
        command.args(["stream", "tcp", &to.to_string(), &port.to_string(), "--timeout", "20000"]);
        command.args(["--direction", direction, "--total", &total.to_string()]);
        report(&mut command)
    }

    /// Keeps one connection (or one UDP port pair) busy with a request every `every`.
    ///
    /// # Errors
    /// The probe cannot be started.
    pub fn hold(&self, transport: Transport, to: IpAddr, port: u16, every: Duration) -> Result<Watch> {
        self.watch("hold", transport, to, port, every, &[])
    }

    /// Makes a new attempt every `every`.
    ///
    /// # Errors
    /// The probe cannot be started.
    pub fn redial(&self, transport: Transport, to: IpAddr, port: u16, every: Duration) -> Result<Watch> {
        self.watch("redial", transport, to, port, every, &[])
    }

    /// Sends datagrams of `count` connections, to ports where nobody listens.
    ///
    /// # Errors
    /// One could not be sent.
    pub fn spray(&self, to: IpAddr, count: u64) -> Result<()> {
        run(self.probe()?.args(["spray", &to.to_string(), &count.to_string()])).map(drop)
    }

    /// A probe that runs on, with more arguments.
    ///
    /// # Errors
    /// The probe cannot be started.
    pub fn watch(
        &self,
        verb: &str,
        transport: Transport,
        to: IpAddr,
        port: u16,
        every: Duration,
        more: &[&str],
    ) -> Result<Watch> {
        let mut command = self.probe()?;
        command.args([verb, word(transport), &to.to_string(), &port.to_string()]);
        command.args(["--every", &every.as_millis().to_string()]).args(more);
        let what = format!("{verb} {transport:?} {} → {to}:{port}", self.name);
        Ok(Watch { running: Running::talk(&mut command)?, what })
    }

    /// Ends the servers.
    pub(super) fn end_servers(&self) {
        self.servers.lock().expect("nothing panics while it holds this lock").clear();
    }

    fn probe(&self) -> Result<Command> {
        Ok(self.netns.command(binaries::find("sinew-probe")?))
    }
}

/// A stream that is running.
#[derive(Debug)]
pub struct Streaming(Running);

impl Streaming {
    /// Waits for its end and reads its result.
    ///
    /// # Errors
    /// It is still running, or died without a report.
    pub fn finish(mut self, limit: Duration) -> Result<Streamed> {
        self.0.wait(limit)?;
        let output = self.0.finish()?;
        serde_json::from_str(&output).with_context(|| format!("a stream reported {output:?}"))
    }
}

impl Watch {
    /// Waits for the next interim report of a probe that was started with `--tell-every`.
    ///
    /// # Errors
    /// It died.
    pub fn so_far(&mut self) -> Result<Watched> {
        let line = self.running.line()?;
        serde_json::from_str(&line).with_context(|| format!("{} reported {line:?}", self.what))
    }

    /// Ends the probe and reads what it saw.
    ///
    /// # Errors
    /// It died without a report.
    pub fn finish(self) -> Result<Watched> {
        let what = self.what;
        let output = self.running.finish()?;
        let last = output.lines().last().unwrap_or_default();
        serde_json::from_str(last).with_context(|| format!("{what} reported {output:?}"))
    }
}

impl Attempt {
    /// Whether the other end answered.
    #[must_use]
    pub fn answered(&self) -> bool {
        self.outcome == Outcome::Answered
    }

    /// Whether nothing came back at all: what a policy's silent drop looks like.
    #[must_use]
    pub fn dropped(&self) -> bool {
        self.outcome == Outcome::TimedOut
    }
}

fn word(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
        Transport::Icmp => "icmp",
    }
}

fn report<T: for<'a> Deserialize<'a>>(command: &mut Command) -> Result<T> {
    let output = output_with(command, b"")?;
    serde_json::from_slice(&output.stdout).with_context(|| {
        format!(
            "{} reported {:?} {}",
            super::process::show(command),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    })
}
