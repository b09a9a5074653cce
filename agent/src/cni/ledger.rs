//! The node's attachments on disk: a file each under `<state-dir>/endpoints`, and `resting.json` for addresses that rest.
//!
//! A file is complete or absent. It is not synced to the disk: everything that it describes (interfaces, maps, pins) is
//! in the kernel's memory, so a power cut takes both, and what survives of the files is swept at the next start.
//!
//! A disk that takes nothing stops an ADD, which must not use what is not written down, and no DEL: the file of an
//! attachment that has ended stays then, and holds the addresses for the next start, until it is written that they rest.
//! No address is leased before that.
//!
//! Neighbours: `sinew_engine::ipam` chooses addresses; `crate::control` is the owner.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sinew_api::cni::Attachment;
use sinew_bpf::conntrack::timeout;
use sinew_engine::ipam::{Lease, Pool};
use sinew_engine::{EndpointId, LocalEndpoint};

use super::{AttachmentKey, Refusal};
use crate::netlink::veth;

/// Folder of the attachments under the state folder.
pub const FOLDER: &str = "endpoints";
/// Name of the file of addresses that rest, there too.
pub const RESTING: &str = "resting.json";

/// How long a released address rests: longer than the old owner's UDP and SCTP connections are remembered on any node.
/// What he had begun would else be answers to the next owner, which no ingress rule of his is asked for. That is longer,
/// too, than a peer waits for an answer that is on its way, and than TIME_WAIT in Linux (60 s). The margin is for what was
/// under way when the address was released.
///
/// An entry of TCP outlives this by hours, and opens nothing: a pure SYN is never a reply (datapath.md 12), it is judged as
/// the beginning that it is. Any other segment meets a pod that has no such connection and answers with RST. Without the
/// entry it would be judged no more strictly (13), as the middle of a connection whose entry was evicted.
pub const REST: Duration = Duration::from_nanos(timeout::ANY).saturating_add(Duration::from_secs(15));

/// Where an attachment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// An ADD is under way.
    Adding,
    /// The runtime has been, or is being, told that it stands.
    Standing,
    /// A DEL is under way.
    Removing,
}

/// One attachment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Number of the endpoint.
    pub id: EndpointId,
    /// Where it stands.
    pub phase: Phase,
    /// What was asked for.
    pub attachment: Attachment,
    /// Leased addresses, at most one a family.
    pub addresses: Vec<IpAddr>,
    /// Host side of the pair.
    pub host_link: String,
    /// When the ADD came, milliseconds since 1970.
    pub created_ms: u64,
}

impl Entry {
    /// What names it.
    #[must_use]
    pub fn key(&self) -> AttachmentKey {
        key_of(&self.attachment)
    }

    /// The endpoint, for the engine.
    #[must_use]
    pub fn endpoint(&self, found: Option<sinew_api::identity::Identity>) -> LocalEndpoint {
        let attachment = self.attachment.clone();
        LocalEndpoint {
            id: self.id,
            container_id: attachment.container_id,
            ifname: attachment.ifname,
            pod_namespace: attachment.pod_namespace,
            pod_name: attachment.pod_name,
            pod_uid: attachment.pod_uid,
            labels: attachment.labels,
            addresses: self.addresses.clone(),
            found,
        }
    }
}

/// What names a request's attachment.
#[must_use]
pub fn key_of(attachment: &Attachment) -> AttachmentKey {
    AttachmentKey { container_id: attachment.container_id.clone(), ifname: attachment.ifname.clone() }
}

/// All attachments of the node.
#[derive(Debug)]
pub struct Ledger {
    state_dir: PathBuf,
    entries: BTreeMap<AttachmentKey, Entry>,
    /// Attachments that have ended, and have a file until the disk says that their addresses rest.
    ended: BTreeSet<AttachmentKey>,
    pools: Vec<Pool>,
    /// Highest number of an endpoint.
    last_id: u16,
    cursor: u16,
}

