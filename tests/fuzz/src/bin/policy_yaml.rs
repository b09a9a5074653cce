//! Any bytes as a file of the folder store: whatever they are, they are read once and for all as objects and refusals,
//! and what the agent writes itself it reads again as it was.
//!
//! `cargo xtask test fuzz` builds this with coverage, replays `tests/fuzz/corpus/policy_yaml` and explores from it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sinew_api::object::{Object, Origin, decode_bytes};

fuzz_target!(|bytes: &[u8]| {
    let read = decode_bytes("fuzz.yaml", bytes);
    assert_eq!(read, decode_bytes("fuzz.yaml", bytes), "the same file is read the same way");
    for object in &read {
        match object {
            Ok(object) => reads_what_it_writes(object),
            Err(refused) => assert!(!refused.problems.is_empty(), "a refusal says why: {refused:?}"),
        }
    }
});

fn reads_what_it_writes(object: &Object) {
    let mut object = object.clone();
    let (text, origin) = match &mut object {
        Object::Node(node) => (node.to_yaml(), &mut node.origin),
        Object::Endpoint(endpoint) => (endpoint.to_yaml(), &mut endpoint.origin),
        Object::Identity(identity) => (identity.to_yaml(), &mut identity.origin),
        Object::Policy(_) | Object::CidrGroup(_) | Object::Pod(_) | Object::Namespace(_) => return,
    };
    *origin = Origin::default();
    let mut again = decode_bytes("fuzz.yaml", text.as_bytes());
    for object in again.iter_mut().flatten() {
        match object {
            Object::Node(node) => node.origin = Origin::default(),
            Object::Endpoint(endpoint) => endpoint.origin = Origin::default(),
            Object::Identity(identity) => identity.origin = Origin::default(),
            Object::Policy(_) | Object::CidrGroup(_) | Object::Pod(_) | Object::Namespace(_) => {}
        }
    }
    assert_eq!(again.as_slice(), [Ok(object)], "it was written as:\n{text}");
}
