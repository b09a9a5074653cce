//! The kernel side of a node: programs, maps, links, and the words that switch endpoints between tables.
//!
//! Everything that must outlive the agent is pinned under `<bpf root>/<node>/v<layout>`; [`Datapath::open`] adopts
//! what an earlier agent left, so that a restart writes nothing that is already so. One owner, the control loop, calls
//! this; all calls are synchronous. Only this folder names aya's types.
//!
//! Neighbours: `sinew_engine` says what to write ([`Change`]); `control.rs` calls; `flow.rs` reads [`EventRings`].
//! Inside: `pins.rs` finds and checks what is there, `links.rs` attaches, `tables.rs` owns the slots, `words.rs` the
//! state words, `addresses.rs` what addresses resolve to, `connections.rs` and `counters.rs` read what packets wrote,
//! `kernel_drops.rs` counts what the kernel drops after us, `readings.rs` reads it all again for metrics.

#![allow(unsafe_code, reason = "map memory and bpf(2)")]

pub mod object;

mod abi;
mod addresses;
mod connections;
mod counters;
mod error;
mod events;
mod grace;
mod kernel;
mod kernel_drops;
mod links;
mod merge;
mod pins;
mod readings;
mod tables;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use aya::maps::{HashMap, MapData};
use sinew_api::identity::Identity;
use sinew_bpf::abi::{Address, EndpointEntry, StateWord};
use sinew_bpf::settings::{PendingPlaces, Settings};
use sinew_engine::PolicyTable;
use sinew_engine::{Change, EndpointId, Found};

pub use connections::{Connection, ConnectionFilter};
pub use counters::{DropTotal, MapFill, RuleHits};
pub use error::DatapathError;
pub use events::{EventRings, record, record_bytes};
pub use grace::grace;
pub use kernel_drops::KernelDrop;
pub use readings::{AnswerTotal, Reading, Readings, RingTotal};

use abi::Abi;
use addresses::Addresses;
use kernel::Kernel;
use kernel_drops::Counting;
use links::Links;
use tables::Tables;
use words::Words;

/// Highest number of an endpoint: the state words, less the node's own.
pub const LAST_ENDPOINT: u16 = (words::WORDS - 1) as u16;

/// Where the running kernel keeps which checksum of a packet is still to be filled in, for code that loads the programs
/// without [`Datapath::open`].
///
/// # Errors
///
/// The kernel doesn't tell, or lets no program read its memory.
pub fn pending_places() -> Result<PendingPlaces, String> {
    Kernel::running().pending
}

/// What a node's programs are loaded with.
#[derive(Clone, Debug)]
pub struct DatapathConfig {
    /// Where this node's pins go: [`folder_of_node`].
    pub folder: PathBuf,
    /// Constants of the programs.
    pub settings: Settings,
    /// Bytes of each CPU's event ring, a power of two and a multiple of the page size.
    pub ring_bytes: u32,
}

/// Where a node's pins go: `<bpf root>/<node name>`, with `%2e` for the name's dots, which bpffs refuses.
#[must_use]
pub fn folder_of_node(bpf_root: &Path, node: &str) -> PathBuf {
    bpf_root.join(pins::without_dots(node))
}

/// How far changes were carried out. Carrying them out again is safe.
#[derive(Debug)]
pub struct Applied {
    /// How many were.
    pub count: usize,
    /// Why the next one was not.
    pub failure: Option<DatapathError>,
}

impl Applied {
    /// An error, unless all of them were.
    ///
    /// # Errors
    ///
    /// The first change that failed.
    pub fn all(self) -> Result<(), DatapathError> {
        self.failure.map_or(Ok(()), Err)
    }
}

/// The programs and maps of one node.
pub struct Datapath {
    pins: pins::Pins,
    links: Links,
    words: Words,
    tables: Tables,
    addresses: Addresses,
    endpoints: HashMap<MapData, Abi<Address>, Abi<EndpointEntry>>,
    interfaces: HashMap<MapData, u32, Abi<EndpointEntry>>,
    connections: connections::Connections,
    counters: counters::Counters,
    kernel_drops: Counting,
    checksums_off: Option<String>,
    events: Option<EventRings>,
    entries: BTreeMap<EndpointId, EndpointEntry>,
    /// Endpoints whose identity was rewritten since the last grace period. A program that had read the old entry may
    /// have stamped a connection with the new epoch; one more epoch after the grace period makes that stale.
    unconfirmed: BTreeSet<EndpointId>,
    /// Whether no program of an earlier load is attached anywhere.
    alone: bool,
}

