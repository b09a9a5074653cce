//! Walks over rings of numbers, with hand-worked answers.

use super::*;
use crate::ring::{Capacity, Weigh};

/// A number seen at that second; a negative number is a loss.
#[derive(Clone, Debug)]
struct Seen(i64, Timestamp);

impl Seen {
    fn at(number: i64) -> Self {
        Self(number, Timestamp { seconds: number.abs(), nanos: 0 })
    }
}

impl Entry for Seen {
    fn time(&self) -> Option<Timestamp> {
        Some(self.1)
    }

    fn is_loss(&self) -> bool {
        self.0 < 0
    }
}

impl Weigh for Seen {
    fn bytes(&self) -> usize {
        1
    }
}

fn ring(capacity: usize, numbers: impl IntoIterator<Item = i64>) -> Arc<Ring<Seen>> {
    let ring = Ring::new(Capacity { entries: capacity, bytes: usize::MAX });
    ring.write(numbers.into_iter().map(Seen::at));
    Arc::new(ring)
}

/// Even numbers, and whatever is lost.
fn even(entry: &Seen) -> Option<i64> {
    (entry.0 < 0 || entry.0 % 2 == 0).then_some(entry.0)
}

fn all(entry: &Seen) -> Option<i64> {
    Some(entry.0)
}

fn second(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds, nanos: 0 })
}

/// What a walk gives until it ends or waits; a gap of N entries is `-1000 - N`.
async fn told<F: Fn(&Seen) -> Option<i64> + Send + 'static>(walk: &mut Walk<Seen, F>) -> Vec<i64> {
    let mut told = Vec::new();
    while let Ok(Some(step)) = tokio::time::timeout(std::time::Duration::from_millis(50), walk.next()).await {
        told.push(match step {
            Step::Entry(number) => number,
            Step::Missed { entries, .. } => -1000 - i64::try_from(entries).expect("a small gap"),
        });
    }
    told
}

async fn answer(numbers: impl IntoIterator<Item = i64>, selection: Selection) -> Vec<i64> {
    told(&mut Walk::new(ring(10_000, numbers), selection, even)).await
}

#[tokio::test]
async fn last_first_and_all() {
    let selection = Selection::default();
    assert_eq!(answer(1..=9, Selection { number: 2, ..selection.clone() }).await, [6, 8]);
    assert_eq!(answer(1..=9, Selection { number: 2, first: true, ..selection.clone() }).await, [2, 4]);
    assert_eq!(answer(1..=9, Selection { number: u64::MAX, ..selection.clone() }).await, [2, 4, 6, 8]);
    assert_eq!(answer(1..=9, selection.clone()).await, [2, 4, 6, 8]);
    assert_eq!(answer([], selection).await, [0; 0]);
}

#[tokio::test]
async fn more_entries_than_a_batch() {
    let whole = answer(1..=3000, Selection::default()).await;
    assert_eq!((whole.len(), whole[0], whole[1499]), (1500, 2, 3000));
    let last = answer(1..=3000, Selection { number: 700, ..Selection::default() }).await;
    assert_eq!((last.len(), last[0], last[699]), (700, 1602, 3000));
}

#[tokio::test]
async fn times_bound_both_ends_and_decide_before_the_number() {
    let between = Selection { since: second(4), until: second(8), ..Selection::default() };
    assert_eq!(answer(1..=20, between.clone()).await, [4, 6, 8]);
    assert_eq!(
        answer(1..=20, Selection { number: 2, ..between }).await,
        [4, 6],
        "Hubble counts from `since` on"
    );
    assert_eq!(answer(1..=20, Selection { since: second(21), ..Selection::default() }).await, [0; 0]);
    assert_eq!(answer(1..=20, Selection { until: second(5), ..Selection::default() }).await, [2, 4]);
    let first = Selection { first: true, number: 1, since: second(7), ..Selection::default() };
    assert_eq!(answer(1..=20, first).await, [8]);
    // Older than a batch back.
    assert_eq!(answer(1..=1000, Selection { since: second(3), ..Selection::default() }).await.len(), 499);
}

