//! One question to the agent and its answer, within a time limit that holds whatever the agent does.
//!
//! A stopped agent (SIGSTOP, full backlog) blocks `connect` on a Unix socket for ever, and no socket option limits
//! that. So the talking is done on a thread of its own and the plugin waits for it with a time limit; the process ends
//! right after, and the thread with it.
//!
//! Neighbours: `sinew_api::cni` has the two lines, `agent/src/cni` the other end.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use sinew_api::cni::{Request, Response};

use super::PluginError;

/// How long one kind of command may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Retry a refused or absent socket this long: it covers an agent that is just being restarted.
    connect: Duration,
    /// Everything together.
    total: Duration,
}

impl Patience {
    const fn new(connect_millis: u64, total_millis: u64) -> Self {
        Self { connect: Duration::from_millis(connect_millis), total: Duration::from_millis(total_millis) }
    }
}

/// An ADD must have failed inside 10 s.
pub(super) const ADD: Patience = Patience::new(2_000, 9_000);
/// A DEL need not wait for an absent agent: it is queued instead.
pub(super) const DEL: Patience = Patience::new(0, 9_000);
/// The second look after a DEL was queued.
pub(super) const DEL_AGAIN: Patience = Patience::new(0, 2_000);
/// A CHECK reads, it changes nothing.
pub(super) const CHECK: Patience = Patience::new(2_000, 9_000);
/// A GC may remove many attachments.
pub(super) const GC: Patience = Patience::new(2_000, 60_000);
/// STATUS is asked often and says what is so now.
pub(super) const STATUS: Patience = Patience::new(0, 5_000);

/// Name of the socket under an agent's run directory.
const SOCKET: &str = "cni.sock";
/// An answer is a few hundred bytes.
const MAX_ANSWER_BYTES: u64 = 1 << 20;
const RETRY_EVERY: Duration = Duration::from_millis(25);

/// Asks the agent whose sockets are in `run_dir`.
pub(super) fn ask(run_dir: &Path, request: &Request, patience: Patience) -> Result<Response, PluginError> {
    let socket = run_dir.join(SOCKET);
    let mut line = serde_json::to_vec(request).expect("a request is plain JSON");
    line.push(b'\n');
    let (answered, answer) = mpsc::sync_channel(1);
    // Nobody hears the answer any more when the time is over.
    thread::spawn(move || answered.send(talk(&socket, &line, patience.connect)).ok());
    match answer.recv_timeout(patience.total) {
        Ok(result) => result,
        Err(_) => Err(PluginError::AgentSlow { seconds: patience.total.as_secs() }),
    }
}

fn talk(socket: &Path, line: &[u8], connect: Duration) -> Result<Response, PluginError> {
    let away = |source| PluginError::AgentAway { socket: socket.to_path_buf(), source };
    let mut stream = connect_within(socket, connect).map_err(away)?;
    stream.write_all(line).map_err(away)?;
    let mut answer = String::new();
    BufReader::new(stream.take(MAX_ANSWER_BYTES)).read_line(&mut answer).map_err(away)?;
    if !answer.ends_with('\n') {
        // The agent died between question and answer, or speaks without end.
        return Err(away(io::Error::new(
            ErrorKind::UnexpectedEof,
            "the connection closed before a whole answer",
        )));
    }
    serde_json::from_str(&answer).map_err(|error| PluginError::Answer { reason: error.to_string() })
}

fn connect_within(socket: &Path, patience: Duration) -> io::Result<UnixStream> {
    let start = Instant::now();
    loop {
        match UnixStream::connect(socket) {
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
                    && start.elapsed() < patience =>
            {
                thread::sleep(RETRY_EVERY);
            }
            result => return result,
        }
    }
}
