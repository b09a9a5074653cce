//! What one request may cost: patterns and expressions are compiled once and then run for every flow, by the agent that
//! everybody shares.
//!
//! [`super::compile`] draws on it for fields, [`super::expression`] for `matches`.

use std::cell::Cell;

use regex::{Regex, RegexBuilder};

/// Most compiled patterns in one request. Names of one field of one filter are one pattern together.
const MOST_PATTERNS: usize = 128;
/// Most bytes that they take compiled.
const MOST_BYTES: usize = 32 << 20;
/// Most expressions in one request. One costs some microseconds for every flow.
const MOST_EXPRESSIONS: usize = 16;
/// The first size that a pattern is tried with, and by how much the next one is larger.
const FIRST_SIZE: usize = 16 << 10;
const GROWTH: usize = 4;
/// Bytes of states that a pattern remembers while it runs.
const MEMORY: usize = 128 << 10;

/// What is left of it.
#[derive(Debug)]
pub(super) struct Budget {
    patterns: Cell<usize>,
    bytes: Cell<usize>,
    expressions: Cell<usize>,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            patterns: Cell::new(MOST_PATTERNS),
            bytes: Cell::new(MOST_BYTES),
            expressions: Cell::new(MOST_EXPRESSIONS),
        }
    }
}

impl Budget {
    /// Compiles a pattern that may take `most` bytes.
    ///
    /// It is tried with growing sizes, since the crate does not tell how much a compiled one takes; all tries together
    /// cost a third more than the last.
    pub(super) fn regex(&self, pattern: &str, most: usize) -> Result<Regex, String> {
        let Some(patterns) = self.patterns.get().checked_sub(1) else {
            return Err(format!("a request takes at most {MOST_PATTERNS} patterns"));
        };
        let left = self.bytes.get();
        let mut size = FIRST_SIZE.min(most);
        loop {
            let Some(rest) = left.checked_sub(size) else {
                return Err(format!(
                    "the patterns of a request take at most {} MiB compiled",
                    MOST_BYTES >> 20
                ));
            };
            match RegexBuilder::new(pattern).size_limit(size).dfa_size_limit(MEMORY).build() {
                Ok(regex) => {
                    self.patterns.set(patterns);
                    self.bytes.set(rest);
                    return Ok(regex);
                }
                Err(regex::Error::CompiledTooBig(_)) if size < most => size = (size * GROWTH).min(most),
                Err(error) => return Err(format!("{pattern:?} is no regular expression: {error}")),
            }
        }
    }

    /// One more expression.
    pub(super) fn expression(&self) -> Result<(), String> {
        match self.expressions.get().checked_sub(1) {
            Some(left) => {
                self.expressions.set(left);
                Ok(())
            }
            None => Err(format!("a request takes at most {MOST_EXPRESSIONS} expressions")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_is_gone_and_what_was_refused_is_not() {
        let budget = Budget::default();
        assert!(budget.regex("(", 1 << 20).is_err() && budget.regex(r"\w{2000}", 1 << 20).is_err());
        assert_eq!((budget.patterns.get(), budget.bytes.get()), (MOST_PATTERNS, MOST_BYTES));
        assert!(budget.regex("^web-[0-9]+$", 1 << 20).expect("a pattern").is_match("web-1"));
        assert_eq!(
            (budget.patterns.get(), budget.bytes.get()),
            (MOST_PATTERNS - 1, MOST_BYTES - FIRST_SIZE),
            "a small one costs little"
        );
        for _ in 1..MOST_PATTERNS {
            budget.regex("a", 1 << 20).expect("a small pattern");
        }
        assert!(budget.regex("a", 1 << 20).expect_err("one too many").contains("at most 128 patterns"));
    }

    #[test]
    fn large_patterns_are_fewer() {
        let budget = Budget::default();
        let taken = (0..MOST_PATTERNS).take_while(|_| budget.regex(r"\w{30}", 1 << 22).is_ok()).count();
        assert!((1..MOST_PATTERNS).contains(&taken), "{taken}");
        assert!(budget.regex(r"\w{30}", 1 << 22).expect_err("spent").contains("at most 32 MiB"));
    }
}
