//! The real object, loaded with maps of its own, and run packet by packet.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{
    Array, ArrayOfMaps, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuHashMap, PerCpuValues,
    ProgramArray, RingBuf,
};
use aya::programs::tc::TcAttachType;
use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use aya::{Ebpf, EbpfLoader, Pod};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use sinew_agent::datapath::pending_places;
use sinew_bpf::abi::{Address, CtEntry, CtKey, EventRecord, PolicyEntry, PolicyKey, PrefixKey};
use sinew_bpf::host::HostMaps;
use sinew_bpf::host::world::{Hook, Sent, World, age_entry};
use sinew_bpf::maps::{AnswerCount, CtTable, DropCount, FragmentKey, FragmentPorts, RuleCount, TableCount};
use sinew_bpf::settings::Settings;

use crate::plain::{bytes, value};

/// `BPF_MAP_TYPE_RINGBUF`.
const RING_TYPE: u32 = 27;
/// `BPF_F_NO_PREALLOC`.
const NO_PREALLOC: u32 = 1;
/// Everything runs on one CPU, so that one ring has all events in order.
const CPU: usize = 0;
/// Offsets in `struct __sk_buff` (linux/bpf.h), and its size.
mod skb {
    pub(super) const MARK: usize = 8;
    pub(super) const INGRESS_IFINDEX: usize = 36;
    pub(super) const IFINDEX: usize = 40;
    pub(super) const GSO_SEGS: usize = 164;
    pub(super) const GSO_SIZE: usize = 176;
    pub(super) const SIZE: usize = 192;
}

type Hash<const K: usize, const V: usize> = HashMap<MapData, [u8; K], [u8; V]>;
type Trie<const K: usize, const V: usize> = LpmTrie<MapData, [u8; K], [u8; V]>;

/// What a run of a program gave.
pub(crate) struct Ran {
    /// Its return value.
    pub(crate) verdict: i32,
    /// The packet afterwards.
    pub(crate) bytes: Vec<u8>,
    /// Its mark afterwards.
    pub(crate) mark: u32,
}

/// The programs and their maps.
pub(crate) struct Kernel {
    mark: u32,
    programs: Ebpf,
    words: Array<MapData, u64>,
    interfaces: Hash<4, 64>,
    endpoints: Hash<16, 64>,
    ipcache: Hash<16, 32>,
    ranges: Trie<16, 32>,
    classes: Trie<16, 4>,
    known: Hash<4, 4>,
    policy: ArrayOfMaps<MapData, Trie<8, 24>>,
    tables: BTreeMap<u32, Trie<8, 24>>,
    connections: [(CtTable, Hash<40, 192>); 3],
    fragments: Hash<44, 8>,
    rules: PerCpuHashMap<MapData, [u8; 4], [u8; 24]>,
    drops: PerCpuArray<MapData, [u8; 16]>,
    answers: PerCpuArray<MapData, [u8; 32]>,
    tables_made: PerCpuArray<MapData, [u8; 16]>,
    ring: RingBuf<MapData>,
    /// What was written last.
    written: HostMaps,
}

/// The clock that programs read, nanoseconds.
pub(crate) fn coarse_time() -> Result<u64> {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).context("no coarse clock")?;
    Ok(u64::try_from(time.tv_sec())? * 1_000_000_000 + u64::try_from(time.tv_nsec())?)
}

