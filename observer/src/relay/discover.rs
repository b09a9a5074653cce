//! The set of nodes, learned from a Peer service: any agent, since each knows all nodes.
//!
//! An answer begins with all nodes as added, one by one, and does not say where this beginning ends. So after a new
//! connection the old set stays and new nodes are added; nodes that were not named are removed once the other side has been
//! quiet. So an agent that restarts makes no node disappear.

use std::collections::BTreeSet;
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
/// Silence after which the beginning of an answer is over.
const QUIET: Duration = Duration::from_secs(1);

/// Keeps `peers` as the Peer service says, for ever; while it does not answer, the last set stays.
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
    let mut heard = Heard::over(peers.borrow().clone());
    loop {
        let change = if heard.is_beginning() {
            tokio::time::timeout(QUIET, changes.message()).await.ok()
        } else {
            Some(changes.message().await)
        };
        match change {
            Some(change) => {
                heard.take(change?.ok_or_else(|| Status::unavailable("it ended its answer"))?);
                *pause = FIRST_PAUSE;
            }
            None => heard.end_beginning(),
        }
        peers.send_if_modified(|current| {
            let changed = *current != heard.peers;
            if changed {
                current.clone_from(&heard.peers);
            }
            changed
        });
    }
}

/// The set, and what of it this answer has told.
struct Heard {
    peers: Peers,
    /// Nodes that the answer has told, until its beginning is over.
    told: Option<BTreeSet<String>>,
}

impl Heard {
    /// Nothing yet, over what an earlier answer told.
    fn over(peers: Peers) -> Self {
        Self { peers, told: Some(BTreeSet::new()) }
    }

    /// Whether the first nodes may still be on their way. An answer that has told none has not begun.
    fn is_beginning(&self) -> bool {
        self.told.as_ref().is_some_and(|told| !told.is_empty())
    }

    fn take(&mut self, change: ChangeNotification) {
        match change.r#type() {
            ChangeNotificationType::PeerDeleted => drop(self.peers.remove(&change.name)),
            ChangeNotificationType::PeerAdded | ChangeNotificationType::PeerUpdated => {
                if let Some(told) = &mut self.told {
                    told.insert(change.name.clone());
                }
                let tls = change.tls.map(|tls| tls.server_name);
                self.peers.insert(change.name, PeerAddress { address: change.address, tls });
            }
            ChangeNotificationType::Unknown => {}
        }
    }

    /// What the answer has not told is gone.
    fn end_beginning(&mut self) {
        if let Some(told) = self.told.take() {
            self.peers.retain(|name, _| told.contains(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(kind: ChangeNotificationType, name: &str) -> ChangeNotification {
        ChangeNotification { name: name.into(), r#type: kind.into(), ..ChangeNotification::default() }
    }

    fn names(heard: &Heard) -> Vec<&str> {
        heard.peers.keys().map(String::as_str).collect()
    }

    #[test]
    fn an_agent_that_restarts_makes_no_node_go() {
        let mut heard = Heard::over(Peers::new());
        for name in ["a", "b", "c"] {
            heard.take(change(ChangeNotificationType::PeerAdded, name));
        }
        heard.end_beginning();
        assert_eq!(names(&heard), ["a", "b", "c"]);

        // Another connection: c was removed in the meantime.
        let mut heard = Heard::over(heard.peers);
        assert!(!heard.is_beginning(), "nothing is taken away before anything is told");
        heard.take(change(ChangeNotificationType::PeerAdded, "a"));
        assert_eq!(names(&heard), ["a", "b", "c"], "b and c may come yet");
        heard.take(change(ChangeNotificationType::PeerAdded, "b"));
        assert!(heard.is_beginning());
        heard.end_beginning();
        assert_eq!(names(&heard), ["a", "b"]);
        heard.take(change(ChangeNotificationType::PeerDeleted, "a"));
        assert_eq!(names(&heard), ["b"]);
        assert!(!heard.is_beginning(), "a beginning is over once");
    }
}
