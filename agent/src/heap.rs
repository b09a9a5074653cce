//! What the C library's allocator keeps of memory that was freed. The store's thread reads a whole cluster, the control
//! loop's keeps a fraction of that: in an arena for each thread, as glibc has them, neither uses what the other frees.
//! And what lies free between pieces in use stays with the process until somebody asks for it to be given back. What both
//! measures save is in `docs/performance.md`.
//!
//! Neighbour: `run` calls. With another C library this does nothing.

#![allow(unsafe_code, reason = "calls of the C library, without pointers")]

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::sleep;

/// Free bytes at the heap's end that stay with the process. It is glibc's default too, but that grows with what is freed.
#[cfg(target_env = "gnu")]
const SPARE: i32 = 128 << 10;
/// Time between two rounds of giving back. A round takes 0.1 ms, and 1 to 3 ms after much was freed (40 MB in use); until it
/// ends, threads that need more memory than their own caches have wait for it.
const ROUND: Duration = Duration::from_secs(10);

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

/// Gives the kernel back the whole pages that lie free between pieces in use, again and again.
pub(crate) async fn give_back() -> Infallible {
    loop {
        sleep(ROUND).await;
        #[cfg(target_env = "gnu")]
        // SAFETY: malloc_trim takes a number and locks what it looks at.
        unsafe {
            libc::malloc_trim(SPARE as usize);
        }
    }
}
