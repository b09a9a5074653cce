//! Real services on Unix sockets behind a relay: nodes that answer, hang, die, come back, talk rubbish, or are wrong about
//! time.

use std::path::{Path, PathBuf};

use futures_util::StreamExt;
use prost_types::Timestamp;
use sinew_api::proto::flow::{Endpoint, Flow};
use sinew_api::proto::observer::get_flows_response::ResponseTypes;
use sinew_api::proto::observer::observer_server::ObserverServer;
use sinew_api::proto::observer::{GetFlowsRequest, GetFlowsResponse};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use super::*;
use crate::dial::Way;
use crate::filter::FilterSet;
use crate::journal::{Journal, JournalSettings};
use crate::metrics::http::Exposed;
use crate::metrics::{self, Format};
use crate::service::ObserverService;

mod clients;
mod hostile;
mod moving;
mod tls;

const START: i64 = 1_700_000_000;

/// A node that answers, on a runtime of its own: dropping it ends its connections as the death of a process does.
struct Live {
    journal: Arc<Journal>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Live {
    fn start(path: &Path, name: &str) -> Self {
        Self::serve(path, Arc::new(Journal::new(JournalSettings::new(name, "0.1.0"), SystemTime::now())))
    }

    fn serve(path: &Path, journal: Arc<Journal>) -> Self {
        let _ = std::fs::remove_file(path);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let entered = runtime.enter();
        let listener = UnixListener::bind(path).expect("a socket");
        drop(entered);
        let served = journal.clone();
        runtime.spawn(async move {
            let (_, none) = watch::channel(Peers::new());
            let (routes, _health) = crate::server::routes(served, none).await;
            let incoming = UnixListenerStream::new(listener);
            let _ = Server::builder().add_routes(routes.routes()).serve_with_incoming(incoming).await;
        });
        Self { journal, runtime: Some(runtime) }
    }
}

impl Live {
    /// One whose clock is an hour behind.
    fn behind(path: &Path, name: &str) -> Self {
        let journal = Arc::new(Journal::new(JournalSettings::new(name, "0.1.0"), SystemTime::now()));
        let an_hour_ago = || SystemTime::now() - Duration::from_secs(3600);
        let service = ObserverServer::new(ObserverService::with_clock(journal.clone(), an_hour_ago));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let entered = runtime.enter();
        let listener = UnixListener::bind(path).expect("a socket");
        drop(entered);
        let server = Server::builder().add_service(service);
        runtime.spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        Self { journal, runtime: Some(runtime) }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn flow(uuid: &str, time: Timestamp) -> Flow {
    let source = Endpoint { cluster_name: "default".into(), namespace: "shop".into(), ..Endpoint::default() };
    Flow { uuid: uuid.into(), time: Some(time), source: Some(source), ..Flow::default() }
}

fn second(number: i64) -> Timestamp {
    Timestamp { seconds: START + number, nanos: 0 }
}

struct Bench {
    folder: tempfile::TempDir,
    peers: watch::Sender<Peers>,
    relay: Relay,
}

impl Bench {
    fn new(names: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (peers, receiver) = watch::channel(Peers::new());
        let settings =
            RelaySettings { window: Duration::from_millis(200), patience: Duration::from_millis(600) };
        let bench = Self {
            folder,
            peers,
            relay: Relay::new(settings, "0.1.0", receiver, NodeTls::Undecided, SystemTime::now()),
        };
        bench.set(names);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn set(&self, names: &[&str]) {
        let at: Vec<_> = names.iter().map(|name| (*name, *name)).collect();
        self.set_at(&at);
    }

    /// Nodes, and the names of their sockets.
    fn set_at(&self, nodes: &[(&str, &str)]) {
        let peer = |(name, at): &(&str, &str)| {
            let address = format!("unix:{}", self.path(at).display());
            (format!("default/{name}"), PeerAddress { address, tls: None })
        };
        self.peers.send_replace(nodes.iter().map(peer).collect());
    }

    fn live(&self, name: &str) -> Live {
        Live::start(&self.path(name), &format!("default/{name}"))
    }

    async fn stream(&self, request: GetFlowsRequest) -> Answers<GetFlowsResponse> {
        let query = FlowQuery {
            selection: Selection::from(&request),
            filters: Arc::new(FilterSet::default()),
            request,
        };
        let answers = self.relay.flows(query).await.expect("a stream");
        Box::pin(answers.map(|answer| answer?.decode()))
    }
}

fn told(answer: &GetFlowsResponse) -> String {
    match &answer.response_types {
        Some(ResponseTypes::Flow(flow)) => flow.uuid.clone(),
        Some(ResponseTypes::NodeStatus(event)) => {
            let state = event.state_change().as_str_name().trim_start_matches("NODE_").to_lowercase();
            format!("{state} {}", event.node_names.join(","))
        }
        Some(ResponseTypes::LostEvents(lost)) => {
            format!("lost {} {}", lost.source().as_str_name(), answer.node_name)
        }
        other => panic!("not told here: {other:?}"),
    }
}

/// So that no client waits behind others for a place on the connection to a node.
#[test]
fn a_relay_serves_fewer_streams_than_a_node_takes_on_one_connection() {
    let bench = Bench::new(&[]);
    let node = crate::listen::Limits::default();
    assert!(bench.relay.stream_limits().all < node.requests_per_connection as usize);
    let settings = JournalSettings::new("default/a", "0.1.0");
    let journal: Journal = Journal::new(settings, SystemTime::now());
    assert!(bench.relay.stream_limits().all < journal.stream_limits().per_client);
}

/// What is told of several nodes at once, node by node.
fn apart(told: String) -> Vec<String> {
    match told.split_once(' ') {
        Some((state, nodes)) if told.contains(',') => {
            nodes.split(',').map(|node| format!("{state} {node}")).collect()
        }
        _ => vec![told],
    }
}

async fn all(stream: Answers<GetFlowsResponse>) -> (Vec<String>, Vec<String>) {
    let answers: Vec<String> = stream.map(|answer| told(&answer.expect("an answer"))).collect().await;
    answers.into_iter().flat_map(apart).partition(|it| it.contains(' '))
}

/// The next answers of a stream, until one of them is `last`.
async fn until(stream: &mut Answers<GetFlowsResponse>, last: &str) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        let next = tokio::time::timeout(Duration::from_secs(10), stream.next()).await;
        let answer = next
            .unwrap_or_else(|_| panic!("{last} did not come: {seen:?}"))
            .expect("it goes on")
            .expect("an answer");
        let told = apart(told(&answer));
        let came = told.iter().any(|it| it == last);
        seen.extend(told);
        if came {
            return seen;
        }
    }
}

/// Two nodes that answer and one that does not; two flows from each of the two.
#[tokio::test]
async fn a_relay_counts_its_nodes_its_clients_and_what_it_hands_on() {
    let bench = Bench::new(&["a", "b", "dead"]);
    let (a, b) = (bench.live("a"), bench.live("b"));
    a.journal.record_flows([flow("1", second(1)), flow("3", second(3))]);
    b.journal.record_flows([flow("2", second(2)), flow("4", second(4))]);
    assert!(bench.relay.reaches_a_node().await);
    let open = bench.stream(GetFlowsRequest { follow: true, ..GetFlowsRequest::default() }).await;
    let (states, flows) = all(bench.stream(GetFlowsRequest::default()).await).await;
    assert_eq!((states.len(), flows.len()), (3, 4), "{states:?} {flows:?}");
    let text = metrics::text(bench.relay.families().await, Format::OpenMetrics);
    // Four flows, and words on the nodes' states, of which alike ones are one.
    let answers = text.lines().find_map(|line| line.strip_prefix("sinew_relay_answers_total "));
    assert!(matches!(answers, Some("6" | "7")), "{text}");
    for line in [
        "sinew_relay_build_info{version=\"0.1.0\"} 1",
        "sinew_relay_nodes{state=\"answering\"} 2",
        "sinew_relay_nodes{state=\"silent\"} 1",
        "sinew_relay_streams 1",
        "sinew_relay_node_reports_total{state=\"connected\"} 2",
        "sinew_relay_node_reports_total{state=\"unavailable\"} 1",
        "sinew_relay_node_reports_total{state=\"gone\"} 0",
        "sinew_relay_wrong_clocks_total 0",
    ] {
        assert!(text.lines().any(|it| it == line), "{line} is not in {text}");
    }
    drop(open);
    let text = metrics::text(bench.relay.families().await, Format::OpenMetrics);
    assert!(text.contains("\nsinew_relay_streams 0\n"), "{text}");
}

#[tokio::test]
async fn flows_of_all_nodes_come_by_time() {
    let bench = Bench::new(&["a", "b", "c"]);
    let (a, b, _c) = (bench.live("a"), bench.live("b"), bench.live("c"));
    a.journal.record_flows([flow("1", second(1)), flow("4", second(4)), flow("5", second(5))]);
    b.journal.record_flows([flow("2", second(2)), flow("3", second(3)), flow("6", second(6))]);
    let (states, flows) = all(bench.stream(GetFlowsRequest::default()).await).await;
    assert_eq!(flows, ["1", "2", "3", "4", "5", "6"]);
    let mut states = states;
    states.sort();
    assert_eq!(states, ["connected default/a", "connected default/b", "connected default/c"]);
    let last = GetFlowsRequest { number: 1, ..GetFlowsRequest::default() };
    assert_eq!(all(bench.stream(last).await).await.1, ["5", "6"], "N of each node");
}

#[tokio::test]
async fn a_node_that_hangs_or_is_not_there_delays_nobody_for_long() {
    let bench = Bench::new(&["a", "hangs", "missing"]);
    let a = bench.live("a");
    // It takes connections and says nothing.
    let silent = UnixListener::bind(bench.path("hangs")).expect("a socket");
    let kept = tokio::spawn(async move {
        let mut connections = Vec::new();
        while let Ok((connection, _)) = silent.accept().await {
            connections.push(connection);
        }
    });
    a.journal.record_flows([flow("1", second(1)), flow("2", second(2))]);
    let start = std::time::Instant::now();
    let mut stream = bench.stream(GetFlowsRequest::default()).await;
    until(&mut stream, "2").await;
    assert!(
        start.elapsed() < Duration::from_millis(590),
        "within the window and a little: {:?}",
        start.elapsed()
    );
    let (states, flows) = all(stream).await;
    assert_eq!((states, flows), (vec!["unavailable default/hangs".to_owned()], vec![]));
    assert!(start.elapsed() < Duration::from_secs(3), "the answer ends: {:?}", start.elapsed());
    kept.abort();
}

#[tokio::test]
async fn rubbish_is_that_nodes_error() {
    let bench = Bench::new(&["a", "rubbish"]);
    let a = bench.live("a");
    let listener = UnixListener::bind(bench.path("rubbish")).expect("a socket");
    let talker = tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let _ = connection.write_all(b"HTTP/1.1 418 I'm a teapot\r\n\r\n\xff\xfe\x00rubbish").await;
        }
    });
    a.journal.record_flows([flow("1", second(1))]);
    let (states, flows) = all(bench.stream(GetFlowsRequest::default()).await).await;
    assert_eq!(flows, ["1"]);
    assert!(
        states.iter().any(|it| it.ends_with(" default/rubbish") && !it.starts_with("connected")),
        "{states:?}"
    );
    talker.abort();
}

