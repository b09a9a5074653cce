//! Routes to other nodes' pods, to this node's, and for addresses that none of these has: the kernel's are listed once,
//! compared with what they should be, and what differs is written.
//!
//! What this node decides is written at once. What somebody else may have done is looked at once in [`REST`] at most: two
//! programs that each take away what the other writes would otherwise keep each other busy.
//!
//! Neighbours: [`super::nodes`] says which routes there should be, [`super::network`] hears of links; `super` calls.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::Instant;

use super::{Control, since_1970};
use crate::cni::ledger::{Entry, Phase};
use crate::netlink::address::host_prefix;
use crate::netlink::route::{self, Route, RouteFilter};
use crate::netlink::{Link, NetlinkError, unreachable, veth};
use crate::store::Store;
use crate::view::Part;

/// Time between two looks because of what others did, and between two tries of what the kernel refused.
const REST: Duration = Duration::from_secs(1);
/// Time between two looks for what no event tells of.
const LOOK: Duration = Duration::from_secs(30);
/// Routes that are named one by one when the kernel refuses them.
const NAMED: usize = 20;

/// When the kernel's routes are compared next.
#[derive(Debug)]
pub(super) struct Schedule {
    /// This node wants other routes.
    changed: bool,
    /// Somebody may have taken routes away, or the kernel has refused some.
    suspected: bool,
    looked: Instant,
}

impl Schedule {
    /// Begins with a look that is due.
    pub(super) fn new(now: Instant) -> Self {
        Self { changed: true, suspected: false, looked: now }
    }

    /// This node wants other routes.
    pub(super) fn change(&mut self) {
        self.changed = true;
    }

    /// Others may have taken routes away.
    pub(super) fn suspect(&mut self) {
        self.suspected = true;
    }

    /// Whether they are compared now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.looked);
        self.changed || self.suspected && since >= REST || since >= LOOK
    }

    /// A look begins, which answers whatever asked for it.
    fn begin(&mut self) {
        (self.changed, self.suspected) = (false, false);
    }

    /// It is over. Where something is left to be done, there is another one.
    fn end(&mut self, now: Instant, trouble: bool) {
        self.looked = now;
        self.suspected |= trouble;
    }
}

impl<S: Store> Control<S> {
    pub(super) async fn sync_routes(&mut self) {
        self.routes.begin();
        let mut trouble = Vec::new();
        match self.netlink.routes(RouteFilter::Ours).await {
            Ok(present) => {
                self.sync_node_routes(&present, &mut trouble).await;
                self.keep_pod_routes(&present, &mut trouble).await;
            }
            Err(error) => trouble.push(error.to_string()),
        }
        self.sync_unreachable(&mut trouble).await;
        self.miss_own_addresses(&mut trouble).await;
        self.routes.end(Instant::now(), !trouble.is_empty());
        self.fail(Part::Routes, sentence(trouble));
    }

    /// Routes to other nodes' pods.
    async fn sync_node_routes(&self, present: &[Route], trouble: &mut Vec<String>) {
        let mut interfaces: Vec<u32> = self.on_link.iter().map(|(index, _)| *index).collect();
        let wanted = match &self.overlay {
            Some(overlay) => {
                interfaces.push(overlay.index);
                self.overlay_routes(overlay, trouble).await
            }
            None => self.nodes.native_routes(&self.own, &self.on_link),
        };
        let changes = route::sync_node_routes(&self.netlink, present, &interfaces, &wanted).await;
        for range in &changes.written {
            tracing::info!(%range, "another node's pods have a route");
        }
        for range in &changes.removed {
            tracing::info!(%range, "another node's pods have no route any more");
        }
        trouble.extend(changes.refused.into_iter().map(|(_, reason)| reason));
        if self.overlay.is_none() {
            self.miss_ways(&wanted, trouble).await;
        }
    }

