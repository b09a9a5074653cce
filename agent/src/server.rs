//! The gRPC services of a node: the agent's own for the `sinew` command, Observer and Peer for it and for Hubble's
//! clients, on one Unix socket that only root may open. Observer and Peer can be had at a TCP port too (`port.rs`).
//!
//! Answers come from the control loop's [`View`], a snapshot; what only the kernel knows is asked for with an [`Ask`].
//! Neighbours: `view.rs` has the values, `control.rs` answers asks, `sinew_observer::server` has the other services.

mod ask;
mod conntrack;
mod endpoints;
mod identities;
mod lagging;
mod maps;
mod monitor;
pub mod peers;
mod policies;
pub mod port;
mod status;
mod wait;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use sinew_api::proto::FILE_DESCRIPTOR_SET;
use sinew_api::proto::agent::agent_server::{Agent, AgentServer};
use sinew_api::proto::agent::{
    ExplainRequest, ExplainResponse, FlushConntrackRequest, FlushConntrackResponse, GetEndpointRequest,
    GetEndpointResponse, GetIdentityRequest, GetIdentityResponse, GetPolicyRequest, GetPolicyResponse,
    GetStatusRequest, GetStatusResponse, GetVersionRequest, GetVersionResponse, ListConntrackRequest,
    ListEndpointsRequest, ListEndpointsResponse, ListIdentitiesRequest, ListIdentitiesResponse,
    ListMapsRequest, ListMapsResponse, ListPoliciesRequest, ListPoliciesResponse, MonitorRequest,
    WaitPolicyRequest,
};
use sinew_engine::explain::Query;
use sinew_observer::peer::Peers;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

pub use ask::Ask;
pub(crate) use endpoints::state as endpoint_state;
pub(crate) use policies::state as policy_state;
pub(crate) use status::conditions;

use crate::datapath::Readings;
use crate::flow::{Journal, RecordBatch};
use crate::view::{Constants, View};

/// Everything that the services answer from.
#[derive(Clone)]
pub struct Sources {
    /// What doesn't change.
    pub constants: Arc<Constants>,
    /// What does.
    pub view: watch::Receiver<Arc<View>>,
    /// To the control loop.
    pub asks: mpsc::Sender<Ask>,
    /// How full the kernel's tables are.
    pub readings: Arc<Mutex<Readings>>,
    /// Flows.
    pub journal: Arc<Journal>,
    /// Records as they come from the rings.
    pub records: broadcast::Sender<RecordBatch>,
}

/// Serves on a socket until the task is dropped.
///
/// # Errors
///
/// The socket can't be made, or serving ends.
pub async fn serve(socket: &Path, sources: Sources, peers: watch::Receiver<Peers>) -> io::Result<()> {
    let listener = crate::socket::bind(socket)?;
    let (mut routes, _health) =
        sinew_observer::server::routes_described_by(sources.journal.clone(), peers, FILE_DESCRIPTOR_SET)
            .await;
    routes.add_service(AgentServer::new(AgentService { sources }));
    tonic::transport::Server::builder()
        .add_routes(routes.routes())
        .serve_with_incoming(UnixListenerStream::new(listener))
        .await
        .map_err(io::Error::other)
}

/// The agent's own service.
struct AgentService {
    sources: Sources,
}

impl AgentService {
    fn view(&self) -> Arc<View> {
        self.sources.view.borrow().clone()
    }

    /// Asks the control loop.
    async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, Status> {
        let (reply, answer) = oneshot::channel();
        let gone = || Status::unavailable("the agent is stopping");
        self.sources.asks.send(make(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}

#[tonic::async_trait]
impl Agent for AgentService {
    type WaitPolicyStream = wait::Progress;
    type ListConntrackStream = conntrack::Entries;
    type MonitorStream = monitor::Events;

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        self.status().await.map(Response::new)
    }

    async fn list_endpoints(
        &self,
        _: Request<ListEndpointsRequest>,
    ) -> Result<Response<ListEndpointsResponse>, Status> {
        self.endpoints().await.map(Response::new)
    }

    async fn get_endpoint(
        &self,
        request: Request<GetEndpointRequest>,
    ) -> Result<Response<GetEndpointResponse>, Status> {
        self.endpoint(request.get_ref()).await.map(Response::new)
    }

    async fn list_identities(
        &self,
        _: Request<ListIdentitiesRequest>,
    ) -> Result<Response<ListIdentitiesResponse>, Status> {
        Ok(Response::new(identities::list(&self.view())))
    }

    async fn get_identity(
        &self,
        request: Request<GetIdentityRequest>,
    ) -> Result<Response<GetIdentityResponse>, Status> {
        identities::get(&self.view(), request.get_ref().id).map(Response::new)
    }

    async fn list_policies(
        &self,
        request: Request<ListPoliciesRequest>,
    ) -> Result<Response<ListPoliciesResponse>, Status> {
        self.policies(request.get_ref()).await.map(Response::new)
    }

    async fn get_policy(
        &self,
        request: Request<GetPolicyRequest>,
    ) -> Result<Response<GetPolicyResponse>, Status> {
        self.policy(&request.get_ref().name).await.map(Response::new)
    }

    async fn wait_policy(
        &self,
        request: Request<WaitPolicyRequest>,
    ) -> Result<Response<wait::Progress>, Status> {
        // What was written before the question counts, whether the store has told of it or not.
        self.ask(Ask::CatchUp).await?;
        wait::progress(self.sources.view.clone(), &self.sources.constants.node, request.get_ref())
            .map(Response::new)
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        let request = request.into_inner();
        let query = Query::try_from(&request).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let explanation = self.ask(|reply| Ask::Explain(query, reply)).await?;
        let explanation = explanation.map_err(|unknown| Status::not_found(unknown.to_string()))?;
        let mut answer = explanation.to_wire(&request);
        lagging::tell(&self.sources.view.borrow(), &mut answer);
        Ok(Response::new(answer))
    }

    async fn list_conntrack(
        &self,
        request: Request<ListConntrackRequest>,
    ) -> Result<Response<conntrack::Entries>, Status> {
        self.connections(request.get_ref()).await.map(Response::new)
    }

    async fn flush_conntrack(
        &self,
        request: Request<FlushConntrackRequest>,
    ) -> Result<Response<FlushConntrackResponse>, Status> {
        self.flush(request.get_ref()).await.map(Response::new)
    }

    async fn list_maps(&self, _: Request<ListMapsRequest>) -> Result<Response<ListMapsResponse>, Status> {
        self.maps().await.map(Response::new)
    }

    async fn monitor(&self, request: Request<MonitorRequest>) -> Result<Response<monitor::Events>, Status> {
        if let Some(why) = self.sources.journal.off() {
            return Err(Status::failed_precondition(why));
        }
        let request = request.into_inner();
        let asked = monitor::Asked::of(&self.view(), &request);
        Ok(Response::new(monitor::events(self.sources.records.subscribe(), request, asked)))
    }

    async fn get_version(
        &self,
        _: Request<GetVersionRequest>,
    ) -> Result<Response<GetVersionResponse>, Status> {
        Ok(Response::new(status::version(&self.sources.constants)))
    }
}
