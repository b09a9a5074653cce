//! Tests that need more than one package, or root: the lab, agreement and verifier tests.

pub mod bench;
pub mod demo;
pub mod lab;
pub mod probe;
pub mod workbench;
