//! Label selectors as `kubectl -l` takes them, over labels with a source.
//!
//! `key`, `!key`, `key=value`, `key==value`, `key!=value`, `key in (a, b)`, `key notin (a, b)`, `key>1`, `key<1`, joined by
//! commas, all of which must hold. A key is `source:key`; without a source it is a key of any source. A key that is absent
//! satisfies `!=` and `notin` and no comparison, as in Kubernetes; a label that is no whole number satisfies no comparison.
//!
//! Keys and values that no label of Kubernetes can have are refused: a pattern or a mistyped operator would otherwise be a
//! filter that is never true.

/// Longest name of a key and longest value, in bytes.
const LONGEST_NAME: usize = 63;
/// Longest prefix of a key, in bytes.
const LONGEST_PREFIX: usize = 253;

/// A conjunction of requirements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LabelSelector {
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    /// `None` for any.
    source: Option<String>,
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Exists,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
    Above(i64),
    Below(i64),
}

impl LabelSelector {
    /// Reads a selector.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { text, rest: text };
        let mut requirements = Vec::new();
        parser.skip_space();
        while !parser.rest.is_empty() {
            requirements.push(parser.requirement()?);
            parser.skip_space();
            if parser.rest.is_empty() {
                break;
            }
            if !parser.take(",") {
                return Err(parser.problem("a comma"));
            }
            parser.skip_space();
            if parser.rest.is_empty() {
                return Err(parser.problem("a label after the comma"));
            }
        }
        Ok(Self { requirements })
    }

    /// Whether every requirement holds for labels as `source:key=value`.
    pub(super) fn matches(&self, labels: &[String]) -> bool {
        self.requirements.iter().all(|requirement| requirement.holds(labels))
    }
}

impl Requirement {
    fn holds(&self, labels: &[String]) -> bool {
        let mut values = labels.iter().filter_map(|label| self.value(label));
        match &self.test {
            Test::Exists => values.next().is_some(),
            Test::Absent => values.next().is_none(),
            Test::In(wanted) => values.any(|value| wanted.iter().any(|want| want == value)),
            Test::NotIn(unwanted) => !values.any(|value| unwanted.iter().any(|want| want == value)),
            Test::Above(bound) => values.filter_map(number).any(|value| value > *bound),
            Test::Below(bound) => values.filter_map(number).any(|value| value < *bound),
        }
    }

    /// The value of a label with this key.
    fn value<'a>(&self, label: &'a str) -> Option<&'a str> {
        let (name, value) = label.split_once('=').unwrap_or((label, ""));
        let (source, key) = name.split_once(':').unwrap_or(("", name));
        let from_here = self.source.as_deref().is_none_or(|wanted| wanted == source);
        (from_here && key == self.key).then_some(value)
    }
}

struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn requirement(&mut self) -> Result<Requirement, String> {
        let negated = self.take("!");
        self.skip_space();
        let word = self.word();
        if word.is_empty() {
            return Err(self.problem("a label"));
        }
        let (source, key) = match word.split_once(':') {
            Some(("any", key)) => (None, key),
            Some((source, key)) => (Some(source), key),
            None => (None, word),
        };
        if key.is_empty() {
            return Err(format!("{:?}: {word:?} has no key", self.text));
        }
        if !is_key(key) || !source.is_none_or(is_name) {
            return Err(format!(
                "{:?}: {word:?} is no key of a label: letters, digits, -, _ and ., a letter or digit at both ends, at most \
                 {LONGEST_NAME} bytes; before it a source with a colon or a domain with a slash",
                self.text
            ));
        }
        let (source, key) = (source.map(str::to_owned), key.to_owned());
        self.skip_space();
        let test = if negated { Test::Absent } else { self.test()? };
        Ok(Requirement { source, key, test })
    }

    fn test(&mut self) -> Result<Test, String> {
        if self.take("==") || self.take("=") {
            return Ok(Test::In(vec![self.value()?]));
        }
        if self.take("!=") {
            return Ok(Test::NotIn(vec![self.value()?]));
        }
        if self.take(">") {
            return self.bound().map(Test::Above);
        }
        if self.take("<") {
            return self.bound().map(Test::Below);
        }
        if self.rest.is_empty() || self.rest.starts_with(',') {
            return Ok(Test::Exists);
        }
        match self.word() {
            "in" => Ok(Test::In(self.values()?)),
            "notin" => Ok(Test::NotIn(self.values()?)),
            "" => Err(self.problem("an operator (=, ==, !=, <, >, in or notin)")),
            other => Err(format!("{:?}: {other:?} is no operator; =, ==, !=, <, >, in or notin", self.text)),
        }
    }

    fn value(&mut self) -> Result<String, String> {
        self.skip_space();
        let word = self.word();
        if word.is_empty() || is_name(word) {
            return Ok(word.to_owned());
        }
        Err(format!(
            "{:?}: {word:?} is no value of a label: letters, digits, -, _ and ., a letter or digit at both ends, at most \
             {LONGEST_NAME} bytes",
            self.text
        ))
    }

    fn bound(&mut self) -> Result<i64, String> {
        let value = self.value()?;
        number(&value)
            .ok_or_else(|| format!("{:?}: < and > take a whole number of 64 bits, not {value:?}", self.text))
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        self.skip_space();
        if !self.take("(") {
            return Err(self.problem("an opening bracket"));
        }
        let mut values = Vec::new();
        loop {
            values.push(self.value()?);
            self.skip_space();
            if self.take(")") {
                return Ok(values);
            }
            if !self.take(",") {
                return Err(self.problem("a comma or a closing bracket"));
            }
        }
    }

    fn take(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Everything up to a blank or a part of an operator.
    fn word(&mut self) -> &'a str {
        let is_end = |letter: char| letter.is_whitespace() || "=!<>(),".contains(letter);
        let (word, rest) = self.rest.split_at(self.rest.find(is_end).unwrap_or(self.rest.len()));
        self.rest = rest;
        word
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn problem(&self, wanted: &str) -> String {
        format!("{:?}: {wanted} is missing at {:?}", self.text, self.rest)
    }
}

/// Whether a label may have this key: `name`, or `domain/name`.
fn is_key(key: &str) -> bool {
    match key.split_once('/') {
        None => is_name(key),
        Some((domain, name)) => {
            let is_part = |part: &str| {
                is_framed(part) && part.bytes().all(|byte| byte == b'-' || byte.is_ascii_alphanumeric())
            };
            is_name(name)
                && domain.len() <= LONGEST_PREFIX
                && !domain.bytes().any(|byte| byte.is_ascii_uppercase())
                && domain.split('.').all(is_part)
        }
    }
}

/// Whether a label may have this name or value; no label has an empty name.
fn is_name(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    name.len() <= LONGEST_NAME && is_framed(name) && name.bytes().all(is_letter)
}

/// Whether it begins and ends with a letter or digit.
fn is_framed(text: &str) -> bool {
    let ends = [text.bytes().next(), text.bytes().next_back()];
    ends.into_iter().all(|end| end.is_some_and(|byte| byte.is_ascii_alphanumeric()))
}

fn number(value: &str) -> Option<i64> {
    value.parse().ok()
}
