//! The node's settings, fixed when the programs are loaded (`.rodata`), so that the verifier removes code that is off.

/// UDP port of the overlay where nobody chooses another one, as in Linux and Cilium.
pub const TUNNEL_PORT: u16 = 8472;

/// Constants of a node.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Nanoseconds between two reports about one direction of a live connection; 0 reports every packet, `u64::MAX` none.
    pub report_interval: u64,
    /// Identity of IPv4 addresses outside the cluster: 9 where both families are on, else 2.
    pub world_v4: u32,
    /// Identity of IPv6 addresses outside the cluster: 10 where both families are on, else 2.
    pub world_v6: u32,
    /// Interface of the VXLAN device, 0 with native routing only.
    pub overlay_ifindex: u32,
    /// The bits of `skb->mark` that belong to the node's programs, two or more. All set, they say that these have judged a
    /// packet and sent it off the node.
    pub mark: u32,
    /// UDP port of the overlay, network order. No pod may send to it on a node, overlay or not.
    pub tunnel_port: u16,
    /// 1: refused egress is answered (`policyDenyResponse: reject`); 0: it is dropped.
    pub reject: u8,
    /// 1: hop limits are decremented; 0 in repeated test runs, which use the same skb again and again.
    pub lower_hop_limit: u8,
    /// The longest packet, from its IP header on, that fits into the overlay; 0 without an overlay.
    pub overlay_mtu: u32,
    /// Nanoseconds between two records of dropped packets on one CPU in the long run ([`crate::maps::DropRecords`]);
    /// 0: every drop is reported.
    pub drop_interval: u32,
    /// 1: programs leave records; 0: they only count.
    pub records: u8,
    /// Zero.
    pub reserved: u8,
    /// Where the kernel keeps what is still to be filled in of a packet's checksum.
    pub pending: PendingPlaces,
}

/// Bytes of `sk_buff` that contain every field whose offset is in [`PendingPlaces`].
pub const PENDING_BYTES: usize = 64;

/// Byte offsets of the fields of `sk_buff` that say whether and where a checksum is still to be filled in. They differ from
/// build to build of the kernel; the agent finds them in the kernel's type information.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingPlaces {
    /// Where the [`PENDING_BYTES`] begin from which the other offsets count. 0: not known, and nothing is checked.
    pub from: u16,
    /// The byte with `ip_summed`.
    pub summed: u16,
    /// Bits below it in that byte.
    pub summed_shift: u16,
    /// `csum_start`, with `csum_offset` behind it.
    pub start: u16,
    /// `mac_header`.
    pub link: u16,
}

impl PendingPlaces {
    /// For a kernel that doesn't publish its types.
    pub const UNKNOWN: Self = Self { from: 0, summed: 0, summed_shift: 0, start: 0, link: 0 };

    /// Those of some kernel (6.18), for the verifier to walk through.
    pub const SAMPLE: Self = Self { from: 128, summed: 0, summed_shift: 5, start: 8, link: 54 };
}

impl Settings {
    /// What marks a pod's answer that takes the host's stack: the lowest bit.
    #[inline(always)]
    #[must_use]
    pub const fn answer_mark(&self) -> u32 {
        self.mark & self.mark.wrapping_neg()
    }

    /// What a node with both families has, without overlay.
    pub const DUAL_STACK: Self = Self {
        report_interval: 5_000_000_000,
        world_v4: 9,
        world_v6: 10,
        overlay_ifindex: 0,
        mark: 0x0300_0000,
        tunnel_port: TUNNEL_PORT.to_be(),
        reject: 0,
        lower_hop_limit: 1,
        overlay_mtu: 0,
        drop_interval: 0,
        records: 1,
        reserved: 0,
        pending: PendingPlaces::UNKNOWN,
    };
}

const _: () = assert!(size_of::<Settings>() == 48);
