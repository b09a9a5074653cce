//! Any packets, one after the other, through the hooks of a small node: whatever they are, nothing reaches the pod that
//! nobody may reach, nothing leaves it, nobody sends with another's address, and a drop is counted and reported once.
//!
//! An input is a sequence of packets, each with a byte for the hook and two for its length in front. `cargo xtask test
//! fuzz` builds this with coverage, replays `tests/fuzz/corpus/pipeline` and explores from it. The neighbour `packet`
//! looks at the parser alone.
#![no_main]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use sinew_bpf::abi::endpoint::StateWord;
use sinew_bpf::abi::policy::{direction, precedence, verdict};
use sinew_bpf::abi::{
    Address, EndpointEntry, IpcacheEntry, PolicyEntry, PolicyKey, PrefixKey, event, ipcache,
};
use sinew_bpf::deliver::Action;
use sinew_bpf::hooks::{self, Frame};
use sinew_bpf::host::{HostMaps, HostPacket};
use sinew_bpf::packet::TunnelKey;
use sinew_bpf::parse::LINK_BYTES;
use sinew_bpf::settings::Settings;

/// Nothing selects it: open in both directions.
const OPEN: Pod = Pod { id: 1, ifindex: 10, identity: 70_001, last: 10, verdict: verdict::ALLOW };
/// Default deny in both directions, and no rule that allows.
const CLOSED: Pod = Pod { id: 2, ifindex: 20, identity: 70_002, last: 20, verdict: verdict::DEFAULT_DENY };
/// A pod of another node, and that node.
const REMOTE_POD: u8 = 30;
const REMOTE_IDENTITY: u32 = 70_003;
const REMOTE_NODE: [u8; 4] = [192, 0, 2, 2];

const UNDERLAY: u32 = 2;
const OVERLAY: u32 = 3;
const SETTINGS: Settings = Settings { overlay_ifindex: OVERLAY, ..Settings::DUAL_STACK };

fuzz_target!(|input: &[u8]| {
    let maps = node();
    let mut frame = Frame::default();
    let mut rest = input;
    let mut now = 1_000_000_000;
    while let Some((hook, bytes, after)) = next(rest) {
        rest = after;
        now += 1_000_000;
        pass(&maps, &mut frame, hook, bytes, now);
    }
});

/// The hook, the packet, and what follows; nothing where a packet would be too short for any device.
fn next(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (head, rest) = input.split_at_checked(3)?;
    let length = usize::from(u16::from_le_bytes([head[1], head[2]])).min(rest.len());
    let (bytes, after) = rest.split_at(length);
    (length >= LINK_BYTES).then_some((head[0], bytes, after))
}

fn pass(maps: &HostMaps, frame: &mut Frame, hook: u8, bytes: &[u8], now: u64) {
    let drops = drops(maps);
    let (at, result, packet) = match hook % 6 {
        0 => from_pod(&OPEN, maps, frame, bytes, now),
        1 => from_pod(&CLOSED, maps, frame, bytes, now),
        2 => to_pod(&OPEN, maps, frame, bytes, now),
        3 => to_pod(&CLOSED, maps, frame, bytes, now),
        4 => {
            let mut packet =
                HostPacket { from_device: UNDERLAY, ..HostPacket::new(bytes.to_vec(), UNDERLAY) };
            let result = hooks::from_net::from_net(maps, &mut packet, &SETTINGS, now, frame);
            (At::Wire, result, packet)
        }
        _ => {
            let tunnel = TunnelKey { vni: REMOTE_IDENTITY, source: IpAddr::from(REMOTE_NODE).into() };
            let mut packet = HostPacket::new(bytes.to_vec(), OVERLAY);
            (packet.from_device, packet.tunnel) = (OVERLAY, Some(tunnel));
            let result = hooks::from_overlay::from_overlay(maps, &mut packet, &SETTINGS, now, frame);
            (At::Wire, result, packet)
        }
    };
    let events = maps.take_events();
    match result {
        Ok(action) => {
            assert_eq!(drops, self::drops(maps), "what passes is no drop");
            assert!(events.iter().all(|event| event.kind != event::kind::DROP), "and is not reported as one");
            may_pass(at, action, &packet);
        }
        Err(dropped) => {
            let mut expected = drops;
            *expected.entry(dropped.number()).or_default() += 1;
            assert_eq!(expected, self::drops(maps), "a drop is counted once, by its reason");
            let reported: Vec<u16> = events
                .iter()
                .filter(|event| event.kind == event::kind::DROP)
                .map(|event| event.reason)
                .collect();
            assert_eq!(reported, [dropped.number()], "and reported once");
        }
    }
}

