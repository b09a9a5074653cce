//! Times as people read them: the two largest units are enough.

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;

/// `2d3h`, `5m12s`, `350ms`, `0s`.
pub(crate) fn brief(length: Duration) -> String {
    let seconds = length.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let pair = |large: u64, large_unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large}{large_unit}"),
        small => format!("{large}{large_unit}{small}{small_unit}"),
    };
    if days > 0 {
        pair(days, "d", hours, "h")
    } else if hours > 0 {
        pair(hours, "h", minutes, "m")
    } else if minutes > 0 {
        pair(minutes, "m", seconds % 60, "s")
    } else if seconds == 0 && length.subsec_millis() > 0 {
        format!("{}ms", length.subsec_millis())
    } else {
        format!("{seconds}s")
    }
}

/// How long ago; empty if it never was (the epoch itself stands for that), `0s` if the clock of the one who wrote it is
/// ahead.
pub(crate) fn age(now: SystemTime, then: Option<&Timestamp>) -> String {
    let then = then.filter(|stamp| stamp.seconds > 0).and_then(|stamp| SystemTime::try_from(*stamp).ok());
    let Some(then) = then else { return String::new() };
    brief(now.duration_since(then).unwrap_or_default())
}

/// `2026-11-21T03:22:22.123456Z`; empty if it is not given.
pub(crate) fn timestamp(then: Option<&Timestamp>) -> String {
    then.and_then(|stamp| SystemTime::try_from(*stamp).ok())
        .map(|time| humantime::format_rfc3339_micros(time).to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_units_are_enough() {
        for (length, text) in [
            (Duration::ZERO, "0s"),
            (Duration::from_millis(350), "350ms"),
            (Duration::from_millis(1_350), "1s"),
            (Duration::from_secs(60), "1m"),
            (Duration::from_secs(312), "5m12s"),
            (Duration::from_secs(3 * 3_600), "3h"),
            (Duration::from_secs(2 * 86_400 + 3 * 3_600 + 59 * 60), "2d3h"),
        ] {
            assert_eq!(brief(length), text);
        }
    }

    #[test]
    fn ages_count_from_now() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        assert_eq!(age(now, Some(&Timestamp { seconds: 940, nanos: 0 })), "1m");
        assert_eq!(age(now, Some(&Timestamp { seconds: 1_001, nanos: 0 })), "0s");
        assert_eq!(age(now, None), "");
        assert_eq!(age(now, Some(&Timestamp { seconds: 0, nanos: 0 })), "");
    }

    #[test]
    fn points_of_time_are_rfc_3339() {
        let stamp = Timestamp { seconds: 1_000, nanos: 5_000 };
        assert_eq!(timestamp(Some(&stamp)), "1970-01-01T00:16:40.000005Z");
    }
}
