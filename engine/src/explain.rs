//! What would happen to a new connection, and why: the tables that are in force, asked with the kernel's own verdict
//! code (policy.md 20).
//!
//! Whoever is judged but has no table here (a pod of another node, a label set, a pod that is not there yet) gets one on
//! a copy of the engine. A connection judged without port and protocol is one that no rule names by port; ports that
//! rules do name and that fare otherwise are told beside it. Ends with IPv4 and IPv6 are judged over both.
//!
//! Neighbours in `explain/`: `party.rs` finds the ends, `meet.rs` their addresses, `bench.rs` asks the tables, `ports.rs`
//! looks for ports that fare otherwise, `near.rs` for rules that came near, `suggest.rs` writes the policy that would
//! allow it, `wire.rs` has the form in which the agent's service carries questions and answers. `sinew policy simulate`
//! asks the same of many flows.

mod bench;
mod meet;
mod near;
mod party;
mod ports;
mod suggest;
mod wire;
mod words;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use sinew_api::identity::Identity;
use sinew_api::labels::Labels;
use sinew_api::object::{Origin, PolicyName};
use sinew_api::policy::{Policy, RuleAction};
use sinew_bpf::drop::DropReason;
use sinew_bpf::parse::protocol;

use crate::change::EndpointId;
use crate::numbers::{Cause, Direction};
use crate::policy::Enforcement;
use crate::state::Engine;

use bench::Judge;
pub(crate) use bench::{Bench, Judged};
use meet::Meeting;
use party::{End, Standing};
pub use party::{Party, Unknown};
pub use wire::{Malformed, enforcement};
pub use words::rule_text;

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    const BOTH: [Self; 2] = [Self::V4, Self::V6];

    fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::V4 { "IPv4" } else { "IPv6" })
    }
}

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
    /// Only over this family; over all that both ends have where it is `None`.
    pub family: Option<Family>,
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

/// A field in which a rule fails that would have allowed it but for one or two of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NearMiss {
    /// The rule.
    pub rule: RuleRef,
    /// The field that failed.
    pub field: String,
    /// What the field asks for.
    pub wanted: String,
    /// What the connection has.
    pub found: String,
    /// How many fields of the rule failed; the others stand beside this one.
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
    /// The family of which this is said; `None` where it is so over all that were judged.
    pub family: Option<Family>,
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
    /// Rules that came near, nearest first, with each field that failed.
    pub near: Vec<NearMiss>,
    /// A policy that would allow it; empty where it is allowed, or where a deny rule stands against it.
    pub suggestion: String,
    /// One sentence.
    pub summary: String,
}

/// Ports that fare otherwise than those that no rule names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// IANA protocol number.
    pub protocol: u8,
    /// First port or ICMP type.
    pub first: u16,
    /// Last one; 65535 after a first of 0 is all of the protocol.
    pub last: u16,
    /// What becomes of them.
    pub verdict: Verdict,
    /// The family of which this is said; `None` where it is so over all that were judged.
    pub family: Option<Family>,
}

