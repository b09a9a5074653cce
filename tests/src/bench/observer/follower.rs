//! One client that follows a node's flows over its socket, as `sinew observe --follow` does, and counts what it hears
//! instead of printing it.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use sinew_api::proto::flow::{Flow, layer4::Protocol};
use sinew_api::proto::observer::get_flows_response::ResponseTypes;
use sinew_api::proto::observer::observer_client::ObserverClient;
use sinew_api::proto::observer::{GetFlowsRequest, GetFlowsResponse};
use sinew_observer::dial::{Patience, Way};
use tokio::runtime::{Builder, Runtime};
use tonic::Streaming;

use crate::lab::Node;

/// Name of the agent's socket in its run folder.
const SOCKET: &str = "agent.sock";
/// How long a connection may take, and the client's end.
const PATIENCE: Duration = Duration::from_secs(3);

/// A client, until it is dropped.
pub(super) struct Follower {
    heard: Arc<Heard>,
    runtime: Option<Runtime>,
}

/// What it was told.
#[derive(Debug, Default)]
struct Heard {
    /// UDP port of the flows that count apart.
    port: u32,
    of_port: AtomicU64,
    lost: AtomicU64,
    failed: Mutex<Option<String>>,
}

/// Its counts at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// Flows to the port that it watches.
    pub(super) of_port: u64,
    /// Events that it was told are lost, wherever.
    pub(super) lost: u64,
}

impl Follower {
    /// Connects and asks; flows to a UDP port are counted apart.
    pub(super) fn start(node: &Node, port: u16) -> Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.context("making the client's runtime")?;
        let answers = runtime.block_on(ask(&node.directories().run.join(SOCKET)))?;
        let heard = Arc::new(Heard { port: port.into(), ..Heard::default() });
        runtime.spawn(hear(answers, Arc::clone(&heard)));
        Ok(Self { heard, runtime: Some(runtime) })
    }

    /// What it has heard so far.
    pub(super) fn told(&self) -> Result<Told> {
        let failed = self.heard.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = &*failed {
            bail!("the client that follows was cut off: {why}");
        }
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Ok(Told { of_port: count(&self.heard.of_port), lost: count(&self.heard.lost) })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(PATIENCE);
        }
    }
}

async fn ask(socket: &Path) -> Result<Streaming<GetFlowsResponse>> {
    let way = Way::Socket(socket.display().to_string());
    let channel = way.connect(Patience { connect: PATIENCE, ping: None }).await;
    let channel = channel.map_err(|why| anyhow!("{}: {why}", socket.display()))?;
    let request = GetFlowsRequest { follow: true, ..GetFlowsRequest::default() };
    let answers = ObserverClient::new(channel).get_flows(request).await;
    Ok(answers.context("asking for flows")?.into_inner())
}

async fn hear(mut answers: Streaming<GetFlowsResponse>, heard: Arc<Heard>) {
    let why = loop {
        match answers.message().await {
            Ok(Some(answer)) => heard.count(answer),
            Ok(None) => break "the answer ended".to_owned(),
            Err(status) => break status.to_string(),
        }
    };
    *heard.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
}

impl Heard {
    fn count(&self, answer: GetFlowsResponse) {
        match answer.response_types {
            Some(ResponseTypes::Flow(flow)) if udp_port(&flow) == Some(self.port) => {
                self.of_port.fetch_add(1, Ordering::Relaxed);
            }
            Some(ResponseTypes::LostEvents(lost)) => {
                self.lost.fetch_add(lost.num_events_lost, Ordering::Relaxed);
            }
            _ => {}
        }
    }
}

fn udp_port(flow: &Flow) -> Option<u32> {
    match flow.l4.as_ref()?.protocol.as_ref()? {
        Protocol::Udp(udp) => Some(udp.destination_port),
        _ => None,
    }
}
