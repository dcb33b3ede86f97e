//! `latency`: how long an echo takes, idle and beside a TCP stream; and how long the ring to the daemon should be. Needs
//! root and iperf3.

#![allow(clippy::print_stdout, reason = "a command-line program prints")]

use anyhow::Result;
use bench::machine::Machine;
use bench::options::{Options, wire};
use bench::plan::Row;
use bench::results::Results;
use bench::{session, sweep};
use clap::Parser;
use netns_tests::Wire;

/// Measures round trips through meshnet, beside bare veth and kernel VXLAN
#[derive(Parser, Debug)]
#[command(name = "latency")]
struct Args {
    /// Wires between the hosts: veth passes 64 KiB packets whole, nic cuts and joins, cut cuts and does not join
    #[arg(long, value_name = "WIRE", value_delimiter = ',', value_parser = wire, default_value = "nic")]
    wires: Vec<Wire>,
    /// What to measure: rtt1 and rtt100 (idle, so many echoes a second), loaded (100 a second beside a TCP stream)
    #[arg(long, value_name = "ROW", value_delimiter = ',', value_parser = row, default_value = "rtt1,rtt100,loaded")]
    rows: Vec<Row>,
    /// Length of a run
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    seconds: f64,
    /// Instead: with the device in meshnet's containers set to each of these lengths, what TCP carries and how long
    /// echoes beside it take
    #[arg(long, value_name = "LENGTH", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..))]
    txqueuelen: Vec<u32>,
    #[command(flatten)]
    options: Options,
}

fn row(text: &str) -> Result<Row, String> {
    Row::find(text, &Row::LATENCY)
}

fn main() -> Result<()> {
    let args = Args::parse();
    let plan = args.options.plan(&args.rows, args.seconds)?;
    if !args.txqueuelen.is_empty() {
        let [wire] = args.wires[..] else { anyhow::bail!("--txqueuelen: one wire at a time") };
        let sweep = sweep::run(&args.txqueuelen, wire, &plan)?;
        println!("{}\n\n{}", sweep.headline(), sweep.markdown());
        return args.options.write(&sweep);
    }
    let results = Results {
        machine: Machine::read()?,
        runs: plan.runs,
        seconds: args.seconds,
        wires: session::run(&plan, &args.wires)?,
    };
    println!("{}", results.markdown());
    args.options.write(&results)
}
