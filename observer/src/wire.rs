//! Encoded messages, looked at without decoding them: whether all that is in them is what our schema says.
//!
//! A relay forwards what nodes encoded. A client that can't read one answer ends its stream, and loses the answers of all
//! other nodes. So bytes are called sound here only if every reader accepts them: known fields of the right type, strings in
//! UTF-8, nested messages likewise, keys and lengths in their shortest form (some readers demand that). Bytes that are not
//! sound may still be valid, such as a field of a newer version: the caller decodes them. Nothing is allocated, and nothing
//! that comes from outside is used as an index. Neighbour: [`crate::encoded`] says what to do with which bytes.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FileDescriptorSet};
use sinew_api::proto::FILE_DESCRIPTOR_SET;

/// Deepest nesting of messages. The schema's own has six, unless a message is added that contains itself.
const DEEPEST: u8 = 32;
/// Field numbers that are looked up by index; the few larger ones are searched for.
const LOW: u32 = 64;

/// The schema of everything that is served.
pub(crate) static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::new);

/// What follows a field's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// A number of variable length.
    Varint(u64),
    /// Eight bytes, as a number.
    Fixed64(u64),
    /// Four bytes, as a number.
    Fixed32(u32),
    /// A text, bytes, or a message.
    Bytes(&'a [u8]),
}

/// What a field may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Not a field of ours, or one that can be encoded in more than one way.
    Unknown,
    Varint,
    Fixed64,
    Fixed32,
    Text,
    Bytes,
    Message(Shape),
}

/// A message of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape(u16);

/// The fields of one message.
#[derive(Debug)]
struct Fields {
    /// By number, those below [`LOW`].
    low: Vec<Kind>,
    high: Vec<(u32, Kind)>,
}

/// Messages and their fields.
#[derive(Debug)]
pub(crate) struct Schema {
    messages: Vec<Fields>,
    /// `observer.GetFlowsResponse`.
    pub(crate) answer: Shape,
    /// `flow.Flow`.
    pub(crate) flow: Shape,
}

impl Schema {
    fn new() -> Self {
        let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("the committed descriptors decode");
        let mut described = BTreeMap::new();
        for file in &set.file {
            for message in &file.message_type {
                gather(&format!(".{}", file.package()), message, &mut described);
            }
        }
        let numbered = (0_u16..).map(Shape).zip(described.keys());
        let shapes: BTreeMap<&str, Shape> = numbered.map(|(shape, name)| (name.as_str(), shape)).collect();
        let shape = |name: &str| *shapes.get(name).expect("the committed descriptors have it");
        let (answer, flow) = (shape(".observer.GetFlowsResponse"), shape(".flow.Flow"));
        let messages = described.values().map(|message| Fields::of(message, &shapes)).collect();
        Self { messages, answer, flow }
    }

    /// Whether a message is sound. Reports every field on the way, with the message that it belongs to; these reports mean
    /// nothing if the message turns out not to be sound.
    pub(crate) fn is_sound<'a>(
        &self,
        shape: Shape,
        message: &'a [u8],
        seen: &mut impl FnMut(Shape, u32, Value<'a>),
    ) -> bool {
        self.walk(shape, message, DEEPEST, seen)
    }

    fn walk<'a>(
        &self,
        shape: Shape,
        mut rest: &'a [u8],
        deepest: u8,
        seen: &mut impl FnMut(Shape, u32, Value<'a>),
    ) -> bool {
        let (Some(fields), Some(deepest)) = (self.messages.get(usize::from(shape.0)), deepest.checked_sub(1))
        else {
            return false;
        };
        while !rest.is_empty() {
            let Some((number, value)) = field(&mut rest) else { return false };
            let fits = match (fields.kind(number), value) {
                (Kind::Varint, Value::Varint(_))
                | (Kind::Fixed64, Value::Fixed64(_))
                | (Kind::Fixed32, Value::Fixed32(_))
                | (Kind::Bytes, Value::Bytes(_)) => true,
                (Kind::Text, Value::Bytes(text)) => std::str::from_utf8(text).is_ok(),
                (Kind::Message(inner), Value::Bytes(message)) => self.walk(inner, message, deepest, seen),
                _ => false,
            };
            if !fits {
                return false;
            }
            seen(shape, number, value);
        }
        true
    }
}

/// All messages by their full names.
fn gather<'a>(
    scope: &str,
    message: &'a DescriptorProto,
    described: &mut BTreeMap<String, &'a DescriptorProto>,
) {
    let name = format!("{scope}.{}", message.name());
    for nested in &message.nested_type {
        gather(&name, nested, described);
    }
    described.insert(name, message);
}

impl Fields {
    fn of(message: &DescriptorProto, shapes: &BTreeMap<&str, Shape>) -> Self {
        let (mut low, mut high) = (Vec::new(), Vec::new());
        for field in &message.field {
            let kind = match field.r#type() {
                Type::String => Kind::Text,
                Type::Bytes => Kind::Bytes,
                Type::Message => {
                    shapes.get(field.type_name()).map_or(Kind::Unknown, |shape| Kind::Message(*shape))
                }
                // Repeated numbers may be packed behind one key or have a key each.
                _ if field.label() == Label::Repeated => Kind::Unknown,
                Type::Group => Kind::Unknown,
                Type::Double | Type::Fixed64 | Type::Sfixed64 => Kind::Fixed64,
                Type::Float | Type::Fixed32 | Type::Sfixed32 => Kind::Fixed32,
                Type::Int32 | Type::Int64 | Type::Uint32 | Type::Uint64 => Kind::Varint,
                Type::Sint32 | Type::Sint64 | Type::Bool | Type::Enum => Kind::Varint,
            };
            let number = u32::try_from(field.number()).unwrap_or(0);
            if number >= LOW {
                high.push((number, kind));
                continue;
            }
            let index = number as usize;
            if low.len() <= index {
                low.resize(index + 1, Kind::Unknown);
            }
            low[index] = kind;
        }
        Self { low, high }
    }

    fn kind(&self, number: u32) -> Kind {
        if number < LOW {
            return self.low.get(number as usize).copied().unwrap_or(Kind::Unknown);
        }
        self.high.iter().find(|(known, _)| *known == number).map_or(Kind::Unknown, |(_, kind)| *kind)
    }
}

