//! Reading the fields of an object: every field is taken by name, every complaint has its path and line, and what nobody
//! took is an unknown field.
//!
//! Neighbours: the decoders under `policy/` and `object/` read through this; `names` has the rules for the texts.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::names;
use crate::object::{Origin, Problem};
use crate::yaml::{Entry, Node, Value};

/// Most problems, and most warnings, that are kept of one object. A hostile file could hold one per line.
const MAX_KEPT: usize = 50;

/// What is wrong with one object, collected while it is read.
#[derive(Debug)]
pub(crate) struct Report {
    file: String,
    count: usize,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Report {
    pub(crate) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), count: 0, problems: Vec::new(), warnings: Vec::new() }
    }

    /// Where a line of the object's file is.
    pub(crate) fn origin(&self, line: u32) -> Origin {
        Origin { file: self.file.clone(), line }
    }

    /// How many problems there are so far, those that are not kept too: unchanged means that nothing went wrong since.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Notes a reason to refuse the object.
    pub(crate) fn refuse(&mut self, path: &str, line: u32, message: impl Into<String>) {
        self.count += 1;
        let problem = self.problem(path, line, message);
        match self.count {
            0..=MAX_KEPT => self.problems.push(problem),
            n if n == MAX_KEPT + 1 => {
                let message = format!("more is wrong than the {MAX_KEPT} problems that are listed");
                self.problems.push(Problem { path: "document".to_owned(), message, origin: problem.origin });
            }
            _ => {}
        }
    }

    /// Notes something that its author should know, and that is no reason to refuse it.
    pub(crate) fn warn(&mut self, path: &str, line: u32, message: impl Into<String>) {
        if self.warnings.len() < MAX_KEPT {
            let warning = self.problem(path, line, message);
            self.warnings.push(warning);
        }
    }

    /// Problems and warnings.
    pub(crate) fn into_parts(self) -> (Vec<Problem>, Vec<Problem>) {
        (self.problems, self.warnings)
    }

    fn problem(&self, path: &str, line: u32, message: impl Into<String>) -> Problem {
        let path = if path.is_empty() { "document" } else { path };
        Problem { path: path.to_owned(), message: message.into(), origin: self.origin(line) }
    }
}

/// One value and its path.
#[derive(Clone, Debug)]
pub(crate) struct Field<'n> {
    pub(crate) node: &'n Node,
    pub(crate) path: String,
    /// Where its author looks for it: the line of its key, or of the element of a list.
    pub(crate) line: u32,
}

impl<'n> Field<'n> {
    /// A whole document.
    pub(crate) fn root(node: &'n Node) -> Self {
        Self { node, path: String::new(), line: node.line }
    }

    pub(crate) fn refuse(&self, report: &mut Report, message: impl Into<String>) {
        report.refuse(&self.path, self.line, message);
    }

    pub(crate) fn warn(&self, report: &mut Report, message: impl Into<String>) {
        report.warn(&self.path, self.line, message);
    }

    /// Text. A number gets the hint that is missing most often in policies: the quotes around a port.
    pub(crate) fn text(&self, report: &mut Report) -> Option<&'n str> {
        match &self.node.value {
            Value::Text(text) => return Some(text),
            Value::Integer(number) => {
                self.refuse(report, format!("must be text; write \"{number}\" in quotes"))
            }
            Value::Number(number) => {
                self.refuse(report, format!("must be text; write \"{number}\" in quotes"))
            }
            Value::Bool(_) => {
                self.refuse(report, "must be text; `true`, `yes`, `on` and the like need quotes")
            }
            other => self.refuse(report, format!("must be text, not {}", other.type_name())),
        }
        None
    }

    pub(crate) fn boolean(&self, report: &mut Report) -> Option<bool> {
        match &self.node.value {
            Value::Bool(value) => Some(*value),
            other => {
                self.refuse(report, format!("must be true or false, not {}", other.type_name()));
                None
            }
        }
    }

    pub(crate) fn integer(&self, range: RangeInclusive<i64>, report: &mut Report) -> Option<i64> {
        match &self.node.value {
            Value::Integer(value) if range.contains(value) => Some(*value),
            Value::Integer(value) => {
                self.refuse(report, format!("{value} is not between {} and {}", range.start(), range.end()));
                None
            }
            Value::Number(text) => {
                self.refuse(report, format!("{text} is not a whole number in decimal"));
                None
            }
            other => {
                self.refuse(report, format!("must be a number, not {}", other.type_name()));
                None
            }
        }
    }

    /// The elements of a list, each with its own path.
    pub(crate) fn list(&self, report: &mut Report) -> Option<Vec<Field<'n>>> {
        match &self.node.value {
            Value::Sequence(items) => Some(
                items
                    .iter()
                    .enumerate()
                    .map(|(index, node)| Field {
                        node,
                        path: format!("{}[{index}]", self.path),
                        line: node.line,
                    })
                    .collect(),
            ),
            other => {
                self.refuse(report, format!("must be a list, not {}", other.type_name()));
                None
            }
        }
    }

    /// The fields of a mapping, each still to be taken.
    pub(crate) fn fields(&self, report: &mut Report) -> Option<Fields<'n>> {
        match &self.node.value {
            Value::Mapping(entries) => Some(Fields {
                path: self.path.clone(),
                line: self.line,
                entries,
                taken: vec![false; entries.len()],
                known: Vec::new(),
            }),
            other => {
                self.refuse(report, format!("must be a mapping, not {}", other.type_name()));
                None
            }
        }
    }

    /// The values of a mapping whose keys are its author's, each under `path[key]`.
    pub(crate) fn entries(&self, report: &mut Report) -> Option<Vec<(&'n str, Field<'n>)>> {
        let Value::Mapping(entries) = &self.node.value else {
            self.refuse(report, format!("must be a mapping, not {}", self.node.value.type_name()));
            return None;
        };
        let field = |entry: &'n Entry| {
            let path = format!("{}[{}]", self.path, names::shown_key(&entry.key));
            (entry.key.as_str(), Field { node: &entry.value, path, line: entry.line })
        };
        Some(entries.iter().map(field).collect())
    }

    /// A mapping from text to text. Keys and values are not judged.
    pub(crate) fn string_map(&self, report: &mut Report) -> Option<BTreeMap<String, String>> {
        let entries = self.entries(report)?;
        let text = |(key, field): (&str, Field<'_>)| Some((key.to_owned(), field.text(report)?.to_owned()));
        Some(entries.into_iter().filter_map(text).collect())
    }
}

