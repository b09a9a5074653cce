//! The node's devices and routes: programs on the underlay as soon as it is there, and ways to other nodes' pods.
//!
//! Neighbours: `super` calls when a link, an address or a node changes; [`super::nodes`] says which routes there should be.

use std::net::IpAddr;

use ipnet::IpNet;
use sinew_bpf::abi::endpoint::flag::VIA_STACK;
use tokio::time::Instant;

use super::{Control, start};
use crate::cni::ledger::Phase;
use crate::netlink::address::host_prefix;
use crate::netlink::node::{self, OVERLAY_LINK};
use crate::netlink::route::{self, Route};
use crate::netlink::source;
use crate::netlink::watch::LinkEvent;
use crate::netlink::{Link, NetlinkError, ROUTE_PROTOCOL, veth};
use crate::store::Store;
use crate::view::Part;

impl<S: Store> Control<S> {
    pub(super) async fn hear_link(&mut self, event: &LinkEvent) {
        let ours = |name: &str| {
            self.config.node.underlay.iter().any(|device| device == name) || name == OVERLAY_LINK
        };
        match event {
            LinkEvent::Changed(link) if ours(&link.name) => {
                self.attach_devices().await;
                // A link that goes down takes its routes along without a word of the kernel's.
                self.routes_due = true;
            }
            LinkEvent::Gone(link) if ours(&link.name) => {
                self.attached.remove(&link.name);
                self.datapath.sweep_links();
                self.attach_devices().await;
                self.routes_due = true;
            }
            LinkEvent::Overrun => {
                self.attach_devices().await;
                (self.routes_due, self.queues_due) = (true, true);
            }
            LinkEvent::RouteGone => self.routes_due = true,
            LinkEvent::Queues => self.queues_due = true,
            LinkEvent::Changed(_) | LinkEvent::Gone(_) => {}
        }
    }

    /// Attaches programs to the underlay's devices and the overlay's that are there and have none.
    pub(super) async fn attach_devices(&mut self) {
        let mut missing = Vec::new();
        let mut on_link = Vec::new();
        match start::underlay_mtu(&self.netlink, &self.config).await {
            Ok(device) => self.hear_mtu(device),
            Err(error) => missing.push(error.to_string()),
        }
        missing.extend(self.keep_overlay().await.err().map(|error| error.to_string()));
        let mut names = self.config.node.underlay.clone();
        names.extend(self.overlay.iter().map(|link| link.name.clone()));
        for name in names {
            let outcome = self.attach_device(&name, &mut on_link).await;
            if let Err(message) = outcome
                && !missing.contains(&message)
            {
                missing.push(message);
            }
        }
        if self.on_link != on_link {
            self.on_link = on_link;
            self.routes_due = true;
        }
        self.fail(Part::Devices, (!missing.is_empty()).then(|| missing.join("; ")));
    }

    /// New pods and the overlay's device have the underlay's MTU as it is now. Programs are loaded with the one that it
    /// had at start, and pods that are there keep what they were made with.
    fn hear_mtu(&mut self, device: Option<u32>) {
        let Some(device) = device else { return };
        let at_start = self.mtu_at_start;
        if device != self.mtu.device {
            self.mtu = start::mtu_over(device, &self.config);
            self.routes_due = true;
        }
        let differs = (device != at_start).then(|| {
            format!(
                "the underlay's MTU is {device}, and was {at_start} when the agent started: restart the agent, which \
                 takes it up, and then the pods, which keep the old one"
            )
        });
        self.fail(Part::Mtu, differs);
    }

    /// Makes the overlay's device again if somebody took it away, and what somebody changed of it what it was.
    async fn keep_overlay(&mut self) -> Result<(), NetlinkError> {
        let Some(index) = self.overlay.as_ref().map(|link| link.index) else { return Ok(()) };
        let wanted = start::overlay(&self.config, self.mtu, Some(index));
        let (link, made) = node::ensure_overlay(&self.netlink, &wanted).await?;
        if made {
            tracing::warn!(device = OVERLAY_LINK, "the overlay's device was taken away and is made again");
            self.attached.remove(OVERLAY_LINK);
            self.routes_due = true;
        }
        self.overlay = Some(link);
        self.keep_overlay_sources().await
    }

    /// Lets the host's `MASQUERADE` take the address that other nodes know.
    async fn keep_overlay_sources(&self) -> Result<(), NetlinkError> {
        let Some(overlay) = &self.overlay else { return Ok(()) };
        let pods_have = |address: &IpAddr| address.is_ipv4() || self.config.v6();
        let node: Vec<IpAddr> = self.own.addresses.iter().copied().filter(pods_have).collect();
        if source::sync_overlay_sources(&self.netlink, overlay.index, &node).await? {
            tracing::info!(device = OVERLAY_LINK, "the overlay's device has other source addresses");
        }
        Ok(())
    }

    /// What no event tells of: forwarding that somebody ended, as `sysctl --system` does where a file says so, and
    /// addresses of the overlay's device.
    pub(super) async fn keep_host(&self) {
        match node::enable_forwarding(&self.config.node.underlay, self.config.v6()) {
            Ok(false) => {}
            Ok(true) => tracing::warn!("somebody had ended the node's forwarding; it forwards again"),
            Err(error) => tracing::warn!(%error, "the node does not forward"),
        }
        if let Err(error) = self.keep_overlay_sources().await {
            tracing::warn!(%error, "the overlay's device may lack a source address");
        }
    }

