//! Does what a hook has decided.

use aya_ebpf::bindings::{
    BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX, TC_ACT_SHOT, bpf_redir_neigh, bpf_tunnel_key, tcx_action_base,
};
use aya_ebpf::helpers::{bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer, bpf_skb_set_tunnel_key};
use sinew_bpf::abi::Address;
use sinew_bpf::deliver::Action;
use sinew_bpf::drop::{DropReason, Dropped};
use sinew_bpf::kernel_drop;
use sinew_bpf::maps::Maps;
use sinew_bpf::packet::Packet;
use sinew_bpf::settings::Settings;

use super::maps;
use super::skb::{AF_INET, AF_INET6, Skb};

/// The next program of the device decides; without one the packet goes on.
const NEXT: i32 = tcx_action_base::TCX_NEXT;
/// The packet is dropped.
const SHOT: i32 = TC_ACT_SHOT as i32;

/// Carries an action out; returns the program's verdict.
#[inline(always)]
pub(super) fn act(skb: &Skb<'_>, settings: &Settings, result: Result<Action, Dropped>) -> i32 {
    match result {
        Err(_) => shot(skb),
        Ok(Action::Stack) => NEXT,
        Ok(Action::Answer) => {
            maps::answer(skb.raw());
            shot(skb)
        }
        Ok(Action::Endpoint { ifindex }) => {
            skb.set_note(kernel_drop::INTO_POD);
            // SAFETY: the helper takes any number and refuses an unknown interface.
            unsafe { bpf_redirect_peer(ifindex, 0) as i32 }
        }
        Ok(Action::Forward { ifindex, next_hop }) => {
            // `to_net` has nothing to ask about it.
            skb.set_mark(settings.mark);
            forward(ifindex, &next_hop)
        }
        Ok(Action::Overlay { remote, vni }) => overlay(skb, settings, &remote, vni),
    }
}

/// Drops a packet for what no stage could foresee, and counts it: every drop has a reason.
#[inline(always)]
pub(super) fn failed(skb: &Skb<'_>) -> i32 {
    maps::KernelMaps.count_drop(DropReason::ProgramFailed as u16, skb.length());
    shot(skb)
}

/// The verdict for what is dropped here. It has a reason of ours, and must not be counted once more as the kernel's drop
/// of what an earlier program handed on.
#[inline(always)]
fn shot(skb: &Skb<'_>) -> i32 {
    skb.set_mark(0);
    skb.set_note(0);
    SHOT
}

#[inline(never)]
fn forward(ifindex: u32, next_hop: &Address) -> i32 {
    // SAFETY: all zeros is a value of this plain C struct.
    let mut neighbour: bpf_redir_neigh = unsafe { core::mem::zeroed() };
    if next_hop.is_v4() {
        neighbour.nh_family = AF_INET;
        neighbour.__bindgen_anon_1.ipv4_nh = next_hop.v4_word();
    } else {
        neighbour.nh_family = AF_INET6;
        neighbour.__bindgen_anon_1.ipv6_nh = next_hop.0;
    }
    // SAFETY: the struct lives on the stack and has the size that is given.
    unsafe { bpf_redirect_neigh(ifindex, &mut neighbour, size_of::<bpf_redir_neigh>() as i32, 0) as i32 }
}

/// Out of line, as everything that takes stack and happens once, at the end.
///
/// Sets the tunnel key and the mark that `to_net` lets out; a packet that is not on the VXLAN device yet goes there.
#[inline(never)]
fn overlay(skb: &Skb<'_>, settings: &Settings, remote: &Address, vni: u32) -> i32 {
    // SAFETY: all zeros is a value of this plain C struct.
    let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
    key.tunnel_id = vni;
    key.tunnel_ttl = 64;
    // Without a UDP checksum over IPv4, as RFC 7348 §5 asks; IPv6 demands one.
    let flags = if remote.is_v4() {
        key.__bindgen_anon_1.remote_ipv4 = u32::from_be(remote.v4_word());
        u64::from(BPF_F_ZERO_CSUM_TX)
    } else {
        key.__bindgen_anon_1.remote_ipv6 = remote.0;
        u64::from(BPF_F_TUNINFO_IPV6)
    };
    // SAFETY: the struct lives on the stack and has the size that is given.
    let set =
        unsafe { bpf_skb_set_tunnel_key(skb.raw(), &mut key, size_of::<bpf_tunnel_key>() as u32, flags) };
    if set != 0 {
        return failed(skb);
    }
    skb.set_mark(settings.mark);
    if skb.ifindex() == settings.overlay_ifindex {
        return NEXT;
    }
    // SAFETY: the helper takes any number and refuses an unknown interface.
    unsafe { bpf_redirect(settings.overlay_ifindex, 0) as i32 }
}
