//! Keys and values of a policy table: one longest-prefix-match trie for each table slot.

/// Directions of policy, as the traffic of the endpoint that enforces it.
pub mod direction {
    /// What comes to the endpoint.
    pub const INGRESS: u8 = 0;
    /// What it sends.
    pub const EGRESS: u8 = 1;
}

/// Verdicts in a [`PolicyEntry`].
pub mod verdict {
    /// Nothing allowed it and a policy switched default deny on.
    pub const DEFAULT_DENY: u8 = 0;
    /// A rule allows it, or no policy selects the endpoint in this direction.
    pub const ALLOW: u8 = 1;
    /// A rule denies it.
    pub const DENY: u8 = 2;
}

/// Precedences in a [`PolicyEntry`]: the higher one decides (policy.md 11).
pub mod precedence {
    /// The entry that says what holds where no rule matches: default deny, or open.
    pub const DEFAULT: u32 = 0;
    /// An allow rule.
    pub const ALLOW: u32 = 1;
    /// A deny rule.
    pub const DENY: u32 = 255;
}

/// Key of a policy trie, without the prefix length that stands in front of it.
///
/// The fields stand in the order in which they may be wildcards: peer and direction are always exact (peer 0 is the
/// key of any peer); then the protocol, then the port from its high bits, so that a protocol can be a wildcard only
/// with its ports, and a range of ports is a few prefixes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyKey {
    /// An identity, an address class (scope 1), or 0 for any peer.
    pub peer: u32,
    /// [`direction`].
    pub direction: u8,
    /// IANA protocol number; 0 below prefix length [`PolicyKey::PEER_BITS`] + 8.
    pub protocol: u8,
    /// Destination port, or ICMP type, in network order.
    pub port: u16,
}

impl PolicyKey {
    /// Bits of peer and direction, which every entry has.
    pub const PEER_BITS: u32 = 40;
    /// Bits of a whole key.
    pub const FULL_BITS: u32 = 64;
}

/// Value of a policy trie: the enforced verdict, and beside it the shadow verdict, which counts audit policies in
/// (policy.md 13). Without audit policies both are the same.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyEntry {
    /// [`precedence`] of the enforced verdict.
    pub precedence: u32,
    /// [`precedence`] of the shadow verdict.
    pub shadow_precedence: u32,
    /// [`verdict`].
    pub verdict: u8,
    /// [`verdict`] with audit policies.
    pub shadow_verdict: u8,
    /// Protocol and port bits of the rule behind the enforced verdict, 0–24.
    pub l4_bits: u8,
    /// Protocol and port bits of the rule behind the shadow verdict, 0–24.
    pub shadow_l4_bits: u8,
    /// Proxy listener that must take the connection, 0 for none.
    pub listener: u16,
    /// Authentication that the connection needs, 0 for none.
    pub auth: u16,
    /// Names the rule (or the policies that switched default deny on) to the agent; 0: no policy selects the endpoint.
    pub cookie: u32,
    /// The same for the shadow verdict.
    pub shadow_cookie: u32,
}

const _: () = assert!(size_of::<PolicyKey>() == 8);
const _: () = assert!(size_of::<PolicyEntry>() == 24);
