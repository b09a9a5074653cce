//! Nodes that are reached elsewhere from now on, or go and come back, while a client follows.

use super::*;

fn everything() -> GetFlowsRequest {
    GetFlowsRequest { follow: true, since: Some(second(0)), ..GetFlowsRequest::default() }
}

/// All nodes move at once, as when the Peer service's agent has another port.
#[tokio::test]
async fn nodes_that_move_go_on_where_they_were() {
    let bench = Bench::new(&["a", "b"]);
    let (a, b) = (bench.live("a"), bench.live("b"));
    let mut stream = bench.stream(everything()).await;
    a.journal.record_flows([flow("a1", second(1))]);
    until(&mut stream, "a1").await;
    b.journal.record_flows([flow("b2", second(2))]);
    until(&mut stream, "b2").await;
    let moved = Live::serve(&bench.path("elsewhere"), a.journal.clone());
    let also = Live::serve(&bench.path("elsewhere too"), b.journal.clone());
    bench.set_at(&[("a", "elsewhere"), ("b", "elsewhere too")]);
    drop((a, b));
    moved.journal.record_flows([flow("a3", second(3))]);
    also.journal.record_flows([flow("b4", second(4))]);
    let mut seen = until(&mut stream, "a3").await;
    if !seen.contains(&"b4".to_owned()) {
        seen.extend(until(&mut stream, "b4").await);
    }
    let repeated = |told: &&String| ["a1", "b2"].contains(&told.as_str()) || told.starts_with("lost");
    assert_eq!(seen.iter().find(repeated), None, "{seen:?}");
}

/// A node of before that comes back is a new one: what was before it is not told again.
#[tokio::test]
async fn a_node_that_comes_back_repeats_nothing() {
    let bench = Bench::new(&["a"]);
    let a = bench.live("a");
    let mut stream = bench.stream(everything()).await;
    a.journal.record_flows([flow("before", second(1))]);
    until(&mut stream, "before").await;
    bench.set(&[]);
    until(&mut stream, "gone default/a").await;
    bench.set(&["a"]);
    let seen = until(&mut stream, "connected default/a").await;
    assert_eq!(seen, ["connected default/a"]);
    a.journal.record_flows([flow("after", SystemTime::now().into())]);
    assert_eq!(until(&mut stream, "after").await, ["after"]);
}
