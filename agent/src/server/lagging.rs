//! Nodes whose pods are judged by other policies than the store's: an answer that is computed from the store is not what
//! happens there.
//!
//! Neighbours: `wait.rs` waits for them, `policies.rs` counts them.

use std::collections::BTreeSet;
use std::time::SystemTime;

use sinew_api::object::Node;
use sinew_api::proto::agent::ExplainResponse;

use crate::view::{View, is_alive};

/// Says in an explanation which of its ends is on such a node.
pub(super) fn tell(view: &View, answer: &mut ExplainResponse) {
    let ends = [&answer.from, &answer.to].into_iter().flatten();
    let nodes: BTreeSet<&String> = ends.map(|end| &end.node).collect();
    let now = SystemTime::now();
    let notes = nodes.into_iter().filter_map(|node| note(view, view.nodes.get(node)?, now));
    let notes: Vec<String> = notes.collect();
    answer.notes.extend(notes);
}

/// What is to be known of a node, if it has not followed the store.
fn note(view: &View, node: &Node, now: SystemTime) -> Option<String> {
    if node.status.policy_digest == view.store_digest {
        return None;
    }
    let name = &node.name;
    Some(if is_alive(node, now) {
        format!("node {name} does not enforce yet what the store holds, by which this is answered")
    } else {
        format!(
            "node {name} is silent and goes on with the policies that it had; this is what the store holds"
        )
    })
}

/// Nodes that are silent and have other policies than the store, by name.
pub(super) fn silent(view: &View) -> Vec<String> {
    let now = SystemTime::now();
    let lag = |node: &&Node| !is_alive(node, now) && node.status.policy_digest != view.store_digest;
    view.nodes.values().filter(lag).map(|node| node.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use sinew_api::object::{NodeStatus, Origin, Routing};
    use sinew_api::proto::agent::ResolvedParty;

    use super::*;

    fn view(heartbeat_ms: u64, digest: &str) -> View {
        let node = Node {
            name: "b".into(),
            cluster: "default".into(),
            id: 2,
            addresses: Vec::new(),
            pod_cidrs: Vec::new(),
            routing: Routing::Native,
            status: NodeStatus { heartbeat_ms, policy_digest: digest.into(), ..NodeStatus::default() },
            origin: Origin::default(),
        };
        View {
            nodes: Arc::new(BTreeMap::from([("b".into(), node)])),
            store_digest: "now".into(),
            ..View::empty()
        }
    }

    /// Ahead of every clock.
    const ALIVE: u64 = 1 << 50;

    fn notes(view: &View, node: &str) -> Vec<String> {
        let to = Some(ResolvedParty { node: node.into(), ..ResolvedParty::default() });
        let mut answer = ExplainResponse { to, ..ExplainResponse::default() };
        tell(view, &mut answer);
        answer.notes
    }

    #[test]
    fn a_node_that_has_not_followed_is_named() {
        assert!(notes(&view(0, "before"), "b")[0].starts_with("node b is silent and goes on"));
        assert!(notes(&view(ALIVE, "before"), "b")[0].starts_with("node b does not enforce yet"));
        assert_eq!(notes(&view(ALIVE, "now"), "b"), [""; 0]);
        assert_eq!(notes(&view(0, "now"), "b"), [""; 0], "it has what the store holds");
        assert_eq!(notes(&view(0, "before"), "a"), [""; 0], "neither end is there");
        assert_eq!(silent(&view(0, "before")), ["b"]);
        assert_eq!(silent(&view(ALIVE, "before")), [""; 0]);
    }
}
