//! How many flows a second `sinew-relay` merges: the real program, its nodes and its client played by this process.
//!
//! In a cluster, flows are made and read on other machines. Here that would take the processors on which the relay is
//! measured, so [`nodes`] send flows encoded in advance, and the client counts answers without decoding them ([`raw`]). What
//! remains is the relay's own work: to receive, order and forward.
//!
//! Neighbour: `sample.rs` makes the flow.

mod nodes;
mod raw;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use sinew_api::proto::observer::GetFlowsRequest;
use sinew_observer::dial::{Patience, Way};
use tokio::runtime::{Builder, Runtime};
use tonic::Request;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;

use super::GROUP;
use super::processor::Watched;
use crate::bench::Options;
use crate::bench::report::{Aim, Row};
use crate::bench::spread::Spread;
use crate::lab::binaries;
use crate::lab::process::{self, Running, interrupted, wait_until};

/// Nodes behind the relay.
const NODES: [u32; 2] = [2, 50];
/// How long the relay may take to come up, and a connection to be made.
const PATIENCE: Duration = Duration::from_secs(10);
/// Flows a second that the project wants.
const AIM: f64 = 200_000.0;

/// Measures every number of nodes.
pub(super) fn run(options: &Options) -> Result<Vec<Row>> {
    NODES.into_iter().map(|count| measure(count, options)).collect()
}

fn measure(count: u32, options: &Options) -> Result<Row> {
    let (rounds, flows) = if options.quick { (3, 50_000) } else { (9, 300_000) };
    let folder = tempfile::tempdir().context("making a folder for sockets")?;
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.context("making the nodes' runtime")?;
    let each = flows / count;
    let served = nodes::serve(&runtime, folder.path(), count, each)?;
    let (relay, channel) = start(&runtime, folder.path(), &served)?;
    let expected = u64::from(each) * u64::from(count);
    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        ensure!(!interrupted(), "interrupted");
        let (start, watched) = (Instant::now(), Watched::start(relay.pid())?);
        let merged = runtime.block_on(ask(channel.clone()))?;
        let (took, used) = (start.elapsed(), watched.used()?);
        ensure!(
            merged == expected,
            "the relay gave {merged} of {expected} flows; its log ends with:\n{}",
            relay.log_tail(10)
        );
        if round > 0 {
            rates.push(merged as f64 / took.as_secs_f64());
            costs.push(used.as_secs_f64() * 1e6 / merged as f64);
        }
    }
    let cost = Spread::of(costs).context("no rounds")?;
    let note = format!(
        "{:.2} us ({:.2}–{:.2}) of the relay's processor a flow, {:.0} flows/s on one processor",
        cost.median,
        cost.min,
        cost.max,
        1e6 / cost.median
    );
    let row =
        Row::new(GROUP, format!("relay, {count} nodes"), "flows/s", Spread::of(rates).context("no rounds")?);
    Ok(row.aim(Aim::AtLeast(AIM)).note(note))
}

/// The relay over these nodes, and a connection to it.
fn start(runtime: &Runtime, folder: &Path, nodes: &[(String, String)]) -> Result<(Running, Channel)> {
    let socket = folder.join("relay.sock");
    let mut command = Command::new(binaries::find("sinew-relay")?);
    command.arg("--socket").arg(&socket);
    for (name, address) in nodes {
        command.arg("--node").arg(format!("{name}={address}"));
    }
    let log = folder.join("relay.log");
    let relay = Running::start(&mut command, &log)?;
    wait_until("the relay serves", PATIENCE, || Ok(socket.exists()))
        .with_context(|| process::tail(&log, 10))?;
    let way = Way::Socket(socket.display().to_string());
    let channel = runtime.block_on(way.connect(Patience { connect: PATIENCE, ping: None }));
    Ok((relay, channel.map_err(|why| anyhow!("the relay: {why}"))?))
}

/// Everything that the nodes have, once; the number of flows that came.
async fn ask(channel: Channel) -> Result<u64> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.context("the connection to the relay")?;
    let path = PathAndQuery::from_static("/observer.Observer/GetFlows");
    let request = GetFlowsRequest { first: true, number: u64::MAX, ..GetFlowsRequest::default() };
    let answers = client.server_streaming(Request::new(request), path, raw::Counting).await;
    let mut answers = answers.context("asking the relay")?.into_inner();
    let mut count = 0;
    while let Some(kind) = answers.message().await.context("the relay's answer")? {
        count += u64::from(kind == raw::Kind::Flow);
    }
    Ok(count)
}
