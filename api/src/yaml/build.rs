//! The tree of one document, built from the parser's events without recursion.

use std::collections::{BTreeMap, BTreeSet};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use super::{Entry, MAX_DEPTH, MAX_NODES, Node, SyntaxError, Value, scalar};

/// The tree of a piece of text with at most one document; `None` where it has none. `first_line` is the line of the
/// file on which the piece begins.
pub(super) fn build(text: &str, first_line: u32) -> Result<Option<Node>, SyntaxError> {
    let mut parser = Parser::new_from_str(text);
    let mut builder = Builder::new(first_line);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| {
            let (line, column) = builder.place(*error.marker());
            SyntaxError { line, column, message: error.info().to_owned() }
        })?;
        builder.event(event, span.start)?;
    }
    Ok(builder.root)
}

/// A tree that an alias may repeat, with what repeating it costs.
struct Anchored {
    node: Node,
    nodes: usize,
    depth: usize,
}

/// A list or mapping that is still open.
struct Open {
    anchor: usize,
    line: u32,
    nodes_before: usize,
    depth: usize,
    content: Content,
}

enum Content {
    Sequence(Vec<Node>),
    Mapping { entries: Vec<Entry>, keys: BTreeSet<String>, pending: Option<(String, u32)>, merges: Vec<Node> },
}

struct Builder {
    first_line: u32,
    root: Option<Node>,
    documents: usize,
    open: Vec<Open>,
    anchors: BTreeMap<usize, Anchored>,
    nodes: usize,
}

impl Builder {
    fn new(first_line: u32) -> Self {
        Self { first_line, root: None, documents: 0, open: Vec::new(), anchors: BTreeMap::new(), nodes: 0 }
    }

    /// Line and column in the file, both from 1. The parser counts lines from 1 and columns from 0.
    fn place(&self, marker: Marker) -> (u32, u32) {
        let line = u32::try_from(marker.line()).unwrap_or(u32::MAX).max(1);
        let column = u32::try_from(marker.col()).unwrap_or(u32::MAX).saturating_add(1);
        (self.first_line.saturating_add(line - 1), column)
    }

    fn error(&self, marker: Marker, message: impl Into<String>) -> SyntaxError {
        let (line, column) = self.place(marker);
        SyntaxError { line, column, message: message.into() }
    }