impl Kernel {
    /// Loads the programs with these settings.
    pub(crate) fn load(settings: &Settings) -> Result<Self> {
        let mut cpu = CpuSet::new();
        cpu.set(CPU)?;
        sched_setaffinity(Pid::from_raw(0), &cpu).context("cannot stay on one CPU")?;
        let path = object_path();
        let object = fs::read(&path)
            .with_context(|| format!("cannot read {}: run `cargo xtask build bpf`", path.display()))?;
        let pending = pending_places().map_err(anyhow::Error::msg)?;
        let settings_bytes: [u8; size_of::<Settings>()] = bytes(&Settings { pending, ..*settings });
        let mut loaded = EbpfLoader::new()
            .override_global("SETTINGS", settings_bytes.as_slice(), true)
            .map_max_entries("CT_OPENING", 4096)
            .map_max_entries("CT_TCP", 4096)
            .map_max_entries("CT_ANY", 4096)
            .load(&object)
            .context("cannot make the maps")?;
        for hook in Hook::ALL.map(Hook::name).into_iter().chain(["answer"]) {
            let program: &mut SchedClassifier =
                loaded.program_mut(hook).with_context(|| format!("no program {hook}"))?.try_into()?;
            program.load().with_context(|| format!("cannot load {hook}"))?;
        }
        let mut next: ProgramArray<MapData> = take(&mut loaded, "NEXT")?;
        let answer: &SchedClassifier = loaded.program("answer").context("no program answer")?.try_into()?;
        next.set(0, answer.fd()?, 0).context("cannot set the answering program")?;
        // The array goes with its last descriptor, whatever programs use it.
        std::mem::forget(next);
        let mut rings: ArrayOfMaps<MapData, MapData> = take(&mut loaded, "EVENTS")?;
        let ring =
            MapData::create(aya_obj::Map::new_from_params(RING_TYPE, 0, 0, 1 << 20, 0), "agreement", None)
                .context("cannot make a ring")?;
        rings.set(CPU as u32, &ring, 0).context("cannot set the ring")?;
        Ok(Self {
            mark: settings.mark,
            words: take(&mut loaded, "WORDS")?,
            interfaces: take(&mut loaded, "INTERFACES")?,
            endpoints: take(&mut loaded, "ENDPOINTS")?,
            ipcache: take(&mut loaded, "IPCACHE")?,
            ranges: take(&mut loaded, "RANGES")?,
            classes: take(&mut loaded, "CLASSES")?,
            known: take(&mut loaded, "KNOWN")?,
            policy: take(&mut loaded, "POLICY")?,
            tables: BTreeMap::new(),
            connections: [
                (CtTable::TcpOpening, take(&mut loaded, "CT_OPENING")?),
                (CtTable::Tcp, take(&mut loaded, "CT_TCP")?),
                (CtTable::Any, take(&mut loaded, "CT_ANY")?),
            ],
            fragments: take(&mut loaded, "FRAGMENTS")?,
            rules: take(&mut loaded, "RULES")?,
            drops: take(&mut loaded, "DROPS")?,
            answers: take(&mut loaded, "ANSWERS")?,
            tables_made: take(&mut loaded, "TABLES")?,
            ring: RingBuf::try_from(Map::RingBuf(ring)).context("no ring")?,
            programs: loaded,
            written: HostMaps::new(),
        })
    }

    /// Writes what an agent writes, as a world has it.
    pub(crate) fn write(&mut self, world: &World) -> Result<()> {
        let (new, old) = (&world.maps, &self.written);
        for index in old.words.keys().chain(new.words.keys()) {
            let word = new.words.get(index).copied().unwrap_or_default();
            self.words.set(*index, word.0, 0).context("cannot write a word")?;
        }
        replace(&mut self.interfaces, &old.interfaces, &new.interfaces, |k| k.to_ne_bytes(), bytes)?;
        replace(&mut self.endpoints, &old.endpoints, &new.endpoints, bytes, bytes)?;
        replace(&mut self.ipcache, &old.ipcache, &new.ipcache, bytes, bytes)?;
        let set = |known: &[u32]| known.iter().map(|id| (*id, 1u32)).collect::<BTreeMap<u32, u32>>();
        let (was, is) = (set(&old.known), set(&new.known));
        replace(&mut self.known, &was, &is, |k| k.to_ne_bytes(), |v| v.to_ne_bytes())?;
        replace_trie(&mut self.ranges, &old.ranges, &new.ranges, prefix, bytes)?;
        replace_trie(&mut self.classes, &old.classes, &new.classes, prefix, |v| v.to_ne_bytes())?;
        let slots: BTreeSet<u32> = old.policy.keys().chain(new.policy.keys()).copied().collect();
        for slot in slots {
            if !self.tables.contains_key(&slot) {
                let trie = Trie::<8, 24>::create(4096, NO_PREALLOC).context("cannot make a table")?;
                self.policy.set(slot, &trie, 0).context("cannot set a table")?;
                self.tables.insert(slot, trie);
            }
            let none = BTreeMap::new();
            let (was, is) = (old.policy.get(&slot).unwrap_or(&none), new.policy.get(&slot).unwrap_or(&none));
            if let Some(trie) = self.tables.get_mut(&slot) {
                replace_trie(trie, was, is, policy_key, bytes::<PolicyEntry, 24>)?;
            }
        }
        self.written = new.clone();
        Ok(())
    }

    /// Empties what packets write.
    pub(crate) fn forget(&mut self) -> Result<()> {
        for (_, table) in &mut self.connections {
            clear(table)?;
        }
        clear(&mut self.fragments)?;
        let cookies: Vec<[u8; 4]> = self.rules.keys().collect::<Result<_, _>>()?;
        for cookie in cookies {
            self.rules.remove(&cookie)?;
        }
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        for index in 0..self.drops.len() {
            self.drops.set(index, PerCpuValues::try_from(vec![[0; 16]; cpus])?, 0)?;
        }
        self.answers.set(0, PerCpuValues::try_from(vec![[0; 32]; cpus])?, 0)?;
        for index in 0..self.tables_made.len() {
            self.tables_made.set(index, PerCpuValues::try_from(vec![[0; 16]; cpus])?, 0)?;
        }
        self.events().map(drop)
    }

