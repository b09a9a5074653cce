//! Addresses and prefixes of a filter.

use std::net::IpAddr;

use ipnet::IpNet;

/// Addresses and prefixes, of which one must hold an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    single: Vec<IpAddr>,
    prefixes: Vec<IpNet>,
}

impl Addresses {
    /// One address or one prefix.
    pub(super) fn parse(value: &str) -> Result<Self, String> {
        let problem = || format!("{value:?} is no address and no prefix");
        if value.contains('/') {
            Ok(Self { prefixes: vec![value.parse().map_err(|_| problem())?], ..Self::default() })
        } else {
            Ok(Self { single: vec![value.parse().map_err(|_| problem())?], ..Self::default() })
        }
    }

    /// Whether one of them holds the address. What is no address is held by none.
    pub(super) fn contain(&self, address: &str) -> bool {
        let Ok(address) = address.parse() else { return false };
        self.single.contains(&address) || self.prefixes.iter().any(|prefix| prefix.contains(&address))
    }
}

impl FromIterator<Self> for Addresses {
    fn from_iter<I: IntoIterator<Item = Self>>(parts: I) -> Self {
        let mut all = Self::default();
        for part in parts {
            all.single.extend(part.single);
            all.prefixes.extend(part.prefixes);
        }
        all
    }
}
