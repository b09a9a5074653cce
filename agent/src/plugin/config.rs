//! The network configuration on standard input, read strictly: a key that is not known is refused by its name, so that
//! a misspelt one is not taken for its default.
//!
//! Specification: CNI, sections 1 and 3, and CONVENTIONS.md for `args.cni` and `runtimeConfig`. A DEL is forgiving: a
//! configuration that went bad after the ADD must not keep a pod from being removed, so there only what DEL needs is
//! looked at. Neighbours: `invocation` joins it with the environment.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::error::PluginError;

/// Versions of the specification that the plugin speaks.
pub(super) const SUPPORTED: [&str; 2] = ["1.0.0", NEWEST];
/// The newest of them.
pub(super) const NEWEST: &str = "1.1.0";

const DEFAULT_RUN_DIR: &str = "/run/sinew";
const DEFAULT_STATE_DIR: &str = "/var/lib/sinew";

/// What a command needs of the network configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    /// `cniVersion`, one of the supported ones.
    pub version: String,
    /// `name`: the network's; empty for DEL, which goes by the container alone.
    pub name: String,
    /// `runDir`: where the agent's sockets are.
    pub run_dir: PathBuf,
    /// `stateDir`: where DELs are queued while the agent is away.
    pub state_dir: PathBuf,
    /// `dns`, handed back in the result as the specification wants it.
    pub dns: Option<Value>,
    /// `args.cni.labels`: labels of an endpoint that has no pod.
    pub labels: BTreeMap<String, String>,
    /// `cni.dev/valid-attachments`, for GC.
    pub valid_attachments: Option<Vec<(String, String)>>,
    /// `prevResult`, for CHECK.
    pub previous: Option<Value>,
}

/// How much of the configuration is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strictness {
    /// Every key must be known and servable.
    Whole,
    /// The version and the two directories only.
    ForDel,
}

impl NetworkConfig {
    pub(super) fn parse(input: &[u8], strictness: Strictness) -> Result<Self, PluginError> {
        let value: Value = serde_json::from_slice(input)
            .map_err(|error| PluginError::NotJson { reason: error.to_string() })?;
        let Value::Object(fields) = value else {
            return Err(PluginError::NotJson { reason: "an object is expected".to_owned() });
        };
        let mut config = Self {
            version: version_of(&fields)?,
            run_dir: directory(&fields, "runDir", DEFAULT_RUN_DIR)?,
            state_dir: directory(&fields, "stateDir", DEFAULT_STATE_DIR)?,
            name: String::new(),
            dns: None,
            labels: BTreeMap::new(),
            valid_attachments: None,
            previous: None,
        };
        if strictness == Strictness::Whole {
            config.name = name_of(&fields)?;
            for (key, value) in &fields {
                config.take(key, value)?;
            }
        }
        Ok(config)
    }

    fn take(&mut self, key: &str, value: &Value) -> Result<(), PluginError> {
        match key {
            "cniVersion" | "name" | "runDir" | "stateDir" => {}
            "type" => {
                text(key, value)?;
            }
            // These belong to the list that the runtime took the configuration from.
            "cniVersions" | "disableCheck" | "disableGC" | "loadOnlyInlinedPlugins" => {}
            "capabilities" => capabilities(value)?,
            "runtimeConfig" => runtime_config(value)?,
            "ipMasq" => match value {
                Value::Bool(false) => {}
                _ => return Err(unsupported(key, value, "sinew does not masquerade")),
            },
            "ipam" if is_empty(value) => {}
            "ipam" => return Err(unsupported(key, value, "sinew manages the node's addresses itself")),
            "dns" => self.dns = Some(dns(value)?),
            "args" => self.labels = labels_of_args(value)?,
            "prevResult" => self.previous = Some(value.clone()),
            "cni.dev/valid-attachments" => self.valid_attachments = Some(attachments(key, value)?),
            // Any other key of that prefix is the runtime's own (specification, section 1).
            _ if key.starts_with("cni.dev/") => {}
            _ => return Err(unsupported(key, value, "sinew-cni knows no such key")),
        }
        Ok(())
    }
}

/// The version that an error object names when the configuration could not be read as a whole.
pub(super) fn answered_version(input: &[u8]) -> String {
    let asked = serde_json::from_slice::<Value>(input).ok();
    let asked = asked.as_ref().and_then(|value| value.get("cniVersion")).and_then(Value::as_str);
    asked.filter(|asked| SUPPORTED.contains(asked)).unwrap_or(NEWEST).to_owned()
}

fn version_of(fields: &Map<String, Value>) -> Result<String, PluginError> {
    let found = match fields.get("cniVersion") {
        // The specification's first version had no such key.
        None => "0.1.0 (cniVersion is missing)",
        Some(value) => text("cniVersion", value)?,
    };
    if SUPPORTED.contains(&found) {
        Ok(found.to_owned())
    } else {
        Err(PluginError::Version { found: found.to_owned() })
    }
}

fn name_of(fields: &Map<String, Value>) -> Result<String, PluginError> {
    let Some(value) = fields.get("name") else {
        return Err(invalid("name", "the network's name is missing"));
    };
    let name = text("name", value)?;
    let mut characters = name.chars();
    let good = characters.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && characters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if good {
        Ok(name.to_owned())
    } else {
        Err(invalid("name", "a letter or digit, then letters, digits, '_', '.' and '-' only"))
    }
}

fn directory(fields: &Map<String, Value>, key: &str, default: &str) -> Result<PathBuf, PluginError> {
    let path = match fields.get(key) {
        None => default,
        Some(value) => text(key, value)?,
    };
    if path.starts_with('/') && !path.contains('\0') {
        Ok(PathBuf::from(path))
    } else {
        Err(invalid(key, "an absolute path is expected"))
    }
}

