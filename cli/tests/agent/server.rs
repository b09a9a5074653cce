//! An agent of fixed values: node `a` with two pods, a policy that node `b` has not taken up, and a map list that hangs.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sinew_api::proto::agent::agent_server::{Agent, AgentServer};
use sinew_api::proto::agent::party::By;
use sinew_api::proto::agent::*;
use sinew_api::proto::flow::{DropReason, Verdict};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

type Answer<T> = Result<Response<T>, Status>;
type Stream1<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A server that lives as long as this value.
pub(crate) struct Served {
    pub(crate) socket: PathBuf,
    ready: Arc<AtomicBool>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    _folder: TempDir,
}

impl Served {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("agent.sock");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        let ready = Arc::new(AtomicBool::new(true));
        let (stop, stopped) = oneshot::channel();
        let fixed = Fixed { ready: Arc::clone(&ready) };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let incoming = tokio_stream::wrappers::UnixListenerStream::new(
                    UnixListener::from_std(listener).unwrap(),
                );
                let server = tonic::transport::Server::builder().add_service(AgentServer::new(fixed));
                tokio::select! {
                    served = server.serve_with_incoming(incoming) => served.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        Self { socket, ready, stop: Some(stop), thread: Some(thread), _folder: folder }
    }

    pub(crate) fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::SeqCst);
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // The server may have ended by itself; the thread's panic is what a test should see.
        let _ = self.stop.take().map(|stop| stop.send(()));
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the server panicked");
        }
    }
}

struct Fixed {
    ready: Arc<AtomicBool>,
}

fn endpoint(id: u32, pod: &str, identity: u32, address: &str) -> Endpoint {
    let enforcing = EnforcementMode::Enforcing.into();
    Endpoint {
        id,
        node: "a".into(),
        namespace: "default".into(),
        pod: pod.into(),
        addresses: vec![address.into()],
        identity,
        state: EndpointState::Ready.into(),
        ingress: Some(DirectionEnforcement { mode: enforcing, ..Default::default() }),
        ..Endpoint::default()
    }
}

fn endpoints() -> Vec<Endpoint> {
    vec![endpoint(5, "client", 257, "10.0.0.5"), endpoint(7, "web", 258, "10.0.0.7")]
}

/// The question, in words.
fn asked(party: Option<&Party>) -> Result<ResolvedParty, Status> {
    let name = match party.and_then(|party| party.by.as_ref()) {
        Some(By::Pod(pod)) if pod == "nobody" => {
            return Err(Status::not_found("no pod is called \"nobody\"; nearest: default/web"));
        }
        Some(By::Pod(pod)) => format!("pod {pod}"),
        Some(By::Entity(entity)) => format!("entity {entity}"),
        other => format!("{other:?}"),
    };
    Ok(ResolvedParty { name, ..ResolvedParty::default() })
}

fn stream<T: Send + 'static>(items: Vec<T>) -> Stream1<T> {
    Box::pin(tokio_stream::iter(items.into_iter().map(Ok)))
}

/// Nothing more, but the stream stays open.
fn then_silence<T: Send + 'static>(items: Vec<T>) -> Stream1<T> {
    Box::pin(stream(items).chain(tokio_stream::pending()))
}

#[tonic::async_trait]
impl Agent for Fixed {
    async fn get_status(&self, _: Request<GetStatusRequest>) -> Answer<GetStatusResponse> {
        let ready = self.ready.load(Ordering::SeqCst);
        let state = if ready { condition::State::Ok } else { condition::State::Failure };
        let condition = Condition { name: "policies".into(), state: state.into(), message: String::new() };
        let conditions = vec![condition];
        Ok(Response::new(GetStatusResponse { node: "a".into(), ready, conditions, ..Default::default() }))
    }

    async fn list_endpoints(&self, _: Request<ListEndpointsRequest>) -> Answer<ListEndpointsResponse> {
        Ok(Response::new(ListEndpointsResponse { endpoints: endpoints() }))
    }

