//! Brings the loop up over whatever an earlier agent left: nothing, pods whose traffic is flowing, or the remains of a
//! command that was cut off (ARCHITECTURE.md, promise 3).
//!
//! 1. Forwarding and the overlay's device; the programs' constants name it.
//! 2. Files: numbers, last valid policies, attachments; the store, which begins its first list.
//! 3. Datapath: pinned maps are adopted, programs loaded. Links still run the earlier programs.
//! 4. Attachments: what stands is kept, the rest is undone (`crate::cni::reconcile`).
//! 5. The engine hears what was found. It asks for nothing to be taken back before the first list is complete.
//! 6. Links move to the new programs, one by one.
//!
//! Neighbours: `run.rs` calls; `super` is what comes out.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use sinew_api::identity::Identity;
use sinew_api::object::{Node, NodeStatus, Object, Origin, policy_digest};
use sinew_bpf::settings::Settings;
use sinew_engine::{Change, EndpointId, Engine, Event};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::backlog::Backlog;
use super::files::{FileError, NodeFiles, Remembered};
use super::looks::Looks;
use super::nodes::Nodes;
use super::report::Told;
use super::steps::endpoint_entry;
use super::usage::Usage;
use super::{ASKS, Control, Mtu, STEPS, routes, underlay};
use crate::clock::monotonic;
use crate::cni::Refusal;
use crate::cni::ledger::Ledger;
use crate::cni::reconcile::{self, Plan};
use crate::cni::step::Step;
use crate::config::{Config, DenyResponse, StoreArgument};
use crate::datapath::{
    Datapath, DatapathConfig, DatapathError, EventRings, LAST_ENDPOINT, Readings, folder_of_node,
};
use crate::metrics::Counted;
use crate::netlink::node::{self, OVERLAY_LINK, Overlay};
use crate::netlink::watch::LinkWatch;
use crate::netlink::{Link, Netlink, NetlinkError};
use crate::server::Ask;
use crate::store::folder::{FolderConfig, FolderError, FolderStore};
use crate::view::{Constants, View};

