//! Messages that nobody makes or reads: encoded once and sent many times, counted by their first byte and not decoded.

use std::sync::Arc;

use prost::Message;
use prost::bytes::{Buf, BufMut};
use sinew_api::proto::observer::{GetFlowsRequest, GetFlowsResponse};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// A node's side: requests are passed over, answers are bytes and what belongs behind them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Playing;

/// The client's side: answers are passed over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counting;

/// An answer in two parts, which protobuf reads as one message.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// What is the same in all answers of a node.
    pub(super) same: Arc<[u8]>,
    /// What is not.
    pub(super) own: GetFlowsResponse,
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It brings a flow.
    Flow,
    /// A node's state, word of a loss, or a request.
    Other,
}

/// Passes a message over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Skip;

/// How an answer with a flow begins: its fields stand in the order of their numbers, and the flow's is 1.
const FLOW: u8 = 1 << 3 | 2;

impl Decoder for Skip {
    type Item = Kind;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Kind>, Status> {
        let kind = if from.chunk().first() == Some(&FLOW) { Kind::Flow } else { Kind::Other };
        from.advance(from.remaining());
        Ok(Some(kind))
    }
}

/// Writes an [`Answer`].
#[derive(Clone, Copy, Debug)]
pub(super) struct WriteAnswer;

impl Encoder for WriteAnswer {
    type Item = Answer;
    type Error = Status;

    fn encode(&mut self, answer: Answer, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&answer.same);
        answer.own.encode(to).map_err(|error| Status::internal(error.to_string()))
    }
}

/// Writes a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct WriteRequest;

impl Encoder for WriteRequest {
    type Item = GetFlowsRequest;
    type Error = Status;

    fn encode(&mut self, request: GetFlowsRequest, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        request.encode(to).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Codec for Playing {
    type Encode = Answer;
    type Decode = Kind;
    type Encoder = WriteAnswer;
    type Decoder = Skip;

    fn encoder(&mut self) -> WriteAnswer {
        WriteAnswer
    }

    fn decoder(&mut self) -> Skip {
        Skip
    }
}

impl Codec for Counting {
    type Encode = GetFlowsRequest;
    type Decode = Kind;
    type Encoder = WriteRequest;
    type Decoder = Skip;

    fn encoder(&mut self) -> WriteRequest {
        WriteRequest
    }

    fn decoder(&mut self) -> Skip {
        Skip
    }
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::super::super::sample;
    use super::*;

    #[test]
    fn an_answer_with_a_flow_is_known_by_its_first_byte() {
        let answer = sample::answer(0, "default/a", Timestamp::default());
        assert_eq!(answer.encode_to_vec().first(), Some(&FLOW));
        let other = GetFlowsResponse { response_types: None, ..answer };
        assert_ne!(other.encode_to_vec().first(), Some(&FLOW));
    }
}
