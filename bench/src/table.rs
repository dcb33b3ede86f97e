//! Markdown tables that line up as plain text too.

use std::fmt::Write;

/// Three digits that matter.
pub fn figure(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// A table whose first row is the head; the first column is for words, the others for figures.
pub fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).max(3)).collect();
    let mut out = String::new();
    for (index, row) in rows.iter().enumerate() {
        line(
            &mut out,
            row.iter().zip(&widths).enumerate().map(|(at, (cell, width))| match at {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            }),
        );
        if index == 0 {
            line(
                &mut out,
                widths.iter().enumerate().map(|(at, width)| match at {
                    0 => "-".repeat(*width),
                    _ => format!("{}:", "-".repeat(width - 1)),
                }),
            );
        }
    }
    out
}

fn line(out: &mut String, cells: impl Iterator<Item = String>) {
    let cells: Vec<String> = cells.collect();
    let _infallible = writeln!(out, "| {} |", cells.join(" | "));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_keep_three_digits() {
        assert_eq!(
            [figure(0.284), figure(9.81), figure(33.44), figure(438.2)],
            ["0.28", "9.81", "33.4", "438"]
        );
    }

    #[test]
    fn all_lines_are_equally_long() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let text = aligned(&[row(["what", "n"]), row(["a µ", "1234"])]);
        let lengths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
        assert_eq!(lengths, [15, 15, 15], "{text}");
    }
}
