//! [`Packet`] over an skb: direct packet access, and the helpers that rewrite and route.

use aya_ebpf::bindings::{
    __sk_buff, BPF_F_TUNINFO_IPV6, BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NOT_FWDED,
    BPF_FIB_LKUP_RET_SUCCESS, BPF_FIB_LOOKUP_SKIP_NEIGH, bpf_fib_lookup as FibLookup, bpf_tunnel_key,
};
use aya_ebpf::helpers::{
    bpf_csum_update, bpf_fib_lookup, bpf_probe_read_kernel_buf, bpf_skb_change_tail, bpf_skb_change_type,
    bpf_skb_get_tunnel_key, bpf_skb_pull_data, bpf_skb_store_bytes,
};
use sinew_bpf::abi::Address;
use sinew_bpf::packet::{Header, Packet, Route, RouteQuery, TunnelKey};
use sinew_bpf::parse::LINK_BYTES;
use sinew_bpf::settings::{PENDING_BYTES, Settings};

/// Address families, as the kernel numbers them.
pub(super) const AF_INET: u32 = 2;
/// IPv6.
pub(super) const AF_INET6: u32 = 10;
/// `PACKET_HOST` of `if_packet.h`.
const PACKET_HOST: u32 = 0;
/// `CHECKSUM_PARTIAL` of `skbuff.h`: the checksum is filled in by whoever sends the packet off the machine.
const CHECKSUM_PARTIAL: u8 = 3;
/// Bits of `ip_summed`.
const SUMMED_BITS: u8 = 3;
/// What one pull makes linear: link header, an IPv6 header with some extensions, and TCP with its options.
const PULL_BYTES: u32 = 160;

/// An skb at a hook.
pub(super) struct Skb<'a> {
    raw: *mut __sk_buff,
    settings: &'a Settings,
}

impl<'a> Skb<'a> {
    /// Wraps the context of a program.
    #[inline(always)]
    pub(super) fn new(raw: *mut __sk_buff, settings: &'a Settings) -> Self {
        Self { raw, settings }
    }

    /// The context.
    #[inline(always)]
    pub(super) fn raw(&self) -> *mut __sk_buff {
        self.raw
    }

    /// Interface of the hook.
    #[inline(always)]
    pub(super) fn ifindex(&self) -> u32 {
        // SAFETY: the kernel passes a valid context.
        unsafe { (*self.raw).ifindex }
    }

    /// Sets the mark.
    #[inline(always)]
    pub(super) fn set_mark(&self, mark: u32) {
        // SAFETY: the kernel passes a valid context, whose mark tc programs may write.
        unsafe { (*self.raw).mark = mark }
    }

    /// Writes what [`sinew_bpf::kernel_drop`] reads, into the part of the control block that belongs to tc programs. Its
    /// place there is `Places::note`.
    #[inline(always)]
    pub(super) fn set_note(&self, note: u64) {
        // SAFETY: the kernel passes a valid context, whose `cb` tc programs may write, also two words at once; the third
        // of them begins at a multiple of eight.
        unsafe { (&raw mut (*self.raw).cb[2]).cast::<u64>().write(note) }
    }

    /// Bytes of the linear part, to be written in place: each helper call in their stead takes 25 ns.
    #[inline(always)]
    fn writable<const N: usize>(&mut self, at: usize) -> Option<*mut u8> {
        // Volatile for the same reason as in `linear`.
        // SAFETY: the kernel passes a valid context.
        let (data, end) = unsafe {
            ((&raw const (*self.raw).data).read_volatile(), (&raw const (*self.raw).data_end).read_volatile())
        };
        let (data, end) = (data as usize, end as usize);
        if data + at + N > end {
            return None;
        }
        Some((data + at) as *mut u8)
    }

    #[inline(always)]
    fn linear<T: Header>(&self, at: usize) -> Option<T> {
        // Volatile, so that each use has a load of its own: of a value that it has already, the compiler clears the upper
        // half by shifts, which the verifier forbids on a packet pointer.
        // SAFETY: the kernel passes a valid context.
        let (data, end) = unsafe {
            ((&raw const (*self.raw).data).read_volatile(), (&raw const (*self.raw).data_end).read_volatile())
        };
        let (data, end) = (data as usize, end as usize);
        if data + at + size_of::<T>() > end {
            return None;
        }
        // SAFETY: the bytes lie inside the linear part, any bytes are a value of a header, and headers begin at even
        // addresses, which is all that they ask for.
        Some(unsafe { ((data + at) as *const T).read() })
    }
}

