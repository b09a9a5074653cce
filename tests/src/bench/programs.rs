//! Nanoseconds that each program takes for a packet, beyond an empty program that is run the same way.
//!
//! Packets go through `BPF_PROG_TEST_RUN` in batches, with batches of the program and of the empty program by turns. The
//! programs are loaded with the settings of a real node. A packet that is run repeatedly starts with the largest hop limit
//! and is replaced before that is used up, and the second pod's host side has the first pod's MAC, so that what the program
//! writes is again a packet of the first pod. What can happen only once (the first packet of a connection) is run once,
//! with another port each time, and so is the empty program then.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use sinew_bpf::abi::policy::direction;
use sinew_bpf::host::world::{
    API, Family, OTHER_NODE, REMOTE, REMOTE_IDENTITY, Sent, UNDERLAY_MAC, WEB, WIRE_MAC, World,
};
use sinew_bpf::host::{Build, Transport};
use sinew_bpf::parse::{protocol, tcp};

use super::node::{self, Programs};
use super::report::{Aim, Row};
use super::spread::Spread;
use super::testrun::{self, Around, Ran};
use super::{Options, pin};
use crate::lab::{Lab, Topology};

/// Policies that select each pod.
const POLICIES: u32 = 50;
/// What a rule allows.
const SERVER: u16 = 80;
/// What none does.
const CLOSED: u16 = 81;
const CLIENT: u16 = 40_000;
/// Repetitions of one test run; the hop limit begins at 255.
const REPEAT: u32 = 200;
const HOP_LIMIT: u8 = 255;
/// Bytes behind the transport header.
const PAYLOAD: usize = 64;

/// What tcx makes of a packet (linux/bpf.h, linux/pkt_cls.h).
const NEXT: i32 = -1;
const SHOT: i32 = 2;
const REDIRECT: i32 = 7;

/// One row.
struct Case {
    name: &'static str,
    program: &'static str,
    family: Family,
    packet: Kind,
    expect: i32,
    aim: Option<f64>,
}

/// Which packet.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Of a TCP connection that is open, from one pod to the other.
    SameNode,
    /// The same, to or from a pod of the other node.
    OtherNode,
    /// The first of a connection.
    New,
    /// The first of a connection that nobody allows.
    Denied,
    /// Nothing of ours: between the nodes.
    Host,
    /// From the overlay's own hand, on its way out.
    Marked,
}

/// Measures all programs.
pub(super) fn run(options: &Options) -> Result<Vec<Row>> {
    let lab = Lab::build(Topology::Wire(1)).without_agents().start()?;
    let netns = lab.scratch("programs");
    netns.make()?;
    node::wire(&netns)?;
    let object = options.object()?;
    let rounds = if options.quick { 5 } else { 15 };
    // A thread of its own: it stays in the namespace until it ends.
    std::thread::scope(|scope| {
        let measured = scope.spawn(|| -> Result<Vec<Row>> {
            pin::enter(&netns)?;
            pin::to_processor(0)?;
            let world = world();
            let mut programs = Programs::load(&object, &world.settings, &world.maps)?;
            cases().iter().map(|case| measure(&mut programs, &world, case, rounds)).collect()
        });
        measured.join().map_err(|_| anyhow::anyhow!("measuring the programs panicked"))?
    })
}

/// Two pods, each selected by many policies; they may open connections to each other and to the pod elsewhere.
fn world() -> World {
    let mut world = World::open();
    for pod in [&WEB, &API] {
        for side in [direction::INGRESS, direction::EGRESS] {
            world.default_deny(pod, side, 1);
            for policy in 0..POLICIES {
                let peer = 50_000 + policy;
                world.maps.known.push(peer);
                world.allow(
                    pod,
                    side,
                    peer,
                    Some((protocol::TCP, Some(8_000 + policy as u16))),
                    100 + policy,
                );
            }
            for peer in [WEB.identity, API.identity, REMOTE_IDENTITY, 1] {
                world.allow(pod, side, peer, Some((protocol::TCP, Some(SERVER))), 2);
            }
        }
    }
    world.maps.known.sort_unstable();
    world.maps.known.dedup();
    for entry in world.maps.endpoints.values_mut().filter(|entry| entry.id == API.id) {
        entry.host_mac = WEB.mac;
    }
    world
}

