//! proto3 JSON as Hubble's clients write it, byte by byte: names of the schema in the order in which it declares them,
//! defaults left out, 64-bit numbers as strings, and what HTML takes for its own escaped.

use std::io;
use std::sync::LazyLock;

use anyhow::{Context, Result};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MessageDescriptor, SerializeOptions};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::Value;
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
    let value = value(&descriptor, message)?;
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, AsInGo);
    let ordered = Declared { value: &value, message: Some(&descriptor) };
    ordered.serialize(&mut serializer).context("write an answer as JSON")?;
    bytes.push(b'\n');
    String::from_utf8(bytes).context("JSON is UTF-8")
}

/// A list of messages over many lines.
pub(in crate::observe) fn list<M: Message>(descriptor: MessageDescriptor, messages: &[M]) -> Result<String> {
    let values = messages.iter().map(|message| value(&descriptor, message)).collect::<Result<Vec<_>>>()?;
    let ordered = Declared { value: &Value::Array(values), message: Some(&descriptor) };
    Ok(serde_json::to_string_pretty(&ordered).context("write a list as JSON")? + "\n")
}

fn value<M: Message>(descriptor: &MessageDescriptor, message: &M) -> Result<Value> {
    let mut dynamic = DynamicMessage::new(descriptor.clone());
    dynamic.transcode_from(message).context("read back an answer")?;
    let options = SerializeOptions::new().use_proto_field_name(true);
    let value = dynamic.serialize_with_options(serde_json::value::Serializer, &options);
    value.context("write an answer as JSON")
}

/// A value whose keys are written in the order of their declaration. The crate that makes it orders them by number.
struct Declared<'a> {
    value: &'a Value,
    /// What it is; `None` for what has no fields of a schema.
    message: Option<&'a MessageDescriptor>,
}

impl Serialize for Declared<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.value, self.message) {
            (Value::Array(items), message) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for value in items {
                    list.serialize_element(&Declared { value, message })?;
                }
                list.end()
            }
            // Google's own have a form of their own; keys of a Struct are sorted.
            (Value::Object(fields), Some(message))
                if !message.full_name().starts_with("google.protobuf.") =>
            {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for declared in &message.descriptor_proto().field {
                    let Some(value) = fields.get(declared.name()) else { continue };
                    let kind = message.get_field_by_name(declared.name()).map(|field| field.kind());
                    let message = kind.as_ref().and_then(Kind::as_message);
                    map.serialize_entry(declared.name(), &Declared { value, message })?;
                }
                map.end()
            }
            (value, _) => value.serialize(serializer),
        }
    }
}

/// Numbers and texts as Go writes them.
struct AsInGo;

impl Formatter for AsInGo {
    /// A whole floating-point number is `1`, not `1.0`.
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        // Up to 2^53 every whole number is itself; beyond, the exponent form stays.
        if value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0 {
            write!(writer, "{value:.0}")
        } else {
            serde_json::ser::CompactFormatter.write_f64(writer, value)
        }
    }

    /// What could end a script in a page is escaped, and so are the two line ends that JavaScript knows besides.
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(place) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (plain, special) = rest.split_at(place);
            writer.write_all(plain.as_bytes())?;
            let mut letters = special.chars();
            let letter = letters.next().map_or(0, u32::from);
            write!(writer, "\\u{letter:04x}")?;
            rest = letters.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use sinew_api::proto::flow::{Endpoint, Flow, FlowFilter, Workload};

    use super::*;

    fn written<M: Message>(name: &str, message: &M) -> String {
        line(POOL.get_message_by_name(name).expect("a message of the schema"), message).expect("a line")
    }

    #[test]
    fn keys_have_the_order_of_the_schema() {
        let workload = |name: &str| Workload { name: name.into(), kind: "Deployment".into() };
        let source = Endpoint {
            id: 7,
            namespace: "shop".into(),
            cluster_name: "west".into(),
            workloads: vec![workload("a"), workload("b")],
            ..Endpoint::default()
        };
        let flow = Flow {
            uuid: "x".into(),
            verdict: 2,
            time: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
            source: Some(source),
            node_name: "west/n".into(),
            socket_cookie: 9,
            is_reply: Some(false),
            ..Flow::default()
        };
        let expected = concat!(
            r#"{"time":"1970-01-01T00:00:01Z","uuid":"x","verdict":"DROPPED","#,
            r#""source":{"ID":7,"cluster_name":"west","namespace":"shop","#,
            r#""workloads":[{"name":"a","kind":"Deployment"},{"name":"b","kind":"Deployment"}]},"#,
            r#""node_name":"west/n","is_reply":false,"socket_cookie":"9"}"#,
            "\n"
        );
        assert_eq!(written("flow.Flow", &flow), expected);
    }

    #[test]
    fn what_html_takes_for_its_own_is_escaped() {
        let filter = FlowFilter {
            source_label: vec!["version>3".into()],
            uuid: vec!["a&<\u{2028}é\"\n".into()],
            ..FlowFilter::default()
        };
        let expected =
            concat!(r#"{"uuid":["a\u0026\u003c\u2028é\"\n"],"source_label":["version\u003e3"]}"#, "\n");
        assert_eq!(written("flow.FlowFilter", &filter), expected);
    }
}