    /// Living nodes whose pods nothing leads to: neither a route of ours nor, as between nodes behind routers, another's.
    async fn miss_ways(&self, written: &[Route], trouble: &mut Vec<String>) {
        for (node, range) in self.nodes.left_to_others(&self.own, written, since_1970()) {
            let address = range.hosts().next().unwrap_or_else(|| range.network());
            match self.netlink.has_way_to(address).await {
                Ok(true) => {}
                Ok(false) => trouble.push(format!("no route to {range} of node {node}")),
                Err(error) => trouble.push(error.to_string()),
            }
        }
    }

    /// What other nodes know this one by and send to it by, and it doesn't have: somebody took it, or the kernel did, as it
    /// does with IPv6 addresses of a device that goes down.
    async fn miss_own_addresses(&self, trouble: &mut Vec<String>) {
        match self.netlink.node_addresses().await {
            Ok(present) => trouble.extend(missing_addresses(&self.own.addresses, &present)),
            Err(error) => trouble.push(error.to_string()),
        }
    }

    /// What is for this node's pods and for none of them ends here.
    async fn sync_unreachable(&self, trouble: &mut Vec<String>) {
        let wanted = own_ranges(&self.own.pod_cidrs, &self.on_link);
        match unreachable::sync_unreachable(&self.netlink, &wanted).await {
            Ok(changes) => {
                for range in &changes.written {
                    tracing::info!(%range, "what is for no pod of this node's range is unreachable");
                }
                for range in &changes.removed {
                    tracing::info!(%range, "a range that is not this node's pods' is not unreachable any more");
                }
                trouble.extend(changes.refused.into_iter().map(|(_, reason)| reason));
            }
            Err(error) => trouble.push(error.to_string()),
        }
    }

    /// The routes through the overlay's device, whose next hops are neighbours by now.
    async fn overlay_routes(&self, overlay: &Link, trouble: &mut Vec<String>) -> Vec<Route> {
        let (routes, neighbours) = self.nodes.overlay_routes(&self.own, overlay.index, self.mtu.path);
        for (address, mac) in neighbours {
            let outcome = self.netlink.set_neighbour(overlay.index, address, mac).await;
            trouble.extend(outcome.err().map(|error| error.to_string()));
        }
        routes
    }

    /// Opens the host side of this node's pods again where somebody took its routes away.
    async fn keep_pod_routes(&self, present: &[Route], trouble: &mut Vec<String>) {
        let present: HashSet<(u32, IpNet)> =
            present.iter().map(|route| (route.interface, route.destination)).collect();
        for entry in self.ledger.entries().filter(|entry| entry.phase == Phase::Standing) {
            let Some(index) = self.attached.get(&entry.host_link) else { continue };
            let is_there = |address: &IpAddr| present.contains(&(*index, host_prefix(*address)));
            if entry.addresses.iter().all(is_there) {
                continue;
            }
            match self.open_again(entry).await {
                Ok(()) => {
                    tracing::info!(interface = entry.host_link, "a pod of this node has its routes again");
                }
                Err(error) => trouble.push(format!("{}: {error}", self.pod_link(entry).alias)),
            }
        }
    }

    async fn open_again(&self, entry: &Entry) -> Result<(), NetlinkError> {
        let Some(link) = self.netlink.link(&entry.host_link).await? else { return Ok(()) };
        veth::open_host_side(&self.netlink, &link, &self.pod_link(entry)).await
    }
}

/// One sentence for each address that other nodes know this one by and that no interface has.
fn missing_addresses(own: &[IpAddr], present: &[IpAddr]) -> Vec<String> {
    let missing = own.iter().filter(|own| !present.contains(own) && !own.is_loopback());
    missing.map(|own| format!("this node's address {own} is on no interface")).collect()
}

/// The ranges of this node's pods that nothing but pods can be in. One that is a part of the underlay's own subnet may hold
/// that subnet's router, and packets to it go to the link, where they end: nothing sends them round.
fn own_ranges(pod_cidrs: &[IpNet], on_link: &[(u32, IpNet)]) -> Vec<IpNet> {
    let on_link = |range: &IpNet| on_link.iter().any(|(_, prefix)| prefix.contains(range));
    pod_cidrs.iter().map(IpNet::trunc).filter(|range| !on_link(range)).collect()
}

