//! What the C library's allocator keeps of memory that was freed. The store's thread reads a whole cluster, the control
//! loop's keeps a fraction of that: in an arena for each thread, as glibc has them, neither uses what the other frees.
//! Measured at 110 endpoints and 10,000 identities: 71 MB became 64, and after a restart 83 became 66
//! (`docs/performance.md`).
//!
//! Neighbour: `run` calls. With another C library this does nothing.

#![allow(unsafe_code, reason = "a call of the C library, without pointers")]

/// Free bytes at the heap's end that stay with the process. It is glibc's default too, but that grows with what is freed.
#[cfg(target_env = "gnu")]
const SPARE: i32 = 128 << 10;

/// Lets all threads share one arena. To be called before there are others. Small pieces don't meet its lock: each thread
/// has a cache of those.
pub(crate) fn share_one_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two numbers; no other thread allocates yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TRIM_THRESHOLD, SPARE);
    }
}
