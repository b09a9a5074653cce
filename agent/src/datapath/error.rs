//! What can go wrong between the agent and the kernel, told so that whoever reads it knows what to do.

use std::path::PathBuf;

/// What went wrong between the agent and the kernel.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// Another layout is pinned.
    #[error(
        "{} holds the maps of layout {found}, and this agent's is {ours}: drain the node and run `sinew-agent cleanup`, \
         or start the agent of that layout",
        folder.display()
    )]
    OtherLayout {
        /// The node's pin folder.
        folder: PathBuf,
        /// Layout that is there.
        found: String,
        /// Layout of this binary.
        ours: u32,
    },
    /// A pinned map is not the one that the programs need.
    #[error(
        "{} is not the map that the programs need ({detail}): drain the node and run `sinew-agent cleanup`, or start the \
         agent that made it",
        path.display()
    )]
    OtherMap {
        /// The pin.
        path: PathBuf,
        /// What differs.
        detail: String,
    },
    /// No more room for tables.
    #[error("all {capacity} slots for policy tables are taken")]
    NoSlot {
        /// How many there are.
        capacity: u32,
    },
    /// A table is larger than a slot takes.
    #[error("a policy table of {entries} entries does not fit a slot of {capacity}")]
    TableTooLarge {
        /// Its entries.
        entries: usize,
        /// What fits.
        capacity: u32,
    },
    /// The kernel refused something.
    #[error("{attempt}: {reason}")]
    Kernel {
        /// What was attempted.
        attempt: String,
        /// What the kernel, or aya, said.
        reason: String,
    },
}

impl DatapathError {
    pub(super) fn kernel(attempt: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::Kernel { attempt: attempt.into(), reason: reason.to_string() }
    }
}
