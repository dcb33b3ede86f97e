//! Instructions, counted by valgrind's callgrind: repeatable within a percent or so, beside any load.
//!
//! This program is run again as a child under valgrind with `--child WHAT --iterations N`, twice, and the difference
//! of the two counts is that of the iterations between: the setting up cancels out. Only [`repeat`] is counted, so
//! that what a hash map does with its random keys while tables are filled does not show.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use netns_tests::Tool;

/// The two numbers of iterations. The first is not zero, since a first iteration is not like the others.
const ITERATIONS: [u64; 2] = [200, 1200];

/// A child that takes longer is stuck.
const LIMIT: Duration = Duration::from_secs(120);

/// Fails when valgrind is not installed.
pub fn check() -> Result<()> {
    Tool::new("valgrind").args(["--version"]).run().map(drop).context("apt-get install valgrind")
}

/// Instructions for one iteration of `what`, which [`crate::scale::child`] knows how to do.
pub fn instructions(what: &str) -> Result<f64> {
    let [few, many] = ITERATIONS;
    let (before, after) = (count(what, few)?, count(what, many)?);
    ensure!(after > before, "{what}: {after} instructions for {many} iterations, {before} for {few}");
    Ok((after - before) as f64 / (many - few) as f64)
}

/// What the child does with its work.
#[inline(never)]
pub fn repeat(work: &mut dyn FnMut(), iterations: u64) {
    for _ in 0..iterations {
        work();
    }
}

fn count(what: &str, iterations: u64) -> Result<u64> {
    let program = std::env::current_exe()?;
    let outcome = Tool::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*callgrind*repeat*"])
        .args([&*program.to_string_lossy(), "--child", what, "--iterations", &iterations.to_string()])
        .limit(LIMIT)
        .outcome()?;
    if outcome.code != Some(0) {
        bail!("`{}` ended with {:?}: {}", outcome.what, outcome.code, outcome.stderr);
    }
    collected(&outcome.stderr).with_context(|| format!("no count in {}", outcome.stderr))
}

/// The number behind `Collected :` in what callgrind says at its end.
fn collected(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found_in_what_callgrind_says() {
        let text = "==7== \n==7== Events    : Ir\n==7== Collected : 4711\n==7== \n";
        assert_eq!(collected(text), Some(4711));
        assert_eq!(collected("==7== Events    : Ir\n"), None);
    }
}
