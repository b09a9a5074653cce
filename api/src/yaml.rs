//! YAML and JSON texts as trees of nodes that remember their lines, so that every later complaint can say where.
//!
//! The parser is saphyr's, driven event by event: its own loader recurses once a level and would let a file of ten
//! thousand brackets overflow the stack. Everything a file can grow is bounded here: bytes, nodes, depth, aliases.
//!
//! Neighbours: `yaml/build.rs` makes the tree, `yaml/scalar.rs` gives plain scalars their type, `yaml/write.rs` goes the
//! other way; `object/decode.rs` reads objects from the trees.

mod build;
mod json;
mod scalar;
#[cfg(test)]
mod tests;
mod write;

pub use write::write;

/// Most bytes of one file; a larger one is refused as a whole. etcd refuses objects of more than 1.5 MiB.
pub const MAX_BYTES: usize = 4 << 20;
/// Most nodes of one document, those that aliases repeat counted each time.
pub const MAX_NODES: usize = 200_000;
/// Most documents of one file, and most items of a `List`.
pub const MAX_DOCUMENTS: usize = 10_000;
/// Most levels of nesting. The deepest path of the schemas that we read has 12.
pub const MAX_DEPTH: usize = 64;

/// One document of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The line on which it begins, from 1.
    pub line: u32,
    /// What it holds.
    pub root: Node,
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Line in the file, from 1.
    pub line: u32,
    /// The value.
    pub value: Value,
}

/// The types of YAML that Kubernetes' objects know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `null`, `~` or nothing at all.
    Null,
    /// `true`, `false` and what YAML 1.1 means by them (`yes`, `off`): kubectl reads YAML so.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Any other number, as it is written: none of our fields takes one.
    Number(String),
    /// Text.
    Text(String),
    /// A list.
    Sequence(Vec<Node>),
    /// Fields in the order of the file, no key twice.
    Mapping(Vec<Entry>),
}

/// One field of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key, as text.
    pub key: String,
    /// Where the key stands.
    pub line: u32,
    /// Its value.
    pub value: Node,
}

/// A text that is not YAML, or too much of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct SyntaxError {
    /// Line in the file, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
    /// What is wrong, in one sentence.
    pub message: String,
}

impl Value {
    /// What the value is, in a word for messages.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) | Self::Number(_) => "a number",
            Self::Text(_) => "text",
            Self::Sequence(_) => "a list",
            Self::Mapping(_) => "a mapping",
        }
    }
}

impl Node {
    /// The value of a field, if this is a mapping that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Mapping(entries) => {
                entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
            }
            _ => None,
        }
    }

    /// The text, if it is text.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// Every document of a text, in order; empty ones are left out. A document that is not YAML is an error by itself and
/// leaves its neighbours whole: the text is cut at its markers before it is parsed.
#[must_use]
pub fn documents(text: &str) -> Vec<Result<Document, SyntaxError>> {
    if text.len() > MAX_BYTES {
        let message = format!("the file has {} bytes; at most {MAX_BYTES} are read", text.len());
        return vec![Err(SyntaxError { line: 1, column: 1, message })];
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut pieces = pieces(text);
    let surplus = pieces.get(MAX_DOCUMENTS).map(|piece| SyntaxError {
        line: piece.line,
        column: 1,
        message: format!("the file has {} documents; at most {MAX_DOCUMENTS} are read", pieces.len()),
    });
    pieces.truncate(MAX_DOCUMENTS);
    let read = pieces.into_iter().filter_map(|piece| {
        let tree =
            build::build(piece.text, piece.line).or_else(|error| match json::join_surrogates(piece.text) {
                Some(joined) => build::build(&joined, piece.line),
                None => Err(error),
            });
        // Of a marker with a comment, or a bare `null`, kubectl makes nothing.
        let tree = tree.map(|root| root.filter(|root| root.value != Value::Null));
        Some(tree.transpose()?.map(|root| Document { line: root.line, root }))
    });
    read.chain(surplus.map(Err)).collect()
}

/// A stretch of the text with one document, and the line on which it begins.
struct Piece<'t> {
    text: &'t str,
    line: u32,
}

/// Cuts at `---` and `...` in the first column. There they are markers whatever stands around them (YAML 1.2.2,
/// `c-forbidden`, section 9.1.2), also inside quotes and block scalars. Directives stand before the marker of their
/// document; `%YAML` says nothing that we need and is blanked out, others are left for the parser to refuse.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut start = 0;
    let mut start_line = 1;
    let mut offset = 0;
    let mut line = 1;
    for full in text.split_inclusive('\n') {
        let begins = is_marker(full, "---") && offset > start;
        if begins {
            pieces.push(Piece { text: &text[start..offset], line: start_line });
            (start, start_line) = (offset, line);
        }
        offset += full.len();
        line += breaks(full);
        if is_marker(full, "...") {
            pieces.push(Piece { text: &text[start..offset], line: start_line });
            (start, start_line) = (offset, line);
        }
    }
    pieces.push(Piece { text: &text[start..], line: start_line });
    pieces.retain(|piece| !is_blank(piece.text));
    pieces
}

/// Line breaks as YAML counts them: a carriage return without a line feed is one too.
fn breaks(full: &str) -> u32 {
    let feeds = full.matches('\n').count();
    let lone = full.matches('\r').count() - full.matches("\r\n").count();
    u32::try_from(feeds + lone).unwrap_or(u32::MAX)
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// Whether a piece holds comments and `%YAML` only.
fn is_blank(piece: &str) -> bool {
    piece.lines().all(|line| {
        let line = line.trim();
        line.is_empty()
            || line.starts_with('#')
            || line.starts_with("%YAML")
            || line == "---"
            || line == "..."
    })
}
