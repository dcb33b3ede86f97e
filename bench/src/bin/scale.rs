//! `scale`: what more ports, peers and stations cost. Needs valgrind; for memory also root.

#![allow(clippy::print_stdout, reason = "a command-line program prints")]

use std::path::PathBuf;

use anyhow::{Context, Result};
use bench::machine::Machine;
use bench::options::write_json;
use bench::scale::{self, Scale};
use bench::{callgrind, options::progress};
use clap::{Parser, ValueEnum};

/// Measures what more ports, peers and stations cost
#[derive(Parser, Debug)]
#[command(name = "scale")]
struct Args {
    /// What to measure
    #[arg(long, value_name = "PART", value_delimiter = ',', default_value = "points,learned,memory,micro")]
    parts: Vec<Part>,
    /// Runs of each timing; they take turns
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Write all figures here too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Do nothing but this, under valgrind
    #[arg(long, hide = true, requires = "iterations")]
    child: Option<String>,
    #[arg(long, hide = true)]
    iterations: Option<u64>,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    /// Hosts with 2 to 1000 ports or peers
    Points,
    /// More stations than a table holds
    Learned,
    /// Resident memory of a daemon
    Memory,
    /// The micro-benchmarks
    Micro,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some((what, iterations)) = args.child.as_ref().zip(args.iterations) {
        callgrind::repeat(&mut scale::child(what)?, iterations);
        return Ok(());
    }
    let results = measure(&args)?;
    progress("");
    println!("{}\n\n{}", results.headline(), results.markdown());
    args.json.as_ref().map_or(Ok(()), |path| write_json(path, &results))
}

fn measure(args: &Args) -> Result<Scale> {
    let (runs, wanted) = (usize::from(args.runs), |part| args.parts.contains(&part));
    if wanted(Part::Points) || wanted(Part::Micro) {
        callgrind::check()?;
    }
    Ok(Scale {
        machine: Machine::read().context("cannot tell what is measured")?,
        runs,
        points: if wanted(Part::Points) { scale::points(runs)? } else { Vec::new() },
        learned: wanted(Part::Learned).then(scale::stations).transpose()?,
        memory: wanted(Part::Memory).then(scale::daemon_memory).transpose()?,
        micro: if wanted(Part::Micro) { scale::micro(runs)? } else { Vec::new() },
    })
}
