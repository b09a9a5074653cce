//! A case: packets through a world in order, each with what must become of it. Every counter that a packet may touch is
//! compared: those that a case lists must change by the amount it gives, all others must stay the same.
//!
//! Neighbours: `cases.rs` has the tables of cases; the agreement tests run the same ones through the kernel.

use std::boxed::Box;
use std::collections::BTreeMap;
use std::format;
use std::rc::Rc;
use std::string::String;
use std::vec::Vec;

use super::world::{Pod, Sent, World};
use super::{HostMaps, HostPacket};
use crate::abi::conntrack::verdict;
use crate::abi::{Address, EventRecord, event};
use crate::deliver::Action;
use crate::drop::DropReason;
use crate::maps::CtTable;
use crate::parse::{LINK_BYTES, ether_type};

/// What must become of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// It goes on to the stack, untouched.
    Stack,
    /// The same, marked as a pod's answer.
    Answer,
    /// It is redirected to a pod: with the pair's MACs and its hop limit decremented.
    Pod(&'static Pod),
    /// It leaves by a device to a neighbour, with its hop limit decremented.
    Forward(u32, Address),
    /// It goes into the overlay, with its hop limit decremented.
    Tunnel(Address, u32),
    /// It goes into the overlay with its hop limit unchanged, since the stack has decremented it.
    HostTunnel(Address, u32),
    /// It drops.
    Drop(DropReason),
}

impl From<DropReason> for Expected {
    fn from(reason: DropReason) -> Self {
        Self::Drop(reason)
    }
}

/// Changes of counters by name; all others must stay. `drop N`, `rule N` (packets, by number of reason and cookie),
/// `new` `dropped` `flags` `close` `alive` (events), `opening` `tcp` `any` (entries), `tombstones` (of them),
/// `packets` (of all entries), `fragments` (datagrams remembered).
pub type Counts = &'static [(&'static str, i64)];

type Change = Rc<dyn Fn(&mut World)>;
type Look = Rc<dyn Fn(&HostMaps)>;

/// One step of a case.
#[derive(Clone)]
pub enum Step {
    /// The agent or routing changes something.
    Change(Change),
    /// Seconds pass.
    Age(u64),
    /// A packet comes.
    Packet(Box<Sent>, Expected, Counts),
    /// A packet comes that is refused and answered: dropped and counted, and this frame goes back to the pod.
    Answer(Box<Sent>, Vec<u8>, DropReason, Counts),
    /// The maps are looked at.
    Look(Look),
}

/// A world and what happens in it.
#[derive(Clone)]
pub struct Case {
    /// The world at the beginning.
    pub world: World,
    /// What happens, in order.
    pub steps: Vec<Step>,
}

impl Case {
    /// A case in a world.
    #[must_use]
    pub fn new(world: World) -> Self {
        Self { world, steps: Vec::new() }
    }

    /// A packet comes.
    #[must_use]
    pub fn packet(mut self, sent: Sent, expected: impl Into<Expected>, counts: Counts) -> Self {
        self.steps.push(Step::Packet(Box::new(sent), expected.into(), counts));
        self
    }

    /// A packet comes that is refused and answered with a frame.
    #[must_use]
    pub fn answered(mut self, sent: Sent, answer: Vec<u8>, reason: DropReason, counts: Counts) -> Self {
        self.steps.push(Step::Answer(Box::new(sent), answer, reason, counts));
        self
    }

    /// Something changes.
    #[must_use]
    pub fn change(mut self, change: impl Fn(&mut World) + 'static) -> Self {
        self.steps.push(Step::Change(Rc::new(change)));
        self
    }

    /// Time passes.
    #[must_use]
    pub fn age(mut self, seconds: u64) -> Self {
        self.steps.push(Step::Age(seconds));
        self
    }

    /// The maps must be as a closure asserts.
    #[must_use]
    pub fn look(mut self, look: impl Fn(&HostMaps) + 'static) -> Self {
        self.steps.push(Step::Look(Rc::new(look)));
        self
    }

