//! Map keys and values as bytes, which is how the test's maps have them.
#![allow(unsafe_code, reason = "the layouts are compared as bytes")]

use sinew_bpf::abi::{
    Address, CtEntry, CtKey, EndpointEntry, EventRecord, IpcacheEntry, PolicyEntry, PolicyKey,
};
use sinew_bpf::maps::{AnswerCount, DropCount, FragmentKey, FragmentPorts, RuleCount, TableCount};
use sinew_bpf::settings::Settings;

/// A layout: `repr(C)`, integers only, no padding.
///
/// # Safety
/// Any bytes must be a value of the type, and all of its bytes must be initialised.
pub(crate) unsafe trait Layout: Sized {}

macro_rules! layouts {
    ($($kind:ty),*) => {
        // SAFETY: integers without padding: the library asserts each size to be the sum of its fields'.
        $(unsafe impl Layout for $kind {})*
    };
}

layouts!(
    Address,
    CtEntry,
    CtKey,
    EndpointEntry,
    EventRecord,
    IpcacheEntry,
    PolicyEntry,
    PolicyKey,
    DropCount,
    FragmentKey,
    FragmentPorts,
    RuleCount,
    TableCount,
    AnswerCount,
    Settings
);

/// The bytes of a value.
pub(crate) fn bytes<T: Layout, const N: usize>(value: &T) -> [u8; N] {
    const { assert!(size_of::<T>() == N) };
    // SAFETY: the sizes are the same, and all bytes of a layout are initialised.
    unsafe { std::ptr::from_ref(value).cast::<[u8; N]>().read() }
}

/// The value of bytes.
pub(crate) fn value<T: Layout>(bytes: &[u8]) -> T {
    assert_eq!(bytes.len(), size_of::<T>(), "a value of {}", std::any::type_name::<T>());
    // SAFETY: the sizes are the same, any bytes are a value, and the read needs no alignment.
    unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
}
