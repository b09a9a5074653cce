//! How many selected specs name a prefix: the prefixes that cut the address space (policy.md 5).
//!
//! Neighbours: `subjects.rs` counts, `order.rs` cuts.

use std::collections::BTreeMap;

use ipnet::IpNet;

/// Prefixes with the number of their users.
#[derive(Clone, Debug, Default)]
pub(super) struct PrefixCounts {
    counts: BTreeMap<IpNet, usize>,
    changed: bool,
}

impl PrefixCounts {
    /// One more user of each.
    pub(super) fn add<'a>(&mut self, prefixes: impl IntoIterator<Item = &'a IpNet>) {
        for prefix in prefixes {
            let count = self.counts.entry(*prefix).or_default();
            *count += 1;
            self.changed |= *count == 1;
        }
    }

    /// One user less of each.
    pub(super) fn remove<'a>(&mut self, prefixes: impl IntoIterator<Item = &'a IpNet>) {
        for prefix in prefixes {
            let Some(count) = self.counts.get_mut(prefix) else { continue };
            *count -= 1;
            if *count == 0 {
                self.counts.remove(prefix);
                self.changed = true;
            }
        }
    }

    /// The prefixes in use.
    pub(super) fn iter(&self) -> impl Iterator<Item = &IpNet> {
        self.counts.keys()
    }

    /// Whether a prefix came or went since the last call.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }
}