impl Datapath {
    /// Loads the programs over the pinned maps, or over new ones, and moves every pinned link to the new programs.
    ///
    /// # Errors
    ///
    /// What is pinned is of another layout, or the kernel refuses.
    pub fn open(config: &DatapathConfig, object: &[u8]) -> Result<Self, DatapathError> {
        let pins = pins::Pins::open(&config.folder)?;
        let kernel = Kernel::running();
        let pending = kernel.pending.as_ref().copied().unwrap_or_else(|why| {
            tracing::warn!(%why, "forged checksum offsets in pods' packets are not caught");
            PendingPlaces::UNKNOWN
        });
        let settings = Settings { pending, ..config.settings };
        let mut loaded = pins.load(object, &settings, kernel.places.as_ref().ok())?;
        let words = Words::open(pins.take(&mut loaded, "WORDS")?)?;
        let interfaces: HashMap<_, u32, Abi<EndpointEntry>> =
            pins::typed(pins.take(&mut loaded, "INTERFACES")?, "INTERFACES")?;
        let mut entries = BTreeMap::new();
        for row in interfaces.iter() {
            let (_, Abi(entry)) =
                row.map_err(|e| DatapathError::kernel("reading the pinned endpoints", e))?;
            entries.insert(EndpointId(entry.id as u16), entry);
        }
        let tables = Tables::open(pins.take(&mut loaded, "POLICY")?, &words)?;
        let addresses = Addresses::open(&mut |name| pins.take(&mut loaded, name))?;
        let endpoints: HashMap<_, Abi<Address>, Abi<EndpointEntry>> =
            pins::typed(pins.take(&mut loaded, "ENDPOINTS")?, "ENDPOINTS")?;
        // An agent that was killed while it wrote an endpoint may have left its addresses without its interface.
        for row in endpoints.iter() {
            let (_, Abi(entry)) =
                row.map_err(|e| DatapathError::kernel("reading the pinned endpoints' addresses", e))?;
            entries.entry(EndpointId(entry.id as u16)).or_insert(entry);
        }
        let connections = connections::Connections::open(&mut |name| pins.take(&mut loaded, name))?;
        let events = EventRings::open(
            pins.take(&mut loaded, "EVENTS")?,
            pins.take(&mut loaded, "RINGS")?,
            pins.take(&mut loaded, "DROP_RECORDS")?,
            config.ring_bytes,
        )?;
        let counters = counters::Counters::open(&mut |name| pins.take(&mut loaded, name))?;
        let counting = pins.take(&mut loaded, "COUNTING")?;
        let kernel_drops = Counting::begin(&mut loaded, counting, &kernel, pins.tracepoints_folder());
        let links = Links::open(loaded, pins.links_folder())?;
        Ok(Self {
            pins,
            links,
            words,
            tables,
            addresses,
            endpoints,
            interfaces,
            connections,
            counters,
            kernel_drops,
            checksums_off: kernel.pending.err(),
            events: Some(events),
            entries,
            unconfirmed: BTreeSet::new(),
            alone: false,
        })
    }

    /// Why the programs don't catch forged checksum offsets in pods' packets, if they don't.
    #[must_use]
    pub fn checksums_off(&self) -> Option<&str> {
        self.checksums_off.as_deref()
    }

    /// Attaches `from_net` and `to_net` to an underlay device, or moves the links that are there to these programs.
    ///
    /// # Errors
    ///
    /// The interface is gone, or the kernel refuses.
    pub fn attach_underlay(&mut self, ifindex: u32) -> Result<(), DatapathError> {
        self.attach(ifindex, "from_net", "to_net")
    }

    /// Attaches `from_overlay` and `to_overlay` to the VXLAN device.
    ///
    /// # Errors
    ///
    /// As for [`Self::attach_underlay`].
    pub fn attach_overlay(&mut self, ifindex: u32) -> Result<(), DatapathError> {
        self.attach(ifindex, "from_overlay", "to_overlay")
    }

