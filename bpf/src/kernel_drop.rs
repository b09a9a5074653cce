//! Whether a packet that the kernel drops is one that our programs handed on (datapath.md 32).
//!
//! The program at the tracepoint `kfree_skb` sees every packet that the machine drops, of every network namespace. Ours are
//! recognised by what is in the packet itself, since its address is another packet's as soon as it is freed:
//!
//! 1. A packet sent off the node has all bits of the node's mark ([`Settings::mark`]), which nobody else may set, and
//!    keeps them until it has left: in a neighbour's queue, in a qdisc, inside the overlay's packet.
//! 2. A packet redirected into a pod has no mark, but [`INTO_POD`] in its control block. It keeps that if the redirect
//!    fails; otherwise it is in the pod's network namespace by then.
//! 3. Its device is in the node's network namespace. A mark doesn't cross to another one, and the devices of pods, and of
//!    other nodes on the same kernel, are not there.
//! 4. A copy for `tcpdump` that was dropped is no loss.
//! 5. Off the node, a drop without a reason of its own says nothing: many drivers free packets that they have sent as if
//!    they had dropped them (`dev_kfree_skb_any`).
//!
//! The kernel's structs differ from build to build; the agent finds the offsets in its type information ([`Places`]).

use crate::settings::Settings;

/// What `from_pod`, `from_net` and `from_overlay` write into a packet's control block before its redirect into a pod. No
/// other use of those 8 bytes looks like it.
pub const INTO_POD: u64 = u64::from_be_bytes(*b"\xf5sinew\x00\xd9");

/// `PACKET_OUTGOING` of `if_packet.h`: a tap's copy of a packet that leaves.
const PACKET_OUTGOING: u32 = 4;
/// Bits of `pkt_type`.
const PACKET_TYPES: u32 = 7;

/// Offsets in the running kernel's structs, in bytes, and what else the program must know of that kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// Number of the load that the program belongs to. Two loads are attached while one replaces the other.
    pub load: u64,
    /// Cookie of the node's network namespace.
    pub netns: u64,
    /// `mark` in `sk_buff`.
    pub mark: u32,
    /// What tc programs see as `cb[2]` and `cb[3]`, in `sk_buff`.
    pub note: u32,
    /// The byte with `pkt_type` in `sk_buff`.
    pub kind: u32,
    /// Bits below it in that byte.
    pub kind_shift: u32,
    /// `dev` in `sk_buff`.
    pub device: u32,
    /// `nd_net` in `net_device`.
    pub device_netns: u32,
    /// `net_cookie` in `net`.
    pub netns_cookie: u32,
    /// The reason that stands for none, `SKB_DROP_REASON_NOT_SPECIFIED`.
    pub unspecified: u32,
}

impl Places {
    /// Those of some kernel. Not zeros, with which the verifier would look at the first comparison only.
    pub const SAMPLE: Self = Self {
        load: 0,
        netns: 1,
        mark: 168,
        note: 56,
        kind: 128,
        kind_shift: 0,
        device: 16,
        device_netns: 264,
        netns_cookie: 32,
        unspecified: 2,
    };
}

const _: () = assert!(size_of::<Places>() == 48);

/// The kernel's memory.
pub trait Memory {
    /// A value there; none where nothing is mapped.
    fn read<T: Copy>(&self, at: u64) -> Option<T>;
}

/// Whether a packet was handed on by this node's programs, and is lost by this drop. For by far the most packets two reads
/// show that it was not.
#[inline(always)]
pub fn is_ours<M: Memory>(
    memory: &M,
    places: &Places,
    settings: &Settings,
    packet: u64,
    reason: u32,
) -> bool {
    ours(memory, places, settings, packet, reason).is_some()
}

#[inline(always)]
fn ours<M: Memory>(memory: &M, places: &Places, settings: &Settings, packet: u64, reason: u32) -> Option<()> {
    let within = |place: u32| packet.wrapping_add(u64::from(place));
    let mark: u32 = memory.read(within(places.mark))?;
    if mark & settings.mark == settings.mark {
        // 1.
        let kind: u8 = memory.read(within(places.kind))?;
        let kind = (u32::from(kind) >> (places.kind_shift & 7)) & PACKET_TYPES;
        // 4, 5.
        if kind == PACKET_OUTGOING || reason == places.unspecified {
            return None;
        }
    } else if memory.read::<u64>(within(places.note))? != INTO_POD {
        // 2.
        return None;
    }
    // 3. A packet in a socket's queue has no device, or other data in its place, where nothing is mapped.
    let device: u64 = memory.read(within(places.device))?;
    let netns: u64 = memory.read(device.wrapping_add(u64::from(places.device_netns)))?;
    let cookie: u64 = memory.read(netns.wrapping_add(u64::from(places.netns_cookie)))?;
    (cookie == places.netns).then_some(())
}

/// Number of counters of what the kernel drops. Linux 6.18 has 126 reasons, and each release brings a few.
pub const COUNTERS: u32 = 256;