impl Packet for Skb<'_> {
    #[inline(always)]
    fn load<T: Header>(&self, at: usize) -> Option<T> {
        // A one-byte check at a variable offset proves nothing to the verifier.
        const { assert!(size_of::<T>() > 1) };
        if at > 1024 {
            return None;
        }
        if let Some(header) = self.linear(at) {
            return Some(header);
        }
        // Packets from a NIC or a decapsulation have 14 linear bytes: pull once, for all headers (datapath.md 22).
        let length = self.length();
        let end = (at + size_of::<T>()) as u32;
        if end > length {
            return None;
        }
        let wanted = if end > PULL_BYTES {
            end
        } else if length < PULL_BYTES {
            length
        } else {
            PULL_BYTES
        };
        // SAFETY: the kernel passes a valid context.
        unsafe { bpf_skb_pull_data(self.raw, wanted) };
        self.linear(at)
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        // SAFETY: the kernel passes a valid context.
        unsafe { (*self.raw).len }
    }

    #[inline(always)]
    fn vlan_tagged(&self) -> bool {
        // SAFETY: the kernel passes a valid context.
        unsafe { (*self.raw).vlan_present != 0 }
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        self.ifindex()
    }

    #[inline(always)]
    fn from_device(&self) -> u32 {
        // SAFETY: the kernel passes a valid context.
        unsafe { (*self.raw).ingress_ifindex }
    }

    #[inline(always)]
    fn has_socket(&self) -> bool {
        // SAFETY: the kernel passes a valid context; the pointer is compared with null and not followed.
        !unsafe { (*self.raw).__bindgen_anon_2.sk }.is_null()
    }

    #[inline(always)]
    fn for_this_host(&self) -> bool {
        // SAFETY: the kernel passes a valid context.
        unsafe { (*self.raw).pkt_type == PACKET_HOST }
    }

    #[inline(always)]
    fn segments(&self) -> u32 {
        // SAFETY: the kernel passes a valid context.
        unsafe { (*self.raw).gso_segs }
    }

    #[inline(always)]
    fn segment_size(&self) -> u32 {
        // SAFETY: the kernel passes a valid context.
        unsafe { (*self.raw).gso_size }
    }

    #[inline(always)]
    fn pending_checksum(&self, room: &mut [u8; PENDING_BYTES]) -> Option<u32> {
        let places = &self.settings.pending;
        if places.from == 0 {
            return None;
        }
        let at = (self.raw as usize + usize::from(places.from)) as *const u8;
        // SAFETY: the context of a tc program is the kernel's `sk_buff`; the helper takes any address, and what it reads
        // are plain numbers.
        if unsafe { bpf_probe_read_kernel_buf(at, room) }.is_err() {
            return Some(0);
        }
        let byte = |at: u16| room[usize::from(at) % PENDING_BYTES];
        let half = |at: u16| u32::from(u16::from_ne_bytes([byte(at), byte(at + 1)]));
        if (byte(places.summed) >> (places.summed_shift & 7)) & SUMMED_BITS != CHECKSUM_PARTIAL {
            return None;
        }
        // Both places are counted from the buffer's beginning.
        Some((half(places.start) + half(places.start + 2)).wrapping_sub(half(places.link)))
    }

    #[inline(always)]
    fn marked(&self) -> bool {
        // SAFETY: the kernel passes a valid context.
        unsafe { (*self.raw).mark & self.settings.mark == self.settings.mark }
    }

    #[inline(always)]
    fn mark_answer(&mut self) {
        self.set_mark(self.settings.answer_mark());
    }

    #[inline(always)]
    fn is_answer(&self) -> bool {
        // SAFETY: the kernel passes a valid context.
        unsafe { (*self.raw).mark & self.settings.mark == self.settings.answer_mark() }
    }

    #[inline(always)]
    fn tunnel_key(&self) -> Option<TunnelKey> {
        // SAFETY: all zeros is a value of this plain C struct; the helper writes no more than the size given.
        let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
        let size = size_of::<bpf_tunnel_key>() as u32;
        // SAFETY: as above.
        if unsafe { bpf_skb_get_tunnel_key(self.raw, &mut key, size, 0) } == 0 {
            // SAFETY: the helper filled the IPv4 side of the union.
            let source = unsafe { key.__bindgen_anon_1.remote_ipv4 };
            return Some(TunnelKey { vni: key.tunnel_id, source: Address::v4(source.to_be()) });
        }
        // The helper wants to be told the outer family, and refuses the wrong one.
        // SAFETY: as above.
        if unsafe { bpf_skb_get_tunnel_key(self.raw, &mut key, size, u64::from(BPF_F_TUNINFO_IPV6)) } == 0 {
            // SAFETY: the helper filled the IPv6 side of the union.
            let source = unsafe { key.__bindgen_anon_1.remote_ipv6 };
            return Some(TunnelKey { vni: key.tunnel_id, source: Address(source) });
        }
        None
    }

    #[inline(always)]
    fn route(&self, query: &RouteQuery) -> Route {
        let mut hop = Hop { next: Address::NONE, ifindex: self.ifindex() };
        match lookup(self.raw, query, &mut hop) as u32 {
            BPF_FIB_LKUP_RET_SUCCESS => Route::Forward { ifindex: hop.ifindex, next_hop: hop.next },
            BPF_FIB_LKUP_RET_NOT_FWDED => Route::Local,
            BPF_FIB_LKUP_RET_FRAG_NEEDED => Route::TooBig,
            _ => Route::None,
        }
    }

    #[inline(always)]
    fn set_macs(&mut self, destination: [u8; 6], source: [u8; 6]) -> bool {
        let Some(start) = self.writable::<12>(0) else { return false };
        let [a, b, c, d, e, f] = destination;
        let [g, h, i, j, k, l] = source;
        let words = [[a, b], [c, d], [e, f], [g, h], [i, j], [k, l]];
        let start = start.cast::<u16>();
        // SAFETY: twelve bytes of the linear part, which begins at an even address.
        unsafe {
            start.write(u16::from_ne_bytes(words[0]));
            start.add(1).write(u16::from_ne_bytes(words[1]));
            start.add(2).write(u16::from_ne_bytes(words[2]));
            start.add(3).write(u16::from_ne_bytes(words[3]));
            start.add(4).write(u16::from_ne_bytes(words[4]));
            start.add(5).write(u16::from_ne_bytes(words[5]));
        }
        true
    }

    #[inline(always)]
    fn decrement_hop_limit(&mut self, v4: bool) -> bool {
        /// TTL, protocol and checksum of IPv4.
        const TTL_AT: usize = LINK_BYTES + 8;
        /// Next header and hop limit of IPv6.
        const NEXT_HEADER_AT: usize = LINK_BYTES + 6;
        if !v4 {
            let Some(at) = self.writable::<2>(NEXT_HEADER_AT) else { return false };
            // SAFETY: two bytes of the linear part.
            unsafe { at.add(1).write(at.add(1).read().wrapping_sub(1)) };
            // Of a checksum over the whole packet, which a NIC may have left, the byte is a part; no header checksum
            // makes up for it as in IPv4. The helper refuses where there is no such sum.
            // SAFETY: a plain number: one less in the second byte of a word, in one's complement (RFC 1624).
            let _ = unsafe { bpf_csum_update(self.raw, !u32::from(u16::from_ne_bytes([0, 1]))) };
            return true;
        }
        let Some(at) = self.writable::<4>(TTL_AT) else { return false };
        // SAFETY: four bytes of the linear part, at an even address.
        unsafe {
            at.write(at.read().wrapping_sub(1));
            // A TTL one lower makes the checksum 0x0100 higher, its carry brought round (RFC 1141).
            let sum = u32::from(u16::from_be(at.add(2).cast::<u16>().read())) + 0x0100;
            let sum = (sum + u32::from(sum >= 0xffff)) as u16;
            at.add(2).cast::<u16>().write(sum.to_be());
        }
        true
    }

    #[inline(always)]
    fn resize(&mut self, bytes: u32) -> bool {
        // SAFETY: the kernel passes a valid context.
        unsafe { bpf_skb_change_tail(self.raw, bytes, 0) == 0 }
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, at: u32, bytes: &[u8; N]) -> bool {
        // SAFETY: N bytes of ours.
        unsafe { bpf_skb_store_bytes(self.raw, at, bytes.as_ptr().cast(), N as u32, 0) == 0 }
    }

    #[inline(always)]
    fn prepare_delivery(&mut self) {
        self.set_mark(0);
        // SAFETY: the kernel passes a valid context.
        if unsafe { (*self.raw).pkt_type } == PACKET_HOST {
            return;
        }
        // SAFETY: the kernel passes a valid context.
        let _ = unsafe { bpf_skb_change_type(self.raw, PACKET_HOST) };
    }
}

