//! Probes that go on until their standard input closes: the test that started them changes the world meanwhile.
//!
//! [`hold`] keeps one connection (or one UDP source port) and asks over it again and again: nothing that is established
//! may be lost. [`redial`] makes a new connection each time: new ones must work, or, for one that is denied, must never.

use std::io::{self, Read};
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::dial::{Target, ask, connect, dial, micros_since};
use super::report::{Outcome, Watched};
use super::{Transport, pattern};

/// Asks over one connection every `every`, until standard input closes or the connection is dead.
#[must_use]
pub fn hold(target: &Target, every: Duration) -> Watched {
    match target.transport {
        Transport::Tcp => hold_tcp(target, every),
        Transport::Udp => hold_udp(target, every),
        Transport::Icmp => redial(target, every),
    }
}

/// Makes a new attempt every `every`, until standard input closes.
#[must_use]
pub fn redial(target: &Target, every: Duration) -> Watched {
    go_on(every, |_| (dial(target).outcome, true))
}

fn hold_tcp(target: &Target, every: Duration) -> Watched {
    let mut stream = match connect(target.address, target.source_port, target.timeout)
        .and_then(|stream| stream.set_read_timeout(Some(target.timeout)).map(|()| stream))
    {
        Ok(stream) => stream,
        Err(error) => {
            let mut watched = Watched::default();
            watched.note(Outcome::of(&error), 0);
            return watched;
        }
    };
    // After a time-out the late answer would be taken for the next one's: one failure ends the connection's watch.
    go_on(every, |sequence| match ask(&mut stream, target.bytes, sequence) {
        Ok(()) => (Outcome::Answered, true),
        Err(error) => (Outcome::of(&error), false),
    })
}

fn hold_udp(target: &Target, every: Duration) -> Watched {
    let any = if target.address.is_ipv4() { "0.0.0.0" } else { "::" };
    let open = || -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind((any, target.source_port))?;
        socket.connect(target.address)?;
        socket.set_read_timeout(Some(target.timeout))?;
        Ok(socket)
    };
    let socket = match open() {
        Ok(socket) => socket,
        Err(error) => {
            let mut watched = Watched::default();
            watched.note(Outcome::of(&error), 0);
            return watched;
        }
    };
    go_on(every, |sequence| match exchange(&socket, target.bytes, sequence) {
        Ok(()) => (Outcome::Answered, true),
        Err(error) => (Outcome::of(&error), true),
    })
}

/// One datagram and its echo. The echo of an earlier one, which was given up, is passed over.
fn exchange(socket: &UdpSocket, bytes: usize, sequence: u64) -> io::Result<()> {
    let mut request = vec![0; bytes];
    pattern::fill(&mut request, sequence, 0);
    socket.send(&request)?;
    let mut answer = vec![0; bytes + 1];
    loop {
        let length = socket.recv(&mut answer)?;
        if answer[..length] == request[..] {
            return Ok(());
        }
    }
}

/// Calls `attempt` with a growing number every `every` until standard input closes or it says to stop.
fn go_on(every: Duration, mut attempt: impl FnMut(u64) -> (Outcome, bool)) -> Watched {
    let closed = stdin_closed();
    let start = Instant::now();
    let mut watched = Watched::default();
    let mut next = start;
    for sequence in 0.. {
        let (outcome, again) = attempt(sequence);
        watched.note(outcome, micros_since(start));
        if !again || closed.load(Ordering::Relaxed) {
            break;
        }
        next += every;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    watched
}

fn stdin_closed() -> Arc<AtomicBool> {
    let closed = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&closed);
    thread::spawn(move || {
        let mut rest = Vec::new();
        io::stdin().read_to_end(&mut rest).ok();
        flag.store(true, Ordering::Relaxed);
    });
    closed
}
