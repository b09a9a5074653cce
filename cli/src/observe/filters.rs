//! FlowFilters from the filters of the command line.
//!
//! A flag about either end (`--pod`) makes two filters, one for each end, of which one must match; all other flags go
//! into both. Namespaces are part of pod and service names, so they are added once everything has been read. Flags that
//! contradict each other are refused, by Hubble's rules. Neighbours: `flags.rs`; the server's side is
//! `sinew_observer::filter`.

mod value;

use sinew_api::proto::flow::FlowFilter;
use sinew_api::proto::flow::flow_filter::Experimental;
use sinew_api::proto::flow::{HttpHeader, IpVersion, NetworkInterface, TrafficDirection};

use super::flags::GivenFilter;

/// Flags that can't be given together, group by group: any two of one group contradict each other.
const CONFLICTS: &[&[&str]] = &[
    &[
        "from-fqdn",
        "from-ip",
        "ip",
        "fqdn",
        "from-namespace",
        "namespace",
        "from-all-namespaces",
        "all-namespaces",
    ],
    &["from-fqdn", "from-ip", "ip", "fqdn", "from-pod", "pod"],
    &["to-fqdn", "to-ip", "ip", "fqdn", "to-namespace", "namespace", "to-all-namespaces", "all-namespaces"],
    &["to-fqdn", "to-ip", "ip", "fqdn", "to-pod", "pod"],
    &["to-pod", "namespace", "all-namespaces"],
    &["from-pod", "namespace", "all-namespaces"],
    &["to-service", "namespace", "all-namespaces"],
    &["from-service", "namespace", "all-namespaces"],
    &["label", "from-label"],
    &["label", "to-label"],
    &["service", "from-service"],
    &["service", "to-service"],
    &["port", "to-port"],
    &["port", "from-port"],
    &["identity", "to-identity"],
    &["identity", "from-identity"],
    &["workload", "to-workload"],
    &["workload", "from-workload"],
    &["encrypted", "unencrypted"],
];

/// Allow and deny lists of a command line.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct FilterLists {
    pub(super) allow: Vec<FlowFilter>,
    pub(super) deny: Vec<FlowFilter>,
}

/// Reads the filters in their order.
pub(super) fn lists(given: &[GivenFilter]) -> Result<FilterLists, String> {
    let (mut allow, mut deny) = (Pair::default(), Pair::default());
    let mut negated = false;
    for filter in given {
        if filter.name == "not" {
            if value::boolean("not", &filter.value)? {
                if negated {
                    return Err("--not stands before another --not; it turns the one filter behind it round"
                        .to_owned());
                }
                negated = true;
            }
            continue;
        }
        let pair = if std::mem::take(&mut negated) { &mut deny } else { &mut allow };
        pair.add(filter.name, &filter.value)?;
    }
    if negated {
        return Err("--not stands at the end; it turns the filter behind it round".to_owned());
    }
    Ok(FilterLists { allow: allow.finish()?, deny: deny.finish()? })
}

/// The two filters of one list, which differ only in flags about either end.
#[derive(Default)]
struct Pair {
    /// Has the source's side of flags about either end.
    source: FlowFilter,
    /// Has the destination's side.
    destination: FlowFilter,
    used: Vec<&'static str>,
    /// What `--policy` asks of a flow, and what `--cel-expression` does.
    policies: Vec<String>,
    expressions: Vec<String>,
    namespaces: Vec<String>,
    from_namespaces: Vec<String>,
    to_namespaces: Vec<String>,
}

