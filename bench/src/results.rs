//! The results: collected run by run, shown as a table, written as JSON and read again.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::column::Column;
use crate::load::Run;
use crate::machine::Machine;
use crate::plan::{Plan, Quantity, Row};
use crate::session::NO_WIRE;
use crate::stats::Sample;
use crate::table::{aligned, figure};

/// Everything of one run of `throughput` or `latency`, as its JSON has it.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Results {
    /// What it was measured on.
    #[serde(flatten)]
    pub machine: Machine,
    /// Runs of each cell.
    pub runs: usize,
    /// Seconds of a run.
    pub seconds: f64,
    /// The tables.
    pub wires: Vec<WireResults>,
}

/// The table of one wire.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct WireResults {
    /// The wire: `veth`, `nic`, `cut`, or `none` for what happens on one host.
    pub wire: String,
    /// The columns that have figures, from left to right.
    pub columns: Vec<Column>,
    /// The lines of the table.
    pub lines: Vec<Line>,
    /// What makes the figures doubtful, for people.
    pub warnings: Vec<String>,
}

/// One quantity of one row, for all columns.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Line {
    /// The row.
    pub row: Row,
    /// The quantity.
    pub quantity: Quantity,
    /// The figures; a column without any is left out.
    pub columns: BTreeMap<Column, Sample>,
    /// Median of meshnet against median of the kernel, where both are measured.
    pub meshnet_to_kernel: Option<f64>,
}

/// Collects runs until the table can be made.
#[derive(Default)]
pub struct Collector {
    figures: BTreeMap<(Row, Quantity, Column), Vec<f64>>,
    warnings: Vec<String>,
    foreign: Foreign,
}

/// What else used the machine, summed up over many runs.
#[derive(Default)]
pub struct Foreign {
    runs: usize,
    /// For each program: in how many runs, and the largest share of a processor.
    programs: BTreeMap<String, (usize, f64)>,
}

impl Foreign {
    /// Adds one run, with what [`crate::cpu::Usage`] says of it.
    pub fn add(&mut self, programs: BTreeMap<String, f64>) {
        self.runs += 1;
        for (program, share) in programs {
            let (runs, largest) = self.programs.entry(program).or_default();
            (*runs, *largest) = (*runs + 1, largest.max(share));
        }
    }

    /// One for each program, for people.
    pub fn warnings(&self) -> impl Iterator<Item = String> + '_ {
        self.programs.iter().map(|(program, (runs, largest))| {
            let percent = largest * 100.0;
            format!("{program} used up to {percent:.0} % of a processor in {runs} of {} runs", self.runs)
        })
    }
}

impl Collector {
    /// Adds one run.
    pub fn add(&mut self, row: Row, column: Column, result: Run) {
        for (quantity, figure) in result.figures {
            self.figures.entry((row, quantity, column)).or_default().push(figure);
        }
        self.foreign.add(result.foreign);
    }

    /// Adds a doubt.
    pub fn warn(&mut self, text: String) {
        self.warnings.push(text);
    }

    /// The table.
    pub fn finish(mut self, wire: &str, plan: &Plan) -> WireResults {
        let cells =
            plan.rows.iter().flat_map(|row| row.quantities().iter().map(move |quantity| (*row, *quantity)));
        let lines: Vec<Line> =
            cells.filter_map(|(row, quantity)| self.line(row, quantity, &plan.columns)).collect();
        let has_any = |column: &Column| lines.iter().any(|line| line.columns.contains_key(column));
        self.warnings.extend(self.foreign.warnings());
        let columns = plan.columns.iter().copied().filter(has_any).collect();
        WireResults { wire: wire.to_owned(), columns, lines, warnings: self.warnings }
    }

    fn line(&self, row: Row, quantity: Quantity, columns: &[Column]) -> Option<Line> {
        let sample =
            |column: &Column| Some((*column, Sample::of(self.figures.get(&(row, quantity, *column))?)?));
        let columns: BTreeMap<Column, Sample> = columns.iter().filter_map(sample).collect();
        let median = |column| columns.get(&column).map(|sample: &Sample| sample.median);
        let ratio = median(Column::Meshnet).zip(median(Column::Kernel).filter(|kernel| *kernel > 0.0));
        (!columns.is_empty()).then(|| Line {
            row,
            quantity,
            meshnet_to_kernel: ratio.map(|(ours, kernel)| ours / kernel),
            columns,
        })
    }
}