#[tokio::test]
async fn a_node_that_dies_is_asked_again_and_goes_on_where_it_was() {
    let bench = Bench::new(&["a", "b"]);
    let (a, b) = (bench.live("a"), bench.live("b"));
    let follow = GetFlowsRequest { follow: true, since: Some(second(0)), ..GetFlowsRequest::default() };
    let mut stream = bench.stream(follow).await;
    b.journal.record_flows([flow("b1", second(1))]);
    until(&mut stream, "b1").await;
    let journal = b.journal.clone();
    drop(b);
    until(&mut stream, "unavailable default/b").await;
    a.journal.record_flows([flow("a2", second(2))]);
    assert_eq!(until(&mut stream, "a2").await.last().map(String::as_str), Some("a2"), "the others go on");
    journal.record_flows([flow("b3", second(3))]);
    let _again = Live::serve(&bench.path("b"), journal);
    let seen = until(&mut stream, "b3").await;
    assert!(seen.contains(&"connected default/b".to_owned()) && !seen.contains(&"b1".to_owned()), "{seen:?}");
}

/// It was asked for what is new and had nothing yet: what it sees while nobody can ask it is new still.
#[tokio::test]
async fn a_node_that_dies_before_its_first_answer_goes_on_from_when_it_was_asked() {
    let bench = Bench::new(&["b"]);
    let b = bench.live("b");
    b.journal.record_flows([flow("before", SystemTime::now().into())]);
    let mut stream = bench.stream(GetFlowsRequest { follow: true, ..GetFlowsRequest::default() }).await;
    until(&mut stream, "connected default/b").await;
    let journal = b.journal.clone();
    drop(b);
    until(&mut stream, "unavailable default/b").await;
    journal.record_flows([flow("while", SystemTime::now().into())]);
    let _again = Live::serve(&bench.path("b"), journal);
    let seen = until(&mut stream, "while").await;
    assert!(!seen.iter().any(|it| it == "before" || it.starts_with("lost")), "{seen:?}");
}