/// Where a packet goes next; `ifindex` is where it came in when it is asked.
struct Hop {
    next: Address,
    ifindex: u32,
}

/// Asks the kernel's routing. Out of line: the question takes 64 bytes of stack that the hooks don't have.
#[inline(never)]
fn lookup(raw: *mut __sk_buff, query: &RouteQuery, hop: &mut Hop) -> i64 {
    // SAFETY: all zeros is a value of this plain C struct.
    let mut lookup: FibLookup = unsafe { core::mem::zeroed() };
    lookup.ifindex = hop.ifindex;
    lookup.__bindgen_anon_1.tot_len = query.length;
    if query.destination.is_v4() {
        lookup.family = AF_INET as u8;
        lookup.__bindgen_anon_3.ipv4_src = query.source.v4_word();
        lookup.__bindgen_anon_4.ipv4_dst = query.destination.v4_word();
    } else {
        lookup.family = AF_INET6 as u8;
        lookup.__bindgen_anon_3.ipv6_src = query.source.0;
        lookup.__bindgen_anon_4.ipv6_dst = query.destination.0;
    }
    // SAFETY: the struct lives on the stack and has the size that is given. The neighbour is left to
    // `bpf_redirect_neigh`, which resolves it.
    let answer = unsafe {
        bpf_fib_lookup(raw.cast(), &mut lookup, size_of::<FibLookup>() as i32, BPF_FIB_LOOKUP_SKIP_NEIGH)
    };
    hop.ifindex = lookup.ifindex;
    hop.next = if u32::from(lookup.family) == AF_INET {
        // SAFETY: the next hop is in the side of the union that `family` names.
        Address::v4(unsafe { lookup.__bindgen_anon_4.ipv4_dst })
    } else {
        // SAFETY: as above.
        Address(unsafe { lookup.__bindgen_anon_4.ipv6_dst })
    };
    answer as i64
}
