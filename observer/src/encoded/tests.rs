//! Random answers, whole and damaged: what is taken for sound is what prost reads, and says the same.

use proptest::prelude::*;
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MessageDescriptor, Value as Field};
use sinew_api::proto::FILE_DESCRIPTOR_SET;
use sinew_api::proto::flow::{Endpoint, Flow, LostEventSource};
use sinew_api::proto::observer::get_flows_response::ResponseTypes;
use sinew_api::proto::relay::NodeStatusEvent;

use super::*;

static POOL: std::sync::LazyLock<DescriptorPool> =
    std::sync::LazyLock::new(|| DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the descriptors decode"));

/// Makes messages of the schema out of random bytes.
struct Maker<'a>(std::slice::Iter<'a, u8>);

impl Maker<'_> {
    /// The next random byte; 255 when there is none left.
    fn next(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(u8::MAX)
    }

    fn number(&mut self) -> u64 {
        let few = self.next();
        match few % 4 {
            0 => 0,
            1 => u64::from(few),
            2 => u64::from(few) << 40,
            _ => u64::MAX - u64::from(few),
        }
    }

    fn text(&mut self) -> String {
        const TEXTS: [&str; 6] = ["", "a", "k8s:app=web", "\u{e9}", "\u{1f980} and more", "\0"];
        TEXTS[usize::from(self.next()) % TEXTS.len()].to_owned()
    }

    /// Every field is set as often as not, as long as there are bytes.
    fn message(&mut self, descriptor: &MessageDescriptor) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        // One member of the answer's oneof, and a flow more often than the others.
        let member = if descriptor.name() == "GetFlowsResponse" {
            [1, 1, 1, 2, 3][usize::from(self.next()) % 5]
        } else {
            0
        };
        for field in descriptor.fields() {
            let dice = self.next();
            let is_other = member > 0 && field.number() <= number::LOST_EVENTS && field.number() != member;
            if dice == u8::MAX || is_other || (dice % 2 == 1 && field.number() != member) {
                continue;
            }
            if !field.is_list() {
                message.set_field(&field, self.value(&field.kind()));
                continue;
            }
            let items = (0..dice % 3).map(|_| self.value(&field.kind())).collect();
            message.set_field(&field, Field::List(items));
        }
        message
    }

    fn value(&mut self, kind: &Kind) -> Field {
        match kind {
            Kind::Message(inner) => Field::Message(self.message(inner)),
            Kind::String => Field::String(self.text()),
            Kind::Bytes => Field::Bytes(self.text().into_bytes().into()),
            Kind::Bool => Field::Bool(self.next().is_multiple_of(2)),
            Kind::Enum(_) => Field::EnumNumber((self.number() as u32).cast_signed()),
            Kind::Int32 => Field::I32((self.number() as u32).cast_signed()),
            Kind::Int64 => Field::I64(self.number().cast_signed()),
            Kind::Uint32 => Field::U32(self.number() as u32),
            Kind::Uint64 => Field::U64(self.number()),
            other => panic!("the schema of flows has no {other:?}"),
        }
    }
}

/// A flow out of random bytes.
pub(crate) fn flow(random: &[u8]) -> Flow {
    let descriptor = POOL.get_message_by_name("flow.Flow").expect("the schema has it");
    let encoded = Maker(random.iter()).message(&descriptor).encode_to_vec();
    Flow::decode(encoded.as_slice()).expect("a message of the schema")
}

/// An encoded answer out of random bytes.
fn answer(random: &[u8]) -> Vec<u8> {
    let descriptor = POOL.get_message_by_name("observer.GetFlowsResponse").expect("the schema has it");
    Maker(random.iter()).message(&descriptor).encode_to_vec()
}

/// What a relay took from a decoded answer.
fn decoded(answer: &GetFlowsResponse) -> (Option<Timestamp>, String, Option<LostEvent>) {
    let (uuid, loss) = match &answer.response_types {
        Some(ResponseTypes::Flow(flow)) => (flow.uuid.clone(), None),
        Some(ResponseTypes::LostEvents(lost)) => (String::new(), Some(*lost)),
        _ => (String::new(), None),
    };
    (answer.time, uuid, loss)
}

