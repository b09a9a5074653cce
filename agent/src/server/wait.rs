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
use super::status::last_seen;
use crate::view::{View, is_alive};

/// Answers, one for each change, until all nodes have followed: the last one says that all is enforced, or what is refused.
pub(super) type Progress = Pin<Box<dyn Stream<Item = Result<WaitPolicyResponse, Status>> + Send>>;

/// Watches the nodes; `own` is the one that answers. A policy that the store does not have is refused at once.
pub(super) fn progress(
    views: watch::Receiver<Arc<View>>,
    own: &str,
    request: &WaitPolicyRequest,
) -> Result<Progress, Status> {
    let own = own.to_owned();
    let WaitPolicyRequest { generation, ignore_silent, .. } = *request;
    let name = match request.name.as_str() {
        "" => String::new(),
        name => policies::find(&views.borrow(), name)?.0.to_string(),
    };
    // After the answer that is settled the stream ends.
    let answers = futures_util::stream::unfold((WatchStream::new(views), false), move |(mut views, done)| {
        let (own, name) = (own.clone(), name.clone());
        async move {
            if done {
                return None;
            }
            let (answer, settled) = answer(&*views.next().await?, &own, &name, generation, ignore_silent);
            Some((Ok(answer), (views, settled)))
        }
    });
    Ok(Box::pin(answers))
}

/// The answer as of now, and whether every node has followed: a node that did enforces what is valid, and what is refused
/// never. The pods of a silent node are judged by what it had when it was last heard of.
fn answer(
    view: &View,
    own: &str,
    name: &str,
    generation: u64,
    ignore_silent: bool,
) -> (WaitPolicyResponse, bool) {
    let now = SystemTime::now();
    let wanted = view.snapshot.policies.iter().find(|(full, _)| full.to_string() == name);
    // A generation is a hash of the content: another one is neither older nor newer.
    let here = wanted.is_none_or(|(_, policy)| generation == 0 || policy.policy.generation == generation)
        && view.enforced >= view.snapshot.revision;
    // Of the other nodes only a digest of everything is known.
    let behind: Vec<String> = view
        .snapshot
        .policies
        .iter()
        .filter(|(_, policy)| policy.revision > view.enforced)
        .map(|(full, _)| full.to_string())
        .collect();
    let refused = refused(view, name);
    // Its policies are enforced, and by the labels that they had before.
    let moving = |node: &str| {
        let pods = view.moving.iter().filter(|(_, of)| *of == node);
        pods.map(|(pod, _)| format!("labels of {pod}")).collect::<Vec<_>>()
    };
    let mut nodes: Vec<NodeProgress> = view
        .nodes
        .values()
        .map(|node| {
            let moving = moving(&node.name);
            NodeProgress {
                node: node.name.clone(),
                alive: is_alive(node, now),
                enforced: here && node.status.policy_digest == view.store_digest && moving.is_empty(),
                revision: node.status.revision,
                last_seen: Some(last_seen(node)),
                behind: if node.name == own { [behind.clone(), moving].concat() } else { moving },
            }
        })
        .collect();
    let mut counted = nodes.iter().filter(|node| node.alive || !ignore_silent).peekable();
    let settled = here && counted.peek().is_some() && counted.all(|node| node.enforced);
    if !refused.is_empty() {
        nodes.iter_mut().for_each(|node| node.enforced = false);
    }
    let enforced = settled && refused.is_empty();
    (WaitPolicyResponse { enforced, nodes, revision: view.enforced, refused }, settled)
}

