//! One attempt: a connection with one request, a datagram with its echo, or an ICMP echo.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::report::{Attempt, Outcome};
use super::{Transport, icmp, pattern};

/// What to dial and how.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// How.
    pub transport: Transport,
    /// Where; the port of an ICMP echo is not used.
    pub address: SocketAddr,
    /// Local address, or none for what the route says.
    pub source: Option<IpAddr>,
    /// Local port, or 0 for any.
    pub source_port: u16,
    /// Bytes of the request and of its answer.
    pub bytes: usize,
    /// For the whole attempt.
    pub timeout: Duration,
    /// Whether TCP ends with an RST instead of a FIN.
    pub reset: bool,
}

/// Makes one attempt.
#[must_use]
pub fn dial(target: &Target) -> Attempt {
    let start = Instant::now();
    let result = match target.transport {
        Transport::Tcp => tcp(target, start),
        Transport::Udp => udp(target),
        Transport::Icmp => {
            icmp::echo(target.source, target.address.ip(), target.bytes, target.timeout).map(|()| 0)
        }
    };
    let micros = micros_since(start);
    match result {
        Ok(source_port) => Attempt { outcome: Outcome::Answered, detail: String::new(), micros, source_port },
        Err(error) => Attempt {
            outcome: Outcome::of(&error),
            detail: error.to_string(),
            micros,
            source_port: target.source_port,
        },
    }
}

/// Opens a connection.
///
/// # Errors
/// The kernel's word for what came back, or the time-out.
pub fn connect(target: &Target) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target.address), Type::STREAM, Some(Protocol::TCP))?;
    if target.source_port != 0 || target.source.is_some() {
        // Leaves TIME_WAIT behind at once, so that a test can use a port again.
        socket.set_reuse_address(true)?;
        socket.bind(&local(target).into())?;
    }
    socket.connect_timeout(&target.address.into(), target.timeout)?;
    if target.reset {
        socket.set_linger(Some(Duration::ZERO))?;
    }
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends one request over a connection and verifies the answer.
///
/// # Errors
/// The kernel's word for what came back, or `InvalidData`.
pub fn ask(stream: &mut TcpStream, bytes: usize, seed: u64) -> io::Result<()> {
    let mut request = format!("E {bytes}\n").into_bytes();
    let head = request.len();
    request.resize(head + bytes, 0);
    pattern::fill(&mut request[head..], seed, 0);
    stream.write_all(&request)?;
    let mut answer = vec![0; bytes];
    stream.read_exact(&mut answer)?;
    must_be_equal(&answer, &request[head..])
}

/// Microseconds since `start`.
#[must_use]
pub fn micros_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn tcp(target: &Target, start: Instant) -> io::Result<u16> {
    let mut stream = connect(target)?;
    let left = target.timeout.saturating_sub(start.elapsed()).max(Duration::from_millis(1));
    stream.set_read_timeout(Some(left))?;
    ask(&mut stream, target.bytes, 0)?;
    Ok(stream.local_addr()?.port())
}

fn udp(target: &Target) -> io::Result<u16> {
    let socket = UdpSocket::bind(local(target))?;
    // A connected socket hears of ICMP errors.
    socket.connect(target.address)?;
    socket.set_read_timeout(Some(target.timeout))?;
    let mut request = vec![0; target.bytes];
    pattern::fill(&mut request, 0, 0);
    socket.send(&request)?;
    let mut answer = vec![0; target.bytes + 1];
    let length = socket.recv(&mut answer)?;
    must_be_equal(&answer[..length], &request)?;
    Ok(socket.local_addr()?.port())
}

fn must_be_equal(answer: &[u8], request: &[u8]) -> io::Result<()> {
    if answer == request {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is not what was sent"))
    }
}

/// What to bind to.
#[must_use]
pub fn local(target: &Target) -> SocketAddr {
    let any: IpAddr =
        if target.address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    SocketAddr::new(target.source.unwrap_or(any), target.source_port)
}
