//! An ICMP or ICMPv6 echo request and its reply, over a raw socket. RFC 792, RFC 4443 section 4.
//!
//! `ping` reports loss in prose and rounds time; a probe needs to know which ICMP error came back, if one did.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::pattern;
use super::raw::checksum;

const HEADER_BYTES: usize = 8;

/// The message types of one family.
struct Types {
    request: u8,
    reply: u8,
    unreachable: u8,
    too_big: u8,
}

const V4: Types = Types { request: 8, reply: 0, unreachable: 3, too_big: 3 };
const V6: Types = Types { request: 128, reply: 129, unreachable: 1, too_big: 2 };
/// "Fragmentation needed" among IPv4's unreachables (RFC 1191).
const V4_CODE_TOO_BIG: u8 = 4;

/// Sends one echo request with `bytes` bytes of payload and waits for its reply.
///
/// # Errors
/// The time-out, or the ICMP error that quotes this request, as the error number that the kernel has for it.
pub fn echo(from: Option<IpAddr>, to: IpAddr, bytes: usize, timeout: Duration) -> io::Result<()> {
    static SEQUENCE: AtomicU16 = AtomicU16::new(1);
    let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed);
    // The low half of the process id tells probes of one pod apart.
    let id = u16::try_from(process::id() & 0xffff).expect("masked to 16 bits");
    let (domain, protocol, types) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, V4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, V6),
    };
    let mut socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    if let Some(from) = from {
        socket.bind(&SocketAddr::new(from, 0).into())?;
    }
    let request = request(&types, to.is_ipv4(), id, sequence, bytes);
    socket.send_to(&request, &SocketAddr::new(to, 0).into())?;

    let deadline = Instant::now() + timeout;
    let mut buffer = vec![0; bytes + 256];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let length = socket.read(&mut buffer)?;
        let message = match to {
            // A raw IPv4 socket hands out the IP header too.
            IpAddr::V4(_) => after_ipv4_header(&buffer[..length]),
            IpAddr::V6(_) => Some(&buffer[..length]),
        };
        if let Some(result) = message.and_then(|message| judge(message, &types, to.is_ipv4(), &request)) {
            return result;
        }
    }
}

fn request(types: &Types, is_ipv4: bool, id: u16, sequence: u16, bytes: usize) -> Vec<u8> {
    let mut message = vec![0; HEADER_BYTES + bytes];
    message[0] = types.request;
    message[4..6].copy_from_slice(&id.to_be_bytes());
    message[6..8].copy_from_slice(&sequence.to_be_bytes());
    pattern::fill(&mut message[HEADER_BYTES..], u64::from(sequence), 0);
    if is_ipv4 {
        // The kernel fills in ICMPv6's checksum, which covers the addresses, but not ICMP's.
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

/// What a received message means for the request: nothing, the reply, or an error.
fn judge(message: &[u8], types: &Types, is_ipv4: bool, request: &[u8]) -> Option<io::Result<()>> {
    let same = |bytes: &[u8]| bytes.get(4..8) == request.get(4..8);
    let (&kind, &code) = (message.first()?, message.get(1)?);
    if kind == types.reply && same(message) {
        let intact = message[HEADER_BYTES..] == request[HEADER_BYTES..];
        return Some(if intact {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "the reply is not what was sent"))
        });
    }
    if kind != types.unreachable && kind != types.too_big {
        return None;
    }
    let quoted = message.get(HEADER_BYTES..)?;
    let quoted = if is_ipv4 { after_ipv4_header(quoted)? } else { quoted.get(40..)? };
    if quoted.first() != Some(&types.request) || !same(quoted) {
        return None;
    }
    let too_big = if is_ipv4 { code == V4_CODE_TOO_BIG } else { kind == types.too_big };
    Some(Err(io::Error::from_raw_os_error(if too_big { libc::EMSGSIZE } else { libc::EHOSTUNREACH })))
}

fn after_ipv4_header(packet: &[u8]) -> Option<&[u8]> {
    packet.get(usize::from(packet.first()? & 0x0f) * 4..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_a_request_with_its_checksum_is_zero() {
        // 0x0800 + 0x1234 + 0x0001 = 0x1a35, complement 0xe5ca.
        let message = request(&V4, true, 0x1234, 1, 0);
        assert_eq!(message, [8, 0, 0xe5, 0xca, 0x12, 0x34, 0, 1]);
        assert_eq!(checksum(&request(&V4, true, 7, 9, 33)), 0);
    }

    #[test]
    fn only_the_own_request_is_answered() {
        let own = request(&V4, true, 1, 1, 8);
        let mut reply = own.clone();
        reply[0] = V4.reply;
        assert!(judge(&reply, &V4, true, &own).unwrap().is_ok());
        assert!(judge(&reply, &V4, true, &request(&V4, true, 1, 2, 8)).is_none());
        reply[10] ^= 1;
        assert_eq!(judge(&reply, &V4, true, &own).unwrap().unwrap_err().kind(), io::ErrorKind::InvalidData);

        let mut header = vec![0; 20];
        header[0] = 0x45;
        let prohibited = [&[3, 13, 0, 0, 0, 0, 0, 0][..], &header, &own].concat();
        let error = judge(&prohibited, &V4, true, &own).unwrap().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EHOSTUNREACH));
        let too_big = [&[3, 4, 0, 0, 0, 0, 0, 0][..], &header, &own].concat();
        assert_eq!(
            judge(&too_big, &V4, true, &own).unwrap().unwrap_err().raw_os_error(),
            Some(libc::EMSGSIZE)
        );
    }
}
