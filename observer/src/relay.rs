//! The relay: one Observer for many nodes, as a [`Source`] that asks others.
//!
//! The set of nodes comes from outside ([`Peers`], kept current by [`follow_peers`] or a list). The relay asks each node,
//! with TLS ([`NodeTls`]), and merges the answers by time. A node that comes, goes, hangs, lags, has a wrong clock or sends
//! invalid answers delays the others by at most the window, and is reported: `NODE_CONNECTED`, `NODE_UNAVAILABLE`,
//! `NODE_GONE`, `NODE_ERROR`. Neighbours: [`question`] asks a node, [`passed`] are flows on their way, [`merge`] orders,
//! [`clock`] detects wrong clocks, [`node`] has channels, [`resume`] continues after a failure, [`discover`] learns the
//! nodes, [`counted`] has the relay's metrics, [`crate::service`] serves the result.

pub(crate) mod clock;
pub mod counted;
mod discover;
mod fan;
mod merge;
mod node;
mod passed;
mod question;
mod resume;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use sinew_api::proto::observer::{
    GetAgentEventsRequest, GetAgentEventsResponse, GetDebugEventsRequest, GetDebugEventsResponse,
    GetNamespacesRequest, GetNodesRequest, Namespace, Node, ServerStatusRequest, ServerStatusResponse, Tls,
};
use sinew_api::proto::relay::NodeState;
use tokio::sync::watch;
use tonic::{Code, Status};

use crate::encoded::EncodedAnswer;
use crate::peer::{PeerAddress, Peers};
use crate::query::Selection;
use crate::source::{Answers, FlowQuery, Source, StreamLimits};
use counted::Counted;
pub use discover::follow_peers;
pub use node::NodeTls;
use node::Nodes;

/// How the relay waits.
#[derive(Clone, Copy, Debug)]
pub struct RelaySettings {
    /// How long an answer may be held back for a slower node.
    pub window: Duration,
    /// How long a node may take to connect, to answer a single request, or to continue an answer that has an end.
    pub patience: Duration,
}

impl Default for RelaySettings {
    fn default() -> Self {
        Self { window: Duration::from_secs(1), patience: Duration::from_secs(3) }
    }
}

/// Many nodes as one source.
pub struct Relay {
    settings: RelaySettings,
    version: String,
    /// The machine that it runs on, as the node that reports about other nodes.
    name: Arc<str>,
    started: SystemTime,
    nodes: Arc<Nodes>,
    peers: watch::Receiver<Peers>,
    counted: Arc<Counted>,
}

impl Relay {
    /// A relay over the nodes that `peers` holds at any time.
    #[must_use]
    pub fn new(
        settings: RelaySettings,
        version: &str,
        peers: watch::Receiver<Peers>,
        tls: NodeTls,
        now: SystemTime,
    ) -> Self {
        let nodes = Arc::new(Nodes::new(settings.patience, tls));
        let counted = Arc::default();
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let name = name.trim().into();
        Self { settings, version: version.to_owned(), name, started: now, nodes, peers, counted }
    }

    /// Whether any node answers now.
    pub async fn reaches_a_node(&self) -> bool {
        let ask =
            |mut client: node::Client| async move { client.server_status(ServerStatusRequest {}).await };
        let answers = self.ask_all(ask).await;
        let answering = answers.iter().filter(|(_, _, answer)| answer.is_ok()).count();
        self.counted.asked(answering, answers.len() - answering);
        answering > 0
    }

    /// One request to every node at once; a node that does not answer in time is an error of that node alone.
    async fn ask_all<T, F>(
        &self,
        ask: impl Fn(node::Client) -> F,
    ) -> Vec<(String, PeerAddress, Result<T, Status>)>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let peers = self.peers.borrow().clone();
        let questions = peers.into_iter().map(|(name, peer)| {
            let client = self.nodes.client(&name, &peer);
            let answer = client.map(&ask);
            async move {
                let answer = match answer {
                    Ok(answer) => tokio::time::timeout(self.settings.patience, answer)
                        .await
                        .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time"))),
                    Err(status) => Err(status),
                };
                (name, peer, answer)
            }
        });
        join_all(questions).await
    }
}

/// Streams that a relay serves at a time: each takes one of the requests that a node allows on one connection, which all
/// streams share.
const STREAMS: usize = 120;
/// Of those, streams of one address.
const STREAMS_EACH: usize = 60;

#[tonic::async_trait]
impl Source for Relay {
    async fn flows(&self, query: FlowQuery) -> Result<Answers<EncodedAnswer>, Status> {
        // A node masks its own answer; time and node of the answer itself stay.
        Ok(fan::answers(self.fan_in(), query.request))
    }

