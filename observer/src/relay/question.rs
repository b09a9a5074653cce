//! The streaming requests that a relay sends to nodes, and what it must know about their answers.
//!
//! Flows are many, so they are forwarded as they came ([`Passed`]); events are few, and decoded. Neighbours: `fan/task.rs`
//! asks one node, `fan.rs` merges the answers of all of them.

use prost::Message;
use prost_types::Timestamp;
use sinew_api::proto::flow::LostEvent;
use sinew_api::proto::observer::get_flows_response::ResponseTypes;
use sinew_api::proto::observer::observer_client::ObserverClient;
use sinew_api::proto::observer::{
    GetAgentEventsRequest, GetAgentEventsResponse, GetDebugEventsRequest, GetDebugEventsResponse,
    GetFlowsRequest, GetFlowsResponse,
};
use sinew_api::proto::relay::NodeStatusEvent;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::passed::{Passed, PassedCodec};
use crate::encoded::EncodedAnswer;
use crate::service::GET_FLOWS;

/// Largest answer of a stream that is read, in bytes: a flow whose ends and policies have every label that Kubernetes lets
/// them have. A larger answer ends its stream, not the relay.
const LARGEST: usize = 256 << 10;

/// A streaming request of the Observer.
pub(super) trait Question: Clone + Send + Sync + 'static {
    /// What comes back from a node.
    type Answer: Send + 'static;
    /// What the client gets of it.
    type Given: Send + 'static;
    /// Asks a node.
    fn ask(
        &self,
        node: Channel,
    ) -> impl Future<Output = Result<Response<Streaming<Self::Answer>>, Status>> + Send;
    /// Whether it asks for what is yet to come.
    fn follows(&self) -> bool;
    /// Whether it asks for nothing after a moment, so that a node's answer ends also if it follows.
    fn has_end(&self) -> bool;
    /// The same question from there on.
    fn since(&self, time: Timestamp) -> Self;
    /// The same question for what is yet to come, by no clock.
    fn only_new(&self) -> Self;
    /// Whether it asks for what is yet to come and nothing else.
    fn wants_only_new(&self) -> bool;
    /// When an answer was seen.
    fn time(answer: &Self::Answer) -> Option<&Timestamp>;
    /// What makes an answer unlike all others; empty where it has nothing of that kind.
    fn id(answer: &Self::Answer) -> &str;
    /// Word of a loss, if the answer is one.
    fn loss(answer: &Self::Answer) -> Option<&LostEvent>;
    /// Word of a gap as an answer, where the answer has a place for it.
    fn gap(node: &str, lost: LostEvent) -> Option<Self::Answer>;
    /// An answer for the client, and its bytes.
    fn give(answer: Self::Answer) -> (Self::Given, usize);
    /// A node's state as an answer, where the answer has a place for it.
    fn status(relay: &str, event: NodeStatusEvent, time: Timestamp) -> Option<Self::Given>;
}

/// The fields that all of the requests have.
macro_rules! put_again {
    () => {
        fn follows(&self) -> bool {
            self.follow
        }

        fn has_end(&self) -> bool {
            !self.follow || self.until.is_some()
        }

        fn since(&self, time: Timestamp) -> Self {
            Self { since: Some(time), number: 0, first: false, ..self.clone() }
        }

        fn wants_only_new(&self) -> bool {
            self.follow && self.since.is_none() && self.number == 0
        }

        fn only_new(&self) -> Self {
            Self { since: None, number: 0, first: false, ..self.clone() }
        }
    };
}

impl Question for GetFlowsRequest {
    type Answer = Passed;
    type Given = EncodedAnswer;

    async fn ask(&self, node: Channel) -> Result<Response<Streaming<Passed>>, Status> {
        let mut client = Grpc::new(node).max_decoding_message_size(LARGEST);
        client.ready().await.map_err(|error| Status::unknown(format!("Service was not ready: {error}")))?;
        let path = PathAndQuery::from_static(GET_FLOWS);
        client.server_streaming(Request::new(self.clone()), path, PassedCodec).await
    }

    put_again!();

    fn time(answer: &Passed) -> Option<&Timestamp> {
        answer.time()
    }

    fn id(answer: &Passed) -> &str {
        answer.uuid()
    }

    fn loss(answer: &Passed) -> Option<&LostEvent> {
        answer.loss()
    }

    fn gap(node: &str, lost: LostEvent) -> Option<Passed> {
        Some(Passed::made(&GetFlowsResponse {
            node_name: node.to_owned(),
            time: lost.last,
            response_types: Some(ResponseTypes::LostEvents(lost)),
        }))
    }

    fn give(answer: Passed) -> (EncodedAnswer, usize) {
        let encoded = answer.into_encoded();
        let bytes = encoded.bytes().len();
        (encoded, bytes)
    }

    fn status(relay: &str, event: NodeStatusEvent, time: Timestamp) -> Option<EncodedAnswer> {
        Some(EncodedAnswer::of(&GetFlowsResponse {
            node_name: relay.to_owned(),
            time: Some(time),
            response_types: Some(ResponseTypes::NodeStatus(event)),
        }))
    }
}

/// Events: no names, and no place for what is said of nodes.
macro_rules! events {
    ($request:ty, $answer:ty, $call:ident) => {
        impl Question for $request {
            type Answer = $answer;
            type Given = $answer;

            async fn ask(&self, node: Channel) -> Result<Response<Streaming<$answer>>, Status> {
                let mut client = ObserverClient::new(node).max_decoding_message_size(LARGEST);
                client.$call(self.clone()).await
            }

            put_again!();

            fn time(answer: &$answer) -> Option<&Timestamp> {
                answer.time.as_ref()
            }

            fn id(_: &$answer) -> &str {
                ""
            }

            fn loss(_: &$answer) -> Option<&LostEvent> {
                None
            }

            fn gap(_: &str, _: LostEvent) -> Option<$answer> {
                None
            }

            fn give(answer: $answer) -> ($answer, usize) {
                let bytes = answer.encoded_len();
                (answer, bytes)
            }

            fn status(_: &str, _: NodeStatusEvent, _: Timestamp) -> Option<$answer> {
                None
            }
        }
    };
}

events!(GetAgentEventsRequest, GetAgentEventsResponse, get_agent_events);
events!(GetDebugEventsRequest, GetDebugEventsResponse, get_debug_events);