/// What would happen, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Who opens it.
    pub from: ResolvedParty,
    /// Whom it goes to.
    pub to: ResolvedParty,
    /// Both directions together, and of all families: it passes where all of them do.
    pub verdict: Verdict,
    /// The families that were judged, with the verdict of each.
    pub families: Vec<(Family, Verdict)>,
    /// For a query without a port: ports with another verdict.
    pub exceptions: Vec<Exception>,
    /// What a reader must know to understand the verdict.
    pub notes: Vec<String>,
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
        if from.is(&to) {
            return Ok(to_itself(&from, self.revision()));
        }
        let traffic = Traffic { protocol: query.protocol, port: query.port };
        let (meetings, of_meetings) = bench.meetings(&from, &to, query);
        let mut notes: Vec<String> = bench.notes.iter().cloned().chain(of_meetings).collect();
        let judges: Vec<[Option<Judge>; 2]> = meetings.iter().map(|meeting| bench.judges(meeting)).collect();
        let directions = bench.directions(&meetings, &judges, &traffic);
        let mut families = Vec::new();
        let mut exceptions: Vec<Exception> = Vec::new();
        let mut verdict = Verdict::Allow;
        for (meeting, judges) in meetings.iter().zip(&judges) {
            let judges: Vec<&Judge> = judges.iter().flatten().collect();
            let found = ports::together(&judges, &traffic);
            families.extend(meeting.family.map(|family| (family, found)));
            if verdict == Verdict::Allow {
                verdict = found;
            }
            if query.port.is_none() {
                let of_family = ports::exceptions(&judges, meeting.family, &traffic);
                exceptions
                    .extend(of_family.into_iter().map(|one| Exception { family: meeting.family, ..one }));
            }
        }
        if query.port.is_none() && matches!(query.protocol, None | Some(protocol::UDP)) {
            let forbidden = judges.iter().flatten().flatten().find_map(|judge| judge.forbidden_port);
            notes.extend(forbidden.map(|port| {
                format!(
                    "UDP port {port} of a node is kept for the overlay: what a pod sends there is dropped, whatever policies say"
                )
            }));
        }
        let closed = || directions.iter().filter(|one| one.verdict != Verdict::Allow);
        let mut suggestions: Vec<&str> = Vec::new();
        if closed().all(|one| !one.suggestion.is_empty()) {
            suggestions.extend(closed().map(|one| one.suggestion.as_str()));
            suggestions.dedup();
        }
        let suggestion = suggestions.join("---\n");
        let (from, to) = match meetings.as_slice() {
            [one] => (one.from.resolved(), one.to.resolved()),
            _ => (from.resolved(), to.resolved()),
        };
        Ok(Explanation {
            from,
            to,
            verdict,
            exceptions: of_all_families(exceptions, families.len()),
            families,
            notes,
            directions,
            suggestion,
            revision: self.revision(),
        })
    }
}

/// What a pod sends to its own address stays inside: no program sees it, whatever policies say.
fn to_itself(pod: &End, revision: u64) -> Explanation {
    let note =
        format!("what {} sends to its own address stays inside the pod, where no policy is asked", pod.name);
    Explanation {
        from: pod.resolved(),
        to: pod.resolved(),
        verdict: Verdict::Allow,
        families: Vec::new(),
        exceptions: Vec::new(),
        notes: vec![note],
        directions: Vec::new(),
        suggestion: String::new(),
        revision,
    }
}

/// What is so over every family is said once.
fn of_all_families(exceptions: Vec<Exception>, families: usize) -> Vec<Exception> {
    let without_family = |one: &Exception| Exception { family: None, ..*one };
    let mut said: Vec<Exception> = Vec::new();
    for one in &exceptions {
        let everywhere = without_family(one);
        let of = exceptions.iter().filter(|other| without_family(other) == everywhere).count();
        let one = if of == families { everywhere } else { *one };
        if !said.contains(&one) {
            said.push(one);
        }
    }
    said
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) protocol: Option<u8>,
    pub(crate) port: Option<u16>,
}

impl Bench {
    /// Whoever judges at a meeting: the sender's egress, the receiver's ingress.
    fn judges(&self, meeting: &Meeting) -> [Option<Judge>; 2] {
        let Meeting { from, to, .. } = meeting;
        [self.judge(Direction::Egress, from, to), self.judge(Direction::Ingress, to, from)]
    }

    /// Both directions; each once where all meetings have one answer, else once for each meeting.
    fn directions(
        &self,
        meetings: &[Meeting],
        judges: &[[Option<Judge>; 2]],
        traffic: &Traffic,
    ) -> Vec<DirectionExplanation> {
        let mut directions = Vec::new();
        for (number, direction) in [Direction::Egress, Direction::Ingress].into_iter().enumerate() {
            let mut answers: Vec<(Option<Family>, &End, End, Judged)> = Vec::new();
            for (Meeting { family, from, to }, judges) in meetings.iter().zip(judges) {
                let (judged, peer) = if direction == Direction::Egress { (from, to) } else { (to, from) };
                let judge = judges[number].as_ref();
                answers.extend(judge.map(|judge| (*family, judged, peer.clone(), judge.of(traffic))));
            }
            if let [first, others @ ..] = answers.as_mut_slice()
                && others.iter().all(|other| other.3 == first.3)
            {
                first.0 = None;
                // What is said of both families is said of the world, not of one of its halves.
                if !others.is_empty() && first.2.standing == Standing::General {
                    first.2.identity = Identity::WORLD;
                }
                answers.truncate(1);
            }
            let explained = answers.iter().map(|(family, judged, peer, answer)| {
                let explained = self.explain_direction(direction, judged, peer, traffic, answer);
                DirectionExplanation { family: *family, ..explained }
            });
            directions.extend(explained);
        }
        directions
    }

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
            family: None,
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