    fn stream_limits(&self) -> StreamLimits {
        StreamLimits { all: STREAMS, per_client: STREAMS_EACH }
    }

    async fn agent_events(&self, selection: Selection) -> Result<Answers<GetAgentEventsResponse>, Status> {
        let Selection { number, first, follow, since, until } = selection;
        Ok(fan::answers(self.fan_in(), GetAgentEventsRequest { number, first, follow, since, until }))
    }

    async fn debug_events(&self, selection: Selection) -> Result<Answers<GetDebugEventsResponse>, Status> {
        let Selection { number, first, follow, since, until } = selection;
        Ok(fan::answers(self.fan_in(), GetDebugEventsRequest { number, first, follow, since, until }))
    }

    async fn nodes(&self) -> Result<Vec<Node>, Status> {
        let answers = self.ask_all(nodes_of).await;
        let nodes = answers.into_iter().flat_map(|(name, peer, answer)| match answer {
            Ok(mut nodes) => {
                for node in &mut nodes {
                    if node.name.is_empty() {
                        node.name.clone_from(&name);
                    }
                    if node.name == name {
                        node.address.clone_from(&peer.address);
                        node.tls = Some(tls_of(&peer));
                    }
                    node.state = NodeState::NodeConnected.into();
                }
                nodes
            }
            Err(status) => {
                let (tls, state) = (Some(tls_of(&peer)), node::state_of(&status).into());
                vec![Node { name, address: peer.address, state, tls, ..Node::default() }]
            }
        });
        Ok(nodes.collect())
    }

    async fn namespaces(&self) -> Result<Vec<Namespace>, Status> {
        let ask =
            |mut client: node::Client| async move { client.get_namespaces(GetNamespacesRequest {}).await };
        let answers = self.ask_all(ask).await;
        let all = answers.into_iter().filter_map(|(_, _, answer)| answer.ok());
        let pairs: BTreeSet<(String, String)> = all
            .flat_map(|answer| answer.into_inner().namespaces)
            .map(|namespace| (namespace.cluster, namespace.namespace))
            .collect();
        Ok(pairs.into_iter().map(|(cluster, namespace)| Namespace { cluster, namespace }).collect())
    }

    async fn status(&self) -> Result<ServerStatusResponse, Status> {
        let ask =
            |mut client: node::Client| async move { client.server_status(ServerStatusRequest {}).await };
        let mut sum =
            ServerStatusResponse { version: self.version.clone(), ..ServerStatusResponse::default() };
        let mut connected = 0;
        for (name, _, answer) in self.ask_all(ask).await {
            match answer {
                Ok(answer) => {
                    let answer = answer.into_inner();
                    connected += 1;
                    sum.num_flows += answer.num_flows;
                    sum.max_flows += answer.max_flows;
                    sum.seen_flows += answer.seen_flows;
                    sum.flows_rate += answer.flows_rate;
                    // Clients divide the flows seen by the time, so it is that of who has counted longest.
                    sum.uptime_ns = sum.uptime_ns.max(answer.uptime_ns);
                }
                Err(_) => sum.unavailable_nodes.push(name),
            }
        }
        sum.num_connected_nodes = Some(connected);
        sum.num_unavailable_nodes = Some(u32::try_from(sum.unavailable_nodes.len()).unwrap_or(u32::MAX));
        // Hubble's relay lists ten at most.
        sum.unavailable_nodes.truncate(10);
        Ok(sum)
    }
}

/// What a node says of itself. Hubble's own server lists no nodes, and says in its status how it does.
async fn nodes_of(mut client: node::Client) -> Result<Vec<Node>, Status> {
    match client.get_nodes(GetNodesRequest {}).await {
        Err(status) if status.code() == Code::Unimplemented => {
            let status = client.server_status(ServerStatusRequest {}).await?.into_inner();
            Ok(vec![Node {
                version: status.version,
                uptime_ns: status.uptime_ns,
                num_flows: status.num_flows,
                max_flows: status.max_flows,
                seen_flows: status.seen_flows,
                ..Node::default()
            }])
        }
        answer => Ok(answer?.into_inner().nodes),
    }
}

fn tls_of(peer: &PeerAddress) -> Tls {
    Tls { enabled: peer.tls.is_some(), server_name: peer.tls.clone().unwrap_or_default() }
}

impl Relay {
    fn fan_in(&self) -> fan::FanIn {
        fan::FanIn {
            name: Arc::clone(&self.name),
            settings: self.settings,
            nodes: self.nodes.clone(),
            peers: self.peers.clone(),
            counted: self.counted.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
