//! The kernel maps, and [`Maps`] over them. Names here are the names of the pins.

use aya_ebpf::bindings::{
    __sk_buff, BPF_EXIST, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_NOEXIST, BPF_RB_AVAIL_DATA,
    BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE,
};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{
    Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, LruPerCpuHashMap, PerCpuArray, ProgramArray, RingBuf,
};
use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_ringbuf_query};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::TcContext;
use sinew_bpf::abi::{
    Address, CtEntry, CtKey, EndpointEntry, EventRecord, IpcacheEntry, PolicyEntry, PolicyKey, StateWord,
};
use sinew_bpf::hooks::Frame;
use sinew_bpf::kernel_drop::{self, COUNTERS};
use sinew_bpf::maps::{
    AnswerCount, CONNECTION_TABLES, CtTable, DROP_COUNTERS, DropCount, DropRecords, FragmentKey,
    FragmentPorts, Maps, RingCount, RuleCount, TableCount, Urgency, drop_counter,
};

const MMAP: usize = BPF_F_MMAPABLE as usize;
const GROWING: usize = BPF_F_NO_PREALLOC as usize;

/// State words by endpoint number; 0 is the node's.
#[btf_map]
static WORDS: Array<u64, 4096, MMAP> = Array::new();
/// Endpoints by the host side of their pair.
#[btf_map]
static INTERFACES: HashMap<u32, EndpointEntry, 4096, GROWING> = HashMap::new();
/// Endpoints by their addresses.
#[btf_map]
static ENDPOINTS: HashMap<Address, EndpointEntry, 8192, GROWING> = HashMap::new();
/// Pods and nodes of the cluster by their addresses.
#[btf_map]
static IPCACHE: HashMap<Address, IpcacheEntry, 524_288, GROWING> = HashMap::new();
/// Ranges.
#[btf_map]
static RANGES: LpmTrie<Address, IpcacheEntry, 4096> = LpmTrie::new();
/// Classes of policy prefixes.
#[btf_map]
static CLASSES: LpmTrie<Address, u32, 65_536> = LpmTrie::new();
/// Identities whose packets may be judged.
#[btf_map]
static KNOWN: HashMap<u32, u32, 131_072, GROWING> = HashMap::new();
/// Policy tables by slot.
#[btf_map]
static POLICY: ArrayOfMaps<LpmTrie<PolicyKey, PolicyEntry, 65_536>, 8192> = ArrayOfMaps::new();
/// TCP connections that open.
#[btf_map]
static CT_OPENING: LruHashMap<CtKey, CtEntry, 65_536> = LruHashMap::new();
/// TCP connections.
#[btf_map]
static CT_TCP: LruHashMap<CtKey, CtEntry, 262_144> = LruHashMap::new();
/// Everything else.
#[btf_map]
static CT_ANY: LruHashMap<CtKey, CtEntry, 131_072> = LruHashMap::new();
/// Connections made and removed, by the number of the table: those of the programs, then those of the agent.
#[btf_map]
static TABLES: PerCpuArray<TableCount, 6> = PerCpuArray::new();
const _: () = assert!(2 * CONNECTION_TABLES == 6);
/// Ports of fragmented datagrams.
#[btf_map]
static FRAGMENTS: LruHashMap<FragmentKey, FragmentPorts, 8192> = LruHashMap::new();
/// Judgements by rule cookie.
#[btf_map]
static RULES: LruPerCpuHashMap<u32, RuleCount, 65_536> = LruPerCpuHashMap::new();
/// Drops by reason.
#[btf_map]
static DROPS: PerCpuArray<DropCount, { DROP_COUNTERS as usize }> = PerCpuArray::new();
/// Packets that the kernel dropped after a redirect, by its own reason.
#[btf_map]
static KERNEL_DROPS: PerCpuArray<u64, { COUNTERS as usize }> = PerCpuArray::new();
/// The load whose program counts them.
#[btf_map]
static COUNTING: Array<u64, 1> = Array::new();
/// Records by CPU.
#[btf_map]
static EVENTS: ArrayOfMaps<RingBuf<EventRecord, 1_048_576>, 512> = ArrayOfMaps::new();
/// Records taken and lost.
#[btf_map]
static RINGS: PerCpuArray<RingCount, 1> = PerCpuArray::new();
/// Records of drops that were made and suppressed.
#[btf_map]
static DROP_RECORDS: PerCpuArray<DropRecords, 1> = PerCpuArray::new();
/// Answers to refused packets.
#[btf_map]
static ANSWERS: PerCpuArray<AnswerCount, 1> = PerCpuArray::new();
/// Programs that take over by tail call: 0 answers refused packets.
#[btf_map]
static NEXT: ProgramArray<1> = ProgramArray::new();
/// Room for one connection entry, which is too large for the stack.
#[btf_map]
static SCRATCH: PerCpuArray<CtEntry, 1> = PerCpuArray::new();

/// Room for what a run works with.
#[btf_map]
static FRAME: PerCpuArray<Frame, 1> = PerCpuArray::new();