#[tokio::test]
async fn a_node_that_has_forgotten_where_it_was_leaves_a_gap_that_is_told() {
    let bench = Bench::new(&["b"]);
    let b = bench.live("b");
    let follow = GetFlowsRequest { follow: true, since: Some(second(0)), ..GetFlowsRequest::default() };
    let mut stream = bench.stream(follow).await;
    b.journal.record_flows([flow("b1", second(1))]);
    until(&mut stream, "b1").await;
    drop(b);
    until(&mut stream, "unavailable default/b").await;
    let again = bench.live("b");
    again.journal.record_flows([flow("b3", second(3)), flow("b4", second(4))]);
    let mut seen = until(&mut stream, "b4").await;
    seen.retain(|it| !it.ends_with(" default/b") || it.starts_with("lost"));
    assert_eq!(seen, ["lost HUBBLE_RING_BUFFER default/b", "b3", "b4"]);
}

#[tokio::test]
async fn nodes_of_which_the_same_is_told_are_one_line() {
    let names: Vec<String> = (0..50).map(|number| format!("dead{number:02}")).collect();
    let bench = Bench::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let stream = bench.stream(GetFlowsRequest::default()).await;
    let answers: Vec<String> = stream.map(|answer| told(&answer.expect("an answer"))).collect().await;
    assert!(answers.len() < 10, "{answers:?}");
    let nodes: usize = answers.iter().map(|answer| answer.matches("default/dead").count()).sum();
    assert_eq!(nodes, 50, "none is left out: {answers:?}");
}

