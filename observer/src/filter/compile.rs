//! Clauses from a `FlowFilter`, or the first value that has no meaning. Neighbours: [`super::clause`], [`super`].

use regex::Regex;
use sinew_api::proto::flow::{EventTypeFilter, FlowFilter, IpVersion, TrafficDirection, Verdict};

use super::address::Addresses;
use super::budget::Budget;
use super::clause::{Clause, End, NamePrefix, Protocol, is_drop_reason};
use super::expression::CelExpression;
use super::selector::LabelSelector;
use super::{LONGEST_TEXT, MOST_VALUES, pattern};

/// Type of L7 records in `event_type`.
const TYPE_L7: i32 = 129;
/// Memory of one compiled pattern. A pattern that needs more is refused, not compiled.
const REGEX_BYTES: usize = 1 << 20;

/// A value that has no meaning, and where it stands.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) field: String,
    pub(super) problem: String,
}

type Compiled<T> = Result<T, Problem>;

/// The clauses of one filter, in the order in which they are cheapest to refute.
pub(super) fn clauses(filter: &FlowFilter, budget: &Budget) -> Compiled<Vec<Clause>> {
    let mut made = Vec::new();
    let mut push = |clause: Option<Clause>| made.extend(clause);
    numbers(filter, &mut push)?;
    ends(filter, budget, &mut push)?;
    names(filter, budget, &mut push)?;
    http(filter, budget, &mut push)?;
    if let Some(experimental) = &filter.experimental {
        let parse = |it: &String| budget.expression().and_then(|()| CelExpression::parse(it, budget));
        let expressions = each("experimental.cel_expression", &experimental.cel_expression, parse)?;
        push(some(expressions).map(Clause::Expression));
    }
    Ok(made)
}

fn numbers(filter: &FlowFilter, push: &mut impl FnMut(Option<Clause>)) -> Compiled<()> {
    let verdict = |number: &i32| {
        Verdict::try_from(*number).map(i32::from).map_err(|_| format!("{number} is no verdict"))
    };
    push(some(each("verdict", &filter.verdict, verdict)?).map(Clause::Verdict));
    let direction = |number: &i32| {
        TrafficDirection::try_from(*number).map(i32::from).map_err(|_| format!("{number} is no direction"))
    };
    push(some(each("traffic_direction", &filter.traffic_direction, direction)?).map(Clause::Direction));
    let reason = |number: &i32| {
        if is_drop_reason(*number) { Ok(*number) } else { Err(format!("{number} is no drop reason")) }
    };
    push(some(each("drop_reason_desc", &filter.drop_reason_desc, reason)?).map(Clause::DropReason));
    let version = |number: &i32| {
        IpVersion::try_from(*number).map(i32::from).map_err(|_| format!("{number} is no IP version"))
    };
    push(some(each("ip_version", &filter.ip_version, version)?).map(Clause::IpVersion));
    push(some(each("event_type", &filter.event_type, |it| Ok(*it))?).map(Clause::EventType));
    push(some(each("reply", &filter.reply, |it| Ok(*it))?).map(Clause::Reply));
    push(some(each("encrypted", &filter.encrypted, |it| Ok(*it))?).map(Clause::Encrypted));
    push(some(each("protocol", &filter.protocol, |it| protocol(it))?).map(Clause::Protocol));
    push(some(each("tcp_flags", &filter.tcp_flags, |it| Ok(*it))?).map(Clause::TcpFlags));
    let traces: Vec<u64> = each("ip_trace_id", &filter.ip_trace_id, |it| Ok(*it))?;
    push(some(traces).map(|it| Clause::IpTraceId(it.into_iter().collect())));
    Ok(())
}

