//! Policies for people.

use std::time::SystemTime;

use sinew_api::proto::agent::{GetPolicyResponse, ListPoliciesResponse, Policy, PolicyState, Problem, Rule};

use crate::explain::words;
use crate::output::Paint;
use crate::output::paint::Tone;
use crate::output::table::{Cell, Table};
use crate::{status, when};

/// One line a policy; what is wrong stands under the table, with file and line.
pub(super) fn list(answer: &ListPoliciesResponse, paint: Paint) -> String {
    let mut table = Table::new(&["POLICY", "STATE", "SELECTS", "RULES", "NODES", "PLACE"]);
    for policy in &answer.policies {
        table.row([
            (&policy.name).into(),
            state_cell(policy),
            policy.selected_endpoints.len().into(),
            policy.rules.len().into(),
            format!("{}/{}", policy.nodes_enforcing, policy.nodes_live).into(),
            file_place(&policy.file, policy.line).into(),
        ]);
    }
    let mut text = table.render(paint, "No policies: every pod is open in both directions.");
    for policy in &answer.policies {
        text.push_str(&problems(policy, paint));
    }
    for document in &answer.refused {
        text.push_str(&format!("\n{} {}\n", paint.tone(Tone::Bad, "REFUSED"), document.name));
        document.problems.iter().for_each(|problem| text.push_str(&problem_line(problem)));
    }
    for problem in &answer.unreadable {
        let place = file_place(&problem.file, problem.line);
        text.push_str(&format!("\n{} {place}: {}\n", paint.tone(Tone::Bad, "UNREADABLE"), problem.message));
    }
    text
}

/// Everything about one policy.
pub(super) fn one(answer: &GetPolicyResponse, now: SystemTime, paint: Paint) -> String {
    let Some(policy) = &answer.policy else { return "The agent sent no policy.\n".into() };
    let place = file_place(&policy.file, policy.line);
    let mut text = format!("{}  {place}\n", paint.tone(Tone::Strong, &policy.name));
    let (tone, state) = state(policy);
    text.push_str(&format!("  state         {}\n", paint.tone(tone, &state)));
    for (title, value) in facts(policy) {
        text.push_str(&format!("  {title:<13} {value}\n"));
    }
    text.push_str(&problems(policy, paint));
    if !policy.rules.is_empty() {
        text.push('\n');
        text.push_str(&rules(&policy.rules, now, paint));
    }
    text
}

fn facts(policy: &Policy) -> Vec<(&'static str, String)> {
    let switches = match (policy.default_deny_ingress, policy.default_deny_egress) {
        (true, true) => "ingress and egress",
        (true, false) => "ingress",
        (false, true) => "egress",
        (false, false) => "neither direction",
    };
    let generation = match policy.running_generation {
        0 => format!("{}, none in force", policy.generation),
        running if running == policy.generation => running.to_string(),
        running => format!("{}, running {running}", policy.generation),
    };
    let selects = match policy.selected_endpoints.as_slice() {
        [] => "no pod of this node".into(),
        endpoints => words::listed(endpoints),
    };
    vec![
        ("kind", policy.kind.clone()),
        ("generation", generation),
        ("default deny", format!("switched on for {switches}")),
        ("selects", selects),
        ("enforced on", format!("{} of {} live nodes", policy.nodes_enforcing, policy.nodes_live)),
    ]
}

fn rules(rules: &[Rule], now: SystemTime, paint: Paint) -> String {
    let mut table =
        Table::new(&["RULE", "LINE", "VERDICT", "PEERS", "PACKETS", "BYTES", "LAST HIT", "MATCHES"]);
    for rule in rules {
        let place = rule.rule.clone().unwrap_or_default();
        let verdict =
            if place.deny { Cell::toned(Tone::Bad, "deny") } else { Cell::toned(Tone::Good, "allow") };
        let last = match when::age(now, rule.last_hit.as_ref()) {
            age if age.is_empty() => "never".to_owned(),
            age => format!("{age} ago"),
        };
        table.row([
            place.path.into(),
            if place.line == 0 { "".into() } else { place.line.into() },
            verdict,
            if rule.any_peer { "any".into() } else { rule.matched_peers.into() },
            rule.packets.into(),
            rule.bytes.into(),
            last.into(),
            words::short(&rule.text).into(),
        ]);
    }
    table.render(paint, "No rules.")
}

/// What is wrong, one line a field.
fn problems(policy: &Policy, paint: Paint) -> String {
    let mut text = String::new();
    if !policy.problems.is_empty() {
        let runs = match policy.running_generation {
            0 => "what it would close stays closed, it allows nothing".to_owned(),
            running => format!("generation {running} stays in force"),
        };
        text.push_str(&format!("\n{} {}: {runs}\n", paint.tone(Tone::Bad, "REFUSED"), policy.name));
        policy.problems.iter().for_each(|problem| text.push_str(&problem_line(problem)));
    }
    if !policy.warnings.is_empty() {
        text.push_str(&format!("\n{} {}\n", paint.tone(Tone::Odd, "WARNING"), policy.name));
        policy.warnings.iter().for_each(|problem| text.push_str(&problem_line(problem)));
    }
    text
}

