//! Any bytes as a packet: headers are read or refused for a reason, never beyond the packet's end, and always the same.
//!
//! `cargo xtask test fuzz` builds this with coverage, replays `tests/fuzz/corpus/packet` and explores from it. The
//! neighbour `pipeline` goes on to verdicts.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sinew_bpf::drop::Dropped;
use sinew_bpf::host::{HostMaps, HostPacket};
use sinew_bpf::parse::{self, Parsed, ether_type};

fuzz_target!(|bytes: &[u8]| {
    // The kernel's test run refuses less than a link header, and so does every device.
    if bytes.len() < parse::LINK_BYTES {
        return;
    }
    let packet = HostPacket::new(bytes.to_vec(), 1);
    let (result, parsed, inner) = read(&packet);
    assert_eq!((result, parsed, inner), read(&packet), "the same packet is read the same way");
    if result.is_ok() && matches!(parsed.ether_type, ether_type::V4 | ether_type::V6) {
        let length = bytes.len() as u32;
        assert!(
            parse::LINK_BYTES as u32 + parsed.network_bytes <= length,
            "{parsed:?} is longer than {length}"
        );
        assert!(u32::from(parsed.transport_at) <= length, "{parsed:?} begins behind {length}");
    }
    if let Err(dropped) = result {
        assert_ne!(dropped.number(), 0, "a drop has a reason");
    }
});

/// As the hooks read: network, transport, and for an ICMP error what it quotes.
fn read(packet: &HostPacket) -> (Result<(), Dropped>, Parsed, Parsed) {
    let maps = HostMaps::new();
    let (mut parsed, mut inner) = (Parsed::default(), Parsed::default());
    let result = parse::network(packet, &mut parsed)
        .and_then(|()| parse::transport(&maps, packet, &mut parsed))
        .and_then(
            |()| if parsed.is_icmp_error() { parse::quoted(packet, &parsed, &mut inner) } else { Ok(()) },
        );
    (result, parsed, inner)
}