#[tokio::test]
async fn losses_are_told_and_not_counted() {
    assert_eq!(
        answer([2, -3, 4, -5, 6, -7], Selection { number: 2, ..Selection::default() }).await,
        [4, -5, 6]
    );
    assert_eq!(
        answer([2, -3, 4], Selection { number: 2, first: true, ..Selection::default() }).await,
        [2, -3, 4]
    );
}

#[tokio::test]
async fn following_waits_for_what_comes() {
    let ring = ring(10_000, 1..=4);
    let follow = Selection { follow: true, ..Selection::default() };
    let mut new_only = Walk::new(ring.clone(), follow.clone(), even);
    let mut one_back = Walk::new(ring.clone(), Selection { number: 1, ..follow.clone() }, even);
    assert_eq!(told(&mut new_only).await, [0; 0]);
    assert_eq!(told(&mut one_back).await, [4]);
    ring.write([5, 6, 7, 8].map(Seen::at));
    assert_eq!(told(&mut new_only).await, [6, 8]);
    assert_eq!(told(&mut one_back).await, [6, 8], "`number` does not end a follower");
    let mut until = Walk::new(ring.clone(), Selection { until: second(9), number: 1, ..follow }, even);
    assert_eq!(told(&mut until).await, [8]);
    ring.write([10].map(Seen::at));
    assert!(until.next().await.is_none(), "what comes later than `until` ends it");
}

#[tokio::test]
async fn a_reader_that_was_overtaken_is_told_by_how_much() {
    let ring = ring(4, 1..=4);
    let mut walk =
        Walk::new(ring.clone(), Selection { follow: true, number: 4, ..Selection::default() }, all);
    assert_eq!(told(&mut walk).await, [1, 2, 3, 4]);
    ring.write((5..=20).map(Seen::at));
    match walk.next().await {
        Some(Step::Missed { entries, after, before }) => {
            assert_eq!((entries, after, before), (12, second(4), second(17)));
        }
        other => panic!("not a gap: {other:?}"),
    }
    assert_eq!(told(&mut walk).await, [17, 18, 19, 20]);
}

/// Whatever the reader's pace: what was written is what it got and what it was told to have missed.
#[tokio::test]
async fn nothing_is_lost_without_word() {
    let ring = ring(300, []);
    let mut walk = Walk::new(ring.clone(), Selection { follow: true, ..Selection::default() }, all);
    assert_eq!(told(&mut walk).await, [0; 0]);
    let (mut got, mut missed, mut next) = (0, 0, 1);
    for pause in [1, 50, 299, 300, 301, 600, 7, 1000, 256, 257] {
        ring.write((next..next + pause).map(Seen::at));
        next += pause;
        for step in told(&mut walk).await {
            if step <= -1000 { missed += -1000 - step } else { got += 1 }
        }
    }
    assert_eq!(got + missed, next - 1);
    assert_eq!(missed, 1 + 300 + 700, "only what did not fit into 300");
}

#[test]
fn what_has_no_answer_is_refused() {
    let both = Selection { first: true, follow: true, ..Selection::default() };
    assert_eq!(both.check().unwrap_err().to_string(), "first: cannot be used with follow");
    let time = Selection { until: Some(Timestamp { seconds: 0, nanos: -1 }), ..Selection::default() };
    assert_eq!(
        time.check().unwrap_err().to_string(),
        "until: 0 s -1 ns is no time between the years 1 and 9999"
    );
    let far = Selection { since: second(i64::MAX), ..Selection::default() };
    assert!(far.check().unwrap_err().to_string().starts_with("since: 9223372036854775807 s"));
}

/// A filter that takes a millisecond for each of 200 entries, and somebody else on the same thread.
#[tokio::test]
async fn a_slow_filter_lets_others_run() {
    for selection in [
        Selection::default(),
        Selection { number: 1, ..Selection::default() },
        Selection { since: second(0), ..Selection::default() },
    ] {
        let ring = ring(1000, 1..=200);
        let nothing = |_: &Seen| {
            std::thread::sleep(Duration::from_millis(1));
            None::<i64>
        };
        let mut walk = Walk::new(ring, selection.clone(), nothing);
        let others = async {
            let mut turns = 0;
            loop {
                turns += 1;
                tokio::task::yield_now().await;
                if turns >= 100 {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            step = walk.next() => panic!("it had the thread for itself: {step:?}, {selection:?}"),
            () = others => {}
        }
    }
}