    /// Attaches `from_pod` and `to_pod` to the host side of a pod's pair. The endpoint's maps come first: a pod whose
    /// endpoint is not there drops everything.
    ///
    /// # Errors
    ///
    /// As for [`Self::attach_underlay`].
    pub fn attach_pod(&mut self, ifindex: u32) -> Result<(), DatapathError> {
        self.attach(ifindex, "from_pod", "to_pod")
    }

    fn attach(&mut self, ifindex: u32, ingress: &str, egress: &str) -> Result<(), DatapathError> {
        self.links.attach(ifindex, ingress, egress)?;
        self.forget_earlier_programs();
        Ok(())
    }

    /// Once no link runs a program of an earlier load, removes what only those programs used.
    fn forget_earlier_programs(&mut self) {
        if self.alone || !self.links.all_moved() {
            return;
        }
        match self.pins.forget_earlier_programs() {
            Ok(()) => self.alone = true,
            Err(error) => tracing::warn!(%error, "what earlier programs had stays behind for now"),
        }
    }

    /// Removes pinned links whose interface is gone; returns their names.
    pub fn sweep_links(&mut self) -> Vec<String> {
        let swept = self.links.sweep();
        self.forget_earlier_programs();
        swept
    }

    /// The endpoints that are pinned, for reconciliation at start.
    #[must_use]
    pub fn endpoints(&self) -> &BTreeMap<EndpointId, EndpointEntry> {
        &self.entries
    }

    /// What an earlier agent left in the maps by address and identity, for the engine to compare with.
    ///
    /// # Errors
    ///
    /// The kernel refuses to read on.
    pub fn found(&self) -> Result<Found, DatapathError> {
        self.addresses.found()
    }

