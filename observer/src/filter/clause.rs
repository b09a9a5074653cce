//! The fields of a filter as they are matched. Neighbour: [`super::compile`] makes them.

use std::borrow::Cow;
use std::collections::HashSet;

use percent_encoding::percent_decode_str;
use regex::Regex;
use sinew_api::proto::flow::{
    DropReason, Endpoint, EventTypeFilter, Flow, Http, HttpHeader, IpVersion, Layer4, NetworkInterface,
    Service, TcpFlags, Verdict, Workload, layer4, layer7,
};

use super::address::Addresses;
use super::expression::{CelExpression, FlowView};
use super::selector::LabelSelector;

/// One end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Source,
    Destination,
}

/// One field of a filter.
#[derive(Debug)]
pub(super) enum Clause {
    Uuid(HashSet<String>),
    Address(End, Addresses),
    TranslatedAddress(Addresses),
    Pod(End, Vec<NamePrefix>),
    Service(End, Vec<NamePrefix>),
    DnsName(End, Regex),
    Labels(End, Vec<LabelSelector>),
    NodeLabels(Vec<LabelSelector>),
    Workload(End, Vec<Workload>),
    Cluster(End, HashSet<String>),
    Identity(End, HashSet<u32>),
    Port(End, HashSet<u32>),
    Direction(Vec<i32>),
    Verdict(Vec<i32>),
    DropReason(Vec<i32>),
    Interface(Vec<NetworkInterface>),
    EventType(Vec<EventTypeFilter>),
    Protocol(Vec<Protocol>),
    Reply(Vec<bool>),
    Encrypted(Vec<bool>),
    IpVersion(Vec<i32>),
    TcpFlags(Vec<TcpFlags>),
    NodeName(Regex),
    TraceId(HashSet<String>),
    IpTraceId(HashSet<u64>),
    DnsQuery(Vec<Regex>),
    HttpStatus(Vec<String>),
    HttpMethod(Vec<String>),
    HttpPath(Vec<Regex>),
    HttpUrl(Vec<Regex>),
    HttpHeader(Vec<HttpHeader>),
    Expression(Vec<CelExpression>),
}

/// `namespace/prefix`; an empty part matches anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamePrefix {
    pub(super) namespace: String,
    pub(super) prefix: String,
}

/// A protocol by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    AnyIcmp,
    Icmpv4,
    Icmpv6,
    Tcp,
    Udp,
    Sctp,
    Vrrp,
    Igmp,
    Dns,
    Http,
    Kafka,
}

