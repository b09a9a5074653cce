//! Label selectors as `kubectl -l` takes them, over labels with a source.
//!
//! `key`, `!key`, `key=value`, `key==value`, `key!=value`, `key in (a, b)`, `key notin (a, b)`, joined by commas, all of
//! which must hold. A key is `source:key`; without a source it is a key of any source. A key that is absent satisfies
//! `!=` and `notin`, as in Kubernetes.

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

impl Parser<'_> {
    fn requirement(&mut self) -> Result<Requirement, String> {
        let negated = self.take("!");
        self.skip_space();
        let word = self.word("=!,() \t");
        if word.is_empty() {
            return Err(self.problem("a label"));
        }
        let (source, key) = match word.split_once(':') {
            Some(("any" | "", key)) => (None, key),
            Some((source, key)) => (Some(source.to_owned()), key),
            None => (None, word.as_str()),
        };
        if key.is_empty() {
            return Err(format!("{:?}: {word:?} has no key", self.text));
        }
        let key = key.to_owned();
        self.skip_space();
        let test = if negated { Test::Absent } else { self.test()? };
        Ok(Requirement { source, key, test })
    }

    fn test(&mut self) -> Result<Test, String> {
        if self.take("==") || self.take("=") {
            return Ok(Test::In(vec![self.value()]));
        }
        if self.take("!=") {
            return Ok(Test::NotIn(vec![self.value()]));
        }
        if self.rest.is_empty() || self.rest.starts_with(',') {
            return Ok(Test::Exists);
        }
        match self.word("(, \t").as_str() {
            "in" => Ok(Test::In(self.values()?)),
            "notin" => Ok(Test::NotIn(self.values()?)),
            other => Err(format!("{:?}: {other:?} is no operator; =, ==, !=, in or notin", self.text)),
        }
    }

    fn value(&mut self) -> String {
        self.skip_space();
        self.word(",) \t")
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        self.skip_space();
        if !self.take("(") {
            return Err(self.problem("an opening bracket"));
        }
        let mut values = Vec::new();
        loop {
            values.push(self.value());
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

    /// Everything up to one of `ends`.
    fn word(&mut self, ends: &str) -> String {
        let end = self.rest.find(|letter| ends.contains(letter)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_owned()
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn problem(&self, wanted: &str) -> String {
        format!("{:?}: {wanted} is missing at {:?}", self.text, self.rest)
    }
}
