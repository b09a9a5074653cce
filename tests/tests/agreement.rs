//! The kernel's build of the verdict code against the host's: the same packets through `BPF_PROG_TEST_RUN` of the real
//! object and through the library must give the same verdict, bytes, event, connections, fragments and counters.
//!
//! First the pipeline's own cases, then random packets, cut and mutated from theirs. What a test run can't have (a
//! tunnel key, a tag beside the packet, frames below 14 bytes) is named with its reason where the case stands, and runs on
//! the host only. Neighbours: `sinew_bpf::host::cases` has the cases; `agreement/kernel.rs` loads and runs the object in
//! a network namespace with real interfaces and routes (`agreement/namespace.rs`).

#[path = "agreement/kernel.rs"]
mod kernel;
#[path = "agreement/namespace.rs"]
mod namespace;
#[path = "agreement/plain.rs"]
mod plain;
#[path = "agreement/random.rs"]
mod random;

use std::collections::BTreeMap;
use std::net::UdpSocket;

use anyhow::{Context, Result, bail, ensure};
use sinew_bpf::abi::{CtEntry, CtKey, EventRecord};
use sinew_bpf::deliver::Action;
use sinew_bpf::host::cases;
use sinew_bpf::host::world::{Family, Hook, NODE, Sent, WEB, World};
use sinew_bpf::host::{HostMaps, Step};
use sinew_bpf::identity::reserved;
use sinew_bpf::maps::{CtTable, FragmentKey, FragmentPorts};
use sinew_bpf::settings::Settings;

use kernel::Kernel;
use namespace::Namespace;

/// Times that both builds took down of one packet may differ by this, nanoseconds.
const CLOCKS: u64 = 500_000_000;
/// Random packets of a run.
const RANDOM: usize = 12_000;
/// Random packets after which both builds begin with empty tables again.
const TOGETHER: usize = 100;

/// A namespace with the world's interfaces, and the programs with each of the settings that the worlds have.
struct Bench {
    namespace: Namespace,
    kernels: Vec<(Settings, Kernel)>,
}

impl Bench {
    fn new() -> Result<Self> {
        Ok(Self { namespace: Namespace::enter()?, kernels: Vec::new() })
    }

    /// The programs with a world's settings, with empty tables.
    fn kernel(&mut self, world: &World) -> Result<&mut Kernel> {
        let at = match self.kernels.iter().position(|(settings, _)| *settings == world.settings) {
            Some(at) => at,
            None => {
                self.kernels.push((world.settings, Kernel::load(&world.settings)?));
                self.kernels.len() - 1
            }
        };
        self.namespace.route(world)?;
        let kernel = &mut self.kernels[at].1;
        kernel.forget()?;
        kernel.write(world)?;
        Ok(kernel)
    }
}

#[test]
#[ignore = "cargo xtask test agreement"]
fn the_pipelines_cases() -> Result<()> {
    let mut bench = Bench::new()?;
    let (mut packets, mut host_only) = (0, BTreeMap::new());
    for named in cases::all() {
        for family in Family::BOTH {
            if !named.host_only.is_empty() {
                host_only.insert(named.name, named.host_only);
                continue;
            }
            let case = (named.make)(family);
            let mut world = case.world;
            bench.kernel(&world)?;
            for (index, step) in case.steps.into_iter().enumerate() {
                let place = || format!("{} {family:?}, step {}", named.name, index + 1);
                let at = bench.kernels.iter().position(|(settings, _)| *settings == world.settings);
                let kernel = &mut bench.kernels[at.with_context(place)?].1;
                match step {
                    Step::Change(change) => {
                        let before = world.maps.connections.borrow().clone();
                        change(&mut world);
                        ensure!(at.is_some(), "{}: settings changed under way", place());
                        bench.namespace.route(&world)?;
                        kernel.write(&world)?;
                        if before != *world.maps.connections.borrow() {
                            kernel.set_connections(&world.maps)?;
                        }
                    }
                    Step::Age(seconds) => {
                        world.age(seconds);
                        kernel.age(seconds)?;
                    }
                    Step::Look(_) => {}
                    Step::Packet(sent, ..) if sent.packet.bytes.len() < random::least(&sent.packet.bytes) => {
                        host_only.insert(
                            named.name,
                            "in part: a test run refuses frames without a whole IP header",
                        );
                    }
                    Step::Packet(sent, ..) | Step::Answer(sent, ..) => {
                        agree(&mut world, kernel, &sent).with_context(place)?;
                        packets += 1;
                    }
                }
            }
            let kernel = bench.kernels.iter_mut().find(|(settings, _)| *settings == world.settings);
            let (_, kernel) = kernel.with_context(|| format!("{}: settings changed", named.name))?;
            counters_agree(&world.maps, kernel).with_context(|| format!("{} {family:?}", named.name))?;
        }
    }
    println!("{packets} packets of the cases agree; on the host only:");
    for (name, why) in &host_only {
        println!("  {name}: {why}");
    }
    ensure!(packets > 500, "only {packets} packets: the cases are not all here");
    ensure!(host_only.len() < 25, "too much runs on the host only");
    Ok(())
}

