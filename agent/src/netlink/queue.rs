//! Queueing disciplines that somebody else put on interfaces, such as the `bandwidth` plugin behind this one.
//!
//! Neighbours: `crate::control` sends packets by the host's stack to pods whose interface has one.

use std::collections::BTreeSet;

use futures_util::TryStreamExt;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};

use super::{Netlink, NetlinkError, refused};

/// What the kernel gives an interface by itself. They limit nothing.
const DEFAULTS: [&str; 6] = ["noqueue", "noop", "pfifo_fast", "mq", "fq", "fq_codel"];

/// Interfaces by what is on them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Queues {
    /// Indexes of those with a queue of their own at the root: what leaves by them is delayed, limited or sorted.
    pub shaped: BTreeSet<u32>,
    /// Indexes of those with an `ingress` or `clsact` queue: filters see what arrives by them.
    pub filtered: BTreeSet<u32>,
}

impl Netlink {
    /// The queues of all interfaces.
    ///
    /// # Errors
    /// [`NetlinkError::Request`].
    pub async fn queues(&self) -> Result<Queues, NetlinkError> {
        let mut queues = Queues::default();
        let mut answer = std::pin::pin!(self.handle.qdisc().get().execute());
        while let Some(message) =
            answer.try_next().await.map_err(|error| refused("list queueing disciplines".into(), error))?
        {
            queues.note(&message);
        }
        Ok(queues)
    }
}

impl Queues {
    fn note(&mut self, message: &TcMessage) {
        let Ok(index) = u32::try_from(message.header.index) else { return };
        let kind = message.attributes.iter().find_map(|attribute| match attribute {
            TcAttribute::Kind(kind) => Some(kind.as_str()),
            _ => None,
        });
        if message.header.parent == TcHandle::INGRESS {
            self.filtered.insert(index);
        } else if message.header.parent == TcHandle::ROOT
            && !kind.is_some_and(|kind| DEFAULTS.contains(&kind))
        {
            self.shaped.insert(index);
        }
    }
}