fn ends(filter: &FlowFilter, budget: &Budget, push: &mut impl FnMut(Option<Clause>)) -> Compiled<()> {
    use End::{Destination, Source};
    let identities = [
        (Source, "source_identity", &filter.source_identity),
        (Destination, "destination_identity", &filter.destination_identity),
    ];
    for (end, field, values) in identities {
        let values: Vec<u32> = each(field, values, |it| Ok(*it))?;
        push(some(values).map(|it| Clause::Identity(end, it.into_iter().collect())));
    }
    for (end, field, values) in [
        (Source, "source_port", &filter.source_port),
        (Destination, "destination_port", &filter.destination_port),
    ] {
        let ports = each(field, values, |it| {
            it.parse::<u16>().map(u32::from).map_err(|_| format!("{it:?} is no port"))
        })?;
        push(some(ports).map(|it| Clause::Port(end, it.into_iter().collect())));
    }
    for (end, field, values) in
        [(Source, "source_ip", &filter.source_ip), (Destination, "destination_ip", &filter.destination_ip)]
    {
        push(addresses(field, values)?.map(|it| Clause::Address(end, it)));
    }
    push(addresses("source_ip_xlated", &filter.source_ip_xlated)?.map(Clause::TranslatedAddress));
    for (end, field, values) in [
        (Source, "source_pod", &filter.source_pod),
        (Destination, "destination_pod", &filter.destination_pod),
    ] {
        push(some(each(field, values, |it| name_prefix(it))?).map(|it| Clause::Pod(end, it)));
    }
    let services = [
        (Source, "source_service", &filter.source_service),
        (Destination, "destination_service", &filter.destination_service),
    ];
    for (end, field, values) in services {
        push(some(each(field, values, |it| name_prefix(it))?).map(|it| Clause::Service(end, it)));
    }
    let workloads = [
        (Source, "source_workload", &filter.source_workload),
        (Destination, "destination_workload", &filter.destination_workload),
    ];
    for (end, field, values) in workloads {
        push(some(each(field, values, |it| Ok(it.clone()))?).map(|it| Clause::Workload(end, it)));
    }
    let clusters = [
        (Source, "source_cluster_name", &filter.source_cluster_name),
        (Destination, "destination_cluster_name", &filter.destination_cluster_name),
    ];
    for (end, field, values) in clusters {
        let names = each(field, values, |it| text(it).and_then(not_empty))?;
        push(some(names).map(|it| Clause::Cluster(end, it.into_iter().collect())));
    }
    for (end, field, values) in [
        (Source, "source_label", &filter.source_label),
        (Destination, "destination_label", &filter.destination_label),
    ] {
        push(some(each(field, values, |it| selector(it))?).map(|it| Clause::Labels(end, it)));
    }
    for (end, field, values) in [
        (Source, "source_fqdn", &filter.source_fqdn),
        (Destination, "destination_fqdn", &filter.destination_fqdn),
    ] {
        let patterns = each(field, values, |it| pattern::dns_name(text(it)?))?;
        push(anchored(field, &patterns, budget)?.map(|it| Clause::DnsName(end, it)));
    }
    Ok(())
}

fn names(filter: &FlowFilter, budget: &Budget, push: &mut impl FnMut(Option<Clause>)) -> Compiled<()> {
    let uuids: Vec<String> = each("uuid", &filter.uuid, |it| text(it).map(str::to_owned))?;
    push(some(uuids).map(|it| Clause::Uuid(it.into_iter().collect())));
    let traces: Vec<String> = each("trace_id", &filter.trace_id, |it| text(it).map(str::to_owned))?;
    push(some(traces).map(|it| Clause::TraceId(it.into_iter().collect())));
    push(some(each("interface", &filter.interface, |it| Ok(it.clone()))?).map(Clause::Interface));
    push(some(each("node_labels", &filter.node_labels, |it| selector(it))?).map(Clause::NodeLabels));
    let patterns = each("node_name", &filter.node_name, |it| pattern::node_name(text(it)?))?;
    push(anchored("node_name", &patterns, budget)?.map(Clause::NodeName));
    push(some(each("dns_query", &filter.dns_query, |it| regex(it, budget))?).map(Clause::DnsQuery));
    Ok(())
}

