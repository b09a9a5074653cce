//! Tells of links that come and go, so that an underlay device that appears late gets its programs (datapath.md 30), and
//! of routes and queueing disciplines that somebody else took away or put there.
//!
//! One task, [`LinkWatch`]'s, reads the kernel's multicast groups and sends names. The receiver looks the link up again:
//! a name says only that something may have changed. If the kernel's buffer or the channel overflows, the receiver hears
//! [`LinkEvent::Overrun`] or finds the channel's earlier events, and looks at every link it cares for.
//!
//! Neighbours: `crate::control` listens.

use futures_util::StreamExt;
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::RouteMessage;
use rtnetlink::MulticastGroup;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Link, NetlinkError, ROUTE_PROTOCOL};

/// Events that wait for the control loop. A node that starts a hundred pods at once makes two for each of them; what
/// does not fit is folded into one overrun.
const QUEUE: usize = 256;

const GROUPS: [MulticastGroup; 4] =
    [MulticastGroup::Link, MulticastGroup::Ipv4Route, MulticastGroup::Ipv6Route, MulticastGroup::Tc];

/// Something happened to a link, or to what depends on links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// It appeared or changed.
    Changed(Link),
    /// It went away.
    Gone(Link),
    /// A route to another node's pods was taken away.
    RouteGone,
    /// A queueing discipline came or went.
    Queues,
    /// Events were lost; look at everything.
    Overrun,
}

/// The watch. Its tasks end with it.
#[derive(Debug)]
pub struct LinkWatch {
    events: mpsc::Receiver<LinkEvent>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for LinkWatch {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl LinkWatch {
    /// Begins to watch the calling thread's namespace.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`].
    pub fn open() -> Result<Self, NetlinkError> {
        let (connection, _handle, mut messages) =
            rtnetlink::new_multicast_connection(&GROUPS).map_err(NetlinkError::Socket)?;
        let (sender, events) = mpsc::channel(QUEUE);
        let reader = tokio::spawn(connection);
        let forwarder = tokio::spawn(async move {
            let mut overrun = false;
            while let Some((message, _)) = messages.next().await {
                let event = match message.payload {
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                        LinkEvent::Changed(Link::from_message(&link))
                    }
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => {
                        LinkEvent::Gone(Link::from_message(&link))
                    }
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelRoute(route))
                        if is_to_another_node(&route) =>
                    {
                        LinkEvent::RouteGone
                    }
                    NetlinkPayload::InnerMessage(
                        RouteNetlinkMessage::NewQueueDiscipline(_)
                        | RouteNetlinkMessage::DelQueueDiscipline(_),
                    ) => LinkEvent::Queues,
                    NetlinkPayload::Overrun(_) => LinkEvent::Overrun,
                    _ => continue,
                };
                let event = if overrun { LinkEvent::Overrun } else { event };
                match sender.try_send(event) {
                    Ok(()) => overrun = false,
                    Err(mpsc::error::TrySendError::Full(_)) => overrun = true,
                    Err(mpsc::error::TrySendError::Closed(_)) => return,
                }
            }
        });
        Ok(Self { events, tasks: [reader, forwarder] })
    }

    /// The next event; none when the kernel's socket has failed.
    pub async fn next(&mut self) -> Option<LinkEvent> {
        self.events.recv().await
    }
}

/// Routes of ours to a single address are pods' of this node, and go with their interface.
fn is_to_another_node(route: &RouteMessage) -> bool {
    let whole = if route.header.address_family == AddressFamily::Inet { 32 } else { 128 };
    u8::from(route.header.protocol) == ROUTE_PROTOCOL && route.header.destination_prefix_length < whole
}
