//! Random tables against a reading of policy.md 11 that looks at every entry by itself.

use std::vec::Vec;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::abi::PrefixKey;
use crate::abi::policy::precedence;
use crate::drop::DropReason;
use crate::host::{HostMaps, cut};

const SLOT: u32 = 4;
const IDENTITY: u32 = 1001;
const CLASS: u32 = 1 << 24 | 3;
const PEERS: [u32; 4] = [0, CLASS, IDENTITY, 1002];

/// An entry as a compiler writes it: a peer, a prefix of protocol and port, a verdict.
#[derive(Clone, Copy, Debug)]
struct Rule {
    bits: u8,
    key: PolicyKey,
    entry: PolicyEntry,
}

fn verdicts() -> impl Strategy<Value = (u32, u8)> {
    prop_oneof![
        Just((precedence::DEFAULT, verdict::DEFAULT_DENY)),
        Just((precedence::ALLOW, verdict::ALLOW)),
        Just((precedence::DENY, verdict::DENY)),
    ]
}

prop_compose! {
    fn rules()(
        peer in 0..4usize,
        direction in 0..2u8,
        protocol in prop_oneof![Just(6u8), Just(17u8)],
        port in prop_oneof![Just(80u16), Just(81u16), Just(8080u16), any::<u16>()],
        bits in prop_oneof![Just(0u8), 8..=24u8],
        (precedence, verdict) in verdicts(),
        (shadow_precedence, shadow_verdict) in verdicts(),
        cookie in 1..1000u32,
        shadow_cookie in 1..1000u32,
    ) -> Rule {
        let whole = PolicyKey { peer: PEERS[peer], direction, protocol, port: port.to_be() };
        let bits = PolicyKey::PEER_BITS as u8 + bits;
        let l4_bits = bits - PolicyKey::PEER_BITS as u8;
        let entry = PolicyEntry {
            precedence, shadow_precedence, verdict, shadow_verdict, l4_bits, shadow_l4_bits: l4_bits, cookie, shadow_cookie,
            ..PolicyEntry::default()
        };
        Rule { bits, key: cut(&whole, bits), entry }
    }
}

/// A table: the rules, of equal keys the last one, and what a complete table has for any peer.
fn table(rules: &[Rule]) -> HostMaps {
    let mut maps = HostMaps { known: [IDENTITY].to_vec(), ..HostMaps::new() };
    maps.classes.insert(PrefixKey { prefix_len: 0, address: Address::NONE }, CLASS);
    let table = maps.policy.entry(SLOT).or_default();
    for direction in [0, 1] {
        let key = PolicyKey { direction, ..PolicyKey::default() };
        table.insert((PolicyKey::PEER_BITS as u8, key), PolicyEntry::default());
    }
    for rule in rules {
        table.insert((rule.bits, rule.key), rule.entry);
    }
    maps
}

fn question(direction: u8, protocol: u8, port: u16) -> Question {
    let address = Address::v4(u32::from_ne_bytes([192, 0, 2, 7]));
    Question { slot: SLOT, direction, peer: IDENTITY, address, protocol, port: port.to_be() }
}

/// Of the peer's keys, 0 any, 1 its class, 2 its identity, each entry that the longest prefix finds.
fn found(maps: &HostMaps, question: &Question) -> Vec<(u8, PolicyEntry)> {
    let mut found = Vec::new();
    for (order, peer) in [0, CLASS, IDENTITY].into_iter().enumerate() {
        let longest = maps.policy[&SLOT]
            .iter()
            .filter(|((bits, key), _)| {
                let asked = PolicyKey {
                    peer,
                    direction: question.direction,
                    protocol: question.protocol,
                    port: question.port,
                };
                *key == cut(&asked, *bits)
            })
            .max_by_key(|((bits, _), _)| *bits);
        found.extend(longest.map(|(_, entry)| (order as u8, *entry)));
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Higher precedence, then longer protocol and port prefix, then identity before class before any; the shadow verdict
    /// by the same rule over its own values.
    #[test]
    fn the_answer_is_the_best_of_what_is_found(
        rules in vec(rules(), 0..12), direction in 0..2u8, protocol in prop_oneof![Just(6u8), Just(17u8)],
        port in prop_oneof![Just(80u16), Just(8080u16), any::<u16>()],
    ) {
        let (maps, question) = (table(&rules), question(direction, protocol, port));
        let mut answer = Answer::default();
        prop_assert!(ask(&maps, &question, &mut answer).is_ok());
        let found = found(&maps, &question);
        let best = found.iter().max_by_key(|(key, entry)| (entry.precedence, entry.l4_bits, *key)).unwrap();
        prop_assert_eq!(answer.verdict, best.1.verdict);
        prop_assert_eq!(answer.cookie, best.1.cookie);
        prop_assert_eq!(answer.matches, best.0 << 5 | best.1.l4_bits);
        let shadow = found.iter().max_by_key(|(key, entry)| (entry.shadow_precedence, entry.shadow_l4_bits, *key)).unwrap();
        prop_assert_eq!(answer.shadow_verdict, shadow.1.shadow_verdict);
        prop_assert_eq!(answer.shadow_cookie, shadow.1.shadow_cookie);
    }

    /// CVE-2024-47825: what one key denies no other key allows, however narrow the allowance is.
    #[test]
    fn a_denial_is_never_shadowed_by_another_key(
        rules in vec(rules(), 0..12), peer in 0..3usize, bits in prop_oneof![Just(0u8), 8..=24u8], port in any::<u16>(),
    ) {
        let question = question(0, 17, port);
        let whole = PolicyKey { peer: PEERS[peer], direction: 0, protocol: 17, port: port.to_be() };
        let bits = PolicyKey::PEER_BITS as u8 + bits;
        // The compiler leaves out what the denial covers, for its own key.
        let others = rules.into_iter().filter(|rule| rule.key.peer != PEERS[peer]);
        let entry = PolicyEntry {
            precedence: precedence::DENY, verdict: verdict::DENY, cookie: 5, l4_bits: bits - 40, ..PolicyEntry::default()
        };
        let denial = Rule { bits, key: cut(&whole, bits), entry };
        let rules: Vec<Rule> = others.chain([denial]).collect();
        let mut answer = Answer::default();
        prop_assert!(ask(&table(&rules), &question, &mut answer).is_ok());
        prop_assert_eq!(answer.verdict, verdict::DENY);
        prop_assert!(!answer.allows());
        prop_assert_eq!(answer.refusal().reason(), Some(DropReason::DeniedByRule));
    }

    /// datapath.md 4: an identity that isn't known meets no entry at all.
    #[test]
    fn an_unknown_identity_meets_no_wildcard(rules in vec(rules(), 0..12), port in any::<u16>()) {
        let mut maps = table(&rules);
        maps.known.clear();
        let mut answer = Answer::default();
        let refused = ask(&maps, &question(0, 6, port), &mut answer).unwrap_err();
        prop_assert_eq!(refused.reason(), Some(DropReason::InvalidIdentity));
        prop_assert_eq!(answer, Answer::default());
    }
}

#[test]
fn a_slot_without_a_table_is_not_ready() {
    let maps = HostMaps { known: [IDENTITY].to_vec(), ..HostMaps::new() };
    let refused = ask(&maps, &question(0, 6, 80), &mut Answer::default()).unwrap_err();
    assert_eq!(refused.reason(), Some(DropReason::EndpointNotReady));
}
