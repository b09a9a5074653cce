//! What a filter means, written down the long way: no compilation, no shared helper, no regular expression.

use sinew_api::proto::flow::{
    Endpoint, Flow, FlowFilter, Http, Layer7, Service, TcpFlags, Verdict, Workload, layer4, layer7,
};

use super::random::EXPRESSIONS;

pub(super) fn passes(allow: &[FlowFilter], deny: &[FlowFilter], flow: &Flow) -> bool {
    let mut allowed = allow.is_empty();
    for filter in allow {
        if matches(filter, flow) {
            allowed = true;
        }
    }
    for filter in deny {
        if matches(filter, flow) {
            return false;
        }
    }
    allowed
}

fn any<T>(values: &[T], test: impl Fn(&T) -> bool) -> bool {
    values.is_empty() || values.iter().any(test)
}

fn matches(filter: &FlowFilter, flow: &Flow) -> bool {
    let nobody = Endpoint::default();
    let (source, destination) =
        (flow.source.as_ref().unwrap_or(&nobody), flow.destination.as_ref().unwrap_or(&nobody));
    let ip = flow.ip.clone().unwrap_or_default();
    let protocol = flow.l4.as_ref().and_then(|l4| l4.protocol.clone());
    let (source_port, destination_port, flags) = match &protocol {
        Some(layer4::Protocol::Tcp(it)) => (Some(it.source_port), Some(it.destination_port), it.flags),
        Some(layer4::Protocol::Udp(it)) => (Some(it.source_port), Some(it.destination_port), None),
        Some(layer4::Protocol::Sctp(it)) => (Some(it.source_port), Some(it.destination_port), None),
        _ => (None, None, None),
    };
    let nothing = Service::default();
    let (source_service, destination_service) = (
        flow.source_service.as_ref().unwrap_or(&nothing),
        flow.destination_service.as_ref().unwrap_or(&nothing),
    );
    let http = match flow.l7.as_ref().and_then(|l7| l7.record.as_ref()) {
        Some(layer7::Record::Http(http)) => Some(http),
        _ => None,
    };
    let query = match flow.l7.as_ref().and_then(|l7| l7.record.as_ref()) {
        Some(layer7::Record::Dns(dns)) => Some(dns.query.as_str()),
        _ => None,
    };
    let trace = flow.trace_context.as_ref().and_then(|it| it.parent.as_ref()).map(|it| it.trace_id.as_str());
    let expressions = filter.experimental.clone().unwrap_or_default().cel_expression;
    let dropped = flow.verdict == i32::from(Verdict::Dropped);
    any(&filter.uuid, |it| *it == flow.uuid)
        && any(&filter.source_ip, |it| in_prefix(&ip.source, it))
        && any(&filter.destination_ip, |it| in_prefix(&ip.destination, it))
        && any(&filter.source_ip_xlated, |it| in_prefix(&ip.source_xlated, it))
        && any(&filter.source_pod, |it| named(it, &source.namespace, &source.pod_name))
        && any(&filter.destination_pod, |it| named(it, &destination.namespace, &destination.pod_name))
        && any(&filter.source_fqdn, |it| flow.source_names.iter().any(|name| glob(it, name)))
        && any(&filter.destination_fqdn, |it| flow.destination_names.iter().any(|name| glob(it, name)))
        && any(&filter.source_label, |it| labelled(it, &source.labels))
        && any(&filter.destination_label, |it| labelled(it, &destination.labels))
        && any(&filter.node_labels, |it| labelled(it, &flow.node_labels))
        && any(&filter.source_cluster_name, |it| *it == source.cluster_name)
        && any(&filter.destination_cluster_name, |it| *it == destination.cluster_name)
        && any(&filter.source_identity, |it| flow.source.is_some() && *it == source.identity)
        && any(&filter.destination_identity, |it| flow.destination.is_some() && *it == destination.identity)
        && any(&filter.source_port, |it| source_port.is_some_and(|port| port.to_string() == *it))
        && any(&filter.destination_port, |it| destination_port.is_some_and(|port| port.to_string() == *it))
        && any(&filter.verdict, |it| *it == flow.verdict)
        && any(&filter.drop_reason_desc, |it| dropped && *it == flow.drop_reason_desc)
        && any(&filter.traffic_direction, |it| *it == flow.traffic_direction)
        && any(&filter.ip_version, |it| *it == ip.ip_version)
        && any(&filter.reply, |it| flow.is_reply == Some(*it) || (flow.is_reply.is_none() && dropped && !*it))
        && any(&filter.encrypted, |it| *it == ip.encrypted)
        && any(&filter.event_type, |it| {
            flow.event_type.is_some_and(|event| {
                [0, event.r#type].contains(&it.r#type)
                    && (!it.match_sub_type || it.sub_type == event.sub_type)
            })
        })
        && any(&filter.protocol, |it| is_protocol(it, protocol.as_ref(), flow.l7.as_ref()))
        && any(&filter.tcp_flags, |it| flags.is_some_and(|flags| all_set(it, &flags)))
        && any(&filter.node_name, |it| on_node(it, &flow.node_name))
        && any(&filter.interface, |it| {
            flow.interface.clone().is_some_and(|seen| {
                (it.index == 0 || it.index == seen.index) && (it.name.is_empty() || it.name == seen.name)
            })
        })
        && any(&filter.http_method, |it| http.is_some_and(|http| http.method == it.to_uppercase()))
        && any(&filter.http_status_code, |it| http.is_some_and(|http| has_status(it, http.code)))
        && any(&filter.http_path, |it| http.and_then(path_of).is_some_and(|path| found(it, &path)))
        && any(&filter.http_url, |it| http.is_some_and(|http| !http.url.is_empty() && found(it, &http.url)))
        && any(&filter.http_header, |it| {
            http.is_some_and(|http| {
                http.headers.iter().any(|seen| seen.key == it.key && seen.value == it.value)
            })
        })
        && any(&filter.source_service, |it| named(it, &source_service.namespace, &source_service.name))
        && any(&filter.destination_service, |it| {
            named(it, &destination_service.namespace, &destination_service.name)
        })
        && any(&filter.source_workload, |it| owned(it, &source.workloads))
        && any(&filter.destination_workload, |it| owned(it, &destination.workloads))
        && any(&filter.dns_query, |it| query.is_some_and(|query| found(it, query)))
        && any(&filter.trace_id, |it| trace == Some(it.as_str()))
        && any(&filter.ip_trace_id, |it| *it == flow.ip_trace_id.map_or(0, |seen| seen.trace_id))
        && any(&expressions, |it| expression(it, flow))
}

/// Bit by bit.
fn in_prefix(address: &str, wanted: &str) -> bool {
    let Ok(address) = address.parse::<std::net::IpAddr>() else { return false };
    let (base, length) = wanted.split_once('/').map_or((wanted, None), |(base, length)| (base, Some(length)));
    let base: std::net::IpAddr = base.parse().expect("a random address");
    if address.is_ipv4() != base.is_ipv4() {
        return false;
    }
    let bits = |address: std::net::IpAddr| -> Vec<bool> {
        let bytes = match address {
            std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
            std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        bytes.iter().flat_map(|byte| (0..8).map(move |bit| byte & (128 >> bit) != 0)).collect()
    };
    let (address, base) = (bits(address), bits(base));
    let length = length.map_or(base.len(), |length| length.parse().expect("a random length"));
    address[..length] == base[..length]
}

fn named(wanted: &str, namespace: &str, name: &str) -> bool {
    if namespace.is_empty() && name.is_empty() {
        return false;
    }
    let parts: Vec<&str> = wanted.split('/').collect();
    match parts.as_slice() {
        [prefix] => namespace == "default" && name.starts_with(prefix),
        ["", prefix] => name.starts_with(prefix),
        [wanted_namespace, prefix] => namespace == *wanted_namespace && name.starts_with(prefix),
        _ => false,
    }
}

/// `*` takes any number of letters, tried one after the other.
fn glob(pattern: &str, name: &str) -> bool {
    match (pattern.chars().next(), name.chars().next()) {
        (None, None) => true,
        (Some('*'), _) => glob(&pattern[1..], name) || (!name.is_empty() && glob(pattern, &name[1..])),
        (Some(wanted), Some(seen)) => wanted == seen && glob(&pattern[1..], &name[1..]),
        _ => false,
    }
}

/// The random selectors are `key`, `!key`, `key=value`, `key!=value`, `key>1`, `key<1`, `key in (a,b)`, joined by commas
/// outside brackets.
fn labelled(selector: &str, labels: &[String]) -> bool {
    let mut depth = 0;
    let mut parts = vec![String::new()];
    for letter in selector.chars() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().expect("one part").push(letter);
    }
    parts.iter().all(|part| holds(part, labels))
}

fn holds(part: &str, labels: &[String]) -> bool {
    let values = |key: &str| -> Vec<String> {
        let mut values = Vec::new();
        for label in labels {
            let (name, value) = label.split_once('=').unwrap_or((label, ""));
            let bare = name.split_once(':').map_or(name, |(_, bare)| bare);
            if name == key || (!key.contains(':') && bare == key) {
                values.push(value.to_owned());
            }
        }
        values
    };
    if let Some(key) = part.strip_prefix('!') {
        return values(key).is_empty();
    }
    if let Some((key, value)) = part.split_once("!=") {
        return !values(key).contains(&value.to_owned());
    }
    if let Some((key, value)) = part.split_once('=') {
        return values(key).contains(&value.to_owned());
    }
    for (sign, above) in [('>', true), ('<', false)] {
        if let Some((key, bound)) = part.split_once(sign) {
            let bound: i64 = bound.parse().expect("a random bound");
            let numbers: Vec<i64> = values(key).iter().filter_map(|value| value.parse().ok()).collect();
            return numbers.iter().any(|number| if above { *number > bound } else { *number < bound });
        }
    }
    if let Some((key, list)) = part.split_once(" in (") {
        return list.trim_end_matches(')').split(',').any(|value| values(key).contains(&value.to_owned()));
    }
    !values(part).is_empty()
}

fn is_protocol(name: &str, l4: Option<&layer4::Protocol>, l7: Option<&Layer7>) -> bool {
    let l4 = match l4 {
        Some(layer4::Protocol::Tcp(_)) => vec!["tcp"],
        Some(layer4::Protocol::Udp(_)) => vec!["udp"],
        Some(layer4::Protocol::Sctp(_)) => vec!["sctp"],
        Some(layer4::Protocol::IcmPv4(_)) => vec!["icmp", "icmpv4"],
        Some(layer4::Protocol::IcmPv6(_)) => vec!["icmp", "icmpv6"],
        Some(layer4::Protocol::Vrrp(_)) => vec!["vrrp"],
        Some(layer4::Protocol::Igmp(_)) => vec!["igmp"],
        None => vec![],
    };
    let l7 = match l7.and_then(|l7| l7.record.as_ref()) {
        Some(layer7::Record::Http(_)) => Some("http"),
        Some(layer7::Record::Dns(_)) => Some("dns"),
        Some(layer7::Record::Kafka(_)) => Some("kafka"),
        None => None,
    };
    l4.contains(&name) || l7 == Some(name)
}

fn all_set(wanted: &TcpFlags, seen: &TcpFlags) -> bool {
    let list = |it: &TcpFlags| [it.fin, it.syn, it.rst, it.psh, it.ack, it.urg, it.ece, it.cwr, it.ns];
    (0..9).all(|index| !list(wanted)[index] || list(seen)[index])
}

fn on_node(wanted: &str, name: &str) -> bool {
    if name.is_empty() {
        return false;
    }
    let (cluster, node) = name.split_once('/').unwrap_or(("default", name));
    let (wanted_cluster, wanted_node) = wanted.split_once('/').unwrap_or(("", wanted));
    (wanted_cluster.is_empty() || glob(wanted_cluster, cluster))
        && (wanted_node.is_empty() || glob(wanted_node, node))
}

/// The random patterns are texts, anchored at an end or not.
fn found(pattern: &str, text: &str) -> bool {
    match (pattern.strip_prefix('^'), pattern.strip_suffix('$')) {
        (Some(whole), Some(_)) => text == whole.trim_end_matches('$'),
        (Some(start), None) => text.starts_with(start),
        (None, Some(end)) => text.ends_with(end),
        (None, None) => text.contains(pattern),
    }
}

/// `404`, or the beginning of a code such as `4+`.
fn has_status(wanted: &str, code: u32) -> bool {
    let digits: Vec<u32> = vec![code / 100, code / 10 % 10, code % 10];
    let wanted: Vec<u32> = wanted.trim_end_matches('+').chars().filter_map(|it| it.to_digit(10)).collect();
    code > 0 && digits[..wanted.len()] == wanted
}

/// Letter by letter: behind the host of a whole URL, up to a question mark.
fn path_of(http: &Http) -> Option<String> {
    let url = http.url.strip_prefix("http://");
    if url.is_none() && !http.url.starts_with('/') {
        return None;
    }
    let mut path = String::new();
    for letter in url.unwrap_or(&http.url).chars() {
        if letter == '?' {
            break;
        }
        if letter == '/' || !path.is_empty() {
            path.push(letter);
        }
    }
    Some(path)
}

fn owned(wanted: &Workload, owners: &[Workload]) -> bool {
    owners.iter().any(|owner| {
        ["", owner.name.as_str()].contains(&wanted.name.as_str())
            && ["", owner.kind.as_str()].contains(&wanted.kind.as_str())
    })
}

fn expression(text: &str, flow: &Flow) -> bool {
    let index = EXPRESSIONS.iter().position(|known| *known == text).expect("a random expression");
    let source = flow.source.clone().unwrap_or_default();
    match index {
        0 => flow.verdict == 2,
        1 => match flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref()) {
            Some(layer4::Protocol::Tcp(tcp)) => tcp.destination_port < 80,
            _ => false,
        },
        2 => [1, 2].contains(&source.identity),
        3 => {
            let labels = flow.destination.clone().unwrap_or_default().labels;
            labels.iter().any(|label| label.ends_with("=web"))
        }
        4 => flow.is_reply != Some(false),
        _ => !source.workloads.iter().any(|owner| owner.kind == "Job"),
    }
}