    /// Runs a packet through its program.
    pub(crate) fn run(&self, sent: &Sent) -> Result<Ran> {
        let packet = &sent.packet;
        let mut context = [0; skb::SIZE];
        let mut put = |at: usize, number: u32| context[at..at + 4].copy_from_slice(&number.to_ne_bytes());
        put(
            skb::MARK,
            match packet {
                _ if packet.marked => self.mark,
                _ if packet.answer => self.mark & self.mark.wrapping_neg(),
                _ => 0,
            },
        );
        put(skb::INGRESS_IFINDEX, packet.from_device);
        put(skb::IFINDEX, packet.interface);
        put(skb::GSO_SEGS, packet.segments);
        put(skb::GSO_SIZE, packet.segment_size);
        let (mut out, mut context_out) = (vec![0; 1 << 16], [0; skb::SIZE]);
        let name = sent.hook.name();
        let program: &SchedClassifier =
            self.programs.program(name).with_context(|| format!("no program {name}"))?.try_into()?;
        let result = program.test_run(TestRunOptions {
            data_in: Some(&packet.bytes),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ctx_out: Some(&mut context_out),
            ..TestRunOptions::new()
        })?;
        out.truncate(result.data_size_out as usize);
        let mark = context_out[skb::MARK..skb::MARK + 4].try_into().map(u32::from_ne_bytes)?;
        Ok(Ran { verdict: result.return_value.cast_signed(), bytes: out, mark })
    }

    /// Puts a hook's program in the way of real packets that leave by a device.
    pub(crate) fn attach_egress(&mut self, hook: Hook, device: &str) -> Result<()> {
        let name = hook.name();
        let program: &mut SchedClassifier =
            self.programs.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?;
        program.attach(device, TcAttachType::Egress).with_context(|| format!("{name} on {device}"))?;
        Ok(())
    }

    /// Takes the records that were left.
    pub(crate) fn events(&mut self) -> Result<Vec<EventRecord>> {
        let mut events = Vec::new();
        while let Some(item) = self.ring.next() {
            ensure!(item.len() == size_of::<EventRecord>(), "a record of {} bytes", item.len());
            events.push(value(&item));
        }
        Ok(events)
    }

    /// All connections.
    pub(crate) fn connections(&self) -> Result<BTreeMap<(CtTable, CtKey), CtEntry>> {
        let mut all = BTreeMap::new();
        for (table, map) in &self.connections {
            for pair in map.iter() {
                let (key, entry) = pair?;
                all.insert((*table, value(&key)), value(&entry));
            }
        }
        Ok(all)
    }

    /// Makes the connections those of the host's maps.
    pub(crate) fn set_connections(&mut self, host: &HostMaps) -> Result<()> {
        for (table, map) in &mut self.connections {
            clear(map)?;
            for ((_, key), entry) in host.connections.borrow().iter().filter(|((of, _), _)| of == table) {
                map.insert(bytes::<CtKey, 40>(key), bytes::<CtEntry, 192>(entry), 0)?;
            }
        }
        Ok(())
    }

    /// Lets time pass: moves the times of connections into the past.
    pub(crate) fn age(&mut self, seconds: u64) -> Result<()> {
        for (_, map) in &mut self.connections {
            let pairs: Vec<([u8; 40], [u8; 192])> = map.iter().collect::<Result<_, _>>()?;
            for (key, entry) in pairs {
                let mut entry: CtEntry = value(&entry);
                age_entry(&mut entry, seconds);
                map.insert(key, bytes::<CtEntry, 192>(&entry), 0)?;
            }
        }
        Ok(())
    }

    /// Datagrams whose first part was seen.
    pub(crate) fn fragments(&self) -> Result<BTreeMap<FragmentKey, FragmentPorts>> {
        let pair = |pair: Result<([u8; 44], [u8; 8]), MapError>| {
            pair.map(|(key, ports)| (value(&key), value(&ports)))
        };
        Ok(self.fragments.iter().map(pair).collect::<Result<_, _>>()?)
    }

