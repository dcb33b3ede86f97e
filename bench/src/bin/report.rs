//! `report`: writes `docs/performance.md` and its chart from the committed results.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

/// Writes docs/performance.md from docs/results
#[derive(Parser, Debug)]
#[command(name = "report")]
struct Args {
    /// The directory of the documents; by default that of this source tree
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs"))]
    docs: PathBuf,
}

fn main() -> Result<()> {
    bench::document::write(&Args::parse().docs)
}