    /// The record that the last packet left must be as a closure asserts.
    #[must_use]
    pub fn event(self, look: impl Fn(&EventRecord) + 'static) -> Self {
        self.look(move |maps| look(maps.events.borrow().last().expect("the last packet left a record")))
    }

    /// Runs the case on the host.
    ///
    /// # Panics
    /// Something is not as expected; the message says at which step, counted from 1.
    pub fn run(self) {
        let mut world = self.world;
        for (index, step) in self.steps.into_iter().enumerate() {
            match step {
                Step::Change(change) => change(&mut world),
                Step::Age(seconds) => world.age(seconds),
                Step::Look(look) => look(&world.maps),
                Step::Answer(sent, answer, reason, counts) => {
                    if let Err(problem) = check_answer(&world, &sent, &answer, reason, counts) {
                        panic!("step {}: {problem}", index + 1);
                    }
                }
                Step::Packet(sent, expected, counts) => {
                    if let Err(problem) = check(&world, &sent, expected, counts) {
                        panic!("step {}: {problem}", index + 1);
                    }
                }
            }
        }
    }
}

/// Sends a packet through a world and compares with what is expected.
fn check(world: &World, sent: &Sent, expected: Expected, counts: Counts) -> Result<(), String> {
    let before = Tally::of(&world.maps);
    let (result, after) = world.send(sent);
    let got = match result {
        Ok(action) => Ok(action),
        Err(dropped) => Err(dropped.reason().ok_or("a drop without a reason")?),
    };
    if got != wanted(expected) {
        return Err(format!("{got:?} instead of {expected:?}"));
    }
    let bytes = rewritten(&sent.packet.bytes, expected);
    if after.bytes != bytes {
        return Err(format!("bytes are\n{:02x?}\ninstead of\n{bytes:02x?}", after.bytes));
    }
    if matches!(expected, Expected::Stack | Expected::Answer)
        && after.answer != (expected == Expected::Answer || sent.packet.answer)
    {
        return Err(format!("the mark of an answer is {}", after.answer));
    }
    if matches!(expected, Expected::Pod(_)) && (!after.prepared || after.marked) {
        return Err(String::from("not prepared for the pod: packet type and mark"));
    }
    Tally::of(&world.maps).compare(&before, counts, &sent.packet)
}

/// Sends a packet that must be refused, reported and answered.
fn check_answer(
    world: &World,
    sent: &Sent,
    answer: &[u8],
    reason: DropReason,
    counts: Counts,
) -> Result<(), String> {
    let before = Tally::of(&world.maps);
    let (result, after) = world.send(sent);
    if result != Ok(Action::Endpoint { ifindex: sent.packet.interface }) || !after.prepared {
        return Err(format!("{result:?} instead of an answer to the sender"));
    }
    if after.bytes != answer {
        return Err(format!("the answer is\n{:02x?}\ninstead of\n{answer:02x?}", after.bytes));
    }
    let events = world.maps.events.borrow();
    if events.last().map(|record| record.reason) != Some(reason as u16) {
        return Err(format!("the drop is not reported as {reason:?}: {:?}", events.last()));
    }
    Tally::of(&world.maps).compare(&before, counts, &sent.packet)
}

fn wanted(expected: Expected) -> Result<Action, DropReason> {
    Ok(match expected {
        Expected::Stack | Expected::Answer => Action::Stack,
        Expected::Pod(pod) => Action::Endpoint { ifindex: pod.ifindex },
        Expected::Forward(ifindex, next_hop) => Action::Forward { ifindex, next_hop },
        Expected::Tunnel(remote, vni) | Expected::HostTunnel(remote, vni) => Action::Overlay { remote, vni },
        Expected::Drop(reason) => return Err(reason),
    })
}

