//! The Peer service: which nodes there are, for a relay.
//!
//! The agent publishes the whole set whenever it changes. A stream begins with every node as added, and then gets the
//! differences between what it was last told and the current set; a slow client skips what came and went in between.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;

use futures_util::{Stream, stream};
use sinew_api::proto::peer::peer_server::Peer;
use sinew_api::proto::peer::{ChangeNotification, ChangeNotificationType, NotifyRequest, Tls};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

/// Nodes by name, as `cluster/node`.
pub type Peers = BTreeMap<String, PeerAddress>;

/// Where a node's Observer answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerAddress {
    /// `host:port` or `unix:path`.
    pub address: String,
    /// Name on its certificate; `None` where it answers without TLS.
    pub tls: Option<String>,
}

/// The name on the certificate of a node's Observer, in Hubble's form. Dots become hyphens, so that one wildcard
/// (`*.CLUSTER.hubble-grpc.cilium.io`) fits all nodes of a cluster.
#[must_use]
pub fn tls_server_name(cluster: &str, node: &str) -> String {
    format!("{}.{}.hubble-grpc.cilium.io", node.replace('.', "-"), cluster.replace('.', "-"))
}

/// `peer.Peer` over a published set.
#[derive(Clone, Debug)]
pub struct PeerService {
    peers: watch::Receiver<Peers>,
}

impl PeerService {
    /// The service over a set that the agent keeps current.
    #[must_use]
    pub fn new(peers: watch::Receiver<Peers>) -> Self {
        Self { peers }
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    type NotifyStream = Pin<Box<dyn Stream<Item = Result<ChangeNotification, Status>> + Send>>;

    async fn notify(&self, _: Request<NotifyRequest>) -> Result<Response<Self::NotifyStream>, Status> {
        let mut peers = self.peers.clone();
        peers.mark_changed();
        let told = Told { peers, known: Peers::new(), waiting: VecDeque::new() };
        Ok(Response::new(Box::pin(stream::unfold(told, |mut told| async move {
            told.next().await.map(|change| (Ok(change), told))
        }))))
    }
}

/// What one client has been told.
struct Told {
    peers: watch::Receiver<Peers>,
    known: Peers,
    waiting: VecDeque<ChangeNotification>,
}

impl Told {
    async fn next(&mut self) -> Option<ChangeNotification> {
        loop {
            if let Some(change) = self.waiting.pop_front() {
                return Some(change);
            }
            self.peers.changed().await.ok()?;
            let now = self.peers.borrow_and_update().clone();
            self.waiting = changes(&self.known, &now).into();
            self.known = now;
        }
    }
}

/// The differences from one set to the other: gone nodes first, so that an address that moves is never at two nodes.
fn changes(from: &Peers, to: &Peers) -> Vec<ChangeNotification> {
    let gone = from
        .iter()
        .filter(|(name, _)| !to.contains_key(*name))
        .map(|(name, peer)| change(name, peer, ChangeNotificationType::PeerDeleted));
    let here = to.iter().filter_map(|(name, peer)| match from.get(name) {
        None => Some(change(name, peer, ChangeNotificationType::PeerAdded)),
        Some(old) if old != peer => Some(change(name, peer, ChangeNotificationType::PeerUpdated)),
        Some(_) => None,
    });
    gone.chain(here).collect()
}

fn change(name: &str, peer: &PeerAddress, r#type: ChangeNotificationType) -> ChangeNotification {
    ChangeNotification {
        name: name.to_owned(),
        address: peer.address.clone(),
        r#type: r#type.into(),
        tls: peer.tls.clone().map(|server_name| Tls { server_name }),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    fn peers(list: &[(&str, &str)]) -> Peers {
        let entry = |(name, address): &(&str, &str)| {
            ((*name).to_owned(), PeerAddress { address: (*address).to_owned(), tls: None })
        };
        list.iter().map(entry).collect()
    }

    fn told(change: Option<Result<ChangeNotification, Status>>) -> String {
        let change = change.expect("the stream goes on").expect("a change");
        format!("{:?} {} {}", change.r#type(), change.name, change.address)
    }

    #[tokio::test]
    async fn every_node_first_then_the_differences() {
        let (sender, receiver) =
            watch::channel(peers(&[("default/a", "10.0.0.1:4244"), ("default/b", "10.0.0.2:4244")]));
        let service = PeerService::new(receiver);
        let mut stream = service.notify(Request::new(NotifyRequest {})).await.expect("a stream").into_inner();
        assert_eq!(told(stream.next().await), "PeerAdded default/a 10.0.0.1:4244");
        assert_eq!(told(stream.next().await), "PeerAdded default/b 10.0.0.2:4244");
        sender.send_replace(peers(&[("default/b", "10.0.0.9:4244"), ("default/c", "10.0.0.1:4244")]));
        assert_eq!(told(stream.next().await), "PeerDeleted default/a 10.0.0.1:4244");
        assert_eq!(told(stream.next().await), "PeerUpdated default/b 10.0.0.9:4244");
        assert_eq!(told(stream.next().await), "PeerAdded default/c 10.0.0.1:4244");
        drop(sender);
        assert!(stream.next().await.is_none(), "the stream ends with the agent");
    }

    #[tokio::test]
    async fn nothing_is_told_when_nothing_changed() {
        let same = peers(&[("default/a", "10.0.0.1:4244")]);
        assert!(changes(&same, &same).is_empty());
    }
}
