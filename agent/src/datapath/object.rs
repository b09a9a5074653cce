//! The compiled kernel programs that the agent's binary carries; no compiler runs on a node.
//!
//! `build.rs` says whether they are there. Without them everything but the binary builds: [`embedded`] is generic, so
//! that the missing object is an error where a binary calls it and nowhere else.

use std::marker::PhantomData;

/// The programs as an ELF object for aya, aligned as its parser needs it. `Binary` is any type of the calling binary,
/// such as a unit struct; it moves the check to that binary.
///
/// A build without the object stops here with a sentence that says what to run.
#[must_use]
pub fn embedded<Binary>() -> &'static [u8] {
    Embedded::<Binary>::OBJECT
}

struct Embedded<Binary>(PhantomData<Binary>);

impl<Binary> Embedded<Binary> {
    const OBJECT: &'static [u8] = match OBJECT {
        Some(object) => object,
        None => panic!("the kernel programs are not built: run `cargo xtask build`"),
    };
}

#[cfg(datapath_object)]
const OBJECT: Option<&[u8]> = Some(aya::include_bytes_aligned!(env!("SINEW_DATAPATH_OBJECT")));
#[cfg(not(datapath_object))]
const OBJECT: Option<&[u8]> = None;
