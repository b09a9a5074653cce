//! What happened in the agent, as events of the Observer: what differs between one snapshot and the next.
//!
//! Nobody reports an event; two values are compared, so that what a burst of changes comes to is told once and nothing
//! is told that did not come about. Neighbours: `control.rs` publishes the views, `sinew_observer` keeps the events in a
//! ring beside the flows.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use sinew_api::policy::Policy;
use sinew_api::proto::flow::agent_event::Notification;
use sinew_api::proto::flow::{
    AgentEvent, AgentEventType, EndpointRegenNotification, EndpointUpdateNotification, IpCacheNotification,
    PolicyUpdateNotification, TimeNotification,
};
use sinew_engine::EndpointId;
use sinew_engine::snapshot::{AddressView, EndpointView, Snapshot};
use tokio::sync::watch;

use super::Journal;
use crate::view::View;

/// Tells the start and every change from then on, until the views end. Cancel-safe: a view that was not compared yet is
/// compared by whoever goes on.
pub async fn tell(mut views: watch::Receiver<Arc<View>>, journal: Arc<Journal>) {
    let now = SystemTime::now();
    let start = Notification::AgentStart(TimeNotification { time: Some(now.into()) });
    journal.record_event(event(AgentEventType::AgentStarted, start), now);
    let mut known = Arc::new(Snapshot::default());
    loop {
        let current = views.borrow_and_update().snapshot.clone();
        for change in changes(&known, &current) {
            journal.record_event(change, SystemTime::now());
        }
        known = current;
        if views.changed().await.is_err() {
            return;
        }
    }
}

/// What leads from one snapshot to the next: policies, then endpoints, then addresses. The first list of addresses is no
/// event.
#[must_use]
pub fn changes(from: &Snapshot, to: &Snapshot) -> Vec<AgentEvent> {
    let mut told = Vec::new();
    policies(from, to, &mut told);
    endpoints(from, to, &mut told);
    // Who is there when the agent starts did not come about just then, and would push everything else out of the ring.
    if from.synced && !Arc::ptr_eq(&from.addresses, &to.addresses) {
        addresses(&from.addresses, &to.addresses, &mut told);
    }
    told
}

