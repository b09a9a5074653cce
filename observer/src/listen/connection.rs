//! A connection that has shaken hands, with the place that it takes among all and a deadline for its first bytes.
//!
//! Neighbour: `super` hands it to the HTTP/2 server.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

/// Bytes with which every HTTP/2 connection begins (RFC 9113 section 3.4). From then on pings tell who lives.
const PREFACE: usize = 24;

/// With TLS or without.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// What the HTTP/2 server reads and writes.
pub(super) struct Connection {
    stream: Stream,
    /// Until the preface is whole: how much of it has come, and until when it may.
    preface: Option<(usize, Pin<Box<Sleep>>)>,
    /// Freed with the connection.
    _slot: Slot,
}

impl Connection {
    pub(super) fn new(stream: Stream, slot: Slot, limit: Duration) -> Self {
        Self { stream, preface: Some((0, Box::pin(sleep(limit)))), _slot: slot }
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        if let Some((come, deadline)) = &mut this.preface {
            *come += buf.filled().len() - before;
            if *come >= PREFACE {
                this.preface = None;
            } else if read.is_pending() {
                ready!(deadline.as_mut().poll(cx));
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "no HTTP/2 in time")));
            }
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Places for connections.
#[derive(Clone)]
pub(super) struct Slots {
    taken: Arc<Mutex<Taken>>,
    all: usize,
    per_address: usize,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by_address: BTreeMap<IpAddr, usize>,
}

/// One taken place; free again when dropped.
pub(super) struct Slot {
    slots: Slots,
    address: IpAddr,
}

impl Slots {
    pub(super) fn new(all: usize, per_address: usize) -> Self {
        Self { taken: Arc::default(), all, per_address }
    }

    /// A place for a connection from that address, if there is one.
    pub(super) fn take(&self, address: IpAddr) -> Option<Slot> {
        let address = payer(address);
        let mut taken = self.lock();
        let own = taken.by_address.get(&address).copied().unwrap_or_default();
        if taken.all >= self.all || own >= self.per_address {
            return None;
        }
        taken.all += 1;
        taken.by_address.insert(address, own + 1);
        Some(Slot { slots: self.clone(), address })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.lock();
        taken.all -= 1;
        if let Some(own) = taken.by_address.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

/// Who pays for a connection: a host has a whole /64 of IPv6 addresses to choose from.
fn payer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_by_who_takes_them() {
        let slots = Slots::new(5, 2);
        let address = |text: &str| -> IpAddr { text.parse().expect("an address") };
        let one = slots.take(address("192.0.2.1")).expect("a place");
        let _two = slots.take(address("::ffff:192.0.2.1")).expect("the same host");
        assert!(slots.take(address("192.0.2.1")).is_none(), "its share is taken");
        let _three = slots.take(address("2001:db8::1")).expect("another host");
        let _four = slots.take(address("2001:db8::ffff:2")).expect("the same /64");
        assert!(slots.take(address("2001:db8::3")).is_none(), "its share is taken");
        let _five = slots.take(address("2001:db8:1::3")).expect("another /64");
        assert!(slots.take(address("192.0.2.9")).is_none(), "all places are taken");
        drop(one);
        assert!(slots.take(address("192.0.2.9")).is_some(), "a closed connection frees its place");
        assert_eq!(slots.lock().by_address.len(), 3, "nobody is remembered who has none");
    }
}