/// The bytes that a packet has afterwards, worked out without the code under test: the IPv4 checksum is summed anew.
fn rewritten(bytes: &[u8], expected: Expected) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let Expected::Pod(pod) = expected {
        bytes[..6].copy_from_slice(&pod.mac);
        bytes[6..12].copy_from_slice(&pod.host_mac);
    }
    if matches!(expected, Expected::Pod(_) | Expected::Forward(..) | Expected::Tunnel(..)) {
        if bytes[12..14] == ether_type::V4.to_ne_bytes() {
            bytes[LINK_BYTES + 8] -= 1;
            let header = LINK_BYTES..LINK_BYTES + usize::from(bytes[LINK_BYTES] & 0xf) * 4;
            bytes[LINK_BYTES + 10..LINK_BYTES + 12].fill(0);
            let sum = super::build::checksum(&[&bytes[header]]);
            bytes[LINK_BYTES + 10..LINK_BYTES + 12].copy_from_slice(&sum.to_be_bytes());
        } else {
            bytes[LINK_BYTES + 7] -= 1;
        }
    }
    bytes
}

/// The length that the network header gives.
fn network_bytes(bytes: &[u8]) -> u64 {
    let field = |at: usize| u64::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
    if bytes[12..14] == ether_type::V4.to_ne_bytes() {
        field(LINK_BYTES + 2)
    } else {
        field(LINK_BYTES + 4) + 40
    }
}

/// All that packets count, by name, and the bytes beside it.
#[derive(Clone, Debug, Default)]
struct Tally {
    counts: BTreeMap<String, i64>,
    bytes: BTreeMap<String, u64>,
}

impl Tally {
    fn of(maps: &HostMaps) -> Self {
        let mut tally = Self::default();
        for (reason, count) in &*maps.drops.borrow() {
            tally.add(format!("drop {reason}"), count.packets as i64);
            tally.bytes.insert(format!("drop {reason}"), count.bytes);
        }
        for (cookie, count) in &*maps.rules.borrow() {
            tally.add(format!("rule {cookie}"), count.packets as i64);
            tally.bytes.insert(format!("rule {cookie}"), count.bytes);
        }
        for record in &*maps.events.borrow() {
            let name = match record.kind {
                event::kind::NEW => "new",
                event::kind::DROP => "dropped",
                event::kind::FLAGS => "flags",
                event::kind::CLOSE => "close",
                event::kind::ALIVE => "alive",
                _ => "event of no kind",
            };
            tally.add(String::from(name), 1);
        }
        for ((table, _), entry) in &*maps.connections.borrow() {
            let name = match table {
                CtTable::TcpOpening => "opening",
                CtTable::Tcp => "tcp",
                CtTable::Any => "any",
            };
            tally.add(String::from(name), 1);
            if entry.verdict == verdict::DENY {
                tally.add(String::from("tombstones"), 1);
            }
            for half in &entry.halves {
                tally.add(String::from("packets"), half.packets.get() as i64);
                *tally.bytes.entry(String::from("packets")).or_default() += half.bytes.get();
            }
        }
        tally.add(String::from("fragments"), maps.fragments.borrow().len() as i64);
        tally
    }

    fn add(&mut self, name: String, count: i64) {
        *self.counts.entry(name).or_default() += count;
    }

    fn compare(&self, before: &Self, listed: Counts, packet: &HostPacket) -> Result<(), String> {
        let names = self.counts.keys().chain(before.counts.keys());
        let mut changes: BTreeMap<&str, i64> = BTreeMap::new();
        for name in names {
            let change = self.counts.get(name).unwrap_or(&0) - before.counts.get(name).unwrap_or(&0);
            if change != 0 {
                changes.insert(name, change);
            }
        }
        let listed: BTreeMap<&str, i64> = listed.iter().copied().collect();
        if changes != listed {
            return Err(format!("counters change by {changes:?} instead of {listed:?}"));
        }
        for (name, change) in listed {
            let Some(bytes) = self.bytes.get(name) else { continue };
            if change <= 0 {
                continue;
            }
            let bytes = bytes - before.bytes.get(name).unwrap_or(&0);
            // A rule and a drop count the frame, each time that it is judged; a connection the packet by its own
            // length, once, whatever number of segments it is.
            let frame = packet.bytes.len() as u64;
            let wanted = if name == "packets" { network_bytes(&packet.bytes) } else { frame * change as u64 };
            if bytes != wanted {
                return Err(format!("{name} counts {bytes} bytes instead of {wanted}"));
            }
        }
        Ok(())
    }
}
