//! The agent as a process: which threads it has, and how it ends.
//!
//! | thread | runs | ends |
//! | --- | --- | --- |
//! | main, `control` | the control loop and the CNI socket, in one `LocalSet` | at SIGTERM or SIGINT |
//! | `store` | the folder's files (`crate::store::folder`) | with the control loop |
//! | `serving` | the gRPC socket, and the nodes and events that it tells of | with the control loop |
//! | `flows` | the event rings | with the process |
//! | `observer-port` | the Observer's TCP port, if there is one | with the process |
//! | `metrics` | the metrics port, if it is asked for | with the control loop |
//! | `pod-namespace` | one visit of a pod's namespace | by itself |
//!
//! The control loop has a thread of its own so that no client and no storm of events makes a policy wait, and the event
//! rings have one so that no client makes them overflow. Ending leaves the datapath as it is: pods go on, and the next
//! agent takes over (ARCHITECTURE.md, promise 3).

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use sinew_observer::JournalSettings;
use sinew_observer::metrics::http;
use sinew_observer::peer::Peers;
use sinew_observer::ring::Capacity;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{broadcast, oneshot, watch};
use tokio::task::LocalSet;

use crate::claim::Claim;
use crate::cni::attach::Attacher;
use crate::cni::{queue, server as cni_server};
use crate::config::{Config, ObserverPort};
use crate::control::{self, Started};
use crate::datapath::{EventRings, folder_of_node};
use crate::flow::{self, Counting, FlowSettings, Journal};
use crate::heap;
use crate::kernel;
use crate::metrics::{Counted, NodeMetrics};
use crate::server::{self, Sources};
use crate::socket;
use crate::view::Constants;

/// Name of the gRPC socket under the run folder.
pub const SOCKET: &str = "agent.sock";
/// Batches of raw records that a slow `sinew monitor` may be behind before it misses some.
const RAW_BATCHES: usize = 256;
/// How long a killed agent may take to go: giving back the memory of a large cluster's objects takes 50 ms.
const PREDECESSOR: Duration = Duration::from_secs(2);
/// Time between two tries to open the metrics port.
const METRICS_RETRY: Duration = Duration::from_secs(5);
/// Time between two looks for DELs that a plugin queued while the agent was stopped.
const QUEUE_LOOK: Duration = Duration::from_secs(10);

/// Is the node's agent until a signal ends it. `object` is the compiled programs.
///
/// # Errors
/// What keeps the agent from coming up or going on.
pub fn run(config: Config, object: &[u8]) -> anyhow::Result<()> {
    heap::share_one_arena();
    let kernel = kernel::check()?;
    kernel::raise_open_files();
    let path = config.place.run_dir.join(SOCKET);
    wait_for_predecessor(&path)?;
    let pins = folder_of_node(&config.place.bpf_root, &config.place.node_name);
    let _claim = Claim::take(&pins, PREDECESSOR);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("making the control thread's runtime")?;
    let tasks = LocalSet::new();
    let outcome = runtime.block_on(tasks.run_until(be_agent(config, object, kernel, path.clone())));
    // Whoever connects from now on is told at once that nobody listens.
    let _gone = fs::remove_file(&path);
    outcome
}

