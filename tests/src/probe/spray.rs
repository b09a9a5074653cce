//! Datagrams that all belong to different connections, to fill a table with.

use std::io;
use std::net::{IpAddr, UdpSocket};

/// Ports of one source that datagrams go to; those below are left to servers.
const PORTS: std::ops::Range<u16> = 20_000..60_000;

/// Sends `count` datagrams, each from and to a pair of ports of its own.
///
/// # Errors
/// A socket cannot be made, or a datagram not be sent.
pub fn spray(to: IpAddr, count: u32) -> io::Result<()> {
    let mut left = count;
    while left > 0 {
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let socket = UdpSocket::bind((any, 0))?;
        for port in PORTS.take(usize::try_from(left).unwrap_or(usize::MAX)) {
            socket.send_to(b"spray", (to, port))?;
            left -= 1;
        }
    }
    Ok(())
}
