//! The owner of everything that a node knows. An event changes facts and marks what depends on them; then what is marked
//! is computed anew, and what differs from what was asked for before is asked for (level-triggered).
//!
//! Marks only save work: a fresh engine that hears the same facts asks for the same, and the model test compares the two
//! after every event.
//!
//! Neighbours in `state/`: `facts.rs` hears events, `remotes.rs` holds other nodes' endpoints, `policies.rs`,
//! `locals.rs`, `subjects.rs` and `claims.rs` conclude, `cut.rs` cuts addresses into classes, `order.rs` writes.

mod capacity;
mod claims;
mod cut;
mod facts;
mod lend;
mod locals;
mod order;
mod policies;
mod prefixes;
mod remotes;
mod shared;
mod subjects;
mod unmatched;
mod views;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use sinew_api::identity::Identity;
use sinew_api::labels::Labels;
use sinew_api::object::PolicyName;
use sinew_bpf::abi::{IpcacheEntry, ipcache};

use crate::change::{Change, EndpointId};
use crate::config::Config;
use crate::event::Event;
use crate::numbers::{Numbers, Record};
use crate::policy::classes::ClassTrie;
use crate::policy::compile::{NamedPorts, Subject};
use crate::policy::load::Loaded;
use crate::policy::matcher::{MatcherId, Matchers};
use crate::snapshot::Snapshot;
use claims::{Claimant, Claims};
use facts::Facts;
pub(crate) use lend::{Somebody, is_gateway};
use locals::Local;
use order::Written;
use policies::Stored;
use prefixes::PrefixCounts;
use shared::Shared;
use subjects::Selected;
use views::Stale;

/// All state of a node, and the decisions that follow from it. Copies share what is large ([`shared`]).
#[derive(Clone, Debug)]
pub struct Engine {
    config: Config,
    synced: bool,
    revision: u64,
    facts: Shared<Facts>,
    policies: Shared<BTreeMap<PolicyName, Stored>>,
    turn: u64,
    locals: Shared<BTreeMap<EndpointId, Local>>,
    /// Label sets by number are in `matchers`; this is the way back.
    by_labels: Shared<HashMap<Arc<Labels>, BTreeSet<Identity>>>,
    /// Given back by the store, but still in use here.
    departing: BTreeSet<Identity>,
    /// Identities that no table has room for.
    held_back: BTreeMap<Identity, Arc<Labels>>,
    /// Label sets whose number has been asked for.
    requested: HashSet<Arc<Labels>>,

    numbers: Shared<Numbers>,
    matchers: Shared<Matchers>,
    loaded: Shared<BTreeMap<PolicyName, Loaded>>,
    subjects: Shared<BTreeMap<Subject, Selected>>,
    peer_ports: Shared<BTreeMap<Identity, NamedPorts>>,
    port_owners: Shared<BTreeMap<Claimant, (Identity, NamedPorts)>>,
    class_prefixes: PrefixCounts,
    trie: ClassTrie,
    /// The trie that was asked for last, while it is cut anew.
    trie_before: Option<ClassTrie>,
    /// Addresses of pods outside of all ranges of pods.
    strays: BTreeSet<IpAddr>,
    claims: Shared<Claims>,

    dirty: Dirty,
    /// Changes whose place in the order doesn't matter.
    outbox: Vec<Change>,
    announcements: Vec<Change>,
    written: Shared<Written>,
    /// The last one handed out.
    snapshot: Option<Arc<Snapshot>>,
    /// What of it is no longer so.
    stale: Stale,
    /// Policies whose views are no longer so, where not all are.
    stale_policies: BTreeSet<PolicyName>,
    changed_since_snapshot: bool,
}

/// What has to be computed anew.
#[derive(Clone, Debug, Default)]
struct Dirty {
    policies: BTreeSet<PolicyName>,
    /// Policies of which another version is in force.
    came_into_force: BTreeSet<PolicyName>,
    /// Policies that may have a new last valid version.
    candidates: BTreeSet<PolicyName>,
    locals: BTreeSet<EndpointId>,
    closing: BTreeSet<EndpointId>,
    subjects: BTreeSet<Subject>,
    idle_subjects: BTreeSet<Subject>,
    endpoints: BTreeSet<EndpointId>,
    matchers: BTreeSet<MatcherId>,
    arrived: BTreeSet<Identity>,
    /// Identities may be KNOWN to the kernel that nobody speaks of.
    strangers: bool,
    addresses: BTreeSet<IpAddr>,
    /// Ranges of pods or addresses of nodes.
    places: bool,
    /// Named ports of some peer.
    peer_ports: bool,
}

