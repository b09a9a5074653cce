//! The entry points, by the name that the agent loads them by.

#![allow(unsafe_code, reason = "kernel helpers and map memory")]

mod act;
mod maps;
mod skb;

use aya_ebpf::Global;
use aya_ebpf::helpers::{bpf_ktime_get_coarse_ns, bpf_probe_read_kernel};
use aya_ebpf::macros::{classifier, raw_tracepoint};
use aya_ebpf::programs::{RawTracePointContext, TcContext};
use sinew_bpf::hooks;
use sinew_bpf::kernel_drop::{self, Places};
use sinew_bpf::settings::Settings;

use crate::programs::maps::KernelMaps;
use crate::programs::skb::Skb;

/// The node's constants, written by the loader before the verifier sees the programs.
#[unsafe(no_mangle)]
static SETTINGS: Global<Settings> = Global::new(Settings::DUAL_STACK);

/// The node's constants, read where they are used: a copy takes 32 bytes of the 512 that a program's stack has.
#[inline(always)]
fn settings() -> &'static Settings {
    let mut settings = (&raw const SETTINGS).cast::<Settings>();
    // SAFETY: no instruction. The compiler must not take the values that the object has for those that are loaded.
    unsafe {
        core::arch::asm!("/* {0} */", inout(reg) settings, options(pure, nomem, nostack, preserves_flags))
    }
    // SAFETY: `Global` is its value alone, which nobody writes once the program is loaded.
    unsafe { &*settings }
}

/// What the agent knows of the kernel's structs.
#[unsafe(no_mangle)]
static PLACES: Global<Places> = Global::new(Places::SAMPLE);

/// As [`settings`].
#[inline(always)]
fn places() -> &'static Places {
    let mut places = (&raw const PLACES).cast::<Places>();
    // SAFETY: no instruction, as in `settings`.
    unsafe {
        core::arch::asm!("/* {0} */", inout(reg) places, options(pure, nomem, nostack, preserves_flags))
    }
    // SAFETY: as in `settings`.
    unsafe { &*places }
}

macro_rules! program {
    ($(#[$doc:meta])* $name:ident, $hook:path) => {
        $(#[$doc])*
        #[classifier]
        pub(crate) fn $name(ctx: TcContext) -> i32 {
            let settings = settings();
            // SAFETY: the helper has no preconditions. Coarse time, 15 ns cheaper, serves lifetimes only.
            let now = unsafe { bpf_ktime_get_coarse_ns() };
            let mut skb = Skb::new(ctx.skb.skb, settings);
            let Some(frame) = maps::frame() else { return act::failed(&skb) };
            let result = $hook(&KernelMaps, &mut skb, settings, now, frame);
            act::act(&skb, settings, result)
        }
    };
}

program!(
    /// tcx ingress on the host side of a pod's pair.
    from_pod,
    hooks::from_pod::from_pod
);
program!(
    /// tcx egress on the host side of a pod's pair.
    to_pod,
    hooks::to_pod::to_pod
);
program!(
    /// tcx ingress of an underlay device.
    from_net,
    hooks::from_net::from_net
);
program!(
    /// tcx egress of an underlay device.
    to_net,
    hooks::to_net::to_net
);
program!(
    /// tcx ingress of the VXLAN device.
    from_overlay,
    hooks::from_overlay::from_overlay
);
program!(
    /// tcx egress of the VXLAN device.
    to_overlay,
    hooks::to_overlay::to_overlay
);
program!(
    /// By tail call from `from_pod`: answers what was refused.
    answer,
    hooks::from_pod::answer
);

/// At the tracepoint where the kernel tells of each packet that it drops: counts those that the programs above handed on.
#[raw_tracepoint(tracepoint = "kfree_skb")]
pub(crate) fn kernel_drop(ctx: RawTracePointContext) -> i32 {
    // `TP_PROTO` since Linux 5.17: the packet, the place in the code, the reason.
    let (packet, reason) = (ctx.arg::<u64>(0), ctx.arg::<u32>(2));
    let places = places();
    if kernel_drop::is_ours(&KernelMemory, places, settings(), packet, reason) {
        maps::count_kernel_drop(places.load, reason);
    }
    0
}

struct KernelMemory;

impl kernel_drop::Memory for KernelMemory {
    #[inline(always)]
    fn read<T: Copy>(&self, at: u64) -> Option<T> {
        // SAFETY: the helper takes any address and fails where nothing is mapped; what is read are plain numbers.
        unsafe { bpf_probe_read_kernel(at as *const T) }.ok()
    }
}