#[test]
#[ignore = "cargo xtask test agreement"]
fn random_packets() -> Result<()> {
    let mut bench = Bench::new()?;
    let mut random = random::Packets::new();
    println!("seed {:#x}; SINEW_AGREEMENT_SEED repeats it", random.seed());
    let mut verdicts: BTreeMap<String, usize> = BTreeMap::new();
    let mut done = 0;
    while done < RANDOM {
        let mut world = random.world();
        let kernel = bench.kernel(&world)?;
        for _ in 0..TOGETHER {
            if random.changes(&mut world) {
                kernel.write(&world)?;
            }
            let sent = random.packet();
            let (_, verdict) = agree(&mut world, kernel, &sent)
                .with_context(|| format!("packet {done} with seed {:#x}", random.seed()))?;
            *verdicts.entry(verdict).or_default() += 1;
            done += 1;
        }
        counters_agree(&world.maps, kernel)
            .with_context(|| format!("after packet {done} with seed {:#x}", random.seed()))?;
    }
    println!("{done} random packets agree: {verdicts:#?}");
    // Random packets that all drop at the first check would agree about nothing.
    ensure!(verdicts.len() > 15, "random packets come to too few different ends: {verdicts:#?}");
    Ok(())
}

/// datapath.md 28, and what no test run can have: of the node's own datagrams each fragment has a socket, by which it
/// is told from forwarded ones that the kernel has cut anew.
#[test]
#[ignore = "cargo xtask test agreement"]
fn the_nodes_own_fragments_are_the_hosts() -> Result<()> {
    let mut bench = Bench::new()?;
    let kernel = bench.kernel(&World::open())?;
    kernel.attach_egress(Hook::ToPod, "web")?;
    bench.namespace.lead_to(&WEB, "web")?;
    let kernel = &mut bench.kernels[0].1;
    for family in Family::BOTH {
        for bytes in [100, 4000] {
            kernel.forget()?;
            let socket = UdpSocket::bind((NODE.ip(family), 0)).context("the node has no such address")?;
            socket.send_to(&vec![7; bytes], (WEB.place.ip(family), 4000)).context("cannot send")?;
            let events = kernel.events()?;
            let sources: Vec<u32> = events.iter().map(|record| record.source_identity).collect();
            ensure!(sources == [reserved::HOST], "{family:?}, {bytes} bytes: {events:#?}");
            let fragments = kernel.fragments()?.len();
            ensure!(
                fragments == usize::from(bytes > 1500),
                "{family:?}, {bytes} bytes: {fragments} fragmented"
            );
        }
    }
    Ok(())
}

/// Sends a packet through both builds and compares everything that it can leave behind. Returns what the host's made of it.
fn agree(world: &mut World, kernel: &mut Kernel, sent: &Sent) -> Result<(i32, String)> {
    world.now = kernel::coarse_time()?;
    world.maps.take_events();
    let mut sent = sent.clone();
    // The kernel looks at the MAC, and gives every packet of a test run a socket.
    sent.packet.for_others = !sent.packet.bytes.starts_with(&namespace::mac_of(sent.packet.interface));
    sent.packet.orphan = false;
    let sent = &sent;
    let hex = || format!("{} of {:02x?}", sent.hook.name(), sent.packet.bytes);
    let (result, after) = world.send(sent);
    let verdict = match &result {
        Ok(action) => format!("{}: {}", sent.hook.name(), word(action)),
        Err(dropped) => format!("{}: {:?}", sent.hook.name(), dropped.reason()),
    };
    let wanted = match result {
        // TCX_NEXT, TC_ACT_REDIRECT, TC_ACT_SHOT.
        Ok(Action::Stack) => -1,
        Ok(Action::Overlay { .. }) if sent.packet.interface == world.settings.overlay_ifindex => -1,
        Ok(_) => 7,
        Err(_) => 2,
    };
    let ran = kernel.run(sent).with_context(hex)?;
    let host: Vec<EventRecord> = world.maps.take_events().into_iter().map(timeless).collect();
    let events: Vec<EventRecord> = kernel.events()?.into_iter().map(timeless).collect();
    ensure!(events == host, "{}: events are {events:#?} in the kernel, {host:#?} on the host", hex());
    ensure!(
        ran.verdict == wanted,
        "{}: the kernel says {}, the host {wanted} ({verdict})",
        hex(),
        ran.verdict
    );
    ensure!(
        ran.bytes == after.bytes,
        "{}: bytes are {:02x?} in the kernel, {:02x?} on the host ({verdict})",
        hex(),
        ran.bytes,
        after.bytes
    );
    if after.prepared {
        ensure!(ran.mark == 0, "{}: mark {:#x} goes into the pod ({verdict})", hex(), ran.mark);
    }
    if let Ok(Action::Overlay { .. }) = result {
        ensure!(ran.mark & world.settings.mark != 0, "{}: into the overlay without its mark", hex());
    }
    connections_agree(&world.maps, &kernel.connections()?).with_context(hex)?;
    let fragments: BTreeMap<FragmentKey, FragmentPorts> = kernel.fragments()?;
    ensure!(fragments == *world.maps.fragments.borrow(), "{}: fragments are {fragments:#?}", hex());
    Ok((wanted, verdict))
}

