//! Writes that could not be done, until they are: a folder that is full for a moment must not leave a pod without its
//! number, and one write that works says nothing about another.
//!
//! Neighbour: [`super::task`] tries them again.

use std::collections::BTreeMap;

use sinew_api::labels::Labels;
use sinew_api::object::ObjectName;

use crate::store::StoreWrite;

/// The writes, by what they are about.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    failed: BTreeMap<About, (StoreWrite, String)>,
}

/// What a write is about. A later one takes the place of an earlier one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum About {
    Node,
    Endpoint(String),
    Status(ObjectName),
    Identity(Labels),
    Unreadable,
}

impl About {
    /// Whether pods need it: their numbers, and where they are. The rest is for people to read.
    fn is_needed(&self) -> bool {
        matches!(self, Self::Node | Self::Endpoint(_) | Self::Identity(_))
    }

    /// Nothing for what the control loop asks for again by itself, and for what may be wrong by then: a number may have
    /// somebody again, and an object a status.
    fn of(write: &StoreWrite) -> Option<Self> {
        Some(match write {
            StoreWrite::Look(_) | StoreWrite::ReleaseIdentity(_) | StoreWrite::KeepStatuses(_) => {
                return None;
            }
            StoreWrite::Node(_) => Self::Node,
            StoreWrite::Endpoint(endpoint) => Self::Endpoint(endpoint.name.clone()),
            StoreWrite::EndpointGone(name) => Self::Endpoint(name.clone()),
            StoreWrite::Status(status) => Self::Status(status.name.clone()),
            StoreWrite::StatusGone(name) => Self::Status(name.clone()),
            StoreWrite::AllocateIdentity(labels) => Self::Identity(labels.clone()),
            StoreWrite::Unreadable(_) => Self::Unreadable,
        })
    }
}

impl Wanted {
    /// A write was done.
    pub(super) fn done(&mut self, write: &StoreWrite) {
        if !self.failed.is_empty()
            && let Some(about) = About::of(write)
        {
            self.failed.remove(&about);
        }
    }

    /// A write failed. True if nobody has been told of such a failure yet.
    pub(super) fn failed(&mut self, write: StoreWrite, reason: String) -> bool {
        let news = self.failed.values().all(|(_, known)| *known != reason);
        if let Some(about) = About::of(&write) {
            self.failed.insert(about, (write, reason));
        }
        news
    }

    /// The writes to try again; those that fail again stay.
    pub(super) fn writes(&self) -> Vec<StoreWrite> {
        self.failed.values().map(|(write, _)| write.clone()).collect()
    }

    /// Whether nothing is to be tried again.
    pub(super) fn is_empty(&self) -> bool {
        self.failed.is_empty()
    }

    /// What is wrong, for `sinew status`: with what a pod needs, or with the rest.
    pub(super) fn trouble(&self, needed: bool) -> Option<String> {
        let of_sort = self.failed.iter().filter(|(about, _)| about.is_needed() == needed);
        let reasons: Vec<&String> = of_sort.map(|(_, (_, reason))| reason).collect();
        let reason = reasons.first()?;
        Some(match reasons.len() {
            1 => format!("cannot write: {reason}"),
            count => format!("{count} writes wait; the first: cannot write: {reason}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(app: &str) -> Labels {
        let mut labels = Labels::new();
        labels.insert("k8s", "app", app);
        labels
    }

    #[test]
    fn a_write_waits_until_one_about_the_same_works() {
        let mut wanted = Wanted::default();
        let (web, db) =
            (StoreWrite::AllocateIdentity(labels("web")), StoreWrite::AllocateIdentity(labels("db")));
        assert!(wanted.failed(web.clone(), "full".into()));
        assert!(!wanted.failed(StoreWrite::EndpointGone("e".into()), "full".into()), "told once");
        wanted.done(&db);
        assert_eq!(wanted.writes().len(), 2, "another write that works says nothing");
        assert_eq!(wanted.trouble(true).as_deref(), Some("2 writes wait; the first: cannot write: full"));
        assert_eq!(wanted.trouble(false), None);
        wanted.done(&StoreWrite::EndpointGone("e".into()));
        assert_eq!(wanted.writes(), std::slice::from_ref(&web));
        wanted.done(&web);
        assert!(wanted.is_empty() && wanted.trouble(true).is_none());
    }

    #[test]
    fn a_later_write_takes_the_place_of_an_earlier_one() {
        let mut wanted = Wanted::default();
        wanted.failed(StoreWrite::Unreadable(Vec::new()), "full".into());
        wanted.failed(StoreWrite::Unreadable(Vec::new()), "full".into());
        wanted.failed(StoreWrite::ReleaseIdentity(sinew_api::identity::Identity(300)), "full".into());
        assert_eq!(wanted.writes(), [StoreWrite::Unreadable(Vec::new())], "a release is asked for again");
        assert!(wanted.trouble(true).is_none() && wanted.trouble(false).is_some(), "pods need no statuses");
    }
}
