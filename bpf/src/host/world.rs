//! A small node for tests: two pods, a pod and a node elsewhere, routers, the world outside; everybody is allowed until
//! a test says otherwise. The agreement tests make the same node out of kernel maps and interfaces.
//!
//! Neighbours: `build.rs` makes the packets, `case.rs` sends them through a world.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::boxed::Box;
use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

use super::{Build, HostMaps, HostPacket, Routes};
use crate::abi::policy::{direction, precedence, verdict};
use crate::abi::{
    Address, EndpointEntry, IpcacheEntry, PolicyEntry, PolicyKey, PrefixKey, StateWord, ipcache,
};
use crate::deliver::Action;
use crate::drop::Dropped;
use crate::hooks::{self, Frame};
use crate::identity::reserved;
use crate::packet::{Route, TunnelKey};
use crate::settings::Settings;

/// An IP version; each test runs with both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];
}

/// Somebody with an address of each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// IPv4 address.
    pub v4: Ipv4Addr,
    /// IPv6 address.
    pub v6: Ipv6Addr,
}

impl Place {
    /// The address of a family.
    #[must_use]
    pub fn ip(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }
}

/// A pod of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Index of its state word; its table's slot has the same number.
    pub id: u32,
    /// Host side of its pair.
    pub ifindex: u32,
    /// Its identity.
    pub identity: u32,
    /// Its addresses.
    pub place: Place,
    /// MAC of its own side.
    pub mac: [u8; 6],
    /// MAC of the host's side.
    pub host_mac: [u8; 6],
}

const fn place(v4: [u8; 4], v6: [u16; 8]) -> Place {
    let [a, b, c, d] = v4;
    let [s, t, u, v, w, x, y, z] = v6;
    Place { v4: Ipv4Addr::new(a, b, c, d), v6: Ipv6Addr::new(s, t, u, v, w, x, y, z) }
}

/// The first pod of the node.
pub const WEB: Pod = Pod {
    id: 1,
    ifindex: 101,
    identity: 1001,
    place: place([10, 1, 0, 11], [0xfd00, 1, 0, 0, 0, 0, 0, 0x11]),
    mac: [0x0a, 0, 0, 0, 1, 1],
    host_mac: [0x0e, 0, 0, 0, 1, 1],
};
/// The second pod of the node.
pub const API: Pod = Pod {
    id: 2,
    ifindex: 102,
    identity: 1002,
    place: place([10, 1, 0, 12], [0xfd00, 1, 0, 0, 0, 0, 0, 0x12]),
    mac: [0x0a, 0, 0, 0, 1, 2],
    host_mac: [0x0e, 0, 0, 0, 1, 2],
};
/// A pod of the other node.
pub const REMOTE: Place = place([10, 2, 0, 21], [0xfd00, 2, 0, 0, 0, 0, 0, 0x21]);
/// Its identity.
pub const REMOTE_IDENTITY: u32 = 1003;
/// An address in the other node's pod range that nobody has.
pub const NOBODY: Place = place([10, 2, 0, 99], [0xfd00, 2, 0, 0, 0, 0, 0, 0x99]);
/// This node.
pub const NODE: Place = place([192, 0, 2, 1], [0x2001, 0xdb8, 1, 0, 0, 0, 0, 1]);
/// An address of this node that no map lists: its DNS cache.
pub const NODE_DNS: Place = place([169, 254, 20, 10], [0xfd00, 0xd, 0, 0, 0, 0, 0, 0x10]);
/// The other node.
pub const OTHER_NODE: Place = place([192, 0, 2, 2], [0x2001, 0xdb8, 1, 0, 0, 0, 0, 2]);
/// The router on the wire, and the way to everything else.
pub const ROUTER: Place = place([192, 0, 2, 254], [0x2001, 0xdb8, 1, 0, 0, 0, 0, 0xfe]);
/// Somebody outside the cluster.
pub const WORLD: Place = place([203, 0, 113, 9], [0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 9]);
/// Of the cluster's ranges, one for the pods of each node.
pub const RANGES: [(Place, u8, u8); 2] = [
    (place([10, 1, 0, 0], [0xfd00, 1, 0, 0, 0, 0, 0, 0]), 16, 32),
    (place([10, 2, 0, 0], [0xfd00, 2, 0, 0, 0, 0, 0, 0]), 16, 32),
];
/// The underlay device.
pub const UNDERLAY: u32 = 200;
/// The VXLAN device.
pub const OVERLAY: u32 = 300;
/// MAC of the underlay device.
pub const UNDERLAY_MAC: [u8; 6] = [0x0c, 0, 0, 0, 2, 1];
/// MAC of whoever is at the other end of the wire.
pub const WIRE_MAC: [u8; 6] = [0x0c, 0, 0, 0, 2, 2];
/// Nanoseconds of a second.
pub const SECOND: u64 = 1_000_000_000;