    fn event(&mut self, event: Event<'_>, at: Marker) -> Result<(), SyntaxError> {
        let (line, _) = self.place(at);
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(
                        self.error(at, "a second document begins here without a `---` line before it")
                    );
                }
                Ok(())
            }
            Event::SequenceStart(anchor, tag) => {
                self.collection_tag(tag.as_deref(), "seq", at)?;
                self.open(anchor, line, Content::Sequence(Vec::new()), at)
            }
            Event::MappingStart(anchor, tag) => {
                self.collection_tag(tag.as_deref(), "map", at)?;
                let content = Content::Mapping {
                    entries: Vec::new(),
                    keys: BTreeSet::new(),
                    pending: None,
                    merges: Vec::new(),
                };
                self.open(anchor, line, content, at)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(at),
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                if self.at_key() {
                    return self.key(text.into_owned(), line, at);
                }
                let value = match tag.as_deref() {
                    None if plain => scalar::resolve(&text),
                    None => Value::Text(text.into_owned()),
                    Some(tag) => tagged(tag, &text)
                        .ok_or_else(|| self.error(at, format!("tag {tag} is not read here")))?,
                };
                self.count(1, at)?;
                let node = Node { line, value };
                if anchor > 0 {
                    self.anchors.insert(anchor, Anchored { node: node.clone(), nodes: 1, depth: 0 });
                }
                self.place_node(node, 0, at)
            }
            Event::Alias(anchor) => self.alias(anchor, line, at),
        }
    }

    fn collection_tag(&self, tag: Option<&Tag>, wanted: &str, at: Marker) -> Result<(), SyntaxError> {
        match tag {
            Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == wanted) && tag.to_string() != "!" => {
                Err(self.error(at, format!("tag {tag} is not read here")))
            }
            _ => Ok(()),
        }
    }

    fn count(&mut self, nodes: usize, at: Marker) -> Result<(), SyntaxError> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES {
            return Err(self.error(
                at,
                format!("the document has more than {MAX_NODES} values, aliases counted in full"),
            ));
        }
        Ok(())
    }

    fn open(&mut self, anchor: usize, line: u32, content: Content, at: Marker) -> Result<(), SyntaxError> {
        if self.at_key() {
            return Err(self.error(at, "a key must be text"));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(self.error(at, format!("nested more than {MAX_DEPTH} levels deep")));
        }
        let nodes_before = self.nodes;
        self.count(1, at)?;
        self.open.push(Open { anchor, line, nodes_before, depth: 1, content });
        Ok(())
    }

    fn close(&mut self, at: Marker) -> Result<(), SyntaxError> {
        let Some(open) = self.open.pop() else {
            return Err(self.error(at, "an end without a beginning"));
        };
        let value = match open.content {
            Content::Sequence(items) => Value::Sequence(items),
            Content::Mapping { entries, keys, merges, .. } => Value::Mapping(merge(entries, keys, merges)),
        };
        let node = Node { line: open.line, value };
        if open.anchor > 0 {
            let nodes = self.nodes - open.nodes_before;
            self.anchors.insert(open.anchor, Anchored { node: node.clone(), nodes, depth: open.depth });
        }
        self.place_node(node, open.depth, at)
    }

    fn alias(&mut self, anchor: usize, line: u32, at: Marker) -> Result<(), SyntaxError> {
        let Some(anchored) = self.anchors.get(&anchor) else {
            return Err(self.error(at, "the alias names an anchor that is still open"));
        };
        let (nodes, depth) = (anchored.nodes, anchored.depth);
        if self.at_key() {
            return match anchored.node.as_text().map(str::to_owned) {
                Some(text) => self.key(text, line, at),
                None => Err(self.error(at, "a key must be text")),
            };
        }
        if self.open.len() + depth > MAX_DEPTH {
            return Err(self.error(at, format!("nested more than {MAX_DEPTH} levels deep")));
        }
        let node = anchored.node.clone();
        self.count(nodes, at)?;
        self.place_node(node, depth, at)
    }

    /// Whether the next node is a key.
    fn at_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { content: Content::Mapping { pending: None, .. }, .. }))
    }

    fn key(&mut self, key: String, line: u32, at: Marker) -> Result<(), SyntaxError> {
        let message = format!("key {key:?} stands twice in one mapping");
        if let Some(Open { content: Content::Mapping { keys, pending, .. }, .. }) = self.open.last_mut() {
            if !keys.insert(key.clone()) {
                return Err(self.error(at, message));
            }
            *pending = Some((key, line));
        }
        Ok(())
    }

    /// Puts a finished node, itself `depth` levels deep, where it belongs.
    fn place_node(&mut self, node: Node, depth: usize, at: Marker) -> Result<(), SyntaxError> {
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        parent.depth = parent.depth.max(depth + 1);
        match &mut parent.content {
            Content::Sequence(items) => items.push(node),
            Content::Mapping { entries, keys, pending, merges } => {
                let (key, line) = pending.take().unwrap_or_default();
                if key != "<<" {
                    entries.push(Entry { key, line, value: node });
                    return Ok(());
                }
                keys.remove("<<");
                match node.value {
                    Value::Mapping(_) => merges.push(node),
                    Value::Sequence(items)
                        if items.iter().all(|item| matches!(item.value, Value::Mapping(_))) =>
                    {
                        merges.extend(items);
                    }
                    _ => return Err(self.error(at, "`<<` takes a mapping or a list of mappings")),
                }
            }
        }
        Ok(())
    }
}

/// Adds the fields of `<<` that the mapping does not have itself; the first mapping that has one wins.
fn merge(mut entries: Vec<Entry>, mut keys: BTreeSet<String>, merges: Vec<Node>) -> Vec<Entry> {
    for node in merges {
        if let Value::Mapping(merged) = node.value {
            entries.extend(merged.into_iter().filter(|entry| keys.insert(entry.key.clone())));
        }
    }
    entries
}

/// The value of a scalar with one of YAML's own tags.
fn tagged(tag: &Tag, text: &str) -> Option<Value> {
    if tag.to_string() == "!" {
        return Some(Value::Text(text.to_owned()));
    }
    if !tag.is_yaml_core_schema() {
        return None;
    }
    let value = scalar::resolve(text);
    match (tag.suffix.as_str(), &value) {
        ("str", _) => Some(Value::Text(text.to_owned())),
        ("bool", Value::Bool(_)) | ("int", Value::Integer(_)) | ("null", Value::Null) => Some(value),
        ("float", Value::Integer(_) | Value::Number(_)) => Some(Value::Number(text.to_owned())),
        _ => None,
    }
}
