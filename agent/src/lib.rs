//! The node: watches objects, asks `sinew_engine`, applies the difference; also the CNI plugin. Read `run.rs`
//! (threads), then `control.rs` (the owner).

mod claim;
pub mod cleanup;
pub mod clock;
pub mod cni;
pub mod config;
pub mod control;
pub mod datapath;
mod durable;
mod file_name;
pub mod flow;
mod heap;
pub mod kernel;
pub mod metrics;
pub mod netlink;
pub mod plugin;
pub mod run;
pub mod server;
mod socket;
pub mod store;
pub mod view;