/// What is wrong, each thing by name, as far as one line can hold it.
fn sentence(mut trouble: Vec<String>) -> Option<String> {
    let more = trouble.len().saturating_sub(NAMED);
    trouble.truncate(NAMED);
    if more > 0 {
        trouble.push(format!("and {more} more"));
    }
    (!trouble.is_empty()).then(|| trouble.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A schedule whose last look was at `start`, and has nothing to do.
    fn settled(start: Instant) -> Schedule {
        let mut schedule = Schedule::new(start);
        assert!(schedule.is_due(start), "the first look does not wait");
        schedule.begin();
        schedule.end(start, false);
        assert!(!schedule.is_due(start));
        schedule
    }

    #[test]
    fn what_this_node_wants_is_written_at_once() {
        let start = Instant::now();
        let mut schedule = settled(start);
        schedule.change();
        assert!(schedule.is_due(start));
        schedule.begin();
        assert!(!schedule.is_due(start));
    }

    #[test]
    fn two_who_fight_over_a_route_meet_once_a_second() {
        let start = Instant::now();
        let mut schedule = settled(start);
        let mut looks = 0;
        // Somebody takes a route away every 10 ms, for ten seconds, whatever is done against it.
        for step in 0..1000 {
            let now = start + Duration::from_millis(10) * step;
            schedule.suspect();
            if schedule.is_due(now) {
                looks += 1;
                schedule.begin();
                schedule.end(now, false);
            }
        }
        assert_eq!(looks, 9, "the first one a second after the last look");
        schedule.suspect();
        assert!(schedule.is_due(start + Duration::from_secs(60)), "one that comes late does not wait");
    }

    #[test]
    fn what_is_refused_is_tried_again_after_a_rest() {
        let start = Instant::now();
        let mut schedule = settled(start);
        schedule.begin();
        schedule.end(start, true);
        assert!(!schedule.is_due(start + REST / 2));
        assert!(schedule.is_due(start + REST));
        assert!(settled(start).is_due(start + LOOK), "what no event tells of");
    }

    #[test]
    fn a_range_in_the_underlays_subnet_is_the_links() {
        let ranges = |all: &[&str]| all.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpNet>>();
        let own = |on_link: &[&str]| {
            let on_link: Vec<(u32, IpNet)> = ranges(on_link).into_iter().map(|prefix| (2, prefix)).collect();
            own_ranges(&ranges(&["10.240.1.7/24", "fd00:240:1::/64"]), &on_link)
        };
        let both = ranges(&["10.240.1.0/24", "fd00:240:1::/64"]);
        assert_eq!(own(&[]), both);
        // Another subnet, and one within the range, whose own route is narrower.
        assert_eq!(own(&["172.31.0.0/24", "10.240.1.128/25", "fe80::/64"]), both);
        assert_eq!(own(&["10.240.0.0/16"]), ranges(&["fd00:240:1::/64"]));
        assert_eq!(own(&["10.240.1.0/24", "fd00:240::/32"]), []);
    }

    #[test]
    fn an_own_address_that_is_on_no_interface_is_named() {
        let addresses = |all: &[&str]| all.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let own = addresses(&["172.31.0.10", "fd00:31::10"]);
        assert_eq!(missing_addresses(&own, &own), [""; 0]);
        let present = addresses(&["10.0.2.15", "172.31.0.10"]);
        assert_eq!(missing_addresses(&own, &present), ["this node's address fd00:31::10 is on no interface"]);
        assert_eq!(missing_addresses(&addresses(&["127.0.0.1"]), &present), [""; 0]);
    }

    #[test]
    fn each_thing_that_is_wrong_is_named() {
        let trouble = |count: usize| (0..count).map(|number| format!("pod {number}: no")).collect();
        assert_eq!(sentence(trouble(0)), None);
        assert_eq!(sentence(trouble(2)).as_deref(), Some("pod 0: no; pod 1: no"));
        let many = sentence(trouble(110)).unwrap();
        assert!(many.contains("pod 19: no") && !many.contains("pod 20"), "{many}");
        assert!(many.ends_with("; and 90 more"), "{many}");
    }
}
