//! Answers to the steps of CNI commands. Each step leaves the file, the maps and the engine agreeing with each other, or
//! leaves what the next step, or the next start, takes back.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use sinew_api::cni::Attachment;
use sinew_bpf::abi::{Address, EndpointEntry};
use sinew_engine::{EndpointId, Event};

use super::Control;
use crate::clock::monotonic;
use crate::cni::ledger::{Entry, Phase};
use crate::cni::step::Step;
use crate::cni::{AttachmentKey, Refusal};
use crate::datapath::DatapathError;
use crate::netlink::Link;
use crate::netlink::veth::{self, PodLink};
use crate::store::Store;
use crate::view::{Part, unavailable};
use sinew_api::identity::Identity;

impl<S: Store> Control<S> {
    /// Does a step. Whoever asked and has gone away meanwhile gets no answer; what was done is undone by the attacher.
    pub(super) fn answer(&mut self, step: Step) {
        self.stale = true;
        match step {
            Step::Begin(attachment, reply) => drop(reply.send(self.begin(&attachment))),
            Step::Attach(key, link, reply) => drop(reply.send(self.attach(&key, &link))),
            Step::Stand(key, reply) => drop(reply.send(self.stand(&key))),
            Step::Close(key, reply) => drop(reply.send(self.close(&key))),
            Step::End(key, reply) => {
                self.end(&key);
                drop(reply.send(Ok(())));
            }
            Step::Find(key, reply) => drop(reply.send(self.find(&key))),
            Step::List(reply) => {
                let listed = |entry: &Entry| (entry.key(), entry.attachment.network.clone());
                drop(reply.send(Ok(self.ledger.entries().map(listed).collect())));
            }
            Step::Available(reply) => drop(reply.send(self.available())),
        }
    }

    fn begin(&mut self, attachment: &Attachment) -> Result<PodLink, Refusal> {
        // What the kernel refused a moment ago it may take now.
        if !self.backlog.is_settled() {
            self.carry_out();
        }
        if let Some(hindrance) = hindrance(&self.failures) {
            return Err(Refusal::NotAvailable(hindrance));
        }
        self.reserve_own();
        let entry = self.ledger.begin(attachment, SystemTime::now(), monotonic())?.clone();
        Ok(self.pod_link(&entry))
    }

    /// Keeps the node's own addresses from being leased: another network's bridge, or somebody's mistake, may have one of
    /// the node's pod range. What --node-ip names may appear later.
    pub(super) fn reserve_own(&mut self) {
        let own: Vec<IpAddr> = self.addresses.iter().chain(&self.own.addresses).copied().collect();
        self.ledger.reserve(&own);
    }

    /// Maps first, then programs (ARCHITECTURE.md, promise 1).
    fn attach(&mut self, key: &AttachmentKey, link: &Link) -> Result<EndpointId, Refusal> {
        let entry = self.ledger.entry(key).cloned().ok_or_else(|| Refusal::NotAttached(key.clone()))?;
        let refused = |error: DatapathError| Refusal::Datapath(error.to_string());
        let written = endpoint_entry(&entry, link.index, Identity::INIT);
        self.datapath.endpoint_write(entry.id, written).map_err(refused)?;
        self.hear(vec![Event::EndpointCreated(entry.endpoint(None))]);
        if let Some(failure) = self.backlog.failure() {
            return Err(Refusal::Datapath(failure.to_owned()));
        }
        self.datapath.attach_pod(link.index).map_err(refused)?;
        self.attached.insert(link.name.clone(), link.index);
        Ok(entry.id)
    }

    fn stand(&mut self, key: &AttachmentKey) -> Result<(), Refusal> {
        if self.ledger.set_phase(key, Phase::Standing)? {
            tracing::info!(attachment = %key, "a pod is attached");
            Ok(())
        } else {
            Err(Refusal::NotAttached(key.clone()))
        }
    }

    /// Out of the datapath in the order of datapath.md 17, which the engine's changes have.
    pub(super) fn close(&mut self, key: &AttachmentKey) -> Result<(), Refusal> {
        if let Err(refusal) = self.ledger.set_phase(key, Phase::Removing) {
            // The pod goes all the same. A file that says that it stands is no reason to keep it: without its interface the
            // next start undoes it.
            self.fail(Part::State, Some(refusal.to_string()));
        }
        let Some(id) = self.ledger.entry(key).map(|entry| entry.id) else { return Ok(()) };
        self.relabels.remove(&id);
        self.hear(vec![Event::EndpointRemoved(id)]);
        let refused = |error: DatapathError| Refusal::Datapath(error.to_string());
        let datapath = &mut self.datapath;
        // What holds other changes back is no reason to keep a pod's interface and addresses.
        let had_waited = self.backlog.close(id, &mut |changes| datapath.apply(changes)).map_err(refused)?;
        self.datapath.endpoint_delete(id).map_err(refused)?;
        if had_waited {
            self.carry_out();
        }
        Ok(())
    }

