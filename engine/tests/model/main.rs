//! The engine as a whole, over the kernel's verdict code.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod apiserver;
mod cast;
mod destinations;
mod events;
mod explained;
mod foot_guns;
mod forged;
mod full;
mod kernel;
mod naive;
mod negative;
mod node;
mod random;
mod recipes;
mod scale;
mod scenes;
mod whole;
