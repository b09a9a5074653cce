//! The state words, mapped into memory: one aligned store switches an endpoint (datapath.md 1, 2).

use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::{Array, Map};
use sinew_bpf::abi::StateWord;
use sinew_engine::EndpointId;

use super::DatapathError;
use super::pins::typed;

/// Words in the array, the node's among them.
pub(super) const WORDS: usize = 4096;
const BYTES: usize = WORDS * size_of::<u64>();

/// The words of a node.
pub(super) struct Words {
    memory: NonNull<AtomicU64>,
    next_epoch: u32,
    /// Keeps the map open.
    _map: Array<aya::maps::MapData, u64>,
}

// SAFETY: the memory is a shared mapping of atomics, valid on every thread; one owner writes.
unsafe impl Send for Words {}

impl Words {
    /// Maps the array, and goes on above the highest epoch in it.
    pub(super) fn open(map: Map) -> Result<Self, DatapathError> {
        let Map::Array(data) = map else {
            return Err(DatapathError::kernel("opening map WORDS", "it is not an array"));
        };
        let fd = data.fd().as_fd().as_raw_fd();
        // SAFETY: a new shared mapping of a map that has exactly these bytes; the kernel checks the size.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd,
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(DatapathError::kernel("mapping the state words", std::io::Error::last_os_error()));
        }
        let memory = NonNull::new(memory.cast::<AtomicU64>())
            .ok_or_else(|| DatapathError::kernel("mapping the state words", "at address 0"))?;
        let map = typed(Map::Array(data), "WORDS")?;
        let mut words = Self { memory, next_epoch: 1, _map: map };
        words.next_epoch = (1..WORDS as u32).map(|index| words.get(index).epoch()).max().unwrap_or(0) + 1;
        Ok(words)
    }

    fn word(&self, index: u32) -> &AtomicU64 {
        let index = (index as usize).min(WORDS - 1);
        // SAFETY: the index lies inside the mapping, which lives as long as `self`.
        unsafe { self.memory.add(index).as_ref() }
    }

    /// A word.
    pub(super) fn get(&self, index: u32) -> StateWord {
        StateWord(self.word(index).load(Ordering::Acquire))
    }

    /// Puts an endpoint into a slot, with an epoch of its own.
    pub(super) fn set_endpoint(&mut self, id: EndpointId, slot: u32) {
        let word = StateWord::new(self.next_epoch, slot);
        self.next_epoch += 1;
        // Release: tables and entries were written before.
        self.word(u32::from(id.0)).store(word.0, Ordering::Release);
    }

    /// Raises the ipcache generation.
    pub(super) fn raise_generation(&mut self) {
        let now = self.get(StateWord::NODE);
        // Generations and epochs share 31 bits of a stamp; 0 is no stamp.
        let next = (now.generation() + 1) & (u32::MAX >> 1);
        let word = StateWord::new(now.revision(), next.max(1));
        self.word(StateWord::NODE).store(word.0, Ordering::Release);
    }

    /// Says which revision is enforced; flows carry its low 32 bits.
    pub(super) fn set_revision(&mut self, revision: u64) {
        let now = self.get(StateWord::NODE);
        let word = StateWord::new(revision as u32, now.generation());
        self.word(StateWord::NODE).store(word.0, Ordering::Release);
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `open` with this size, and nothing refers to it any more.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), BYTES) };
    }
}
