//! The node's devices: programs on the underlay as soon as it is there, the overlay's device, and queues on pods'
//! interfaces.
//!
//! Neighbours: `super` calls when a link or an address changes; [`super::underlay`] says what the underlay is good for,
//! [`super::routes`] writes routes.

use std::net::IpAddr;

use ipnet::IpNet;
use sinew_bpf::abi::endpoint::flag::VIA_STACK;
use tokio::time::Instant;

use super::underlay::{self, Underlay};
use super::{Control, start};
use crate::netlink::node::{self, OVERLAY_LINK};
use crate::netlink::source;
use crate::netlink::watch::LinkEvent;
use crate::netlink::{Link, NetlinkError};
use crate::store::Store;
use crate::view::Part;

/// What is to be done where the underlay's MTU is another one than at the agent's start, and what happens until then.
fn other_mtu(device: u32, at_start: u32, overlay: bool) -> Option<String> {
    // The programs tell a pod of the path that they were loaded with, and the kernel splits the outer packet.
    let until_then = if overlay && device < at_start {
        "; until then a pod's packet that is too big is not answered with the size that fits, whether it may be split or \
         not: it leaves in an outer packet that is split, which not every network delivers"
    } else {
        ""
    };
    (device != at_start).then(|| {
        format!(
            "the underlay's MTU is {device}, and was {at_start} when the agent started: restart the agent, which takes \
             it up, and then the pods, which keep the old one{until_then}"
        )
    })
}

impl<S: Store> Control<S> {
    pub(super) async fn hear_link(&mut self, event: &LinkEvent) {
        let ours = |name: &str| {
            self.config.node.underlay.iter().any(|device| device == name) || name == OVERLAY_LINK
        };
        match event {
            LinkEvent::Changed(link) if ours(&link.name) => {
                self.attach_devices().await;
                // A link that goes down takes its routes along without a word of the kernel's.
                self.routes.suspect();
            }
            LinkEvent::Gone(link) if ours(&link.name) => {
                self.attached.remove(&link.name);
                self.datapath.sweep_links();
                self.attach_devices().await;
                self.routes.suspect();
            }
            LinkEvent::Overrun => {
                self.attach_devices().await;
                self.routes.suspect();
                self.queues_due = true;
            }
            LinkEvent::RouteGone => self.routes.suspect(),
            LinkEvent::Queues => self.queues_due = true,
            LinkEvent::Changed(_) | LinkEvent::Gone(_) => {}
        }
    }

    /// Attaches programs to the underlay's devices and the overlay's that are there and have none.
    pub(super) async fn attach_devices(&mut self) {
        let mut missing = Vec::new();
        let mut on_link = Vec::new();
        match underlay::look(&self.netlink, &self.config).await {
            Ok(found) => self.hear_underlay(found),
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
            self.routes.change();
        }
        self.fail(Part::Devices, (!missing.is_empty()).then(|| missing.join("; ")));
    }

    /// New pods and the overlay's device have the underlay's MTU as it is now. Programs are loaded with the one that it
    /// had at start, and pods that are there keep what they were made with.
    fn hear_underlay(&mut self, found: Underlay) {
        self.fail(Part::Underlay, found.unfit);
        let Some(device) = found.mtu else { return };
        let at_start = self.mtu_at_start;
        if device != self.mtu.device {
            self.mtu = underlay::mtu_over(Some(device), &self.config);
            self.routes.change();
        }
        // One that is too small is told of as that: no restart makes it serve.
        let serves = !self.failures.contains_key(&Part::Underlay);
        let differs = serves.then(|| other_mtu(device, at_start, self.config.overlay())).flatten();
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
            self.routes.change();
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
        if link.kind.unfit().is_some() {
            // Said of the underlay as a whole.
            return Ok(());
        }
        if name != OVERLAY_LINK {
            if self.config.v6() {
                node::keep_advertisements(name).map_err(refused)?;
                node::keep_addresses(name).map_err(refused)?;
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
        self.routes.change();
        Ok(())
    }

    /// Sends what is for a pod and what it sends by the host's stack while there is a queue on its interface that isn't the
    /// kernel's own, of either direction: a redirect passes both by (datapath.md 21).
    pub(super) async fn sync_queues(&mut self) {
        self.queues_looked = Instant::now();
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
}

#[cfg(test)]
mod tests {
    use super::other_mtu;

    #[test]
    fn a_smaller_underlay_says_what_becomes_of_packets_in_the_overlay() {
        assert_eq!(other_mtu(1500, 1500, true), None);
        let native = other_mtu(1400, 1500, false).unwrap();
        assert!(native.contains("is 1400, and was 1500") && native.ends_with("keep the old one"), "{native}");
        assert!(other_mtu(1400, 1500, true).unwrap().contains("; until then a pod's packet"));
        assert!(!other_mtu(1600, 1500, true).unwrap().contains("until then"), "it fits");
    }
}