/// An agent that was just killed may still be on its way out, and its socket with it.
fn wait_for_predecessor(path: &Path) -> anyhow::Result<()> {
    let start = Instant::now();
    while socket::is_served(path) {
        if start.elapsed() > PREDECESSOR {
            bail!("another agent serves {}: this node has its agent already", path.display());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

async fn be_agent(config: Config, object: &[u8], kernel: String, socket: PathBuf) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let state_dir = config.place.state_dir.clone();
    let cni_socket = config.place.run_dir.join(cni_server::SOCKET);
    let port = config.observer.clone();
    let metrics = config.metrics.clone();
    let (flows, capacity) = (config.flows, config.flow_capacity);
    let started = Box::pin(control::start(config, object, kernel)).await?;
    let Started { control, steps, asks, view, constants, rings, readings, scraped, counted, netlink } =
        started;
    tracing::info!(node = constants.node, store = constants.store, "the agent is up");

    let sources = Sources {
        journal: Arc::new(journal(&constants, flows, capacity, port.as_ref(), &socket)),
        constants: Arc::new(constants),
        view: view.clone(),
        asks,
        readings: Arc::new(Mutex::new(readings)),
        records: broadcast::Sender::new(RAW_BATCHES),
    };
    let (counting, scraper) = Counting::new(metrics.hubble).unzip();
    if let Some(address) = metrics.address {
        let (constants, journal) = (Arc::clone(&sources.constants), Arc::clone(&sources.journal));
        let node = NodeMetrics::new(constants, view.clone(), journal, Arc::clone(&counted), scraped, scraper);
        serve_metrics_beside(address, node)?;
    }
    let mut serving = serve_beside(sources, rings, counting, socket, port)?;
    let attacher = Rc::new(Attacher::new(netlink, steps, view, &state_dir));
    // Listen first, read the queue second (`crate::plugin` counts on it), accept third.
    let listener = cni_server::bind(cni_socket.parent().unwrap_or(Path::new("/")))
        .with_context(|| format!("making the CNI socket {}", cni_socket.display()))?;
    let cni = tokio::task::spawn_local(serve_cni(listener, attacher, counted, state_dir));

    let outcome = tokio::select! {
        outcome = control.run() => outcome.map_err(anyhow::Error::from),
        outcome = &mut serving => outcome.context("the serving thread ended")?,
        never = heap::give_back() => match never {},
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    cni.abort();
    let _gone = fs::remove_file(cni_socket);
    tracing::info!("the agent ends; the datapath goes on");
    outcome
}

/// The journal of this node, which says of itself where it answers.
fn journal(
    constants: &Constants,
    flows: bool,
    capacity: Capacity,
    port: Option<&ObserverPort>,
    socket: &Path,
) -> Journal {
    let name = format!("{}/{}", constants.cluster, constants.node);
    let mut settings = JournalSettings::new(&name, env!("CARGO_PKG_VERSION"));
    if let Some(own) = server::peers::peers_of(&BTreeMap::new(), constants, port, socket).remove(&name) {
        settings.address = own.address;
        settings.tls = own.tls;
    }
    settings.flows = capacity;
    settings.off =
        (!flows).then_some("this node makes no flows: sinew-agent runs with --enable-hubble=false");
    Journal::new(settings, SystemTime::now())
}

async fn serve_cni(
    listener: UnixListener,
    attacher: Rc<Attacher>,
    counted: Arc<Counted>,
    state_dir: PathBuf,
) {
    queue::carry_out(&attacher, &state_dir).await;
    let mut look = tokio::time::interval(QUEUE_LOOK);
    let serve = cni_server::serve(listener, Rc::clone(&attacher), counted);
    tokio::pin!(serve);
    loop {
        tokio::select! {
            () = &mut serve => return,
            _ = look.tick() => {
                queue::look(&attacher, &state_dir).await;
            }
        }
    }
}

/// The metrics port on a thread of its own, so that neither a scrape nor a client slows flows or policies. A port that
/// can't be had now is tried for again: pods must not go without a network because somebody else has it.
fn serve_metrics_beside(address: SocketAddr, metrics: NodeMetrics) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("making the metrics thread's runtime")?;
    let serve = async move {
        loop {
            match http::bind(address).await {
                Ok(listener) => match http::serve(listener, Arc::new(metrics)).await {},
                Err(error) => tracing::error!(%address, %error, "the metrics port cannot be opened"),
            }
            tokio::time::sleep(METRICS_RETRY).await;
        }
    };
    std::thread::Builder::new()
        .name("metrics".into())
        .spawn(move || match runtime.block_on::<_>(serve) {})
        .context("starting the metrics thread")
        .map(drop)
}

/// Services on a thread of their own, and flows on another. The receiver hears how it ended.
fn serve_beside(
    sources: Sources,
    rings: Option<EventRings>,
    counting: Option<Counting>,
    socket: PathBuf,
    port: Option<ObserverPort>,
) -> anyhow::Result<oneshot::Receiver<anyhow::Result<()>>> {
    let (ended, end) = oneshot::channel();
    std::thread::Builder::new()
        .name("serving".into())
        .spawn(move || {
            let outcome = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("making the serving thread's runtime")
                .and_then(|runtime| runtime.block_on(serve(sources, rings, counting, &socket, port)));
            // The control thread may have ended first; then nobody asks.
            let _unasked = ended.send(outcome);
        })
        .context("starting the serving thread")?;
    Ok(end)
}

/// The rings have a thread of their own, so that no client, whatever it asks for, keeps them from being read. The receiver
/// hears why it ended.
fn read_beside(
    rings: EventRings,
    settings: FlowSettings,
    sources: &Sources,
    counting: Option<Counting>,
) -> anyhow::Result<oneshot::Receiver<anyhow::Result<Infallible>>> {
    let (ended, end) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("making the runtime of the thread of flows")?;
    let Sources { view, journal, records, .. } = sources.clone();
    std::thread::Builder::new()
        .name("flows".into())
        .spawn(move || {
            let outcome = runtime.block_on(flow::run(rings, settings, view, journal, records, counting));
            // The serving thread may have ended first; then nobody asks.
            let _unasked = ended.send(outcome.context("reading the event rings"));
        })
        .context("starting the thread of flows")?;
    Ok(end)
}

async fn serve(
    sources: Sources,
    rings: Option<EventRings>,
    counting: Option<Counting>,
    socket: &Path,
    port: Option<ObserverPort>,
) -> anyhow::Result<()> {
    let constants = Arc::clone(&sources.constants);
    let (known, peers) = watch::channel(Peers::new());
    if let Some(port) = port.clone() {
        server::port::start(port, Arc::clone(&sources.journal), peers.clone())
            .context("starting the thread of the observer's port")?;
    }
    let settings = FlowSettings { cluster: constants.cluster.clone(), node: constants.node.clone() };
    let flows = match rings {
        Some(rings) => Some(read_beside(rings, settings, &sources, counting)?),
        None => None,
    };
    let flows = async {
        match flows {
            // The thread ends with an error or not at all.
            Some(ended) => ended.await.unwrap_or_else(|_| Err(anyhow::anyhow!("the thread of flows ended"))),
            None => std::future::pending().await,
        }
    };
    let changes = async {
        flow::tell(sources.view.clone(), Arc::clone(&sources.journal)).await;
        // The control loop has ended: the agent is on its way out, and says itself why.
        std::future::pending::<Infallible>().await
    };
    let nodes = async {
        server::peers::publish(sources.view.clone(), &constants, port.as_ref(), socket, &known).await;
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        outcome = flows => match outcome? {},
        never = changes => match never {},
        never = nodes => match never {},
        outcome = server::serve(socket, sources.clone(), peers) => {
            outcome.with_context(|| format!("serving {}", socket.display()))
        }
    }
}
