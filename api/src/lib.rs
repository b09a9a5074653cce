//! Sinew's nouns: what users write (policies, pods, namespaces, nodes), what others read (identities, labels, protobuf),
//! and what the CNI plugin says to the agent. Values only: no file, socket, clock or task.
//!
//! Neighbours: `engine` decides over these values, `agent` and `cli` carry them in and out.

pub mod cni;
pub mod extensions;
mod fields;
pub mod identity;
pub mod labels;
pub mod names;
pub mod object;
pub mod policy;
pub mod proto;
pub mod selector;
pub mod yaml;
