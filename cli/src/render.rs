//! What people and scripts see: JSON, aligned tables, and a sign of life while they wait.

pub(crate) mod metrics;
pub(crate) mod network;
pub(crate) mod status;
pub(crate) mod template;

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::ProgressBar;
use serde::Serialize;

pub(crate) use status::holder;

use crate::args::Format;
use crate::failure::Failure;

/// A wait shorter than this shows nothing.
const TICK: Duration = Duration::from_millis(120);

/// Prints an answer to standard output: as JSON, or as `text` makes it.
pub(crate) fn answer<T: Serialize>(format: Format, answer: &T, text: impl FnOnce(&T) -> String) {
    let text = match format {
        Format::Text => text(answer),
        Format::Json => match serde_json::to_string_pretty(answer) {
            Ok(json) => json + "\n",
            Err(e) => return failure(&Failure::internal(e), format),
        },
    };
    // A reader that closed the pipe has read enough.
    let _ = io::stdout().lock().write_all(text.as_bytes());
}

/// Prints a failure to standard error: one line, or one object.
pub(crate) fn failure(failure: &Failure, format: Format) {
    let line = match format {
        Format::Text => format!("meshnet: {failure}\n"),
        Format::Json => failure.json() + "\n",
    };
    // There is no other place to complain.
    let _ = io::stderr().lock().write_all(line.as_bytes());
}

/// Prints a warning to standard error, as one line: what was asked is done all the same.
pub(crate) fn warning(message: &str) {
    // There is no other place to warn.
    let _ = writeln!(io::stderr().lock(), "meshnet: warning: {}", message.replace('\n', " "));
}

/// One line for each.
pub(crate) fn lines<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(|item| format!("{item}\n")).collect()
}

/// One JSON object, on one line.
pub(crate) fn json_line(value: &impl Serialize) -> String {
    // Maps with string keys, numbers and text: nothing in it can fail to be written.
    serde_json::to_string(value).unwrap_or_default() + "\n"
}

/// A table with aligned columns, two spaces between them, and a line of titles.
pub(crate) struct Table {
    columns: Columns,
}

impl Table {
    pub(crate) fn new(titles: &[&str]) -> Self {
        let mut columns = Columns::default();
        columns.row(titles.iter().copied());
        Table { columns }
    }

    /// Adds a row; an empty cell is shown as `-`.
    pub(crate) fn row<const N: usize>(&mut self, cells: [&str; N]) {
        self.columns.row(cells.into_iter().map(|cell| if cell.is_empty() { "-" } else { cell }));
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.columns.fmt(f)
    }
}

/// Aligned columns, two spaces between them.
#[derive(Default)]
pub(crate) struct Columns {
    rows: Vec<Vec<String>>,
}

impl Columns {
    pub(crate) fn row<'a>(&mut self, cells: impl Iterator<Item = &'a str>) {
        self.rows.push(cells.map(str::to_owned).collect());
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths = Vec::new();
        for row in &self.rows {
            widths.resize(widths.len().max(row.len()), 0);
            let wider = |(width, cell): (&mut usize, &String)| *width = (*width).max(cell.chars().count());
            widths.iter_mut().zip(row).for_each(wider);
        }
        widths
    }
}

impl fmt::Display for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// A spinner on standard error, on a terminal only; gone when dropped.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(crate) fn start(message: String) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner().with_message(message);
            bar.enable_steady_tick(TICK);
            bar
        });
        Progress { bar }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["A", "LONGER", "C"]);
        table.row(["1", "", "last"]);
        table.row(["four", "2", "x"]);
        assert_eq!(table.to_string(), "A     LONGER  C\n1     -       last\nfour  2       x\n");
        assert_eq!(lines(&["a", "b"]), "a\nb\n");
    }
}
