//! Answers of `GetFlows` as bytes, which is how they are handed to clients.
//!
//! A flow has some forty strings: decoding one that a node has encoded, and encoding it again, would be most of a relay's
//! work. So a relay looks at the bytes ([`Head`]), reads what it needs, checks that every client can decode them, and
//! forwards them. Neighbours: [`crate::wire`] walks through bytes, `relay/passed.rs` takes them from nodes,
//! `service/served.rs` gives them to clients, [`crate::mask`] leaves fields out of them.

use std::ops::Range;

use prost::Message;
use prost_types::Timestamp;
use sinew_api::proto::flow::LostEvent;
use sinew_api::proto::observer::GetFlowsResponse;
use tonic::Status;

use crate::wire::{SCHEMA, Value, field};

/// Numbers of the fields of `observer.GetFlowsResponse` that are looked at.
pub(crate) mod number {
    /// The members of the oneof.
    pub(crate) const FLOW: u32 = 1;
    pub(crate) const NODE_STATUS: u32 = 2;
    pub(crate) const LOST_EVENTS: u32 = 3;
    /// What stands beside it.
    pub(crate) const NODE_NAME: u32 = 1000;
    pub(crate) const TIME: u32 = 1001;
    /// Of `flow.Flow`.
    pub(super) const UUID: u32 = 34;
    /// Of `google.protobuf.Timestamp`.
    pub(super) const SECONDS: u32 = 1;
    pub(super) const NANOS: u32 = 2;
}

/// One answer, encoded: a message of our schema that every client can read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedAnswer(Box<[u8]>);

impl EncodedAnswer {
    /// Encodes an answer.
    #[must_use]
    pub fn of(answer: &GetFlowsResponse) -> Self {
        Self(answer.encode_to_vec().into())
    }

    /// Bytes that were encoded from the schema's messages, or are sound.
    pub(crate) fn from_sound(bytes: impl Into<Box<[u8]>>) -> Self {
        Self(bytes.into())
    }

    /// Decodes it.
    ///
    /// # Errors
    /// The bytes are no such message, which those of an answer never are.
    pub fn decode(&self) -> Result<GetFlowsResponse, Status> {
        GetFlowsResponse::decode(self.bytes()).map_err(|error| Status::internal(error.to_string()))
    }

    /// As it goes over the wire.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What a relay needs of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Head {
    /// When it was seen.
    pub(crate) time: Option<Timestamp>,
    /// Where in the bytes the flow's name stands; empty where there is none.
    pub(crate) uuid: Range<usize>,
    /// The loss notice, if it is one.
    pub(crate) loss: Option<Box<LostEvent>>,
}

impl Head {
    /// The head of an answer whose bytes may be forwarded as they are. `None` for any other.
    pub(crate) fn of(answer: &[u8]) -> Option<Self> {
        let schema = &*SCHEMA;
        let (mut time, mut uuid): (Option<Timestamp>, &[u8]) = (None, &[]);
        let (mut members, mut lost) = (0, None);
        let is_sound = schema.is_sound(schema.answer, answer, &mut |shape, number, value| {
            let Value::Bytes(content) = value else { return };
            if shape == schema.flow && number == number::UUID {
                uuid = content;
            } else if shape == schema.answer {
                match number {
                    number::FLOW | number::NODE_STATUS => members += 1,
                    number::LOST_EVENTS => (members, lost) = (members + 1, Some(content)),
                    number::TIME => merge(time.get_or_insert_default(), content),
                    _ => {}
                }
            }
        });
        // Several members of the oneof mean the last one, unless it is the same twice; no writer does that.
        if !is_sound || members > 1 {
            return None;
        }
        let loss = match lost {
            Some(lost) => Some(Box::new(LostEvent::decode(lost).ok()?)),
            None => None,
        };
        Some(Self { time, uuid: place(answer, uuid), loss })
    }

    /// The flow's name in the bytes that this is the head of.
    pub(crate) fn uuid<'a>(&self, answer: &'a [u8]) -> &'a str {
        answer.get(self.uuid.clone()).and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default()
    }
}

/// What a sound Timestamp says beyond what is known: a message that comes twice is one with the fields of both.
fn merge(time: &mut Timestamp, mut encoded: &[u8]) {
    while let Some((number, value)) = field(&mut encoded) {
        match (number, value) {
            // Numbers below zero are the upper half of those above.
            (number::SECONDS, Value::Varint(seconds)) => time.seconds = seconds.cast_signed(),
            (number::NANOS, Value::Varint(nanos)) => time.nanos = (nanos as u32).cast_signed(),
            _ => {}
        }
    }
}

/// Where a part of some bytes stands in them.
fn place(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr());
    if part.is_empty() || start > whole.len() { 0..0 } else { start..start + part.len() }
}

#[cfg(test)]
pub(crate) mod tests;
