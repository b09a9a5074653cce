//! How long it takes from a policy's file to the kernel: the file is renamed into place, and two observers watch.
//!
//! One reads the node's state word from the pinned map, where the agent writes the revision as its last step. The other is
//! a client that sends a datagram every half millisecond: what counts is when the first answered one was sent, or, for a
//! policy that is taken back, the last one.
//!
//! Neighbours: `cluster.rs` writes the other policies and identities.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use aya::maps::{Array, Map, MapData};
use sinew_bpf::abi::{StateWord, VERSION};

use super::report::{Aim, Row};
use super::spread::{Spread, quantile};
use super::{Options, cluster, footprint, pin};
use crate::lab::netns::Netns;
use crate::lab::process::{interrupted, wait_until};
use crate::lab::{Family, Lab, Node, Topology};

const PORT: u16 = 7000;
/// Between two datagrams.
const PACE: Duration = Duration::from_micros(500);
/// Between two looks at the word.
const LOOK: Duration = Duration::from_micros(50);
/// After a change is enforced: late answers arrive, and the agent has written its status.
const SETTLE: Duration = Duration::from_millis(60);
/// Unanswered datagrams that show that answers have ended: 30 ms of them.
const SILENCE: usize = 60;
/// A change takes no longer.
const LIMIT: Duration = Duration::from_secs(10);
/// What the project wants of the slowest in a hundred, milliseconds.
const AIM: f64 = 20.0;

/// The client gets answers only. Without it an answer on its way could begin a connection of the server's own after the
/// refusal (datapath.md 10), and the client's datagrams would pass as answers to that.
const CLIENT: &str = "apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: client}
spec:
  endpointSelector: {matchLabels: {app: client}}
  ingress: [{}]
";

/// When a datagram was sent, and whether an answer came.
type Sent = (Instant, bool);

/// Measures at every size.
pub(super) fn run(options: &Options) -> Result<Vec<Row>> {
    let changes = if options.quick { 10 } else { 100 };
    let mut rows = Vec::new();
    for identities in [100, 10_000] {
        let lab = super::lab(Topology::Wire(1)).start()?;
        cluster::write_identities(lab.store(), identities)?;
        let node = lab.node("a");
        let client = node.pod("client", &[("app", "client")])?;
        let server = node.pod("server", &[("app", "server")])?;
        wait_until("every identity in the agent", Duration::from_secs(60), || {
            footprint::knows(&lab, identities)
        })?;
        for policies in [10, 100, 1_000] {
            lab.apply("policies", &cluster::policies(policies))?;
            lab.apply("client", CLIENT)?;
            lab.apply("toggle", &toggle(false))?;
            let ends = (client.netns(), server.netns(), server.address(Family::V4));
            let times = watched(ends, |answers| change(&lab, node, answers, changes))?;
            let size = format!("{policies} policies, {identities} identities");
            rows.extend(times.rows(&size)?);
        }
    }
    Ok(rows)
}

/// Milliseconds of all changes.
#[derive(Default)]
struct Times {
    word: Vec<f64>,
    probe: Vec<f64>,
}

impl Times {
    fn rows(self, size: &str) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for (what, mut times) in [("kernel word", self.word), ("traffic", self.probe)] {
            times.sort_by(f64::total_cmp);
            let p99 = quantile(&times, 0.99);
            let spread = Spread::of(times).context("at least one change")?;
            rows.push(Row::new("enforce", format!("p50, {what}, {size}"), "ms", spread));
            let spread = Spread { median: p99, ..spread };
            rows.push(
                Row::new("enforce", format!("p99, {what}, {size}"), "ms", spread).aim(Aim::AtMost(AIM)),
            );
        }
        Ok(rows)
    }
}

