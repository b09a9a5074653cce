//! What events say of files, in the order in which editors and git cause them.

use super::*;

/// Hints after these events about `x.yaml`, all at one moment.
fn hints(events: &[EventMask]) -> (Hints, Instant) {
    let (mut hints, now) = (Hints::default(), Instant::now());
    for mask in events {
        hints.add(Some(""), *mask, Some(OsStr::new("x.yaml")), now);
    }
    (hints, now)
}

/// When it is looked at, after the last event.
fn due(events: &[EventMask]) -> Option<Duration> {
    let (mut hints, now) = hints(events);
    if !hints.take_due(now).is_empty() {
        return Some(Duration::ZERO);
    }
    hints.next_due().map(|due| due - now)
}

#[test]
fn the_latest_event_says_what_a_file_waits_for() {
    for (events, wanted) in [
        (&[EventMask::CREATE][..], QUIET),
        (&[EventMask::CREATE, EventMask::MODIFY, EventMask::CLOSE_WRITE], Duration::ZERO),
        (&[EventMask::MOVED_TO], Duration::ZERO),
        (&[EventMask::DELETE], GONE),
        (&[EventMask::DELETE, EventMask::CREATE], QUIET),
        (&[EventMask::MOVED_FROM, EventMask::CREATE, EventMask::MODIFY, EventMask::ATTRIB], QUIET),
        (&[EventMask::MOVED_FROM, EventMask::MOVED_TO], Duration::ZERO),
        (&[EventMask::CLOSE_WRITE, EventMask::MODIFY], QUIET),
        (&[EventMask::CLOSE_WRITE, EventMask::DELETE], GONE),
        (&[EventMask::ATTRIB], Duration::ZERO),
    ] {
        assert_eq!(due(events), Some(wanted), "{events:?}");
    }
}

#[test]
fn a_missing_file_is_gone_after_a_while() {
    let (mut hints, now) = hints(&[EventMask::DELETE]);
    assert!(hints.take_due(now).is_empty() && hints.is_missing("x.yaml") && !hints.is_gone("x.yaml", now));
    let later = now + GONE;
    assert_eq!(hints.take_due(later), BTreeSet::from(["x.yaml".to_owned()]));
    assert!(hints.is_gone("x.yaml", later));
    hints.settle("x.yaml");
    assert_eq!(hints.next_due(), None);
    // One that is found missing without an event waits as well.
    assert!(!hints.is_gone("x.yaml", later));
    assert!(hints.is_gone("x.yaml", later + GONE));
}

#[test]
fn agents_files_and_those_that_nobody_reads_do_not_wait() {
    let (mut hints, now) = (Hints::default(), Instant::now());
    for name in ["x.yaml~", "4913", ".x.yaml.swp"] {
        hints.add(Some("team"), EventMask::MOVED_TO, Some(OsStr::new(name)), now);
        hints.add(Some("team"), EventMask::DELETE, Some(OsStr::new(name)), now);
    }
    assert!(hints.take_due(now + GONE).is_empty());
    hints.add(Some(".identities"), EventMask::DELETE, Some(OsStr::new("300.yaml")), now);
    assert_eq!(hints.take_due(now), BTreeSet::from([".identities/300.yaml".to_owned()]));
}
