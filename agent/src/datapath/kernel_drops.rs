//! Counts packets that the programs redirected and the kernel then dropped (datapath.md 32).
//!
//! A program is attached to the tracepoint `kfree_skb`, where the kernel reports each packet that it drops, and counts this
//! node's by the kernel's own reason ([`sinew_bpf::kernel_drop`] says how it recognises them). Its link is pinned, so
//! that it counts while no agent runs. It belongs to no interface, so `links.rs` does not handle it. The kernel can't
//! replace the program of a tracepoint's link, so a new link takes the old one's place. For a moment both exist: the map
//! `COUNTING` names the load whose program counts. Where the kernel has no such tracepoint, or does not publish its
//! types, the node works without this count, and says so.
//!
//! Neighbour: `kernel.rs` finds what the program must know of the running kernel.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use aya::Ebpf;
use aya::maps::{Array, Map, MapData, PerCpuArray};
use aya::programs::RawTracePoint;
use aya::programs::links::FdLink;
use sinew_bpf::kernel_drop::COUNTERS;

use super::DatapathError;
use super::kernel::Kernel;
use super::pins::{Take, typed};

/// The program, and the name of its link's pin.
const PROGRAM: &str = "kernel_drop";
/// The tracepoint it is attached to.
const TRACEPOINT: &str = "kfree_skb";
/// Prefix of a pin's name that is about to replace another pin.
const BESIDE: &str = "new-";

/// Packets that the kernel dropped for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelDrop {
    /// The kernel's name of the reason, such as `NEIGH_FAILED`; its number where it has no name, `OTHER` for all that are
    /// beyond the counters.
    pub reason: String,
    /// Packets.
    pub packets: u64,
}

/// Whether drops are counted, and what their reasons are called.
#[derive(Clone, Debug)]
pub(super) struct Counting {
    /// Why they are not.
    off: Option<String>,
    names: Arc<BTreeMap<u32, String>>,
}

impl Counting {
    /// Attaches the program of a loaded object. If that fails, everything else works without it.
    pub(super) fn begin(loaded: &mut Ebpf, counting: Map, kernel: &Kernel, folder: &Path) -> Self {
        let names = Arc::new(kernel.reasons.clone());
        let pin = folder.join(PROGRAM);
        let attached = match &kernel.places {
            Ok(places) => attach(loaded, counting, places.load, folder, &pin).map_err(|e| e.to_string()),
            Err(why) => Err(why.clone()),
        };
        let off = match attached {
            Ok(()) => None,
            // A program of an earlier agent keeps counting, into the same counters.
            Err(error) if pin.exists() => {
                tracing::warn!(%error, "an earlier program goes on counting what the kernel drops");
                None
            }
            Err(error) => {
                tracing::warn!(%error, "what the kernel drops after a redirect is not counted");
                Some(error)
            }
        };
        Self { off, names }
    }
}

fn attach(
    loaded: &mut Ebpf,
    counting: Map,
    load: u64,
    folder: &Path,
    pin: &Path,
) -> Result<(), DatapathError> {
    let attempt = |what: &str| format!("{what} program {PROGRAM}");
    let program: &mut RawTracePoint = loaded
        .program_mut(PROGRAM)
        .ok_or_else(|| DatapathError::kernel(attempt("looking for"), "the object doesn't have it"))?
        .try_into()
        .map_err(|e| DatapathError::kernel(attempt("looking at"), e))?;
    program.load().map_err(|e| DatapathError::kernel(attempt("loading"), e))?;
    let refused = |e: &dyn Display| DatapathError::kernel(format!("attaching {PROGRAM} to {TRACEPOINT}"), e);
    let id = program.attach(TRACEPOINT).map_err(|e| refused(&e))?;
    let link: FdLink = program.take_link(id).map_err(|e| refused(&e))?.into();
    let unpinned = |e: &dyn Display| DatapathError::kernel(attempt("pinning the link of"), e);
    fs::create_dir_all(folder).map_err(|e| unpinned(&e))?;
    let beside = folder.join(format!("{BESIDE}{PROGRAM}"));
    // A pin left by an agent that was killed at this point.
    let _ = fs::remove_file(&beside);
    let _pinned = link.pin(&beside).map_err(|e| unpinned(&e))?;
    // From here on the new program counts and the old one does not. Killed before the next line, the agent leaves both.
    let mut counting: Array<MapData, u64> = typed(counting, "COUNTING")?;
    counting.set(0, load, 0).map_err(|e| DatapathError::kernel("saying which program counts drops", e))?;
    fs::rename(&beside, pin).map_err(|e| unpinned(&e))
}

/// The counters.
pub(super) struct KernelDrops {
    counts: PerCpuArray<MapData, u64>,
    counting: Counting,
}

impl KernelDrops {
    pub(super) fn open(take: Take<'_>, counting: Counting) -> Result<Self, DatapathError> {
        Ok(Self { counts: typed(take("KERNEL_DROPS")?, "KERNEL_DROPS")?, counting })
    }

    /// Packets by reason since the maps were made, reasons without any left out; why there is no count, if there is none.
    pub(super) fn read(&self) -> Result<Vec<KernelDrop>, String> {
        if let Some(why) = &self.counting.off {
            return Err(why.clone());
        }
        let mut drops = Vec::new();
        for number in 0..COUNTERS {
            let counts =
                self.counts.get(&number, 0).map_err(|error| format!("reading the counters: {error}"))?;
            let packets = counts.iter().sum();
            if packets > 0 {
                drops.push(KernelDrop { reason: name(&self.counting.names, number), packets });
            }
        }
        Ok(drops)
    }
}

fn name(names: &BTreeMap<u32, String>, number: u32) -> String {
    if number == COUNTERS - 1 {
        return "OTHER".to_owned();
    }
    names.get(&number).cloned().unwrap_or_else(|| number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_without_a_name_is_its_number() {
        let names = BTreeMap::from([(2, "NOT_SPECIFIED".to_owned()), (255, "ANY".to_owned())]);
        assert_eq!(name(&names, 2), "NOT_SPECIFIED");
        assert_eq!(name(&names, 3), "3");
        assert_eq!(name(&names, 255), "OTHER", "several reasons share the last counter");
    }
}
