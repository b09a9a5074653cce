//! What would happen to a new connection, and why: the tables that are in force, asked with the kernel's own verdict
//! code (policy.md 20).
//!
//! Whoever is judged but has no table here (a pod of another node, a label set, a pod that is not there yet) gets one on
//! a copy of the engine. A connection judged without port and protocol is one that no rule names by port.
//!
//! Neighbours in `explain/`: `party.rs` finds the ends, `bench.rs` asks the tables, `near.rs` looks for rules that came
//! near, `suggest.rs` writes the policy that would allow it, `wire.rs` has the form in which the agent's service carries
//! questions and answers. `sinew policy simulate` asks the same of many flows.

mod bench;
mod near;
mod party;
mod suggest;
mod wire;
mod words;

use std::net::IpAddr;
use std::sync::Arc;

use sinew_api::identity::Identity;
use sinew_api::labels::Labels;
use sinew_api::object::{Origin, PolicyName};
use sinew_api::policy::{Policy, RuleAction};
use sinew_bpf::drop::DropReason;

use crate::change::EndpointId;
use crate::numbers::{Cause, Direction};
use crate::policy::Enforcement;
use crate::state::Engine;

pub(crate) use bench::{Bench, Judged};
pub(crate) use party::End;
pub use party::{Party, Unknown};
pub use wire::{Malformed, enforcement};
pub use words::rule_text;

/// A connection to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Who opens it.
    pub from: Party,
    /// Whom it goes to.
    pub to: Party,
    /// IANA protocol number; `None` for traffic that no rule names.
    pub protocol: Option<u8>,
    /// Destination port, or ICMP type.
    pub port: Option<u16>,
}

/// What a table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It passes.
    Allow,
    /// No rule allows it, and default deny is on.
    DefaultDeny,
    /// A rule denies it.
    Deny,
    /// It is dropped before any rule is asked.
    Drop(DropReason),
}

/// A rule, or what else decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleRef {
    /// What it is.
    pub cause: Cause,
    /// Where it stands: of a rule its element, of a policy the document. Nowhere for what is built in.
    pub origin: Origin,
    /// Whether it denies.
    pub deny: bool,
}

/// A policy that switched default deny on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwitchedOn {
    /// Its name.
    pub policy: PolicyName,
    /// Where it stands.
    pub origin: Origin,
    /// The first field for which it is refused, if it is: its allows are not in force (policy.md 14).
    pub refused: Option<String>,
}

/// A rule that would have allowed it but for one or two fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NearMiss {
    /// The rule.
    pub rule: RuleRef,
    /// The first field that failed.
    pub field: String,
    /// What the field asks for.
    pub wanted: String,
    /// What the connection has.
    pub found: String,
    /// How many fields failed.
    pub failed: usize,
}

/// One end, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedParty {
    /// `namespace/name`, an address, an entity or labels.
    pub name: String,
    /// Its identity; `None` for labels that have no number yet.
    pub identity: Option<Identity>,
    /// What that stands for.
    pub labels: Arc<Labels>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The address that CIDRs were compared with.
    pub judged_as: IpAddr,
    /// The endpoint of this node.
    pub endpoint: Option<EndpointId>,
    /// The node that it is on, where that is known.
    pub node: String,
}

/// One direction that is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectionExplanation {
    /// Which.
    pub direction: Direction,
    /// Whose policies were asked.
    pub endpoint: String,
    /// The verdict.
    pub verdict: Verdict,
    /// What policy does to the endpoint in this direction.
    pub enforcement: Enforcement,
    /// What decided; `None` where nothing enforces.
    pub rule: Option<RuleRef>,
    /// For a default deny: who switched it on.
    pub denied_by: Vec<SwitchedOn>,
    /// The verdict with audit policies, and what decided it, where it differs.
    pub shadow: Option<(Verdict, Option<RuleRef>)>,
    /// Rules that came near, nearest first.
    pub near: Vec<NearMiss>,
    /// A policy that would allow it; empty where it is allowed, or where a deny rule stands against it.
    pub suggestion: String,
    /// One sentence.
    pub summary: String,
}

/// What would happen, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Who opens it.
    pub from: ResolvedParty,
    /// Whom it goes to.
    pub to: ResolvedParty,
    /// Both directions together.
    pub verdict: Verdict,
    /// Egress of the first, ingress of the second: those that are judged.
    pub directions: Vec<DirectionExplanation>,
    /// What would allow it, several documents if both directions need one; empty if that takes more than an addition.
    pub suggestion: String,
    /// The revision that was asked.
    pub revision: u64,
}

