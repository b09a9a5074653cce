//! Waiting until every program run that had begun is over.

/// Waits for one RCU grace period: tc programs run inside RCU read-side sections, so afterwards nobody reads what was
/// replaced before. `MEMBARRIER_CMD_GLOBAL` is `synchronize_rcu` (kernel/sched/membarrier.c, 4.3 and later).
pub fn grace() {
    const GLOBAL: i32 = 1;
    // SAFETY: membarrier takes three integers and touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    if result != 0 {
        // Kernels with nohz_full cores refuse it. Grace periods end within some ticks there; a whole second holds
        // whatever the machine does, and costs a policy change that second.
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}
