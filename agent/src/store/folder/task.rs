//! The loop of the store's thread: look at what may have changed, tell the control loop, write what it says.
//!
//! Everything is level-triggered: a hint makes it read a file, and what it read is compared with what it had. Besides the
//! hints it looks at all files from time to time ([`super::sweep`]), which costs a `stat` each, so that nothing is missed
//! for long where inotify says nothing (network file systems) or has no watch left.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sinew_api::identity::Identity;
use sinew_api::labels::Labels;
use sinew_api::object::{AllocatedIdentity, Endpoint, Object, ObjectKind, ObjectName};
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep_until};

use super::files::{self, Fingerprint, Reading};
use super::index::Index;
use super::sweep::Sweeps;
use super::wanted::Wanted;
use super::watch::{Hints, Watch, Watching};
use super::write::Folders;
use super::{FolderConfig, identities};
use crate::store::{Batch, StoreChange, StoreWrite, Trouble};

/// Time between two looks at every file.
const FULL_LOOK: Duration = Duration::from_secs(10);
/// The same where watching fails.
const FULL_LOOK_UNWATCHED: Duration = Duration::from_secs(1);

/// Objects of the first list that are handed on together.
const PART: usize = 1000;
/// Time between two tries of what could not be written.
const RETRY: Duration = Duration::from_secs(1);

/// What the thread begins with.
pub(super) struct Task {
    config: FolderConfig,
    folders: Folders,
    watch: Watch,
    batches: mpsc::Sender<Batch>,
    writes: mpsc::Receiver<StoreWrite>,
}

/// The loop's state.
pub(super) struct Running {
    pub(super) root: PathBuf,
    folders: Folders,
    pub(super) watch: Watching,
    batches: mpsc::Sender<Batch>,
    writes: mpsc::Receiver<StoreWrite>,
    pub(super) index: Index,
    /// By path, as the index shares it: what each file was when it was read, and the last sweep that saw it.
    pub(super) fingerprints: HashMap<Arc<str>, (Fingerprint, u32)>,
    pub(super) sweeps: Sweeps,
    /// Numbers by label set, as the folder has them; the lowest where there are several.
    numbers: BTreeMap<Labels, Identity>,
    by_number: BTreeMap<Identity, Labels>,
    pub(super) hints: Hints,
    /// Whether the kernel has ended the watch.
    pub(super) deaf: bool,
    pub(super) pending: Batch,
    /// This node's endpoints by name, as they were written last.
    own: BTreeMap<String, Box<Endpoint>>,
    /// What could not be written, and when it is tried again.
    wanted: Wanted,
    retry_at: Option<Instant>,
    pub(super) trouble: Troubles,
}

/// What keeps the store from working, by cause.
#[derive(Default)]
pub(super) struct Troubles {
    /// Nothing can be listed, or not what agents have written.
    pub(super) listing: Option<String>,
    /// Some things are not read.
    pub(super) unread: Option<String>,
    pub(super) watching: Option<String>,
    /// What a pod needs can't be written.
    writing: Option<String>,
    /// What people read can't be written.
    saying: Option<String>,
    told: Trouble,
}

impl Troubles {
    fn all(&self) -> Trouble {
        Trouble {
            failure: sentence([&self.listing, &self.writing]),
            warning: sentence([&self.unread, &self.watching, &self.saying]),
        }
    }
}

fn sentence<'a>(parts: impl IntoIterator<Item = &'a Option<String>>) -> String {
    parts.into_iter().flatten().cloned().collect::<Vec<_>>().join("; ")
}

/// What woke the loop.
enum Step {
    /// The control loop takes the batch that waits.
    Told,
    Write(StoreWrite),
    Hints(io::Result<()>),
    Due,
    Retry,
    FullLook,
    Slice,
    /// The agent has let go of the store.
    End,
}

impl Task {
    pub(super) fn new(
        config: FolderConfig,
        folders: Folders,
        watch: Watch,
        batches: mpsc::Sender<Batch>,
        writes: mpsc::Receiver<StoreWrite>,
    ) -> Self {
        Self { config, folders, watch, batches, writes }
    }

