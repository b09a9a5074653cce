//! The commands of CNI, step by step: who asks the control loop for what, and what is done with links in between.
//!
//! Commands for one attachment take turns; others run side by side. Each command can be carried out again after it failed
//! anywhere, and an ADD that fails undoes itself.
//!
//! Neighbours: [`super::server`] and [`super::queue`] bring commands, [`super::step`] has the steps.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use sinew_api::cni::{Added, Attachment};
use sinew_api::identity::Identity;
use sinew_engine::EndpointId;
use tokio::sync::{mpsc, oneshot, watch};

use super::ledger::key_of;
use super::queue::{self, QueuedDel};
use super::step::{Reply, Step};
use super::{AttachmentKey, Refusal};
use crate::netlink::address::gateway;
use crate::netlink::namespace::PodNamespace;
use crate::netlink::veth::{self, PodLink};
use crate::netlink::{Netlink, NetlinkError};
use crate::view::View;

/// How long an ADD waits for the pod's labels, identity and table. The plugin gives up after 9 s; a pod whose object has
/// not come by then starts as `init`, which allows nothing that no policy grants it.
const READY_WITHIN: Duration = Duration::from_secs(4);

/// Carries commands out.
#[derive(Debug)]
pub struct Attacher {
    netlink: Arc<Netlink>,
    steps: mpsc::Sender<Step>,
    view: watch::Receiver<Arc<View>>,
    state_dir: PathBuf,
    turns: Mutex<HashMap<AttachmentKey, Weak<tokio::sync::Mutex<()>>>>,
}

impl Attacher {
    /// An attacher that asks the loop behind `steps`. DELs wait under `state_dir`.
    #[must_use]
    pub fn new(
        netlink: Arc<Netlink>,
        steps: mpsc::Sender<Step>,
        view: watch::Receiver<Arc<View>>,
        state_dir: &Path,
    ) -> Self {
        Self { netlink, steps, view, state_dir: state_dir.into(), turns: Mutex::default() }
    }

    /// ADD.
    ///
    /// # Errors
    /// Any [`Refusal`]; nothing is left behind.
    pub async fn add(&self, attachment: &Attachment) -> Result<Added, Refusal> {
        let key = key_of(attachment);
        let turn = self.turn(&key);
        let _held = turn.lock().await;
        // A DEL that waits is of an earlier attachment; carried out later it would remove this one.
        let queued = QueuedDel { path: queue::path(&self.state_dir, &key), key: key.clone() };
        self.carry_out(&queued).await?;
        let namespace = PodNamespace::open(Path::new(&attachment.netns)).map_err(NetlinkError::from)?;
        let link = self.ask(|reply| Step::Begin(attachment.clone(), reply)).await?;
        match self.make(&key, &namespace, &link).await {
            Ok(()) => Ok(added(&link)),
            Err(refusal) => {
                self.undo(&key).await;
                Err(refusal)
            }
        }
    }

    /// DEL; fine if there is nothing.
    ///
    /// # Errors
    /// What could not be removed; the command can be given again.
    pub async fn del(&self, key: &AttachmentKey) -> Result<(), Refusal> {
        let turn = self.turn(key);
        let _held = turn.lock().await;
        self.remove(key).await
    }

    /// A DEL that the plugin wrote down. An ADD of the same attachment may have carried it out already.
    ///
    /// # Errors
    /// What could not be removed; the DEL waits.
    pub async fn del_queued(&self, queued: &QueuedDel) -> Result<(), Refusal> {
        let turn = self.turn(&queued.key);
        let _held = turn.lock().await;
        self.carry_out(queued).await
    }

    /// CHECK: what the ADD made, which stands as it was made.
    ///
    /// # Errors
    /// [`Refusal::Differs`] names what is not as it was made.
    pub async fn check(&self, attachment: &Attachment) -> Result<Added, Refusal> {
        let key = key_of(attachment);
        let turn = self.turn(&key);
        let _held = turn.lock().await;
        let namespace = PodNamespace::open(Path::new(&attachment.netns)).map_err(NetlinkError::from)?;
        let link = self.ask(|reply| Step::Find(key.clone(), reply)).await?;
        let differences = veth::check(&self.netlink, &namespace, &link).await?;
        if !differences.is_empty() {
            return Err(Refusal::Differs(differences.join("; ")));
        }
        // The pod has the one that the underlay had when it was made, and not what a pod would get now.
        let device_mtu = veth::pod_mtu(&namespace, &link.pod_name).await?;
        Ok(Added { device_mtu, ..added(&link) })
    }

