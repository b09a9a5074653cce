//! Traffic at a rate: datagrams that make one event each, and requests whose answers are timed.
//!
//! With `--monitor-aggregation none` each packet between two pods of a node leaves one record. Datagrams are sent in a
//! bunch each half millisecond. Nobody reads them: once the receiver's buffer is full, the kernel drops them behind
//! the programs, which costs less than a reader would.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::sides::{PORT, Site};
use crate::bench::pin;

/// Time between two bunches.
const TICK: Duration = Duration::from_micros(500);
/// Datagrams between two looks at the clock.
const LOOK: u64 = 64;
/// Bytes of a datagram.
const BYTES: usize = 64;
/// An answer that takes longer counts as this long.
const TOO_LONG: Duration = Duration::from_millis(200);

/// A way for datagrams between the pods of a site.
pub(super) struct Lane {
    sender: UdpSocket,
    /// Kept open: without it the kernel would answer each datagram.
    receiver: UdpSocket,
}

/// What was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// Datagrams.
    pub(super) count: u64,
    /// How long it took.
    pub(super) took: Duration,
}

impl Lane {
    /// To [`PORT`], for events.
    pub(super) fn for_events(site: &Site) -> Result<Self> {
        Self::open(site, PORT)
    }

    /// To a port that the kernel chooses, for requests.
    pub(super) fn for_requests(site: &Site) -> Result<Self> {
        let lane = Self::open(site, 0)?;
        for socket in [&lane.sender, &lane.receiver] {
            socket.set_read_timeout(Some(TOO_LONG)).context("limiting a wait")?;
        }
        Ok(lane)
    }

    fn open(site: &Site, port: u16) -> Result<Self> {
        let (ends, address) = (site.ends(), site.address());
        let receiver = pin::inside(&ends.server, || bound(address, port))?;
        let server = receiver.local_addr().context("the receiver's address")?;
        let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
        let sender = pin::inside(&ends.client, || bound(any, 0))?;
        sender.connect(server).context("naming the receiver")?;
        Ok(Self { sender, receiver })
    }

    /// One datagram.
    pub(super) fn send_one(&self) -> Result<()> {
        self.sender.send(&[0; BYTES]).map(drop).context("sending a datagram")
    }

    /// So many datagrams a second for a while, from this thread; fewer, if it can't do as many.
    pub(super) fn send(&self, rate: f64, length: Duration) -> Result<Sent> {
        let start = Instant::now();
        let mut count = 0;
        loop {
            let elapsed = start.elapsed();
            if elapsed >= length {
                return Ok(Sent { count, took: elapsed });
            }
            let due = (elapsed.as_secs_f64() * rate) as u64;
            let bunch = due.saturating_sub(count).min(LOOK);
            for _ in 0..bunch {
                self.send_one()?;
            }
            count += bunch;
            if count >= due {
                thread::sleep(TICK);
            }
        }
    }

    /// Asks once each `pace` for a while and returns how long each answer took, in microseconds. Both ends run on one
    /// processor.
    pub(super) fn ask(&self, processor: usize, pace: Duration, length: Duration) -> Result<Vec<f64>> {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let echo = scope.spawn(|| pin::to_processor(processor).and_then(|()| self.answer(&over)));
            let asked = scope.spawn(|| {
                let asked = pin::to_processor(processor).and_then(|()| self.time(pace, length));
                over.store(true, Ordering::Relaxed);
                asked
            });
            let asked = asked.join().map_err(|_| anyhow!("a client panicked"))?;
            echo.join().map_err(|_| anyhow!("a server panicked"))??;
            asked
        })
    }

    fn answer(&self, over: &AtomicBool) -> Result<()> {
        let mut buffer = [0; BYTES];
        while !over.load(Ordering::Relaxed) {
            // Without a request for a while it looks whether it is over.
            if let Ok((count, from)) = self.receiver.recv_from(&mut buffer) {
                self.receiver.send_to(&buffer[..count], from).context("answering")?;
            }
        }
        Ok(())
    }

    fn time(&self, pace: Duration, length: Duration) -> Result<Vec<f64>> {
        let (start, mut times) = (Instant::now(), Vec::new());
        let mut due = start;
        while start.elapsed() < length {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            due = Instant::now() + pace;
            times.push(self.request(times.len())?.as_secs_f64() * 1e6);
        }
        Ok(times)
    }

    /// One request; an answer to an earlier one, which was given up, is passed over.
    fn request(&self, number: usize) -> Result<Duration> {
        let (mut request, mut buffer) = ([0; BYTES], [0; BYTES]);
        request[..size_of::<usize>()].copy_from_slice(&number.to_ne_bytes());
        let start = Instant::now();
        self.sender.send(&request).context("asking")?;
        while let Ok(count) = self.sender.recv(&mut buffer) {
            if buffer[..count] == request[..] {
                return Ok(start.elapsed());
            }
        }
        Ok(TOO_LONG)
    }
}

fn bound(address: IpAddr, port: u16) -> Result<UdpSocket> {
    UdpSocket::bind(SocketAddr::new(address, port)).with_context(|| format!("binding {address} port {port}"))
}
