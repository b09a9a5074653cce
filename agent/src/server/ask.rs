//! What the services ask of the control loop, which alone owns engine and datapath.

use std::collections::BTreeMap;

use sinew_bpf::abi::StateWord;
use sinew_engine::explain::{Explanation, Query, Unknown};
use sinew_engine::{EndpointId, Engine};
use tokio::sync::oneshot;

use crate::datapath::{Connection, ConnectionFilter, Datapath, DatapathError, RuleHits};

/// A question, with where the answer goes.
#[derive(Debug)]
pub enum Ask {
    /// Judgements by cookie.
    RuleHits(oneshot::Sender<Result<BTreeMap<u32, RuleHits>, DatapathError>>),
    /// The endpoints' words.
    Words(oneshot::Sender<BTreeMap<EndpointId, StateWord>>),
    /// Connections.
    Connections(ConnectionFilter, oneshot::Sender<Result<Vec<Connection>, DatapathError>>),
    /// What would happen to a new connection.
    Explain(Query, oneshot::Sender<Result<Explanation, Unknown>>),
    /// Forget connections.
    Flush(ConnectionFilter, oneshot::Sender<Result<usize, DatapathError>>),
    /// Look at everything in the store, and answer when the view shows it. The loop itself answers this one.
    CatchUp(oneshot::Sender<()>),
}

impl Ask {
    /// Answers it. Whoever has gone away meanwhile gets no answer.
    pub fn answer(self, engine: &Engine, datapath: &mut Datapath) {
        match self {
            Self::RuleHits(reply) => drop(reply.send(datapath.rule_hits())),
            Self::Words(reply) => {
                let words = datapath.endpoints().keys().map(|id| (*id, datapath.word(*id))).collect();
                drop(reply.send(words));
            }
            Self::Connections(filter, reply) => drop(reply.send(datapath.connections(&filter))),
            Self::Explain(query, reply) => drop(reply.send(engine.explain(&query))),
            Self::Flush(filter, reply) => drop(reply.send(datapath.connections_flush(&filter))),
            Self::CatchUp(reply) => drop(reply),
        }
    }
}