/// `  web.yaml:12  spec.egress[0].toFQDNs: …`
fn problem_line(problem: &Problem) -> String {
    let place = file_place(&problem.file, problem.line);
    let place = if place.is_empty() { place } else { format!("{place}  ") };
    match problem.path.as_str() {
        "" => format!("  {place}{}\n", problem.message),
        path => format!("  {place}{path}: {}\n", problem.message),
    }
}

fn file_place(file: &str, line: u32) -> String {
    words::place(&sinew_api::proto::agent::RuleRef { file: file.into(), line, ..Default::default() })
}

fn state(policy: &Policy) -> (Tone, String) {
    let word = status::policy_state(policy.state());
    match policy.state() {
        PolicyState::Enforced => (Tone::Good, word.into()),
        PolicyState::Refused if policy.running_generation != 0 => {
            (Tone::Bad, format!("{word}, running generation {}", policy.running_generation))
        }
        PolicyState::Refused => (Tone::Bad, word.into()),
        PolicyState::Audited | PolicyState::Pending | PolicyState::Unspecified => (Tone::Odd, word.into()),
    }
}

fn state_cell(policy: &Policy) -> Cell {
    let (tone, _) = state(policy);
    Cell::toned(tone, status::policy_state(policy.state()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prost_types::Timestamp;
    use sinew_api::proto::agent::{RefusedDocument, RuleRef};

    use super::*;

    fn web() -> Policy {
        let rule = RuleRef {
            policy: "snp/default/web".into(),
            path: "spec.ingress[0]".into(),
            file: "web.yaml".into(),
            line: 9,
            ..RuleRef::default()
        };
        Policy {
            name: "snp/default/web".into(),
            kind: "SinewNetworkPolicy".into(),
            namespace: "default".into(),
            state: PolicyState::Enforced.into(),
            generation: 3,
            running_generation: 3,
            selected_endpoints: vec!["default/web".into()],
            rules: vec![Rule {
                rule: Some(rule),
                matched_peers: 1,
                any_peer: false,
                packets: 12,
                bytes: 900,
                last_hit: Some(Timestamp { seconds: 100, nanos: 0 }),
                text: "from {app=client} to 8080/TCP".into(),
            }],
            nodes_enforcing: 2,
            nodes_live: 2,
            file: "web.yaml".into(),
            line: 1,
            default_deny_ingress: true,
            ..Policy::default()
        }
    }

    fn refused() -> Policy {
        Policy {
            name: "cnp/default/names".into(),
            state: PolicyState::Refused.into(),
            problems: vec![Problem {
                path: "spec.egress[0].toFQDNs".into(),
                message: "rules by DNS name are not enforced yet".into(),
                file: "names.yaml".into(),
                line: 12,
            }],
            generation: 2,
            nodes_live: 2,
            file: "names.yaml".into(),
            line: 1,
            ..Policy::default()
        }
    }

    #[test]
    fn a_refused_object_says_why_under_the_table() {
        let answer = ListPoliciesResponse {
            policies: vec![web(), refused()],
            unreadable: vec![Problem {
                message: "line 3: a tab".into(),
                file: "bad.yaml".into(),
                line: 3,
                ..Default::default()
            }],
            refused: vec![RefusedDocument {
                name: "SinewCIDRGroup/offices".into(),
                problems: vec![Problem {
                    path: "spec.externalCIDRs[1]".into(),
                    message: "is no CIDR".into(),
                    file: "groups.yaml".into(),
                    line: 7,
                }],
            }],
        };
        let expected = "\
POLICY             STATE     SELECTS  RULES  NODES  PLACE
snp/default/web    enforced  1        1      2/2    web.yaml:1
cnp/default/names  refused   0        0      0/2    names.yaml:1

REFUSED cnp/default/names: what it would close stays closed, it allows nothing
  names.yaml:12  spec.egress[0].toFQDNs: rules by DNS name are not enforced yet

REFUSED SinewCIDRGroup/offices
  groups.yaml:7  spec.externalCIDRs[1]: is no CIDR

UNREADABLE bad.yaml:3: line 3: a tab
";
        assert_eq!(list(&answer, Paint::Plain), expected);
    }

    #[test]
    fn a_refused_edit_names_what_runs() {
        let policy = Policy { running_generation: 1, ..refused() };
        let shown = one(&GetPolicyResponse { policy: Some(policy) }, SystemTime::UNIX_EPOCH, Paint::Plain);
        assert!(shown.contains("  state         refused, running generation 1\n"), "{shown}");
        assert!(shown.contains("REFUSED cnp/default/names: generation 1 stays in force\n"), "{shown}");
    }

    #[test]
    fn one_in_full() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(105);
        let expected = "\
snp/default/web  web.yaml:1
  state         enforced
  kind          SinewNetworkPolicy
  generation    3
  default deny  switched on for ingress
  selects       default/web
  enforced on   2 of 2 live nodes

RULE             LINE  VERDICT  PEERS  PACKETS  BYTES  LAST HIT  MATCHES
spec.ingress[0]  9     allow    1      12       900    5s ago    from {app=client} to 8080/TCP
";
        assert_eq!(one(&GetPolicyResponse { policy: Some(web()) }, now, Paint::Plain), expected);
    }

    #[test]
    fn without_policies_everything_is_open_and_the_list_says_so() {
        let shown = list(&ListPoliciesResponse::default(), Paint::Plain);
        assert_eq!(shown, "No policies: every pod is open in both directions.\n");
    }
}
