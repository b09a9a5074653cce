//! What needs more than one package or more than a user: the lab, agreement and verifier tests.

pub mod bench;
pub mod demo;
pub mod lab;
pub mod probe;
pub mod workbench;
