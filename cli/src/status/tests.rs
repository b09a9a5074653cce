//! The screen, written by hand.

use prost_types::Timestamp;
use sinew_api::proto::agent::{
    AddressPool, EndpointCount, GetVersionResponse, KernelDrop, Loss, Map, PeerNode, PolicyCount,
};

use super::*;

fn condition(name: &str, state: State, message: &str) -> Condition {
    Condition { name: name.into(), state: state.into(), message: message.into() }
}

fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds, nanos: 0 })
}

fn node_a() -> GetStatusResponse {
    GetStatusResponse {
        node: "a".into(),
        cluster: "default".into(),
        node_addresses: vec!["192.168.1.1".into(), "fd00:1::1".into()],
        ready: true,
        conditions: vec![
            condition("datapath", State::Ok, "9 programs attached"),
            condition("store", State::Ok, ""),
        ],
        revision: 12,
        desired_revision: 12,
        endpoints: vec![EndpointCount { state: EndpointState::Ready.into(), count: 3 }],
        policies: vec![PolicyCount { state: PolicyState::Enforced.into(), count: 4 }],
        identities: 9,
        pools: vec![
            AddressPool { cidr: "10.1.0.0/24".into(), capacity: 253, leased: 3, resting: 1 },
            AddressPool { cidr: "fd00:1::/64".into(), capacity: u64::MAX, leased: 3, resting: 0 },
        ],
        flows: Some(FlowStatus { held: 120, capacity: 4095, seen: 120, rate: 4.25, ..Default::default() }),
        routing: "native".into(),
        mtu: 1500,
        started: at(1_000),
        version: Some(GetVersionResponse {
            version: "0.1.0".into(),
            kernel: "6.12.48".into(),
            ..Default::default()
        }),
        store: "folder:/srv/objects".into(),
        kernel_drops: Some(KernelDrops::default()),
        ..Default::default()
    }
}

fn shown(status: &GetStatusResponse) -> String {
    text(status, SystemTime::UNIX_EPOCH + Duration::from_secs(1_185), Paint::Plain)
}

#[test]
fn a_node_that_works() {
    let expected = "\
node a: READY
  ok       datapath    9 programs attached
  ok       store

  cluster     default
  addresses   192.168.1.1, fd00:1::1
  agent       0.1.0, up 3m5s, kernel 6.12.48
  store       folder:/srv/objects
  routing     native, MTU 1500
  revision    12 enforced
  endpoints   3 ready
  policies    4 enforced
  identities  9
  pool        10.1.0.0/24: 3 of 253 leased, 1 resting
  pool        fd00:1::/64: 3 leased
  flows       120 seen, 4.2/s, 120 of 4095 kept
  lost        none
";
    assert_eq!(shown(&node_a()), expected);
}

#[test]
fn what_is_broken_comes_first() {
    let mut status = node_a();
    status.ready = false;
    status.desired_revision = 13;
    status.conditions.push(condition(
        "policies",
        State::Failure,
        "bad.yaml:3 can't be read: nothing of it is enforced; mend the file",
    ));
    status.nodes.push(PeerNode {
        name: "b".into(),
        addresses: vec!["192.168.1.2".into()],
        last_seen: at(1_085),
        ..Default::default()
    });
    status.maps.push(Map { name: "CT_TCP".into(), pressure: 0.97, ..Default::default() });
    let losses = vec![Loss { source: LostEventSource::PerfEventRingBuffer.into(), events: 38 }];
    status.flows = Some(FlowStatus { losses, suppressed: 31, ..status.flows.unwrap_or_default() });
    let shown = shown(&status);
    let mut lines = shown.lines();
    assert_eq!(lines.next(), Some("node a: NOT READY"));
    assert_eq!(
        lines.next(),
        Some("  FAILURE  policies    bad.yaml:3 can't be read: nothing of it is enforced; mend the file")
    );
    for line in [
        "  revision    12 enforced, 13 wanted",
        "  other node  b SILENT for 1m40s, 192.168.1.2",
        "  lost        38 between kernel and agent (31 of them drops beyond --monitor-drop-limit)",
        "  filling up  CT_TCP 97% (sinew map list)",
    ] {
        assert!(shown.lines().any(|have| have == line), "{line:?} is missing in\n{shown}");
    }
    assert_eq!(not_ready(&status), "not working: policies");

    let losses = vec![Loss { source: LostEventSource::PerfEventRingBuffer.into(), events: 7 }];
    let flows = FlowStatus { losses, suppressed: 0, ..status.flows.unwrap_or_default() };
    assert_eq!(super::losses(&flows), "7 between kernel and agent");
}

#[test]
fn a_node_without_flows_says_why() {
    let mut status = node_a();
    status.flows = Some(FlowStatus { off: "this node makes no flows".into(), ..Default::default() });
    let shown = shown(&status);
    assert!(shown.ends_with("  flows       this node makes no flows\n"), "{shown}");
}

#[test]
fn what_the_kernel_dropped_shows_most_frequent_first() {
    let mut status = node_a();
    let reasons = [("PKT_TOO_BIG", 2), ("NEIGH_FAILED", 9), ("DEV_READY", 2)]
        .map(|(reason, packets)| KernelDrop { reason: reason.into(), packets });
    status.kernel_drops = Some(KernelDrops { reasons: reasons.into(), off: String::new() });
    let line = "  kernel      dropped 13 after our verdict: 9 NEIGH_FAILED, 2 DEV_READY, 2 PKT_TOO_BIG\n";
    assert!(shown(&status).ends_with(line), "{}", shown(&status));
    status.kernel_drops = Some(KernelDrops { off: "no tracepoint".into(), ..KernelDrops::default() });
    let line = "  kernel      what it drops after our verdict is not counted: no tracepoint\n";
    assert!(shown(&status).ends_with(line), "{}", shown(&status));
}

#[test]
fn a_warning_does_not_hide() {
    let mut status = node_a();
    status.conditions.push(condition("policies", State::Warning, "1 object is refused: sinew policy list"));
    assert!(
        shown(&status)
            .starts_with("node a: READY, with warnings\n  warning  policies    1 object is refused")
    );
}
