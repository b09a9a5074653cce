//! What agent and debug events say, in Hubble's words.

use sinew_api::proto::flow::agent_event::Notification;
use sinew_api::proto::flow::{
    AgentEvent, DebugEvent, Endpoint, IpCacheNotification, ServiceUpsertNotification,
    ServiceUpsertNotificationAddr,
};

use crate::observe::flags::TimeForm;
use crate::observe::moment;

/// The part in brackets.
pub(super) fn agent_details(event: &AgentEvent, form: TimeForm) -> String {
    match &event.notification {
        None => "UNKNOWN".to_owned(),
        Some(Notification::Unknown(it)) => format!("type: {}, notification: {}", it.r#type, it.notification),
        Some(Notification::AgentStart(it)) => format!("start time: {}", moment::text(it.time.as_ref(), form)),
        Some(Notification::PolicyUpdate(it)) => {
            format!("labels: [{}], revision: {}, count: {}", it.labels.join(","), it.revision, it.rule_count)
        }
        Some(Notification::EndpointRegenerate(it)) => {
            let error = if it.error.is_empty() { String::new() } else { format!(", error: {}", it.error) };
            format!("id: {}, labels: [{}]{error}", it.id, it.labels.join(","))
        }
        Some(Notification::EndpointUpdate(it)) => {
            let mut parts = vec![format!("id: {}", it.id)];
            push(&mut parts, "namespace", &it.namespace);
            push(&mut parts, "pod name", &it.pod_name);
            parts.join(", ")
        }
        Some(Notification::IpcacheUpdate(it)) => address_details(it),
        Some(Notification::ServiceUpsert(it)) => service_details(it),
        Some(Notification::ServiceDelete(it)) => format!("id: {}", it.id),
    }
}

/// The parts of a debug message.
pub(super) struct DebugParts {
    pub(super) from: String,
    pub(super) kind: &'static str,
    pub(super) mark: String,
    pub(super) cpu: String,
    pub(super) message: String,
}

pub(super) fn debug_parts(event: &DebugEvent) -> DebugParts {
    let absent = || "N/A".to_owned();
    DebugParts {
        from: event.source.as_ref().map_or_else(absent, endpoint),
        kind: event.r#type().as_str_name(),
        mark: event.hash.map_or_else(absent, |hash| format!("{hash:#x}")),
        cpu: event.cpu.map_or_else(absent, |cpu| format!("{cpu:02}")),
        message: event.message.clone(),
    }
}

fn endpoint(endpoint: &Endpoint) -> String {
    let Endpoint { id, namespace, pod_name, labels, .. } = endpoint;
    match labels.as_slice() {
        _ if !namespace.is_empty() && !pod_name.is_empty() => format!("{namespace}/{pod_name} (ID: {id})"),
        [label] if label.starts_with("reserved:") => format!("{label} (ID: {id})"),
        _ => format!("ID: {id}"),
    }
}

fn address_details(it: &IpCacheNotification) -> String {
    let mut parts = vec![format!("cidr: {}", it.cidr), format!("identity: {}", it.identity)];
    if let Some(old) = it.old_identity {
        parts.push(format!("old identity: {old}"));
    }
    push(&mut parts, "host ip", &it.host_ip);
    push(&mut parts, "old host ip", &it.old_host_ip);
    parts.push(format!("encrypt key: {}", it.encrypt_key));
    parts.join(", ")
}

fn service_details(it: &ServiceUpsertNotification) -> String {
    let address = |it: &ServiceUpsertNotificationAddr| {
        if it.ip.contains(':') {
            format!("[{}]:{}", it.ip, it.port)
        } else {
            format!("{}:{}", it.ip, it.port)
        }
    };
    let mut parts = vec![format!("id: {}", it.id)];
    if let Some(frontend) = &it.frontend_address {
        parts.push(format!("frontend: {}", address(frontend)));
    }
    if !it.backend_addresses.is_empty() {
        let backends: Vec<String> = it.backend_addresses.iter().map(address).collect();
        parts.push(format!("backends: [{}]", backends.join(",")));
    }
    push(&mut parts, "type", &it.r#type);
    push(&mut parts, "traffic policy", &it.traffic_policy);
    push(&mut parts, "namespace", &it.namespace);
    push(&mut parts, "name", &it.name);
    parts.join(", ")
}

fn push(parts: &mut Vec<String>, name: &str, value: &str) {
    if !value.is_empty() {
        parts.push(format!("{name}: {value}"));
    }
}
