//! YAML of a JSON value.

use saphyr::{Mapping, Scalar, Yaml, YamlEmitter};
use serde_json::Value;

/// One YAML document, with a line break at its end and no `---` in front.
pub(crate) fn document(value: &Value) -> String {
    let mut text = String::new();
    let mut emitter = YamlEmitter::new(&mut text);
    emitter.multiline(true);
    emitter.dump(&yaml(value)).expect("a String takes everything that is written to it");
    let body = text.strip_prefix("---\n").or_else(|| text.strip_prefix("--- ")).unwrap_or(&text);
    format!("{}\n", body.trim_end_matches('\n'))
}

fn yaml(value: &Value) -> Yaml<'_> {
    match value {
        Value::Null => Yaml::Value(Scalar::Null),
        Value::Bool(flag) => Yaml::Value(Scalar::Boolean(*flag)),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Yaml::Value(Scalar::Integer(integer)),
            (None, Some(float)) if number.is_f64() => Yaml::Value(Scalar::FloatingPoint(float.into())),
            // Above i64: written out, since a float would lose digits.
            _ => Yaml::Value(Scalar::String(number.to_string().into())),
        },
        Value::String(text) => Yaml::Value(Scalar::String(text.as_str().into())),
        Value::Array(items) => Yaml::Sequence(items.iter().map(yaml).collect()),
        Value::Object(fields) => {
            let mut mapping = Mapping::new();
            for (key, value) in fields {
                mapping.insert(Yaml::Value(Scalar::String(key.as_str().into())), yaml(value));
            }
            Yaml::Mapping(mapping)
        }
    }
}

#[cfg(test)]
mod tests {
    use saphyr::LoadableYamlNode;
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_back_as_what_was_written() {
        let value = json!({"name": "web", "count": 3, "share": 0.5, "on": true, "none": null,
            "text": "a: b\nc", "number-like": "80", "list": [{"a": 1}, "x"], "empty": []});
        let text = document(&value);
        let read = Yaml::load_from_str(&text).unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!(read[0], yaml(&value));
        assert!(!text.starts_with("---"), "{text}");
        assert!(text.contains("number-like: \"80\""), "{text}");
    }
}
