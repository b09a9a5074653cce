//! The agent's half of CNI: gives a pod its interface and addresses, and takes them back, whatever dies in between.
//!
//! The promise is that nothing leaks. It rests on two rules:
//! - An attachment has one file, [`ledger`]'s. It is written before anything else is made for the attachment and removed
//!   after everything is gone, and says whether the attachment is being added, stands, or is being removed.
//! - Everything made for an attachment can be found from its file: interface and hardware addresses follow from container
//!   id and interface name, map entries from the endpoint's number.
//!
//! So an agent that was killed anywhere finds at start what it had begun, keeps what stands and undoes the rest
//! ([`reconcile`]). A plugin that is killed leaves a connection that breaks, and its ADD is undone ([`server`]).
//!
//! An ADD, in order (ARCHITECTURE.md, promise 1): file with the leased addresses → interfaces, host side down → endpoint's
//! maps → programs → host side up → wait for identity and table → wait until the pod's side can send → file says "stands" →
//! answer. A DEL, in order (datapath.md 17): file says "removing" → drop slot → ipcache → maps → interface → file gone,
//! addresses rest. While the kernel refuses some change, no ADD begins, and a DEL does not wait for the ipcache; nor does it
//! wait for a disk that takes nothing ([`ledger`]).
//!
//! Neighbours: `sinew_api::cni` has the lines, `crate::plugin` the other end, `crate::control` carries out [`step`]s.

pub mod attach;
pub mod ledger;
pub mod queue;
pub mod reconcile;
pub mod server;
pub mod step;

use std::io;
use std::path::PathBuf;

use sinew_api::cni::Response;
use sinew_engine::ipam::Exhausted;

use crate::netlink::NetlinkError;
use crate::netlink::namespace::NamespaceError;

/// What names an attachment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttachmentKey {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
}

impl std::fmt::Display for AttachmentKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of container {}", self.ifname, self.container_id)
    }
}

/// Why a request is refused. Numbers below 100 are the specification's (CNI 1.1.0, section 5), 8 is libcni's for a bad
/// namespace, those from 101 are ours; 100 is the plugin's own.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The request cannot be read.
    #[error("the request is not understood: {0}")]
    Request(String),
    /// The attachment stands.
    #[error("interface {0} is attached already: DEL it first")]
    AlreadyAttached(AttachmentKey),
    /// The container has another interface of ours.
    #[error("{0} is attached already: a container has one interface of Sinew, which everything leaves by")]
    SecondInterface(AttachmentKey),
    /// There is no such attachment to check.
    #[error("interface {0} is not attached")]
    NotAttached(AttachmentKey),
    /// The pod has an interface of that name that is not ours.
    #[error("the pod already has an interface named {0}")]
    InterfaceExists(String),
    /// A pool has no address.
    #[error(transparent)]
    PoolExhausted(#[from] Exhausted),
    /// The node has as many endpoints as its maps take.
    #[error("the node has {0} endpoints, as many as its tables hold")]
    TooManyEndpoints(usize),
    /// The attachment's file cannot be written.
    #[error("attachment file {path}: {source}")]
    Ledger {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a link, address or route, or the namespace is not one.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The kernel refused a map entry or a program.
    #[error("the datapath refuses the endpoint: {0}")]
    Datapath(String),
    /// A CHECK found something else than was made.
    #[error("the attachment is not as it should be: {0}")]
    Differs(String),
    /// An ADD cannot be served now.
    #[error("no ADD can be served: {0}")]
    NotAvailable(String),
    /// The agent is ending.
    #[error("the agent is ending")]
    Ending,
}

impl Refusal {
    /// The CNI error code.
    #[must_use]
    pub fn code(&self) -> u32 {
        match self {
            Self::Netlink(NetlinkError::Namespace(NamespaceError::Gone { .. })) => 3,
            Self::Netlink(NetlinkError::Namespace(
                NamespaceError::NotANamespace(_) | NamespaceError::Own(_),
            )) => 8,
            Self::Ledger { .. } | Self::Netlink(NetlinkError::Namespace(NamespaceError::Visit { .. })) => 5,
            Self::Request(_) => 6,
            Self::Ending => 11,
            Self::NotAvailable(_) => 50,
            Self::AlreadyAttached(_) => 101,
            Self::InterfaceExists(_) => 102,
            Self::PoolExhausted(_) => 103,
            Self::TooManyEndpoints(_) => 104,
            Self::Datapath(_) => 105,
            Self::SecondInterface(_) | Self::Netlink(NetlinkError::OtherWayOut(_)) => 109,
            Self::Netlink(_) => 106,
            Self::Differs(_) => 107,
            Self::NotAttached(_) => 108,
        }
    }

    /// The answer to the plugin.
    #[must_use]
    pub fn response(&self) -> Response {
        let details = match self {
            Self::PoolExhausted(_) => "delete pods, or give the node a larger --pod-cidr".to_owned(),
            Self::Ledger { .. } => "see --state-dir of the agent".to_owned(),
            _ => String::new(),
        };
        Response::Refused { code: self.code(), message: self.to_string(), details }
    }
}
