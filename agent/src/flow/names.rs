//! The names behind a record's numbers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost_types::Timestamp;
use sinew_api::extensions::DecidingRule;
use sinew_api::identity::Identity;
use sinew_api::labels::Labels;
use sinew_api::object::PolicyName;
use sinew_api::proto::flow::{Endpoint, Policy, TrafficDirection, Workload};
use sinew_engine::Cause;
use sinew_engine::snapshot::{PolicyView, Snapshot};

use super::FlowSettings;

/// In front of the name of a pod's cluster.
const CLUSTER_LABEL: &str = "k8s:io.cilium.k8s.policy.cluster=";

/// The wall clock at the monotonic clock's zero.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    boot: SystemTime,
}

impl Clock {
    /// Reads both clocks.
    #[must_use]
    pub fn now() -> Self {
        let since_boot = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
            .map(|now| Duration::new(now.tv_sec() as u64, now.tv_nsec() as u32))
            .unwrap_or_default();
        Self { boot: SystemTime::now() - since_boot }
    }

    /// A monotonic time in nanoseconds as a time of day.
    #[must_use]
    pub fn timestamp(self, nanoseconds: u64) -> Timestamp {
        let time = self.boot + Duration::from_nanos(nanoseconds);
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp { seconds: since.as_secs() as i64, nanos: since.subsec_nanos() as i32 }
    }
}

/// Names as of one snapshot.
#[derive(Clone, Debug)]
pub struct Names {
    /// Who this node is.
    pub(super) settings: FlowSettings,
    /// Times of day.
    pub(super) clock: Clock,
    snapshot: Arc<Snapshot>,
    interfaces: Arc<Interfaces>,
}

/// Why a verdict is what it is, in the terms of a flow.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Reason {
    /// The policies to name.
    pub(super) policies: Vec<Policy>,
    /// The rules to name.
    pub(super) rules: Vec<DecidingRule>,
    /// What the policies log.
    pub(super) log: Vec<String>,
    /// Nothing matched.
    pub(super) by_default: bool,
}

impl Names {
    /// Names from a snapshot.
    #[must_use]
    pub fn new(settings: FlowSettings, clock: Clock, snapshot: Arc<Snapshot>) -> Self {
        Self { settings, clock, snapshot, interfaces: Arc::default() }
    }

    /// The name of an interface of the node; empty for one that is gone before it was asked for.
    pub(super) fn interface(&self, index: u32) -> String {
        self.interfaces.name(index)
    }

    /// Takes a newer snapshot.
    pub fn update(&mut self, snapshot: Arc<Snapshot>) {
        self.snapshot = snapshot;
    }

    /// An end of a flow. `identity` is what the packet was judged with, 0 where it was not judged that far.
    pub(super) fn endpoint(&self, address: IpAddr, identity: u32) -> Endpoint {
        let view = self.snapshot.addresses.get(&address);
        let identity = match identity {
            0 => view.map_or(0, |view| view.entry.identity),
            judged => judged,
        };
        let mut end = Endpoint { identity, labels: self.labels(Identity(identity)), ..Endpoint::default() };
        // The world has no cluster; what is known by its labels says its own.
        let cluster = end.labels.iter().find_map(|label| label.strip_prefix(CLUSTER_LABEL));
        end.cluster_name = cluster.unwrap_or_default().to_owned();
        // An address that has changed hands since the packet is not given the new holder's name.
        if let Some(view) = view.filter(|view| view.entry.identity == identity) {
            end.id = view.endpoint.map_or(0, |id| u32::from(id.0));
            end.namespace.clone_from(&view.pod_namespace);
            end.pod_name.clone_from(&view.pod_name);
            end.workloads = view
                .workload
                .iter()
                .map(|workload| Workload { name: workload.name.clone(), kind: workload.kind.clone() })
                .collect();
        }
        end
    }

