//! The load: one client and one server, blocking sockets, each a thread in its own network namespace.
//!
//! In a stream, client and server have a processor each. Request and response use one processor, so that a transaction
//! takes the work that the machine does for it; between two processors it would mostly be the time that a processor takes
//! to wake up, which is the same with and without programs.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use socket2::{Domain, SockRef, Socket, Type};

use super::pin;
use crate::lab::netns::Netns;

/// Bytes of a request and of its answer.
const REQUEST: usize = 64;
/// Bytes of a stream's write.
const WRITE: usize = 128 << 10;
/// Bytes of a datagram: with headers less than the overlay's MTU.
const DATAGRAM: usize = 1400;
/// Bytes that a receiver of datagrams may hold: a burst of some milliseconds.
const RECEIVE_BUFFER: usize = 8 << 20;
/// How long a first connection may take.
const CONNECT: Duration = Duration::from_secs(3);

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// One TCP connection, as fast as it goes.
    TcpStream,
    /// Datagrams, as fast as they go; those that arrive count.
    UdpStream,
    /// One TCP connection, a request after the other's answer.
    Requests,
    /// A TCP connection for each request.
    Connections,
}

impl Load {
    /// All of them.
    pub(super) const ALL: [Self; 4] = [Self::TcpStream, Self::UdpStream, Self::Requests, Self::Connections];

    /// For people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::TcpStream => "TCP stream",
            Self::UdpStream => "UDP stream",
            Self::Requests => "request/response",
            Self::Connections => "connect/request/response",
        }
    }

    /// Unit of [`run`]'s number.
    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::TcpStream | Self::UdpStream => "Gbit/s",
            Self::Requests | Self::Connections => "1/ms",
        }
    }
}

/// Two places, and the address at which the second is reached from the first.
#[derive(Clone, Debug)]
pub(super) struct Ends {
    pub(super) client: Netns,
    pub(super) server: Netns,
    pub(super) address: IpAddr,
}

/// Loads the way between two ends for a while; returns how much came through, in the load's unit.
pub(super) fn run(load: Load, ends: &Ends, length: Duration) -> Result<f64> {
    let processors = match load {
        Load::TcpStream | Load::UdpStream => [0, 1],
        Load::Requests | Load::Connections => [1, 1],
    };
    let (tell, told) = channel();
    thread::scope(|scope| {
        let server = scope.spawn(move || -> Result<u64> {
            pin::enter(&ends.server)?;
            pin::to_processor(processors[1])?;
            serve(load, ends.address, &tell)
        });
        let client = scope.spawn(move || -> Result<(u64, Duration)> {
            pin::enter(&ends.client)?;
            pin::to_processor(processors[0])?;
            ask(load, &told, length)
        });
        let asked = client.join().map_err(|_| anyhow!("a client panicked"))?;
        let served = server.join().map_err(|_| anyhow!("a server panicked"))?;
        let ((count, took), served) = match (asked, served) {
            (Ok(asked), Ok(served)) => (asked, served),
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        Ok(match load {
            Load::TcpStream | Load::UdpStream => served as f64 * 8.0 / took.as_secs_f64() / 1e9,
            Load::Requests | Load::Connections => count as f64 / took.as_secs_f64() / 1e3,
        })
    })
    .with_context(|| format!("{} to {}", load.name(), ends.address))
}

/// Serves one run on a port of its own; returns the bytes of a stream.
fn serve(load: Load, address: IpAddr, tell: &Sender<SocketAddr>) -> Result<u64> {
    if load == Load::UdpStream {
        return receive_datagrams(address, tell);
    }
    let listener = TcpListener::bind((address, 0)).with_context(|| format!("listening on {address}"))?;
    // A client that gives up must not leave a server that waits; connections inherit it.
    SockRef::from(&listener).set_read_timeout(Some(2 * CONNECT))?;
    tell.send(listener.local_addr()?).ok();
    match load {
        Load::Connections => {
            // A connection without a request is the last one.
            while answer(listener.accept()?.0)? != 0 {}
            Ok(0)
        }
        Load::Requests => answer(listener.accept()?.0).map(|_| 0),
        _ => {
            let (mut stream, _) = listener.accept()?;
            let mut buffer = vec![0; WRITE];
            let mut bytes = 0;
            loop {
                match stream.read(&mut buffer).context("reading a stream")? {
                    0 => return Ok(bytes),
                    read => bytes += read as u64,
                }
            }
        }
    }
}

/// Answers requests until the client closes; returns how many there were.
fn answer(mut stream: TcpStream) -> Result<u64> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; REQUEST];
    let mut count = 0;
    loop {
        match stream.read_exact(&mut buffer) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(count),
            Err(error) => return Err(error).context("reading a request"),
        }
        stream.write_all(&buffer).context("answering")?;
        count += 1;
    }
}

