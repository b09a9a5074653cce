//! What a person reads, written by hand before the code.

use sinew_api::proto::agent::DirectionEnforcement;

use super::*;

fn rule(policy: &str, path: &str, file: &str, line: u32) -> RuleRef {
    RuleRef { policy: policy.into(), path: path.into(), file: file.into(), line, ..RuleRef::default() }
}

fn pod(name: &str, identity: u32, node: &str, address: &str, labels: &[&str]) -> ResolvedParty {
    ResolvedParty {
        name: name.into(),
        identity,
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
        addresses: vec![address.into()],
        node: node.into(),
        ..ResolvedParty::default()
    }
}

fn client_to_web() -> ExplainResponse {
    ExplainResponse {
        from: Some(pod("default/client", 257, "a", "10.0.0.5", &["k8s:app=client"])),
        to: Some(pod(
            "default/web",
            258,
            "b",
            "10.0.1.7",
            &[
                "k8s:app=web",
                "k8s:io.cilium.k8s.policy.serviceaccount=default",
                "k8s:io.kubernetes.pod.namespace=default",
            ],
        )),
        verdict: Verdict::Forwarded.into(),
        revision: 12,
        port: Some(8080),
        protocol: "TCP".into(),
        ..ExplainResponse::default()
    }
}

#[test]
fn what_was_assumed_of_labels_is_said() {
    let labels = [
        "k8s:app=client",
        "k8s:io.cilium.k8s.policy.cluster=default",
        "k8s:io.kubernetes.pod.namespace=shop",
    ];
    let written = "k8s:app=client,k8s:io.kubernetes.pod.namespace=shop";
    let shown = party("from", Some(&pod(written, 0, "", "10.0.0.5", &labels)), Paint::Plain);
    let last = "        assumed, since none was given: k8s:io.cilium.k8s.policy.cluster=default\n";
    assert!(shown.ends_with(last), "{shown}");
    // A pod's labels are known.
    let shown = party("from", Some(&pod("shop/client", 257, "", "10.0.0.5", &labels)), Paint::Plain);
    assert!(!shown.contains("assumed"), "{shown}");
}

fn open_egress() -> DirectionExplanation {
    DirectionExplanation {
        direction: TrafficDirection::Egress.into(),
        verdict: Verdict::Forwarded.into(),
        endpoint: "default/client".into(),
        ..DirectionExplanation::default()
    }
}

fn ingress(verdict: Verdict) -> DirectionExplanation {
    DirectionExplanation {
        direction: TrafficDirection::Ingress.into(),
        verdict: verdict.into(),
        endpoint: "default/web".into(),
        ..DirectionExplanation::default()
    }
}

#[test]
fn a_default_deny_names_who_switched_it_on_what_is_near_and_what_would_help() {
    let mut answer = client_to_web();
    answer.verdict = Verdict::Dropped.into();
    let denied = DirectionExplanation {
        drop_reason: DropReason::PolicyDenied.into(),
        denied_by: vec!["snp/default/web".into(), "ccnp/base".into()],
        switched_on: vec![rule("snp/default/web", "spec.ingress", "policies/web.yaml", 8)],
        near_misses: vec![
            NearMiss {
                rule: Some(rule("snp/default/web", "spec.ingress[0]", "policies/web.yaml", 9)),
                field: "spec.ingress[0].fromEndpoints[0]".into(),
                wanted: "k8s:app=frontend".into(),
                found: "k8s:app=client".into(),
            },
            NearMiss {
                rule: Some(rule("ccnp/base", "spec.ingress[1]", "policies/base.yaml", 20)),
                field: "spec.ingress[1].toPorts[0].ports[0].port".into(),
                wanted: "9090/TCP".into(),
                found: "8080/TCP".into(),
            },
        ],
        suggestion: "# policies/web.yaml, under spec.ingress\n- fromEndpoints:\n    - matchLabels:\n        app: client".into(),
        ..ingress(Verdict::Dropped)
    };
    answer.directions = vec![open_egress(), denied];
    let expected = "\
DENIED  default/client -> default/web  8080/TCP  (revision 12)

  from  default/client  identity 257  node a  10.0.0.5
        k8s:app=client
  to    default/web  identity 258  node b  10.0.1.7
        k8s:app=web k8s:io.kubernetes.pod.namespace=default

egress of default/client: ALLOWED, no policy switches default deny on for its egress

ingress of default/web: DENIED by default (POLICY_DENIED)
  no rule allows it, and default deny is switched on by
    snp/default/web spec.ingress  policies/web.yaml:8
    ccnp/base
  nearest rules that do not match
    snp/default/web spec.ingress[0]  policies/web.yaml:9
      fromEndpoints[0] wants k8s:app=frontend, but it is k8s:app=client
    ccnp/base spec.ingress[1]  policies/base.yaml:20
      toPorts[0].ports[0].port wants 9090/TCP, but it is 8080/TCP
  the smallest addition that allows it
    # policies/web.yaml, under spec.ingress
    - fromEndpoints:
        - matchLabels:
            app: client
";
    assert_eq!(explanation(&answer, Paint::Plain), expected);
}

#[test]
fn an_allow_names_its_rule() {
    let mut answer = client_to_web();
    let allowed = DirectionExplanation {
        rule: Some(rule("snp/default/web", "spec.ingress[0]", "policies/web.yaml", 9)),
        ..ingress(Verdict::Forwarded)
    };
    answer.directions = vec![open_egress(), allowed];
    let expected = "\
ingress of default/web: ALLOWED by a rule
  snp/default/web spec.ingress[0]  policies/web.yaml:9
";
    let shown = explanation(&answer, Paint::Plain);
    assert!(
        shown.starts_with("ALLOWED  default/client -> default/web  8080/TCP  (revision 12)\n"),
        "{shown}"
    );
    assert!(shown.ends_with(expected), "{shown}");
}

