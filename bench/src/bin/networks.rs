//! `networks`: many networks with many endpoints on five hosts. Needs root.

#![allow(clippy::print_stdout, reason = "a command-line program prints")]

use std::path::PathBuf;

use anyhow::{Result, ensure};
use bench::networks::trial::{self, Size};
use bench::options::{progress, write_json};
use clap::Parser;

/// Makes many networks with many endpoints on five hosts, measures, and checks what is promised
#[derive(Parser, Debug)]
#[command(name = "networks")]
struct Args {
    /// Networks beside `mesh`
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u16).range(2..=1000))]
    networks: u16,
    /// Endpoints on them, ports included
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    endpoints: u16,
    /// Ports of containers
    #[arg(long, value_name = "N", default_value_t = 200)]
    ports: u16,
    /// Write all figures here too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> Result<()> {
    let Args { networks, endpoints, ports, json } = Args::parse();
    let size = Size { networks: networks.into(), endpoints: endpoints.into(), ports: ports.into() };
    let figures = trial::run(size)?;
    progress("");
    println!("{}\n\n{}\n\n{}", figures.machine, figures.markdown(), figures.rest());
    json.map_or(Ok(()), |path| write_json(&path, &figures))?;
    let broken = figures.broken();
    ensure!(broken.is_empty(), "{}", broken.join("\n"));
    Ok(())
}
