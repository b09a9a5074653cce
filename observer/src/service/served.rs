//! The Observer service on a socket: `GetFlows` gives answers that are encoded already, the other calls are as tonic makes
//! them. Neighbours: [`super`] answers, [`crate::server`] puts it among the routes.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use prost::Message;
use prost::bytes::BufMut;
use sinew_api::proto::observer::GetFlowsRequest;
use sinew_api::proto::observer::observer_server::{ObserverServer, SERVICE_NAME};
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, ServerStreamingService};
use tonic::{Request, Response, Status};

use super::ObserverService;
use crate::encoded::EncodedAnswer;
use crate::source::Answers;

/// The call that is served here.
pub(crate) const GET_FLOWS: &str = "/observer.Observer/GetFlows";

/// An [`ObserverService`] for a server's routes.
#[derive(Clone)]
pub(crate) struct Served {
    service: Arc<ObserverService>,
    others: ObserverServer<ObserverService>,
    largest_request: usize,
}

impl Served {
    /// Reads requests of at most so many bytes.
    pub(crate) fn new(service: ObserverService, largest_request: usize) -> Self {
        let service = Arc::new(service);
        let others =
            ObserverServer::from_arc(Arc::clone(&service)).max_decoding_message_size(largest_request);
        Self { service, others, largest_request }
    }
}

impl NamedService for Served {
    const NAME: &'static str = SERVICE_NAME;
}

impl Service<http::Request<Body>> for Served {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != GET_FLOWS {
            return self.others.call(request);
        }
        let flows = Flows(Arc::clone(&self.service));
        let mut server = Grpc::new(FlowsCodec).max_decoding_message_size(self.largest_request);
        Box::pin(async move { Ok(server.server_streaming(flows, request).await) })
    }
}

/// `GetFlows` alone.
struct Flows(Arc<ObserverService>);

impl ServerStreamingService<GetFlowsRequest> for Flows {
    type Response = EncodedAnswer;
    type ResponseStream = Answers<EncodedAnswer>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<GetFlowsRequest>) -> Self::Future {
        let service = Arc::clone(&self.0);
        Box::pin(async move { service.flows(request).await })
    }
}

/// Requests in, answers out.
struct FlowsCodec;

impl Codec for FlowsCodec {
    type Encode = EncodedAnswer;
    type Decode = GetFlowsRequest;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for FlowsCodec {
    type Item = EncodedAnswer;
    type Error = Status;

    fn encode(&mut self, answer: EncodedAnswer, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(answer.bytes());
        Ok(())
    }
}

impl Decoder for FlowsCodec {
    type Item = GetFlowsRequest;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<GetFlowsRequest>, Status> {
        GetFlowsRequest::decode(from).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
