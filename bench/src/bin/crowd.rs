//! `crowd`: 100 to 1000 simulated hosts, started at once.

#![allow(clippy::print_stdout, reason = "a command-line program prints")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a benchmark is all clocks, files and processes"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use bench::crowd::page;
use bench::crowd::trial::{self, Figures, Targets};
use bench::options::write_json;
use clap::{Parser, ValueEnum};

/// Starts very many simulated hosts at once, measures, and checks what is promised
#[derive(Parser, Debug)]
#[command(name = "crowd")]
struct Args {
    /// How many hosts, a trial for each number
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "100,300,1000")]
    hosts: Vec<usize>,
    /// What each host is told, a trial for each
    #[arg(long, value_name = "HOW", value_delimiter = ',', default_value = "one,random,list")]
    targets: Vec<Targets>,
    /// What decides everything that happens by chance
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Tell each virtual second what happens
    #[arg(long)]
    verbose: bool,
    /// Write docs/results/crowd.json and docs/scale.md
    #[arg(long)]
    write: bool,
    /// The directory of the documents; by default that of this source tree
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs"))]
    docs: PathBuf,
    /// Run the one trial in this process, and print its figures as JSON
    #[arg(long, hide = true)]
    child: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if args.child {
        let (hosts, targets) = args.hosts.first().zip(args.targets.first()).context("a trial needs both")?;
        let figures = trial::run(*hosts, *targets, args.seed, args.verbose)?;
        println!("{}", serde_json::to_string(&figures)?);
        return Ok(());
    }
    let mut all = Vec::new();
    for &hosts in &args.hosts {
        for &targets in &args.targets {
            all.push(trial_of(&args, hosts, targets)?);
        }
    }
    println!("{}", page::page(&all));
    if args.write {
        write(&args.docs, &all)?;
    }
    let broken = page::broken(&all);
    ensure!(broken.is_empty(), "{}", broken.join("\n"));
    Ok(())
}

/// A process of its own for each trial: what an earlier one has allocated is not its memory.
fn trial_of(args: &Args, hosts: usize, targets: Targets) -> Result<Figures> {
    let name = targets.to_possible_value().context("a way without a name")?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--child", "--hosts", &hosts.to_string(), "--targets", name.get_name()]);
    command.args(["--seed", &args.seed.to_string()]);
    if args.verbose {
        command.arg("--verbose");
    }
    let output = command.stderr(Stdio::inherit()).output().context("cannot start a trial")?;
    ensure!(output.status.success(), "the trial of {hosts} hosts failed");
    serde_json::from_slice(&output.stdout).context("the trial printed no figures")
}

fn write(docs: &Path, all: &[Figures]) -> Result<()> {
    write_json(&docs.join(page::RESULTS), &all)?;
    let path = docs.join(page::PAGE);
    std::fs::write(&path, page::page(all)).with_context(|| format!("cannot write {}", path.display()))
}
