//! Changes on their way into the kernel and into files, in the engine's order.
//!
//! A change that fails stays at the head and is tried again; what is behind it waits, since the order carries the
//! guarantees of datapath.md 4 and 17. Three kinds may be passed over and tried again by themselves, because without them
//! packets only drop by name: an address or range that does not resolve, and an identity that is not KNOWN.
//!
//! Neighbours: `super` pushes what the engine wants, `crate::datapath` and [`super::files`] do it.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use ipnet::IpNet;
use sinew_api::identity::Identity;
use sinew_api::labels::Labels;
use sinew_engine::{Change, EndpointId};

use super::files::NodeFiles;
use crate::datapath::DatapathError;

/// Writes changes into the kernel: `Datapath::apply`, or a test's list.
pub(super) type Apply<'a> = &'a mut dyn FnMut(&[Change]) -> Result<(), DatapathError>;

/// What waits, and what went wrong.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    queue: VecDeque<Change>,
    passed_over: BTreeMap<Key, Change>,
    failure: Option<String>,
}

/// What was done that others must hear of.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Done {
    /// Numbers to ask the store for.
    pub(super) allocate: Vec<Labels>,
    /// Identities to tell the other nodes of.
    pub(super) announce: Vec<(EndpointId, Identity)>,
    /// Identities that this node's tables hold from now on.
    pub(super) known: Vec<Identity>,
    /// The revision that is enforced from now on.
    pub(super) revision: Option<u64>,
}

/// What a change that may be passed over is about. A later change about the same thing takes its place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Address(IpAddr),
    Range(IpNet),
    Known(Identity),
}

impl Backlog {
    pub(super) fn push(&mut self, changes: Vec<Change>) {
        self.queue.extend(changes);
    }

    /// Whether everything that the engine wants is so.
    pub(super) fn is_settled(&self) -> bool {
        self.queue.is_empty() && self.passed_over.is_empty()
    }

    /// Changes that the kernel and the files don't have yet.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len() + self.passed_over.len()
    }

    /// What keeps changes waiting.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Does what can be done now.
    pub(super) fn run(&mut self, apply: Apply<'_>, files: &mut NodeFiles) -> Done {
        let mut done = Done::default();
        let mut failure = None;
        while let Some(run) = self.next_run() {
            // The whole run at once: the datapath waits for one grace period at its end.
            let whole: Vec<Change> = self.queue.iter().take(run).cloned().collect();
            if run > 0 && apply(&whole).is_ok() {
                self.queue.drain(..run).for_each(|change| note(&change, &mut self.passed_over, &mut done));
                continue;
            }
            match self.step(apply, files, &mut done) {
                Ok(()) => {}
                Err(Stuck(message)) => {
                    failure = Some(message);
                    break;
                }
            }
        }
        if failure.is_none() {
            failure = self.retry_passed_over(apply, &mut done);
        }
        if failure != self.failure {
            match &failure {
                Some(message) => {
                    tracing::error!(message, waiting = self.queue.len(), "the datapath refuses a change")
                }
                None => tracing::info!("all changes are in the datapath"),
            }
            self.failure = failure;
        }
        done
    }

    /// How many changes at the head are the kernel's alone; 0 if the first is not; none if nothing waits.
    fn next_run(&self) -> Option<usize> {
        (!self.queue.is_empty()).then(|| self.queue.iter().take_while(|change| is_kernels(change)).count())
    }

    /// Does the first change by itself.
    fn step(&mut self, apply: Apply<'_>, files: &mut NodeFiles, done: &mut Done) -> Result<(), Stuck> {
        let Some(change) = self.queue.front() else { return Ok(()) };
        let outcome = match change {
            Change::Remember(record) => files.remember(record).map_err(|error| error.to_string()),
            Change::PolicyValid(policy) => files.keep_policy(policy).map_err(|error| error.to_string()),
            Change::PolicyGone(name) => files.forget_policy(name).map_err(|error| error.to_string()),
            Change::AllocateIdentity(_) | Change::Announce { .. } => Ok(()),
            _ => apply(std::slice::from_ref(change)).map_err(|error| error.to_string()),
        };
        match (outcome, self.queue.pop_front()) {
            (Ok(()), Some(change)) => note(&change, &mut self.passed_over, done),
            (Err(message), Some(change)) => match key(&change) {
                Some(key) => {
                    tracing::warn!(message, "a change is passed over and tried again");
                    self.passed_over.insert(key, change);
                }
                None => {
                    self.queue.push_front(change);
                    return Err(Stuck(message));
                }
            },
            (_, None) => {}
        }
        Ok(())
    }

    fn retry_passed_over(&mut self, apply: Apply<'_>, done: &mut Done) -> Option<String> {
        let mut failure = None;
        for (key, change) in std::mem::take(&mut self.passed_over) {
            match apply(&[change.clone(), Change::Generation]) {
                Ok(()) => note(&change, &mut self.passed_over, done),
                Err(error) => {
                    failure = Some(error.to_string());
                    self.passed_over.insert(key, change);
                }
            }
        }
        failure
    }
}

/// The first change can't be done and must not be passed over.
struct Stuck(String);