impl Clause {
    /// Whether one of the values matches.
    pub(super) fn matches<'a>(&self, flow: &Flow, view: impl Fn() -> &'a FlowView) -> bool {
        match self {
            Self::Uuid(wanted) => wanted.contains(&flow.uuid),
            Self::Address(end, wanted) => flow.ip.as_ref().is_some_and(|ip| match end {
                End::Source => wanted.contain(&ip.source),
                End::Destination => wanted.contain(&ip.destination),
            }),
            Self::TranslatedAddress(wanted) => {
                flow.ip.as_ref().is_some_and(|ip| wanted.contain(&ip.source_xlated))
            }
            Self::Pod(end, wanted) => {
                endpoint(flow, *end).is_some_and(|end| named(wanted, &end.namespace, &end.pod_name))
            }
            Self::Service(end, wanted) => {
                service(flow, *end).is_some_and(|service| named(wanted, &service.namespace, &service.name))
            }
            Self::DnsName(end, wanted) => match end {
                End::Source => flow.source_names.iter().any(|name| wanted.is_match(name)),
                End::Destination => flow.destination_names.iter().any(|name| wanted.is_match(name)),
            },
            Self::Labels(end, wanted) => {
                let labels = endpoint(flow, *end).map(|end| end.labels.as_slice()).unwrap_or_default();
                wanted.iter().any(|selector| selector.matches(labels))
            }
            Self::NodeLabels(wanted) => wanted.iter().any(|selector| selector.matches(&flow.node_labels)),
            Self::Workload(end, wanted) => {
                endpoint(flow, *end).is_some_and(|end| owned(wanted, &end.workloads))
            }
            Self::Cluster(end, wanted) => {
                wanted.contains(endpoint(flow, *end).map(|end| end.cluster_name.as_str()).unwrap_or_default())
            }
            Self::Identity(end, wanted) => {
                endpoint(flow, *end).is_some_and(|end| wanted.contains(&end.identity))
            }
            Self::Port(end, wanted) => port(flow, *end).is_some_and(|port| wanted.contains(&port)),
            Self::Direction(wanted) => wanted.contains(&flow.traffic_direction),
            Self::Verdict(wanted) => wanted.contains(&flow.verdict),
            Self::DropReason(wanted) => {
                flow.verdict == i32::from(Verdict::Dropped) && wanted.contains(&flow.drop_reason_desc)
            }
            Self::Interface(wanted) => flow.interface.as_ref().is_some_and(|seen| {
                wanted.iter().any(|want| {
                    (want.index == 0 || want.index == seen.index)
                        && (want.name.is_empty() || want.name == seen.name)
                })
            }),
            Self::EventType(wanted) => flow.event_type.as_ref().is_some_and(|seen| {
                wanted.iter().any(|want| {
                    (want.r#type == 0 || want.r#type == seen.r#type)
                        && (!want.match_sub_type || want.sub_type == seen.sub_type)
                })
            }),
            Self::Protocol(wanted) => wanted.iter().any(|want| want.is_in(flow)),
            // What was dropped before its connection was known counts as no reply, as for Hubble's own page.
            Self::Reply(wanted) => match flow.is_reply {
                Some(reply) => wanted.contains(&reply),
                None => flow.verdict == i32::from(Verdict::Dropped) && wanted.contains(&false),
            },
            Self::Encrypted(wanted) => wanted.contains(&flow.ip.as_ref().is_some_and(|ip| ip.encrypted)),
            Self::IpVersion(wanted) => {
                wanted.contains(&flow.ip.as_ref().map_or(i32::from(IpVersion::IpNotUsed), |ip| ip.ip_version))
            }
            Self::TcpFlags(wanted) => {
                tcp_flags(flow).is_some_and(|seen| wanted.iter().any(|want| has_flags(want, seen)))
            }
            Self::NodeName(wanted) => node_name(&flow.node_name).is_some_and(|name| wanted.is_match(&name)),
            Self::TraceId(wanted) => wanted.contains(trace_id(flow)),
            Self::IpTraceId(wanted) => {
                wanted.contains(&flow.ip_trace_id.as_ref().map_or(0, |trace| trace.trace_id))
            }
            Self::DnsQuery(wanted) => match l7(flow) {
                Some(layer7::Record::Dns(dns)) => wanted.iter().any(|want| want.is_match(&dns.query)),
                _ => false,
            },
            Self::HttpStatus(wanted) => http(flow).is_some_and(|http| has_status(wanted, http.code)),
            Self::HttpMethod(wanted) => http(flow).is_some_and(|http| {
                !http.method.is_empty() && wanted.iter().any(|want| want.eq_ignore_ascii_case(&http.method))
            }),
            Self::HttpPath(wanted) => http(flow)
                .and_then(|http| path(&http.url))
                .is_some_and(|path| wanted.iter().any(|want| want.is_match(&path))),
            Self::HttpUrl(wanted) => http(flow).is_some_and(|http| {
                !http.url.is_empty() && wanted.iter().any(|want| want.is_match(&http.url))
            }),
            Self::HttpHeader(wanted) => {
                http(flow).is_some_and(|http| http.headers.iter().any(|header| wanted.contains(header)))
            }
            Self::Expression(wanted) => wanted.iter().any(|expression| expression.holds(view())),
        }
    }
}

impl Protocol {
    fn is_in(self, flow: &Flow) -> bool {
        use layer4::Protocol as L4;
        use layer7::Record as L7;
        let l4 = flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref());
        match self {
            Self::AnyIcmp => matches!(l4, Some(L4::IcmPv4(_) | L4::IcmPv6(_))),
            Self::Icmpv4 => matches!(l4, Some(L4::IcmPv4(_))),
            Self::Icmpv6 => matches!(l4, Some(L4::IcmPv6(_))),
            Self::Tcp => matches!(l4, Some(L4::Tcp(_))),
            Self::Udp => matches!(l4, Some(L4::Udp(_))),
            Self::Sctp => matches!(l4, Some(L4::Sctp(_))),
            Self::Vrrp => matches!(l4, Some(L4::Vrrp(_))),
            Self::Igmp => matches!(l4, Some(L4::Igmp(_))),
            Self::Dns => matches!(l7(flow), Some(L7::Dns(_))),
            Self::Http => matches!(l7(flow), Some(L7::Http(_))),
            Self::Kafka => matches!(l7(flow), Some(L7::Kafka(_))),
        }
    }
}

fn endpoint(flow: &Flow, end: End) -> Option<&Endpoint> {
    match end {
        End::Source => flow.source.as_ref(),
        End::Destination => flow.destination.as_ref(),
    }
}

