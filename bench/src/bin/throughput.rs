//! `throughput`: bare veth, kernel VXLAN and meshnet beside each other in network namespaces. Needs root and iperf3.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program prints")]

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use bench::load;
use bench::plan::{Plan, Row};
use bench::report::{Collector, Results, WireResults};
use bench::rig::Rig;
use clap::Parser;
use netns_tests::{Tool, Wire, meshnet_binary};

/// Measures meshnet beside bare veth and kernel VXLAN
#[derive(Parser, Debug)]
#[command(name = "throughput")]
struct Args {
    /// Wires between the hosts: veth passes 64 KiB packets whole, nic cuts and joins, cut cuts and does not join
    #[arg(long, value_name = "WIRE", value_delimiter = ',', value_parser = wire, default_value = "nic,veth,cut")]
    wires: Vec<Wire>,
    /// What to measure: tcp1, tcp4, udp64, ping
    #[arg(long, value_name = "ROW", value_delimiter = ',', default_value = "tcp1,tcp4,udp64,ping")]
    rows: Vec<Row>,
    /// Runs of each cell; the columns take turns
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Length of a run
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0)]
    seconds: f64,
    /// Write all figures here too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn wire(text: &str) -> Result<Wire, String> {
    let found = Wire::ALL.into_iter().find(|wire| name(*wire) == text);
    found.ok_or_else(|| "expected veth, nic or cut".to_owned())
}

fn name(wire: Wire) -> &'static str {
    match wire {
        Wire::Veth => "veth",
        Wire::Nic => "nic",
        Wire::Cut => "cut",
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    let time = Duration::try_from_secs_f64(args.seconds).context("--seconds")?;
    let plan = Plan { rows: args.rows.clone(), runs: usize::from(args.runs), time };
    let mut results = describe(&plan)?;
    for wire in &args.wires {
        results.wires.push(measure(*wire, &plan)?);
    }
    println!("{}", results.markdown());
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(&results)?;
        std::fs::write(path, json + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn measure(wire: Wire, plan: &Plan) -> Result<WireResults> {
    let rig = Rig::build(wire)?;
    let mut collector = Collector::default();
    rig.with_routes(|route| {
        for (row, run, column) in plan.runs() {
            progress(&format!("{} wire: {row}, run {} of {}, {column}", name(wire), run + 1, plan.runs));
            match load::run(row, &route(column), plan.time) {
                Ok(result) => collector.add(row, column, result),
                Err(error) => collector.warn(format!("{row}, {column}, run {}: {error:#}", run + 1)),
            }
        }
        Ok(())
    })?;
    progress("");
    Ok(collector.finish(name(wire).to_owned(), plan))
}

/// A line on the terminal that the next one replaces.
fn progress(text: &str) {
    eprint!("\r\x1b[K{text}");
    let _nobody_reads = std::io::stderr().flush();
}

fn describe(plan: &Plan) -> Result<Results> {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let version = Tool::new(meshnet_binary()?.to_string_lossy()).args(["--version"]).run()?;
    Ok(Results {
        kernel: nix::sys::utsname::uname()?.release().to_string_lossy().into_owned(),
        processors: std::thread::available_parallelism()?.get(),
        processor: model.map_or_else(String::new, |(_, model)| model.trim().to_owned()),
        version: version.trim().trim_start_matches("meshnet ").to_owned(),
        runs: plan.runs,
        seconds: plan.time.as_secs_f64(),
        wires: Vec::new(),
    })
}
