//! What one client does or asks for, and what others get of it.

use std::convert::Infallible;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;

use super::*;

/// What they leave unread waits at the node, and takes nothing of the connection's window from others.
#[tokio::test]
async fn clients_who_do_not_read_keep_nothing_from_others() {
    let bench = Bench::new(&["a"]);
    let a = bench.live("a");
    // Twelve megabytes: more than one stream may hold, or a connection of HTTP/2 unless it is told otherwise.
    let large = |number: i64| {
        let policy_log = vec!["x".repeat(4096)];
        Flow { policy_log, ..flow(&number.to_string(), second(number)) }
    };
    a.journal.record_flows((0..3000).map(large));
    let everything = GetFlowsRequest { follow: true, since: Some(second(0)), ..GetFlowsRequest::default() };
    let mut unread = Vec::new();
    for _ in 0..8 {
        let mut stream = bench.stream(everything.clone()).await;
        until(&mut stream, "0").await;
        unread.push(stream);
    }
    // The node sends all that it may.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let last = GetFlowsRequest { number: 1, ..GetFlowsRequest::default() };
    let (states, flows) = all(bench.stream(last).await).await;
    assert_eq!((states, flows), (vec!["connected default/a".to_owned()], vec!["2999".to_owned()]));
}

#[tokio::test]
async fn what_follows_until_a_moment_ends_when_every_node_has_passed_it() {
    let bench = Bench::new(&["a", "b"]);
    let (a, b) = (bench.live("a"), bench.live("b"));
    let (since, end) = (Some(second(0)), Some(second(50)));
    let request = GetFlowsRequest { follow: true, since, until: end, ..GetFlowsRequest::default() };
    let mut stream = bench.stream(request).await;
    a.journal.record_flows([flow("a1", second(1)), flow("a99", second(99))]);
    b.journal.record_flows([flow("b2", second(2))]);
    until(&mut stream, "b2").await;
    // What has ended is not asked again when others join.
    let c = bench.live("c");
    bench.set(&["a", "b", "c"]);
    until(&mut stream, "connected default/c").await;
    b.journal.record_flows([flow("b3", second(3)), flow("b99", second(99))]);
    c.journal.record_flows([flow("c4", second(4)), flow("c99", second(99))]);
    let rest = tokio::time::timeout(Duration::from_secs(10), all(stream)).await.expect("it ends");
    assert_eq!(rest, (vec![], vec!["b3".to_owned(), "c4".to_owned()]));
}

/// Hubble's own server has no list of nodes.
#[tokio::test]
async fn a_node_that_lists_none_is_listed_by_its_status() {
    let bench = Bench::new(&["a", "b", "nothing"]);
    let a = bench.live("a");
    a.journal.record_flows([flow("1", second(1))]);
    Only::serve(&bench.path("b"), "/ServerStatus", a.journal.clone());
    Only::serve(&bench.path("nothing"), "/GetFlows", a.journal.clone());
    let nodes = bench.relay.nodes().await.expect("nodes");
    let told: Vec<_> = nodes
        .iter()
        .map(|node| (node.name.as_str(), node.state(), node.version.as_str(), node.seen_flows))
        .collect();
    let expected = [
        ("default/a", NodeState::NodeConnected, "0.1.0", 1),
        ("default/b", NodeState::NodeConnected, "0.1.0", 1),
        ("default/nothing", NodeState::NodeError, "", 0),
    ];
    assert_eq!(told, expected);
    assert!(nodes[1].address.ends_with("/b"), "{}", nodes[1].address);
}

/// A node that answers one call of its service, and no other, until the runtime of the test ends.
#[derive(Clone)]
struct Only {
    call: &'static str,
    service: ObserverServer<ObserverService>,
}

impl Only {
    fn serve(path: &Path, call: &'static str, journal: Arc<Journal>) {
        let service = ObserverServer::new(ObserverService::with_clock(journal, SystemTime::now));
        let listener = UnixListener::bind(path).expect("a socket");
        let server = Server::builder().add_service(Self { call, service });
        drop(tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener))));
    }
}

impl NamedService for Only {
    const NAME: &'static str = "observer.Observer";
}

impl Service<http::Request<Body>> for Only {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path().ends_with(self.call) {
            return self.service.call(request);
        }
        Box::pin(async { Ok(Status::unimplemented("not here").into_http()) })
    }
}
