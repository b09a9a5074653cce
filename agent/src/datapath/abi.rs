//! The bpf library's types as aya's keys and values.

use aya::Pod;
use aya::maps::MapError;
use sinew_bpf::abi::{Address, EndpointEntry, IpcacheEntry, PolicyEntry, PolicyKey};
use sinew_bpf::kernel_drop::Places;
use sinew_bpf::maps::{AnswerCount, DropCount, DropRecords, RingCount, RuleCount, TableCount};
use sinew_bpf::settings::Settings;

use super::DatapathError;

/// A value of a map.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Abi<T: Copy + 'static>(pub(super) T);

macro_rules! pod {
    ($($kind:ty),*) => {
        // SAFETY: `repr(C)` structs of integers without padding, which their size assertions in the bpf library hold.
        $(unsafe impl Pod for Abi<$kind> {})*
    };
}

pod!(
    Address,
    EndpointEntry,
    IpcacheEntry,
    PolicyEntry,
    PolicyKey,
    AnswerCount,
    DropCount,
    DropRecords,
    RingCount,
    RuleCount,
    TableCount,
    Settings,
    Places
);

/// Removing an entry that is not there counts as done.
pub(super) fn absent_is_fine(result: Result<(), MapError>, attempt: &str) -> Result<(), DatapathError> {
    was_there(result, attempt).map(|_| ())
}

/// Whether a removal found what it was to remove.
pub(super) fn was_there(result: Result<(), MapError>, attempt: &str) -> Result<bool, DatapathError> {
    match result {
        Ok(()) => Ok(true),
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(false),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => {
            Ok(false)
        }
        Err(error) => Err(DatapathError::kernel(attempt, error)),
    }
}
