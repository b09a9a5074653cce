use std::sync::Arc;

use sinew_api::object::{Origin, PolicyKind};
use sinew_api::policy::{Enforcement, Policy};
use sinew_bpf::drop::DropReason;
use sinew_engine::Direction;
use sinew_engine::snapshot::{Force, PolicyState, PolicyView};
use sinew_observer::metrics::{Format, text};

use super::*;
use crate::datapath::{AnswerTotal, DropTotal, KernelDrop, MapFill, RingTotal};

fn name(name: &str) -> PolicyName {
    PolicyName { kind: PolicyKind::NetworkPolicy, namespace: "shop".into(), name: name.into() }
}

fn view(name: &PolicyName) -> PolicyView {
    let policy = Arc::new(Policy {
        name: name.clone(),
        uid: String::new(),
        generation: 1,
        origin: Origin::default(),
        enforcement: Enforcement::Enforce,
        specs: Vec::new(),
        problems: Vec::new(),
        warnings: Vec::new(),
    });
    PolicyView {
        running: policy.clone(),
        policy,
        force: Force::Whole,
        state: PolicyState::Enforced,
        problems: Vec::new(),
        warnings: Vec::new(),
        selected: Vec::new(),
        matched: BTreeMap::new(),
        revision: 1,
    }
}

fn hits(packets: u64) -> RuleHits {
    RuleHits { packets, bytes: packets * 100, last: 1 }
}

#[test]
fn what_the_kernel_counts_is_told() {
    let (db, web) = (name("db"), name("web"));
    let rule = |policy: &PolicyName, path: &str| Cause::Rule { policy: policy.clone(), path: path.into() };
    let default_deny =
        Cause::DefaultDeny { direction: Direction::Ingress, policies: vec![db.clone(), web.clone()] };
    let snapshot = Snapshot {
        policies: Arc::new([(db.clone(), view(&db)), (web.clone(), view(&web))].into()),
        causes: Arc::new(
            [
                (1, rule(&db, "spec.ingress[0]")),
                (2, rule(&db, "spec.ingress[1]")),
                (3, default_deny),
                (4, rule(&name("gone"), "spec.ingress[0]")),
                (5, Cause::LocalHost),
            ]
            .into(),
        ),
        ..Snapshot::default()
    };
    let fill = |name, entries, capacity| MapFill {
        name,
        kind: "hash",
        entries,
        evictions: (name == "CT_TCP").then_some(12),
        capacity,
        key_bytes: 4,
        value_bytes: 4,
        id: 1,
    };
    let reading = Reading {
        fill: vec![fill("CT_TCP", 65_536, 262_144), fill("RULES", 4, 65_536)],
        drops: vec![
            DropTotal { reason: DropReason::PolicyDenied, packets: 7, bytes: 420 },
            DropTotal { reason: DropReason::MulticastDestination, packets: 0, bytes: 0 },
        ],
        rules: [(1, hits(10)), (2, hits(5)), (3, hits(3)), (4, hits(99)), (5, hits(99)), (6, hits(99))]
            .into(),
        rings: vec![RingTotal { wanted: 100, lost: 1 }, RingTotal { wanted: 50, lost: 2 }],
        suppressed: 9,
        answers: AnswerTotal { made: 4, withheld: 2 },
        kernel_drops: Some(vec![KernelDrop { reason: "NEIGH_FAILED".into(), packets: 6 }]),
    };
    let text = text(families(&reading, Duration::from_millis(20), &snapshot), Format::OpenMetrics);
    for line in [
        "sinew_map_entries{map=\"CT_TCP\"} 65536",
        "sinew_map_capacity{map=\"CT_TCP\"} 262144",
        "sinew_map_pressure_ratio{map=\"CT_TCP\"} 0.25",
        "sinew_conntrack_entries{table=\"tcp\"} 65536",
        "sinew_conntrack_evictions_total{table=\"tcp\"} 12",
        "sinew_drop_packets_total{reason=\"policy denied by default\",hubble_reason=\"POLICY_DENIED\"} 7",
        "sinew_drop_bytes_total{reason=\"policy denied by default\",hubble_reason=\"POLICY_DENIED\"} 420",
        // A reason of our own shows Hubble's of the same meaning.
        "sinew_drop_packets_total{reason=\"multicast destination\",hubble_reason=\"UNKNOWN_L3_TARGET_ADDRESS\"} 0",
        "sinew_kernel_drops_total{reason=\"NEIGH_FAILED\"} 6",
        // Two rules of one policy; the default deny counts for both that switched it on.
        "sinew_policy_judgements_total{policy=\"netpol/shop/db\",by=\"rule\"} 15",
        "sinew_policy_judgements_total{policy=\"netpol/shop/db\",by=\"default_deny\"} 3",
        "sinew_policy_judgements_total{policy=\"netpol/shop/web\",by=\"default_deny\"} 3",
        "sinew_policy_judgements_policies_left_out 0",
        "sinew_event_records_total 150",
        "sinew_event_records_lost_total 3",
        "sinew_event_records_suppressed_total 9",
        "sinew_reject_answers_total{result=\"made\"} 4",
        "sinew_reject_answers_total{result=\"withheld\"} 2",
        "sinew_map_walk_seconds 0.02",
    ] {
        assert!(text.lines().any(|it| it == line), "{line} is not in {text}");
    }
    assert!(!text.contains("gone"), "a policy that is gone has no series: {text}");
}

#[test]
fn more_policies_than_are_told_of_are_counted() {
    let names: Vec<PolicyName> = (0..2003).map(|at| name(&format!("p{at:04}"))).collect();
    let snapshot = Snapshot {
        policies: Arc::new(names.iter().map(|name| (name.clone(), view(name))).collect()),
        causes: Arc::new(
            names
                .iter()
                .zip(1..)
                .map(|(policy, cookie)| (cookie, Cause::Rule { policy: policy.clone(), path: String::new() }))
                .collect(),
        ),
        ..Snapshot::default()
    };
    let rules = (1..=2003).map(|cookie| (cookie, hits(1))).collect();
    let (family, left_out) = judgements(&rules, &snapshot);
    assert_eq!((family.samples.len(), left_out), (2000, 3));
}

#[test]
fn a_counter_of_evictions_never_goes_back() {
    let fill = |evictions| MapFill {
        name: "CT_TCP",
        kind: "lru-hash",
        entries: 0,
        evictions,
        capacity: 1,
        key_bytes: 4,
        value_bytes: 4,
        id: 1,
    };
    for (before, now, told) in
        [(Some(5), Some(3), Some(5)), (Some(5), Some(6), Some(6)), (Some(5), None, Some(5))]
    {
        let mut fill_now = [fill(now)];
        never_fewer(&mut fill_now, &[fill(before)]);
        assert_eq!(fill_now[0].evictions, told);
    }
}
