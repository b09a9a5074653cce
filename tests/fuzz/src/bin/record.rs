//! Any bytes as items of a kernel ring: what is a record becomes the flows that docs/observability.md promises, whatever
//! stands in it; what is none is passed over.
//!
//! A program writes whole records, but an agent may meet the rings of an older or newer one. `cargo xtask test fuzz`
//! builds this with coverage, replays `tests/fuzz/corpus/record` and explores from it.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use prost::Message;
use sinew_agent::datapath::record;
use sinew_agent::flow::{Clock, FlowSettings, Names, raw, see};
use sinew_api::identity::Identity;
use sinew_api::labels::Labels;
use sinew_api::object::{PolicyKind, PolicyName};
use sinew_api::proto::flow::{Flow, Verdict};
use sinew_bpf::abi::{EventRecord, IpcacheEntry, event};
use sinew_engine::snapshot::{AddressView, IdentityView, Snapshot};
use sinew_engine::{Cause, Direction, EndpointId};
use sinew_observer::Sighting;

/// Hubble's event types.
const DROP: i32 = 1;
const TRACE: i32 = 4;
const POLICY_VERDICT: i32 = 5;

static SNAPSHOT: LazyLock<Arc<Snapshot>> = LazyLock::new(|| Arc::new(snapshot()));

fuzz_target!(|input: &[u8]| {
    let settings = FlowSettings { cluster: "default".into(), node: "a".into() };
    let clock = Clock::now();
    let mut names = Names::new(&settings, clock, Arc::clone(&SNAPSHOT));
    let mut uuids = BTreeSet::new();
    for item in input.chunks(size_of::<EventRecord>()) {
        let Some(record) = record(item) else {
            assert_ne!(item.len(), size_of::<EventRecord>(), "a whole record is read");
            continue;
        };
        let watched = raw(&record, clock);
        assert_eq!(watched.sequence, u64::from(record.sequence), "who watches records sees the same one");
        let mut seen = Vec::new();
        see(&record, &mut names, &mut seen);
        let flows: Vec<Flow> = seen.iter().map(Sighting::flow).collect();
        for (seen, flow) in seen.iter().zip(&flows) {
            assert_eq!(*flow, seen.flow(), "a flow is the same each time");
            assert_eq!(Flow::decode(flow.encode_to_vec().as_slice()).as_ref(), Ok(flow), "it travels");
            assert!(uuids.insert(flow.uuid.clone()), "no two flows are one");
            assert!(seen.bytes() >= size_of_val(seen) && seen.time() == flow.time);
        }
        check(&record, &flows);
    }
});

/// The verdicts that were given, and then what became of the packet.
fn check(record: &EventRecord, flows: &[Flow]) {
    let (outcome, verdicts) = flows.split_last().expect("every record is a flow");
    let judged = record.flags & (event::flag::EGRESS_JUDGED | event::flag::INGRESS_JUDGED);
    assert_eq!(verdicts.len(), judged.count_ones() as usize, "a verdict for each judgement");
    let kind = |flow: &Flow| flow.event_type.map(|event| event.r#type);
    assert!(verdicts.iter().all(|flow| kind(flow) == Some(POLICY_VERDICT)), "verdicts come first");
    let dropped = record.kind == event::kind::DROP;
    assert_eq!(kind(outcome), Some(if dropped { DROP } else { TRACE }), "the outcome comes last");
    assert_eq!(outcome.verdict() == Verdict::Dropped, dropped, "what is dropped says so");
    let denied_by = |flow: &Flow| [flow.egress_denied_by.clone(), flow.ingress_denied_by.clone()].concat();
    let denial = verdicts.iter().find(|flow| flow.verdict() == Verdict::Dropped);
    if let Some(denial) = denial.filter(|_| dropped) {
        assert_eq!(denied_by(denial), denied_by(outcome), "a denial and its drop name the same policies");
        assert_eq!(denial.traffic_direction(), outcome.traffic_direction());
    }
}

/// Pods and policies whose numbers the committed records have.
fn snapshot() -> Snapshot {
    let labels = |app: &str| {
        let mut labels = Labels::new();
        labels.insert("k8s", "app", app);
        Arc::new(labels)
    };
    let identity = |app| IdentityView { labels: labels(app), addresses: 1, known: true };
    let address = |identity: u32, endpoint| AddressView {
        entry: IpcacheEntry { identity, ..IpcacheEntry::default() },
        pod_namespace: "shop".into(),
        pod_name: format!("pod-{identity}").into(),
        workload: None,
        endpoint: Some(EndpointId(endpoint)),
        node: "a".into(),
    };
    let policy =
        || PolicyName { kind: PolicyKind::NetworkPolicy, namespace: "shop".into(), name: "p".into() };
    let causes = [
        Cause::Rule { policy: policy(), path: "spec.ingress[0]".into() },
        Cause::DefaultDeny { direction: Direction::Ingress, policies: vec![policy()] },
        Cause::Overflow { policy: policy() },
        Cause::Init,
        Cause::LocalHost,
    ];
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    Snapshot {
        identities: Arc::new(BTreeMap::from([
            (Identity(1001), identity("web")),
            (Identity(1002), identity("db")),
        ])),
        addresses: Arc::new(BTreeMap::from([
            (ip("10.0.0.1"), address(1001, 11)),
            (ip("10.0.0.2"), address(1002, 12)),
            (ip("fd00::1"), address(1001, 11)),
            (ip("fd00::2"), address(1002, 12)),
        ])),
        causes: Arc::new((1..).zip(causes).collect()),
        ..Snapshot::default()
    }
}