/// The fields of a mapping.
#[derive(Debug)]
pub(crate) struct Fields<'n> {
    path: String,
    line: u32,
    entries: &'n [Entry],
    taken: Vec<bool>,
    known: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    /// Path of a field of this mapping.
    pub(crate) fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Path of the mapping itself.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn line(&self) -> u32 {
        self.line
    }

    /// Takes a field. `null` is as good as absent, as everywhere in Kubernetes.
    pub(crate) fn take(&mut self, name: &'static str) -> Option<Field<'n>> {
        self.known.push(name);
        let index = self.entries.iter().position(|entry| entry.key == name)?;
        self.taken[index] = true;
        let Entry { value: node, line, .. } = &self.entries[index];
        (node.value != Value::Null).then(|| Field { node, path: self.path_of(name), line: *line })
    }

    /// Takes a field that must be there.
    pub(crate) fn require(&mut self, name: &'static str, report: &mut Report) -> Option<Field<'n>> {
        let field = self.take(name);
        if field.is_none() {
            report.refuse(&self.path_of(name), self.line, "is missing");
        }
        field
    }

    pub(crate) fn text(&mut self, name: &'static str, report: &mut Report) -> Option<&'n str> {
        self.take(name)?.text(report)
    }

    pub(crate) fn list(&mut self, name: &'static str, report: &mut Report) -> Option<Vec<Field<'n>>> {
        self.take(name)?.list(report)
    }

    /// Refuses a field of the schema that is not enforced yet, unless it is absent or an empty list, which asks for
    /// nothing. Says whether it was there.
    pub(crate) fn not_enforced(
        &mut self,
        name: &'static str,
        what: &str,
        report: &mut Report,
    ) -> Option<Field<'n>> {
        let field = self.take(name)?;
        if !matches!(&field.node.value, Value::Sequence(items) if items.is_empty()) {
            field.refuse(report, format!("{what} not enforced by this version"));
        }
        Some(field)
    }

    /// Refuses a field that only another kind has, and says what to write here.
    pub(crate) fn of_another_kind(&mut self, name: &str, instead: &str, report: &mut Report) {
        let Some(index) = self.entries.iter().position(|entry| entry.key == name) else { return };
        self.taken[index] = true;
        let message = format!("is no field of this kind: write {instead}");
        report.refuse(&self.path_of(name), self.entries[index].line, message);
    }

    /// Refuses whatever was not taken.
    pub(crate) fn finish(mut self, report: &mut Report) {
        self.refuse_rest(report);
    }

    /// As `finish`, for a mapping that is read in several places: afterwards all is taken.
    pub(crate) fn refuse_rest(&mut self, report: &mut Report) {
        for (entry, taken) in self.entries.iter().zip(&self.taken) {
            if !taken {
                let known = self.known.join(", ");
                report.refuse(
                    &self.path_of(names::shown_key(&entry.key)),
                    entry.line,
                    format!("unknown field (known here: {known})"),
                );
            }
        }
        self.taken.fill(true);
    }
}