/// Protocol and port of a rule: none for any protocol, no port for any port.
pub type L4 = Option<(u8, Option<u16>)>;

/// A node with its maps, settings and routing, at a point in time.
#[derive(Clone, Debug)]
pub struct World {
    /// Its maps.
    pub maps: HostMaps,
    /// Its constants.
    pub settings: Settings,
    /// Its routing.
    pub routes: Routes,
    /// The MTUs of paths.
    pub mtus: BTreeMap<Address, u16>,
    /// Time, nanoseconds.
    pub now: u64,
}

/// The programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// `from_pod`
    FromPod,
    /// `to_pod`
    ToPod,
    /// `from_net`
    FromNet,
    /// `to_net`
    ToNet,
    /// `from_overlay`
    FromOverlay,
    /// `to_overlay`
    ToOverlay,
}

impl Hook {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::FromPod, Self::ToPod, Self::FromNet, Self::ToNet, Self::FromOverlay, Self::ToOverlay];

    /// The program's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::FromPod => "from_pod",
            Self::ToPod => "to_pod",
            Self::FromNet => "from_net",
            Self::ToNet => "to_net",
            Self::FromOverlay => "from_overlay",
            Self::ToOverlay => "to_overlay",
        }
    }
}

/// A packet on its way into a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The hook.
    pub hook: Hook,
    /// The packet, without routes.
    pub packet: HostPacket,
}

impl Sent {
    /// Bytes at a hook of an interface.
    #[must_use]
    pub fn raw(hook: Hook, interface: u32, bytes: Vec<u8>) -> Self {
        Self { hook, packet: HostPacket::new(bytes, interface) }
    }

    /// From a pod of the node.
    #[must_use]
    pub fn from_pod(pod: &Pod, packet: Build) -> Self {
        Self::raw(Hook::FromPod, pod.ifindex, packet.macs(pod.host_mac, pod.mac).bytes())
    }

    /// To a pod out of the host's stack: from the device it came in by, 0 for a local socket.
    #[must_use]
    pub fn to_pod(pod: &Pod, from_device: u32, packet: Build) -> Self {
        let mut sent = Self::raw(Hook::ToPod, pod.ifindex, packet.macs(pod.mac, pod.host_mac).bytes());
        sent.packet.from_device = from_device;
        sent
    }

    /// From the wire.
    #[must_use]
    pub fn from_net(packet: Build) -> Self {
        let mut sent = Self::raw(Hook::FromNet, UNDERLAY, packet.macs(UNDERLAY_MAC, WIRE_MAC).bytes());
        sent.packet.from_device = UNDERLAY;
        sent
    }

    /// To the wire.
    #[must_use]
    pub fn to_net(packet: Build) -> Self {
        Self::raw(Hook::ToNet, UNDERLAY, packet.macs(WIRE_MAC, UNDERLAY_MAC).bytes())
    }

    /// To the wire, a pod's packet out of the host's stack.
    #[must_use]
    pub fn leaving(pod: &Pod, packet: Build) -> Self {
        let mut sent = Self::to_net(packet);
        sent.packet.from_device = pod.ifindex;
        sent
    }

