//! Any bytes as the standard input of the CNI plugin, with each command in a good environment: an answer or an error
//! object with a code of the specification or ours, and never an ADD that its own DEL could not undo.
//!
//! `cargo xtask test fuzz` builds this with coverage, replays `tests/fuzz/corpus/cni_json` and explores from it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sinew_agent::plugin::Invocation;

fuzz_target!(|input: &[u8]| {
    let add = invoke("ADD", input);
    let check = invoke("CHECK", input);
    let del = invoke("DEL", input);
    for command in ["GC", "STATUS", "VERSION"] {
        invoke(command, input);
    }
    if add || check {
        assert!(del, "what ADD or CHECK takes, DEL takes too");
    }
    assert!(!(add && check), "a result of an ADD is what CHECK must have and ADD must not");
});

/// Whether the plugin takes the input.
fn invoke(command: &str, input: &[u8]) -> bool {
    let environment = |name: &str| {
        let value = match name {
            "CNI_COMMAND" => command,
            "CNI_CONTAINERID" => "fuzz",
            "CNI_IFNAME" => "eth0",
            "CNI_NETNS" => "/var/run/netns/fuzz",
            "CNI_ARGS" => "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=fuzz",
            _ => return None,
        };
        Some(value.to_owned())
    };
    match Invocation::parse(&environment, input) {
        Ok(_) => true,
        Err(error) => {
            assert!(!error.to_string().is_empty(), "an error says what is wrong: {error:?}");
            false
        }
    }
}