impl Engine {
    /// An engine that knows nothing yet but the numbers that were given out before.
    #[must_use]
    pub fn new(config: Config, numbers: impl IntoIterator<Item = Record>) -> Self {
        let mut claims = Claims::default();
        // Where it is a node's, the node's claim is stronger.
        let flags = ipcache::flag::OUTSIDE;
        let apiserver = IpcacheEntry { identity: Identity::KUBE_APISERVER.0, flags, ..Default::default() };
        let addresses = config.kube_apiserver.iter().flatten().map(|address| (*address, apiserver)).collect();
        claims.set(&Claimant::KubeApiserver, addresses);
        Self {
            synced: false,
            revision: config.revision,
            facts: Shared::default(),
            policies: Shared::default(),
            turn: 0,
            locals: Shared::default(),
            by_labels: Shared::default(),
            departing: BTreeSet::new(),
            held_back: BTreeMap::new(),
            requested: HashSet::new(),
            numbers: Shared::new(Numbers::restored(numbers)),
            matchers: Shared::new(Matchers::new(&config.cluster, config.v4, config.v6)),
            loaded: Shared::default(),
            subjects: Shared::default(),
            peer_ports: Shared::default(),
            port_owners: Shared::default(),
            class_prefixes: PrefixCounts::default(),
            trie: ClassTrie::new(),
            trie_before: None,
            strays: BTreeSet::new(),
            claims: Shared::new(claims),
            dirty: Dirty::default(),
            outbox: Vec::new(),
            announcements: Vec::new(),
            written: Shared::default(),
            snapshot: None,
            stale: Stale::ALL,
            stale_policies: BTreeSet::new(),
            changed_since_snapshot: true,
            config,
        }
    }

    /// Takes in what happened, and returns what has to be done, in order. Events that come together are decided together.
    pub fn apply(&mut self, events: impl IntoIterator<Item = Event>) -> Vec<Change> {
        self.changed_since_snapshot = true;
        let mut changes = Vec::new();
        for event in events {
            // Where pods and nodes are and what policies name cut the address space in different ways (`order.rs` 3).
            let places = matches!(
                event,
                Event::NodeApplied(_) | Event::NodeRemoved(_) | Event::NodeAddresses(_) | Event::Synced
            );
            if places {
                changes.extend(self.reconcile());
            }
            self.hear(event);
            if places {
                changes.extend(self.reconcile());
            }
        }
        changes.extend(self.reconcile());
        changes
    }

    /// Every number that is remembered, for a file of them that starts anew.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        self.numbers.records().collect()
    }

    /// Whether every first list is complete.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// The revision of what has been asked for so far.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    fn reconcile(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        if self.synced {
            self.retry();
        }
        let policies_changed = self.synced && self.settle_policies();
        let closed: Vec<EndpointId> = std::mem::take(&mut self.dirty.closing).into_iter().collect();
        for id in std::mem::take(&mut self.dirty.locals) {
            self.settle_local(id, &mut changes);
        }
        let mut cut = None;
        if self.synced {
            self.sweep_subjects();
            self.find_strays();
            self.place_apiserver();
            self.cut_classes();
            self.spread_matchers();
            self.compile_subjects();
            self.fit(policies_changed);
            self.remember_valid();
            cut = self.take_cut();
        }
        changes.append(&mut self.outbox);
        let ordered = self.order(cut, closed);
        self.mark_stale(&ordered);
        let judged_otherwise = ordered.iter().any(|change| {
            matches!(
                change,
                Change::Endpoint { .. }
                    | Change::EndpointClosed(_)
                    | Change::KnownAdd(_)
                    | Change::KnownDelete(_)
                    | Change::ClassSet(..)
                    | Change::ClassDelete(_)
            )
        });
        changes.extend(ordered);
        if self.synced && (policies_changed || judged_otherwise) {
            self.revision += 1;
            changes.push(Change::Revision(self.revision));
        }
        for name in std::mem::take(&mut self.dirty.came_into_force) {
            if let Some(stored) = self.policies.get_mut(&name) {
                stored.revision = self.revision;
            }
        }
        changes
    }

    /// Which parts of a snapshot these changes touch. Objects that change nothing in the kernel mark their part where
    /// they are heard.
    fn mark_stale(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Remember(_) => self.stale.numbers = true,
                Change::Endpoint { .. } => self.stale.endpoints = true,
                Change::EndpointClosed(_) => {
                    self.stale.endpoints = true;
                    self.stale.policies = true;
                }
                Change::KnownAdd(_) | Change::KnownDelete(_) => {
                    self.stale.identities = true;
                    self.stale.policies = true;
                }
                Change::ClassSet(..)
                | Change::ClassDelete(_)
                | Change::RangeSet(..)
                | Change::RangeDelete(_) => {
                    self.stale.policies = true;
                }
                Change::IpcacheSet(..) | Change::IpcacheDelete(_) => {
                    self.stale.addresses = true;
                    self.stale.identities = true;
                }
                Change::PolicyValid(_)
                | Change::PolicyGone(_)
                | Change::AllocateIdentity(_)
                | Change::Announce { .. }
                | Change::Grace
                | Change::Generation
                | Change::Revision(_) => {}
            }
        }
    }

    fn close(&mut self, id: EndpointId) {
        let Some(local) = self.locals.remove(&id) else { return };
        self.dirty.locals.remove(&id);
        self.leave_subjects(id, &local.subjects());
        self.claims.set(&Claimant::Local(id), BTreeMap::new());
        self.set_peer_ports(Claimant::Local(id), None);
    }
}
