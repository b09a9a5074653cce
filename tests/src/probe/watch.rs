//! Probes that continue until their standard input closes, while the test that started them changes policies, agents or
//! nodes.
//!
//! [`hold`] keeps one connection (or one UDP source port) and sends requests over it again and again: no established
//! connection may be lost. [`redial`] makes a new connection each time: each must work, or, if it is denied, none may.

use std::io::{self, Read, Write};
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::dial::{Target, ask, connect, dial, local, micros_since};
use super::report::{Outcome, Watched, clock};
use super::{Transport, pattern};

/// How often to ask and how often to say how it goes.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two attempts.
    pub every: Duration,
    /// Between two lines of what was seen so far; without it there is the last one only.
    pub tell_every: Option<Duration>,
}

/// Asks over one connection again and again, until standard input closes or the connection is dead.
#[must_use]
pub fn hold(target: &Target, pace: Pace) -> Watched {
    match target.transport {
        Transport::Tcp => hold_tcp(target, pace),
        Transport::Udp => hold_udp(target, pace),
        Transport::Icmp => redial(target, pace),
    }
}

/// Makes new attempts, until standard input closes.
#[must_use]
pub fn redial(target: &Target, pace: Pace) -> Watched {
    go_on(pace, |_| (dial(target).outcome, true))
}

fn hold_tcp(target: &Target, pace: Pace) -> Watched {
    let mut stream = match connect(target)
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
    go_on(pace, |sequence| match ask(&mut stream, target.bytes, sequence) {
        Ok(()) => (Outcome::Answered, true),
        Err(error) => (Outcome::of(&error), false),
    })
}

fn hold_udp(target: &Target, pace: Pace) -> Watched {
    let open = || -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind(local(target))?;
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
    go_on(pace, |sequence| match exchange(&socket, target.bytes, sequence) {
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

/// Calls `attempt` with a growing number until standard input closes or it says to stop.
fn go_on(pace: Pace, mut attempt: impl FnMut(u64) -> (Outcome, bool)) -> Watched {
    let closed = stdin_closed();
    let start = Instant::now();
    let mut watched = Watched::default();
    let (mut next, mut told) = (start, start);
    for sequence in 0.. {
        let began = clock();
        let (outcome, again) = attempt(sequence);
        watched.note(outcome, micros_since(start));
        if outcome == Outcome::Answered {
            watched.last_answered_began = Some(began);
        }
        if !again || closed.load(Ordering::Relaxed) {
            break;
        }
        if let Some(tell_every) = pace.tell_every
            && told.elapsed() >= tell_every
        {
            told = Instant::now();
            if let Ok(line) = serde_json::to_string(&watched) {
                // A reader that has gone away closes standard input too.
                writeln!(io::stdout(), "{line}").ok();
            }
        }
        next += pace.every;
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
