//! Keys and values of the connection tables. What they mean is specified in `crate::conntrack`.

use core::cell::UnsafeCell;
use core::fmt;

use super::Address;

/// Which leg of a connection an entry is for: one connection has one entry for each address pair that it is seen with.
pub mod leg {
    /// The addresses that policy judges: after service translation, before masquerade.
    pub const DIRECT: u8 = 0;
}

/// Flags of a [`CtEntry`].
pub mod flag {
    /// Came through the host's stack, whose NAT must see the replies (datapath.md 21).
    pub const VIA_STACK: u16 = 1;
    /// Created from a packet in the middle of a connection (datapath.md 13).
    pub const PICKED_UP: u16 = 2;
    /// A shadow verdict would have denied it (policy.md 13).
    pub const AUDIT: u16 = 4;
    /// The result of the host's NAT on what a pod sent: first seen where it leaves the node.
    pub const TRANSLATED: u16 = 8;
    /// Of a tombstone: the initiator's egress was refused, which `reject` answers.
    pub const EGRESS_REFUSED: u16 = 16;
}

/// Verdicts of a [`CtEntry`].
pub mod verdict {
    /// Packets pass.
    pub const ALLOW: u8 = 1;
    /// A tombstone: packets drop (datapath.md 9, 10).
    pub const DENY: u8 = 2;
}

/// A connection, the same from both directions: the lower (address, port) first.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CtKey {
    /// Address of the lower end.
    pub low: Address,
    /// Address of the higher end.
    pub high: Address,
    /// Port of the lower end, network order. For ICMP echo the identifier at the requester, 0 at the other end.
    pub low_port: u16,
    /// Port of the higher end, network order.
    pub high_port: u16,
    /// IANA protocol number.
    pub protocol: u8,
    /// [`leg`].
    pub leg: u8,
    /// Cluster that both addresses belong to.
    pub cluster: u16,
}

/// A number that programs on several CPUs write while the agent reads it.
#[repr(transparent)]
pub struct Counter(UnsafeCell<u64>);

// SAFETY: all access goes through single 64-bit loads, stores and atomic additions; a reader may see an older value,
// never half of one.
#[allow(unsafe_code, reason = "shared counters inside map values")]
unsafe impl Sync for Counter {}

#[allow(unsafe_code, reason = "shared counters inside map values")]
impl Counter {
    /// A counter at `value`.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// Reads it.
    #[inline(always)]
    #[must_use]
    pub fn get(&self) -> u64 {
        // SAFETY: the pointer is valid and aligned as part of `self`; a racing write is a whole 64-bit store.
        unsafe { self.0.get().read_volatile() }
    }

    /// Writes it; of two racing writers one wins.
    #[inline(always)]
    pub fn set(&self, value: u64) {
        // SAFETY: as in `get`.
        unsafe { self.0.get().write_volatile(value) }
    }

    /// Adds to it; no addition is lost.
    #[inline(always)]
    pub fn add(&self, value: u64) {
        #[cfg(target_arch = "bpf")]
        // SAFETY: the pointer is valid and aligned as part of `self`. `AtomicU64::fetch_add` does not exist for BPF.
        unsafe {
            core::arch::asm!("lock *(u64 *)({p} + 0) += {n}", p = in(reg) self.0.get(), n = in(reg) value);
        }
        #[cfg(not(target_arch = "bpf"))]
        // SAFETY: as in `get`; `Counter` has the size and alignment of an `AtomicU64`.
        unsafe {
            core::sync::atomic::AtomicU64::from_ptr(self.0.get())
                .fetch_add(value, core::sync::atomic::Ordering::Relaxed);
        }
    }
}

impl Clone for Counter {
    #[inline(always)]
    fn clone(&self) -> Self {
        Self::new(self.get())
    }
}

impl Default for Counter {
    #[inline(always)]
    fn default() -> Self {
        Self::new(0)
    }
}

impl PartialEq for Counter {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.get(), f)
    }
}

/// What one end has sent: a cache line of its own, so that two directions on two CPUs don't share one.
#[repr(C)]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CtHalf {
    /// Time of its last packet, nanoseconds of `CLOCK_MONOTONIC`, written at most once a second.
    pub last: Counter,
    /// Packets, a GSO packet counted by its segments.
    pub packets: Counter,
    /// Bytes from the network header on; the headers of a GSO packet count once.
    pub bytes: Counter,
    /// TCP flags seen so far, and [`half_flag`]s above them.
    pub flags: Counter,
    /// Time of the last event about this direction, nanoseconds.
    pub reported: Counter,
    /// Zero.
    pub reserved: [u64; 3],
}

/// Flags of [`CtHalf::flags`] beside the TCP flags in its low byte.
pub mod half_flag {
    /// This end has closed: FIN or RST, and no data after it (datapath.md 14).
    pub const CLOSED: u64 = 1 << 8;
    /// This end has sent something.
    pub const SEEN: u64 = 1 << 9;
    /// This end has sent an RST, and no data came after it.
    pub const RESET: u64 = 1 << 10;
}

/// A connection's verdict, and who is at its ends. Arrays of two are indexed by the key's ends: 0 is the lower one.
#[repr(C)]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CtEntry {
    /// Under what each end was judged ([`super::endpoint::stamp`]).
    pub stamps: [u32; 2],
    /// The identities it was judged with.
    pub identities: [u32; 2],
    /// Cookies of the rules: of the initiator's egress, of the responder's ingress.
    pub cookies: [u32; 2],
    /// [`verdict`].
    pub verdict: u8,
    /// Which end initiated: 0 or 1.
    pub initiator: u8,
    /// [`flag`]s.
    pub flags: u16,
    /// Of a tombstone: the drop reason.
    pub reason: u16,
    /// Node of the remote end, 0 for none.
    pub node_id: u16,
    /// Reverse translation of a service, 0 for none.
    pub rev_nat: u16,
    /// Listener of the proxy that has the connection, 0 for none.
    pub listener: u16,
    /// Zero.
    pub reserved: u32,
    /// When the entry was created, nanoseconds of `CLOCK_MONOTONIC`.
    pub created: u64,
    /// Of a tombstone: when the connection was first refused, nanoseconds of `CLOCK_MONOTONIC`.
    pub refused: u64,
    /// Zero.
    pub reserved2: u64,
    /// What each end has sent.
    pub halves: [CtHalf; 2],
}

const _: () = assert!(size_of::<CtKey>() == 40);
const _: () = assert!(size_of::<CtHalf>() == 64);
const _: () = assert!(size_of::<CtEntry>() == 192);
