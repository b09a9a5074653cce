//! Endpoints for people.

use std::time::SystemTime;

use sinew_api::proto::agent::table_entry::PeerKind;
use sinew_api::proto::agent::{
    DirectionEnforcement, Endpoint, EndpointState, EnforcementMode, GetEndpointResponse, TableEntry,
};
use sinew_api::proto::flow::TrafficDirection;

use super::name;
use crate::explain::words;
use crate::output::Paint;
use crate::output::paint::Tone;
use crate::output::table::{Cell, Table};
use crate::{status, when};

/// One line an endpoint; `namespace` is the one that was asked for.
pub(super) fn list(endpoints: &[Endpoint], namespace: Option<&str>, paint: Paint) -> String {
    let mut table = Table::new(&["ID", "POD", "IDENTITY", "INGRESS", "EGRESS", "STATE", "ADDRESSES"]);
    for endpoint in endpoints {
        table.row([
            endpoint.id.into(),
            name(endpoint).into(),
            endpoint.identity.into(),
            mode_cell(endpoint.ingress.as_ref()),
            mode_cell(endpoint.egress.as_ref()),
            state_cell(endpoint.state()),
            endpoint.addresses.join(",").into(),
        ]);
    }
    let none = match namespace {
        None => "No endpoints: no pod has been added to this node.".to_owned(),
        Some(namespace) => format!("No endpoint in namespace {namespace} on this node."),
    };
    table.render(paint, &none)
}

/// Everything about one endpoint.
pub(super) fn one(answer: &GetEndpointResponse, with_table: bool, now: SystemTime, paint: Paint) -> String {
    let Some(endpoint) = &answer.endpoint else { return "The agent sent no endpoint.\n".into() };
    let mut text = format!(
        "{}  (endpoint {} on node {})\n",
        paint.tone(Tone::Strong, &name(endpoint)),
        endpoint.id,
        endpoint.node
    );
    for (title, value) in facts(endpoint, now) {
        text.push_str(&format!("  {title:<10} {value}\n"));
    }
    for (title, direction) in [("ingress", &endpoint.ingress), ("egress", &endpoint.egress)] {
        text.push_str(&enforcement(title, direction.as_ref(), paint));
    }
    if with_table {
        text.push('\n');
        text.push_str(&entries(&answer.table, paint));
    }
    text
}

fn facts(endpoint: &Endpoint, now: SystemTime) -> Vec<(&'static str, String)> {
    let state = match endpoint.message.as_str() {
        "" => status::endpoint_state(endpoint.state()).to_owned(),
        message => format!("{}: {message}", status::endpoint_state(endpoint.state())),
    };
    let ports =
        endpoint.named_ports.iter().map(|port| format!("{} = {}/{}", port.name, port.port, port.protocol));
    let mut facts = vec![
        ("state", state),
        ("identity", endpoint.identity.to_string()),
        ("labels", endpoint.labels.join("\n             ")),
        ("addresses", endpoint.addresses.join(", ")),
        ("mac", endpoint.mac.clone()),
        (
            "interface",
            format!(
                "{} (index {}), in the pod {}",
                endpoint.interface, endpoint.interface_index, endpoint.container_interface
            ),
        ),
        ("container", endpoint.container_id.clone()),
        ("netns", endpoint.netns.clone()),
        ("workload", endpoint.workload.clone()),
        ("ports", ports.collect::<Vec<_>>().join(", ")),
        ("age", when::age(now, endpoint.created.as_ref())),
        (
            "kernel",
            format!("epoch {}, table slot {}, revision {}", endpoint.epoch, endpoint.slot, endpoint.revision),
        ),
    ];
    facts.retain(|(_, value)| !value.is_empty());
    facts
}

fn enforcement(title: &str, direction: Option<&DirectionEnforcement>, paint: Paint) -> String {
    let (tone, word) = mode_word(direction);
    let mut text = format!("  {title:<10} {}", paint.tone(tone, word));
    let Some(direction) = direction else { return text + "\n" };
    if !direction.switched_on_by.is_empty() {
        text.push_str(&format!(", default deny by {}", words::listed(&direction.switched_on_by)));
    }
    if !direction.audited_by.is_empty() {
        text.push_str(&format!(", audited by {}", words::listed(&direction.audited_by)));
    }
    text.push('\n');
    let named = [&direction.switched_on_by, &direction.audited_by];
    let others = direction.policies.iter().filter(|policy| named.iter().all(|named| !named.contains(policy)));
    let others = others.cloned().collect::<Vec<_>>();
    if !others.is_empty() {
        let also = if named.iter().all(|named| named.is_empty()) { "" } else { "also " };
        text.push_str(&format!("             {also}selected by {}\n", words::listed(&others)));
    }
    text
}