fn cases() -> Vec<Case> {
    let established = Some(150.0);
    let case =
        |name, program, family, packet, expect, aim| Case { name, program, family, packet, expect, aim };
    let mut all = Vec::new();
    for family in Family::BOTH {
        let name = |v4, v6| if family == Family::V4 { v4 } else { v6 };
        all.extend([
            case(
                name("from_pod established, same node, IPv4", "from_pod established, same node, IPv6"),
                "from_pod",
                family,
                Kind::SameNode,
                REDIRECT,
                established,
            ),
            case(
                name("from_pod established, other node, IPv4", "from_pod established, other node, IPv6"),
                "from_pod",
                family,
                Kind::OtherNode,
                REDIRECT,
                established,
            ),
            case(
                name("from_pod new, IPv4", "from_pod new, IPv6"),
                "from_pod",
                family,
                Kind::New,
                REDIRECT,
                None,
            ),
            case(
                name("from_pod denied, IPv4", "from_pod denied, IPv6"),
                "from_pod",
                family,
                Kind::Denied,
                SHOT,
                None,
            ),
            case(
                name("from_net established, IPv4", "from_net established, IPv6"),
                "from_net",
                family,
                Kind::OtherNode,
                REDIRECT,
                established,
            ),
            case(
                name("from_net new, IPv4", "from_net new, IPv6"),
                "from_net",
                family,
                Kind::New,
                REDIRECT,
                None,
            ),
            case(
                name("from_net denied, IPv4", "from_net denied, IPv6"),
                "from_net",
                family,
                Kind::Denied,
                SHOT,
                None,
            ),
            case(
                name("from_net, not for a pod, IPv4", "from_net, not for a pod, IPv6"),
                "from_net",
                family,
                Kind::Host,
                NEXT,
                None,
            ),
            case(
                name("to_pod established, from the node, IPv4", "to_pod established, from the node, IPv6"),
                "to_pod",
                family,
                Kind::Host,
                NEXT,
                established,
            ),
            case(name("to_net, IPv4", "to_net, IPv6"), "to_net", family, Kind::Host, NEXT, None),
        ]);
    }
    all.push(case("to_net, of the overlay", "to_net", Family::V4, Kind::Marked, NEXT, None));
    all.push(case("to_overlay, from a pod", "to_overlay", Family::V4, Kind::Marked, NEXT, None));
    all
}

fn measure(programs: &mut Programs, world: &World, case: &Case, rounds: usize) -> Result<Row> {
    let mut numbers = Vec::new();
    open_connection(programs, world, case)?;
    for round in 0..rounds {
        let ours = batch(programs, world, case, round, false)?;
        programs.drain();
        let empty = batch(programs, world, case, round, true)?;
        numbers.push(ours - empty);
    }
    let spread = Spread::of(numbers).context("at least one round")?;
    let row = Row::new("programs", case.name, "ns", spread);
    Ok(match case.aim {
        Some(limit) => row.aim(Aim::AtMost(limit)),
        None => row,
    })
}

/// Mean nanoseconds of one packet in a batch.
fn batch(programs: &mut Programs, world: &World, case: &Case, round: usize, empty: bool) -> Result<f64> {
    let (runs, repeat) = match case.packet {
        Kind::New => (2_000, 1),
        // A denied packet leaves a record: not more at once than the ring holds.
        Kind::Denied => (20, REPEAT),
        _ => (200, REPEAT),
    };
    let mut times = Vec::with_capacity(runs);
    for index in 0..runs {
        let port =
            if case.packet == Kind::New { 1_024 + ((round * runs + index) % 60_000) as u16 } else { CLIENT };
        let ran = send(programs, world, case, flags(case), port, repeat, empty)?;
        ensure!(
            empty || ran.verdict == case.expect,
            "{}: the program answered {} instead of {}",
            case.name,
            ran.verdict,
            case.expect
        );
        times.push(f64::from(ran.nanoseconds));
    }
    // Of single runs the median: an interrupt in one of them is not the program's.
    if repeat == 1 {
        return Ok(Spread::of(times).context("at least one run")?.median);
    }
    Ok(times.iter().sum::<f64>() / runs as f64)
}

