//! The committed results: every JSON file of `docs/results`, told apart by the start of its name.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

use crate::column::Column;
use crate::plan::{Quantity, Row};
use crate::results::{Line, Results};
use crate::scale::Scale;
use crate::sweep::Sweep;

/// Everything that was measured and kept. Of several files the one that has more runs comes first, then by name.
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
        library.throughput.sort_by_key(|it| std::cmp::Reverse(it.content.runs));
        library.latency.sort_by_key(|it| std::cmp::Reverse(it.content.runs));
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
        } else {
            bail!("{file}: a result is called throughput, latency, sweep or scale");
        }
        Ok(())
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
}

fn parse<T: DeserializeOwned>(file: &str, text: &str) -> Result<T> {
    serde_json::from_str(text).with_context(|| format!("{file} cannot be understood: measure it again"))
}
