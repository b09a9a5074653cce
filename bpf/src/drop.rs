//! Why a packet was dropped: the error type of every stage.
//!
//! Numbers below 1000 are Hubble's, of the same meaning. Numbers from 1000 on are finer reasons of our own, each with
//! the Hubble number that a stock client shows for it (datapath.md 32).

use core::num::NonZeroU32;

/// Declares the reasons once: variant, own number, Hubble's number, and the words that our screens print.
macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $hubble:literal, $words:literal;)*) => {
        /// Why a packet was dropped.
        #[repr(u16)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum DropReason {
            $($(#[$doc])* $variant = $number,)*
        }

        impl DropReason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Hubble's number of the same meaning (`flow.DropReason`).
            #[must_use]
            pub const fn hubble(self) -> u16 {
                match self { $(Self::$variant => $hubble,)* }
            }

            /// Our words (`reason_text`, metrics, documents); lines of flows print Hubble's.
            #[must_use]
            pub const fn words(self) -> &'static str {
                match self { $(Self::$variant => $words,)* }
            }

            /// The reason with this number, if there is one.
            #[must_use]
            pub const fn from_number(number: u16) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

reasons! {
    /// The source MAC is not the pod's.
    InvalidSourceMac = 130, 130, "invalid source MAC";
    /// The source address is not the sender's own.
    InvalidSourceIp = 132, 132, "invalid source IP";
    /// No rule allows it, and a policy switched default deny on.
    PolicyDenied = 133, 133, "policy denied by default";
    /// A header contradicts itself.
    InvalidPacket = 134, 134, "invalid packet";
    /// The packet ends before its headers do.
    Truncated = 135, 135, "truncated or invalid header";
    /// Neither IPv4 nor IPv6 nor ARP.
    UnsupportedL3 = 139, 139, "unsupported L3 protocol";
    /// A protocol without ports that policy could name.
    UnknownL4 = 142, 142, "unknown L4 protocol";
    /// The connection table took no entry.
    CtInsertFailed = 155, 155, "connection tracking insertion failed";
    /// An IPv6 extension header that is malformed, or one too many.
    InvalidExtensionHeader = 156, 156, "invalid IPv6 extension header";
    /// The overlay has no endpoint for the destination.
    NoTunnelEndpoint = 160, 160, "no tunnel endpoint";
    /// A pod sends to the tunnel port of a node.
    EncapProhibited = 170, 170, "encapsulation traffic is prohibited";
    /// The identity is not one that the node's tables know.
    InvalidIdentity = 171, 171, "invalid identity";
    /// The source lies in the cluster's ranges, but nobody is known there.
    UnknownSender = 172, 172, "unknown sender";
    /// A fragment whose first one has not been seen.
    FragmentNotFound = 175, 175, "first fragment not found";
    /// A router advertisement, a redirect, or neighbour discovery that claims somebody else's address.
    ForbiddenIcmpv6 = 176, 176, "forbidden ICMPv6 message";
    /// A deny rule matches.
    DeniedByRule = 181, 181, "policy denied by denylist";
    /// A VLAN-tagged frame.
    Vlan = 182, 182, "VLAN traffic disallowed";
    /// An IGMP message: the node answers no group membership of pods.
    Igmp = 199, 199, "IGMP handled";
    /// An MLD message, likewise.
    Multicast = 201, 201, "multicast handled";
    /// The endpoint has no table yet, or no more.
    EndpointNotReady = 203, 203, "endpoint policy not ready";
    /// The destination lies in the cluster's ranges, but nobody is known there (policy.md 8).
    UnknownDestination = 1001, 151, "unknown address in a cluster range";
    /// TCP without any flag, or SYN with FIN.
    InvalidTcpFlags = 1002, 134, "invalid TCP flags";
    /// A multicast destination.
    MulticastDestination = 1003, 150, "multicast destination";
    /// A broadcast destination.
    BroadcastDestination = 1004, 150, "broadcast destination";
    /// A link-local destination other than the gateway.
    LinkLocalDestination = 1005, 150, "link-local destination";
    /// DHCP from a pod: addresses come from the agent.
    Dhcp = 1006, 132, "DHCP from a pod";
    /// An IPv6 packet with a v4-mapped address (RFC 4291 §2.5.5.2 never goes on the wire).
    MappedAddress = 1007, 132, "IPv4-mapped IPv6 address";
    /// ICMP in IPv6 or ICMPv6 in IPv4.
    WrongIcmpFamily = 1008, 142, "ICMP of the other IP version";
    /// A fragment that would overwrite the TCP header (RFC 3128).
    TinyFragment = 1009, 134, "tiny or overlapping fragment";
    /// An ICMP error that quotes no allowed connection of its receiver.
    UnrelatedIcmpError = 1010, 163, "ICMP error for no known connection";
    /// The overlay's outer source is not the node of the inner source.
    TunnelSourceMismatch = 1011, 132, "tunnel source is not the sender's node";
    /// A packet from the wire or the overlay claims an address of this node's own.
    SpoofedLocalSource = 1012, 132, "source is local to this node";
    /// UDP to the tunnel port that the node's overlay did not send.
    ForeignEncap = 1013, 170, "encapsulated by somebody else";
    /// A source address with a loopback, multicast or unspecified value.
    ImpossibleSource = 1014, 132, "impossible source address";
    /// The proxy that the policy demands does not have the connection (datapath.md 11).
    ProxyMissing = 1015, 205, "policy demands a proxy that the connection does not have";
    /// The kernel refused what a program had decided: to set a tunnel key, or its own working memory.
    ProgramFailed = 1016, 141, "the kernel refused what a program asked of it";
    /// An IPv4 option says where the packet goes: its destination is a stopover.
    SourceRoute = 1017, 134, "IPv4 source route, or options that can't be followed";
    /// A checksum that would be filled in where something else stands, after the verdict.
    MisplacedChecksum = 1018, 134, "checksum to be filled in outside its place";
}

/// Declares the source files that drop packets once: a constant for each, and its path below `src`. A file keeps its place:
/// records that were written before name it by number.
macro_rules! files {
    ($($name:ident, $path:literal;)*) => {
        /// Source files that drop packets, numbered for [`EventRecord`](crate::abi::EventRecord) and flow files.
        pub mod file {
            #[allow(non_camel_case_types, clippy::upper_case_acronyms, reason = "the constants' names")]
            #[allow(dead_code, reason = "the first number is no file's")]
            #[repr(u8)]
            enum Number { NONE, $($name,)* }

            /// File names by number.
            pub const NAMES: &[&str] = &["", $($path,)*];
            $(
                #[doc = concat!("`", $path, "`")]
                pub const $name: u8 = Number::$name as u8;
            )*
            #[cfg(test)]
            pub(super) const CONSTANTS: &[&str] = &["", $(stringify!($name),)*];
        }
    };
}

files! {
    PARSE, "parse.rs";
    SOURCE, "source.rs";
    IDENTITY, "identity.rs";
    POLICY, "policy.rs";
    CONNTRACK, "conntrack.rs";
    DELIVER, "deliver.rs";
    JUDGE, "conntrack/judge.rs";
    HOOKS, "hooks.rs";
    FROM_POD, "hooks/from_pod.rs";
    TO_POD, "hooks/to_pod.rs";
    FROM_NET, "hooks/from_net.rs";
    TO_NET, "hooks/to_net.rs";
    FROM_OVERLAY, "hooks/from_overlay.rs";
    TO_OVERLAY, "hooks/to_overlay.rs";
    ENDS, "conntrack/ends.rs";
}

/// A place has 4 bits for its file.
const _: () = assert!(file::NAMES.len() <= 16);

/// A drop with the place in the source that decided it, in one word: reason in the low half, then file and line.
///
/// One scalar that is never zero, so that `Result<(), Dropped>` is one scalar too: of a result in two registers the one
/// without meaning holds whatever was there, and the verifier refuses to see it touched (kernel 6.18). That is why no
/// stage returns a small value beside its error; it writes it where the caller says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped(NonZeroU32);

impl Dropped {
    /// Made by [`dropped!`](crate::dropped).
    #[inline(always)]
    #[must_use]
    pub const fn new(reason: DropReason, file: u8, line: u32) -> Self {
        Self::by_number(reason as u16, file, line)
    }

    /// For a reason that was stored as a number.
    #[inline(always)]
    #[must_use]
    pub const fn by_number(reason: u16, file: u8, line: u32) -> Self {
        match NonZeroU32::new(reason as u32 | (line & 0xfff) << 16 | ((file & 0xf) as u32) << 28) {
            Some(word) => Self(word),
            None => Self(NonZeroU32::MIN),
        }
    }

    /// The whole word, never 0.
    #[inline(always)]
    #[must_use]
    pub const fn word(self) -> u32 {
        self.0.get()
    }

    /// A drop from its word; 0 is none.
    #[inline(always)]
    pub const fn from_word(word: u32) -> Result<(), Self> {
        match NonZeroU32::new(word) {
            Some(word) => Err(Self(word)),
            None => Ok(()),
        }
    }

    /// The number of the reason.
    #[inline(always)]
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0.get() as u16
    }

    /// The reason; `None` for a number that no reason has.
    #[must_use]
    pub const fn reason(self) -> Option<DropReason> {
        DropReason::from_number(self.number())
    }

    /// File (high 4 bits) and line (low 12 bits), as the event record carries them.
    #[inline(always)]
    #[must_use]
    pub const fn place(self) -> u16 {
        (self.0.get() >> 16) as u16
    }
}

