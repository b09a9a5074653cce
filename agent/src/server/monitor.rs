//! Records as they come, decoded but without names.

use std::pin::Pin;

use sinew_api::proto::agent::{MonitorEvent, MonitorEventType, MonitorRequest};
use sinew_api::proto::flow::DropReason;
use sinew_bpf::abi::{EventRecord, event};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use crate::datapath::record_bytes;
use crate::flow::{Clock, RecordBatch, raw};
use crate::view::View;

/// Events, one by one.
pub(super) type Events = Pin<Box<dyn Stream<Item = Result<MonitorEvent, Status>> + Send>>;

/// The endpoints that a request asks for.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    ids: Vec<u32>,
    /// What packets to and from them have, wherever they are reported: what one pod sends to another of the same node is
    /// reported at the sender's hook, whichever of the two policy judged.
    addresses: Vec<String>,
}

impl Asked {
    /// They and their addresses, which no endpoint changes in its life.
    pub(super) fn of(view: &View, request: &MonitorRequest) -> Self {
        let endpoints = view.snapshot.endpoints.iter();
        let asked = endpoints.filter(|(id, _)| request.endpoint_ids.contains(&u32::from(id.0)));
        let addresses = asked.flat_map(|(_, endpoint)| &endpoint.created.addresses);
        let addresses = addresses.map(ToString::to_string).collect();
        Self { ids: request.endpoint_ids.clone(), addresses }
    }

    fn means(&self, event: &MonitorEvent) -> bool {
        let is_end = |address: &String| self.addresses.contains(address);
        self.ids.is_empty()
            || self.ids.contains(&event.endpoint_id)
            || event.ip.as_ref().is_some_and(|ip| is_end(&ip.source) || is_end(&ip.destination))
    }
}

/// The records that a request means, from now on. A watcher that lags is told how many records it missed.
pub(super) fn events(
    records: broadcast::Receiver<RecordBatch>,
    request: MonitorRequest,
    asked: Asked,
) -> Events {
    let mut next = None;
    let stream = BroadcastStream::new(records).map(move |batch| {
        // What a lag has cost, the batch behind it says.
        let Ok(batch) = batch else { return Vec::new() };
        let missed = next.map_or(0, |next| batch.before.saturating_sub(next));
        next = Some(batch.before + batch.records.len() as u64);
        // A watcher outlives steps of the wall clock.
        let clock = Clock::now();
        let missed = (missed > 0).then(|| lost(missed)).into_iter();
        let told = batch.records.iter().map(|record| decode(record, clock));
        missed.chain(told).filter(|event| wanted(&request, &asked, event)).map(Ok).collect::<Vec<_>>()
    });
    Box::pin(futures_util::StreamExt::flat_map(stream, tokio_stream::iter))
}

fn wanted(request: &MonitorRequest, asked: &Asked, event: &MonitorEvent) -> bool {
    // Whoever asks for some of the events may have missed just those.
    if event.r#type() == MonitorEventType::MonitorLost {
        return true;
    }
    let of_type = |kind: MonitorEventType| request.types.contains(&kind.into());
    // A verdict that denies is no record of its own.
    let denied = event.r#type() == MonitorEventType::MonitorDrop
        && matches!(event.drop_reason(), DropReason::PolicyDenied | DropReason::PolicyDeny);
    let meant = request.types.is_empty()
        || of_type(event.r#type())
        || denied && of_type(MonitorEventType::MonitorPolicyVerdict);
    meant && asked.means(event)
}