    pub(super) fn run(self) {
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(self.serve()),
            Err(error) => tracing::error!(%error, "the store's thread cannot run"),
        }
    }

    async fn serve(self) {
        let watch = match self.watch.begin() {
            Ok(watch) => watch,
            Err(error) => {
                tracing::error!(%error, "the store cannot watch its folder");
                return;
            }
        };
        let mut running = Running {
            root: self.config.path,
            folders: self.folders,
            watch,
            batches: self.batches,
            writes: self.writes,
            index: Index::restored(self.config.kept),
            fingerprints: HashMap::new(),
            sweeps: Sweeps::default(),
            numbers: BTreeMap::new(),
            by_number: BTreeMap::new(),
            hints: Hints::default(),
            deaf: false,
            pending: Batch::default(),
            own: BTreeMap::new(),
            wanted: Wanted::default(),
            retry_at: None,
            trouble: Troubles::default(),
        };
        if running.first_list().await {
            running.settle();
            running.pending.synced = true;
            running.serve().await;
        }
    }
}

impl Running {
    /// Reads everything, and hands on in parts what needs no other file to be understood: a whole large cluster at once
    /// would be in memory twice. False if nobody listens any more.
    async fn first_list(&mut self) -> bool {
        self.sweeps.want();
        let mut full = PART;
        while self.sweeps.is_under_way() {
            self.slice();
            if self.index.waiting() < full {
                continue;
            }
            let changes = self.index.settle_agents_objects();
            changes.iter().for_each(|change| self.note_identity(change));
            // What is left are people's objects, which stay until all are there.
            full = self.index.waiting() + PART;
            if !changes.is_empty() && self.batches.send(Batch { changes, ..Batch::default() }).await.is_err()
            {
                return false;
            }
        }
        true
    }

    async fn serve(&mut self) {
        let mut full_look = interval(FULL_LOOK);
        full_look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        full_look.tick().await;
        loop {
            let period = if self.trouble.watching.is_some() { FULL_LOOK_UNWATCHED } else { FULL_LOOK };
            if full_look.period() != period {
                full_look = interval(period);
                full_look.tick().await;
            }
            match self.step(&mut full_look).await {
                Step::Told => {}
                Step::Write(write) => self.write(write),
                Step::Hints(Ok(())) | Step::Due => self.follow_hints(),
                Step::Hints(Err(error)) => {
                    self.deaf = true;
                    self.trouble.watching =
                        Some(format!("inotify: {error}; files are looked at every second"));
                }
                Step::Retry => self.retry(),
                Step::FullLook if self.sweeps.is_under_way() => {}
                Step::FullLook => {
                    self.keep_own();
                    self.sweeps.want();
                }
                Step::Slice => self.slice(),
                Step::End => {
                    // What the agent said before it let go is still written.
                    while let Ok(write) = self.writes.try_recv() {
                        self.write(write);
                    }
                    self.retry();
                    return;
                }
            }
            self.settle();
        }
    }

    async fn step(&mut self, full_look: &mut Interval) -> Step {
        let due_at = self.hints.next_due();
        let waits = self.pending != Batch::default();
        tokio::select! {
            // What happened comes before a look at what may have happened.
            biased;
            permit = self.batches.reserve(), if waits => match permit {
                Ok(permit) => {
                    permit.send(std::mem::take(&mut self.pending));
                    Step::Told
                }
                Err(_) => Step::End,
            },
            write = self.writes.recv() => write.map_or(Step::End, Step::Write),
            outcome = self.watch.wait(&mut self.hints), if !self.deaf => Step::Hints(outcome),
            () = wait_until(due_at) => Step::Due,
            () = wait_until(self.retry_at) => Step::Retry,
            _ = full_look.tick() => Step::FullLook,
            // Events are heard while a task yields.
            () = yield_now(), if self.sweeps.is_under_way() && !self.sweeps.wait_for(&self.hints) => Step::Slice,
        }
    }

