//! The store in a folder: `DIR/**/*.{yaml,yml,json}` are people's objects; under dotted folders agents write what an API
//! server would hold:
//!
//! | path | holds | written by |
//! | --- | --- | --- |
//! | `.nodes/<node>.yaml` | SinewNode | that node |
//! | `.nodes/.number-<n>` | the name of the node that has number n | that node, once, exclusively |
//! | `.endpoints/<node>/<name>.yaml` | SinewEndpoint | that node |
//! | `.identities/<number>.yaml` | SinewIdentity | whoever is first, exclusively |
//! | `.status/<kind>/[<namespace>/]<name>.yaml` | what became of an object, node by node | every node its part |
//! | `.status/unreadable/<node>.yaml` | documents without a readable name, by place | that node |
//!
//! Everything blocking happens on one thread of the store's own, `store`, which ends when [`FolderStore`] is dropped. It
//! has two bounded queues: batches to the control loop (one waits, later changes are folded into the next), writes from
//! it.
//!
//! Neighbours: [`files`] reads, [`index`] decides what is in force, [`watch`] hears changes, [`mod@write`], [`statuses`]
//! and [`identities`] write, [`wanted`] has what could not be written yet, [`sweep`] looks at everything, [`task`] is the
//! thread's loop.

mod files;
mod identities;
mod index;
mod statuses;
mod sweep;
mod task;
mod wanted;
mod watch;
mod write;

use std::io;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use sinew_api::object::Object;
use tokio::sync::mpsc;

use super::{Batch, Store, StoreWrite};

/// Writes that wait for the store's thread: one for each of 110 pods, with their statuses and those of as many policies,
/// fit without waiting.
const WRITES: usize = 1024;
/// One batch waits while the control loop works; what happens meanwhile goes into the next.
const BATCHES: usize = 1;

/// What a folder store needs to know.
#[derive(Clone, Debug)]
pub struct FolderConfig {
    /// The folder.
    pub path: PathBuf,
    /// This node's name.
    pub node: String,
    /// Objects in force in an earlier run, for files that cannot be read at start (policy.md 14).
    pub kept: Vec<Object>,
}

/// Why a folder can't be a store.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It is not there, or no folder.
    #[error("store folder {path} cannot be read: {source}")]
    Unreadable {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nothing can be written into it.
    #[error("store folder {path} cannot be written: {source}")]
    Unwritable {
        /// The file or folder that could not be made.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No inotify instance could be had.
    #[error("cannot watch store folder {path}: {source}")]
    Watch {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// All 65,535 numbers of nodes are taken.
    #[error("no number for a node is free in {0}: remove `.nodes/.number-*` of nodes that are gone")]
    NoNodeNumber(PathBuf),
}

/// A folder as a store.
#[derive(Debug)]
pub struct FolderStore {
    batches: mpsc::Receiver<Batch>,
    writes: Option<mpsc::Sender<StoreWrite>>,
    thread: Option<JoinHandle<()>>,
    node_number: u16,
}

impl FolderStore {
    /// Opens the folder, takes this node's number and begins to read.
    ///
    /// # Errors
    /// Any [`FolderError`]: a folder that fails later is reported in [`Batch::trouble`] and keeps its last content.
    pub fn open(config: FolderConfig) -> Result<Self, FolderError> {
        std::fs::read_dir(&config.path)
            .map_err(|source| FolderError::Unreadable { path: config.path.clone(), source })?;
        let folders = write::Folders::make(&config.path, &config.node)?;
        let node_number = folders.take_node_number(&config.node)?;
        let watch = watch::Watch::open()
            .map_err(|source| FolderError::Watch { path: config.path.clone(), source })?;
        let (batch_sender, batches) = mpsc::channel(BATCHES);
        let (writes, write_receiver) = mpsc::channel(WRITES);
        let path = config.path.clone();
        let task = task::Task::new(config, folders, watch, batch_sender, write_receiver);
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || task.run())
            .map_err(|source| FolderError::Watch { path, source })?;
        Ok(Self { batches, writes: Some(writes), thread: Some(thread), node_number })
    }

    /// This node's number, unique among the nodes of the folder.
    #[must_use]
    pub fn node_number(&self) -> u16 {
        self.node_number
    }
}

impl Drop for FolderStore {
    fn drop(&mut self) {
        self.batches.close();
        drop(self.writes.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's thread had ended in a panic");
        }
    }
}

impl Store for FolderStore {
    async fn next(&mut self) -> Option<Batch> {
        self.batches.recv().await
    }

    async fn write(&self, write: StoreWrite) {
        if let Some(writes) = &self.writes
            && writes.send(write).await.is_err()
        {
            tracing::error!("the store's thread has ended; a write is lost until the store is opened anew");
        }
    }
}

/// Removes a node and everything that it had written, but statuses. True if there was something.
///
/// # Errors
/// Something can't be removed.
pub fn forget_node(path: &Path, node: &str) -> io::Result<bool> {
    let there = path.join(area::NODES).join(format!("{node}.yaml")).exists()
        || path.join(area::ENDPOINTS).join(node).exists();
    if there {
        write::Folders::at(path, node).forget_node(node)?;
    }
    Ok(there)
}

/// Names of the folders that agents write.
mod area {
    pub(super) const NODES: &str = ".nodes";
    pub(super) const ENDPOINTS: &str = ".endpoints";
    pub(super) const IDENTITIES: &str = ".identities";
    pub(super) const STATUS: &str = ".status";
}

#[cfg(test)]
mod tests;
