//! Answers of `GetFlows` as nodes send them: looked at, and decoded only where they are not what they should be.
//!
//! Sound answers are forwarded as they came. All others are decoded, so that one that nobody can read is an error of its
//! node and ends no client's stream, and fields that this program does not know are left out. Neighbours:
//! [`crate::encoded`] distinguishes the two, `question.rs` asks.

use prost::Message;
use prost::bytes::Buf;
use prost_types::Timestamp;
use sinew_api::proto::flow::LostEvent;
use sinew_api::proto::observer::{GetFlowsRequest, GetFlowsResponse};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::encoded::{EncodedAnswer, Head};

/// An answer that is handed on.
#[derive(Clone, Debug)]
pub(super) struct Passed {
    encoded: EncodedAnswer,
    head: Head,
}

impl Passed {
    /// An answer as a node sent it.
    pub(super) fn read(answer: &[u8]) -> Result<Self, Status> {
        if let Some(head) = Head::of(answer) {
            // A copy: a slice of what was received would keep all of it in memory while this waits for other nodes.
            return Ok(Self { encoded: EncodedAnswer::from_sound(answer), head });
        }
        let decoded =
            GetFlowsResponse::decode(answer).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Self::made(&decoded))
    }

    /// An answer of the relay's own, or one that was decoded.
    pub(super) fn made(answer: &GetFlowsResponse) -> Self {
        let encoded = EncodedAnswer::of(answer);
        // What prost encodes is sound; one that were not would still be handed on, ordered by when it came.
        let head = Head::of(encoded.bytes()).unwrap_or_default();
        Self { encoded, head }
    }

    pub(super) fn time(&self) -> Option<&Timestamp> {
        self.head.time.as_ref()
    }

    /// The flow's name; empty where there is none.
    pub(super) fn uuid(&self) -> &str {
        self.head.uuid(self.encoded.bytes())
    }

    pub(super) fn loss(&self) -> Option<&LostEvent> {
        self.head.loss.as_deref()
    }

    pub(super) fn into_encoded(self) -> EncodedAnswer {
        self.encoded
    }
}

/// Requests out, answers in.
pub(super) struct PassedCodec;

impl Codec for PassedCodec {
    type Encode = GetFlowsRequest;
    type Decode = Passed;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for PassedCodec {
    type Item = GetFlowsRequest;
    type Error = Status;

    fn encode(&mut self, request: GetFlowsRequest, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        request.encode(to).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for PassedCodec {
    type Item = Passed;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Passed>, Status> {
        let whole = from.remaining();
        let read = match from.chunk().get(..whole) {
            Some(answer) => Passed::read(answer),
            None => Passed::read(&from.copy_to_bytes(whole)),
        };
        from.advance(from.remaining());
        read.map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field that this program has none for is left out, as by a relay that decodes everything.
    #[test]
    fn what_nobody_here_knows_is_left_out_and_the_rest_goes_on() {
        let time = Some(Timestamp { seconds: 3, nanos: 4 });
        let answer = GetFlowsResponse { node_name: "default/a".into(), time, ..GetFlowsResponse::default() };
        let known = answer.encode_to_vec();
        let passed = Passed::read(&known).expect("an answer");
        assert_eq!((passed.encoded.bytes(), passed.time()), (known.as_slice(), time.as_ref()));
        let newer = [known.as_slice(), &[0xa2, 0x06, 1, 0xff]].concat();
        let passed = Passed::read(&newer).expect("an answer with a field 100");
        assert_eq!((passed.encoded.bytes(), passed.time()), (known.as_slice(), time.as_ref()));
    }

    #[test]
    fn what_nobody_can_read_is_an_error() {
        for answer in [&[0xc2, 0x3e, 1, 0xff][..], &[0x0a], &[0x0b], &[0x0a, 2, 0x10, 0x80]] {
            assert!(Passed::read(answer).is_err(), "{answer:?}");
        }
    }
}
