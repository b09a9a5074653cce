//! Points in time on the command line and on screen, in the layouts that Hubble's clients know. Everything is UTC.

use std::time::{Duration, SystemTime};

use jiff::civil::Date;
use jiff::fmt::strtime;
use jiff::{Timestamp as Instant, Zoned};
use prost_types::Timestamp;

use super::flags::TimeForm;

/// Layouts that `--since` and `--until` take, besides RFC 3339 with any fraction.
const LAYOUTS: [&str; 3] = ["%Y-%m-%dT%H:%M%:z", "%Y-%m-%dT%H%:z", "%a, %d %b %Y %H:%M:%S %z"];

/// A length of time before `now` (`3s`, `1h43m`), or a point in time.
pub(super) fn parse(text: &str, now: SystemTime) -> Result<Timestamp, String> {
    if let Some(ago) = length(text) {
        let then = now.checked_sub(ago).ok_or_else(|| format!("{text:?} ago is before all time"))?;
        return Ok(then.into());
    }
    point(text).ok_or_else(|| {
        format!("{text:?} is no time: a length such as 3s or 1h43m, or a point such as 2026-11-21T03:22:22Z")
    })
}

/// Go's durations: numbers with a unit, fractions allowed, one after the other.
fn length(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let (number, behind) = rest.split_at(end);
        let unit_end =
            behind.find(|letter: char| letter.is_ascii_digit() || letter == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(unit_end);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        total = total.checked_add(part)?;
        rest = behind;
    }
    (!text.is_empty()).then_some(total)
}

fn point(text: &str) -> Option<Timestamp> {
    let instant = if let Ok(date) = Date::strptime("%Y-%m-%d", text) {
        date.at(0, 0, 0, 0).to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp()
    } else if let Ok(instant) = text.parse::<Instant>() {
        instant
    } else {
        // `Z` and `+02:00` are the same field in Go's layouts and two in strptime's.
        let with_offset = text.strip_suffix('Z').map(|local| format!("{local}+00:00"));
        let text = with_offset.as_deref().unwrap_or(text);
        LAYOUTS.iter().find_map(|layout| parsed(layout, text))?
    };
    Some(Timestamp { seconds: instant.as_second(), nanos: instant.subsec_nanosecond() })
}

/// strptime wants minutes and seconds; what a layout leaves out is zero.
fn parsed(layout: &str, text: &str) -> Option<Instant> {
    let mut broken = strtime::parse(layout, text).ok()?;
    if broken.minute().is_none() {
        broken.set_minute(Some(0)).ok()?;
    }
    if broken.second().is_none() {
        broken.set_second(Some(0)).ok()?;
    }
    broken.to_timestamp().ok()
}

/// A time in the form asked for; `N/A` without one.
pub(super) fn text(time: Option<&Timestamp>, form: TimeForm) -> String {
    let instant = time.and_then(|time| Instant::new(time.seconds, time.nanos).ok());
    let Some(instant) = instant else { return "N/A".to_owned() };
    let zoned = instant.to_zoned(jiff::tz::TimeZone::UTC);
    match form {
        TimeForm::StampMilli => zoned.strftime("%b %e %H:%M:%S.%3f").to_string(),
        TimeForm::YearMonthDay => zoned.strftime("%Y-%m-%d").to_string(),
        TimeForm::YearMonthDayHour => zoned.strftime("%Y-%m-%dT%HZ").to_string(),
        TimeForm::YearMonthDayHourMinute => zoned.strftime("%Y-%m-%dT%H:%MZ").to_string(),
        TimeForm::Rfc3339 => zoned.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        TimeForm::Rfc3339Milli => fraction(&zoned, 3),
        TimeForm::Rfc3339Micro => fraction(&zoned, 6),
        TimeForm::Rfc3339Nano => fraction(&zoned, 9),
        TimeForm::Rfc1123Z => zoned.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string(),
    }
}

/// RFC 3339 with up to so many digits behind the second, zeros at the end left out as Go does.
fn fraction(zoned: &Zoned, digits: usize) -> String {
    let nanoseconds = format!("{:09}", zoned.subsec_nanosecond());
    let kept = nanoseconds[..digits].trim_end_matches('0');
    let dot = if kept.is_empty() { "" } else { "." };
    format!("{}{dot}{kept}Z", zoned.strftime("%Y-%m-%dT%H:%M:%S"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2019-07-01T14:00:00Z.
    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_561_989_600)
    }

    fn check(input: &str, expected: &str) {
        let time = parse(input, now()).unwrap_or_else(|problem| panic!("{problem}"));
        assert_eq!(text(Some(&time), TimeForm::Rfc3339Nano), expected, "{input}");
    }

    #[test]
    fn lengths_are_counted_back_from_now() {
        check("10s", "2019-07-01T13:59:50Z");
        check("5m", "2019-07-01T13:55:00Z");
        check("1h43m", "2019-07-01T12:17:00Z");
        check("1.5h", "2019-07-01T12:30:00Z");
        check("250ms", "2019-07-01T13:59:59.75Z");
    }

    #[test]
    fn points_are_taken_in_every_layout_of_the_help() {
        check("2019-06-30", "2019-06-30T00:00:00Z");
        check("2019-06-30T18Z", "2019-06-30T18:00:00Z");
        check("2019-06-30T18-07:00", "2019-07-01T01:00:00Z");
        check("2019-06-30T18:05Z", "2019-06-30T18:05:00Z");
        check("2019-06-30T18:05+02:00", "2019-06-30T16:05:00Z");
        check("2019-06-30T18:05:07Z", "2019-06-30T18:05:07Z");
        check("2019-06-30T18:05:07.123-07:00", "2019-07-01T01:05:07.123Z");
        check("2019-06-30T18:05:07.123456789Z", "2019-06-30T18:05:07.123456789Z");
        check("Sun, 30 Jun 2019 18:05:07 -0700", "2019-07-01T01:05:07Z");
    }

    #[test]
    fn nonsense_is_named() {
        for text in ["", "yesterday", "5", "3x", "2019-13-01", "2019-06-30T25Z", "1h-5m"] {
            assert!(parse(text, now()).is_err_and(|problem| problem.contains("is no time")), "{text}");
        }
    }

    #[test]
    fn every_form_of_output() {
        let time = Timestamp { seconds: 1_561_889_107, nanos: 120_000_000 };
        for (form, expected) in [
            (TimeForm::StampMilli, "Jun 30 10:05:07.120"),
            (TimeForm::YearMonthDay, "2019-06-30"),
            (TimeForm::YearMonthDayHour, "2019-06-30T10Z"),
            (TimeForm::YearMonthDayHourMinute, "2019-06-30T10:05Z"),
            (TimeForm::Rfc3339, "2019-06-30T10:05:07Z"),
            (TimeForm::Rfc3339Milli, "2019-06-30T10:05:07.12Z"),
            (TimeForm::Rfc3339Micro, "2019-06-30T10:05:07.12Z"),
            (TimeForm::Rfc3339Nano, "2019-06-30T10:05:07.12Z"),
            (TimeForm::Rfc1123Z, "Sun, 30 Jun 2019 10:05:07 +0000"),
        ] {
            assert_eq!(text(Some(&time), form), expected);
        }
        let first = Timestamp { seconds: 1_561_939_200, nanos: 0 };
        assert_eq!(text(Some(&first), TimeForm::StampMilli), "Jul  1 00:00:00.000");
        assert_eq!(text(None, TimeForm::StampMilli), "N/A");
    }
}
