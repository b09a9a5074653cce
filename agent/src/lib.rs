//! One per node: watches, asks the engine, applies the difference; also the sinew-cni plugin.

pub mod netlink;
pub mod store;