/// Takes the next field off an encoded message. `None` if there is none, or a group, which proto3 does not have.
#[inline]
pub(crate) fn field<'a>(rest: &mut &'a [u8]) -> Option<(u32, Value<'a>)> {
    let key = u32::try_from(short(rest)?).ok()?;
    let number = key >> 3;
    if number == 0 {
        return None;
    }
    let value = match key & 7 {
        0 => Value::Varint(varint(rest)?.0),
        1 => Value::Fixed64(u64::from_le_bytes(take(rest, 8)?.try_into().ok()?)),
        2 => {
            let length = usize::try_from(short(rest)?).ok()?;
            Value::Bytes(take(rest, length)?)
        }
        5 => Value::Fixed32(u32::from_le_bytes(take(rest, 4)?.try_into().ok()?)),
        _ => return None,
    };
    Some((number, value))
}

#[inline]
fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

/// A number in its shortest form.
#[inline]
fn short(rest: &mut &[u8]) -> Option<u64> {
    let (value, is_shortest) = varint(rest)?;
    is_shortest.then_some(value)
}

/// A number of variable length, and whether this is its shortest form.
#[inline]
fn varint(rest: &mut &[u8]) -> Option<(u64, bool)> {
    // Keys and lengths have two bytes at most, with few exceptions: with these cases first, and all of it inlined, a relay
    // needs a fifth less time for a flow.
    match **rest {
        [one, ref left @ ..] if one < 0x80 => {
            *rest = left;
            Some((u64::from(one), true))
        }
        [low, high, ref left @ ..] if high < 0x80 => {
            *rest = left;
            Some((u64::from(low & 0x7f) | u64::from(high) << 7, high != 0))
        }
        _ => long_varint(rest),
    }
}

fn long_varint(rest: &mut &[u8]) -> Option<(u64, bool)> {
    let bytes = *rest;
    let mut value = 0;
    for (index, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            // Only one bit of the tenth byte is left.
            if index == 9 && *byte > 1 {
                return None;
            }
            *rest = bytes.get(index + 1..)?;
            return Some((value, index == 0 || *byte != 0));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Option<(u32, Value<'_>)> {
        let mut rest = bytes;
        field(&mut rest).filter(|_| rest.is_empty())
    }

    #[test]
    fn fields_are_taken_whole_or_not_at_all() {
        assert_eq!(
            read(&[0x08, 0x96, 0x01]),
            Some((1, Value::Varint(150))),
            "the example of protobuf's documentation"
        );
        assert_eq!(read(&[0x12, 2, b'h', b'i']), Some((2, Value::Bytes(b"hi"))));
        assert_eq!(read(&[0x0d, 1, 2, 3, 4]), Some((1, Value::Fixed32(0x0403_0201))));
        assert_eq!(read(&[0x09, 1, 0, 0, 0, 0, 0, 0, 8]), Some((1, Value::Fixed64(0x0800_0000_0000_0001))));
        let largest = [0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(read(&largest), Some((1, Value::Varint(u64::MAX))));
        for (what, bytes) in [
            ("nothing", &[][..]),
            ("a key without a value", &[0x08]),
            ("a value that goes on", &[0x08, 0x80]),
            ("a text that is shorter than it says", &[0x12, 3, b'h', b'i']),
            (
                "a length that no memory has",
                &[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            ),
            (
                "a number of more than 64 bits",
                &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
            ),
            ("field 0", &[0x00, 1]),
            ("a key of more than 32 bits", &[0x88, 0x80, 0x80, 0x80, 0x10, 1]),
            ("a longer key than needed", &[0x88, 0x00, 1]),
            ("a longer length than needed", &[0x12, 0x81, 0x00, b'h']),
            ("a group", &[0x0b, 0x0c]),
            ("a kind that there is none of", &[0x0e]),
        ] {
            assert_eq!(read(bytes), None, "{what}");
        }
    }

    /// What stands in an answer is what the tables here say of it.
    #[test]
    fn the_shapes_are_those_of_the_schema() {
        let kind = |shape: Shape, number| SCHEMA.messages[usize::from(shape.0)].kind(number);
        assert_eq!(kind(SCHEMA.answer, 1), Kind::Message(SCHEMA.flow));
        assert_eq!(kind(SCHEMA.answer, 1000), Kind::Text);
        assert_eq!(kind(SCHEMA.answer, 4), Kind::Unknown);
        assert_eq!(kind(SCHEMA.flow, 2), Kind::Varint, "an enum");
        assert_eq!(kind(SCHEMA.flow, 34), Kind::Text);
        assert_eq!(kind(SCHEMA.flow, 7), Kind::Unknown, "reserved");
        assert_eq!(kind(SCHEMA.flow, 100_000), Kind::Text);
        assert!(matches!(kind(SCHEMA.flow, 150_000), Kind::Message(_)));
    }
}