fn service(flow: &Flow, end: End) -> Option<&Service> {
    match end {
        End::Source => flow.source_service.as_ref(),
        End::Destination => flow.destination_service.as_ref(),
    }
}

fn named(wanted: &[NamePrefix], namespace: &str, name: &str) -> bool {
    let is_something = !namespace.is_empty() || !name.is_empty();
    is_something
        && wanted.iter().any(|want| {
            (want.namespace.is_empty() || want.namespace == namespace) && name.starts_with(&want.prefix)
        })
}

fn owned(wanted: &[Workload], owners: &[Workload]) -> bool {
    owners.iter().any(|owner| {
        wanted.iter().any(|want| {
            (want.name.is_empty() || want.name == owner.name)
                && (want.kind.is_empty() || want.kind == owner.kind)
        })
    })
}

fn port(flow: &Flow, end: End) -> Option<u32> {
    let l4 = flow.l4.as_ref()?.protocol.as_ref()?;
    let (source, destination) = match l4 {
        layer4::Protocol::Tcp(tcp) => (tcp.source_port, tcp.destination_port),
        layer4::Protocol::Udp(udp) => (udp.source_port, udp.destination_port),
        layer4::Protocol::Sctp(sctp) => (sctp.source_port, sctp.destination_port),
        layer4::Protocol::IcmPv4(_)
        | layer4::Protocol::IcmPv6(_)
        | layer4::Protocol::Vrrp(_)
        | layer4::Protocol::Igmp(_) => return None,
    };
    Some(match end {
        End::Source => source,
        End::Destination => destination,
    })
}

fn tcp_flags(flow: &Flow) -> Option<&TcpFlags> {
    match flow.l4.as_ref() {
        Some(Layer4 { protocol: Some(layer4::Protocol::Tcp(tcp)) }) => tcp.flags.as_ref(),
        _ => None,
    }
}

/// Every flag that is wanted is set; others may be.
fn has_flags(want: &TcpFlags, seen: &TcpFlags) -> bool {
    let pairs = [
        (want.fin, seen.fin),
        (want.syn, seen.syn),
        (want.rst, seen.rst),
        (want.psh, seen.psh),
        (want.ack, seen.ack),
        (want.urg, seen.urg),
        (want.ece, seen.ece),
        (want.cwr, seen.cwr),
        (want.ns, seen.ns),
    ];
    pairs.into_iter().all(|(want, seen)| seen || !want)
}

/// `cluster/node`; a name without a cluster is in the default one.
fn node_name(name: &str) -> Option<Cow<'_, str>> {
    match name {
        "" => None,
        name if name.contains('/') => Some(name.into()),
        name => Some(format!("default/{name}").into()),
    }
}

fn trace_id(flow: &Flow) -> &str {
    flow.trace_context
        .as_ref()
        .and_then(|context| context.parent.as_ref())
        .map(|parent| parent.trace_id.as_str())
        .unwrap_or_default()
}

fn l7(flow: &Flow) -> Option<&layer7::Record> {
    flow.l7.as_ref()?.record.as_ref()
}

fn http(flow: &Flow) -> Option<&Http> {
    match l7(flow) {
        Some(layer7::Record::Http(http)) => Some(http),
        _ => None,
    }
}

/// `wanted` holds whole codes of three digits and prefixes of one or two.
fn has_status(wanted: &[String], code: u32) -> bool {
    let code = format!("{code:03}");
    code != "000" && wanted.iter().any(|want| code.starts_with(want.as_str()))
}

/// The path of a URL, whole (`http://host/path?query`) or as it stands in a request line (`/path?query`), with its escapes
/// decoded. Neither has a fragment; what has a broken escape is no URL.
fn path(url: &str) -> Option<Cow<'_, str>> {
    let rest = match url.split_once("://") {
        Some((scheme, rest))
            if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) =>
        {
            let start = rest.find(['/', '?']).unwrap_or(rest.len());
            &rest[start..]
        }
        _ if url.starts_with('/') => url,
        _ => return None,
    };
    let path = &rest[..rest.find('?').unwrap_or(rest.len())];
    let is_escape = |after: &str| after.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    path.split('%').skip(1).all(is_escape).then(|| percent_decode_str(path).decode_utf8_lossy())
}

/// The names of a drop reason that a filter may use are the enum's; here they are numbers already.
pub(super) fn is_drop_reason(number: i32) -> bool {
    DropReason::try_from(number).is_ok()
}
