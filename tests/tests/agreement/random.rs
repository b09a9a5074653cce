//! Random packets: those of the cases, with random bytes changed, cut off or put behind, and now and then noise; and a
//! world whose policies refuse some of them, and change under way.

use std::env;

use sinew_bpf::abi::policy::direction::{EGRESS, INGRESS};
use sinew_bpf::host::world::{API, Family, Hook, OVERLAY, Sent, UNDERLAY, WEB, World};
use sinew_bpf::host::{Step, cases};

/// Bytes that a test run takes at least: a link header, and behind one that says IP an IP header.
const LEAST: usize = 14;
/// A page, less what the kernel wants around a packet.
const MOST: usize = 3000;

/// A source of packets and changes, the same for the same seed.
pub(crate) struct Packets {
    seed: u64,
    state: u64,
    seeds: Vec<Sent>,
}

impl Packets {
    /// With the seed of `SINEW_AGREEMENT_SEED`, else with one of the clock.
    pub(crate) fn new() -> Self {
        let given = env::var("SINEW_AGREEMENT_SEED").ok();
        let given = given.and_then(|text| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok());
        let seed = given.unwrap_or_else(|| super::kernel::coarse_time().unwrap_or(1)) | 1;
        let mut seeds = Vec::new();
        for named in cases::all() {
            for family in Family::BOTH {
                for step in (named.make)(family).steps {
                    if let Step::Packet(mut sent, ..) = step {
                        // A test run has neither.
                        sent.packet.tunnel = None;
                        sent.packet.vlan_tagged = false;
                        sent.packet.pending_checksum = None;
                        seeds.push(*sent);
                    }
                }
            }
        }
        Self { seed, state: seed, seeds }
    }

    /// What repeats the run.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// Xorshift (Marsaglia 2003).
    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit.max(1)
    }

    /// A world in which some things are refused.
    pub(crate) fn world(&mut self) -> World {
        let mut world = match self.below(4) {
            0 => World::overlay(),
            _ => World::open(),
        };
        world.settings.reject = u8::from(self.below(4) == 0);
        for pod in [&WEB, &API] {
            for side in [INGRESS, EGRESS] {
                if self.below(3) == 0 {
                    world.default_deny(pod, side, 70 + u32::from(side));
                    let l4 = [
                        None,
                        Some((6, None)),
                        Some((17, Some(80))),
                        Some((1, Some(8))),
                        Some((58, Some(128))),
                    ];
                    let peer = [0, WEB.identity, API.identity, 9, 10, 1][self.below(6)];
                    let l4 = l4[self.below(5)];
                    world.allow(pod, side, peer, l4, 72 + u32::from(side));
                    let peer = [WEB.identity, API.identity, 9, 10][self.below(4)];
                    world.deny(
                        pod,
                        side,
                        peer,
                        [None, Some((17, None)), Some((6, Some(81)))][self.below(3)],
                        75,
                    );
                }
            }
        }
        world
    }

    /// Now and then policy, an identity or an address changes.
    pub(crate) fn changes(&mut self, world: &mut World) -> bool {
        match self.below(40) {
            0 => world.raise_epoch(&WEB),
            1 => world.raise_generation(),
            2 => world.default_deny(&API, INGRESS, 74),
            3 => world.open_again(&API, INGRESS),
            4 => world.open_again(&WEB, EGRESS),
            _ => return false,
        }
        true
    }

    /// A packet.
    pub(crate) fn packet(&mut self) -> Sent {
        let mut sent = match self.below(20) {
            0 => self.noise(),
            _ => {
                let at = self.below(self.seeds.len());
                self.seeds[at].clone()
            }
        };
        if self.below(6) == 0 {
            sent.hook = Hook::ALL[self.below(6)];
            sent.packet.interface = [WEB.ifindex, API.ifindex, UNDERLAY, OVERLAY][self.below(4)];
            sent.packet.from_device = [0, WEB.ifindex, UNDERLAY][self.below(3)];
        }
        let bytes = &mut sent.packet.bytes;
        let (behind, random) = (self.below(8), self.next());
        if behind == 0 {
            bytes.extend(random.to_ne_bytes());
        }
        for _ in 0..[0, 0, 1, 1, 2, 8][self.below(6)] {
            let at = self.below(sent.packet.bytes.len().min(120));
            let value = [0, 1, 0xff, self.next() as u8, 1 << self.below(8)][self.below(5)];
            match (self.below(2), sent.packet.bytes.get_mut(at)) {
                (0, Some(byte)) => *byte ^= value,
                (_, Some(byte)) => *byte = value,
                (_, None) => {}
            }
        }
        if self.below(8) == 0 {
            let length = self.below(sent.packet.bytes.len());
            sent.packet.bytes.truncate(length);
        }
        sent.packet.bytes.truncate(MOST);
        let length = sent.packet.bytes.len().max(LEAST);
        sent.packet.bytes.resize(length, 0);
        let length = length.max(least(&sent.packet.bytes));
        sent.packet.bytes.resize(length, 0);
        sent
    }

    fn noise(&mut self) -> Sent {
        let length = LEAST + self.below(200);
        let mut bytes: Vec<u8> = (0..length).map(|_| self.next() as u8).collect();
        let kinds = [[0x08, 0x00], [0x86, 0xdd], [0x08, 0x06], [0x81, 0x00]];
        bytes[12..14].copy_from_slice(&kinds[self.below(4)]);
        bytes[..12].copy_from_slice(&[WEB.host_mac, WEB.mac].concat());
        Sent::raw(Hook::FromPod, WEB.ifindex, bytes)
    }
}

/// What the kernel takes at least of a frame: with the EtherType of IPv4 or IPv6 the whole fixed header.
pub(crate) fn least(bytes: &[u8]) -> usize {
    match bytes.get(12..14) {
        Some([0x08, 0x00]) => LEAST + 20,
        Some([0x86, 0xdd]) => LEAST + 40,
        _ => LEAST,
    }
}
