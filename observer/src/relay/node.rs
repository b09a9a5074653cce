//! Nodes: how each is connected to, its channels, and what its failures say of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sinew_api::proto::observer::observer_client::ObserverClient;
use sinew_api::proto::relay::NodeState;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::dial::{self, Patience, Way, Windows};
use crate::peer::{PeerAddress, Peers};
use crate::tls::ClientTls;

/// A client of a node's Observer.
pub(super) type Client = ObserverClient<Channel>;

/// Largest answer to a single question.
const LARGEST_ANSWER: usize = 4 << 20;
/// Silence after which a node is asked whether it lives; one that is frozen does not answer, and its streams end.
const SILENCE: Duration = Duration::from_secs(5);
/// Bytes that a node may send ahead on one stream.
const STREAM_WINDOW: u32 = 256 << 10;
/// The connection takes as much for every stream that a relay serves at a time, and a few more: HTTP/2 gives a connection
/// its window back only as streams are read, so that otherwise a few clients who don't read would stop everybody's answers.
pub(super) const WINDOWS: Windows = Windows { stream: STREAM_WINDOW, connection: 128 * STREAM_WINDOW };
/// First pause before a node that failed is asked again; each further one is twice as long.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Whether nodes are connected to with TLS. Sockets of this machine never are.
#[derive(Clone, Debug)]
pub enum NodeTls {
    /// With TLS only: a node that is announced without TLS is not asked.
    With(Arc<ClientTls>),
    /// Without TLS, because it was explicitly asked for.
    Disabled,
    /// Nobody has decided: sockets only.
    Undecided,
}

impl NodeTls {
    /// How a node is reached.
    fn way(&self, peer: &PeerAddress) -> Result<Way, Status> {
        let address = peer.address.clone();
        if let Some(path) = address.strip_prefix("unix:") {
            return Ok(Way::Socket(format!("/{}", path.trim_start_matches('/'))));
        }
        let refused = |why: &str| Err(Status::failed_precondition(format!("{address}: {why}")));
        match (&peer.tls, self) {
            (Some(name), Self::With(tls)) => {
                Ok(Way::Tls { address, name: Some(name.clone()), tls: Arc::clone(tls) })
            }
            (Some(_), _) => refused("it speaks TLS, for which this relay has no certificates"),
            (None, Self::Disabled) => Ok(Way::Plain(address)),
            (None, Self::With(_)) => {
                refused("it is said to speak no TLS, and this relay speaks nothing else")
            }
            (None, Self::Undecided) => refused("it speaks no TLS, which nobody has asked this relay for"),
        }
    }
}

/// Channels to nodes, two for each, shared by all requests. A node lets so many requests be open on one connection
/// ([`crate::listen::Limits`]); a relay serves fewer streams than that.
#[derive(Debug)]
pub(super) struct Nodes {
    patience: Duration,
    tls: NodeTls,
    channels: Mutex<BTreeMap<String, Channels>>,
}

/// Both connect when they are used.
#[derive(Clone, Debug)]
struct Channels {
    peer: PeerAddress,
    /// For answers that may have no end.
    streams: Channel,
    /// For single answers. Streams must not delay these: whether a node is alive is such a request.
    singles: Channel,
}

impl Nodes {
    pub(super) fn new(patience: Duration, tls: NodeTls) -> Self {
        Self { patience, tls, channels: Mutex::new(BTreeMap::new()) }
    }

    /// A client of a node for single questions.
    pub(super) fn client(&self, name: &str, peer: &PeerAddress) -> Result<Client, Status> {
        let channel = self.channels(name, peer)?.singles;
        Ok(ObserverClient::new(channel).max_decoding_message_size(LARGEST_ANSWER))
    }

    /// A node's channel for streams.
    pub(super) fn streams(&self, name: &str, peer: &PeerAddress) -> Result<Channel, Status> {
        Ok(self.channels(name, peer)?.streams)
    }

    fn channels(&self, name: &str, peer: &PeerAddress) -> Result<Channels, Status> {
        let mut all = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get(name) {
            Some(known) if known.peer == *peer => Ok(known.clone()),
            _ => {
                let way = self.tls.way(peer)?;
                let (streams, singles) = (channel(&way, self.patience)?, channel(&way, self.patience)?);
                let made = Channels { peer: peer.clone(), streams, singles };
                all.insert(name.to_owned(), made.clone());
                Ok(made)
            }
        }
    }

    /// Forgets the channels of nodes that are gone.
    pub(super) fn keep(&self, peers: &Peers) {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.retain(|name, _| peers.contains_key(name));
    }
}

/// A channel that connects when it is used.
pub(super) fn channel(way: &Way, patience: Duration) -> Result<Channel, Status> {
    let patience = Patience { connect: patience, ping: Some((SILENCE, patience)) };
    way.channel(patience, WINDOWS).map_err(|error| Status::failed_precondition(error.to_string()))
}

/// What a failure says of a node: nobody is there, or somebody who does not answer as an Observer does.
pub(super) fn state_of(status: &Status) -> NodeState {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => NodeState::NodeUnavailable,
        // A connection that breaks under way has another code, and the kernel's word for it behind it.
        _ if dial::is_broken(status) => NodeState::NodeUnavailable,
        _ => NodeState::NodeError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::Trust;

    fn told(tls: &NodeTls, address: &str, name: Option<&str>) -> String {
        let peer = PeerAddress { address: address.into(), tls: name.map(str::to_owned) };
        match tls.way(&peer) {
            Ok(Way::Socket(path)) => format!("socket {path}"),
            Ok(Way::Plain(address)) => format!("plain {address}"),
            Ok(Way::Tls { address, name, .. }) => format!("tls {address} {}", name.unwrap_or_default()),
            Err(status) => status.message().to_owned(),
        }
    }

    #[test]
    fn a_node_is_asked_in_the_manner_that_was_decided_and_in_no_weaker_one() {
        let tls = NodeTls::With(Arc::new(ClientTls::new(None, Trust::Anything).expect("no files")));
        assert_eq!(told(&tls, "192.0.2.1:4244", Some("a.x")), "tls 192.0.2.1:4244 a.x");
        assert!(told(&tls, "192.0.2.1:4244", None).contains("speaks nothing else"), "no downgrade");
        assert_eq!(told(&NodeTls::Disabled, "192.0.2.1:4244", None), "plain 192.0.2.1:4244");
        assert!(told(&NodeTls::Disabled, "192.0.2.1:4244", Some("a.x")).contains("no certificates"));
        assert!(told(&NodeTls::Undecided, "192.0.2.1:4244", None).contains("nobody has asked"));
        for any in [&tls, &NodeTls::Disabled, &NodeTls::Undecided] {
            assert_eq!(told(any, "unix:///run/a.sock", None), "socket /run/a.sock");
            assert_eq!(told(any, "unix:/run/a.sock", None), "socket /run/a.sock");
        }
    }
}
