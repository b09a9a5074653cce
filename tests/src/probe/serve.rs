//! The answering end: TCP and UDP on any number of ports, one thread a connection.
//!
//! TCP is spoken in lines: `E n` echoes the next n bytes, `R n seed` sends n bytes of a pattern, `W n seed` takes and
//! verifies n bytes. A line that begins with `GET ` gets an HTTP answer, so `curl` works too. UDP is an echo.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use anyhow::{Context, Result};

use super::pattern;

/// Enough for one segment of the largest GSO packet; a reader verifies in pieces of this.
pub const PIECE_BYTES: usize = 64 << 10;

/// Answers on these ports until the process is ended. Prints `ready` when all of them listen.
///
/// # Errors
/// A port cannot be had.
pub fn serve(name: &'static str, tcp: &[u16], udp: &[u16]) -> Result<()> {
    let mut threads = Vec::new();
    for &port in tcp {
        let listener = on_any(port, TcpListener::bind).with_context(|| format!("TCP port {port}"))?;
        threads.push(thread::spawn(move || accept(&listener, name)));
    }
    for &port in udp {
        let socket = on_any(port, UdpSocket::bind).with_context(|| format!("UDP port {port}"))?;
        threads.push(thread::spawn(move || echo(&socket)));
    }
    writeln!(io::stdout(), "ready").context("saying ready")?;
    for thread in threads {
        thread.join().ok();
    }
    // Without a port it only stays: what the first process of a pod does.
    loop {
        thread::park();
    }
}

/// `[::]` takes both families; a namespace without IPv6 has IPv4 only.
fn on_any<S>(port: u16, bind: impl Fn(SocketAddr) -> io::Result<S>) -> io::Result<S> {
    bind((Ipv6Addr::UNSPECIFIED, port).into()).or_else(|_| bind((Ipv4Addr::UNSPECIFIED, port).into()))
}

fn accept(listener: &TcpListener, name: &'static str) {
    for stream in listener.incoming().flatten() {
        // A client that goes away in the middle ends its own connection only.
        thread::spawn(move || converse(stream, name).ok());
    }
}

fn converse(stream: TcpStream, name: &str) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::with_capacity(PIECE_BYTES, stream);
    loop {
        let mut line = String::new();
        if reader.by_ref().take(1024).read_line(&mut line)? == 0 {
            return Ok(());
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |index: usize| words.get(index).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        match words.first().copied() {
            Some("E") => {
                let mut bytes = vec![0; usize::try_from(number(1)).unwrap_or(0).min(1 << 20)];
                reader.read_exact(&mut bytes)?;
                writer.write_all(&bytes)?;
            }
            Some("R") => send(&mut writer, number(1), number(2), PIECE_BYTES)?,
            Some("W") => match verify(&mut reader, number(1), number(2)) {
                Ok(()) => writer.write_all(b"ok\n")?,
                Err(error) => writer.write_all(format!("{error}\n").as_bytes())?,
            },
            Some("GET") => return answer_http(&mut writer, name),
            _ => return writer.write_all(b"what?\n"),
        }
    }
}

fn answer_http(writer: &mut TcpStream, name: &str) -> io::Result<()> {
    let body = format!("hello from {name}\n");
    let head =
        format!("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", body.len());
    writer.write_all(head.as_bytes())?;
    writer.write_all(body.as_bytes())
}

/// Sends `bytes` bytes of the stream `seed` in writes of `piece`.
pub(super) fn send(writer: &mut impl Write, bytes: u64, seed: u64, piece: usize) -> io::Result<()> {
    let mut buffer = vec![0; piece];
    let mut sent = 0;
    while sent < bytes {
        let length = usize::try_from(bytes - sent).unwrap_or(piece).min(piece);
        pattern::fill(&mut buffer[..length], seed, sent);
        writer.write_all(&buffer[..length])?;
        sent += length as u64;
    }
    Ok(())
}

/// Reads `bytes` bytes and compares them with the stream `seed`.
pub(super) fn verify(reader: &mut impl Read, bytes: u64, seed: u64) -> io::Result<()> {
    let mut buffer = vec![0; PIECE_BYTES];
    let mut verified = 0;
    while verified < bytes {
        let wanted = usize::try_from(bytes - verified).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let length = reader.read(&mut buffer[..wanted])?;
        if length == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("closed after {verified} bytes"),
            ));
        }
        if let Some(at) = pattern::difference(&buffer[..length], seed, verified) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("wrong byte at {at}")));
        }
        verified += length as u64;
    }
    Ok(())
}

fn echo(socket: &UdpSocket) {
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        // An ICMP error of an earlier answer comes back here as an error; the next datagram does not care.
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(&buffer[..length], from).ok();
        }
    }
}
