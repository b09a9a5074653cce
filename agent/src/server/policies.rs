//! Policies as a person asks for them: where they stand, what they match here, what they have decided.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use sinew_api::object::{ObjectKind, ObjectName, PolicyName, Problem, Refused};
use sinew_api::policy::{Policy, Rule, RuleAction};
use sinew_api::proto::agent::{
    GetPolicyResponse, ListPoliciesRequest, ListPoliciesResponse, Policy as Answer, PolicyState,
    Problem as ProblemAnswer, RefusedDocument, Rule as RuleAnswer, RuleRef,
};
use sinew_api::proto::flow::TrafficDirection;
use sinew_engine::explain::rule_text;
use sinew_engine::snapshot::{self, Force, PolicyView};
use sinew_engine::{Cause, Direction};
use tonic::Status;

use super::endpoints::endpoint_name;
use super::{AgentService, Ask};
use crate::clock::monotonic;
use crate::datapath::RuleHits;
use crate::view::{View, is_alive};

impl AgentService {
    /// Those that a request means, by name.
    pub(super) async fn policies(
        &self,
        request: &ListPoliciesRequest,
    ) -> Result<ListPoliciesResponse, Status> {
        let hits = self.ask(Ask::RuleHits).await?.map_err(|error| Status::internal(error.to_string()))?;
        let view = self.view();
        Ok(listed(&view, &hits, request))
    }

    /// One, by a name that is as long as it needs to be.
    pub(super) async fn policy(&self, name: &str) -> Result<GetPolicyResponse, Status> {
        let hits = self.ask(Ask::RuleHits).await?.map_err(|error| Status::internal(error.to_string()))?;
        one(&self.view(), &hits, name)
    }
}

/// The policies that a request means, with what the kernel counted of each rule.
fn listed(
    view: &View,
    hits: &BTreeMap<u32, RuleHits>,
    request: &ListPoliciesRequest,
) -> ListPoliciesResponse {
    let hits = hits_by_rule(view, hits);
    let live = Live::nodes(view);
    let selects = |policy: &PolicyView| {
        request.endpoint.is_empty()
            || policy
                .selected
                .iter()
                .filter_map(|id| view.snapshot.endpoints.get(id))
                .any(|endpoint| endpoint_name(endpoint) == request.endpoint)
    };
    let policies = view
        .snapshot
        .policies
        .iter()
        .filter(|(name, _)| request.namespace.is_empty() || name.namespace == request.namespace)
        .filter(|(_, policy)| selects(policy))
        .map(|(name, policy)| answer(view, name, policy, hits.get(name), live))
        .collect();
    let all = request.namespace.is_empty() && request.endpoint.is_empty();
    let unreadable = view.unreadable.iter().filter(|_| all).map(problem).collect();
    let refused = view.refused.iter().filter(|_| all).map(refused).collect();
    ListPoliciesResponse { policies, unreadable, refused }
}

fn one(view: &View, hits: &BTreeMap<u32, RuleHits>, name: &str) -> Result<GetPolicyResponse, Status> {
    let (full, policy) = find(view, name)?;
    let hits = hits_by_rule(view, hits);
    let answer = answer(view, full, policy, hits.get(full), Live::nodes(view));
    Ok(GetPolicyResponse { policy: Some(answer) })
}

/// The policy that a name means, which is as long as it needs to be.
pub(super) fn find<'a>(view: &'a View, name: &str) -> Result<(&'a PolicyName, &'a PolicyView), Status> {
    let means = |full: &PolicyName| {
        full.to_string() == name
            || format!("{}/{}", full.namespace, full.name) == name
            || (!name.contains('/') && full.name == name)
    };
    let found: Vec<_> = view.snapshot.policies.iter().filter(|(full, _)| means(full)).collect();
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(Status::not_found(format!("no policy is named `{name}`"))),
        many => {
            let names: Vec<String> = many.iter().map(|(full, _)| full.to_string()).collect();
            Err(Status::invalid_argument(format!("`{name}` could be {}", names.join(" or "))))
        }
    }
}

