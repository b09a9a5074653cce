//! One node: its channel, and what is asked of it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sinew_api::proto::observer::observer_client::ObserverClient;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::peer::{PeerAddress, Peers};

/// A client of a node's Observer.
pub(super) type Client = ObserverClient<Channel>;

/// Largest answer of a node that is read, in bytes. Rubbish ends its stream, not the relay.
const LARGEST_ANSWER: usize = 4 << 20;
/// First pause before a node that failed is asked again; each further one is twice as long.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Channels to nodes, one for each, shared by all requests.
#[derive(Debug)]
pub(super) struct Nodes {
    patience: Duration,
    channels: Mutex<BTreeMap<String, (PeerAddress, Channel)>>,
}

impl Nodes {
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, channels: Mutex::new(BTreeMap::new()) }
    }

    /// A client of a node; it connects when it is used.
    pub(super) fn client(&self, name: &str, peer: &PeerAddress) -> Result<Client, Status> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let made = match channels.get(name) {
            Some((known, channel)) if known == peer => channel.clone(),
            _ => {
                let made = channel(peer, self.patience)?;
                channels.insert(name.to_owned(), (peer.clone(), made.clone()));
                made
            }
        };
        Ok(ObserverClient::new(made).max_decoding_message_size(LARGEST_ANSWER))
    }

    /// Forgets the channels of nodes that are gone.
    pub(super) fn keep(&self, peers: &Peers) {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.retain(|name, _| peers.contains_key(name));
    }
}

/// A channel that connects when it is used.
pub(super) fn channel(peer: &PeerAddress, patience: Duration) -> Result<Channel, Status> {
    if peer.tls.is_some() {
        return Err(Status::unavailable(format!(
            "{} speaks TLS only, which this relay does not",
            peer.address
        )));
    }
    let uri = match peer.address.strip_prefix("unix:") {
        Some(path) => format!("unix:{}", path.trim_start_matches("//")),
        None => format!("http://{}", peer.address),
    };
    let endpoint = Endpoint::from_shared(uri)
        .map_err(|error| Status::unavailable(format!("{:?} is no address: {error}", peer.address)))?
        .connect_timeout(patience)
        // A node that is frozen answers no ping; its streams end then.
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(patience)
        .keep_alive_while_idle(true);
    Ok(endpoint.connect_lazy())
}