fn entries(entries: &[TableEntry], paint: Paint) -> String {
    let mut table = Table::new(&["DIRECTION", "PEER", "TRAFFIC", "VERDICT", "RULE", "PLACE"]);
    for entry in entries {
        let direction = if entry.direction() == TrafficDirection::Egress { "egress" } else { "ingress" };
        let peer = match (entry.peer_kind(), entry.peer_text.as_str()) {
            (PeerKind::Any, _) => "any".to_owned(),
            (_, "") => entry.peer.to_string(),
            (_, peer_text) => words::short(&format!("{} {}", entry.peer, peer(peer_text))),
        };
        let (rule, place) =
            entry.rule.as_ref().map_or_else(Default::default, |rule| (words::rule(rule), words::place(rule)));
        let (tone, mut word) = words::verdict(entry.verdict());
        let shadowed = entry.shadow_rule.as_ref().map(|rule| format!("audit {}", words::rule(rule)));
        if shadowed.is_some() {
            word = "audit";
        }
        let rules = [Some(rule).filter(|rule| !rule.is_empty()), shadowed];
        let rules = rules.into_iter().flatten().collect::<Vec<_>>().join(", ");
        table.row([
            direction.into(),
            peer.into(),
            words::traffic(&entry.protocol, entry.first_port, entry.last_port).into(),
            Cell::toned(tone, word),
            words::short(&rules).into(),
            place.into(),
        ]);
    }
    table.render(paint, "The table is empty.")
}

/// The labels of a peer as far as somebody chose them.
fn peer(labels: &str) -> String {
    let labels = labels.split(',').map(str::to_owned).collect::<Vec<_>>();
    words::chosen_labels(&labels).join(",")
}

fn mode_cell(direction: Option<&DirectionEnforcement>) -> Cell {
    let (tone, word) = mode_word(direction);
    Cell::toned(tone, word)
}

/// What policy does in a word: deny rules drop whether default deny is on or not.
fn mode_word(direction: Option<&DirectionEnforcement>) -> (Tone, &'static str) {
    let mode = direction.map_or(EnforcementMode::Unspecified, DirectionEnforcement::mode);
    let denies = direction.is_some_and(|direction| direction.deny_rules);
    match mode {
        EnforcementMode::Unspecified => (Tone::Plain, "unknown"),
        EnforcementMode::Open if denies => (Tone::Good, "deny rules"),
        EnforcementMode::Open => (Tone::Plain, "open"),
        EnforcementMode::Auditing if denies => (Tone::Odd, "audit, deny rules"),
        EnforcementMode::Auditing => (Tone::Odd, "audit"),
        EnforcementMode::Enforcing => (Tone::Good, "enforcing"),
    }
}

