//! A question without a port has two answers where rules name ports: that of all others, and that of those. Here are those.
//!
//! Each interval of ports between two edges (of the tables' entries, of the overlay's port) has one verdict, so one port
//! of each is asked. Neighbours: `explain.rs` asks; `bench.rs` has the tables.

use std::collections::BTreeSet;

use sinew_bpf::abi::PolicyKey;
use sinew_bpf::drop::DropReason;
use sinew_bpf::maps::Maps;
use sinew_bpf::parse::protocol;

use super::bench::Judge;
use super::{Exception, Family, Traffic, Verdict};

/// Protocols that rules can name, with the first port that can be asked for and the end of them.
const PROTOCOLS: [(u8, u32, u32); 5] =
    [(6, 1, 0x1_0000), (17, 1, 0x1_0000), (132, 1, 0x1_0000), (1, 0, 0x100), (58, 0, 0x100)];

/// Bits of a key before the port.
const BEFORE_PORT: u32 = PolicyKey::FULL_BITS - 16;

/// Both directions together.
pub(super) fn together(judges: &[&Judge], traffic: &Traffic) -> Verdict {
    let verdicts = judges.iter().map(|judge| judge.of(traffic).verdict);
    verdicts.into_iter().find(|verdict| *verdict != Verdict::Allow).unwrap_or(Verdict::Allow)
}

/// Ports that pass where traffic without a port does not, or the other way round.
pub(super) fn exceptions(judges: &[&Judge], family: Option<Family>, traffic: &Traffic) -> Vec<Exception> {
    let passes = |traffic: &Traffic| together(judges, traffic) == Verdict::Allow;
    let rest = passes(traffic);
    let mut found: Vec<Exception> = Vec::new();
    for (protocol, first, end) in PROTOCOLS {
        let of_other_family = match protocol {
            1 => family == Some(Family::V6),
            58 => family == Some(Family::V4),
            _ => false,
        };
        if of_other_family || traffic.protocol.is_some_and(|asked| asked != protocol) {
            continue;
        }
        let mut edges: BTreeSet<u32> = judges.iter().flat_map(|judge| judge.edges(protocol)).collect();
        edges.insert(first);
        edges.insert(end);
        let edges: Vec<u32> = edges.into_iter().filter(|edge| (first..=end).contains(edge)).collect();
        let mut last_of: Option<u32> = None;
        for pair in edges.windows(2) {
            let (Ok(port), Ok(last)) = (u16::try_from(pair[0]), u16::try_from(pair[1] - 1)) else { continue };
            let verdict = together(judges, &Traffic { protocol: Some(protocol), port: Some(port) });
            // No rule opens the overlay's port, so it is a note of the answer and no exception from it.
            if (verdict == Verdict::Allow) == rest || verdict == Verdict::Drop(DropReason::EncapProhibited) {
                last_of = None;
                continue;
            }
            match found.last_mut().filter(|before| last_of == Some(pair[0]) && before.verdict == verdict) {
                Some(before) => before.last = last,
                None => found.push(Exception { protocol, first: port, last, verdict, family: None }),
            }
            last_of = Some(pair[1]);
        }
        // All of a protocol, whatever its ports are.
        for exception in found.iter_mut().filter(|exception| exception.protocol == protocol) {
            if (u32::from(exception.first), u32::from(exception.last) + 1) == (first, end) {
                (exception.first, exception.last) = (0, u16::MAX);
            }
        }
    }
    found
}

impl Judge {
    /// Where the verdict of a protocol's ports can change.
    fn edges(&self, protocol: u8) -> BTreeSet<u32> {
        let class = self.maps.class(&self.question.address);
        let peers = [0, class, self.question.peer];
        let entries = self.maps.policy.get(&self.question.slot).into_iter().flat_map(|table| table.keys());
        let edges = entries.filter_map(|(prefix_len, key)| {
            let bits = u32::from(*prefix_len).checked_sub(BEFORE_PORT)?;
            let of_question = key.direction == self.question.direction
                && key.protocol == protocol
                && peers.contains(&key.peer);
            let first = u32::from(u16::from_be(key.port));
            of_question.then(|| [first, first + (1 << (16 - bits))])
        });
        let forbidden = self.forbidden_port.filter(|_| protocol == protocol::UDP).map(u32::from);
        edges.chain(forbidden.map(|port| [port, port + 1])).flatten().collect()
    }
}
