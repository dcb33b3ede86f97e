//! `throughput`: how much goes through, beside bare veth and kernel VXLAN. Needs root and iperf3.

#![allow(clippy::print_stdout, reason = "a command-line program prints")]

use anyhow::Result;
use bench::machine::Machine;
use bench::options::{Options, wire};
use bench::plan::Row;
use bench::results::Results;
use bench::session;
use clap::Parser;
use netns_tests::Wire;

/// Measures how much meshnet carries, beside bare veth and kernel VXLAN
#[derive(Parser, Debug)]
#[command(name = "throughput")]
struct Args {
    /// Wires between the hosts: veth passes 64 KiB packets whole, nic cuts and joins, cut cuts and does not join
    #[arg(long, value_name = "WIRE", value_delimiter = ',', value_parser = wire, default_value = "nic,veth,cut")]
    wires: Vec<Wire>,
    /// What to measure: tcp1, tcp4 (and with an r behind the other way), udp64, udp64i (from
    /// iperf3), udp1400, imix, spread64 (64 flows to
    /// 8 hosts), local (two containers of one host); of the column aes: flooded (a stream beside forged handshakes), unread
    /// (beside as many datagrams to a port that nobody reads)
    #[arg(long, value_name = "ROW", value_delimiter = ',', value_parser = row)]
    #[arg(default_value = "tcp1,tcp1r,tcp4,tcp4r,udp64,udp64i,udp1400,imix,spread64,local")]
    rows: Vec<Row>,
    /// Length of a run
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0)]
    seconds: f64,
    #[command(flatten)]
    options: Options,
}

fn row(text: &str) -> Result<Row, String> {
    Row::find(text, &[&Row::THROUGHPUT[..], &Row::FLOODS].concat())
}

fn main() -> Result<()> {
    let args = Args::parse();
    let plan = args.options.plan(&args.rows, args.seconds)?;
    let results = Results {
        machine: Machine::read()?,
        runs: plan.runs,
        seconds: args.seconds,
        wires: session::run(&plan, &args.wires)?,
    };
    println!("{}", results.markdown());
    args.options.write(&results)
}