fn event(r#type: AgentEventType, notification: Notification) -> AgentEvent {
    AgentEvent { r#type: r#type.into(), notification: Some(notification) }
}

fn policies(from: &Snapshot, to: &Snapshot, told: &mut Vec<AgentEvent>) {
    for (name, view) in to.policies.iter() {
        let before = from.policies.get(name).map(|view| &view.running);
        if before.is_none_or(|before| before.generation != view.running.generation) {
            told.push(policy(AgentEventType::PolicyUpdated, &view.running, view.revision));
        }
    }
    for (_, view) in from.policies.iter().filter(|(name, _)| !to.policies.contains_key(*name)) {
        told.push(policy(AgentEventType::PolicyDeleted, &view.running, to.revision));
    }
}

fn policy(r#type: AgentEventType, policy: &Policy, revision: u64) -> AgentEvent {
    let rules = policy.specs.iter().map(|spec| spec.ingress.len() + spec.egress.len()).sum::<usize>();
    let labels = super::names::policy_labels(&policy.name, &policy.uid, &policy.specs);
    let notification =
        PolicyUpdateNotification { labels, revision, rule_count: i64::try_from(rules).unwrap_or(i64::MAX) };
    event(r#type, Notification::PolicyUpdate(notification))
}

fn endpoints(from: &Snapshot, to: &Snapshot, told: &mut Vec<AgentEvent>) {
    for (id, view) in to.endpoints.iter() {
        let before = from.endpoints.get(id);
        if before.is_none() {
            told.push(endpoint(AgentEventType::EndpointCreated, *id, view));
        }
        // A table is made anew as a new value; an equal one is the same.
        let same = match (before.and_then(|before| before.table.as_ref()), view.table.as_ref()) {
            (Some(before), Some(table)) => Arc::ptr_eq(before, table) || before == table,
            (_, None) => true,
            (None, Some(_)) => false,
        };
        if !same {
            let labels = view.labels.to_strings();
            let made = EndpointRegenNotification { id: u64::from(id.0), labels, error: String::new() };
            let made = Notification::EndpointRegenerate(made);
            told.push(event(AgentEventType::EndpointRegenerateSuccess, made));
        }
    }
    for (id, view) in from.endpoints.iter().filter(|(id, _)| !to.endpoints.contains_key(*id)) {
        told.push(endpoint(AgentEventType::EndpointDeleted, *id, view));
    }
}

fn endpoint(r#type: AgentEventType, id: EndpointId, view: &EndpointView) -> AgentEvent {
    let notification = EndpointUpdateNotification {
        id: u64::from(id.0),
        labels: view.labels.to_strings(),
        error: String::new(),
        pod_name: view.created.pod_name.clone(),
        namespace: view.created.pod_namespace.clone(),
    };
    event(r#type, Notification::EndpointUpdate(notification))
}

fn addresses(
    from: &BTreeMap<IpAddr, AddressView>,
    to: &BTreeMap<IpAddr, AddressView>,
    told: &mut Vec<AgentEvent>,
) {
    for (at, view) in to {
        let before = from.get(at).map(|view| view.entry.identity);
        if before != Some(view.entry.identity) {
            told.push(address(AgentEventType::IpcacheUpserted, *at, view, before));
        }
    }
    for (at, view) in from.iter().filter(|(at, _)| !to.contains_key(*at)) {
        told.push(address(AgentEventType::IpcacheDeleted, *at, view, None));
    }
}

fn address(r#type: AgentEventType, at: IpAddr, view: &AddressView, old_identity: Option<u32>) -> AgentEvent {
    let length = if at.is_ipv4() { 32 } else { 128 };
    let tunnel = IpAddr::from(view.entry.tunnel);
    let notification = IpCacheNotification {
        cidr: format!("{at}/{length}"),
        identity: view.entry.identity,
        old_identity,
        host_ip: if tunnel.is_unspecified() { String::new() } else { tunnel.to_string() },
        old_host_ip: String::new(),
        encrypt_key: u32::from(view.entry.key_epoch),
        namespace: view.pod_namespace.to_string(),
        pod_name: view.pod_name.to_string(),
    };
    event(r#type, Notification::IpcacheUpdate(notification))
}

#[cfg(test)]
mod tests {
    use sinew_api::identity::Identity;
    use sinew_api::labels::Labels;
    use sinew_api::object::{Origin, PolicyKind, PolicyName};
    use sinew_api::policy::Enforcement;
    use sinew_bpf::abi::IpcacheEntry;
    use sinew_engine::LocalEndpoint;
    use sinew_engine::snapshot::{Force, PolicyState, PolicyView};

    use super::*;

    fn policy_view(name: &str, generation: u64) -> (PolicyName, PolicyView) {
        let name =
            PolicyName { kind: PolicyKind::NetworkPolicy, namespace: "shop".into(), name: name.into() };
        let policy = Arc::new(Policy {
            name: name.clone(),
            uid: String::new(),
            generation,
            origin: Origin::default(),
            enforcement: Enforcement::Enforce,
            specs: Vec::new(),
            problems: Vec::new(),
            warnings: Vec::new(),
        });
        let view = PolicyView {
            running: policy.clone(),
            policy,
            force: Force::Whole,
            state: PolicyState::Enforced,
            problems: Vec::new(),
            warnings: Vec::new(),
            selected: Vec::new(),
            matched: BTreeMap::new(),
            revision: generation,
        };
        (name, view)
    }

    fn endpoint_view(pod: &str) -> EndpointView {
        let created = LocalEndpoint {
            id: EndpointId(7),
            container_id: String::new(),
            ifname: "eth0".into(),
            pod_namespace: "shop".into(),
            pod_name: pod.into(),
            pod_uid: String::new(),
            labels: BTreeMap::new(),
            addresses: Vec::new(),
            found: None,
        };
        EndpointView {
            created,
            pod: None,
            identity: Identity(1001),
            labels: Arc::new(Labels::reserved("init")),
            moving_to: None,
            enforcement: Default::default(),
            table: None,
        }
    }

    fn address_view(identity: u32) -> AddressView {
        AddressView {
            entry: IpcacheEntry { identity, ..IpcacheEntry::default() },
            pod_namespace: "shop".into(),
            pod_name: "web".into(),
            workload: None,
            endpoint: None,
            node: "a".into(),
        }
    }

    fn told(from: &Snapshot, to: &Snapshot) -> Vec<String> {
        let line = |event: &AgentEvent| {
            let what = match event.notification.as_ref().expect("every event says what") {
                Notification::PolicyUpdate(it) => format!("{} revision {}", it.labels[1], it.revision),
                Notification::EndpointUpdate(it) => format!("{} {}/{}", it.id, it.namespace, it.pod_name),
                Notification::EndpointRegenerate(it) => it.id.to_string(),
                Notification::IpcacheUpdate(it) => {
                    format!("{} {} was {:?} {}", it.cidr, it.identity, it.old_identity, it.pod_name)
                }
                other => format!("{other:?}"),
            };
            format!("{} {what}", event.r#type().as_str_name())
        };
        changes(from, to).iter().map(line).collect()
    }

    #[test]
    fn what_came_changed_and_went() {
        let at: IpAddr = "10.0.0.1".parse().unwrap();
        let at6: IpAddr = "fd00::1".parse().unwrap();
        let before = Snapshot {
            synced: true,
            policies: Arc::new(BTreeMap::from([policy_view("a", 1), policy_view("gone", 1)])),
            addresses: Arc::new(BTreeMap::from([(at, address_view(5)), (at6, address_view(5))])),
            ..Snapshot::default()
        };
        let after = Snapshot {
            revision: 9,
            synced: true,
            policies: Arc::new(BTreeMap::from([policy_view("a", 2), policy_view("b", 3)])),
            endpoints: Arc::new(BTreeMap::from([(EndpointId(7), endpoint_view("web"))])),
            addresses: Arc::new(BTreeMap::from([(at, address_view(1001))])),
            ..Snapshot::default()
        };
        let name = "k8s:io.cilium.k8s.policy.name";
        let expected = [
            format!("POLICY_UPDATED {name}=a revision 2"),
            format!("POLICY_UPDATED {name}=b revision 3"),
            format!("POLICY_DELETED {name}=gone revision 9"),
            "ENDPOINT_CREATED 7 shop/web".to_owned(),
            "IPCACHE_UPSERTED 10.0.0.1/32 1001 was Some(5) web".to_owned(),
            "IPCACHE_DELETED fd00::1/128 5 was None web".to_owned(),
        ];
        assert_eq!(told(&before, &after), expected);
        assert_eq!(told(&after, &after), [""; 0], "nothing happened");
        let start = told(&Snapshot::default(), &after);
        assert!(
            !start.iter().any(|event| event.starts_with("IPCACHE")),
            "known addresses are no events: {start:?}"
        );
        assert_eq!(
            told(&after, &Snapshot::default()).last().map(String::as_str),
            Some("IPCACHE_DELETED 10.0.0.1/32 1001 was None web")
        );
        assert!(told(&after, &Snapshot::default()).contains(&"ENDPOINT_DELETED 7 shop/web".to_owned()));
    }
}
