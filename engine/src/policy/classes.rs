//! Address classes: which number an address has for CIDR rules (policy.md 5).
//!
//! The kernel finds one class for an address, by the longest prefix. So the prefixes of all policies that select an
//! endpoint here cut the address space into pieces, and a table has an entry for every piece that a rule's CIDR contains.
//! A piece also ends where a range of pods or the address of a node begins, because most CIDRs match only addresses outside
//! the cluster: a class is a policy prefix together with outside, node or pods. All nodes within one prefix share a class,
//! and so do all ranges of pods, so the number of classes grows with the policies, not with the cluster.
//!
//! In the kernel's trie IPv4 is part of IPv6 (`::ffff:0:0/96`), in policy it is not: where a prefix as short as `::/0` would
//! contain it, `0.0.0.0/0` gets class 0, which is none.
//!
//! Neighbours: `matcher.rs` compares CIDRs with classes, `state/order.rs` writes the trie in a safe order.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::numbers::{Class, Place};

/// Which prefixes have which class; `None` for no class.
pub(crate) type ClassTrie = BTreeMap<IpNet, Option<Class>>;

/// Cuts the address space.
pub(crate) fn cut<'a>(
    policy_prefixes: impl Iterator<Item = &'a IpNet>,
    pod_ranges: &BTreeSet<IpNet>,
    node_addresses: &BTreeSet<IpAddr>,
) -> ClassTrie {
    let prefixes = PrefixSet::new(policy_prefixes.copied());
    if prefixes.set.is_empty() {
        return ClassTrie::new();
    }
    let ranges = PrefixSet::new(pod_ranges.iter().copied());
    let place = |prefix: &IpNet| {
        if prefix.prefix_len() == prefix.max_prefix_len() && node_addresses.contains(&prefix.addr()) {
            Place::Nodes
        } else if ranges.longest(prefix).is_some() {
            Place::Pods
        } else {
            Place::World
        }
    };
    let nodes = node_addresses.iter().map(|address| IpNet::from(*address));
    let mut trie: ClassTrie = nodes
        .chain(pod_ranges.iter().copied())
        .chain(prefixes.set.iter().copied())
        .filter_map(|piece| {
            let class = Class { prefix: prefixes.longest(&piece)?, place: place(&piece) };
            Some((piece, Some(class)))
        })
        .collect();
    let all_v4 = IpNet::V4(Ipv4Net::default());
    let mapped = Ipv4Addr::UNSPECIFIED.to_ipv6_mapped();
    if prefixes.set.iter().any(|prefix| prefix.prefix_len() <= 96 && prefix.contains(&IpAddr::V6(mapped))) {
        trie.entry(all_v4).or_insert(None);
    }
    trie
}

/// The class of an address, as the kernel's trie would find it.
pub(crate) fn class_of(trie: &ClassTrie, address: IpAddr) -> Option<Class> {
    class_around(trie, &IpNet::from(address))
}

/// The class of the longest piece that contains a whole prefix.
pub(crate) fn class_around(trie: &ClassTrie, inner: &IpNet) -> Option<Class> {
    (0..=inner.prefix_len())
        .rev()
        .filter_map(|length| IpNet::new(inner.addr(), length).ok())
        .find_map(|prefix| trie.get(&prefix.trunc()))
        .copied()
        .flatten()
}

/// Prefixes that can be asked for the longest one around another.
struct PrefixSet {
    set: BTreeSet<IpNet>,
    /// Lengths that occur, by family (IPv4 first), longest first.
    lengths: [Vec<u8>; 2],
}

impl PrefixSet {
    fn new(prefixes: impl Iterator<Item = IpNet>) -> Self {
        let set: BTreeSet<IpNet> = prefixes.map(|prefix| prefix.trunc()).collect();
        let lengths = [true, false].map(|v4| {
            let lengths: BTreeSet<u8> = set
                .iter()
                .filter(|prefix| matches!(prefix, IpNet::V4(_)) == v4)
                .map(IpNet::prefix_len)
                .collect();
            lengths.into_iter().rev().collect()
        });
        Self { set, lengths }
    }

    fn longest(&self, inner: &IpNet) -> Option<IpNet> {
        let family = usize::from(matches!(inner, IpNet::V6(_)));
        self.lengths[family]
            .iter()
            .filter(|length| **length <= inner.prefix_len())
            .filter_map(|length| IpNet::new(inner.addr(), *length).ok())
            .map(|prefix| prefix.trunc())
            .find(|prefix| self.set.contains(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn class(prefix: &str, place: Place) -> Option<Class> {
        Some(Class { prefix: net(prefix), place })
    }

    #[test]
    fn a_prefix_is_cut_where_pods_and_nodes_begin() {
        let trie = cut(
            [net("0.0.0.0/0"), net("10.1.0.0/16"), net("10.2.0.5/32")].iter(),
            &[net("10.1.0.0/16"), net("10.2.0.0/16"), net("fd00::/48")].into(),
            &["192.168.0.1".parse().unwrap(), "10.2.0.9".parse().unwrap(), "fd01::1".parse().unwrap()].into(),
        );
        let of = |address: &str| class_of(&trie, address.parse().unwrap());
        assert_eq!(of("8.8.8.8"), class("0.0.0.0/0", Place::World));
        assert_eq!(of("10.1.2.3"), class("10.1.0.0/16", Place::Pods));
        assert_eq!(of("10.2.2.3"), class("0.0.0.0/0", Place::Pods));
        assert_eq!(of("10.2.0.5"), class("10.2.0.5/32", Place::Pods));
        assert_eq!(of("10.2.0.9"), class("0.0.0.0/0", Place::Nodes));
        assert_eq!(of("192.168.0.1"), class("0.0.0.0/0", Place::Nodes));
        assert_eq!(of("fd01::1"), None);
        assert_eq!(of("fd00::1"), None);
    }

    #[test]
    fn all_of_ipv6_is_not_ipv4() {
        let trie = cut([net("::/0")].iter(), &BTreeSet::new(), &BTreeSet::new());
        assert_eq!(trie.get(&net("0.0.0.0/0")), Some(&None));
        let trie = cut([net("::/0"), net("0.0.0.0/0")].iter(), &BTreeSet::new(), &BTreeSet::new());
        assert_eq!(trie.get(&net("0.0.0.0/0")), Some(&class("0.0.0.0/0", Place::World)));
        let trie = cut([net("fd00::/8")].iter(), &BTreeSet::new(), &BTreeSet::new());
        assert_eq!(trie.len(), 1);
    }

    #[test]
    fn without_policy_prefixes_nobody_has_a_class() {
        assert_eq!(cut([].iter(), &[net("10.0.0.0/8")].into(), &BTreeSet::new()), ClassTrie::new());
    }
}
