//! The results: collected run by run, shown as a table, written as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use crate::load::Run;
use crate::plan::{Column, Plan, Quantity, Row};
use crate::stats::Sample;

/// Everything of one benchmark.
#[derive(Serialize, Clone, Debug)]
pub struct Results {
    /// Kernel release.
    pub kernel: String,
    /// Processors, shared by both hosts, the load generators and the daemons.
    pub processors: usize,
    /// Model of the processor.
    pub processor: String,
    /// Version of meshnet.
    pub version: String,
    /// Runs of each cell.
    pub runs: usize,
    /// Seconds of a run.
    pub seconds: f64,
    /// The tables.
    pub wires: Vec<WireResults>,
}

/// The table of one wire.
#[derive(Serialize, Clone, Debug)]
pub struct WireResults {
    /// The wire.
    pub wire: String,
    /// The lines of the table.
    pub lines: Vec<Line>,
    /// What makes the figures doubtful, for people.
    pub warnings: Vec<String>,
}

/// One quantity of one row, for all columns.
#[derive(Serialize, Clone, Debug)]
pub struct Line {
    /// The row.
    pub row: Row,
    /// The quantity.
    pub quantity: Quantity,
    /// The figures.
    pub columns: BTreeMap<Column, Sample>,
    /// Median of meshnet against median of kernel VXLAN.
    pub meshnet_to_kernel_vxlan: Option<f64>,
}

/// Collects runs until the table can be made.
#[derive(Default)]
pub struct Collector {
    figures: BTreeMap<(Row, Quantity, Column), Vec<f64>>,
    warnings: Vec<String>,
    /// Runs made, and for each program that used the machine meanwhile: in how many of them, and the largest share.
    runs: usize,
    foreign: BTreeMap<String, (usize, f64)>,
}

impl Collector {
    /// Adds one run.
    pub fn add(&mut self, row: Row, column: Column, result: Run) {
        self.runs += 1;
        for (quantity, figure) in result.figures {
            self.figures.entry((row, quantity, column)).or_default().push(figure);
        }
        for (program, share) in result.foreign {
            let (runs, largest) = self.foreign.entry(program).or_default();
            (*runs, *largest) = (*runs + 1, largest.max(share));
        }
    }

    /// Adds a doubt.
    pub fn warn(&mut self, text: String) {
        self.warnings.push(text);
    }

    /// The table.
    pub fn finish(mut self, wire: String, plan: &Plan) -> WireResults {
        let cells =
            plan.rows.iter().flat_map(|row| row.quantities().iter().map(move |quantity| (*row, *quantity)));
        let lines = cells.filter_map(|(row, quantity)| self.line(row, quantity)).collect();
        let foreign = self.foreign.iter().map(|(program, (runs, largest))| {
            let percent = largest * 100.0;
            format!("{program} used up to {percent:.0} % of a processor in {runs} of {} runs", self.runs)
        });
        self.warnings.extend(foreign);
        WireResults { wire, lines, warnings: self.warnings }
    }

    fn line(&self, row: Row, quantity: Quantity) -> Option<Line> {
        let sample = |column| Some((column, Sample::of(self.figures.get(&(row, quantity, column))?)?));
        let columns: BTreeMap<Column, Sample> = Column::ALL.into_iter().filter_map(sample).collect();
        let median = |column| columns.get(&column).map(|sample: &Sample| sample.median);
        let ratio = median(Column::Meshnet).zip(median(Column::KernelVxlan).filter(|kernel| *kernel > 0.0));
        (!columns.is_empty()).then(|| Line {
            row,
            quantity,
            meshnet_to_kernel_vxlan: ratio.map(|(ours, kernel)| ours / kernel),
            columns,
        })
    }
}

impl Results {
    /// The tables as Markdown.
    pub fn markdown(&self) -> String {
        let mut out = format!(
            "meshnet {}, Linux {}, {} x {}; median of {} interleaved runs of {} s (spread of all runs)\n",
            self.version, self.kernel, self.processors, self.processor, self.runs, self.seconds
        );
        for wire in &self.wires {
            out.push('\n');
            out.push_str(&wire.markdown());
        }
        out
    }
}

