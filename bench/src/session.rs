//! A whole benchmark: sets the columns up, scene by scene and wire by wire, and runs the plan over them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use netns_tests::Wire;

use crate::column::{Column, Lane};
use crate::load;
use crate::options::{progress, wire_name};
use crate::plan::{Plan, Row, Scene};
use crate::results::{Collector, WireResults};

/// After so many failures one after the other the rest of a cell is not tried.
const ENOUGH_FAILURES: usize = 2;

/// The name of the results of [`Scene::Local`], which has no wire.
pub const NO_WIRE: &str = "none";

/// Runs the whole plan on each wire; rows without a wire once.
pub fn run(plan: &Plan, wires: &[Wire]) -> Result<Vec<WireResults>> {
    let mut results = Vec::new();
    for wire in wires {
        let mut collector = Collector::default();
        for scene in [Scene::Pair, Scene::Spread, Scene::Flooded] {
            measure(plan, scene, *wire, &mut collector)?;
        }
        results.push(collector.finish(wire_name(*wire), plan));
    }
    let mut collector = Collector::default();
    measure(plan, Scene::Local, Wire::Veth, &mut collector)?;
    results.push(collector.finish(NO_WIRE, plan));
    results.retain(|result| !result.lines.is_empty() || !result.warnings.is_empty());
    Ok(results)
}

/// The columns of a scene that can be set up, and all their daemons.
pub struct Lanes {
    lanes: BTreeMap<Column, Lane>,
    daemons: BTreeSet<u32>,
}

impl Lanes {
    /// Sets them up. A column that fails is a failure of the whole: a table that lacks it would not say so.
    pub fn build(columns: &[Column], scene: Scene, wire: Wire) -> Result<Self> {
        let mut lanes = BTreeMap::new();
        for column in columns {
            progress(&format!("{} wire: setting up {column}", wire_name(wire)));
            if let Some(lane) = column.build(scene, wire)? {
                lanes.insert(*column, lane);
            }
        }
        let daemons = lanes.values().flat_map(|lane| lane.route.daemons.iter().copied()).collect();
        Ok(Lanes { lanes, daemons })
    }

    /// One of them.
    pub fn get(&self, column: Column) -> Option<&Lane> {
        self.lanes.get(&column)
    }

    /// The daemons of all.
    pub fn daemons(&self) -> &BTreeSet<u32> {
        &self.daemons
    }
}

fn measure(plan: &Plan, scene: Scene, wire: Wire, collector: &mut Collector) -> Result<()> {
    let Some(plan) = plan.of(scene) else { return Ok(()) };
    let lanes = Lanes::build(&plan.columns, scene, wire)?;
    let mut failures: BTreeMap<(Row, Column), usize> = BTreeMap::new();
    for (row, run, column) in plan.runs() {
        let Some(lane) = lanes.get(column) else { continue };
        let failed = failures.entry((row, column)).or_default();
        if *failed >= ENOUGH_FAILURES {
            continue;
        }
        progress(&format!("{} wire: {row}, run {} of {}, {column}", wire_name(wire), run + 1, plan.runs));
        match load::run(row, lane, lanes.daemons(), plan.time) {
            Ok(result) => {
                *failed = 0;
                collector.add(row, column, result);
            }
            Err(error) => {
                *failed += 1;
                let rest = if *failed == ENOUGH_FAILURES { "; the rest was not tried" } else { "" };
                collector.warn(format!("{row}, {column}, run {} failed: {error:#}{rest}", run + 1));
            }
        }
    }
    progress("");
    Ok(())
}
