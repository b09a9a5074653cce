//! Nodes as a relay sees them: an Observer on a socket each, which answers every request with all of its flows.
//!
//! Times of the nodes' flows lie between each other's, so that the relay has to look at every node for each flow.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::path::Path;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use anyhow::{Context, Result};
use prost::Message;
use prost_types::Timestamp;
use sinew_api::proto::observer::GetFlowsResponse;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, StdError, http};
use tonic::server::{Grpc, NamedService, ServerStreamingService};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::super::sample;
use super::raw::{Answer, Kind, Playing};

/// When the first flow was seen: no clock of a node is wrong about the past.
const START: i64 = 1_700_000_000;
/// Nanoseconds between a flow and the next one of any node.
const STEP: u64 = 1_000;

type Answers = Box<dyn Iterator<Item = Result<Answer, Status>> + Send>;

/// A node that is played.
#[derive(Clone, Debug)]
struct Node {
    /// Its flow, encoded.
    flow: Arc<[u8]>,
    number: u32,
    /// How many nodes there are.
    nodes: u32,
    /// How many flows it has.
    flows: u32,
}

/// Serves so many nodes in a folder; returns name and address of each.
pub(super) fn serve(
    runtime: &Runtime,
    folder: &Path,
    nodes: u32,
    flows: u32,
) -> Result<Vec<(String, String)>> {
    let _entered = runtime.enter();
    let mut served = Vec::new();
    for number in 0..nodes {
        let name = format!("default/node-{number}");
        let socket = folder.join(format!("node-{number}.sock"));
        let listener =
            UnixListener::bind(&socket).with_context(|| format!("serving {}", socket.display()))?;
        let flow = sample::answer(number, &name, time(0)).encode_to_vec().into();
        let node = Node { flow, number, nodes, flows };
        let server = Server::builder().add_service(node);
        // It ends with the runtime.
        drop(runtime.spawn(server.serve_with_incoming(UnixListenerStream::new(listener))));
        served.push((name, format!("unix:{}", socket.display())));
    }
    Ok(served)
}

fn time(step: u64) -> Timestamp {
    let nanoseconds = step * STEP;
    Timestamp {
        seconds: START + i64::try_from(nanoseconds / 1_000_000_000).unwrap_or(0),
        nanos: i32::try_from(nanoseconds % 1_000_000_000).unwrap_or(0),
    }
}

impl Node {
    fn answers(&self) -> Answers {
        let Self { flow, number, nodes, flows } = self.clone();
        Box::new((0..flows).map(move |index| {
            let step = u64::from(index) * u64::from(nodes) + u64::from(number);
            let own = GetFlowsResponse { time: Some(time(step)), ..GetFlowsResponse::default() };
            Ok(Answer { same: Arc::clone(&flow), own })
        }))
    }
}

impl NamedService for Node {
    const NAME: &'static str = "observer.Observer";
}

impl ServerStreamingService<Kind> for Node {
    type Response = Answer;
    type ResponseStream = tokio_stream::Iter<Answers>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, _: Request<Kind>) -> Self::Future {
        ready(Ok(Response::new(tokio_stream::iter(self.answers()))))
    }
}

impl<B> Service<http::Request<B>> for Node
where
    B: tonic::codegen::Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let node = self.clone();
        Box::pin(async move {
            Ok(match request.uri().path() {
                "/observer.Observer/GetFlows" => Grpc::new(Playing).server_streaming(node, request).await,
                path => Status::unimplemented(format!("{path} is not played")).into_http(),
            })
        })
    }
}
