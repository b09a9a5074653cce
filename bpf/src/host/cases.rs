//! The pipeline's cases, one for each thing that datapath.md says, with expectations worked out from its text. Each is a
//! test of its own here, for both families; the agreement tests send the same packets through the kernel.
//!
//! A name begins with the number in datapath.md (`dp`) or with the CVE whose class of mistake it guards against.

mod connection;
mod cve;
mod delivery;
mod errors;
mod fragments;
mod identity;
mod overlay;
mod reject;
mod rejudge;
mod source;
mod syn;
mod talk;

use std::vec::Vec;

use super::Case;
use super::world::Family;

/// A case by its name.
#[derive(Clone, Copy)]
pub struct Named {
    /// Its name.
    pub name: &'static str,
    /// Makes it for a family.
    pub make: fn(Family) -> Case,
    /// Why a test run of the kernel can't have its packets, empty where it can.
    pub host_only: &'static str,
}

/// All of them.
#[must_use]
pub fn all() -> Vec<Named> {
    [
        connection::CASES,
        cve::CASES,
        delivery::CASES,
        errors::CASES,
        fragments::CASES,
        identity::CASES,
        overlay::CASES,
        reject::CASES,
        rejudge::CASES,
        source::CASES,
        syn::CASES,
    ]
    .concat()
}

/// Declares cases: for each a function, its place in the table, and a test that runs it for both families.
macro_rules! cases {
    ($($(#[doc = $doc:literal])* fn $name:ident($family:ident) $(host only $why:literal)? $body:block)*) => {
        $($(#[doc = $doc])* fn $name($family: crate::host::world::Family) -> crate::host::Case $body)*

        pub(super) const CASES: &[super::Named] = &[
            $(super::Named { name: stringify!($name), make: $name, host_only: concat!("" $(, $why)?) },)*
        ];

        #[cfg(test)]
        mod tests {
            $(#[test]
            fn $name() {
                for family in crate::host::world::Family::BOTH {
                    std::println!("{family:?}");
                    super::$name(family).run();
                }
            })*
        }
    };
}
pub(in crate::host::cases) use cases;