/// Why an agent does not come up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A folder can't be made.
    #[error("cannot make folder {path}: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a link, an address, a route or a setting.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A state file can't be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The store can't be opened.
    #[error(transparent)]
    Store(#[from] FolderError),
    /// The datapath can't be loaded.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// What an earlier agent left can't be taken back.
    #[error("cannot take back what an earlier agent left: {0}")]
    Leftover(#[from] Refusal),
    /// Something that the loop lives on has ended.
    #[error("{0} ended")]
    Ended(&'static str),
}

/// The loop, and the ends of it that others hold.
pub struct Started {
    /// The loop, to be run.
    pub control: Control<FolderStore>,
    /// To the loop, for CNI.
    pub steps: mpsc::Sender<Step>,
    /// To the loop, for the services.
    pub asks: mpsc::Sender<Ask>,
    /// What is so.
    pub view: watch::Receiver<Arc<View>>,
    /// What doesn't change.
    pub constants: Constants,
    /// The event rings.
    pub rings: Option<EventRings>,
    /// Handles on the datapath's tables, for the services.
    pub readings: Readings,
    /// The same, for metrics.
    pub scraped: Readings,
    /// What the loop counts.
    pub counted: Arc<Counted>,
    /// The node's netlink connection.
    pub netlink: Arc<Netlink>,
}

/// Brings the loop up. `object` is the compiled programs, `kernel` the running kernel's release.
///
/// # Errors
/// Any [`StartError`]; what an earlier agent left goes on as it was.
pub async fn start(config: Config, object: &[u8], kernel: String) -> Result<Started, StartError> {
    for path in [&config.place.state_dir, &config.place.run_dir] {
        fs::create_dir_all(path).map_err(|source| StartError::Folder { path: path.clone(), source })?;
    }
    let netlink = Arc::new(Netlink::open()?);
    let links = LinkWatch::open()?;
    node::enable_forwarding(&config.node.underlay, config.v6())?;
    // What is wrong with it is said by the first `attach_devices`, as it is under way.
    let mtu = underlay::mtu_over(underlay::look(&netlink, &config).await?.mtu, &config);
    let overlay = prepare_overlay(&netlink, &config, mtu).await?;

    let (mut files, remembered) = NodeFiles::open(&config.place.state_dir)?;
    let Remembered { numbers, policies, objects } = remembered;
    let ledger = Ledger::open(&config.place.state_dir, &config.node.pod_cidrs, LAST_ENDPOINT, monotonic())?;
    let StoreArgument::Folder(path) = &config.store;
    let store = FolderStore::open(FolderConfig {
        path: path.clone(),
        node: config.place.node_name.clone(),
        kept: policies.iter().cloned().map(Object::Policy).chain(objects).collect(),
    })?;
    let own = own_node(&config, store.node_number());

    let mut datapath = Datapath::open(&datapath_config(&config, overlay.as_ref()), object)?;
    let revision = u64::from(datapath.word(EndpointId(0)).revision());
    let engine = Engine::new(engine_config(&config, revision), numbers);
    if let Err(error) = files.start_anew(&engine.records()) {
        tracing::warn!(%error, "the file of numbers keeps its old lines");
    }
    let rings = datapath.take_events();

    let (steps, step_receiver) = mpsc::channel(STEPS);
    let (asks, ask_receiver) = mpsc::channel(ASKS);
    let (view, view_receiver) = watch::channel(Arc::new(View::empty()));
    let constants = constants(&config, mtu, kernel);
    let counted = Arc::new(Counted::default());
    let (readings, scraped) = (datapath.readings()?, datapath.readings()?);
    let mut control = Control {
        store,
        netlink: Arc::clone(&netlink),
        links,
        datapath,
        engine,
        files,
        ledger,
        backlog: Backlog::default(),
        own,
        nodes: Nodes::default(),
        told: Told::default(),
        refused: Vec::new(),
        steps: step_receiver,
        asks: ask_receiver,
        looks: Looks::default(),
        view,
        attached: BTreeMap::new(),
        on_link: Vec::new(),
        overlay,
        addresses: Vec::new(),
        mtu,
        enforced: revision,
        relabels: BTreeMap::new(),
        moving: BTreeMap::new(),
        learnt: BTreeMap::new(),
        usage: Usage::default(),
        failures: BTreeMap::new(),
        store_warning: None,
        asked: VecDeque::new(),
        counted: Arc::clone(&counted),
        wanted_identities: Vec::new(),
        digested: (Arc::default(), policy_digest([])),
        routes: routes::Schedule::new(Instant::now()),
        queues_due: true,
        queues_looked: Instant::now(),
        mtu_at_start: mtu.device,
        stale: true,
        config,
    };
    control.take_over(policies).await?;
    Ok(Started {
        control,
        steps,
        asks,
        view: view_receiver,
        constants,
        rings,
        readings,
        scraped,
        counted,
        netlink,
    })
}

impl Control<FolderStore> {
    async fn take_over(&mut self, policies: Vec<sinew_api::policy::Policy>) -> Result<(), StartError> {
        let links = self.netlink.pod_links().await?;
        let pinned: Vec<EndpointId> = self.datapath.endpoints().keys().copied().collect();
        let plan = reconcile::plan(self.ledger.entries(), &links, pinned);
        self.undo(&plan).await?;

        self.addresses = self.netlink.node_addresses().await?;
        self.reserve_own();
        let mut events = vec![
            Event::NodeAddresses(self.addresses.clone()),
            Event::NodeApplied(super::nodes::without_status(&self.own)),
            Event::Found(self.datapath.found()?),
        ];
        events.extend(policies.into_iter().map(Event::PolicyRestored));
        for (entry, link) in &plan.keep {
            let pinned = self.datapath.endpoints().get(&entry.id).copied();
            let as_it_was = pinned.filter(|pinned| pinned.ifindex == link.index);
            if as_it_was.is_none() {
                // The pins are gone, with a bpf file system that was made anew: the pod starts over.
                let written = endpoint_entry(entry, link.index, Identity::INIT);
                self.datapath.endpoint_write(entry.id, written)?;
            }
            let found = as_it_was.map(|pinned| Identity(pinned.identity));
            events.push(Event::EndpointCreated(entry.endpoint(found)));
        }
        self.hear(events);
        // Devices first: what new programs of pods send through the stack, old ones of devices may not know.
        self.attach_devices().await;
        for (entry, link) in &plan.keep {
            self.datapath.attach_pod(link.index)?;
            self.attached.insert(entry.host_link.clone(), link.index);
        }
        let swept = self.datapath.sweep_links();
        tracing::info!(
            kept = plan.keep.len(),
            undone = plan.undo.len() + plan.links.len(),
            swept = swept.len(),
            "what an earlier agent left is taken over"
        );
        Ok(())
    }

    /// Takes back what nobody was told of, in the order of a DEL.
    async fn undo(&mut self, plan: &Plan) -> Result<(), StartError> {
        for id in &plan.endpoints {
            self.datapath.apply(&[Change::EndpointClosed(*id), Change::Grace]).all()?;
            self.datapath.endpoint_delete(*id)?;
        }
        for name in &plan.links {
            tracing::warn!(interface = name, "an interface of nobody is removed");
            self.netlink.delete_link(name).await?;
        }
        for key in &plan.undo {
            tracing::warn!(attachment = %key, "an attachment that was cut off, or whose pod is gone, is removed");
            if let Some(entry) = self.ledger.entry(key) {
                let name = entry.host_link.clone();
                self.netlink.delete_link(&name).await?;
            }
            self.end(key);
        }
        Ok(())
    }
}

/// What the overlay's device is to be.
pub(super) fn overlay(config: &Config, mtu: Mtu, index: Option<u32>) -> Overlay {
    let mac = node::overlay_mac(&config.node.cluster_name, &config.place.node_name);
    Overlay { port: config.node.tunnel_port, mtu: mtu.path, mac, v6: config.v6(), index }
}

async fn prepare_overlay(netlink: &Netlink, config: &Config, mtu: Mtu) -> Result<Option<Link>, NetlinkError> {
    if config.overlay() {
        node::ensure_overlay(netlink, &overlay(config, mtu, None)).await.map(|(link, _)| Some(link))
    } else {
        if netlink.delete_link(OVERLAY_LINK).await? {
            tracing::info!("the overlay's device of an earlier agent is removed: routing is native");
        }
        Ok(None)
    }
}

fn own_node(config: &Config, number: u16) -> Node {
    Node {
        name: config.place.node_name.clone(),
        cluster: config.node.cluster_name.clone(),
        id: number,
        addresses: config.node.node_ips.clone(),
        pod_cidrs: config.node.pod_cidrs.clone(),
        routing: config.routing(),
        status: NodeStatus::default(),
        origin: Origin::default(),
    }
}

fn datapath_config(config: &Config, overlay: Option<&Link>) -> DatapathConfig {
    // Without the other family there is one world (policy.md 6).
    let (world_v4, world_v6) = match (config.v4(), config.v6()) {
        (true, true) => (Identity::WORLD_IPV4, Identity::WORLD_IPV6),
        _ => (Identity::WORLD, Identity::WORLD),
    };
    DatapathConfig {
        folder: folder_of_node(&config.place.bpf_root, &config.place.node_name),
        settings: Settings {
            world_v4: world_v4.0,
            world_v6: world_v6.0,
            overlay_ifindex: overlay.map_or(0, |link| link.index),
            overlay_mtu: overlay.map_or(0, |link| link.mtu),
            mark: config.node.mark,
            tunnel_port: config.node.tunnel_port.to_be(),
            report_interval: config.report_interval(),
            drop_interval: config.drop_interval(),
            records: u8::from(config.flows),
            reject: u8::from(config.node.policy_deny_response == DenyResponse::Reject),
            ..Settings::DUAL_STACK
        },
        ring_bytes: config.node.event_ring_bytes,
    }
}

fn engine_config(config: &Config, revision: u64) -> sinew_engine::Config {
    sinew_engine::Config {
        v4: config.v4(),
        v6: config.v6(),
        cluster_cidrs: config.node.cluster_cidrs.clone(),
        kube_apiserver: Some(config.node.kube_apiserver.clone()),
        labels: config.node.labels.clone(),
        routing: config.routing(),
        tunnel_port: config.node.tunnel_port,
        revision,
        ..sinew_engine::Config::new(&config.place.node_name, &config.node.cluster_name)
    }
}

fn constants(config: &Config, mtu: Mtu, kernel: String) -> Constants {
    Constants {
        node: config.place.node_name.clone(),
        cluster: config.node.cluster_name.clone(),
        addresses: config.node.node_ips.clone(),
        routing: config.routing().to_string(),
        mtu: mtu.path,
        store: config.store.to_string(),
        started: SystemTime::now(),
        kernel,
    }
}
