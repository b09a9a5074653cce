//! A node that sends what it likes as an answer to `GetFlows`: to whom it is told, and what others notice of it.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use futures_util::stream;
use prost::Message;
use prost::bytes::BufMut;
use tonic::Request;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, ServerStreamingService};

use super::*;

/// It sends these bytes as one answer each, and then nothing more.
#[derive(Clone)]
struct Sends(Vec<Vec<u8>>);

impl Sends {
    /// Served until the runtime of the test ends.
    fn serve(self, path: &Path) {
        let listener = UnixListener::bind(path).expect("a socket");
        let server = Server::builder().add_service(self);
        drop(tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener))));
    }
}

impl NamedService for Sends {
    const NAME: &'static str = "observer.Observer";
}

impl Service<http::Request<Body>> for Sends {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let node = self.clone();
        Box::pin(async move { Ok(Grpc::new(Raw).server_streaming(node, request).await) })
    }
}

impl ServerStreamingService<()> for Sends {
    type Response = Vec<u8>;
    type ResponseStream = Answers<Vec<u8>>;
    type Future = Ready<Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, _: Request<()>) -> Self::Future {
        let answers = stream::iter(self.0.clone().into_iter().map(Ok)).chain(stream::pending());
        ready(Ok(tonic::Response::new(Box::pin(answers) as Answers<Vec<u8>>)))
    }
}

#[derive(Clone)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, answer: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&answer);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        prost::bytes::Buf::advance(from, prost::bytes::Buf::remaining(from));
        Ok(Some(()))
    }
}

fn encoded(uuid: &str, at: i64) -> Vec<u8> {
    let time = Some(second(at));
    let response_types = Some(ResponseTypes::Flow(flow(uuid, second(at))));
    GetFlowsResponse { node_name: "default/b".into(), time, response_types }.encode_to_vec()
}

fn follow() -> GetFlowsRequest {
    GetFlowsRequest { follow: true, since: Some(second(0)), ..GetFlowsRequest::default() }
}

/// What a client can't read is never given to one: not as it is, and not as the end of its stream.
#[tokio::test]
async fn an_answer_that_nobody_can_read_is_its_nodes_error_and_nobody_elses() {
    let mut damaged = encoded("shop-of-b", 2);
    let at = damaged.windows(4).position(|part| part == b"shop").expect("a text in the flow");
    damaged[at] = 0xff;
    for (what, answer) in [
        ("a text that is no UTF-8", damaged),
        ("half a message", encoded("half", 2)[..20].to_vec()),
        ("a group that never ends", vec![0x23; 5000]),
        ("a length that no message has", vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]),
    ] {
        let bench = Bench::new(&["a", "b"]);
        let a = bench.live("a");
        Sends(vec![encoded("b1", 1), answer, encoded("never", 3)]).serve(&bench.path("b"));
        let mut stream = bench.stream(follow()).await;
        let seen = until(&mut stream, "error default/b").await;
        assert!(!seen.contains(&"never".to_owned()), "{what}: {seen:?}");
        a.journal.record_flows([flow("a4", second(4))]);
        let later = until(&mut stream, "a4").await;
        assert!(
            seen.iter().chain(&later).any(|it| it == "b1"),
            "{what}: what came before it: {seen:?} {later:?}"
        );
    }
}

/// It goes over a real connection to a real client, which takes all of it.
#[tokio::test]
async fn what_a_node_encodes_in_its_own_manner_is_read_by_clients() {
    let bench = Bench::new(&["b"]);
    // Time in two parts, and a flow with a field of a version to come.
    let parts = [encoded("parts", 2), vec![0xca, 0x3e, 2, 0x10, 7]].concat();
    let mut newer = GetFlowsResponse::decode(encoded("newer", 3).as_slice()).expect("an answer");
    newer.response_types = None;
    let mut flow = flow("newer", second(3)).encode_to_vec();
    flow.extend([0xfa, 0x03, 2, 0xff, 0xff]);
    let length = u8::try_from(flow.len()).expect("a short flow");
    let newer = [vec![0x0a, length], flow, newer.encode_to_vec()].concat();
    Sends(vec![encoded("plain", 1), parts, newer]).serve(&bench.path("b"));
    let served = bench.path("relay");
    let Bench { folder: _folder, peers: _peers, relay } = bench;
    let (_, none) = watch::channel(Peers::new());
    let (routes, _health) = crate::server::routes(Arc::new(relay), none).await;
    let listener = UnixListener::bind(&served).expect("a socket");
    let server = Server::builder().add_routes(routes.routes());
    drop(tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener))));
    let patience = crate::dial::Patience { connect: Duration::from_secs(5), ping: None };
    let way = Way::Socket(served.display().to_string());
    let channel = way.connect(patience).await.expect("the relay");
    let mut client = sinew_api::proto::observer::observer_client::ObserverClient::new(channel);
    let answers = client.get_flows(follow()).await.expect("a stream").into_inner();
    let mut stream: Answers<GetFlowsResponse> = Box::pin(answers.filter(|answer| {
        ready(!matches!(
            answer,
            Ok(GetFlowsResponse { response_types: Some(ResponseTypes::NodeStatus(_)), .. })
        ))
    }));
    let mut next = async || stream.next().await.expect("it goes on").expect("it can be read");
    let plain = next().await;
    assert_eq!((told(&plain), plain.time), ("plain".to_owned(), Some(second(1))));
    let parts = next().await;
    assert_eq!((told(&parts), parts.time.map(|time| time.nanos)), ("parts".to_owned(), Some(7)));
    let newer = next().await;
    assert_eq!((told(&newer), newer.node_name.as_str()), ("newer".to_owned(), "default/b"));
}