#[tokio::test]
async fn nodes_come_and_go_while_a_client_follows() {
    let bench = Bench::new(&["a"]);
    let (_a, b) = (bench.live("a"), bench.live("b"));
    let mut stream = bench.stream(GetFlowsRequest { follow: true, ..GetFlowsRequest::default() }).await;
    until(&mut stream, "connected default/a").await;
    bench.set(&["a", "b"]);
    until(&mut stream, "connected default/b").await;
    b.journal.record_flows([flow("new", SystemTime::now().into())]);
    until(&mut stream, "new").await;
    bench.set(&["b"]);
    until(&mut stream, "gone default/a").await;
}

#[tokio::test]
async fn a_clock_that_is_an_hour_ahead_is_told_and_holds_nothing_up() {
    let bench = Bench::new(&["a", "ahead"]);
    let (a, ahead) = (bench.live("a"), bench.live("ahead"));
    let mut stream = bench.stream(GetFlowsRequest { follow: true, ..GetFlowsRequest::default() }).await;
    until(&mut stream, "connected default/ahead").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let hour = SystemTime::now() + Duration::from_secs(3600);
    ahead.journal.record_flows([flow("early", hour.into())]);
    let seen = until(&mut stream, "early").await;
    assert!(seen.contains(&"error default/ahead".to_owned()), "{seen:?}");
    a.journal.record_flows([flow("now", SystemTime::now().into())]);
    until(&mut stream, "now").await;
}

