//! What the benchmarks say: rows with both sides of each ratio, as a table for people and as JSON for machines.

use std::io::{self, Write};

use anyhow::{Context, Result};
use serde::Serialize;

use super::spread::Spread;

/// One row. The ratio is made of pairs that were measured one after the other, so that a machine that drifts bends both
/// sides of each pair alike.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Which group of benchmarks.
    pub group: &'static str,
    /// What was measured.
    pub name: String,
    /// Unit of both sides.
    pub unit: &'static str,
    /// Our side.
    pub ours: Spread,
    /// The other side, if the row compares.
    pub against: Option<Against>,
    /// What the project wants of it.
    pub aim: Option<Aim>,
    /// What a reader must know.
    pub note: Option<String>,
}

/// The other side of a ratio.
#[derive(Clone, Debug, Serialize)]
pub struct Against {
    /// What it is.
    pub name: &'static str,
    /// Its numbers, in the row's unit.
    pub other: Spread,
    /// Ours divided by its, pair by pair.
    pub ratio: Spread,
}

/// A limit for the median: of the ratio where there is one, else of our side.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(tag = "kind", content = "limit", rename_all = "snake_case")]
pub enum Aim {
    /// Not less than this.
    AtLeast(f64),
    /// Not more than this.
    AtMost(f64),
}

/// On what it was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Name of the processor.
    pub processor: String,
    /// Processors that are online.
    pub processors: usize,
    /// Kernel release.
    pub kernel: String,
    /// Load average of a minute at the start and at the end.
    pub load: [f64; 2],
    /// When it began, UTC.
    pub date: String,
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// On what.
    pub machine: Machine,
    /// The rows.
    pub rows: Vec<Row>,
}

impl Row {
    /// A row without another side.
    #[must_use]
    pub fn new(group: &'static str, name: impl Into<String>, unit: &'static str, ours: Spread) -> Self {
        Self { group, name: name.into(), unit, ours, against: None, aim: None, note: None }
    }

    /// With an aim.
    #[must_use]
    pub fn aim(self, aim: Aim) -> Self {
        Self { aim: Some(aim), ..self }
    }

    /// With a note.
    #[must_use]
    pub fn note(self, note: impl Into<String>) -> Self {
        Self { note: Some(note.into()), ..self }
    }

    /// Whether the aim is met, if there is one.
    #[must_use]
    pub fn meets_aim(&self) -> Option<bool> {
        let median = self.against.as_ref().map_or(self.ours.median, |against| against.ratio.median);
        Some(match self.aim? {
            Aim::AtLeast(limit) => median >= limit,
            Aim::AtMost(limit) => median <= limit,
        })
    }

    fn aim_text(&self) -> String {
        let percent = self.against.is_some();
        let show = |limit: f64| if percent { format!("{:.0} %", limit * 100.0) } else { number(limit) };
        let word = match self.meets_aim() {
            Some(true) => "met",
            Some(false) => "SHORT",
            None => return String::new(),
        };
        match self.aim {
            Some(Aim::AtLeast(limit)) => format!("≥ {} {word}", show(limit)),
            Some(Aim::AtMost(limit)) => format!("≤ {} {word}", show(limit)),
            None => String::new(),
        }
    }
}

impl Machine {
    /// This one.
    ///
    /// # Errors
    /// `/proc` does not say.
    pub fn this() -> Result<Self> {
        let cpu = std::fs::read_to_string("/proc/cpuinfo").context("reading /proc/cpuinfo")?;
        let names = cpu.lines().filter(|line| line.starts_with("model name"));
        let names: Vec<&str> =
            names.filter_map(|line| line.split_once(':')).map(|(_, name)| name.trim()).collect();
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").context("the kernel's release")?;
        let load = load()?;
        Ok(Self {
            processor: names.first().map_or("unknown", |name| name).to_owned(),
            processors: names.len(),
            kernel: kernel.trim().to_owned(),
            load: [load, load],
            date: jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
        })
    }

    /// Notes how busy the machine is at the end.
    ///
    /// # Errors
    /// `/proc` does not say.
    pub fn finish(&mut self) -> Result<()> {
        self.load[1] = load()?;
        Ok(())
    }

    fn line(&self) -> String {
        format!(
            "{} × {}, kernel {}, {}, load {:.1} before and {:.1} after",
            self.processors, self.processor, self.kernel, self.date, self.load[0], self.load[1]
        )
    }
}

fn load() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").context("reading /proc/loadavg")?;
    text.split(' ').next().and_then(|first| first.parse().ok()).context("/proc/loadavg begins with a number")
}

impl Report {
    /// Prints it as a table: median, and smallest to largest in brackets.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn print_table(&self) -> Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "{}", self.machine.line())?;
        let mut group = "";
        for row in &self.rows {
            if row.group != group {
                group = row.group;
                writeln!(out, "\n{group}")?;
            }
            let mut line = format!("  {:<52} {:>26} {:<7}", row.name, spread(row.ours), row.unit);
            if let Some(against) = &row.against {
                let ratio = against.ratio.scaled(100.0);
                line.push_str(&format!(
                    " {:<15} {:>26}  = {:>22} %",
                    against.name,
                    spread(against.other),
                    format!("{:.1} ({:.1}–{:.1})", ratio.median, ratio.min, ratio.max)
                ));
            }
            line.push_str(&format!("  {}", row.aim_text()));
            writeln!(out, "{}", line.trim_end())?;
            if let Some(note) = &row.note {
                writeln!(out, "      {note}")?;
            }
        }
        Ok(())
    }

    /// As JSON, with a line's end.
    ///
    /// # Errors
    /// There is a number that JSON does not have.
    pub fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self).context("the report as JSON")? + "\n")
    }
}

fn spread(spread: Spread) -> String {
    format!("{} ({}–{})", number(spread.median), number(spread.min), number(spread.max))
}

/// Three digits that count, and no more behind the point than a reader needs.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aim_is_for_the_ratio_where_there_is_one() {
        let flat = |value: f64| Spread { median: value, min: value, max: value, count: 1 };
        let row = Row::new("traffic", "x", "Gbit/s", flat(30.0)).aim(Aim::AtLeast(0.97));
        assert_eq!(row.meets_aim(), Some(true), "30 Gbit/s are more than 0.97");
        let against = Against { name: "bare", other: flat(40.0), ratio: flat(0.75) };
        let row = Row { against: Some(against), ..row };
        assert_eq!(row.meets_aim(), Some(false));
        assert_eq!(row.aim_text(), "≥ 97 % SHORT");
    }

    #[test]
    fn an_upper_limit_is_met_by_what_is_below() {
        let row = Row::new("programs", "x", "ns", Spread { median: 150.0, min: 1.0, max: 900.0, count: 3 });
        assert_eq!(row.clone().aim(Aim::AtMost(150.0)).meets_aim(), Some(true));
        assert_eq!(row.clone().aim(Aim::AtMost(149.0)).meets_aim(), Some(false));
        assert_eq!(row.meets_aim(), None);
    }
}
