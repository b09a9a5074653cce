//! The kernel programs: a thin shell that hands each packet to its hook in the library and does what it answers.
//! On the host this is an empty binary, so that the workspace checks everywhere.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod programs;

#[cfg(not(target_arch = "bpf"))]
fn main() {}

/// A panic can't happen: there is no path to it, and the verifier rejects a program that has one.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The helpers that the programs call demand a licence compatible with the GPL.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
#[allow(unsafe_code, reason = "the loader finds the licence by section")]
static LICENSE: [u8; 13] = *b"Dual BSD/GPL\0";
