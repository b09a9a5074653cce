//! The words that Hubble's clients print for the schema's numbers, so that our lines read the same.

use sinew_api::identity::Identity;
use sinew_api::proto::flow::{Flow, Layer7, SocketTranslationPoint, layer7};

/// Number and name of the kinds of record that flows are made of.
pub(in crate::observe) const EVENT_TYPES: [(i32, &str); 8] = [
    (TYPE_DROP, "drop"),
    (2, "debug"),
    (TYPE_CAPTURE, "capture"),
    (TYPE_TRACE, "trace"),
    (TYPE_POLICY_VERDICT, "policy-verdict"),
    (TYPE_TRACE_SOCK, "trace-sock"),
    (129, "l7"),
    (130, "agent"),
];

pub(in crate::observe) const TYPE_DROP: i32 = 1;
const TYPE_CAPTURE: i32 = 3;
pub(in crate::observe) const TYPE_TRACE: i32 = 4;
pub(in crate::observe) const TYPE_POLICY_VERDICT: i32 = 5;
const TYPE_TRACE_SOCK: i32 = 7;

/// Names of trace points, by their number in `event_type.sub_type`.
const TRACE_POINTS: [&str; 14] = [
    "to-endpoint",
    "to-proxy",
    "to-host",
    "to-stack",
    "to-overlay",
    "from-endpoint",
    "from-proxy",
    "from-host",
    "from-stack",
    "from-overlay",
    "from-network",
    "to-network",
    "from-crypto",
    "to-crypto",
];

/// How a policy matched, by `policy_match_type`.
const MATCH_TYPES: [&str; 7] = ["none", "L3-Only", "L3-L4", "L4-Only", "all", "L3-Proto", "Proto-Only"];

/// The number of a reserved name that a filter may ask for.
pub(in crate::observe) fn reserved_identity(name: &str) -> Option<u32> {
    let mut named = Identity::RESERVED.iter().filter(|(number, _)| *number != Identity::UNKNOWN);
    named.find(|(_, known)| *known == name).map(|(number, _)| number.0)
}

/// The number of a kind of record.
pub(in crate::observe) fn event_type(name: &str) -> Option<i32> {
    EVENT_TYPES.iter().find(|(_, known)| *known == name).map(|(number, _)| *number)
}

/// The number of a trace point.
pub(in crate::observe) fn trace_point(name: &str) -> Option<i32> {
    TRACE_POINTS.iter().position(|known| *known == name).and_then(|index| i32::try_from(index).ok())
}

/// `(world)` for a reserved identity, `(ID:1234)` for another.
pub(super) fn identity(number: u32) -> String {
    match Identity(number).reserved_name() {
        Some(name) => format!("({name})"),
        None => format!("(ID:{number})"),
    }
}

/// What a flow was made of: a trace point, a drop reason, a policy verdict, an L7 message.
pub(in crate::observe) fn flow_type(flow: &Flow) -> String {
    if let Some(l7) = &flow.l7 {
        return l7_type(l7);
    }
    let Some(event) = &flow.event_type else { return "UNKNOWN".to_owned() };
    let sub_type = u8::try_from(event.sub_type & 0xff).unwrap_or(0);
    match event.r#type {
        TYPE_TRACE => TRACE_POINTS
            .get(usize::from(sub_type))
            .map_or_else(|| sub_type.to_string(), |it| (*it).to_owned()),
        TYPE_DROP => drop_reason(sub_type).map_or_else(|| format!("{sub_type}, 0"), str::to_owned),
        TYPE_POLICY_VERDICT => {
            let index = usize::try_from(flow.policy_match_type).unwrap_or(usize::MAX);
            let matched = MATCH_TYPES.get(index).copied().unwrap_or("unknown");
            format!("policy-verdict:{matched} {}", flow.traffic_direction().as_str_name())
        }
        TYPE_CAPTURE => flow.debug_capture_point().as_str_name().to_owned(),
        TYPE_TRACE_SOCK => match flow.sock_xlate_point() {
            SocketTranslationPoint::SockXlatePointPreDirectionFwd => "pre-xlate-fwd".to_owned(),
            SocketTranslationPoint::SockXlatePointPostDirectionFwd => "post-xlate-fwd".to_owned(),
            SocketTranslationPoint::SockXlatePointPreDirectionRev => "pre-xlate-rev".to_owned(),
            SocketTranslationPoint::SockXlatePointPostDirectionRev => "post-xlate-rev".to_owned(),
            other @ SocketTranslationPoint::SockXlatePointUnknown => other.as_str_name().to_owned(),
        },
        _ => "UNKNOWN".to_owned(),
    }
}

