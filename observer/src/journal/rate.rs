//! Flows a second over the last minute, or since the start if that is less, from the times of the flows themselves.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Seconds looked back.
const WINDOW: i64 = 60;
/// One slot for each of them, and one for the second that is not over.
const SLOTS: usize = 61;

/// One count for each of the last seconds, by the second modulo their number.
#[derive(Debug)]
pub(super) struct Rate {
    /// The second in which counting began.
    since: i64,
    slots: Mutex<[(i64, u64); SLOTS]>,
}

/// The slots, held by whoever counts many flows.
pub(super) struct Counting<'a>(MutexGuard<'a, [(i64, u64); SLOTS]>);

impl Rate {
    /// Counts from this second on.
    pub(super) fn since(second: i64) -> Self {
        Self { since: second, slots: Mutex::new([(i64::MIN, 0); SLOTS]) }
    }

    /// Takes the lock once for many flows.
    pub(super) fn counting(&self) -> Counting<'_> {
        Counting(self.slots.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Mean over the whole seconds before `now`, 60 of them at most; while there is none, what this second has seen.
    pub(super) fn per_second(&self, now: i64) -> f64 {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = now.saturating_sub(self.since).clamp(0, WINDOW);
        let first = now.saturating_sub(whole);
        let in_window = |second: i64| second >= first && (second < now || whole == 0);
        let flows: u64 = slots.iter().filter(|(second, _)| in_window(*second)).map(|(_, count)| count).sum();
        // A minute holds fewer than 2^32 flows: 70 million a second.
        let number = |many: u64| f64::from(u32::try_from(many).unwrap_or(u32::MAX));
        number(flows) / number(whole.max(1).unsigned_abs())
    }
}

impl Counting<'_> {
    /// Counts one flow of this second.
    pub(super) fn count(&mut self, second: i64) {
        let slots = &mut self.0;
        let index = usize::try_from(second.rem_euclid(WINDOW + 1)).unwrap_or(0);
        if slots[index].0 < second {
            slots[index] = (second, 0);
        }
        if slots[index].0 == second {
            slots[index].1 += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_over_the_last_minute() {
        let rate = Rate::since(1000);
        // The last second is not over.
        for second in 1000..=1120 {
            for _ in 0..3 {
                rate.counting().count(second);
            }
        }
        let near = |left: f64, right: f64| (left - right).abs() < 1e-9;
        assert!(near(rate.per_second(1120), 3.0));
        assert!(near(rate.per_second(1151), 1.5), "half of the minute was silent");
        assert!(near(rate.per_second(1300), 0.0), "old counts do not come back");
    }

    #[test]
    fn a_flow_older_than_the_window_is_not_counted_as_new() {
        let rate = Rate::since(0);
        rate.counting().count(1000);
        rate.counting().count(1000 - 61);
        assert!((rate.per_second(1001) - 1.0 / 60.0).abs() < 1e-9);
    }

    /// Hubble's example: eight flows in the sixteen seconds since the start are half a flow a second.
    #[test]
    fn before_the_first_minute_is_over_the_mean_is_over_what_there_was() {
        let rate = Rate::since(1000);
        for second in (1000..1016).step_by(2) {
            rate.counting().count(second);
        }
        assert!((rate.per_second(1016) - 0.5).abs() < 1e-9);
        let rate = Rate::since(1000);
        rate.counting().count(1000);
        assert!((rate.per_second(1000) - 1.0).abs() < 1e-9, "the first second is not over");
    }
}