impl Pair {
    fn add(&mut self, name: &'static str, value: &str) -> Result<(), String> {
        if !self.used.contains(&name) {
            self.used.push(name);
            self.check_conflicts(name)?;
        }
        let text = || value.to_owned();
        match name {
            "all-namespaces" => self.namespaces.push(String::new()),
            "from-all-namespaces" => self.from_namespaces.push(String::new()),
            "to-all-namespaces" => self.to_namespaces.push(String::new()),
            "namespace" => self.namespaces.push(text()),
            "from-namespace" => self.from_namespaces.push(text()),
            "to-namespace" => self.to_namespaces.push(text()),
            "cel-expression" => self.expressions.push(text()),
            "policy" => self.policies.push(value::policy_expression(value)?),
            _ => match name.strip_prefix("from-").or_else(|| name.strip_prefix("to-")) {
                Some(of_end) => {
                    let source = name.starts_with("from-");
                    self.both(|filter| add_end(filter, of_end, source, value))?;
                }
                None if is_of_either_end(name) => {
                    add_end(&mut self.source, name, true, value)?;
                    add_end(&mut self.destination, name, false, value)?;
                }
                None => self.both(|filter| add_flow(filter, name, value))?,
            },
        }
        Ok(())
    }

    fn both(&mut self, mut change: impl FnMut(&mut FlowFilter) -> Result<(), String>) -> Result<(), String> {
        change(&mut self.source)?;
        change(&mut self.destination)
    }

