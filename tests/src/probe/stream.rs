//! Bulk: many bytes one way, every one verified. Large writes make the kernel build 64 KiB GSO packets.

use std::io::{self, BufRead, BufReader, Write};
use std::time::Instant;

use super::dial::{Target, connect, micros_since};
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

/// What to move.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Which way.
    pub direction: Direction,
    /// How many bytes.
    pub bytes: u64,
    /// Bytes of each write of the client.
    pub piece: usize,
    /// Which pattern.
    pub seed: u64,
}

/// Moves a load over one TCP connection and verifies every byte.
#[must_use]
pub fn stream(target: &Target, load: Load) -> Streamed {
    let start = Instant::now();
    let result = transfer(target, load);
    let micros = micros_since(start);
    match result {
        Ok(()) => Streamed { outcome: Outcome::Answered, detail: String::new(), bytes: load.bytes, micros },
        Err(error) => Streamed { outcome: Outcome::of(&error), detail: error.to_string(), bytes: 0, micros },
    }
}

fn transfer(target: &Target, load: Load) -> io::Result<()> {
    let Load { direction, bytes, piece, seed } = load;
    let mut stream = connect(target)?;
    stream.set_read_timeout(Some(target.timeout))?;
    stream.set_write_timeout(Some(target.timeout))?;
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
