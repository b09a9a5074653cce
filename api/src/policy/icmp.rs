//! `icmps` of the Cilium schema.

use super::{PortMatch, PortMatchKind, Protocol};
use crate::fields::{Field, Report};
use crate::names;
use crate::yaml::Value;

/// Most types in one element, as in Cilium's schema.
const MAX_FIELDS: usize = 40;

/// Names of ICMP types in Cilium's schema; the numbers are IANA's (icmp-parameters).
const ICMP: [(&str, u8); 14] = [
    ("EchoReply", 0),
    ("DestinationUnreachable", 3),
    ("Redirect", 5),
    ("Echo", 8),
    ("EchoRequest", 8),
    ("RouterAdvertisement", 9),
    ("RouterSelection", 10),
    ("TimeExceeded", 11),
    ("ParameterProblem", 12),
    ("Timestamp", 13),
    ("TimestampReply", 14),
    ("Photuris", 40),
    ("ExtendedEchoRequest", 42),
    ("ExtendedEchoReply", 43),
];

/// Names of ICMPv6 types; the numbers are IANA's (icmpv6-parameters).
const ICMPV6: [(&str, u8); 27] = [
    ("DestinationUnreachable", 1),
    ("PacketTooBig", 2),
    ("TimeExceeded", 3),
    ("ParameterProblem", 4),
    ("EchoRequest", 128),
    ("EchoReply", 129),
    ("MulticastListenerQuery", 130),
    ("MulticastListenerReport", 131),
    ("MulticastListenerDone", 132),
    ("RouterSolicitation", 133),
    ("RouterAdvertisement", 134),
    ("NeighborSolicitation", 135),
    ("NeighborAdvertisement", 136),
    ("RedirectMessage", 137),
    ("RouterRenumbering", 138),
    ("ICMPNodeInformationQuery", 139),
    ("ICMPNodeInformationResponse", 140),
    ("InverseNeighborDiscoverySolicitation", 141),
    ("InverseNeighborDiscoveryAdvertisement", 142),
    ("HomeAgentAddressDiscoveryRequest", 144),
    ("HomeAgentAddressDiscoveryReply", 145),
    ("MobilePrefixSolicitation", 146),
    ("MobilePrefixAdvertisement", 147),
    ("DuplicateAddressRequestCodeSuffix", 157),
    ("DuplicateAddressConfirmationCodeSuffix", 158),
    ("ExtendedEchoRequest", 160),
    ("ExtendedEchoReply", 161),
];

/// Reads an element of `icmps`.
pub(super) fn icmp(field: &Field<'_>, report: &mut Report) -> Vec<PortMatch> {
    let Some(mut fields) = field.fields(report) else { return Vec::new() };
    let list = fields.take("fields");
    let types = list.as_ref().and_then(|list| list.list(report));
    let mut matches = Vec::new();
    match (&list, types) {
        (Some(list), Some(types)) if types.len() > MAX_FIELDS => {
            list.refuse(report, format!("has {} types, at most {MAX_FIELDS} are allowed", types.len()));
        }
        (_, Some(types)) if !types.is_empty() => {
            matches.extend(types.iter().filter_map(|field| icmp_type(field, report)));
        }
        (Some(_), None) => {}
        _ => {
            report.refuse(
                &fields.path_of("fields"),
                fields.line(),
                "names no type, so the element would match nothing",
            );
        }
    }
    fields.finish(report);
    matches
}

fn icmp_type(field: &Field<'_>, report: &mut Report) -> Option<PortMatch> {
    let before = report.count();
    let mut fields = field.fields(report)?;
    let family = fields.take("family");
    let type_field = fields.require("type", report);
    fields.finish(report);
    let (protocol, family, known): (_, _, &[(&str, u8)]) = match &family {
        None => (Protocol::Icmp, "IPv4", &ICMP),
        Some(family) => match family.text(report)? {
            "IPv4" => (Protocol::Icmp, "IPv4", &ICMP),
            "IPv6" => (Protocol::Icmpv6, "IPv6", &ICMPV6),
            other => {
                let other = names::shown(other);
                family.refuse(report, format!("{other:?} is no family (known: IPv4, IPv6)"));
                return None;
            }
        },
    };
    let place = type_field?;
    let icmp_type = match &place.node.value {
        Value::Integer(_) => u8::try_from(place.integer(0..=255, report)?).ok()?,
        _ => {
            let name = place.text(report)?;
            let digits =
                name.bytes().all(|byte| byte.is_ascii_digit()) && (name == "0" || !name.starts_with('0'));
            let number = name.parse().ok().filter(|_| digits);
            let named = known.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
            let Some(number) = number.or(named) else {
                let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
                let name = names::shown(name);
                place.refuse(
                    report,
                    format!("{name:?} is no ICMP type of {family} (a number 0–255, or {})", names.join(", ")),
                );
                return None;
            };
            number
        }
    };
    let matches = PortMatchKind::IcmpType { protocol, icmp_type };
    (report.count() == before).then(|| PortMatch { matches, path: field.path.clone(), line: field.line })
}
