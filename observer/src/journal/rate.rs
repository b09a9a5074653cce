//! Flows a second over the last minute, from the times of the flows themselves.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Seconds looked back.
const WINDOW: i64 = 60;
/// One slot for each of them.
const SLOTS: usize = 60;

/// One count for each of the last 60 seconds, by the second modulo 60.
#[derive(Debug)]
pub(super) struct Rate {
    slots: Mutex<[(i64, u64); SLOTS]>,
}

impl Default for Rate {
    fn default() -> Self {
        Self { slots: Mutex::new([(i64::MIN, 0); SLOTS]) }
    }
}

/// The slots, held by whoever counts many flows.
pub(super) struct Counting<'a>(MutexGuard<'a, [(i64, u64); SLOTS]>);

impl Rate {
    /// Takes the lock once for many flows.
    pub(super) fn counting(&self) -> Counting<'_> {
        Counting(self.slots.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Mean over the 60 whole seconds before `now`.
    pub(super) fn per_second(&self, now: i64) -> f64 {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let in_window = |second: i64| second < now && second >= now.saturating_sub(WINDOW);
        let flows: u64 = slots.iter().filter(|(second, _)| in_window(*second)).map(|(_, count)| count).sum();
        // A minute holds fewer than 2^32 flows: 70 million a second.
        f64::from(u32::try_from(flows).unwrap_or(u32::MAX)) / 60.0
    }
}

impl Counting<'_> {
    /// Counts one flow of this second.
    pub(super) fn count(&mut self, second: i64) {
        let slots = &mut self.0;
        let index = usize::try_from(second.rem_euclid(WINDOW)).unwrap_or(0);
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
        let rate = Rate::default();
        for second in 1000..1120 {
            for _ in 0..3 {
                rate.counting().count(second);
            }
        }
        let near = |left: f64, right: f64| (left - right).abs() < 1e-9;
        assert!(near(rate.per_second(1120), 3.0));
        assert!(near(rate.per_second(1150), 1.5), "half of the minute was silent");
        assert!(near(rate.per_second(1300), 0.0), "old counts do not come back");
    }

    #[test]
    fn a_flow_older_than_the_window_is_not_counted_as_new() {
        let rate = Rate::default();
        rate.counting().count(1000);
        rate.counting().count(1000 - 60);
        assert!((rate.per_second(1001) - 1.0 / 60.0).abs() < 1e-9);
    }
}
