//! The committed results: every JSON file of `docs/results`, told apart by the start of its name.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

use crate::column::Column;
use crate::names::Names;
use crate::plan::{Quantity, Row};
use crate::results::{Line, Results};
use crate::scale::Scale;
use crate::sweep::Sweep;

/// Everything that was measured and kept. Of several files the one with more runs comes first, then the shorter name.
#[derive(Default, Debug)]
pub struct Library {
    /// `throughput*.json`.
    pub throughput: Vec<Named<Results>>,
    /// `latency*.json`.
    pub latency: Vec<Named<Results>>,
    /// `sweep*.json`.
    pub sweeps: Vec<Named<Sweep>>,
    /// `scale*.json`.
    pub scale: Vec<Named<Scale>>,
    /// `names*.json`.
    pub names: Vec<Named<Names>>,
}

/// What a file holds.
#[derive(Debug)]
pub struct Named<T> {
    /// The name of the file.
    pub file: String,
    /// What it says.
    pub content: T,
}

impl Library {
    /// Reads a directory. A file that cannot be understood is an error.
    pub fn read(directory: &Path) -> Result<Self> {
        let entries = std::fs::read_dir(directory);
        let entries = entries.with_context(|| format!("cannot list {}", directory.display()))?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| name.ends_with(".json")).collect();
        names.sort();
        let mut library = Library::default();
        for file in names {
            let text = std::fs::read_to_string(directory.join(&file));
            let text = text.with_context(|| format!("cannot read {file}"))?;
            library.add(file, &text)?;
        }
        library.sort();
        Ok(library)
    }

    /// Adds the text of one file.
    pub fn add(&mut self, file: String, text: &str) -> Result<()> {
        if file.starts_with("throughput") {
            self.throughput.push(Named { content: parse(&file, text)?, file });
        } else if file.starts_with("latency") {
            self.latency.push(Named { content: parse(&file, text)?, file });
        } else if file.starts_with("sweep") {
            self.sweeps.push(Named { content: parse(&file, text)?, file });
        } else if file.starts_with("scale") {
            self.scale.push(Named { content: parse(&file, text)?, file });
        } else if file.starts_with("names") {
            self.names.push(Named { content: parse(&file, text)?, file });
        } else if !file.starts_with("crowd") {
            // Crowds have a page of their own, `docs/scale.md`.
            bail!("{file}: a result is called throughput, latency, sweep, scale, names or crowd");
        }
        Ok(())
    }

    fn sort(&mut self) {
        let key = |named: &Named<Results>| (std::cmp::Reverse(named.content.runs), named.file.len());
        self.throughput.sort_by_key(key);
        self.latency.sort_by_key(key);
    }

    /// The first line that has a quantity of a row on a wire for all of these columns.
    pub fn line(&self, wire: &str, row: Row, quantity: Quantity, columns: &[Column]) -> Option<&Line> {
        let results = self.throughput.iter().chain(&self.latency).map(|named| &named.content);
        let wires = results.flat_map(|results| &results.wires).filter(|it| it.wire == wire);
        wires.flat_map(|it| &it.lines).find(|line| {
            line.row == row
                && line.quantity == quantity
                && columns.iter().all(|column| line.columns.contains_key(column))
        })
    }

    /// The first two lines of one run that have a quantity of one row and of another on a wire for this column.
    pub fn pair(&self, wire: &str, rows: [Row; 2], quantity: Quantity, column: Column) -> Option<[&Line; 2]> {
        let results = self.throughput.iter().chain(&self.latency).map(|named| &named.content);
        let mut wires = results.flat_map(|results| &results.wires).filter(|it| it.wire == wire);
        wires.find_map(|it| {
            let has = |line: &&Line, row| {
                line.row == row && line.quantity == quantity && line.columns.contains_key(&column)
            };
            let [first, second] = rows.map(|row| it.lines.iter().find(|line| has(line, row)));
            first.zip(second).map(|(first, second)| [first, second])
        })
    }

    /// Nanoseconds of an iteration of the micro-benchmark with this name.
    pub fn micro(&self, name: &str) -> Option<f64> {
        let mut micros = self.scale.iter().flat_map(|named| &named.content.micro);
        micros.find(|micro| micro.name == name).map(|micro| micro.ns.median)
    }
}