fn capabilities(value: &Value) -> Result<(), PluginError> {
    let good = value.as_object().is_some_and(|map| map.values().all(Value::is_boolean));
    if good { Ok(()) } else { Err(invalid("capabilities", "an object of true and false is expected")) }
}

/// Sinew serves no capability. A configuration may still declare `bandwidth`: the runtime then passes the limits here
/// too, and a pod that asks for them is refused. Where only the `bandwidth` plugin declares it, its queues make the pod's
/// traffic take the host's stack (`netlink/queue.rs`).
fn runtime_config(value: &Value) -> Result<(), PluginError> {
    let Some(map) = value.as_object() else {
        return Err(invalid("runtimeConfig", "an object is expected"));
    };
    match map.iter().find(|(_, value)| !is_empty(value)) {
        None => Ok(()),
        Some((key, value)) if key == "bandwidth" => Err(unsupported(
            "runtimeConfig.bandwidth",
            value,
            "sinew-cni refuses a pod with limits of which it is told; the bandwidth plugin applies them if only its own \
             entry declares this capability",
        )),
        Some((key, value)) => {
            Err(unsupported(&format!("runtimeConfig.{key}"), value, "sinew-cni has no such capability"))
        }
    }
}

fn dns(value: &Value) -> Result<Value, PluginError> {
    let Some(map) = value.as_object() else {
        return Err(invalid("dns", "an object is expected"));
    };
    for (key, value) in map {
        let path = format!("dns.{key}");
        match key.as_str() {
            "domain" => {
                text(&path, value)?;
            }
            "nameservers" | "search" | "options" => {
                let items =
                    value.as_array().ok_or_else(|| invalid(&path, "a list of strings is expected"))?;
                for (index, item) in items.iter().enumerate() {
                    text(&format!("{path}[{index}]"), item)?;
                }
            }
            _ => return Err(unsupported(&path, value, "dns has no such key")),
        }
    }
    Ok(value.clone())
}

/// `args.cni.labels`, as a list of `{key, value}` (CONVENTIONS.md) or as an object. Other arguments are for others, and
/// the specification says to ignore them; a requested address is refused, since the pod would get a different one.
fn labels_of_args(value: &Value) -> Result<BTreeMap<String, String>, PluginError> {
    let args = value.as_object().ok_or_else(|| invalid("args", "an object is expected"))?;
    let Some(cni) = args.get("cni") else { return Ok(BTreeMap::new()) };
    let cni = cni.as_object().ok_or_else(|| invalid("args.cni", "an object is expected"))?;
    if let Some(ips) = cni.get("ips").filter(|ips| !is_empty(ips)) {
        return Err(unsupported("args.cni.ips", ips, "sinew chooses the pod's address"));
    }
    match cni.get("labels") {
        None => Ok(BTreeMap::new()),
        Some(Value::Object(map)) => map
            .iter()
            .map(|(key, value)| {
                let path = format!("args.cni.labels.{key}");
                checked_label(&path, key, text(&path, value)?)
            })
            .collect(),
        Some(Value::Array(items)) => {
            items.iter().enumerate().map(|(index, item)| label(index, item)).collect()
        }
        Some(_) => Err(invalid("args.cni.labels", "a list of {\"key\", \"value\"} is expected")),
    }
}

fn label(index: usize, item: &Value) -> Result<(String, String), PluginError> {
    let path = format!("args.cni.labels[{index}]");
    let field = |name: &str| {
        let value = item.get(name).ok_or_else(|| invalid(&path, "both key and value are expected"))?;
        text(&format!("{path}.{name}"), value).map(str::to_owned)
    };
    checked_label(&path, &field("key")?, &field("value")?)
}

/// A label becomes part of an identity, which others read back as `source:key=value`: what a Kubernetes label can't hold
/// would come back as another one.
fn checked_label(path: &str, key: &str, value: &str) -> Result<(String, String), PluginError> {
    let word = |text: &str| {
        text.len() <= 63
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.ends_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
    };
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    if !word(name) || prefix.is_some_and(|prefix| sinew_api::names::subdomain(prefix).is_err()) {
        return Err(invalid(path, &format!("{key:?} is no key of a label: [PREFIX/]NAME as in Kubernetes")));
    }
    if !value.is_empty() && !word(value) {
        return Err(invalid(path, &format!("{value:?} is no value of a label, as Kubernetes has them")));
    }
    Ok((key.to_owned(), value.to_owned()))
}

fn attachments(path: &str, value: &Value) -> Result<Vec<(String, String)>, PluginError> {
    // libcni marshals an empty Go slice as null.
    if value.is_null() {
        return Ok(Vec::new());
    }
    let items = value.as_array().ok_or_else(|| invalid(path, "a list is expected"))?;
    let attachment = |(index, item): (usize, &Value)| {
        let field = |name: &str| {
            let path = format!("{path}[{index}].{name}");
            let value = item.get(name).ok_or_else(|| invalid(&path, "it is missing"))?;
            text(&path, value).map(str::to_owned)
        };
        Ok((field("containerID")?, field("ifname")?))
    };
    items.iter().enumerate().map(attachment).collect()
}

fn text<'a>(path: &str, value: &'a Value) -> Result<&'a str, PluginError> {
    value.as_str().ok_or_else(|| invalid(path, "a string is expected"))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn invalid(path: &str, reason: &str) -> PluginError {
    PluginError::Config { path: path.to_owned(), reason: reason.to_owned() }
}

fn unsupported(path: &str, value: &Value, reason: &'static str) -> PluginError {
    PluginError::Unsupported { path: path.to_owned(), value: value.to_string(), reason }
}