fn l7_type(l7: &Layer7) -> String {
    let kind = l7.r#type().as_str_name().to_ascii_lowercase();
    match &l7.record {
        Some(layer7::Record::Http(_)) => format!("http-{kind}"),
        Some(layer7::Record::Dns(dns)) => format!("dns-{kind} {}", dns.observation_source),
        Some(layer7::Record::Kafka(_)) => format!("kafka-{kind}"),
        None => format!("l7-{kind}"),
    }
}

/// Hubble's words for a drop reason, by the number in `event_type.sub_type`.
pub(in crate::observe) fn drop_reason(number: u8) -> Option<&'static str> {
    Some(match number {
        0 => "Success",
        2 => "Invalid packet",
        3 => "Interface",
        4 => "Interface Decrypted",
        5 => "LB, sock cgroup: No backend slot entry found",
        6 => "LB, sock cgroup: No backend entry found",
        7 => "LB, sock cgroup: Reverse entry update failed",
        8 => "LB, sock cgroup: Reverse entry stale",
        9 => "Fragmented packet",
        10 => "Fragmented packet entry update failed",
        11 => "Missed tail call to custom program",
        12 => "Interface Decrypting",
        13 => "Interface Encrypting",
        14 => "LB: sock cgroup: Reverse entry delete succeeded",
        15 => "MTU error message",
        130 => "Invalid source mac",
        131 => "Invalid destination mac",
        132 => "Invalid source ip",
        133 => "Policy denied",
        134 => "Invalid packet",
        135 => "CT: Truncated or invalid header",
        136 => "Fragmentation needed",
        137 => "CT: Unknown L4 protocol",
        138 => "CT: Can't create entry from packet",
        139 => "Unsupported L3 protocol",
        140 => "Missed tail call",
        141 => "Error writing to packet",
        142 => "Unknown L4 protocol",
        143 => "Unknown ICMPv4 code",
        144 => "Unknown ICMPv4 type",
        145 => "Unknown ICMPv6 code",
        146 => "Unknown ICMPv6 type",
        147 => "Error retrieving tunnel key",
        148 => "Error retrieving tunnel options",
        149 => "Invalid Geneve option",
        150 => "Unknown L3 target address",
        151 => "Stale or unroutable IP",
        152 => "No matching local container found",
        153 => "Error while correcting L3 checksum",
        154 => "Error while correcting L4 checksum",
        155 => "CT: Map insertion failed",
        156 => "Invalid IPv6 extension header",
        157 => "IP fragmentation not supported",
        158 => "Service backend not found",
        160 => "No tunnel/encapsulation endpoint (datapath BUG!)",
        161 => "NAT 46/64 not enabled",
        162 => "Reached EDT rate-limiting drop horizon",
        163 => "Unknown connection tracking state",
        164 => "Local host is unreachable",
        165 => "No configuration available to perform policy decision",
        166 => "Unsupported L2 protocol",
        167 => "No mapping for NAT masquerade",
        168 => "Unsupported protocol for NAT masquerade",
        169 => "FIB lookup failed",
        170 => "Encapsulation traffic is prohibited",
        171 => "Invalid identity",
        172 => "Unknown sender",
        173 => "NAT not needed",
        174 => "Is a ClusterIP",
        175 => "First logical datagram fragment not found",
        176 => "Forbidden ICMPv6 message",
        177 => "Denied by LB src range check",
        178 => "Socket lookup failed",
        179 => "Socket assign failed",
        180 => "Proxy redirection not supported for protocol",
        181 => "Policy denied by denylist",
        182 => "VLAN traffic disallowed by VLAN filter",
        183 => "Incorrect VNI from VTEP",
        184 => "Failed to update or lookup TC buffer",
        185 => "No SID was found for the IP address",
        186 => "SRv6 state was removed during tail call",
        187 => "L3 translation from IPv4 to IPv6 failed (NAT46)",
        188 => "L3 translation from IPv6 to IPv4 failed (NAT64)",
        189 => "Authentication required",
        190 => "No conntrack map found",
        191 => "No nat map found",
        192 => "Invalid ClusterID",
        193 => "Unsupported packet protocol for DSR encapsulation",
        194 => "No egress gateway found",
        195 => "Traffic is unencrypted",
        196 => "TTL exceeded",
        197 => "No node ID found",
        198 => "Rate limited",
        199 => "IGMP handled",
        200 => "IGMP subscribed",
        201 => "Multicast handled",
        202 => "Host datapath not ready",
        203 => "Endpoint policy program not available",
        204 => "No Egress IP configured",
        205 => "Punt to proxy",
        _ => return None,
    })
}
