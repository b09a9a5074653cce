//! Waiting until every program run that has begun is over.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

/// Commands of bpf(2) and kinds of maps (include/uapi/linux/bpf.h).
const MAP_CREATE: i32 = 0;
const MAP_UPDATE_ELEM: i32 = 2;
const ARRAY: u32 = 2;
const ARRAY_OF_MAPS: u32 = 12;

/// Waits for one RCU grace period: tc programs run inside RCU read-side sections, so afterwards nobody reads what was
/// replaced before. `MEMBARRIER_CMD_GLOBAL` is `synchronize_rcu` (kernel/sched/membarrier.c, 4.3 and later).
pub fn grace() {
    const GLOBAL: i32 = 1;
    // SAFETY: membarrier takes three integers and touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    if result == 0 {
        return;
    }
    // Kernels with nohz_full cores refuse it.
    if let Err(error) = grace_by_map() {
        // Grace periods end within a few ticks; a whole second is enough whatever the machine does, and delays a policy
        // change by that second.
        tracing::warn!(%error, "a grace period cannot be waited for; a second has to do");
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}

/// The same by putting a map into an array of maps: before that system call returns, the kernel waits until no program
/// can use what stood there before (`maybe_wait_bpf_programs`, kernel/bpf/syscall.c, 5.0 and later).
fn grace_by_map() -> io::Result<()> {
    let inner = create(ARRAY, None)?;
    let outer = create(ARRAY_OF_MAPS, Some(&inner))?;
    let (key, value) = (0_u32, inner.as_raw_fd());
    let update = Update {
        map: outer.as_raw_fd(),
        reserved: 0,
        key: ptr::from_ref(&key).expose_provenance() as u64,
        value: ptr::from_ref(&value).expose_provenance() as u64,
        flags: 0,
    };
    bpf(MAP_UPDATE_ELEM, &update).map(drop)
}

/// A map of one number, or of one map like `inner`.
fn create(kind: u32, inner: Option<&OwnedFd>) -> io::Result<OwnedFd> {
    let create = Create {
        kind,
        key_size: 4,
        value_size: 4,
        entries: 1,
        flags: 0,
        inner: inner.map_or(0, AsRawFd::as_raw_fd),
    };
    let fd = bpf(MAP_CREATE, &create)?;
    // SAFETY: the kernel has just given this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What `union bpf_attr` begins with for `BPF_MAP_CREATE`. The kernel takes what is left out for zero.
#[repr(C)]
struct Create {
    kind: u32,
    key_size: u32,
    value_size: u32,
    entries: u32,
    flags: u32,
    inner: i32,
}

/// The same for `BPF_MAP_UPDATE_ELEM`.
#[repr(C)]
struct Update {
    map: i32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn bpf<T>(command: i32, attributes: &T) -> io::Result<i32> {
    // SAFETY: the kernel reads `attributes`, and what they point to, during the call only; `T` is a prefix of
    // `union bpf_attr` for this command.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, ptr::from_ref(attributes), size_of::<T>()) };
    i32::try_from(result).ok().filter(|result| *result >= 0).ok_or_else(io::Error::last_os_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// That the call waits can't be seen from here, only that the kernel takes it.
    #[test]
    fn the_kernel_takes_a_map_into_an_array_of_maps() {
        match grace_by_map() {
            Ok(()) => {}
            // Without the right to load programs there is nothing to wait for.
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}"),
        }
    }
}