impl Results {
    /// What was measured on, and how.
    pub fn headline(&self) -> String {
        let Results { machine, runs, seconds, .. } = self;
        format!("{machine}; median of {runs} interleaved runs of {seconds} s (spread of all runs)")
    }

    /// The tables as Markdown.
    pub fn markdown(&self) -> String {
        let mut out = self.headline() + "\n";
        for wire in &self.wires {
            out.push('\n');
            out.push_str(&wire.markdown());
        }
        out
    }
}

impl WireResults {
    /// The table as Markdown, and its warnings.
    pub fn markdown(&self) -> String {
        let mut out = aligned(&self.rows());
        for warning in &self.warnings {
            // A message of several lines would end the table's paragraph.
            let _infallible =
                writeln!(out, "\nwarning: {}", warning.split_whitespace().collect::<Vec<_>>().join(" "));
        }
        out
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let local = self.wire == NO_WIRE;
        let title = if local { "one host".to_owned() } else { format!("{} wire", self.wire) };
        let name = |column: &Column| match column {
            Column::Kernel if local => "kernel bridge".to_owned(),
            column => column.to_string(),
        };
        let head = std::iter::once(title).chain(self.columns.iter().map(name));
        let ratio = std::iter::once("meshnet to kernel".to_owned());
        let mut rows = vec![head.chain(ratio).collect()];
        rows.extend(self.lines.iter().map(|line| line.cells(&self.columns)));
        rows
    }
}

impl Line {
    fn cells(&self, columns: &[Column]) -> Vec<String> {
        let mut cells = vec![format!("{}: {}", self.row, self.quantity)];
        cells.extend(columns.iter().map(|column| match self.columns.get(column) {
            Some(sample) => format!("{} ({:.0} %)", figure(sample.median), sample.spread() * 100.0),
            None => "-".to_owned(),
        }));
        cells.push(self.meshnet_to_kernel.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")));
        cells
    }
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
        let plan = Plan {
            rows: vec![Row::Udp64, Row::Rtt1],
            columns: Column::USUAL.to_vec(),
            runs: 2,
            time: Duration::from_secs(1),
        };
        let mut collector = Collector::default();
        for (at, kpps) in [200.0, 220.0].into_iter().enumerate() {
            collector.add(Row::Udp64, Column::Kernel, run(&[(Quantity::KppsDelivered, kpps)], &[]));
            let foreign = if at == 1 { &[("cargo", 0.8)][..] } else { &[] };
            let ours = run(&[(Quantity::KppsDelivered, kpps * 1.5)], foreign);
            collector.add(Row::Udp64, Column::Meshnet, ours);
        }
        collector.finish("nic", &plan)
    }

    #[test]
    fn a_line_has_medians_spreads_and_the_ratio() {
        let results = sample();
        assert_eq!(results.lines.len(), 1, "rows without runs are left out");
        let line = &results.lines[0];
        assert_eq!(line.columns[&Column::Meshnet].median, 315.0);
        assert_eq!(line.meshnet_to_kernel, Some(1.5));
        assert_eq!(results.columns, [Column::Kernel, Column::Meshnet], "columns without runs are left out");
        let cells = line.cells(&Column::USUAL);
        assert_eq!(cells, ["UDP, 64 B, 1 flow: kpps delivered", "-", "210 (10 %)", "315 (10 %)", "1.50"]);
    }

    #[test]
    fn foreign_use_becomes_one_warning_for_each_program() {
        let results = sample();
        assert_eq!(results.warnings, ["cargo used up to 80 % of a processor in 1 of 4 runs"]);
        assert!(results.markdown().contains("warning: cargo"));
    }

    #[test]
    fn the_json_names_rows_and_columns_and_is_read_again() {
        let results = sample();
        let json = serde_json::to_value(&results).unwrap();
        assert_eq!(json["lines"][0]["row"], "udp64");
        assert_eq!(json["lines"][0]["quantity"], "kpps_delivered");
        assert_eq!(json["lines"][0]["columns"]["meshnet"]["runs"][1], 330.0);
        assert_eq!(serde_json::from_value::<WireResults>(json).unwrap(), results);
    }
}
