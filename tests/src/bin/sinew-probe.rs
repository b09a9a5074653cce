//! `sinew-probe`: traffic for the lab, from and to pods. What it does is in `sinew_tests::probe`.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use sinew_tests::probe::dial::{self, Target};
use sinew_tests::probe::report::Outcome;
use sinew_tests::probe::stream::{self, Direction, Load};
use sinew_tests::probe::watch::{self, Pace};
use sinew_tests::probe::{self, Transport, frame, raw, serve, spray};

/// Traffic for the lab. Every command but `serve` prints one line of JSON and exits 0 when it was answered.
#[derive(Parser)]
#[command(name = "sinew-probe")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer on these ports until ended; `curl` is answered too.
    Serve {
        /// What to call oneself in answers to HTTP.
        #[arg(long, default_value = "a pod")]
        name: String,
        #[arg(long)]
        tcp: Vec<u16>,
        #[arg(long)]
        udp: Vec<u16>,
    },
    /// One attempt.
    Dial(DialArguments),
    /// Ask over one connection until standard input closes.
    Hold {
        #[command(flatten)]
        dial: DialArguments,
        #[command(flatten)]
        pace: PaceArguments,
    },
    /// A new attempt every so often until standard input closes.
    Redial {
        #[command(flatten)]
        dial: DialArguments,
        #[command(flatten)]
        pace: PaceArguments,
    },
    /// Send an IP packet as it is.
    Raw {
        to: IpAddr,
        /// The packet from its IP header on, as hexadecimal digits.
        hex: String,
    },
    /// Datagrams of as many connections, to nobody.
    Spray { to: IpAddr, count: u32 },
    /// Send an Ethernet frame as it is.
    Frame {
        interface: String,
        /// The frame from its destination on, without the checksum, as hexadecimal digits.
        hex: String,
        /// Leave the two bytes there to whoever fills in checksums.
        #[arg(long)]
        checksum_at: Option<u16>,
    },
    /// Many bytes over one TCP connection, every one verified.
    Stream {
        #[command(flatten)]
        dial: DialArguments,
        #[arg(long, default_value = "up")]
        direction: Direction,
        /// How many bytes to move.
        #[arg(long, default_value_t = 16 << 20)]
        total: u64,
        /// Bytes of each write.
        #[arg(long, default_value_t = serve::PIECE_BYTES)]
        piece: usize,
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

#[derive(Args)]
struct DialArguments {
    transport: Transport,
    /// An address or a name of /etc/hosts.
    host: String,
    #[arg(default_value_t = 0)]
    port: u16,
    /// 4 or 6, for a name that has both.
    #[arg(long)]
    family: Option<u8>,
    /// Local address.
    #[arg(long)]
    source: Option<IpAddr>,
    /// Local port; any if 0.
    #[arg(long, default_value_t = 0)]
    source_port: u16,
    /// Bytes of a request.
    #[arg(long, default_value_t = 32)]
    bytes: usize,
    /// Milliseconds for an attempt.
    #[arg(long, default_value_t = 1000)]
    timeout: u64,
    /// End a TCP connection with an RST.
    #[arg(long)]
    reset: bool,
}

#[derive(Args)]
struct PaceArguments {
    /// Milliseconds between attempts.
    #[arg(long, default_value_t = 20)]
    every: u64,
    /// Milliseconds between reports; without it there is one, at the end.
    #[arg(long)]
    tell_every: Option<u64>,
}

impl PaceArguments {
    fn pace(&self) -> Pace {
        Pace {
            every: Duration::from_millis(self.every),
            tell_every: self.tell_every.map(Duration::from_millis),
        }
    }
}

impl DialArguments {
    fn target(&self) -> Result<Target> {
        Ok(Target {
            transport: self.transport,
            address: SocketAddr::new(probe::resolve(&self.host, self.family)?, self.port),
            source: self.source,
            source_port: self.source_port,
            bytes: self.bytes,
            timeout: Duration::from_millis(self.timeout),
            reset: self.reset,
        })
    }
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().command {
        Command::Serve { name, tcp, udp } => {
            serve::serve(name.leak(), &tcp, &udp)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Dial(arguments) => {
            let attempt = dial::dial(&arguments.target()?);
            print(&attempt, attempt.outcome == Outcome::Answered)
        }
        Command::Hold { dial, pace } => {
            let watched = watch::hold(&dial.target()?, pace.pace());
            print(&watched, watched.failed.is_empty())
        }
        Command::Redial { dial, pace } => {
            let watched = watch::redial(&dial.target()?, pace.pace());
            print(&watched, watched.failed.is_empty())
        }
        Command::Raw { to, hex } => {
            let packet = raw::from_hex(&hex).context("the packet is no hexadecimal number")?;
            raw::send(&packet, to).context("sending the packet")?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Spray { to, count } => {
            spray::spray(to, count).context("spraying")?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Frame { interface, hex, checksum_at } => {
            let bytes = raw::from_hex(&hex).context("the frame is no hexadecimal number")?;
            frame::send(&interface, &bytes, checksum_at)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Stream { dial, direction, total, piece, seed } => {
            let load = Load { direction, bytes: total, piece, seed };
            let streamed = stream::stream(&dial.target()?, load);
            print(&streamed, streamed.outcome == Outcome::Answered)
        }
    }
}

fn print(report: &impl Serialize, good: bool) -> Result<ExitCode> {
    let line = serde_json::to_string(report).context("the report as JSON")?;
    writeln!(io::stdout(), "{line}").context("printing the report")?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
