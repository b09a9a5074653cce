//! Our schema against the public one, field by field: `hubble_schema.txt` was extracted from the descriptors of
//! Hubble 1.19.3, and the same walk over ours must give the same lines. A wrong number, type, package, oneof or enum
//! value, a missing field and one too many all fail, each named.

use std::collections::BTreeSet;

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
};
use sinew_api::proto::FILE_DESCRIPTOR_SET;

const HUBBLE: [&str; 4] =
    ["flow/flow.proto", "observer/observer.proto", "peer/peer.proto", "relay/relay.proto"];

fn public() -> BTreeSet<String> {
    include_str!("hubble_schema.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

fn descriptors() -> FileDescriptorSet {
    FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("the committed descriptors decode")
}

/// The walk that made the table, over a descriptor set.
fn lines(set: &FileDescriptorSet) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for file in set.file.iter().filter(|file| HUBBLE.contains(&file.name())) {
        lines.insert(format!("file {} package {} syntax {}", file.name(), file.package(), file.syntax()));
        for message in &file.message_type {
            message_lines(file.package(), message, &mut lines);
        }
        for values in &file.enum_type {
            enum_lines(file.package(), values, &mut lines);
        }
        service_lines(file, &mut lines);
    }
    lines
}

fn message_lines(scope: &str, message: &DescriptorProto, lines: &mut BTreeSet<String>) {
    let name = format!("{scope}.{}", message.name());
    lines.insert(format!("message {name}"));
    for field in &message.field {
        lines.insert(field_line(&name, message, field));
    }
    for range in &message.reserved_range {
        lines.insert(format!("reserved {name} {}..{}", range.start(), range.end()));
    }
    for nested in &message.nested_type {
        message_lines(&name, nested, lines);
    }
    for values in &message.enum_type {
        enum_lines(&name, values, lines);
    }
}

fn field_line(message_name: &str, message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let kind = match field.r#type() {
        Type::Bool => "bool",
        Type::Double => "double",
        Type::Int32 => "int32",
        Type::Int64 => "int64",
        Type::Uint32 => "uint32",
        Type::Uint64 => "uint64",
        Type::String => "string",
        Type::Bytes => "bytes",
        Type::Message => "message",
        Type::Enum => "enum",
        other => panic!("the public schema has no field of type {other:?}"),
    };
    let cardinality = match field.label() {
        Label::Optional => "optional",
        Label::Repeated => "repeated",
        Label::Required => "required",
    };
    let of =
        field.type_name.as_ref().map(|name| format!(" {}", name.trim_start_matches('.'))).unwrap_or_default();
    let oneof = field
        .oneof_index
        .map(|index| {
            format!(" oneof {}", message.oneof_decl[usize::try_from(index).expect("an index")].name())
        })
        .unwrap_or_default();
    let deprecated =
        if field.options.as_ref().is_some_and(|options| options.deprecated()) { " deprecated" } else { "" };
    format!(
        "field {message_name}.{} {} {cardinality} {kind}{of}{oneof}{deprecated}",
        field.name(),
        field.number()
    )
}

fn enum_lines(scope: &str, values: &EnumDescriptorProto, lines: &mut BTreeSet<String>) {
    let name = format!("{scope}.{}", values.name());
    lines.insert(format!("enum {name}"));
    for value in &values.value {
        let deprecated = if value.options.as_ref().is_some_and(|options| options.deprecated()) {
            " deprecated"
        } else {
            ""
        };
        lines.insert(format!("value {name}.{} {}{deprecated}", value.name(), value.number()));
    }
}

fn service_lines(file: &FileDescriptorProto, lines: &mut BTreeSet<String>) {
    for service in &file.service {
        for method in &service.method {
            lines.insert(format!(
                "method {}.{}.{} {} -> {} client_stream={} server_stream={}",
                file.package(),
                service.name(),
                method.name(),
                method.input_type().trim_start_matches('.'),
                method.output_type().trim_start_matches('.'),
                method.client_streaming(),
                method.server_streaming()
            ));
        }
    }
}

#[test]
fn every_name_number_and_type_is_the_public_schemas() {
    let (ours, theirs) = (lines(&descriptors()), public());
    let missing: Vec<_> = theirs.difference(&ours).collect();
    let extra: Vec<_> = ours.difference(&theirs).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "missing: {missing:#?}\nnot in the public schema: {extra:#?}"
    );
    assert_eq!(theirs.len(), 655, "the committed table is complete");
}

/// A table that nothing can differ from would prove nothing.
#[test]
fn one_wrong_number_is_found() {
    let mut set = descriptors();
    let flow = set
        .file
        .iter_mut()
        .find(|file| file.name() == "flow/flow.proto")
        .and_then(|file| file.message_type.iter_mut().find(|message| message.name() == "Flow"))
        .expect("flow.Flow is there");
    flow.field.iter_mut().find(|field| field.name() == "uuid").expect("Flow.uuid is there").number = Some(35);
    let missing: Vec<_> = public().difference(&lines(&set)).cloned().collect();
    assert_eq!(missing, ["field flow.Flow.uuid 34 optional string"]);
}
