//! The length of the ring between a container's kernel and the daemon: throughput against what echoes wait in it.
//!
//! A TAP's ring counts super-frames, so that the usual 1000 hold 64 MB. The shortest that costs no throughput is the
//! right one.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use netns_tests::Wire;
use serde::{Deserialize, Serialize};

use crate::column::{Column, Lane};
use crate::load;
use crate::machine::Machine;
use crate::options::{progress, wire_name};
use crate::plan::{Plan, Quantity, Row, Scene};
use crate::results::Foreign;
use crate::session::Lanes;
use crate::stats::Sample;
use crate::table::{aligned, figure};

/// What is told of each length.
const QUANTITIES: [Quantity; 4] = [Quantity::GbitPerS, Quantity::P50Us, Quantity::P99Us, Quantity::P999Us];

/// Everything of one sweep, as its JSON has it.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Sweep {
    /// What it was measured on.
    #[serde(flatten)]
    pub machine: Machine,
    /// The wire.
    pub wire: String,
    /// Runs of each length; the lengths take turns.
    pub runs: usize,
    /// Seconds of a run.
    pub seconds: f64,
    /// The figures.
    pub lengths: Vec<Length>,
    /// What makes the figures doubtful, for people.
    pub warnings: Vec<String>,
}

/// One length of the ring.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Length {
    /// `txqueuelen` of the device in the container: frames and super-frames.
    pub txqueuelen: u32,
    /// What one TCP stream carries, and how long echoes beside it take.
    pub figures: BTreeMap<Quantity, Sample>,
}

/// Measures every length, in turns.
pub fn run(lengths: &[u32], wire: Wire, plan: &Plan) -> Result<Sweep> {
    let machine = Machine::read()?;
    let lanes = Lanes::build(&[Column::Meshnet], Scene::Pair, wire)?;
    let lane = lanes.get(Column::Meshnet).context("meshnet was not set up")?;
    let mut collected: BTreeMap<(u32, Quantity), Vec<f64>> = BTreeMap::new();
    let (mut warnings, mut foreign) = (Vec::new(), Foreign::default());
    for run in 0..plan.runs {
        for turn in 0..lengths.len() {
            let Some(&length) = lengths.get((run + turn) % lengths.len()) else { continue };
            progress(&format!("txqueuelen {length}, run {} of {}", run + 1, plan.runs));
            set(lane, length)?;
            match load::run(Row::Loaded, lane, lanes.daemons(), plan.time) {
                Ok(run) => {
                    let figures = run.figures.into_iter();
                    figures.for_each(|(what, it)| collected.entry((length, what)).or_default().push(it));
                    foreign.add(run.foreign);
                }
                Err(error) => {
                    warnings.push(format!("txqueuelen {length}, run {} failed: {error:#}", run + 1))
                }
            }
        }
    }
    progress("");
    warnings.extend(foreign.warnings());
    let of = |length: &u32| Length {
        txqueuelen: *length,
        figures: QUANTITIES
            .into_iter()
            .filter_map(|what| Some((what, Sample::of(collected.get(&(*length, what))?)?)))
            .collect(),
    };
    let lengths = lengths.iter().map(of).collect();
    let (wire, seconds) = (wire_name(wire).to_owned(), plan.time.as_secs_f64());
    Ok(Sweep { machine, wire, runs: plan.runs, seconds, lengths, warnings })
}

fn set(lane: &Lane, length: u32) -> Result<()> {
    let mut devices = lane.devices.iter();
    devices.try_for_each(|(namespace, device)| {
        namespace.ip(&format!("link set dev {device} txqueuelen {length}")).map(drop)
    })
}

impl Sweep {
    /// What was measured on, and how.
    pub fn headline(&self) -> String {
        let Sweep { machine, wire, runs, seconds, .. } = self;
        format!(
            "{machine}; {wire} wire, median of {runs} interleaved runs of {seconds} s (spread of all runs)"
        )
    }

    /// The table as Markdown.
    pub fn markdown(&self) -> String {
        let head = std::iter::once("txqueuelen".to_owned()).chain(QUANTITIES.map(|it| it.to_string()));
        let mut rows = vec![head.collect::<Vec<_>>()];
        rows.extend(self.lengths.iter().map(|length| {
            let cells = QUANTITIES.iter().map(|what| match length.figures.get(what) {
                Some(it) => format!("{} ({:.0} %)", figure(it.median), it.spread() * 100.0),
                None => "-".to_owned(),
            });
            std::iter::once(length.txqueuelen.to_string()).chain(cells).collect()
        }));
        let warnings: String =
            self.warnings.iter().map(|warning| format!("\nwarning: {warning}\n")).collect();
        aligned(&rows) + &warnings
    }
}
