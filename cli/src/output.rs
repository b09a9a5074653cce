//! What commands write: text for people, JSON and YAML for programs, colours where they are wanted.
//!
//! A command builds its answer as text or as a protobuf message and hands it over; it knows neither whether stdout is a
//! terminal nor which format was asked for. Neighbours: `paint.rs` (colours), `table.rs` (columns).

pub(crate) mod paint;
pub(crate) mod table;

use std::fmt;
use std::io::{self, Write};

use anyhow::{Context, Result};
use clap::ValueEnum;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::Value;

pub(crate) use paint::Paint;

/// How an answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Text for people.
    #[default]
    Table,
    /// JSON: the answer's protobuf message, keys in lowerCamelCase, every field there, 64-bit numbers as numbers.
    Json,
    /// The same as YAML.
    Yaml,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColourChoice {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Where a command writes.
pub(crate) struct Screen {
    /// How answers are written.
    pub(crate) format: Format,
    /// Colours, or none.
    pub(crate) paint: Paint,
}

impl Screen {
    /// The screen that the process's stdout is.
    pub(crate) fn of_stdout(format: Format, colours: ColourChoice) -> Self {
        let wanted = match colours {
            ColourChoice::Always => true,
            ColourChoice::Never => false,
            ColourChoice::Auto => anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never,
        };
        Self { format, paint: if wanted { Paint::Colour } else { Paint::Plain } }
    }

    /// Writes an answer: `text` for people, else the message itself.
    pub(crate) fn show<M: Message>(
        &self,
        name: &str,
        message: &M,
        text: impl FnOnce(Paint) -> String,
    ) -> Result<()> {
        match self.format {
            Format::Table => write(&text(self.paint)),
            Format::Json | Format::Yaml => self.show_value(&to_value(name, message)?),
        }
    }

    /// Writes a value as JSON or YAML.
    pub(crate) fn show_value(&self, value: &Value) -> Result<()> {
        match self.format {
            Format::Yaml => write(&sinew_api::yaml::write(value)),
            Format::Table | Format::Json => {
                write(&format!("{}\n", serde_json::to_string_pretty(value).context("write JSON")?))
            }
        }
    }

    /// Writes one item of a stream: a line of text, a line of JSON, or a YAML document.
    pub(crate) fn show_item<M: Message>(
        &self,
        name: &str,
        message: &M,
        text: impl FnOnce(Paint) -> String,
    ) -> Result<()> {
        match self.format {
            Format::Table => write(&text(self.paint)),
            Format::Json => write(&format!("{}\n", to_value(name, message)?)),
            Format::Yaml => write(&format!("---\n{}", sinew_api::yaml::write(&to_value(name, message)?))),
        }
    }
}

/// Writes to stdout at once, so that a pipe sees each item of a stream.
pub(crate) fn write(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("write to stdout")
}

/// Writes a line to stderr. Where nobody reads that, nothing is told.
pub(crate) fn tell(line: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "sinew: {line}");
}

/// The protobuf JSON form of a message of package `sinew.agent.v1`.
pub(crate) fn to_value<M: Message>(name: &str, message: &M) -> Result<Value> {
    let pool = DescriptorPool::decode(sinew_api::proto::FILE_DESCRIPTOR_SET)
        .context("read the built-in descriptors")?;
    let full_name = format!("sinew.agent.v1.{name}");
    let descriptor =
        pool.get_message_by_name(&full_name).with_context(|| format!("no message is called {full_name}"))?;
    let mut dynamic = DynamicMessage::new(descriptor);
    dynamic.transcode_from(message).with_context(|| format!("read back a {full_name}"))?;
    let options = SerializeOptions::new().stringify_64_bit_integers(false).skip_default_fields(false);
    dynamic.serialize_with_options(serde_json::value::Serializer, &options).context("make JSON")
}

#[cfg(test)]
mod tests {
    use sinew_api::proto::agent::{Map, PolicyCount, PolicyState};

    use super::*;

    #[test]
    fn json_has_every_field_and_plain_numbers() {
        let map =
            Map { name: "POLICY".into(), entries: 5_000_000_000, capacity: 8_000_000_000, ..Map::default() };
        let value = to_value("Map", &map).unwrap();
        assert_eq!(value["entries"], 5_000_000_000_u64);
        assert_eq!(value["keyBytes"], 0);
        assert_eq!(value["name"], "POLICY");
    }

    #[test]
    fn enums_are_words() {
        let count = PolicyCount { state: PolicyState::Refused.into(), count: 2 };
        assert_eq!(to_value("PolicyCount", &count).unwrap().to_string(), r#"{"count":2,"state":"REFUSED"}"#);
    }

    #[test]
    fn an_unknown_message_is_an_error() {
        let error = to_value("Nothing", &Map::default()).unwrap_err();
        assert_eq!(error.to_string(), "no message is called sinew.agent.v1.Nothing");
    }
}
