//! Which system calls are steps of an ADD or a DEL.

use nix::libc;
use sinew_tests::lab::tripwire::SystemCall;

/// Commands of bpf(2) that read only (enum bpf_cmd, include/uapi/linux/bpf.h): lookups, walks, descriptors and questions.
const READING_BPF: [u64; 15] = [1, 4, 7, 11, 12, 13, 14, 15, 16, 19, 20, 23, 24, 30, 31];

/// Every call of the plugin, from its first instruction on.
pub(crate) fn of_plugin() -> impl FnMut(&SystemCall) -> bool {
    let mut started = false;
    move |call| {
        started = started || call.program().is_some_and(|program| program.ends_with("sinew-cni"));
        started
    }
}

/// Every call of the agent that something outside of it can notice, from the moment on at which a runtime connects.
pub(crate) fn of_agent() -> impl FnMut(&SystemCall) -> bool {
    let mut asked = false;
    move |call| {
        asked = asked || call.number == libc::SYS_accept4;
        asked && has_effect(call)
    }
}

fn has_effect(call: &SystemCall) -> bool {
    let [first, _, third, ..] = call.arguments;
    match call.number {
        libc::SYS_bpf => !READING_BPF.contains(&first),
        libc::SYS_openat => third & (libc::O_CREAT | libc::O_TRUNC) as u64 != 0,
        libc::SYS_write | libc::SYS_writev | libc::SYS_pwrite64 => is_seen(call, first),
        libc::SYS_sendto
        | libc::SYS_sendmsg
        | libc::SYS_sendmmsg
        | libc::SYS_ioctl
        | libc::SYS_ftruncate
        | libc::SYS_fallocate
        | libc::SYS_renameat
        | libc::SYS_renameat2
        | libc::SYS_unlinkat
        | libc::SYS_mkdirat
        | libc::SYS_linkat
        | libc::SYS_symlinkat
        | libc::SYS_fchmodat
        | libc::SYS_fchownat
        | libc::SYS_mount
        | libc::SYS_umount2 => true,
        number => is_older_form(number),
    }
}

/// What a process writes to wake its own threads, or to tell a person, is no state.
fn is_seen(call: &SystemCall, descriptor: u64) -> bool {
    let what = call.descriptor(descriptor);
    descriptor > 2 && what.is_none_or(|what| !what.to_string_lossy().starts_with("anon_inode:[eventfd"))
}

/// The forms without a folder's descriptor, which only some machines have.
#[cfg(target_arch = "x86_64")]
fn is_older_form(number: libc::c_long) -> bool {
    [
        libc::SYS_creat,
        libc::SYS_rename,
        libc::SYS_unlink,
        libc::SYS_mkdir,
        libc::SYS_rmdir,
        libc::SYS_link,
        libc::SYS_symlink,
        libc::SYS_chmod,
        libc::SYS_chown,
    ]
    .contains(&number)
}

#[cfg(not(target_arch = "x86_64"))]
fn is_older_form(_: libc::c_long) -> bool {
    false
}