/// Where a policy stands, on the wire.
pub(crate) fn state(policy: &PolicyView) -> PolicyState {
    match policy.state {
        snapshot::PolicyState::Enforced => PolicyState::Enforced,
        snapshot::PolicyState::Audited => PolicyState::Audited,
        snapshot::PolicyState::Refused => PolicyState::Refused,
        snapshot::PolicyState::Pending => PolicyState::Pending,
    }
}

/// A problem on the wire.
pub(super) fn problem(problem: &Problem) -> ProblemAnswer {
    ProblemAnswer {
        path: problem.path.clone(),
        message: problem.message.clone(),
        file: problem.origin.file.clone(),
        line: problem.origin.line,
    }
}

/// Judgements of one policy, by the paths of its rules.
type HitsByPath<'a> = BTreeMap<&'a str, RuleHits>;

/// Judgements by policy and path: one walk over the cookies for all policies of an answer.
fn hits_by_rule<'a>(
    view: &'a View,
    hits: &BTreeMap<u32, RuleHits>,
) -> BTreeMap<&'a PolicyName, HitsByPath<'a>> {
    let mut by_rule: BTreeMap<&PolicyName, HitsByPath<'_>> = BTreeMap::new();
    for (cookie, hits) in hits {
        let (policy, path) = match view.snapshot.causes.get(cookie) {
            Some(Cause::Rule { policy, path }) => (policy, path.as_str()),
            Some(Cause::Overflow { policy }) => (policy, ""),
            _ => continue,
        };
        by_rule.entry(policy).or_default().insert(path, *hits);
    }
    by_rule
}

/// The living nodes.
#[derive(Clone, Copy)]
struct Live {
    nodes: usize,
    /// Those that have followed to what this one's store holds.
    agreeing: usize,
}

impl Live {
    fn nodes(view: &View) -> Self {
        let now = SystemTime::now();
        let live: Vec<_> = view.nodes.values().filter(|node| is_alive(node, now)).collect();
        let agreeing = live.iter().filter(|node| node.status.policy_digest == view.store_digest).count();
        Self { nodes: live.len(), agreeing }
    }

    /// How many enforce the version of a policy that the store holds. A node's digest says that it has followed, not
    /// what it made of a version which can't be enforced; one that this node refuses is counted nowhere.
    fn enforcing(self, policy: &PolicyView) -> usize {
        if policy.state == snapshot::PolicyState::Refused { 0 } else { self.agreeing }
    }
}

/// A document with a name that is refused, on the wire.
fn refused(document: &Refused) -> RefusedDocument {
    RefusedDocument {
        name: document.name.as_ref().map(written_name).unwrap_or_default(),
        problems: document.problems.iter().map(problem).collect(),
    }
}

/// An object's name as people write it: a policy's as everywhere, others by their kinds.
pub(super) fn written_name(name: &ObjectName) -> String {
    match name.kind {
        ObjectKind::Policy(kind) => {
            PolicyName { kind, namespace: name.namespace.clone(), name: name.name.clone() }.to_string()
        }
        _ => name.to_string(),
    }
}

fn answer(
    view: &View,
    name: &PolicyName,
    policy: &PolicyView,
    hits: Option<&HitsByPath<'_>>,
    live: Live,
) -> Answer {
    let running = &policy.running;
    let selected = policy.selected.iter().filter_map(|id| view.snapshot.endpoints.get(id));
    Answer {
        name: name.to_string(),
        kind: name.kind.kind().to_owned(),
        namespace: name.namespace.clone(),
        state: state(policy).into(),
        problems: policy.problems.iter().map(problem).collect(),
        warnings: policy.warnings.iter().map(problem).collect(),
        generation: policy.policy.generation,
        running_generation: policy.generation_in_force().unwrap_or(0),
        selected_endpoints: selected.map(endpoint_name).collect(),
        rules: rules_in_force(name, policy, hits),
        nodes_enforcing: live.enforcing(policy) as u32,
        nodes_live: live.nodes as u32,
        nodes_silent: super::lagging::silent(view),
        file: policy.policy.origin.file.clone(),
        line: policy.policy.origin.line,
        uid: policy.policy.uid.clone(),
        default_deny_ingress: running.specs.iter().any(|spec| spec.default_deny_ingress),
        default_deny_egress: running.specs.iter().any(|spec| spec.default_deny_egress),
        revision: policy.revision,
    }
}

