//! Values as YAML that people can read: blocks, keys in the order given, text quoted where another reader could take it
//! for something else.

use std::fmt::Write as _;

use serde_json::Value;

use super::scalar;

/// The value as YAML, ending in a new line.
#[must_use]
pub fn write(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(fields) if !fields.is_empty() => mapping(&mut out, fields, 0),
        Value::Array(items) if !items.is_empty() => sequence(&mut out, items, 0),
        leaf => {
            out.push_str(&scalar_text(leaf));
            out.push('\n');
        }
    }
    out
}

fn mapping(out: &mut String, fields: &serde_json::Map<String, Value>, indent: usize) {
    for (index, (key, value)) in fields.iter().enumerate() {
        // The first field stands behind the dash of a list item.
        if index > 0 || !out.ends_with("- ") {
            pad(out, indent);
        }
        out.push_str(&text(key));
        out.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push('\n');
                mapping(out, inner, indent + 2);
            }
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                sequence(out, items, indent);
            }
            leaf => {
                // Writing to a String cannot fail.
                let _ = writeln!(out, " {}", scalar_text(leaf));
            }
        }
    }
}

fn sequence(out: &mut String, items: &[Value], indent: usize) {
    for item in items {
        pad(out, indent);
        out.push_str("- ");
        match item {
            Value::Object(inner) if !inner.is_empty() => mapping(out, inner, indent + 2),
            Value::Array(inner) if !inner.is_empty() => {
                // A list in a list is rare enough to stand on one line, as JSON, which is YAML.
                let _ = writeln!(out, "{}", Value::Array(inner.clone()));
            }
            leaf => {
                let _ = writeln!(out, "{}", scalar_text(leaf));
            }
        }
    }
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn scalar_text(value: &Value) -> String {
    match value {
        Value::String(value) => text(value),
        other => other.to_string(),
    }
}

/// Text plain where that is safe for every reader, else in JSON's quotes, which YAML reads alike.
fn text(value: &str) -> String {
    let first_is_safe =
        value.starts_with(|first: char| first.is_ascii_alphanumeric() || matches!(first, '/' | '_' | '.'));
    let rest_is_safe =
        value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./=+@ ,()[]:".contains(&byte));
    let colon_is_safe = !value.contains(": ") && !value.ends_with([':', ' ']);
    let stays_text = matches!(scalar::resolve(value), super::Value::Text(_));
    // A date or a time is text to us and a timestamp to others.
    let like_a_time = value.starts_with(|first: char| first.is_ascii_digit()) && value.contains([':', '-']);
    if first_is_safe && rest_is_safe && colon_is_safe && stays_text && !like_a_time {
        value.to_owned()
    } else {
        Value::String(value.to_owned()).to_string()
    }
}
