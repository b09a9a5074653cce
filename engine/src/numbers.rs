//! Numbers that live on this node only and survive a restart: rule cookies and address classes. Connections that were
//! judged before a restart carry them, so a number never gets a second meaning (policy.md 18).
//!
//! The engine gives every new number out as a [`Change::Remember`](crate::Change::Remember) before anything uses it;
//! the agent appends it to a file, and hands all of them back when it starts.
//!
//! Policies come and go, so the oldest numbers are forgotten at last. A forgotten cookie means nothing any more, which
//! is what a flow then says; its cause gets a new number if it is still about.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sinew_api::identity::Identity;
use sinew_api::object::PolicyName;

/// Which way traffic goes, seen from the endpoint that enforces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// To it.
    Ingress,
    /// From it.
    Egress,
}

impl Direction {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];

    /// Its number in a policy key.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Ingress => sinew_bpf::abi::policy::direction::INGRESS,
            Self::Egress => sinew_bpf::abi::policy::direction::EGRESS,
        }
    }
}

/// What stands behind a cookie: why a verdict is what it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A rule matched.
    Rule {
        /// Its policy.
        policy: PolicyName,
        /// Its path there, such as `spec.ingress[0]`.
        path: String,
    },
    /// Nothing matched, and these policies switched default deny on. Sorted.
    DefaultDeny {
        /// For traffic of this direction.
        direction: Direction,
        /// By name.
        policies: Vec<PolicyName>,
    },
    /// Nothing matched, and the endpoint's labels aren't known yet: it is `init` (policy.md 8).
    Init,
    /// The node reaches its own pods (policy.md 7).
    LocalHost,
    /// A policy that doesn't fit into a table denies what it would have judged (policy.md 14).
    Overflow {
        /// The policy.
        policy: PolicyName,
    },
}

/// What kind of place an address belongs to, as far as a CIDR's reach asks (policy.md 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Outside the cluster.
    World,
    /// A node of the cluster.
    Nodes,
    /// A range of the cluster's pods.
    Pods,
}

/// What an address class stands for: the addresses of one kind of place whose longest policy prefix this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Class {
    /// The policy prefix.
    pub prefix: IpNet,
    /// Where the addresses belong.
    pub place: Place,
}

/// One number and what it stands for: a line of the agent's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// A rule cookie, from 1.
    Cookie(u32, Cause),
    /// An address class, of scope 1.
    Class(Identity, Class),
}

/// First number of address classes: scope 1.
const FIRST_CLASS: u32 = 1 << 24 | 1;
/// The last one.
const LAST_CLASS: u32 = (2 << 24) - 1;
/// Cookies that are remembered: as many as the kernel counts hits for, four times over. About 25 MB.
const MOST_COOKIES: usize = 262_144;
/// Classes that are remembered beside those in use.
const MOST_CLASSES: usize = 262_144;

/// All numbers given out so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Numbers {
    cookies: Bijection<u32, Cause>,
    classes: Bijection<u32, Class>,
    fresh: Vec<Record>,
}

impl Numbers {
    /// The numbers of an earlier run. A number that two records claim keeps its first meaning.
    pub(crate) fn restored(records: impl IntoIterator<Item = Record>) -> Self {
        let mut numbers = Self::default();
        for record in records {
            match record {
                Record::Cookie(number, cause) => numbers.cookies.insert(number, cause),
                Record::Class(Identity(number), class) => numbers.classes.insert(number, class),
            }
        }
        numbers
    }

    /// The cookie of a cause.
    pub(crate) fn cookie(&mut self, cause: &Cause) -> u32 {
        if let Some(cookie) = self.cookies.number(cause) {
            return cookie;
        }
        let cookie = self.cookies.last().map_or(1, |last| last + 1);
        if self.cookies.by_number.len() >= MOST_COOKIES {
            self.cookies.forget_first();
        }
        self.cookies.insert(cookie, cause.clone());
        self.fresh.push(Record::Cookie(cookie, cause.clone()));
        cookie
    }

    /// What a cookie stands for.
    pub(crate) fn cause(&self, cookie: u32) -> Option<&Cause> {
        self.cookies.meaning(cookie)
    }

    /// Every cookie with its meaning.
    pub(crate) fn causes(&self) -> impl Iterator<Item = (u32, &Cause)> {
        self.cookies.by_number.iter().map(|(number, cause)| (*number, cause))
    }

    /// Every class number with its meaning.
    pub(crate) fn classes(&self) -> impl Iterator<Item = (Identity, &Class)> {
        self.classes.by_number.iter().map(|(number, class)| (Identity(*number), class))
    }

    /// The number of an address class.
    pub(crate) fn class(&mut self, class: &Class) -> Identity {
        if let Some(number) = self.classes.number(class) {
            return Identity(number);
        }
        let next = self.classes.last().map_or(FIRST_CLASS, |last| last + 1);
        let number = if next <= LAST_CLASS { next } else { self.classes.first_gap(FIRST_CLASS) };
        self.classes.insert(number, *class);
        self.fresh.push(Record::Class(Identity(number), *class));
        Identity(number)
    }

