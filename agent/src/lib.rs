//! One per node: watches, asks the engine, applies the difference; also the sinew-cni plugin.

pub mod datapath;
pub mod flow;
pub mod netlink;
pub mod plugin;
pub mod store;