    /// From the overlay, with an outer source and the identity that it claims.
    #[must_use]
    pub fn from_overlay(outer: IpAddr, vni: u32, packet: Build) -> Self {
        let mut sent = Self::raw(Hook::FromOverlay, OVERLAY, packet.macs(UNDERLAY_MAC, WIRE_MAC).bytes());
        sent.packet.from_device = OVERLAY;
        sent.packet.tunnel = Some(TunnelKey { vni, source: outer.into() });
        sent
    }

    /// Into the overlay out of the host's stack.
    #[must_use]
    pub fn to_overlay(from_device: u32, packet: Build) -> Self {
        let mut sent = Self::raw(Hook::ToOverlay, OVERLAY, packet.macs(WIRE_MAC, UNDERLAY_MAC).bytes());
        sent.packet.from_device = from_device;
        sent
    }

    /// As one GSO packet of segments with this many payload bytes.
    #[must_use]
    pub fn gso(mut self, segments: u32, segment_size: u32) -> Self {
        self.packet.segments = segments;
        self.packet.segment_size = segment_size;
        self
    }

    /// Without a socket that owns it.
    #[must_use]
    pub fn orphan(self) -> Self {
        Self { packet: HostPacket { orphan: true, ..self.packet }, ..self }
    }

    /// With the mark of a pod's answer.
    #[must_use]
    pub fn answer(mut self) -> Self {
        self.packet.answer = true;
        self
    }

    /// With the mark of what was sent off the node.
    #[must_use]
    pub fn marked(mut self) -> Self {
        self.packet.marked = true;
        self
    }
}

impl Default for World {
    fn default() -> Self {
        Self::open()
    }
}

impl World {
    /// Two pods that no policy selects, native routing.
    #[must_use]
    pub fn open() -> Self {
        let mut world = Self {
            maps: HostMaps::new(),
            settings: Settings::DUAL_STACK,
            routes: BTreeMap::new(),
            mtus: BTreeMap::new(),
            now: 1_000_000 * SECOND,
        };
        world.maps.words.insert(StateWord::NODE, StateWord::new(3, 5));
        world.maps.known = vec![
            reserved::HOST,
            reserved::REMOTE_NODE,
            reserved::WORLD_V4,
            reserved::WORLD_V6,
            WEB.identity,
            API.identity,
            REMOTE_IDENTITY,
        ];
        for pod in [&WEB, &API] {
            world.add_pod(pod);
        }
        for family in Family::BOTH {
            let node = IpcacheEntry { identity: reserved::HOST, node_id: 1, ..IpcacheEntry::default() };
            let node = IpcacheEntry { flags: ipcache::flag::LOCAL_NODE, ..node };
            world.maps.ipcache.insert(NODE.ip(family).into(), node);
            let other =
                IpcacheEntry { identity: reserved::REMOTE_NODE, node_id: 2, ..IpcacheEntry::default() };
            let other = IpcacheEntry { flags: ipcache::flag::REMOTE_NODE, ..other };
            world.maps.ipcache.insert(OTHER_NODE.ip(family).into(), other);
            let remote = IpcacheEntry { identity: REMOTE_IDENTITY, node_id: 2, ..IpcacheEntry::default() };
            world.maps.ipcache.insert(REMOTE.ip(family).into(), remote);
            let forward = |hop: &Place| Route::Forward { ifindex: UNDERLAY, next_hop: hop.ip(family).into() };
            for (place, route) in [
                (&NODE, Route::Local),
                (&NODE_DNS, Route::Local),
                (&OTHER_NODE, forward(&OTHER_NODE)),
                (&ROUTER, forward(&ROUTER)),
                (&REMOTE, forward(&OTHER_NODE)),
                (&NOBODY, forward(&OTHER_NODE)),
                (&WORLD, forward(&ROUTER)),
            ] {
                world.routes.insert(place.ip(family).into(), route);
            }
            for (range, v4_bits, v6_bits) in RANGES {
                let bits = if family == Family::V4 { 96 + u32::from(v4_bits) } else { u32::from(v6_bits) };
                let key = PrefixKey { prefix_len: bits, address: range.ip(family).into() };
                let value = IpcacheEntry { flags: ipcache::flag::CLUSTER_RANGE, ..IpcacheEntry::default() };
                world.maps.ranges.insert(key, value);
            }
        }
        world
    }

