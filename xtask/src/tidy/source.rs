//! The files that git keeps or would keep.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::process;

/// A text file of the checkout.
pub(super) struct Source {
    /// From the checkout's root.
    pub(super) path: String,
    pub(super) text: String,
}

impl Source {
    /// All text files; what is no UTF-8 is no text.
    pub(super) fn all(root: &Path) -> Result<Vec<Self>> {
        let mut git = Command::new("git");
        git.current_dir(root).args(["ls-files", "--cached", "--others", "--exclude-standard"]);
        let mut sources: Vec<Self> = process::output(&mut git)?
            .lines()
            // Inputs for the fuzz targets are whatever breaks something.
            .filter(|path| !path.starts_with("tests/fuzz/corpus/"))
            .filter_map(|path| {
                Some(Self { path: path.to_owned(), text: fs::read_to_string(root.join(path)).ok()? })
            })
            .collect();
        sources.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(sources)
    }

    pub(super) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Written by a program, and said so on one of the first lines.
    pub(super) fn is_generated(&self) -> bool {
        self.text.lines().take(5).any(|line| line.contains("@generated"))
    }

    /// The first component of the path: the room.
    pub(super) fn room(&self) -> &str {
        self.path.split('/').next().unwrap_or_default()
    }

    /// A test's own file.
    pub(super) fn is_test(&self) -> bool {
        self.room() == "tests" || self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    /// Numbered lines before the unit tests at a file's end.
    pub(super) fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(at, line)| (at + 1, line))
            .take_while(|(_, line)| *line != "#[cfg(test)]")
    }

    /// `path:line: problem`
    pub(super) fn problem(&self, line: usize, problem: &str) -> String {
        format!("{}:{line}: {problem}", self.path)
    }
}

#[cfg(test)]
impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }
}