    /// Dropped packets and bytes by index of the counter, those that are not zero.
    pub(crate) fn drops(&self) -> Result<BTreeMap<u32, (u64, u64)>> {
        let mut drops = BTreeMap::new();
        for index in 0..self.drops.len() {
            let counts = self.drops.get(&index, 0)?;
            let counts = counts.iter().map(|count| value::<DropCount>(count));
            let sum = counts.fold((0, 0), |sum, count| (sum.0 + count.packets, sum.1 + count.bytes));
            if sum != (0, 0) {
                drops.insert(index, sum);
            }
        }
        Ok(drops)
    }

    /// Connections made and removed by the number of their table, those that are not zero.
    pub(crate) fn tables(&self) -> Result<BTreeMap<u32, (u64, u64)>> {
        let mut tables = BTreeMap::new();
        for index in 0..self.tables_made.len() {
            let counts = self.tables_made.get(&index, 0)?;
            let counts = counts.iter().map(|count| value::<TableCount>(count));
            let sum = counts.fold((0, 0), |sum, count| (sum.0 + count.created, sum.1 + count.deleted));
            if sum != (0, 0) {
                tables.insert(index, sum);
            }
        }
        Ok(tables)
    }

    /// Answers made and withheld.
    pub(crate) fn answers(&self) -> Result<(u64, u64)> {
        let counts = self.answers.get(&0, 0)?;
        let counts = counts.iter().map(|count| value::<AnswerCount>(count));
        Ok(counts.fold((0, 0), |sum, count| (sum.0 + count.made, sum.1 + count.withheld)))
    }

    /// Judgements and bytes by rule.
    pub(crate) fn rules(&self) -> Result<BTreeMap<u32, (u64, u64)>> {
        let mut rules = BTreeMap::new();
        for pair in self.rules.iter() {
            let (cookie, counts) = pair?;
            let counts = counts.iter().map(|count| value::<RuleCount>(count));
            let sum = counts.fold((0, 0), |sum, count| (sum.0 + count.packets, sum.1 + count.bytes));
            rules.insert(u32::from_ne_bytes(cookie), sum);
        }
        Ok(rules)
    }
}

/// The object that `cargo xtask build bpf` leaves, or what `SINEW_DATAPATH_OBJECT` names.
fn object_path() -> PathBuf {
    env::var_os("SINEW_DATAPATH_OBJECT").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/sinew-datapath"),
        PathBuf::from,
    )
}

fn take<T>(loaded: &mut Ebpf, name: &str) -> Result<T>
where
    T: TryFrom<Map>,
    T::Error: std::error::Error + Send + Sync + 'static,
{
    let map = loaded.take_map(name).with_context(|| format!("no map {name}"))?;
    T::try_from(map).with_context(|| format!("map {name} is another kind"))
}

fn clear<const K: usize, const V: usize>(map: &mut Hash<K, V>) -> Result<()> {
    let keys: Vec<[u8; K]> = map.keys().collect::<Result<_, _>>()?;
    for key in keys {
        map.remove(&key)?;
    }
    Ok(())
}

fn replace<A: Ord, B: PartialEq, const K: usize, const V: usize>(
    map: &mut Hash<K, V>,
    old: &BTreeMap<A, B>,
    new: &BTreeMap<A, B>,
    key: impl Fn(&A) -> [u8; K],
    value: impl Fn(&B) -> [u8; V],
) -> Result<()> {
    for gone in old.keys().filter(|gone| !new.contains_key(gone)) {
        map.remove(&key(gone))?;
    }
    for (at, what) in new.iter().filter(|(at, what)| old.get(at) != Some(what)) {
        map.insert(key(at), value(what), 0)?;
    }
    Ok(())
}

fn replace_trie<A: Ord, B: PartialEq, const K: usize, const V: usize>(
    map: &mut Trie<K, V>,
    old: &BTreeMap<A, B>,
    new: &BTreeMap<A, B>,
    key: impl Fn(&A) -> Key<[u8; K]>,
    value: impl Fn(&B) -> [u8; V],
) -> Result<()>
where
    [u8; K]: Pod,
    [u8; V]: Pod,
{
    for gone in old.keys().filter(|gone| !new.contains_key(gone)) {
        map.remove(&key(gone))?;
    }
    for (at, what) in new.iter().filter(|(at, what)| old.get(at) != Some(what)) {
        map.insert(&key(at), value(what), 0)?;
    }
    Ok(())
}

fn prefix(key: &PrefixKey) -> Key<[u8; 16]> {
    Key::new(key.prefix_len, bytes::<Address, 16>(&key.address))
}

fn policy_key((bits, key): &(u8, PolicyKey)) -> Key<[u8; 8]> {
    let cut = sinew_bpf::host::cut(key, *bits);
    Key::new(u32::from(*bits), bytes::<PolicyKey, 8>(&cut))
}