    fn labels(&self, identity: Identity) -> Vec<String> {
        match self.snapshot.identities.get(&identity) {
            Some(view) => view.labels.to_strings(),
            None => {
                identity.reserved_name().map(|name| Labels::reserved(name).to_strings()).unwrap_or_default()
            }
        }
    }

    /// What stands behind a cookie.
    pub(super) fn reason(&self, cookie: u32, direction: TrafficDirection, revision: u64) -> Reason {
        let mut reason = Reason::default();
        match self.snapshot.causes.get(&cookie) {
            None | Some(Cause::Init | Cause::LocalHost) => {}
            Some(Cause::Rule { policy, path }) => {
                self.add(&mut reason, policy, Some(path), direction, revision)
            }
            Some(Cause::Overflow { policy }) => self.add(&mut reason, policy, None, direction, revision),
            Some(Cause::DefaultDeny { policies, .. }) => {
                reason.by_default = true;
                for policy in policies {
                    self.add(&mut reason, policy, None, direction, revision);
                }
            }
        }
        reason
    }

    fn add(
        &self,
        reason: &mut Reason,
        name: &PolicyName,
        path: Option<&String>,
        direction: TrafficDirection,
        revision: u64,
    ) {
        let view = self.snapshot.policies.get(name);
        reason.policies.push(flow_policy(name, view, revision));
        let mut rule = DecidingRule {
            direction,
            policy: name.to_string(),
            path: path.cloned().unwrap_or_default(),
            ..DecidingRule::default()
        };
        if let Some(view) = view {
            rule.refused = !view.running.problems.is_empty();
            if path.is_none() && rule.refused {
                rule.path = view.running.problems[0].path.clone();
            }
            rule.file.clone_from(&view.running.origin.file);
            rule.line = view.running.origin.line;
            for spec in &view.running.specs {
                let found = spec.ingress.iter().chain(&spec.egress).find(|rule| Some(&rule.path) == path);
                if let Some(found) = found {
                    rule.file.clone_from(&found.origin.file);
                    rule.line = found.origin.line;
                    rule.deny = found.action == sinew_api::policy::RuleAction::Deny;
                    reason.log.extend(spec.log.clone());
                }
            }
        }
        reason.rules.push(rule);
    }
}

/// Names of interfaces by index. The kernel gives an index once, so that a name that is known stays right.
#[derive(Debug, Default)]
struct Interfaces(Mutex<HashMap<u32, String>>);

impl Interfaces {
    /// Interfaces remembered. A node has some hundred at a time; those of pods that are gone are forgotten with the rest.
    const MOST: usize = 4096;

    fn name(&self, index: u32) -> String {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = known.get(&index) {
            return name.clone();
        }
        let Ok(name) = nix::net::if_::if_indextoname(index) else { return String::new() };
        if known.len() >= Self::MOST {
            known.clear();
        }
        let name = name.to_string_lossy().into_owned();
        known.insert(index, name.clone());
        name
    }
}

/// The labels of a policy (policy.md 19).
pub(super) fn policy_labels(name: &PolicyName, uid: &str) -> Vec<String> {
    let mut labels = vec![
        format!("k8s:io.cilium.k8s.policy.derived-from={}", name.kind.kind()),
        format!("k8s:io.cilium.k8s.policy.name={}", name.name),
    ];
    if !name.namespace.is_empty() {
        labels.push(format!("k8s:io.cilium.k8s.policy.namespace={}", name.namespace));
    }
    if !uid.is_empty() {
        labels.push(format!("k8s:io.cilium.k8s.policy.uid={uid}"));
    }
    labels
}

/// A policy as flows name it.
fn flow_policy(name: &PolicyName, view: Option<&PolicyView>, revision: u64) -> Policy {
    Policy {
        name: name.name.clone(),
        namespace: name.namespace.clone(),
        labels: policy_labels(name, view.map(|view| view.running.uid.as_str()).unwrap_or_default()),
        revision,
        kind: name.kind.kind().to_owned(),
    }
}