#[test]
fn a_deny_rule_is_told_from_a_default_deny() {
    let mut answer = client_to_web();
    answer.verdict = Verdict::Dropped.into();
    answer.directions = vec![DirectionExplanation {
        drop_reason: DropReason::PolicyDeny.into(),
        rule: Some(rule("cnp/default/no-client", "spec.ingressDeny[0]", "deny.yaml", 7)),
        ..ingress(Verdict::Dropped)
    }];
    let expected = "\
ingress of default/web: DENIED by a deny rule (POLICY_DENY)
  cnp/default/no-client spec.ingressDeny[0]  deny.yaml:7
";
    assert!(explanation(&answer, Paint::Plain).ends_with(expected));
}

#[test]
fn what_stands_in_no_file_is_said_in_words() {
    let mut answer = client_to_web();
    let built_in = RuleRef { built_in: "the local host is always allowed".into(), ..RuleRef::default() };
    answer.directions = vec![DirectionExplanation { rule: Some(built_in), ..ingress(Verdict::Forwarded) }];
    let expected = "ingress of default/web: ALLOWED, the local host is always allowed\n";
    assert!(explanation(&answer, Paint::Plain).ends_with(expected));
}

#[test]
fn audit_says_what_would_happen() {
    let mut answer = client_to_web();
    answer.verdict = Verdict::Audit.into();
    answer.directions = vec![DirectionExplanation {
        shadow_verdict: Verdict::Dropped.into(),
        enforcement: Some(DirectionEnforcement {
            audited_by: vec!["snp/default/trial".into()],
            ..Default::default()
        }),
        ..ingress(Verdict::Forwarded)
    }];
    let expected = "\
ingress of default/web: ALLOWED, no policy switches default deny on for its ingress
  AUDIT: with the audit policies in force it would deny this by default, switched on by snp/default/trial
";
    let shown = explanation(&answer, Paint::Plain);
    assert!(shown.starts_with("AUDIT  default/client"), "{shown}");
    assert!(shown.ends_with(expected), "{shown}");
}

#[test]
fn a_drop_that_is_no_policy_says_its_reason() {
    let mut answer = client_to_web();
    answer.verdict = Verdict::Dropped.into();
    answer.directions = vec![DirectionExplanation {
        drop_reason: DropReason::InvalidIdentity.into(),
        summary: "10.9.9.9 is inside the cluster's ranges and belongs to no pod that is known here".into(),
        ..ingress(Verdict::Dropped)
    }];
    let expected = "\
ingress of default/web: DENIED (INVALID_IDENTITY)
  10.9.9.9 is inside the cluster's ranges and belongs to no pod that is known here
";
    assert!(explanation(&answer, Paint::Plain).ends_with(expected));
}

#[test]
fn only_the_nearest_misses_are_shown() {
    let miss = |line| NearMiss {
        rule: Some(rule("snp/default/web", "spec.ingress[0]", "web.yaml", line)),
        field: "spec.ingress[0].fromEndpoints[0]".into(),
        wanted: "k8s:app=a".into(),
        found: "k8s:app=b".into(),
    };
    let misses = (1..=5).map(miss).collect::<Vec<_>>();
    let shown = near_misses(&misses, Paint::Plain);
    assert_eq!(shown.matches("wants").count(), 3);
    assert!(shown.ends_with("    and 2 more that are farther off\n"), "{shown}");

    // A rule that fails in two fields is one rule.
    let port = NearMiss { field: "spec.ingress[0].toPorts[0]".into(), wanted: "80/TCP".into(), ..miss(1) };
    let shown = near_misses(&[&misses[..1], &[port], &misses[1..3]].concat(), Paint::Plain);
    let first = "  nearest rules that do not match
    snp/default/web spec.ingress[0]  web.yaml:1
      fromEndpoints[0] wants k8s:app=a, but it is k8s:app=b
      and toPorts[0] wants 80/TCP, but it is k8s:app=b
    snp/default/web spec.ingress[0]  web.yaml:2
";
    assert!(shown.starts_with(first), "{shown}");
    assert!(!shown.contains("farther off"), "{shown}");
}

#[test]
fn a_thousand_policies_do_not_fill_the_screen() {
    let mut answer = client_to_web();
    answer.directions = vec![DirectionExplanation {
        denied_by: (0..1000).map(|number| format!("snp/default/p{number}")).collect(),
        ..ingress(Verdict::Dropped)
    }];
    let shown = explanation(&answer, Paint::Plain);
    assert!(shown.ends_with("    snp/default/p7\n    and 992 more\n"), "{shown}");
}

#[test]
fn between_two_outsiders_no_policy_is_asked() {
    let shown = explanation(&client_to_web(), Paint::Plain);
    assert!(
        shown.ends_with("\nNeither end is a pod that policy selects, so no policy is asked.\n"),
        "{shown}"
    );
}

#[test]
fn colours_change_nothing_but_colours() {
    let mut answer = client_to_web();
    answer.directions = vec![open_egress()];
    let coloured = explanation(&answer, Paint::Colour);
    assert_ne!(coloured, explanation(&answer, Paint::Plain));
    assert_eq!(anstream::adapter::strip_str(&coloured).to_string(), explanation(&answer, Paint::Plain));
}
