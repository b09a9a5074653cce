//! Field masks: only the fields of `flow.Flow` that a client asked for.
//!
//! A mask works on the encoded answer: it walks the fields by number and keeps those on a path. So every field of the
//! schema can be masked, nested ones too, without a line of code for each. Time and node of the answer stay, whatever the
//! mask says of the flow's own. A path is checked against the descriptors when the request comes.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldMask, FileDescriptorSet};
use sinew_api::proto::FILE_DESCRIPTOR_SET;
use thiserror::Error;

use crate::encoded::{EncodedAnswer, number};

/// Paths in a mask; the schema has ≈ 150.
const MOST_PATHS: usize = 512;

/// A mask that can't be applied.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum MaskError {
    /// A name on the path is not a field.
    #[error("field_mask: {path:?}: flow.Flow has no field {field:?} there")]
    Unknown {
        /// The path as sent.
        path: String,
        /// The part that is no field.
        field: String,
    },
    /// The path goes on below a field that has no fields of its own.
    #[error("field_mask: {path:?}: {field:?} has no fields below it")]
    Leaf {
        /// The path as sent.
        path: String,
        /// The last field that exists.
        field: String,
    },
    /// More paths than the schema has fields.
    #[error("field_mask: {0} paths; at most {MOST_PATHS} are taken")]
    TooMany(usize),
}

/// Fields to keep. An empty mask keeps everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mask {
    /// Of an answer; nothing if all of it is kept.
    keep: Keep,
}

/// Field number to what is kept below it; nothing below means all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Keep(BTreeMap<u32, Keep>);

impl Mask {
    /// Checks a mask against the schema.
    ///
    /// # Errors
    /// A path that names no field.
    pub fn new(mask: Option<&FieldMask>) -> Result<Self, MaskError> {
        let paths = mask.map(|mask| mask.paths.as_slice()).unwrap_or_default();
        if paths.len() > MOST_PATHS {
            return Err(MaskError::TooMany(paths.len()));
        }
        let mut keep = Keep::default();
        for path in paths {
            let numbers = numbers_of(path)?;
            keep.add(&numbers);
        }
        if paths.is_empty() {
            return Ok(Self::default());
        }
        let mut answer = Keep::default();
        for whole in [number::NODE_STATUS, number::LOST_EVENTS, number::NODE_NAME, number::TIME] {
            answer.add(&[whole]);
        }
        answer.0.insert(number::FLOW, keep);
        Ok(Self { keep: answer })
    }

    /// Whether it leaves nothing out.
    #[must_use]
    pub fn keeps_all(&self) -> bool {
        self.keep.0.is_empty()
    }

    /// The answer with the masked fields of its flow only.
    #[must_use]
    pub fn apply(&self, answer: EncodedAnswer) -> EncodedAnswer {
        if self.keeps_all() {
            return answer;
        }
        let mut kept = Vec::with_capacity(answer.bytes().len());
        // Answers are well-formed; of one that were not nothing would be known.
        if copy(&self.keep, answer.bytes(), &mut kept).is_none() {
            kept.clear();
        }
        EncodedAnswer::from_sound(kept)
    }
}

impl Keep {
    /// A path below one that is kept whole adds nothing; a shorter path replaces it.
    fn add(&mut self, numbers: &[u32]) {
        let Some((number, below)) = numbers.split_first() else { return };
        if let Some(keep) = self.0.get_mut(number) {
            if below.is_empty() {
                keep.0.clear();
            } else if !keep.0.is_empty() {
                keep.add(below);
            }
            return;
        }
        let mut keep = Self::default();
        keep.add(below);
        self.0.insert(*number, keep);
    }
}

/// Copies the kept fields of one encoded message. `None` if it is not well-formed.
fn copy(keep: &Keep, mut from: &[u8], to: &mut Vec<u8>) -> Option<()> {
    while !from.is_empty() {
        let (number, wire) = decode_key(&mut from).ok()?;
        let rest = from;
        let length = match wire {
            WireType::Varint => {
                decode_varint(&mut from).ok()?;
                rest.len() - from.len()
            }
            WireType::SixtyFourBit => 8,
            WireType::ThirtyTwoBit => 4,
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(&mut from).ok()?).ok()?;
                length.checked_add(rest.len() - from.len())?
            }
            WireType::StartGroup | WireType::EndGroup => return None,
        };
        let value = rest.get(..length)?;
        let content = rest.len() - from.len();
        from = &rest[length..];
        let Some(below) = keep.0.get(&number) else { continue };
        encode_key(number, wire, to);
        if below.0.is_empty() || wire != WireType::LengthDelimited {
            to.extend_from_slice(value);
        } else {
            let mut inner = Vec::new();
            copy(below, &value[content..], &mut inner)?;
            encode_varint(inner.len() as u64, to);
            to.extend_from_slice(&inner);
        }
    }
    Some(())
}

/// Message name to its fields: number and, for a message, its type.
type Schema = BTreeMap<String, BTreeMap<String, (u32, Option<String>)>>;

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("the committed descriptors decode");
    let mut schema = Schema::new();
    for file in &set.file {
        for message in &file.message_type {
            describe(&format!(".{}", file.package()), message, &mut schema);
        }
    }
    schema
});

fn describe(scope: &str, message: &DescriptorProto, schema: &mut Schema) {
    let name = format!("{scope}.{}", message.name());
    let fields = message.field.iter().map(|field| {
        // A path may end at a repeated field and not go below it, as google.protobuf.FieldMask demands.
        let single = field.r#type() == Type::Message && field.label() != Label::Repeated;
        let below = single.then(|| field.type_name().to_owned());
        (field.name().to_owned(), (u32::try_from(field.number()).unwrap_or(0), below))
    });
    schema.insert(name.clone(), fields.collect());
    for nested in &message.nested_type {
        describe(&name, nested, schema);
    }
}

fn numbers_of(path: &str) -> Result<Vec<u32>, MaskError> {
    let mut numbers = Vec::new();
    let mut message = Some(".flow.Flow".to_owned());
    let mut last = "";
    for field in path.split('.') {
        let Some(name) = &message else {
            return Err(MaskError::Leaf { path: path.to_owned(), field: last.to_owned() });
        };
        let Some((number, below)) = SCHEMA.get(name).and_then(|fields| fields.get(field)) else {
            return Err(MaskError::Unknown { path: path.to_owned(), field: field.to_owned() });
        };
        numbers.push(*number);
        message.clone_from(below);
        last = field;
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests;
