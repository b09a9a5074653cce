//! Which labels make an identity: Cilium's default patterns, and its way of adding to them.
//!
//! Every label that stays multiplies identities, so labels that differ from pod to pod are left out. A pattern is a
//! regular expression at the beginning of the key, with an optional source before it and `!` for "leave out":
//! `k8s:!build-id`, `team`. Where one to keep and one to leave out both match, the longer match decides. As soon as one
//! pattern to keep is added, only what such a pattern matches is kept.

use regex::Regex;

/// Cilium's defaults.
const DEFAULTS: [&str; 21] = [
    "reserved:.*",
    r"io\.kubernetes\.pod\.namespace",
    r"io\.cilium\.k8s\.namespace\.labels",
    r"app\.kubernetes\.io",
    r"io\.cilium\.k8s\.policy\.cluster",
    r"io\.cilium\.k8s\.policy\.serviceaccount",
    r"!io\.kubernetes",
    r"!kubernetes\.io",
    r"!statefulset\.kubernetes\.io/pod-name",
    r"!apps\.kubernetes\.io/pod-index",
    r"!batch\.kubernetes\.io/job-completion-index",
    r"!batch\.kubernetes\.io/controller-uid",
    r"!.*beta\.kubernetes\.io",
    r"!k8s\.io",
    r"!pod-template-generation",
    r"!pod-template-hash",
    r"!controller-revision-hash",
    r"!controller-uid",
    r"!annotation.*",
    r"!etcd_node",
    r"!topology\.kubernetes\.io",
];

/// Decides which labels make an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelFilter {
    patterns: Vec<Pattern>,
    /// Whether a pattern to keep was added to the defaults.
    only_kept: bool,
}

#[derive(Clone, Debug)]
struct Pattern {
    /// Empty for every source.
    source: String,
    leaves_out: bool,
    regex: Regex,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        let parts = |it: &Self| (it.leaves_out, it.source.clone(), it.regex.as_str().to_owned());
        parts(self) == parts(other)
    }
}

impl Eq for Pattern {}

/// A pattern that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("label pattern {pattern:?}: {message}")]
pub struct PatternError {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub message: String,
}

impl Default for LabelFilter {
    fn default() -> Self {
        let parse =
            |pattern: &&str| Pattern::parse(pattern).expect("the defaults are constants that a test parses");
        Self { patterns: DEFAULTS.iter().map(parse).collect(), only_kept: false }
    }
}

impl LabelFilter {
    /// The defaults and these patterns.
    ///
    /// # Errors
    /// The first pattern that is empty or no regular expression.
    pub fn with_patterns<P: AsRef<str>>(patterns: &[P]) -> Result<Self, PatternError> {
        let mut filter = Self::default();
        for pattern in patterns {
            let pattern = Pattern::parse(pattern.as_ref())?;
            filter.only_kept |= !pattern.leaves_out;
            filter.patterns.push(pattern);
        }
        Ok(filter)
    }

    /// Whether a label is part of an identity.
    #[must_use]
    pub fn keeps(&self, source: &str, key: &str) -> bool {
        let matches = |pattern: &&Pattern| pattern.source.is_empty() || pattern.source == source;
        let (mut kept, mut left_out): (Option<usize>, Option<usize>) = (None, None);
        for pattern in self.patterns.iter().filter(matches) {
            let Some(found) = pattern.regex.find(key).filter(|found| found.start() == 0) else { continue };
            if pattern.leaves_out {
                left_out = Some(left_out.map_or(found.end(), |shortest| shortest.min(found.end())));
            } else {
                kept = kept.max(Some(found.end()));
            }
        }
        match (kept, left_out) {
            (Some(kept), Some(left_out)) => kept > left_out,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => !self.only_kept,
        }
    }
}

impl Pattern {
    fn parse(pattern: &str) -> Result<Self, PatternError> {
        let wrong = |message: String| PatternError { pattern: pattern.to_owned(), message };
        let (source, rest) = pattern.split_once(':').unwrap_or(("", pattern));
        let (leaves_out, expression) = match rest.strip_prefix('!') {
            Some(expression) => (true, expression),
            None => (false, rest),
        };
        if expression.is_empty() {
            return Err(wrong("is empty".to_owned()));
        }
        let regex = Regex::new(expression).map_err(|error| wrong(error.to_string()))?;
        let source = if source == "any" { "" } else { source };
        Ok(Self { source: source.to_owned(), leaves_out, regex })
    }
}
