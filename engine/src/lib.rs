//! Decisions: [`Event`] in, [`Change`] out. No I/O, no async, no clock.
//!
//! [`Engine`] owns all that a node knows about policies, identities and addresses. It computes what should be, compares
//! it with what it has asked for so far, and returns the difference in the order that keeps every packet judged by a
//! whole policy set. Readers get [`snapshot`] values.
//!
//! Read `policy.rs` first: the comment there is the specification of policy. Neighbours: `sinew_api` has the objects,
//! `sinew_bpf` the tables' layout and the code that reads them, `agent` hears events and carries changes out.

mod change;
mod config;
mod event;
pub mod explain;
pub mod ipam;
mod numbers;
pub mod policy;
pub mod snapshot;
mod state;
mod table;
mod validate;

pub use change::{Change, EndpointId};
pub use config::{CLASS_CAPACITY, Config, TABLE_CAPACITY};
pub use event::{Event, Found, LocalEndpoint};
pub use numbers::{Cause, Class, Direction, Place, Record};
pub use state::Engine;
pub use table::{PolicyTable, TableKey};
