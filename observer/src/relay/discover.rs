//! Which nodes there are, as a Peer service tells it: any agent, which knows all nodes.

use std::convert::Infallible;
use std::time::Duration;

use sinew_api::proto::peer::peer_client::PeerClient;
use sinew_api::proto::peer::{ChangeNotification, ChangeNotificationType, NotifyRequest};
use tokio::sync::watch;
use tonic::Status;

use super::node::{self, FIRST_PAUSE};
use crate::dial::{self, Way};
use crate::peer::{PeerAddress, Peers};

/// Longest pause before a Peer service that failed is asked again: new nodes wait for it.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Keeps `peers` as the Peer service tells, for ever; while it does not answer, the last set holds. An answer begins with
/// all nodes that there are, so what went while nobody listened is gone after the first change.
pub async fn follow_peers(at: &Way, peers: watch::Sender<Peers>, patience: Duration) -> Infallible {
    let mut pause = FIRST_PAUSE;
    loop {
        let Err(status) = listen(at, &peers, patience, &mut pause).await;
        let reason = dial::reason(&status);
        tracing::warn!(reason, "the Peer service does not answer; asked again in {} s", pause.as_secs_f32());
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// One connection's worth of changes.
async fn listen(
    at: &Way,
    peers: &watch::Sender<Peers>,
    patience: Duration,
    pause: &mut Duration,
) -> Result<Infallible, Status> {
    let mut client = PeerClient::new(node::channel(at, patience)?);
    let mut changes = client.notify(NotifyRequest {}).await?.into_inner();
    let mut known = Peers::new();
    while let Some(change) = changes.message().await? {
        *pause = FIRST_PAUSE;
        take(&mut known, change);
        peers.send_if_modified(|current| {
            let changed = *current != known;
            if changed {
                current.clone_from(&known);
            }
            changed
        });
    }
    Err(Status::unavailable("it ended its answer"))
}

fn take(known: &mut Peers, change: ChangeNotification) {
    match change.r#type() {
        ChangeNotificationType::PeerDeleted => drop(known.remove(&change.name)),
        ChangeNotificationType::PeerAdded | ChangeNotificationType::PeerUpdated => {
            let tls = change.tls.map(|tls| tls.server_name);
            known.insert(change.name, PeerAddress { address: change.address, tls });
        }
        ChangeNotificationType::Unknown => {}
    }
}