/// What will never be enforced of all objects, or of one policy: refused policies, refused documents with a name, and
/// documents without one by their places. For one policy those of its own file count, since it may be one of them.
fn refused(view: &View, name: &str) -> Vec<String> {
    let meant = |other: &str| name.is_empty() || other == name;
    let policies = view.snapshot.policies.iter();
    let file = policies
        .clone()
        .find(|(full, _)| full.to_string() == name)
        .map(|(_, policy)| policy.policy.origin.file.as_str());
    let policies = policies
        .filter(|(_, policy)| !policy.problems.is_empty())
        .map(|(full, _)| full.to_string())
        .filter(|full| meant(full));
    let documents = view.refused.iter().filter_map(|document| {
        let name = document.name.as_ref().map(policies::written_name)?;
        meant(&name).then(|| format!("{name} in {}", document.origin))
    });
    let unreadable = view
        .unreadable
        .iter()
        .filter(|problem| name.is_empty() || Some(problem.origin.file.as_str()) == file)
        .map(|problem| problem.origin.to_string());
    policies.chain(documents).chain(unreadable).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sinew_api::object::{
        CidrGroupKind, Node, NodeStatus, Object, ObjectKind, ObjectName, Origin, Problem, Refused, Routing,
        decode_text,
    };
    use sinew_engine::snapshot::{Force, PolicyState, PolicyView, Snapshot};

    use super::*;

    /// A node with one policy, `snp/default/web`, that it enforces.
    fn view() -> View {
        let text = "apiVersion: sinew.io/v1\nkind: SinewNetworkPolicy\nmetadata: {name: web}\n\
                    spec: {endpointSelector: {}, ingress: [{fromEntities: [all]}]}\n";
        let Ok(Object::Policy(policy)) = decode_text("web.yaml", text).remove(0) else {
            panic!("it is valid")
        };
        let name = policy.name.clone();
        let policy = Arc::new(policy);
        let policy = PolicyView {
            policy: Arc::clone(&policy),
            running: policy,
            force: Force::Whole,
            state: PolicyState::Enforced,
            problems: Vec::new(),
            warnings: Vec::new(),
            selected: Vec::new(),
            matched: BTreeMap::new(),
            revision: 1,
        };
        let node = Node {
            name: "a".into(),
            cluster: "default".into(),
            id: 1,
            addresses: Vec::new(),
            pod_cidrs: Vec::new(),
            routing: Routing::Native,
            // Ahead of every clock.
            status: NodeStatus { heartbeat_ms: 1 << 50, policy_digest: "x".into(), ..NodeStatus::default() },
            origin: Origin::default(),
        };
        let policies = Arc::new(BTreeMap::from([(name, policy)]));
        View {
            snapshot: Arc::new(Snapshot { revision: 1, synced: true, policies, ..Snapshot::default() }),
            enforced: 1,
            nodes: Arc::new(BTreeMap::from([("a".into(), node)])),
            store_digest: "x".into(),
            ..View::empty()
        }
    }

    const WEB: &str = "snp/default/web";

    /// What node `a` says to whoever waits for every node.
    fn answer_to_all(view: &View, name: &str, generation: u64) -> (WaitPolicyResponse, bool) {
        answer(view, "a", name, generation, false)
    }

    #[test]
    fn a_generation_is_waited_for_as_it_is() {
        let view = view();
        let generation = view.snapshot.policies.values().next().unwrap().policy.generation;
        for (wanted, enforced) in
            [(0, true), (generation, true), (generation - 1, false), (generation + 1, false)]
        {
            assert_eq!(answer_to_all(&view, WEB, wanted).0.enforced, enforced, "{wanted} of {generation}");
        }
    }

    /// Not of a node that is no more.
    #[test]
    fn labels_on_their_way_are_waited_for() {
        let mut view = view();
        let moving = |node: &str| Arc::new(BTreeMap::from([("shop/client".to_owned(), node.to_owned())]));
        view.moving = moving("a");
        let (told, settled) = answer_to_all(&view, "", 0);
        assert!(!told.enforced && !settled);
        assert_eq!(told.nodes[0].behind, ["labels of shop/client"]);
        view.moving = moving("gone");
        assert!(answer_to_all(&view, "", 0).0.enforced);
        view.moving = Arc::default();
        assert!(answer_to_all(&view, "", 0).0.enforced);
    }

    #[test]
    fn a_silent_node_counts_with_what_it_had() {
        let mut view = view();
        let silent = |digest: &str| {
            let mut node = view.nodes["a"].clone();
            node.name = "b".into();
            node.status = NodeStatus { policy_digest: digest.into(), ..NodeStatus::default() };
            BTreeMap::from([("a".to_owned(), view.nodes["a"].clone()), ("b".to_owned(), node)])
        };
        let (before, now) = (silent("before"), silent("x"));
        view.nodes = Arc::new(before);
        let (answered, settled) = answer_to_all(&view, "", 0);
        assert!(!answered.enforced && !settled, "its pods answer under what it had");
        assert_eq!(answered.nodes.iter().map(|node| node.alive).collect::<Vec<_>>(), [true, false]);
        assert!(answer(&view, "a", "", 0, true).0.enforced, "not waited for");
        view.nodes = Arc::new(now);
        assert!(answer_to_all(&view, "", 0).0.enforced, "it has what the store holds");
    }

    #[test]
    fn documents_that_are_refused_will_never_be_enforced() {
        let mut view = view();
        assert_eq!(answer_to_all(&view, "", 0).0.refused, [] as [&str; 0]);
        let at = |file: &str| Origin { file: file.into(), line: 3 };
        let problem = |file: &str| Problem { path: String::new(), message: "x".into(), origin: at(file) };
        view.unreadable = Arc::new(vec![problem("other.yaml"), problem("web.yaml")]);
        let group = ObjectName {
            kind: ObjectKind::CidrGroup(CidrGroupKind::Sinew),
            namespace: String::new(),
            name: "g".into(),
        };
        let web = view.snapshot.policies.keys().next().unwrap().clone();
        let kind = ObjectKind::Policy(web.kind);
        let duplicate = ObjectName { kind, namespace: web.namespace, name: web.name };
        view.refused = Arc::new(vec![
            Refused::new(Some(group), at("g.yaml"), vec![problem("g.yaml")]),
            Refused::new(Some(duplicate), at("x.yaml"), vec![problem("x.yaml")]),
        ]);
        assert_eq!(
            answer_to_all(&view, "", 0).0.refused,
            ["SinewCIDRGroup/g in g.yaml:3", "snp/default/web in x.yaml:3", "other.yaml:3", "web.yaml:3"]
        );
        let (told, settled) = answer_to_all(&view, WEB, 0);
        assert_eq!(told.refused, ["snp/default/web in x.yaml:3", "web.yaml:3"]);
        // Every node has followed, and what is waited for is not enforced: nothing is said that says otherwise.
        assert!(settled && !told.enforced && !told.nodes[0].enforced, "{told:?}");
    }
}
