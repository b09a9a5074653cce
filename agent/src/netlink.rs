//! The node's links, addresses, routes and neighbours, by netlink; no other room of the agent speaks it.
//!
//! A [`Netlink`] belongs to the network namespace of the thread that opened it. The agent opens one for its node;
//! [`namespace`] opens one on a thread of its own for each visit to a pod's namespace.
//!
//! Neighbours: [`veth`] wires a pod, [`node`] prepares the node, [`route`] reaches other nodes' pods, [`mod@source`]
//! helps the host's NAT, [`queue`] sees what others put on pods' interfaces, [`watch`] tells of changes; `crate::cni`
//! asks for pods, `crate::control` for nodes.

pub mod address;
pub mod namespace;
pub mod node;
pub mod queue;
pub mod route;
pub mod source;
pub mod sysctl;
pub mod unreachable;
pub mod veth;
pub mod watch;

use std::io;

use futures_util::TryStreamExt;
use netlink_packet_route::link::{
    InfoPortKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, State,
};
use rtnetlink::{LinkMessageBuilder, LinkUnspec};
use tokio::task::JoinHandle;

/// Name of the overlay's device.
pub const OVERLAY_LINK: &str = "sinew_vxlan";

/// Every interface that Sinew makes for a pod begins with this.
pub const POD_LINK_PREFIX: &str = "snw";

/// Number in the `proto` field of every route that Sinew writes, so that they can be told from other people's. It is
/// free in the kernel's list (include/uapi/linux/rtnetlink.h, Linux 6.18).
pub const ROUTE_PROTOCOL: u8 = 83;

/// What the kernel refused, and what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No netlink socket could be had.
    #[error("cannot open a netlink socket: {0}")]
    Socket(#[source] io::Error),
    /// A request was answered with an error.
    #[error("cannot {what}: {source}")]
    Request {
        /// What was asked, as it follows "cannot".
        what: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A link that must be there is not.
    #[error("there is no interface {0}")]
    NoLink(String),
    /// Something else is a pod's way out.
    #[error(
        "the pod has a default route already, by {0}: Sinew serves one interface of a pod, the one that everything leaves by"
    )]
    OtherWayOut(String),
    /// A setting under /proc/sys could not be written.
    #[error("cannot set {name} to {value}: {source}")]
    Sysctl {
        /// Name with dots.
        name: String,
        /// Value that was to be set.
        value: String,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// The pod's namespace cannot be used.
    #[error(transparent)]
    Namespace(#[from] namespace::NamespaceError),
}

impl NetlinkError {
    /// The kernel's error number, where it was the kernel that refused.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Request { source, .. } | Self::Socket(source) | Self::Sysctl { source, .. } => {
                source.raw_os_error()
            }
            Self::NoLink(_) => Some(libc::ENODEV),
            Self::Namespace(_) | Self::OtherWayOut(_) => None,
        }
    }
}

/// A link as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Index in its namespace.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Hardware address; empty where the link has none.
    pub mac: Vec<u8>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// What frames it takes.
    pub kind: LinkKind,
}

/// What matters of a link's kind to programs that are attached to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkKind {
    /// Its frames begin with an Ethernet header.
    #[default]
    Ethernet,
    /// It is a port of a bond or team, whose device judges (datapath.md 30).
    Port,
    /// Its frames begin otherwise, as those of tun, WireGuard and IP tunnels do.
    Other,
}

impl LinkKind {
    /// Why a link of this kind can't be an underlay device, as it follows its name.
    #[must_use]
    pub fn unfit(self) -> Option<&'static str> {
        match self {
            Self::Ethernet => None,
            Self::Port => Some("is a port of a bond or team: name the bond or team itself as --underlay"),
            Self::Other => Some(
                "has no Ethernet header (tun, WireGuard and IP tunnels have none), which --underlay needs",
            ),
        }
    }
}