fn http(filter: &FlowFilter, budget: &Budget, push: &mut impl FnMut(Option<Clause>)) -> Compiled<()> {
    let fields = [
        ("http_status_code", filter.http_status_code.is_empty()),
        ("http_method", filter.http_method.is_empty()),
        ("http_path", filter.http_path.is_empty()),
        ("http_url", filter.http_url.is_empty()),
        ("http_header", filter.http_header.is_empty()),
    ];
    let others_only =
        !filter.event_type.is_empty() && !filter.event_type.iter().any(|it| it.r#type == TYPE_L7);
    for (field, empty) in fields {
        if !empty && others_only {
            let problem = format!("can never match together with event_type {}", types(&filter.event_type));
            return Err(Problem { field: field.to_owned(), problem });
        }
    }
    push(some(each("http_status_code", &filter.http_status_code, |it| status(it))?).map(Clause::HttpStatus));
    let methods = each("http_method", &filter.http_method, |it| text(it).map(str::to_owned))?;
    push(some(methods).map(Clause::HttpMethod));
    push(some(each("http_path", &filter.http_path, |it| regex(it, budget))?).map(Clause::HttpPath));
    push(some(each("http_url", &filter.http_url, |it| regex(it, budget))?).map(Clause::HttpUrl));
    push(some(each("http_header", &filter.http_header, |it| Ok(it.clone()))?).map(Clause::HttpHeader));
    Ok(())
}

/// Every value of a field, made by `make`; its problem gets the place.
fn each<'a, V, T>(
    field: &str,
    values: &'a [V],
    make: impl Fn(&'a V) -> Result<T, String>,
) -> Compiled<Vec<T>> {
    if values.len() > MOST_VALUES {
        let problem = format!("at most {MOST_VALUES} values are taken, not {}", values.len());
        return Err(Problem { field: field.to_owned(), problem });
    }
    let made = values.iter().enumerate().map(|(index, value)| {
        make(value).map_err(|problem| Problem { field: format!("{field}[{index}]"), problem })
    });
    made.collect()
}

fn some<T>(values: Vec<T>) -> Option<Vec<T>> {
    (!values.is_empty()).then_some(values)
}

fn text(value: &str) -> Result<&str, String> {
    if value.len() > LONGEST_TEXT {
        return Err(format!("at most {LONGEST_TEXT} bytes are taken, not {}", value.len()));
    }
    Ok(value)
}

fn not_empty(value: &str) -> Result<String, String> {
    if value.is_empty() { Err("must not be empty".to_owned()) } else { Ok(value.to_owned()) }
}

fn addresses(field: &str, values: &[String]) -> Compiled<Option<Addresses>> {
    let parsed = each(field, values, |it| Addresses::parse(text(it)?))?;
    Ok(some(parsed).map(|it| it.into_iter().collect()))
}

/// `namespace/prefix`, `namespace/`, `/prefix`, or `prefix` in the namespace `default`.
fn name_prefix(value: &str) -> Result<NamePrefix, String> {
    let (namespace, prefix) = match text(value)?.split_once('/') {
        None if value.is_empty() => return Err("must not be empty".to_owned()),
        None => ("default", value),
        Some((_, prefix)) if prefix.contains('/') => {
            return Err(format!("{value:?} has more than one slash"));
        }
        Some(parts) => parts,
    };
    Ok(NamePrefix { namespace: namespace.to_owned(), prefix: prefix.to_owned() })
}

fn protocol(value: &str) -> Result<Protocol, String> {
    Ok(match value.to_ascii_lowercase().as_str() {
        "icmp" => Protocol::AnyIcmp,
        "icmpv4" => Protocol::Icmpv4,
        "icmpv6" => Protocol::Icmpv6,
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        "vrrp" => Protocol::Vrrp,
        "igmp" => Protocol::Igmp,
        "dns" => Protocol::Dns,
        "http" => Protocol::Http,
        "kafka" => Protocol::Kafka,
        _ => {
            return Err(format!(
                "{value:?} is no protocol; one of icmp, icmpv4, icmpv6, tcp, udp, sctp, vrrp, igmp, dns, http, kafka"
            ));
        }
    })
}

fn selector(value: &str) -> Result<LabelSelector, String> {
    LabelSelector::parse(text(value)?)
}

/// A whole code (`404`) or a prefix (`4+`, `40+`), as the digits that must come first.
fn status(value: &str) -> Result<String, String> {
    let (digits, most) = match value.strip_suffix('+') {
        Some(prefix) => (prefix, 1..=2),
        None => (value, 3..=3),
    };
    let sound = most.contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && (b'1'..=b'5').contains(&digits.as_bytes()[0]);
    if sound {
        Ok(digits.to_owned())
    } else {
        Err(format!("{value:?} is no status code and no prefix such as 4+"))
    }
}

fn regex(value: &str, budget: &Budget) -> Result<Regex, String> {
    budget.regex(text(value)?, REGEX_BYTES)
}

/// One pattern that matches a whole text if one of the parts does.
fn anchored(field: &str, parts: &[String], budget: &Budget) -> Compiled<Option<Regex>> {
    if parts.is_empty() {
        return Ok(None);
    }
    let whole = format!(r"\A(?:{})\z", parts.join("|"));
    let made = budget.regex(&whole, REGEX_BYTES);
    made.map(Some).map_err(|problem| Problem { field: field.to_owned(), problem })
}

fn types(filters: &[EventTypeFilter]) -> String {
    filters.iter().map(|it| it.r#type.to_string()).collect::<Vec<_>>().join(", ")
}
