//! A message as a CEL value: its fields by name, with proto3's defaults where nothing is set.

use std::any::Any;
use std::sync::Arc;

use cel::ExecutionError;
use cel::common::traits::Indexer;
use cel::common::types::{CelBool, CelBytes, CelDouble, CelInt, CelList, CelNull, CelString, CelUInt, Type};
use cel::common::value::{CowVal, StaticVal, Val};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, ReflectMessage, Value};

/// In front of a field's name where the question is whether it is set; no field's name holds such a sign.
pub(super) const IS_SET: char = '?';

static MESSAGE: Type = Type::new_unspecified_type("sinew.Message");

/// One message; a copy is a reference.
#[derive(Clone, Debug)]
pub(super) struct MessageView(Arc<DynamicMessage>);

impl MessageView {
    pub(super) fn new(message: DynamicMessage) -> Self {
        Self(Arc::new(message))
    }
}

impl Val for MessageView {
    fn get_type(&self) -> &Type {
        &MESSAGE
    }

    fn cel_type() -> &'static Type {
        &MESSAGE
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn equals(&self, other: &dyn Val) -> bool {
        other.downcast_ref::<Self>().is_some_and(|other| self.0 == other.0)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for MessageView {}

impl Indexer for MessageView {
    fn get<'b, 'v>(&'b self, index: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let key = index.downcast_ref::<CelString>().map(CelString::inner).unwrap_or_default();
        let (name, must_be_set) = key.strip_prefix(IS_SET).map_or((key, false), |name| (name, true));
        let missing = || ExecutionError::no_such_key(name);
        let field = self.0.descriptor().get_field_by_name(name).ok_or_else(missing)?;
        if must_be_set && !self.0.has_field(&field) {
            return Err(missing());
        }
        Ok(CowVal::Owned(field_value(&self.0, &field)))
    }

    fn steal<'v>(self: Box<Self>, index: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(index).map(CowVal::into_owned)
    }
}

fn field_value<'v>(message: &DynamicMessage, field: &FieldDescriptor) -> Box<dyn Val + 'v> {
    // A wrapper is its value or null.
    if is_wrapper(field) && !message.has_field(field) {
        return Box::new(CelNull);
    }
    value(&message.get_field(field))
}

/// `google.protobuf.BoolValue` and the like.
pub(super) fn is_wrapper(field: &FieldDescriptor) -> bool {
    match field.kind() {
        Kind::Message(message) => {
            let name = message.full_name();
            !field.is_list()
                && name.starts_with("google.protobuf.")
                && name.ends_with("Value")
                && name != "google.protobuf.Value"
        }
        _ => false,
    }
}

fn value<'v>(value_: &Value) -> Box<dyn Val + 'v> {
    match value_ {
        Value::Bool(it) => Box::new(CelBool::from(*it)),
        Value::I32(it) | Value::EnumNumber(it) => Box::new(CelInt::from(i64::from(*it))),
        Value::I64(it) => Box::new(CelInt::from(*it)),
        Value::U32(it) => Box::new(CelUInt::from(u64::from(*it))),
        Value::U64(it) => Box::new(CelUInt::from(*it)),
        Value::F32(it) => Box::new(CelDouble::from(f64::from(*it))),
        Value::F64(it) => Box::new(CelDouble::from(*it)),
        Value::String(it) => Box::new(CelString::from(it.clone())),
        Value::Bytes(it) => Box::new(CelBytes::from(it.to_vec())),
        Value::Message(it) => match it.descriptor().get_field_by_name("value") {
            Some(inner) if it.descriptor().full_name().starts_with("google.protobuf.") => {
                value(&it.get_field(&inner))
            }
            _ => Box::new(MessageView::new(it.clone())),
        },
        Value::List(items) => {
            Box::new(CelList::from(items.iter().map(value).collect::<Vec<Box<dyn Val + 'v>>>()))
        }
        // The schema has no map.
        Value::Map(_) => Box::new(CelNull),
    }
}
