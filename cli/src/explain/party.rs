//! The two ends and the traffic of `sinew policy explain`, as they are typed.
//!
//! Nothing is guessed: a text that could be two things is read by the order below, which `--help` gives too.

use std::net::IpAddr;

use ipnet::IpNet;
use sinew_api::identity::Identity;
use sinew_api::labels::NAMESPACE;
use sinew_api::proto::agent::party::By;
use sinew_api::proto::agent::{LabelList, Party};

use crate::failure::Failure;

/// Entities that are no reserved identity but that a policy can name.
const ENTITIES: [&str; 4] = ["all", "cluster", "cluster-mesh", "none"];

/// Protocols with the spelling of answers.
const PROTOCOLS: [&str; 5] = ["TCP", "UDP", "SCTP", "ICMP", "ICMPv6"];

/// One end: an address, an identity's number, an entity, labels, or else a pod.
///
/// `namespace` is what `-n` gave: it is put in front of a bare pod name, and added to labels that name none.
pub(crate) fn party(text: &str, namespace: Option<&str>) -> Result<Party, Failure> {
    let by = if let Ok(address) = text.parse::<IpAddr>() {
        By::Address(address.to_canonical().to_string())
    } else if let Ok(identity) = text.parse::<u32>() {
        By::Identity(identity)
    } else if let Some(entity) = entity(text) {
        By::Entity(entity.to_owned())
    } else if text.parse::<IpNet>().is_ok() {
        return Err(Failure::usage(format!("\"{text}\" is a range, and an end has one address"))
            .next("name one address of it"));
    } else if text.contains('=') || text.contains(':') {
        By::Labels(labels(text, namespace)?)
    } else if text.is_empty() {
        return Err(Failure::usage("one end is empty: name a pod, an address, an identity or labels"));
    } else if text.contains('.') && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(Failure::usage(format!("\"{text}\" is no address"))
            .next("a pod of that name is named with its namespace: NAMESPACE/NAME"));
    } else {
        By::Pod(match namespace {
            Some(namespace) if !text.contains('/') => format!("{namespace}/{text}"),
            _ => text.to_owned(),
        })
    };
    Ok(Party { by: Some(by) })
}

/// `world`, `reserved:world`, `entity:world`.
fn entity(text: &str) -> Option<&str> {
    let name = text.strip_prefix("reserved:").or_else(|| text.strip_prefix("entity:")).unwrap_or(text);
    let reserved = Identity::RESERVED.iter().any(|(_, reserved)| *reserved == name);
    (reserved || ENTITIES.contains(&name)).then_some(name)
}

/// `app=web,k8s:tier=front`: a key without a source is a pod's.
fn labels(text: &str, namespace: Option<&str>) -> Result<LabelList, Failure> {
    let mut labels = Vec::new();
    for part in text.split(',') {
        let (source, rest) = match part.split_once(':') {
            Some((source, rest)) if !source.contains(['=', '.', '/']) => (source, rest),
            _ => ("k8s", part),
        };
        let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
        if key.is_empty() || source.is_empty() {
            return Err(Failure::usage(format!(
                "\"{part}\" is no label: write key=value or source:key=value"
            )));
        }
        labels.push(if value.is_empty() {
            format!("{source}:{key}")
        } else {
            format!("{source}:{key}={value}")
        });
    }
    let namespace_label = format!("k8s:{NAMESPACE}=");
    let of_pods = labels.iter().any(|label| label.starts_with("k8s:"));
    if of_pods && !labels.iter().any(|label| label.starts_with(&namespace_label)) {
        let Some(namespace) = namespace else {
            return Err(Failure::usage(format!("the labels {text} name no namespace"))
                .next(format!("add {NAMESPACE}=NAME to them, or give -n NAME")));
        };
        labels.push(format!("{namespace_label}{namespace}"));
    }
    labels.sort();
    Ok(LabelList { labels })
}

/// What is asked: protocol and port (or ICMP type).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// As in answers; empty for any.
    pub(crate) protocol: String,
    /// Port or ICMP type.
    pub(crate) port: Option<u32>,
}

/// `8080/TCP`, `8080` (TCP), `TCP`, `ICMP`, `8/ICMP`, `any`.
pub(crate) fn traffic(text: &str) -> Result<Traffic, Failure> {
    let wrong = |why: String| Failure::usage(why).next("write 8080/TCP, UDP, 8/ICMP or any");
    let (port, protocol) = match text.split_once('/') {
        Some((port, protocol)) => (port, protocol),
        None if text.starts_with(|first: char| first.is_ascii_digit()) => (text, "TCP"),
        None => ("", text),
    };
    if protocol.eq_ignore_ascii_case("any") {
        return match port {
            "" => Ok(Traffic::default()),
            _ => Err(wrong(format!("\"{text}\": a port is of a protocol; ask for each"))),
        };
    }
    let Some(protocol) = PROTOCOLS.iter().find(|known| known.eq_ignore_ascii_case(protocol)) else {
        return Err(wrong(format!("\"{text}\" is no PORT/PROTO")));
    };
    let (noun, largest) = if protocol.starts_with("ICMP") { ("type", 255) } else { ("port", 65_535) };
    let port = match port.parse::<u32>() {
        _ if port.is_empty() => None,
        Ok(number) if number <= largest => Some(number),
        _ if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            return Err(wrong(format!("\"{text}\": a {noun} is {largest} at most")));
        }
        _ if port.split_once('-').is_some_and(|(first, last)| is_number(first) && is_number(last)) => {
            return Err(wrong(format!("\"{text}\": one {noun} at a time")));
        }
        _ => {
            return Err(wrong(format!(
                "\"{text}\": a {noun} is a number here, since each pod gives names its own"
            )));
        }
    };
    // Type 0 of ICMP is an answer to an echo; port 0 in a policy is every port, and no connection has it.
    if port == Some(0) && !protocol.starts_with("ICMP") {
        return Err(Failure::usage(format!("\"{text}\": no connection goes to port 0"))
            .next(format!("for all ports write {protocol}")));
    }
    Ok(Traffic { protocol: (*protocol).to_owned(), port })
}