    fn follow_hints(&mut self) {
        for path in self.hints.take_due(Instant::now()) {
            self.look_at(&path);
        }
        for folder in std::mem::take(&mut self.hints.folders) {
            if files::reads_folder(&folder) {
                self.look_below(&folder);
            }
        }
        if std::mem::take(&mut self.hints.everything) {
            self.sweeps.want();
        }
    }

    /// Watches and reads a folder that appeared.
    fn look_below(&mut self, folder: &str) {
        let listing = files::list(&self.root, folder);
        self.watch_folders(&listing.folders);
        // Once more: a file that appeared before its folder was watched made no event.
        for path in files::list(&self.root, folder).files {
            self.look_at(&path);
        }
    }

    /// Reads a file, whatever became of it. One that has just disappeared is looked at again before it counts as gone.
    pub(super) fn look_at(&mut self, path: &str) {
        if !files::reads_file(path) {
            return;
        }
        let reading = files::read(&self.root, path);
        if matches!(reading, Reading::Gone)
            && !files::is_agents(path)
            && self.index.holds_alone(path)
            && !self.hints.is_gone(path, Instant::now())
        {
            return;
        }
        self.take(path, reading);
    }

    fn take(&mut self, path: &str, reading: Reading) {
        self.hints.settle(path);
        match reading {
            Reading::Gone => {
                self.fingerprints.remove(path);
                self.index.set_file(path, None);
            }
            Reading::Documents(fingerprint, documents) => {
                let names: Vec<ObjectName> = documents.iter().filter_map(files::name).collect();
                let path = self.index.set_file(path, Some(documents));
                self.fingerprints.insert(path, (fingerprint, self.sweeps.round));
                names.iter().for_each(|name| self.let_go_of_missing(name));
            }
        }
    }

    /// Forgets a missing file as soon as others hold all that it held: it was renamed, and its object stands there once.
    fn let_go_of_missing(&mut self, name: &ObjectName) {
        let missing = |path: &&Arc<str>| self.hints.is_missing(path) && !self.index.holds_alone(path);
        let renamed: Vec<Arc<str>> = self.index.files_of(name).filter(missing).cloned().collect();
        renamed.iter().for_each(|path| self.take(path, Reading::Gone));
    }

    fn watch_folders(&mut self, folders: &[String]) {
        let failures: Vec<String> =
            folders.iter().filter_map(|folder| self.watch.add_or_say(&self.root, folder)).collect();
        if !self.deaf
            && let Some(failure) = failures.into_iter().last()
        {
            self.trouble.watching = Some(failure);
        }
    }

    /// Puts what follows from the last look into the batch that waits.
    fn settle(&mut self) {
        // Usually once; a second time when an object comes into force that stood in the shadow of another.
        loop {
            let settled = self.index.settle();
            let nothing_waits = self.pending.changes.is_empty();
            for change in settled.changes {
                self.note_identity(&change);
                if nothing_waits {
                    self.pending.changes.push(change);
                } else {
                    self.put(change);
                }
            }
            if settled.again.is_empty() {
                break;
            }
            for path in &settled.again {
                // What is not there can't come into force, whether it comes back or not.
                let reading = files::read(&self.root, path);
                self.take(path, reading);
            }
        }
        // A file that is missing may have been renamed: its documents are no duplicates of those of the other name.
        if !self.hints.has_missing()
            && let Some(refused) = self.index.take_refusals()
        {
            self.pending.refused = Some(refused);
        }
        let trouble = self.trouble.all();
        if self.trouble.told != trouble {
            self.trouble.told = trouble.clone();
            self.pending.trouble = Some(trouble);
        }
    }

    /// A later change of an object takes the place of an earlier one that nobody has seen.
    fn put(&mut self, change: StoreChange) {
        let name = |change: &StoreChange| match change {
            StoreChange::Set(object) => object.name(),
            StoreChange::Removed(name) => name.clone(),
        };
        let wanted = name(&change);
        self.pending.changes.retain(|waiting| name(waiting) != wanted);
        self.pending.changes.push(change);
    }

