//! Over which families two ends meet, and with which addresses: a pod with IPv4 and IPv6 is judged over both, since CIDRs
//! and the world are of one each. Where nobody knows an address, none is made up to be shown: an identity alone is judged.
//!
//! Neighbours: `bench.rs` finds the ends, `explain.rs` judges each meeting.

use std::net::IpAddr;

use sinew_api::identity::Identity;

use super::bench::Bench;
use super::party::{End, Standing};
use super::{Family, Query};
use crate::numbers::Place;
use crate::policy::classes;

/// Addresses outside the cluster, for the world in general. The one with the shortest policy prefix around it is taken.
const ANYWHERE: [&str; 6] =
    ["192.0.2.1", "198.51.100.1", "203.0.113.1", "192.88.99.1", "2001:db8::1", "3fff::1"];

/// Two ends with the addresses of one family.
pub(super) struct Meeting {
    /// `None` where they have none in common.
    pub(super) family: Option<Family>,
    pub(super) from: End,
    pub(super) to: End,
}

impl Bench {
    /// All ways in which two ends can meet, at least one, and what must be said of them.
    pub(super) fn meetings(&self, from: &End, to: &End, query: &Query) -> (Vec<Meeting>, Vec<String>) {
        let mut notes = Vec::new();
        let common: Vec<Family> = Family::BOTH
            .into_iter()
            .filter(|family| self.families(from).contains(family) && self.families(to).contains(family))
            .collect();
        let asked = match query.protocol {
            Some(1) => Some(Family::V4),
            Some(58) => Some(Family::V6),
            _ => query.family,
        };
        let wanted: Vec<Family> =
            common.iter().copied().filter(|family| asked.is_none_or(|asked| asked == *family)).collect();
        if wanted.is_empty() {
            let family = match asked {
                Some(family) if !common.is_empty() => format!("{family} address"),
                _ => "family of addresses".to_owned(),
            };
            notes.push(format!(
                "there is no {family} that both {} and {} have, so nothing like this can pass between them; what \
                 stands here is what policies say of it",
                from.name, to.name
            ));
        }
        let meet = |family: Option<Family>| {
            let v4 = family.or(asked).or(common.first().copied()) != Some(Family::V6);
            let [from, to] = [from, to].map(|end| self.at(end, v4));
            Meeting { family, from, to }
        };
        let mut meetings: Vec<Meeting> = wanted.into_iter().map(|family| meet(Some(family))).collect();
        if meetings.is_empty() {
            meetings.push(meet(None));
        }
        for end in [from, to].into_iter().filter(|end| end.pod.is_none() && end.addresses.len() > 1) {
            let picked: Vec<IpAddr> = meetings
                .iter()
                .map(
                    |meeting| if std::ptr::eq(end, from) { meeting.from.address } else { meeting.to.address },
                )
                .filter(|address| self.engine.is_scattered(end.identity, address.is_ipv4()))
                .collect();
            if !picked.is_empty() {
                let picked: Vec<String> = picked.iter().map(ToString::to_string).collect();
                notes.push(format!(
                    "{} has several addresses, and CIDRs tell them apart: what stands here is said of {}; ask for an address \
                     to hear of another",
                    end.name,
                    picked.join(" and ")
                ));
            }
        }
        for pick in [|meeting: &Meeting| meeting.from.clone(), |meeting: &Meeting| meeting.to.clone()] {
            let unknown = meetings.iter().map(pick).find(|end| end.standing == Standing::Unknown);
            notes.extend(unknown.map(|end| {
                format!(
                    "no address of {} is known here, so it is judged by its identity alone, without CIDRs",
                    end.name
                )
            }));
        }
        (meetings, notes)
    }

    /// Families that an end has, or could have.
    fn families(&self, end: &End) -> Vec<Family> {
        let has = |family: Family| {
            let mut addresses = end.addresses.iter().chain(&end.lent);
            match end.identity {
                Identity::WORLD_IPV4 => family == Family::V4,
                Identity::WORLD_IPV6 => family == Family::V6,
                _ if end.addresses.is_empty() && end.lent.is_empty() => {
                    self.engine.has_family(family == Family::V4)
                }
                _ => addresses.any(|address| Family::of(*address) == family),
            }
        };
        Family::BOTH.into_iter().filter(|family| has(*family)).collect()
    }

    /// An end with an address of a family, or with another where it has none of that one.
    fn at(&self, end: &End, v4: bool) -> End {
        let mut end = end.clone();
        let pick = |addresses: &[IpAddr]| {
            let of_family = addresses.iter().find(|address| address.is_ipv4() == v4);
            of_family.or(addresses.first()).copied()
        };
        let world = matches!(end.identity, Identity::WORLD | Identity::WORLD_IPV4 | Identity::WORLD_IPV6);
        (end.address, end.standing) = match (pick(&end.addresses), pick(&end.lent)) {
            (Some(own), _) => (own, Standing::Own),
            (None, Some(lent)) => (lent, Standing::Lent),
            (None, None) if world => (self.anywhere(end.identity, v4), Standing::General),
            (None, None) if v4 => (IpAddr::from([0; 4]), Standing::Unknown),
            (None, None) => (IpAddr::from([0; 16]), Standing::Unknown),
        };
        // World is a number for each family where the node has both.
        if end.identity == Identity::WORLD {
            end.identity = self.engine.world_identity(end.address);
        }
        end
    }

    /// An address for the world in general: the place where CIDRs say least.
    fn anywhere(&self, identity: Identity, v4: bool) -> IpAddr {
        let v4 = match identity {
            Identity::WORLD_IPV4 => true,
            Identity::WORLD_IPV6 => false,
            _ => v4,
        };
        let candidates = ANYWHERE.iter().filter_map(|text| text.parse::<IpAddr>().ok());
        let prefix_len = |address: &IpAddr| match classes::class_of(self.engine.trie(), *address) {
            Some(class) if class.place == Place::World => i32::from(class.prefix.prefix_len()),
            Some(_) => i32::MAX,
            None => -1,
        };
        candidates
            .filter(|address| address.is_ipv4() == v4)
            .min_by_key(prefix_len)
            .expect("there are addresses of both families in the list")
    }
}
