//! proto3 JSON, as Hubble's clients write it: names of the schema, defaults left out, 64-bit numbers as strings.

use std::io;
use std::sync::LazyLock;

use anyhow::{Context, Result};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::ser::Formatter;

/// The built-in schema. `google.protobuf.Struct`, which flows carry in an Any, is in every pool of prost-reflect.
pub(in crate::observe) static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let mut pool = DescriptorPool::global();
    pool.decode_file_descriptor_set(sinew_api::proto::FILE_DESCRIPTOR_SET)
        .expect("the built-in descriptors are whole");
    pool
});

/// One message as one line.
pub(in crate::observe) fn line<M: Message>(descriptor: MessageDescriptor, message: &M) -> Result<String> {
    let mut dynamic = DynamicMessage::new(descriptor);
    dynamic.transcode_from(message).context("read back an answer")?;
    let options = SerializeOptions::new().use_proto_field_name(true);
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, WholeNumbers);
    dynamic.serialize_with_options(&mut serializer, &options).context("write an answer as JSON")?;
    bytes.push(b'\n');
    String::from_utf8(bytes).context("JSON is UTF-8")
}

/// Writes a whole floating-point number as `1`, as other protobuf libraries do, not as `1.0`.
struct WholeNumbers;

impl Formatter for WholeNumbers {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        // Up to 2^53 every whole number is itself; beyond, the exponent form stays.
        if value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0 {
            write!(writer, "{value:.0}")
        } else {
            serde_json::ser::CompactFormatter.write_f64(writer, value)
        }
    }
}