    fn note_identity(&mut self, change: &StoreChange) {
        match change {
            StoreChange::Set(object) => {
                let Object::Identity(AllocatedIdentity { identity, labels, .. }) = &**object else { return };
                self.forget_number(*identity);
                self.by_number.insert(*identity, labels.clone());
                let number = self.numbers.entry(labels.clone()).or_insert(*identity);
                *number = (*number).min(*identity);
            }
            StoreChange::Removed(name) if name.kind == ObjectKind::Identity => {
                if let Ok(number) = name.name.parse() {
                    self.forget_number(Identity(number));
                }
            }
            StoreChange::Removed(_) => {}
        }
    }

    fn forget_number(&mut self, identity: Identity) {
        if let Some(labels) = self.by_number.remove(&identity)
            && self.numbers.get(&labels) == Some(&identity)
        {
            let other =
                self.by_number.iter().find(|(_, present)| **present == labels).map(|(other, _)| *other);
            match other {
                Some(other) => self.numbers.insert(labels, other),
                None => self.numbers.remove(&labels),
            };
        }
    }

    /// Does a write, or keeps it for later.
    fn write(&mut self, write: StoreWrite) {
        match self.try_write(&write) {
            Ok(()) => self.wanted.done(&write),
            Err(error) => {
                if self.wanted.failed(write, error.to_string()) {
                    tracing::warn!(%error, "the store cannot be written");
                }
            }
        }
        if self.wanted.is_empty() {
            self.retry_at = None;
        } else {
            self.retry_at.get_or_insert_with(|| Instant::now() + RETRY);
        }
        self.trouble.writing = self.wanted.trouble(true);
        self.trouble.saying = self.wanted.trouble(false);
    }

    /// Tries again what could not be written.
    fn retry(&mut self) {
        self.retry_at = None;
        for write in self.wanted.writes() {
            self.write(write);
        }
    }

    /// Writes this node's endpoints again where somebody took their files away or changed them: without these no other node
    /// reaches its pods, and no event of theirs would ever write them.
    fn keep_own(&mut self) {
        let own: Vec<Box<Endpoint>> = self.own.values().cloned().collect();
        for endpoint in own {
            self.write(StoreWrite::Endpoint(endpoint));
        }
    }

    fn try_write(&mut self, write: &StoreWrite) -> io::Result<()> {
        match write {
            StoreWrite::Endpoint(endpoint) => {
                self.own.insert(endpoint.name.clone(), endpoint.clone());
            }
            StoreWrite::EndpointGone(name) => {
                self.own.remove(name);
            }
            _ => {}
        }
        match write {
            StoreWrite::Look(number) => {
                self.keep_own();
                self.sweeps.want_look(*number);
                Ok(())
            }
            StoreWrite::Node(node) => self.folders.write_node(node),
            StoreWrite::Endpoint(endpoint) => self.folders.write_endpoint(endpoint),
            StoreWrite::EndpointGone(name) => self.folders.remove_endpoint(name),
            StoreWrite::Status(status) => self.folders.write_status(status),
            StoreWrite::StatusGone(name) => self.folders.remove_status(name),
            StoreWrite::KeepStatuses(names) => self.folders.keep_statuses(names),
            StoreWrite::ReleaseIdentity(identity) => {
                let outcome = identities::release(&self.root, *identity);
                self.look_at(&identities::path(*identity));
                outcome
            }
            StoreWrite::Unreadable(problems) => self.folders.write_unreadable(problems),
            StoreWrite::AllocateIdentity(labels) => {
                let allocated = identities::allocate(&self.folders, &self.numbers, labels);
                let allocated = allocated.map_err(io::Error::other)?;
                // Read at once, so that a release right after it is noticed.
                self.look_at(&identities::path(allocated.identity));
                let change = StoreChange::Set(Box::new(Object::Identity(allocated)));
                self.note_identity(&change);
                self.put(change);
                Ok(())
            }
        }
    }
}

/// Waits until then; for ever without a time.
async fn wait_until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