fn parse<T: DeserializeOwned>(file: &str, text: &str) -> Result<T> {
    serde_json::from_str(text).with_context(|| format!("{file} cannot be understood: measure it again"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_compared_is_of_one_run() {
        let mut library = Library::default();
        let of = |rows: &[&str], kernel| {
            let lines = rows.iter().map(|row| results(5, kernel, &[]).replace("tcp1", row));
            let mut lines = lines.map(|text| serde_json::from_str::<serde_json::Value>(&text).unwrap());
            let mut all = lines.next().unwrap();
            let more = lines.filter_map(|one| one.pointer("/wires/0/lines/0").cloned());
            all.pointer_mut("/wires/0/lines").unwrap().as_array_mut().unwrap().extend(more);
            all.to_string()
        };
        library.add("throughput-a.json".into(), &of(&["flooded"], 1.0)).unwrap();
        library.add("throughput-b.json".into(), &of(&["unread"], 2.0)).unwrap();
        let rows = [Row::Flooded, Row::Unread];
        let pair = |library: &Library| {
            let lines = library.pair("nic", rows, Quantity::GbitPerS, Column::Kernel)?;
            Some(lines.map(|line| line.columns[&Column::Kernel].median))
        };
        assert_eq!(pair(&library), None);
        library.add("throughput-c.json".into(), &of(&["unread", "flooded"], 3.0)).unwrap();
        assert_eq!(pair(&library), Some([3.0, 3.0]));
    }

    fn results(runs: usize, kernel: f64, more: &[(&str, f64)]) -> String {
        let sample = |value: f64| json!({"median": value, "min": value, "max": value, "runs": [value]});
        let mut columns = serde_json::Map::from_iter([("kernel".to_owned(), sample(kernel))]);
        columns.extend(more.iter().map(|(name, value)| ((*name).to_owned(), sample(*value))));
        json!({
            "version": "0", "date": "2026-01-01", "kernel": "6", "processors": 2, "processor": "x",
            "runs": runs, "seconds": 1.0,
            "wires": [{
                "wire": "nic", "columns": ["kernel", "meshnet"], "warnings": [],
                "lines": [{
                    "row": "tcp1", "quantity": "gbit_per_s", "columns": columns, "meshnet_to_kernel": null,
                }],
            }],
        })
        .to_string()
    }

    fn kernel_beside(library: &Library, columns: &[Column]) -> Option<f64> {
        let line = library.line("nic", Row::Tcp1, Quantity::GbitPerS, columns)?;
        Some(line.columns[&Column::Kernel].median)
    }

    #[test]
    fn more_runs_count_more_and_a_line_has_all_that_is_asked_for() {
        let mut library = Library::default();
        let ours = ("meshnet", 5.0);
        library.add("throughput-peers.json".into(), &results(5, 1.0, &[ours, ("ovs", 1.0)])).unwrap();
        library.add("throughput-short.json".into(), &results(3, 2.0, &[ours])).unwrap();
        library.add("throughput.json".into(), &results(5, 3.0, &[ours])).unwrap();
        library.sort();
        assert_eq!(kernel_beside(&library, &[Column::Kernel, Column::Meshnet]), Some(3.0));
        assert_eq!(kernel_beside(&library, &[Column::Meshnet, Column::Ovs]), Some(1.0));
        assert_eq!(kernel_beside(&library, &[Column::Vpncloud]), None);
    }

    #[test]
    fn a_file_that_is_nothing_known_is_an_error() {
        let mut library = Library::default();
        assert!(library.add("speed.json".into(), "{}").is_err());
        let error = library.add("latency.json".into(), "{}").unwrap_err();
        assert!(error.to_string().contains("measure it again"));
    }
}
