//! Where the Observer service gets its answers: the journal of a node, or other nodes by way of a relay.
//!
//! The service checks a request once and hands over what it means; a source only answers. Neighbours:
//! [`crate::journal`] implements it for a node, [`crate::service`] serves it.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use sinew_api::proto::observer::{
    GetAgentEventsResponse, GetDebugEventsResponse, GetFlowsRequest, Namespace, Node, ServerStatusResponse,
};
use tonic::Status;

use crate::encoded::EncodedAnswer;
use crate::filter::FilterSet;
use crate::query::Selection;

/// A stream of answers. Dropping it ends the work behind it.
pub type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A checked request for flows.
#[derive(Debug)]
pub struct FlowQuery {
    /// Which flows by number and time.
    pub selection: Selection,
    /// Which flows by content.
    pub filters: Arc<FilterSet>,
    /// The request itself, for a source that asks others.
    pub request: GetFlowsRequest,
}

/// How many streams a source serves at a time.
#[derive(Clone, Copy, Debug)]
pub struct StreamLimits {
    /// To all clients.
    pub all: usize,
    /// To one address. A relay is one client.
    pub per_client: usize,
}

/// Streams that a node serves at a time.
const STREAMS: usize = 512;
/// Of those, streams of one address.
const STREAMS_EACH: usize = 160;

/// Answers for the Observer service.
#[tonic::async_trait]
pub trait Source: Send + Sync + 'static {
    /// Flows, and word of what is missing. Whole flows: the service applies the field mask.
    async fn flows(&self, query: FlowQuery) -> Result<Answers<EncodedAnswer>, Status>;
    /// Events of the agent.
    async fn agent_events(&self, selection: Selection) -> Result<Answers<GetAgentEventsResponse>, Status>;
    /// Debug messages of the datapath.
    async fn debug_events(&self, selection: Selection) -> Result<Answers<GetDebugEventsResponse>, Status>;
    /// The nodes that answer here.
    async fn nodes(&self) -> Result<Vec<Node>, Status>;
    /// Namespaces seen lately, sorted.
    async fn namespaces(&self) -> Result<Vec<Namespace>, Status>;
    /// How much it can serve. A stream costs a node some KiB and its share of the processor.
    fn stream_limits(&self) -> StreamLimits {
        StreamLimits { all: STREAMS, per_client: STREAMS_EACH }
    }
    /// Fill, rate and age.
    async fn status(&self) -> Result<ServerStatusResponse, Status>;
}
