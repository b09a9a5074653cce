//! Numbers that live on this node only and survive a restart: rule cookies and address classes. Connections that were
//! judged before a restart carry them, so a number never gets a second meaning (policy.md 18).
//!
//! The engine gives every new number out as a [`Change::Remember`](crate::Change::Remember) before anything uses it;
//! the agent appends it to a file, and hands all of them back when it starts.

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
        let number = self.classes.last().map_or(FIRST_CLASS, |last| last + 1);
        self.classes.insert(number, *class);
        self.fresh.push(Record::Class(Identity(number), *class));
        Identity(number)
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

    fn last(&self) -> Option<N> {
        self.by_number.last_key_value().map(|(number, _)| *number)
    }
}
