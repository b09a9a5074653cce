//! Changes on their way into the kernel and into files, in the engine's order.
//!
//! A change that fails stays at the head and is tried again; what is behind it waits, since the order carries the
//! guarantees of datapath.md 4 and 17. Three kinds may be passed over and tried again by themselves, because without them
//! packets only drop by name: an address or range that does not resolve, and an identity that is not KNOWN. The files of
//! policies catch up by themselves.
//!
//! Neighbours: `super` pushes what the engine wants, `crate::datapath` and [`super::files`] do it.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use ipnet::IpNet;
use sinew_api::identity::Identity;
use sinew_api::labels::Labels;
use sinew_engine::{Change, EndpointId};

use super::files::NodeFiles;
use crate::datapath::{Applied, DatapathError};

/// Writes changes into the kernel and says how many it did before one failed: `Datapath::apply`, or a test's list.
pub(super) type Apply<'a> = &'a mut dyn FnMut(&[Change]) -> Applied;

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
        while !self.queue.is_empty() {
            let outcome = match self.kernels_at_head() {
                0 => self.step(files, &mut done),
                run => self.write(run, apply, &mut done),
            };
            if let Err(Stuck(message)) = outcome {
                failure = Some(message);
                break;
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

    /// Has the word of an endpoint say "drop" that the engine has closed, if it does not yet because something holds the
    /// changes back, and lets go of what waits about it. True if something did: what it was in the way of can go on.
    ///
    /// To drop earlier than its turn opens nothing. What stays behind is that its address resolves for longer; nobody gets
    /// the address meanwhile, since no ADD begins while changes are held back.
    ///
    /// # Errors
    /// [`DatapathError`]; everything waits as it did.
    pub(super) fn close(&mut self, id: EndpointId, apply: Apply<'_>) -> Result<bool, DatapathError> {
        let closing = Change::EndpointClosed(id);
        if !self.queue.contains(&closing) {
            return Ok(false);
        }
        apply(&[closing, Change::Grace]).all()?;
        self.queue.retain(|change| endpoint(change) != Some(id));
        Ok(true)
    }

    /// How many changes at the head are the kernel's alone.
    fn kernels_at_head(&self) -> usize {
        self.queue.iter().take_while(|change| is_kernels(change)).count()
    }

    /// Writes a run of the kernel's changes, the whole of it at once: the datapath waits for one grace period at its end.
    /// What was done before one failed is not done again.
    fn write(&mut self, mut run: usize, apply: Apply<'_>, done: &mut Done) -> Result<(), Stuck> {
        while run > 0 {
            let Applied { count, failure } = apply(&self.queue.make_contiguous()[..run]);
            let count = count.min(run);
            self.queue.drain(..count).for_each(|change| note(&change, &mut self.passed_over, done));
            run -= count;
            let Some(error) = failure else { return Ok(()) };
            let Some(change) = self.queue.pop_front() else { return Ok(()) };
            let Some(key) = key(&change) else {
                self.queue.push_front(change);
                return Err(Stuck(error.to_string()));
            };
            tracing::warn!(message = %error, "a change is passed over and tried again");
            self.passed_over.insert(key, change);
            run = run.saturating_sub(1);
        }
        Ok(())
    }

    /// Does the first change, which is not the kernel's, by itself.
    fn step(&mut self, files: &mut NodeFiles, done: &mut Done) -> Result<(), Stuck> {
        let Some(change) = self.queue.front() else { return Ok(()) };
        match change {
            // What is behind it carries the number: in the kernel and not on disk, the next agent would give it to somebody
            // else, and entries that are there would judge for him.
            Change::Remember(record) => files.remember(record).map_err(|error| Stuck(error.to_string()))?,
            // These hold nothing back: a disk that takes no file must not keep a policy out of the kernel.
            Change::PolicyValid(policy) => files.keep_policy(policy),
            Change::PolicyGone(name) => files.forget_policy(name),
            _ => {}
        }
        if let Some(change) = self.queue.pop_front() {
            note(&change, &mut self.passed_over, done);
        }
        Ok(())
    }

    fn retry_passed_over(&mut self, apply: Apply<'_>, done: &mut Done) -> Option<String> {
        let mut failure = None;
        for (key, change) in std::mem::take(&mut self.passed_over) {
            match apply(&[change.clone(), Change::Generation]).failure {
                None => note(&change, &mut self.passed_over, done),
                Some(error) => {
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

/// The endpoint that a change is about, if it is about one.
fn endpoint(change: &Change) -> Option<EndpointId> {
    match change {
        Change::EndpointClosed(endpoint)
        | Change::Endpoint { endpoint, .. }
        | Change::Announce { endpoint, .. } => Some(*endpoint),
        _ => None,
    }
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
    use std::sync::Arc;

    use sinew_api::object::{Object, decode_text};
    use sinew_bpf::abi::IpcacheEntry;
    use sinew_engine::{Cause, PolicyTable, Record};

    use super::*;

    /// A kernel that refuses some changes and lists the others.
    struct Kernel {
        refuses: Vec<Change>,
        done: Vec<Change>,
    }

    impl Kernel {
        fn apply(&mut self, changes: &[Change]) -> Applied {
            let count = changes.iter().take_while(|change| !self.refuses.contains(change)).count();
            self.done.extend_from_slice(&changes[..count]);
            let failure = (count < changes.len()).then_some(DatapathError::NoSlot { capacity: 1 });
            Applied { count, failure }
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
        assert!(backlog.failure().unwrap().contains("tables are taken"));
        assert!(!kernel.done.contains(&Change::KnownAdd(Identity(300))));

        kernel.refuses.clear();
        let done = run(&mut backlog, &mut kernel);
        assert_eq!((done.revision, done.known), (Some(7), vec![Identity(300)]));
        assert!(backlog.is_settled() && backlog.failure().is_none());
    }

    fn enforced(id: u16) -> Change {
        Change::Endpoint {
            endpoint: EndpointId(id),
            identity: Identity(300),
            table: Arc::new(PolicyTable::default()),
        }
    }

    #[test]
    fn an_endpoint_closes_while_others_are_held_back() {
        let closed = |id| Change::EndpointClosed(EndpointId(id));
        let mut kernel = Kernel { refuses: vec![enforced(1)], done: Vec::new() };
        let mut backlog = Backlog::default();
        backlog.push(vec![enforced(1), enforced(2), address(2)]);
        run(&mut backlog, &mut kernel);
        let close = |backlog: &mut Backlog, kernel: &mut Kernel, id| {
            backlog.close(EndpointId(id), &mut |changes| kernel.apply(changes)).unwrap()
        };
        assert!(!close(&mut backlog, &mut kernel, 2), "the engine has not closed it");

        backlog.push(vec![closed(2), Change::KnownDelete(Identity(300))]);
        run(&mut backlog, &mut kernel);
        assert_eq!(kernel.done, [], "it waits as everything does");
        assert!(close(&mut backlog, &mut kernel, 2));
        assert_eq!(kernel.done, [closed(2), Change::Grace]);
        assert!(!close(&mut backlog, &mut kernel, 2), "once is enough");

        kernel.refuses.clear();
        kernel.done.clear();
        run(&mut backlog, &mut kernel);
        let rest = [enforced(1), address(2), Change::KnownDelete(Identity(300))];
        assert_eq!(kernel.done, rest, "what had waited about it must not open it again");
    }

    #[test]
    fn an_endpoint_that_holds_the_others_back_is_let_go_of_when_it_closes() {
        let mut kernel = Kernel { refuses: vec![enforced(1)], done: Vec::new() };
        let mut backlog = Backlog::default();
        backlog.push(vec![enforced(1), Change::Revision(7)]);
        run(&mut backlog, &mut kernel);
        backlog.push(vec![Change::EndpointClosed(EndpointId(1))]);
        run(&mut backlog, &mut kernel);
        assert!(backlog.failure().is_some());
        assert!(backlog.close(EndpointId(1), &mut |changes| kernel.apply(changes)).unwrap());
        assert_eq!(run(&mut backlog, &mut kernel).revision, Some(7));
        assert!(backlog.is_settled() && backlog.failure().is_none());
    }

    #[test]
    fn what_was_done_before_a_failure_is_done_once() {
        let closed = |id| Change::EndpointClosed(EndpointId(id));
        let mut kernel = Kernel { refuses: vec![address(1), closed(50)], done: Vec::new() };
        let mut backlog = Backlog::default();
        let mut changes: Vec<Change> = (1..=60).map(closed).collect();
        changes.insert(10, address(1));
        backlog.push(changes);
        for _ in 0..3 {
            run(&mut backlog, &mut kernel);
        }
        assert_eq!(kernel.done, (1..50).map(closed).collect::<Vec<_>>());
        assert_eq!(backlog.waiting(), 12);
        kernel.refuses.clear();
        run(&mut backlog, &mut kernel);
        assert!(backlog.is_settled());
        assert_eq!(kernel.done.iter().filter(|change| **change == closed(50)).count(), 1);
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
    fn the_file_of_a_policy_holds_nothing_back() {
        let text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: team}\n\
                    spec: {podSelector: {}, policyTypes: [Ingress]}\n";
        let Ok(Object::Policy(policy)) = decode_text("x.yaml", text).remove(0) else { panic!() };
        let folder = tempfile::tempdir().unwrap();
        let (mut files, _) = NodeFiles::open(folder.path()).unwrap();
        // Nothing can be written where no folder is.
        std::fs::remove_dir(folder.path().join(crate::control::POLICIES)).unwrap();
        let mut kernel = Kernel { refuses: Vec::new(), done: Vec::new() };
        let mut backlog = Backlog::default();
        let closed = Change::EndpointClosed(EndpointId(1));
        backlog.push(vec![Change::PolicyValid(Arc::new(policy)), closed.clone(), Change::Revision(7)]);
        let done = backlog.run(&mut |changes| kernel.apply(changes), &mut files);
        assert_eq!((done.revision, &kernel.done[0]), (Some(7), &closed));
        assert!(backlog.is_settled() && backlog.failure().is_none() && files.is_behind());
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
                Applied { count: 1, failure: None }
            },
            &mut files,
        );
        assert_eq!(seen, [record]);
    }
}