    /// The same with the other node behind the overlay.
    #[must_use]
    pub fn overlay() -> Self {
        let mut world = Self::open();
        world.settings.overlay_ifindex = OVERLAY;
        for family in Family::BOTH {
            for place in [&REMOTE, &OTHER_NODE] {
                if let Some(entry) = world.maps.ipcache.get_mut(&place.ip(family).into()) {
                    entry.flags |= ipcache::flag::TUNNEL;
                    // IPv6 pods travel in the same IPv4 underlay.
                    entry.tunnel = OTHER_NODE.ip(Family::V4).into();
                }
            }
        }
        world
    }

    /// Adds a pod that no policy selects.
    pub fn add_pod(&mut self, pod: &Pod) {
        let entry = endpoint_of(pod);
        self.maps.interfaces.insert(pod.ifindex, entry);
        for family in Family::BOTH {
            self.maps.endpoints.insert(pod.place.ip(family).into(), entry);
            let cached = IpcacheEntry { identity: pod.identity, node_id: 1, ..IpcacheEntry::default() };
            self.maps.ipcache.insert(pod.place.ip(family).into(), cached);
        }
        for side in [direction::INGRESS, direction::EGRESS] {
            self.rule_of(pod.id, side, 0, None, verdict::ALLOW, precedence::DEFAULT, 0);
        }
        self.maps.words.insert(pod.id, StateWord::new(10 + pod.id, pod.id));
    }

    /// Removes a pod as the agent does: word, then addresses, then generation (datapath.md 17).
    pub fn remove_pod(&mut self, pod: &Pod) {
        let word = self.maps.words.get(&pod.id).copied().unwrap_or_default();
        self.maps.words.insert(pod.id, StateWord::new(word.epoch() + 100, StateWord::DROP_SLOT));
        self.maps.interfaces.remove(&pod.ifindex);
        for family in Family::BOTH {
            self.maps.endpoints.remove(&pod.place.ip(family).into());
            self.maps.ipcache.remove(&pod.place.ip(family).into());
        }
        self.raise_generation();
    }

    /// Says what the path to an address takes.
    pub fn mtu(&mut self, address: IpAddr, bytes: u16) {
        self.mtus.insert(address.into(), bytes);
    }

    /// Gives a pod a new epoch: what its packets are judged by has changed.
    pub fn raise_epoch(&mut self, pod: &Pod) {
        let word = self.maps.words.get(&pod.id).copied().unwrap_or_default();
        self.maps.words.insert(pod.id, StateWord::new(word.epoch() + 100, word.slot()));
    }

    /// Raises the ipcache generation.
    pub fn raise_generation(&mut self) {
        let word = self.maps.words.get(&StateWord::NODE).copied().unwrap_or_default();
        self.maps.words.insert(StateWord::NODE, StateWord::new(word.revision(), word.generation() + 1));
    }

    /// Switches default deny on for a pod, by the policies behind a cookie.
    pub fn default_deny(&mut self, pod: &Pod, side: u8, cookie: u32) {
        self.rule_of(pod.id, side, 0, None, verdict::DEFAULT_DENY, precedence::DEFAULT, cookie);
        self.raise_epoch(pod);
    }

    /// Adds a rule that allows a peer: an identity, a class, or 0 for any.
    pub fn allow(&mut self, pod: &Pod, side: u8, peer: u32, l4: L4, cookie: u32) {
        self.rule_of(pod.id, side, peer, l4, verdict::ALLOW, precedence::ALLOW, cookie);
        self.raise_epoch(pod);
    }

    /// Adds a rule that denies a peer.
    pub fn deny(&mut self, pod: &Pod, side: u8, peer: u32, l4: L4, cookie: u32) {
        self.rule_of(pod.id, side, peer, l4, verdict::DENY, precedence::DENY, cookie);
        self.raise_epoch(pod);
    }

