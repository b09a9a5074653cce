use core::fmt::Write as _;
use core::mem::{align_of, offset_of, size_of};
use std::string::String;

use super::*;
use crate::maps::{
    AnswerCount, DropCount, DropRecords, FragmentKey, FragmentPorts, RingCount, RuleCount, TableCount,
};

/// The committed layout. Its first line is the version that it is of.
const COMMITTED: &str = include_str!("layout.txt");

macro_rules! layout {
    ($text:ident, $($kind:ident { $($field:ident),* $(,)? })*) => {
        $(
            write!($text, "{} {}/{}:", stringify!($kind), size_of::<$kind>(), align_of::<$kind>()).unwrap();
            $(write!($text, " {}@{}", stringify!($field), offset_of!($kind, $field)).unwrap();)*
            // A field that is not listed here can't be read from the map: naming all of them is what compiles.
            let $kind { $($field: _),* } = $kind::default();
            $text.push('\n');
        )*
    };
}

macro_rules! numbers {
    ($text:ident, $($path:path),* $(,)?) => {
        $(writeln!($text, "{} = {}", stringify!($path), $path).unwrap();)*
    };
}

fn layout() -> String {
    let mut text = String::new();
    writeln!(text, "version {VERSION}").unwrap();
    layout! { text,
        PrefixKey { prefix_len, address }
        EndpointEntry { id, ifindex, identity, flags, v4, v6, mac, host_mac, reserved }
        IpcacheEntry { identity, node_id, flags, tunnel, key_epoch, reserved }
        PolicyKey { peer, direction, protocol, port }
        PolicyEntry {
            precedence, shadow_precedence, verdict, shadow_verdict, l4_bits, shadow_l4_bits, listener, auth, cookie,
            shadow_cookie,
        }
        CtKey { low, high, low_port, high_port, protocol, leg, cluster }
        CtHalf { last, packets, bytes, flags, reported, reserved }
        CtEntry {
            stamps, identities, cookies, verdict, initiator, flags, reason, node_id, rev_nat, listener, reserved,
            created, refused, reserved2, halves,
        }
        EventRecord {
            time, sequence, kind, point, flags, protocol, source, destination, source_port, destination_port, tcp_flags,
            ip_version, reason, source_identity, destination_identity, cookies, shadow_cookies, verdicts, matches,
            endpoint, place, ifindex, length, revision, macs,
        }
        FragmentKey { source, destination, id, ifindex, protocol }
        FragmentPorts { source, destination, icmp_type, icmp_code, protocol, reserved }
        RuleCount { packets, bytes, last }
        DropCount { packets, bytes }
        TableCount { created, deleted }
        RingCount { sequence, lost }
        DropRecords { paid, suppressed }
        AnswerCount { filled, tokens, made, withheld }
    }
    numbers! { text,
        conntrack::flag::VIA_STACK, conntrack::flag::PICKED_UP, conntrack::flag::AUDIT, conntrack::flag::TRANSLATED,
        conntrack::flag::EGRESS_REFUSED, conntrack::verdict::ALLOW, conntrack::verdict::DENY, conntrack::leg::DIRECT,
        conntrack::half_flag::CLOSED, conntrack::half_flag::SEEN, conntrack::half_flag::RESET,
        endpoint::stamp::LOCAL, endpoint::flag::VIA_STACK, StateWord::NODE, StateWord::DROP_SLOT,
        ipcache::flag::LOCAL_NODE, ipcache::flag::REMOTE_NODE, ipcache::flag::CLUSTER_RANGE, ipcache::flag::TUNNEL,
        ipcache::flag::OUTSIDE,
        policy::direction::INGRESS, policy::direction::EGRESS, policy::verdict::DEFAULT_DENY, policy::verdict::ALLOW,
        policy::verdict::DENY, policy::precedence::DEFAULT, policy::precedence::ALLOW, policy::precedence::DENY,
        PolicyKey::PEER_BITS, PolicyKey::FULL_BITS,
    }
    text
}

/// An agent of this version reads the pinned maps of another one with the same number: then both must mean the same.
#[test]
fn the_layout_is_that_of_its_version() {
    let found = layout();
    assert!(
        found == COMMITTED,
        "layout changed: bump VERSION in bpf/src/abi.rs and describe the migration in docs/upgrades.md, \
         then bpf/src/abi/layout.txt is:\n{found}"
    );
}

#[test]
fn addresses_survive_the_words() {
    for text in ["10.1.2.3", "255.255.255.255", "::", "::1", "2001:db8::7", "ff02::1:ff00:1"] {
        let address: core::net::IpAddr = text.parse().unwrap();
        assert_eq!(core::net::IpAddr::from(Address::from(address)), address);
    }
    assert!(Address::from(core::net::IpAddr::from([10, 0, 0, 1])).is_v4());
    assert!(!Address::from(core::net::IpAddr::from([0u8; 16])).is_v4());
}
