//! Tables of text: in a box with colours on a terminal, aligned columns anywhere else.

use std::fmt::Write;

/// How text is decorated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Style {
    /// Boxes, bars and colours.
    Terminal,
    /// Text alone.
    Plain,
}

/// What a piece of text stands out for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tone {
    /// As it is.
    Normal,
    /// Less important.
    Faint,
    /// More important.
    Strong,
    /// As it should be.
    Good,
    /// Not as it should be.
    Bad,
}

impl Style {
    /// `text` in `tone` (ECMA-48, select graphic rendition).
    pub(crate) fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            _ if self == Style::Plain => return text.to_owned(),
            Tone::Normal => return text.to_owned(),
            Tone::Faint => "2",
            Tone::Strong => "1",
            Tone::Good => "32",
            Tone::Bad => "31",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// One field of a table.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
    left: bool,
}

impl Cell {
    /// A word or a sentence, aligned to the left.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), tone: Tone::Normal, left: true }
    }

    /// A number, aligned to the right.
    pub(crate) fn number(text: impl Into<String>) -> Self {
        Self { text: text.into(), tone: Tone::Normal, left: false }
    }

    /// The same in another tone.
    pub(crate) fn tone(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }

    fn padded(&self, width: usize, style: Style) -> String {
        let gap = " ".repeat(width.saturating_sub(self.width()));
        let text = style.paint(self.tone, &self.text);
        if self.left { format!("{text}{gap}") } else { format!("{gap}{text}") }
    }
}

/// Lays out `rows` under `head`, every line ended by a newline. All rows have as many cells as the head.
pub(crate) fn table(head: &[Cell], rows: &[Vec<Cell>], style: Style) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).chain(head.get(column));
        cells.map(Cell::width).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut out = String::new();
    let mut line = |text: String| {
        let _infallible = writeln!(out, "  {}", text.trim_end());
    };
    if style == Style::Terminal {
        line(rule('┌', '┬', '┐', &widths));
    }
    line(row(head, &widths, style));
    if style == Style::Terminal {
        line(rule('├', '┼', '┤', &widths));
    }
    for cells in rows {
        line(row(cells, &widths, style));
    }
    if style == Style::Terminal {
        line(rule('└', '┴', '┘', &widths));
    }
    out
}

fn rule(left: char, middle: char, right: char, widths: &[usize]) -> String {
    let dashes: Vec<String> = widths.iter().map(|width| "─".repeat(width + 2)).collect();
    format!("{left}{}{right}", dashes.join(&middle.to_string()))
}

fn row(cells: &[Cell], widths: &[usize], style: Style) -> String {
    let padded: Vec<String> =
        cells.iter().zip(widths).map(|(cell, width)| cell.padded(*width, style)).collect();
    match style {
        Style::Terminal => format!("│ {} │", padded.join(" │ ")),
        Style::Plain => padded.join("   "),
    }
}

/// A horizontal bar for `value` of at most `full`, `width` characters long when full.
pub(crate) fn bar(value: f64, full: f64, width: usize) -> String {
    const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let share = if full > 0.0 { (value / full).clamp(0.0, 1.0) } else { 0.0 };
    let eighths = (share * width as f64 * 8.0).round() as usize;
    let mut bar = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        bar.push(EIGHTHS[eighths % 8]);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(style: Style) -> String {
        let head = [Cell::text("path"), Cell::number("Gbit/s")];
        let rows = [
            vec![Cell::text("kernel VXLAN"), Cell::number("9.8")],
            vec![Cell::text("meshnet").tone(Tone::Strong), Cell::number("10.1")],
        ];
        table(&head, &rows, style)
    }

    #[test]
    fn plain_tables_are_aligned_and_have_no_escapes() {
        let expected = "  path           Gbit/s\n  kernel VXLAN      9.8\n  meshnet          10.1\n";
        assert_eq!(sample(Style::Plain), expected);
    }

    #[test]
    fn a_box_is_as_wide_as_its_widest_cells() {
        let text = sample(Style::Terminal).replace("\x1b[1m", "").replace("\x1b[0m", "");
        let widths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
        assert_eq!(widths.len(), 6);
        assert!(widths.iter().all(|width| *width == widths[0]), "{text}");
    }

    #[test]
    fn bars_grow_by_eighths() {
        assert_eq!(bar(1.0, 1.0, 3), "███");
        assert_eq!(bar(0.5, 1.0, 3), "█▌");
        assert_eq!(bar(0.0, 1.0, 3), "");
        assert_eq!(bar(2.0, 1.0, 3), "███");
        assert_eq!(bar(1.0, 0.0, 3), "");
    }
}
