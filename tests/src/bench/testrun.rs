//! `BPF_PROG_TEST_RUN` and the empty program that its results are compared with. aya loads from object files only, and
//! there is none for two instructions; so this is bpf(2) itself.
#![allow(unsafe_code, reason = "bpf(2)")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};

/// Commands and types of `linux/bpf.h`.
const PROG_LOAD: libc::c_long = 5;
const PROG_TEST_RUN: libc::c_long = 10;
const PROG_TYPE_SCHED_CLS: u32 = 3;

/// Bytes of `struct __sk_buff` up to and with `hwtstamp`.
const CONTEXT_BYTES: usize = 192;
/// Offsets in it that a test run may set.
const MARK_AT: usize = 8;
const FROM_DEVICE_AT: usize = 36;
const INTERFACE_AT: usize = 40;

/// What stands around a packet.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Around {
    /// Interface of the hook, in this thread's network namespace.
    pub(super) interface: u32,
    /// Interface that it came in by, 0 for none.
    pub(super) from_device: u32,
    /// `skb->mark`.
    pub(super) mark: u32,
}

/// What a run says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ran {
    /// What the program returned the last time.
    pub(super) verdict: i32,
    /// Nanoseconds of one repetition.
    pub(super) nanoseconds: u32,
}

/// `union bpf_attr` of a test run.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    verdict: u32,
    bytes_in: u32,
    bytes_out: u32,
    packet_in: u64,
    packet_out: u64,
    repeat: u32,
    nanoseconds: u32,
    context_in_bytes: u32,
    context_out_bytes: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch: u32,
    padding: u32,
}

/// `union bpf_attr` of a load, as far as it is needed.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// Sends a packet through a program `repeat` times. The kernel uses one skb for all of them: what a program writes into
/// it, the next repetition finds.
pub(super) fn run(program: BorrowedFd<'_>, packet: &[u8], around: Around, repeat: u32) -> Result<Ran> {
    let mut context = [0u8; CONTEXT_BYTES];
    for (at, value) in
        [(MARK_AT, around.mark), (FROM_DEVICE_AT, around.from_device), (INTERFACE_AT, around.interface)]
    {
        context[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    let mut attributes = TestRun {
        program: program.as_raw_fd().unsigned_abs(),
        bytes_in: u32::try_from(packet.len()).context("a packet's length")?,
        packet_in: packet.as_ptr() as u64,
        repeat,
        context_in_bytes: CONTEXT_BYTES as u32,
        context_in: context.as_ptr() as u64,
        ..TestRun::default()
    };
    // SAFETY: packet and context outlive the call and have the lengths that are given; nothing is written back but
    // the attributes.
    unsafe { bpf(PROG_TEST_RUN, &mut attributes) }.context("BPF_PROG_TEST_RUN")?;
    Ok(Ran { verdict: attributes.verdict.cast_signed(), nanoseconds: attributes.nanoseconds })
}

/// Loads a program that does nothing and passes the packet on.
pub(super) fn load_empty() -> Result<OwnedFd> {
    // `r0 = TCX_NEXT (-1)`, `exit`: opcode, registers, offset, immediate (RFC 9669 §3).
    let instructions: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], [0x95, 0, 0, 0, 0, 0, 0, 0]];
    let license = c"GPL";
    let mut attributes = Load {
        kind: PROG_TYPE_SCHED_CLS,
        instruction_count: 2,
        instructions: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        ..Load::default()
    };
    // SAFETY: instructions and licence outlive the call.
    let descriptor = unsafe { bpf(PROG_LOAD, &mut attributes) }.context("loading the empty program")?;
    let descriptor = i32::try_from(descriptor).context("a descriptor is 31 bits")?;
    ensure!(descriptor >= 0, "no descriptor came back");
    // SAFETY: the kernel has just made it for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// # Safety
/// Every address in the attributes must be valid for what the command does with it.
unsafe fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the attributes are borrowed for the call, and their size is given; the caller answers for the rest.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, attributes as *mut T, size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}
