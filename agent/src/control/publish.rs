//! Says what is so: to readers, to the other nodes, and to the authors of objects.
//!
//! Readers first: an ADD waits for the view. Neighbours: [`super::report`] computes what the store is told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use sinew_api::identity::Identity;
use sinew_api::object::{Problem, policy_digest};
use sinew_engine::EndpointId;
use sinew_engine::LocalEndpoint;
use sinew_engine::snapshot::Snapshot;

use super::{Control, milliseconds, report, since_1970};
use crate::clock::monotonic;
use crate::cni::ledger::Phase;
use crate::store::{Store, StoreWrite};
use crate::view::{PoolFill, View, Wire};

impl<S: Store> Control<S> {
    /// Says what is so now: to readers, to the other nodes, and to the authors of objects.
    pub(super) async fn publish(&mut self) {
        let snapshot = self.engine.snapshot();
        // The same value as last time where nothing changed; a thousand policies take a millisecond to digest.
        if !Arc::ptr_eq(&snapshot.policies, &self.digested.0) {
            let policies = snapshot.policies.iter().map(|(name, view)| (name, view.policy.generation));
            self.digested = (Arc::clone(&snapshot.policies), policy_digest(policies));
        }
        let store_digest = self.digested.1.clone();
        let nameless = self.refused.iter().filter(|document| document.is_unreadable());
        let unreadable: Arc<Vec<Problem>> =
            Arc::new(nameless.flat_map(|document| document.problems.clone()).collect());
        let named = self.refused.iter().filter(|document| document.name.is_some());
        let view = View {
            snapshot: Arc::clone(&snapshot),
            ahead: Arc::clone(&snapshot),
            enforced: self.enforced,
            nodes: Arc::new(self.nodes.all().clone()),
            store_digest: store_digest.clone(),
            unreadable: Arc::clone(&unreadable),
            refused: Arc::new(named.cloned().collect()),
            moving: Arc::new(self.moving(&snapshot)),
            foreign: self.refused.iter().filter(|document| document.foreign).count(),
            wires: Arc::new(self.wires()),
            pools: self.pools(),
            failures: self.failures.clone(),
            store_warning: self.store_warning.clone(),
            checksums_off: self.datapath.checksums_off().map(str::to_owned),
        };
        self.view.send_replace(Arc::new(view));
        for labels in std::mem::take(&mut self.wanted_identities) {
            self.store.write(StoreWrite::AllocateIdentity(labels)).await;
        }
        self.say_enforced(&snapshot, &store_digest).await;
        if snapshot.synced {
            let announced = self.relabels.iter().map(|(id, (identity, _))| (*id, *identity)).collect();
            let endpoints = report::endpoints(&snapshot, &self.own.name, &announced);
            let statuses = report::statuses(&snapshot, &self.refused);
            let unreadable = self.told.unreadable(&unreadable);
            for write in self.told.difference(endpoints, statuses).into_iter().chain(unreadable) {
                self.store.write(write).await;
            }
        }
    }

    /// Says what stands behind new numbers before the programs can meet them. From the state word on packets are judged by
    /// a new table, and to carry out takes a grace period longer: without this the first denials by a policy, those that a
    /// person waits for, would name nobody.
    pub(super) fn name_ahead(&mut self) {
        let ahead = self.engine.snapshot();
        self.view.send_modify(|view| *view = Arc::new(View { ahead, ..View::clone(view) }));
    }

    /// Tells the other nodes what this one enforces, as soon as it does.
    async fn say_enforced(&mut self, snapshot: &Snapshot, digest: &str) {
        let mut recent: Vec<Identity> = self.learnt.keys().copied().collect();
        // What another node's endpoint is about to have may be known here since long.
        let known = |identity: &Identity| snapshot.identities.get(identity).is_some_and(|view| view.known);
        if self.backlog.is_settled() {
            recent.extend(self.moving.values().map(|moving| moving.to).filter(known));
        }
        recent.sort_unstable();
        recent.dedup();
        let mut status = self.own.status.clone();
        status.recent_identities = recent;
        status.revision = self.enforced;
        if self.backlog.is_settled() && snapshot.synced && status.policy_digest != digest {
            digest.clone_into(&mut status.policy_digest);
            status.enforced_at_ms = milliseconds(since_1970());
        }
        if status != self.own.status {
            status.heartbeat_ms = milliseconds(since_1970());
            self.own.status = status;
            self.store.write(StoreWrite::Node(self.own.clone())).await;
        }
    }

    /// Pods under way to other labels, and their nodes.
    fn moving(&self, snapshot: &Snapshot) -> BTreeMap<String, String> {
        let own = snapshot.endpoints.values().filter(|endpoint| endpoint.moving_to.is_some());
        let own = own.map(|endpoint| {
            let LocalEndpoint { pod_namespace, pod_name, .. } = &endpoint.created;
            (format!("{pod_namespace}/{pod_name}"), self.own.name.clone())
        });
        let others = self.moving.values().map(|moving| (moving.pod.clone(), moving.node.clone()));
        own.chain(others).collect()
    }

    fn wires(&self) -> BTreeMap<EndpointId, Wire> {
        let entries = self.ledger.entries().map(|entry| {
            let (_, pod_mac) =
                crate::netlink::veth::macs(&entry.attachment.container_id, &entry.attachment.ifname);
            let wire = Wire {
                interface: entry.host_link.clone(),
                ifindex: self.attached.get(&entry.host_link).copied().unwrap_or_default(),
                mac: pod_mac.0,
                netns: entry.attachment.netns.clone(),
                stands: entry.phase == Phase::Standing,
                created: UNIX_EPOCH + Duration::from_millis(entry.created_ms),
            };
            (entry.id, wire)
        });
        entries.collect()
    }

    pub(super) fn pools(&self) -> Vec<PoolFill> {
        let now = monotonic();
        let fill = |pool: &sinew_engine::ipam::Pool| PoolFill {
            range: pool.range(),
            capacity: pool.capacity(),
            leased: pool.leased(),
            resting: pool.resting(now),
        };
        self.ledger.pools().iter().map(fill).collect()
    }
}
