//! Queueing disciplines that somebody else put on interfaces, such as the `bandwidth` plugin behind this one.
//!
//! Neighbours: `crate::control` sends packets by the host's stack to pods whose interface has one.

use std::collections::BTreeSet;

use futures_util::TryStreamExt;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};

use super::{Netlink, NetlinkError, refused};

/// What the kernel gives an interface by itself. They limit nothing.
const DEFAULTS: [&str; 6] = ["noqueue", "noop", "pfifo_fast", "mq", "fq", "fq_codel"];

impl Netlink {
    /// Indexes of interfaces with a queue that somebody put there: at the root, where it delays, limits or sorts what leaves
    /// by them, or an `ingress` or `clsact` one, whose filters see what arrives by them.
    ///
    /// # Errors
    /// [`NetlinkError::Request`].
    pub async fn queues(&self) -> Result<BTreeSet<u32>, NetlinkError> {
        let mut queues = BTreeSet::new();
        let mut answer = std::pin::pin!(self.handle.qdisc().get().execute());
        while let Some(message) =
            answer.try_next().await.map_err(|error| refused("list queueing disciplines".into(), error))?
        {
            queues.extend(queue_of(&message));
        }
        Ok(queues)
    }
}

/// The interface of a queueing discipline, if it is none of the kernel's own.
fn queue_of(message: &TcMessage) -> Option<u32> {
    let kind = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(kind.as_str()),
        _ => None,
    });
    let put_there = match message.header.parent {
        TcHandle::INGRESS => true,
        TcHandle::ROOT => !kind.is_some_and(|kind| DEFAULTS.contains(&kind)),
        _ => false,
    };
    if put_there { u32::try_from(message.header.index).ok() } else { None }
}