/// A policy that lets the client in at the port, or one that lets it in elsewhere.
fn toggle(open: bool) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: toggle}}\nspec:\n  endpointSelector: \
         {{matchLabels: {{app: server}}}}\n  ingress:\n  - fromEndpoints: [{{matchLabels: {{app: client}}}}]\n    \
         toPorts: [{{ports: [{{port: \"{}\", protocol: UDP}}]}}]\n",
        if open { PORT } else { PORT + 1 }
    )
}

fn change(lab: &Lab, node: &Node, answers: &Mutex<Vec<Sent>>, changes: usize) -> Result<Times> {
    let maps = node.directories().bpf_root.join(node.name()).join(format!("v{VERSION}/maps"));
    let words = words(&maps)?;
    let mut times = Times::default();
    for number in 0..changes {
        ensure!(!interrupted(), "interrupted");
        let open = number % 2 == 0;
        lock(answers).clear();
        let before = revision(&words)?;
        let start = Instant::now();
        lab.store().write("toggle", &toggle(open))?;
        while revision(&words)? == before {
            ensure!(start.elapsed() < LIMIT, "the change was not enforced within {} s", LIMIT.as_secs());
            thread::sleep(LOOK);
        }
        times.word.push(milliseconds(start.elapsed()));
        thread::sleep(SETTLE);
        while !has_switched(&lock(answers), start, open) {
            ensure!(
                start.elapsed() < LIMIT,
                "change {number} (open: {open}) reached the kernel word, but traffic did not follow within {} s",
                LIMIT.as_secs()
            );
            thread::sleep(PACE);
        }
        times.probe.push(milliseconds(seen(&lock(answers), start, open)));
    }
    Ok(times)
}

/// Whether answers have begun, or have ended for as long as the slowest takes.
fn has_switched(sent: &[Sent], start: Instant, open: bool) -> bool {
    if open {
        return sent.iter().any(|(at, answered)| *answered && *at >= start);
    }
    sent.len() > SILENCE && sent[sent.len() - SILENCE..].iter().all(|(_, answered)| !answered)
}

/// From the start to the first datagram that is answered, or to the last one.
fn seen(sent: &[Sent], start: Instant, open: bool) -> Duration {
    let mut answered = sent.iter().filter(|(at, answered)| *answered && *at >= start).map(|(at, _)| *at);
    let turn = if open { answered.next() } else { answered.next_back() };
    // Where no datagram after the change was answered, it was enforced before the next one was sent.
    turn.map_or(PACE, |at| at - start)
}

/// Does something while a client asks a server all the time.
fn watched<T: Send>(
    (client, server, address): (&Netns, &Netns, IpAddr),
    work: impl FnOnce(&Mutex<Vec<Sent>>) -> Result<T>,
) -> Result<T> {
    let answers = Mutex::new(Vec::new());
    let over = AtomicBool::new(false);
    let (tell, told) = channel();
    let told = Mutex::new(told);
    thread::scope(|scope| {
        let echo = scope.spawn(|| -> Result<()> {
            pin::enter(server)?;
            let socket = UdpSocket::bind((address, PORT)).context("listening for datagrams")?;
            socket.set_read_timeout(Some(Duration::from_millis(50)))?;
            tell.send(()).ok();
            let mut buffer = [0; 16];
            while !over.load(Ordering::Relaxed) {
                if let Ok((count, from)) = socket.recv_from(&mut buffer) {
                    socket.send_to(&buffer[..count], from).context("answering a datagram")?;
                }
            }
            Ok(())
        });
        let asking = scope.spawn(|| -> Result<()> {
            pin::enter(client)?;
            told.lock()
                .expect("nothing panics while it holds this lock")
                .recv()
                .context("the server did not start")?;
            ask(SocketAddr::new(address, PORT), &answers, &over)
        });
        let result = work(&answers);
        over.store(true, Ordering::Relaxed);
        for thread in [echo, asking] {
            thread.join().map_err(|_| anyhow!("a probe panicked"))??;
        }
        result
    })
}

/// Sends numbered datagrams and notes which come back.
fn ask(server: SocketAddr, answers: &Mutex<Vec<Sent>>, over: &AtomicBool) -> Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0").context("binding the client")?;
    socket.connect(server).context("naming the server")?;
    // A socket's time-out is a number of timer ticks, 4 ms each; a sleep is exact.
    socket.set_nonblocking(true)?;
    let begin = Instant::now();
    let mut next = begin;
    while !over.load(Ordering::Relaxed) {
        let now = Instant::now();
        if now >= next {
            next = now + PACE;
            let number = (now - begin).as_nanos() as u64;
            lock(answers).push((begin + Duration::from_nanos(number), false));
            // Refused or not: what counts is whether it is answered.
            socket.send(&number.to_ne_bytes()).ok();
        }
        let mut buffer = [0; 8];
        while let Ok(8) = socket.recv(&mut buffer) {
            let at = begin + Duration::from_nanos(u64::from_ne_bytes(buffer));
            if let Some(sent) = lock(answers).iter_mut().rev().find(|(sent, _)| *sent == at) {
                sent.1 = true;
            }
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

fn words(maps: &Path) -> Result<Array<MapData, u64>> {
    let path = maps.join("WORDS");
    let map = MapData::from_pin(&path).with_context(|| format!("opening {}", path.display()))?;
    Array::try_from(Map::Array(map)).with_context(|| format!("{} is no array of words", path.display()))
}

fn revision(words: &Array<MapData, u64>) -> Result<u32> {
    Ok(StateWord(words.get(&StateWord::NODE, 0).context("reading the node's word")?).revision())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn lock(answers: &Mutex<Vec<Sent>>) -> MutexGuard<'_, Vec<Sent>> {
    answers.lock().expect("nothing panics while it holds this lock")
}
