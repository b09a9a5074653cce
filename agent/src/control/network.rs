//! The node's devices and routes: programs on the underlay as soon as it is there, and ways to other nodes' pods.
//!
//! Neighbours: `super` calls when a link, an address or a node changes; [`super::nodes`] says which routes there should be.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Control;
use crate::netlink::address::GATEWAY_V4;
use crate::netlink::node::OVERLAY_LINK;
use crate::netlink::route::{self, Route};
use crate::netlink::watch::LinkEvent;
use crate::netlink::{Link, Netlink, NetlinkError};
use crate::store::Store;
use crate::view::Part;

impl<S: Store> Control<S> {
    pub(super) async fn hear_link(&mut self, event: &LinkEvent) {
        let ours = |name: &str| {
            self.config.node.underlay.iter().any(|device| device == name) || name == OVERLAY_LINK
        };
        match event {
            LinkEvent::Changed(link) if ours(&link.name) => self.attach_devices().await,
            LinkEvent::Gone(link) if ours(&link.name) => {
                self.attached.remove(&link.name);
                self.datapath.sweep_links();
                self.attach_devices().await;
            }
            LinkEvent::Overrun => self.attach_devices().await,
            LinkEvent::Changed(_) | LinkEvent::Gone(_) => {}
        }
    }

    /// Attaches programs to the underlay's devices and the overlay's that are there and have none.
    pub(super) async fn attach_devices(&mut self) {
        let mut missing = Vec::new();
        let mut on_link = Vec::new();
        let mut names = self.config.node.underlay.clone();
        names.extend(self.overlay.iter().map(|link| link.name.clone()));
        for name in names {
            let outcome = self.attach_device(&name, &mut on_link).await;
            if let Err(message) = outcome {
                missing.push(message);
            }
        }
        if self.on_link != on_link {
            self.on_link = on_link;
            self.routes_due = true;
        }
        self.fail(Part::Devices, (!missing.is_empty()).then(|| missing.join("; ")));
    }

    async fn attach_device(&mut self, name: &str, on_link: &mut Vec<(u32, IpNet)>) -> Result<(), String> {
        let refused = |error: NetlinkError| error.to_string();
        let Some(link) = self.netlink.link(name).await.map_err(refused)? else {
            return Err(format!("device {name} is not there yet; it gets its programs when it appears"));
        };
        if name != OVERLAY_LINK {
            let prefixes = self.netlink.addresses(link.index).await.map_err(refused)?;
            on_link.extend(prefixes.into_iter().map(|prefix| (link.index, prefix.trunc())));
        }
        if self.attached.get(name) == Some(&link.index) {
            return Ok(());
        }
        let outcome = if name == OVERLAY_LINK {
            self.datapath.attach_overlay(link.index)
        } else {
            self.datapath.attach_underlay(link.index)
        };
        outcome.map_err(|error| error.to_string())?;
        tracing::info!(device = name, "programs are attached");
        self.attached.insert(name.to_owned(), link.index);
        Ok(())
    }

    pub(super) async fn sync_routes(&mut self) {
        let interfaces: Vec<u32> = self.on_link.iter().map(|(index, _)| *index).collect();
        let outcome = match self.overlay.clone() {
            Some(overlay) => self.sync_overlay_routes(&overlay, interfaces).await,
            None => {
                let routes = self.nodes.native_routes(&self.own, &self.on_link);
                self.write_routes(&interfaces, &routes).await
            }
        };
        self.fail(Part::Routes, outcome.err());
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

impl Netlink {
    /// All addresses of the node's own interfaces that others may send to, sorted.
    pub(super) async fn node_addresses(&self) -> Result<Vec<IpAddr>, NetlinkError> {
        let mut addresses: Vec<IpAddr> = self
            .addresses(0)
            .await?
            .into_iter()
            .map(|prefix| prefix.addr())
            .filter(|address| match address {
                IpAddr::V4(v4) => !v4.is_loopback() && *v4 != GATEWAY_V4,
                IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
            })
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        Ok(addresses)
    }
}
