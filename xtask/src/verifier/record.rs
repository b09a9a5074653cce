//! The table of programs in docs/limits.md: read, compared and written by machine, between two marks.

use std::fs;

use anyhow::{Context, Result, bail};

use super::Program;
use crate::paths;

const BEGIN: &str = "<!-- programs: written by `cargo xtask limits` -->\n";
const END: &str = "<!-- end of programs -->";
const HEAD: &str =
    "| toolchain | program | instructions verified | stack, bytes |\n| --- | --- | ---: | ---: |\n";

/// The document with its table taken out.
pub(super) struct Record {
    before: String,
    rows: Vec<(String, Program)>,
    after: String,
}

impl Record {
    pub(super) fn read() -> Result<Self> {
        let path = paths::root().join("docs/limits.md");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).context("docs/limits.md")
    }

    pub(super) fn find(&self, toolchain: &str, program: &str) -> Option<&Program> {
        self.rows
            .iter()
            .find(|(row, found)| row == toolchain && found.name == program)
            .map(|(_, found)| found)
    }

    pub(super) fn replace(&mut self, toolchain: &str, programs: Vec<Program>) {
        self.rows.retain(|(row, _)| row != toolchain);
        self.rows.extend(programs.into_iter().map(|program| (toolchain.to_owned(), program)));
        self.rows.sort_by(|(one, first), (other, second)| (one, &first.name).cmp(&(other, &second.name)));
    }

    pub(super) fn write(&self) -> Result<()> {
        let path = paths::root().join("docs/limits.md");
        fs::write(&path, self.text()).with_context(|| format!("cannot write {}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let (before, rest) =
            text.split_once(BEGIN).with_context(|| format!("has no line `{}`", BEGIN.trim()))?;
        let (table, after) = rest.split_once(END).with_context(|| format!("has no line `{END}`"))?;
        let rows = table.lines().skip(2).map(row).collect::<Result<_>>()?;
        Ok(Self { before: before.to_owned(), rows, after: after.to_owned() })
    }

    fn text(&self) -> String {
        let rows: String = self
            .rows
            .iter()
            .map(|(toolchain, program)| {
                format!("| {toolchain} | {} | {} | {} |\n", program.name, program.instructions, program.stack)
            })
            .collect();
        format!("{}{BEGIN}{HEAD}{rows}{END}{}", self.before, self.after)
    }
}

fn row(line: &str) -> Result<(String, Program)> {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [toolchain, name, instructions, stack] = cells[..] else {
        bail!("a row of programs has four cells, not as in `{line}`");
    };
    let instructions =
        instructions.parse().with_context(|| format!("no number of instructions in `{line}`"))?;
    Ok((toolchain.to_owned(), Program { name: name.to_owned(), instructions, stack: stack.to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(name: &str, instructions: u64) -> Program {
        Program { name: name.to_owned(), instructions, stack: "320+64".to_owned() }
    }

    #[test]
    fn what_is_written_is_read_again_and_other_toolchains_stay() {
        let empty = format!("# Limits\n\n{BEGIN}{HEAD}{END}\n\nMore.\n");
        let mut record = Record::parse(&empty).unwrap();
        assert_eq!(record.text(), empty);
        record.replace("rustup", vec![program("from_pod", 7)]);
        record.replace("debian", vec![program("to_pod", 9), program("from_pod", 8)]);
        record.replace("debian", vec![program("from_pod", 5)]);
        let again = Record::parse(&record.text()).unwrap();
        assert_eq!(again.find("debian", "from_pod"), Some(&program("from_pod", 5)));
        assert_eq!(again.find("rustup", "from_pod"), Some(&program("from_pod", 7)));
        assert_eq!(again.find("debian", "to_pod"), None);
        assert_eq!(again.text(), record.text());
        assert!(again.text().ends_with("\n\nMore.\n"));
    }

    #[test]
    fn a_table_without_marks_or_with_a_broken_row_is_refused() {
        assert!(Record::parse("# Limits").is_err());
        assert!(Record::parse(&format!("{BEGIN}{HEAD}| a | b | many | 3 |\n{END}")).is_err());
    }
}
