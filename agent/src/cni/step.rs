//! What CNI asks of the control loop, which alone owns leases, engine and datapath. Between two steps the asker talks to
//! the kernel about links, which takes milliseconds that the loop must not wait.
//!
//! Neighbours: [`super::attach`] asks, `crate::control` answers.

use sinew_api::cni::Attachment;
use sinew_engine::EndpointId;
use tokio::sync::oneshot;

use super::{AttachmentKey, Refusal};
use crate::netlink::Link;
use crate::netlink::veth::PodLink;

/// Where the answer goes.
pub type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// One step of an ADD, a DEL, or another command.
#[derive(Debug)]
pub enum Step {
    /// Lease addresses and a number, and write that down. The answer is the link to be made.
    Begin(Attachment, Reply<PodLink>),
    /// The host side is there, down: write the endpoint's maps, then attach its programs.
    Attach(AttachmentKey, Link, Reply<EndpointId>),
    /// Everything stands: write that down.
    Stand(AttachmentKey, Reply<()>),
    /// Write down that the attachment is being removed, and take the endpoint out of the datapath. Fine without one.
    Close(AttachmentKey, Reply<()>),
    /// Its link is gone: sweep what was pinned for it, rest its addresses and forget it. Fine without one.
    End(AttachmentKey, Reply<()>),
    /// What the link of an attachment should be.
    Find(AttachmentKey, Reply<PodLink>),
    /// All attachments, each with the name of its network.
    List(Reply<Vec<(AttachmentKey, String)>>),
    /// Could an ADD be served?
    Available(Reply<()>),
}
