//! Views of random flows against the same messages decoded whole.

use proptest::prelude::*;
use prost::Message;
use prost_reflect::{DynamicMessage, ReflectMessage, Value as Whole};

use super::super::message;
use super::*;
use crate::encoded::tests::flow;

/// What an expression gets of a field, by the decoded message.
fn expected<'v>(field: &FieldDescriptor, message: &DynamicMessage) -> Box<dyn Val + 'v> {
    if is_wrapper(field) && !message.has_field(field) {
        return Box::new(CelNull);
    }
    value(&message.get_field(field))
}

fn value<'v>(whole: &Whole) -> Box<dyn Val + 'v> {
    match whole {
        Whole::Bool(it) => Box::new(CelBool::from(*it)),
        Whole::I32(it) | Whole::EnumNumber(it) => Box::new(CelInt::from(i64::from(*it))),
        Whole::I64(it) => Box::new(CelInt::from(*it)),
        Whole::U32(it) => Box::new(CelUInt::from(u64::from(*it))),
        Whole::U64(it) => Box::new(CelUInt::from(*it)),
        Whole::F32(it) => Box::new(CelDouble::from(f64::from(*it))),
        Whole::F64(it) => Box::new(CelDouble::from(*it)),
        Whole::String(it) => Box::new(CelString::from(it.clone())),
        Whole::Bytes(it) => Box::new(CelBytes::from(it.to_vec())),
        Whole::Message(it) => match it.descriptor().get_field_by_name("value") {
            Some(inner) if it.descriptor().full_name().starts_with("google.protobuf.") => {
                value(&it.get_field(&inner))
            }
            // What it encodes is what it is; its fields are compared one by one below.
            _ => Box::new(MessageView::new(it.descriptor(), it.encode_to_vec())),
        },
        Whole::List(items) => Box::new(CelList::from(items.iter().map(value).collect::<Vec<_>>())),
        Whole::Map(_) => panic!("the schema has no map"),
    }
}

/// Asks for every field of a message and of those within it.
fn compare(view: &MessageView, message: &DynamicMessage) {
    for field in message.descriptor().fields() {
        let name = field.full_name().to_owned();
        let get = |key: String| view.get(&CelString::from(key)).map(CowVal::into_owned);
        let is_set = get(format!("{IS_SET}{}", field.name())).is_ok();
        assert_eq!(is_set, message.has_field(&field), "whether {name} is set");
        let got = get(field.name().to_owned()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let wanted = expected(&field, message);
        assert!(
            got.equals(wanted.as_ref()) && wanted.equals(got.as_ref()),
            "{name}: {got:?}, not {wanted:?}"
        );
        assert_eq!(got.get_type().name(), wanted.get_type().name(), "{name}");
        let views: Vec<&MessageView> = match got.downcast_ref::<CelList>() {
            Some(list) => list.inner().iter().filter_map(|item| item.downcast_ref()).collect(),
            None => got.downcast_ref().into_iter().collect(),
        };
        let whole = message.get_field(&field);
        let messages: Vec<&DynamicMessage> = match whole.as_list() {
            Some(items) => items.iter().filter_map(Whole::as_message).collect(),
            None => whole.as_message().into_iter().collect(),
        };
        for (view, message) in views.into_iter().zip(messages) {
            compare(view, message);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_field_is_what_it_is_in_the_decoded_flow(random in proptest::collection::vec(any::<u8>(), 0..800)) {
        let flow = flow(&random);
        let mut whole = DynamicMessage::new(message("flow.Flow"));
        whole.transcode_from(&flow).expect("of the same schema");
        compare(&MessageView::new(message("flow.Flow"), flow.encode_to_vec()), &whole);
    }
}

/// Kinds of field that the code here has no case for.
#[test]
fn a_flow_has_no_maps_and_no_lists_of_numbers() {
    let mut seen = Vec::new();
    let mut ahead = vec![message("flow.Flow")];
    while let Some(descriptor) = ahead.pop() {
        for field in descriptor.fields() {
            let is_number = !matches!(field.kind(), Kind::Message(_) | Kind::String | Kind::Bytes);
            assert!(!(field.is_map() || field.is_list() && is_number), "{}", field.full_name());
            if let Kind::Message(inner) = field.kind()
                && !seen.contains(&inner)
            {
                seen.push(inner.clone());
                ahead.push(inner);
            }
        }
    }
    assert!(seen.len() > 20, "{}", seen.len());
}