    async fn attach_device(&mut self, name: &str, on_link: &mut Vec<(u32, IpNet)>) -> Result<(), String> {
        let refused = |error: NetlinkError| error.to_string();
        let Some(link) = self.netlink.link(name).await.map_err(refused)? else {
            return Err(format!("device {name} is not there yet; it gets its programs when it appears"));
        };
        if let Some(why) = link.kind.unfit() {
            return Err(NetlinkError::Unfit { name: link.name, why }.to_string());
        }
        if name != OVERLAY_LINK {
            if self.config.v6() {
                node::keep_advertisements(name).map_err(refused)?;
            }
            let prefixes = self.netlink.addresses(link.index).await.map_err(refused)?;
            on_link.extend(prefixes.into_iter().map(|prefix| (link.index, prefix.trunc())));
        }
        if self.attached.get(name) == Some(&link.index) {
            return self.open_overlay(&link).await.map_err(refused);
        }
        let outcome = if name == OVERLAY_LINK {
            self.datapath.attach_overlay(link.index)
        } else {
            self.datapath.attach_underlay(link.index)
        };
        outcome.map_err(|error| error.to_string())?;
        tracing::info!(device = name, "programs are attached");
        self.attached.insert(name.to_owned(), link.index);
        self.open_overlay(&link).await.map_err(refused)
    }

    /// Sets the overlay's device up, which has its programs by now. The underlay's devices are others' to set.
    async fn open_overlay(&mut self, link: &Link) -> Result<(), NetlinkError> {
        if link.name != OVERLAY_LINK || link.up {
            return Ok(());
        }
        self.netlink.set_up(link).await?;
        self.routes_due = true;
        Ok(())
    }

    /// Sends what is for a pod and what it sends by the host's stack while there is a queue on its interface that isn't the
    /// kernel's own, of either direction: a redirect passes both by (datapath.md 21).
    pub(super) async fn sync_queues(&mut self) {
        let queues = match self.netlink.queues().await {
            Ok(queues) => queues,
            Err(error) => {
                self.queues_due = true;
                return self.fail(Part::Queues, Some(error.to_string()));
            }
        };
        let mut trouble = Vec::new();
        for (id, mut entry) in self.datapath.endpoints().clone() {
            let flag = if queues.contains(&entry.ifindex) { VIA_STACK } else { 0 };
            if entry.flags & VIA_STACK == flag {
                continue;
            }
            entry.flags = entry.flags & !VIA_STACK | flag;
            tracing::info!(endpoint = id.0, via_stack = flag != 0, "the queues on a pod's interface changed");
            if let Err(error) = self.datapath.endpoint_write(id, entry) {
                self.queues_due = true;
                trouble.push(error.to_string());
            }
        }
        self.fail(Part::Queues, (!trouble.is_empty()).then(|| trouble.join("; ")));
    }

    pub(super) async fn sync_routes(&mut self) {
        self.routes_looked = Instant::now();
        let interfaces: Vec<u32> = self.on_link.iter().map(|(index, _)| *index).collect();
        let outcome = match self.overlay.clone() {
            Some(overlay) => self.sync_overlay_routes(&overlay, interfaces).await,
            None => {
                let routes = self.nodes.native_routes(&self.own, &self.on_link);
                self.write_routes(&interfaces, &routes).await
            }
        };
        let outcome = outcome.and(self.keep_pod_routes().await);
        self.fail(Part::Routes, outcome.err());
    }

    /// Opens the host side of this node's pods again where somebody took its routes away.
    async fn keep_pod_routes(&self) -> Result<(), String> {
        let refused = |error: NetlinkError| error.to_string();
        let present = self.netlink.routes(Some(ROUTE_PROTOCOL)).await.map_err(refused)?;
        for entry in self.ledger.entries().filter(|entry| entry.phase == Phase::Standing) {
            let Some(index) = self.attached.get(&entry.host_link) else { continue };
            let is_there = |address: &IpAddr| {
                let there =
                    |route: &Route| route.interface == *index && route.destination == host_prefix(*address);
                present.iter().any(there)
            };
            if entry.addresses.iter().all(is_there) {
                continue;
            }
            let Some(link) = self.netlink.link(&entry.host_link).await.map_err(refused)? else { continue };
            veth::open_host_side(&self.netlink, &link, &self.pod_link(entry)).await.map_err(refused)?;
            tracing::info!(interface = link.name, "a pod of this node has its routes again");
        }
        Ok(())
    }

    async fn sync_overlay_routes(&self, overlay: &Link, mut interfaces: Vec<u32>) -> Result<(), String> {
        let (routes, neighbours) = self.nodes.overlay_routes(&self.own, overlay.index, self.mtu.path);
        for (address, mac) in neighbours {
            let outcome = self.netlink.set_neighbour(overlay.index, address, mac).await;
            outcome.map_err(|error| error.to_string())?;
        }
        interfaces.push(overlay.index);
        self.write_routes(&interfaces, &routes).await
    }

    async fn write_routes(&self, interfaces: &[u32], routes: &[Route]) -> Result<(), String> {
        let changes = route::sync_node_routes(&self.netlink, interfaces, routes).await;
        let changes = changes.map_err(|error| error.to_string())?;
        for range in &changes.written {
            tracing::info!(%range, "another node's pods have a route");
        }
        for range in &changes.removed {
            tracing::info!(%range, "another node's pods have no route any more");
        }
        match changes.refused.first() {
            None => Ok(()),
            Some((range, reason)) => Err(format!("the route to {range}: {reason}")),
        }
    }
}
