//! The metrics port: `GET /metrics` over HTTP/1.1, for Prometheus and for curl.
//!
//! Each connection has one request, within [`PATIENCE`] from its first byte to its last, so that a slow client costs a
//! socket for that long and no more. There are [`CONNECTIONS`] at a time, [`CONNECTIONS_EACH`] of one address, so that one
//! client does not keep the others out; more are closed at once. Tasks: one for each connection, owned by [`serve`];
//! dropping it ends them.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::metrics::histogram::Histogram;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{Description, Family, Format, Value, text};

/// Every metric here: Hubble's names for its metrics server.
pub const METRICS: &[&Description] = &[&REQUESTS, &DURATION];

const REQUESTS: Description = Description::counter(
    "hubble_metrics_http_handler_requests_total",
    &["code"],
    "Requests to the metrics port, by status code.",
);
const DURATION: Description = Description::histogram(
    "hubble_metrics_http_handler_request_duration_seconds",
    &["code"],
    "Time from a request to the metrics port to its answer, seconds.",
);

/// Connections at a time. A pair of Prometheus servers with one scrape under way each needs two.
const CONNECTIONS: usize = 32;
/// Of those, connections of one address.
const CONNECTIONS_EACH: usize = 8;
/// How long a connection may take, request and answer together. Prometheus gives up after 10 s by default.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a request's head. Prometheus sends some 400.
const LARGEST_HEAD: usize = 8192;

/// Whoever has metrics to tell.
pub trait Exposed: Send + Sync + 'static {
    /// All of them, as they are now.
    fn families(&self) -> impl Future<Output = Vec<Family>> + Send;
}

/// Reads `ADDRESS:PORT`, or `:PORT` for all addresses, as Hubble writes it.
///
/// # Errors
///
/// It is neither.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let whole = if text.starts_with(':') { format!("[::]{text}") } else { text.to_owned() };
    whole.parse().map_err(|_| format!("{text:?} is not ADDRESS:PORT, such as 127.0.0.1:9965 or :9965"))
}

/// Listens. All addresses of both families are all IPv4 ones where the kernel has no IPv6.
///
/// # Errors
///
/// The address is not this machine's, or taken.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(_) if address.is_ipv6() && address.ip().is_unspecified() && !has_ipv6() => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        outcome => outcome,
    }
}

fn has_ipv6() -> bool {
    std::path::Path::new("/proc/net/if_inet6").exists()
}

/// Answers scrapes until the task is dropped.
pub async fn serve(listener: TcpListener, exposed: Arc<impl Exposed>) -> Infallible {
    let (room, requests) = (Room::default(), Arc::new(Requests::default()));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                // Without a seat the stream is dropped here, which closes it.
                Ok((stream, peer)) => if let Some(seat) = room.seat(peer.ip()) {
                    let (exposed, requests) = (exposed.clone(), requests.clone());
                    connections.spawn(async move {
                        // A client that breaks off or takes too long harms only itself.
                        let _late = tokio::time::timeout(PATIENCE, answer(stream, exposed, requests)).await;
                        drop(seat);
                    });
                },
                // Out of descriptors, most likely: they come back.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(stream: TcpStream, exposed: Arc<impl Exposed>, requests: Arc<Requests>) {
    let service = service_fn(|request: Request<Incoming>| {
        let (exposed, requests) = (exposed.clone(), requests.clone());
        async move {
            let begun = Instant::now();
            let response = respond(&request, &*exposed, &requests).await;
            requests.count(response.status(), begun.elapsed());
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(LARGEST_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // Broken connections and requests that are no HTTP end here; hyper has answered what can be answered.
    let _broken = connection.await;
}

async fn respond(
    request: &Request<Incoming>,
    exposed: &impl Exposed,
    requests: &Requests,
) -> Response<Full<Bytes>> {
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "metrics are at /metrics\n");
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "metrics are read with GET\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let format = Format::accepted(&accept(request.headers()));
    let mut families = exposed.families().await;
    families.extend(requests.families());
    let mut response = Response::new(Full::from(text(families, format)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    response
}

fn accept(headers: &HeaderMap) -> String {
    let lines: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok()).collect();
    lines.join(",")
}

fn plain(status: StatusCode, words: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(words));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// Who is connected.
#[derive(Clone, Debug, Default)]
struct Room(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A place in the room, given back when it is dropped.
#[derive(Debug)]
struct Seat(Room, IpAddr);

impl Room {
    fn seat(&self, address: IpAddr) -> Option<Seat> {
        let mut seated = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = seated.get(&address).copied().unwrap_or(0);
        if own >= CONNECTIONS_EACH || seated.values().sum::<usize>() >= CONNECTIONS {
            return None;
        }
        seated.insert(address, own + 1);
        Some(Seat(self.clone(), address))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seated = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = seated.get_mut(&self.1) {
            *own -= 1;
            if *own == 0 {
                seated.remove(&self.1);
            }
        }
    }
}

/// Requests that were answered, by status code: 200, 404 and 405.
#[derive(Debug, Default)]
struct Requests(Mutex<BTreeMap<u16, (u64, Option<Histogram>)>>);

impl Requests {
    fn count(&self, status: StatusCode, took: Duration) {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, histogram) = counted.entry(status.as_u16()).or_default();
        *count += 1;
        histogram.get_or_insert_with(|| Histogram::new(super::SECONDS)).observe(took.as_secs_f64());
    }

    fn families(&self) -> [Family; 2] {
        let (mut requests, mut durations) = (Family::new(&REQUESTS), Family::new(&DURATION));
        let counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (code, (count, histogram)) in counted.iter() {
            let code = code.to_string();
            requests.add([&code], Value::Count(*count));
            if let Some(histogram) = histogram {
                durations.add([&code], Value::Spread(histogram.clone()));
            }
        }
        [requests, durations]
    }
}

#[cfg(test)]
mod tests;
