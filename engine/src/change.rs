//! What the engine wants done. The agent carries the changes out in the order given; the order is the engine's
//! business, since it carries the guarantees of datapath.md 4 and 17 and of policy.md 17.
//!
//! Neighbours: `agent/src/datapath` writes maps, `agent/src/store` writes objects, `state/order.rs` chooses the order.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sinew_api::identity::Identity;
use sinew_api::labels::Labels;
use sinew_api::object::PolicyName;
use sinew_api::policy::Policy;
use sinew_bpf::abi::IpcacheEntry;
use sinew_bpf::identity::reserved;

use crate::numbers::Record;
use crate::table::PolicyTable;

// The kernel's numbers of reserved identities are those of labels and flows.
const _: () = {
    let same = [
        (Identity::UNKNOWN, reserved::UNKNOWN),
        (Identity::HOST, reserved::HOST),
        (Identity::WORLD, reserved::WORLD),
        (Identity::INIT, reserved::INIT),
        (Identity::REMOTE_NODE, reserved::REMOTE_NODE),
        (Identity::KUBE_APISERVER, reserved::KUBE_APISERVER),
        (Identity::WORLD_IPV4, reserved::WORLD_V4),
        (Identity::WORLD_IPV6, reserved::WORLD_V6),
    ];
    let mut at = 0;
    while at < same.len() {
        assert!(same[at].0.0 == same[at].1);
        at += 1;
    }
};

/// Number of an endpoint on its node: its index in the array of state words, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EndpointId(pub u16);

/// One step. A batch leaves nothing half done: when all its steps are written, revision and tables agree.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Append this number to the node's file before the next step: from then on it has this meaning for good.
    Remember(Record),
    /// Keep this version on disk as the last valid one of its object; it comes back as `Event::PolicyRestored`
    /// (policy.md 14).
    PolicyValid(Arc<Policy>),
    /// Forget the version on disk: the object is gone.
    PolicyGone(PolicyName),
    /// Find or make the number for these labels, and answer with `Event::IdentityApplied`.
    AllocateIdentity(Labels),
    /// Tell the other nodes that the endpoint is about to have this identity. Answer with `Event::RelabelDone` when
    /// every live node holds it in its tables, or after 5 s (policy.md 17).
    Announce {
        /// Whose.
        endpoint: EndpointId,
        /// The identity that it is about to have.
        identity: Identity,
    },
    /// The endpoint drops everything, with a new epoch, before its address leaves the ipcache (datapath.md 17).
    EndpointClosed(EndpointId),
    /// The endpoint's identity and table; equal tables share a slot. Gives the endpoint a new epoch.
    Endpoint {
        /// Whose.
        endpoint: EndpointId,
        /// The identity that its packets carry.
        identity: Identity,
        /// What it enforces.
        table: Arc<PolicyTable>,
    },
    /// Wait until no program can still use what it read before.
    Grace,
    /// Write this class for a policy prefix. Class 0 says that the prefix has none, although a shorter one has.
    ClassSet(IpNet, Identity),
    /// Take a policy prefix back.
    ClassDelete(IpNet),
    /// Tables hold this identity's entries: its packets may be judged.
    KnownAdd(Identity),
    /// Packets of this identity drop by name from now on.
    KnownDelete(Identity),
    /// What an address resolves to.
    IpcacheSet(IpAddr, IpcacheEntry),
    /// The address stops resolving.
    IpcacheDelete(IpAddr),
    /// What a range resolves to.
    RangeSet(IpNet, IpcacheEntry),
    /// The range stops resolving.
    RangeDelete(IpNet),
    /// Raise the ipcache generation.
    Generation,
    /// The policy set as of now is written.
    Revision(u64),
}