/// A [`Dropped`] of this place; the module names itself by its constant `FILE`.
#[macro_export]
macro_rules! dropped {
    ($reason:ident) => {
        $crate::drop::Dropped::new($crate::drop::DropReason::$reason, FILE, line!())
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_the_word() {
        for reason in DropReason::ALL {
            let word = Dropped::new(*reason, 7, 4095);
            assert_eq!(word.reason(), Some(*reason));
            assert_eq!(word.place(), 0x7fff);
        }
    }

    /// What a record says is looked for in that file: each that drops packets names itself.
    #[test]
    fn every_file_names_itself() {
        let src = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        for (number, (name, constant)) in file::NAMES.iter().zip(file::CONSTANTS).enumerate().skip(1) {
            let text =
                std::fs::read_to_string(src.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
            let own = std::format!("const FILE: u8 = file::{constant};");
            assert!(text.contains(&own), "{name} ({number}) has no `{own}`");
            assert!(text.contains("dropped!("), "{name} drops nothing");
        }
    }

    #[test]
    fn finer_reasons_map_to_hubble() {
        for reason in DropReason::ALL {
            let number = *reason as u16;
            assert!(reason.hubble() < 1000, "{reason:?} needs a Hubble number");
            assert!(
                number >= 1000 || number == reason.hubble(),
                "{reason:?} is Hubble's and must keep its number"
            );
        }
    }
}