/// Index of the counter of one of the kernel's drop reasons. The last counter is shared by all reasons beyond it: those of
/// subsystems such as Open vSwitch have numbers from 65 536 on.
#[inline(always)]
#[must_use]
pub const fn counter(reason: u32) -> u32 {
    if reason < COUNTERS - 1 { reason } else { COUNTERS - 1 }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::vec::Vec;

    use super::*;

    const PACKET: u64 = 0xffff_8881_0000_1000;
    const DEVICE: u64 = 0xffff_8881_0002_0000;
    const NETNS: u64 = 0xffff_8881_0003_0000;
    const NO_REASON: u32 = 2;
    const NEIGHBOUR: u32 = 46;
    const PLACES: Places = Places { netns: 4097, ..Places::SAMPLE };
    const SETTINGS: Settings = Settings::DUAL_STACK;

    #[derive(Clone)]
    struct Bytes(BTreeMap<u64, u8>);

    impl Bytes {
        fn with(mut self, at: u64, bytes: &[u8]) -> Self {
            self.0.extend((at..).zip(bytes.iter().copied()));
            self
        }
    }

    #[allow(unsafe_code, reason = "values of plain numbers, as the kernel's helper reads them")]
    impl Memory for Bytes {
        fn read<T: Copy>(&self, at: u64) -> Option<T> {
            let end = at.checked_add(size_of::<T>() as u64)?;
            let bytes: Vec<u8> = (at..end).map(|at| self.0.get(&at).copied()).collect::<Option<_>>()?;
            // SAFETY: as many bytes as a number has, which all are a value of it.
            Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
        }
    }

    /// A packet on a device of this node, without mark and without note.
    fn packet() -> Bytes {
        Bytes(BTreeMap::new())
            .with(PACKET, &[0; 256])
            .with(PACKET + u64::from(PLACES.device), &DEVICE.to_ne_bytes())
            .with(DEVICE + u64::from(PLACES.device_netns), &NETNS.to_ne_bytes())
            .with(NETNS + u64::from(PLACES.netns_cookie), &PLACES.netns.to_ne_bytes())
    }

    fn marked(mark: u32) -> Bytes {
        packet().with(PACKET + u64::from(PLACES.mark), &mark.to_ne_bytes())
    }

    fn noted(note: u64) -> Bytes {
        packet().with(PACKET + u64::from(PLACES.note), &note.to_ne_bytes())
    }

    fn counts(memory: &Bytes, reason: u32) -> bool {
        is_ours(memory, &PLACES, &SETTINGS, PACKET, reason)
    }

    #[test]
    fn what_was_sent_off_the_node_is_told_by_its_mark() {
        assert!(counts(&marked(SETTINGS.mark), NEIGHBOUR));
        assert!(counts(&marked(SETTINGS.mark | 0x4000), NEIGHBOUR), "kube-proxy's bit beside it");
        assert!(!counts(&packet(), NEIGHBOUR), "the host's own");
        assert!(!counts(&marked(SETTINGS.answer_mark()), NEIGHBOUR), "an answer by the host's stack");
        assert!(!counts(&marked(!SETTINGS.mark), NEIGHBOUR), "other software's mark");
    }

    #[test]
    fn what_a_driver_frees_after_it_was_sent_is_no_loss() {
        assert!(!counts(&marked(SETTINGS.mark), NO_REASON));
    }

    #[test]
    fn what_a_tap_could_not_take_is_no_loss() {
        let kind = |kind: u8| marked(SETTINGS.mark).with(PACKET + u64::from(PLACES.kind), &[kind]);
        assert!(!counts(&kind(0b1110_1100), NEIGHBOUR), "outgoing, beside other bits");
        assert!(counts(&kind(0b1110_1011), NEIGHBOUR), "for another host, beside other bits");
    }

    #[test]
    fn what_was_handed_to_a_pod_is_told_by_its_note() {
        assert!(counts(&noted(INTO_POD), NO_REASON));
        assert!(!counts(&noted(INTO_POD + 1), NO_REASON));
        assert!(!counts(&noted(INTO_POD & 0xffff_ffff), NO_REASON), "half of it may be anything");
    }

    #[test]
    fn other_network_namespaces_are_others_affair() {
        for memory in [marked(SETTINGS.mark), noted(INTO_POD)] {
            assert!(counts(&memory, NEIGHBOUR));
            let other = memory.clone().with(NETNS + u64::from(PLACES.netns_cookie), &4098u64.to_ne_bytes());
            assert!(!counts(&other, NEIGHBOUR), "another node's, or the pod's");
            for device in [0u64, 0x0101_0000_0000_0300] {
                let queued = memory.clone().with(PACKET + u64::from(PLACES.device), &device.to_ne_bytes());
                assert!(!counts(&queued, NEIGHBOUR), "in a socket's queue: {device:#x}");
            }
        }
        assert!(!counts(&Bytes(BTreeMap::new()), NEIGHBOUR), "nothing can be read");
    }

    #[test]
    fn reasons_that_have_no_counter_of_their_own_share_the_last() {
        for (reason, index) in
            [(0, 0), (2, 2), (254, 254), (255, 255), (256, 255), (65_537, 255), (u32::MAX, 255)]
        {
            assert_eq!(counter(reason), index, "reason {reason}");
        }
    }
}