impl Engine {
    /// What would happen to a connection.
    ///
    /// # Errors
    ///
    /// An end that doesn't exist, by its part of the query: nothing is guessed.
    pub fn explain(&self, query: &Query) -> Result<Explanation, Unknown> {
        let mut bench = Bench::new(self);
        let (from, to) = bench.ends(&query.from, &query.to)?;
        let traffic = Traffic { protocol: query.protocol, port: query.port };
        let mut directions = Vec::new();
        for (direction, judged, peer) in [(Direction::Egress, &from, &to), (Direction::Ingress, &to, &from)] {
            if let Some(answer) = bench.judge(direction, judged, peer, &traffic) {
                directions.push(bench.explain_direction(direction, judged, peer, &traffic, &answer));
            }
        }
        let verdict = directions.iter().map(|one| one.verdict).find(|verdict| *verdict != Verdict::Allow);
        let closed = || directions.iter().filter(|one| one.verdict != Verdict::Allow);
        let suggestion = match closed().all(|one| !one.suggestion.is_empty()) {
            true => closed().map(|one| one.suggestion.as_str()).collect::<Vec<_>>().join("---\n"),
            false => String::new(),
        };
        Ok(Explanation {
            from: from.resolved(),
            to: to.resolved(),
            verdict: verdict.unwrap_or(Verdict::Allow),
            directions,
            suggestion,
            revision: self.revision(),
        })
    }
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) protocol: Option<u8>,
    pub(crate) port: Option<u16>,
}

impl Bench {
    fn explain_direction(
        &self,
        direction: Direction,
        judged: &End,
        peer: &End,
        traffic: &Traffic,
        answer: &Judged,
    ) -> DirectionExplanation {
        let rule = self.rule_ref(answer.cookie);
        let shadow = (answer.shadow != answer.verdict && !matches!(answer.verdict, Verdict::Drop(_)))
            .then(|| (answer.shadow, self.rule_ref(answer.shadow_cookie)));
        let denied_by = match &rule {
            Some(RuleRef { cause: Cause::DefaultDeny { policies, .. }, .. }) => {
                policies.iter().map(|policy| self.switched_on(policy)).collect()
            }
            _ => Vec::new(),
        };
        let (mut near, mut suggestion) = (Vec::new(), String::new());
        if answer.verdict == Verdict::DefaultDeny {
            near = self.near(direction, judged, peer, traffic);
            suggestion = suggest::policy(direction, judged, peer, traffic);
        }
        let mut explanation = DirectionExplanation {
            direction,
            endpoint: judged.name.clone(),
            verdict: answer.verdict,
            enforcement: self.enforcement(direction, judged),
            rule,
            denied_by,
            shadow,
            near,
            suggestion,
            summary: String::new(),
        };
        explanation.summary = words::summary(&explanation);
        explanation
    }

    /// What a cookie stands for, and where that stands.
    fn rule_ref(&self, cookie: u32) -> Option<RuleRef> {
        let cause = self.engine.cause(cookie)?.clone();
        let (mut origin, mut deny) = (Origin::default(), true);
        match &cause {
            Cause::Rule { policy, path } => {
                let rule = self.running(policy).and_then(|running| rule_at(&running, path));
                if let Some((at, action)) = rule {
                    origin = at;
                    deny = action == RuleAction::Deny;
                }
            }
            Cause::Overflow { policy } => {
                origin = self.running(policy).map(|running| running.origin.clone()).unwrap_or_default();
            }
            Cause::LocalHost => deny = false,
            Cause::DefaultDeny { .. } | Cause::Init => {}
        }
        Some(RuleRef { cause, origin, deny })
    }

    fn switched_on(&self, name: &PolicyName) -> SwitchedOn {
        let policy = self.running(name);
        SwitchedOn {
            policy: name.clone(),
            origin: policy.as_ref().map(|policy| policy.origin.clone()).unwrap_or_default(),
            refused: policy.and_then(|policy| policy.problems.first().map(|problem| problem.path.clone())),
        }
    }

    fn running(&self, name: &PolicyName) -> Option<Arc<Policy>> {
        self.engine.running_policy(name)
    }
}

/// Where the rule of a path stands, and what it does.
fn rule_at(policy: &Policy, path: &str) -> Option<(Origin, RuleAction)> {
    let rules = policy.specs.iter().flat_map(|spec| spec.ingress.iter().chain(&spec.egress));
    rules.into_iter().find(|rule| rule.path == path).map(|rule| (rule.origin.clone(), rule.action))
}