    fn check_conflicts(&self, name: &str) -> Result<(), String> {
        for group in CONFLICTS.iter().filter(|group| group.contains(&name)) {
            if let Some(other) = self.used.iter().find(|other| **other != name && group.contains(other)) {
                return Err(format!("--{other} and --{name} can't be combined"));
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<FlowFilter>, String> {
        if self.used.is_empty() {
            return Ok(Vec::new());
        }
        self.check_namespaces()?;
        for filter in [&mut self.source, &mut self.destination] {
            if !self.to_namespaces.is_empty() {
                within(&mut filter.destination_pod, &mut filter.destination_service, &self.to_namespaces);
            }
            if !self.from_namespaces.is_empty() {
                within(&mut filter.source_pod, &mut filter.source_service, &self.from_namespaces);
            }
        }
        if !self.namespaces.is_empty() {
            within(&mut self.source.source_pod, &mut self.source.source_service, &self.namespaces);
            let FlowFilter { destination_pod, destination_service, .. } = &mut self.destination;
            within(destination_pod, destination_service, &self.namespaces);
        }
        let cel_expression = both(&self.policies, &self.expressions);
        if !cel_expression.is_empty() {
            let experimental = Some(Experimental { cel_expression });
            self.source.experimental.clone_from(&experimental);
            self.destination.experimental = experimental;
        }
        if self.source == self.destination {
            return Ok(vec![self.source]);
        }
        Ok(vec![self.source, self.destination])
    }

    /// A name with a namespace of its own must not contradict `--namespace`, nor a pod a service.
    fn check_namespaces(&self) -> Result<(), String> {
        for filter in [&self.source, &self.destination] {
            let ends = [
                (&filter.source_pod, &filter.source_service, &self.from_namespaces),
                (&filter.destination_pod, &filter.destination_service, &self.to_namespaces),
            ];
            for (pods, services, of_end) in ends {
                for name in pods.iter().chain(services) {
                    let Some((own, _)) = name.split_once('/') else { continue };
                    let other =
                        self.namespaces.iter().chain(of_end).find(|wanted| *wanted != own && !own.is_empty());
                    if let Some(wanted) = other {
                        return Err(format!("{name:?} is not in namespace {wanted:?}"));
                    }
                }
                for (pod, service) in
                    pods.iter().flat_map(|pod| services.iter().map(move |service| (pod, service)))
                {
                    let (pod_namespace, service_namespace) = (namespace_of(pod), namespace_of(service));
                    if !pod_namespace.is_empty() && pod_namespace != service_namespace {
                        return Err(format!("service {service:?} is not in the namespace of pod {pod:?}"));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Expressions of which one must hold, so that one of the policies does and one of the expressions.
fn both(policies: &[String], expressions: &[String]) -> Vec<String> {
    if policies.is_empty() || expressions.is_empty() {
        return [policies, expressions].concat();
    }
    // The bracket is on a line of its own: an expression may end with a comment.
    let both = |policy| expressions.iter().map(move |it| format!("({policy}) && ({it}\n)"));
    policies.iter().flat_map(both).collect()
}

fn namespace_of(name: &str) -> &str {
    name.split_once('/').map(|(namespace, _)| namespace).unwrap_or_default()
}

/// Puts names without a namespace into each of these namespaces; without a name, selects everything in them.
fn within(pods: &mut Vec<String>, services: &mut Vec<String>, namespaces: &[String]) {
    if pods.is_empty() && services.is_empty() {
        pods.push(String::new());
    }
    for names in [pods, services] {
        *names = std::mem::take(names)
            .into_iter()
            .flat_map(|name| {
                if name.contains('/') {
                    return vec![name];
                }
                namespaces.iter().map(|namespace| format!("{namespace}/{name}")).collect()
            })
            .collect();
    }
}

fn is_of_either_end(name: &str) -> bool {
    matches!(name, "cluster" | "fqdn" | "identity" | "ip" | "label" | "pod" | "port" | "service" | "workload")
}

/// A flag about one end.
fn add_end(filter: &mut FlowFilter, name: &str, source: bool, value: &str) -> Result<(), String> {
    let text = value.to_owned();
    macro_rules! end {
        ($source:ident, $destination:ident) => {
            if source { &mut filter.$source } else { &mut filter.$destination }
        };
    }
    match name {
        "cluster" => end!(source_cluster_name, destination_cluster_name).push(text),
        "fqdn" => end!(source_fqdn, destination_fqdn).push(text),
        "identity" => end!(source_identity, destination_identity).push(value::identity(value)?),
        "ip" => end!(source_ip, destination_ip).push(text),
        "label" => end!(source_label, destination_label).push(text),
        "pod" => end!(source_pod, destination_pod).push(text),
        "port" => end!(source_port, destination_port).push(text),
        "service" => end!(source_service, destination_service).push(text),
        "workload" => end!(source_workload, destination_workload).push(value::workload(value)),
        other => unreachable!("the table of flags has no --{other} about one end"),
    }
    Ok(())
}

/// A flag about the flow as a whole.
fn add_flow(filter: &mut FlowFilter, name: &str, value: &str) -> Result<(), String> {
    let text = value.to_owned();
    match name {
        "drop-reason-desc" => filter.drop_reason_desc.push(value::drop_reason(value)?.into()),
        "encrypted" => filter.encrypted.push(value::boolean(name, value)?),
        "unencrypted" => filter.encrypted.push(!value::boolean(name, value)?),
        "http-header" => {
            let (key, value) =
                value.split_once(':').ok_or_else(|| format!("--http-header {value:?} is not KEY:VALUE"))?;
            filter.http_header.push(HttpHeader { key: key.to_owned(), value: value.to_owned() });
        }
        "http-method" => filter.http_method.push(text),
        "http-path" => filter.http_path.push(text),
        "http-status" => filter.http_status_code.push(text),
        "http-url" => filter.http_url.push(text),
        "interface" => filter.interface.push(NetworkInterface { name: text, index: 0 }),
        "ip-trace-id" => filter.ip_trace_id.push(value::ip_trace_id(value)?),
        "ip-version" => filter.ip_version.push(value::ip_version(value)?.into()),
        "ipv4" => filter.ip_version.push(IpVersion::IPv4.into()),
        "ipv6" => filter.ip_version.push(IpVersion::IPv6.into()),
        "node-label" => filter.node_labels.push(text),
        "node-name" => filter.node_name.push(text),
        "protocol" => filter.protocol.push(text),
        "snat-ip" => filter.source_ip_xlated.push(text),
        "tcp-flags" => filter.tcp_flags.push(value::tcp_flags(value)?),
        "trace-id" => filter.trace_id.push(text),
        "traffic-direction" => filter.traffic_direction.push(match value.to_ascii_lowercase().as_str() {
            "ingress" => TrafficDirection::Ingress.into(),
            "egress" => TrafficDirection::Egress.into(),
            _ => return Err(format!("--traffic-direction {value:?} is neither ingress nor egress")),
        }),
        "type" => filter.event_type.push(value::event_type(value)?),
        "uuid" => filter.uuid.push(text),
        "verdict" => filter.verdict.push(value::verdict(value)?.into()),
        other => unreachable!("the table of flags has no --{other}"),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
