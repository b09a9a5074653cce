//! Bulk: many bytes one way, every one verified. Large writes make the kernel build 64 KiB GSO packets.

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::dial::{connect, micros_since};
use super::report::{Outcome, Streamed};
use super::serve::{PIECE_BYTES, send, verify};

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// Moves `bytes` bytes of the stream `seed` and verifies them.
#[must_use]
pub fn stream(
    address: SocketAddr,
    direction: Direction,
    bytes: u64,
    piece: usize,
    seed: u64,
    timeout: Duration,
) -> Streamed {
    let start = Instant::now();
    let result = transfer(address, direction, bytes, piece, seed, timeout);
    let micros = micros_since(start);
    match result {
        Ok(()) => Streamed { outcome: Outcome::Answered, detail: String::new(), bytes, micros },
        Err(error) => Streamed { outcome: Outcome::of(&error), detail: error.to_string(), bytes: 0, micros },
    }
}

fn transfer(
    address: SocketAddr,
    direction: Direction,
    bytes: u64,
    piece: usize,
    seed: u64,
    timeout: Duration,
) -> io::Result<()> {
    let mut stream = connect(address, 0, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    match direction {
        Direction::Up => {
            stream.write_all(format!("W {bytes} {seed}\n").as_bytes())?;
            send(&mut stream, bytes, seed, piece)?;
            let mut answer = String::new();
            BufReader::new(&stream).read_line(&mut answer)?;
            match answer.trim() {
                "ok" => Ok(()),
                "" => Err(io::ErrorKind::UnexpectedEof.into()),
                other => Err(io::Error::new(io::ErrorKind::InvalidData, other.to_owned())),
            }
        }
        Direction::Down => {
            stream.write_all(format!("R {bytes} {seed}\n").as_bytes())?;
            verify(&mut BufReader::with_capacity(PIECE_BYTES, stream), bytes, seed)
        }
    }
}
