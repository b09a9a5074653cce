//! Map layouts and the verdict code of Sinew's datapath: pure functions over a [`maps::Maps`] and a [`packet::Packet`],
//! built for the kernel by the programs (`main.rs`) and for the host by tests, `explain` and `simulate` ([`host`]).
//!
//! Read [`hooks`] first: one function for each program, which calls the stages in order. The comments above
//! [`policy`], [`conntrack`], [`source`], [`identity`] and [`deliver`] are the specification; the code follows by number.

#![no_std]
// `lock` additions exist as assembly only; stable on the host, where it is not used.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(any(test, not(target_arch = "bpf")))]
extern crate std;

pub mod abi;
pub mod conntrack;
pub mod deliver;
pub mod drop;
pub mod hooks;
#[cfg(not(target_arch = "bpf"))]
pub mod host;
pub mod identity;
pub mod kernel_drop;
pub mod maps;
pub mod packet;
pub mod parse;
pub mod policy;
pub mod reject;
pub mod settings;
pub mod source;