/// This many records end the sleep of a reader that found none last time; while records come it looks by its own timer, and
/// a wake changes nothing. To wake it, the kernel sends this processor an interrupt, which takes some 10 µs in a virtual
/// machine (kernel 6.18): with every 64th record that was a sixth of what 9,000 connections a second cost the programs. The
/// ring of a processor that comes up after the agent has room for 546.
const WAKE_EVERY: u64 = 256;

/// This CPU's frame. A program holds it from start to end: tc programs run with softirqs off and do not nest.
#[inline(always)]
pub(super) fn frame() -> Option<&'static mut Frame> {
    // SAFETY: the element is this CPU's own, and one program at a time runs on it.
    FRAME.get_ptr_mut(0).map(|frame| unsafe { &mut *frame })
}

/// Hands the packet to the program that answers; comes back only if there is none.
#[inline(always)]
pub(super) fn answer(skb: *mut __sk_buff) {
    // SAFETY: the map has programs of this type only, which the kernel sees to.
    let _ = unsafe { NEXT.tail_call(&TcContext::new(skb), 0) };
}

/// Counts a packet that the kernel has dropped, if the program of this load is the one that does.
#[inline(always)]
pub(super) fn count_kernel_drop(load: u64, reason: u32) {
    if COUNTING.get(0) != Some(&load) {
        return;
    }
    if let Some(count) = KERNEL_DROPS.get_ptr_mut(kernel_drop::counter(reason)) {
        // SAFETY: the element is this CPU's own, and while the program runs there the kernel does not run it again
        // (`__bpf_trace_run`).
        unsafe { *count += 1 }
    }
}

/// The maps of this node.
pub(super) struct KernelMaps;

impl Maps for KernelMaps {
    type Conntrack = &'static CtEntry;

    #[inline(always)]
    fn word(&self, index: u32) -> StateWord {
        match WORDS.get_ptr(index) {
            // SAFETY: the pointer is into the array; user space replaces the word with one aligned store.
            Some(word) => StateWord(unsafe { word.read_volatile() }),
            None => StateWord(0),
        }
    }

    #[inline(always)]
    fn endpoint_by_interface(&self, ifindex: u32) -> Option<&EndpointEntry> {
        // SAFETY: without preallocation an element stays as it is until the programs that read it are done.
        unsafe { INTERFACES.get(ifindex) }
    }

    #[inline(always)]
    fn endpoint_by_address(&self, address: &Address) -> Option<&EndpointEntry> {
        // SAFETY: as for interfaces.
        unsafe { ENDPOINTS.get(address) }
    }

    #[inline(always)]
    fn ipcache(&self, address: &Address) -> Option<&IpcacheEntry> {
        // SAFETY: as for interfaces.
        unsafe { IPCACHE.get(address) }
    }

    #[inline(always)]
    fn range(&self, address: &Address) -> Option<&IpcacheEntry> {
        RANGES.get(&Key::new(128, *address))
    }

    #[inline(always)]
    fn class(&self, address: &Address) -> u32 {
        CLASSES.get(&Key::new(128, *address)).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn known(&self, identity: u32) -> bool {
        KNOWN.get_ptr(identity).is_some()
    }

    #[inline(always)]
    fn policy(&self, slot: u32, key: &PolicyKey) -> Option<&PolicyEntry> {
        POLICY.get(slot)?.get(&Key::new(PolicyKey::FULL_BITS, *key))
    }

    #[inline(always)]
    fn conntrack(&self, table: CtTable, key: &CtKey) -> Option<&'static CtEntry> {
        let entry = match table {
            CtTable::TcpOpening => CT_OPENING.get_ptr(key),
            CtTable::Tcp => CT_TCP.get_ptr(key),
            CtTable::Any => CT_ANY.get_ptr(key),
        }?;
        // SAFETY: the table's memory outlives the run. The element may be given to another connection meanwhile:
        // what is read then is judged like a lost race, and only counters are written through it (conntrack 16).
        Some(unsafe { &*entry })
    }

    #[inline(always)]
    fn conntrack_create(&self, table: CtTable, key: &CtKey, fill: impl FnOnce(&mut CtEntry)) -> bool {
        let fill = |entry: &mut CtEntry| {
            fill(entry);
            true
        };
        prepare(None, fill).is_some_and(|entry| create(table, key, entry))
    }

    #[inline(always)]
    fn conntrack_write(
        &self,
        table: CtTable,
        key: &CtKey,
        from: Option<&CtEntry>,
        fill: impl FnOnce(&mut CtEntry) -> bool,
    ) -> bool {
        prepare(from, fill).is_some_and(|entry| create(table, key, entry) || overwrite(table, key, entry))
    }