/// Notes a change that was done.
fn note(change: &Change, passed_over: &mut BTreeMap<Key, Change>, done: &mut Done) {
    match change {
        Change::AllocateIdentity(labels) => done.allocate.push(labels.clone()),
        Change::Announce { endpoint, identity } => done.announce.push((*endpoint, *identity)),
        Change::KnownAdd(identity) => {
            passed_over.remove(&Key::Known(*identity));
            done.known.push(*identity);
        }
        Change::KnownDelete(identity) => drop(passed_over.remove(&Key::Known(*identity))),
        Change::IpcacheSet(address, _) | Change::IpcacheDelete(address) => {
            passed_over.remove(&Key::Address(*address));
        }
        Change::RangeSet(range, _) | Change::RangeDelete(range) => {
            drop(passed_over.remove(&Key::Range(*range)))
        }
        Change::Revision(revision) => done.revision = Some(*revision),
        Change::Remember(_)
        | Change::PolicyValid(_)
        | Change::PolicyGone(_)
        | Change::EndpointClosed(_)
        | Change::Endpoint { .. }
        | Change::Grace
        | Change::ClassSet(..)
        | Change::ClassDelete(_)
        | Change::Generation => {}
    }
}

fn is_kernels(change: &Change) -> bool {
    !matches!(
        change,
        Change::Remember(_)
            | Change::PolicyValid(_)
            | Change::PolicyGone(_)
            | Change::AllocateIdentity(_)
            | Change::Announce { .. }
    )
}

/// The key of a change without which packets only drop by name.
fn key(change: &Change) -> Option<Key> {
    match change {
        Change::IpcacheSet(address, _) => Some(Key::Address(*address)),
        Change::RangeSet(range, _) => Some(Key::Range(*range)),
        Change::KnownAdd(identity) => Some(Key::Known(*identity)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use sinew_bpf::abi::IpcacheEntry;
    use sinew_engine::{Cause, Record};

    use super::*;

    /// A kernel that refuses some changes and lists the others.
    struct Kernel {
        refuses: Vec<Change>,
        done: Vec<Change>,
    }

    impl Kernel {
        fn apply(&mut self, changes: &[Change]) -> Result<(), DatapathError> {
            for change in changes {
                if self.refuses.contains(change) {
                    return Err(DatapathError::NoSlot { capacity: 1 });
                }
                self.done.push(change.clone());
            }
            Ok(())
        }
    }

    fn run(backlog: &mut Backlog, kernel: &mut Kernel) -> Done {
        let folder = tempfile::tempdir().unwrap();
        let (mut files, _) = NodeFiles::open(folder.path()).unwrap();
        backlog.run(&mut |changes| kernel.apply(changes), &mut files)
    }

    fn address(last: u8) -> Change {
        Change::IpcacheSet(IpAddr::from([10, 0, 0, last]), IpcacheEntry::default())
    }

    #[test]
    fn a_change_that_fails_holds_back_what_is_behind_it() {
        let mut kernel = Kernel { refuses: vec![Change::EndpointClosed(EndpointId(2))], done: Vec::new() };
        let mut backlog = Backlog::default();
        backlog.push(vec![
            Change::EndpointClosed(EndpointId(1)),
            Change::EndpointClosed(EndpointId(2)),
            Change::KnownAdd(Identity(300)),
            Change::Revision(7),
        ]);
        let done = run(&mut backlog, &mut kernel);
        assert_eq!(done, Done::default());
        assert!(!backlog.is_settled());
        assert!(backlog.failure().unwrap().contains("slots are taken"));
        assert!(!kernel.done.contains(&Change::KnownAdd(Identity(300))));

        kernel.refuses.clear();
        let done = run(&mut backlog, &mut kernel);
        assert_eq!((done.revision, done.known), (Some(7), vec![Identity(300)]));
        assert!(backlog.is_settled() && backlog.failure().is_none());
    }

    #[test]
    fn an_address_that_fails_is_passed_over_and_tried_again() {
        let mut kernel = Kernel { refuses: vec![address(1)], done: Vec::new() };
        let mut backlog = Backlog::default();
        backlog.push(vec![address(1), address(2), Change::Revision(7)]);
        let done = run(&mut backlog, &mut kernel);
        assert_eq!(done.revision, Some(7), "others don't wait for it");
        assert!(!backlog.is_settled());
        kernel.refuses.clear();
        kernel.done.clear();
        run(&mut backlog, &mut kernel);
        assert_eq!(kernel.done, [address(1), Change::Generation]);
        assert!(backlog.is_settled());
    }

    #[test]
    fn a_later_change_takes_the_place_of_one_that_was_passed_over() {
        let mut kernel = Kernel { refuses: vec![address(1)], done: Vec::new() };
        let mut backlog = Backlog::default();
        backlog.push(vec![address(1)]);
        run(&mut backlog, &mut kernel);
        kernel.refuses.clear();
        kernel.done.clear();
        let gone = Change::IpcacheDelete(IpAddr::from([10, 0, 0, 1]));
        backlog.push(vec![gone.clone()]);
        run(&mut backlog, &mut kernel);
        assert_eq!(kernel.done, [gone], "the address must not come back");
    }

    #[test]
    fn a_number_is_on_disk_before_the_next_change() {
        let folder = tempfile::tempdir().unwrap();
        let (mut files, _) = NodeFiles::open(folder.path()).unwrap();
        let mut backlog = Backlog::default();
        let record = Record::Cookie(1, Cause::LocalHost);
        backlog.push(vec![Change::Remember(record.clone()), Change::EndpointClosed(EndpointId(1))]);
        let mut seen = Vec::new();
        backlog.run(
            &mut |changes| {
                assert_eq!(changes.len(), 1);
                seen = NodeFiles::open(folder.path()).unwrap().1.numbers;
                Ok(())
            },
            &mut files,
        );
        assert_eq!(seen, [record]);
    }
}
