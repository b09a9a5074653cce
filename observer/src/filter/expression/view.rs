//! A message as a CEL value: its fields by name, with proto3's defaults where nothing is set.
//!
//! An expression looks at three or four of the hundred and fifty fields that a flow has room for. So the message stays
//! encoded, and a field is looked for in the bytes when somebody asks for it. Neighbour: [`crate::wire`] reads fields.

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;

use cel::ExecutionError;
use cel::common::traits::Indexer;
use cel::common::types::{CelBool, CelBytes, CelDouble, CelInt, CelList, CelNull, CelString, CelUInt, Type};
use cel::common::value::{CowVal, StaticVal, Val};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use crate::wire::{self, Value};

/// In front of a field's name where the question is whether it is set; no field's name holds such a sign.
pub(super) const IS_SET: char = '?';

static MESSAGE: Type = Type::new_unspecified_type("sinew.Message");

/// One message; a copy is a reference.
#[derive(Clone, Debug)]
pub(super) struct MessageView {
    descriptor: MessageDescriptor,
    /// The flow that it is, or is a part of, as prost encodes it: nothing twice, and nothing that is not set.
    encoded: Arc<Vec<u8>>,
    /// Where in it the message stands; nowhere, if it is not set.
    place: Range<usize>,
}

/// A field as it is written: its value, and where in the flow the content of a text or a message stands.
type Written<'a> = (Value<'a>, Range<usize>);

impl MessageView {
    /// A message as prost encodes it.
    pub(super) fn new(descriptor: MessageDescriptor, encoded: Vec<u8>) -> Self {
        let place = 0..encoded.len();
        Self { descriptor, encoded: Arc::new(encoded), place }
    }

    fn content(&self) -> &[u8] {
        self.encoded.get(self.place.clone()).unwrap_or_default()
    }

    /// What is written of a field, in order.
    fn written(&self, field: &FieldDescriptor) -> impl Iterator<Item = Written<'_>> {
        let (number, mut rest) = (field.number(), self.content());
        let end = self.place.end;
        std::iter::from_fn(move || {
            loop {
                let (found, value) = wire::field(&mut rest)?;
                if found == number {
                    let length = if let Value::Bytes(content) = value { content.len() } else { 0 };
                    let end = end.saturating_sub(rest.len());
                    return Some((value, end.saturating_sub(length)..end));
                }
            }
        })
    }

    fn value<'v>(&self, field: &FieldDescriptor) -> Box<dyn Val + 'v> {
        let kind = field.kind();
        if field.is_list() {
            let items = self.written(field).map(|written| self.single(&kind, Some(written)));
            return Box::new(CelList::from(items.collect::<Vec<_>>()));
        }
        let written = self.written(field).last();
        // A wrapper is its value or null.
        if written.is_none() && is_wrapper(field) {
            return Box::new(CelNull);
        }
        self.single(&kind, written)
    }

    /// One value of a kind; the default, if it is not written.
    fn single<'v>(&self, kind: &Kind, written: Option<Written<'_>>) -> Box<dyn Val + 'v> {
        let (value, place) = written.unwrap_or((Value::Bytes(&[]), 0..0));
        let (number, content) = match value {
            Value::Varint(number) | Value::Fixed64(number) => (number, &[][..]),
            Value::Fixed32(number) => (u64::from(number), &[][..]),
            Value::Bytes(content) => (0, content),
        };
        match kind {
            Kind::Bool => Box::new(CelBool::from(number != 0)),
            // Of a number below zero the lower half says which.
            Kind::Int32 | Kind::Sfixed32 | Kind::Enum(_) => {
                Box::new(CelInt::from(i64::from((number as u32).cast_signed())))
            }
            Kind::Int64 | Kind::Sfixed64 => Box::new(CelInt::from(number.cast_signed())),
            Kind::Sint32 | Kind::Sint64 => {
                Box::new(CelInt::from((number >> 1).cast_signed() ^ -(number & 1).cast_signed()))
            }
            Kind::Uint32 | Kind::Uint64 | Kind::Fixed32 | Kind::Fixed64 => Box::new(CelUInt::from(number)),
            Kind::Float => Box::new(CelDouble::from(f64::from(f32::from_bits(number as u32)))),
            Kind::Double => Box::new(CelDouble::from(f64::from_bits(number))),
            Kind::String => {
                Box::new(CelString::from(std::str::from_utf8(content).unwrap_or_default().to_owned()))
            }
            Kind::Bytes => Box::new(CelBytes::from(content.to_vec())),
            Kind::Message(inner) => {
                let view = Self { descriptor: inner.clone(), encoded: Arc::clone(&self.encoded), place };
                match inner.get_field_by_name("value") {
                    Some(value) if inner.full_name().starts_with("google.protobuf.") => view.value(&value),
                    _ => Box::new(view),
                }
            }
        }
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
        // prost writes the same message in the same manner.
        other
            .downcast_ref::<Self>()
            .is_some_and(|other| self.descriptor == other.descriptor && self.content() == other.content())
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
        let field = self.descriptor.get_field_by_name(name).ok_or_else(missing)?;
        if must_be_set && self.written(&field).next().is_none() {
            return Err(missing());
        }
        Ok(CowVal::Owned(self.value(&field)))
    }

    fn steal<'v>(self: Box<Self>, index: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(index).map(CowVal::into_owned)
    }
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

#[cfg(test)]
mod tests;
