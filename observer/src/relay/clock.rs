//! How far a node's clock differs from ours, from one answer.
//!
//! Our own Observer sends its time in the headers of every stream ([`HEADER`]). It wrote them at some moment between our
//! request and the arrival of the headers, so any difference that this interval can't explain is the clock's. With another
//! Observer only a time in the future shows that its clock is wrong, which `merge.rs` notices. Neighbours: `fan.rs` asks
//! and reports, [`crate::service`] writes the header.

use std::fmt;
use std::time::{Duration, SystemTime};

use prost_types::Timestamp;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

/// Name of the header with a node's time, in nanoseconds since 1970.
pub(crate) const HEADER: &str = "sinew-clock";
/// How far a clock may be off before its times are no longer used for ordering.
pub(super) const TOLERANCE: Duration = Duration::from_secs(1);

/// The header's value for a moment.
pub(crate) fn header(now: SystemTime) -> MetadataValue<Ascii> {
    nanoseconds(now).into()
}

/// The moment that the headers of an answer say, by the clock of who wrote them.
pub(super) fn written(headers: &MetadataMap) -> Option<Timestamp> {
    let nanoseconds = written_nanoseconds(headers)?;
    Some((SystemTime::UNIX_EPOCH + Duration::from_nanos(nanoseconds)).into())
}

fn written_nanoseconds(headers: &MetadataMap) -> Option<u64> {
    headers.get(HEADER)?.to_str().ok()?.parse().ok()
}

/// How far a clock is off at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Off {
    /// It is in the future.
    Ahead(Duration),
    /// It is in the past.
    Behind(Duration),
}

impl Off {
    /// What the headers of an answer say of the clock of who wrote them.
    pub(super) fn of(headers: &MetadataMap, asked: SystemTime, heard: SystemTime) -> Option<Self> {
        let written = written_nanoseconds(headers)?;
        let (asked, heard) = (nanoseconds(asked), nanoseconds(heard));
        if let Some(ahead) = beyond(written, heard) {
            return Some(Self::Ahead(ahead));
        }
        beyond(asked, written).map(Self::Behind)
    }
}

impl fmt::Display for Off {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ahead(by) => write!(f, "{} s ahead", by.as_secs()),
            Self::Behind(by) => write!(f, "{} s behind", by.as_secs()),
        }
    }
}

/// By how much the first is later, if that is more than is tolerated.
fn beyond(later: u64, earlier: u64) -> Option<Duration> {
    later.checked_sub(earlier).map(Duration::from_nanos).filter(|by| *by > TOLERANCE)
}

/// Nanoseconds since 1970; they fit until 2554.
fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(second)
    }

    fn off(written: u64, asked: u64, heard: u64) -> Option<Off> {
        let mut headers = MetadataMap::new();
        headers.insert(HEADER, header(at(written)));
        Off::of(&headers, at(asked), at(heard))
    }

    #[test]
    fn what_the_way_can_explain_is_not_the_clocks() {
        assert_eq!(off(1000, 1000, 1000), None);
        assert_eq!(off(1001, 1000, 1000), None, "a second is tolerated");
        assert_eq!(off(1005, 1000, 1009), None, "written on a slow way");
        assert_eq!(off(4600, 1000, 1000), Some(Off::Ahead(Duration::from_secs(3600))));
        assert_eq!(off(1000, 4600, 4601), Some(Off::Behind(Duration::from_secs(3600))));
        assert_eq!(off(998, 1000, 1009).expect("off").to_string(), "2 s behind");
    }

    #[test]
    fn the_moment_is_what_was_written() {
        let mut headers = MetadataMap::new();
        headers.insert(HEADER, header(at(1000) + Duration::from_nanos(7)));
        assert_eq!(written(&headers), Some(Timestamp { seconds: 1000, nanos: 7 }));
    }

    #[test]
    fn what_is_no_time_says_nothing() {
        let mut headers = MetadataMap::new();
        assert_eq!(Off::of(&headers, at(1), at(1)), None);
        assert_eq!(written(&headers), None);
        headers.insert(HEADER, MetadataValue::from_static("yesterday"));
        assert_eq!(Off::of(&headers, at(1), at(1)), None);
    }
}