fn is_number(text: &str) -> bool {
    text.parse::<u32>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Code;

    fn by(text: &str, namespace: Option<&str>) -> By {
        party(text, namespace).unwrap().by.unwrap()
    }

    #[test]
    fn ends_are_read_in_a_fixed_order() {
        assert_eq!(by("10.0.0.5", None), By::Address("10.0.0.5".into()));
        assert_eq!(by("::ffff:10.0.0.5", None), By::Address("10.0.0.5".into()));
        assert_eq!(by("fd00::5", None), By::Address("fd00::5".into()));
        assert_eq!(by("257", None), By::Identity(257));
        assert_eq!(by("world", None), By::Entity("world".into()));
        assert_eq!(by("reserved:remote-node", None), By::Entity("remote-node".into()));
        assert_eq!(by("default/world", None), By::Pod("default/world".into()));
        assert_eq!(by("web", Some("shop")), By::Pod("shop/web".into()));
        assert_eq!(by("default/web", Some("shop")), By::Pod("default/web".into()));
    }

    #[test]
    fn labels_need_a_namespace() {
        let expected = ["k8s:app=web", "k8s:io.kubernetes.pod.namespace=shop"].map(str::to_owned).to_vec();
        assert_eq!(by("app=web", Some("shop")), By::Labels(LabelList { labels: expected.clone() }));
        let written = "k8s:app=web,io.kubernetes.pod.namespace=shop";
        assert_eq!(by(written, None), By::Labels(LabelList { labels: expected }));
        let error = party("app=web", None).unwrap_err();
        assert_eq!(error.code, Code::TimedOut);
        assert!(error.to_string().contains("name no namespace"), "{error}");
        assert!(party("=web", Some("shop")).is_err());
    }

    #[test]
    fn traffic_has_few_forms() {
        let read = |text| traffic(text).map(|traffic| (traffic.protocol, traffic.port)).ok();
        assert_eq!(read("8080/TCP"), Some(("TCP".into(), Some(8080))));
        assert_eq!(read("53/udp"), Some(("UDP".into(), Some(53))));
        assert_eq!(read("8080"), Some(("TCP".into(), Some(8080))));
        assert_eq!(read("icmpv6"), Some(("ICMPv6".into(), None)));
        assert_eq!(read("8/ICMP"), Some(("ICMP".into(), Some(8))));
        assert_eq!(read("any"), Some((String::new(), None)));
        assert_eq!(read("0/ICMP"), Some(("ICMP".into(), Some(0))));
        let failure = traffic("0").unwrap_err();
        assert_eq!(failure.code, Code::TimedOut, "a usage error");
        assert_eq!(failure.to_string(), "\"0\": no connection goes to port 0\n  for all ports write TCP");
        for wrong in ["", "0/TCP", "0/udp", "00", "70000/TCP", "256/ICMP", "80/HTTP", "80-90/TCP", "http"] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
        for (wrong, why) in [
            ("70000/TCP", "a port is 65535 at most"),
            ("99999999999", "a port is 65535 at most"),
            ("256/ICMP", "a type is 255 at most"),
            ("80-90/TCP", "one port at a time"),
            ("http/TCP", "a port is a number here, since each pod gives names its own"),
            ("80/any", "a port is of a protocol; ask for each"),
        ] {
            let failure = traffic(wrong).unwrap_err().to_string();
            assert!(failure.starts_with(&format!("\"{wrong}\": {why}\n  write 8080/TCP")), "{failure}");
        }
    }

    #[test]
    fn what_is_nearly_an_address_is_no_pod() {
        let failure = party("10.0.0.300", None).unwrap_err().to_string();
        assert_eq!(
            failure,
            "\"10.0.0.300\" is no address\n  a pod of that name is named with its namespace: NAMESPACE/NAME"
        );
        assert_eq!(by("default/10.0.0.300", None), By::Pod("default/10.0.0.300".into()));
        for range in ["10.0.0.0/24", "fd00::/64"] {
            let failure = party(range, Some("shop")).unwrap_err().to_string();
            assert_eq!(
                failure,
                format!("\"{range}\" is a range, and an end has one address\n  name one address of it")
            );
        }
    }
}
