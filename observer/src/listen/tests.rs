//! Who is let in, what a renewal changes, and what the ill-behaved cost the others. Real sockets, real certificates.

use std::time::SystemTime;

use futures_util::StreamExt;
use sinew_api::proto::flow::Flow;
use sinew_api::proto::observer::get_flows_response::ResponseTypes;
use sinew_api::proto::observer::observer_client::ObserverClient;
use sinew_api::proto::observer::{GetFlowsRequest, GetFlowsResponse, ServerStatusRequest};
use tokio::net::TcpSocket;
use tokio::sync::watch;
use tonic::Streaming;
use tonic::transport::Channel;

use super::*;
use crate::dial::{Patience, Way, reason};
use crate::journal::{Journal, JournalSettings};
use crate::peer::Peers;
use crate::ring::Capacity;
use crate::tls::tests::Authority;
use crate::tls::{ClientTls, Identity, Trust};

const NAME: &str = "a.default.hubble-grpc.cilium.io";
const PATIENCE: Patience = Patience { connect: Duration::from_secs(10), ping: None };

/// A port that serves a journal, with the files of both sides in a folder.
struct Port {
    folder: tempfile::TempDir,
    authority: Authority,
    journal: Arc<Journal>,
    address: SocketAddr,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Port {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Port {
    async fn mutual(limits: Limits) -> Self {
        Self::start(limits, true).await
    }

    async fn plain(limits: Limits) -> Self {
        Self::start(limits, false).await
    }

    async fn start(limits: Limits, mutual: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::new("ours");
        let identity = authority.issue(&folder.path().join("server"), NAME);
        let ca = authority.write(&folder.path().join("ca.crt"));
        let tls = mutual.then(|| ServerTls::new(identity, vec![ca]).expect("good files"));
        let mut settings = JournalSettings::new("default/a", "0.1.0");
        settings.flows = Capacity { entries: 1000, bytes: usize::MAX };
        let journal = Arc::new(Journal::new(settings, SystemTime::now()));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let source = journal.clone();
        let serving = tokio::spawn(async move {
            let (_nobody, peers) = watch::channel(Peers::new());
            let (routes, _health) = crate::server::routes(source, peers).await;
            serve(listener, tls, routes.routes(), limits).await.expect("it serves");
        });
        Self { folder, authority, journal, address, serving }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn client(&self, name: &str) -> Option<Identity> {
        Some(self.authority.issue(&self.path(name), name))
    }

    fn way(&self, identity: Option<Identity>, trust: Trust, name: &str) -> Way {
        let tls = Arc::new(ClientTls::new(identity, trust).expect("good files"));
        Way::Tls { address: self.address.to_string(), name: Some(name.to_owned()), tls }
    }

    fn good_way(&self) -> Way {
        self.way(self.client("relay"), self.trust(), NAME)
    }

    fn trust(&self) -> Trust {
        Trust::Files(vec![self.path("ca.crt")])
    }

    fn record(&self, numbers: std::ops::Range<u32>) {
        // As large as flows with all their fields.
        let names = vec!["x".repeat(2000)];
        self.journal.record_flows(numbers.map(|number| Flow {
            uuid: number.to_string(),
            source_names: names.clone(),
            ..Flow::default()
        }));
    }
}

async fn client(way: &Way) -> Result<ObserverClient<Channel>, String> {
    way.connect(PATIENCE).await.map(ObserverClient::new)
}

/// Asks one question on a new connection.
async fn ask(way: &Way) -> Result<(), String> {
    let answer = client(way).await?.server_status(ServerStatusRequest {}).await;
    answer.map(drop).map_err(|status| reason(&status))
}

async fn follow(client: &mut ObserverClient<Channel>) -> Streaming<GetFlowsResponse> {
    let request = GetFlowsRequest { follow: true, number: 1, ..GetFlowsRequest::default() };
    client.get_flows(request).await.expect("a stream").into_inner()
}

async fn next_flow(stream: &mut Streaming<GetFlowsResponse>) -> String {
    match stream.next().await.expect("it goes on").expect("an answer").response_types {
        Some(ResponseTypes::Flow(flow)) => flow.uuid,
        other => panic!("no flow: {other:?}"),
    }
}

#[tokio::test]
async fn only_who_shows_a_certificate_that_holds_is_let_in() {
    let port = Port::mutual(Limits::default()).await;
    let strangers = Authority::new("strangers");
    let stranger = Some(strangers.issue(&port.path("stranger"), "relay"));
    let expired = Some(port.authority.issue_expired(&port.path("expired"), "relay"));
    let strange_ca = Trust::Files(vec![strangers.write(&port.path("strangers.crt"))]);
    let other_name = "b.default.hubble-grpc.cilium.io";

    assert_eq!(ask(&port.good_way()).await, Ok(()));
    assert_eq!(ask(&port.way(port.client("any"), Trust::Anything, other_name)).await, Ok(()));
    for (what, way, why) in [
        ("without a certificate", port.way(None, port.trust(), NAME), "CertificateRequired"),
        ("of another authority", port.way(stranger, port.trust(), NAME), "UnknownCA"),
        ("of one that has expired", port.way(expired, port.trust(), NAME), "CertificateExpired"),
        ("that trusts others", port.way(port.client("x"), strange_ca, NAME), "UnknownIssuer"),
        (
            "that means another node",
            port.way(port.client("y"), port.trust(), other_name),
            "not valid for name",
        ),
        (
            "without a certificate, that believes all",
            port.way(None, Trust::Anything, NAME),
            "CertificateRequired",
        ),
    ] {
        let refused = ask(&way).await.expect_err(what);
        assert!(refused.contains(why), "a client {what}: {refused}");
    }
    ask(&Way::Plain(port.address.to_string())).await.expect_err("a client without TLS");
    assert_eq!(ask(&port.good_way()).await, Ok(()), "the refused have changed nothing");
}

#[tokio::test]
async fn new_files_hold_for_new_connections_and_live_streams_go_on() {
    let port = Port::mutual(Limits::default()).await;
    let old = port.good_way();
    let mut old_client = client(&old).await.expect("let in");
    port.record(0..1);
    let mut stream = follow(&mut old_client).await;
    assert_eq!(next_flow(&mut stream).await, "0");

    // A renewal that is half done changes nothing: the key of the new certificate is not there yet.
    let renewed = Authority::new("renewed");
    let halfway = renewed.issue(&port.path("next"), NAME);
    std::fs::copy(&halfway.certificate, port.path("server.crt")).expect("copied");
    assert_eq!(ask(&old).await, Ok(()));
    std::fs::copy(&halfway.key, port.path("server.key")).expect("copied");
    let refused = ask(&old).await.expect_err("it trusts the old authority");
    assert!(refused.contains("UnknownIssuer"), "{refused}");

    // The client's own files are read again as well: no new `ClientTls`.
    let both = format!(
        "{}{}",
        std::fs::read_to_string(renewed.write(&port.path("renewed.crt"))).expect("read"),
        std::fs::read_to_string(port.path("ca.crt")).expect("read")
    );
    std::fs::write(port.path("ca.crt"), both).expect("written");
    assert_eq!(ask(&old).await, Ok(()), "both authorities are believed, on both sides");
    renewed.write(&port.path("ca.crt"));
    let refused = ask(&old).await.expect_err("its own certificate is of the old authority");
    assert!(refused.contains("UnknownCA"), "{refused}");
    renewed.issue(&port.path("relay"), "relay");
    assert_eq!(ask(&old).await, Ok(()));

    port.record(1..2);
    assert_eq!(next_flow(&mut stream).await, "1", "the stream of before goes on");
}

async fn from(source: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(format!("{source}:0").parse().expect("an address")).expect("bound");
    socket.connect(to).await.expect("connected")
}

/// Whether the other side closes, whatever it says before.
async fn is_closed(connection: &mut TcpStream) {
    let mut said = Vec::new();
    // A reset is an end as well.
    let _end = connection.read_to_end(&mut said).await;
}

#[tokio::test]
async fn handshakes_that_never_end_are_ended_and_take_their_own_places_only() {
    let limits =
        Limits { connections_per_address: 8, handshake: Duration::from_secs(2), ..Limits::default() };
    let port = Port::mutual(limits).await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(from("127.0.0.2", port.address).await);
    }
    // A TLS record that announces more than ever comes.
    silent[0].write_all(&[22, 3, 1, 0x3f, 0xff, 1]).await.expect("sent");
    is_closed(&mut from("127.0.0.2", port.address).await).await;
    assert_eq!(ask(&port.good_way()).await, Ok(()), "another address is not concerned");
    for connection in &mut silent {
        is_closed(connection).await;
    }
    drop(silent);
    // Their places are free again.
    let mut again = from("127.0.0.2", port.address).await;
    again.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("sent");
    let mut alert = [0; 1];
    again.read_exact(&mut alert).await.expect("it is answered");
    assert_eq!(alert, [21], "by a TLS alert (RFC 8446 section 5.1)");
}

#[tokio::test]
async fn a_connection_that_says_nothing_or_no_http2_is_ended() {
    let port = Port::plain(Limits { handshake: Duration::from_secs(1), ..Limits::default() }).await;
    for said in [&b""[..], b"PRI * HTTP/2.0\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut connection = from("127.0.0.1", port.address).await;
        connection.write_all(said).await.expect("sent");
        is_closed(&mut connection).await;
    }
    assert_eq!(ask(&Way::Plain(port.address.to_string())).await, Ok(()));
}

#[tokio::test]
async fn a_client_that_stops_answering_pings_is_ended() {
    let port = Port::plain(Limits { silence: Duration::from_millis(200), ..Limits::default() }).await;
    let mut connection = from("127.0.0.1", port.address).await;
    connection.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("sent");
    is_closed(&mut connection).await;
}

#[tokio::test]
async fn a_thousand_requests_on_one_connection_wait_for_each_other_and_for_nobody_else() {
    let port = Port::mutual(Limits { requests_per_connection: 50, ..Limits::default() }).await;
    port.record(0..1);
    let greedy = client(&port.good_way()).await.expect("let in");
    let (answered, mut answers) = mpsc::channel(1000);
    let mut requests = JoinSet::new();
    for _ in 0..1000 {
        let (mut greedy, answered) = (greedy.clone(), answered.clone());
        requests.spawn(async move {
            let mut stream = follow(&mut greedy).await;
            next_flow(&mut stream).await;
            answered.send(()).await.expect("the test listens");
            // Held open until the test ends.
            while stream.next().await.is_some() {}
        });
    }
    for _ in 0..50 {
        answers.recv().await.expect("as many as are allowed");
    }
    let mut other = client(&port.good_way()).await.expect("let in");
    let mut stream = follow(&mut other).await;
    assert_eq!(next_flow(&mut stream).await, "0");
    port.record(1..101);
    for number in 1..101 {
        assert_eq!(next_flow(&mut stream).await, number.to_string(), "nothing is missing");
    }
    assert!(answers.try_recv().is_err(), "the fifty-first waits");
}

/// What a client does not read is not kept for it: what it gets in the end, together with what it is told as lost, is all
/// that there was.
#[tokio::test]
async fn a_client_that_does_not_read_is_not_waited_for() {
    let port = Port::mutual(Limits::default()).await;
    port.record(0..1);
    let (mut idle, mut other) =
        (client(&port.good_way()).await.expect("let in"), client(&port.good_way()).await.expect("let in"));
    let (mut unread, mut stream) = (follow(&mut idle).await, follow(&mut other).await);
    assert_eq!(next_flow(&mut stream).await, "0");
    let flows = 20_000;
    for start in (1..flows).step_by(100) {
        port.record(start..(start + 100).min(flows));
        for number in start..(start + 100).min(flows) {
            assert_eq!(next_flow(&mut stream).await, number.to_string(), "who reads misses nothing");
        }
    }
    let (mut received, mut lost) = (0, 0);
    while received + lost < u64::from(flows) {
        match unread.next().await.expect("it goes on").expect("an answer").response_types {
            Some(ResponseTypes::Flow(_)) => received += 1,
            Some(ResponseTypes::LostEvents(event)) => lost += event.num_events_lost,
            other => panic!("a journal has no {other:?}"),
        }
    }
    assert_eq!(received + lost, u64::from(flows));
    assert!(lost > u64::from(flows) / 2, "what waits for it is bounded: only {lost} were lost");
}