    /// GC: removes every attachment to a network but these, and links of ours that no attachment claims. An attachment of
    /// which no network is known, since its file was lost, is taken for one to this network: nobody else would remove it.
    ///
    /// # Errors
    /// The first thing that could not be removed; the rest has been tried.
    pub async fn gc(&self, network: &str, valid: &[AttachmentKey]) -> Result<(), Refusal> {
        // Links first: one that is made meanwhile has its attachment's file before.
        let links = self.netlink.pod_links().await?;
        let standing = self.ask(Step::List).await?;
        let mut outcome = Ok(());
        for (key, of) in &standing {
            if (of == network || of.is_empty()) && !valid.contains(key) {
                outcome = outcome.and(self.del(key).await);
            }
        }
        let claimed: BTreeSet<String> =
            standing.iter().map(|(key, _)| veth::host_link_name(&key.container_id, &key.ifname)).collect();
        for link in links.iter().filter(|link| !claimed.contains(&link.name)) {
            tracing::warn!(interface = link.name, "an interface of nobody is removed");
            outcome =
                outcome.and(self.netlink.delete_link(&link.name).await.map(drop).map_err(Refusal::from));
        }
        outcome
    }

    /// STATUS.
    ///
    /// # Errors
    /// [`Refusal::NotAvailable`] says why no ADD can be served.
    pub async fn status(&self) -> Result<(), Refusal> {
        self.ask(Step::Available).await
    }

    async fn make(
        &self,
        key: &AttachmentKey,
        namespace: &PodNamespace,
        link: &PodLink,
    ) -> Result<(), Refusal> {
        let host = veth::create(&self.netlink, namespace, link).await.map_err(|error| {
            if error.errno() == Some(libc::EEXIST) {
                Refusal::InterfaceExists(link.pod_name.clone())
            } else {
                error.into()
            }
        })?;
        let id = self.ask(|reply| Step::Attach(key.clone(), host.clone(), reply)).await?;
        veth::open_host_side(&self.netlink, &host, link).await?;
        self.wait_ready(id).await;
        for lack in veth::wait_usable(&self.netlink, namespace, link).await? {
            tracing::warn!(interface = link.host_name, "{lack} yet: first packets may be lost");
        }
        self.ask(|reply| Step::Stand(key.clone(), reply)).await
    }

    async fn wait_ready(&self, id: EndpointId) {
        let mut view = self.view.clone();
        let ready = view.wait_for(|view| is_ready(view, id));
        if tokio::time::timeout(READY_WITHIN, ready).await.is_err() {
            tracing::info!(endpoint = id.0, "the pod starts as init: its labels are not known yet");
        }
    }

    /// Removes what an ADD had begun. What can't be removed now is removed by the runtime's DEL, or at the next start.
    async fn undo(&self, key: &AttachmentKey) {
        if let Err(error) = self.remove(key).await {
            tracing::error!(attachment = %key, %error, "what a failed ADD had made cannot be removed yet");
        }
    }

    /// Nothing if it does not wait any more.
    async fn carry_out(&self, queued: &QueuedDel) -> Result<(), Refusal> {
        if !queued.path.exists() {
            return Ok(());
        }
        self.remove(&queued.key).await?;
        tracing::info!(attachment = %queued.key, "a queued DEL is carried out");
        queue::done(queued).map_err(|source| Refusal::Ledger { path: queued.path.clone(), source })
    }

    async fn remove(&self, key: &AttachmentKey) -> Result<(), Refusal> {
        self.ask(|reply| Step::Close(key.clone(), reply)).await?;
        self.netlink.delete_link(&veth::host_link_name(&key.container_id, &key.ifname)).await?;
        self.ask(|reply| Step::End(key.clone(), reply)).await
    }

    async fn ask<T>(&self, step: impl FnOnce(Reply<T>) -> Step) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.steps.send(step(reply)).await.map_err(|_| Refusal::Ending)?;
        answer.await.map_err(|_| Refusal::Ending)?
    }

    /// The turn of an attachment: the same lock for everybody who holds it now.
    fn turn(&self, key: &AttachmentKey) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = turns.get(key).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        turns.insert(key.clone(), Arc::downgrade(&turn));
        turn
    }
}

/// Whether an endpoint has its identity, and the table for it is in the kernel.
fn is_ready(view: &View, id: EndpointId) -> bool {
    let Some(endpoint) = view.snapshot.endpoints.get(&id) else { return false };
    view.snapshot.synced
        && view.enforced >= view.snapshot.revision
        && endpoint.identity != Identity::INIT
        && endpoint.moving_to.is_none()
        && endpoint.table.is_some()
}

fn added(link: &PodLink) -> Added {
    Added {
        host_ifname: link.host_name.clone(),
        host_mac: link.host_mac.to_string(),
        pod_mac: link.pod_mac.to_string(),
        addresses: link.addresses.clone(),
        gateways: link.addresses.iter().map(|address| gateway(*address)).collect(),
        device_mtu: link.device_mtu,
        route_mtu: link.route_mtu,
    }
}
