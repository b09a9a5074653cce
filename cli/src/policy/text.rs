//! Policies for people.

use std::time::SystemTime;

use sinew_api::proto::agent::{
    GetPolicyResponse, ListPoliciesRequest, ListPoliciesResponse, Policy, PolicyState, Problem, Rule,
};

use crate::explain::words;
use crate::output::Paint;
use crate::output::paint::Tone;
use crate::output::table::{Cell, Table};
use crate::{status, when};

/// One line a policy; what is wrong stands under the table, with file and line.
pub(super) fn list(asked: &ListPoliciesRequest, answer: &ListPoliciesResponse, paint: Paint) -> String {
    let mut table = Table::new(&["POLICY", "STATE", "SELECTS HERE", "RULES", "NODES", "PLACE"]);
    for policy in &answer.policies {
        table.row([
            (&policy.name).into(),
            state_cell(policy),
            policy.selected_endpoints.len().into(),
            policy.rules.len().into(),
            format!("{}/{}", policy.nodes_enforcing, policy.nodes_live as usize + policy.nodes_silent.len())
                .into(),
            file_place(&policy.file, policy.line).into(),
        ]);
    }
    let mut text = table.render(paint, &none(asked, answer));
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

/// What an empty list says. That nothing is closed it may say only where nothing was left out of it.
fn none(asked: &ListPoliciesRequest, answer: &ListPoliciesResponse) -> String {
    match (asked.namespace.as_str(), asked.endpoint.as_str()) {
        ("", "") if answer.refused.is_empty() && answer.unreadable.is_empty() => {
            "No policies: every pod is open in both directions.".to_owned()
        }
        ("", "") => "No policies.".to_owned(),
        ("", pod) => format!("No policy selects {pod}."),
        (namespace, "") => {
            format!("No policy in namespace {namespace}; clusterwide ones are not shown by -n.")
        }
        (namespace, pod) => {
            format!("No policy in namespace {namespace} selects {pod}; clusterwide ones are not shown by -n.")
        }
    }
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
    // It closes nothing: its flows say what it would drop.
    let audited = policy.state() == PolicyState::Audited;
    let default_deny = match audited {
        true => format!("audited for {switches}, nothing is dropped"),
        false => format!("switched on for {switches}"),
    };
    let generation = match policy.running_generation {
        0 => format!("{}, none in force", policy.generation),
        running if running == policy.generation => running.to_string(),
        running => format!("{}, running {running}", policy.generation),
    };
    let selects = match policy.selected_endpoints.as_slice() {
        [] => "no pod of this node".into(),
        endpoints => format!("{} on this node", words::listed(endpoints)),
    };
    vec![
        ("kind", policy.kind.clone()),
        ("generation", generation),
        ("default deny", default_deny),
        ("selects", selects),
        (if audited { "audited on" } else { "enforced on" }, enforced_on(policy)),
    ]
}

/// A silent node enforces something, and nobody knows that it is this.
fn enforced_on(policy: &Policy) -> String {
    let live = format!("{} of {} live nodes", policy.nodes_enforcing, policy.nodes_live);
    match policy.nodes_silent.as_slice() {
        [] => live,
        silent => format!("{live}; silent, with the policies that they had: {}", words::listed(silent)),
    }
}

fn rules(rules: &[Rule], now: SystemTime, paint: Paint) -> String {
    let mut table =
        Table::new(&["RULE", "LINE", "VERDICT", "PEERS", "JUDGED", "BYTES", "LAST HIT", "MATCHES"]);
    for rule in rules {
        let place = rule.rule.clone().unwrap_or_default();
        let verdict =
            if place.deny { Cell::toned(Tone::Bad, "deny") } else { Cell::toned(Tone::Good, "allow") };
        let last = match when::age(now, rule.last_hit.as_ref()) {
            age if age.is_empty() => "never".to_owned(),
            age => format!("{age} ago"),
        };
        let path = if place.path.is_empty() { place.built_in } else { place.path };
        table.row([
            path.into(),
            if place.line == 0 { "".into() } else { place.line.into() },
            verdict,
            if rule.any_peer { "any".into() } else { rule.matched_peers.into() },
            rule.packets.into(),
            rule.bytes.into(),
            last.into(),
            // The last column needs no width.
            (&rule.text).into(),
        ]);
    }
    table.render(paint, "No rules.")
}

/// What is wrong, one line a field.
fn problems(policy: &Policy, paint: Paint) -> String {
    let mut text = String::new();
    if !policy.problems.is_empty() {
        let runs = match policy.running_generation {
            0 => what_counts(policy).to_owned(),
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

/// What a refused policy of which no generation runs does all the same.
fn what_counts(policy: &Policy) -> &'static str {
    let denies = |rule: &Rule| rule.rule.as_ref().is_some_and(|rule| rule.deny);
    let stands_in_no_file = |rule: &Rule| rule.rule.as_ref().is_some_and(|rule| !rule.built_in.is_empty());
    if policy.rules.iter().any(stands_in_no_file) {
        "all that it would have judged is denied"
    } else if policy.default_deny_ingress || policy.default_deny_egress || policy.rules.iter().any(denies) {
        "what it would close stays closed, it allows nothing"
    } else if policy.problems.iter().any(|problem| is_in_subject(&problem.path)) {
        "its selector can't be read, so nothing is closed by it"
    } else {
        "it closes nothing and allows nothing"
    }
}

/// Whether a field belongs to what the policy selects: `spec.endpointSelector…`, not `spec.ingress[0].from[0].podSelector`.
fn is_in_subject(path: &str) -> bool {
    let field = path.split('.').nth(1).unwrap_or_default();
    field.starts_with("endpointSelector") || field.starts_with("podSelector")
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
            default_deny_egress: true,
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
POLICY             STATE     SELECTS HERE  RULES  NODES  PLACE
snp/default/web    enforced  1             1      2/2    web.yaml:1
cnp/default/names  refused   0             0      0/2    names.yaml:1

REFUSED cnp/default/names: what it would close stays closed, it allows nothing
  names.yaml:12  spec.egress[0].toFQDNs: rules by DNS name are not enforced yet

REFUSED SinewCIDRGroup/offices
  groups.yaml:7  spec.externalCIDRs[1]: is no CIDR

UNREADABLE bad.yaml:3: line 3: a tab
";
        assert_eq!(list(&ListPoliciesRequest::default(), &answer, Paint::Plain), expected);
    }

    #[test]
    fn a_silent_node_counts_among_the_nodes() {
        let policy = Policy { nodes_enforcing: 1, nodes_live: 1, nodes_silent: vec!["b".into()], ..web() };
        let answer = ListPoliciesResponse { policies: vec![policy], ..ListPoliciesResponse::default() };
        let shown = list(&ListPoliciesRequest::default(), &answer, Paint::Plain);
        assert!(shown.contains("  1/2  "), "{shown}");
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
  selects       default/web on this node
  enforced on   2 of 2 live nodes

RULE             LINE  VERDICT  PEERS  JUDGED  BYTES  LAST HIT  MATCHES
spec.ingress[0]  9     allow    1      12      900    5s ago    from {app=client} to 8080/TCP
";
        assert_eq!(one(&GetPolicyResponse { policy: Some(web()) }, now, Paint::Plain), expected);
        let policy = Policy { nodes_enforcing: 1, nodes_live: 1, nodes_silent: vec!["b".into()], ..web() };
        let shown = one(&GetPolicyResponse { policy: Some(policy) }, now, Paint::Plain);
        let line = "enforced on   1 of 1 live nodes; silent, with the policies that they had: b\n";
        assert!(shown.contains(line), "{shown}");
    }

    #[test]
    fn an_audited_policy_does_not_say_that_it_closes() {
        let mut policy = Policy { state: PolicyState::Audited.into(), ..web() };
        policy.rules[0].text = "x".repeat(100);
        let shown = one(&GetPolicyResponse { policy: Some(policy) }, SystemTime::UNIX_EPOCH, Paint::Plain);
        assert!(shown.contains("\n  default deny  audited for ingress, nothing is dropped\n"), "{shown}");
        assert!(shown.contains("\n  audited on    2 of 2 live nodes\n"), "{shown}");
        assert!(shown.ends_with(&format!("  {}\n", "x".repeat(100))), "the last column is whole: {shown}");
    }

    #[test]
    fn a_refused_policy_says_what_of_it_counts() {
        let told = |policy: Policy| problems(&policy, Paint::Plain).lines().nth(1).unwrap().to_owned();
        let begin = "REFUSED cnp/default/names: ";
        assert_eq!(told(refused()), format!("{begin}what it would close stays closed, it allows nothing"));
        // Without a selector nothing is selected, so nothing is closed.
        let open = |path: &str| {
            let problem = Problem { path: path.into(), ..Problem::default() };
            told(Policy { default_deny_egress: false, problems: vec![problem], ..refused() })
        };
        for path in
            ["spec.endpointSelector.matchLabels", "specs[1].endpointSelector", "spec.podSelector.matchLabel"]
        {
            assert_eq!(
                open(path),
                format!("{begin}its selector can't be read, so nothing is closed by it"),
                "{path}"
            );
        }
        for path in ["spec.ingress[0].from[0].podSelector", "spec.nodeSelector", "spec", ""] {
            assert_eq!(open(path), format!("{begin}it closes nothing and allows nothing"), "{path}");
        }
        let rule = RuleRef { deny: true, ..RuleRef::default() };
        let denies = Rule { rule: Some(rule), ..Rule::default() };
        let closed = Policy { default_deny_egress: false, rules: vec![denies], ..refused() };
        assert_eq!(told(closed), format!("{begin}what it would close stays closed, it allows nothing"));
        let rule = RuleRef { deny: true, built_in: "does not fit".into(), ..RuleRef::default() };
        let everything = Policy { rules: vec![Rule { rule: Some(rule), ..Rule::default() }], ..refused() };
        assert_eq!(told(everything.clone()), format!("{begin}all that it would have judged is denied"));
        let shown =
            one(&GetPolicyResponse { policy: Some(everything) }, SystemTime::UNIX_EPOCH, Paint::Plain);
        assert!(shown.contains("\ndoes not fit  -     deny "), "{shown}");
    }

    #[test]
    fn an_empty_list_says_that_all_is_open_only_where_nothing_is_left_out() {
        let shown = |namespace: &str, endpoint: &str, answer: &ListPoliciesResponse| {
            let asked = ListPoliciesRequest { namespace: namespace.into(), endpoint: endpoint.into() };
            list(&asked, answer, Paint::Plain)
        };
        let empty = ListPoliciesResponse::default();
        assert_eq!(shown("", "", &empty), "No policies: every pod is open in both directions.\n");
        assert_eq!(
            shown("shop", "", &empty),
            "No policy in namespace shop; clusterwide ones are not shown by -n.\n"
        );
        assert_eq!(shown("", "shop/web", &empty), "No policy selects shop/web.\n");
        assert_eq!(
            shown("shop", "shop/web", &empty),
            "No policy in namespace shop selects shop/web; clusterwide ones are not shown by -n.\n"
        );
        let problem = Problem { message: "a tab".into(), file: "bad.yaml".into(), ..Problem::default() };
        let unreadable =
            ListPoliciesResponse { unreadable: vec![problem], ..ListPoliciesResponse::default() };
        assert_eq!(shown("", "", &unreadable), "No policies.\n\nUNREADABLE bad.yaml: a tab\n");
    }
}
