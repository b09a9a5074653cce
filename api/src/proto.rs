//! Protobuf: flows and the services that carry them, made by `cargo xtask codegen` from `api/proto`.
//!
//! [`flow`], [`observer`], [`peer`] and [`relay`] are wire-compatible with Hubble 1.19: `tests/hubble_schema.rs` compares
//! every field and number with those of 1.19.3. [`agent`] is what the `sinew` command asks an agent for. Neighbours:
//! `sinew_observer` serves the first four, `sinew_agent` the last.

/// Package `flow`: what the node saw.
#[rustfmt::skip]
#[allow(clippy::all, clippy::allow_attributes_without_reason, clippy::large_futures, missing_docs, rustdoc::all, reason = "generated code")]
pub mod flow;

/// Package `observer`: the service that flows are read from.
#[rustfmt::skip]
#[allow(clippy::all, clippy::allow_attributes_without_reason, clippy::large_futures, missing_docs, rustdoc::all, reason = "generated code")]
pub mod observer;

/// Package `peer`: how a relay learns of the nodes.
#[rustfmt::skip]
#[allow(clippy::all, clippy::allow_attributes_without_reason, clippy::large_futures, missing_docs, rustdoc::all, reason = "generated code")]
pub mod peer;

/// Package `relay`: what a relay reports of its nodes.
#[rustfmt::skip]
#[allow(clippy::all, clippy::allow_attributes_without_reason, clippy::large_futures, missing_docs, rustdoc::all, reason = "generated code")]
pub mod relay;

/// Package `sinew.agent.v1`: what one agent tells the `sinew` command.
#[rustfmt::skip]
#[allow(clippy::all, clippy::allow_attributes_without_reason, clippy::large_futures, missing_docs, rustdoc::all, reason = "generated code")]
pub mod agent;

/// A `google.protobuf.FileDescriptorSet` of all packages and what they import, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("proto/descriptors.bin");
