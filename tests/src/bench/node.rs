//! The programs over maps of a small node: what `sinew_bpf::host::world` describes, written into kernel maps, with real
//! interfaces and routes under the numbers that it has there. Nothing is attached; packets come by test runs.
//!
//! Neighbours: `programs.rs` sends the packets, `testrun.rs` is the system call.
#![allow(unsafe_code, reason = "types of the bpf library as keys and values of maps")]

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, ArrayOfMaps, HashMap, Map, MapData, ProgramArray, RingBuf};
use aya::programs::{Program, SchedClassifier};
use aya::{Ebpf, EbpfLoader, Pod};
use sinew_bpf::abi::{Address, EndpointEntry, IpcacheEntry, PolicyEntry, PolicyKey, PrefixKey, StateWord};
use sinew_bpf::host::HostMaps;
use sinew_bpf::host::world::{API, Family, NODE, OTHER_NODE, REMOTE, UNDERLAY, UNDERLAY_MAC, WEB};
use sinew_bpf::settings::Settings;

use super::testrun;
use crate::lab::netns::Netns;

/// `BPF_MAP_TYPE_RINGBUF` of `linux/bpf.h`.
const RING_TYPE: u32 = 27;
/// The agent's default (`--event-ring-bytes`).
const RING_BYTES: u32 = 1 << 20;
/// Entries of one policy table, as `bpf/src/programs/maps.rs` has them.
const TABLE_ENTRIES: u32 = 65_536;
/// `BPF_F_NO_PREALLOC`, without which the kernel makes no trie.
const NO_PREALLOC: u32 = 1;

/// A type of the bpf library in a map.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Abi<T: Copy + 'static>(T);

macro_rules! pod {
    ($($kind:ty),*) => {
        // SAFETY: `repr(C)` structs of integers without padding, which their size assertions in the bpf library hold.
        $(unsafe impl Pod for Abi<$kind> {})*
    };
}

pod!(Address, EndpointEntry, IpcacheEntry, PolicyEntry, PolicyKey, Settings);

type Table = LpmTrie<MapData, Abi<PolicyKey>, Abi<PolicyEntry>>;

/// Loaded programs and their maps.
pub(super) struct Programs {
    loaded: Ebpf,
    empty: OwnedFd,
    rings: Vec<RingBuf<MapData>>,
    /// Kept open: the kernel drops an inner map that nobody holds.
    _tables: Vec<Table>,
}

impl Programs {
    /// Loads the object as the agent does and writes the maps.
    pub(super) fn load(object: &Path, settings: &Settings, maps: &HostMaps) -> Result<Self> {
        let bytes = fs::read(object).with_context(|| format!("reading {}", object.display()))?;
        let pending = sinew_agent::datapath::pending_places().map_err(anyhow::Error::msg)?;
        let settings = Abi(Settings { pending, ..*settings });
        let mut loaded = EbpfLoader::new()
            .override_global("SETTINGS", &settings, true)
            .load(&bytes)
            .context("making maps and reading the programs")?;
        // Those that packets run through: what hangs at a tracepoint is not attached here.
        let hooks = loaded.programs().filter(|(_, program)| matches!(program, Program::SchedClassifier(_)));
        let names: Vec<String> = hooks.map(|(name, _)| name.to_owned()).collect();
        for name in &names {
            program(&mut loaded, name)?.load().with_context(|| format!("loading program {name}"))?;
        }
        let mut next: ProgramArray<_> = typed(&mut loaded, "NEXT")?;
        next.set(0, program(&mut loaded, "answer")?.fd()?, 0).context("setting program answer")?;
        write_addresses(&mut loaded, maps)?;
        let tables = write_tables(&mut loaded, maps)?;
        // Words last, as everywhere.
        let mut words: Array<_, u64> = typed(&mut loaded, "WORDS")?;
        for (index, StateWord(word)) in &maps.words {
            words.set(*index, *word, 0).context("writing a state word")?;
        }
        let rings = make_rings(&mut loaded)?;
        Ok(Self { loaded, empty: testrun::load_empty()?, rings, _tables: tables })
    }

    /// A program.
    pub(super) fn program(&self, name: &str) -> Result<BorrowedFd<'_>> {
        let program: &SchedClassifier = self
            .loaded
            .program(name)
            .with_context(|| format!("the object has no program {name}"))?
            .try_into()
            .with_context(|| format!("looking at program {name}"))?;
        Ok(program.fd().with_context(|| format!("program {name}"))?.as_fd())
    }

    /// The program that does nothing.
    pub(super) fn empty(&self) -> BorrowedFd<'_> {
        self.empty.as_fd()
    }

    /// Empties the event rings, as the agent's reader does; returns how many records there were.
    pub(super) fn drain(&mut self) -> usize {
        self.rings
            .iter_mut()
            .map(|ring| {
                let mut count = 0;
                while ring.next().is_some() {
                    count += 1;
                }
                count
            })
            .sum()
    }
}