    #[inline(always)]
    fn conntrack_delete(&self, table: CtTable, key: &CtKey) {
        // An entry that is gone already is what is wanted.
        let removed = match table {
            CtTable::TcpOpening => CT_OPENING.remove(key),
            CtTable::Tcp => CT_TCP.remove(key),
            CtTable::Any => CT_ANY.remove(key),
        };
        if removed.is_ok()
            && let Some(count) = TABLES.get_ptr_mut(table as u32)
        {
            // SAFETY: the element is this CPU's own.
            unsafe { (*count).deleted += 1 }
        }
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts> {
        // SAFETY: a recycled element would give other ports of the same size; the read is of plain integers.
        unsafe { FRAGMENTS.get(key) }.copied()
    }

    #[inline(always)]
    fn fragment_write(&self, key: &FragmentKey, ports: &FragmentPorts) {
        // Without room later fragments drop by name.
        let _ = FRAGMENTS.insert(key, ports, 0);
    }

    #[inline(always)]
    fn count_rule(&self, cookie: u32, bytes: u32, now: u64) {
        if let Some(count) = RULES.get_ptr_mut(cookie) {
            // SAFETY: the element is this CPU's own.
            unsafe {
                (*count).packets += 1;
                (*count).bytes += u64::from(bytes);
                (*count).last = now;
            }
            return;
        }
        let first = RuleCount { packets: 1, bytes: u64::from(bytes), last: now };
        // Without room the rule's hits are not counted; the fill of the map says so.
        let _ = RULES.insert(cookie, first, 0);
    }

    #[inline(always)]
    fn count_drop(&self, reason: u16, bytes: u32) {
        if let Some(count) = DROPS.get_ptr_mut(drop_counter(reason)) {
            // SAFETY: the element is this CPU's own.
            unsafe {
                (*count).packets += 1;
                (*count).bytes += u64::from(bytes);
            }
        }
    }

    #[inline(always)]
    fn may_answer(&self, now: u64) -> bool {
        // SAFETY: the element is this CPU's own.
        ANSWERS.get_ptr_mut(0).is_some_and(|count| unsafe { (*count).take(now) })
    }

    #[inline(always)]
    fn may_report_drop(&self, now: u64, interval: u32) -> bool {
        // SAFETY: the element is this CPU's own.
        DROP_RECORDS.get_ptr_mut(0).is_some_and(|records| unsafe { (*records).take(now, interval) })
    }

    #[inline(always)]
    fn emit(&self, urgency: Urgency, fill: impl FnOnce(&mut EventRecord)) {
        // SAFETY: neither helper has preconditions.
        let (cpu, time) = unsafe { (bpf_get_smp_processor_id(), bpf_ktime_get_ns()) };
        let Some(count) = RINGS.get_ptr_mut(0) else { return };
        // SAFETY: the element is this CPU's own.
        let count = unsafe { &mut *count };
        count.sequence += 1;
        let ring = EVENTS.get(cpu).filter(|ring| urgency as u8 == Urgency::Drop as u8 || has_spare(ring));
        let Some(mut room) = ring.and_then(|ring| ring.reserve(0)) else {
            count.lost += 1;
            return;
        };
        let record = room.write(EventRecord::default());
        fill(record);
        record.time = time;
        record.sequence = count.sequence as u32;
        let wake = if count.sequence % WAKE_EVERY == 0 { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP };
        room.submit(u64::from(wake));
    }
}

/// Whether a quarter of a ring is free: what traces leave to drops, so that a burst of new connections hides none.
#[inline(always)]
fn has_spare<const BYTES: usize>(ring: &RingBuf<EventRecord, BYTES>) -> bool {
    let map = core::ptr::from_ref(ring).cast_mut().cast();
    // SAFETY: the reference is to the map, which is all that the helper asks for.
    let query = |what: u32| unsafe { bpf_ringbuf_query(map, u64::from(what)) };
    let size = query(BPF_RB_RING_SIZE);
    query(BPF_RB_AVAIL_DATA) <= size - size / 4
}

/// An entry made of a copy of another one, or of zeros, in this CPU's room for one; none where `fill` says no.
#[inline(always)]
fn prepare(from: Option<&CtEntry>, fill: impl FnOnce(&mut CtEntry) -> bool) -> Option<&'static CtEntry> {
    let room = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: the element is this CPU's own, and a program is not interrupted by one that writes it.
    let room = unsafe { &mut *room };
    match from {
        Some(entry) => *room = entry.clone(),
        None => *room = CtEntry::default(),
    }
    if fill(room) { Some(room) } else { None }
}

/// Puts an entry under a key that has none, and counts it.
#[inline(always)]
fn create(table: CtTable, key: &CtKey, entry: &CtEntry) -> bool {
    if !insert(table, key, entry, u64::from(BPF_NOEXIST)) {
        return false;
    }
    if let Some(count) = TABLES.get_ptr_mut(table as u32) {
        // SAFETY: the element is this CPU's own.
        unsafe { (*count).created += 1 }
    }
    true
}

/// Puts an entry in the place of another one.
#[inline(always)]
fn overwrite(table: CtTable, key: &CtKey, entry: &CtEntry) -> bool {
    insert(table, key, entry, u64::from(BPF_EXIST))
}

#[inline(always)]
fn insert(table: CtTable, key: &CtKey, entry: &CtEntry, flags: u64) -> bool {
    match table {
        CtTable::TcpOpening => CT_OPENING.insert(key, entry, flags),
        CtTable::Tcp => CT_TCP.insert(key, entry, flags),
        CtTable::Any => CT_ANY.insert(key, entry, flags),
    }
    .is_ok()
}
