//! Where objects come from and go to: one [`Store`] trait, so that nothing else of the agent knows whether a folder or an
//! API server is behind it.
//!
//! A store says what is so now, in [`Batch`]es: a change that was undone before anybody looked is never seen. Writes are
//! level-triggered too: the last one for an object counts. A store never takes an object back before its first list is
//! complete, and it says so in [`Batch::synced`].
//!
//! Neighbours: [`folder`] is a store; `crate::control` is the only reader and writer.

pub mod folder;

use std::collections::BTreeSet;

use sinew_api::labels::Labels;
use sinew_api::object::{Endpoint, Node, Object, ObjectName, Problem, Refused};

/// What changed since the last batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Objects that are there, have changed or are gone, each at most once.
    pub changes: Vec<StoreChange>,
    /// All documents that are refused now, if that has changed.
    pub refused: Option<Vec<Refused>>,
    /// Set in the batch that completes the first list of every kind, and in that one only.
    pub synced: bool,
    /// What keeps the store itself from working as it should, if that has changed.
    pub trouble: Option<Trouble>,
    /// The latest [`StoreWrite::Look`] that is done: everything that stood in the store then has been told.
    pub looked: Option<u64>,
}

/// What keeps a store from working as it should; what is empty is well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    /// It can't be read, or what an attached pod needs can't be written.
    pub failure: String,
    /// Something in it is not read, is seen late, or can't be said to its author: pods are attached all the same.
    pub warning: String,
}

/// One object of a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum StoreChange {
    /// This is the object now.
    Set(Box<Object>),
    /// There is no such object.
    Removed(ObjectName),
}

/// What the agent tells the store.
#[derive(Clone, Debug, PartialEq)]
pub enum StoreWrite {
    /// Look at everything now, and say this number in the batch that holds what was found.
    Look(u64),
    /// What this node says of itself.
    Node(Node),
    /// An endpoint of this node.
    Endpoint(Box<Endpoint>),
    /// The endpoint object of that name is gone.
    EndpointGone(String),
    /// What became of an object here.
    Status(ObjectStatus),
    /// An object is gone, and what this node said of it.
    StatusGone(ObjectName),
    /// All objects that this node says something of: what an earlier run said of others is taken back.
    KeepStatuses(BTreeSet<ObjectName>),
    /// Find or make the number for these labels. The answer is a batch that sets the identity, even if the store had
    /// said so before.
    AllocateIdentity(Labels),
    /// Take back a number that no endpoint of any node has had for the longest time-out of a connection (policy.md 18).
    ReleaseIdentity(sinew_api::identity::Identity),
    /// The documents of which not even the name can be read; none any more, if it is empty.
    Unreadable(Vec<Problem>),
}

/// What became of an object on this node, for its author (policy.md 15).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectStatus {
    /// Which object.
    pub name: ObjectName,
    /// Where it stands.
    pub state: ObjectState,
    /// One sentence, where the word needs it.
    pub message: String,
    /// Generation of the object in the store.
    pub generation: u64,
    /// Generation that is in force here, 0 for none.
    pub running_generation: u64,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
    /// What its author should know although it is valid.
    pub warnings: Vec<Problem>,
    /// Addresses of a pod.
    pub addresses: Vec<std::net::IpAddr>,
}

/// Where an object stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectState {
    /// In force.
    Enforced,
    /// In force as a shadow.
    Audited,
    /// Refused, whole or in its newest version.
    Refused,
    /// Not looked at yet.
    Pending,
    /// A pod that is attached.
    Running,
}

impl ObjectState {
    /// The word that stands in the status; a pod's is its phase.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Enforced => "enforced",
            Self::Audited => "audited",
            Self::Refused => "refused",
            Self::Pending => "pending",
            Self::Running => "Running",
        }
    }
}

/// Reads and writes objects.
pub trait Store {
    /// The next batch, as soon as there is one; `None` if the store has ended and must be opened anew.
    fn next(&mut self) -> impl Future<Output = Option<Batch>>;

    /// Hands a write over. It waits only while the store is behind by a whole queue of writes.
    fn write(&self, write: StoreWrite) -> impl Future<Output = ()>;
}