impl Ledger {
    /// Reads what an earlier run left. A file that holds no attachment is removed, and its interface, which nobody claims
    /// then, is swept. `now` is the kernel's monotonic clock, here and below, by which connections are forgotten too:
    /// setting the time of day ends no rest.
    ///
    /// # Errors
    /// [`Refusal::Ledger`] if the folder can't be made or listed, or a file can't be read.
    pub fn open(state_dir: &Path, pools: &[IpNet], last_id: u16, now: Duration) -> Result<Self, Refusal> {
        let mut ledger = Self {
            state_dir: state_dir.into(),
            entries: BTreeMap::new(),
            ended: BTreeSet::new(),
            pools: pools.iter().map(|range| Pool::new(*range, [], REST)).collect(),
            last_id,
            cursor: 0,
        };
        let folder = state_dir.join(FOLDER);
        let unusable = |source| Refusal::Ledger { path: folder.clone(), source };
        fs::create_dir_all(&folder).map_err(unusable)?;
        for file in fs::read_dir(&folder).map_err(unusable)? {
            let path = file.map_err(unusable)?.path();
            ledger.read_entry(&path)?;
        }
        for (address, since) in read_resting(&state_dir.join(RESTING))? {
            // A time in the future is from before the machine was started anew, and counts as now. One that is past by
            // this start's clock is past by any: the machine has run for that long since.
            let released = Duration::from_millis(since).min(now);
            let of_pool = ledger.pools.iter_mut().filter(|pool| pool.range().contains(&address));
            for pool in of_pool {
                pool.restore([Lease::Resting { address, released }]);
            }
        }
        Ok(ledger)
    }

    /// The attachments.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// One attachment.
    #[must_use]
    pub fn entry(&self, key: &AttachmentKey) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// The pools.
    #[must_use]
    pub fn pools(&self) -> &[Pool] {
        &self.pools
    }

    /// The node has these addresses, so no pod gets one of them.
    pub fn reserve(&mut self, node: &[IpAddr]) {
        self.pools.iter_mut().for_each(|pool| pool.reserve(node));
    }

    /// Leases a number and an address of each pool, and writes that down before anybody uses it. `came` is only told;
    /// `now` is what addresses rest by.
    ///
    /// # Errors
    /// The attachment or another one of its container is there, a pool is exhausted, or a file can't be written, this one or
    /// one that waits; nothing is leased then.
    pub fn begin(
        &mut self,
        attachment: &Attachment,
        came: SystemTime,
        now: Duration,
    ) -> Result<&Entry, Refusal> {
        self.catch_up()?;
        let key = key_of(attachment);
        if self.entries.contains_key(&key) {
            return Err(Refusal::AlreadyAttached(key));
        }
        let first = AttachmentKey { ifname: String::new(), ..key.clone() };
        if let Some((other, _)) = self.entries.range(first..).next()
            && other.container_id == key.container_id
        {
            return Err(Refusal::SecondInterface(other.clone()));
        }
        let id = self.free_id().ok_or(Refusal::TooManyEndpoints(self.entries.len()))?;
        let before = self.pools.clone();
        let outcome = self.lease(&key, now).and_then(|addresses| {
            let entry = Entry {
                id,
                phase: Phase::Adding,
                host_link: veth::host_link_name(&key.container_id, &key.ifname),
                attachment: attachment.clone(),
                addresses,
                created_ms: milliseconds(came.duration_since(UNIX_EPOCH).unwrap_or_default()),
            };
            self.write(&entry).map(|()| entry)
        });
        let entry = match outcome {
            Ok(entry) => entry,
            Err(refusal) => {
                // Nobody has seen these addresses, so they need no rest: one family's exhaustion must not use up the
                // other's pool.
                self.pools = before;
                return Err(refusal);
            }
        };
        self.cursor = id.0;
        Ok(self.entries.entry(key).or_insert(entry))
    }

    /// Writes down where an attachment stands. False if there is none.
    ///
    /// # Errors
    /// [`Refusal::Ledger`]; the attachment is where it was, but for one that is being removed: of that only the file is as
    /// it was.
    pub fn set_phase(&mut self, key: &AttachmentKey, phase: Phase) -> Result<bool, Refusal> {
        let Some(entry) = self.entries.get(key) else { return Ok(false) };
        let changed = Entry { phase, ..entry.clone() };
        let written = self.write(&changed);
        if written.is_ok() || phase == Phase::Removing {
            self.entries.insert(key.clone(), changed);
        }
        written.map(|()| true)
    }

    /// Ends an attachment of which nothing is left: its addresses rest.
    ///
    /// # Errors
    /// [`Refusal::Ledger`]; the attachment has ended all the same, and [`Self::catch_up`] is to be called again.
    pub fn end(&mut self, key: &AttachmentKey, now: Duration) -> Result<(), Refusal> {
        if self.entries.remove(key).is_none() {
            return Ok(());
        }
        let owner = key.to_string();
        for pool in &mut self.pools {
            pool.release(&owner, now);
        }
        self.ended.insert(key.clone());
        self.catch_up()
    }

