//! The options that `throughput` and `latency` have in common.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use netns_tests::Wire;
use serde::Serialize;

use crate::column::Column;
use crate::plan::{Plan, Row};

/// Which columns, on which wires, how often; rows and times are the programs' own.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Columns: bare, kernel, meshnet, and meshnet sealed: aes, chacha, rekeyed (new keys each second)
    #[arg(long, value_name = "COLUMN", value_delimiter = ',', default_value = "bare,kernel,meshnet")]
    pub columns: Vec<Column>,
    /// Other overlays to measure in the same run: ovs, vpncloud, boringtun, wireguard-go. Programs that are not installed for
    /// everybody are looked for in the directory MESHNET_PEERS
    #[arg(long, value_name = "PEER", value_delimiter = ',')]
    pub peer: Vec<Column>,
    /// Runs of each cell; the columns take turns
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pub runs: u16,
    /// Write all figures here too
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl Options {
    /// The plan for these rows. Fails when something that is asked for is not installed.
    pub fn plan(&self, rows: &[Row], seconds: f64) -> Result<Plan> {
        let time = Duration::try_from_secs_f64(seconds).context("--seconds")?;
        ensure!(!time.is_zero(), "--seconds: nothing happens in no time");
        let mut columns: Vec<Column> = self.columns.iter().chain(&self.peer).copied().collect();
        columns.sort();
        columns.dedup();
        columns.iter().try_for_each(|column| column.check())?;
        Ok(Plan { rows: rows.to_vec(), columns, runs: usize::from(self.runs), time })
    }

    /// Writes the results where `--json` says.
    pub fn write(&self, results: &impl Serialize) -> Result<()> {
        self.json.as_ref().map_or(Ok(()), |path| write_json(path, results))
    }
}

/// Writes results as JSON for people and programs.
pub fn write_json(path: &std::path::Path, results: &impl Serialize) -> Result<()> {
    let json = serde_json::to_string_pretty(results)?;
    std::fs::write(path, json + "\n").with_context(|| format!("cannot write {}", path.display()))
}

/// Reads a wire from the command line.
///
/// # Errors
/// The names there are.
pub fn wire(text: &str) -> Result<Wire, String> {
    let found = Wire::ALL.into_iter().find(|wire| wire_name(*wire) == text);
    found.ok_or_else(|| "expected veth, nic or cut".to_owned())
}

/// The name of a wire on the command line and in the results.
pub fn wire_name(wire: Wire) -> &'static str {
    match wire {
        Wire::Veth => "veth",
        Wire::Nic => "nic",
        Wire::Cut => "cut",
    }
}

/// A line on the terminal that the next one replaces.
#[expect(clippy::print_stderr, reason = "progress is for whoever watches")]
pub fn progress(text: &str) {
    use std::io::Write;
    eprint!("\r\x1b[K{text}");
    let _nobody_reads = std::io::stderr().flush();
}