    async fn get_endpoint(&self, request: Request<GetEndpointRequest>) -> Answer<GetEndpointResponse> {
        let Some(get_endpoint_request::By::Id(id)) = request.into_inner().by else {
            return Err(Status::invalid_argument("by: a number was expected"));
        };
        let endpoint = endpoints().into_iter().find(|endpoint| endpoint.id == id);
        Ok(Response::new(GetEndpointResponse { endpoint, table: Vec::new() }))
    }

    async fn list_identities(&self, _: Request<ListIdentitiesRequest>) -> Answer<ListIdentitiesResponse> {
        Ok(Response::new(ListIdentitiesResponse::default()))
    }

    async fn get_identity(&self, request: Request<GetIdentityRequest>) -> Answer<GetIdentityResponse> {
        Err(Status::not_found(format!("no identity has the number {}", request.into_inner().id)))
    }

    async fn list_policies(&self, _: Request<ListPoliciesRequest>) -> Answer<ListPoliciesResponse> {
        Ok(Response::new(ListPoliciesResponse::default()))
    }

    async fn get_policy(&self, _: Request<GetPolicyRequest>) -> Answer<GetPolicyResponse> {
        Ok(Response::new(GetPolicyResponse::default()))
    }

    type WaitPolicyStream = Stream1<WaitPolicyResponse>;

    async fn wait_policy(&self, _: Request<WaitPolicyRequest>) -> Answer<Self::WaitPolicyStream> {
        let node = |node: &str, enforced| NodeProgress {
            node: node.into(),
            alive: true,
            enforced,
            ..Default::default()
        };
        let nodes = vec![node("a", true), node("b", false)];
        Ok(Response::new(then_silence(vec![WaitPolicyResponse { nodes, ..Default::default() }])))
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Answer<ExplainResponse> {
        let request = request.into_inner();
        Ok(Response::new(ExplainResponse {
            from: Some(asked(request.from.as_ref())?),
            to: Some(asked(request.to.as_ref())?),
            verdict: Verdict::Forwarded.into(),
            port: request.port,
            protocol: request.protocol,
            ..Default::default()
        }))
    }

    type ListConntrackStream = Stream1<ConntrackEntry>;

    async fn list_conntrack(&self, _: Request<ListConntrackRequest>) -> Answer<Self::ListConntrackStream> {
        let entry =
            |source_port| ConntrackEntry { protocol: "TCP".into(), source_port, ..Default::default() };
        Ok(Response::new(stream(vec![entry(40_000), entry(40_001)])))
    }

    async fn flush_conntrack(
        &self,
        request: Request<FlushConntrackRequest>,
    ) -> Answer<FlushConntrackResponse> {
        let removed = request.into_inner().endpoint.chars().filter(char::is_ascii_digit).count() as u64;
        Ok(Response::new(FlushConntrackResponse { removed }))
    }

    async fn list_maps(&self, _: Request<ListMapsRequest>) -> Answer<ListMapsResponse> {
        tokio::time::sleep(Duration::from_secs(60)).await;
        Ok(Response::new(ListMapsResponse::default()))
    }

    type MonitorStream = Stream1<MonitorEvent>;

    async fn monitor(&self, _: Request<MonitorRequest>) -> Answer<Self::MonitorStream> {
        let event = MonitorEvent {
            r#type: MonitorEventType::MonitorDrop.into(),
            drop_reason: DropReason::PolicyDenied.into(),
            text: "10.0.0.5 -> 10.0.0.7".into(),
            ..Default::default()
        };
        let events = tokio_stream::iter(std::iter::repeat(Ok(event))).throttle(Duration::from_millis(5));
        Ok(Response::new(Box::pin(events)))
    }

    async fn get_version(&self, _: Request<GetVersionRequest>) -> Answer<GetVersionResponse> {
        Ok(Response::new(GetVersionResponse { version: "0.1.0".into(), ..Default::default() }))
    }
}
