//! Names of ICMP's messages as Hubble's `icmp` metric and the summaries of its flows have them: `EchoRequest`,
//! `DestinationUnreachable(Port)`, and numbers for what has no name. Types and codes: RFC 792, RFC 950, RFC 1256, RFC
//! 1812 §5.2.7.1; RFC 4443, RFC 4861.

use std::borrow::Cow;

/// A type's name, and the names of its codes from 0 on.
type Names = (&'static str, &'static [&'static str]);

/// An ICMP message.
#[must_use]
pub fn v4(r#type: u32, code: u32) -> Cow<'static, str> {
    let names: Names = match r#type {
        0 => ("EchoReply", &[]),
        3 => (
            "DestinationUnreachable",
            &[
                "Net",
                "Host",
                "Protocol",
                "Port",
                "FragmentationNeeded",
                "SourceRoutingFailed",
                "NetUnknown",
                "HostUnknown",
                "SourceIsolated",
                "NetAdminProhibited",
                "HostAdminProhibited",
                "NetTOS",
                "HostTOS",
                "CommAdminProhibited",
                "HostPrecedence",
                "PrecedenceCutoff",
            ],
        ),
        4 => ("SourceQuench", &[]),
        5 => ("Redirect", &["Net", "Host", "TOS+Net", "TOS+Host"]),
        8 => ("EchoRequest", &[]),
        9 => ("RouterAdvertisement", &[]),
        10 => ("RouterSolicitation", &[]),
        11 => ("TimeExceeded", &["TTLExceeded", "FragmentReassemblyTimeExceeded"]),
        12 => ("ParameterProblem", &["PointerIndicatesError", "MissingOption", "BadLength"]),
        13 => ("TimestampRequest", &[]),
        14 => ("TimestampReply", &[]),
        15 => ("InfoRequest", &[]),
        16 => ("InfoReply", &[]),
        17 => ("AddressMaskRequest", &[]),
        18 => ("AddressMaskReply", &[]),
        _ => return format!("{type}({code})").into(),
    };
    named(names, code)
}

/// An ICMPv6 message.
#[must_use]
pub fn v6(r#type: u32, code: u32) -> Cow<'static, str> {
    let names: Names = match r#type {
        1 => (
            "DestinationUnreachable",
            &[
                "NoRouteToDst",
                "AdminProhibited",
                "BeyondScopeOfSrc",
                "AddressUnreachable",
                "PortUnreachable",
                "SrcAddressFailedPolicy",
                "RejectRouteToDst",
            ],
        ),
        2 => ("PacketTooBig", &[]),
        3 => ("TimeExceeded", &["HopLimitExceeded", "FragmentReassemblyTimeExceeded"]),
        4 => (
            "ParameterProblem",
            &["ErroneousHeaderField", "UnrecognizedNextHeader", "UnrecognizedIPv6Option"],
        ),
        128 => ("EchoRequest", &[]),
        129 => ("EchoReply", &[]),
        133 => ("RouterSolicitation", &[]),
        134 => ("RouterAdvertisement", &[]),
        135 => ("NeighborSolicitation", &[]),
        136 => ("NeighborAdvertisement", &[]),
        137 => ("Redirect", &[]),
        _ => return format!("{type}({code})").into(),
    };
    named(names, code)
}

fn named((name, codes): Names, code: u32) -> Cow<'static, str> {
    match usize::try_from(code).ok().and_then(|at| codes.get(at)) {
        Some(code) => format!("{name}({code})").into(),
        None if codes.is_empty() && code == 0 => name.into(),
        None => format!("{name}(Code: {code})").into(),
    }
}