/// Where a packet was.
enum At {
    FromPod(&'static Pod),
    ToPod(&'static Pod),
    Wire,
}

fn may_pass(at: At, action: Action, packet: &HostPacket) {
    assert_ne!(action, Action::Endpoint { ifindex: CLOSED.ifindex }, "nobody may reach the closed pod");
    let judged = action != Action::Stack;
    match at {
        At::FromPod(pod) => {
            assert!(!(judged && pod.id == CLOSED.id), "the closed pod may reach nobody: {action:?}");
            let own = [Some(pod.v4()), Some(pod.v6())];
            assert!(!judged || own.contains(&source(&packet.bytes)), "a pod sends as itself: {action:?}");
        }
        At::ToPod(pod) => {
            let neighbour_discovery = packet.bytes.get(20) == Some(&58) && packet.bytes.get(21) == Some(&255);
            let arp = packet.bytes.get(12..14) == Some(&[0x08, 0x06]);
            assert!(
                pod.id != CLOSED.id || arp || neighbour_discovery,
                "the stack may not reach the closed pod"
            );
        }
        At::Wire => {}
    }
}

fn from_pod(pod: &'static Pod, maps: &HostMaps, frame: &mut Frame, bytes: &[u8], now: u64) -> Passed {
    let mut packet = HostPacket { from_device: pod.ifindex, ..HostPacket::new(bytes.to_vec(), pod.ifindex) };
    let result = hooks::from_pod::from_pod(maps, &mut packet, &SETTINGS, now, frame);
    (At::FromPod(pod), result, packet)
}

fn to_pod(pod: &'static Pod, maps: &HostMaps, frame: &mut Frame, bytes: &[u8], now: u64) -> Passed {
    // Forwarded by the stack from another device: sockets of the node may reach its pods under any policy.
    let mut packet = HostPacket { from_device: UNDERLAY, ..HostPacket::new(bytes.to_vec(), pod.ifindex) };
    let result = hooks::to_pod::to_pod(maps, &mut packet, &SETTINGS, now, frame);
    (At::ToPod(pod), result, packet)
}

type Passed = (At, Result<Action, sinew_bpf::drop::Dropped>, HostPacket);

fn drops(maps: &HostMaps) -> BTreeMap<u16, u64> {
    maps.drops.borrow().iter().map(|(reason, count)| (*reason, count.packets)).collect()
}

/// The source address in the bytes, read without the parser that is under test.
fn source(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.get(12..14)? {
        [0x08, 0x00] => Some(IpAddr::from(<[u8; 4]>::try_from(bytes.get(26..30)?).ok()?)),
        [0x86, 0xdd] => Some(IpAddr::from(<[u8; 16]>::try_from(bytes.get(22..38)?).ok()?)),
        _ => None,
    }
}

struct Pod {
    id: u32,
    ifindex: u32,
    identity: u32,
    /// Last byte of its addresses, and of its MAC.
    last: u8,
    /// What its table says in both directions.
    verdict: u8,
}

impl Pod {
    fn v4(&self) -> IpAddr {
        Ipv4Addr::new(10, 1, 0, self.last).into()
    }

    fn v6(&self) -> IpAddr {
        Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, self.last.into()).into()
    }

    fn entry(&self) -> EndpointEntry {
        EndpointEntry {
            id: self.id,
            ifindex: self.ifindex,
            identity: self.identity,
            v4: self.v4().into(),
            v6: self.v6().into(),
            mac: [2, 0, 0, 0, 0, self.last],
            host_mac: [2, 0, 0, 0, 1, self.last],
            ..EndpointEntry::default()
        }
    }
}

fn node() -> HostMaps {
    let mut maps = HostMaps::new();
    maps.words.insert(StateWord::NODE, StateWord::new(1, 1));
    maps.known = vec![2, 9, 10, OPEN.identity, CLOSED.identity, REMOTE_IDENTITY];
    for pod in [&OPEN, &CLOSED] {
        maps.words.insert(pod.id, StateWord::new(1, pod.id));
        maps.interfaces.insert(pod.ifindex, pod.entry());
        for address in [pod.v4(), pod.v6()] {
            maps.endpoints.insert(address.into(), pod.entry());
            let entry = IpcacheEntry { identity: pod.identity, node_id: 1, ..IpcacheEntry::default() };
            maps.ipcache.insert(address.into(), entry);
        }
        let entry = PolicyEntry {
            precedence: precedence::DEFAULT,
            shadow_precedence: precedence::DEFAULT,
            verdict: pod.verdict,
            shadow_verdict: pod.verdict,
            cookie: pod.id,
            shadow_cookie: pod.id,
            ..PolicyEntry::default()
        };
        let key = |direction| (PolicyKey::PEER_BITS as u8, PolicyKey { direction, ..PolicyKey::default() });
        let table = [(key(direction::INGRESS), entry), (key(direction::EGRESS), entry)];
        maps.policy.insert(pod.id, table.into_iter().collect());
    }
    let remote = IpcacheEntry {
        identity: REMOTE_IDENTITY,
        node_id: 2,
        flags: ipcache::flag::TUNNEL,
        tunnel: IpAddr::from(REMOTE_NODE).into(),
        ..IpcacheEntry::default()
    };
    maps.ipcache.insert(IpAddr::from([10, 2, 0, REMOTE_POD]).into(), remote);
    let range = |address: IpAddr, prefix_len| PrefixKey { prefix_len, address: Address::from(address) };
    let cluster = IpcacheEntry { flags: ipcache::flag::CLUSTER_RANGE, ..IpcacheEntry::default() };
    maps.ranges.insert(range(IpAddr::from([10, 0, 0, 0]), 104), cluster);
    maps.ranges.insert(range(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0).into(), 16), cluster);
    maps
}