impl WireResults {
    fn markdown(&self) -> String {
        let mut rows = vec![vec![
            format!("{} wire", self.wire),
            Column::BareVeth.to_string(),
            Column::KernelVxlan.to_string(),
            Column::Meshnet.to_string(),
            "meshnet to kernel".to_owned(),
        ]];
        rows.extend(self.lines.iter().map(Line::cells));
        let mut out = aligned(&rows);
        for warning in &self.warnings {
            let _infallible = writeln!(out, "warning: {warning}");
        }
        out
    }
}

impl Line {
    fn cells(&self) -> Vec<String> {
        let mut cells = vec![format!("{}: {}", self.row, self.quantity)];
        cells.extend(Column::ALL.iter().map(|column| match self.columns.get(column) {
            Some(sample) => format!("{} ({:.0} %)", figure(sample.median), sample.spread() * 100.0),
            None => "-".to_owned(),
        }));
        cells
            .push(self.meshnet_to_kernel_vxlan.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")));
        cells
    }
}

/// Three digits that matter.
fn figure(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// A Markdown table whose columns line up as plain text too; the first row is the head.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for (index, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(
                |(at, (cell, width))| {
                    if at == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                },
            )
            .collect();
        let _infallible = writeln!(out, "| {} |", cells.join(" | "));
        if index == 0 {
            let rules = widths.iter().enumerate();
            let rules: Vec<String> = rules
                .map(
                    |(at, width)| {
                        if at == 0 { "-".repeat(*width) } else { format!("{}:", "-".repeat(width - 1)) }
                    },
                )
                .collect();
            let _infallible = writeln!(out, "| {} |", rules.join(" | "));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn run(figures: &[(Quantity, f64)], foreign: &[(&str, f64)]) -> Run {
        let foreign = foreign.iter().map(|(name, share)| ((*name).to_owned(), *share)).collect();
        Run { figures: figures.iter().copied().collect(), foreign }
    }

    fn sample() -> WireResults {
        let plan = Plan { rows: vec![Row::Udp64, Row::Ping], runs: 2, time: Duration::from_secs(1) };
        let mut collector = Collector::default();
        for (at, kpps) in [200.0, 220.0].into_iter().enumerate() {
            collector.add(Row::Udp64, Column::KernelVxlan, run(&[(Quantity::KppsDelivered, kpps)], &[]));
            let foreign = if at == 1 { &[("cargo", 0.8)][..] } else { &[] };
            let ours = run(&[(Quantity::KppsDelivered, kpps * 1.5)], foreign);
            collector.add(Row::Udp64, Column::Meshnet, ours);
        }
        collector.finish("nic".into(), &plan)
    }

    #[test]
    fn a_line_has_medians_spreads_and_the_ratio() {
        let results = sample();
        assert_eq!(results.lines.len(), 1, "rows without runs are left out");
        let line = &results.lines[0];
        assert_eq!(line.columns[&Column::Meshnet].median, 315.0);
        assert_eq!(line.meshnet_to_kernel_vxlan, Some(1.5));
        assert_eq!(line.cells(), ["UDP, 64 B: kpps delivered", "-", "210 (10 %)", "315 (10 %)", "1.50"]);
    }

    #[test]
    fn foreign_use_becomes_one_warning_for_each_program() {
        let results = sample();
        assert_eq!(results.warnings, ["cargo used up to 80 % of a processor in 1 of 4 runs"]);
        assert!(results.markdown().contains("warning: cargo"));
    }

    #[test]
    fn the_table_lines_up_and_is_markdown() {
        let text = sample().markdown();
        let table: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(table.len(), 3);
        assert!(table.iter().all(|line| line.len() == table[0].len()), "{text}");
    }

    #[test]
    fn the_json_names_rows_and_columns_in_snake_case() {
        let json = serde_json::to_value(sample()).unwrap();
        assert_eq!(json["lines"][0]["row"], "udp64");
        assert_eq!(json["lines"][0]["quantity"], "kpps_delivered");
        assert_eq!(json["lines"][0]["columns"]["meshnet"]["runs"][1], 330.0);
    }

    #[test]
    fn figures_keep_three_digits() {
        assert_eq!(
            [figure(0.284), figure(9.81), figure(33.44), figure(438.2)],
            ["0.28", "9.81", "33.4", "438"]
        );
    }
}
