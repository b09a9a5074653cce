use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const GAUGE: Description = Description::gauge("x_scrapes", &[], "Scrapes so far.");
const LARGE: Description = Description::gauge("x_large", &["row"], "Many rows.");

/// Tells how often it was asked, and as many rows as it is told to.
struct Counting {
    scrapes: AtomicUsize,
    rows: usize,
}

impl Exposed for Counting {
    async fn families(&self) -> Vec<Family> {
        let scrapes = self.scrapes.fetch_add(1, Ordering::Relaxed) + 1;
        let mut large = Family::new(&LARGE);
        for row in 0..self.rows {
            large.add([&format!("{row:0>200}")], Value::Count(0));
        }
        vec![Family::single(&GAUGE, Value::Count(scrapes as u64)), large]
    }
}

async fn server(rows: usize) -> (SocketAddr, JoinSet<Infallible>) {
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(listener, Arc::new(Counting { scrapes: AtomicUsize::new(0), rows })));
    (address, tasks)
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn metrics_are_at_their_path_and_nothing_is_elsewhere() {
    let (address, _tasks) = server(0).await;
    let answer = ask(address, "GET /metrics?x=1 HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{answer}");
    assert!(
        answer.contains("\r\n\r\n# HELP x_scrapes Scrapes so far.\n# TYPE x_scrapes gauge\nx_scrapes 1"),
        "{answer}"
    );
    let answer = ask(address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("at /metrics"), "{answer}");
    let answer = ask(address, "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: GET, HEAD"), "{answer}");
    let answer = ask(address, "rubbish\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let head = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(LARGEST_HEAD));
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // The refusal may be overtaken by the reset that unread bytes cause.
    let _reset = stream.read_to_end(&mut answer).await;
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 431 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    // The server counts what it answered; what hyper refused by itself is not among it.
    let answer = ask(
        address,
        "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text; version=1.0.0\r\n\r\n",
    )
    .await;
    assert!(
        answer.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{answer}"
    );
    for line in [
        "hubble_metrics_http_handler_requests_total{code=\"200\"} 1\n",
        "hubble_metrics_http_handler_requests_total{code=\"404\"} 1\n",
        "hubble_metrics_http_handler_requests_total{code=\"405\"} 1\n",
        "hubble_metrics_http_handler_request_duration_seconds_count{code=\"200\"} 1\n",
        "x_scrapes 2\n",
    ] {
        assert!(answer.contains(line), "{line} is not in {answer}");
    }
    assert!(answer.ends_with("# EOF\n"), "{answer}");
}

#[tokio::test]
async fn a_large_answer_arrives_whole() {
    let (address, _tasks) = server(20_000).await;
    let answer = ask(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(answer.lines().filter(|line| line.starts_with("x_large{")).count(), 20_000);
}

/// Clients that connect and say nothing, or ask and do not read, fill their address' seats and nobody else's.
#[tokio::test]
async fn a_silent_client_keeps_nobody_else_out() {
    let (address, _tasks) = server(20_000).await;
    let mut silent = Vec::new();
    for at in 0..CONNECTIONS_EACH {
        let mut stream = TcpStream::connect(address).await.unwrap();
        if at % 2 == 0 {
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        }
        silent.push(stream);
    }
    // The next one from that address is closed without an answer.
    let mut late = TcpStream::connect(address).await.unwrap();
    let mut answer = Vec::new();
    // Closed by an end or by a reset, if the request reached a closed socket.
    let _reset = late.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let _reset = late.read_to_end(&mut answer).await;
    assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    // Another address is served.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = socket.connect(address).await.unwrap();
    other.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    other.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

/// Time stands still in this test except for what is waited for, so the patience costs nothing.
#[tokio::test(start_paused = true)]
async fn a_connection_ends_after_the_patience() {
    let (address, _tasks) = server(0).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /metrics HT").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    // hyper may say 408 before it closes; it does close.
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn an_address_is_written_as_hubble_writes_it() {
    assert_eq!(parse_address(":9965"), Ok("[::]:9965".parse().unwrap()));
    assert_eq!(parse_address("127.0.0.1:9965"), Ok("127.0.0.1:9965".parse().unwrap()));
    assert_eq!(
        parse_address("9965"),
        Err("\"9965\" is not ADDRESS:PORT, such as 127.0.0.1:9965 or :9965".to_owned())
    );
}

#[test]
fn seats_are_given_back() {
    let room = Room::default();
    let address: IpAddr = "192.0.2.1".parse().unwrap();
    let seats: Vec<_> = (0..CONNECTIONS_EACH).map(|_| room.seat(address).unwrap()).collect();
    assert!(room.seat(address).is_none());
    let others: Vec<_> = (0..CONNECTIONS - CONNECTIONS_EACH)
        .map(|at| room.seat(IpAddr::from([198, 51, 100, u8::try_from(at).unwrap()])).unwrap())
        .collect();
    assert!(room.seat("203.0.113.1".parse().unwrap()).is_none(), "the room is full");
    drop((seats, others));
    assert!(room.seat(address).is_some() && room.0.lock().unwrap().is_empty());
}
