//! Records as they come, decoded but without names.

use std::pin::Pin;

use sinew_api::proto::agent::{MonitorEvent, MonitorEventType, MonitorRequest};
use sinew_bpf::abi::{EventRecord, event};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use crate::flow::{Clock, RecordBatch, raw};

/// Events, one by one.
pub(super) type Events = Pin<Box<dyn Stream<Item = Result<MonitorEvent, Status>> + Send>>;

/// The records that a request means, from now on. A watcher that lags is told how much it missed.
pub(super) fn events(records: broadcast::Receiver<RecordBatch>, request: MonitorRequest) -> Events {
    let stream = BroadcastStream::new(records).map(move |batch| match batch {
        Ok(batch) => {
            // A watcher outlives steps of the wall clock.
            let clock = Clock::now();
            let events = batch.iter().map(|record| decode(record, clock));
            events.filter(|event| wanted(&request, event)).map(Ok).collect::<Vec<_>>()
        }
        Err(BroadcastStreamRecvError::Lagged(batches)) => vec![Ok(lagged(batches))],
    });
    Box::pin(futures_util::StreamExt::flat_map(stream, tokio_stream::iter))
}

fn wanted(request: &MonitorRequest, event: &MonitorEvent) -> bool {
    (request.types.is_empty() || request.types.contains(&event.r#type))
        && (request.endpoint_ids.is_empty() || request.endpoint_ids.contains(&event.endpoint_id))
}

fn decode(record: &EventRecord, clock: Clock) -> MonitorEvent {
    let kind = match record.kind {
        event::kind::DROP => MonitorEventType::MonitorDrop,
        event::kind::NEW => MonitorEventType::MonitorPolicyVerdict,
        event::kind::CLOSE => MonitorEventType::MonitorClose,
        _ => MonitorEventType::MonitorTrace,
    };
    MonitorEvent { r#type: kind.into(), ..raw(record, clock) }
}

fn lagged(batches: u64) -> MonitorEvent {
    MonitorEvent {
        r#type: MonitorEventType::MonitorLost.into(),
        lost: batches,
        text: format!("{batches} batches of records were missed: the reader is too slow"),
        ..MonitorEvent::default()
    }
}