fn looked_at(bytes: &[u8]) -> Option<(Option<Timestamp>, String, Option<LostEvent>)> {
    let head = Head::of(bytes)?;
    Some((head.time, head.uuid(bytes).to_owned(), head.loss.map(|loss| *loss)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_encoded_of_the_schema_is_handed_on_and_its_head_is_right(random in proptest::collection::vec(any::<u8>(), 0..600)) {
        let bytes = answer(&random);
        let whole = GetFlowsResponse::decode(bytes.as_slice()).expect("a message of the schema");
        prop_assert_eq!(looked_at(&bytes), Some(decoded(&whole)));
        // prost writes in an order of its own.
        prop_assert_eq!(looked_at(EncodedAnswer::of(&whole).bytes()), Some(decoded(&whole)));
    }

    #[test]
    fn what_is_damaged_is_not_handed_on_unless_everybody_reads_it(
        random in proptest::collection::vec(any::<u8>(), 0..300),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4), 1..4),
        joined in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..100)),
    ) {
        let mut bytes = answer(&random);
        // Two messages in a row are one.
        bytes.extend(joined.map(|random| answer(&random)).unwrap_or_default());
        for (place, byte, manner) in damage {
            if bytes.is_empty() {
                break;
            }
            let at = place.index(bytes.len());
            match manner {
                0 => bytes[at] = byte,
                1 => bytes[at] ^= 1 << (byte % 8),
                2 => bytes.truncate(at),
                _ => bytes.insert(at, byte),
            }
        }
        if let Some(head) = looked_at(&bytes) {
            let whole = GetFlowsResponse::decode(bytes.as_slice()).expect("what is sound decodes");
            prop_assert_eq!(head, decoded(&whole));
            // Nothing is in it that decoding leaves out: no field that we don't know.
            let descriptor = POOL.get_message_by_name("observer.GetFlowsResponse").expect("the schema has it");
            let dynamic = DynamicMessage::decode(descriptor, bytes.as_slice()).expect("what is sound decodes");
            prop_assert_eq!(dynamic.unknown_fields().count(), 0);
        }
    }
}

fn sample() -> GetFlowsResponse {
    let source = Endpoint { labels: vec!["k8s:app=web".into()], ..Endpoint::default() };
    let flow = Flow { uuid: "u".into(), source: Some(source), ..Flow::default() };
    GetFlowsResponse {
        node_name: "default/a".into(),
        time: Some(Timestamp { seconds: 7, nanos: 9 }),
        response_types: Some(ResponseTypes::Flow(flow)),
    }
}

#[test]
fn the_numbers_are_those_of_the_schema() {
    let number = |message: &str, field: &str| {
        let message = POOL.get_message_by_name(message).expect("the schema has it");
        message.get_field_by_name(field).expect("the message has it").number()
    };
    let of_answer = |field| number("observer.GetFlowsResponse", field);
    assert_eq!(of_answer("flow"), number::FLOW);
    assert_eq!(of_answer("node_status"), number::NODE_STATUS);
    assert_eq!(of_answer("lost_events"), number::LOST_EVENTS);
    assert_eq!(of_answer("node_name"), number::NODE_NAME);
    assert_eq!(of_answer("time"), number::TIME);
    assert_eq!(number("flow.Flow", "uuid"), number::UUID);
    assert_eq!(number("google.protobuf.Timestamp", "seconds"), number::SECONDS);
    assert_eq!(number("google.protobuf.Timestamp", "nanos"), number::NANOS);
    let descriptor = POOL.get_message_by_name("observer.GetFlowsResponse").expect("the schema has it");
    assert_eq!(descriptor.fields().count(), 5, "a new field is looked at here first");
}

/// Places where a message may hold what another reader refuses, or we would have dropped.
#[test]
fn what_some_reader_refuses_is_not_sound() {
    let whole = sample().encode_to_vec();
    assert!(Head::of(&whole).is_some());
    let with = |more: &[u8]| [whole.as_slice(), more].concat();
    for (what, bytes) in [
        ("a node name that is no UTF-8", with(&[0xc2, 0x3e, 1, 0xff])),
        ("a label that is no UTF-8", {
            let mut bytes = whole.clone();
            let at = bytes.windows(3).position(|part| part == b"web").expect("the label");
            bytes[at] = 0xc0;
            bytes
        }),
        ("a field that nobody knows", with(&[0x20, 1])),
        ("a field of another kind", with(&[0xc0, 0x3e, 1])),
        ("a second member of the oneof", with(&[0x1a, 0])),
        ("half a field", with(&[0xc2])),
        ("a group", with(&[0x23, 0x24])),
    ] {
        assert_eq!(Head::of(&bytes), None, "{what}");
    }
    // What readers agree on: a singular field twice is the last one, a message twice is both in one.
    let twice = with(&[0xc2, 0x3e, 1, b'b', 0xca, 0x3e, 2, 0x10, 5]);
    let head = Head::of(&twice).expect("sound");
    assert_eq!(head.time, Some(Timestamp { seconds: 7, nanos: 5 }));
    assert_eq!(head.time, GetFlowsResponse::decode(twice.as_slice()).expect("a message").time);
}

#[test]
fn losses_and_states_are_known() {
    let lost = LostEvent {
        source: LostEventSource::HubbleRingBuffer.into(),
        num_events_lost: 3,
        cpu: Some(1),
        ..LostEvent::default()
    };
    let answer = |response| {
        let answer = GetFlowsResponse { response_types: Some(response), ..sample() };
        looked_at(EncodedAnswer::of(&answer).bytes()).expect("sound")
    };
    let time = sample().time;
    assert_eq!(answer(ResponseTypes::LostEvents(lost)), (time, String::new(), Some(lost)));
    let state = NodeStatusEvent { node_names: vec!["default/a".into()], ..NodeStatusEvent::default() };
    assert_eq!(answer(ResponseTypes::NodeStatus(state)), (time, String::new(), None));
    assert_eq!(looked_at(&[]), Some((None, String::new(), None)), "an empty answer is one");
}
