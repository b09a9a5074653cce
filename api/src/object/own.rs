//! The objects that agents write for each other, in the common frame of `sinew.io`: their `spec` and `status` are plain
//! serde values, for no person writes them and none needs more than one complaint.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json, json};

use super::GROUP_VERSION;
use crate::yaml::{self, Node, Value};

/// An object in its frame.
pub(super) struct Own {
    pub(super) name: String,
    spec: Json,
    status: Json,
}

/// Why an object cannot be read.
pub(super) struct Wrong {
    pub(super) path: String,
    pub(super) message: String,
}

impl Own {
    /// `document` is the whole object.
    pub(super) fn new(name: String, document: &Node) -> Self {
        let part = |key| document.get(key).map_or(Json::Null, json_of);
        Self { name, spec: part("spec"), status: part("status") }
    }

    pub(super) fn spec<T: DeserializeOwned>(&self) -> Result<T, Wrong> {
        T::deserialize(&self.spec)
            .map_err(|wrong| Wrong { path: "spec".to_owned(), message: wrong.to_string() })
    }

    pub(super) fn status<T: DeserializeOwned + Default>(&self) -> Result<T, Wrong> {
        if self.status.is_null() {
            return Ok(T::default());
        }
        T::deserialize(&self.status)
            .map_err(|wrong| Wrong { path: "status".to_owned(), message: wrong.to_string() })
    }
}

/// An object of ours as YAML.
pub(super) fn to_yaml(
    kind: &str,
    name: &str,
    namespace: Option<&str>,
    spec: &impl Serialize,
    status: Option<&impl Serialize>,
) -> String {
    let mut metadata = Map::from_iter([("name".to_owned(), json!(name))]);
    metadata.extend(namespace.map(|namespace| ("namespace".to_owned(), json!(namespace))));
    let mut text = yaml::write(&json!({ "apiVersion": GROUP_VERSION }));
    text.push_str(&yaml::write(&json!({ "kind": kind })));
    text.push_str(&yaml::write(&json!({ "metadata": metadata })));
    text.push_str(&yaml::write(&json!({ "spec": json_value(spec) })));
    if let Some(status) = status {
        text.push_str(&yaml::write(&json!({ "status": json_value(status) })));
    }
    text
}

fn json_value(value: &impl Serialize) -> Json {
    serde_json::to_value(value).expect("our own objects have text keys and no failing serializer")
}

/// A tree as JSON. Numbers that are not whole become text, which no field of ours takes for a number.
fn json_of(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => json!(value),
        Value::Integer(value) => json!(value),
        Value::Number(text) | Value::Text(text) => json!(text),
        Value::Sequence(items) => Json::Array(items.iter().map(json_of).collect()),
        Value::Mapping(entries) => {
            Json::Object(entries.iter().map(|entry| (entry.key.clone(), json_of(&entry.value))).collect())
        }
    }
}