    /// Whether attachments that have ended still have files.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        !self.ended.is_empty()
    }

    /// Writes down what rests, and removes the files of attachments that have ended.
    ///
    /// # Errors
    /// [`Refusal::Ledger`]; what is left of it is still to be done.
    pub fn catch_up(&mut self) -> Result<(), Refusal> {
        if self.ended.is_empty() {
            return Ok(());
        }
        // Resting first: killed in between, an address is leased or rests, never free.
        self.write_resting()?;
        while let Some(key) = self.ended.first() {
            let path = self.path(key);
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(Refusal::Ledger { path, source });
                }
                _ => drop(self.ended.pop_first()),
            }
        }
        Ok(())
    }

    fn read_entry(&mut self, path: &Path) -> Result<(), Refusal> {
        if path.extension().is_none_or(|extension| extension != "json") {
            discard(path);
            return Ok(());
        }
        // A file that can't be read now may be a running pod's: only what was read and means nothing is dropped.
        let text = fs::read(path).map_err(|source| Refusal::Ledger { path: path.into(), source })?;
        match serde_json::from_slice::<Entry>(&text) {
            Ok(entry) => {
                let owner = entry.key().to_string();
                for address in &entry.addresses {
                    let lease = Lease::Held { address: *address, owner: owner.clone() };
                    let pool = self.pools.iter_mut().find(|pool| pool.range().contains(address));
                    let impossible = pool.map(|pool| pool.restore([lease]));
                    if impossible.is_none_or(|leases| !leases.is_empty()) {
                        tracing::warn!(%address, "an attachment has an address that no pool of the node can hold");
                    }
                }
                self.cursor = self.cursor.max(entry.id.0);
                self.entries.insert(entry.key(), entry);
            }
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "an attachment file is unreadable and is dropped");
                discard(path);
            }
        }
        Ok(())
    }

    fn lease(&mut self, key: &AttachmentKey, now: Duration) -> Result<Vec<IpAddr>, Refusal> {
        let owner = key.to_string();
        self.pools.iter_mut().map(|pool| pool.lease(&owner, now).map_err(Refusal::from)).collect()
    }

    fn write_resting(&self) -> Result<(), Refusal> {
        let resting: BTreeMap<IpAddr, u64> = self
            .pools
            .iter()
            .flat_map(Pool::leases)
            .filter_map(|lease| match lease {
                Lease::Resting { address, released } => Some((address, milliseconds(released))),
                Lease::Held { .. } => None,
            })
            .collect();
        let path = self.state_dir.join(RESTING);
        let text = serde_json::to_vec(&resting).expect("addresses and numbers are plain JSON");
        replace(&path, &text).map_err(|source| Refusal::Ledger { path, source })
    }

    fn write(&self, entry: &Entry) -> Result<(), Refusal> {
        let path = self.path(&entry.key());
        let text = serde_json::to_vec(entry).expect("an attachment is plain JSON");
        replace(&path, &text).map_err(|source| Refusal::Ledger { path, source })
    }

    fn free_id(&self) -> Option<EndpointId> {
        let taken: BTreeSet<u16> = self.entries.values().map(|entry| entry.id.0).collect();
        let ids = (self.cursor.saturating_add(1)..=self.last_id).chain(1..=self.cursor.min(self.last_id));
        ids.into_iter().find(|id| !taken.contains(id)).map(EndpointId)
    }

    fn path(&self, key: &AttachmentKey) -> PathBuf {
        // Neither part can hold a colon (CNI specification, section 2), so no two attachments share a file.
        self.state_dir.join(FOLDER).join(format!("{}:{}.json", key.container_id, key.ifname))
    }
}

/// Replaces a file at once for every reader.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let written = fs::write(&temporary, content).and_then(|()| fs::rename(&temporary, path));
    written.inspect_err(|_| {
        // Half of it takes room on a disk that may be full; the first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    })
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn read_resting(path: &Path) -> Result<BTreeMap<IpAddr, u64>, Refusal> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(source) => return Err(Refusal::Ledger { path: path.into(), source }),
    };
    Ok(serde_json::from_slice(&text).unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "the list of resting addresses is unreadable and begins anew");
        BTreeMap::new()
    }))
}

fn discard(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "a file stays behind");
    }
}

#[cfg(test)]
mod tests;
