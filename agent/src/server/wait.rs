//! How far the nodes are with what the store holds (policy.md 16).

use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use sinew_api::proto::agent::{NodeProgress, WaitPolicyRequest, WaitPolicyResponse};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use super::policies;
use super::status::{is_alive, last_seen};
use crate::view::View;

/// Answers, one for each change, until one says that all is enforced.
pub(super) type Progress = Pin<Box<dyn Stream<Item = Result<WaitPolicyResponse, Status>> + Send>>;

/// Watches the nodes; `own` is the one that answers. A policy that the store does not have is refused at once.
pub(super) fn progress(
    views: watch::Receiver<Arc<View>>,
    own: &str,
    request: &WaitPolicyRequest,
) -> Result<Progress, Status> {
    let own = own.to_owned();
    let generation = request.generation;
    let name = match request.name.as_str() {
        "" => String::new(),
        name => policies::find(&views.borrow(), name)?.0.to_string(),
    };
    // After the answer that says `enforced` the stream ends.
    let answers = futures_util::stream::unfold((WatchStream::new(views), false), move |(mut views, done)| {
        let (own, name) = (own.clone(), name.clone());
        async move {
            if done {
                return None;
            }
            let answer = answer(&*views.next().await?, &own, &name, generation);
            let done = answer.enforced;
            Some((Ok(answer), (views, done)))
        }
    });
    Ok(Box::pin(answers))
}

fn answer(view: &View, own: &str, name: &str, generation: u64) -> WaitPolicyResponse {
    let now = SystemTime::now();
    let wanted = view.snapshot.policies.iter().find(|(full, _)| full.to_string() == name);
    let here = wanted.is_none_or(|(_, policy)| policy.policy.generation >= generation || generation == 0)
        && view.enforced >= view.snapshot.revision;
    // Of the other nodes only a digest of everything is known.
    let behind: Vec<String> = view
        .snapshot
        .policies
        .iter()
        .filter(|(_, policy)| policy.revision > view.enforced)
        .map(|(full, _)| full.to_string())
        .collect();
    let nodes: Vec<NodeProgress> = view
        .nodes
        .values()
        .map(|node| NodeProgress {
            node: node.name.clone(),
            alive: is_alive(node, now),
            enforced: here && node.status.policy_digest == view.store_digest,
            revision: node.status.revision,
            last_seen: Some(last_seen(node)),
            behind: if node.name == own { behind.clone() } else { Vec::new() },
        })
        .collect();
    let refused = view
        .snapshot
        .policies
        .iter()
        .filter(|(full, policy)| !policy.problems.is_empty() && (name.is_empty() || full.to_string() == name))
        .map(|(full, _)| full.to_string())
        .collect();
    let live = nodes.iter().filter(|node| node.alive);
    WaitPolicyResponse {
        enforced: here && live.clone().count() > 0 && live.into_iter().all(|node| node.enforced),
        nodes,
        revision: view.enforced,
        refused,
    }
}