fn decode(record: &EventRecord, clock: Clock) -> MonitorEvent {
    let kind = match record.kind {
        event::kind::DROP => MonitorEventType::MonitorDrop,
        event::kind::NEW => MonitorEventType::MonitorPolicyVerdict,
        event::kind::CLOSE => MonitorEventType::MonitorClose,
        _ => MonitorEventType::MonitorTrace,
    };
    MonitorEvent { r#type: kind.into(), record: record_bytes(record).to_vec(), ..raw(record, clock) }
}

fn lost(records: u64) -> MonitorEvent {
    MonitorEvent {
        r#type: MonitorEventType::MonitorLost.into(),
        lost: records,
        text: "the reader is too slow".to_owned(),
        ..MonitorEvent::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(before: u64, sequences: std::ops::Range<u32>) -> RecordBatch {
        let record = |sequence| EventRecord { sequence, endpoint: 7, ..EventRecord::default() };
        RecordBatch { before, records: sequences.map(record).collect() }
    }

    #[test]
    fn a_record_is_told_with_its_bytes() {
        let record = EventRecord {
            time: 0x0102,
            sequence: 42,
            kind: event::kind::DROP,
            macs: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
            ..EventRecord::default()
        };
        let told = decode(&record, Clock::now());
        assert_eq!((told.r#type(), told.sequence), (MonitorEventType::MonitorDrop, 42));
        assert_eq!(told.record.len(), size_of::<EventRecord>());
        assert_eq!(told.record[..8], 0x0102_u64.to_ne_bytes());
        assert_eq!(told.record[8..12], 42_u32.to_ne_bytes());
        assert_eq!(told.record[100..], record.macs);
    }

    #[test]
    fn what_policy_dropped_is_found_by_either_end_and_as_a_verdict() {
        use sinew_api::proto::flow::Ip;
        let ip = Ip { source: "10.0.0.5".into(), destination: "fd00::7".into(), ..Ip::default() };
        let drop = MonitorEvent {
            r#type: MonitorEventType::MonitorDrop.into(),
            endpoint_id: 5,
            drop_reason: DropReason::PolicyDenied.into(),
            ip: Some(ip),
            ..MonitorEvent::default()
        };
        let asked = |ids: &[u32], addresses: &[&str]| Asked {
            ids: ids.to_vec(),
            addresses: addresses.iter().map(ToString::to_string).collect(),
        };
        let all = MonitorRequest::default();
        for (meant, asked) in [
            (true, asked(&[], &[])),
            (true, asked(&[5], &["10.0.0.5"])),
            (true, asked(&[7], &["10.0.0.7", "fd00::7"])),
            (false, asked(&[8], &["10.0.0.8", "fd00::8"])),
        ] {
            assert_eq!(wanted(&all, &asked, &drop), meant, "{asked:?}");
        }
        let of = |kind: MonitorEventType, event: &MonitorEvent| {
            let request = MonitorRequest { types: vec![kind.into()], ..MonitorRequest::default() };
            wanted(&request, &asked(&[], &[]), event)
        };
        assert!(of(MonitorEventType::MonitorDrop, &drop));
        assert!(of(MonitorEventType::MonitorPolicyVerdict, &drop));
        assert!(!of(MonitorEventType::MonitorTrace, &drop));
        let other = MonitorEvent { drop_reason: DropReason::InvalidSourceIp.into(), ..drop };
        assert!(!of(MonitorEventType::MonitorPolicyVerdict, &other), "nobody's policy");
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_how_many_records_it_missed() {
        let (sender, receiver) = broadcast::channel(2);
        let request = MonitorRequest { endpoint_ids: vec![7], ..MonitorRequest::default() };
        let asked = Asked { ids: vec![7], addresses: Vec::new() };
        let mut events = events(receiver, request, asked);
        sender.send(batch(0, 0..3)).unwrap();
        for sequence in 0..3 {
            assert_eq!(events.next().await.unwrap().unwrap().sequence, sequence);
        }
        // Three batches of two, of which the channel keeps two.
        for first in [3, 5, 7] {
            sender.send(batch(first.into(), first..first + 2)).unwrap();
        }
        let told = events.next().await.unwrap().unwrap();
        assert_eq!((told.r#type(), told.lost), (MonitorEventType::MonitorLost, 2));
        assert_eq!(events.next().await.unwrap().unwrap().sequence, 5);
    }
}
