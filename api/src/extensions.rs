//! What a flow says beyond Hubble's schema: our finer drop reason, the mark of a default deny, the rules that decided.
//!
//! It stands in `flow.Flow.extensions` as a `google.protobuf.Struct`: a client that does not know a message type in an
//! Any can't print the flow as JSON, and every client knows that one. The agent writes it, `sinew observe` reads it;
//! what another program puts there is left alone.

use std::collections::BTreeMap;

use prost::Message;
use prost_types::value::Kind;
use prost_types::{Any, ListValue, Struct, Value};

use crate::proto::flow::{Flow, TrafficDirection};

const STRUCT_URL: &str = "type.googleapis.com/google.protobuf.Struct";

/// Beyond Hubble's schema.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// Number of our own drop reason, from 1000 on; 0 where Hubble's says all.
    pub reason: u32,
    /// Our own drop reason in words, empty where Hubble's says all.
    pub reason_text: String,
    /// Nothing allowed it, and the policies in `*_denied_by` are those that switched default deny on.
    pub default_deny: bool,
    /// The rules that decided, egress before ingress, enforced before shadow.
    pub rules: Vec<DecidingRule>,
}

/// A rule that decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DecidingRule {
    /// Direction that it decided.
    pub direction: TrafficDirection,
    /// Policy, such as `cnp/ns/name`.
    pub policy: String,
    /// Path of the rule, such as `spec.ingress[0]`; of a refused object the field for which it is refused.
    pub path: String,
    /// File.
    pub file: String,
    /// Line from 1; 0 where it is not known.
    pub line: u32,
    /// It denies.
    pub deny: bool,
    /// It belongs to an audit policy: what it says was not done.
    pub shadow: bool,
    /// Its object is refused and contributes its default deny only.
    pub refused: bool,
}

impl Extensions {
    /// The form on the wire; `None` where there is nothing to say.
    #[must_use]
    pub fn to_any(&self) -> Option<Any> {
        if *self == Self::default() {
            return None;
        }
        let mut fields = BTreeMap::new();
        if self.reason != 0 {
            fields.insert("reason".to_owned(), number(self.reason));
            fields.insert("reason_text".to_owned(), text(&self.reason_text));
        }
        if self.default_deny {
            fields.insert("default_deny".to_owned(), flag(true));
        }
        if !self.rules.is_empty() {
            let values = self.rules.iter().map(DecidingRule::to_value).collect();
            fields.insert("rules".to_owned(), Value { kind: Some(Kind::ListValue(ListValue { values })) });
        }
        Some(Any { type_url: STRUCT_URL.to_owned(), value: Struct { fields }.encode_to_vec() })
    }

    /// What a flow carries; nothing if it carries nothing of ours.
    #[must_use]
    pub fn of(flow: &Flow) -> Self {
        let Some(any) = flow.extensions.as_ref().filter(|any| any.type_url == STRUCT_URL) else {
            return Self::default();
        };
        let Ok(Struct { fields }) = Struct::decode(any.value.as_slice()) else { return Self::default() };
        let rules = match fields.get("rules").and_then(|value| value.kind.as_ref()) {
            Some(Kind::ListValue(list)) => list.values.iter().filter_map(DecidingRule::from_value).collect(),
            _ => Vec::new(),
        };
        Self {
            reason: read_number(&fields, "reason"),
            reason_text: read_text(&fields, "reason_text"),
            default_deny: read_flag(&fields, "default_deny"),
            rules,
        }
    }
}

impl DecidingRule {
    fn to_value(&self) -> Value {
        let mut fields = BTreeMap::from([
            ("direction".to_owned(), text(self.direction.as_str_name())),
            ("policy".to_owned(), text(&self.policy)),
        ]);
        for (name, value) in [("path", &self.path), ("file", &self.file)] {
            if !value.is_empty() {
                fields.insert(name.to_owned(), text(value));
            }
        }
        if self.line != 0 {
            fields.insert("line".to_owned(), number(self.line));
        }
        for (name, set) in [("deny", self.deny), ("shadow", self.shadow), ("refused", self.refused)] {
            if set {
                fields.insert(name.to_owned(), flag(true));
            }
        }
        Value { kind: Some(Kind::StructValue(Struct { fields })) }
    }

    fn from_value(value: &Value) -> Option<Self> {
        let Some(Kind::StructValue(Struct { fields })) = &value.kind else { return None };
        Some(Self {
            direction: TrafficDirection::from_str_name(&read_text(fields, "direction")).unwrap_or_default(),
            policy: read_text(fields, "policy"),
            path: read_text(fields, "path"),
            file: read_text(fields, "file"),
            line: read_number(fields, "line"),
            deny: read_flag(fields, "deny"),
            shadow: read_flag(fields, "shadow"),
            refused: read_flag(fields, "refused"),
        })
    }
}

fn text(value: &str) -> Value {
    Value { kind: Some(Kind::StringValue(value.to_owned())) }
}

fn number(value: u32) -> Value {
    Value { kind: Some(Kind::NumberValue(f64::from(value))) }
}

fn flag(value: bool) -> Value {
    Value { kind: Some(Kind::BoolValue(value)) }
}

fn read_text(fields: &BTreeMap<String, Value>, name: &str) -> String {
    match fields.get(name).and_then(|value| value.kind.as_ref()) {
        Some(Kind::StringValue(text)) => text.clone(),
        _ => String::new(),
    }
}

fn read_number(fields: &BTreeMap<String, Value>, name: &str) -> u32 {
    match fields.get(name).and_then(|value| value.kind.as_ref()) {
        // A float-to-integer cast saturates: what was never ours becomes 0 or the largest number.
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates by the language's rule"
        )]
        Some(Kind::NumberValue(number)) => *number as u32,
        _ => 0,
    }
}

fn read_flag(fields: &BTreeMap<String, Value>, name: &str) -> bool {
    matches!(fields.get(name).and_then(|value| value.kind.as_ref()), Some(Kind::BoolValue(true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let rule = DecidingRule {
            direction: TrafficDirection::Ingress,
            policy: "cnp/shop/db".to_owned(),
            path: "spec.ingressDeny[0]".to_owned(),
            file: "policies/db.yaml".to_owned(),
            line: 12,
            deny: true,
            shadow: true,
            refused: false,
        };
        let extensions = Extensions {
            reason: 1003,
            reason_text: "source address is not the pod's".to_owned(),
            default_deny: true,
            rules: vec![rule, DecidingRule::default()],
        };
        let flow = Flow { extensions: extensions.to_any(), ..Flow::default() };
        assert_eq!(Extensions::of(&flow), extensions);
    }

    #[test]
    fn nothing_to_say_takes_no_bytes() {
        assert_eq!(Extensions::default().to_any(), None);
    }

    #[test]
    fn what_others_wrote_is_left_alone() {
        let foreign = [
            Any { type_url: "type.googleapis.com/other.Type".to_owned(), value: vec![1, 2, 3] },
            Any { type_url: STRUCT_URL.to_owned(), value: vec![0xff] },
        ];
        for any in foreign {
            let flow = Flow { extensions: Some(any), ..Flow::default() };
            assert_eq!(Extensions::of(&flow), Extensions::default());
        }
        let fields = BTreeMap::from([("reason".to_owned(), number(0)), ("rules".to_owned(), text("none"))]);
        let value = Struct { fields }.encode_to_vec();
        let flow =
            Flow { extensions: Some(Any { type_url: STRUCT_URL.to_owned(), value }), ..Flow::default() };
        assert_eq!(Extensions::of(&flow), Extensions::default());
    }
}
