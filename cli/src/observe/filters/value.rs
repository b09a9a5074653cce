//! Values of filter flags: the words that people use for numbers of the schema.

use sinew_api::identity::Identity;
use sinew_api::object::PolicyKind;
use sinew_api::proto::flow::{DropReason, EventTypeFilter, IpVersion, TcpFlags, Verdict, Workload};

use crate::observe::print::words;

pub(super) fn boolean(flag: &str, value: &str) -> Result<bool, String> {
    value.parse().map_err(|_| format!("--{flag} takes true or false, not {value:?}"))
}

/// A number, or a reserved name.
pub(super) fn identity(value: &str) -> Result<u32, String> {
    if let Some(number) = words::reserved_identity(value) {
        return Ok(number);
    }
    let names = Identity::RESERVED.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(", ");
    unsigned(value).ok_or_else(|| format!("{value:?} is no identity: a number, or one of {names}"))
}

/// A number as Go reads one whose base its prefix names, which is how Hubble's client reads identities: `0x5`, `0b101`,
/// `0o5` and `05` are 5, and single underscores may stand between digits and behind the prefix.
fn unsigned(value: &str) -> Option<u32> {
    let lower = value.to_ascii_lowercase();
    let (base, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, &*lower),
    };
    let digits = if base == 10 { digits } else { digits.strip_prefix('_').unwrap_or(digits) };
    let sound =
        digits.split('_').all(|run| !run.is_empty() && run.bytes().all(|it| it.is_ascii_alphanumeric()));
    sound.then(|| u32::from_str_radix(&digits.replace('_', ""), base).ok()).flatten()
}

/// `name`, `Kind/name` or `Kind/`.
pub(super) fn workload(value: &str) -> Workload {
    let (kind, name) = value.split_once('/').unwrap_or(("", value));
    Workload { kind: kind.to_owned(), name: name.to_owned() }
}

pub(super) fn drop_reason(value: &str) -> Result<DropReason, String> {
    DropReason::from_str_name(&value.to_ascii_uppercase()).ok_or_else(|| {
        format!("--drop-reason-desc {value:?} is no drop reason; it is a name such as POLICY_DENIED")
    })
}

pub(super) fn verdict(value: &str) -> Result<Verdict, String> {
    Verdict::from_str_name(&value.to_ascii_uppercase()).ok_or_else(|| {
        format!(
            "--verdict {value:?} is none of FORWARDED, DROPPED, AUDIT, REDIRECTED, ERROR, TRACED, TRANSLATED"
        )
    })
}

pub(super) fn ip_version(value: &str) -> Result<IpVersion, String> {
    match value.to_ascii_lowercase().as_str() {
        "4" | "v4" | "ipv4" | "ip4" => Ok(IpVersion::IPv4),
        "6" | "v6" | "ipv6" | "ip6" => Ok(IpVersion::IPv6),
        "none" => Ok(IpVersion::IpNotUsed),
        _ => Err(format!("--ip-version {value:?} is none of v4, v6, none")),
    }
}

pub(super) fn ip_trace_id(value: &str) -> Result<u64, String> {
    match value.parse() {
        Ok(id) if id > 0 => Ok(id),
        _ => Err(format!("--ip-trace-id {value:?} is no number above 0")),
    }
}

/// `syn,ack`: all of them in one filter.
pub(super) fn tcp_flags(value: &str) -> Result<TcpFlags, String> {
    let mut flags = TcpFlags::default();
    for name in value.split(',') {
        let flag = match name.to_ascii_uppercase().as_str() {
            "FIN" => &mut flags.fin,
            "SYN" => &mut flags.syn,
            "RST" => &mut flags.rst,
            "PSH" => &mut flags.psh,
            "ACK" => &mut flags.ack,
            "URG" => &mut flags.urg,
            "ECE" => &mut flags.ece,
            "CWR" => &mut flags.cwr,
            "NS" => &mut flags.ns,
            _ => return Err(format!("--tcp-flags {name:?} is no TCP flag")),
        };
        *flag = true;
    }
    Ok(flags)
}

/// `TYPE[:SUBTYPE]`, each a name or a number.
pub(super) fn event_type(value: &str) -> Result<EventTypeFilter, String> {
    let (name, sub_name) = match value.split_once(':') {
        Some((name, sub_name)) => (name, Some(sub_name)),
        None => (value, None),
    };
    let names = words::EVENT_TYPES.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(", ");
    let r#type = words::event_type(name)
        .or_else(|| number(name))
        .ok_or_else(|| format!("--type {name:?} is none of {names}, and no number"))?;
    let sub_type = match sub_name {
        None => None,
        Some(sub_name) => Some(
            (r#type == words::TYPE_TRACE)
                .then(|| words::trace_point(sub_name))
                .flatten()
                .or_else(|| number(sub_name))
                .ok_or_else(|| {
                    format!("--type {value:?}: {sub_name:?} is no sub type of {name}, and no number")
                })?,
        ),
    };
    Ok(EventTypeFilter { r#type, match_sub_type: sub_type.is_some(), sub_type: sub_type.unwrap_or(0) })
}

fn number(text: &str) -> Option<i32> {
    text.parse().ok().filter(|number| *number >= 0)
}

/// A CEL expression for a policy as `name`, `namespace/name`, `kind/name` or `kind/namespace/name`, kinds in short form.
pub(super) fn policy_expression(value: &str) -> Result<String, String> {
    let sound = |part: &&str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
    };
    let parts: Vec<&str> = value.split('/').collect();
    if !parts.iter().all(sound) {
        return Err(format!("--policy {value:?} is not NAME, NAMESPACE/NAME or KIND/NAMESPACE/NAME"));
    }
    let kind_of =
        |short: &str| PolicyKind::ALL.into_iter().find(|kind| kind.short() == short).map(PolicyKind::kind);
    let mut tests = Vec::new();
    match parts.as_slice() {
        [name] => tests.push(format!("p.name == '{name}'")),
        [first, name] => {
            tests.push(format!("p.name == '{name}'"));
            match kind_of(first) {
                Some(kind) => tests.push(format!("p.kind == '{kind}'")),
                None => tests.push(format!("p.namespace == '{first}'")),
            }
        }
        [short, namespace, name] => {
            let kind = kind_of(short)
                .ok_or_else(|| format!("--policy {value:?}: {short:?} is no kind of policy"))?;
            tests.push(format!("p.name == '{name}' && p.namespace == '{namespace}' && p.kind == '{kind}'"));
        }
        _ => return Err(format!("--policy {value:?} has more than two slashes")),
    }
    let test = tests.join(" && ");
    let lists = ["egress_allowed_by", "ingress_allowed_by", "egress_denied_by", "ingress_denied_by"];
    Ok(lists.map(|list| format!("_flow.{list}.exists(p, {test})")).join(" || "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Go's `strconv.ParseUint(s, 0, 32)` makes of them.
    #[test]
    fn identities_are_numbers_as_go_reads_them() {
        for (text, number) in [
            ("0", 0),
            ("5", 5),
            ("0x5", 5),
            ("0XfF", 255),
            ("0b101", 5),
            ("0o17", 15),
            ("017", 15),
            ("1_000", 1000),
            ("0x_1_0", 16),
            ("4294967295", u32::MAX),
            ("0x1000001", 16_777_217),
        ] {
            assert_eq!(identity(text), Ok(number), "{text}");
        }
        for text in ["", "+5", "-1", "08", "0x", "0xg", "0b2", "1__0", "_1", "1_", "0_", "4294967296", "5 "] {
            assert!(identity(text).is_err(), "{text}");
        }
    }
}