fn flags(case: &Case) -> u8 {
    match case.packet {
        Kind::New | Kind::Denied => tcp::SYN,
        _ => tcp::ACK | tcp::PSH,
    }
}

/// The three packets that open the connection that a case's packet belongs to.
fn open_connection(programs: &mut Programs, world: &World, case: &Case) -> Result<()> {
    if matches!(case.packet, Kind::New | Kind::Denied | Kind::Marked) || case.name.starts_with("to_net") {
        return Ok(());
    }
    // The hook sees one direction, and 13 of the conntrack specification picks up what is under way: SYN, then data.
    for flags in [tcp::SYN, tcp::ACK] {
        send(programs, world, case, flags, CLIENT, 1, false)?;
    }
    reply(programs, case)?;
    send(programs, world, case, tcp::ACK, CLIENT, 1, false)?;
    programs.drain();
    Ok(())
}

/// The other end's answer at the hook where it comes by, so that the entry leaves the table of those that open.
fn reply(programs: &Programs, case: &Case) -> Result<()> {
    let transport = Transport::Tcp { source: SERVER, destination: CLIENT, flags: tcp::SYN | tcp::ACK };
    let (source, destination) = ends(case);
    let answer = Build::new(destination, source, transport);
    let sent = match (case.program, case.packet) {
        ("from_pod", Kind::SameNode) => Sent::from_pod(&API, answer),
        ("from_pod", _) => Sent::from_net(answer),
        ("from_net", Kind::Host) => return Ok(()),
        _ => Sent::from_pod(&WEB, answer),
    };
    let around = around(&sent, 0);
    let ran = testrun::run(programs.program(sent.hook.name())?, &sent.packet.bytes, around, 1)?;
    ensure!(ran.verdict != SHOT, "{}: the answer was dropped", case.name);
    Ok(())
}

fn ends(case: &Case) -> (IpAddr, IpAddr) {
    let family = case.family;
    let (web, api, remote) = (WEB.place.ip(family), API.place.ip(family), REMOTE.ip(family));
    let node = sinew_bpf::host::world::NODE.ip(family);
    match (case.program, case.packet) {
        ("from_pod", Kind::SameNode) => (web, api),
        ("from_pod", _) => (web, remote),
        ("from_net", Kind::Host) => (OTHER_NODE.ip(family), node),
        ("from_net", _) => (remote, web),
        ("to_pod", _) => (node, web),
        ("to_overlay", _) => (web, remote),
        _ => (node, OTHER_NODE.ip(family)),
    }
}

fn send(
    programs: &Programs,
    world: &World,
    case: &Case,
    flags: u8,
    source: u16,
    repeat: u32,
    empty: bool,
) -> Result<Ran> {
    let (from, to) = ends(case);
    let destination = if case.packet == Kind::Denied { CLOSED } else { SERVER };
    let transport = Transport::Tcp { source, destination, flags };
    let build = Build::new(from, to, transport).hop_limit(HOP_LIMIT).payload(vec![0; PAYLOAD]);
    let sent = match case.program {
        "from_pod" => Sent::from_pod(&WEB, build),
        "to_pod" => Sent::to_pod(&WEB, 0, build),
        "from_net" => Sent::from_net(build),
        "to_net" => Sent::to_net(build),
        _ => Sent::to_net(build.macs(WIRE_MAC, UNDERLAY_MAC)),
    };
    let mark = if case.packet == Kind::Marked { world.settings.mark } else { 0 };
    let program = if empty { programs.empty() } else { programs.program(case.program)? };
    testrun::run(program, &sent.packet.bytes, around(&sent, mark), repeat)
}

fn around(sent: &Sent, mark: u32) -> Around {
    Around { interface: sent.packet.interface, from_device: sent.packet.from_device, mark }
}