/// A connection to the kernel. Its task ends with it.
#[derive(Debug)]
pub struct Netlink {
    handle: rtnetlink::Handle,
    task: JoinHandle<()>,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Netlink {
    /// Opens a socket in the calling thread's namespace. Must be called inside a tokio runtime.
    ///
    /// The kernel checks its requests strictly (`NETLINK_GET_STRICT_CHK`, 4.20): only then does it heed what a request
    /// for a list asks for, and a router's million routes stay where they are.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`].
    pub fn open() -> Result<Self, NetlinkError> {
        let (connection, handle, _messages) =
            rtnetlink::new_connection_with_strict_check().map_err(NetlinkError::Socket)?;
        Ok(Self { handle, task: tokio::spawn(connection) })
    }

    /// The link of that name, if there is one.
    ///
    /// # Errors
    /// [`NetlinkError::Request`].
    pub async fn link(&self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let mut answer = self.handle.link().get().match_name(name.to_owned()).execute();
        match answer.try_next().await {
            Ok(message) => Ok(message.as_ref().map(Link::from_message)),
            Err(error) => match refused(format!("look up {name}"), error) {
                error if error.errno() == Some(libc::ENODEV) => Ok(None),
                error => Err(error),
            },
        }
    }

    /// The link of that name.
    ///
    /// # Errors
    /// [`NetlinkError::NoLink`] or [`NetlinkError::Request`].
    pub async fn require_link(&self, name: &str) -> Result<Link, NetlinkError> {
        self.link(name).await?.ok_or_else(|| NetlinkError::NoLink(name.to_owned()))
    }

    /// Whether the kernel has seen a link's carrier and gives it packets to send (`ifOperStatus` of RFC 2863 is up).
    ///
    /// # Errors
    /// [`NetlinkError::NoLink`] or [`NetlinkError::Request`].
    pub async fn is_operational(&self, name: &str) -> Result<bool, NetlinkError> {
        let mut answer = self.handle.link().get().match_name(name.to_owned()).execute();
        let message = answer.try_next().await.map_err(|error| refused(format!("look up {name}"), error))?;
        let message = message.ok_or_else(|| NetlinkError::NoLink(name.to_owned()))?;
        Ok(message.attributes.contains(&LinkAttribute::OperState(State::Up)))
    }

    /// All links of the namespace.
    ///
    /// # Errors
    /// [`NetlinkError::Request`].
    pub async fn links(&self) -> Result<Vec<Link>, NetlinkError> {
        self.handle
            .link()
            .get()
            .execute()
            .map_ok(|message| Link::from_message(&message))
            .try_collect()
            .await
            .map_err(|error| refused("list links".into(), error))
    }

    /// The pod links that Sinew made, by name.
    ///
    /// # Errors
    /// [`NetlinkError::Request`].
    pub async fn pod_links(&self) -> Result<Vec<Link>, NetlinkError> {
        let mut links = self.links().await?;
        links.retain(|link| is_pod_link(&link.name));
        links.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(links)
    }

    /// Deletes the link of that name, with its peer, addresses and routes. True if there was one.
    ///
    /// # Errors
    /// [`NetlinkError::Request`].
    pub async fn delete_link(&self, name: &str) -> Result<bool, NetlinkError> {
        let Some(link) = self.link(name).await? else { return Ok(false) };
        match self.handle.link().del(link.index).execute().await {
            Ok(()) => Ok(true),
            Err(error) => match refused(format!("delete {name}"), error) {
                // Its namespace went away between the two requests.
                error if error.errno() == Some(libc::ENODEV) => Ok(false),
                error => Err(error),
            },
        }
    }

    /// Sets a link up.
    ///
    /// # Errors
    /// [`NetlinkError::Request`].
    pub async fn set_up(&self, link: &Link) -> Result<(), NetlinkError> {
        let message = LinkMessageBuilder::<LinkUnspec>::new().index(link.index).up().build();
        self.handle
            .link()
            .set(message)
            .execute()
            .await
            .map_err(|error| refused(format!("set {} up", link.name), error))
    }
}

impl Link {
    pub(crate) fn from_message(message: &LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mac: Vec::new(),
            mtu: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            kind: kind_of(message),
        };
        for attribute in &message.attributes {
            if let LinkAttribute::IfName(name) = attribute {
                link.name.clone_from(name);
            } else if let LinkAttribute::Address(mac) = attribute {
                link.mac.clone_from(mac);
            } else if let LinkAttribute::Mtu(mtu) = attribute {
                link.mtu = *mtu;
            }
        }
        link
    }
}

fn kind_of(message: &LinkMessage) -> LinkKind {
    let is_port = message.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos
            .iter()
            .any(|info| matches!(info, LinkInfo::PortKind(InfoPortKind::Bond | InfoPortKind::Team))),
        _ => false,
    });
    match message.header.link_layer_type {
        LinkLayerType::Ether if is_port => LinkKind::Port,
        LinkLayerType::Ether => LinkKind::Ethernet,
        _ => LinkKind::Other,
    }
}

/// Whether a name is one that [`veth::host_link_name`] makes.
#[must_use]
pub fn is_pod_link(name: &str) -> bool {
    name.strip_prefix(POD_LINK_PREFIX).is_some_and(|hash| {
        hash.len() == veth::LINK_HASH_DIGITS && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// Puts what was asked before the kernel's answer.
pub(crate) fn refused(what: String, error: rtnetlink::Error) -> NetlinkError {
    let source = match error {
        rtnetlink::Error::NetlinkError(answer) => answer.to_io(),
        other => io::Error::other(other.to_string()),
    };
    NetlinkError::Request { what, source }
}
