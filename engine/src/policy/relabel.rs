//! What two tables both allow: what an endpoint enforces while it moves from one label set to another (policy.md 17). And
//! what several lists of entries all allow, for one identity that stands for peers of several kinds.
//!
//! An entry of the result stands for one key, so a peer that one table allows by its identity and the other by its class
//! can't be expressed for pods and nodes, whose class says nothing about their identity: it is denied while the
//! endpoint moves. For the world it can: all its addresses have the world's identity, or the API server's, whose address
//! makes its class as strict as it is itself.
//!
//! Neighbours: `compile.rs` makes the two tables.

use std::collections::{BTreeMap, BTreeSet};

use sinew_api::identity::Identity;
use sinew_bpf::abi::{PolicyEntry, policy::verdict};

use super::l4::L4Prefix;
use crate::numbers::Direction;
use crate::table::PolicyTable;

/// The entries of one peer in one direction.
type Entries = BTreeMap<L4Prefix, PolicyEntry>;

/// What both tables allow. `outsiders` says which identities the addresses of a class outside the cluster have.
pub(crate) fn both(
    one: &PolicyTable,
    other: &PolicyTable,
    outsiders: impl Fn(Identity) -> Vec<Identity>,
) -> PolicyTable {
    if one == other {
        return one.clone();
    }
    let mut result = PolicyTable::default();
    let (one, other) = (by_peer(one), by_peer(other));
    for direction in Direction::BOTH.map(Direction::number) {
        let peers: BTreeSet<u32> =
            one.keys().chain(other.keys()).filter(|(d, _)| *d == direction).map(|(_, peer)| *peer).collect();
        for peer in peers {
            // All keys that are certainly looked up for a packet of this peer, in rising rank.
            let mut lookups: Vec<Vec<u32>> =
                outsiders(Identity(peer)).iter().map(|identity| vec![0, identity.0, peer]).collect();
            if lookups.is_empty() {
                lookups.push(if peer == 0 { vec![0] } else { vec![0, peer] });
            }
            let sides: Vec<Vec<&Entries>> = lookups
                .iter()
                .flat_map(|keys| [&one, &other].map(|table| (keys, table)))
                .map(|(keys, table)| {
                    keys.iter().filter_map(|key| table.get(&(direction, *key))).collect::<Vec<&Entries>>()
                })
                .collect();
            let prefixes: BTreeSet<L4Prefix> =
                sides.iter().flatten().flat_map(|entries| entries.keys().copied()).collect();
            for prefix in prefixes {
                let decided: Option<Vec<PolicyEntry>> =
                    sides.iter().map(|side| decide(side, prefix)).collect();
                let strictest = decided.into_iter().flatten().reduce(|one, other| stricter(&one, &other));
                let Some(entry) = strictest else { continue };
                result.entries.insert(prefix.key(peer, direction), entry);
            }
        }
    }
    result
}

/// What all of these lists of one peer's entries allow; where a list has none, it has the default. As in each of them, no
/// entry has the value of the next shorter one.
pub(crate) fn all(
    lists: &[Vec<(L4Prefix, PolicyEntry)>],
    default: &PolicyEntry,
) -> Vec<(L4Prefix, PolicyEntry)> {
    let lists: Vec<Entries> = lists.iter().map(|list| list.iter().copied().collect()).collect();
    let prefixes: BTreeSet<L4Prefix> = lists.iter().flat_map(|list| list.keys().copied()).collect();
    let mut written = Entries::new();
    for prefix in prefixes {
        let of = |list: &Entries, from: u8| {
            let found = (0..=from).rev().find_map(|bits| list.get(&prefix.widened(bits)));
            *found.unwrap_or(default)
        };
        let found = lists.iter().map(|list| of(list, prefix.bits));
        let entry = found.reduce(|one, other| stricter(&one, &other)).unwrap_or(*default);
        if entry != of(&written, prefix.bits) {
            written.insert(prefix, entry);
        }
    }
    written.into_iter().collect()
}

fn by_peer(table: &PolicyTable) -> BTreeMap<(u8, u32), Entries> {
    let mut by_peer: BTreeMap<(u8, u32), Entries> = BTreeMap::new();
    for (key, entry) in &table.entries {
        let entries = by_peer.entry((key.key.direction, key.key.peer)).or_default();
        entries.insert(L4Prefix::of_key(key), *entry);
    }
    by_peer
}

/// What the kernel would decide for all traffic of a prefix, from keys in rising rank.
fn decide(keys: &[&Entries], prefix: L4Prefix) -> Option<PolicyEntry> {
    let mut best: Option<PolicyEntry> = None;
    for entries in keys {
        let found = (0..=prefix.bits).rev().find_map(|bits| entries.get(&prefix.widened(bits)));
        let Some(found) = found else { continue };
        let Some(best) = &mut best else {
            best = Some(*found);
            continue;
        };
        if (found.precedence, found.l4_bits) >= (best.precedence, best.l4_bits) {
            best.precedence = found.precedence;
            best.verdict = found.verdict;
            best.l4_bits = found.l4_bits;
            best.cookie = found.cookie;
            best.listener = found.listener;
        }
        if (found.shadow_precedence, found.shadow_l4_bits) >= (best.shadow_precedence, best.shadow_l4_bits) {
            best.shadow_precedence = found.shadow_precedence;
            best.shadow_verdict = found.shadow_verdict;
            best.shadow_l4_bits = found.shadow_l4_bits;
            best.shadow_cookie = found.shadow_cookie;
        }
    }
    best
}

/// Allow only where both allow, with the higher of the two ranks: so a peer that both tables allow by its class is not
/// denied by what its identity alone has.
fn stricter(one: &PolicyEntry, other: &PolicyEntry) -> PolicyEntry {
    let mut entry = *one;
    let (deny, other_deny) = (one.verdict != verdict::ALLOW, other.verdict != verdict::ALLOW);
    if (other_deny && !deny) || (other_deny == deny && other.precedence > one.precedence) {
        entry.precedence = other.precedence;
        entry.verdict = other.verdict;
        entry.l4_bits = other.l4_bits;
        entry.cookie = other.cookie;
    }
    let (deny, other_deny) = (one.shadow_verdict != verdict::ALLOW, other.shadow_verdict != verdict::ALLOW);
    if (other_deny && !deny) || (other_deny == deny && other.shadow_precedence > one.shadow_precedence) {
        entry.shadow_precedence = other.shadow_precedence;
        entry.shadow_verdict = other.shadow_verdict;
        entry.shadow_l4_bits = other.shadow_l4_bits;
        entry.shadow_cookie = other.shadow_cookie;
    }
    entry
}