fn receive_datagrams(address: IpAddr, tell: &Sender<SocketAddr>) -> Result<u64> {
    let socket = Socket::new(Domain::for_address(SocketAddr::new(address, 0)), Type::DGRAM, None)?;
    socket.bind(&SocketAddr::new(address, 0).into()).with_context(|| format!("binding {address}"))?;
    force_receive_buffer(&socket)?;
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(CONNECT))?;
    tell.send(socket.local_addr()?).ok();
    let mut buffer = [0; DATAGRAM];
    let mut bytes = 0;
    loop {
        match socket.recv(&mut buffer).context("receiving datagrams")? {
            // An empty one is the last: it waits behind all others.
            0 => return Ok(bytes),
            read => bytes += read as u64,
        }
    }
}

fn force_receive_buffer(socket: &Socket) -> Result<()> {
    use nix::sys::socket::{setsockopt, sockopt};
    setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).context("asking for a receive buffer")
}

/// Sends for a while; returns the number of transactions and how long it was.
fn ask(load: Load, told: &Receiver<SocketAddr>, length: Duration) -> Result<(u64, Duration)> {
    let server = told.recv().context("the server did not start")?;
    match load {
        Load::TcpStream => {
            let mut stream = connect(server)?;
            let buffer = vec![0x5a; WRITE];
            let start = Instant::now();
            while start.elapsed() < length {
                stream.write_all(&buffer).context("writing a stream")?;
            }
            Ok((0, start.elapsed()))
        }
        Load::UdpStream => send_datagrams(server, length),
        Load::Requests => {
            let mut stream = connect(server)?;
            let start = Instant::now();
            let mut count = 0;
            while start.elapsed() < length {
                request(&mut stream)?;
                count += 1;
            }
            Ok((count, start.elapsed()))
        }
        Load::Connections => {
            request(&mut connect(server)?)?;
            let start = Instant::now();
            let mut count = 0;
            while start.elapsed() < length {
                let mut stream = TcpStream::connect(server).context("connecting")?;
                request(&mut stream)?;
                count += 1;
            }
            let took = start.elapsed();
            drop(connect(server)?);
            Ok((count, took))
        }
    }
}

fn send_datagrams(server: SocketAddr, length: Duration) -> Result<(u64, Duration)> {
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    let buffer = [0x5a; DATAGRAM];
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < length {
        // A full queue on the way refuses; the next one may pass.
        match socket.send(&buffer) {
            Ok(_) => count += 1,
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
            Err(error) => return Err(error).context("sending a datagram"),
        }
    }
    let took = start.elapsed();
    // The receiver's buffer may be full: it ends with the first that has room.
    for _ in 0..10 {
        thread::sleep(Duration::from_millis(5));
        if socket.send(&[]).is_err() {
            break;
        }
    }
    ensure!(count > 0, "no datagram could be sent");
    Ok((count, took))
}

fn connect(server: SocketAddr) -> Result<TcpStream> {
    let stream =
        TcpStream::connect_timeout(&server, CONNECT).with_context(|| format!("connecting to {server}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn request(stream: &mut TcpStream) -> Result<()> {
    let mut buffer = [0x5a; REQUEST];
    stream.write_all(&buffer).context("asking")?;
    stream.read_exact(&mut buffer).context("reading an answer")
}