    /// Removes all rules of a pod for one direction, and its default deny.
    pub fn open_again(&mut self, pod: &Pod, side: u8) {
        if let Some(table) = self.maps.policy.get_mut(&pod.id) {
            table.retain(|(_, key), _| key.direction != side);
        }
        self.rule_of(pod.id, side, 0, None, verdict::ALLOW, precedence::DEFAULT, 0);
        self.raise_epoch(pod);
    }

    #[allow(clippy::too_many_arguments, reason = "an entry has this many values")]
    fn rule_of(&mut self, slot: u32, side: u8, peer: u32, l4: L4, verdict: u8, precedence: u32, cookie: u32) {
        let (protocol, port, bits) = match l4 {
            None => (0, 0, 0),
            Some((protocol, None)) => (protocol, 0, 8),
            Some((protocol, Some(port))) => (protocol, port.to_be(), 24),
        };
        let key = PolicyKey { peer, direction: side, protocol, port };
        let entry = PolicyEntry {
            precedence,
            shadow_precedence: precedence,
            verdict,
            shadow_verdict: verdict,
            l4_bits: bits,
            shadow_l4_bits: bits,
            cookie,
            shadow_cookie: cookie,
            ..PolicyEntry::default()
        };
        self.maps.policy.entry(slot).or_default().insert((PolicyKey::PEER_BITS as u8 + bits, key), entry);
    }

    /// Runs a packet through its hook. Returns what becomes of it, and the packet afterwards.
    pub fn send(&self, sent: &Sent) -> (Result<Action, Dropped>, HostPacket) {
        let mut packet = sent.packet.clone();
        packet.routes = Box::new(self.routes.clone());
        packet.mtus = Box::new(self.mtus.clone());
        self.maps.clock.set(self.now);
        let (maps, settings, now) = (&self.maps, &self.settings, self.now);
        let mut frame = Frame::default();
        let hook = match sent.hook {
            Hook::FromPod => hooks::from_pod::from_pod,
            Hook::ToPod => hooks::to_pod::to_pod,
            Hook::FromNet => hooks::from_net::from_net,
            Hook::ToNet => hooks::to_net::to_net,
            Hook::FromOverlay => hooks::from_overlay::from_overlay,
            Hook::ToOverlay => hooks::to_overlay::to_overlay,
        };
        let result = hook(maps, &mut packet, settings, now, &mut frame);
        let result = match result {
            // By tail call in the kernel.
            Ok(Action::Answer) => hooks::from_pod::answer(maps, &mut packet, settings, now, &mut frame),
            result => result,
        };
        (result, packet)
    }

    /// Lets time pass: what connections say of times moves into the past, so that the kernel's, which has a clock of its
    /// own, can be aged in the same way.
    pub fn age(&mut self, seconds: u64) {
        for entry in self.maps.connections.borrow_mut().values_mut() {
            let mut old = (**entry).clone();
            age_entry(&mut old, seconds);
            *entry = std::rc::Rc::new(old);
        }
    }
}

/// Moves the times of an entry into the past.
pub fn age_entry(entry: &mut crate::abi::CtEntry, seconds: u64) {
    let earlier = |time: u64| time.saturating_sub(seconds * SECOND);
    entry.created = earlier(entry.created);
    entry.refused = earlier(entry.refused);
    for half in &entry.halves {
        half.last.set(earlier(half.last.get()));
        half.reported.set(earlier(half.reported.get()));
    }
}

/// The endpoint entry of a pod.
#[must_use]
pub fn endpoint_of(pod: &Pod) -> EndpointEntry {
    EndpointEntry {
        id: pod.id,
        ifindex: pod.ifindex,
        identity: pod.identity,
        v4: Address::from(pod.place.ip(Family::V4)),
        v6: Address::from(pod.place.ip(Family::V6)),
        mac: pod.mac,
        host_mac: pod.host_mac,
        ..EndpointEntry::default()
    }
}