fn state_cell(state: EndpointState) -> Cell {
    let tone = match state {
        EndpointState::Ready => Tone::Good,
        _ => Tone::Odd,
    };
    Cell::toned(tone, status::endpoint_state(state))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prost_types::Timestamp;
    use sinew_api::proto::agent::RuleRef;
    use sinew_api::proto::flow::Verdict;

    use super::*;

    fn web() -> Endpoint {
        Endpoint {
            id: 7,
            node: "a".into(),
            namespace: "default".into(),
            pod: "web".into(),
            container_id: "0123456789abcdef".into(),
            container_interface: "eth0".into(),
            interface: "snw0123456789a".into(),
            interface_index: 12,
            addresses: vec!["10.0.0.7".into(), "fd00::7".into()],
            identity: 258,
            labels: vec!["k8s:app=web".into(), "k8s:io.kubernetes.pod.namespace=default".into()],
            state: EndpointState::Ready.into(),
            ingress: Some(DirectionEnforcement {
                mode: EnforcementMode::Enforcing.into(),
                switched_on_by: vec!["snp/default/web".into()],
                audited_by: vec![],
                policies: vec!["snp/default/web".into(), "ccnp/base".into()],
                ..Default::default()
            }),
            egress: Some(DirectionEnforcement { mode: EnforcementMode::Open.into(), ..Default::default() }),
            epoch: 31,
            slot: 2,
            revision: 12,
            created: Some(Timestamp { seconds: 100, nanos: 0 }),
            ..Endpoint::default()
        }
    }

    #[test]
    fn a_line_each() {
        let expected = "\
ID  POD          IDENTITY  INGRESS    EGRESS  STATE  ADDRESSES
7   default/web  258       enforcing  open    ready  10.0.0.7,fd00::7
";
        assert_eq!(list(&[web()], None, Paint::Plain), expected);
    }

    #[test]
    fn an_empty_list_says_of_what() {
        let shown = |namespace| list(&[], namespace, Paint::Plain);
        assert_eq!(shown(None), "No endpoints: no pod has been added to this node.\n");
        assert_eq!(shown(Some("nope")), "No endpoint in namespace nope on this node.\n");
    }

    #[test]
    fn deny_rules_are_told_where_nothing_is_closed_by_default() {
        let told = |mode: EnforcementMode, audited_by: &[&str], deny_rules: bool| {
            let direction = DirectionEnforcement {
                mode: mode.into(),
                audited_by: audited_by.iter().map(|name| (*name).to_owned()).collect(),
                policies: vec!["cnp/default/x".into()],
                deny_rules,
                ..Default::default()
            };
            enforcement("ingress", Some(&direction), Paint::Plain)
        };
        assert_eq!(
            told(EnforcementMode::Open, &[], true),
            "  ingress    deny rules\n             selected by cnp/default/x\n"
        );
        let audited = "audited by cnp/default/x\n";
        let mode = EnforcementMode::Auditing;
        assert_eq!(told(mode, &["cnp/default/x"], false), format!("  ingress    audit, {audited}"));
        assert_eq!(
            told(mode, &["cnp/default/x"], true),
            format!("  ingress    audit, deny rules, {audited}")
        );
        assert_eq!(
            told(mode, &["cnp/default/y"], false),
            "  ingress    audit, audited by cnp/default/y\n             also selected by cnp/default/x\n"
        );
    }

    #[test]
    fn a_rule_that_is_audited_stands_alone_where_no_other_decides() {
        let shadow = RuleRef { built_in: "default deny by cnp/default/x".into(), ..RuleRef::default() };
        let mut entry = TableEntry {
            verdict: Verdict::Forwarded.into(),
            shadow_rule: Some(shadow),
            last_port: 65_535,
            ..TableEntry::default()
        };
        let shown = |entry: &TableEntry| entries(std::slice::from_ref(entry), Paint::Plain);
        assert!(
            shown(&entry).contains("  audit    audit default deny by cnp/default/x  "),
            "{}",
            shown(&entry)
        );
        entry.rule = Some(RuleRef { built_in: "open".into(), ..RuleRef::default() });
        assert!(shown(&entry).contains("  open, audit default deny by cnp/default/x  "), "{}", shown(&entry));
    }

    #[test]
    fn one_in_full() {
        let rule = RuleRef {
            policy: "snp/default/web".into(),
            path: "spec.ingress[0]".into(),
            file: "web.yaml".into(),
            line: 9,
            ..Default::default()
        };
        let allow = TableEntry {
            direction: TrafficDirection::Ingress.into(),
            peer_kind: PeerKind::Identity.into(),
            peer: 257,
            peer_text: "k8s:app=client".into(),
            protocol: "TCP".into(),
            first_port: 8080,
            last_port: 8080,
            verdict: Verdict::Forwarded.into(),
            rule: Some(rule),
            ..Default::default()
        };
        let deny = TableEntry {
            direction: TrafficDirection::Ingress.into(),
            peer_kind: PeerKind::Any.into(),
            protocol: "ANY".into(),
            last_port: 65_535,
            verdict: Verdict::Dropped.into(),
            rule: Some(RuleRef { built_in: "default deny".into(), ..Default::default() }),
            ..Default::default()
        };
        let answer = GetEndpointResponse { endpoint: Some(web()), table: vec![allow, deny] };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(160);
        let expected = "\
default/web  (endpoint 7 on node a)
  state      ready
  identity   258
  labels     k8s:app=web
             k8s:io.kubernetes.pod.namespace=default
  addresses  10.0.0.7, fd00::7
  interface  snw0123456789a (index 12), in the pod eth0
  container  0123456789abcdef
  age        1m
  kernel     epoch 31, table slot 2, revision 12
  ingress    enforcing, default deny by snp/default/web
             also selected by ccnp/base
  egress     open

DIRECTION  PEER                TRAFFIC   VERDICT  RULE                             PLACE
ingress    257 k8s:app=client  8080/TCP  allow    snp/default/web spec.ingress[0]  web.yaml:9
ingress    any                 any       deny     default deny                     -
";
        assert_eq!(one(&answer, true, now, Paint::Plain), expected);
    }
}
