//! A journal's own metrics: flows seen, how full its ring is, and what was lost, under Hubble's name.

use std::time::SystemTime;

use sinew_api::proto::flow::LostEventSource;

use super::{Description, Family, Value};
use crate::journal::{Journal, Sighting};

/// Every metric here.
pub const METRICS: &[&Description] = &[&LOST, &SEEN, &HELD, &ROOM, &BYTES, &BYTE_ROOM];

const LOST: Description = Description::counter(
    "hubble_lost_events_total",
    &["source"],
    "Events lost: between kernel and agent (perf_event_ring_buffer; drops beyond --monitor-drop-limit are among them), \
     inside the agent (observer_events_queue), or for a client that did not keep up (hubble_ring_buffer).",
);
const SEEN: Description =
    Description::counter("sinew_flows_total", &[], "Flows made of the kernel's records.");
const HELD: Description = Description::gauge("sinew_flow_ring_entries", &[], "Flows in the ring.");
const ROOM: Description =
    Description::gauge("sinew_flow_ring_capacity", &[], "Flows that the ring takes at most.");
const BYTES: Description =
    Description::gauge("sinew_flow_ring_bytes", &[], "Memory of the flows in the ring, bytes.");
const BYTE_ROOM: Description =
    Description::gauge("sinew_flow_ring_capacity_bytes", &[], "Memory that the ring takes at most, bytes.");

/// A journal as it is now.
#[must_use]
pub fn families<S: Sighting>(journal: &Journal<S>, now: SystemTime) -> Vec<Family> {
    let numbers = journal.numbers(now);
    let mut lost = Family::new(&LOST);
    for source in [
        LostEventSource::PerfEventRingBuffer,
        LostEventSource::ObserverEventsQueue,
        LostEventSource::HubbleRingBuffer,
    ] {
        let count = numbers.losses.iter().find(|(known, _)| *known == source).map_or(0, |(_, count)| *count);
        lost.add([&source.as_str_name().to_lowercase()], Value::Count(count));
    }
    let fill = numbers.fill;
    let of = |description, number: usize| Family::single(description, Value::Count(number as u64));
    vec![
        lost,
        Family::single(&SEEN, Value::Count(numbers.seen)),
        of(&HELD, fill.entries),
        of(&ROOM, fill.capacity.entries),
        of(&BYTES, fill.bytes),
        of(&BYTE_ROOM, fill.capacity.bytes),
    ]
}

#[cfg(test)]
mod tests {
    use sinew_api::proto::flow::{Flow, LostEvent};

    use super::*;
    use crate::JournalSettings;
    use crate::metrics::{Format, text};

    #[test]
    fn losses_stand_under_hubbles_names() {
        let now = SystemTime::now();
        let journal: Journal = Journal::new(JournalSettings::new("c/n", "1"), now);
        journal.record_flows([Flow::default(), Flow::default()]);
        let lost = LostEvent {
            source: LostEventSource::PerfEventRingBuffer.into(),
            num_events_lost: 7,
            ..LostEvent::default()
        };
        journal.record_lost(lost, now);
        journal.record_suppressed(31, now);
        let text = text(families(&journal, now), Format::Prometheus);
        for line in [
            "hubble_lost_events_total{source=\"perf_event_ring_buffer\"} 38",
            "hubble_lost_events_total{source=\"observer_events_queue\"} 0",
            "hubble_lost_events_total{source=\"hubble_ring_buffer\"} 0",
            "sinew_flows_total 2",
            // Word of the loss stands in the ring too.
            "sinew_flow_ring_entries 2",
            "sinew_flow_ring_capacity 4095",
            "sinew_flow_ring_capacity_bytes 16777216",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is not in {text}");
        }
    }
}