fn word(action: &Action) -> &'static str {
    match action {
        Action::Stack => "to the stack",
        Action::Endpoint { .. } => "to a pod",
        Action::Forward { .. } => "forwarded",
        Action::Overlay { .. } => "into the overlay",
        Action::Answer => "answered",
    }
}

fn timeless(record: EventRecord) -> EventRecord {
    EventRecord { time: 0, sequence: 0, ..record }
}

fn connections_agree(host: &HostMaps, kernel: &BTreeMap<(CtTable, CtKey), CtEntry>) -> Result<()> {
    let host = host.connections.borrow();
    for (key, entry) in kernel {
        let Some(wanted) = host.get(key) else { bail!("the kernel alone has {key:?}: {entry:?}") };
        let (mut entry, wanted) = (entry.clone(), (**wanted).clone());
        let mut times = [(&mut entry.created, wanted.created), (&mut entry.refused, wanted.refused)];
        let mut halves: Vec<(u64, u64)> = Vec::new();
        for (half, other) in entry.halves.iter().zip(&wanted.halves) {
            halves.push((half.last.get(), other.last.get()));
            halves.push((half.reported.get(), other.reported.get()));
            half.last.set(other.last.get());
            half.reported.set(other.reported.get());
        }
        for (time, other) in &mut times {
            halves.push((**time, *other));
            **time = *other;
        }
        for (time, other) in halves {
            let differs = time.abs_diff(other) > CLOCKS || (time == 0) != (other == 0);
            ensure!(!differs, "{key:?} has time {time} in the kernel, {other} on the host");
        }
        ensure!(entry == wanted, "{key:?} is {entry:#?} in the kernel, {wanted:#?} on the host");
    }
    if let Some(missing) = host.keys().find(|key| !kernel.contains_key(key)) {
        bail!("the host alone has {missing:?}: {:?}", host.get(missing));
    }
    Ok(())
}

fn counters_agree(host: &HostMaps, kernel: &Kernel) -> Result<()> {
    let drops = kernel.drops()?;
    let wanted: BTreeMap<u32, (u64, u64)> = host
        .drops
        .borrow()
        .iter()
        .map(|(reason, count)| (sinew_bpf::maps::drop_counter(*reason), (count.packets, count.bytes)))
        .collect();
    ensure!(drops == wanted, "drops are {drops:?} in the kernel, {wanted:?} on the host");
    let rules = kernel.rules()?;
    let wanted: BTreeMap<u32, (u64, u64)> =
        host.rules.borrow().iter().map(|(cookie, count)| (*cookie, (count.packets, count.bytes))).collect();
    ensure!(rules == wanted, "rules are {rules:?} in the kernel, {wanted:?} on the host");
    let tables = kernel.tables()?;
    let wanted: BTreeMap<u32, (u64, u64)> =
        host.tables.borrow().iter().map(|(table, count)| (*table, (count.created, count.deleted))).collect();
    ensure!(tables == wanted, "tables count {tables:?} in the kernel, {wanted:?} on the host");
    let answers = kernel.answers()?;
    let wanted = (host.answers.borrow().made, host.answers.borrow().withheld);
    ensure!(answers == wanted, "answers are {answers:?} in the kernel, {wanted:?} on the host");
    Ok(())
}