    pub(super) fn end(&mut self, key: &AttachmentKey) {
        self.attached.remove(&veth::host_link_name(&key.container_id, &key.ifname));
        self.datapath.sweep_links();
        if self.ledger.entry(key).is_some() {
            tracing::info!(attachment = %key, "a pod is detached");
        }
        if let Err(refusal) = self.ledger.end(key, monotonic()) {
            self.fail(Part::State, Some(refusal.to_string()));
        }
    }

    fn find(&self, key: &AttachmentKey) -> Result<PodLink, Refusal> {
        let entry = self.ledger.entry(key).filter(|entry| entry.phase == Phase::Standing);
        let entry = entry.ok_or_else(|| Refusal::NotAttached(key.clone()))?;
        let differs = |what: String| Err(Refusal::Differs(what));
        match self.datapath.endpoints().get(&entry.id) {
            None => return differs(format!("endpoint {} is not in the datapath", entry.id.0)),
            Some(pinned) if self.attached.get(&entry.host_link) != Some(&pinned.ifindex) => {
                return differs(format!("{} has no programs", entry.host_link));
            }
            Some(_) => {}
        }
        Ok(self.pod_link(entry))
    }

    fn available(&mut self) -> Result<(), Refusal> {
        let synced = self.engine.snapshot().synced;
        match unavailable(&self.failures, synced, &self.pools()) {
            Some(reason) => Err(Refusal::NotAvailable(reason)),
            None => Ok(()),
        }
    }

    pub(super) fn pod_link(&self, entry: &Entry) -> PodLink {
        let Attachment { container_id, ifname, pod_namespace, pod_name, .. } = &entry.attachment;
        let (host_mac, pod_mac) = veth::macs(container_id, ifname);
        let alias = if pod_name.is_empty() {
            format!("container {container_id}")
        } else {
            format!("pod {pod_namespace}/{pod_name}")
        };
        PodLink {
            host_name: entry.host_link.clone(),
            pod_name: ifname.clone(),
            host_mac,
            pod_mac,
            addresses: entry.addresses.clone(),
            device_mtu: self.mtu.device,
            route_mtu: self.mtu.path,
            // One that the node does not have yet, with its underlay still to appear, can be nobody's source.
            node_addresses: self
                .own
                .addresses
                .iter()
                .filter(|own| self.addresses.contains(own))
                .copied()
                .collect(),
            // The kernel takes 255 bytes (IFALIASZ, one of them for the end).
            alias: alias.chars().take(200).collect(),
        }
    }
}

/// Why an ADD that begins now would have to be undone.
fn hindrance(failures: &BTreeMap<Part, String>) -> Option<String> {
    let told = |part: Part| failures.get(&part).map(|message| format!("{}: {message}", part.name()));
    [Part::Datapath, Part::Underlay].into_iter().find_map(told)
}

/// What the programs know of an endpoint.
pub(super) fn endpoint_entry(entry: &Entry, ifindex: u32, identity: Identity) -> EndpointEntry {
    let (host_mac, pod_mac) = veth::macs(&entry.attachment.container_id, &entry.attachment.ifname);
    let address = |v4: bool| {
        let found = entry.addresses.iter().find(|address| address.is_ipv4() == v4).copied();
        found.map_or(Address::NONE, |address: IpAddr| Address::from(address))
    };
    EndpointEntry {
        id: u32::from(entry.id.0),
        ifindex,
        identity: identity.0,
        flags: 0,
        v4: address(true),
        v6: address(false),
        mac: pod_mac.0,
        host_mac: host_mac.0,
        reserved: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_add_begins_where_changes_are_held_back_or_the_underlay_is_unfit() {
        let failing = |part| hindrance(&BTreeMap::from([(part, "no".to_owned())]));
        assert_eq!(failing(Part::Datapath).as_deref(), Some("datapath: no"));
        assert_eq!(failing(Part::Underlay).as_deref(), Some("underlay: no"));
        assert_eq!(failing(Part::State), None);
    }
}