    /// Whether there are so many classes that those not in use should be forgotten.
    pub(crate) fn has_many_classes(&self) -> bool {
        self.classes.by_number.len() > MOST_CLASSES
    }

    /// Forgets classes that aren't in use.
    pub(crate) fn forget_classes(&mut self, in_use: impl Fn(&Class) -> bool) {
        self.classes.retain(in_use);
    }

    /// Everything that is remembered, for a file that starts anew.
    pub(crate) fn records(&self) -> impl Iterator<Item = Record> {
        let cookies = self.causes().map(|(cookie, cause)| Record::Cookie(cookie, cause.clone()));
        cookies.chain(self.classes().map(|(number, class)| Record::Class(number, *class)))
    }

    /// The class behind a number.
    pub(crate) fn class_of(&self, number: Identity) -> Option<&Class> {
        self.classes.meaning(number.0)
    }

    /// Everything given out since the last call, to be remembered before it is used.
    pub(crate) fn take_fresh(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.fresh)
    }
}

/// Numbers and meanings, each once.
#[derive(Clone, Debug)]
struct Bijection<N, M> {
    by_number: BTreeMap<N, M>,
    by_meaning: HashMap<M, N>,
}

impl<N, M> Default for Bijection<N, M> {
    fn default() -> Self {
        Self { by_number: BTreeMap::new(), by_meaning: HashMap::new() }
    }
}

impl<N: Copy + Ord, M: Clone + Eq + Hash> Bijection<N, M> {
    fn insert(&mut self, number: N, meaning: M) {
        if !self.by_number.contains_key(&number) && !self.by_meaning.contains_key(&meaning) {
            self.by_number.insert(number, meaning.clone());
            self.by_meaning.insert(meaning, number);
        }
    }

    fn number(&self, meaning: &M) -> Option<N> {
        self.by_meaning.get(meaning).copied()
    }

    fn meaning(&self, number: N) -> Option<&M> {
        self.by_number.get(&number)
    }

    fn forget_first(&mut self) {
        if let Some((_, meaning)) = self.by_number.pop_first() {
            self.by_meaning.remove(&meaning);
        }
    }

    fn retain(&mut self, keep: impl Fn(&M) -> bool) {
        // The highest number stays, so that what comes after it is still new.
        let last = self.last();
        self.by_number.retain(|number, meaning| Some(*number) == last || keep(meaning));
        let Self { by_number, by_meaning } = self;
        by_meaning.retain(|_, number| by_number.contains_key(number));
    }

    fn last(&self) -> Option<N> {
        self.by_number.last_key_value().map(|(number, _)| *number)
    }
}

impl<M> Bijection<u32, M> {
    /// The lowest number from `first` on that nobody has.
    fn first_gap(&self, first: u32) -> u32 {
        let taken = self.by_number.range(first..).map(|(number, _)| *number);
        taken.zip(first..).find(|(taken, number)| taken != number).map_or(first, |(_, number)| number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(number: u32) -> Class {
        let address = std::net::Ipv4Addr::from(number);
        Class { prefix: IpNet::from(std::net::IpAddr::from(address)), place: Place::World }
    }

    #[test]
    fn a_number_keeps_its_meaning_over_a_restart() {
        let mut numbers = Numbers::default();
        let (one, two) = (numbers.cookie(&Cause::Init), numbers.cookie(&Cause::LocalHost));
        let first = numbers.class(&class(1));
        assert_eq!(first.scope(), 1);
        let records: Vec<Record> = numbers.records().collect();
        assert_eq!(numbers.take_fresh().len(), 3);
        let mut again = Numbers::restored(records);
        assert_eq!((again.cookie(&Cause::LocalHost), again.cookie(&Cause::Init)), (two, one));
        assert_eq!(again.class(&class(1)), first);
        assert!(again.class(&class(2)) > first);
        assert_eq!(again.take_fresh().len(), 1);
    }

    #[test]
    fn forgotten_numbers_are_not_given_again() {
        let mut numbers = Numbers::default();
        let cause = |number: u32| Cause::Rule {
            policy: PolicyName {
                kind: sinew_api::object::PolicyKind::NetworkPolicy,
                namespace: String::new(),
                name: number.to_string(),
            },
            path: String::new(),
        };
        for number in 0..=MOST_COOKIES as u32 {
            numbers.cookie(&cause(number));
        }
        assert_eq!(numbers.cause(1), None);
        assert_eq!(numbers.cookie(&cause(0)), MOST_COOKIES as u32 + 2);
    }

    #[test]
    fn after_the_last_class_gaps_are_filled() {
        let record = |number: u32| Record::Class(Identity(number), class(number));
        let mut numbers =
            Numbers::restored([record(FIRST_CLASS), record(FIRST_CLASS + 2), record(LAST_CLASS)]);
        assert_eq!(numbers.class(&class(7)), Identity(FIRST_CLASS + 1));
    }
}