/// The rules that count: of a policy that does not fit its deny rules, or, if these don't fit either, one that stands in no
/// file and denies all that the policy would have judged.
fn rules_in_force(name: &PolicyName, policy: &PolicyView, hits: Option<&HitsByPath<'_>>) -> Vec<RuleAnswer> {
    let hits_at = |path: &str| hit(hits.and_then(|hits| hits.get(path)));
    if policy.force == Force::DenyAll {
        let rule = RuleRef {
            policy: name.to_string(),
            deny: true,
            built_in: "does not fit".to_owned(),
            ..RuleRef::default()
        };
        let text = "all that it would have judged".to_owned();
        return vec![RuleAnswer { rule: Some(rule), any_peer: true, text, ..hits_at("") }];
    }
    rules(&policy.running)
        .filter(|(_, rule)| policy.counts(rule))
        .map(|(direction, rule)| RuleAnswer {
            rule: Some(rule_ref(name, rule, direction)),
            matched_peers: policy.matched.get(&rule.path).copied().flatten().unwrap_or(0) as u32,
            any_peer: policy.matched.get(&rule.path).is_some_and(Option::is_none),
            text: rule_text(rule, engine_direction(direction)),
            ..hits_at(&rule.path)
        })
        .collect()
}

fn rules(policy: &Policy) -> impl Iterator<Item = (TrafficDirection, &Rule)> {
    policy.specs.iter().flat_map(|spec| {
        let ingress = spec.ingress.iter().map(|rule| (TrafficDirection::Ingress, rule));
        ingress.chain(spec.egress.iter().map(|rule| (TrafficDirection::Egress, rule)))
    })
}

fn engine_direction(direction: TrafficDirection) -> Direction {
    if direction == TrafficDirection::Egress { Direction::Egress } else { Direction::Ingress }
}

fn hit(hits: Option<&RuleHits>) -> RuleAnswer {
    let Some(hits) = hits else { return RuleAnswer::default() };
    RuleAnswer {
        packets: hits.packets,
        bytes: hits.bytes,
        last_hit: Some(time_of_day(hits.last).into()),
        ..RuleAnswer::default()
    }
}

/// A monotonic time in nanoseconds as a time of day.
pub(super) fn time_of_day(nanoseconds: u64) -> SystemTime {
    SystemTime::now() - monotonic().saturating_sub(Duration::from_nanos(nanoseconds))
}

fn rule_ref(name: &PolicyName, rule: &Rule, direction: TrafficDirection) -> RuleRef {
    RuleRef {
        policy: name.to_string(),
        path: rule.path.clone(),
        file: rule.origin.file.clone(),
        line: rule.origin.line,
        direction: direction.into(),
        deny: rule.action == RuleAction::Deny,
        built_in: String::new(),
    }
}

/// What stands behind a cookie; nothing behind 0.
pub(super) fn rule_of_cookie(view: &View, cookie: u32, direction: TrafficDirection) -> Option<RuleRef> {
    let built_in = |words: &str| RuleRef {
        direction: direction.into(),
        built_in: words.to_owned(),
        ..RuleRef::default()
    };
    Some(match view.snapshot.causes.get(&cookie)? {
        Cause::Rule { policy, path } => {
            let running = view.snapshot.policies.get(policy).map(|view| &view.running);
            let rule = running.and_then(|running| rules(running).find(|(_, rule)| rule.path == *path));
            match rule {
                Some((_, rule)) => rule_ref(policy, rule, direction),
                None => RuleRef {
                    policy: policy.to_string(),
                    path: path.clone(),
                    direction: direction.into(),
                    ..RuleRef::default()
                },
            }
        }
        Cause::DefaultDeny { policies, .. } => {
            let names: Vec<String> = policies.iter().map(ToString::to_string).collect();
            RuleRef { deny: true, ..built_in(&format!("default deny by {}", names.join(", "))) }
        }
        Cause::Init => {
            RuleRef { deny: true, ..built_in("an endpoint whose labels are not known yet allows nothing") }
        }
        Cause::LocalHost => built_in("the node reaches its own pods"),
        Cause::Overflow { policy } => RuleRef {
            policy: policy.to_string(),
            deny: true,
            ..built_in("the policy does not fit into its table")
        },
    })
}

#[cfg(test)]
mod tests;
