//! The Observer service: checks a request, asks the [`Source`], applies the field mask.
//!
//! A malformed request is INVALID_ARGUMENT with the field's name, before anything is read. An answer is made when the client
//! takes it: a client that stops reading holds one batch of references and nothing else. Neighbours: [`crate::source`]
//! answers, [`served`] encodes nothing twice, [`crate::server`] puts the service on a socket.

mod served;

use std::sync::Arc;
use std::time::SystemTime;

use futures_util::StreamExt;
use sinew_api::proto::observer::observer_server::Observer;
use sinew_api::proto::observer::{
    GetAgentEventsRequest, GetAgentEventsResponse, GetDebugEventsRequest, GetDebugEventsResponse,
    GetFlowsRequest, GetFlowsResponse, GetNamespacesRequest, GetNamespacesResponse, GetNodesRequest,
    GetNodesResponse, ServerStatusRequest, ServerStatusResponse,
};
use tonic::{Request, Response, Status};

use crate::encoded::EncodedAnswer;
use crate::filter::FilterSet;
use crate::listen::slots::{Client, Slot, Slots};
use crate::mask::Mask;
use crate::query::Selection;
use crate::relay::clock;
use crate::source::{Answers, FlowQuery, Source, StreamLimits};
pub(crate) use served::{GET_FLOWS, Served};

/// `observer.Observer` over a source.
pub struct ObserverService {
    source: Arc<dyn Source>,
    streams: Slots,
    /// What relays are told about this node's clock.
    clock: fn() -> SystemTime,
}

impl ObserverService {
    /// The service of a source.
    #[must_use]
    pub fn new(source: Arc<dyn Source>) -> Self {
        let StreamLimits { all, per_client } = source.stream_limits();
        Self { source, streams: Slots::new(all, per_client), clock: SystemTime::now }
    }

    /// One whose node has another time.
    #[cfg(test)]
    pub(crate) fn with_clock(source: Arc<dyn Source>, clock: fn() -> SystemTime) -> Self {
        Self { clock, ..Self::new(source) }
    }

    /// Flows as they go over the wire.
    pub(crate) async fn flows(
        &self,
        request: Request<GetFlowsRequest>,
    ) -> Result<Response<Answers<EncodedAnswer>>, Status> {
        let place = self.place(&request)?;
        let request = request.into_inner();
        let selection = selection(Selection::from(&request))?;
        let filters = FilterSet::new(&request.whitelist, &request.blacklist).map_err(invalid)?;
        let mask = Mask::new(request.field_mask.as_ref()).map_err(invalid)?;
        let query = FlowQuery { selection, filters: Arc::new(filters), request };
        let mut answers = self.source.flows(query).await?;
        if !mask.keeps_all() {
            answers = Box::pin(answers.map(move |answer| answer.map(|answer| mask.apply(answer))));
        }
        Ok(self.timed(answers, place))
    }

    /// A place for one more stream of whoever asks.
    fn place<T>(&self, request: &Request<T>) -> Result<Slot, Status> {
        let address = request.extensions().get::<Client>().map(|client| client.0);
        self.streams.take(address).ok_or_else(|| {
            let StreamLimits { all, per_client } = self.source.stream_limits();
            Status::resource_exhausted(format!(
                "too many streams are open: this server has {all}, and {per_client} for one address; end one or ask later"
            ))
        })
    }

    /// A stream's answer, with the time in its headers. It gives back its place when it ends.
    fn timed<T: 'static>(&self, answers: Answers<T>, place: Slot) -> Response<Answers<T>> {
        let answers = answers.map(move |answer| {
            let _held = &place;
            answer
        });
        let mut response = Response::new(Box::pin(answers) as Answers<T>);
        response.metadata_mut().insert(clock::HEADER, clock::header((self.clock)()));
        response
    }
}

#[tonic::async_trait]
impl Observer for ObserverService {
    type GetFlowsStream = Answers<GetFlowsResponse>;
    type GetAgentEventsStream = Answers<GetAgentEventsResponse>;
    type GetDebugEventsStream = Answers<GetDebugEventsResponse>;

    async fn get_flows(
        &self,
        request: Request<GetFlowsRequest>,
    ) -> Result<Response<Self::GetFlowsStream>, Status> {
        // For callers in this process; over the network `Served` answers.
        let answers = self.flows(request).await?;
        Ok(answers.map(|answers| Box::pin(answers.map(|answer| answer?.decode())) as Self::GetFlowsStream))
    }

    async fn get_agent_events(
        &self,
        request: Request<GetAgentEventsRequest>,
    ) -> Result<Response<Self::GetAgentEventsStream>, Status> {
        let place = self.place(&request)?;
        let selection = selection(Selection::from(request.get_ref()))?;
        self.source.agent_events(selection).await.map(|events| self.timed(events, place))
    }

    async fn get_debug_events(
        &self,
        request: Request<GetDebugEventsRequest>,
    ) -> Result<Response<Self::GetDebugEventsStream>, Status> {
        let place = self.place(&request)?;
        let selection = selection(Selection::from(request.get_ref()))?;
        self.source.debug_events(selection).await.map(|events| self.timed(events, place))
    }

    async fn get_nodes(&self, _: Request<GetNodesRequest>) -> Result<Response<GetNodesResponse>, Status> {
        Ok(Response::new(GetNodesResponse { nodes: self.source.nodes().await? }))
    }

    async fn get_namespaces(
        &self,
        _: Request<GetNamespacesRequest>,
    ) -> Result<Response<GetNamespacesResponse>, Status> {
        Ok(Response::new(GetNamespacesResponse { namespaces: self.source.namespaces().await? }))
    }

    async fn server_status(
        &self,
        _: Request<ServerStatusRequest>,
    ) -> Result<Response<ServerStatusResponse>, Status> {
        self.source.status().await.map(Response::new)
    }
}

fn selection(selection: Selection) -> Result<Selection, Status> {
    selection.check().map_err(invalid)
}

fn invalid(problem: impl std::fmt::Display) -> Status {
    Status::invalid_argument(problem.to_string())
}

#[cfg(test)]
mod tests;
