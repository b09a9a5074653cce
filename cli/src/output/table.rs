//! Columns, as kubectl prints them: a header in capitals, two spaces between columns, no lines.

use super::paint::{Paint, Tone};

/// One cell: its text and what it means.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell with a meaning.
    pub(crate) fn toned(tone: Tone, text: impl Into<String>) -> Self {
        Self { text: text.into(), tone }
    }
}

impl<T: ToString> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.to_string(), tone: Tone::Plain }
    }
}

/// Rows as Hubble's client writes them: three spaces behind the widest cell of a column, nothing behind the last one of a
/// row.
pub(crate) fn spaced(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let letters = |cell: &String| cell.chars().count();
    let widest = |column| rows.iter().filter_map(|row| row.get(column)).map(letters).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(|column| widest(column) + 3).collect();
    let mut text = String::new();
    for row in rows {
        for (index, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if index + 1 < row.len() {
                text.extend(std::iter::repeat_n(' ', widths[index] - letters(cell)));
            }
        }
        text.push('\n');
    }
    text
}

/// Rows under a header.
pub(crate) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(header: &[&'static str]) -> Self {
        Self { header: header.to_vec(), rows: Vec::new() }
    }

    /// Adds a row. An empty cell shows as `-`, so that columns can be cut by blanks.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The text, or `empty` where there are no rows.
    pub(crate) fn render(&self, paint: Paint, empty: &str) -> String {
        if self.rows.is_empty() {
            return format!("{empty}\n");
        }
        let widths = self.widths();
        let header = self.header.iter().map(|name| Cell::toned(Tone::Strong, *name)).collect::<Vec<_>>();
        std::iter::once(&header).chain(&self.rows).map(|row| line(row, &widths, paint)).collect()
    }

    fn widths(&self) -> Vec<usize> {
        (0..self.header.len())
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| width(&cell.text));
                cells.chain([width(self.header[column])]).max().unwrap_or(0)
            })
            .collect()
    }
}

/// One row; the last column is not padded.
fn line(row: &[Cell], widths: &[usize], paint: Paint) -> String {
    let mut text = String::new();
    for (column, cell) in row.iter().enumerate() {
        let shown = if cell.text.is_empty() { "-" } else { cell.text.as_str() };
        text.push_str(&paint.tone(cell.tone, shown));
        if column + 1 < row.len() {
            let pad = widths.get(column).copied().unwrap_or(0).saturating_sub(width(shown));
            text.push_str(&" ".repeat(pad + 2));
        }
    }
    text.push('\n');
    text
}

/// Names are ASCII by the rules of Kubernetes; other characters count as one column each.
fn width(text: &str) -> usize {
    text.chars().count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_empty_cells_are_dashes() {
        let mut table = Table::new(&["ID", "POD", "STATE"]);
        table.row([1.into(), "default/web".into(), Cell::toned(Tone::Good, "ready")]);
        table.row([1234.into(), "".into(), "waiting".into()]);
        let expected = "\
ID    POD          STATE
1     default/web  ready
1234  -            waiting
";
        assert_eq!(table.render(Paint::Plain, "none"), expected);
    }

    #[test]
    fn colours_do_not_move_columns() {
        let mut table = Table::new(&["A", "B"]);
        table.row([Cell::toned(Tone::Bad, "x"), "y".into()]);
        let coloured = table.render(Paint::Colour, "none");
        assert_eq!(anstream::adapter::strip_str(&coloured).to_string(), "A  B\nx  y\n");
    }

    #[test]
    fn no_rows_say_so() {
        assert_eq!(Table::new(&["A"]).render(Paint::Plain, "No endpoints."), "No endpoints.\n");
    }
}
