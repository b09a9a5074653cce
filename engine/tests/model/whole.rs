//! Promise 2: a packet meets the old policies or the new ones, never half of either. While a change of policies is written,
//! step by step, every verdict is that of before or that of after; also for a packet whose program read the endpoint's
//! table before some steps and the address classes after them, as far as no grace period lies between.

use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};
use sinew_engine::{Change, Direction};

use crate::events::{Model, ask};
use crate::kernel::Kernel;
use crate::random::{self, Step};

#[test]
fn a_policy_change_is_whole() {
    let cases =
        Cases { cases: 1_500, failure_persistence: None, max_shrink_iters: 2_000, ..Cases::default() };
    let steps = prop::collection::vec(random::step(), 1..30);
    let mut cut = 0;
    TestRunner::new(cases)
        .run(&(steps, random::traffic()), |(steps, traffic)| {
            let mut model = Model::new();
            for step in steps {
                let policies =
                    matches!(step, Step::Policy(_) | Step::NoPolicy(_) | Step::Group { .. } | Step::NoGroup(_));
                let before = model.node.kernel.clone();
                model.node.history.clear();
                model.take(step);
                if !policies {
                    continue;
                }
                let states = states(&before, &model.node.history);
                for (local, peers) in model.judged() {
                    for direction in Direction::BOTH {
                        for (identity, peer) in &peers {
                            let judge = |kernel: &Kernel| ask(kernel, local, direction, *identity, peer, traffic);
                            let ends = [judge(&before), judge(&model.node.kernel)];
                            for state in &states {
                                let verdict = judge(state);
                                prop_assert!(
                                    ends.contains(&verdict),
                                    "{verdict:?} is neither of {ends:?}: {direction:?} of {local:?}, {identity} {peer:?}, {:#?}",
                                    model.node.history
                                );
                            }
                        }
                    }
                }
            }
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
    // A fixed case that does cut classes, so that the test can't pass by never meeting one.
    let mut node = crate::node::Node::new();
    node.pod("shop/web", "app=web");
    for cidrs in ["0.0.0.0/0", "198.51.100.0/24, 0.0.0.0/0", "198.51.100.0/24"] {
        let changes = node.yaml(&format!(
            "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {{name: out, namespace: shop}}
spec: {{endpointSelector: {{}}, egress: [{{toCIDR: [{cidrs}]}}]}}
"
        ));
        cut += changes.iter().filter(|change| matches!(change, Change::ClassSet(..))).count();
    }
    assert!(cut >= 2, "classes were cut {cut} times");
}

/// Everything that a packet may meet while these changes are written.
fn states(before: &Kernel, history: &[Change]) -> Vec<Kernel> {
    let mut states = vec![before.clone()];
    // States since the last grace period: a program may still hold the table of any of them.
    let mut held = vec![before.clone()];
    let mut now = before.clone();
    for change in history {
        now.write(change);
        match change {
            Change::Grace => held = vec![now.clone()],
            Change::ClassSet(..) | Change::ClassDelete(_) => {
                states.extend(held.iter().map(|older| older.with_classes_of(&now)));
                held.push(now.clone());
            }
            Change::Endpoint { .. } => {
                states.push(now.clone());
                held.push(now.clone());
            }
            _ => {}
        }
    }
    states
}