#[tokio::test]
async fn a_clock_that_is_an_hour_behind_is_told_and_hides_nothing() {
    let bench = Bench::new(&["a"]);
    let (a, behind) = (bench.live("a"), Live::behind(&bench.path("behind"), "default/behind"));
    let mut stream = bench.stream(GetFlowsRequest { follow: true, ..GetFlowsRequest::default() }).await;
    until(&mut stream, "connected default/a").await;
    // It joins late: what it says from now on is an hour old by its own clock.
    bench.set(&["a", "behind"]);
    until(&mut stream, "connected default/behind").await;
    until(&mut stream, "error default/behind").await;
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    behind.journal.record_flows([flow("late", hour_ago.into())]);
    until(&mut stream, "late").await;
    a.journal.record_flows([flow("now", SystemTime::now().into())]);
    until(&mut stream, "now").await;
}

#[tokio::test]
async fn single_answers_are_added_up() {
    let bench = Bench::new(&["a", "b", "missing"]);
    let an_hour_ago = SystemTime::now() - Duration::from_secs(3600);
    let old = Arc::new(Journal::new(JournalSettings::new("default/a", "0.1.0"), an_hour_ago));
    let (a, b) = (Live::serve(&bench.path("a"), old), bench.live("b"));
    a.journal.record_flows([flow("1", SystemTime::now().into())]);
    b.journal.record_flows([flow("2", SystemTime::now().into()), flow("3", SystemTime::now().into())]);
    let status = bench.relay.status().await.expect("a status");
    assert_eq!((status.num_flows, status.seen_flows, status.max_flows), (3, 3, 2 * 4095));
    assert_eq!((status.num_connected_nodes, status.num_unavailable_nodes), (Some(2), Some(1)));
    assert_eq!(status.unavailable_nodes, ["default/missing"]);
    let an_hour = Duration::from_secs(3600).as_nanos();
    assert!(u128::from(status.uptime_ns) >= an_hour, "the node's that has counted longest, not the relay's");
    let nodes = bench.relay.nodes().await.expect("nodes");
    let states: Vec<_> = nodes.iter().map(|node| (node.name.as_str(), node.state())).collect();
    let expected = [
        ("default/a", NodeState::NodeConnected),
        ("default/b", NodeState::NodeConnected),
        ("default/missing", NodeState::NodeUnavailable),
    ];
    assert_eq!(states, expected);
    let namespaces = bench.relay.namespaces().await.expect("namespaces");
    assert_eq!(namespaces, [Namespace { cluster: "default".into(), namespace: "shop".into() }]);
}

#[tokio::test]
async fn peers_are_followed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("peers");
    let listener = UnixListener::bind(&path).expect("a socket");
    let one = |name: &str| {
        Peers::from([(name.to_owned(), PeerAddress { address: "192.0.2.1:4244".into(), tls: None })])
    };
    let (published, receiver) = watch::channel(one("default/a"));
    let service = crate::peer::PeerService::new(receiver);
    let server = tokio::spawn(async move {
        let service = sinew_api::proto::peer::peer_server::PeerServer::new(service);
        let _ = Server::builder()
            .add_service(service)
            .serve_with_incoming(UnixListenerStream::new(listener))
            .await;
    });
    let (sender, mut known) = watch::channel(Peers::new());
    let way = Way::Socket(path.display().to_string());
    let follower = tokio::spawn(async move { follow_peers(&way, sender, Duration::from_secs(1)).await });
    known.wait_for(|peers| *peers == one("default/a")).await.expect("the follower lives");
    published.send_replace(one("default/b"));
    known.wait_for(|peers| *peers == one("default/b")).await.expect("the follower lives");
    server.abort();
    follower.abort();
}
