//! Flows for whoever asks: a bounded ring, filters, and the Observer and Peer services over a [`Source`].
//!
//! Two users: the agent, whose source is the [`Journal`] of its node, and the cluster relay, whose sources are other
//! nodes. What they share is here. The agent makes flows from kernel records (`sinew_agent::flow`), the CLI prints them
//! (`cli/src/observe`). Rules: nothing here is unbounded, a slow client harms only itself, and what it misses is counted and
//! reported to it.

pub mod command;
pub mod dial;
pub mod encoded;
pub mod filter;
pub mod journal;
pub mod listen;
pub mod mask;
pub mod metrics;
pub mod peer;
pub mod query;
pub mod relay;
pub mod ring;
pub mod server;
pub mod service;
pub mod source;
pub mod tls;
mod wire;

pub use journal::{Journal, JournalSettings, Sighting};
pub use source::Source;