    /// Writes an endpoint. Its table comes by [`Change::Endpoint`]; until then it is in the drop slot.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn endpoint_write(&mut self, id: EndpointId, entry: EndpointEntry) -> Result<(), DatapathError> {
        let attempt = || format!("writing endpoint {}", id.0);
        for address in [entry.v4, entry.v6] {
            if !address.is_none() {
                self.endpoints
                    .insert(Abi(address), Abi(entry), 0)
                    .map_err(|e| DatapathError::kernel(attempt(), e))?;
            }
        }
        self.interfaces
            .insert(entry.ifindex, Abi(entry), 0)
            .map_err(|e| DatapathError::kernel(attempt(), e))?;
        self.entries.insert(id, entry);
        Ok(())
    }

    /// Takes an endpoint out of the maps. [`Change::EndpointClosed`] has put it into the drop slot before.
    ///
    /// # Errors
    ///
    /// The kernel refuses for another reason than that the entry is gone.
    pub fn endpoint_delete(&mut self, id: EndpointId) -> Result<(), DatapathError> {
        let Some(entry) = self.entries.get(&id).copied() else { return Ok(()) };
        for address in [entry.v4, entry.v6] {
            if !address.is_none() {
                abi::absent_is_fine(self.endpoints.remove(&Abi(address)), "removing an endpoint's address")?;
            }
        }
        abi::absent_is_fine(self.interfaces.remove(&entry.ifindex), "removing an endpoint's interface")?;
        // Last: a removal that the kernel refused is tried again.
        self.entries.remove(&id);
        Ok(())
    }

    /// An endpoint's current state word.
    #[must_use]
    pub fn word(&self, id: EndpointId) -> StateWord {
        self.words.get(u32::from(id.0))
    }

    /// The table in an endpoint's slot.
    #[must_use]
    pub fn table(&self, id: EndpointId) -> Option<&PolicyTable> {
        self.tables.table(self.word(id).slot())
    }

    /// Carries changes out in their order, up to the first that fails. Those that write objects or files belong to the
    /// control loop and are skipped.
    pub fn apply(&mut self, changes: &[Change]) -> Applied {
        let mut applied = Applied { count: 0, failure: None };
        for change in changes {
            if let Err(error) = self.carry_out(change) {
                applied.failure = Some(error);
                break;
            }
            applied.count += 1;
        }
        if !self.unconfirmed.is_empty() {
            self.settle();
        }
        applied
    }

    fn carry_out(&mut self, change: &Change) -> Result<(), DatapathError> {
        match change {
            Change::EndpointClosed(id) => self.close(*id),
            Change::Endpoint { endpoint, identity, table } => self.enforce(*endpoint, *identity, table)?,
            Change::Grace => self.settle(),
            Change::ClassSet(prefix, class) => self.addresses.class_set(*prefix, class.0)?,
            Change::ClassDelete(prefix) => self.addresses.class_delete(*prefix)?,
            Change::KnownAdd(identity) => self.addresses.known_add(identity.0)?,
            Change::KnownDelete(identity) => self.addresses.known_delete(identity.0)?,
            Change::IpcacheSet(address, entry) => self.addresses.set(*address, *entry)?,
            Change::IpcacheDelete(address) => self.addresses.delete(*address)?,
            Change::RangeSet(prefix, entry) => self.addresses.range_set(*prefix, *entry)?,
            Change::RangeDelete(prefix) => self.addresses.range_delete(*prefix)?,
            Change::Generation => self.words.raise_generation(),
            Change::Revision(revision) => {
                self.settle();
                self.words.set_revision(*revision);
            }
            Change::Remember(_)
            | Change::PolicyValid(_)
            | Change::PolicyGone(_)
            | Change::AllocateIdentity(_)
            | Change::Announce { .. } => {}
        }
        Ok(())
    }

    fn close(&mut self, id: EndpointId) {
        let slot = self.word(id).slot();
        self.words.set_endpoint(id, StateWord::DROP_SLOT);
        self.tables.release(slot);
    }

    /// Data first, word last (datapath.md 7). A change that is in force already costs no epoch.
    fn enforce(
        &mut self,
        id: EndpointId,
        identity: Identity,
        table: &std::sync::Arc<PolicyTable>,
    ) -> Result<(), DatapathError> {
        let same_identity = self.entries.get(&id).is_none_or(|entry| entry.identity == identity.0);
        let old = self.word(id).slot();
        if same_identity && self.tables.table(old).is_some_and(|now| now == &**table) {
            return Ok(());
        }
        let slot = self.tables.take(table)?;
        if !same_identity && let Some(mut entry) = self.entries.get(&id).copied() {
            entry.identity = identity.0;
            self.endpoint_write(id, entry)?;
            self.unconfirmed.insert(id);
        }
        self.words.set_endpoint(id, slot);
        self.tables.release(old);
        Ok(())
    }

    /// Waits for a grace period. Then slots without endpoints may be filled again, and rewritten identities are confirmed.
    fn settle(&mut self) {
        grace();
        self.tables.clear_retired();
        for id in std::mem::take(&mut self.unconfirmed) {
            let slot = self.word(id).slot();
            self.words.set_endpoint(id, slot);
        }
    }

    /// Hands out the rings, once: the flow task owns them.
    pub fn take_events(&mut self) -> Option<EventRings> {
        self.events.take()
    }

    /// Separate handles, for reading counters on another thread than the owner's.
    ///
    /// # Errors
    ///
    /// The kernel refuses to open a map again.
    pub fn readings(&self) -> Result<Readings, DatapathError> {
        Readings::open(self.pins.clone(), self.kernel_drops.clone())
    }

    /// The tracked connections, expired ones left out.
    ///
    /// # Errors
    ///
    /// The kernel refuses to read on.
    pub fn connections(&self, filter: &ConnectionFilter) -> Result<Vec<Connection>, DatapathError> {
        self.connections.list(filter)
    }

    /// Forgets connections; returns how many. Their next packets are judged as if they were the first.
    ///
    /// # Errors
    ///
    /// The kernel refuses to read on.
    pub fn connections_flush(&mut self, filter: &ConnectionFilter) -> Result<usize, DatapathError> {
        self.connections.flush(filter)
    }

    /// Judgements by rule cookie.
    ///
    /// # Errors
    ///
    /// The kernel refuses to read on.
    pub fn rule_hits(&self) -> Result<BTreeMap<u32, RuleHits>, DatapathError> {
        self.counters.rules()
    }

    /// Drops by reason, those that happened.
    #[must_use]
    pub fn drops(&self) -> Vec<DropTotal> {
        self.counters.drops().into_iter().filter(|total| total.packets > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_folder_has_no_dot() {
        let root = Path::new("/sys/fs/bpf/sinew");
        assert_eq!(folder_of_node(root, "n1"), root.join("n1"), "as earlier agents named it");
        assert_eq!(folder_of_node(root, "n1.example.org"), root.join("n1%2eexample%2eorg"));
    }
}