/// Makes the interfaces and routes that the node's maps speak of.
pub(super) fn wire(netns: &Netns) -> Result<()> {
    netns.sysctl("net/ipv4/ip_forward", "1")?;
    netns.sysctl("net/ipv6/conf/all/forwarding", "1")?;
    for (name, index) in [("web", WEB.ifindex), ("api", API.ifindex), ("underlay", UNDERLAY)] {
        netns.ip(&format!(
            "link add {name} index {index} type veth peer name {name}-end\nlink set {name} up\nlink set {name}-end up"
        ))?;
    }
    // A frame to another MAC is for another host, and left to the stack.
    let mac = UNDERLAY_MAC.map(|byte| format!("{byte:02x}")).join(":");
    netns.ip(&format!("link set underlay address {mac}"))?;
    netns.ip(&format!("addr add {}/24 dev underlay\naddr add {}/64 dev underlay nodad", NODE.v4, NODE.v6))?;
    netns.ip(&format!(
        "route add {}/32 via {}\nroute add {}/128 via {}",
        REMOTE.v4, OTHER_NODE.v4, REMOTE.v6, OTHER_NODE.v6
    ))?;
    for family in Family::BOTH {
        for pod in [&WEB, &API] {
            let name = if pod.id == WEB.id { "web" } else { "api" };
            netns.ip(&format!("route add {} dev {name} scope link", pod.place.ip(family)))?;
        }
    }
    netns.wait_links()
}

fn write_addresses(loaded: &mut Ebpf, maps: &HostMaps) -> Result<()> {
    let mut interfaces: HashMap<_, u32, Abi<EndpointEntry>> = typed(loaded, "INTERFACES")?;
    for (ifindex, entry) in &maps.interfaces {
        interfaces.insert(ifindex, Abi(*entry), 0).context("writing an interface")?;
    }
    let mut endpoints: HashMap<_, Abi<Address>, Abi<EndpointEntry>> = typed(loaded, "ENDPOINTS")?;
    for (address, entry) in &maps.endpoints {
        endpoints.insert(Abi(*address), Abi(*entry), 0).context("writing an endpoint")?;
    }
    let mut ipcache: HashMap<_, Abi<Address>, Abi<IpcacheEntry>> = typed(loaded, "IPCACHE")?;
    for (address, entry) in &maps.ipcache {
        ipcache.insert(Abi(*address), Abi(*entry), 0).context("writing an address")?;
    }
    let mut known: HashMap<_, u32, u32> = typed(loaded, "KNOWN")?;
    for identity in &maps.known {
        known.insert(identity, identity, 0).context("writing an identity")?;
    }
    let mut ranges: LpmTrie<_, Abi<Address>, Abi<IpcacheEntry>> = typed(loaded, "RANGES")?;
    for (PrefixKey { prefix_len, address }, entry) in &maps.ranges {
        ranges.insert(&Key::new(*prefix_len, Abi(*address)), Abi(*entry), 0).context("writing a range")?;
    }
    Ok(())
}

fn write_tables(loaded: &mut Ebpf, maps: &HostMaps) -> Result<Vec<Table>> {
    let mut outer: ArrayOfMaps<_, Table> = typed(loaded, "POLICY")?;
    let mut tables = BTreeMap::new();
    for (slot, entries) in &maps.policy {
        let mut table = Table::create(TABLE_ENTRIES, NO_PREALLOC).context("making a policy table")?;
        for ((bits, key), entry) in entries {
            table.insert(&Key::new(u32::from(*bits), Abi(*key)), Abi(*entry), 0).context("writing a rule")?;
        }
        outer.set(*slot, &table, 0).context("setting a slot")?;
        tables.insert(*slot, table);
    }
    Ok(tables.into_values().collect())
}

fn make_rings(loaded: &mut Ebpf) -> Result<Vec<RingBuf<MapData>>> {
    let mut outer: ArrayOfMaps<_, MapData> = typed(loaded, "EVENTS")?;
    let mut rings = Vec::new();
    for cpu in aya::util::online_cpus().map_err(|(path, error)| anyhow::anyhow!("reading {path}: {error}"))? {
        let template = aya_obj::Map::new_from_params(RING_TYPE, 0, 0, RING_BYTES, 0);
        let ring = MapData::create(template, "bench_events", None).context("making an event ring")?;
        outer.set(cpu, &ring, 0).context("setting an event ring")?;
        rings.push(RingBuf::try_from(Map::RingBuf(ring)).context("mapping an event ring")?);
    }
    Ok(rings)
}

fn typed<T>(loaded: &mut Ebpf, name: &str) -> Result<T>
where
    T: TryFrom<Map>,
    T::Error: std::error::Error + Send + Sync + 'static,
{
    let Some(map) = loaded.take_map(name) else { bail!("the object has no map {name}") };
    T::try_from(map).with_context(|| format!("opening map {name}"))
}

fn program<'a>(loaded: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    loaded
        .program_mut(name)
        .with_context(|| format!("the object has no program {name}"))?
        .try_into()
        .with_context(|| format!("looking at program {name}"))
}
